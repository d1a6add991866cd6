//! The RMCP header (section 13.1.3) and the ASF presence ping and pong (section 13.2.3, 13.2.4).
//!
//! Every datagram to port 623 begins with four bytes: version 6, a reserved byte, a sequence number and a class. IPMI
//! uses sequence 0xff, which asks for no RMCP acknowledgement.

use crate::{Malformed, wire::bytes::Reader};

/// The port BMCs listen on.
pub const PORT: u16 = 623;

/// Bytes of the header.
pub const HEADER: usize = 4;

const VERSION: u8 = 0x06;
const NO_ACKNOWLEDGEMENT: u8 = 0xff;
/// The IANA enterprise number of ASF, which presence messages carry big-endian.
const ASF: [u8; 4] = 4542_u32.to_be_bytes();
const PING: u8 = 0x80;
const PONG: u8 = 0x40;

/// What follows the header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// A presence message.
    Asf,
    /// An IPMI session wrapper, see [`packet`](super::packet).
    Ipmi,
}

/// Appends the header.
pub fn encode(class: Class, out: &mut Vec<u8>) {
    let class = match class {
        Class::Asf => 0x06,
        Class::Ipmi => 0x07,
    };
    out.extend_from_slice(&[VERSION, 0, NO_ACKNOWLEDGEMENT, class]);
}

/// The class of a datagram; what follows begins at [`HEADER`].
pub fn decode(datagram: &[u8]) -> Result<Class, Malformed> {
    let mut reader = Reader::new("RMCP header", datagram);
    let [version, _, _, class] = reader.array()?;
    if version != VERSION {
        return Err(reader.malformed("not RMCP version 1.0"));
    }
    match class {
        0x06 => Ok(Class::Asf),
        0x07 => Ok(Class::Ipmi),
        // Bit 7 marks an acknowledgement, which nobody asked for.
        _ => Err(reader.malformed("neither ASF nor IPMI")),
    }
}

/// A presence message: is a BMC there?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Presence {
    Ping {
        tag: u8,
    },
    Pong {
        tag: u8,
        /// The BMC says that it speaks IPMI.
        ipmi: bool,
    },
}

impl Presence {
    /// Appends the message after its RMCP header.
    pub fn encode(self, out: &mut Vec<u8>) {
        encode(Class::Asf, out);
        out.extend_from_slice(&ASF);
        match self {
            Self::Ping { tag } => out.extend_from_slice(&[PING, tag, 0, 0]),
            Self::Pong { tag, ipmi } => {
                out.extend_from_slice(&[PONG, tag, 0, 16]);
                out.extend_from_slice(&ASF);
                out.extend_from_slice(&[0; 4]);
                // Supported entities: bit 7 is IPMI, 1 in the low nibble is ASF version 1.0.
                out.extend_from_slice(&[if ipmi { 0x81 } else { 0x01 }, 0, 0, 0, 0, 0, 0, 0]);
            }
        }
    }

    /// Reads what follows an RMCP header of class ASF.
    pub fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("ASF presence message", body);
        if reader.array()? != ASF {
            return Err(reader.malformed("not of ASF"));
        }
        let [kind, tag, _, length] = reader.array()?;
        match (kind, length) {
            (PING, 0) => Ok(Self::Ping { tag }),
            (PONG, 16) => {
                reader.take(8)?;
                let entities = reader.u8()?;
                reader.take(7)?;
                Ok(Self::Pong { tag, ipmi: entities & 0x80 != 0 })
            }
            _ => Err(reader.malformed("neither ping nor pong")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presence_messages_are_read_back() {
        for message in [
            Presence::Ping { tag: 7 },
            Presence::Pong { tag: 9, ipmi: true },
            Presence::Pong { tag: 0, ipmi: false },
        ] {
            let mut out = Vec::new();
            message.encode(&mut out);
            assert_eq!(decode(&out), Ok(Class::Asf));
            assert_eq!(Presence::decode(&out[HEADER..]), Ok(message));
        }
    }

    #[test]
    fn a_ping_has_the_bytes_of_section_13_2_3() {
        let mut out = Vec::new();
        Presence::Ping { tag: 0 }.encode(&mut out);
        assert_eq!(hex::encode(out), "0600ff06000011be80000000");
    }

    #[test]
    fn other_protocols_are_malformed() {
        assert!(decode(b"").is_err());
        assert!(decode(&[6, 0, 0xff, 0x87]).is_err());
        assert!(decode(&[5, 0, 0xff, 7]).is_err());
    }
}
