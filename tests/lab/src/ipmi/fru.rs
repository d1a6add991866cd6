//! The inventory of the system board (chapter 34; *Platform Management FRU Information Storage Definition*
//! 1.0, rev. 1.3): read-only, the same model and service tag as Redfish shows.

use rackhand_ipmi::CompletionCode;

use super::answer::{Answer, exactly, part};
use crate::fault::LyingLength;
use crate::model::Bmc;

/// The area has this size, like a small EEPROM.
const SIZE: usize = 512;
/// Minutes from 1996 to the factory.
const MADE: u32 = 13_000_000;

impl Bmc {
    pub(super) fn fru(&mut self, code: u8, data: &[u8]) -> Answer {
        match code {
            0x10 => {
                let [0] = exactly(data)? else { return Err(CompletionCode::NOT_PRESENT) };
                let size = if self.lies(LyingLength::Fru) {
                    u16::MAX
                } else {
                    u16::try_from(SIZE).unwrap_or(u16::MAX)
                };
                let [low, high] = size.to_le_bytes();
                // Accessed by bytes.
                Ok(vec![low, high, 0x00])
            }
            0x11 => {
                let [device, low, high, count] = exactly(data)?;
                if device != 0 {
                    return Err(CompletionCode::NOT_PRESENT);
                }
                let lies = self.lies(LyingLength::Fru);
                let area = self.inventory();
                let offset = usize::from(u16::from_le_bytes([low, high]));
                let bytes = part(&area, offset, usize::from(count), self.read_limit())?;
                let length = if lies { u8::MAX } else { u8::try_from(bytes.len()).unwrap_or(u8::MAX) };
                Ok([&[length], bytes.as_slice()].concat())
            }
            // Write FRU Data: protected (section 34.3).
            _ => Err(CompletionCode(0x80)),
        }
    }

    fn inventory(&self) -> Vec<u8> {
        let tag = &self.spec.service_tag;
        let product = self.spec.model.product();
        let [a, b, c, _] = MADE.to_le_bytes();
        let serial = format!("CN{tag}001A");
        let board = area(&[0x01, 0x00, 0x00, a, b, c], &["Dell Inc.", product, &serial, "0H3K7PA01", ""]);
        let asset = self.spec.name.as_str();
        let product =
            area(&[0x01, 0x00, 0x00], &["DELL", product, self.spec.model.short(), "01", tag, asset, ""]);
        // Common header: version, no internal use and chassis area, board, product, no more; in units of
        // eight bytes.
        let after = 1 + board.len() / 8;
        let header = [0x01, 0, 0, 1, u8::try_from(after).unwrap_or_default(), 0, 0];
        let mut all = summed(header.to_vec());
        all.extend(board);
        all.extend(product);
        all.resize(SIZE, 0xff);
        all
    }
}

/// An area: its head, fields as 8-bit text, end mark, length in units of eight bytes at its second byte,
/// checksum.
fn area(head: &[u8], fields: &[&str]) -> Vec<u8> {
    let mut bytes = head.to_vec();
    for field in fields {
        // A field of one byte would begin with the end mark.
        let field = if field.len() == 1 { format!("{field} ") } else { (*field).to_owned() };
        let length = field.len().min(0x3f);
        bytes.push(0xc0 | u8::try_from(length).unwrap_or_default());
        bytes.extend(field.bytes().take(length));
    }
    bytes.push(0xc1);
    let padded = (bytes.len() + 1).next_multiple_of(8);
    bytes.resize(padded - 1, 0);
    if let Some(length) = bytes.get_mut(1) {
        *length = u8::try_from(padded / 8).unwrap_or_default();
    }
    summed(bytes)
}

/// With the byte that makes the sum zero.
fn summed(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    bytes.push(sum.wrapping_neg());
    bytes
}
