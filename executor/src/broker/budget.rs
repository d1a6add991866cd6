//! The login budget of one BMC and one credential version, kept in the control plane for all executors and shared by
//! all transports: a password that this BMC has not accepted yet is reserved before it is presented, and is never
//! presented while the control plane cannot be asked. One that it has accepted is presented without asking, as long
//! as the control plane does not say that this version is suspended: then it counts as not accepted, here as in the
//! control plane, which lets nobody present it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use rackhand_redfish::{AuthAttempt, AuthGate, AuthOutcome, GateDenied};
use rackhand_schema::{
    id::{BmcId, CredentialId},
    protocol::{AttemptStep, CredentialAttempt},
};

use super::Endpoint;
use crate::{
    cloud::Cloud,
    credential::{Place, Use},
    text,
};

/// When the control plane cannot be asked, ask again after so long.
const RETRY: Duration = Duration::from_secs(15);

pub struct Budget {
    cloud: Arc<dyn Cloud>,
    bmc_id: BmcId,
    credential_id: CredentialId,
    version: u32,
    credential_use: Use,
    proven: Proven,
}

/// Whether the BMC has accepted this version of the credential; shared by its clients, and forgotten when the control
/// plane says so.
#[derive(Debug, Clone, Default)]
pub struct Proven(Arc<AtomicBool>);

impl Proven {
    pub fn new(proven: bool) -> Self {
        Self(Arc::new(AtomicBool::new(proven)))
    }

    pub fn forget(&self) {
        self.set(false);
    }

    fn set(&self, proven: bool) {
        self.0.store(proven, Ordering::Release);
    }

    pub fn holds(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Budget {
    pub fn new(cloud: Arc<dyn Cloud>, endpoint: &Endpoint) -> Arc<Self> {
        Arc::new(Self {
            cloud,
            bmc_id: endpoint.bmc_id,
            credential_id: endpoint.credential_id,
            version: endpoint.credential.version,
            credential_use: endpoint.credential_use.clone(),
            proven: endpoint.proven.clone(),
        })
    }

    fn attempt(&self, step: AttemptStep) -> CredentialAttempt {
        CredentialAttempt {
            bmc_id: self.bmc_id,
            credential_id: self.credential_id,
            version: self.version,
            step,
        }
    }

    /// Before the password is presented.
    pub async fn reserve(&self) -> Result<(), GateDenied> {
        if self.proven.holds() {
            return Ok(());
        }
        match self.cloud.credential_attempt(&self.attempt(AttemptStep::Reserve)).await {
            Ok(answer) if answer.allowed => Ok(()),
            Ok(answer) => Err(GateDenied {
                reason: text::clean(&answer.detail),
                retry_after: answer.retry_after_ms.map(|ms| Duration::from_millis(ms.into())),
            }),
            Err(error) => Err(GateDenied {
                reason: format!("the control plane could not be asked whether a login is allowed: {error}"),
                retry_after: Some(RETRY),
            }),
        }
    }

    /// Afterwards: how it went at `place`.
    pub async fn settle_as(&self, outcome: AuthOutcome, place: &Place) {
        if outcome == AuthOutcome::Accepted {
            self.credential_use.accepted(place).await;
        }
        let known = self.proven.holds();
        let step = match outcome {
            AuthOutcome::Accepted if known => return,
            AuthOutcome::Accepted => AttemptStep::Accepted,
            AuthOutcome::Rejected => AttemptStep::Rejected,
            AuthOutcome::NotSent | AuthOutcome::NotJudged if !known => AttemptStep::NotSent,
            // Counts as failed as long as nothing else is said.
            AuthOutcome::NotSent | AuthOutcome::NotJudged | AuthOutcome::Unknown => return,
        };
        self.proven.set(outcome == AuthOutcome::Accepted);
        if let Err(error) = self.cloud.credential_attempt(&self.attempt(step)).await {
            tracing::warn!(%error, "how a login went could not be reported; it counts as failed");
        }
    }
}

/// [`Budget`] as the Redfish client asks it.
pub struct Gate {
    pub budget: Arc<Budget>,
    /// Where the client presents the password.
    pub place: Place,
}

impl AuthGate for Gate {
    fn trusts(&self) -> bool {
        self.budget.proven.holds()
    }

    fn ask<'a>(&'a self, _attempt: &'a AuthAttempt) -> BoxFuture<'a, Result<(), GateDenied>> {
        Box::pin(self.budget.reserve())
    }

    fn settle<'a>(&'a self, _attempt: &'a AuthAttempt, outcome: AuthOutcome) -> BoxFuture<'a, ()> {
        Box::pin(self.budget.settle_as(outcome, &self.place))
    }
}
