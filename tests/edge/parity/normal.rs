//! Makes answers of different hosts comparable: whatever differs from run to run becomes a placeholder, and
//! the same value the same placeholder, so that a mixed-up id still shows.
//!
//! A placeholder is named after the step in which its value first appeared: `<id 12.1>`.

use std::collections::BTreeMap;

#[derive(Default)]
pub struct Normal {
    names: BTreeMap<String, String>,
    step: usize,
    in_step: usize,
}

impl Normal {
    pub fn begin(&mut self, step: usize) {
        (self.step, self.in_step) = (step, 0);
    }

    /// `numbers`: numbers differ too.
    pub fn text(&mut self, text: &str, numbers: bool) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let length = rest.find(|c| !in_word(c)).unwrap_or(rest.len());
            // JSON has a colon before a number.
            if length == 0 || first == ':' {
                out.push(first);
                rest = &rest[first.len_utf8()..];
                continue;
            }
            let (word, after) = rest.split_at(length);
            let number = word.bytes().all(|byte| byte.is_ascii_digit());
            let elapsed =
                number && (after.starts_with(" seconds") || out.ends_with("predecessor_ended_ms\":"));
            if elapsed || (number && numbers) {
                out.push_str("<n>");
            } else {
                out.push_str(&self.word(word));
            }
            rest = after;
        }
        out
    }

    fn word(&mut self, word: &str) -> String {
        // A sentence may end with it.
        let bare = word.trim_end_matches(['.', ':']);
        // How messages shorten a digest.
        if bare.len() == 12 && is_hex(bare) {
            let whole = self.names.iter().find(|(value, _)| value.len() == 64 && value.starts_with(bare));
            return whole.map_or(word.to_owned(), |(_, name)| format!("{name}…"));
        }
        let Some(kind) = kind(bare) else { return word.to_owned() };
        // A signed token is the same again within a second; a cursor may be the horizon, which moves with
        // time.
        if matches!(kind, "time" | "signed" | "cursor") {
            return format!("<{kind}>{}", &word[bare.len()..]);
        }
        // A trace id is written with and without hyphens.
        let value = if kind == "id" { bare.replace('-', "") } else { bare.to_owned() };
        let name = match self.names.get(&value) {
            Some(name) => name.clone(),
            None => {
                self.in_step += 1;
                let name = format!("<{kind} {}.{}>", self.step, self.in_step);
                self.names.insert(value, name.clone());
                name
            }
        };
        name + &word[bare.len()..]
    }
}

const fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':')
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn kind(word: &str) -> Option<&'static str> {
    let digits = |text: &str| text.len() > 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<_> = word.split('-').map(str::len).collect();
    if parts == [8, 4, 4, 4, 12] && is_hex(&word.replace('-', "")) {
        return Some("id");
    }
    let time = word.len() == 27 && word.as_bytes()[10] == b'T' && word.ends_with('Z');
    // `xid.id`, and an event's, which begins with its era.
    let parts: Vec<_> = word.split('.').collect();
    let cursor = || match parts.as_slice() {
        [xid, id] => digits(xid) && is_hex(id) && !id.is_empty(),
        [era, xid, id] => digits(xid) && [era, id].iter().all(|part| !part.is_empty() && is_hex(part)),
        _ => false,
    };
    let random = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    match word.len() {
        _ if time => Some("time"),
        32 if is_hex(word) => Some("id"),
        64 if is_hex(word) => Some("hash"),
        // A page's cursor: JSON in hex.
        65.. if is_hex(word) && word.starts_with("7b22") => Some("page"),
        // 32 random bytes in base64.
        43 if random(word) => Some("token"),
        // A refresh token: its family's, and its own.
        87 if parts.len() == 2 && parts.iter().all(|part| part.len() == 43 && random(part)) => Some("token"),
        // A signed nonce: time, random bytes and signature.
        118 if random(word) => Some("nonce"),
        _ if word.starts_with("127.0.0.1:") => Some("address"),
        _ if word.split('.').count() == 3 && word.len() > 100 => Some("signed"),
        _ if cursor() => Some("cursor"),
        _ => None,
    }
}

#[test]
fn the_same_value_keeps_the_same_name() {
    let mut normal = Normal::default();
    normal.begin(7);
    let (id, time) = ("01920000-0000-7000-8000-000000000001", "2026-01-02T03:04:05.000006Z");
    let text = format!(r#"{{"id":"{id}","at":"{time}","next":"1234.5","trace":"{}"}}"#, id.replace('-', ""));
    let expected = r#"{"id":"<id 7.1>","at":"<time>","next":"<cursor>","trace":"<id 7.1>"}"#;
    assert_eq!(normal.text(&text, false), expected);
    normal.begin(8);
    let text = format!("{id}. Version 6.10.30.00 after 299 seconds, 12 times, of {}", "ab".repeat(32));
    let expected = "<id 7.1>. Version 6.10.30.00 after <n> seconds, 12 times, of <hash 8.1>";
    assert_eq!(normal.text(&text, false), expected);
    assert_eq!(normal.text(r#"{"sealed":3}"#, true), r#"{"sealed":<n>}"#);
}
