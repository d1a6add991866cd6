//! One owner per BMC: all traffic of this process to a BMC goes through its [`Actor`].
//!
//! An actor has one client with one session, a rate, two slots with priorities, and a circuit breaker. What it
//! hands out is a [`Line`]: the only way for a handler to reach a BMC, and its mutating calls take a
//! [`MutationPermit`], which is asked when the slot is held and the rate is paid, immediately before the request.
//! A refused credential closes the actor until a new version of the credential comes.

mod breaker;
pub mod redfish;
mod slots;

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use governor::{
    Quota, RateLimiter,
    clock::Clock as GovernorClock,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use rackhand_schema::{
    id::{BmcId, CredentialId},
    job::PowerAction,
    server::{Inventory, PowerState},
};

pub use slots::Priority;

use crate::{
    bmc::{
        Bmc, BmcError, BmcErrorKind, DeviceJob, JobProgress, JobRef, Readiness, StageRequest, Staged,
        UpdateSupport,
    },
    clock::Clock,
    credential::OpenCredential,
    lease::MutationPermit,
    timing::Timing,
};

/// Requests to one BMC at once.
const SLOTS: usize = 2;
/// A session that nobody uses is deleted after so long.
const IDLE: Duration = Duration::from_secs(120);

/// Where a BMC is and how to prove who we are.
pub struct Endpoint {
    pub bmc_id: BmcId,
    pub url: String,
    /// SHA-256 of the key it must show, hex.
    pub spki_sha256: String,
    pub credential_id: CredentialId,
    pub credential: OpenCredential,
    /// It has accepted this version before.
    pub proven: bool,
}

/// Makes clients; the seam between the broker and a protocol.
pub trait Connector: Send + Sync + 'static {
    /// Builds a client; sends nothing yet.
    fn connect(&self, endpoint: Endpoint) -> BoxFuture<'_, Result<Arc<dyn Bmc>, BmcError>>;
}

/// The rate limiter counts on the executor's clock.
#[derive(Clone)]
struct RateClock(Arc<dyn Clock>);

impl GovernorClock for RateClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.now()
    }
}

pub struct Actor {
    bmc: Arc<dyn Bmc>,
    key: (String, String, CredentialId, u32),
    rate: RateLimiter<NotKeyed, InMemoryState, RateClock, NoOpMiddleware<Duration>>,
    slots: slots::Slots,
    breaker: Mutex<breaker::Breaker>,
    closed: Mutex<Option<BmcError>>,
    lines: AtomicUsize,
    idle_since: Mutex<Duration>,
    clock: Arc<dyn Clock>,
    timing: Arc<Timing>,
}

pub struct Broker {
    connector: Arc<dyn Connector>,
    clock: Arc<dyn Clock>,
    timing: Arc<Timing>,
    actors: tokio::sync::Mutex<BTreeMap<BmcId, Arc<Actor>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Broker {
    pub fn new(connector: Arc<dyn Connector>, clock: Arc<dyn Clock>, timing: Arc<Timing>) -> Arc<Self> {
        Arc::new(Self { connector, clock, timing, actors: tokio::sync::Mutex::default() })
    }

    /// A line to the BMC. The existing client is used while address, key and credential stay the same; otherwise
    /// its session is deleted first.
    ///
    /// # Errors
    /// When no client can be built for the address.
    pub async fn line(&self, endpoint: Endpoint, priority: Priority) -> Result<Line, BmcError> {
        let bmc_id = endpoint.bmc_id;
        let key = (
            endpoint.url.clone(),
            endpoint.spki_sha256.clone(),
            endpoint.credential_id,
            endpoint.credential.version,
        );
        let mut actors = self.actors.lock().await;
        if let Some(actor) = actors.get(&bmc_id) {
            if actor.key == key {
                return Ok(Line::new(Arc::clone(actor), priority));
            }
            actor.bmc.close().await;
        }
        let burst = NonZeroU32::new(self.timing.bmc_burst).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(self.timing.bmc_interval)
            .unwrap_or(Quota::per_second(NonZeroU32::MIN))
            .allow_burst(burst);
        let actor = Arc::new(Actor {
            bmc: self.connector.connect(endpoint).await?,
            key,
            rate: RateLimiter::direct_with_clock(quota, RateClock(Arc::clone(&self.clock))),
            slots: slots::Slots::new(SLOTS),
            breaker: Mutex::default(),
            closed: Mutex::default(),
            lines: AtomicUsize::new(0),
            idle_since: Mutex::new(self.clock.now()),
            clock: Arc::clone(&self.clock),
            timing: Arc::clone(&self.timing),
        });
        actors.insert(bmc_id, Arc::clone(&actor));
        Ok(Line::new(actor, priority))
    }

    /// Deletes the sessions that nobody has used for a while.
    pub async fn sweep(&self) {
        let now = self.clock.now();
        let mut actors = self.actors.lock().await;
        let idle: Vec<BmcId> = actors
            .iter()
            .filter(|(_, actor)| {
                actor.lines.load(Ordering::Acquire) == 0
                    && now.saturating_sub(*lock(&actor.idle_since)) > IDLE
                    && lock(&actor.closed).is_none()
            })
            .map(|(id, _)| *id)
            .collect();
        for id in idle {
            if let Some(actor) = actors.remove(&id) {
                actor.bmc.close().await;
            }
        }
    }

    /// Deletes every session.
    pub async fn close(&self) {
        let actors = std::mem::take(&mut *self.actors.lock().await);
        futures::future::join_all(actors.values().map(|actor| actor.bmc.close())).await;
    }
}

/// A handler's way to its BMC.
pub struct Line {
    actor: Arc<Actor>,
    priority: Priority,
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.actor.lines.fetch_sub(1, Ordering::AcqRel) == 1 {
            *lock(&self.actor.idle_since) = self.actor.clock.now();
        }
    }
}

impl Line {
    fn new(actor: Arc<Actor>, priority: Priority) -> Self {
        actor.lines.fetch_add(1, Ordering::AcqRel);
        Self { actor, priority }
    }

    /// A slot, the rate paid, and no reason known why a request would be in vain.
    async fn turn(&self) -> Result<slots::Slot, BmcError> {
        let slot = self.actor.slots.take(self.priority).await;
        let now = self.actor.clock.now();
        if let Some(closed) = lock(&self.actor.closed).clone() {
            return Err(closed);
        }
        if let Some(left) = lock(&self.actor.breaker).open_for(now) {
            return Err(BmcError::new(
                BmcErrorKind::Unreachable,
                format!("no answer lately; the next try is in {} s", left.as_secs() + 1),
            ));
        }
        while let Err(too_early) = self.actor.rate.check() {
            let left = too_early.wait_time_from(self.actor.clock.now());
            self.actor.clock.sleep(left.max(Duration::from_millis(1))).await;
        }
        Ok(slot)
    }

    fn note<T>(&self, result: Result<T, BmcError>) -> Result<T, BmcError> {
        let now = self.actor.clock.now();
        match &result {
            Err(error) if error.kind == BmcErrorKind::Unreachable => {
                lock(&self.actor.breaker).failed(now, self.actor.timing.poll);
            }
            Err(error)
                if matches!(
                    error.kind,
                    BmcErrorKind::Auth | BmcErrorKind::AuthWithheld { final_word: true }
                ) =>
            {
                *lock(&self.actor.closed) = Some(error.clone());
            }
            Err(error) if matches!(error.kind, BmcErrorKind::Held(_) | BmcErrorKind::Ambiguous) => {}
            _ => lock(&self.actor.breaker).answered(),
        }
        result
    }

    async fn read<T>(&self, call: impl Future<Output = Result<T, BmcError>> + Send) -> Result<T, BmcError> {
        let _slot = self.turn().await?;
        // One call may be many requests; each has its own limit inside the client.
        let limit = self.actor.timing.read * 10;
        let result = tokio::select! {
            result = call => result,
            () = self.actor.clock.sleep(limit) => {
                Err(BmcError::new(BmcErrorKind::Unreachable, "the answer takes too long"))
            }
        };
        self.note(result)
    }

    /// Sends a mutation under its permit.
    async fn mutate<'a, T>(
        &'a self,
        permit: MutationPermit,
        call: impl FnOnce(Duration) -> BoxFuture<'a, Result<T, BmcError>>,
    ) -> Result<T, BmcError> {
        let _slot = self.turn().await?;
        let guard = permit
            .begin()
            .map_err(|hold| BmcError::new(BmcErrorKind::Held(hold), format!("nothing was sent: {hold}")))?;
        let limit = guard.limit();
        let result = match guard.run(call(limit)).await {
            Ok(result) => result,
            Err(cut) => Err(BmcError::new(BmcErrorKind::Ambiguous, cut.to_string())),
        };
        self.note(result)
    }

    pub async fn inventory(&self) -> Result<Inventory, BmcError> {
        self.read(self.actor.bmc.inventory()).await
    }

    pub async fn power(&self) -> Result<PowerState, BmcError> {
        self.read(self.actor.bmc.power()).await
    }

    pub async fn jobs(&self) -> Result<Vec<DeviceJob>, BmcError> {
        self.read(self.actor.bmc.jobs()).await
    }

    pub async fn log_mark(&self) -> Result<Option<u64>, BmcError> {
        self.read(self.actor.bmc.log_mark()).await
    }

    pub async fn log_since(&self, mark: Option<u64>) -> Result<Vec<(String, String)>, BmcError> {
        self.read(self.actor.bmc.log_since(mark)).await
    }

    pub async fn readiness(&self) -> Result<Readiness, BmcError> {
        self.read(self.actor.bmc.readiness()).await
    }

    pub async fn update_support(&self) -> Result<UpdateSupport, BmcError> {
        self.read(self.actor.bmc.update_support()).await
    }

    pub async fn follow(&self, job: &JobRef) -> Result<JobProgress, BmcError> {
        self.read(self.actor.bmc.follow(job)).await
    }

    pub async fn stage(&self, permit: MutationPermit, request: StageRequest) -> Result<Staged, BmcError> {
        self.mutate(permit, |limit| self.actor.bmc.stage(request, limit)).await
    }

    pub async fn reset(&self, permit: MutationPermit, action: PowerAction) -> Result<(), BmcError> {
        self.mutate(permit, |limit| self.actor.bmc.reset(action, limit)).await
    }

    pub async fn delete_job(&self, permit: MutationPermit, id: &str) -> Result<(), BmcError> {
        let id = id.to_owned();
        let bmc = Arc::clone(&self.actor.bmc);
        self.mutate(permit, move |limit| Box::pin(async move { bmc.delete_job(&id, limit).await })).await
    }
}
