//! The command line of `cargo xtask`.

use std::{os::unix::process::CommandExt as _, process::ExitCode};

use clap::{Parser, Subcommand};
use xtask::{Failure, bench, edge, openapi, paths, terminal, test, up};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tasks of Rackhand's developers and CI")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Start everything with a simulated site, update its firmware, and stay up. With a URL in
    /// RACKHAND_UP_DATABASE_URL that database is used: it is migrated, gets the site, and `rackhand_api` another
    /// password there.
    Up(up::Args),
    /// Run every check, in order, with the time each takes.
    Test(test::Args),
    /// The control plane's Wasm hosts: Cloudflare Workers and Spin.
    Edge {
        #[command(subcommand)]
        task: edge::Task,
    },
    /// Measure speed beside peers and write docs/performance.md.
    Bench {
        /// Only this part.
        part: Option<bench::Part>,
    },
    /// Write schema/openapi.json from the code.
    Openapi {
        /// Fail when the file differs, instead of writing it.
        #[arg(long)]
        check: bool,
    },
    /// Run rackhand-lab with the arguments that follow.
    Lab {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Up(args) => up::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Edge { task } => edge::run(&task),
        Task::Bench { part } => bench::run(part),
        Task::Openapi { check } => openapi::run(check),
        Task::Lab { arguments } => lab(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            terminal::say(format!("error: {failure}"));
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Becomes the lab: signals and exit status are its own.
fn lab(arguments: &[String]) -> Result<(), Failure> {
    let source = paths::cargo()
        .args(["run", "--quiet", "--package", "rackhand-lab", "--bin", "rackhand-lab", "--"])
        .args(arguments)
        .exec();
    Err(Failure::io("cannot run cargo", source))
}
