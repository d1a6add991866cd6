//! What the documents name exists: every path, every command, and in comments every other document.
//!
//! Taken from code spans and code blocks of `README.md`, `ARCHITECTURE.md` and `CONTRIBUTING.md`. A path is a word
//! with a slash that begins with a folder of the work tree, or a link's target. A command is a line or span that begins
//! with one of our programs or `cargo xtask`; it is asked for `--help` up to its first argument that is no name.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use super::runner::Tally;
use crate::{
    error::{Failure, Result},
    paths,
    terminal::say,
    up::stack,
};

const DOCUMENTS: [&str; 3] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"];

/// Paths, and documents that are named anywhere.
pub fn run() -> Result<Tally> {
    let mut tally = named_files()?;
    tally.add(references()?);
    Ok(tally)
}

fn named_files() -> Result<Tally> {
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
    stack::build_programs()?;
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

/// Every Markdown file and every comment names only documents that are in this repository.
fn references() -> Result<Tally> {
    let root = paths::root();
    let mut command = Command::new("git");
    command.args(["ls-files", "-z", "--", "*.md", "*.rs", "*.sql", "*.ts", "*.tsx", "*.mjs", "*.toml"]);
    let listed =
        command.current_dir(&root).output().map_err(|source| Failure::io("cannot run git", source))?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let files: BTreeSet<&str> = listed.split('\0').filter(|file| !file.is_empty()).collect();
    let mut tally = Tally::default();
    for file in &files {
        let Ok(text) = fs::read_to_string(root.join(file)) else { continue };
        let whole = file.ends_with(".md");
        for (index, line) in text.lines().enumerate() {
            let Some(said) = (if whole { Some(line) } else { comment(line) }) else { continue };
            for document in documents(said) {
                if !is_there(&document, file, &files) {
                    say(format!("{file}:{}: there is no {document} in this repository", index + 1));
                    tally.failed += 1;
                }
            }
        }
        tally.passed += 1;
    }
    Ok(tally)
}

/// What stands in a line's comment: Rust, TypeScript, SQL, TOML.
fn comment(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let marks = ["//", "--", "# ", "* ", "/*"];
    marks.iter().find_map(|mark| line.strip_prefix(mark)).or_else(|| Some(line.split_once(" // ")?.1))
}

/// Documents that a text names: by a path, or by a name in capitals with a section (`NAME §3`) or a row (`NAME D7`).
fn documents(text: &str) -> Vec<String> {
    let words: Vec<&str> = text
        .split(|letter: char| letter.is_whitespace() || "`()[]<>\"',;|*".contains(letter))
        .filter(|word| !word.is_empty())
        .collect();
    let mut named = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let word = word.trim_end_matches(['.', ':', '!', '?']);
        let word = word.split('#').next().unwrap_or_default();
        let path = word.rsplit("://").next().unwrap_or_default();
        if path == word && Path::new(word).extension().is_some_and(|kind| kind == "md") && word.len() > 3 {
            named.push(word.to_owned());
        }
        let capitals = word.len() > 5 && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
        let row = |next: &&&str| {
            next.starts_with('§')
                || next
                    .strip_prefix('D')
                    .is_some_and(|digits| digits.starts_with(|c: char| c.is_ascii_digit()))
        };
        if capitals && words.get(index + 1).as_ref().is_some_and(row) {
            named.push(format!("{word}.md"));
        }
    }
    named
}

/// By its path from the root, from the folder of `file`, or by its name alone. Placeholders name no single one.
fn is_there(document: &str, file: &str, files: &BTreeSet<&str>) -> bool {
    if document.contains(['{', '$', '…']) {
        return true;
    }
    let folder = Path::new(file).parent().unwrap_or(Path::new(""));
    let mut beside = Vec::new();
    for part in folder.join(document).components() {
        match part {
            std::path::Component::ParentDir => drop(beside.pop()),
            std::path::Component::CurDir => {}
            part => beside.push(part.as_os_str().to_string_lossy().into_owned()),
        }
    }
    let beside = beside.join("/");
    files.contains(document)
        || files.contains(beside.as_str())
        || !document.contains('/') && files.iter().any(|known| known.ends_with(&format!("/{document}")))
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
        // Not by its own path: a build of the workspace may have replaced the file that runs.
        let mut command = Command::new(paths::binaries().join("xtask"));
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
            [program, _, ..] if stack::BINARIES.contains(program) => 1,
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
    fn documents_that_are_not_here_are_found() {
        let files = ["docs/words.md", "docs/adr/0001-x.md", "tests/a/b.rs"].into();
        assert_eq!(
            documents("see `docs/words.md#a`, HANDBOOK §3, PROTOCOL D12; SHA-256 D"),
            ["docs/words.md", "HANDBOOK.md", "PROTOCOL.md"]
        );
        assert_eq!(documents("https://example.org/x.md and UPPER CASE"), Vec::<String>::new());
        for there in ["docs/words.md", "words.md", "../../docs/adr/0001-x.md", "docs/errors/{code}.md"] {
            assert!(is_there(there, "tests/a/b.rs", &files), "{there}");
        }
        for gone in ["HANDBOOK.md", "docs/gone.md", "../x.md"] {
            assert!(!is_there(gone, "tests/a/b.rs", &files), "{gone}");
        }
        assert_eq!(comment("    /// a"), Some("/ a"));
        assert_eq!(comment("let a = 1; // b"), Some("b"));
        assert_eq!(comment("let a = \"x.md\";"), None);
    }

    #[test]
    fn the_picture_of_the_map_shows_every_protocol() {
        let root = paths::root();
        let map = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
        let picture = map.split("```").nth(1).unwrap();
        for entry in fs::read_dir(root.join("protocols")).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            assert!(picture.contains(&format!("protocols/{name}")), "{name}");
        }
    }

    #[test]
    fn paths_and_commands_are_found() {
        let folders = ["schema", "docs", "functions"].map(str::to_owned).into();
        let paths: Vec<String> = named_paths(TEXT, &folders).into_iter().collect();
        assert_eq!(paths, ["ARCHITECTURE.md", "docs/adr", "schema/src/job.rs"]);
        let commands: Vec<String> = named_commands(TEXT).iter().map(|words| words.join(" ")).collect();
        assert_eq!(commands, ["cargo xtask up", "rackhand jobs plan firmware", "rackhand login"]);
    }
}
