//! `cargo xtask bench ipmi`: our client beside ipmitool and FreeIPMI, on the same BMCs in one run.
//!
//! Prints a Markdown table on stdout and progress on stderr. What is compared is the client's CPU, user and system: the
//! BMCs are other processes.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool: a failed step ends it"
)]

mod console;
mod sweep;

/// One row of the table: work, ours, the peer's, target, met or missed.
struct Row {
    work: String,
    ours: String,
    peer: String,
    target: &'static str,
    met: Option<bool>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    eprintln!("sensors: sweeps of 20 BMCs with 40 sensors");
    let mut rows = sweep::measure().await;
    eprintln!("console: echo of keystrokes, throughput");
    rows.extend(console::measure().await);
    println!("| work | rackhand | peer | target | |");
    println!("|---|---|---|---|---|");
    for Row { work, ours, peer, target, met } in rows {
        let verdict = match met {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "",
        };
        println!("| {work} | {ours} | {peer} | {target} | {verdict} |");
    }
}
