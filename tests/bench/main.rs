//! `cargo xtask bench`: speed beside a peer, in one run.
//!
//! Each part prints one JSON line on stdout; xtask runs the peers and writes the comparison.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a tool"
)]

mod queue;

#[tokio::main]
async fn main() {
    let part = std::env::args().nth(1).unwrap_or_default();
    match part.as_str() {
        "queue" => queue::measure().await,
        other => panic!("no part `{other}`: queue"),
    }
}
