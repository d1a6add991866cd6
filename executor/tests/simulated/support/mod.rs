//! A site in one process and in paused time: a model of the control plane's queue, the lab's BMCs, executors
//! that can be killed at any journal write.

mod ipmi;
pub mod openbmc;
pub mod plane;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use crypto_box::SecretKey;
use futures::future::BoxFuture;
use rackhand_executor::{
    broker::{
        Broker, Endpoint, Line, Priority, Proven, connect,
        ipmi::{
            IpmiConnector,
            link::{Links, Udp},
        },
        redfish::{Leftovers, RedfishConnector, Transports},
    },
    clock::{Clock, TokioClock},
    cloud::Cloud,
    credential::{self, SiteSecret, Use, Versions},
    identity::{self, Identity, Keys, Membership},
    journal::{Journal, JournalError, JournalObserver, Observed, Pending, Write, memory::MemoryJournal},
    package::{Offer, PackageError, Packages, Publisher, Repository},
    policy::Policy,
    service::{Executor, Handle, Parts, Settings},
    sessions::Sessions,
    site_key::Confirmed,
    timing::Timing,
};
use rackhand_lab::{CallError, Fault, InProcess, ServerSpec, SiteConfig, Times};
use rackhand_redfish::{Body, Fingerprint, NotSent, PinMismatch, Transport, TransportError};
use rackhand_schema::{
    id::{BmcId, CredentialId, ExecutorId, ExecutorSessionId, JobId, RunId, ServerId, SiteId, TraceId},
    job::{
        BootOverrideParams, FirmwarePackage, FirmwareUpdateParams, InventoryParams, JobSpec, Machine,
        PlanStep, PlanTarget, PowerAction, PowerParams, Reboot,
    },
    protocol::{GrantCredential, GrantTarget, RunGrant},
    server::{CredentialTarget, SealedCredential},
};
use serde_json::{Value, json};
use tokio::sync::Notify;
use uuid::Uuid;

use self::plane::{Link, ModelCloud, Plane, RunRow};

pub const PASSWORD: &str = "correct horse";
const PIN: &str = "abababababababababababababababababababababababababababababababab";

pub fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

/// Which addresses are meant.
type Such = fn(&str) -> bool;

/// What the network does to one transport, and not to the other.
#[derive(Default)]
pub struct Wire {
    pub redfish_down: AtomicBool,
    /// The next look at a system's power that follows one at the queue of jobs at once gets no answer, which is told
    /// after so long.
    pub hangs_after_queue: Mutex<Option<Duration>>,
    /// The next changing request is carried out, its answer lost, and Redfish is down from then on.
    pub redfish_cuts: AtomicBool,
    /// Requests that reached a Redfish service.
    pub redfish_requests: AtomicU64,
    /// Of these, those that change something, and whether they carried the fence of a lease.
    pub redfish_changes: Mutex<Vec<(String, bool)>>,
    /// When the queue of jobs was read last, and how long before each change that was.
    queue_read: Mutex<Option<tokio::time::Instant>>,
    pub looks: Mutex<Vec<(String, Duration)>>,
    /// Of these, for its root.
    pub redfish_roots: AtomicU64,
    /// BMCs of which nothing is heard any more: what is sent to them vanishes.
    pub dark: Mutex<BTreeSet<usize>>,
    /// This account may not read what has this in its path.
    pub forbids: Mutex<Option<String>>,
    /// So many logins are refused, whatever the password.
    pub refuses_logins: AtomicU64,
    /// Whoever asks for a package panics.
    pub repository_panics: AtomicBool,
    pub ipmi_down: AtomicBool,
    /// Answers to updates name no job.
    pub unnamed: AtomicBool,
    /// From the next update on, this BMC answers 90 s late.
    pub slow_update: Mutex<Option<String>>,
    /// The Redfish service has no Lifecycle log.
    pub no_log: AtomicBool,
    /// The list of firmware answers 503.
    pub no_firmware_list: AtomicBool,
    /// So many reads are refused with this status.
    pub refuses: Mutex<(u32, u16)>,
    /// Whatever would change something is refused as busy; reads are answered.
    pub refuses_changes: AtomicBool,
    /// So many resets are refused as busy.
    pub refuses_resets: AtomicU32,
    /// The BMC has restarted, which the next reset meets: its session is gone, and the login is answered 503.
    pub restarted: AtomicBool,
    login_fails: AtomicBool,
    /// From the next POST on whose path contains this, the job queue shows nothing for so long.
    pub hides_jobs: Mutex<Option<(&'static str, Duration)>>,
    hidden_until: Mutex<Option<tokio::time::Instant>>,
    /// The package repository takes connections and sends nothing; how often it was asked.
    pub repository_stalls: AtomicBool,
    /// Every package is on its way, and never comes.
    pub repository_never: AtomicBool,
    pub repository_asked: AtomicU32,
    /// The Redfish service shows another key.
    pub other_key: AtomicBool,
    /// Redfish shows its firmware as OpenBMC does, under ids that an update replaces.
    pub openbmc: AtomicBool,
    /// Updates are tasks, and the job service, which is there too, holds other things (Lenovo XCC, openUBMC).
    pub tasks_apart: AtomicBool,
    /// The job queue answers 404, as while services start.
    pub no_queue: AtomicBool,
    /// A flash that failed is told as a package that never arrived.
    pub never_had: AtomicBool,
    /// The Redfish service tells no power state of a host that is off, as while it starts.
    pub no_power: AtomicBool,
    /// Each document and each member of a list, as a device in another state would tell it.
    pub retold: Mutex<Option<fn(&mut serde_json::Value)>>,
    /// Answers to requests whose address is such a one are on their way for so long after they were made up.
    pub slow: Mutex<Vec<(Such, Duration)>>,
    /// Requests whose address is such a one are never answered.
    pub silent: Mutex<Option<Such>>,
    /// How often the device was asked what its host is at.
    pub readiness_asked: AtomicU32,
    /// As `redfish_cuts`.
    pub ipmi_cuts: AtomicBool,
    /// Attempts to open a session.
    pub ipmi_logins: AtomicU64,
}

struct LabTransport {
    lab: InProcess,
    wire: Arc<Wire>,
    bmc: usize,
}

impl LabTransport {
    /// Sessions are the client's own, and one action of Dell's only reads.
    fn changes(request: &http::Request<Body>) -> bool {
        let (method, path) = (request.method(), request.uri().path());
        let reads = method == http::Method::GET || path.ends_with("GetRemoteServicesAPIStatus");
        !reads && !path.contains("/Sessions")
    }

    fn hangs(&self, request: &http::Request<Body>) -> Option<Duration> {
        let of_power = request.method() == http::Method::GET && request.uri().path().contains("/Systems/");
        let read = (*self.wire.queue_read.lock().unwrap())?;
        let at_once = of_power && read.elapsed() < Duration::from_secs(2);
        self.wire.hangs_after_queue.lock().unwrap().take_if(|_| at_once)
    }

    fn note_change(&self, request: &http::Request<Body>) {
        let now = tokio::time::Instant::now();
        if request.method() == http::Method::GET && request.uri().path().contains("/Jobs") {
            *self.wire.queue_read.lock().unwrap() = Some(now);
        }
        if Self::changes(request) {
            if let Some(read) = *self.wire.queue_read.lock().unwrap() {
                let change = format!("{} {}", request.method(), request.uri().path());
                self.wire.looks.lock().unwrap().push((change, now - read));
            }
            let (method, path) = (request.method(), request.uri().path());
            let change = (format!("{method} {path}"), request.body().fence().is_some());
            self.wire.redfish_changes.lock().unwrap().push(change);
        }
    }

    /// Whether the queue of jobs is hidden at the moment, or from this request on.
    fn hides(&self, request: &http::Request<Body>) -> bool {
        let path = request.uri().path();
        let now = tokio::time::Instant::now();
        let mut begins = self.wire.hides_jobs.lock().unwrap();
        if request.method() == http::Method::POST
            && let Some((_, lasts)) = begins.take_if(|(part, _)| path.contains(*part))
        {
            *self.wire.hidden_until.lock().unwrap() = Some(now + lasts);
        }
        self.wire.hidden_until.lock().unwrap().is_some_and(|until| now < until)
    }

    fn empty_list() -> http::Response<Bytes> {
        let empty = Bytes::from_static(br#"{"Members":[],"Members@odata.count":0}"#);
        http::Response::builder().header("content-type", "application/json").body(empty).unwrap()
    }

    /// The BMC's answer, as another kind of BMC would word it.
    fn retell(&self, path: &str, body: &mut Bytes) {
        let mut replace = |old: &str, new: &str| {
            *body = String::from_utf8_lossy(body).replace(old, new).into();
        };
        if self.wire.no_log.load(Ordering::Relaxed) && path.trim_end_matches('/').ends_with("/LogServices") {
            replace("/Lclog", "/Other");
        }
        if self.wire.tasks_apart.load(Ordering::Relaxed) && path.contains("/Managers/") {
            for link in ["Jobs", "DellJobService", "DellLCService"] {
                replace(&format!("\"{link}\""), "\"Other\"");
            }
        }
        if self.wire.never_had.load(Ordering::Relaxed) {
            replace("PR21", "RED114");
        }
        if self.wire.no_power.load(Ordering::Relaxed) {
            replace("\"PowerState\":\"Off\"", "\"PowerState\":null");
        }
        let retold = *self.wire.retold.lock().unwrap();
        if let (Some(retell), Ok(mut document)) = (retold, serde_json::from_slice::<serde_json::Value>(body))
        {
            if let Some(serde_json::Value::Array(members)) = document.get_mut("Members") {
                members.iter_mut().for_each(retell);
            }
            retell(&mut document);
            *body = document.to_string().into();
        }
    }

    /// An answer that the BMC never gave.
    fn refused(&self, request: &http::Request<Body>) -> Option<http::Response<Bytes>> {
        let path = request.uri().path();
        let answer = |status: u16| http::Response::builder().status(status).body(Bytes::new()).unwrap();
        let reads = request.method() == http::Method::GET;
        if reads && self.wire.no_queue.load(Ordering::Relaxed) && path.contains("/Jobs") {
            return Some(answer(404));
        }
        if self.wire.tasks_apart.load(Ordering::Relaxed) && path.contains("/Jobs") {
            let list = path.trim_end_matches('/').ends_with("JobService/Jobs");
            return Some(if list { Self::empty_list() } else { answer(404) });
        }
        if self.wire.no_firmware_list.load(Ordering::Relaxed) && path.contains("/FirmwareInventory") {
            return Some(answer(503));
        }
        if self.wire.refuses_changes.load(Ordering::Relaxed) && Self::changes(request) {
            // A bare 503 would leave open whether it was taken.
            return Some(answer(409));
        }
        if self.hides(request) && request.method() == http::Method::GET {
            if ["/Jobs", "/Tasks"].iter().any(|list| path.trim_end_matches('/').ends_with(list)) {
                return Some(Self::empty_list());
            } else if ["/Jobs/", "/Tasks/"].iter().any(|one| path.contains(one)) {
                return Some(answer(404));
            }
        }
        let one_less = |left: u32| left.checked_sub(1);
        if path.ends_with("ComputerSystem.Reset")
            && self.wire.refuses_resets.try_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
        {
            return Some(answer(409));
        }
        let mut refuses = self.wire.refuses.lock().unwrap();
        if request.method() != http::Method::GET || refuses.0 == 0 {
            return None;
        }
        refuses.0 -= 1;
        Some(answer(refuses.1))
    }
}

impl Transport for LabTransport {
    fn send<'a>(
        &'a self,
        request: http::Request<Body>,
        deadline: tokio::time::Instant,
    ) -> BoxFuture<'a, Result<http::Response<Bytes>, TransportError>> {
        Box::pin(async move {
            if self.wire.redfish_down.load(Ordering::Relaxed) {
                return Err(TransportError::NotSent { why: NotSent::Refused });
            }
            if self.wire.dark.lock().unwrap().contains(&self.bmc) {
                tokio::time::sleep_until(deadline.min(tokio::time::Instant::now() + Duration::from_secs(10)))
                    .await;
                return Err(TransportError::NotSent { why: NotSent::ConnectTimeout });
            }
            let silent = *self.wire.silent.lock().unwrap();
            if silent.is_some_and(|such| such(&request.uri().to_string())) {
                tokio::time::sleep_until(deadline).await;
                return Err(TransportError::NoAnswer { why: "deadline".into() });
            }
            if let Some(lasts) = self.hangs(&request) {
                tokio::time::sleep_until(deadline.min(tokio::time::Instant::now() + lasts)).await;
                return Err(TransportError::NotSent { why: NotSent::ConnectTimeout });
            }
            if self.wire.other_key.load(Ordering::Relaxed) {
                let mismatch = PinMismatch { expected: Fingerprint([0; 32]), found: Fingerprint([1; 32]) };
                return Err(TransportError::PinMismatch(mismatch));
            }
            if request.body().fence().is_some_and(|may_leave| !may_leave()) {
                return Err(TransportError::NotSent { why: NotSent::Invalid("fenced off".into()) });
            }
            self.wire.redfish_requests.fetch_add(1, Ordering::Relaxed);
            let (path, uri) = (request.uri().path().to_owned(), request.uri().to_string());
            if path.trim_end_matches('/') == "/redfish/v1" {
                self.wire.redfish_roots.fetch_add(1, Ordering::Relaxed);
            }
            let answer =
                |status: u16| Ok(http::Response::builder().status(status).body(Bytes::new()).unwrap());
            if self.wire.forbids.lock().unwrap().as_ref().is_some_and(|part| path.contains(part)) {
                return answer(403);
            }
            let login = request.method() == http::Method::POST && path.ends_with("/Sessions");
            if login && self.wire.login_fails.swap(false, Ordering::Relaxed) {
                return answer(503);
            }
            if path.ends_with("ComputerSystem.Reset") && self.wire.restarted.swap(false, Ordering::Relaxed) {
                self.wire.login_fails.store(true, Ordering::Relaxed);
                return answer(401);
            }
            let one_less = |left: u64| left.checked_sub(1);
            let refused = login
                && self
                    .wire
                    .refuses_logins
                    .try_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
                    .is_ok();
            if refused {
                return answer(401);
            }
            if let Some(refusal) = self.refused(&request) {
                return Ok(refusal);
            }
            let updates = request.method() == http::Method::POST
                && (request.uri().path().contains("SimpleUpdate")
                    || request.uri().path().contains("MultipartUpload"));
            if updates && let Some(name) = self.wire.slow_update.lock().unwrap().take() {
                let slow = Fault::SlowResponses { milliseconds: 90_000 };
                self.lab.fault(&name, slow, Times::Always).unwrap();
            }
            if path.ends_with("GetRemoteServicesAPIStatus") {
                self.wire.readiness_asked.fetch_add(1, Ordering::Relaxed);
            }
            self.note_change(&request);
            let changes = request.uri().path().ends_with("ComputerSystem.Reset")
                || request.method() == http::Method::PATCH;
            let request = request.map(Body::into_bytes);
            if changes && self.wire.redfish_cuts.swap(false, Ordering::Relaxed) {
                self.wire.redfish_down.store(true, Ordering::Relaxed);
                let _ = self.lab.call(self.bmc, request).await;
                return Err(TransportError::NoAnswer { why: "cut".into() });
            }
            match tokio::time::timeout_at(deadline, self.lab.call(self.bmc, request)).await {
                Ok(Ok(mut response)) => {
                    let slow = self.wire.slow.lock().unwrap().iter().find(|(such, _)| such(&uri)).copied();
                    tokio::time::sleep(slow.map_or(Duration::ZERO, |(_, lasts)| lasts)).await;
                    if updates && response.status().is_success() && self.wire.unnamed.load(Ordering::Relaxed)
                    {
                        response.headers_mut().remove(http::header::LOCATION);
                        *response.body_mut() = Bytes::new();
                    }
                    if self.wire.openbmc.load(Ordering::Relaxed) {
                        openbmc::retell(response.body_mut());
                    }
                    self.retell(&path, response.body_mut());
                    Ok(response)
                }
                Ok(Err(CallError::NotSent)) => Err(TransportError::NotSent { why: NotSent::Refused }),
                Ok(Err(CallError::NoAnswer)) => Err(TransportError::NoAnswer { why: "cut".into() }),
                Err(_) => Err(TransportError::NoAnswer { why: "deadline".into() }),
            }
        })
    }
}

struct LabTransports(InProcess, Arc<Wire>);

impl Transports for LabTransports {
    fn open(&self, url: &str, _pin: [u8; 32]) -> Arc<dyn Transport> {
        let name = url.trim_start_matches("https://");
        let wire = Arc::clone(&self.1);
        Arc::new(LabTransport { lab: self.0.clone(), wire, bmc: self.0.index(name).unwrap() })
    }
}

struct LabRepository(InProcess, Arc<Wire>);

impl Repository for LabRepository {
    fn get<'a>(&'a self, package: &'a FirmwarePackage) -> BoxFuture<'a, Result<Bytes, PackageError>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert!(!self.1.repository_panics.load(Ordering::Relaxed), "as a handler with a bug would");
            if self.1.repository_never.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_secs(13)).await;
                return Err(PackageError::Coming("4 other packages are being fetched".into()));
            }
            if self.1.repository_stalls.load(Ordering::Relaxed) {
                // As the cache does: it is on its way for a minute, and then has not come.
                tokio::time::sleep(Duration::from_secs(13)).await;
                return Err(match self.1.repository_asked.fetch_add(1, Ordering::Relaxed) % 4 {
                    3 => PackageError::Unreachable("it sends nothing".into()),
                    _ => PackageError::Coming("is on its way".into()),
                });
            }
            let found = self.0.package(&package.file_name);
            found.map(|found| found.bytes).ok_or_else(|| PackageError::Unreachable("404".into()))
        })
    }
}

struct LabPublisher;

struct LabOffer(String);

impl Offer for LabOffer {
    fn url(&self) -> &str {
        &self.0
    }
}

impl Publisher for LabPublisher {
    fn offer(&self, file_name: &str, _bytes: Bytes) -> Result<Box<dyn Offer>, PackageError> {
        Ok(Box::new(LabOffer(format!("http://lab.invalid/packages/{file_name}"))))
    }
}

struct Nobody;

impl Confirmed for Nobody {
    fn is_confirmed(&self, _fingerprint: &str) -> bool {
        false
    }
}

type Matches = Box<dyn Fn(u64, &Write) -> bool + Send + Sync>;

/// Stops an executor at a journal write, as a crash right after it would.
pub struct StopAt {
    matches: Matches,
    pub reached: Notify,
    pub writes: AtomicU64,
}

impl StopAt {
    pub fn when(matches: impl Fn(u64, &Write) -> bool + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { matches: Box::new(matches), reached: Notify::new(), writes: AtomicU64::new(0) })
    }

    pub fn write(n: u64) -> Arc<Self> {
        Self::when(move |number, _| number == n)
    }
}

impl JournalObserver for StopAt {
    fn written<'a>(&'a self, number: u64, write: &'a Write) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.writes.store(number, Ordering::Relaxed);
            if (self.matches)(number, write) {
                self.reached.notify_one();
                std::future::pending::<()>().await;
            }
        })
    }
}

/// A disk that may be full.
struct Disk {
    journal: Arc<MemoryJournal>,
    full: Arc<AtomicBool>,
}

impl Journal for Disk {
    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<(), JournalError>> {
        if self.full.load(Ordering::Relaxed) {
            return Box::pin(std::future::ready(Err(JournalError("disk full".into()))));
        }
        self.journal.commit(writes)
    }

    fn pending(&self) -> BoxFuture<'_, Result<Vec<Pending>, JournalError>> {
        self.journal.pending()
    }

    fn meta<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<String>, JournalError>> {
        self.journal.meta(key)
    }

    fn metas<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<(String, String)>, JournalError>> {
        self.journal.metas(prefix)
    }
}

struct Member {
    identity: Arc<Identity>,
    journal: Arc<MemoryJournal>,
    link: Arc<Link>,
}

/// The addresses of a BMC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    #[default]
    Redfish,
    Both,
    Ipmi,
}

pub struct World {
    pub lab: InProcess,
    pub plane: Arc<Plane>,
    pub timing: Timing,
    pub policy: Policy,
    /// Runs at once.
    pub capacity: u32,
    pub wire: Arc<Wire>,
    /// No journal can write.
    pub disk_full: Arc<AtomicBool>,
    /// Of the BMCs' credential, as it is granted from now on.
    pub credential_version: AtomicU32,
    /// The machine that the plans of this world name.
    pub machine: Option<Machine>,
    /// How the BMCs are registered.
    pub reach: Reach,
    /// Real datagrams to this BMC instead of the model's. For tests whose time is not paused.
    pub udp: Option<SocketAddr>,
    clock: Arc<dyn Clock>,
    site_key: SecretKey,
    members: Vec<Member>,
    servers: Vec<ServerSpec>,
}

impl World {
    /// A site with these servers and two executors that hold its key.
    pub fn new(servers: Vec<ServerSpec>) -> Self {
        let lab = InProcess::new(&SiteConfig::new(servers.clone(), PASSWORD));
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::start());
        let site_key = SecretKey::from_bytes([7; 32]);
        let public = SiteSecret::new(site_key.clone()).public_key();
        let members: Vec<Member> = (0..2)
            .map(|n| {
                let membership = Membership {
                    server: "model".into(),
                    name: format!("executor-{n}"),
                    executor_id: ExecutorId::from_uuid(id(900 + n)),
                    site_id: SiteId::from_uuid(id(1)),
                    site: "lab".into(),
                    site_public_key: Some(public.clone()),
                };
                Member {
                    identity: Arc::new(Identity::new(membership, Keys::generate().unwrap())),
                    journal: Arc::new(MemoryJournal::default()),
                    link: Arc::new(Link::default()),
                }
            })
            .collect();
        let plane = Plane::new(Arc::clone(&clock), public);
        for member in &members {
            let share = member.identity.seal_to_self(&site_key.to_bytes()).unwrap();
            plane.share_key(member.identity.membership.executor_id, share);
        }
        let (timing, policy) = (Timing::default(), Policy::default());
        let (wire, reach) = (Arc::default(), Reach::default());
        Self {
            lab,
            plane,
            timing,
            policy,
            capacity: 16,
            wire,
            disk_full: Arc::default(),
            credential_version: AtomicU32::new(1),
            machine: None,
            reach,
            udp: None,
            clock,
            site_key,
            members,
            servers,
        }
    }

    pub fn reached(mut self, reach: Reach) -> Self {
        self.reach = reach;
        self
    }

    pub fn link(&self, executor: usize) -> &Link {
        &self.members[executor].link
    }

    pub fn journal(&self, executor: usize) -> &MemoryJournal {
        &self.members[executor].journal
    }

    /// The data directory of an executor, copied to another machine; its number.
    pub async fn copy(&mut self, executor: usize) -> usize {
        let journal = MemoryJournal::default();
        journal.commit(self.members[executor].journal.log()).await.unwrap();
        let identity = Arc::clone(&self.members[executor].identity);
        self.members.push(Member { identity, journal: Arc::new(journal), link: Arc::default() });
        self.members.len() - 1
    }

    /// Starts an executor; a second start of the same one resumes its journal.
    pub async fn start(&self, executor: usize, observer: Option<Arc<StopAt>>) -> Handle {
        let member = &self.members[executor];
        let journal: Arc<dyn Journal> = match observer {
            Some(observer) => Arc::new(Observed::new(Arc::clone(&member.journal) as Arc<_>, observer)),
            None => {
                Arc::new(Disk { journal: Arc::clone(&member.journal), full: Arc::clone(&self.disk_full) })
            }
        };
        let sessions = Sessions::begin(Arc::clone(&member.journal) as Arc<_>).await.unwrap();
        let session = sessions.own;
        self.plane.sign_in(member.identity.membership.executor_id, session, &sessions.former);
        sessions.confirm().await.unwrap();
        let cloud: Arc<dyn Cloud> =
            Arc::new(ModelCloud { plane: Arc::clone(&self.plane), session, link: Arc::clone(&member.link) });
        let connector = Arc::new(self.transports(member, Arc::clone(&cloud)));
        let leftovers = Leftovers::read(Arc::clone(&connector.redfish)).await.unwrap();
        tokio::spawn(leftovers.delete());
        let settings =
            Settings { timing: self.timing.clone(), policy: self.policy.clone(), capacity: self.capacity };
        let packages = Packages {
            repository: Arc::new(LabRepository(self.lab.clone(), Arc::clone(&self.wire))),
            publisher: Some(Arc::new(LabPublisher)),
        };
        Executor::start(
            settings,
            Parts {
                clock: Arc::clone(&self.clock),
                cloud,
                journal,
                connector,
                packages,
                identity: Arc::clone(&member.identity),
                confirmed: Arc::new(Nobody),
            },
        )
    }

    /// Clients for a BMC as executor 0 makes them, without an executor.
    pub async fn line(&self, server: usize) -> Line {
        let member = &self.members[0];
        let session = ExecutorSessionId::generate();
        self.plane.sign_in(member.identity.membership.executor_id, session, &[]);
        let cloud: Arc<dyn Cloud> =
            Arc::new(ModelCloud { plane: Arc::clone(&self.plane), session, link: Arc::clone(&member.link) });
        let (target, secret) = (self.target(server), SiteSecret::new(self.site_key.clone()));
        let opened = credential::open(&secret, SiteId::from_uuid(id(1)), &target).unwrap();
        let endpoint = Endpoint {
            bmc_id: target.bmc_id,
            redfish: opened.redfish,
            ipmi: opened.ipmi,
            credential_id: CredentialId::from_uuid(id(300)),
            credential: opened.credential,
            credential_use: Use {
                versions: Arc::new(Versions::new(Arc::clone(&member.journal) as Arc<_>)),
                name: "bmc".into(),
                version: 1,
            },
            proven: Proven::new(false),
        };
        let connector = Arc::new(self.transports(member, cloud));
        let broker = Broker::new(connector, Arc::clone(&self.clock), Arc::new(self.timing.clone()));
        broker.line(endpoint, Priority::Observe).unwrap()
    }

    fn transports(&self, member: &Member, cloud: Arc<dyn Cloud>) -> connect::Transports {
        let links: Arc<dyn Links> = match self.udp {
            Some(_) => Arc::new(Udp::new().unwrap()),
            None => Arc::new(ipmi::LabLinks { lab: self.lab.clone(), wire: Arc::clone(&self.wire) }),
        };
        connect::Transports {
            cloud,
            redfish: Arc::new(RedfishConnector {
                journal: Arc::clone(&member.journal) as Arc<_>,
                identity: Arc::clone(&member.identity),
                transports: Arc::new(LabTransports(self.lab.clone(), Arc::clone(&self.wire))),
            }),
            ipmi: IpmiConnector { journal: Arc::clone(&member.journal) as Arc<_>, links },
        }
    }

    pub fn target(&self, server: usize) -> GrantTarget {
        let name = self.servers[server].name.clone();
        let pin = (self.reach != Reach::Ipmi).then(|| PIN.to_owned());
        let scheme = if pin.is_some() { "https" } else { "ipmi" };
        let address = self.udp.map_or_else(|| name.clone(), |address| address.to_string());
        let url = format!("{scheme}://{address}");
        let second = CredentialTarget { url: format!("ipmi://{address}"), spki_sha256: None };
        let inside = SealedCredential {
            site_id: SiteId::from_uuid(id(1)),
            name: "bmc".into(),
            version: self.credential_version.load(Ordering::Relaxed),
            username: "root".into(),
            password: self.plane.password(),
            targets: vec![CredentialTarget { url: url.clone(), spki_sha256: pin.clone() }, second],
        };
        let plain = serde_json::to_vec(&inside).unwrap();
        let sealed = identity::seal(self.site_key.public_key().as_bytes(), &plain).unwrap();
        let n = u128::try_from(server).unwrap();
        GrantTarget {
            server_id: ServerId::from_uuid(id(100 + n)),
            ipmi: (self.reach == Reach::Both).then(|| name.clone()),
            name,
            bmc_id: BmcId::from_uuid(id(200 + n)),
            url,
            spki_sha256: pin,
            owner_epoch: 1,
            credential: Some(GrantCredential {
                id: CredentialId::from_uuid(id(300)),
                name: "bmc".into(),
                version: self.credential_version.load(Ordering::Relaxed),
                sealed,
                proven: false,
            }),
        }
    }

    pub fn add(&self, server: usize, spec: JobSpec, steps: Vec<PlanStep>) -> RunId {
        let target = self.target(server);
        let run_id = RunId::generate();
        self.plane.add(RunGrant {
            run_id,
            epoch: 0,
            job_id: JobId::generate(),
            site_id: SiteId::from_uuid(id(1)),
            trace_id: TraceId::generate(),
            spec,
            plan: PlanTarget {
                server_id: target.server_id,
                server: target.name.clone(),
                steps,
                blockers: vec![],
                warnings: vec![],
                estimated_minutes: 30,
                power: None,
                machine: self.machine.clone(),
            },
            target,
            phase: String::new(),
            checkpoint: Value::Null,
            intent: None,
            effects: vec![],
            cancel_requested: false,
            settle: None,
            predecessor_ended_ms: 0,
        });
        run_id
    }

    pub fn inventory(&self, server: usize) -> RunId {
        self.add(server, JobSpec::Inventory(InventoryParams {}), vec![PlanStep::ReadInventory])
    }

    pub fn power(&self, server: usize, action: PowerAction) -> RunId {
        self.add(server, JobSpec::Power(PowerParams { action }), vec![PlanStep::Power { action }])
    }

    pub fn boot(&self, server: usize, params: BootOverrideParams) -> RunId {
        let BootOverrideParams { target, times, mode } = params;
        self.add(server, JobSpec::BootOverride(params), vec![PlanStep::BootOverride { target, times, mode }])
    }

    /// An update of `component` with the lab's package `file`.
    pub fn update(&self, server: usize, component: &str, file: &str, reboot: Reboot) -> RunId {
        let info = self.lab.packages().into_iter().find(|info| info.file_name == file).unwrap();
        let from = self.version(server, component).unwrap();
        let package = FirmwarePackage {
            name: file.to_owned(),
            file_name: file.to_owned(),
            url: info.url,
            sha256: info.sha256.clone(),
            size: info.size,
            software_id: info.header.software_id,
            version: info.header.version.clone(),
        };
        let step = PlanStep::Firmware {
            component: component.to_owned(),
            component_name: info.header.component,
            from,
            to: info.header.version,
            sha256: info.sha256,
            reboot,
        };
        let params =
            FirmwareUpdateParams { packages: [("any".to_owned(), package)].into(), allow_downgrade: false };
        self.add(server, JobSpec::FirmwareUpdate(params), vec![step])
    }

    pub fn version(&self, server: usize, component: &str) -> Option<String> {
        let status = self.lab.status(&self.servers[server].name).unwrap();
        status.versions.get(component).cloned()
    }

    /// Somebody else, at a console of their own, resets the host.
    pub async fn other_console_resets(&self, server: usize, kind: &str) {
        let reset = http::Request::post("/redfish/v1/Systems/System.Embedded.1/Actions/ComputerSystem.Reset");
        self.other_console(server, reset, &json!({ "ResetType": kind })).await;
    }

    /// Somebody else, at a console of their own, sends this.
    pub async fn other_console(&self, server: usize, request: http::request::Builder, body: &Value) {
        let login = STANDARD.encode(format!("root:{}", self.plane.password()));
        let request = request
            .header(http::header::AUTHORIZATION, format!("Basic {login}"))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Bytes::from(body.to_string()))
            .unwrap();
        let index = self.lab.index(&self.servers[server].name).unwrap();
        let answer = self.lab.call(index, request).await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }

    /// Lets time pass until the run has ended.
    pub async fn end_of(&self, run: RunId) -> RunRow {
        for _ in 0..20_000 {
            let row = self.plane.run(run);
            if row.finish.is_some() {
                return row;
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        panic!("the run has not ended: {:#?}", self.plane.run(run));
    }
}
