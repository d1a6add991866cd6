//! One SOL packet (section 15.9, tables 15-1 and 15-2): four bytes and then characters.

use crate::Malformed;

/// Characters that fit into one packet: their count travels in one byte.
pub const MAX_CHARACTERS: usize = 255;
/// Bytes before the characters.
pub const HEADER: usize = 4;

const NACK: u8 = 1 << 6;

/// Bits of the fourth byte from the console to the BMC (table 15-1).
pub mod operation {
    /// Send a break on the serial line.
    pub const BREAK: u8 = 1 << 4;
    /// Take CTS away from the host: it should stop sending.
    pub const CTS_PAUSE: u8 = 1 << 3;
    /// Take DCD and DSR away from the host: the line looks hung up.
    pub const DROP_DCD_DSR: u8 = 1 << 2;
}

/// Bits of the fourth byte from the BMC to the console (table 15-2).
pub mod status {
    /// The host cannot take characters: it is off, asleep or in reset.
    pub const UNAVAILABLE: u8 = 1 << 5;
    /// SOL is being deactivated, or is not active.
    pub const DEACTIVATING: u8 = 1 << 4;
    /// Characters from the host were lost inside the BMC.
    pub const OVERRUN: u8 = 1 << 3;
    /// The host sent a break.
    pub const BREAK: u8 = 1 << 2;
}

/// A packet of either direction; the meaning of `flags` depends on it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Packet {
    /// 1 to 15; 0 for a packet that only acknowledges or informs.
    pub sequence: u8,
    /// The packet this one answers, 1 to 15; 0 for none.
    pub acknowledges: u8,
    /// How many of the answered packet's characters were taken.
    pub accepted: u8,
    /// The answered packet was not taken, or not wholly; the sender is to pause.
    pub nack: bool,
    /// [`operation`] or [`status`] bits.
    pub flags: u8,
    pub characters: Vec<u8>,
}

/// An answer without characters of its own.
pub fn ack_only(acknowledges: u8, accepted: usize, nack: bool) -> Packet {
    let accepted = u8::try_from(accepted).unwrap_or(u8::MAX);
    Packet { acknowledges, accepted, nack, ..Packet::default() }
}

impl Packet {
    pub fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        let [sequence, acknowledges, accepted, flags, characters @ ..] = payload else {
            return Err(Malformed { what: "SOL packet", why: "shorter than its header" });
        };
        if characters.len() > MAX_CHARACTERS {
            return Err(Malformed { what: "SOL packet", why: "more characters than can be counted" });
        }
        Ok(Self {
            sequence: sequence & 0x0f,
            acknowledges: acknowledges & 0x0f,
            accepted: *accepted,
            nack: flags & NACK != 0,
            flags: flags & !NACK,
            characters: characters.to_vec(),
        })
    }

    pub fn encode(&self) -> Vec<u8> {
        let nack = if self.nack { NACK } else { 0 };
        let mut payload = Vec::with_capacity(HEADER + self.characters.len());
        payload.extend([self.sequence & 0x0f, self.acknowledges & 0x0f, self.accepted, self.flags | nack]);
        payload.extend(&self.characters);
        payload
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes laid out by hand from tables 15-1 and 15-2.
    #[test]
    fn the_header_is_as_the_tables_say() {
        let packet = Packet {
            sequence: 3,
            acknowledges: 15,
            accepted: 7,
            nack: true,
            flags: operation::BREAK,
            characters: b"ok".to_vec(),
        };
        assert_eq!(packet.encode(), [0x03, 0x0f, 0x07, 0x50, b'o', b'k']);
        assert_eq!(Packet::parse(&packet.encode()).unwrap(), packet);
        let packet = Packet::parse(&[0xf3, 0xf2, 0, 0b0011_1100]).unwrap();
        assert_eq!(
            (packet.sequence, packet.acknowledges, packet.nack),
            (3, 2, false),
            "reserved bits are ignored"
        );
        for flag in [status::UNAVAILABLE, status::DEACTIVATING, status::OVERRUN, status::BREAK] {
            assert!(packet.has(flag));
        }
        assert!(Packet::parse(&[1, 2, 3]).is_err());
        assert!(Packet::parse(&[0; 4 + 256]).is_err());
    }
}
