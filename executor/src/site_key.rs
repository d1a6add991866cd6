//! The site's key: made by its first executor, shared only with executors whose fingerprint a person confirmed.
//!
//! Credentials are sealed to the public half. The private half is in memory while this process runs; the control
//! plane stores it sealed to each executor. A joining executor is shown with both its public keys; its
//! fingerprint is computed here from them, so a control plane that swaps a key shows another fingerprint than
//! the one that was confirmed. The public key seen first is pinned in the journal; another one is refused.

use std::sync::{Arc, Mutex, PoisonError};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use crypto_box::SecretKey;
use rackhand_schema::{
    executor::{SiteKey, SiteKeyShare},
    id::ExecutorId,
    protocol::{JoiningExecutor, LeaseResponse},
};
use zeroize::Zeroizing;

use crate::{
    cloud::{Cloud, CloudError},
    credential::SiteSecret,
    identity::{self, Identity, decode_key, plain_fingerprint},
    journal::{Journal, JournalError, Write},
};

const PINNED: &str = "site_public_key";

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
            shared: Mutex::default(),
            announced: Mutex::default(),
        }
    }

    /// The key, once this executor has it.
    pub fn secret(&self) -> Option<Arc<SiteSecret>> {
        self.secret.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Does what an answer of the control plane asks for about the key.
    ///
    /// # Errors
    /// When the journal fails. A control plane that does not take the key is asked again next time.
    pub async fn attend(&self, cloud: &dyn Cloud, answer: &LeaseResponse) -> Result<(), JournalError> {
        if let Some(secret) = self.secret() {
            self.share(cloud, &secret, &answer.joining).await;
            return Ok(());
        }
        let pinned = match self.journal.meta(PINNED).await? {
            Some(pinned) => Some(pinned),
            None => self.identity.membership.site_public_key.clone(),
        };
        match (&answer.site_key, &answer.site_public_key) {
            (Some(sealed), Some(public)) => self.receive(sealed, public, pinned).await,
            (None, None) if pinned.is_none() => self.make(cloud).await,
            _ => Ok(()),
        }
    }

    async fn hold(&self, secret: SiteSecret) -> Result<(), JournalError> {
        let value = Some(secret.public_key());
        self.journal.write(Write::Meta { key: PINNED.to_owned(), value }).await?;
        *self.secret.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(secret));
        Ok(())
    }

    async fn receive(&self, sealed: &str, public: &str, pinned: Option<String>) -> Result<(), JournalError> {
        if pinned.is_some_and(|pinned| pinned != public) {
            tracing::error!("the control plane shows another site key than before; it is refused");
            return Ok(());
        }
        let Some(bytes) = self
            .identity
            .unseal(sealed)
            .and_then(|plain| <[u8; 32]>::try_from(plain.as_slice()).ok().map(Zeroizing::new))
        else {
            tracing::error!("the site key cannot be opened with this executor's key");
            return Ok(());
        };
        let secret = SiteSecret::new(SecretKey::from_bytes(*bytes));
        if secret.public_key() != public {
            tracing::error!("the private and the public site key do not belong together; both are refused");
            return Ok(());
        }
        tracing::info!("holds the site key");
        self.hold(secret).await
    }

    async fn make(&self, cloud: &dyn Cloud) -> Result<(), JournalError> {
        let Ok(secret) = SiteSecret::generate() else {
            tracing::error!("no randomness for a site key");
            return Ok(());
        };
        let Some(sealed) = self.identity.seal_to_self(&*secret.bytes()) else { return Ok(()) };
        let executor_id = self.identity.membership.executor_id;
        let key =
            SiteKey { public_key: secret.public_key(), shares: vec![SiteKeyShare { executor_id, sealed }] };
        match cloud.site_key(&key).await {
            Ok(()) => {
                tracing::info!("made the key of the site");
                self.hold(secret).await
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

    async fn share(&self, cloud: &dyn Cloud, secret: &SiteSecret, joining: &[JoiningExecutor]) {
        let shares: Vec<SiteKeyShare> =
            joining.iter().filter_map(|joining| self.share_for(secret, joining)).collect();
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

/// Base64 of 32 bytes.
pub fn encode_key(key: &[u8; 32]) -> String {
    STANDARD.encode(key)
}
