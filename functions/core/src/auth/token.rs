//! Access tokens: EdDSA JWTs of ten minutes, for people and for executors, told apart by audience.
//!
//! The signature only says who called; every statement checks in the database that the session still
//! lives, so ending a session takes effect at once. Gateways verify the same tokens by public key alone.

use std::iter;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey, pkcs8::DecodePrivateKey as _};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rackhand_schema::{
    ErrorCode,
    audit::TokenKey,
    digest::sha256_hex,
    id::{ExecutorId, ExecutorSessionId, SessionId, SiteId, UserId},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::jwt;
use crate::{
    audit::note,
    problem::{Answer, Refusal},
};

/// Seconds.
pub const ACCESS_TTL: u32 = 600;
/// A token is taken for so much longer, seconds. One host dates it and another may check it, and their clocks
/// differ a little; the database decides whether the session still lives, so no more is needed.
const LEEWAY: u64 = 5;

const ISSUER: &str = "rackhand";
const PEOPLE: &str = "rackhand";
const EXECUTORS: &str = "rackhand-executor";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Claims {
    pub sub: UserId,
    pub sid: SessionId,
    /// Unix seconds.
    pub exp: u64,
    pub iat: u64,
    iss: String,
    aud: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecutorClaims {
    pub sub: ExecutorId,
    pub sid: ExecutorSessionId,
    pub site: SiteId,
    /// Unix seconds.
    pub exp: u64,
    pub iat: u64,
    iss: String,
    aud: String,
}

/// A line is neither 64 hex digits nor part of a PKCS#8 PEM of an Ed25519 key, nor a former public key.
#[derive(Debug, thiserror::Error)]
#[error(
    "a signing key is neither 64 hex digits (a 32-byte seed) nor a PKCS#8 PEM of an Ed25519 key, or a key after the word \
     `former` is not one that /v1/audit/keys shows"
)]
pub struct InvalidKey;

/// The control plane's keys: one signs tokens, it and others verify them, and one signs checkpoints.
#[derive(Clone)]
pub struct SigningKeys {
    signer: SigningKey,
    /// The same, for tokens.
    signing: EncodingKey,
    /// The first one is that of `signer`.
    verifying: Vec<Verifier>,
    checkpoints: SigningKey,
    /// Keys that may have signed checkpoints before.
    former: Vec<VerifyingKey>,
}

#[derive(Clone)]
struct Verifier {
    kid: String,
    point: VerifyingKey,
    /// The same, for tokens.
    decoding: DecodingKey,
}

const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";
/// In front of the key that signs checkpoints.
const CHECKPOINTS: &str = "checkpoints";
/// In front of a public key that has signed checkpoints before.
const FORMER: &str = "former";

impl SigningKeys {
    /// From a key file's text. A key is a line, a 32-byte seed as hex, or the PEM that `openssl genpkey
    /// -algorithm ed25519` writes. The first one signs tokens; tokens of all others are taken too, so that
    /// keys can be replaced while instances run: the new one is added to every instance, moved to the front,
    /// and the old one removed when its last token has ended. The one after the word `checkpoints` signs
    /// checkpoints; without one, a key derived from the first does. Those that others of these keys have signed stand
    /// too, and those of a public key after the word `former`, written as `/v1/audit/keys` shows it.
    ///
    /// # Errors
    /// [`InvalidKey`].
    pub fn from_text(text: &str) -> Result<Self, InvalidKey> {
        let mut tokens = Vec::new();
        let mut checkpoints = Vec::new();
        let mut former = Vec::new();
        let (mut for_checkpoints, mut is_former) = (false, false);
        let mut pem: Option<Zeroizing<String>> = None;
        for word in text.lines().flat_map(|line| match line.trim() {
            line if line.starts_with("-----") => vec![line],
            line => line.split_whitespace().collect(),
        }) {
            if std::mem::take(&mut is_former) {
                former.push(note::public_key(word).ok_or(InvalidKey)?);
                continue;
            }
            let seed = match (&mut pem, word) {
                (None, CHECKPOINTS) => {
                    for_checkpoints = true;
                    continue;
                }
                (None, FORMER) => {
                    is_former = true;
                    continue;
                }
                (None, PEM_BEGIN) => {
                    pem = Some(Zeroizing::default());
                    continue;
                }
                (Some(body), PEM_END) => {
                    let der = Zeroizing::new(super::base64_decode(body).ok_or(InvalidKey)?);
                    pem = None;
                    let key = SigningKey::from_pkcs8_der(&der).map_err(|_| InvalidKey)?;
                    Zeroizing::new(key.to_bytes())
                }
                (Some(body), word) => {
                    body.push_str(word);
                    continue;
                }
                (None, word) => {
                    let mut seed = Zeroizing::new([0; 32]);
                    hex::decode_to_slice(word, &mut *seed).map_err(|_| InvalidKey)?;
                    seed
                }
            };
            if std::mem::take(&mut for_checkpoints) {
                checkpoints.push(SigningKey::from_bytes(&seed));
            } else {
                tokens.push(seed);
            }
        }
        let (Some(first), false, None) = (tokens.first(), for_checkpoints || is_former, &pem) else {
            return Err(InvalidKey);
        };
        let mut keys = Self::from_seed(first);
        keys.verifying = tokens.iter().map(|seed| Verifier::of(seed)).collect();
        checkpoints.extend(tokens.iter().map(|seed| derived(seed)));
        former.extend(checkpoints.iter().skip(1).map(SigningKey::verifying_key));
        keys.former = former;
        keys.checkpoints = checkpoints.swap_remove(0);
        Ok(keys)
    }

    pub fn from_seed(seed: &[u8; 32]) -> Self {
        jwt::install();
        Self {
            signer: SigningKey::from_bytes(seed),
            signing: jwt::encoding_key(seed),
            verifying: vec![Verifier::of(seed)],
            checkpoints: derived(seed),
            former: Vec::new(),
        }
    }

    /// For those who verify tokens without us.
    pub fn public_keys(&self) -> Vec<TokenKey> {
        let of =
            |key: &Verifier| TokenKey { kid: key.kid.clone(), public_key: hex::encode(key.point.as_bytes()) };
        self.verifying.iter().map(of).collect()
    }

    /// The key that signs checkpoints.
    pub const fn checkpoints(&self) -> &SigningKey {
        &self.checkpoints
    }

    /// The keys whose checkpoints are ours: the one that signs them, and those that may have before.
    pub fn checkpoint_keys(&self) -> impl Iterator<Item = &VerifyingKey> {
        iter::once(self.checkpoints.as_ref()).chain(&self.former)
    }

    /// Ed25519 over these bytes, for [`Self::signed`].
    pub fn sign_bytes(&self, bytes: &[u8]) -> [u8; 64] {
        self.signer.sign(bytes).to_bytes()
    }

    /// Whether this is what [`Self::sign_bytes`] gave for these bytes, with this key or a former one.
    pub fn signed(&self, bytes: &[u8], signature: &[u8; 64]) -> bool {
        let signature = Signature::from_bytes(signature);
        self.verifying.iter().any(|key| key.point.verify_strict(bytes, &signature).is_ok())
    }

    pub fn sign_user(&self, user: UserId, session: SessionId, now: u64) -> Answer<String> {
        self.sign(&Claims {
            sub: user,
            sid: session,
            exp: now + u64::from(ACCESS_TTL),
            iat: now,
            iss: ISSUER.to_owned(),
            aud: PEOPLE.to_owned(),
        })
    }

    pub fn sign_executor(
        &self,
        executor: ExecutorId,
        session: ExecutorSessionId,
        site: SiteId,
        now: u64,
    ) -> Answer<String> {
        self.sign(&ExecutorClaims {
            sub: executor,
            sid: session,
            site,
            exp: now + u64::from(ACCESS_TTL),
            iat: now,
            iss: ISSUER.to_owned(),
            aud: EXECUTORS.to_owned(),
        })
    }

    pub fn verify_user(&self, token: &str, now: u64) -> Answer<Claims> {
        let claims: Claims = self.verify(token, PEOPLE)?;
        check_time(claims.exp, now)?;
        Ok(claims)
    }

    pub fn verify_executor(&self, token: &str, now: u64) -> Answer<ExecutorClaims> {
        let claims: ExecutorClaims = self.verify(token, EXECUTORS)?;
        check_time(claims.exp, now)?;
        Ok(claims)
    }

    fn sign<T: Serialize>(&self, claims: &T) -> Answer<String> {
        let kid = self.verifying.first().map(|key| key.kid.clone());
        jsonwebtoken::encode(&Header { kid, ..Header::new(Algorithm::EdDSA) }, claims, &self.signing)
            .map_err(|error| Refusal::internal(format!("signing a token: {error}")))
    }

    /// Time is checked by the caller: the library would read a clock.
    fn verify<T: DeserializeOwned>(&self, token: &str, audience: &str) -> Answer<T> {
        let refuse = || Refusal::new(ErrorCode::NotSignedIn, "The access token is not valid. Sign in again.");
        let header = jsonwebtoken::decode_header(token).map_err(|_| refuse())?;
        let known = |key: &&Verifier| header.kid.as_deref() == Some(&key.kid);
        let key = self.verifying.iter().find(known).ok_or_else(refuse)?;
        let mut rules = Validation::new(Algorithm::EdDSA);
        rules.validate_exp = false;
        rules.set_issuer(&[ISSUER]);
        rules.set_audience(&[audience]);
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let decoded = jsonwebtoken::decode::<T>(token, &key.decoding, &rules).map_err(|_| refuse())?;
        Ok(decoded.claims)
    }
}

/// The key that signs checkpoints where none is named.
fn derived(seed: &[u8; 32]) -> SigningKey {
    let seed = Sha256::new().chain_update(b"rackhand checkpoints 1\n").chain_update(seed).finalize();
    SigningKey::from_bytes(&seed.into())
}

impl Verifier {
    fn of(seed: &[u8; 32]) -> Self {
        let point = SigningKey::from_bytes(seed).verifying_key();
        // Names the key in tokens: the first 16 hex digits of the public key's SHA-256.
        let kid = sha256_hex(point.as_bytes()).chars().take(16).collect();
        Self { kid, point, decoding: jwt::decoding_key(point.as_bytes()) }
    }
}

fn check_time(exp: u64, now: u64) -> Answer<()> {
    if now > exp.saturating_add(LEEWAY) {
        let expired = Refusal::new(ErrorCode::NotSignedIn, "The access token has expired. Refresh it.");
        return Err(Refusal { routine: true, ..expired });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01920000-0000-7000-8000-000000000001";

    #[test]
    fn tokens_are_for_one_audience_one_key_and_ten_minutes() {
        let keys = SigningKeys::from_seed(&[7; 32]);
        let now = 1_800_000_000;
        let user = keys.sign_user(ID.parse().unwrap(), ID.parse().unwrap(), now).unwrap();
        let claims = keys.verify_user(&user, now + 600).unwrap();
        assert_eq!(claims.sub, ID.parse().unwrap());
        assert!(keys.verify_user(&user, now + 605).is_ok(), "five seconds between two hosts' clocks");
        assert_eq!(keys.verify_user(&user, now + 606).unwrap_err().code, ErrorCode::NotSignedIn);
        assert!(keys.verify_executor(&user, now).is_err(), "a person's token is none of an executor");
        assert!(SigningKeys::from_seed(&[8; 32]).verify_user(&user, now).is_err(), "another key");
        let id = ID.parse().unwrap();
        let executor = keys.sign_executor(id, ID.parse().unwrap(), ID.parse().unwrap(), now).unwrap();
        assert!(keys.verify_user(&executor, now).is_err());
        assert!(keys.verify_executor(&executor, now + 605).is_ok());
        assert_eq!(keys.verify_executor(&executor, now + 606).unwrap_err().code, ErrorCode::NotSignedIn);
        for broken in ["", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", &user[..user.len() - 2]] {
            assert!(keys.verify_user(broken, now).is_err(), "{broken}");
        }
    }

    #[test]
    fn both_key_formats_give_the_same_key() {
        // RFC 8410 §10.3.
        let pem = "-----BEGIN PRIVATE KEY-----\n\
            MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
            -----END PRIVATE KEY-----\n";
        let seed = "d4ee72dbf913584ad5b6d8f1f769f8ad3afe7c28cbf1d4fbe097a88f44755842\n";
        let (from_pem, from_seed) =
            (SigningKeys::from_text(pem).unwrap(), SigningKeys::from_text(seed).unwrap());
        assert_eq!(from_pem.public_keys()[0].public_key, from_seed.public_keys()[0].public_key);
        assert_eq!(from_pem.checkpoints(), from_seed.checkpoints());
        for broken in
            ["too short", "", "checkpoints", "-----BEGIN PRIVATE KEY-----\nMC4C", &format!("{seed}x")]
        {
            assert!(SigningKeys::from_text(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn a_key_is_replaced_while_tokens_of_the_old_one_live() {
        let (old, new, sealing) = ("11".repeat(32), "22".repeat(32), "33".repeat(32));
        let keys = |text: String| SigningKeys::from_text(&text).unwrap();
        // Everywhere the old one; the new one is known; it signs; the old one is gone.
        let steps = [
            keys(old.clone()),
            keys(format!("{old}\n{new}\n")),
            keys(format!("{new}\n{old}\ncheckpoints {sealing}")),
            keys(format!("{new}\ncheckpoints {sealing}")),
        ];
        let now = 1_800_000_000;
        for pair in steps.windows(2) {
            for (from, to) in [(0, 1), (1, 0)] {
                let token = pair[from].sign_user(ID.parse().unwrap(), ID.parse().unwrap(), now).unwrap();
                assert!(pair[to].verify_user(&token, now).is_ok(), "instances of a rolling release");
            }
        }
        let token = steps[0].sign_user(ID.parse().unwrap(), ID.parse().unwrap(), now).unwrap();
        assert!(steps[3].verify_user(&token, now).is_err());
        let sealing = keys(sealing);
        assert_eq!(
            hex::encode(steps[3].checkpoints().verifying_key().as_bytes()),
            sealing.public_keys()[0].public_key
        );
        assert_ne!(steps[0].checkpoints().to_bytes(), [0x11; 32], "no token is signed with it");

        // Checkpoints: each step knows those of the one before, and the last one those of the first if it is told.
        for pair in steps.windows(2) {
            let signer = pair[0].checkpoints().verifying_key();
            assert!(pair[1].checkpoint_keys().any(|key| *key == signer));
        }
        let first = steps[0].checkpoints().verifying_key();
        assert!(!steps[3].checkpoint_keys().any(|key| *key == first));
        let vkey = note::verifier_key("rackhand/log/audit", &first);
        let told = SigningKeys::from_text(&format!("{}\nformer {vkey}\n", "22".repeat(32))).unwrap();
        assert!(told.checkpoint_keys().any(|key| *key == first));
        for broken in ["former", "former x", &format!("former {}", vkey.replace("audit", "lines"))] {
            assert!(SigningKeys::from_text(&format!("{}\n{broken}", "22".repeat(32))).is_err(), "{broken}");
        }
    }

    #[test]
    fn the_key_file_in_the_guide_is_one() {
        let guide = include_str!("../../../../docs/deploy/database.md");
        let (_, chapter) = guide.split_once("## Signing keys\n").unwrap();
        let file = chapter.split("```\n").nth(1).unwrap();
        assert_eq!(file.lines().count(), 4, "{file}");
        let seeds = ["11", "33", "44"].iter().map(|byte| byte.repeat(32));
        let file = seeds.fold(file.to_owned(), |file, seed| file.replacen("KEY", &seed, 1));
        let keys = SigningKeys::from_text(&file).unwrap();
        let point = |byte: u8| SigningKey::from_bytes(&[byte; 32]).verifying_key();
        let verifying: Vec<_> = keys.verifying.iter().map(|key| key.point).collect();
        assert_eq!(verifying, [point(0x11), point(0x33)]);
        assert_eq!(keys.checkpoints().verifying_key(), point(0x44));
        assert!(keys.checkpoint_keys().any(|key| *key == point(0x22)), "the former one");
    }
}
