//! The site behind real sockets: one HTTPS server and one IPMI port per BMC, a package repository and a
//! control API, all on loopback.
//!
//! Simulated time is the monotonic clock's, times `speed`, plus what was skipped. One task (`pulse`) moves
//! the model on, starts the downloads BMCs ask for and tells the servers when their BMC goes away or comes
//! back.

mod control;
mod fetch;
mod ipmi;
mod repository;
mod server;
mod tls;
mod trusting;

pub use trusting::{trusting_client, trusting_tls};

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::tls::Keys;
pub(crate) use self::tls::one as new_key;
use crate::counters::Counters;
use crate::fault::{Fault, Times};
use crate::ipmi::IpmiConfig;
use crate::model::{BmcStatus, ForeignJob, Site, SiteConfig, UnknownBmc};
use crate::package::{Package, PackageInfo};
use crate::spec::{Generation, Model, Password, ServerSpec, Timings};

/// Real time between two looks at the model.
const PULSE: Duration = Duration::from_millis(20);

/// What to start.
#[derive(Clone, Debug)]
pub struct LabConfig {
    /// See [`ServerSpec::fleet`] for a mixed site.
    pub servers: Vec<ServerSpec>,
    /// Simulated seconds per real second; at least a thousandth.
    pub speed: f64,
    /// Every BMC's account.
    pub username: String,
    pub password: Password,
    pub seed: u64,
    pub timings: Timings,
    /// The address everything listens on.
    pub address: IpAddr,
    /// First port of the BMCs, which then get consecutive ones; 0 lets the system choose.
    pub base_port: u16,
    /// Port of the control API; 0 lets the system choose.
    pub control_port: u16,
    pub packages: Vec<Package>,
    /// Whether BMCs serve Redfish. A lab of thousands that only IPMI is spoken with starts sooner without.
    pub redfish: bool,
    /// How BMCs speak IPMI; `None`: they do not.
    pub ipmi: Option<IpmiConfig>,
    /// First UDP port of the BMCs, which then get consecutive ones; 0 lets the system choose.
    pub ipmi_base_port: u16,
}

impl LabConfig {
    /// Realistic timings, real time, loopback, ports chosen by the system, the standard packages.
    pub fn new(servers: Vec<ServerSpec>, password: impl Into<Password>) -> Self {
        Self {
            servers,
            speed: 1.0,
            username: "root".to_owned(),
            password: password.into(),
            seed: 1,
            timings: Timings::default(),
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            base_port: 0,
            control_port: 0,
            packages: Package::repository(),
            redfish: true,
            ipmi: Some(IpmiConfig::default()),
            ipmi_base_port: 0,
        }
    }

    pub fn speed(mut self, speed: f64) -> Self {
        self.speed = speed;
        self
    }
}

/// Why the lab did not start.
#[derive(Debug, Error)]
pub enum LabError {
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot make a TLS key")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("two servers have the name {0:?}")]
    DuplicateName(String),
}

/// How to reach a BMC and what to expect there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BmcInfo {
    pub name: String,
    /// `https://127.0.0.1:port`; empty without Redfish.
    pub url: String,
    pub username: String,
    pub model: Model,
    /// `ComputerSystem.Model`
    pub product: String,
    pub generation: Generation,
    pub service_tag: String,
    /// BMC firmware at the start.
    pub idrac_version: String,
    /// Lower-case hex SHA-256 of the certificate's SubjectPublicKeyInfo.
    pub spki_sha256: String,
    /// UDP address and port of IPMI, for the same account.
    #[serde(default)]
    pub ipmi: Option<SocketAddr>,
}

/// A running lab. Dropping it stops everything; [`Lab::shutdown`] also waits for it.
#[derive(Debug)]
pub struct Lab {
    shared: Arc<Shared>,
    bmcs: Vec<BmcInfo>,
    packages: Vec<PackageInfo>,
    control_url: String,
    repository_url: String,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What the lab's tasks share.
#[derive(Debug)]
pub(crate) struct Shared {
    site: Mutex<Site>,
    packages: Vec<Package>,
    started: Instant,
    speed: f64,
    skipped: Mutex<Duration>,
}

impl Shared {
    fn site(&self) -> MutexGuard<'_, Site> {
        self.site.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Simulated time since the start.
    fn now(&self) -> Duration {
        let skipped = *self.skipped.lock().unwrap_or_else(PoisonError::into_inner);
        self.started.elapsed().mul_f64(self.speed) + skipped
    }

    /// Real time since the start.
    fn real(&self) -> Duration {
        self.started.elapsed()
    }

    fn skip(&self, time: Duration) {
        *self.skipped.lock().unwrap_or_else(PoisonError::into_inner) += time;
        let now = self.now();
        self.site().advance(now);
    }

    /// Real time for a simulated delay.
    fn scaled(&self, delay: Duration) -> Duration {
        delay.div_f64(self.speed)
    }

    fn package(&self, file_name: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.file_name == file_name)
    }
}

impl Lab {
    /// Starts every server of the site. All of them answer when this returns.
    pub async fn start(config: LabConfig) -> Result<Self, LabError> {
        let mut names: Vec<&str> = config.servers.iter().map(|server| server.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair.first() == pair.last()) {
            return Err(LabError::DuplicateName(twice.first().copied().unwrap_or_default().to_owned()));
        }
        ipmi::make_room(config.servers.len());
        let site = Site::new(&SiteConfig {
            username: config.username.clone(),
            password: config.password.clone(),
            seed: config.seed,
            timings: config.timings.clone(),
            ipmi: Arc::new(config.ipmi.clone().unwrap_or_default()),
            ..SiteConfig::new(config.servers.clone(), "")
        });
        let shared = Arc::new(Shared {
            site: Mutex::new(site),
            packages: config.packages.clone(),
            started: Instant::now(),
            speed: config.speed.max(0.001),
            skipped: Mutex::default(),
        });
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();

        let mut bmcs = Vec::new();
        let mut doors = Vec::new();
        let mut ports = Vec::new();
        for (index, server) in config.servers.iter().enumerate() {
            let nth = |base: u16| match base {
                0 => SocketAddr::new(config.address, 0),
                base => {
                    let port = base.saturating_add(u16::try_from(index).unwrap_or(u16::MAX));
                    SocketAddr::new(config.address, port)
                }
            };
            let mut info = BmcInfo {
                name: server.name.clone(),
                url: String::new(),
                username: config.username.clone(),
                model: server.model,
                product: server.model.product().to_owned(),
                generation: server.model.generation(),
                service_tag: server.service_tag.clone(),
                idrac_version: server.idrac_version.clone(),
                spki_sha256: String::new(),
                ipmi: None,
            };
            if config.redfish {
                let socket = server::Door::open(nth(config.base_port))?;
                let keys = Arc::new(Keys::generate(&server.service_tag)?);
                info.url = format!("https://{}", socket.address());
                info.spki_sha256.clone_from(&keys.spki_sha256);
                let (reachable, watched) = watch::channel(true);
                doors.push(reachable);
                let shared = Arc::clone(&shared);
                tasks.spawn(server::run(shared, index, socket, keys, watched, stop.child_token()));
            }
            if config.ipmi.is_some() {
                let address = nth(config.ipmi_base_port);
                let port = ipmi::Port::open(Arc::clone(&shared), index, address)?;
                let found = port.address().map_err(|source| LabError::Listen { address, source })?;
                info.ipmi = Some(found);
                ports.push(port.clone());
                tasks.spawn(port.run(stop.child_token()));
            }
            bmcs.push(info);
        }

        let repository = listen(SocketAddr::new(config.address, 0)).await?;
        let repository_url = url_of(&repository)?;
        tasks.spawn(repository::run(Arc::clone(&shared), repository, stop.child_token()));

        let packages: Vec<PackageInfo> =
            config.packages.iter().map(|package| package.info(&repository_url)).collect();
        let control = listen(SocketAddr::new(config.address, config.control_port)).await?;
        let control_url = url_of(&control)?;
        let directory = control::Directory {
            bmcs: bmcs.clone(),
            packages: packages.clone(),
            repository_url: repository_url.clone(),
        };
        tasks.spawn(control::run(Arc::clone(&shared), directory, control, stop.child_token()));
        tasks.spawn(pulse(Arc::clone(&shared), doors, ports, tasks.clone(), stop.child_token())?);
        tasks.close();
        Ok(Self { shared, bmcs, packages, control_url, repository_url, tasks, stop })
    }

    pub fn bmcs(&self) -> &[BmcInfo] {
        &self.bmcs
    }

    pub fn bmc(&self, name: &str) -> Result<&BmcInfo, UnknownBmc> {
        self.bmcs.iter().find(|bmc| bmc.name == name).ok_or_else(|| UnknownBmc(name.to_owned()))
    }

    /// `http://127.0.0.1:port`; the API is under `/lab`.
    pub fn control_url(&self) -> &str {
        &self.control_url
    }

    /// `http://127.0.0.1:port`; packages are under `/packages`.
    pub fn repository_url(&self) -> &str {
        &self.repository_url
    }

    pub fn packages(&self) -> &[PackageInfo] {
        &self.packages
    }

    /// A package with its bytes, for pushed updates.
    pub fn package(&self, file_name: &str) -> Option<Package> {
        self.shared.package(file_name).cloned()
    }

    /// Simulated time since the start.
    pub fn now(&self) -> Duration {
        self.shared.now()
    }

    /// Real time since the start: the clock of the `_real` counters.
    pub fn real(&self) -> Duration {
        self.shared.real()
    }

    /// Skips simulated time.
    pub fn advance(&self, time: Duration) {
        self.shared.skip(time);
    }

    pub fn fault(&self, name: &str, fault: Fault, times: Times) -> Result<(), UnknownBmc> {
        let now = self.shared.now();
        self.shared.site().arm(name, now, fault, times)
    }

    /// Whether the fault was in force.
    pub fn clear_fault(&self, name: &str, fault: &str) -> Result<bool, UnknownBmc> {
        let now = self.shared.now();
        self.shared.site().clear_fault(name, now, fault)
    }

    /// Puts another console's job into the queue and returns its id.
    pub fn foreign_job(&self, name: &str, job: &ForeignJob) -> Result<String, UnknownBmc> {
        let header = job
            .package
            .as_deref()
            .and_then(|file| self.shared.package(file))
            .map(|found| found.header.clone());
        let now = self.shared.now();
        self.shared.site().foreign_job(name, now, header, job.immediate)
    }

    pub fn power_failure(&self, name: &str) -> Result<(), UnknownBmc> {
        let now = self.shared.now();
        self.shared.site().power_failure(name, now)
    }

    pub fn status(&self, name: &str) -> Result<BmcStatus, UnknownBmc> {
        let now = self.shared.now();
        self.shared.site().status(name, now)
    }

    pub fn counters_of(&self, name: &str) -> Result<Counters, UnknownBmc> {
        self.shared.site().counters(name)
    }

    /// The sum over all BMCs.
    pub fn counters(&self) -> Counters {
        self.shared.site().total()
    }

    /// Stops every server and waits until they are gone.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, LabError> {
    TcpListener::bind(address).await.map_err(|source| LabError::Listen { address, source })
}

fn url_of(listener: &TcpListener) -> Result<String, LabError> {
    let unspecified = SocketAddr::from(([127, 0, 0, 1], 0));
    let address =
        listener.local_addr().map_err(|source| LabError::Listen { address: unspecified, source })?;
    Ok(format!("http://{address}"))
}

/// Moves the model on. The client for downloads is made first, so that a failure stops the start.
fn pulse(
    shared: Arc<Shared>,
    doors: Vec<watch::Sender<bool>>,
    ports: Vec<ipmi::Port>,
    tasks: TaskTracker,
    stop: CancellationToken,
) -> Result<impl Future<Output = ()>, LabError> {
    let client = fetch::client()?;
    Ok(async move {
        let mut ticks = tokio::time::interval(PULSE);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let now = shared.now();
            let fetches = {
                let mut site = shared.site();
                site.advance(now);
                for (index, door) in doors.iter().enumerate() {
                    let reachable = site.is_reachable(index, now);
                    door.send_if_modified(|seen| std::mem::replace(seen, reachable) != reachable);
                }
                site.take_fetches()
            };
            for port in &ports {
                port.poll(&stop);
            }
            for fetch in fetches {
                tasks.spawn(fetch::run(Arc::clone(&shared), client.clone(), fetch, stop.child_token()));
            }
        }
    })
}
