//! What the documents name exists: every path, every command.
//!
//! Taken from code spans and code blocks of `README.md`, `ARCHITECTURE.md` and `CONTRIBUTING.md`. A path is a word
//! with a slash that begins with a folder of the work tree, or a link's target. A command is a line or span that begins
//! with one of our programs or `cargo xtask`; it is asked for `--help` up to its first argument that is no name.

use std::{collections::BTreeSet, fs, process::Command};

use super::runner::Tally;
use crate::{
    error::{Failure, Result},
    paths,
    terminal::say,
};

const DOCUMENTS: [&str; 3] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"];
const PROGRAMS: [&str; 4] = ["rackhand", "rackhand-server", "rackhand-executor", "rackhand-lab"];

/// Paths.
pub fn run() -> Result<Tally> {
    each(|text, root| {
        let folders: BTreeSet<String> = fs::read_dir(root)
            .map_err(|source| Failure::at("read", root, source))?
            .flatten()
            .filter(|entry| entry.path().is_dir())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        let mut missing = Vec::new();
        for path in named_paths(text, &folders) {
            // What is built or made at run time is not in the work tree.
            let made =
                ["target/", "ui/dist", ".rackhand/", "node_modules"].iter().any(|part| path.contains(part));
            if !made && !root.join(&path).exists() {
                missing.push(format!("there is no {path}"));
            }
        }
        Ok(missing)
    })
}

/// Commands; needs the binaries, so it comes after the tests have built them.
pub fn commands() -> Result<Tally> {
    let mut built = paths::cargo();
    built.args(["build", "--quiet"]);
    for program in PROGRAMS {
        built.args(["--bin", program]);
    }
    let status = built.status().map_err(|source| Failure::io("cannot run cargo", source))?;
    if !status.success() {
        return Err(Failure::Other("the programs do not build".to_owned()));
    }
    each(|text, _| {
        let mut wrong = Vec::new();
        for words in named_commands(text) {
            let known = help(&words)?;
            if !known {
                wrong.push(format!("there is no command `{}`", words.join(" ")));
            }
        }
        Ok(wrong)
    })
}

fn each(check: impl Fn(&str, &std::path::Path) -> Result<Vec<String>>) -> Result<Tally> {
    let root = paths::root();
    let mut tally = Tally::default();
    for document in DOCUMENTS {
        let Ok(text) = fs::read_to_string(root.join(document)) else {
            say(format!("{document}: missing"));
            tally.failed += 1;
            continue;
        };
        let faults = check(&text, &root)?;
        for fault in &faults {
            say(format!("{document}: {fault}"));
        }
        tally.passed += u64::from(faults.is_empty());
        tally.failed += faults.len() as u64;
    }
    Ok(tally)
}

/// Asks the program whether it knows the command.
fn help(words: &[String]) -> Result<bool> {
    let Some((program, rest)) = words.split_first() else { return Ok(true) };
    let mut command = if program == "cargo" {
        let own =
            std::env::current_exe().map_err(|source| Failure::io("cannot find xtask itself", source))?;
        let mut command = Command::new(own);
        command.args(rest.iter().skip(1));
        command
    } else {
        let mut command = Command::new(paths::binaries().join(program));
        command.args(rest);
        command
    };
    let output = command
        .arg("--help")
        .output()
        .map_err(|source| Failure::io(format!("cannot run {program}"), source))?;
    Ok(output.status.success())
}

/// Lines of code blocks and contents of code spans.
fn code(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut block = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            block = !block;
        } else if block {
            found.push(line);
        } else {
            found.extend(line.split('`').skip(1).step_by(2));
        }
    }
    found
}

fn named_paths(text: &str, folders: &BTreeSet<String>) -> BTreeSet<String> {
    let words = code(text).into_iter().flat_map(str::split_whitespace);
    let links = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    let mut paths = BTreeSet::new();
    for word in words {
        let word = word.trim_matches(|letter: char| ",;:()[]\"'".contains(letter)).trim_end_matches('.');
        let ours = word.split_once('/').is_some_and(|(first, _)| folders.contains(first));
        // A pattern or a placeholder names no single file.
        if ours && !word.contains(['*', '<', '{', '…', '$']) {
            paths.insert(word.to_owned());
        }
    }
    paths.extend(
        links
            .filter(|link| !link.is_empty() && !link.contains("://") && !link.starts_with("mailto:"))
            .map(str::to_owned),
    );
    paths
}

fn named_commands(text: &str) -> BTreeSet<Vec<String>> {
    let mut commands = BTreeSet::new();
    for line in code(text) {
        let line = line.trim().trim_start_matches("$ ");
        let words: Vec<&str> = line.split_whitespace().collect();
        let names = match words.as_slice() {
            ["cargo", "xtask", ..] => 2,
            [program, _, ..] if PROGRAMS.contains(program) => 1,
            _ => continue,
        };
        let is_name = |word: &&&str| {
            word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') && !word.starts_with('-')
        };
        let verbs = words.iter().skip(names).take_while(is_name);
        commands.insert(words.iter().take(names).chain(verbs).map(|word| (*word).to_owned()).collect());
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "See `schema/src/job.rs`, `no/such` and [the map](ARCHITECTURE.md#invariants).\n\
        Run `cargo xtask up --exit` or `rackhand jobs plan firmware --package X`; `functions/*` is a pattern.\n\
        ```\n$ rackhand login https://x --email a\nls docs/adr\n```\n";

    #[test]
    fn paths_and_commands_are_found() {
        let folders = ["schema", "docs", "functions"].map(str::to_owned).into();
        let paths: Vec<String> = named_paths(TEXT, &folders).into_iter().collect();
        assert_eq!(paths, ["ARCHITECTURE.md", "docs/adr", "schema/src/job.rs"]);
        let commands: Vec<String> = named_commands(TEXT).iter().map(|words| words.join(" ")).collect();
        assert_eq!(commands, ["cargo xtask up", "rackhand jobs plan firmware", "rackhand login"]);
    }
}
