//! The site as a state machine: requests and simulated time in, replies and image fetches out.
//!
//! **Architecture invariant:** nothing below this module reads a clock, opens a socket or spawns a task. Time
//! only moves by the `now` of a call and never backwards; between two calls every event (a boot that ends, a
//! flash that completes) is carried out at its own exact time, in order, so that the outcome does not depend
//! on how often anybody looks.

mod auth;
mod bmc;
mod boot;
mod clock;
mod commands;
mod door;
mod firmware;
mod host;
mod hostile;
mod job;
mod jobs;
mod log;
mod messages;
mod mutations;
mod resources;
mod routes;
mod traits;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub(crate) use self::bmc::Bmc;
pub use self::bmc::BmcStatus;
pub(crate) use self::boot::BootOverride;
pub(crate) use self::door::basic_credentials;
pub(crate) use self::log::{Entry, Event};
pub(crate) use self::messages::Message;
use self::mutations::mutation_kind;
pub(crate) use self::traits::at_least as version_at_least;
use crate::counters::Counters;
use crate::fault::{ArmedFault, Fault, Times};
use crate::ipmi::{Datagram, IpmiConfig};
use crate::package::PackageHeader;
use crate::spec::{Password, ServerSpec, Timings};

/// What to simulate.
#[derive(Clone, Debug)]
pub struct SiteConfig {
    pub servers: Vec<ServerSpec>,
    /// The account every BMC has.
    pub username: String,
    pub password: Password,
    /// Makes ids, MAC addresses and the like; equal seeds give equal sites.
    pub seed: u64,
    pub timings: Timings,
    /// What time it is when the simulation starts, in seconds since 1970 (UTC).
    pub epoch_unix: i64,
    pub ipmi: Arc<IpmiConfig>,
}

impl SiteConfig {
    /// Realistic timings, user `root`, 2026-01-15T08:00:00Z.
    pub fn new(servers: Vec<ServerSpec>, password: impl Into<Password>) -> Self {
        Self {
            servers,
            username: "root".to_owned(),
            password: password.into(),
            seed: 1,
            timings: Timings::default(),
            epoch_unix: 1_768_464_000,
            ipmi: Arc::default(),
        }
    }
}

/// What the shell does with a request.
#[derive(Debug)]
pub enum Reply {
    /// Answer `after` this much simulated time.
    Respond { after: Duration, response: http::Response<Bytes> },
    /// The request was carried out; close the connection without an answer.
    CutAfterProcessing,
    /// The request was read and not carried out; close the connection without an answer.
    CutBeforeProcessing,
    /// Keep the connection open and never answer.
    Hang,
    /// Nobody listens: refuse the connection.
    Refuse,
}

/// An image a BMC wants to download; the shell gets it and calls [`Site::fetched`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    pub bmc: usize,
    pub job: String,
    pub url: String,
}

/// Why an image could not be downloaded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FetchFailure {
    #[error("the server answered with HTTP status {0}")]
    Status(u16),
    #[error("the server could not be reached: {0}")]
    Unreachable(String),
}

/// A job another console put into the queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ForeignJob {
    /// File name of a package of the lab: the job is an update with it. Without: a BIOS configuration job.
    pub package: Option<String>,
    /// Whether it runs at once (a staged package then reboots the host) instead of waiting for a reboot.
    pub immediate: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("there is no BMC of the name {0:?}")]
pub struct UnknownBmc(pub String);

/// All BMCs of the simulated site.
#[derive(Debug)]
pub struct Site {
    bmcs: Vec<Bmc>,
}

impl Reply {
    /// Whether the BMC acted on the request.
    pub(crate) fn was_handled(&self) -> bool {
        matches!(self, Self::Respond { .. } | Self::CutAfterProcessing)
    }
}

impl Site {
    pub fn new(config: &SiteConfig) -> Self {
        let bmcs =
            config.servers.iter().enumerate().map(|(index, spec)| Bmc::new(index, spec, config)).collect();
        Self { bmcs }
    }

    pub fn len(&self) -> usize {
        self.bmcs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bmcs.is_empty()
    }

    /// The names of the BMCs; a name's position is its index.
    pub fn names(&self) -> Vec<String> {
        self.bmcs.iter().map(|bmc| bmc.spec.name.clone()).collect()
    }

    pub fn index(&self, name: &str) -> Result<usize, UnknownBmc> {
        self.bmcs.iter().position(|bmc| bmc.spec.name == name).ok_or_else(|| UnknownBmc(name.to_owned()))
    }

    /// Answers one request that reached BMC number `bmc` at `now`. An index out of range is refused.
    ///
    /// A shell that wants the request among the mutations calls [`Site::begin`] before, [`Site::handled`] and
    /// [`Site::end`] after.
    pub fn handle(
        &mut self,
        bmc: usize,
        now: Duration,
        client_ip: IpAddr,
        request: http::Request<Bytes>,
    ) -> Reply {
        self.bmcs.get_mut(bmc).map_or(Reply::Refuse, |bmc| bmc.handle(now, client_ip, request))
    }

    /// Records that a request's head arrived; the shell calls it before it reads the body. `None` when the
    /// request cannot change hardware. `real` is time on the shell's own clock.
    pub fn begin<B>(
        &mut self,
        bmc: usize,
        now: Duration,
        real: Duration,
        client_ip: IpAddr,
        request: &http::Request<B>,
    ) -> Option<u64> {
        self.bmcs.get_mut(bmc)?.begin_mutation(
            now,
            real,
            client_ip,
            request.method(),
            request.uri().path(),
            request.headers(),
        )
    }

    /// Records that `handle` carried a mutation out.
    pub fn handled(&mut self, bmc: usize, mutation: u64, now: Duration, real: Duration) {
        if let Some(bmc) = self.bmcs.get_mut(bmc) {
            bmc.mutation_handled(mutation, now, real);
        }
    }

    /// Records that the answer to a mutation went out (`status`) or that its connection ended without one.
    pub fn end(&mut self, bmc: usize, mutation: u64, now: Duration, real: Duration, status: Option<u16>) {
        if let Some(bmc) = self.bmcs.get_mut(bmc) {
            bmc.end_mutation(mutation, now, real, status);
        }
    }

    /// One datagram from `from` that reached the IPMI port of a BMC, and what the BMC sends. It is decrypted
    /// in place. `real` is time on the shell's own clock: sessions and retries go by it.
    pub fn ipmi_receive(
        &mut self,
        bmc: usize,
        now: Duration,
        real: Duration,
        from: SocketAddr,
        datagram: &mut [u8],
    ) -> Vec<Datagram> {
        let bmc = self.bmcs.get_mut(bmc);
        bmc.map(|bmc| bmc.ipmi_receive(now, real, from, datagram)).unwrap_or_default()
    }

    /// What the IPMI side of a BMC sends by itself: repetitions, and output of the console. The shell calls
    /// it from time to time while [`Site::ipmi_due`] says so.
    pub fn ipmi_poll(&mut self, bmc: usize, now: Duration, real: Duration) -> Vec<Datagram> {
        self.bmcs.get_mut(bmc).map(|bmc| bmc.ipmi_poll(now, real)).unwrap_or_default()
    }

    /// From when on [`Site::ipmi_poll`] has something to do; `None` while there is no session.
    pub fn ipmi_due(&self, bmc: usize) -> Option<Duration> {
        self.bmcs.get(bmc)?.ipmi_due()
    }

    /// Tells a BMC the UDP port it listens on, which it names when SOL is activated.
    pub fn ipmi_listens(&mut self, bmc: usize, port: u16) {
        if let Some(bmc) = self.bmcs.get_mut(bmc) {
            bmc.ipmi.listens(port);
        }
    }

    /// Lets everything happen that is due by `now`.
    pub fn advance(&mut self, now: Duration) {
        for bmc in &mut self.bmcs {
            bmc.advance(now);
        }
    }

    /// Whether connections to the BMC are accepted at `now`.
    pub fn is_reachable(&mut self, bmc: usize, now: Duration) -> bool {
        self.bmcs.get_mut(bmc).is_some_and(|bmc| {
            bmc.advance(now);
            bmc.is_reachable()
        })
    }

    /// Whether the BMC shows another TLS key than at the start.
    pub fn has_changed_key(&self, bmc: usize) -> bool {
        self.bmcs.get(bmc).is_some_and(|bmc| bmc.faults.is_on("changed_tls_key"))
    }

    /// The downloads BMCs asked for since the last call.
    pub fn take_fetches(&mut self) -> Vec<Fetch> {
        self.bmcs.iter_mut().flat_map(|bmc| bmc.take_fetches()).collect()
    }

    /// Delivers a download. Late and unknown ones are ignored.
    pub fn fetched(&mut self, fetch: &Fetch, now: Duration, result: Result<Bytes, FetchFailure>) {
        if let Some(bmc) = self.bmcs.get_mut(fetch.bmc) {
            bmc.advance(now);
            bmc.fetched(&fetch.job, now, result);
        }
    }

    pub fn arm(&mut self, name: &str, now: Duration, fault: Fault, times: Times) -> Result<(), UnknownBmc> {
        self.at(name, now)?.faults.arm(fault, times);
        Ok(())
    }

    /// Whether the fault was in force.
    pub fn clear_fault(&mut self, name: &str, now: Duration, fault: &str) -> Result<bool, UnknownBmc> {
        Ok(self.at(name, now)?.faults.clear(fault))
    }

    pub fn faults(&self, name: &str) -> Result<Vec<ArmedFault>, UnknownBmc> {
        let index = self.index(name)?;
        Ok(self.bmcs.get(index).map(Bmc::fault_list).unwrap_or_default())
    }

    /// Puts a job of another console into the queue and returns its id. With `header` it is a firmware
    /// update.
    pub fn foreign_job(
        &mut self,
        name: &str,
        now: Duration,
        header: Option<PackageHeader>,
        immediate: bool,
    ) -> Result<String, UnknownBmc> {
        Ok(self.at(name, now)?.foreign_job(header, immediate))
    }

    /// Cuts the mains: the host loses power at once, whatever it does, and the BMC with it for a reset's
    /// time.
    pub fn power_failure(&mut self, name: &str, now: Duration) -> Result<(), UnknownBmc> {
        self.at(name, now)?.power_failure();
        Ok(())
    }

    /// Who is who and what is going on, for assertions and the control API.
    pub fn status(&mut self, name: &str, now: Duration) -> Result<BmcStatus, UnknownBmc> {
        Ok(self.at(name, now)?.status())
    }

    pub fn counters(&self, name: &str) -> Result<Counters, UnknownBmc> {
        let index = self.index(name)?;
        Ok(self.bmcs.get(index).map(|bmc| bmc.counters()).unwrap_or_default())
    }

    /// The sum over all BMCs.
    pub fn total(&self) -> Counters {
        self.bmcs.iter().fold(Counters::default(), |mut sum, bmc| {
            sum.add(&bmc.counters());
            sum
        })
    }

    pub fn spec(&self, bmc: usize) -> Option<&ServerSpec> {
        self.bmcs.get(bmc).map(|bmc| &bmc.spec)
    }

    fn at(&mut self, name: &str, now: Duration) -> Result<&mut Bmc, UnknownBmc> {
        let index = self.index(name)?;
        let bmc = self.bmcs.get_mut(index).ok_or_else(|| UnknownBmc(name.to_owned()))?;
        bmc.advance(now);
        Ok(bmc)
    }
}
