//! Rules for text fields, for garde's `custom`. Without regular expressions: their engine would be a quarter of
//! what a Wasm host loads.

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

#[cfg(test)]
mod tests {
    use super::*;

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
