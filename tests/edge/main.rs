//! The control plane on its three hosts: they answer alike, keep sites apart, and survive what happens to
//! them. `cargo xtask edge build` first; `cargo xtask test edge` does both.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a failed step ends the test; what was measured is said"
)]

mod alive;
mod cron;
mod faults;
mod gates;
mod isolation;
mod memory;
mod parity;
mod sign_in;
mod spin;
