//! Access tokens: EdDSA JWTs of ten minutes, for people and for executors, told apart by audience.
//!
//! The signature only says who called; every statement checks in the database that the session still
//! lives, so ending a session takes effect at once. Gateways verify the same tokens by public key alone.

use ed25519_dalek::{Signer as _, SigningKey, pkcs8::DecodePrivateKey as _};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rackhand_schema::{
    ErrorCode,
    digest::sha256_hex,
    id::{ExecutorId, ExecutorSessionId, SessionId, SiteId, UserId},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use super::jwt;
use crate::problem::{Answer, Refusal};

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

/// The text is neither 64 hex digits nor a PKCS#8 PEM of an Ed25519 key.
#[derive(Debug, thiserror::Error)]
#[error("the signing key is neither 64 hex digits (a 32-byte seed) nor a PKCS#8 PEM of an Ed25519 key")]
pub struct InvalidKey;

/// The control plane's signing key.
#[derive(Clone)]
pub struct SigningKeys {
    kid: String,
    public: [u8; 32],
    signing: SigningKey,
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl SigningKeys {
    /// From a key file's text: a 32-byte seed as hex, or the PEM that `openssl genpkey -algorithm ed25519`
    /// writes.
    ///
    /// # Errors
    /// [`InvalidKey`].
    pub fn from_text(text: &str) -> Result<Self, InvalidKey> {
        let text = text.trim();
        if let Some(body) = text.strip_prefix("-----BEGIN PRIVATE KEY-----") {
            let body = body.strip_suffix("-----END PRIVATE KEY-----").ok_or(InvalidKey)?;
            let joined = Zeroizing::new(body.split_whitespace().collect::<String>());
            let der = Zeroizing::new(super::base64_decode(&joined).ok_or(InvalidKey)?);
            let key = SigningKey::from_pkcs8_der(&der).map_err(|_| InvalidKey)?;
            return Ok(Self::from_seed(key.as_bytes()));
        }
        let mut seed = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text, &mut *seed).map_err(|_| InvalidKey)?;
        Ok(Self::from_seed(&seed))
    }

    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let signing = SigningKey::from_bytes(seed);
        let public = signing.verifying_key().to_bytes();
        jwt::install();
        Self {
            kid: sha256_hex(&public).chars().take(16).collect(),
            public,
            signing,
            encoding: jwt::encoding_key(seed),
            decoding: jwt::decoding_key(&public),
        }
    }

    /// Ed25519, for those who verify tokens without us.
    pub const fn public_key(&self) -> [u8; 32] {
        self.public
    }

    /// Names the key in tokens and checkpoints: the first 16 hex digits of the public key's SHA-256.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Ed25519 over these bytes.
    pub fn sign_bytes(&self, bytes: &[u8]) -> [u8; 64] {
        self.signing.sign(bytes).to_bytes()
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
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, claims, &self.encoding)
            .map_err(|error| Refusal::internal(format!("signing a token: {error}")))
    }

    /// Time is checked by the caller: the library would read a clock.
    fn verify<T: DeserializeOwned>(&self, token: &str, audience: &str) -> Answer<T> {
        let refuse = || Refusal::new(ErrorCode::NotSignedIn, "The access token is not valid. Sign in again.");
        let header = jsonwebtoken::decode_header(token).map_err(|_| refuse())?;
        if header.kid.as_deref() != Some(&self.kid) {
            return Err(refuse());
        }
        let mut rules = Validation::new(Algorithm::EdDSA);
        rules.validate_exp = false;
        rules.set_issuer(&[ISSUER]);
        rules.set_audience(&[audience]);
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let decoded = jsonwebtoken::decode::<T>(token, &self.decoding, &rules).map_err(|_| refuse())?;
        Ok(decoded.claims)
    }
}

fn check_time(exp: u64, now: u64) -> Answer<()> {
    if now > exp.saturating_add(LEEWAY) {
        return Err(Refusal::new(ErrorCode::NotSignedIn, "The access token has expired. Refresh it."));
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
        assert_eq!(from_pem.public_key(), from_seed.public_key());
        assert!(SigningKeys::from_text("too short").is_err());
    }
}
