//! Rules for text fields, for garde's `custom`. Without regular expressions: their engine would be a quarter of
//! what a Wasm host loads.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
};

use garde::Error;

/// SHA-256 as this crate writes it.
pub(crate) fn sha256_hex(text: &str, _: &()) -> garde::Result {
    let sound = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if sound { Ok(()) } else { Err(Error::new("is not a SHA-256 of 64 lower-case hex digits")) }
}

/// Whether an address may hold a password: what stands before a `@`, also an encoded one, or one that a URL takes for it
/// (IDNA maps them, UTS #46). Such a text is not repeated.
pub fn may_hold_password(address: &str) -> bool {
    last_at(address).is_some()
}

/// Whether a text that is no address has one with a password in it: a colon, and a `@` behind it.
pub fn has_password(text: &str) -> bool {
    let before = last_at(text).and_then(|at| text.get(..at)).unwrap_or_default();
    before.contains([':', '：']) || before.to_ascii_lowercase().contains("%3a")
}

fn last_at(text: &str) -> Option<usize> {
    text.rfind(['@', '＠', '﹫']).max(text.rfind("%40"))
}

/// A plain file name: no path, nothing a shell or URL treats specially.
pub(crate) fn file_name(text: &str, _: &()) -> garde::Result {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let sound = text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && text.len() <= 200
        && text.bytes().all(plain);
    if sound {
        Ok(())
    } else {
        Err(Error::new(
            "is not a plain file name: letters, digits, `.`, `_` and `-`, a letter or digit first",
        ))
    }
}

/// A web address without credentials in it.
pub(crate) fn web_address(text: &str, _: &()) -> garde::Result {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let sound = rest.is_some_and(|rest| {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        !rest.is_empty()
            && !may_hold_password(authority)
            && !rest.chars().any(|c| c == '@' || c.is_whitespace() || c.is_control())
    });
    if sound { Ok(()) } else { Err(Error::new("is not an http:// or https:// address without a user in it")) }
}

/// `https://host[:port]`, with `/redfish/v1/Systems/<id>` where one system of several is meant (DSP0266, "Resource
/// URI patterns"); or `ipmi://host[:port]`.
pub(crate) fn bmc_address(text: &str, _: &()) -> garde::Result {
    if let Some(address) = text.strip_prefix("ipmi://") {
        return ipmi_address(address, &());
    }
    let rest = text
        .strip_prefix("https://")
        .ok_or_else(|| Error::new("a BMC address starts with https:// or ipmi://"))?;
    let (authority, system) = match rest.find('/') {
        Some(path) => (rest.get(..path).unwrap_or_default(), rest.get(path..)),
        None => (rest, None),
    };
    let system_fits = |path: &str| path.strip_prefix("/redfish/v1/Systems/").is_some_and(is_segment);
    if is_authority(authority) && system.is_none_or(system_fits) {
        return Ok(());
    }
    Err(Error::new(
        "a BMC address is https://host[:port], or https://host[:port]/redfish/v1/Systems/<id> for one system of several",
    ))
}

/// `host[:port]`.
pub(crate) fn ipmi_address(text: &str, _: &()) -> garde::Result {
    if is_authority(text) { Ok(()) } else { Err(Error::new("an IPMI address is host[:port]")) }
}

/// One spelling for each address, so that one service cannot be registered twice by accident: numbers without leading
/// zeros, IPv6 in brackets and short (RFC 5952).
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port_fits =
        |port: &str| port.parse::<u16>().is_ok_and(|number| number > 0 && number.to_string() == port);
    let host_fits = if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        address.parse::<Ipv6Addr>().is_ok_and(|parsed| parsed.to_string() == address.to_ascii_lowercase())
    } else if host.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit())) {
        host.parse::<Ipv4Addr>().is_ok()
    } else {
        let in_label = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        host.split('.').all(|label| !label.is_empty() && label.bytes().all(in_label))
    };
    host_fits && port.is_none_or(port_fits)
}

/// A path segment that needs no escapes: the unreserved characters of RFC 3986, §2.3.
fn is_segment(text: &str) -> bool {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    !text.is_empty() && text != "." && text != ".." && text.bytes().all(unreserved)
}

/// An e-mail address as people type it: one `@`, a dot in the host, nothing that could not stand in a header.
/// Whether mail arrives there only a mail can show.
pub(crate) fn email(text: &str, _: &()) -> garde::Result {
    let sound = text.split_once('@').is_some_and(|(mailbox, host)| {
        let labels = host.split('.').count();
        let label = |label: &str| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.chars().all(|c| c.is_alphanumeric() || c == '-')
        };
        let mailbox_fits = |c: char| !c.is_whitespace() && !c.is_control() && !"@<>()[]\\,;:\"".contains(c);
        !mailbox.is_empty() && mailbox.chars().all(mailbox_fits) && labels > 1 && host.split('.').all(label)
    });
    if sound { Ok(()) } else { Err(Error::new("is not an e-mail address")) }
}

/// A text that people read: nothing that hides, reverses or imitates (control and format characters of Unicode, spaces
/// at the ends).
///
/// Letters of other scripts that look alike are taken, and so is an accent that stands as a character of its own: to
/// refuse what is not in Unicode's form NFC takes tables that add 67 kB, compressed, to a Worker of at most 1 MB.
pub(crate) fn visible(text: &str, _: &()) -> garde::Result {
    let hides = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{180e}'
                | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e007f}')
    };
    if text.chars().any(hides) {
        return Err(Error::new("contains a character that cannot be seen"));
    }
    if text.trim() != text {
        return Err(Error::new("begins or ends with a space"));
    }
    Ok(())
}

/// A [`visible`] name that is not our own, under which the system acts.
pub(crate) fn name(text: &str, context: &()) -> garde::Result {
    visible(text, context)?;
    if text.eq_ignore_ascii_case("rackhand") || text.eq_ignore_ascii_case("anonymous") {
        return Err(Error::new("is a name under which Rackhand itself acts"));
    }
    Ok(())
}

/// The name of a server: a [`name`], and no address with a password in it, which would stay in the record of events.
pub(crate) fn server_name(text: &str, context: &()) -> garde::Result {
    name(text, context)?;
    if has_password(text) {
        return Err(Error::new("looks like an address with a password: write the server's name"));
    }
    Ok(())
}

/// What a site may be called, in words. The page that adds a site shows the same (`ui/src/lib/siteConfig.ts`).
const SITE_NAME: &str = "a site's name has 1 to 80 characters, no space at either end and no character that cannot be seen, and is not rackhand or anonymous";

/// The name of a site. Whatever is wrong, the whole rule is said.
pub(crate) fn site_name(text: &str, context: &()) -> garde::Result {
    let fits = !text.is_empty() && text.chars().nth(80).is_none() && name(text, context).is_ok();
    if fits { Ok(()) } else { Err(Error::new(SITE_NAME)) }
}

/// Characters of a password, at most.
const LONGEST_PASSWORD: usize = 1024;
/// Fewest characters of a password.
const SHORTEST_PASSWORD: usize = 12;

/// What the passwords that everybody tries first are made of; digits and signs around them change nothing.
const COMMON: &[&str] = &[
    "abcd",
    "access",
    "admin",
    "administrator",
    "baseball",
    "calvin",
    "changeme",
    "changeit",
    "charlie",
    "computer",
    "correcthorsebatterystaple",
    "daniel",
    "default",
    "dragon",
    "football",
    "freedom",
    "guest",
    "hello",
    "iloveyou",
    "internet",
    "jennifer",
    "jordan",
    "letmein",
    "liverpool",
    "login",
    "master",
    "michael",
    "michelle",
    "monkey",
    "mustang",
    "operator",
    "passphrase",
    "password",
    "passwort",
    "pokemon",
    "princess",
    "qazwsx",
    "qazwsxedc",
    "qwerty",
    "qwertyuiop",
    "qwertyuiopasdfghjkl",
    "qwertz",
    "qwertzuiop",
    "asdfghjkl",
    "zxcvbnm",
    "rackhand",
    "root",
    "samsung",
    "secret",
    "server",
    "shadow",
    "soccer",
    "spring",
    "starwars",
    "summer",
    "sunshine",
    "superman",
    "supervisor",
    "system",
    "test",
    "thomas",
    "trustno",
    "user",
    "welcome",
    "whatever",
    "winter",
    "autumn",
];

/// A password that is not among the first that are tried: made of a common word with digits and signs around it, of
/// such words one after the other, of one short piece repeated, or of a row of neighbours.
pub(crate) fn password(text: &str, _: &()) -> garde::Result {
    if text.chars().nth(LONGEST_PASSWORD).is_some() {
        return Err(Error::new(format!("has more than {LONGEST_PASSWORD} characters")));
    }
    if text.chars().count() < SHORTEST_PASSWORD {
        return Err(Error::new(format!("has fewer than {SHORTEST_PASSWORD} characters")));
    }
    let lower = text.to_lowercase();
    let plain: String = lower
        .trim_matches(|c: char| !c.is_alphabetic())
        .chars()
        .map(|c| match c {
            '0' => 'o',
            '1' | '!' => 'i',
            '3' => 'e',
            '4' | '@' => 'a',
            '5' | '$' => 's',
            '7' => 't',
            c => c,
        })
        .collect();
    let letters = |text: &str| text.chars().filter(|c| c.is_alphabetic()).collect::<String>();
    let words = [letters(&lower), letters(&plain)];
    let common = words.iter().any(|word| !word.is_empty() && made_of_common(word))
        || (letters(&lower).is_empty() && lower.chars().count() < 20);
    if common || repeats(&lower) || is_row(&lower) {
        return Err(Error::new("is too common; choose another one"));
    }
    Ok(())
}

/// Whether `word` can be cut into common words. Each place where one of them may begin is looked at once: strangers
/// choose the text.
fn made_of_common(word: &str) -> bool {
    let mut places = BTreeSet::from([0]);
    while let Some(place) = places.pop_first() {
        let rest = word.get(place..).unwrap_or_default();
        if rest.is_empty() {
            return true;
        }
        let first_words = COMMON.iter().filter(|common| rest.starts_with(**common));
        places.extend(first_words.map(|common| place + common.len()));
    }
    false
}

/// One piece of up to four characters, again and again.
fn repeats(text: &str) -> bool {
    let all: Vec<char> = text.chars().collect();
    (1..=4).any(|length| all.iter().zip(all.iter().skip(length)).all(|(a, b)| a == b))
}

/// Each character follows the one before it, up or down.
fn is_row(text: &str) -> bool {
    let steps = || {
        text.chars().zip(text.chars().skip(1)).map(|(a, b)| i64::from(u32::from(b)) - i64::from(u32::from(a)))
    };
    steps().all(|step| step == 1) || steps().all(|step| step == -1)
}

/// A moment as RFC 3339 writes it, in UTC and to the second: `2026-12-01T22:00:00Z`.
pub(crate) fn utc_time(text: &str, _: &()) -> garde::Result {
    let number = |range: std::ops::Range<usize>| {
        let digits = text.get(range)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u32>().ok()).flatten()
    };
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'Z')];
    let bytes = text.as_bytes();
    let shaped = bytes.len() == 20 && marks.iter().all(|(at, mark)| bytes.get(*at) == Some(mark));
    let sound = || {
        let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
        let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => 0,
        };
        Some((1..=days).contains(&day) && year > 1970 && hour < 24 && minute < 60 && second < 60)
    };
    if shaped && sound() == Some(true) {
        Ok(())
    } else {
        Err(Error::new("is not a time in UTC like 2026-12-01T22:00:00Z"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bmc_address_is_an_origin_or_one_system_of_it() {
        for right in [
            "https://10.0.0.7",
            "https://10.0.0.7:8443",
            "https://BMC-7.rack_2.example",
            "https://localhost:1",
            "https://[fd00::7]",
            "https://[FD00::7]:443",
            "https://10.0.0.7/redfish/v1/Systems/System.Embedded.1",
            "https://[fd00::7]:8443/redfish/v1/Systems/1",
            "https://a/redfish/v1/Systems/~a-b_c.d",
            "ipmi://10.0.0.7",
            "ipmi://bmc-7.example:6230",
            "ipmi://[fd00::7]",
        ] {
            assert!(bmc_address(right, &()).is_ok(), "{right}");
        }
        for wrong in [
            "",
            "https://",
            "http://10.0.0.7",
            "HTTPS://10.0.0.7",
            "10.0.0.7",
            "https://10.0.0.7/",
            "https://10.0.0.7/redfish/v1",
            "https://10.0.0.7/redfish/v1/Systems",
            "https://10.0.0.7/redfish/v1/Systems/",
            "https://10.0.0.7/redfish/v1/Systems/.",
            "https://10.0.0.7/redfish/v1/Systems/..",
            "https://10.0.0.7/redfish/v1/Systems/1/",
            "https://10.0.0.7/redfish/v1/Systems/1/Bios",
            "https://10.0.0.7/redfish/v1/Systems/a%2e",
            "https://10.0.0.7/redfish/v1/Systems/1?x",
            "https://10.0.0.7/redfish/v1/systems/1",
            "https://10.0.0.7/redfish/v1/Managers/1",
            "https://10.0.0.7?x",
            "https://10.0.0.7#x",
            "https://root:calvin@10.0.0.7",
            "https://10.0.0.7:",
            "https://10.0.0.7:0",
            "https://10.0.0.7:0443",
            "https://10.0.0.7:65536",
            "https://10.0.0.07",
            "https://10.7",
            "https://167772167",
            "https://fd00::7",
            "https://[fd00::0007]",
            "https://[fe80::7%25eth0]",
            "https://bmc.example.",
            "https://bmc..example",
            "https://b mc",
            "https://bmc\u{0}",
            "https://b\u{fc}cher.example",
            " https://10.0.0.7",
            "ipmi://",
            "ipmi://10.0.0.7/",
            "ipmi://root@10.0.0.7",
            "ipmi://10.0.0.7:0623",
            "ipmi:10.0.0.7",
        ] {
            assert!(bmc_address(wrong, &()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_fits_and_what_does_not() {
        let hex = "0123456789abcdef".repeat(4);
        assert!(sha256_hex(&hex, &()).is_ok());
        for wrong in ["", &hex[1..], &hex.to_uppercase(), &format!("{hex}0")] {
            assert!(sha256_hex(wrong, &()).is_err(), "{wrong}");
        }
        for right in ["BIOS_R750.EXE", "a", "0-x.bin"] {
            assert!(file_name(right, &()).is_ok(), "{right}");
        }
        for wrong in ["", ".hidden", "a/b", "../x", "a b", "a\0", "ä", &"a".repeat(201)] {
            assert!(file_name(wrong, &()).is_err(), "{wrong}");
        }
        for right in ["http://a", "https://repo.example/x.exe?y=1", "https://repo.example/a%40b.exe"] {
            assert!(web_address(right, &()).is_ok(), "{right}");
        }
        for wrong in [
            "",
            "ftp://x",
            "https://",
            "https://user:pass@host/",
            "https://user:pass%40host/",
            "https://a b",
            "https://a\n",
        ] {
            assert!(web_address(wrong, &()).is_err(), "{wrong}");
        }
        for right in ["2026-12-01T22:00:00Z", "2028-02-29T00:00:00Z"] {
            assert!(utc_time(right, &()).is_ok(), "{right}");
        }
        for wrong in [
            "",
            "2026-12-01",
            "2026-12-01T22:00:00",
            "2026-12-01T22:00:00+01:00",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-12-01T24:00:00Z",
            "2026-12-00T00:00:00Z",
            "+026-12-01T22:00:00Z",
            "2026-12-01t22:00:00z",
        ] {
            assert!(utc_time(wrong, &()).is_err(), "{wrong}");
        }
        for right in ["a@b.example", "first.last+tag@mail.b-c.example", "ö@bücher.example"] {
            assert!(email(right, &()).is_ok(), "{right}");
        }
        for wrong in
            ["", "a", "@b.c", "a@", "a@b", "a@b..c", "a b@c.d", "a@b@c.d", "a@-b.c", "<a@b.c>", "a@b.c\n"]
        {
            assert!(email(wrong, &()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_passwords_that_are_tried_first_are_refused() {
        for common in [
            "password1234",
            "Password2026!",
            "P@ssw0rd1234",
            "123456789012",
            "000000000000",
            "qwertyuiop12",
            "abcdefghijkl",
            "adminadmin12",
            "changeme2026",
            "Welcome12345",
            "rackhand-2026",
            "calvincalvin",
            "abcabcabcabc",
            "letmein!letmein",
            "CorrectHorseBatteryStaple",
        ] {
            assert!(password(common, &()).is_err(), "{common}");
        }
        let said = |text: &str| password(text, &()).unwrap_err().to_string();
        assert_eq!(said(""), "has fewer than 12 characters");
        assert_eq!(said("password1234"), "is too common; choose another one");
        for good in [
            "correct horse battery",
            "a password of Ada's own",
            "long enough for this",
            "xK9!mmQ2vvT4",
            "Tür an der Ecke",
        ] {
            assert!(password(good, &()).is_ok(), "{good}");
        }
    }

    #[test]
    fn a_password_takes_neither_time_nor_stack_by_its_length() {
        let (give, take) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let refused = |text: &str| password(text, &()).is_err();
            let many_ways = "qwertyuiopasdfghjkl".repeat(53);
            let answers = [
                refused(&many_ways),
                refused(&format!("{many_ways}zz")),
                refused(&"test".repeat(400_000)),
                refused(&"x".repeat(400_000)),
                made_of_common(&"test".repeat(400_000)),
            ];
            let _ = give.send(answers);
        });
        let answers = take.recv_timeout(std::time::Duration::from_secs(20)).expect("an answer");
        assert_eq!(answers, [true, false, true, true, true]);
    }

    #[test]
    fn one_rule_says_what_a_site_may_be_called() {
        let longest = "n".repeat(80);
        for good in ["lab", "my lab", "Zürich 2", "a/b", &longest] {
            assert!(site_name(good, &()).is_ok(), "{good}");
        }
        for wrong in ["", " ", " lab", "lab ", "la\u{200b}b", "Rackhand", "ANONYMOUS", &format!("{longest}n")]
        {
            assert_eq!(site_name(wrong, &()).unwrap_err().to_string(), SITE_NAME, "{wrong:?}");
        }
    }

    #[test]
    fn names_hide_nothing_and_are_nobody_elses() {
        for bad in [
            "executor\u{202e}1",
            "ada\u{200b}",
            "a\nb",
            " ada",
            "Rackhand",
            "anonymous",
            "\u{1b}[31m",
            "tag\u{e0041}",
        ] {
            assert!(name(bad, &()).is_err(), "{bad:?}");
        }
        for bad in [
            "https://root:calvin@10.0.0.9",
            "root:calvin%4010.0.0.9",
            "root%3Acalvin@10.0.0.9",
            "root:calvin＠10.0.0.9",
        ] {
            assert!(server_name(bad, &()).is_err() && name(bad, &()).is_ok(), "{bad}");
        }
        for good in
            ["Ada Admin", "Zoë", "node-0001", "高橋", "rack 3 @ hall 2", "node@hall:2", "idrac@dc1/r12"]
        {
            assert!(server_name(good, &()).is_ok(), "{good}");
        }
    }
}
