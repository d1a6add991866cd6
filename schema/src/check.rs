//! Rules for text fields, for garde's `custom`. Without regular expressions: their engine would be a quarter of
//! what a Wasm host loads.

use std::net::{Ipv4Addr, Ipv6Addr};

use garde::Error;

/// SHA-256 as this crate writes it.
pub(crate) fn sha256_hex(text: &str, _: &()) -> garde::Result {
    let sound = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if sound { Ok(()) } else { Err(Error::new("is not a SHA-256 of 64 lower-case hex digits")) }
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
        !rest.is_empty() && !rest.chars().any(|c| c == '@' || c.is_whitespace() || c.is_control())
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
        for right in ["http://a", "https://repo.example/x.exe?y=1"] {
            assert!(web_address(right, &()).is_ok(), "{right}");
        }
        for wrong in ["", "ftp://x", "https://", "https://user:pass@host/", "https://a b", "https://a\n"] {
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
}
