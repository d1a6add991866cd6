//! `cargo xtask bench ipmi`: our client beside ipmitool and FreeIPMI, on the same BMCs in one run.
//!
//! Prints a Markdown table on stdout and progress on stderr. What is compared is the client's CPU, user and
//! system: the BMCs are other processes. With the argument `fleet` only the two thousand BMCs of the lab are
//! measured.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool: a failed step ends it"
)]

mod console;
mod fleet;
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
    let part = std::env::args().nth(1);
    if part.as_deref() == Some(fleet::SERVE) {
        return fleet::serve().await;
    }
    let mut rows = Vec::new();
    if part.as_deref() != Some("fleet") {
        eprintln!("sensors: sweeps of 20 BMCs with 40 sensors");
        rows.extend(sweep::measure().await);
        eprintln!("console: echo of keystrokes, throughput");
        rows.extend(console::measure().await);
    }
    eprintln!("fleet: 2,000 BMCs of the lab for a minute");
    rows.push(fleet::measure().await);
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
