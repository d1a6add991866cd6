//! Every sentence that people read and that is written in SQL, in one reviewed list.

use std::{fs, path::Path};

/// The string literals of `sql`, adjacent ones joined as SQL joins them; comments and quoted names are left
/// out.
fn literals(sql: &str) -> Vec<String> {
    let mut found: Vec<String> = vec![];
    let mut rest = sql;
    // Where the literal before ended, to see whether only white space with a newline stands between.
    let mut joins = false;
    while let Some(at) = rest.find(['\'', '-', '"']) {
        let between = &rest[..at];
        joins = joins && between.trim().is_empty() && between.contains('\n');
        let (mark, after) = (&rest[at..=at], &rest[at + 1..]);
        if mark == "-" {
            rest = after
                .strip_prefix('-')
                .map_or(after, |comment| &comment[comment.find('\n').unwrap_or(comment.len())..]);
            joins = false;
            continue;
        }
        let end = after.find(mark).unwrap();
        let (text, tail) = (&after[..end], &after[end + 1..]);
        if mark == "'" {
            match found.last_mut().filter(|_| joins) {
                Some(last) => last.push_str(text),
                None => found.push(text.to_owned()),
            }
        }
        joins = mark == "'";
        rest = tail;
    }
    found
}

#[test]
fn every_sentence_that_is_written_in_sql_was_read_by_somebody() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schema/migrations");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut sentences = vec![];
    for file in files {
        sentences.extend(literals(&fs::read_to_string(file).unwrap()).into_iter().filter(|text| {
            text.contains(' ')
                && !text.starts_with("YYYY")
                && (text.starts_with(|first: char| first.is_ascii_uppercase() || first == '%')
                    || text.starts_with("{user}"))
        }));
    }
    sentences.sort();
    sentences.dedup();
    for sentence in &sentences {
        let words: Vec<_> = sentence.split(' ').collect();
        assert!(
            words.windows(2).all(|pair| pair[0] != pair[1] || pair[0] == "%s"),
            "a word twice: {sentence}"
        );
    }
    assert!(sentences.len() > 50, "only {} were found", sentences.len());
    insta::assert_snapshot!(sentences.join("\n"));
}
