//! One owner per BMC: all traffic of this process to a BMC goes through its [`Actor`].
//!
//! An actor has one client with one session for each transport, and for all of them together one rate, two slots with
//! priorities and one credential. What it hands out is a [`Line`]: the only way for a handler to reach a BMC. Reads
//! go over the first transport that is able and answers ([`choice`]); each has a circuit breaker. A mutating call
//! names its transport, the one its intent told, goes over that one alone, and takes a [`MutationPermit`], which is
//! asked when the slot is held and the rate is paid, immediately before the request leaves. The looks before it and
//! the mutation share one slot ([`Line::keep`]), so that no reader comes in between; a look older than [`LOOK_AGE`]
//! holds it back ([`look`]). A line that is told which machine to expect ([`Line::expecting`]) identifies it over
//! each transport before it asks anything else over it. A login that is refused bars the BMC, all transports of it,
//! for a while or until another version of the credential comes; the login budget is the real limit.
//!
//! Nothing here makes anybody wait for a BMC but who asked it something: [`Broker::line`] only looks into a map, and
//! goodbyes are said in the background by [`Broker::tend`]. Clients are said goodbye to when nobody refers to them
//! any more: their BMC has been idle, another version of the credential has taken their place, or the BMC's address
//! has changed.

mod breaker;
mod budget;
mod choice;
pub mod connect;
pub mod ipmi;
mod look;
mod machine;
pub mod redfish;
mod slots;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
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
    job::{BootOverrideParams, Machine, PlanTarget, PowerAction},
    protocol::{GrantTarget, SuspendedCredential},
    server::{Inventory, PowerState},
};
use tokio::{sync::Semaphore, task::JoinSet};

pub use budget::Proven;
pub use choice::Pick;
pub use look::{Kept, LOOK_AGE, Work};
pub use slots::Priority;

use crate::{
    bmc::{
        Bmc, BmcError, BmcErrorKind, BootControl, BootSetting, Console, EventLog, Firmware, JobProgress,
        JobRef, LogSince, Power, PowerTrace, Readiness, SensorReport, Sensors, StageRequest, Staged, Stream,
        UpdateSupport, Via,
    },
    clock::Clock,
    credential::{OpenCredential, Use},
    lease::MutationPermit,
    timing::Timing,
};

/// Requests to one BMC at once.
const SLOTS: usize = 2;
/// A session that nobody uses is deleted after so long.
const IDLE: Duration = Duration::from_secs(120);
/// Between two looks for sessions to delete.
const TEND: Duration = Duration::from_secs(5);
/// Goodbyes at once. One to a BMC that is gone takes ten seconds.
const GOODBYES: usize = 32;
/// All goodbyes together, when the process ends.
const FAREWELL: Duration = Duration::from_secs(15);

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
    /// Hears when it is accepted.
    pub credential_use: Use,
    /// Whether it has accepted this version before.
    pub proven: Proven,
}

/// Makes clients; the seam between the broker and the protocols.
pub trait Connector: Send + Sync + 'static {
    /// Builds a client for each transport, the preferred one first; sends nothing and waits for nothing. `pace` is for
    /// those that pay for each of their requests themselves ([`Bmc::paces_itself`]).
    ///
    /// # Errors
    /// When no client can be built for the address.
    fn connect(&self, endpoint: Endpoint, pace: Arc<Pace>) -> Result<Vec<Arc<dyn Bmc>>, BmcError>;
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

/// How often one BMC may be asked: a burst, then one request in each interval.
pub struct Pace {
    rate: RateLimiter<NotKeyed, InMemoryState, RateClock, NoOpMiddleware<Duration>>,
    clock: Arc<dyn Clock>,
}

impl Pace {
    fn new(clock: &Arc<dyn Clock>, timing: &Timing) -> Arc<Self> {
        let burst = NonZeroU32::new(timing.bmc_burst).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(timing.bmc_interval)
            .unwrap_or(Quota::per_second(NonZeroU32::MIN))
            .allow_burst(burst);
        let rate = RateLimiter::direct_with_clock(quota, RateClock(Arc::clone(clock)));
        Arc::new(Self { rate, clock: Arc::clone(clock) })
    }

    /// Waits until one more request may leave.
    pub async fn turn(&self) {
        while let Err(too_early) = self.rate.check() {
            let left = too_early.wait_time_from(self.clock.now());
            self.clock.sleep(left.max(Duration::from_millis(1))).await;
        }
    }
}

/// A transport of one BMC.
struct Way {
    bmc: Arc<dyn Bmc>,
    breaker: Mutex<breaker::Breaker>,
}

/// The clients that present one version of a credential.
struct Clients {
    ways: Vec<Way>,
    place: Place,
    credential: (CredentialId, u32),
    proven: Proven,
    /// The login was refused, and when.
    refused: Mutex<Option<(BmcError, Duration)>>,
}

impl Clients {
    fn way(&self, via: Via) -> Result<&Way, BmcError> {
        self.ways.iter().find(|way| way.bmc.via() == via).ok_or_else(unable)
    }

    /// The transport with the update service; there is never more than one.
    fn updating(&self) -> Result<&Way, BmcError> {
        self.ways.iter().find(|way| way.bmc.firmware().is_some()).ok_or_else(unable)
    }

    /// Why no login is tried for now.
    fn barred(&self, now: Duration, pause: Duration) -> Option<BmcError> {
        let refused = lock(&self.refused);
        refused.as_ref().filter(|(_, at)| now.saturating_sub(*at) < pause).map(|(error, _)| error.clone())
    }

    async fn close(&self) {
        futures::future::join_all(self.ways.iter().map(|way| way.bmc.close())).await;
    }
}

/// Where a BMC is spoken to.
#[derive(Clone, PartialEq, Eq)]
struct Place {
    redfish: Option<Service>,
    ipmi: Option<String>,
}

impl Place {
    /// Whether both are the same machine: one of them may lack a transport, but none may lead elsewhere.
    fn is_same(&self, other: &Self) -> bool {
        fn agree<T: PartialEq>(a: Option<&T>, b: Option<&T>) -> bool {
            a.zip(b).is_none_or(|(a, b)| a == b)
        }
        let shared = self.redfish.is_some() && other.redfish.is_some() || self.ipmi == other.ipmi;
        shared
            && agree(self.redfish.as_ref(), other.redfish.as_ref())
            && agree(self.ipmi.as_ref(), other.ipmi.as_ref())
    }
}

/// One BMC. Lines hold it; whoever asks it something holds its clients meanwhile.
struct Actor {
    clients: Mutex<Arc<Clients>>,
    pace: Arc<Pace>,
    slots: slots::Slots,
    idle_since: Mutex<Duration>,
    clock: Arc<dyn Clock>,
    timing: Arc<Timing>,
}

impl Actor {
    fn clients(&self) -> Arc<Clients> {
        Arc::clone(&lock(&self.clients))
    }
}

#[derive(Default)]
struct Actors {
    by_bmc: BTreeMap<BmcId, Arc<Actor>>,
    /// Clients that nobody is given any more; somebody may still refer to them.
    retired: Vec<Arc<Clients>>,
}

pub struct Broker {
    connector: Arc<dyn Connector>,
    clock: Arc<dyn Clock>,
    timing: Arc<Timing>,
    actors: Mutex<Actors>,
    /// Goodbyes under way.
    closing: Mutex<JoinSet<()>>,
    goodbyes: Arc<Semaphore>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Broker {
    pub fn new(connector: Arc<dyn Connector>, clock: Arc<dyn Clock>, timing: Arc<Timing>) -> Arc<Self> {
        let (actors, closing) = (Mutex::default(), Mutex::default());
        let goodbyes = Arc::new(Semaphore::new(GOODBYES));
        Arc::new(Self { connector, clock, timing, actors, closing, goodbyes })
    }

    /// A line to the BMC. One actor serves it as long as its address and TLS key stay the same; a newer version of the
    /// credential, or another one, is used from then on for the lines that are there already, too.
    ///
    /// # Errors
    /// When no client can be built for the address.
    pub fn line(&self, endpoint: Endpoint, priority: Priority) -> Result<Line, BmcError> {
        let bmc_id = endpoint.bmc_id;
        let place = Place { redfish: endpoint.redfish.clone(), ipmi: endpoint.ipmi.clone() };
        let credential = (endpoint.credential_id, endpoint.credential.version);
        let mut actors = lock(&self.actors);
        let known = actors.by_bmc.get(&bmc_id).cloned();
        if let Some(actor) = known.filter(|actor| actor.clients().place.is_same(&place)) {
            let present = actor.clients();
            let (id, version) = present.credential;
            let newer = id != credential.0 || version < credential.1;
            if newer || version == credential.1 && present.place != place {
                let clients = self.connect(endpoint, place, &actor.pace)?;
                *lock(&actor.clients) = clients;
                actors.retired.push(present);
            } else if version == credential.1 && !endpoint.proven.holds() {
                present.proven.forget();
            }
            return Ok(Line::new(actor, priority));
        }
        let pace = Pace::new(&self.clock, &self.timing);
        let clients = self.connect(endpoint, place, &pace)?;
        let actor = Arc::new(Actor {
            clients: Mutex::new(clients),
            pace,
            slots: slots::Slots::new(SLOTS),
            idle_since: Mutex::new(self.clock.now()),
            clock: Arc::clone(&self.clock),
            timing: Arc::clone(&self.timing),
        });
        if let Some(moved) = actors.by_bmc.insert(bmc_id, Arc::clone(&actor)) {
            actors.retired.push(moved.clients());
        }
        Ok(Line::new(actor, priority))
    }

    /// These versions are presented nowhere without asking the control plane first, whatever has accepted them.
    pub fn suspend(&self, suspended: &[SuspendedCredential]) {
        if suspended.is_empty() {
            return;
        }
        for actor in lock(&self.actors).by_bmc.values() {
            let clients = actor.clients();
            let (id, version) = clients.credential;
            if suspended.contains(&SuspendedCredential { id, version }) {
                clients.proven.forget();
            }
        }
    }

    fn connect(&self, endpoint: Endpoint, place: Place, pace: &Arc<Pace>) -> Result<Arc<Clients>, BmcError> {
        let credential = (endpoint.credential_id, endpoint.credential.version);
        let proven = endpoint.proven.clone();
        let clients = self.connector.connect(endpoint, Arc::clone(pace))?;
        let ways = clients.into_iter().map(|bmc| Way { bmc, breaker: Mutex::default() }).collect();
        Ok(Arc::new(Clients { ways, place, credential, proven, refused: Mutex::default() }))
    }

    /// Says goodbye, for ever: to the BMCs that nobody has asked for a while, or does not ask right now while the
    /// control plane does not know this process to live any more (`alive`), and to clients that have been replaced.
    pub async fn tend(&self, alive: impl Fn() -> bool) -> Infallible {
        loop {
            self.clock.sleep(TEND).await;
            self.sweep(alive());
        }
    }

    fn sweep(&self, alive: bool) {
        let now = self.clock.now();
        let patience = if alive { IDLE } else { Duration::ZERO };
        let mut actors = lock(&self.actors);
        let Actors { by_bmc, retired } = &mut *actors;
        by_bmc.retain(|_, actor| {
            let clients = actor.clients();
            let used = Arc::strong_count(actor) > 1
                || now.saturating_sub(*lock(&actor.idle_since)) < patience
                || clients.barred(now, self.timing.auth_pause).is_some();
            if !used {
                retired.push(clients);
            }
            used
        });
        // Whoever refers to one keeps it: a line that is in use, or a call under way.
        let (unused, used): (Vec<_>, Vec<_>) =
            std::mem::take(retired).into_iter().partition(|clients| Arc::strong_count(clients) == 1);
        *retired = used;
        drop(actors);
        self.say_goodbye(unused);
    }

    fn say_goodbye(&self, clients: Vec<Arc<Clients>>) {
        let mut closing = lock(&self.closing);
        while closing.try_join_next().is_some() {}
        for clients in clients {
            let goodbyes = Arc::clone(&self.goodbyes);
            closing.spawn(async move {
                let _one = goodbyes.acquire_owned().await;
                clients.close().await;
            });
        }
    }

    /// Deletes every session, as far as that goes within [`FAREWELL`]; the journal keeps the others for the next start.
    pub async fn close(&self) {
        let Actors { by_bmc, retired } = std::mem::take(&mut *lock(&self.actors));
        self.say_goodbye(by_bmc.values().map(|actor| actor.clients()).chain(retired).collect());
        let mut closing = std::mem::take(&mut *lock(&self.closing));
        let all = async { while closing.join_next().await.is_some() {} };
        tokio::select! {
            () = all => {}
            () = self.clock.sleep(FAREWELL) => tracing::info!("some sessions at BMCs are left for the next start"),
        }
    }
}

fn unable() -> BmcError {
    BmcError::new(BmcErrorKind::Unsupported, "not supported over any transport of this BMC")
}

fn resting(left: Duration) -> BmcError {
    // In minutes: a run that waits is reported again whenever its words have changed.
    let detail = format!("not responding; next try within {} min", left.as_secs() / 60 + 1);
    BmcError::new(BmcErrorKind::Unreachable, detail)
}

/// A handler's way to its BMC.
pub struct Line {
    actor: Arc<Actor>,
    priority: Priority,
    /// The machine that must be at the other end.
    expected: Option<Machine>,
    /// Why it cannot be: nothing is asked then.
    moved: Option<&'static str>,
    /// The transports over which it was identified, or could not be.
    identified: Mutex<BTreeMap<Via, Option<String>>>,
    seat: Arc<Mutex<Option<look::Seat>>>,
    /// Questions that a transport has left without an answer, and another one was asked.
    missed: AtomicU64,
}

impl Drop for Line {
    fn drop(&mut self) {
        *lock(&self.actor.idle_since) = self.actor.clock.now();
    }
}

impl Line {
    fn new(actor: Arc<Actor>, priority: Priority) -> Self {
        Self {
            actor,
            priority,
            expected: None,
            moved: None,
            identified: Mutex::default(),
            seat: Arc::default(),
            missed: AtomicU64::new(0),
        }
    }

    /// The same line, to the machine that the plan names and to no other.
    #[must_use]
    pub fn expecting(mut self, plan: &PlanTarget, target: &GrantTarget) -> Self {
        self.moved = plan.machine.as_ref().and_then(|machine| machine::moved(machine, target));
        self.expected = plan.machine.clone().filter(machine::identifies);
        self
    }

    /// Why the machine could not be identified, over each transport where it was asked in vain.
    pub fn unidentified(&self) -> Vec<String> {
        let identified = lock(&self.identified);
        identified.iter().filter_map(|(via, why)| Some(format!("{via}: {}", why.as_ref()?))).collect()
    }

    /// Makes sure, once over each transport, that the expected machine is at its other end.
    async fn identify(&self, clients: &Clients, way: &Way) -> Result<(), BmcError> {
        let via = way.bmc.via();
        if let Some(why) = self.moved {
            return Err(BmcError::new(BmcErrorKind::AnotherMachine, why));
        }
        let Some(expected) = &self.expected else { return Ok(()) };
        if lock(&self.identified).contains_key(&via) {
            return Ok(());
        }
        let untold = match self.read_over(clients, way, way.bmc.machine()).await {
            Ok(shown) => match machine::compare(expected, &shown) {
                machine::Verdict::Same => None,
                machine::Verdict::Another(what) => {
                    return Err(BmcError::new(BmcErrorKind::AnotherMachine, what));
                }
                machine::Verdict::Untold(why) => Some(why),
            },
            Err(error)
                if matches!(
                    error.kind,
                    BmcErrorKind::Unsupported | BmcErrorKind::NotFound | BmcErrorKind::Refused
                ) =>
            {
                Some(error.detail)
            }
            Err(error) => return Err(error),
        };
        lock(&self.identified).insert(via, untold);
        Ok(())
    }

    /// Reads over `way`, from the expected machine.
    async fn ask_over<T>(
        &self,
        clients: &Clients,
        way: &Way,
        call: impl Future<Output = Result<T, BmcError>> + Send,
    ) -> Result<T, BmcError> {
        self.identify(clients, way).await?;
        self.read_over(clients, way, call).await
    }

    /// A slot, unless one is kept, the rate paid, and no reason known why a request over `way` would be in vain.
    async fn turn(&self, clients: &Clients, way: &Way) -> Result<Option<slots::Slot>, BmcError> {
        let kept = lock(&self.seat).is_some();
        let slot = if kept { None } else { Some(self.actor.slots.take(self.priority).await) };
        let now = self.actor.clock.now();
        if let Some(refused) = clients.barred(now, self.actor.timing.auth_pause) {
            return Err(refused);
        }
        if let Some(left) = lock(&way.breaker).open_for(now) {
            return Err(resting(left));
        }
        if !way.bmc.paces_itself() {
            self.actor.pace.turn().await;
        }
        Ok(slot)
    }

    fn note<T>(&self, clients: &Clients, way: &Way, result: Result<T, BmcError>) -> Result<T, BmcError> {
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
                *lock(&clients.refused) = Some((error.clone(), now));
            }
            Err(error) if matches!(error.kind, BmcErrorKind::Held(_) | BmcErrorKind::Ambiguous) => {}
            _ => {
                if lock(&way.breaker).answered() {
                    way.bmc.forget();
                }
            }
        }
        result
    }

    async fn read_over<T>(
        &self,
        clients: &Clients,
        way: &Way,
        call: impl Future<Output = Result<T, BmcError>> + Send,
    ) -> Result<T, BmcError> {
        let _slot = self.turn(clients, way).await?;
        // One call may be many requests; each has its own limit inside the client.
        let limit = self.actor.timing.read * 10;
        let result = tokio::select! {
            result = call => result,
            () = self.actor.clock.sleep(limit) => {
                Err(BmcError::new(BmcErrorKind::Unreachable, "timed out"))
            }
        };
        self.note(clients, way, result)
    }

    /// Reads over the transports that `pick` allows, until one answers. `call` is none where a transport does not
    /// carry it.
    async fn read<T: Send>(
        &self,
        pick: Pick,
        call: impl for<'a> Fn(&'a dyn Bmc) -> Option<BoxFuture<'a, Result<T, BmcError>>> + Send + Sync,
    ) -> Result<(Via, T), BmcError> {
        let now = self.actor.clock.now();
        let clients = self.actor.clients();
        let standings: Vec<choice::Standing> = clients
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
            let Ok(way) = clients.way(via) else { continue };
            let Some(request) = call(&*way.bmc) else { continue };
            match self.ask_over(&clients, way, request).await {
                Ok(answer) => return Ok((via, answer)),
                Err(error) if choice::falls_through(error.kind) => {
                    if error.kind == BmcErrorKind::Unreachable {
                        self.missed.fetch_add(1, Ordering::Relaxed);
                    }
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
    async fn mutate<T>(
        &self,
        permit: MutationPermit,
        via: Via,
        call: impl for<'a> FnOnce(&'a dyn Bmc, Duration) -> Option<BoxFuture<'a, Result<T, BmcError>>>,
    ) -> Result<T, BmcError> {
        let clients = self.actor.clients();
        let way = clients.way(via)?;
        self.identify(&clients, way).await?;
        let _slot = self.turn(&clients, way).await?;
        let look = self.look()?;
        let guard = permit
            .begin()
            .map_err(|hold| BmcError::new(BmcErrorKind::Held(hold), format!("nothing was sent: {hold}")))?;
        let limit = guard.limit();
        let call = call(&*way.bmc, limit).ok_or_else(unable)?;
        let result = match look.before(guard.run(call)).await? {
            Ok(result) => result,
            Err(cut) => Err(BmcError::new(BmcErrorKind::Ambiguous, cut.to_string())),
        };
        self.note(&clients, way, result)
    }

    /// What the server is. Another transport tells less: it is asked only where the preferred one is missing.
    pub async fn inventory(&self) -> Result<(Via, Inventory), BmcError> {
        let vias: Vec<Via> = self.actor.clients().ways.iter().map(|way| way.bmc.via()).collect();
        let preferred = vias.first().copied();
        let first = self.read(preferred.map_or(Pick::Best, Pick::Only), |bmc| Some(bmc.inventory())).await;
        match first {
            Err(error) if matches!(error.kind, BmcErrorKind::Unsupported | BmcErrorKind::NotFound) => {
                match vias.get(1) {
                    Some(other) => self.read(Pick::Only(*other), |bmc| Some(bmc.inventory())).await,
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
        self.actor.clients().way(via).is_ok()
    }

    /// How many of this line's questions a transport has left without an answer so far, whatever another one said.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
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
        let began = self.actor.clock.moment();
        let found = self.read(pick, |bmc| bmc.boot_control().map(BootControl::setting)).await?;
        self.looked(began);
        Ok(found)
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

    /// When the host was last reset, as `via` shows it.
    pub async fn last_reset(&self, via: Via) -> Result<Option<String>, BmcError> {
        Ok(self.read(Pick::Only(via), |bmc| bmc.power().map(Power::last_reset)).await?.1)
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

    pub async fn sensors(&self) -> Result<(Via, SensorReport), BmcError> {
        self.read(Pick::Best, |bmc| bmc.sensors().map(Sensors::sensors)).await
    }

    pub async fn console(&self) -> Result<(Via, Box<dyn Stream>), BmcError> {
        self.read(Pick::Best, |bmc| bmc.console().map(Console::open)).await
    }

    pub async fn log_mark(&self) -> Result<Option<u64>, BmcError> {
        Ok(self.read(Pick::Best, |bmc| bmc.firmware().map(Firmware::log_mark)).await?.1)
    }

    pub async fn log_since(&self, mark: u64) -> Result<LogSince, BmcError> {
        Ok(self.read(Pick::Best, |bmc| bmc.firmware().map(|device| device.log_since(mark))).await?.1)
    }

    pub async fn readiness(&self) -> Result<Readiness, BmcError> {
        Ok(self.read(Pick::Best, |bmc| bmc.firmware().map(Firmware::readiness)).await?.1)
    }

    pub async fn update_support(&self) -> Result<UpdateSupport, BmcError> {
        Ok(self.read(Pick::Best, |bmc| bmc.firmware().map(Firmware::update_support)).await?.1)
    }

    pub async fn follow(&self, job: &JobRef) -> Result<JobProgress, BmcError> {
        let clients = self.actor.clients();
        let way = clients.updating()?;
        let device = way.bmc.firmware().ok_or_else(unable)?;
        self.ask_over(&clients, way, device.follow(job)).await
    }

    pub async fn stage(&self, permit: MutationPermit, request: StageRequest) -> Result<Staged, BmcError> {
        let via = self.actor.clients().updating()?.bmc.via();
        self.mutate(permit, via, |bmc, limit| bmc.firmware().map(|device| device.stage(request, limit))).await
    }

    pub async fn delete_job(&self, permit: MutationPermit, id: &str) -> Result<(), BmcError> {
        let via = self.actor.clients().updating()?.bmc.via();
        let id = id.to_owned();
        self.mutate(permit, via, move |bmc, limit| {
            Some(Box::pin(async move { bmc.firmware().ok_or_else(unable)?.delete_job(&id, limit).await }))
        })
        .await
    }
}
