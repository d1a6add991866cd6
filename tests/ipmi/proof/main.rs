//! The proof of the IPMI client: each module against peers that nobody here wrote.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests: a failed step ends the test, loudly"
)]

mod command;
mod field;
mod foreign;
mod harness;
mod hostile;
mod opening;
mod ours;
mod parity;
mod records;
mod secrets;
mod sol;
mod suites;
mod terminal;
mod verbs;
