//! `cargo xtask bench`: speed beside a peer, on one machine in one run.
//!
//! Prints Markdown on stdout and progress on stderr. Arguments: the directory of the peers
//! (`tests/bench/peers`, with its npm modules installed), then the parts to measure: `queue`, `latency`,
//! `redfish`, or `edge` alone, which is a table of its own.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool: a failed step ends it"
)]

mod edge;
mod latency;
mod queue;
mod redfish;

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;

/// Where the peers are.
pub struct Peers {
    directory: PathBuf,
    python: PathBuf,
}

/// One row of a table: work, ours, the peer's, target, met or missed.
pub struct Row {
    pub work: String,
    pub ours: String,
    pub peer: String,
    pub target: String,
    pub met: bool,
}

impl Peers {
    /// Runs a peer with `input` on stdin; every line it prints is a JSON document.
    pub fn run(&self, program: &str, script: &str, arguments: &[&str], input: &str) -> Vec<Value> {
        let program = if program == "python" { self.python.clone() } else { PathBuf::from(program) };
        let mut child = Command::new(&program)
            .arg(script)
            .args(arguments)
            .current_dir(&self.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{script} failed");
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let Some(directory) = arguments.next() else {
        eprintln!("usage: rackhand-bench PEERS_DIRECTORY queue|latency|redfish…, or edge");
        return;
    };
    let parts: Vec<_> = arguments.collect();
    let wanted = |part: &str| parts.iter().any(|named| named == part);
    if wanted("edge") {
        print!("{}", edge::measure().await);
        return;
    }
    let python = rackhand_ipmi_tests::venv::environment("redfish", &["redfish"]).join("python");
    let peers = Peers { directory: directory.into(), python };
    let mut rows = vec![];
    if wanted("queue") {
        eprintln!("queue: lease + complete");
        rows.extend(queue::measure(&peers).await);
    }
    if wanted("latency") {
        eprintln!("latency: job created → run started");
        rows.extend(latency::measure().await);
    }
    if wanted("redfish") {
        eprintln!("redfish: client CPU per request");
        rows.extend(redfish::measure(&peers).await);
    }
    println!("| work | rackhand | peer | target | |");
    println!("|---|---|---|---|---|");
    for row in rows {
        let verdict = if row.met { "met" } else { "**missed**" };
        println!("| {} | {} | {} | {} | {verdict} |", row.work, row.ours, row.peer, row.target);
    }
}
