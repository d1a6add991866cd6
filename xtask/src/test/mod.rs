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
    error::{Failure, Result},
    install, openapi, paths,
    terminal::{result, say},
    up::stack,
};
use runner::{Tally, cargo, npm};

/// On 2 cores.
const MOST: Duration = Duration::from_mins(40);
const WASM_TARGETS: [&str; 2] = ["wasm32-unknown-unknown", "wasm32-wasip2"];

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

const SUITES: [Suite; 12] = [
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
    // One process for all of these: they share a Postgres cluster.
    Suite { name: "system", run: |args| cargo_test(args, &["--package", "rackhand-tests"]) },
    Suite { name: "doctests", run: |_| cargo(&["test", "--workspace", "--doc", "--quiet"]) },
    Suite { name: "ui", run: |_| ui() },
    Suite { name: "commands", run: |_| docs::commands() },
    Suite { name: "browser", run: |_| browser::run() },
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

/// The control plane must stay fit for the edge.
fn wasm() -> Result<Tally> {
    install::rust_targets(&paths::root(), &WASM_TARGETS)?;
    let mut tally = Tally::default();
    for target in WASM_TARGETS {
        tally.add(cargo(&["check", "--quiet", "--package", "rackhand-functions", "--target", target])?);
    }
    Ok(tally)
}

/// Unit and integration tests of every crate but `rackhand-tests`.
fn rust(args: &Args) -> Result<Tally> {
    if install::on_path("cargo-nextest").is_none() {
        return cargo_test(args, &["--workspace", "--exclude", "rackhand-tests"]);
    }
    let mut arguments =
        vec!["nextest", "run", "--workspace", "--exclude", "rackhand-tests", "--no-fail-fast"];
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
