//! Faults that can be switched on for one BMC while it runs.
//!
//! A fault is either lasting or armed for a number of uses; what counts as one use is said at each variant.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A fault and its parameters. In JSON: `{"fault": "job_visibility_delay", "seconds": 45}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum Fault {
    /// `POST` to the session collection answers 503 RAC0218. One use: one refused login.
    SessionTableFull,
    /// Every session token is forgotten. One use: the next request that carries a token.
    SessionDies,
    /// A request with right credentials gets 401 (not counted as a failed login). One use: one request.
    SpuriousUnauthorized,
    /// Documents are preceded by a licence error in the same body. One use: one `GET`.
    MalformedErrorJson,
    /// Updates and OEM actions are refused for want of a licence. One use: one refusal.
    NoLicence,
    /// HTTP 400 SWC0700 to every authenticated request. One use: one request.
    NotReadySwc0700,
    /// The Lifecycle Controller is in use by someone else; update jobs stay `New`.
    LcBusy,
    /// The task disappears `seconds` after it ended; with `everywhere` the job does too. One use: one job.
    TaskVanishes {
        #[serde(default)]
        seconds: u64,
        #[serde(default)]
        everywhere: bool,
    },
    /// The flash ends `Completed`, 100 %, but critical with JCP052, and nothing was written. One use: one
    /// job.
    CompletedCritical,
    /// The flash ends `CompletedWithErrors` and nothing was written. One use: one job.
    CompletedWithErrors,
    /// A direct update ends in `RebootPending`; the version changes at the next host boot. One use: one job.
    RebootPending,
    /// The BMC resets, cutting the answer, when a task or job is read. One use: one reset.
    BmcResetWhilePolled,
    /// A mutating `POST` or `PATCH` is carried out, then the connection is cut. One use: one request.
    CutAfterAccept,
    /// A mutating `POST` or `PATCH` is read, not carried out, and the connection is cut. One use: one
    /// request.
    CutBeforeAccept,
    /// A new job shows up in queue and task list only after `seconds`. One use: one job.
    JobVisibilityDelay { seconds: u64 },
    /// The job succeeds and the inventory still shows the old version. One use: one job.
    VersionUnchanged,
    /// The firmware inventory answers 503 for `seconds` after a flash. One use: one job.
    InventoryUnreadable { seconds: u64 },
    /// The rows of what was flashed show the new version as `Updating` for `seconds` after the flash. One use: one job.
    RowUpdating { seconds: u64 },
    /// The BMC shows the version it ran before for `seconds` after its own update. One use: one job.
    ManagerStale { seconds: u64 },
    /// An update is refused with HTTP 400 SUP029. One use: one `POST`.
    UpToDateSup029,
    /// The flash fails with PR21. One use: one job.
    FlashFailsPr21,
    /// A power request is answered with success and ignored. One use: one request.
    PowerIgnored,
    /// The power state changes `seconds` after the request. One use: one request.
    SlowPower { seconds: u64 },
    /// A setting is answered with success and not taken over. One use: one `PATCH`.
    SettingIgnored,
    /// Staged jobs stay `Scheduled` through reboots.
    StuckScheduled,
    /// The BMC's clock is off by this much, beside what its `ServerSpec` says.
    ClockOffset { seconds: i64 },
    /// Every answer comes this much later, in simulated time. One use: one request.
    SlowResponses { milliseconds: u64 },
    /// Requests are read and never answered. One use: one request.
    Hang,
    /// `GET` answers with something no client should survive by luck. One use: one `GET`.
    HostileBody { shape: HostileShape },
    /// The TLS key is another than the pinned one.
    ChangedTlsKey,
    /// Nothing reaches the BMC: connections are refused.
    Partition,
    /// IPMI: a datagram leaves so much later, in real time. One use: one datagram.
    IpmiDelay { milliseconds: u64 },
    /// IPMI: so many datagrams in a hundred are lost, either way.
    IpmiLoss { percent: u8 },
    /// IPMI: a datagram is sent twice. One use: one datagram.
    IpmiDuplicate,
    /// IPMI: an answer has the session sequence number of the packet before. One use: one answer.
    IpmiWrongSequence,
    /// IPMI: an answer's integrity code is wrong. One use: one answer.
    IpmiWrongIntegrity,
    /// IPMI: completion code C0h, node busy. One use: one command.
    IpmiBusy,
    /// IPMI: no room for another session. One use: one request to open one.
    IpmiSessionTableFull,
    /// IPMI: a length is not what it says. One use: one answer that has such a length.
    IpmiLyingLengths { what: LyingLength },
    /// IPMI: sensor records, events and inventories are given in parts of at most so many bytes, else CAh.
    IpmiReadLimit { bytes: u8 },
    /// More commands than this within a second, and the BMC says nothing over IPMI for so long.
    IpmiFreeze { commands: u32, seconds: u64 },
    /// Cipher suite 17 is listed, and refused. One use: one request to open a session with it.
    #[serde(rename = "ipmi_refuses_17")]
    IpmiRefuses17,
    /// A request for suite 17 is answered with suite 3. One use: one such request.
    #[serde(rename = "ipmi_answers_17_with_3")]
    IpmiAnswers17With3,
    /// The session that has the console is never timed out, however long its client is gone.
    IpmiSolStale,
    /// IPMI: only so many characters of each SOL packet are taken.
    IpmiSolPartial { characters: u8 },
    /// The next command resets the BMC, which is away for so long, in simulated time. One use: one command.
    IpmiBmcReset { seconds: u64 },
    /// A command is refused with this completion code and not carried out. One use: one such command.
    IpmiCompletion { net_fn: u8, command: u8, completion: u8 },
}

/// Which length lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LyingLength {
    /// The payload length in the session header: far more than arrives.
    Datagram,
    /// A well-protected packet holds a message that ends early.
    Message,
    /// A sensor record's header announces more than the record has.
    Sdr,
    /// The inventory's size is FFFFh; an answer announces more bytes than it has.
    Fru,
    /// The event log holds FFFFh entries; an entry is cut in half.
    Sel,
}

/// What a hostile body looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostileShape {
    /// JSON nested 100,000 deep.
    Deep,
    /// 64 MB of JSON.
    Huge,
    /// Every property of the true document has another JSON type.
    WrongTypes,
    /// Bytes that are not JSON, nor UTF-8.
    Garbage,
}

impl Fault {
    /// The name used in URLs: the `fault` tag.
    pub fn name(&self) -> &'static str {
        match self {
            Self::SessionTableFull => "session_table_full",
            Self::SessionDies => "session_dies",
            Self::SpuriousUnauthorized => "spurious_unauthorized",
            Self::MalformedErrorJson => "malformed_error_json",
            Self::NoLicence => "no_licence",
            Self::NotReadySwc0700 => "not_ready_swc0700",
            Self::LcBusy => "lc_busy",
            Self::TaskVanishes { .. } => "task_vanishes",
            Self::CompletedCritical => "completed_critical",
            Self::CompletedWithErrors => "completed_with_errors",
            Self::RebootPending => "reboot_pending",
            Self::BmcResetWhilePolled => "bmc_reset_while_polled",
            Self::CutAfterAccept => "cut_after_accept",
            Self::CutBeforeAccept => "cut_before_accept",
            Self::JobVisibilityDelay { .. } => "job_visibility_delay",
            Self::VersionUnchanged => "version_unchanged",
            Self::InventoryUnreadable { .. } => "inventory_unreadable",
            Self::RowUpdating { .. } => "row_updating",
            Self::ManagerStale { .. } => "manager_stale",
            Self::UpToDateSup029 => "up_to_date_sup029",
            Self::FlashFailsPr21 => "flash_fails_pr21",
            Self::PowerIgnored => "power_ignored",
            Self::SettingIgnored => "setting_ignored",
            Self::SlowPower { .. } => "slow_power",
            Self::StuckScheduled => "stuck_scheduled",
            Self::ClockOffset { .. } => "clock_offset",
            Self::SlowResponses { .. } => "slow_responses",
            Self::Hang => "hang",
            Self::HostileBody { .. } => "hostile_body",
            Self::ChangedTlsKey => "changed_tls_key",
            Self::Partition => "partition",
            Self::IpmiDelay { .. } => "ipmi_delay",
            Self::IpmiLoss { .. } => "ipmi_loss",
            Self::IpmiDuplicate => "ipmi_duplicate",
            Self::IpmiWrongSequence => "ipmi_wrong_sequence",
            Self::IpmiWrongIntegrity => "ipmi_wrong_integrity",
            Self::IpmiBusy => "ipmi_busy",
            Self::IpmiSessionTableFull => "ipmi_session_table_full",
            Self::IpmiLyingLengths { .. } => "ipmi_lying_lengths",
            Self::IpmiReadLimit { .. } => "ipmi_read_limit",
            Self::IpmiFreeze { .. } => "ipmi_freeze",
            Self::IpmiRefuses17 => "ipmi_refuses_17",
            Self::IpmiAnswers17With3 => "ipmi_answers_17_with_3",
            Self::IpmiSolStale => "ipmi_sol_stale",
            Self::IpmiSolPartial { .. } => "ipmi_sol_partial",
            Self::IpmiBmcReset { .. } => "ipmi_bmc_reset",
            Self::IpmiCompletion { .. } => "ipmi_completion",
        }
    }
}

/// How often a fault happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Times {
    Once,
    Count(u32),
    /// Until it is cleared.
    Always,
}

/// A fault in force and the uses it has left (`None`: no limit).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ArmedFault {
    #[serde(flatten)]
    pub fault: Fault,
    pub remaining: Option<u32>,
}

/// The faults in force on one BMC.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultSet(BTreeMap<&'static str, ArmedFault>);

impl FaultSet {
    pub(crate) fn arm(&mut self, fault: Fault, times: Times) {
        let remaining = match times {
            Times::Once => Some(1),
            Times::Count(count) => Some(count),
            Times::Always => None,
        };
        let name = fault.name();
        if remaining == Some(0) {
            self.0.remove(name);
        } else {
            self.0.insert(name, ArmedFault { fault, remaining });
        }
    }

    pub(crate) fn clear(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }

    /// Looks without using it up: for faults that describe a condition.
    pub(crate) fn get(&self, name: &str) -> Option<&Fault> {
        self.0.get(name).map(|armed| &armed.fault)
    }

    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Uses it once; gone when that was the last use.
    pub(crate) fn take(&mut self, name: &str) -> Option<Fault> {
        let armed = self.0.get_mut(name)?;
        let fault = armed.fault.clone();
        if let Some(remaining) = &mut armed.remaining {
            *remaining -= 1;
            if *remaining == 0 {
                self.0.remove(name);
            }
        }
        Some(fault)
    }

    pub(crate) fn list(&self) -> Vec<ArmedFault> {
        self.0.values().cloned().collect()
    }
}
