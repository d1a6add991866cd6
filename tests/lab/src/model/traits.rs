//! What a BMC's firmware can do and where it keeps things: a function of generation and version, because an
//! update of the BMC changes it.
//!
//! Sources: iDRAC-Redfish-Scripting issues 6 (sessions of iDRAC8), 51 (`HttpPushUri` from 3.18), 62 (errors
//! of iDRAC8), 160 (life of a task), 172 (transfer protocols), 275 (tasks of 7.00); idrac_exporter issue 202
//! (iDRAC10).

use std::time::Duration;

use crate::spec::Generation;

/// Whether `version` is at least `floor`, both dotted numbers.
pub(crate) fn at_least(version: &str, floor: &str) -> bool {
    let parse = |text: &str| text.split('.').map(|part| part.parse::<u32>().unwrap_or(0)).collect::<Vec<_>>();
    parse(version) >= parse(floor)
}

#[derive(Clone, Debug)]
pub(crate) struct Traits {
    pub(crate) generation: Generation,
    /// `SimpleUpdate` of a staged package reboots the host by itself.
    pub(crate) self_reboots: bool,
    /// `@Redfish.OperationApplyTime` values; empty where the property is unknown.
    pub(crate) apply_times: &'static [&'static str],
    pub(crate) multipart: bool,
    pub(crate) push: bool,
    pub(crate) protocols: &'static [&'static str],
    pub(crate) reset_types: &'static [&'static str],
    /// Collection of sessions.
    pub(crate) sessions: &'static str,
    /// Dell's own job collection; iDRAC10 only has the DMTF one.
    pub(crate) dell_jobs: Option<&'static str>,
    pub(crate) job_service: bool,
    pub(crate) lc_service: Option<&'static str>,
    /// Entries of the Lifecycle and the system event log.
    pub(crate) lc_entries: &'static str,
    pub(crate) sel_entries: &'static str,
    /// `$expand`, `$select`, `$top`, `$skip`.
    pub(crate) query: bool,
    /// Rows carry `Oem.Dell.DellSoftwareInventory` and there are `Current` ones.
    pub(crate) rich_inventory: bool,
    pub(crate) boot_progress: bool,
    /// Errors put one object where the standard wants an array.
    pub(crate) single_error_object: bool,
    /// Prefix of Dell's message ids.
    pub(crate) registry: &'static str,
    pub(crate) redfish_version: &'static str,
    /// How long a task outlives its end.
    pub(crate) task_retention: Duration,
}

const RESETS: &[&str] = &[
    "On",
    "ForceOff",
    "ForceRestart",
    "GracefulRestart",
    "GracefulShutdown",
    "PushPowerButton",
    "Nmi",
    "PowerCycle",
];
const APPLY_TIMES: &[&str] = &["Immediate", "OnReset", "OnStartUpdateRequest"];
const ALL_PROTOCOLS: &[&str] = &["HTTP", "NFS", "CIFS", "TFTP", "HTTPS"];
const LOGS: &str = "/redfish/v1/Managers/iDRAC.Embedded.1/LogServices";

impl Traits {
    pub(crate) fn of(generation: Generation, version: &str) -> Self {
        match generation {
            Generation::Idrac8 => Self {
                generation,
                self_reboots: !at_least(version, "2.75"),
                apply_times: &[],
                multipart: false,
                push: true,
                protocols: &["HTTP"],
                reset_types: if at_least(version, "2.70") {
                    &["On", "ForceOff", "ForceRestart", "GracefulShutdown", "PushPowerButton", "Nmi"]
                } else {
                    &["On", "ForceOff", "GracefulRestart", "GracefulShutdown", "PushPowerButton", "Nmi"]
                },
                sessions: "/redfish/v1/Sessions",
                dell_jobs: Some("/redfish/v1/Managers/iDRAC.Embedded.1/Jobs"),
                job_service: false,
                lc_service: None,
                lc_entries: "/redfish/v1/Managers/iDRAC.Embedded.1/Logs/Lclog",
                sel_entries: "/redfish/v1/Managers/iDRAC.Embedded.1/Logs/Sel",
                query: false,
                rich_inventory: false,
                boot_progress: false,
                single_error_object: true,
                registry: "IDRAC.1.6",
                redfish_version: if at_least(version, "2.75") { "1.4.0" } else { "1.0.2" },
                task_retention: Duration::from_secs(10),
            },
            Generation::Idrac9 => {
                let new = at_least(version, "5.00");
                let short_tasks = !new || (at_least(version, "7.00") && !at_least(version, "7.10.30"));
                Self {
                    generation,
                    self_reboots: !new,
                    apply_times: if new { APPLY_TIMES } else { &[] },
                    multipart: at_least(version, "4.40"),
                    push: at_least(version, "3.18"),
                    protocols: if new { ALL_PROTOCOLS } else { &["HTTP"] },
                    reset_types: RESETS,
                    sessions: "/redfish/v1/SessionService/Sessions",
                    dell_jobs: Some(if new {
                        "/redfish/v1/Managers/iDRAC.Embedded.1/Oem/Dell/Jobs"
                    } else {
                        "/redfish/v1/Managers/iDRAC.Embedded.1/Jobs"
                    }),
                    job_service: true,
                    lc_service: Some(if new {
                        "/redfish/v1/Managers/iDRAC.Embedded.1/Oem/Dell/DellLCService"
                    } else {
                        "/redfish/v1/Dell/Managers/iDRAC.Embedded.1/DellLCService"
                    }),
                    lc_entries: if new {
                        "/redfish/v1/Managers/iDRAC.Embedded.1/LogServices/Lclog/Entries"
                    } else {
                        "/redfish/v1/Managers/iDRAC.Embedded.1/Logs/Lclog"
                    },
                    sel_entries: if new {
                        "/redfish/v1/Managers/iDRAC.Embedded.1/LogServices/Sel/Entries"
                    } else {
                        "/redfish/v1/Managers/iDRAC.Embedded.1/Logs/Sel"
                    },
                    query: true,
                    rich_inventory: true,
                    boot_progress: at_least(version, "6.10"),
                    single_error_object: false,
                    registry: if new { "IDRAC.2.7" } else { "IDRAC.2.2" },
                    redfish_version: if new { "1.13.1" } else { "1.9.0" },
                    task_retention: Duration::from_secs(if short_tasks { 10 } else { 600 }),
                }
            }
            Generation::Idrac10 => Self {
                generation,
                self_reboots: false,
                apply_times: APPLY_TIMES,
                multipart: true,
                push: false,
                protocols: ALL_PROTOCOLS,
                reset_types: RESETS,
                sessions: "/redfish/v1/SessionService/Sessions",
                dell_jobs: None,
                job_service: true,
                lc_service: Some("/redfish/v1/Managers/iDRAC.Embedded.1/Oem/Dell/DellLCService"),
                lc_entries: "/redfish/v1/Managers/iDRAC.Embedded.1/LogServices/Lclog/Entries",
                sel_entries: "/redfish/v1/Managers/iDRAC.Embedded.1/LogServices/Sel/Entries",
                query: true,
                rich_inventory: true,
                boot_progress: true,
                single_error_object: false,
                registry: "IDRAC.2.9",
                redfish_version: "1.20.1",
                task_retention: Duration::from_secs(600),
            },
        }
    }

    /// The resource of one log.
    pub(crate) fn log(name: &str) -> String {
        format!("{LOGS}/{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_firmware_reboots_by_itself_and_new_firmware_does_not() {
        for (generation, version, expected) in [
            (Generation::Idrac8, "2.63.60.61", true),
            (Generation::Idrac8, "2.86.86.86", false),
            (Generation::Idrac9, "4.40.10.00", true),
            (Generation::Idrac9, "6.00.30.00", false),
            (Generation::Idrac10, "1.20.25.00", false),
        ] {
            assert_eq!(Traits::of(generation, version).self_reboots, expected, "{generation:?} {version}");
        }
    }
}
