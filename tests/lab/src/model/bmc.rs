//! One BMC: its state, its events in time, and what the rest of the model asks of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::auth::Auth;
use super::boot::BootOverride;
use super::clock::BmcClock;
use super::firmware::Component;
use super::host::Host;
use super::job::{Apply, Job, State, UpdateRequest};
use super::log::Log;
use super::messages::Message;
use super::traits::Traits;
use super::{Fetch, FetchFailure, SiteConfig};
use crate::counters::{Counters, FlashOutcome, MutationRecord};
use crate::fault::{ArmedFault, Fault, FaultSet};
use crate::ipmi::{self, Ipmi};
use crate::package::PackageHeader;
use crate::spec::{Kind, Password, ServerSpec, Timings, mix};

/// Whether the BMC itself is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Up {
    Yes,
    Resetting { until: Duration },
}

#[derive(Debug)]
pub(crate) struct Bmc {
    pub(crate) index: usize,
    pub(crate) spec: ServerSpec,
    pub(crate) username: String,
    pub(crate) password: Password,
    pub(crate) timings: Timings,
    pub(crate) seed: u64,
    epoch_unix: i64,
    pub(crate) now: Duration,
    up: Up,
    /// Data is unavailable until then, and the Lifecycle Controller until the other.
    pub(crate) data_ready_at: Duration,
    pub(crate) lc_ready_at: Duration,
    pub(crate) last_boot: Duration,
    pub(crate) last_bmc_reset: Duration,
    pub(crate) host: Host,
    pub(crate) pending_power: Option<(Duration, String)>,
    pub(crate) boot_override: BootOverride,
    /// Where each boot came from, in Redfish's words; `None` is the usual order.
    pub(crate) boots: Vec<String>,
    pub(crate) components: Vec<Component>,
    pub(crate) jobs: Vec<Job>,
    pub(crate) job_numbers: BTreeSet<u64>,
    /// Uploaded through `HttpPushUri`, by inventory id.
    pub(crate) pushed: BTreeMap<String, PackageHeader>,
    pub(crate) inventory_unreadable_until: Duration,
    pub(crate) manager_stale_until: Duration,
    pub(crate) auth: Auth,
    pub(crate) tokens: u64,
    pub(crate) faults: FaultSet,
    pub(crate) lc: Log,
    pub(crate) sel: Log,
    pub(crate) counters: Counters,
    pub(crate) fetches: Vec<Fetch>,
    pub(crate) mutations: BTreeMap<u64, MutationRecord>,
    pub(crate) next_mutation: u64,
    pub(crate) ipmi: Box<Ipmi>,
}

/// What one BMC is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BmcStatus {
    pub name: String,
    pub simulated_seconds: u64,
    /// Whether the BMC answers.
    pub reachable: bool,
    /// `On` or `Off`, as Redfish shows it.
    pub power_state: String,
    /// `ServerStatus` of the Lifecycle Controller service.
    pub server_status: String,
    pub idrac_version: String,
    pub bios_version: String,
    /// Installed version by FQDD; destroyed components are missing.
    pub versions: BTreeMap<String, String>,
    /// Queue, oldest first: id, name, state, message id.
    pub jobs: Vec<(String, String, String, String)>,
    /// Whether a flash is being written right now.
    pub flashing: bool,
    /// `BootSourceOverrideTarget`, `…Enabled` and `…Mode`.
    pub boot_override: (String, String, String),
    /// Where the host has booted from, oldest first: `None` for the usual order.
    pub boots: Vec<String>,
}

enum Event {
    BmcUp,
    Power,
    Host,
    Job(usize),
}

impl Bmc {
    pub(crate) fn new(index: usize, spec: &ServerSpec, config: &SiteConfig) -> Self {
        let seed = mix(config.seed, index as u64);
        let mut bmc = Self {
            index,
            spec: spec.clone(),
            username: config.username.clone(),
            password: config.password.clone(),
            timings: config.timings.clone(),
            seed,
            epoch_unix: config.epoch_unix,
            now: Duration::ZERO,
            up: Up::Yes,
            data_ready_at: Duration::ZERO,
            lc_ready_at: Duration::ZERO,
            last_boot: Duration::ZERO,
            last_bmc_reset: Duration::ZERO,
            host: if spec.powered_on { Host::Running } else { Host::Off },
            pending_power: None,
            boot_override: BootOverride::default(),
            boots: Vec::new(),
            components: spec.model.components(&spec.idrac_version).into_iter().map(Component::new).collect(),
            jobs: Vec::new(),
            job_numbers: BTreeSet::new(),
            pushed: BTreeMap::new(),
            inventory_unreadable_until: Duration::ZERO,
            manager_stale_until: Duration::ZERO,
            auth: Auth::new(100 + seed % 900),
            tokens: 0,
            faults: FaultSet::default(),
            lc: Log::starting_at(1_000 + seed % 90_000),
            sel: Log::starting_at(1),
            counters: Counters::default(),
            fetches: Vec::new(),
            mutations: BTreeMap::new(),
            next_mutation: 0,
            ipmi: Box::new(Ipmi::new(&config.ipmi, spec.model, seed, (&config.username, &config.password))),
        };
        bmc.log_lc("System Health", Message::info("SYS1000", "The system is turned on."));
        bmc.clear_log();
        bmc
    }

    pub(crate) fn advance(&mut self, now: Duration) {
        while let Some((at, event)) = self.next_event()
            && at <= now
        {
            self.now = self.now.max(at);
            match event {
                Event::BmcUp => self.bmc_is_up(),
                Event::Power => {
                    if let Some((_, reset)) = self.pending_power.take() {
                        self.apply_power(&reset);
                    }
                }
                Event::Host => self.step_host(),
                Event::Job(index) => self.step_job(index),
            }
        }
        self.now = self.now.max(now);
        self.auth.expire(self.now);
    }

    fn next_event(&self) -> Option<(Duration, Event)> {
        let mut next: Option<(Duration, Event)> = None;
        let mut offer = |at: Option<Duration>, event: Event| {
            if let Some(at) = at
                && next.as_ref().is_none_or(|(earliest, _)| at < *earliest)
            {
                next = Some((at, event));
            }
        };
        if let Up::Resetting { until } = self.up {
            offer(Some(until), Event::BmcUp);
        }
        offer(self.pending_power.as_ref().map(|(at, _)| *at), Event::Power);
        offer(self.host.due(), Event::Host);
        for (index, job) in self.jobs.iter().enumerate() {
            offer(self.job_due(job), Event::Job(index));
        }
        next
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up == Up::Yes
    }

    pub(crate) fn is_reachable(&self) -> bool {
        let dead = self.components.iter().any(|at| at.dead && at.spec.kind == Kind::Idrac);
        self.is_up() && !dead && !self.faults.is_on("partition")
    }

    /// The BMC goes away for `length`; sessions are lost, and downloads unless new firmware is starting.
    pub(crate) fn reset_bmc(&mut self, length: Duration, for_update: bool) {
        self.counters.bmc_resets += 1;
        self.up = Up::Resetting { until: self.now + length };
        self.auth.close_all();
        self.ipmi.restart();
        if !for_update {
            for index in 0..self.jobs.len() {
                if self.jobs.get(index).is_some_and(|job| job.state == State::Downloading) {
                    self.fail(index, Message::new("RED006", "The update package could not be downloaded."));
                }
            }
        }
    }

    fn bmc_is_up(&mut self) {
        self.up = Up::Yes;
        self.last_bmc_reset = self.now;
        self.data_ready_at = self.now + self.timings.bmc_warm_up;
        self.lc_ready_at = self.now + self.timings.lc_warm_up;
        self.log_lc("System Health", Message::info("RAC0182", "The iDRAC is started."));
        let updated = self.jobs.iter().position(|job| {
            job.state == State::Running
                && job.until.is_none()
                && job.header().is_some_and(|header| header.software_id == "25227")
        });
        if let Some(index) = updated
            && let Some(job) = self.jobs.get(index)
            && let Some(header) = job.header().cloned()
        {
            let targets = job.targets.clone();
            self.install(index, &header, &targets);
        }
    }

    pub(crate) fn power_failure(&mut self) {
        let message = Message::critical("PSU0003", "The power input was lost.");
        self.sel.add_event(self.now, "System Health", message, ipmi::MAINS_LOST);
        self.power_off();
        self.pending_power = None;
        // The BMC has no standby power left either: what it writes to itself is lost with it.
        for index in 0..self.jobs.len() {
            let Some(job) = self.jobs.get(index).filter(|job| job.state == State::Running) else { continue };
            let targets = job.targets.clone();
            for at in targets {
                if let Some(component) = self.components.get_mut(at) {
                    component.dead = true;
                    self.counters.bricked += 1;
                }
            }
            self.counters.power_losses_while_flashing += 1;
            self.end_flash(index, FlashOutcome::Bricked);
            self.fail(index, Message::critical("PR21", "The job failed."));
        }
        self.reset_bmc(self.timings.bmc_reset, false);
    }

    pub(crate) fn clock(&self) -> BmcClock {
        let fault = match self.faults.get("clock_offset") {
            Some(Fault::ClockOffset { seconds }) => *seconds,
            _ => 0,
        };
        BmcClock {
            start_unix: self.epoch_unix + self.spec.clock_offset_seconds + fault,
            utc_offset_minutes: self.spec.utc_offset_minutes,
        }
    }

    pub(crate) fn idrac_version(&self) -> &str {
        self.version_of(Kind::Idrac)
    }

    /// The version that the manager shows of itself.
    pub(crate) fn manager_version(&self) -> &str {
        let mut components = self.components.iter();
        let before = components
            .find(|component| component.spec.kind == Kind::Idrac)
            .filter(|_| self.now < self.manager_stale_until)
            .and_then(|component| component.spec.previous.as_deref());
        before.unwrap_or_else(|| self.idrac_version())
    }

    pub(crate) fn version_of(&self, kind: Kind) -> &str {
        self.components
            .iter()
            .find(|component| component.spec.kind == kind)
            .map_or("", |component| component.spec.version.as_str())
    }

    pub(crate) fn traits(&self) -> Traits {
        Traits::of(self.spec.model.generation(), self.idrac_version())
    }

    pub(crate) fn log_lc(&mut self, category: &'static str, message: Message) {
        self.lc.add(self.now, category, message);
    }

    pub(crate) fn take_fetches(&mut self) -> Vec<Fetch> {
        std::mem::take(&mut self.fetches)
    }

    pub(crate) fn fetched(&mut self, job: &str, now: Duration, result: Result<Bytes, FetchFailure>) {
        self.deliver(job, now, result);
        self.advance(now);
    }

    pub(crate) fn foreign_job(&mut self, header: Option<PackageHeader>, immediate: bool) -> String {
        const ORIGIN: &str = "foreign";
        match header {
            Some(header) => self.create_update(UpdateRequest {
                file: format!("foreign-{}", header.version),
                url: None,
                content: Some(Ok(header)),
                apply: if immediate { Apply::Immediate } else { Apply::OnReset },
                origin: ORIGIN.to_owned(),
            }),
            None => self.create_configuration(ORIGIN),
        }
    }

    pub(crate) fn is_flashing(&self) -> bool {
        self.jobs.iter().any(|job| job.state == State::Running && job.flash.is_some())
    }

    pub(crate) fn power_state(&self) -> &'static str {
        if self.host.is_on() { "On" } else { "Off" }
    }

    pub(crate) fn status(&self) -> BmcStatus {
        let registry = self.traits().registry;
        BmcStatus {
            name: self.spec.name.clone(),
            simulated_seconds: self.now.as_secs(),
            reachable: self.is_reachable(),
            power_state: self.power_state().to_owned(),
            server_status: self.host.server_status().to_owned(),
            idrac_version: self.idrac_version().to_owned(),
            bios_version: self.version_of(Kind::Bios).to_owned(),
            versions: self
                .components
                .iter()
                .filter(|component| !component.dead)
                .map(|component| (component.spec.fqdd.clone(), component.spec.version.clone()))
                .collect(),
            jobs: self
                .jobs
                .iter()
                .map(|job| {
                    let id = job.message.full_id(registry);
                    (job.id.clone(), job.name.clone(), job.state.dell().to_owned(), id)
                })
                .collect(),
            flashing: self.is_flashing(),
            boot_override: {
                let BootOverride { target, enabled, mode } = self.boot_override.clone();
                (target, enabled, mode)
            },
            boots: self.boots.clone(),
        }
    }

    pub(crate) fn counters(&self) -> Counters {
        let mut counters = self.counters.clone();
        counters.ipmi = self.ipmi.counters();
        counters.sessions_open = self.auth.sessions().len() as u64;
        counters.mutation_log = self.mutations.values().cloned().collect();
        counters
    }

    pub(crate) fn fault_list(&self) -> Vec<ArmedFault> {
        self.faults.list()
    }
}
