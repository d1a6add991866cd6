//! `cargo xtask test`: every check there is, in order, the same here and in CI.
//!
//! A suite that fails does not keep the others from running. Each is printed with its time; the whole may take
//! [`MOST`], so that nobody stops running it. What is skipped says why and is counted.

mod browser;
mod docs;
mod licences;
mod runner;

use std::time::{Duration, Instant};

use crate::{
    edge::{self, Host},
    error::{Failure, Result},
    install, openapi, paths,
    terminal::{result, say},
    up::{self, stack},
};
use runner::{Tally, cargo, npm};

/// On 2 cores.
const MOST: Duration = Duration::from_mins(40);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also run the tests that are ignored because they take long.
    #[arg(long)]
    full: bool,
    /// Run only the suites whose names contain one of these words.
    #[arg(value_name = "SUITE")]
    only: Vec<String>,
}

struct Suite {
    name: &'static str,
    run: fn(&Args) -> Result<Tally>,
}

const SUITES: [Suite; 15] = [
    Suite { name: "fmt", run: |_| cargo(&["fmt", "--all", "--check"]) },
    Suite { name: "licences", run: |_| licences::run() },
    Suite { name: "docs", run: |_| docs::run() },
    Suite { name: "openapi", run: |_| openapi::run(true).map(|()| Tally::one()) },
    Suite { name: "wasm", run: |_| wasm() },
    Suite {
        name: "clippy",
        run: |_| cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]),
    },
    Suite { name: "rust", run: rust },
    // Before the tests that run what it builds.
    Suite { name: "edge", run: |_| edge::run(&edge::Task::Check).map(|()| Tally::one()) },
    // One process for all of these: they share a Postgres cluster.
    Suite { name: "system", run: |args| cargo_test(args, &["--package", "rackhand-tests"]) },
    Suite { name: "ipmi", run: |args| cargo_test(args, &["--package", "rackhand-ipmi-tests"]) },
    Suite { name: "doctests", run: |_| cargo(&["test", "--workspace", "--doc", "--quiet"]) },
    Suite { name: "ui", run: |_| ui() },
    Suite { name: "commands", run: |_| docs::commands() },
    Suite { name: "browser", run: |_| browser::run() },
    Suite { name: "hosts", run: |_| hosts() },
];

/// # Errors
/// A suite failed, or all together took too long.
pub fn run(args: &Args) -> Result<()> {
    install::ensure(install::FOR_TEST)?;
    let started = Instant::now();
    let mut lines = Vec::new();
    let mut sum = Tally::default();
    let wanted = |suite: &&Suite| {
        args.only.is_empty() || args.only.iter().any(|word| suite.name.contains(word.as_str()))
    };
    for suite in SUITES.iter().filter(wanted) {
        say(format!("\n== {}", suite.name));
        let began = Instant::now();
        let tally = (suite.run)(args).unwrap_or_else(|failure| {
            say(format!("error: {failure}"));
            Tally::failure()
        });
        let verdict = if tally.failed > 0 { "FAILED" } else { "ok" };
        lines.push(format!(
            "{:<10} {:>7.1} s  {verdict:<6}  {} passed, {} failed, {} skipped",
            suite.name,
            began.elapsed().as_secs_f64(),
            tally.passed,
            tally.failed,
            tally.skipped.len(),
        ));
        lines.extend(tally.skipped.iter().map(|why| format!("           skipped: {why}")));
        sum.add(tally);
    }
    let total = started.elapsed();
    if total > MOST {
        lines.push(format!("took longer than {} minutes", MOST.as_secs() / 60));
        sum.failed += 1;
    }
    result(format!("\n{}", lines.join("\n")));
    result(format!("{:<10} {:>7.1} s", "total", total.as_secs_f64()));
    result(format!("{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.skipped.len()));
    if sum.failed == 0 { Ok(()) } else { Err(Failure::Other("not everything passed".to_owned())) }
}

/// The control plane and its Wasm hosts, for the targets they are for: a native build leaves the hosts out.
fn wasm() -> Result<Tally> {
    let mut tally = Tally::default();
    for (target, package) in [(edge::WORKER_TARGET, "rackhand-worker"), (edge::SPIN_TARGET, "rackhand-spin")]
    {
        install::rust_targets(&paths::root(), &[target])?;
        let mut clippy = paths::cargo();
        clippy.args(["clippy", "--quiet", "--target", target, "--package", package]);
        clippy.args(["--package", "rackhand-functions", "--", "-D", "warnings"]);
        clippy.env(edge::JS_SYS.0, edge::JS_SYS.1);
        tally.add(runner::run(clippy, &format!("cargo clippy --target {target} --package {package}"))?);
    }
    Ok(tally)
}

/// The whole path, a killed executor included, with the control plane on each Wasm host.
fn hosts() -> Result<Tally> {
    let mut tally = Tally::default();
    for host in [Host::Worker, Host::Spin] {
        say(format!("$ cargo xtask up --exit --host {host:?}").to_lowercase());
        up::run(&up::Args::rollout_on(host))?;
        tally.add(Tally::one());
    }
    Ok(tally)
}

/// Unit and integration tests of every crate but those that start other systems.
fn rust(args: &Args) -> Result<Tally> {
    let which = ["--workspace", "--exclude", "rackhand-tests", "--exclude", "rackhand-ipmi-tests"];
    if install::on_path("cargo-nextest").is_none() {
        return cargo_test(args, &which);
    }
    let mut arguments = [&["nextest", "run"], which.as_slice(), &["--no-fail-fast"]].concat();
    arguments.extend(["--status-level", "slow", "--final-status-level", "skip"]);
    if args.full {
        arguments.extend(["--run-ignored", "all"]);
    }
    cargo(&arguments)
}

fn cargo_test(args: &Args, which: &[&str]) -> Result<Tally> {
    let mut arguments = [&["test", "--all-targets", "--no-fail-fast"], which].concat();
    if args.full {
        arguments.extend(["--", "--include-ignored"]);
    }
    cargo(&arguments)
}

fn ui() -> Result<Tally> {
    let ui = paths::root().join("ui");
    stack::build_ui(&ui)?;
    let mut tally = npm(&ui, "check")?;
    tally.add(npm(&ui, "test")?);
    Ok(tally)
}
