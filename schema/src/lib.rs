//! The contract that the control plane, the executors, the CLI and the UI share.
//!
//! Everything that crosses a process boundary is a type of this crate: ids, resources, job kinds with
//! their parameters, the executors' protocol and the error codes. It knows no other crate of ours, does
//! no I/O and reads no clock. `migrations/` beside it holds the database half of the same contract.

pub mod audit;
mod check;
pub mod digest;
pub mod error;
pub mod event;
pub mod executor;
pub mod id;
pub mod identity;
pub mod job;
pub mod merkle;
pub mod protocol;
pub mod role;
pub mod run;
pub mod server;
pub mod site;
pub mod version;

pub use check::{has_password, may_hold_password};
pub use error::{ErrorCode, Problem};
pub use role::Role;

/// An instant as Postgres prints it: RFC 3339, UTC, microseconds. Only compared and shown, never computed
/// with: the database's clock decides every deadline.
pub type Timestamp = String;

/// A page of a keyset-paged list.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Pass as `cursor` to get what follows; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
