//! Opens sealed credentials, in memory only, and refuses every use the sealed text does not name.
//!
//! The plaintext inside the box says for which site, version, address and TLS key it is meant
//! ([`SealedCredential`]); the control plane, which stores the ciphertext, can therefore neither read it nor
//! point it at another machine. An address for IPMI counts as one of its own: a BMC whose sealed text names its https
//! address only is not spoken to over IPMI, and one that it names for another BMC is not used either.
//!
//! An older version than one that the same BMC has accepted before is refused: it may be a text that somebody has
//! kept. A BMC is what stands at an https address with a TLS key, or at an address for IPMI ([`Opened::places`]). The
//! box does not tell who sealed it: a control plane that was taken over can seal texts of its own, with the highest
//! version there is, for a BMC of its own, which accepts them. They must not bar those of people. So what no BMC has
//! accepted does not count, and what one has accepted counts at that one alone.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use crypto_box::SecretKey;
use rackhand_schema::{
    id::SiteId,
    protocol::{GrantCredential, GrantTarget},
    server::{Coverage, NotCovered, SealedCredential, origin},
};
use tokio::sync::Mutex;
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    broker::Service,
    journal::{Journal, JournalError, Write},
};

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
    #[error(
        "this BMC has accepted version {used} before, and this is version {0}; seal it anew, with a version above that",
        used = .1
    )]
    Replayed(u32, u32),
    #[error("it is not sealed for the address {0}")]
    Address(String),
    #[error("it is not sealed for the TLS key that the control plane names")]
    Pin,
}

/// What a credential may be used for.
pub struct Opened<'a> {
    /// As it was granted.
    pub granted: &'a GrantCredential,
    pub credential: OpenCredential,
    /// The service and the TLS key it must show.
    pub redfish: Option<Service>,
    /// `host[:port]` for IPMI.
    pub ipmi: Option<String>,
}

/// A BMC, as far as the use of a credential there is remembered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(String);

impl Place {
    pub fn redfish(service: &Service) -> Self {
        Self(format!("{} {}", origin(&service.url), service.spki_sha256.to_ascii_lowercase()))
    }

    pub fn ipmi(address: &str) -> Self {
        Self(origin(&format!("ipmi://{address}")))
    }
}

impl Opened<'_> {
    /// Where it may be used.
    pub fn places(&self) -> Vec<Place> {
        let redfish = self.redfish.as_ref().map(Place::redfish);
        redfish.into_iter().chain(self.ipmi.as_deref().map(Place::ipmi)).collect()
    }
}

/// Opens the credential of `target` for those of its addresses that the sealed text names. The main one must be among
/// them.
///
/// # Errors
/// [`CredentialRefused`]: it must not be used there.
pub fn open<'a>(
    secret: &SiteSecret,
    site: SiteId,
    target: &'a GrantTarget,
) -> Result<Opened<'a>, CredentialRefused> {
    let granted = target.credential.as_ref().ok_or(CredentialRefused::Missing)?;
    let sealed = STANDARD.decode(granted.sealed.trim()).map_err(|_| CredentialRefused::Sealed)?;
    let plain = Zeroizing::new(secret.0.unseal(&sealed).map_err(|_| CredentialRefused::Sealed)?);
    let mut inside: SealedCredential =
        serde_json::from_slice(&plain).map_err(|_| CredentialRefused::Content)?;
    let checked = check(&inside, granted, site, target);
    let password = Zeroizing::new(std::mem::take(&mut inside.password));
    let username = std::mem::take(&mut inside.username);
    let (redfish, ipmi) = match checked {
        Ok(addresses) => addresses,
        Err(refused) => {
            inside.name.zeroize();
            return Err(refused);
        }
    };
    let credential = OpenCredential { version: inside.version, username, password };
    Ok(Opened { granted, credential, redfish, ipmi })
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
    let coverage = Coverage::of(&inside.targets);
    let covered = coverage.at(&target.url, target.spki_sha256.as_deref(), target.ipmi.as_deref());
    let covered = covered.map_err(|refused| match refused {
        NotCovered::Address => CredentialRefused::Address(crate::text::clean(&target.url)),
        NotCovered::Pin => CredentialRefused::Pin,
    })?;
    let Some(pin) = covered.spki_sha256 else {
        return Ok((None, target.url.strip_prefix("ipmi://").map(str::to_owned)));
    };
    let ipmi = target.ipmi.clone().filter(|address| {
        if !covered.ipmi {
            tracing::info!(
                address,
                "the credential is not sealed for this IPMI address; it is not used there"
            );
        }
        covered.ipmi
    });
    Ok((Some(Service { url: target.url.clone(), spki_sha256: pin.to_owned() }), ipmi))
}

/// Begins the journal's names for the versions of a credential that BMCs have accepted. No name of a credential has a
/// line break.
fn used_keys(name: &str) -> String {
    format!("credential_version:{name}\n")
}

/// The journal's name for the highest version that one of them has accepted.
fn used_key(name: &str, place: &Place) -> String {
    format!("{}{}", used_keys(name), place.0)
}

/// And for the version that was forgotten by [`forget_version`], until that is reported.
fn forgotten_key(name: &str) -> String {
    format!("credential_version_forgotten:{name}")
}

async fn noted(journal: &dyn Journal, key: &str) -> Result<Option<u32>, JournalError> {
    Ok(journal.meta(key).await?.and_then(|text| text.parse().ok()))
}

/// The highest version of each credential that each BMC has accepted from here, in the journal. One process holds it,
/// so what it has found there is not read again for each run.
pub struct Versions {
    journal: Arc<dyn Journal>,
    /// Key in the journal → the version there (0: none), of credentials of which nothing is to be reported; held while
    /// the journal is read and written, so that of two runs with different versions the higher one stays.
    known: Mutex<BTreeMap<String, u32>>,
}

/// Versions that are remembered.
const MAX_KNOWN: usize = 10_000;

fn know(known: &mut BTreeMap<String, u32>, key: String, version: u32) {
    known.insert(key, version);
    if known.len() > MAX_KNOWN {
        known.pop_first();
    }
}

impl Versions {
    pub fn new(journal: Arc<dyn Journal>) -> Self {
        Self { journal, known: Mutex::default() }
    }

    /// Whether `version` of the credential `name` may be used for the BMC at `places`. The version that a person made
    /// this executor forget before, if that is still to be reported.
    ///
    /// # Errors
    /// When the journal fails. `Ok(Err)`: that BMC has accepted a higher version.
    pub async fn check(
        &self,
        name: &str,
        places: &[Place],
        version: u32,
    ) -> Result<Result<Option<u32>, CredentialRefused>, JournalError> {
        let mut known = self.known.lock().await;
        let keys: Vec<String> = places.iter().map(|place| used_key(name, place)).collect();
        if !keys.is_empty() && keys.iter().all(|key| known.get(key).is_some_and(|used| *used <= version)) {
            return Ok(Ok(None));
        }
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            let used = noted(&*self.journal, &key).await?.unwrap_or(0);
            found.push((key, used));
        }
        let highest = found.iter().map(|(_, used)| *used).max().unwrap_or(0);
        if version < highest {
            return Ok(Err(CredentialRefused::Replayed(version, highest)));
        }
        let forgotten = noted(&*self.journal, &forgotten_key(name)).await?;
        if forgotten.is_none() {
            for (key, used) in found {
                know(&mut known, key, used);
            }
        }
        Ok(Ok(forgotten))
    }

    /// Notes that the BMC at `place` has accepted `version` of the credential `name`.
    ///
    /// # Errors
    /// When the journal fails.
    pub async fn accepted(&self, name: &str, place: &Place, version: u32) -> Result<(), JournalError> {
        let mut known = self.known.lock().await;
        let (journal, key) = (&*self.journal, used_key(name, place));
        if known.get(&key) == Some(&version) {
            return Ok(());
        }
        let used = noted(journal, &key).await?.unwrap_or(0);
        if version > used {
            journal.write(Write::Meta { key: key.clone(), value: Some(version.to_string()) }).await?;
        }
        if noted(journal, &forgotten_key(name)).await?.is_none() {
            know(&mut known, key, version.max(used));
        }
        Ok(())
    }
}

/// The use of one version of a credential at a BMC.
#[derive(Clone)]
pub struct Use {
    pub versions: Arc<Versions>,
    pub name: String,
    pub version: u32,
}

impl Use {
    /// The BMC at `place` has accepted it.
    pub async fn accepted(&self, place: &Place) {
        // A journal that fails is noticed by the runs, which depend on it.
        let _ = self.versions.accepted(&self.name, place, self.version).await;
    }
}

/// Forgets which versions of the credential `name` were used here: any is taken next. The highest of them, if there
/// is one.
///
/// # Errors
/// When the journal fails.
pub async fn forget_version(journal: &dyn Journal, name: &str) -> Result<Option<u32>, JournalError> {
    let used = journal.metas(&used_keys(name)).await?;
    let Some(highest) = used.iter().filter_map(|(_, version)| version.parse::<u32>().ok()).max() else {
        return Ok(None);
    };
    let forgotten = Write::Meta { key: forgotten_key(name), value: Some(highest.to_string()) };
    let gone = used.into_iter().map(|(key, _)| Write::Meta { key, value: None });
    journal.commit(std::iter::once(forgotten).chain(gone).collect()).await?;
    Ok(Some(highest))
}

/// It is reported that a version was forgotten.
///
/// # Errors
/// When the journal fails.
pub async fn forgetting_reported(journal: &dyn Journal, name: &str) -> Result<(), JournalError> {
    journal.write(Write::Meta { key: forgotten_key(name), value: None }).await
}

#[cfg(test)]
mod tests {
    use crypto_box::aead::OsRng;
    use futures::future::BoxFuture;
    use rackhand_schema::{
        id::{BmcId, CredentialId, ServerId},
        server::CredentialTarget,
    };
    use uuid::Uuid;

    use super::*;
    use crate::journal::Pending;

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
        let named = target(&secret, |_| {});
        let Opened { credential, redfish, ipmi, .. } = open(&secret, site(1), &named).unwrap();
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

    #[tokio::test]
    async fn an_older_version_than_one_that_was_used_is_refused() {
        let journal = Arc::new(crate::journal::memory::MemoryJournal::default());
        let versions = Versions::new(Arc::clone(&journal) as Arc<_>);
        let bmc = [place(1)];
        let used = async |name: &str, version| {
            let checked = versions.check(name, &bmc, version).await.unwrap();
            if checked.is_ok() {
                versions.accepted(name, &bmc[0], version).await.unwrap();
            }
            checked
        };
        for version in [1, 3, 3] {
            assert_eq!(used("bmc", version).await, Ok(None));
        }
        assert_eq!(used("bmc", 2).await, Err(CredentialRefused::Replayed(2, 3)));
        assert_eq!(used("other", 2).await, Ok(None));
        assert!(CredentialRefused::Replayed(2, 3).to_string().starts_with("this BMC has accepted version 3"));

        // A person may have it forgotten. That is told until it is reported, and what is used next counts again.
        assert_eq!(forget_version(&*journal, "never").await.unwrap(), None);
        assert_eq!(forget_version(&*journal, "bmc").await.unwrap(), Some(3));
        assert_eq!(used("bmc", 2).await, Ok(Some(3)));
        assert_eq!(used("bmc", 2).await, Ok(Some(3)));
        forgetting_reported(&*journal, "bmc").await.unwrap();
        assert_eq!(used("bmc", 2).await, Ok(None));
        assert_eq!(used("bmc", 1).await, Err(CredentialRefused::Replayed(1, 2)));
        // One that no BMC has accepted bars no other.
        assert_eq!(versions.check("bmc", &bmc, u32::MAX).await.unwrap(), Ok(None));
        assert_eq!(used("bmc", 3).await, Ok(None));
        assert_eq!(used("other", 1).await, Err(CredentialRefused::Replayed(1, 2)));
    }

    /// Whoever took over the control plane has a BMC of its own accept the highest version there is.
    #[tokio::test]
    async fn what_one_bmc_has_accepted_bars_nothing_at_another_one() {
        let versions = Versions::new(Arc::new(crate::journal::memory::MemoryJournal::default()));
        versions.accepted("bmc", &place(1), u32::MAX).await.unwrap();
        versions.accepted("bmc", &place(2), 3).await.unwrap();
        assert_eq!(versions.check("bmc", &[place(2)], 3).await.unwrap(), Ok(None));
        assert_eq!(versions.check("bmc", &[place(3)], 1).await.unwrap(), Ok(None));
        let replayed = Err(CredentialRefused::Replayed(2, 3));
        assert_eq!(versions.check("bmc", &[place(2)], 2).await.unwrap(), replayed);
        // A transport that has not accepted it does not hide the one that has.
        let ipmi = Place::ipmi("10.0.0.2");
        assert_eq!(versions.check("bmc", &[place(2), ipmi.clone()], 2).await.unwrap(), replayed);
        assert_eq!(versions.check("bmc", &[ipmi, place(2)], 2).await.unwrap(), replayed);
        // The same address with another key is another BMC; written in another way it is the same.
        let service = |url: &str, pin: &str| Service { url: url.into(), spki_sha256: pin.into() };
        assert_ne!(Place::redfish(&service("https://10.0.0.2", "bb22")), place(2));
        assert_eq!(Place::redfish(&service("https://10.0.0.2:443/", "AA11")), place(2));
        assert_eq!(Place::ipmi("10.0.0.2:623"), Place::ipmi("10.0.0.2"));
        let journal = &*versions.journal;
        assert_eq!(
            forget_version(journal, "bm").await.unwrap(),
            None,
            "not the credential whose name begins so"
        );
        assert_eq!(forget_version(journal, "bmc").await.unwrap(), Some(u32::MAX), "at all BMCs");
        assert_eq!(journal.metas("credential_version:").await.unwrap(), []);
    }

    fn place(n: u8) -> Place {
        Place::redfish(&Service { url: format!("https://10.0.0.{n}"), spki_sha256: PIN.into() })
    }

    /// Counts what is read, and lets others go first at each step.
    #[derive(Default)]
    struct Slow {
        journal: crate::journal::memory::MemoryJournal,
        reads: std::sync::atomic::AtomicU32,
    }

    impl Journal for Slow {
        fn commit(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<(), JournalError>> {
            Box::pin(async move {
                tokio::task::yield_now().await;
                self.journal.commit(writes).await
            })
        }

        fn pending(&self) -> BoxFuture<'_, Result<Vec<Pending>, JournalError>> {
            self.journal.pending()
        }

        fn meta<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<String>, JournalError>> {
            self.reads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Box::pin(async move {
                tokio::task::yield_now().await;
                self.journal.meta(key).await
            })
        }

        fn metas<'a>(
            &'a self,
            prefix: &'a str,
        ) -> BoxFuture<'a, Result<Vec<(String, String)>, JournalError>> {
            self.journal.metas(prefix)
        }
    }

    #[tokio::test]
    async fn of_two_versions_at_once_the_higher_one_stays_and_a_known_one_is_not_read_again() {
        let journal = Arc::new(Slow::default());
        let versions = Versions::new(Arc::clone(&journal) as Arc<_>);
        let bmc = [place(1)];
        let (higher, lower) =
            tokio::join!(versions.accepted("bmc", &bmc[0], 2), versions.accepted("bmc", &bmc[0], 1));
        higher.and(lower).unwrap();
        assert_eq!(versions.check("bmc", &bmc, 1).await.unwrap(), Err(CredentialRefused::Replayed(1, 2)));
        let reads = journal.reads.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(versions.check("bmc", &bmc, 2).await.unwrap(), Ok(None));
        versions.accepted("bmc", &bmc[0], 2).await.unwrap();
        assert_eq!(journal.reads.load(std::sync::atomic::Ordering::Relaxed), reads);
        // Another process finds it in the journal.
        let again = Versions::new(Arc::clone(&journal) as Arc<_>);
        assert_eq!(again.check("bmc", &bmc, 1).await.unwrap(), Err(CredentialRefused::Replayed(1, 2)));
    }

    #[test]
    fn an_ipmi_address_is_used_only_when_the_sealed_text_names_it() {
        let secret = SiteSecret::generate().unwrap();
        let ipmi = |url: &str| CredentialTarget { url: url.into(), spki_sha256: None };
        let opened = |sealed: Option<&str>, address: &str| {
            let mut target = target(&secret, |inside| inside.targets.extend(sealed.map(ipmi)));
            target.ipmi = Some(address.into());
            let Opened { redfish, ipmi, .. } = open(&secret, site(1), &target).unwrap();
            (redfish, ipmi)
        };
        assert_eq!(opened(Some("ipmi://10.0.0.1"), "10.0.0.1:623").1.as_deref(), Some("10.0.0.1:623"));
        assert_eq!(opened(Some("ipmi://10.0.0.1"), "10.0.0.2").1, None);
        assert_eq!(opened(Some("ipmi://10.0.0.1"), "10.0.0.1:624").1, None);
        assert_eq!(opened(None, "10.0.0.1").1, None);
        // Named for another BMC: whoever answers for the grant may not mix them.
        let mut mixed = target(&secret, |inside| {
            let other = CredentialTarget { url: "https://10.0.0.9".into(), spki_sha256: Some(PIN.into()) };
            inside.targets.extend([other, ipmi("ipmi://10.0.0.9")]);
        });
        mixed.ipmi = Some("10.0.0.9".into());
        assert_eq!(open(&secret, site(1), &mixed).unwrap().ipmi, None);
        assert!(opened(None, "10.0.0.1").0.is_some());

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
