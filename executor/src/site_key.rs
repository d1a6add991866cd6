//! The site's key: made by its first executor, shared only with executors whose fingerprint a person confirmed.
//!
//! Credentials are sealed to the public half. The private half is in memory while this process runs; the control
//! plane stores it sealed to each executor, and so does the journal: who has held the key keeps it, whatever becomes
//! of the share that the control plane has, until it is revoked. A joining executor is shown with both its public
//! keys; its fingerprint is computed here from them, so a control plane that swaps a key shows another fingerprint
//! than the one that was confirmed. The public key seen first is pinned in the journal; another one is refused, and
//! while the control plane shows another one to anybody, every run says so. People compare its fingerprint with what
//! they seal to: the executor prints it when it comes to hold the key, and `rackhand-executor site-key` at any time.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use crypto_box::SecretKey;
use rackhand_schema::{
    digest::sha256_hex,
    executor::{SiteKey, SiteKeyShare},
    id::ExecutorId,
    protocol::{JoiningExecutor, LeaseResponse},
};
use zeroize::Zeroizing;

use crate::{
    cloud::{Cloud, CloudError},
    credential::SiteSecret,
    identity::{self, Identity, decode_key, plain_fingerprint},
    journal::{Journal, JournalError, Write, sqlite},
};

/// Key of the site's public key in the journal's meta values.
pub const PINNED: &str = "site_public_key";

/// Key of this executor's share in the journal's meta values: the site's private key, sealed to it.
pub const KEPT: &str = "site_key_share";

/// Whether the executor of this data directory has held the site key, running now or not.
///
/// # Errors
/// When its journal cannot be read.
pub async fn was_held(directory: &Path) -> Result<bool, JournalError> {
    Ok(sqlite::read_meta(directory, PINNED).await?.is_some())
}

/// The fingerprints that were confirmed on this machine.
pub trait Confirmed: Send + Sync + 'static {
    /// `fingerprint`: 64 hex digits.
    fn is_confirmed(&self, fingerprint: &str) -> bool;
}

/// `confirmed` in the data directory, one fingerprint a line, written by `rackhand-executor confirm`.
pub struct ConfirmedFile(pub std::path::PathBuf);

impl Confirmed for ConfirmedFile {
    fn is_confirmed(&self, fingerprint: &str) -> bool {
        std::fs::read_to_string(&self.0)
            .is_ok_and(|text| text.lines().any(|line| plain_fingerprint(line) == fingerprint))
    }
}

pub struct SiteKeys {
    identity: Arc<Identity>,
    journal: Arc<dyn Journal>,
    confirmed: Arc<dyn Confirmed>,
    secret: Mutex<Option<Arc<SiteSecret>>>,
    /// Another public key than ours, as the control plane shows it at present.
    other: Mutex<Option<String>>,
    /// Why the share that the control plane has is of no use, where the one in the journal was opened instead.
    share_refused: Mutex<Option<&'static str>>,
    shared: Mutex<std::collections::BTreeSet<ExecutorId>>,
    /// Said to be waiting, once each.
    announced: Mutex<std::collections::BTreeSet<ExecutorId>>,
}

impl SiteKeys {
    pub fn new(identity: Arc<Identity>, journal: Arc<dyn Journal>, confirmed: Arc<dyn Confirmed>) -> Self {
        Self {
            identity,
            journal,
            confirmed,
            secret: Mutex::default(),
            other: Mutex::default(),
            share_refused: Mutex::default(),
            shared: Mutex::default(),
            announced: Mutex::default(),
        }
    }

    /// The key, once this executor has it.
    pub fn secret(&self) -> Option<Arc<SiteSecret>> {
        self.secret.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Compares the key that the control plane shows with the one held.
    pub fn compare(&self, shown: Option<&str>) {
        let Some(secret) = self.secret() else { return };
        let other = shown.filter(|shown| *shown != secret.public_key()).map(str::to_owned);
        let mut noted = self.other.lock().unwrap_or_else(PoisonError::into_inner);
        if other.is_some() && *noted != other {
            tracing::error!(
                shown = other,
                "the control plane shows another site key than this executor holds"
            );
        }
        *noted = other;
    }

    /// What people must hear while the control plane shows another key, or has a share that is of no use.
    pub fn warning(&self) -> Option<String> {
        let Some(other) = self.other.lock().unwrap_or_else(PoisonError::into_inner).clone() else {
            let why = (*self.share_refused.lock().unwrap_or_else(PoisonError::into_inner))?;
            return Some(self.replaced(why));
        };
        let ours = self.secret()?.public_key();
        Some(format!(
            "The control plane shows another site key (fingerprint {}) than this executor holds (fingerprint {}). Seal \
             no credential before it is known why: whoever holds that key could read it.",
            site_fingerprint(&other),
            site_fingerprint(&ours)
        ))
    }

    /// Gets the key, as far as an answer of the control plane allows: makes the first one of a site, or opens its
    /// share.
    ///
    /// # Errors
    /// When the journal fails. A control plane that does not take the key is asked again next time.
    pub async fn attend(&self, cloud: &dyn Cloud, answer: &LeaseResponse) -> Result<(), JournalError> {
        let pinned = match self.journal.meta(PINNED).await? {
            Some(pinned) => Some(pinned),
            None => self.identity.membership.site_public_key.clone(),
        };
        match (&answer.site_key, &answer.site_public_key) {
            (Some(sealed), Some(public)) => self.receive(sealed, public, pinned).await,
            (None, None) if pinned.is_none() => self.make(cloud).await,
            (None, Some(public)) => {
                if !self.goes_on_with_its_own(public, pinned.as_deref(), "it has none").await?
                    && let Some(text) = self.waiting()
                {
                    tracing::warn!("{text}");
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// What people must do before this executor gets any work; said once.
    fn waiting(&self) -> Option<String> {
        let own = self.identity.membership.executor_id;
        self.announced.lock().unwrap_or_else(PoisonError::into_inner).insert(own).then(|| {
            format!(
                "This executor waits to be confirmed and takes no work until then. Run `rackhand-executor confirm \
                 --data DIR {}` on an active executor of the site {}.",
                plain_fingerprint(&self.identity.fingerprint()),
                self.identity.membership.site
            )
        })
    }

    /// `sealed`: the key as this executor can open it, to be kept.
    async fn hold(&self, secret: SiteSecret, sealed: &str) -> Result<(), JournalError> {
        let public = secret.public_key();
        tracing::info!(key = public, fingerprint = site_fingerprint(&public), "holds the site key");
        let keep = |key: &str, value: String| Write::Meta { key: key.to_owned(), value: Some(value) };
        self.journal.commit(vec![keep(PINNED, public), keep(KEPT, sealed.to_owned())]).await?;
        *self.secret.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(secret));
        Ok(())
    }

    async fn receive(&self, sealed: &str, public: &str, pinned: Option<String>) -> Result<(), JournalError> {
        if pinned.as_deref().is_some_and(|pinned| pinned != public) {
            tracing::error!("the control plane shows another site key than before; it is refused");
            return Ok(());
        }
        let why = match self.open(sealed, public) {
            Ok(secret) => return self.hold(secret, sealed).await,
            Err(why) => why,
        };
        if !self.goes_on_with_its_own(public, pinned.as_deref(), why).await? {
            tracing::error!(
                "this executor has no use for its share of the site key: {why}. It takes no work. If another executor of \
                 the site holds the key, revoke this one, enrol its machine anew and confirm it there"
            );
        }
        Ok(())
    }

    /// Opens the share in the journal, where the control plane's is of no use. Whether there is one of this key.
    async fn goes_on_with_its_own(
        &self,
        public: &str,
        pinned: Option<&str>,
        why: &'static str,
    ) -> Result<bool, JournalError> {
        let kept = self.journal.meta(KEPT).await?.filter(|_| pinned == Some(public));
        let Some((secret, kept)) = kept.and_then(|kept| Some((self.open(&kept, public).ok()?, kept))) else {
            return Ok(false);
        };
        tracing::error!("{}", self.replaced(why));
        *self.share_refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        self.hold(secret, &kept).await?;
        Ok(true)
    }

    fn replaced(&self, why: &str) -> String {
        format!(
            "The control plane does not have the share of the site key that executor {} got before: {why}. The \
             executor works on with the share in its journal. Find out who can write to the control plane's database. \
             Then revoke this executor, enrol its machine anew and confirm it on another one that holds the key: its data \
             directory is the only place where this one has it.",
            self.identity.membership.name
        )
    }

    /// Or why not.
    fn open(&self, sealed: &str, public: &str) -> Result<SiteSecret, &'static str> {
        let bytes = self
            .identity
            .unseal(sealed)
            .and_then(|plain| <[u8; 32]>::try_from(plain.as_slice()).ok().map(Zeroizing::new))
            .ok_or("it cannot be opened with this executor's key")?;
        let secret = SiteSecret::new(SecretKey::from_bytes(*bytes));
        match secret.public_key() == public {
            true => Ok(secret),
            false => Err("it does not belong to the site's public key"),
        }
    }

    /// This executor was revoked: what it kept of the key is not to be found in its data directory.
    ///
    /// # Errors
    /// When the journal fails.
    pub async fn forget(&self) -> Result<(), JournalError> {
        self.journal.write(Write::Meta { key: KEPT.to_owned(), value: None }).await
    }

    async fn make(&self, cloud: &dyn Cloud) -> Result<(), JournalError> {
        let Ok(secret) = SiteSecret::generate() else {
            tracing::error!("no randomness for a site key");
            return Ok(());
        };
        let Some(sealed) = self.identity.seal_to_self(&*secret.bytes()) else { return Ok(()) };
        let executor_id = self.identity.membership.executor_id;
        let key = SiteKey {
            public_key: secret.public_key(),
            shares: vec![SiteKeyShare { executor_id, sealed: sealed.clone() }],
        };
        match cloud.site_key(&key).await {
            Ok(()) => {
                tracing::info!("made the key of the site");
                self.hold(secret, &sealed).await
            }
            Err(CloudError::Refused { code, .. }) if code == "site-key-conflict" => {
                tracing::info!("another executor has made the site key; waits for a share of it");
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%error, "the site key was not stored");
                Ok(())
            }
        }
    }

    /// Gives the key to those of `joining` whose fingerprint was confirmed here.
    pub async fn share(&self, cloud: &dyn Cloud, joining: &[JoiningExecutor]) {
        let Some(secret) = self.secret() else { return };
        let shares: Vec<SiteKeyShare> =
            joining.iter().filter_map(|joining| self.share_for(&secret, joining)).collect();
        if shares.is_empty() {
            return;
        }
        let ids: Vec<ExecutorId> = shares.iter().map(|share| share.executor_id).collect();
        match cloud.site_key(&SiteKey { public_key: secret.public_key(), shares }).await {
            Ok(()) => {
                tracing::info!(executors = ids.len(), "shared the site key");
                self.shared.lock().unwrap_or_else(PoisonError::into_inner).extend(ids);
            }
            Err(error) => tracing::warn!(%error, "the site key was not shared"),
        }
    }

    fn share_for(&self, secret: &SiteSecret, joining: &JoiningExecutor) -> Option<SiteKeyShare> {
        if self.shared.lock().unwrap_or_else(PoisonError::into_inner).contains(&joining.executor_id) {
            return None;
        }
        let (signing, sealing) = (decode_key(&joining.signing_key)?, decode_key(&joining.sealing_key)?);
        let fingerprint = identity::fingerprint(&signing, &sealing);
        if !self.confirmed.is_confirmed(&plain_fingerprint(&fingerprint)) {
            let mut announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
            if announced.insert(joining.executor_id) {
                let name = crate::text::clean(&joining.name);
                tracing::info!(executor = name, fingerprint, "an executor waits to be confirmed");
            }
            return None;
        }
        let sealed = identity::seal(&sealing, &*secret.bytes())?;
        Some(SiteKeyShare { executor_id: joining.executor_id, sealed })
    }
}

/// What people compare of a site's public key (base64): the first half of the SHA-256 of its 32 bytes, hex in groups of
/// four, as `rackhand credentials set` shows it. Of the text, where it is no key.
pub fn site_fingerprint(public: &str) -> String {
    let hex = decode_key(public).map_or_else(|| sha256_hex(public.as_bytes()), |key| sha256_hex(&key));
    identity::grouped(hex.get(..32).unwrap_or(&hex))
}

/// Base64 of 32 bytes.
pub fn encode_key(key: &[u8; 32]) -> String {
    STANDARD.encode(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        identity::{Keys, Membership},
        journal::memory::MemoryJournal,
    };
    use futures::future::BoxFuture;
    use rackhand_schema::{
        id::SiteId,
        protocol::{AttemptAnswer, CredentialAttempt, LeaseRequest, Report, ReportResponse},
    };
    use std::time::Duration;
    use uuid::Uuid;

    struct Nobody;

    impl Confirmed for Nobody {
        fn is_confirmed(&self, _fingerprint: &str) -> bool {
            false
        }
    }

    /// Never answers.
    struct Away;

    impl Cloud for Away {
        fn lease<'a>(
            &'a self,
            _: &'a LeaseRequest,
            _: Duration,
        ) -> BoxFuture<'a, Result<LeaseResponse, CloudError>> {
            Box::pin(std::future::pending())
        }

        fn report<'a>(&'a self, _: &'a Report) -> BoxFuture<'a, Result<ReportResponse, CloudError>> {
            Box::pin(std::future::pending())
        }

        fn credential_attempt<'a>(
            &'a self,
            _: &'a CredentialAttempt,
        ) -> BoxFuture<'a, Result<AttemptAnswer, CloudError>> {
            Box::pin(std::future::pending())
        }

        fn site_key<'a>(&'a self, _: &'a SiteKey) -> BoxFuture<'a, Result<(), CloudError>> {
            Box::pin(std::future::pending())
        }
    }

    fn keys(pinned: Option<String>) -> SiteKeys {
        let membership = Membership {
            server: "https://plane".into(),
            name: "one".into(),
            executor_id: ExecutorId::from_uuid(Uuid::from_u128(1)),
            site_id: SiteId::from_uuid(Uuid::from_u128(2)),
            site: "lab".into(),
            site_public_key: pinned,
        };
        let identity = Arc::new(Identity::new(membership, Keys::generate().unwrap()));
        SiteKeys::new(identity, Arc::new(MemoryJournal::default()), Arc::new(Nobody))
    }

    fn without_share(public: &str) -> LeaseResponse {
        serde_json::from_value(serde_json::json!({
            "ttl_ms": 5000, "server_time": "2026-01-01T00:00:00Z", "grants": [], "lost": [], "cancel": [],
            "hardware_paused": false, "joining": [], "site_key": null, "site_public_key": public,
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn another_key_is_noticed_while_ours_is_held_and_said_with_both_fingerprints() {
        let (ours, theirs) = (SiteSecret::generate().unwrap(), SiteSecret::generate().unwrap().public_key());
        let public = ours.public_key();
        let keys = keys(Some(public.clone()));
        let sealed = keys.identity.seal_to_self(&*ours.bytes()).unwrap();
        keys.receive(&sealed, &theirs, Some(public.clone())).await.unwrap();
        assert!(keys.secret().is_none(), "another one than at enrolment is refused");
        keys.receive(&sealed, &public, Some(public.clone())).await.unwrap();
        assert!(keys.secret().is_some());
        assert_eq!(keys.journal.meta(PINNED).await.unwrap(), Some(public.clone()));
        keys.compare(Some(&public));
        assert_eq!(keys.warning(), None);
        keys.compare(Some(&theirs));
        let warning = keys.warning().unwrap();
        assert!(warning.contains(&site_fingerprint(&theirs)) && warning.contains(&site_fingerprint(&public)));
        keys.compare(Some(&public));
        assert_eq!(keys.warning(), None);
    }

    /// Its share was replaced while it worked, and it is started anew.
    #[tokio::test]
    async fn who_has_held_the_key_keeps_it_whatever_becomes_of_its_share() {
        let ours = SiteSecret::generate().unwrap();
        let (public, theirs) = (ours.public_key(), SiteSecret::generate().unwrap());
        let before = keys(Some(public.clone()));
        let share = before.identity.seal_to_self(&*ours.bytes()).unwrap();
        before.receive(&share, &public, Some(public.clone())).await.unwrap();
        let restarted = || {
            let (identity, journal) = (Arc::clone(&before.identity), Arc::clone(&before.journal));
            SiteKeys::new(identity, journal, Arc::new(Nobody))
        };
        let other = before.identity.seal_to_self(&*theirs.bytes()).unwrap();
        for (bad, why) in [("QUJD", "cannot be opened"), (other.as_str(), "does not belong")] {
            let keys = restarted();
            keys.receive(bad, &public, Some(public.clone())).await.unwrap();
            assert_eq!(keys.secret().unwrap().public_key(), public);
            let said = keys.warning().unwrap();
            assert!(said.contains(why) && said.contains("executor one"), "{said}");
            keys.compare(Some(&theirs.public_key()));
            assert!(keys.warning().unwrap().contains("another site key"));
        }
        let keys = restarted();
        keys.receive(&share, &public, Some(public.clone())).await.unwrap();
        assert_eq!(keys.warning(), None);
        let keys = restarted();
        keys.attend(&Away, &without_share(&public)).await.unwrap();
        assert_eq!(keys.secret().unwrap().public_key(), public, "its share was removed");
        assert!(keys.warning().unwrap().contains("it has none"));
        let keys = restarted();
        keys.receive("QUJD", &theirs.public_key(), Some(public.clone())).await.unwrap();
        keys.attend(&Away, &without_share(&theirs.public_key())).await.unwrap();
        assert!(keys.secret().is_none(), "what was kept is for the key that was seen first");
        before.forget().await.unwrap();
        let revoked = restarted();
        revoked.receive("QUJD", &public, Some(public.clone())).await.unwrap();
        assert!(revoked.secret().is_none());
    }

    #[tokio::test]
    async fn an_executor_without_a_share_says_once_that_it_waits() {
        let said = keys(None).waiting().unwrap();
        assert!(said.contains("waits to be confirmed") && said.contains("of the site lab"), "{said}");
        let public = SiteSecret::generate().unwrap().public_key();
        let keys = keys(Some(public.clone()));
        keys.attend(&Away, &without_share(&public)).await.unwrap();
        assert_eq!(keys.waiting(), None, "it was said");
    }

    #[test]
    fn a_fingerprint_is_what_the_command_line_shows() {
        // SHA-256 of 32 zero bytes, its first half.
        let zeros = encode_key(&[0; 32]);
        assert_eq!(site_fingerprint(&zeros), "6668 7aad f862 bd77 6c8f c18b 8e9f 8e20");
    }
}
