//! Text from devices, made safe where it enters: NUL, control characters and what turns around the order of text (the
//! bidirectional controls of Unicode, UAX #9) are shown as `\u{…}`, lengths are bounded. Postgres refuses NUL in text and JSON, and a terminal must not be steered by a BMC.

use serde_json::Value;

/// Longest text kept from a device, characters.
pub const MAX_CHARS: usize = 2_000;
/// Largest evidence kept, bytes of JSON.
pub const MAX_EVIDENCE_BYTES: usize = 16 * 1024;

/// `text` with control characters escaped and cut to [`MAX_CHARS`].
pub fn clean(text: &str) -> String {
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => escaped(&text[..end]) + "…",
        None => escaped(text),
    }
}

/// The whole `text` as one line that steers no terminal.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => out.push(' '),
            character if steers(character) => out.extend(character.escape_unicode()),
            character => out.push(character),
        }
    }
    out
}

/// At most `most` characters of text that somebody else has written, with single blanks: where it stands beside what a
/// person compares or types, it cannot look like another line.
pub fn within(text: &str, most: usize) -> String {
    let words = escaped(text).split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(most) {
        Some((end, _)) => words[..end].to_owned() + "…",
        None => words,
    }
}

fn steers(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The same for every string inside `value`; too large a value is replaced by a note of its size.
pub fn clean_value(value: &Value) -> Value {
    let size = serde_json::to_string(value).map_or(0, |text| text.len());
    if size > MAX_EVIDENCE_BYTES {
        return serde_json::json!({ "left_out": "too large", "bytes": size });
    }
    clean_inner(value)
}

fn clean_inner(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(clean(text)),
        Value::Array(items) => Value::Array(items.iter().map(clean_inner).collect()),
        Value::Object(members) => {
            Value::Object(members.iter().map(|(name, member)| (clean(name), clean_inner(member))).collect())
        }
        plain => plain.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_lengths_bounded() {
        assert_eq!(clean("a\0b\u{1b}[31m\n\u{202e}"), "a\\u{0}b\\u{1b}[31m \\u{202e}");
        assert_eq!(clean(&"x".repeat(5_000)).chars().count(), MAX_CHARS + 1);
        assert_eq!(clean(&"é".repeat(MAX_CHARS)), "é".repeat(MAX_CHARS));
        assert_eq!(escaped(&"\u{9b}x".repeat(5_000)), "\\u{9b}x".repeat(5_000));
        assert_eq!(within("a\n\u{1b}b   c", 80), "a \\u{1b}b c");
        assert_eq!(within(&"x ".repeat(100), 3), "x x…");
        let value = clean_value(&serde_json::json!({ "k\0": ["\u{7}"] }));
        assert_eq!(value, serde_json::json!({ "k\\u{0}": ["\\u{7}"] }));
        let huge = clean_value(&serde_json::json!("x".repeat(100_000)));
        assert_eq!(huge["left_out"], "too large");
    }
}
