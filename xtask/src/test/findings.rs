//! What was once found wrong, each beside the test that keeps it mended: `tests/findings.toml`.
//!
//! An entry names tests as `path::name`. In Rust the name is a test function, or a word in quotes where one test walks
//! a table; elsewhere it is part of a test's title. Where a sentence was at fault, the entry has the sentences: a file,
//! what is gone from it, and what it says. An entry without either says in one line why.

use std::{collections::BTreeMap, fs, path::Path};

use super::runner::Tally;
use crate::{
    error::{Failure, Result},
    paths,
    terminal::{result, say},
};

const LIST: &str = "tests/findings.toml";

/// What was found, and what holds it.
#[derive(Debug, Default)]
struct Finding {
    what: String,
    tests: Vec<String>,
    sentences: Vec<Sentence>,
    refused: Option<String>,
}

#[derive(Debug)]
struct Sentence {
    file: String,
    gone: String,
    says: String,
}

/// Prints each finding with its tests or its refusal.
///
/// # Errors
/// The list cannot be read.
pub fn run() -> Result<Tally> {
    let root = paths::root();
    let path = root.join(LIST);
    let text = fs::read_to_string(&path).map_err(|source| Failure::at("read", &path, source))?;
    let mut tally = Tally::default();
    for (id, finding) in parse(&text).map_err(|why| Failure::Other(format!("{LIST}: {why}")))? {
        let faults = faults(&root, &finding);
        match (&finding.refused, finding.tests.as_slice()) {
            (Some(why), []) => result(format!("{id:<28} left as it is: {why}")),
            (_, tests) => {
                let files = finding.sentences.iter().map(|sentence| sentence.file.as_str());
                let held: Vec<&str> = tests.iter().map(String::as_str).chain(files).collect();
                result(format!("{id:<28} {}", held.join(", ")));
            }
        }
        for fault in &faults {
            say(format!("{id}: {} — {fault}", finding.what));
        }
        tally.passed += u64::from(faults.is_empty());
        tally.failed += u64::from(!faults.is_empty());
    }
    Ok(tally)
}

fn parse(text: &str) -> std::result::Result<BTreeMap<String, Finding>, String> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    let word = |value: &toml::Value, key: &str| Some(value.get(key)?.as_str()?.to_owned());
    table
        .iter()
        .map(|(id, value)| {
            let what = word(value, "what").ok_or_else(|| format!("{id} does not say what it is"))?;
            let tests = value.get("tests").and_then(toml::Value::as_array).map_or(&[][..], Vec::as_slice);
            let tests = tests.iter().filter_map(toml::Value::as_str).map(str::to_owned).collect();
            let sentences =
                value.get("sentences").and_then(toml::Value::as_array).map_or(&[][..], Vec::as_slice);
            let sentences = sentences.iter().map(|sentence| {
                let part = |key| word(sentence, key).ok_or_else(|| format!("{id}: a sentence has no {key}"));
                Ok(Sentence { file: part("file")?, gone: part("gone")?, says: part("says")? })
            });
            let sentences = sentences.collect::<std::result::Result<_, String>>()?;
            Ok((id.clone(), Finding { what, tests, sentences, refused: word(value, "refused") }))
        })
        .collect()
}

fn faults(root: &Path, finding: &Finding) -> Vec<String> {
    let held = !finding.tests.is_empty() || !finding.sentences.is_empty();
    if !held && finding.refused.as_ref().is_none_or(|why| why.trim().is_empty()) {
        return vec!["has neither a test nor a reason for having none".to_owned()];
    }
    let tests = finding.tests.iter().filter_map(|test| missing(root, test));
    tests.chain(finding.sentences.iter().flat_map(|sentence| unsaid(root, sentence))).collect()
}

/// What a file still says, or does not say.
fn unsaid(root: &Path, Sentence { file, gone, says }: &Sentence) -> Vec<String> {
    let Ok(text) = fs::read_to_string(root.join(file)) else {
        return vec![format!("there is no {file}")];
    };
    let back = text.contains(gone).then(|| format!("{file} says “{gone}”"));
    let lost = (!text.contains(says)).then(|| format!("{file} does not say “{says}”"));
    back.into_iter().chain(lost).collect()
}

/// Why a test cannot be the one that is meant.
fn missing(root: &Path, test: &str) -> Option<String> {
    let Some((file, name)) = test.split_once("::") else {
        return Some(format!("{test} is not path::name"));
    };
    let Ok(text) = fs::read_to_string(root.join(file)) else {
        return Some(format!("there is no {file}"));
    };
    let found = if Path::new(file).extension().is_some_and(|extension| extension == "rs") {
        is_test(&text, name) || text.contains(&format!("\"{name}\""))
    } else {
        text.contains(name)
    };
    (!found).then(|| format!("there is no test {name} in {file}"))
}

/// Whether a function of this name carries an attribute that makes it a test.
fn is_test(text: &str, name: &str) -> bool {
    let start = format!("fn {name}(");
    let mut attributes = String::new();
    for line in text.lines().map(str::trim) {
        if line.contains(&start) {
            return attributes.contains("test");
        }
        if line.starts_with('#') {
            attributes.push_str(line);
        } else if !line.starts_with("//") {
            attributes.clear();
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_needs_a_test_that_is_there_or_a_reason() {
        let root = paths::root();
        let with = |tests: &[&str], refused: Option<&str>| {
            let tests = tests.iter().map(|&test| test.to_owned()).collect();
            let finding = Finding { tests, refused: refused.map(str::to_owned), ..Finding::default() };
            faults(&root, &finding).len()
        };
        let here = "xtask/src/test/findings.rs::a_finding_needs_a_test_that_is_there_or_a_reason";
        assert_eq!(with(&[here], None), 0);
        assert_eq!(with(&[], Some("ADR 3")), 0);
        assert_eq!(with(&[], Some(" ")), 1);
        assert_eq!(with(&[], None), 1);
        assert_eq!(with(&["xtask/src/test/findings.rs::faults"], None), 1, "no test");
        assert_eq!(with(&["xtask/src/nowhere.rs::any", "any"], None), 2);
    }

    #[test]
    fn a_sentence_is_gone_and_another_one_is_said() {
        let with = |file: &str, gone: &str, says: &str| {
            let [file, gone, says] = [file, gone, says].map(str::to_owned);
            let sentences = vec![Sentence { file, gone, says }];
            faults(&paths::root(), &Finding { sentences, ..Finding::default() }).len()
        };
        assert_eq!(with("docs/words.md", "no such words", "# Words for users"), 0);
        assert_eq!(with("docs/words.md", "# Words for users", "no such words"), 2);
        assert_eq!(with("docs/nowhere.md", "x", "y"), 1);
    }

    #[test]
    fn the_list_is_read() {
        let list = parse("[\"A1\"]\nwhat = \"twice\"\ntests = [\"a::b\"]\n").unwrap();
        assert_eq!(list["A1"].tests, ["a::b"]);
        assert!(parse("[\"A1\"]\ntests = []\n").is_err());
        let sentence = "[\"A1\"]\nwhat = \"x\"\nsentences = [{ file = \"a\", gone = \"b\", says = \"c\" }]\n";
        assert_eq!(parse(sentence).unwrap()["A1"].sentences[0].gone, "b");
        assert!(parse(&sentence.replace("says", "say")).is_err());
    }
}
