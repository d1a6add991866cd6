//! A site in one process and in paused time: a model of the control plane's queue, the lab's BMCs, executors that
//! can be killed at any journal write.

mod ipmi;
pub mod plane;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use crypto_box::SecretKey;
use futures::future::BoxFuture;
use rackhand_executor::{
    broker::{
        Broker, Endpoint, Line, Priority, connect,
        ipmi::{
            IpmiConnector,
            link::{Links, Udp},
        },
        redfish::{RedfishConnector, Transports, delete_leftovers},
    },
    clock::{Clock, TokioClock},
    cloud::Cloud,
    credential::{self, SiteSecret},
    identity::{self, Identity, Keys, Membership},
    journal::{Journal, JournalObserver, Observed, Write, memory::MemoryJournal},
    package::{Offer, PackageError, Packages, Publisher, Repository},
    policy::Policy,
    service::{Executor, Handle, Parts, Settings},
    site_key::Confirmed,
    timing::Timing,
};
use rackhand_lab::{CallError, InProcess, ServerSpec, SiteConfig};
use rackhand_redfish::{Body, NotSent, Transport, TransportError};
use rackhand_schema::{
    id::{BmcId, CredentialId, ExecutorId, ExecutorSessionId, JobId, RunId, ServerId, SiteId, TraceId},
    job::{
        BootOverrideParams, FirmwarePackage, FirmwareUpdateParams, InventoryParams, JobSpec, PlanStep,
        PlanTarget, PowerAction, PowerParams, Reboot,
    },
    protocol::{GrantCredential, GrantTarget, RunGrant},
    server::{CredentialTarget, SealedCredential},
};
use serde_json::Value;
use tokio::sync::Notify;
use uuid::Uuid;

use self::plane::{Link, ModelCloud, Plane, RunRow};

pub const PASSWORD: &str = "correct horse";
const PIN: &str = "abababababababababababababababababababababababababababababababab";

pub fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

/// What the network does to one transport, and not to the other.
#[derive(Default)]
pub struct Wire {
    pub redfish_down: AtomicBool,
    /// The next changing request is carried out, its answer lost, and Redfish is down from then on.
    pub redfish_cuts: AtomicBool,
    /// Requests that reached a Redfish service.
    pub redfish_requests: AtomicU64,
    pub ipmi_down: AtomicBool,
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
            self.wire.redfish_requests.fetch_add(1, Ordering::Relaxed);
            let changes = request.uri().path().ends_with("ComputerSystem.Reset")
                || request.method() == http::Method::PATCH;
            let request = request.map(Body::into_bytes);
            if changes && self.wire.redfish_cuts.swap(false, Ordering::Relaxed) {
                self.wire.redfish_down.store(true, Ordering::Relaxed);
                let _ = self.lab.call(self.bmc, request).await;
                return Err(TransportError::NoAnswer { why: "cut".into() });
            }
            match tokio::time::timeout_at(deadline, self.lab.call(self.bmc, request)).await {
                Ok(Ok(response)) => Ok(response),
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

struct LabRepository(InProcess);

impl Repository for LabRepository {
    fn get<'a>(&'a self, package: &'a FirmwarePackage) -> BoxFuture<'a, Result<Bytes, PackageError>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_secs(2)).await;
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
    pub wire: Arc<Wire>,
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
        Self { lab, plane, timing, policy, wire, reach, udp: None, clock, site_key, members, servers }
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

    /// Starts an executor; a second start of the same one resumes its journal.
    pub async fn start(&self, executor: usize, observer: Option<Arc<StopAt>>) -> Handle {
        let member = &self.members[executor];
        let journal: Arc<dyn Journal> = match observer {
            Some(observer) => Arc::new(Observed::new(Arc::clone(&member.journal) as Arc<_>, observer)),
            None => Arc::clone(&member.journal) as Arc<_>,
        };
        let resumes = member.journal.meta("session").await.unwrap().map(|text| text.parse().unwrap());
        let session = ExecutorSessionId::generate();
        let value = Some(session.to_string());
        member.journal.write(Write::Meta { key: "session".into(), value }).await.unwrap();
        let executor_id = member.identity.membership.executor_id;
        self.plane.sign_in(executor_id, session, resumes);
        let cloud: Arc<dyn Cloud> =
            Arc::new(ModelCloud { plane: Arc::clone(&self.plane), session, link: Arc::clone(&member.link) });
        let connector = Arc::new(self.transports(member, Arc::clone(&cloud)));
        delete_leftovers(&connector.redfish).await;
        let settings = Settings { timing: self.timing.clone(), policy: self.policy.clone(), capacity: 16 };
        let packages = Packages {
            repository: Arc::new(LabRepository(self.lab.clone())),
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
        self.plane.sign_in(member.identity.membership.executor_id, session, None);
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
            proven: false,
        };
        let connector = Arc::new(self.transports(member, cloud));
        let broker = Broker::new(connector, Arc::clone(&self.clock), Arc::new(self.timing.clone()));
        broker.line(endpoint, Priority::Observe).await.unwrap()
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

    fn target(&self, server: usize) -> GrantTarget {
        let name = self.servers[server].name.clone();
        let pin = (self.reach != Reach::Ipmi).then(|| PIN.to_owned());
        let scheme = if pin.is_some() { "https" } else { "ipmi" };
        let address = self.udp.map_or_else(|| name.clone(), |address| address.to_string());
        let url = format!("{scheme}://{address}");
        let second = CredentialTarget { url: format!("ipmi://{address}"), spki_sha256: None };
        let inside = SealedCredential {
            site_id: SiteId::from_uuid(id(1)),
            name: "bmc".into(),
            version: 1,
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
                version: 1,
                sealed,
                proven: false,
            }),
        }
    }

    fn add(&self, server: usize, spec: JobSpec, steps: Vec<PlanStep>) -> RunId {
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
