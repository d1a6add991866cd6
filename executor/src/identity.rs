//! Who this executor is: two key pairs made here, whose private halves never leave the machine.
//!
//! The data directory holds `identity.json` (public facts), `signing.key` (Ed25519: signs in) and `sealing.key`
//! (X25519: the site's private key is sealed to it), the keys readable by their owner only.

use std::{fs::OpenOptions, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use crypto_box::{PublicKey, SecretKey, aead::OsRng};
use ed25519_dalek::{Signer as _, SigningKey};
use rackhand_schema::{
    digest::sha256_hex,
    executor::token_message,
    id::{ExecutorId, ExecutorSessionId, SiteId},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::text;

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{directory} is not enrolled; run `rackhand-executor enrol` first")]
    NotEnrolled { directory: String },
    #[error("cannot use {file}")]
    File { file: String, source: std::io::Error },
    #[error("{file} is not what this program has written")]
    Content { file: String },
    #[error("no randomness: {0}")]
    Random(String),
}

/// The two key pairs.
pub struct Keys {
    signing: SigningKey,
    sealing: SecretKey,
}

/// What the control plane said at enrolment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Membership {
    pub server: String,
    pub name: String,
    pub executor_id: ExecutorId,
    pub site_id: SiteId,
    pub site: String,
    /// The site's public key at enrolment; another one is refused from then on.
    pub site_public_key: Option<String>,
}

/// Characters of a site's name.
const LONGEST_SITE: usize = 80;

pub struct Identity {
    pub membership: Membership,
    keys: Keys,
}

impl Keys {
    /// # Errors
    /// When the machine has no randomness.
    pub fn generate() -> Result<Self, IdentityError> {
        let mut bytes = Zeroizing::new([0; 64]);
        getrandom::fill(&mut *bytes).map_err(|error| IdentityError::Random(error.to_string()))?;
        let (signing, sealing) = bytes.split_at(32);
        let half = |bytes: &[u8]| Zeroizing::new(<[u8; 32]>::try_from(bytes).unwrap_or_default());
        Ok(Self {
            signing: SigningKey::from_bytes(&half(signing)),
            sealing: SecretKey::from_bytes(*half(sealing)),
        })
    }

    pub fn signing_public(&self) -> [u8; 32] {
        self.signing.verifying_key().to_bytes()
    }

    pub fn sealing_public(&self) -> [u8; 32] {
        self.sealing.public_key().to_bytes()
    }

    /// Writes both keys, once: keys that exist are never overwritten.
    ///
    /// # Errors
    /// When a file exists or cannot be written.
    pub fn save(&self, directory: &Path) -> Result<(), IdentityError> {
        write_private(&directory.join("signing.key"), &STANDARD.encode(self.signing.to_bytes()))?;
        write_private(&directory.join("sealing.key"), &STANDARD.encode(self.sealing.to_bytes()))
    }

    /// # Errors
    /// When a file is missing or not a key.
    pub fn load(directory: &Path) -> Result<Self, IdentityError> {
        Ok(Self {
            signing: SigningKey::from_bytes(&*read_key(&directory.join("signing.key"))?),
            sealing: SecretKey::from_bytes(*read_key(&directory.join("sealing.key"))?),
        })
    }
}

fn file_error(path: &Path) -> impl FnOnce(std::io::Error) -> IdentityError {
    let file = path.display().to_string();
    move |source| IdentityError::File { file, source }
}

fn write_private(path: &Path, text: &str) -> Result<(), IdentityError> {
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(file_error(path))?;
    file.write_all(text.as_bytes()).map_err(file_error(path))?;
    file.sync_all().map_err(file_error(path))
}

fn read_key(path: &Path) -> Result<Zeroizing<[u8; 32]>, IdentityError> {
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(file_error(path))?);
    decode_key(text.trim())
        .map(Zeroizing::new)
        .ok_or_else(|| IdentityError::Content { file: path.display().to_string() })
}

/// 32 bytes from base64.
pub fn decode_key(text: &str) -> Option<[u8; 32]> {
    let bytes = Zeroizing::new(STANDARD.decode(text).ok()?);
    <[u8; 32]>::try_from(bytes.as_slice()).ok()
}

impl Membership {
    /// What a person has to know after the enrolment. Which of several executors makes the key is decided when they
    /// run.
    pub fn next_step(&self) -> &'static str {
        match self.site_public_key {
            None => {
                "The site has no key yet. The first of its executors to run makes it; every other one waits until an \
                 executor that holds the key confirms it."
            }
            Some(_) => {
                "Compare it with what `rackhand-executor site-key` prints on an executor that runs already, and confirm \
                 this one there: rackhand-executor confirm --data DIR FINGERPRINT"
            }
        }
    }
}

/// SHA-256 over both public keys, hex in groups of four: what people compare.
pub fn fingerprint(signing: &[u8; 32], sealing: &[u8; 32]) -> String {
    grouped(&sha256_hex(&[signing.as_slice(), sealing].concat()))
}

/// In groups of four.
pub fn grouped(hex: &str) -> String {
    let digits: Vec<char> = hex.chars().collect();
    digits.chunks(4).map(|group| group.iter().collect::<String>()).collect::<Vec<_>>().join(" ")
}

/// Hex digits only, lower case: people type fingerprints with blanks, colons or none.
pub fn plain_fingerprint(text: &str) -> String {
    text.chars().filter(char::is_ascii_hexdigit).map(|digit| digit.to_ascii_lowercase()).collect()
}

impl Identity {
    pub fn new(mut membership: Membership, keys: Keys) -> Self {
        // The control plane has written it.
        membership.site = text::within(&membership.site, LONGEST_SITE);
        Self { membership, keys }
    }

    /// # Errors
    /// When this directory has not been enrolled.
    pub fn load(directory: &Path) -> Result<Self, IdentityError> {
        let path = directory.join("identity.json");
        if !path.exists() {
            return Err(IdentityError::NotEnrolled { directory: directory.display().to_string() });
        }
        let text = std::fs::read(&path).map_err(file_error(&path))?;
        let membership = serde_json::from_slice(&text)
            .map_err(|_| IdentityError::Content { file: path.display().to_string() })?;
        Ok(Self::new(membership, Keys::load(directory)?))
    }

    /// # Errors
    /// When the file exists or cannot be written.
    pub fn save(&self, directory: &Path) -> Result<(), IdentityError> {
        let path = directory.join("identity.json");
        let text = serde_json::to_string_pretty(&self.membership)
            .map_err(|_| IdentityError::Content { file: path.display().to_string() })?;
        write_private(&path, &text)
    }

    pub fn fingerprint(&self) -> String {
        fingerprint(&self.keys.signing_public(), &self.keys.sealing_public())
    }

    /// Base64 of the signature that proves `nonce` for one session with the control plane `audience`.
    pub fn sign(&self, audience: &str, nonce: &str, session: ExecutorSessionId) -> String {
        let message = token_message(audience, nonce, self.membership.executor_id, session);
        STANDARD.encode(self.keys.signing.sign(message.as_bytes()).to_bytes())
    }

    /// Opens what is sealed to this executor.
    pub fn unseal(&self, sealed: &str) -> Option<Zeroizing<Vec<u8>>> {
        let sealed = STANDARD.decode(sealed).ok()?;
        self.keys.sealing.unseal(&sealed).ok().map(Zeroizing::new)
    }

    pub fn seal_to_self(&self, plain: &[u8]) -> Option<String> {
        seal(&self.keys.sealing_public(), plain)
    }
}

/// Base64 of a box that only the holder of the key can open.
pub fn seal(public_key: &[u8; 32], plain: &[u8]) -> Option<String> {
    let sealed = PublicKey::from_bytes(*public_key).seal(&mut OsRng, plain).ok()?;
    Some(STANDARD.encode(sealed))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_private_kept_and_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::generate().unwrap();
        keys.save(directory.path()).unwrap();
        let mode = std::fs::metadata(directory.path().join("signing.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = Keys::load(directory.path()).unwrap();
        assert_eq!(again.signing_public(), keys.signing_public());
        assert_eq!(again.sealing_public(), keys.sealing_public());
        assert!(Keys::generate().unwrap().save(directory.path()).is_err());
    }

    /// It is shown beside the fingerprint that a person confirms.
    #[test]
    fn the_name_of_the_site_is_one_short_line() {
        let membership = Membership {
            server: "https://x".into(),
            name: "one".into(),
            executor_id: ExecutorId::generate(),
            site_id: SiteId::generate(),
            site: format!("lab.\nFingerprint: cdcd{}Fingerprint: cdcd", " ".repeat(60)),
            site_public_key: None,
        };
        let identity = Identity::new(membership.clone(), Keys::generate().unwrap());
        assert_eq!(identity.membership.site, "lab. Fingerprint: cdcd Fingerprint: cdcd");
        // As an older version has kept it.
        let directory = tempfile::tempdir().unwrap();
        identity.save(directory.path()).unwrap();
        identity.keys.save(directory.path()).unwrap();
        let path = directory.path().join("identity.json");
        std::fs::write(path, serde_json::to_string(&membership).unwrap()).unwrap();
        assert_eq!(Identity::load(directory.path()).unwrap().membership.site, identity.membership.site);
    }

    #[test]
    fn fingerprints_are_compared_without_their_blanks() {
        let shown = fingerprint(&[1; 32], &[2; 32]);
        assert_eq!(shown.split(' ').count(), 16);
        assert_eq!(plain_fingerprint(&shown).len(), 64);
        assert_eq!(plain_fingerprint(&shown.to_uppercase().replace(' ', ":")), plain_fingerprint(&shown));
    }
}
