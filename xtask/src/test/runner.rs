//! Runs a tool, passes its words on, and reads from them how many tests passed.

use std::{
    collections::VecDeque,
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
    /// Of each command that failed: its name, and the lines that say most.
    pub failures: Vec<String>,
}

/// Of what a command prints, the lines to repeat at the end of all suites when it fails.
#[derive(Debug, Default)]
struct Excerpt {
    /// Where something panicked, and what is said below it.
    panics: Vec<String>,
    /// Lines below the latest panic that are still to be kept.
    below: usize,
    last: VecDeque<String>,
}

impl Excerpt {
    const PANICS: usize = 60;
    const BELOW: usize = 5;
    const LAST: usize = 25;

    fn add(&mut self, line: &str) {
        if line.contains("panicked at ") {
            self.below = Self::BELOW + 1;
        }
        if self.below > 0 {
            self.below -= 1;
            if self.panics.len() < Self::PANICS {
                self.panics.push(line.to_owned());
            }
        }
        if self.last.len() == Self::LAST {
            self.last.pop_front();
        }
        self.last.push_back(line.to_owned());
    }

    /// The panics, or where there is none the last lines.
    fn lines(self) -> Vec<String> {
        if self.panics.is_empty() { self.last.into() } else { self.panics }
    }
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
        self.failures.extend(other.failures);
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
    let (mut tally, printed) = child.stdout.take().map(|stdout| pass_on(stdout, result)).unwrap_or_default();
    let mut excerpts = vec![printed];
    if let Some(Ok((more, complained))) = errors.map(thread::JoinHandle::join) {
        tally.add(more);
        excerpts.push(complained);
    }
    let status = child.wait().map_err(|source| Failure::io(format!("cannot wait for {name}"), source))?;
    if !status.success() && tally.failed == 0 {
        tally.failed = 1;
    }
    if tally.failed > 0 {
        tally.failures.push(format!("$ {name}"));
        tally.failures.extend(excerpts.into_iter().flat_map(Excerpt::lines));
    }
    if status.success() && tally == Tally::default() {
        tally = Tally::one();
    }
    Ok(tally)
}

fn pass_on(stream: impl Read, tell: fn(String)) -> (Tally, Excerpt) {
    let mut tally = Tally::default();
    let mut excerpt = Excerpt::default();
    for line in BufReader::new(stream).lines().map_while(std::result::Result::ok) {
        read(&line, &mut tally);
        excerpt.add(&line);
        tell(line);
    }
    (tally, excerpt)
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
    fn of_a_command_that_fails_the_panics_or_the_last_lines_are_repeated() {
        let script = |text: &str| {
            let mut shell = Command::new("sh");
            shell.args(["-c", text]);
            run(shell, "sh").unwrap().failures
        };
        let last = script("seq 1 30; echo 'why it failed' >&2; exit 1");
        assert_eq!(last.len(), 1 + Excerpt::LAST + 1);
        assert_eq!((last[0].as_str(), last[1].as_str()), ("$ sh", "6"));
        assert_eq!(last.last().unwrap(), "why it failed");
        let panics = script("seq 1 30; echo 'panicked at a.rs'; echo left; echo right; seq 1 9; exit 1");
        assert_eq!(panics[1..4], ["panicked at a.rs", "left", "right"]);
        assert_eq!(panics.len(), 1 + 1 + Excerpt::BELOW);
        assert_eq!(script("echo fine"), Vec::<String>::new());
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
