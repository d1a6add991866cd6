//! Opens sealed credentials, in memory only, and refuses every use the sealed text does not name.
//!
//! The plaintext inside the box says for which site, version, address and TLS key it is meant
//! ([`SealedCredential`]); the control plane, which stores the ciphertext, can therefore neither read it nor
//! point it at another machine (DESIGN §3 invariant 8).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use crypto_box::SecretKey;
use rackhand_schema::{
    id::SiteId,
    protocol::{GrantCredential, GrantTarget},
    server::SealedCredential,
};
use zeroize::{Zeroize as _, Zeroizing};

/// The site's private key. Lives in memory only; wiped on drop.
pub struct SiteSecret(SecretKey);

impl SiteSecret {
    pub fn new(key: SecretKey) -> Self {
        Self(key)
    }

    /// Made for a site that has none.
    ///
    /// # Errors
    /// When the machine has no randomness.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *bytes)?;
        Ok(Self(SecretKey::from_bytes(*bytes)))
    }

    /// Base64 of the public half.
    pub fn public_key(&self) -> String {
        STANDARD.encode(self.0.public_key().as_bytes())
    }

    pub(crate) fn bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }
}

/// A user name and password that may be used for one BMC. No `Debug`.
pub struct OpenCredential {
    pub version: u32,
    pub username: String,
    pub password: Zeroizing<String>,
}

/// Why a credential is not used. The texts hold no part of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialRefused {
    #[error("the server has no credential")]
    Missing,
    #[error("it cannot be opened with the site's key")]
    Sealed,
    #[error("what is inside is not a credential")]
    Content,
    #[error("it is sealed for another site")]
    Site,
    #[error("it is sealed as another name or version than the control plane says")]
    Version,
    #[error("it is not sealed for the address {0}")]
    Address(String),
    #[error("it is not sealed for the TLS key that the control plane names")]
    Pin,
}

/// Opens the credential of `target`; the answer comes with the TLS key the BMC must show.
///
/// # Errors
/// [`CredentialRefused`]: it must not be used there.
pub fn open(
    secret: &SiteSecret,
    site: SiteId,
    target: &GrantTarget,
) -> Result<(OpenCredential, String), CredentialRefused> {
    let credential: &GrantCredential = target.credential.as_ref().ok_or(CredentialRefused::Missing)?;
    let sealed = STANDARD.decode(credential.sealed.trim()).map_err(|_| CredentialRefused::Sealed)?;
    let plain = Zeroizing::new(secret.0.unseal(&sealed).map_err(|_| CredentialRefused::Sealed)?);
    let mut inside: SealedCredential =
        serde_json::from_slice(&plain).map_err(|_| CredentialRefused::Content)?;
    let checked = check(&inside, credential, site, target);
    let password = Zeroizing::new(std::mem::take(&mut inside.password));
    let username = std::mem::take(&mut inside.username);
    let pin = match checked {
        Ok(pin) => pin,
        Err(refused) => {
            inside.name.zeroize();
            return Err(refused);
        }
    };
    Ok((OpenCredential { version: inside.version, username, password }, pin))
}

fn check(
    inside: &SealedCredential,
    credential: &GrantCredential,
    site: SiteId,
    target: &GrantTarget,
) -> Result<String, CredentialRefused> {
    if inside.site_id != site {
        return Err(CredentialRefused::Site);
    }
    if inside.version != credential.version || inside.name != credential.name {
        return Err(CredentialRefused::Version);
    }
    let allowed: Vec<_> =
        inside.targets.iter().filter(|allowed| same_origin(&allowed.url, &target.url)).collect();
    if allowed.is_empty() {
        return Err(CredentialRefused::Address(crate::text::clean(&target.url)));
    }
    let pin = match &target.spki_sha256 {
        Some(named) => {
            allowed.iter().find(|allowed| allowed.spki_sha256 == *named).ok_or(CredentialRefused::Pin)?
        }
        None => allowed.first().ok_or(CredentialRefused::Pin)?,
    };
    Ok(pin.spki_sha256.clone())
}

/// The same `https://host[:port]`, whatever the case of the host, a path or a written-out 443.
fn same_origin(a: &str, b: &str) -> bool {
    let normal = |url: &str| {
        let host = url.find("://").map_or(0, |scheme| scheme + 3);
        let origin = url.get(host..).and_then(|rest| rest.find('/')).and_then(|path| url.get(..host + path));
        let url = origin.unwrap_or(url).to_ascii_lowercase();
        url.strip_suffix(":443").map_or_else(|| url.clone(), str::to_owned)
    };
    normal(a) == normal(b)
}

#[cfg(test)]
mod tests {
    use crypto_box::aead::OsRng;
    use rackhand_schema::{
        id::{BmcId, CredentialId, ServerId},
        server::CredentialTarget,
    };
    use uuid::Uuid;

    use super::*;

    const PIN: &str = "aa11";

    fn site(n: u128) -> SiteId {
        SiteId::from_uuid(Uuid::from_u128(n))
    }

    fn target(secret: &SiteSecret, change: impl FnOnce(&mut SealedCredential)) -> GrantTarget {
        let mut inside = SealedCredential {
            site_id: site(1),
            name: "bmc".into(),
            version: 3,
            username: "root".into(),
            password: "hunter2".into(),
            targets: vec![CredentialTarget { url: "https://10.0.0.1".into(), spki_sha256: PIN.into() }],
        };
        change(&mut inside);
        let plain = serde_json::to_vec(&inside).unwrap();
        let sealed = secret.0.public_key().seal(&mut OsRng, &plain).unwrap();
        GrantTarget {
            server_id: ServerId::from_uuid(Uuid::from_u128(1)),
            name: "srv".into(),
            bmc_id: BmcId::from_uuid(Uuid::from_u128(1)),
            url: "https://10.0.0.1:443".into(),
            spki_sha256: Some(PIN.into()),
            owner_epoch: 1,
            credential: Some(GrantCredential {
                id: CredentialId::from_uuid(Uuid::from_u128(1)),
                name: "bmc".into(),
                version: 3,
                sealed: STANDARD.encode(sealed),
                proven: false,
            }),
        }
    }

    #[test]
    fn a_credential_opens_for_what_it_names_and_for_nothing_else() {
        let secret = SiteSecret::generate().unwrap();
        let refusal = |target: &GrantTarget| open(&secret, site(1), target).map(|_| ()).unwrap_err();
        let (credential, pin) = open(&secret, site(1), &target(&secret, |_| {})).unwrap();
        assert_eq!((credential.username.as_str(), credential.password.as_str()), ("root", "hunter2"));
        assert_eq!(pin, PIN);

        assert_eq!(refusal(&target(&secret, |inside| inside.site_id = site(2))), CredentialRefused::Site);
        assert_eq!(refusal(&target(&secret, |inside| inside.version = 2)), CredentialRefused::Version);
        assert_eq!(refusal(&target(&secret, |inside| inside.name = "x".into())), CredentialRefused::Version);
        let mut moved = target(&secret, |_| {});
        moved.url = "https://10.6.6.6".into();
        assert_eq!(refusal(&moved), CredentialRefused::Address("https://10.6.6.6".into()));
        let mut other_key = target(&secret, |_| {});
        other_key.spki_sha256 = Some("bb22".into());
        assert_eq!(refusal(&other_key), CredentialRefused::Pin);
        let foreign = SiteSecret::generate().unwrap();
        assert_eq!(refusal(&target(&foreign, |_| {})), CredentialRefused::Sealed);
        let mut none = target(&secret, |_| {});
        none.credential = None;
        assert_eq!(refusal(&none), CredentialRefused::Missing);
    }
}
