//! The trunk, end to end: server, real executor processes, BMCs over HTTPS.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed step ends the test")]

mod ambiguity;
mod credentials;
mod fencing;
mod limits;
mod outage;
mod outcomes;
mod path;
mod reboot_pending;
mod refusals;
mod transports;
