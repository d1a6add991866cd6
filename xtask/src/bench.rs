//! `cargo xtask bench`: speed beside peers, measured in one run and written to `docs/performance.md` with the
//! machine and the date, also where a target is missed.

use std::{fs, process::Command, process::Stdio};

use crate::{
    edge::{self, Host},
    error::{Failure, Result},
    install, paths,
    terminal::{result, say},
};

/// A section of the page: its heading, what it says before the table, and the program that prints it, with what it is
/// to measure.
struct Section {
    heading: &'static str,
    about: &'static str,
    program: &'static str,
    parts: &'static [&'static str],
}

const PEERS: Section = Section {
    heading: "Beside peers",
    about: "Times on other machines differ, ratios less so. A missed target stays in the table \
            until it is met.",
    program: "rackhand-bench",
    parts: &["queue", "latency", "redfish"],
};
const HOSTS: Section = Section {
    heading: "On the three hosts",
    about: "One Postgres on the same machine, three seconds for each cell; client, host and database share the cores.",
    program: "rackhand-bench",
    parts: &["edge"],
};
const IPMI: Section = Section {
    heading: "IPMI beside ipmitool and FreeIPMI",
    about: "BMCs are processes of OpenIPMI's ipmi_sim on the same machine, the fleet's are Rackhand's lab in a process of \
            its own. CPU is the client's alone, user and system. Ours keeps its sessions where nothing else is said; the others are started for each sweep.",
    program: "rackhand-ipmi-bench",
    parts: &[],
};

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Part {
    /// The three hosts of the control plane.
    Edge,
    /// The IPMI client.
    Ipmi,
}

/// Measures everything, or one part, and writes it into the page.
///
/// # Errors
/// Something is missing, does not build, or a measurement failed.
pub fn run(only: Option<Part>) -> Result<()> {
    install::ensure(install::FOR_BENCH)?;
    say("building with optimisation; the first time takes minutes");
    let peers = paths::root().join("tests/bench/peers");
    if only != Some(Part::Ipmi) {
        build(&["rackhand-tests", "rackhand-executor"])?;
        edge::build(Host::Worker)?;
        edge::build(Host::Spin)?;
        succeed(Command::new("npm").args(["ci", "--no-audit", "--no-fund", "--silent"]).current_dir(&peers))?;
    }
    if only != Some(Part::Edge) {
        build(&["rackhand-ipmi-tests"])?;
    }
    let path = paths::root().join("docs/performance.md");
    let sections: &[Section] = match only {
        None => &[PEERS, HOSTS, IPMI],
        Some(Part::Edge) => &[HOSTS],
        Some(Part::Ipmi) => &[IPMI],
    };
    for section in sections {
        let bench = paths::target().join("release").join(section.program);
        let mut measure = Command::new(&bench);
        if !section.parts.is_empty() {
            measure.arg(&peers).args(section.parts);
        }
        let output = measure
            .stderr(Stdio::inherit())
            .output()
            .map_err(|source| Failure::io(format!("cannot run {}", bench.display()), source))?;
        if !output.status.success() {
            return Err(Failure::Other("a measurement failed; see above".to_owned()));
        }
        let table = String::from_utf8_lossy(&output.stdout);
        result(&table);
        let page = fs::read_to_string(&path).unwrap_or_default();
        fs::write(&path, with_section(&page, section, table.trim_end()))
            .map_err(|source| Failure::at("write", &path, source))?;
    }
    say(format!("written to {}", path.display()));
    Ok(())
}

/// Programs of these packages, with optimisation.
fn build(packages: &[&str]) -> Result<()> {
    let mut cargo = paths::cargo();
    cargo.args(["build", "--release", "--quiet", "--bins"]);
    succeed(cargo.args(packages.iter().flat_map(|package| ["--package", package])))
}

/// The page with one section measured anew; the others stay as they are.
fn with_section(page: &str, section: &Section, table: &str) -> String {
    let heading = format!("## {}\n", section.heading);
    let text = format!(
        "{heading}\nMeasured in one run of `cargo xtask bench` on {} with {} cores, {}; {}. {}\n\n{table}\n",
        first_line("/proc/cpuinfo", "model name").unwrap_or_else(|| "an unknown processor".to_owned()),
        std::thread::available_parallelism().map_or(0, usize::from),
        said_by(Command::new("date").args(["-u", "+%Y-%m-%d"])),
        said_by(Command::new("rustc").arg("--version")),
        section.about,
    );
    let mut others: Vec<String> = page
        .split("\n## ")
        .skip(1)
        .map(|other| format!("## {}\n", other.trim_end()))
        .filter(|other| !other.starts_with(&heading))
        .collect();
    others.push(text);
    others.sort();
    format!("# Performance\n\n{}", others.join("\n"))
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
