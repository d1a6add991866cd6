//! What the lab counted: the numbers end-to-end tests assert on.
//!
//! Times are simulated seconds since the lab started unless a name says `real`, which is seconds on the
//! host's monotonic clock since the lab started.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One run of a flash.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlashRecord {
    pub bmc: String,
    pub job: String,
    pub software_id: String,
    pub version: String,
    /// FQDDs written together: the ports of one adapter, both power supplies.
    pub targets: Vec<String>,
    pub started: f64,
    pub ended: Option<f64>,
    pub outcome: FlashOutcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlashOutcome {
    Running,
    Completed,
    Failed,
    /// Power was lost in the middle: the component is dead.
    Bricked,
}

/// One HTTP request that could change hardware, as the BMC saw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MutationRecord {
    pub bmc: String,
    pub kind: MutationKind,
    pub path: String,
    pub client: String,
    /// Session id, or `basic`, or `none`.
    pub session: String,
    pub began: f64,
    /// When the answer went out; absent while in flight.
    pub ended: Option<f64>,
    pub began_real: f64,
    pub ended_real: Option<f64>,
    /// When the BMC had the whole request and acted on it; absent when it never did.
    pub handled: Option<f64>,
    pub handled_real: Option<f64>,
    /// HTTP status; absent when the connection was cut or is still open.
    pub status: Option<u16>,
}

/// What a mutating request asked for. Logging in and out and read-only actions are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MutationKind {
    /// `ComputerSystem.Reset`, `Chassis.Reset`.
    Power,
    ManagerReset,
    SimpleUpdate,
    MultipartUpdate,
    /// Upload to `HttpPushUri`.
    Push,
    StartUpdate,
    DeleteJob,
    ClearLog,
    Other,
}

/// The counters of one BMC, or their sum over the site.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    pub requests: u64,
    pub logins: u64,
    pub logouts: u64,
    pub sessions_open: u64,
    pub sessions_peak: u64,
    pub sessions_refused: u64,
    /// Requests with a wrong password or an unknown token.
    pub auth_failures: u64,
    /// Times an address got blocked.
    pub addresses_blocked: u64,
    /// Requests refused because their address was blocked.
    pub blocked: u64,
    /// Flashes by `<software id>@<version>`.
    pub flashes_started: BTreeMap<String, u64>,
    pub flashes_completed: BTreeMap<String, u64>,
    /// Updates accepted while a flash was running.
    pub flash_attempts_while_flashing: u64,
    /// Host resets carried out, by `ResetType`.
    pub host_resets: BTreeMap<String, u64>,
    /// Host reboots the BMC did by itself.
    pub self_reboots: u64,
    pub bmc_resets: u64,
    pub power_losses_while_flashing: u64,
    /// Components destroyed.
    pub bricked: u64,
    pub jobs_created: u64,
    pub jobs_deleted: u64,
    pub image_fetches: u64,
    pub mutations: BTreeMap<MutationKind, u64>,
    /// Mutating requests that began while another was in flight on the same BMC, or, from another session or
    /// client than the one that started it, while a flash was running.
    pub overlapping_mutations: u64,
    pub last_mutation: Option<f64>,
    pub ipmi: IpmiCounters,
    pub flashes: Vec<FlashRecord>,
    /// The latest mutations, oldest first, at most `MUTATIONS_KEPT` of each BMC.
    pub mutation_log: Vec<MutationRecord>,
}

/// What went on at the IPMI port of one BMC, or of all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpmiCounters {
    /// Datagrams that reached a BMC which was there, whatever it thought of them.
    pub datagrams_received: u64,
    pub datagrams_sent: u64,
    /// Either way, by the fault `ipmi_loss`.
    pub datagrams_lost: u64,
    /// Packets of a session with a wrong integrity code, or that cannot be read.
    pub forged: u64,
    /// With a number seen before, or too far off.
    pub replayed: u64,
    /// Of no session, or less protected than their session.
    pub strays: u64,
    pub sessions_opened: u64,
    pub sessions_closed: u64,
    pub sessions_timed_out: u64,
    /// Ended by a restart of the BMC.
    pub sessions_lost: u64,
    /// Requests to open one that found the table full.
    pub sessions_refused: u64,
    pub sessions_open: u64,
    pub sessions_peak: u64,
    /// Unknown users, privileges out of reach, wrong passwords.
    pub failed_logins: u64,
    /// Commands inside sessions by network function, such as `06h`.
    pub commands: BTreeMap<String, u64>,
    /// Commands answered with a completion code that is not 0.
    pub commands_refused: u64,
    /// The most commands that one BMC had not yet answered at one time.
    pub most_under_way: u64,
    /// Fan commands carried out.
    pub fan_commands: u64,
    pub consoles_opened: u64,
    /// Attempts to open a console that somebody has.
    pub consoles_refused: u64,
    /// SOL packets received by an open console.
    pub console_packets: u64,
    /// Times the BMC had enough, by the fault `ipmi_freeze`.
    pub freezes: u64,
}

impl IpmiCounters {
    fn add(&mut self, other: &Self) {
        self.datagrams_received += other.datagrams_received;
        self.datagrams_sent += other.datagrams_sent;
        self.datagrams_lost += other.datagrams_lost;
        self.forged += other.forged;
        self.replayed += other.replayed;
        self.strays += other.strays;
        self.sessions_opened += other.sessions_opened;
        self.sessions_closed += other.sessions_closed;
        self.sessions_timed_out += other.sessions_timed_out;
        self.sessions_lost += other.sessions_lost;
        self.sessions_refused += other.sessions_refused;
        self.sessions_open += other.sessions_open;
        self.sessions_peak = self.sessions_peak.max(other.sessions_peak);
        self.failed_logins += other.failed_logins;
        add_map(&mut self.commands, &other.commands);
        self.commands_refused += other.commands_refused;
        self.most_under_way = self.most_under_way.max(other.most_under_way);
        self.fan_commands += other.fan_commands;
        self.consoles_opened += other.consoles_opened;
        self.consoles_refused += other.consoles_refused;
        self.console_packets += other.console_packets;
        self.freezes += other.freezes;
    }
}

/// Mutations remembered of one BMC.
pub(crate) const MUTATIONS_KEPT: usize = 2_000;

impl Counters {
    /// Adds another BMC's counters, for the site's sum.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.logins += other.logins;
        self.logouts += other.logouts;
        self.sessions_open += other.sessions_open;
        self.sessions_peak = self.sessions_peak.max(other.sessions_peak);
        self.sessions_refused += other.sessions_refused;
        self.auth_failures += other.auth_failures;
        self.addresses_blocked += other.addresses_blocked;
        self.blocked += other.blocked;
        add_map(&mut self.flashes_started, &other.flashes_started);
        add_map(&mut self.flashes_completed, &other.flashes_completed);
        self.flash_attempts_while_flashing += other.flash_attempts_while_flashing;
        add_map(&mut self.host_resets, &other.host_resets);
        self.self_reboots += other.self_reboots;
        self.bmc_resets += other.bmc_resets;
        self.power_losses_while_flashing += other.power_losses_while_flashing;
        self.bricked += other.bricked;
        self.jobs_created += other.jobs_created;
        self.jobs_deleted += other.jobs_deleted;
        self.image_fetches += other.image_fetches;
        add_map(&mut self.mutations, &other.mutations);
        self.overlapping_mutations += other.overlapping_mutations;
        if other.last_mutation > self.last_mutation {
            self.last_mutation = other.last_mutation;
        }
        self.ipmi.add(&other.ipmi);
        self.flashes.extend(other.flashes.iter().cloned());
        self.mutation_log.extend(other.mutation_log.iter().cloned());
        self.mutation_log.sort_by(|left, right| left.began.total_cmp(&right.began));
    }

    /// The most any one component of one BMC was flashed with one version: 1 after a correct update. On a sum
    /// it counts each BMC apart.
    pub fn most_flashes_of_one(&self) -> u64 {
        let mut seen: BTreeMap<(&str, &str, &str), u64> = BTreeMap::new();
        for flash in &self.flashes {
            *seen.entry((&flash.bmc, &flash.software_id, &flash.version)).or_default() += 1;
        }
        seen.values().copied().max().unwrap_or(0)
    }
}

fn add_map<K: Clone + Ord>(into: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
    for (key, count) in from {
        *into.entry(key.clone()).or_default() += count;
    }
}
