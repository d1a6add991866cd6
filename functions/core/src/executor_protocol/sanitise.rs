//! Makes the JSON text of a report fit for parsing and storing, without losing a good neighbour to a bad one.
//!
//! What BMCs put into log lines ends up in reports. Three things in it would make a whole document
//! unparseable, or not storable in Postgres: a NUL (`\u0000`), half a surrogate pair (`\ud800`), and a raw
//! control character within a string. Each is shown as text (`\\u0000`) or as an escape instead.

use std::borrow::Cow;

/// The text with every NUL, lone surrogate and raw control character inside strings escaped. Good JSON
/// comes back as it was; what is not JSON at all stays so.
pub fn sanitise(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut out = String::new();
    // Everything before this has been copied or replaced.
    let mut copied = 0;
    let mut in_string = false;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                in_string = !in_string;
                at += 1;
            }
            b'\\' if in_string => {
                let (length, sound) = escape(bytes, at);
                if !sound {
                    out.push_str(text.get(copied..at).unwrap_or_default());
                    // A second backslash makes plain text of it.
                    out.push('\\');
                    copied = at;
                }
                at += length;
            }
            0..=0x1f if in_string => {
                out.push_str(text.get(copied..at).unwrap_or_default());
                let backslash = if byte == 0 { "\\\\" } else { "\\" };
                out.push_str(&format!("{backslash}u{byte:04x}"));
                at += 1;
                copied = at;
            }
            _ => at += 1,
        }
    }
    if copied == 0 && out.is_empty() {
        return Cow::Borrowed(text);
    }
    out.push_str(text.get(copied..).unwrap_or_default());
    Cow::Owned(out)
}

/// The length of the escape that starts at `at`, and whether it can stay. Of a bad one only the backslash
/// and the character after it are passed over.
fn escape(bytes: &[u8], at: usize) -> (usize, bool) {
    match (bytes.get(at + 1), unit(bytes, at)) {
        (Some(b'u'), Some(0)) => (2, false),
        (Some(b'u'), Some(0xd800..=0xdbff)) => match unit(bytes, at + 6) {
            Some(0xdc00..=0xdfff) => (12, true),
            _ => (2, false),
        },
        (Some(b'u'), Some(0xdc00..=0xdfff)) => (2, false),
        (Some(b'u'), Some(_)) => (6, true),
        (Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't'), _) => (2, true),
        // `\x`, `\u12`: no JSON. Only the backslash is passed, so that a quote or raw character after it counts.
        _ => (1, false),
    }
}

/// The UTF-16 unit that the escape at `at` (a backslash, `u` and four hex digits) stands for.
fn unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = match bytes.get(at..at + 6)? {
        [b'\\', b'u', digits @ ..] if digits.iter().all(u8::is_ascii_hexdigit) => digits,
        _ => return None,
    };
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn bad_characters_become_text_and_good_ones_stay() {
        for (given, expected) in [
            (r#"["a\u0000b"]"#, r#"["a\\u0000b"]"#),
            (r#"["\ud800"]"#, r#"["\\ud800"]"#),
            (r#"["\udc00\ud800x"]"#, r#"["\\udc00\\ud800x"]"#),
            (r#"["\ud83d\ude00"]"#, r#"["\ud83d\ude00"]"#),
            (r#"["\ud800\ud83d\ude00"]"#, r#"["\\ud800\ud83d\ude00"]"#),
            (r#"["\\u0000"]"#, r#"["\\u0000"]"#),
            (r#"["\x41 \u12"]"#, r#"["\\x41 \\u12"]"#),
            ("[\"a\u{0}\u{1}\n\"]", r#"["a\\u0000\u0001\u000a"]"#),
            ("[\n\"a\" ]", "[\n\"a\" ]"),
        ] {
            assert_eq!(sanitise(given), expected);
            serde_json::from_str::<Value>(&sanitise(given)).unwrap();
        }
    }

    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-zé😀 ]{0,4}",
            Just(r"\\".to_owned()),
            Just(r#"\""#.to_owned()),
            Just(r"\u0000".to_owned()),
            Just("\u{0}".to_owned()),
            Just("\u{7}".to_owned()),
            (0xd700u16..0xe100).prop_map(|unit| format!("\\u{unit:04X}")),
            Just(r"\q".to_owned()),
            Just(r"\u1".to_owned()),
        ]
    }

    proptest! {
        #[test]
        fn strings_of_any_pieces_parse_without_nul_and_only_once(
            strings in prop::collection::vec(prop::collection::vec(piece(), 0..8), 0..6)
        ) {
            let text = format!("[{}]", strings.iter()
                .map(|pieces| format!("\"{}\"", pieces.concat())).collect::<Vec<_>>().join(","));
            let clean = sanitise(&text).into_owned();
            let value: Value = serde_json::from_str(&clean).unwrap();
            prop_assert_eq!(value.as_array().unwrap().len(), strings.len());
            let nul = value.as_array().unwrap().iter().any(|string| string.as_str().unwrap().contains('\0'));
            prop_assert!(!nul);
            prop_assert_eq!(sanitise(&clean), clean.as_str());
        }

        #[test]
        fn good_json_is_left_alone(value in prop::collection::vec("[^\u{0}]{0,20}", 0..5)) {
            let text = serde_json::to_string(&value).unwrap();
            prop_assert_eq!(sanitise(&text), text.as_str());
        }

        #[test]
        fn anything_at_all_is_survived(text in any::<String>()) {
            let _ = sanitise(&text);
        }
    }
}
