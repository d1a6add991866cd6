//! Opens sealed credentials, in memory only, and refuses every use the sealed text does not name.
//!
//! The plaintext inside the box says for which site, version, address and TLS key it is meant
//! ([`SealedCredential`]); the control plane, which stores the ciphertext, can therefore neither read it nor
//! point it at another machine (DESIGN §3 invariant 8). An address for IPMI counts as one of its own: a BMC whose sealed
//! text names its https address only is not spoken to over IPMI.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use crypto_box::SecretKey;
use rackhand_schema::{
    id::SiteId,
    protocol::{GrantCredential, GrantTarget},
    server::SealedCredential,
};
use zeroize::{Zeroize as _, Zeroizing};

use crate::broker::Service;

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

/// What a credential may be used for.
pub struct Opened {
    pub credential: OpenCredential,
    /// The service and the TLS key it must show.
    pub redfish: Option<Service>,
    /// `host[:port]` for IPMI.
    pub ipmi: Option<String>,
}

/// Opens the credential of `target` for those of its addresses that the sealed text names. The main one must be among
/// them.
///
/// # Errors
/// [`CredentialRefused`]: it must not be used there.
pub fn open(secret: &SiteSecret, site: SiteId, target: &GrantTarget) -> Result<Opened, CredentialRefused> {
    let credential: &GrantCredential = target.credential.as_ref().ok_or(CredentialRefused::Missing)?;
    let sealed = STANDARD.decode(credential.sealed.trim()).map_err(|_| CredentialRefused::Sealed)?;
    let plain = Zeroizing::new(secret.0.unseal(&sealed).map_err(|_| CredentialRefused::Sealed)?);
    let mut inside: SealedCredential =
        serde_json::from_slice(&plain).map_err(|_| CredentialRefused::Content)?;
    let checked = check(&inside, credential, site, target);
    let password = Zeroizing::new(std::mem::take(&mut inside.password));
    let username = std::mem::take(&mut inside.username);
    let (redfish, ipmi) = match checked {
        Ok(addresses) => addresses,
        Err(refused) => {
            inside.name.zeroize();
            return Err(refused);
        }
    };
    Ok(Opened { credential: OpenCredential { version: inside.version, username, password }, redfish, ipmi })
}

fn check(
    inside: &SealedCredential,
    credential: &GrantCredential,
    site: SiteId,
    target: &GrantTarget,
) -> Result<(Option<Service>, Option<String>), CredentialRefused> {
    if inside.site_id != site {
        return Err(CredentialRefused::Site);
    }
    if inside.version != credential.version || inside.name != credential.name {
        return Err(CredentialRefused::Version);
    }
    let names = |url: &str| inside.targets.iter().any(|allowed| same_origin(&allowed.url, url));
    if !names(&target.url) {
        return Err(CredentialRefused::Address(crate::text::clean(&target.url)));
    }
    if let Some(address) = target.url.strip_prefix("ipmi://") {
        return Ok((None, Some(address.to_owned())));
    }
    let mut pins = inside
        .targets
        .iter()
        .filter(|allowed| same_origin(&allowed.url, &target.url))
        .filter_map(|allowed| allowed.spki_sha256.as_ref());
    let pin = match &target.spki_sha256 {
        Some(named) => pins.find(|pin| *pin == named),
        None => pins.next(),
    };
    let spki_sha256 = pin.ok_or(CredentialRefused::Pin)?.clone();
    let ipmi = target.ipmi.clone().filter(|address| {
        let sealed = names(&format!("ipmi://{address}"));
        if !sealed {
            tracing::info!(
                address,
                "the credential is not sealed for this IPMI address; it is not used there"
            );
        }
        sealed
    });
    Ok((Some(Service { url: target.url.clone(), spki_sha256 }), ipmi))
}

/// The same `https://host[:port]` or `ipmi://host[:port]`, whatever the case of the host, a path or a written-out
/// default port.
fn same_origin(a: &str, b: &str) -> bool {
    let normal = |url: &str| {
        let host = url.find("://").map_or(0, |scheme| scheme + 3);
        let origin = url.get(host..).and_then(|rest| rest.find('/')).and_then(|path| url.get(..host + path));
        let url = origin.unwrap_or(url).to_ascii_lowercase();
        let usual = if url.starts_with("ipmi://") { ":623" } else { ":443" };
        url.strip_suffix(usual).map_or_else(|| url.clone(), str::to_owned)
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
            targets: vec![CredentialTarget { url: "https://10.0.0.1".into(), spki_sha256: Some(PIN.into()) }],
        };
        change(&mut inside);
        let plain = serde_json::to_vec(&inside).unwrap();
        let sealed = secret.0.public_key().seal(&mut OsRng, &plain).unwrap();
        GrantTarget {
            server_id: ServerId::from_uuid(Uuid::from_u128(1)),
            name: "srv".into(),
            bmc_id: BmcId::from_uuid(Uuid::from_u128(1)),
            url: "https://10.0.0.1:443".into(),
            ipmi: None,
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
        let Opened { credential, redfish, ipmi } = open(&secret, site(1), &target(&secret, |_| {})).unwrap();
        assert_eq!((credential.username.as_str(), credential.password.as_str()), ("root", "hunter2"));
        assert_eq!((redfish.unwrap().spki_sha256.as_str(), ipmi), (PIN, None));

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
        let unpinned = target(&secret, |inside| inside.targets[0].spki_sha256 = None);
        assert_eq!(refusal(&unpinned), CredentialRefused::Pin);
    }

    #[test]
    fn an_ipmi_address_is_used_only_when_the_sealed_text_names_it() {
        let secret = SiteSecret::generate().unwrap();
        let ipmi = |url: &str| CredentialTarget { url: url.into(), spki_sha256: None };
        let opened = |sealed: Option<&str>, address: &str| {
            let mut target = target(&secret, |inside| inside.targets.extend(sealed.map(ipmi)));
            target.ipmi = Some(address.into());
            open(&secret, site(1), &target).unwrap()
        };
        assert_eq!(opened(Some("ipmi://10.0.0.1"), "10.0.0.1:623").ipmi.as_deref(), Some("10.0.0.1:623"));
        assert_eq!(opened(Some("ipmi://10.0.0.1"), "10.0.0.2").ipmi, None);
        assert_eq!(opened(Some("ipmi://10.0.0.1"), "10.0.0.1:624").ipmi, None);
        assert_eq!(opened(None, "10.0.0.1").ipmi, None);
        assert!(opened(None, "10.0.0.1").redfish.is_some());

        let mut alone = target(&secret, |inside| inside.targets.push(ipmi("ipmi://bmc")));
        (alone.url, alone.spki_sha256) = ("ipmi://bmc".into(), None);
        let Opened { redfish, ipmi, .. } = open(&secret, site(1), &alone).unwrap();
        assert_eq!((redfish, ipmi.as_deref()), (None, Some("bmc")));
        alone.url = "ipmi://10.0.0.1".into();
        let refused = open(&secret, site(1), &alone).map(|_| ()).unwrap_err();
        assert_eq!(
            refused,
            CredentialRefused::Address("ipmi://10.0.0.1".into()),
            "its https address is another"
        );
    }
}
