//! An IPMI message as it travels over LAN (section 13.8): addresses, network function, sequence, command, data and two
//! checksums. An answer has the addresses swapped, an odd network function and its completion code before the data.

use crate::{Malformed, wire::bytes::Reader};

/// Slave address of a BMC.
pub const BMC: u8 = 0x20;
/// Software id of a remote console (section 5.5, table 5-4: 0x81 is the first one of system software).
pub const CONSOLE: u8 = 0x81;

/// Bytes around the data: six of header, two checksums less the one counted twice.
pub const OVERHEAD: usize = 7;

/// One message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    /// Slave address or software id of the receiver.
    pub to: u8,
    /// Six bits: even in a request, odd in an answer.
    pub net_fn: u8,
    pub to_lun: u8,
    pub from: u8,
    pub from_lun: u8,
    /// Six bits, the same in request and answer.
    pub sequence: u8,
    pub code: u8,
    /// In an answer the first byte is the completion code.
    pub data: &'a [u8],
}

impl<'a> Message<'a> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        let head = [self.to, (self.net_fn << 2) | (self.to_lun & 3)];
        out.extend_from_slice(&head);
        out.push(checksum(&head));
        let start = out.len();
        out.extend_from_slice(&[self.from, (self.sequence << 2) | (self.from_lun & 3), self.code]);
        out.extend_from_slice(self.data);
        out.push(checksum(out.get(start..).unwrap_or_default()));
    }

    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("IPMI message", bytes);
        let [to, function, first, from, sequence, code] = reader.array()?;
        if checksum(&[to, function]) != first {
            return Err(reader.malformed("wrong header checksum"));
        }
        let Some((&second, data)) = reader.rest().split_last() else {
            return Err(reader.malformed("too short"));
        };
        let sum = data.iter().fold(from.wrapping_add(sequence).wrapping_add(code), |a, b| a.wrapping_add(*b));
        if sum.wrapping_add(second) != 0 {
            return Err(reader.malformed("wrong data checksum"));
        }
        Ok(Self {
            to,
            net_fn: function >> 2,
            to_lun: function & 3,
            from,
            from_lun: sequence & 3,
            sequence: sequence >> 2,
            code,
            data,
        })
    }
}

/// The byte that makes the sum of all zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET_DEVICE_ID: Message<'_> = Message {
        to: BMC,
        net_fn: 6,
        to_lun: 0,
        from: CONSOLE,
        from_lun: 0,
        sequence: 2,
        code: 1,
        data: &[],
    };

    #[test]
    fn a_request_is_read_back() {
        let mut out = Vec::new();
        GET_DEVICE_ID.encode(&mut out);
        assert_eq!(hex::encode(&out), "2018c881080176");
        assert_eq!(Message::decode(&out), Ok(GET_DEVICE_ID));
    }

    #[test]
    fn each_flipped_bit_is_noticed() {
        let mut out = Vec::new();
        Message { data: &[1, 2, 3], ..GET_DEVICE_ID }.encode(&mut out);
        for bit in 0..out.len() * 8 {
            let mut damaged = out.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Message::decode(&damaged).is_err(), "bit {bit}");
        }
        for length in 0..out.len() {
            assert!(Message::decode(&out[..length]).is_err());
        }
    }
}
