//! Real input: recorded trees, services that nobody here wrote, hostile bytes, and what must never leak.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step ends the test"
)]

mod bad_input;
mod crowds;
mod hostile_bmc;
mod lifecycle;
mod native;
mod replay;
mod secrets;
mod sign_in;
mod sse;
mod sushy;
