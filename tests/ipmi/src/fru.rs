//! FRU data as a BMC stores it (*IPMI Platform Management FRU Information Storage Definition*, v1.0): a
//! common header, chassis, board and product areas, each with its checksum.

/// What the inventory says; every field a different text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fru {
    pub chassis_part: String,
    pub chassis_serial: String,
    /// Minutes after 1996-01-01 00:00 UTC, 24 bits.
    pub board_minutes: u32,
    pub board_manufacturer: String,
    pub board_product: String,
    pub board_serial: String,
    pub board_part: String,
    pub product_manufacturer: String,
    pub product_name: String,
    pub product_part: String,
    pub product_version: String,
    /// Stored as 6-bit ASCII: capitals, digits, `-`; a multiple of four characters.
    pub product_serial: String,
    pub product_asset: String,
}

/// A rack-mount chassis (SMBIOS type 17h).
pub const CHASSIS_TYPE: u8 = 0x17;
const ENGLISH: u8 = 25;

impl Fru {
    pub fn encoded(&self) -> Vec<u8> {
        let minutes = self.board_minutes.to_le_bytes();
        let chassis = area(&[1, 0, CHASSIS_TYPE], &[text(&self.chassis_part), text(&self.chassis_serial)]);
        let board = area(
            &[1, 0, ENGLISH, minutes[0], minutes[1], minutes[2]],
            &[
                text(&self.board_manufacturer),
                text(&self.board_product),
                text(&self.board_serial),
                text(&self.board_part),
                text(""),
            ],
        );
        let product = area(
            &[1, 0, ENGLISH],
            &[
                text(&self.product_manufacturer),
                text(&self.product_name),
                text(&self.product_part),
                text(&self.product_version),
                six_bit(&self.product_serial),
                text(&self.product_asset),
                text(""),
            ],
        );
        let mut all = vec![1, 0];
        let mut offset = 8;
        for area in [&chassis, &board, &product] {
            all.push(u8::try_from(offset / 8).unwrap());
            offset += area.len();
        }
        all.extend([0, 0]);
        all.push(checksum(&all));
        all.extend([chassis, board, product].concat());
        all
    }
}

fn area(head: &[u8], fields: &[Vec<u8>]) -> Vec<u8> {
    let mut area = [head, &fields.concat(), &[0xc1]].concat();
    while !(area.len() + 1).is_multiple_of(8) {
        area.push(0);
    }
    area[1] = u8::try_from((area.len() + 1) / 8).unwrap();
    area.push(checksum(&area));
    area
}

/// 8-bit text (section 13).
fn text(text: &str) -> Vec<u8> {
    assert!(text.len() != 1 && text.len() < 64, "the type/length byte c1 ends an area");
    [&[0xc0 | u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

/// 6-bit ASCII: four characters in three bytes, the first in the lowest bits.
fn six_bit(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(4), "{text} is not a multiple of four characters");
    let packed = text.as_bytes().chunks(4).flat_map(|four| {
        let bits = four.iter().rev().fold(0_u32, |bits, byte| bits << 6 | u32::from(byte - 0x20));
        bits.to_le_bytes().into_iter().take(3)
    });
    let packed: Vec<u8> = packed.collect();
    [vec![0x80 | u8::try_from(packed.len()).unwrap()], packed].concat()
}

fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}
