//! The site without sockets: requests become function calls, delays become tokio sleeps.
//!
//! Under `tokio::time::pause` (`start_paused`) a whole firmware update takes microseconds of real time;
//! simulated time is tokio's time since creation, plus what [`InProcess::skip`] added. Images are taken from
//! the lab's packages by the last part of their URL; any other URL fails like a 404.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::time::{Instant, sleep};

use crate::counters::Counters;
use crate::fault::{Fault, Times};
use crate::model::{BmcStatus, Fetch, FetchFailure, ForeignJob, Reply, Site, SiteConfig, UnknownBmc};
use crate::package::{Package, PackageInfo};

/// Where in-process packages pretend to be served.
pub(crate) const PACKAGE_BASE: &str = "http://lab.invalid";
/// After this much silence a call of a hung BMC gives up, in case the caller has no timeout of its own.
const HANG_LIMIT: Duration = Duration::from_secs(3_600);
/// One round trip: what a refused or cut connection costs.
const ROUND_TRIP: Duration = Duration::from_millis(5);

/// How a request without an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CallError {
    /// It never reached the BMC: nothing can have happened.
    #[error("the BMC refused the connection")]
    NotSent,
    /// It may have been carried out.
    #[error("the connection ended without an answer")]
    NoAnswer,
}

/// A handle on a site; clones share it. Each clone may speak from its own address.
#[derive(Clone, Debug)]
pub struct InProcess {
    site: Arc<Mutex<Site>>,
    packages: Arc<Vec<Package>>,
    started: Instant,
    skipped: Arc<Mutex<Duration>>,
    client: IpAddr,
}

impl InProcess {
    /// Must be called inside a tokio runtime: time starts now.
    pub fn new(config: &SiteConfig) -> Self {
        Self {
            site: Arc::new(Mutex::new(Site::new(config))),
            packages: Arc::new(Package::repository()),
            started: Instant::now(),
            skipped: Arc::default(),
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        }
    }

    /// Takes these packages instead of [`Package::repository`].
    pub fn with_packages(mut self, packages: Vec<Package>) -> Self {
        self.packages = Arc::new(packages);
        self
    }

    /// The same site, spoken to from another address.
    pub fn from_client(&self, client: IpAddr) -> Self {
        Self { client, ..self.clone() }
    }

    /// Simulated time since the start.
    pub fn now(&self) -> Duration {
        self.started.elapsed() + *self.skipped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves simulated time on without waiting; tokio's clock stays.
    pub fn skip(&self, time: Duration) {
        *self.skipped.lock().unwrap_or_else(PoisonError::into_inner) += time;
        self.settle(|_, _| ());
    }

    /// Sends one request to BMC number `bmc` and waits as long as the BMC takes.
    ///
    /// Dropping the future mid-way is what a client's timeout or death is: the request may have been carried
    /// out.
    pub async fn call(
        &self,
        bmc: usize,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, CallError> {
        let in_flight = InFlight::begin(self, bmc, &request);
        let reply = self.settle(|site, now| {
            let reply = site.handle(bmc, now, self.client, request);
            if let Some(number) = in_flight.number
                && reply.was_handled()
            {
                site.handled(bmc, number, now, self.started.elapsed());
            }
            reply
        });
        let outcome = match reply {
            Reply::Respond { after, response } => {
                sleep(after).await;
                Ok(response)
            }
            Reply::Refuse => {
                sleep(ROUND_TRIP).await;
                Err(CallError::NotSent)
            }
            Reply::CutAfterProcessing | Reply::CutBeforeProcessing => {
                sleep(ROUND_TRIP).await;
                Err(CallError::NoAnswer)
            }
            Reply::Hang => {
                sleep(HANG_LIMIT).await;
                Err(CallError::NoAnswer)
            }
        };
        in_flight.end(outcome.as_ref().ok().map(|response| response.status().as_u16()));
        outcome
    }

    pub fn packages(&self) -> Vec<PackageInfo> {
        self.packages.iter().map(|package| package.info(PACKAGE_BASE)).collect()
    }

    /// A package with its bytes, for pushed updates.
    pub fn package(&self, file_name: &str) -> Option<Package> {
        self.packages.iter().find(|package| package.file_name == file_name).cloned()
    }

    pub fn index(&self, name: &str) -> Result<usize, UnknownBmc> {
        self.lock().index(name)
    }

    pub fn fault(&self, name: &str, fault: Fault, times: Times) -> Result<(), UnknownBmc> {
        self.settle(|site, now| site.arm(name, now, fault, times))
    }

    pub fn clear_fault(&self, name: &str, fault: &str) -> Result<bool, UnknownBmc> {
        self.settle(|site, now| site.clear_fault(name, now, fault))
    }

    /// Puts another console's job into the queue and returns its id.
    pub fn foreign_job(&self, name: &str, job: &ForeignJob) -> Result<String, UnknownBmc> {
        let header = job.package.as_deref().and_then(|file| self.package(file)).map(|package| package.header);
        self.settle(|site, now| site.foreign_job(name, now, header, job.immediate))
    }

    pub fn power_failure(&self, name: &str) -> Result<(), UnknownBmc> {
        self.settle(|site, now| site.power_failure(name, now))
    }

    pub fn status(&self, name: &str) -> Result<BmcStatus, UnknownBmc> {
        self.settle(|site, now| site.status(name, now))
    }

    pub fn counters(&self, name: &str) -> Result<Counters, UnknownBmc> {
        self.lock().counters(name)
    }

    /// The sum over all BMCs.
    pub fn total(&self) -> Counters {
        self.lock().total()
    }

    /// The shared model, for what has no shortcut here.
    pub fn site(&self) -> Arc<Mutex<Site>> {
        Arc::clone(&self.site)
    }

    fn lock(&self) -> MutexGuard<'_, Site> {
        self.site.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` at the present time and delivers the images it made BMCs ask for.
    fn settle<R>(&self, work: impl FnOnce(&mut Site, Duration) -> R) -> R {
        let now = self.now();
        let mut site = self.lock();
        site.advance(now);
        let result = work(&mut site, now);
        for fetch in site.take_fetches() {
            let image = self.find(&fetch);
            site.fetched(&fetch, now, image);
        }
        result
    }

    fn find(&self, fetch: &Fetch) -> Result<Bytes, FetchFailure> {
        let name = fetch.url.rsplit('/').next().unwrap_or_default();
        self.packages
            .iter()
            .find(|package| package.file_name == name)
            .map(|package| package.bytes.clone())
            .ok_or(FetchFailure::Status(404))
    }
}

/// A mutation in flight; ended without an answer when its future is dropped.
struct InFlight<'a> {
    lab: &'a InProcess,
    bmc: usize,
    number: Option<u64>,
}

impl<'a> InFlight<'a> {
    fn begin(lab: &'a InProcess, bmc: usize, request: &http::Request<Bytes>) -> Self {
        let now = lab.now();
        let number = lab.lock().begin(bmc, now, lab.started.elapsed(), lab.client, request);
        Self { lab, bmc, number }
    }

    fn end(mut self, status: Option<u16>) {
        self.finish(status);
    }

    fn finish(&mut self, status: Option<u16>) {
        if let Some(number) = self.number.take() {
            let now = self.lab.now();
            self.lab.lock().end(self.bmc, number, now, self.lab.started.elapsed(), status);
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.finish(None);
    }
}
