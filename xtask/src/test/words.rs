//! The words of `docs/words.md` in what people read.
//!
//! Looked at: the README, guides, playbooks and pages of errors as they are; string literals of the product's Rust and
//! SQL; doc comments of command lines, which are their help; what is left of the UI's sources without comments.

use std::{fs, path::Path};

use super::runner::Tally;
use crate::{
    error::{Failure, Result},
    paths,
    terminal::say,
};

const LIST: &str = "docs/words.md";
/// Documents and folders of documents.
const DOCUMENTS: [&str; 4] = ["README.md", "docs/errors", "docs/deploy", "docs/playbooks"];
/// Sources whose strings reach people.
const PRODUCT: [&str; 8] = [
    "cli/src",
    "executor/src",
    "functions/core/src",
    "functions/server/src",
    "functions/worker/src",
    "functions/spin/src",
    "schema/src",
    "schema/migrations",
];
/// Sources whose doc comments are help texts.
const HELP: [&str; 3] = ["cli/src", "executor/src/main.rs", "functions/server/src/main.rs"];
const UI: &str = "ui/src";
/// Generated, or sample data of tests.
const NOT_READ: [&str; 3] = ["schema.d.ts", ".test.ts", "tests.rs"];

/// Something that people read, and where it stands.
struct Text {
    file: String,
    line: usize,
    text: String,
}

/// # Errors
/// The list or a source cannot be read.
pub fn run() -> Result<Tally> {
    let root = paths::root();
    let list = read(&root.join(LIST))?;
    let banned = phrases(&list);
    let mut tally = Tally::default();
    for Text { file, line, text } in texts(&root)? {
        let found = banned.iter().find(|phrase| says(&text, phrase));
        tally.passed += u64::from(found.is_none());
        if let Some(phrase) = found {
            say(format!("{file}:{line}: “{phrase}” ({LIST}): {}", text.trim()));
            tally.failed += 1;
        }
    }
    Ok(tally)
}

/// What the last column of the table quotes.
fn phrases(list: &str) -> Vec<String> {
    let rows = list.lines().filter(|line| line.starts_with('|'));
    let cells = rows.filter_map(|row| row.trim_end_matches('|').rsplit('|').next());
    cells.flat_map(|cell| cell.split('"').skip(1).step_by(2)).map(str::to_lowercase).collect()
}

/// Whether `text` holds `phrase` as words of its own.
fn says(text: &str, phrase: &str) -> bool {
    let text = text.to_lowercase();
    let inside =
        |letter: Option<char>| letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
    text.match_indices(phrase).any(|(at, found)| {
        let (before, after) =
            (text.get(..at).unwrap_or_default(), text.get(at + found.len()..).unwrap_or_default());
        !inside(before.chars().next_back()) && !inside(after.chars().next())
    })
}

fn texts(root: &Path) -> Result<Vec<Text>> {
    let mut texts = Vec::new();
    for document in DOCUMENTS {
        each_file(root, document, &["md"], &mut |file, content| whole_lines(file, content, &mut texts))?;
    }
    for folder in PRODUCT {
        each_file(root, folder, &["rs", "sql"], &mut |file, content| {
            let quote = if file.ends_with(".sql") { '\'' } else { '"' };
            let content = content.split("\n#[cfg(test)]\n").next().unwrap_or_default();
            for (line, text) in literals(content, quote) {
                texts.push(Text { file: file.to_owned(), line, text });
            }
        })?;
    }
    for folder in HELP {
        each_file(root, folder, &["rs"], &mut |file, content| {
            for (index, line) in content.lines().enumerate() {
                if let Some(text) = line.trim_start().strip_prefix("///") {
                    texts.push(Text { file: file.to_owned(), line: index + 1, text: text.to_owned() });
                }
            }
        })?;
    }
    each_file(root, UI, &["ts", "tsx"], &mut |file, content| {
        whole_lines(file, &without_comments(content), &mut texts);
    })?;
    Ok(texts)
}

fn whole_lines(file: &str, content: &str, texts: &mut Vec<Text>) {
    for (index, line) in content.lines().enumerate() {
        texts.push(Text { file: file.to_owned(), line: index + 1, text: line.to_owned() });
    }
}

/// Calls `look` with each file of these kinds at or below `path`, if there is any.
fn each_file(root: &Path, path: &str, kinds: &[&str], look: &mut dyn FnMut(&str, &str)) -> Result<()> {
    let full = root.join(path);
    if full.is_dir() {
        let entries = fs::read_dir(&full).map_err(|source| Failure::at("read", &full, source))?;
        for entry in entries.flatten() {
            if let Some(name) = entry.file_name().to_str() {
                each_file(root, &format!("{path}/{name}"), kinds, look)?;
            }
        }
        return Ok(());
    }
    let kind = full.extension().and_then(|kind| kind.to_str());
    let is_read = !NOT_READ.iter().any(|end| path.ends_with(end));
    if is_read && kind.is_some_and(|kind| kinds.contains(&kind)) {
        look(path, &read(&full)?);
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|source| Failure::at("read", path, source))
}

/// String literals with the lines they begin at; comments of Rust or SQL are passed over. Escapes stay as they are.
fn literals(source: &str, quote: char) -> Vec<(usize, String)> {
    let comment = if quote == '"' { "//" } else { "--" };
    let mut found = Vec::new();
    let mut rest = source;
    let line_at =
        |rest: &str| 1 + source.get(..source.len() - rest.len()).map_or(0, |done| done.matches('\n').count());
    while let Some(at) = rest.find([quote, '-', '/', '\'']) {
        rest = rest.get(at..).unwrap_or_default();
        if rest.starts_with(comment) {
            rest = rest.find('\n').and_then(|end| rest.get(end..)).unwrap_or_default();
            continue;
        }
        // A character literal may hold the quote.
        let character = quote == '"' && (rest.starts_with("'\"'") || rest.starts_with("'\\\"'"));
        if character || !rest.starts_with(quote) {
            let step = if character { 3 } else { 1 };
            rest = rest.get(step..).unwrap_or_default();
            continue;
        }
        let line = line_at(rest);
        rest = rest.get(1..).unwrap_or_default();
        let mut escaped = false;
        let end = rest.find(|letter: char| {
            let ends = letter == quote && !escaped;
            escaped = letter == '\\' && !escaped;
            ends
        });
        let end = end.unwrap_or(rest.len());
        found.push((line, rest.get(..end).unwrap_or_default().to_owned()));
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    found
}

/// TypeScript without its comments, its lines kept. `//` behind a colon is an address.
fn without_comments(source: &str) -> String {
    let mut kept = String::with_capacity(source.len());
    let mut inside = false;
    for line in source.lines() {
        let mut rest = line;
        while !rest.is_empty() {
            if inside {
                let Some(end) = rest.find("*/") else { break };
                inside = false;
                rest = rest.get(end + 2..).unwrap_or_default();
            } else if let Some(begin) = rest.find("/*") {
                kept.push_str(rest.get(..begin).unwrap_or_default());
                inside = true;
                rest = rest.get(begin + 2..).unwrap_or_default();
            } else {
                let end =
                    rest.find("//").filter(|end| !rest.get(..*end).is_some_and(|text| text.ends_with(':')));
                kept.push_str(end.map_or(rest, |end| rest.get(..end).unwrap_or_default()));
                break;
            }
        }
        kept.push('\n');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_are_found_as_words_of_their_own() {
        let list = "| a | b | \"So many\", x, \"is told\" |\n|---|---|---|\nnot \"this\"\n";
        assert_eq!(phrases(list), ["so many", "is told"]);
        assert!(says("At most so many.", "so many") && says("So many", "so many"));
        assert!(!says("also many", "so many") && !says("so manyfold", "so many"));
    }

    #[test]
    fn only_what_people_read_is_looked_at() {
        let rust = "// \"no\"\nlet a = '\"'; let b = \"one \\\" more\";\nlet c = r#\"two\"#; // \"no\"\n";
        let found: Vec<_> = literals(rust, '"');
        assert_eq!(found, [(2, "one \\\" more".to_owned()), (3, "two".to_owned())]);
        assert_eq!(
            literals("-- it's\nselect 'x' - 1, 'y';\n", '\''),
            [(2, "x".to_owned()), (2, "y".to_owned())]
        );
        let script = "a /* b\nc */ d // e\nhref=\"https://x\"\n";
        assert_eq!(without_comments(script), "a \n d \nhref=\"https://x\"\n");
    }
}
