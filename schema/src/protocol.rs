//! The executors' protocol: lease and report.
//!
//! An executor polls `POST /v1/executor/lease`; that renews its session, frees what it lost and grants new
//! runs. It sends what happened to `POST /v1/executor/report`, item by item, numbered from 1 for each
//! `(run, epoch)`. Both may be repeated at will: a grant that the executor does not list as held is
//! delivered again, and a repeated item is answered `duplicate`.
//!
//! The lease deadline is the executor's to keep: send time of the request + `ttl_ms` − margin, on a clock
//! that counts through suspend.

use garde::Validate;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    Timestamp,
    event::Level,
    id::{BmcId, CredentialId, ExecutorId, JobId, RunId, ServerId, SiteId, TraceId},
    job::{JobSpec, PlanTarget},
    run::{Effect, Outcome, PhaseState},
    server::Inventory,
};

/// Largest accepted report item, bytes of JSON. A larger one is quarantined: recorded as such, cut short.
pub const MAX_ITEM_BYTES: usize = 64 * 1024;
/// Most items of one report.
pub const MAX_REPORT_ITEMS: usize = 500;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct HeldRun {
    pub run_id: RunId,
    pub epoch: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LeaseRequest {
    /// Every run this process works on.
    #[garde(length(max = 10_000))]
    pub held: Vec<HeldRun>,
    /// How many further runs it would take; 0 while draining.
    #[garde(range(max = 1000))]
    pub capacity: u32,
    /// Job kinds its own policy allows, whether it takes one now or not.
    #[garde(length(max = 64), inner(length(chars, min = 1, max = 64)))]
    pub kinds: Vec<String>,
    /// How many further runs that change something it would take; absent: as many as others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub changes: Option<u32>,
    /// Hold the answer for up to so long while there is nothing to say, milliseconds. The host may cut it.
    #[garde(range(max = 60_000))]
    pub wait_ms: u32,
    #[garde(length(chars, max = 60))]
    pub version: String,
    /// This process ends and holds nothing: its session is over with this request.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    #[garde(skip)]
    pub leaving: bool,
}

/// What a lease request may be granted.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Claim<'a> {
    pub kinds: Vec<&'a str>,
    pub most: u32,
}

impl LeaseRequest {
    /// What comes may all be changes; without room for one, only what looks is granted.
    pub fn claim(&self) -> Claim<'_> {
        let full = self.changes == Some(0);
        let kinds = self.kinds.iter().map(String::as_str);
        Claim {
            kinds: kinds.filter(|kind| !full || !JobSpec::kind_mutates(kind)).collect(),
            most: self.changes.filter(|_| !full).unwrap_or(u32::MAX).min(self.capacity),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LeaseResponse {
    /// Everything held and not in `lost` is leased for so long, counted from when the request was sent.
    pub ttl_ms: u32,
    pub server_time: Timestamp,
    pub grants: Vec<RunGrant>,
    /// Held no more: stop acting, keep observing what is in flight only to report it.
    pub lost: Vec<HeldRun>,
    /// Held runs that people want ended at the next safe point.
    pub cancel: Vec<RunId>,
    /// Credentials of the site that are presented to no BMC, also where they were accepted before, until a person says
    /// otherwise.
    #[serde(default)]
    pub suspended: Vec<SuspendedCredential>,
    /// No new mutation may start while true ("pause hardware operations").
    pub hardware_paused: bool,
    /// Executors that wait for the site key.
    pub joining: Vec<JoiningExecutor>,
    /// The site's private key sealed to this executor, once somebody has shared it.
    pub site_key: Option<String>,
    pub site_public_key: Option<String>,
}

/// A version of a credential that BMCs have refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SuspendedCredential {
    pub id: CredentialId,
    pub version: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct JoiningExecutor {
    pub executor_id: ExecutorId,
    pub name: String,
    pub fingerprint: String,
    pub signing_key: String,
    pub sealing_key: String,
}

// An executor validates what it would follow blindly: where it connects to, and the packages that it fetches.
/// One run, leased.
#[derive(Debug, Clone, Serialize, Deserialize, Validate, ToSchema)]
#[garde(allow_unvalidated)]
pub struct RunGrant {
    pub run_id: RunId,
    /// Fences every write of this lease; grows with each grant of the run.
    pub epoch: u64,
    pub job_id: JobId,
    pub site_id: SiteId,
    pub trace_id: TraceId,
    #[garde(dive)]
    pub spec: JobSpec,
    pub plan: PlanTarget,
    #[garde(dive)]
    pub target: GrantTarget,
    /// Where the predecessor stood; empty for a first grant.
    pub phase: String,
    /// The handler's state as last checkpointed; null for a first grant.
    pub checkpoint: Value,
    /// Announced by a predecessor and not resolved: probe before anything else.
    pub intent: Option<Intent>,
    /// Effects that are still open.
    pub effects: Vec<Effect>,
    pub cancel_requested: bool,
    /// Only undo the open effects, then finish with this outcome.
    pub settle: Option<Finish>,
    /// Milliseconds since the predecessor's lease ended (0 if never leased before); with an open intent, since the
    /// lease ended under which it was announced. Whoever had the run since then has sent nothing.
    pub predecessor_ended_ms: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, Validate, ToSchema)]
#[garde(allow_unvalidated)]
pub struct GrantTarget {
    pub server_id: ServerId,
    pub name: String,
    pub bmc_id: BmcId,
    #[garde(length(bytes, max = 300), custom(crate::check::bmc_address))]
    pub url: String,
    /// `host[:port]` for IPMI, where the BMC may be spoken to that way, too.
    #[serde(default)]
    #[garde(length(bytes, max = 300), inner(custom(crate::check::ipmi_address)))]
    pub ipmi: Option<String>,
    #[garde(inner(custom(crate::check::sha256_hex)))]
    pub spki_sha256: Option<String>,
    pub owner_epoch: u64,
    pub credential: Option<GrantCredential>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct GrantCredential {
    pub id: CredentialId,
    pub name: String,
    pub version: u32,
    /// See [`crate::server::NewCredential::sealed`].
    pub sealed: String,
    /// This BMC has accepted this version before.
    pub proven: bool,
}

/// A mutation about to be made, with what is needed to find out later whether it was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Intent {
    pub phase: String,
    /// What is about to be done, e.g. `stage_package` or `reset_host`.
    pub action: String,
    /// The state before: device job ids, last lifecycle record, version, power state.
    pub before: Value,
    /// How long the request may last at most, milliseconds; kept as 6 hours where it is more.
    pub deadline_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// Evidence shows that it happened.
    Applied,
    /// Evidence shows that it did not.
    NotApplied,
    /// No evidence either way; the run ends `unknown`.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Finish {
    pub outcome: Outcome,
    /// An [`crate::ErrorCode`] where it did not succeed; empty otherwise.
    pub code: String,
    /// What happened, to which server, what is already done, what to do next.
    pub detail: String,
    pub evidence: Value,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Waiting {
    /// Machine word: `device_job`, `bmc_restarting`, `host_booting`, `lifecycle_controller`, …
    pub reason: String,
    /// For people.
    pub detail: String,
    /// Expected to end within, milliseconds, 7 days at most; afterwards it counts as stuck.
    pub within_ms: u64,
}

/// One thing that happened. State items (all but `event`) need a valid lease; an `event` of a stale epoch is
/// kept and marked late.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ReportBody {
    Event {
        level: Level,
        message: String,
        #[serde(default)]
        data: Value,
    },
    Phase {
        phase: String,
        state: PhaseState,
        #[serde(default)]
        evidence: Value,
    },
    /// Where a successor would go on.
    Checkpoint {
        phase: String,
        state: Value,
        #[serde(default)]
        waiting: Option<Waiting>,
        #[serde(default)]
        percent: Option<u8>,
    },
    /// Must be accepted before the mutation is made.
    Intent(Intent),
    IntentResolved {
        resolution: Resolution,
        #[serde(default)]
        evidence: Value,
    },
    /// A new effect, or a new state of one. Must be accepted as `intended` before the change is made.
    Effect(Effect),
    Inventory(Inventory),
    /// Ends the run. With open effects it goes to `settling` instead and is granted again to undo them.
    Finish(Finish),
    /// Gives the lease back; the run is granted again after `resume_after_ms`, 6 hours at most (15 minutes while an
    /// intent or an effect of it is open), or as soon as people resume or cancel its job.
    Yield {
        reason: String,
        detail: String,
        resume_after_ms: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReportItem {
    pub run_id: RunId,
    pub epoch: u64,
    /// 1, 2, 3 … within `(run, epoch)`.
    pub seq: u64,
    #[serde(flatten)]
    pub body: ReportBody,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Report {
    /// [`ReportItem`]s, taken one by one.
    #[schema(value_type = Vec<ReportItem>)]
    pub items: Vec<Box<serde_json::value::RawValue>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ItemStatus {
    Accepted,
    /// Had been accepted before.
    Duplicate,
    /// An observation from a lease that has passed on; kept.
    Late,
    /// Not understood or too large; recorded as such under its number, so that what follows is not blocked.
    Quarantined,
    /// Not stored: `code` says why.
    Refused,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ItemResult {
    /// Position in the request, from 0.
    pub index: usize,
    pub status: ItemStatus,
    /// For `refused`: `stale-epoch`, `sequence-gap`, `run-finished`, `run-spent`, `effects-open`, `intent-open`,
    /// `not-found` or `invalid-request`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// With `sequence-gap`: send from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_seq: Option<u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ReportResponse {
    pub results: Vec<ItemResult>,
}

/// Asks to present a credential that this BMC has not accepted yet, or says how it went. The budget is kept
/// in the control plane for each credential version, over all executors: the cost of one attempt too many is
/// a blocked address.
#[derive(Debug, Clone, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CredentialAttempt {
    #[garde(skip)]
    pub bmc_id: BmcId,
    #[garde(skip)]
    pub credential_id: CredentialId,
    #[garde(skip)]
    pub version: u32,
    #[garde(skip)]
    pub step: AttemptStep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttemptStep {
    /// Before: counts as failed until `accepted` comes.
    Reserve,
    Accepted,
    Rejected,
    /// The request never reached the BMC: the reservation is given back.
    NotSent,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AttemptAnswer {
    pub allowed: bool,
    /// Why not, for people; empty when allowed.
    pub detail: String,
    /// Refused only for now, because the same version is being proved on another BMC: ask again after so
    /// many milliseconds. Absent with `allowed: false`: do not ask again for this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_bounded_by_capacity_and_by_changes() {
        let claimed = |capacity: u32, changes: Option<u32>| {
            let request = LeaseRequest {
                held: vec![],
                capacity,
                kinds: ["inventory", "power", "of a newer executor"].map(str::to_owned).into(),
                changes,
                wait_ms: 0,
                version: String::new(),
                leaving: false,
            };
            let Claim { kinds, most } = request.claim();
            (kinds.len(), most)
        };
        assert_eq!(claimed(8, None), (3, 8), "an older executor knows its capacity only");
        assert_eq!(claimed(8, Some(2)), (3, 2));
        assert_eq!(claimed(1, Some(2)), (3, 1));
        assert_eq!(claimed(8, Some(0)), (1, 8), "what looks");
    }

    #[test]
    fn a_granted_target_is_an_address_of_a_bmc_with_a_whole_key() {
        let valid = |url: &str, ipmi: Option<&str>, pin: Option<&str>| {
            let id = "01920000-0000-7000-8000-000000000001";
            let target: GrantTarget = serde_json::from_value(serde_json::json!({"server_id": id, "bmc_id": id,
                "name": "n", "url": url, "ipmi": ipmi, "spki_sha256": pin, "owner_epoch": 1, "credential": null}))
            .unwrap();
            target.validate().is_ok()
        };
        let pin = "ab".repeat(32);
        assert!(valid("https://10.0.0.1:8443/redfish/v1/Systems/1", Some("10.0.0.1:6230"), Some(&pin)));
        assert!(valid("ipmi://bmc-1", None, None));
        assert!(!valid("https://10.0.0.1/redfish/v1/Managers/1", None, Some(&pin)));
        assert!(!valid("http://10.0.0.1", None, None) && !valid("https://user@10.0.0.1", None, Some(&pin)));
        assert!(!valid("https://10.0.0.1", Some("10.0.0.1/x"), Some(&pin)));
        assert!(!valid("https://10.0.0.1", None, Some("/etc/passwd")));
    }
}
