//! Type/length strings, of SDRs (section 43.15) and of FRU fields (FRU information storage definition, section 13).
//!
//! The two differ in type 0 only: Unicode in an SDR, binary in a FRU.

use std::fmt::Write;

/// How the bytes of a string are to be read: bits 7:6 of its type/length byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Encoding {
    /// Type 0 of an SDR. The specification names no byte order: UTF-16 little-endian, as everything else is.
    Unicode,
    /// Type 0 of a FRU field; written as hexadecimal digits.
    Binary,
    BcdPlus,
    SixBit,
    /// 8-bit ASCII and Latin-1.
    Latin1,
}

impl Encoding {
    pub(crate) const fn of(type_length: u8, type_zero: Self) -> Self {
        match type_length >> 6 {
            0 => type_zero,
            1 => Self::BcdPlus,
            2 => Self::SixBit,
            _ => Self::Latin1,
        }
    }
}

/// The text without padding at its end. Control characters become spaces: a name is printed on terminals.
pub(crate) fn decode(encoding: Encoding, bytes: &[u8]) -> String {
    let mut text = decode_padded(encoding, bytes);
    text.truncate(text.trim_end().len());
    text
}

/// As [`decode`], with the spaces at its end: a name that gets a number may be spelled with one.
pub(crate) fn decode_padded(encoding: Encoding, bytes: &[u8]) -> String {
    let text: String = match encoding {
        Encoding::Unicode => {
            let units = bytes.chunks_exact(2).map(|pair| match *pair {
                [low, high] => u16::from_le_bytes([low, high]),
                _ => 0,
            });
            char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
        }
        Encoding::Binary => bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        }),
        Encoding::BcdPlus => bytes.iter().flat_map(|byte| [bcd(byte >> 4), bcd(byte & 0x0f)]).collect(),
        Encoding::SixBit => six_bit(bytes),
        Encoding::Latin1 => bytes.iter().map(|&byte| char::from(byte)).collect(),
    };
    let text = text.trim_end_matches('\0');
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

const fn bcd(digit: u8) -> char {
    match digit {
        0..=9 => (b'0' + digit) as char,
        0x0a => ' ',
        0x0b => '-',
        0x0c => '.',
        0x0d => ':',
        0x0e => ',',
        _ => '_',
    }
}

/// Four characters in three bytes, the first in the lowest bits; code 0 is a space.
fn six_bit(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 4 / 3);
    let (mut bits, mut count) = (0_u16, 0);
    for &byte in bytes {
        bits |= u16::from(byte) << count;
        count += 8;
        while count >= 6 {
            text.push(char::from(0x20 + (bits & 0x3f).to_le_bytes()[0]));
            bits >>= 6;
            count -= 6;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification() {
        // "IPMI" packed: table 43.15.1.
        assert_eq!(decode(Encoding::SixBit, &[0x29, 0xdc, 0xa6]), "IPMI");
    }

    #[test]
    fn every_encoding_is_read() {
        assert_eq!(decode(Encoding::BcdPlus, &[0x12, 0xb3, 0x4c, 0x5a]), "12-34.5");
        assert_eq!(decode(Encoding::BcdPlus, &[0xde, 0xf0]), ":,_0");
        assert_eq!(decode(Encoding::Latin1, b"T\xb0 \0\0"), "T\u{b0}");
        assert_eq!(decode(Encoding::Latin1, b"a\x1b[2Jb"), "a [2Jb");
        assert_eq!(decode(Encoding::Unicode, &[b'T', 0, 0xa9, 0x03, 9]), "T\u{3a9}");
        assert_eq!(decode(Encoding::Unicode, &[0x00, 0xd8]), "\u{fffd}");
        assert_eq!(decode(Encoding::Binary, &[1, 0xab]), "01ab");
    }
}
