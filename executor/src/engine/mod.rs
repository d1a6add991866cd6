//! Carries out one activity at a time: probe, decide, announce, act, probe again.
//!
//! [`decide`] holds the decisions, pure; [`perform`](shell::perform) is the shell around them; [`context`] is
//! what a handler sees of its run. A handler is a sequence of [`Activity`]s over a serialisable state.

pub mod context;
pub mod decide;
mod patience;
pub mod shell;

pub use context::{Context, Stop};
pub use decide::{Interrupt, Probe, Step};
pub use patience::PASSING;
pub use shell::{Activity, Ended, perform};

use rackhand_schema::{ErrorCode, protocol::Finish, run::Outcome};
use serde_json::Value;

/// How a run ends that did not succeed.
pub fn fault(code: ErrorCode, detail: impl AsRef<str>, evidence: Value) -> Finish {
    let outcome = match code {
        ErrorCode::OutcomeUnknown => Outcome::Unknown,
        ErrorCode::CancelledByPerson => Outcome::Cancelled,
        _ => Outcome::Failed,
    };
    Finish {
        outcome,
        code: code.as_str().to_owned(),
        detail: crate::text::clean(detail.as_ref()),
        evidence: crate::text::clean_value(&evidence),
    }
}

/// How a run ends that did.
pub fn success(outcome: Outcome, detail: impl AsRef<str>, evidence: Value) -> Finish {
    Finish {
        outcome,
        code: String::new(),
        detail: crate::text::clean(detail.as_ref()),
        evidence: crate::text::clean_value(&evidence),
    }
}
