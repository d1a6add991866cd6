//! Everything that needs a real Postgres, in one binary: one cluster serves all of it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step ends the test"
)]

mod authorization;
mod capacity;
mod credentials;
mod event_cursor;
mod leases;
mod plans;
mod report;
mod servers;
mod upkeep;
mod visibility;
