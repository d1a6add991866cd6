//! What happens to a control plane at the edge: Postgres goes and comes back, a connection is cut in
//! mid-query, a statement takes too long, the process is killed, callers go away, the Rust code panics.
//! Always one clean problem, recovery without a restart, and no write lost or doubled.

mod database;
mod panic;
mod process;
mod slow;

pub use database::{lease, told, waiting};
