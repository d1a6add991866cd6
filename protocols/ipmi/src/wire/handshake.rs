//! Open Session and RAKP messages 1 to 4 (sections 13.17 to 13.24), as payloads of their own types.
//!
//! An answer with an error status may end early: only the tag, the status and the console's session id are sure.
//! Key exchange codes are opaque bytes here; [`crypto`](super::crypto) makes and checks them.

use std::fmt;

use crate::{
    Malformed,
    wire::{bytes::Reader, suite::Algorithms},
};

/// Longest user name, bytes (section 22.28).
pub const USER_MAX: usize = 16;

/// Longest key exchange code: HMAC-SHA256 (section 13.28.1b).
const CODE_MAX: usize = 32;

/// An RMCP+ status code (table 13-15).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Status(pub u8);

impl Status {
    pub const OK: Self = Self(0x00);
    pub const NO_RESOURCES: Self = Self(0x01);
    pub const INVALID_SESSION: Self = Self(0x02);
    pub const INVALID_PAYLOAD: Self = Self(0x03);
    pub const INVALID_AUTHENTICATION: Self = Self(0x04);
    pub const INVALID_INTEGRITY: Self = Self(0x05);
    pub const NO_MATCHING_AUTHENTICATION: Self = Self(0x06);
    pub const NO_MATCHING_INTEGRITY: Self = Self(0x07);
    pub const INACTIVE_SESSION: Self = Self(0x08);
    pub const INVALID_ROLE: Self = Self(0x09);
    pub const UNAUTHORIZED_ROLE: Self = Self(0x0a);
    pub const NO_RESOURCES_FOR_ROLE: Self = Self(0x0b);
    pub const INVALID_NAME_LENGTH: Self = Self(0x0c);
    pub const UNAUTHORIZED_NAME: Self = Self(0x0d);
    pub const UNAUTHORIZED_GUID: Self = Self(0x0e);
    pub const INVALID_CHECK_VALUE: Self = Self(0x0f);
    pub const INVALID_CONFIDENTIALITY: Self = Self(0x10);
    pub const NO_MATCHING_SUITE: Self = Self(0x11);
    pub const ILLEGAL_PARAMETER: Self = Self(0x12);

    /// What the specification calls it, in our words.
    pub fn name(self) -> &'static str {
        match self.0 {
            0x00 => "no error",
            0x01 => "no free session",
            0x02 => "invalid session id",
            0x03 => "invalid payload type",
            0x04 => "invalid authentication algorithm",
            0x05 => "invalid integrity algorithm",
            0x06 => "no matching authentication payload",
            0x07 => "no matching integrity payload",
            0x08 => "inactive session id",
            0x09 => "invalid role",
            0x0a => "role or privilege level not allowed",
            0x0b => "no free session at that role",
            0x0c => "invalid name length",
            0x0d => "unauthorized name",
            0x0e => "unauthorized GUID",
            0x0f => "invalid integrity check value",
            0x10 => "invalid confidentiality algorithm",
            0x11 => "no matching cipher suite",
            0x12 => "illegal parameter",
            0xc0..=0xff => "of the manufacturer",
            _ => "reserved",
        }
    }

    /// The proposed algorithms are what the BMC objects to.
    pub fn refuses_suite(self) -> bool {
        matches!(
            self,
            Self::INVALID_AUTHENTICATION
                | Self::INVALID_INTEGRITY
                | Self::NO_MATCHING_AUTHENTICATION
                | Self::NO_MATCHING_INTEGRITY
                | Self::INVALID_CONFIDENTIALITY
                | Self::NO_MATCHING_SUITE
        )
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RMCP+ status {:#04x} ({})", self.0, self.name())
    }
}

/// Open Session Request (table 13-9).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenRequest {
    pub tag: u8,
    /// Highest privilege level wanted, 0 for the highest that the algorithms allow.
    pub privilege: u8,
    pub console_session: u32,
    pub algorithms: Algorithms,
}

/// Open Session Response (table 13-10) with status 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenResponse {
    pub tag: u8,
    /// Highest privilege level that the algorithms allow.
    pub privilege: u8,
    pub console_session: u32,
    pub managed_session: u32,
    pub algorithms: Algorithms,
}

/// RAKP message 1 (table 13-11).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rakp1<'a> {
    pub tag: u8,
    pub managed_session: u32,
    pub console_random: [u8; 16],
    /// Privilege level in the low nibble, bit 4 for a look-up by name alone.
    pub role: u8,
    pub user: &'a [u8],
}

/// RAKP message 2 (table 13-12) with status 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rakp2<'a> {
    pub tag: u8,
    pub console_session: u32,
    pub managed_random: [u8; 16],
    pub guid: [u8; 16],
    pub code: &'a [u8],
}

/// RAKP message 3 (table 13-13). Any status but 0 ends the session before it began; the code is then empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rakp3<'a> {
    pub tag: u8,
    pub status: Status,
    pub managed_session: u32,
    pub code: &'a [u8],
}

/// RAKP message 4 (table 13-14) with status 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rakp4<'a> {
    pub tag: u8,
    pub console_session: u32,
    pub check: &'a [u8],
}

/// What a BMC answers instead of an Open Session Response, a RAKP 2 or a RAKP 4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    pub tag: u8,
    pub status: Status,
    /// Absent where the answer ends before it.
    pub console_session: Option<u32>,
}

/// An answer of the BMC: the message, or why not.
pub type Answer<T> = Result<T, Refusal>;

impl Refusal {
    /// Appends a refusal, the same for all three messages.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.tag, self.status.0, 0, 0]);
        out.extend_from_slice(&self.console_session.unwrap_or_default().to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[tag, status], rest) = bytes.split_first_chunk()?;
        let console_session = rest.get(2..).and_then(|rest| rest.first_chunk()).copied();
        (status != Status::OK.0).then_some(Self {
            tag,
            status: Status(status),
            console_session: console_session.map(u32::from_le_bytes),
        })
    }
}

impl OpenRequest {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.tag, self.privilege, 0, 0]);
        out.extend_from_slice(&self.console_session.to_le_bytes());
        encode_algorithms(self.algorithms, out);
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("Open Session Request", bytes);
        let [tag, privilege, _, _] = reader.array()?;
        let console_session = reader.u32()?;
        let algorithms = decode_algorithms(&mut reader)?;
        Ok(Self { tag, privilege: privilege & 0x0f, console_session, algorithms })
    }
}

impl OpenResponse {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.tag, Status::OK.0, self.privilege, 0]);
        out.extend_from_slice(&self.console_session.to_le_bytes());
        out.extend_from_slice(&self.managed_session.to_le_bytes());
        encode_algorithms(self.algorithms, out);
    }

    pub fn decode(bytes: &[u8]) -> Result<Answer<Self>, Malformed> {
        if let Some(refusal) = Refusal::decode(bytes) {
            return Ok(Err(refusal));
        }
        let mut reader = Reader::new("Open Session Response", bytes);
        let [tag, _, privilege, _] = reader.array()?;
        let console_session = reader.u32()?;
        let managed_session = reader.u32()?;
        let algorithms = decode_algorithms(&mut reader)?;
        Ok(Ok(Self { tag, privilege: privilege & 0x0f, console_session, managed_session, algorithms }))
    }
}

impl<'a> Rakp1<'a> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.tag, 0, 0, 0]);
        out.extend_from_slice(&self.managed_session.to_le_bytes());
        out.extend_from_slice(&self.console_random);
        let length = u8::try_from(self.user.len()).unwrap_or(u8::MAX);
        out.extend_from_slice(&[self.role, 0, 0, length]);
        out.extend_from_slice(self.user);
    }

    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("RAKP message 1", bytes);
        let [tag, _, _, _] = reader.array()?;
        let managed_session = reader.u32()?;
        let console_random = reader.array()?;
        let [role, _, _, length] = reader.array()?;
        if usize::from(length) > USER_MAX {
            return Err(reader.malformed("user name too long"));
        }
        let user = reader.take(usize::from(length))?;
        Ok(Self { tag, managed_session, console_random, role, user })
    }
}

impl<'a> Rakp2<'a> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.tag, Status::OK.0, 0, 0]);
        out.extend_from_slice(&self.console_session.to_le_bytes());
        out.extend_from_slice(&self.managed_random);
        out.extend_from_slice(&self.guid);
        out.extend_from_slice(self.code);
    }

    pub fn decode(bytes: &'a [u8]) -> Result<Answer<Self>, Malformed> {
        if let Some(refusal) = Refusal::decode(bytes) {
            return Ok(Err(refusal));
        }
        let mut reader = Reader::new("RAKP message 2", bytes);
        let [tag, _, _, _] = reader.array()?;
        let console_session = reader.u32()?;
        let managed_random = reader.array()?;
        let guid = reader.array()?;
        let code = code(&mut reader)?;
        Ok(Ok(Self { tag, console_session, managed_random, guid, code }))
    }
}

impl<'a> Rakp3<'a> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.tag, self.status.0, 0, 0]);
        out.extend_from_slice(&self.managed_session.to_le_bytes());
        out.extend_from_slice(self.code);
    }

    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("RAKP message 3", bytes);
        let [tag, status, _, _] = reader.array()?;
        let managed_session = reader.u32()?;
        let code = code(&mut reader)?;
        Ok(Self { tag, status: Status(status), managed_session, code })
    }
}

impl<'a> Rakp4<'a> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.tag, Status::OK.0, 0, 0]);
        out.extend_from_slice(&self.console_session.to_le_bytes());
        out.extend_from_slice(self.check);
    }

    pub fn decode(bytes: &'a [u8]) -> Result<Answer<Self>, Malformed> {
        if let Some(refusal) = Refusal::decode(bytes) {
            return Ok(Err(refusal));
        }
        let mut reader = Reader::new("RAKP message 4", bytes);
        let [tag, _, _, _] = reader.array()?;
        let console_session = reader.u32()?;
        let check = code(&mut reader)?;
        Ok(Ok(Self { tag, console_session, check }))
    }
}

fn code<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    if reader.remaining() > CODE_MAX {
        return Err(reader.malformed("code too long"));
    }
    Ok(reader.rest())
}

/// Three algorithm payloads of eight bytes: type, two reserved, length, algorithm, three reserved.
fn encode_algorithms(algorithms: Algorithms, out: &mut Vec<u8>) {
    let numbers = [algorithms.authentication, algorithms.integrity, algorithms.confidentiality];
    for (kind, number) in (0_u8..).zip(numbers) {
        out.extend_from_slice(&[kind, 0, 0, 8, number, 0, 0, 0]);
    }
}

fn decode_algorithms(reader: &mut Reader<'_>) -> Result<Algorithms, Malformed> {
    let mut numbers = [0_u8; 3];
    for (kind, number) in (0_u8..).zip(&mut numbers) {
        let [found, _, _, length, algorithm, _, _, _] = reader.array()?;
        if found != kind {
            return Err(reader.malformed("algorithm payloads out of order"));
        }
        // A length of 0 is a wildcard in a request (table 13-9): the receiver may choose. Nobody here offers it.
        if length != 8 {
            return Err(reader.malformed("algorithm payload of another length"));
        }
        *number = algorithm & 0x3f;
    }
    let [authentication, integrity, confidentiality] = numbers;
    Ok(Algorithms { authentication, integrity, confidentiality })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::suite::Suite;

    #[test]
    fn every_message_is_read_back() {
        let mut out = Vec::new();
        let open = OpenRequest {
            tag: 3,
            privilege: 4,
            console_session: 0x0102_0304,
            algorithms: Suite::S17.algorithms(),
        };
        open.encode(&mut out);
        assert_eq!(out.len(), 32);
        assert_eq!(OpenRequest::decode(&out), Ok(open));

        out.clear();
        let opened = OpenResponse {
            tag: 3,
            privilege: 4,
            console_session: 1,
            managed_session: 2,
            algorithms: Suite::S3.algorithms(),
        };
        opened.encode(&mut out);
        assert_eq!(out.len(), 36);
        assert_eq!(OpenResponse::decode(&out), Ok(Ok(opened)));

        out.clear();
        let rakp1 = Rakp1 { tag: 1, managed_session: 2, console_random: [7; 16], role: 0x14, user: b"admin" };
        rakp1.encode(&mut out);
        assert_eq!(Rakp1::decode(&out), Ok(rakp1));

        out.clear();
        let rakp2 =
            Rakp2 { tag: 1, console_session: 9, managed_random: [8; 16], guid: [5; 16], code: &[1; 20] };
        rakp2.encode(&mut out);
        assert_eq!(Rakp2::decode(&out), Ok(Ok(rakp2)));

        out.clear();
        let rakp3 = Rakp3 { tag: 1, status: Status::OK, managed_session: 9, code: &[1; 32] };
        rakp3.encode(&mut out);
        assert_eq!(Rakp3::decode(&out), Ok(rakp3));

        out.clear();
        let rakp4 = Rakp4 { tag: 1, console_session: 9, check: &[1; 16] };
        rakp4.encode(&mut out);
        assert_eq!(Rakp4::decode(&out), Ok(Ok(rakp4)));
    }

    #[test]
    fn a_refusal_is_read_however_short() {
        let mut out = Vec::new();
        let refusal = Refusal { tag: 1, status: Status::NO_MATCHING_SUITE, console_session: Some(77) };
        refusal.encode(&mut out);
        assert_eq!(OpenResponse::decode(&out), Ok(Err(refusal)));
        assert_eq!(
            Rakp2::decode(&[1, 0x0d]),
            Ok(Err(Refusal { tag: 1, status: Status::UNAUTHORIZED_NAME, console_session: None }))
        );
        assert!(OpenResponse::decode(&[1, 0, 0, 0, 1]).is_err());
    }

    #[test]
    fn a_code_or_a_name_that_is_too_long_is_malformed() {
        assert!(Rakp2::decode(&[0; 4 + 4 + 32 + 33]).is_err());
        let mut rakp1 = vec![0; 28 + 17];
        rakp1[27] = 17;
        assert!(Rakp1::decode(&rakp1).is_err());
    }
}
