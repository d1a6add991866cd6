//! `cargo xtask bench`: speed beside peers, measured in one run and written to `docs/performance.md` with the
//! machine and the date, also where a target is missed.

use std::{fs, process::Command, process::Stdio};

use crate::{
    error::{Failure, Result},
    install, paths,
    terminal::{result, say},
};

/// # Errors
/// Something is missing, does not build, or a measurement failed.
pub fn run() -> Result<()> {
    install::ensure(install::FOR_BENCH)?;
    say("building with optimisation; the first time takes minutes");
    let packages =
        ["build", "--release", "--quiet", "-p", "rackhand-tests", "-p", "rackhand-executor", "--bins"];
    succeed(paths::cargo().args(packages))?;
    let peers = paths::root().join("tests/bench/peers");
    succeed(Command::new("npm").args(["ci", "--no-audit", "--no-fund", "--silent"]).current_dir(&peers))?;
    let bench = paths::target().join("release/rackhand-bench");
    let output = Command::new(&bench)
        .arg(&peers)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|source| Failure::io(format!("cannot run {}", bench.display()), source))?;
    if !output.status.success() {
        return Err(Failure::Other("a measurement failed; see above".to_owned()));
    }
    let table = String::from_utf8_lossy(&output.stdout);
    result(&table);
    let page = format!(
        "# Performance\n\n\
         Measured beside a peer in one run of `cargo xtask bench`, on {} with {} cores, {}; {}. Times on other \
         machines differ, ratios less so.\n\n{table}\n\
         Targets are DESIGN's. A missed one stays in the table until it is met.\n",
        first_line("/proc/cpuinfo", "model name").unwrap_or_else(|| "an unknown processor".to_owned()),
        std::thread::available_parallelism().map_or(0, usize::from),
        said_by(Command::new("date").args(["-u", "+%Y-%m-%d"])),
        said_by(Command::new("rustc").arg("--version")),
    );
    let path = paths::root().join("docs/performance.md");
    fs::write(&path, page).map_err(|source| Failure::at("write", &path, source))?;
    say(format!("written to {}", path.display()));
    Ok(())
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .map_err(|source| Failure::io(format!("cannot run {}", command.get_program().display()), source))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::Other(format!("{} failed", command.get_program().display())))
}

/// What follows the colon of the first line that begins with `name`.
fn first_line(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim().to_owned())
}

fn said_by(command: &mut Command) -> String {
    let output = command.output().ok().filter(|output| output.status.success());
    output.map_or_else(String::new, |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
