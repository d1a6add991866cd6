//! Runs a tool, passes its words on, and reads from them how many tests passed.

use std::{
    io::{BufRead as _, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
    thread,
};

use crate::{
    error::{Failure, Result},
    paths,
    terminal::{result, say},
};

/// How a suite ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
    /// Why, for each.
    pub skipped: Vec<String>,
}

impl Tally {
    /// A check that is a single thing.
    pub fn one() -> Self {
        Self { passed: 1, ..Self::default() }
    }

    pub fn failure() -> Self {
        Self { failed: 1, ..Self::default() }
    }

    pub fn skip(why: impl Into<String>) -> Self {
        Self { skipped: vec![why.into()], ..Self::default() }
    }

    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped.extend(other.skipped);
    }
}

/// Runs cargo in the work tree.
pub fn cargo(arguments: &[&str]) -> Result<Tally> {
    let mut command = paths::cargo();
    command.args(arguments);
    run(command, &format!("cargo {}", arguments.join(" ")))
}

/// Runs a script of a package.json.
pub fn npm(folder: &Path, script: &str) -> Result<Tally> {
    let mut command = Command::new("npm");
    command.args(["run", "--silent", script]).current_dir(folder);
    run(command, &format!("npm run {script}"))
}

/// Runs a command to its end. Without test counts in its words it counts as one check.
pub fn run(mut command: Command, name: &str) -> Result<Tally> {
    say(format!("$ {name}"));
    let mut child = command
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| Failure::io(format!("cannot run {name}"), source))?;
    let errors = child.stderr.take().map(|stderr| thread::spawn(move || pass_on(stderr, say)));
    let mut tally = child.stdout.take().map(|stdout| pass_on(stdout, result)).unwrap_or_default();
    if let Some(Ok(more)) = errors.map(thread::JoinHandle::join) {
        tally.add(more);
    }
    let status = child.wait().map_err(|source| Failure::io(format!("cannot wait for {name}"), source))?;
    if !status.success() && tally.failed == 0 {
        tally.failed = 1;
    }
    if status.success() && tally == Tally::default() {
        tally = Tally::one();
    }
    Ok(tally)
}

fn pass_on(stream: impl Read, tell: fn(String)) -> Tally {
    let mut tally = Tally::default();
    for line in BufReader::new(stream).lines().map_while(std::result::Result::ok) {
        read(&line, &mut tally);
        tell(line);
    }
    tally
}

/// Adds what a line of a test runner says.
fn read(line: &str, tally: &mut Tally) {
    let line = line.trim();
    let before = |word: &str| -> u64 {
        let words: Vec<&str> = line.split([' ', ';', ',', '|']).filter(|part| !part.is_empty()).collect();
        let position = words.iter().position(|part| *part == word);
        position
            .and_then(|index| words.get(index.checked_sub(1)?))
            .and_then(|number| number.parse().ok())
            .unwrap_or_default()
    };
    if line.starts_with("test result:") {
        // libtest names each ignored test and its reason on a line of its own.
        tally.passed += before("passed");
        tally.failed += before("failed");
    } else if let Some(rest) = line.strip_prefix("test ").filter(|rest| rest.contains(" ... ignored")) {
        tally.skipped.push(rest.replace(" ... ignored, ", ": ").replace(" ... ignored", ": no reason given"));
    } else if line.starts_with("Summary [") && line.contains("run:") {
        tally.passed += before("passed");
        tally.failed += before("failed") + line.matches("timed out").count() as u64;
    } else if let Some(name) = line.strip_prefix("SKIP [") {
        let name = name.split_once(']').map_or(name, |(_, name)| name).trim();
        tally.skipped.push(format!("{name}: ignored; `cargo xtask test --full` runs it"));
    } else if line.starts_with("Tests ") && line.contains("passed") {
        // vitest
        tally.passed += before("passed");
        tally.failed += before("failed");
        tally.skipped.extend((0..before("skipped")).map(|_| "a UI test, see vitest's list above".to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(lines: &[&str]) -> Tally {
        let mut tally = Tally::default();
        for line in lines {
            read(line, &mut tally);
        }
        tally
    }

    #[test]
    fn the_closing_lines_of_each_runner_are_understood() {
        let libtest = tally(&[
            "test slow::one ... ignored, takes an hour",
            "test result: ok. 23 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.17s",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
        ]);
        assert_eq!((libtest.passed, libtest.failed), (24, 2));
        assert_eq!(libtest.skipped, ["slow::one: takes an hour"]);
        let nextest = tally(&[
            "     Summary [   0.009s] 10 tests run: 9 passed, 1 failed, 2 skipped",
            "        SKIP [         ] ( 5/10) rackhand-lab model::slow",
        ]);
        assert_eq!((nextest.passed, nextest.failed, nextest.skipped.len()), (9, 1, 1));
        let vitest =
            tally(&["      Tests  1 failed | 11 passed | 1 skipped (13)", " Test Files  3 passed (3)"]);
        assert_eq!((vitest.passed, vitest.failed, vitest.skipped.len()), (11, 1, 1));
        assert_eq!(tally(&["warning: 3 failed things"]), Tally::default());
    }
}
