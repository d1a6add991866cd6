//! One owner per BMC: all traffic of this process to a BMC goes through its [`Actor`].
//!
//! An actor has one client with one session for each transport, and for all of them together one rate, two slots with
//! priorities and one credential. What it hands out is a [`Line`]: the only way for a handler to reach a BMC. Reads go
//! over the first transport that is able and answers ([`choice`]); each has a circuit breaker. A mutating call names
//! its transport, the one its intent told, goes over that one alone, and takes a [`MutationPermit`], which is asked when
//! the slot is held and the rate is paid, immediately before the request leaves. A refused credential closes the actor,
//! all transports of it, until a new version of the credential comes.

mod breaker;
mod budget;
mod choice;
pub mod connect;
pub mod ipmi;
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
    job::{BootOverrideParams, PowerAction},
    server::{Inventory, PowerState},
};

pub use choice::Pick;
pub use slots::Priority;

use crate::{
    bmc::{
        Bmc, BmcError, BmcErrorKind, BootControl, BootSetting, Console, DeviceJob, EventLog, Firmware,
        JobProgress, JobRef, Power, PowerTrace, Readiness, SensorReading, Sensors, StageRequest, Staged,
        Stream, UpdateSupport, Via,
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

/// A Redfish service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub url: String,
    /// SHA-256 of the key it must show, hex.
    pub spki_sha256: String,
}

/// Where a BMC is and how to prove who we are. Both addresses are ones that the sealed credential names.
pub struct Endpoint {
    pub bmc_id: BmcId,
    pub redfish: Option<Service>,
    /// `host[:port]`.
    pub ipmi: Option<String>,
    pub credential_id: CredentialId,
    pub credential: OpenCredential,
    /// It has accepted this version before.
    pub proven: bool,
}

/// Makes clients; the seam between the broker and the protocols.
pub trait Connector: Send + Sync + 'static {
    /// Builds a client for each transport, the preferred one first; sends nothing yet.
    fn connect(&self, endpoint: Endpoint) -> BoxFuture<'_, Result<Vec<Arc<dyn Bmc>>, BmcError>>;
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

/// A transport of one BMC.
struct Way {
    bmc: Arc<dyn Bmc>,
    breaker: Mutex<breaker::Breaker>,
}

type Key = (Option<Service>, Option<String>, CredentialId, u32);

pub struct Actor {
    ways: Vec<Way>,
    key: Key,
    rate: RateLimiter<NotKeyed, InMemoryState, RateClock, NoOpMiddleware<Duration>>,
    slots: slots::Slots,
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
            endpoint.redfish.clone(),
            endpoint.ipmi.clone(),
            endpoint.credential_id,
            endpoint.credential.version,
        );
        let mut actors = self.actors.lock().await;
        if let Some(actor) = actors.get(&bmc_id) {
            if actor.key == key {
                return Ok(Line::new(Arc::clone(actor), priority));
            }
            actor.close().await;
        }
        let burst = NonZeroU32::new(self.timing.bmc_burst).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(self.timing.bmc_interval)
            .unwrap_or(Quota::per_second(NonZeroU32::MIN))
            .allow_burst(burst);
        let clients = self.connector.connect(endpoint).await?;
        let ways = clients.into_iter().map(|bmc| Way { bmc, breaker: Mutex::default() }).collect();
        let actor = Arc::new(Actor {
            ways,
            key,
            rate: RateLimiter::direct_with_clock(quota, RateClock(Arc::clone(&self.clock))),
            slots: slots::Slots::new(SLOTS),
            closed: Mutex::default(),
            lines: AtomicUsize::new(0),
            idle_since: Mutex::new(self.clock.now()),
            clock: Arc::clone(&self.clock),
            timing: Arc::clone(&self.timing),
        });
        actors.insert(bmc_id, Arc::clone(&actor));
        Ok(Line::new(actor, priority))
    }

    /// Deletes the sessions that nobody has used for a while; those that nobody uses right now when the control plane
    /// does not know this process to live any more.
    pub async fn sweep(&self, alive: bool) {
        let now = self.clock.now();
        let patience = if alive { IDLE } else { Duration::ZERO };
        let mut actors = self.actors.lock().await;
        let idle: Vec<BmcId> = actors
            .iter()
            .filter(|(_, actor)| {
                actor.lines.load(Ordering::Acquire) == 0
                    && now.saturating_sub(*lock(&actor.idle_since)) >= patience
                    && lock(&actor.closed).is_none()
            })
            .map(|(id, _)| *id)
            .collect();
        for id in idle {
            if let Some(actor) = actors.remove(&id) {
                actor.close().await;
            }
        }
    }

    /// Deletes every session.
    pub async fn close(&self) {
        let actors = std::mem::take(&mut *self.actors.lock().await);
        futures::future::join_all(actors.values().map(|actor| actor.close())).await;
    }
}

impl Actor {
    async fn close(&self) {
        futures::future::join_all(self.ways.iter().map(|way| way.bmc.close())).await;
    }

    fn way(&self, via: Via) -> Option<&Way> {
        self.ways.iter().find(|way| way.bmc.via() == via)
    }
}

fn unable() -> BmcError {
    BmcError::new(BmcErrorKind::Unsupported, "no transport of this BMC carries it")
}

fn resting(left: Duration) -> BmcError {
    let detail = format!("no answer lately; the next try is in {} s", left.as_secs() + 1);
    BmcError::new(BmcErrorKind::Unreachable, detail)
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

    /// A slot, the rate paid, and no reason known why a request over `way` would be in vain.
    async fn turn(&self, way: &Way) -> Result<slots::Slot, BmcError> {
        let slot = self.actor.slots.take(self.priority).await;
        let now = self.actor.clock.now();
        if let Some(closed) = lock(&self.actor.closed).clone() {
            return Err(closed);
        }
        if let Some(left) = lock(&way.breaker).open_for(now) {
            return Err(resting(left));
        }
        while let Err(too_early) = self.actor.rate.check() {
            let left = too_early.wait_time_from(self.actor.clock.now());
            self.actor.clock.sleep(left.max(Duration::from_millis(1))).await;
        }
        Ok(slot)
    }

    fn note<T>(&self, way: &Way, result: Result<T, BmcError>) -> Result<T, BmcError> {
        let now = self.actor.clock.now();
        match &result {
            Err(error) if error.kind == BmcErrorKind::Unreachable => {
                lock(&way.breaker).failed(now, self.actor.timing.poll);
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
            _ => lock(&way.breaker).answered(),
        }
        result
    }

    async fn read_over<T>(
        &self,
        way: &Way,
        call: impl Future<Output = Result<T, BmcError>> + Send,
    ) -> Result<T, BmcError> {
        let _slot = self.turn(way).await?;
        // One call may be many requests; each has its own limit inside the client.
        let limit = self.actor.timing.read * 10;
        let result = tokio::select! {
            result = call => result,
            () = self.actor.clock.sleep(limit) => {
                Err(BmcError::new(BmcErrorKind::Unreachable, "the answer takes too long"))
            }
        };
        self.note(way, result)
    }

    /// Reads over the transports that `pick` allows, until one answers. `call` is none where a transport does not
    /// carry it.
    async fn read<T: Send>(
        &self,
        pick: Pick,
        call: impl for<'a> Fn(&'a dyn Bmc) -> Option<BoxFuture<'a, Result<T, BmcError>>> + Send + Sync,
    ) -> Result<(Via, T), BmcError> {
        let now = self.actor.clock.now();
        let standings: Vec<choice::Standing> = self
            .actor
            .ways
            .iter()
            .map(|way| choice::Standing {
                via: way.bmc.via(),
                able: call(&*way.bmc).is_some(),
                rests: lock(&way.breaker).open_for(now),
            })
            .collect();
        let order = choice::order(&standings, pick).map_err(|nobody| match nobody {
            choice::Nobody::Unable => unable(),
            choice::Nobody::Resting(left) => resting(left),
        })?;
        let mut failure: Option<BmcError> = None;
        for via in order {
            let Some(way) = self.actor.way(via) else { continue };
            let Some(request) = call(&*way.bmc) else { continue };
            match self.read_over(way, request).await {
                Ok(answer) => return Ok((via, answer)),
                Err(error) if choice::falls_through(error.kind) => {
                    tracing::info!(%via, %error, "asks over another transport where there is one");
                    failure = match failure {
                        Some(before) if !choice::more_telling(error.kind, before.kind) => Some(before),
                        _ => Some(error),
                    };
                }
                Err(error) => return Err(error),
            }
        }
        Err(failure.unwrap_or_else(unable))
    }

    /// Sends a mutation over `via`, and over nothing else, under its permit.
    async fn mutate<'a, T>(
        &'a self,
        permit: MutationPermit,
        via: Via,
        call: impl FnOnce(&'a dyn Bmc, Duration) -> Option<BoxFuture<'a, Result<T, BmcError>>>,
    ) -> Result<T, BmcError> {
        let way = self.actor.way(via).ok_or_else(unable)?;
        let _slot = self.turn(way).await?;
        let guard = permit
            .begin()
            .map_err(|hold| BmcError::new(BmcErrorKind::Held(hold), format!("nothing was sent: {hold}")))?;
        let limit = guard.limit();
        let call = call(&*way.bmc, limit).ok_or_else(unable)?;
        let result = match guard.run(call).await {
            Ok(result) => result,
            Err(cut) => Err(BmcError::new(BmcErrorKind::Ambiguous, cut.to_string())),
        };
        self.note(way, result)
    }

    /// What the server is. Another transport tells less: it is asked only where the preferred one is missing.
    pub async fn inventory(&self) -> Result<(Via, Inventory), BmcError> {
        let preferred = self.actor.ways.first().map(|way| way.bmc.via());
        let first = self.read(preferred.map_or(Pick::Best, Pick::Only), |bmc| Some(bmc.inventory())).await;
        match first {
            Err(error) if matches!(error.kind, BmcErrorKind::Unsupported | BmcErrorKind::NotFound) => {
                match self.actor.ways.get(1) {
                    Some(other) => self.read(Pick::Only(other.bmc.via()), |bmc| Some(bmc.inventory())).await,
                    None => Err(error),
                }
            }
            other => other,
        }
    }

    /// What the transport with the update service tells.
    pub async fn firmware_inventory(&self) -> Result<Inventory, BmcError> {
        let updating = |bmc: &dyn Bmc| bmc.firmware().is_some();
        Ok(self.read(Pick::Best, |bmc| updating(bmc).then(|| bmc.inventory())).await?.1)
    }

    /// Whether the BMC may be spoken to over `via`.
    pub fn has(&self, via: Via) -> bool {
        self.actor.way(via).is_some()
    }

    pub async fn power(&self, pick: Pick) -> Result<(Via, PowerState), BmcError> {
        self.read(pick, |bmc| bmc.power().map(Power::state)).await
    }

    /// Before an intent: the transport for `action`, and the state it shows.
    pub async fn power_for(&self, action: PowerAction) -> Result<(Via, PowerState), BmcError> {
        self.read(Pick::Best, |bmc| {
            let power = bmc.power()?;
            Some(Box::pin(async move {
                if !power.supports(action).await? {
                    return Err(BmcError::new(BmcErrorKind::Unsupported, "it has no such power action"));
                }
                power.state().await
            }))
        })
        .await
    }

    pub async fn reset(&self, permit: MutationPermit, via: Via, action: PowerAction) -> Result<(), BmcError> {
        self.mutate(permit, via, |bmc, limit| bmc.power().map(|power| power.switch(action, limit))).await
    }

    pub async fn boot(&self, pick: Pick) -> Result<(Via, BootSetting), BmcError> {
        self.read(pick, |bmc| bmc.boot_control().map(BootControl::setting)).await
    }

    /// Before an intent: the transport that can set `wanted`, and the setting it shows.
    pub async fn boot_for(&self, wanted: BootOverrideParams) -> Result<(Via, BootSetting), BmcError> {
        self.read(Pick::Best, |bmc| {
            let boot = bmc.boot_control()?;
            Some(Box::pin(async move {
                if !boot.supports(wanted).await? {
                    return Err(BmcError::new(
                        BmcErrorKind::Unsupported,
                        "it does not list this boot override",
                    ));
                }
                boot.setting().await
            }))
        })
        .await
    }

    pub async fn set_boot(
        &self,
        permit: MutationPermit,
        via: Via,
        wanted: BootOverrideParams,
    ) -> Result<(), BmcError> {
        self.mutate(permit, via, |bmc, limit| bmc.boot_control().map(|boot| boot.set(wanted, limit))).await
    }

    /// The newest record of `via`'s log.
    pub async fn event_mark(&self, via: Via) -> Result<Option<u64>, BmcError> {
        Ok(self.read(Pick::Only(via), |bmc| bmc.event_log().map(EventLog::mark)).await?.1)
    }

    /// What `via`'s log says about the host's power since `mark`.
    pub async fn power_trace(&self, via: Via, mark: Option<u64>) -> Result<PowerTrace, BmcError> {
        let Some(mark) = mark else { return Ok(PowerTrace::Untold) };
        Ok(self.read(Pick::Only(via), |bmc| bmc.event_log().map(|log| log.power_since(mark))).await?.1)
    }

    pub async fn sensors(&self) -> Result<(Via, Vec<SensorReading>), BmcError> {
        self.read(Pick::Best, |bmc| bmc.sensors().map(Sensors::sensors)).await
    }

    pub async fn console(&self) -> Result<(Via, Box<dyn Stream>), BmcError> {
        self.read(Pick::Best, |bmc| bmc.console().map(Console::open)).await
    }

    pub async fn jobs(&self) -> Result<Vec<DeviceJob>, BmcError> {
        Ok(self.read(Pick::Best, |bmc| bmc.firmware().map(Firmware::jobs)).await?.1)
    }

    pub async fn log_mark(&self) -> Result<Option<u64>, BmcError> {
        Ok(self.read(Pick::Best, |bmc| bmc.firmware().map(Firmware::log_mark)).await?.1)
    }

    pub async fn log_since(&self, mark: Option<u64>) -> Result<Vec<(String, String)>, BmcError> {
        Ok(self.read(Pick::Best, |bmc| bmc.firmware().map(|device| device.log_since(mark))).await?.1)
    }

    pub async fn readiness(&self) -> Result<Readiness, BmcError> {
        Ok(self.read(Pick::Best, |bmc| bmc.firmware().map(Firmware::readiness)).await?.1)
    }

    pub async fn update_support(&self) -> Result<UpdateSupport, BmcError> {
        Ok(self.read(Pick::Best, |bmc| bmc.firmware().map(Firmware::update_support)).await?.1)
    }

    pub async fn follow(&self, job: &JobRef) -> Result<JobProgress, BmcError> {
        let way = self.updating()?;
        let device = way.bmc.firmware().ok_or_else(unable)?;
        self.read_over(way, device.follow(job)).await
    }

    pub async fn stage(&self, permit: MutationPermit, request: StageRequest) -> Result<Staged, BmcError> {
        let via = self.updating()?.bmc.via();
        self.mutate(permit, via, |bmc, limit| bmc.firmware().map(|device| device.stage(request, limit))).await
    }

    pub async fn delete_job(&self, permit: MutationPermit, id: &str) -> Result<(), BmcError> {
        let way = self.updating()?;
        let (id, bmc) = (id.to_owned(), Arc::clone(&way.bmc));
        self.mutate(permit, way.bmc.via(), move |_, limit| {
            Some(Box::pin(async move { bmc.firmware().ok_or_else(unable)?.delete_job(&id, limit).await }))
        })
        .await
    }

    /// The transport with the update service; there is never more than one.
    fn updating(&self) -> Result<&Way, BmcError> {
        self.actor.ways.iter().find(|way| way.bmc.firmware().is_some()).ok_or_else(unable)
    }
}
