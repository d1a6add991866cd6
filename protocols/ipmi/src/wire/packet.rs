//! Session wrappers, the part of a datagram after its RMCP header (section 13.6).
//!
//! Two forms: the IPMI 1.5 one without authentication, for the few commands that come before a session (section
//! 13.27.1), and RMCP+, whose payload may be encrypted and whose packet may end in an integrity code. [`seal`] and
//! [`open`] are for both sides: keys are the same in both directions.

use crate::{
    Malformed,
    wire::{
        bytes::Reader,
        crypto::{Iv, Keys, OpenError},
        rmcp,
    },
};

/// Authentication type and format that marks RMCP+ (table 13-8).
const RMCP_PLUS: u8 = 0x06;
/// Authentication type "none" of IPMI 1.5.
const NONE: u8 = 0x00;
/// The fixed "next header" before an integrity code (table 13-8).
const NEXT_HEADER: u8 = 0x07;
const ENCRYPTED: u8 = 0x80;
const AUTHENTICATED: u8 = 0x40;

/// Longest payload written, bytes; what arrives is bounded by its datagram.
pub const PAYLOAD_MAX: usize = 4096;

/// Payload type, six bits (table 13-16).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PayloadKind(pub u8);

impl PayloadKind {
    pub const IPMI: Self = Self(0x00);
    pub const SOL: Self = Self(0x01);
    /// Names its kind by an enterprise number; never used here, refused when received.
    pub const OEM_EXPLICIT: Self = Self(0x02);
    pub const OPEN_REQUEST: Self = Self(0x10);
    pub const OPEN_RESPONSE: Self = Self(0x11);
    pub const RAKP_1: Self = Self(0x12);
    pub const RAKP_2: Self = Self(0x13);
    pub const RAKP_3: Self = Self(0x14);
    pub const RAKP_4: Self = Self(0x15);
}

/// Where an RMCP+ packet belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub kind: PayloadKind,
    pub encrypted: bool,
    pub authenticated: bool,
    /// The receiver's session id, 0 outside a session.
    pub session: u32,
    /// Counts up from 1 in each direction, apart for authenticated packets and others; 0 outside a session.
    pub sequence: u32,
}

impl Header {
    /// Of a packet outside any session, such as those that open one.
    pub fn sessionless(kind: PayloadKind) -> Self {
        Self { kind, encrypted: false, authenticated: false, session: 0, sequence: 0 }
    }

    /// The header alone, to find the session that has the keys.
    pub fn peek(body: &[u8]) -> Result<Self, Malformed> {
        Ok(split(body)?.0)
    }
}

/// Which wrapper follows the RMCP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// IPMI 1.5 without authentication: [`open_sessionless`].
    Sessionless,
    /// RMCP+: [`open`].
    RmcpPlus,
}

impl Form {
    pub fn of(body: &[u8]) -> Result<Self, Malformed> {
        match body.first() {
            Some(&NONE) => Ok(Self::Sessionless),
            Some(&RMCP_PLUS) => Ok(Self::RmcpPlus),
            _ => Err(Malformed { what: "session header", why: "unknown authentication type" }),
        }
    }
}

/// Appends a whole datagram in the IPMI 1.5 form, without a session. `message` is at most 255 bytes.
pub fn seal_sessionless(message: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let length = u8::try_from(message.len())
        .map_err(|_| Malformed { what: "IPMI 1.5 packet", why: "payload too long" })?;
    rmcp::encode(rmcp::Class::Ipmi, out);
    out.extend_from_slice(&[NONE, 0, 0, 0, 0, 0, 0, 0, 0, length]);
    out.extend_from_slice(message);
    Ok(())
}

/// The message inside an IPMI 1.5 packet that belongs to no session.
pub fn open_sessionless(body: &[u8]) -> Result<&[u8], Malformed> {
    let mut reader = Reader::new("IPMI 1.5 packet", body);
    let [form, _, _, _, _, a, b, c, d, length] = reader.array()?;
    if form != NONE {
        return Err(reader.malformed("authenticated"));
    }
    if [a, b, c, d] != [0; 4] {
        return Err(reader.malformed("of a session"));
    }
    reader.take(usize::from(length))
}

/// Appends a whole RMCP+ datagram. `keys` are needed where the header says encrypted or authenticated; `iv` must be
/// unpredictable for each encrypted packet.
pub fn seal(
    header: Header,
    payload: &[u8],
    keys: Option<&Keys>,
    iv: &Iv,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    const WHAT: &str = "RMCP+ packet";
    if payload.len() > PAYLOAD_MAX {
        return Err(Malformed { what: WHAT, why: "payload too long" });
    }
    if keys.is_none() && (header.encrypted || header.authenticated) {
        return Err(Malformed { what: WHAT, why: "no keys" });
    }
    let begin = out.len();
    rmcp::encode(rmcp::Class::Ipmi, out);
    let mut kind = header.kind.0 & 0x3f;
    if header.encrypted {
        kind |= ENCRYPTED;
    }
    if header.authenticated {
        kind |= AUTHENTICATED;
    }
    out.extend_from_slice(&[RMCP_PLUS, kind]);
    out.extend_from_slice(&header.session.to_le_bytes());
    out.extend_from_slice(&header.sequence.to_le_bytes());
    let length_at = out.len();
    out.extend_from_slice(&[0, 0]);
    match keys {
        Some(keys) if header.encrypted => keys.encrypt(payload, iv, out),
        _ => out.extend_from_slice(payload),
    }
    let length = u16::try_from(out.len() - length_at - 2)
        .map_err(|_| Malformed { what: WHAT, why: "payload too long" })?;
    if let Some(place) = out.get_mut(length_at..length_at + 2) {
        place.copy_from_slice(&length.to_le_bytes());
    }
    if let Some(keys) = keys
        && header.authenticated
    {
        // Padding of 0xff makes everything from the authentication type to the next header a multiple of four.
        let covered = out.len() - begin - rmcp::HEADER + 2;
        let padding = covered.wrapping_neg() % 4;
        out.extend(std::iter::repeat_n(0xff, padding));
        out.extend_from_slice(&[u8::try_from(padding).unwrap_or_default(), NEXT_HEADER]);
        let code = keys.integrity(out.get(begin + rmcp::HEADER..).unwrap_or_default());
        out.extend_from_slice(code.as_slice());
    }
    Ok(())
}

/// The payload of an RMCP+ packet (what follows the RMCP header): its integrity code is checked first, then the
/// payload is decrypted in place. A packet that claims less protection than it should is the caller's to refuse: see
/// [`Header`].
pub fn open<'a>(body: &'a mut [u8], keys: Option<&Keys>) -> Result<(Header, &'a [u8]), OpenError> {
    let (header, place) = split(body)?;
    if header.authenticated {
        let keys = keys.ok_or(OpenError::NoKeys)?;
        let trailer = body.get(place.end..).unwrap_or_default();
        let (signed, code) = keys.split_integrity(body).ok_or(OpenError::Forged)?;
        if !keys.verify(signed, code) {
            return Err(OpenError::Forged);
        }
        let rest = trailer.len().saturating_sub(code.len());
        let padding = trailer.get(..rest).unwrap_or_default();
        let Some((padding, &[length, NEXT_HEADER])) = padding.split_last_chunk::<2>() else {
            return Err(Malformed { what: "RMCP+ packet", why: "no session trailer" }.into());
        };
        if usize::from(length) != padding.len() {
            return Err(Malformed { what: "RMCP+ packet", why: "wrong integrity padding" }.into());
        }
    }
    let payload = body.get_mut(place).unwrap_or_default();
    if header.encrypted {
        let keys = keys.ok_or(OpenError::NoKeys)?;
        return Ok((header, keys.decrypt(payload)?));
    }
    Ok((header, payload))
}

/// The header, and where the payload lies in `body`.
fn split(body: &[u8]) -> Result<(Header, std::ops::Range<usize>), Malformed> {
    let mut reader = Reader::new("RMCP+ packet", body);
    let [form, kind] = reader.array()?;
    if form != RMCP_PLUS {
        return Err(reader.malformed("another authentication type"));
    }
    let header = Header {
        kind: PayloadKind(kind & 0x3f),
        encrypted: kind & ENCRYPTED != 0,
        authenticated: kind & AUTHENTICATED != 0,
        session: 0,
        sequence: 0,
    };
    if header.kind == PayloadKind::OEM_EXPLICIT {
        return Err(reader.malformed("an OEM payload"));
    }
    let header = Header { session: reader.u32()?, sequence: reader.u32()?, ..header };
    let length = usize::from(reader.u16()?);
    let start = body.len() - reader.remaining();
    reader.take(length)?;
    Ok((header, start..start + length))
}
