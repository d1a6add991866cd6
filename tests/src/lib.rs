//! What the end-to-end tests share: a real Postgres, a database for each test, and builders for a site.
//!
//! One Postgres cluster serves a test process; it dies with the process. Each test gets its own database,
//! copied from a migrated template, so tests run side by side and leave nothing.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::indexing_slicing,
    reason = "test support: a failed step ends the test, loudly"
)]

pub mod cli;
pub mod cluster;
pub mod database;
pub mod edge;
pub mod host;
pub mod load;
pub mod logs;
pub mod relay;
pub mod server;
pub mod site;
pub mod skip;
pub mod stack;
pub mod sushy;
pub mod workerd;

pub use database::{Refused, TestDatabase};
pub use server::TestServer;
pub use site::TestSite;
pub use stack::{StackConfig, TestStack};
