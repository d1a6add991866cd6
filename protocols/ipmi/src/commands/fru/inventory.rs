//! A FRU inventory decoded: who made a part, when, and its numbers.

use super::super::text::{Encoding, decode};
use super::area::{Area, HEADER_LEN, Offsets, Problem, RECORD_HEADER_LEN, RECORD_VERSION, adds_up};

/// Everything of an inventory that could be read, and what is wrong with it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Inventory {
    pub chassis: Option<Chassis>,
    pub board: Option<Board>,
    pub product: Option<Product>,
    pub records: Vec<Multirecord>,
    pub problems: Vec<Problem>,
}

/// Chassis info area (section 10).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Chassis {
    /// SMBIOS chassis type.
    pub chassis_type: u8,
    pub part_number: String,
    pub serial: String,
    pub custom: Vec<String>,
}

/// Board info area (section 11).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Board {
    pub language: u8,
    /// Seconds since 1970-01-01 UTC; `None` when unspecified. The inventory counts minutes since 1996-01-01.
    pub manufactured: Option<u32>,
    pub manufacturer: String,
    pub name: String,
    pub serial: String,
    pub part_number: String,
    pub fru_file: String,
    pub custom: Vec<String>,
}

/// Product info area (section 12).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Product {
    pub language: u8,
    pub manufacturer: String,
    pub name: String,
    pub part_number: String,
    pub version: String,
    pub serial: String,
    pub asset_tag: String,
    pub fru_file: String,
    pub custom: Vec<String>,
}

/// A multirecord (section 16), raw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Multirecord {
    pub record_type: u8,
    pub data: Vec<u8>,
}

impl Multirecord {
    /// What its type is for (table 16-2).
    pub const fn type_name(&self) -> &'static str {
        match self.record_type {
            0x00 => "power supply",
            0x01 => "DC output",
            0x02 => "DC load",
            0x03 => "management access",
            0x04 => "base compatibility",
            0x05 => "extended compatibility",
            0x06 => "extended DC output",
            0x07 => "extended DC load",
            0xc0.. => "OEM",
            _ => "reserved",
        }
    }
}

/// Names of SMBIOS chassis types (section 7.4.1 of the SMBIOS specification).
pub fn chassis_type_name(chassis_type: u8) -> &'static str {
    CHASSIS_TYPES.get(usize::from(chassis_type & 0x7f)).copied().unwrap_or("Unknown")
}

#[rustfmt::skip]
const CHASSIS_TYPES: &[&str] = &[
    "Unspecified", "Other", "Unknown", "Desktop", "Low profile desktop", "Pizza box", "Mini tower", "Tower",
    "Portable", "Laptop", "Notebook", "Hand held", "Docking station", "All in one", "Sub notebook", "Space-saving",
    "Lunch box", "Main server", "Expansion", "Sub-chassis", "Bus expansion", "Peripheral", "RAID", "Rack mount",
    "Sealed-case PC", "Multi-system", "Compact PCI", "Advanced TCA", "Blade", "Blade enclosure", "Tablet",
    "Convertible", "Detachable", "IoT gateway", "Embedded PC", "Mini PC", "Stick PC",
];

/// 1996-01-01 in seconds since 1970-01-01.
const BOARD_EPOCH: u32 = 820_454_400;

impl Inventory {
    /// Decodes a whole inventory.
    pub fn parse(bytes: &[u8]) -> Self {
        Self::parse_fetched(bytes, &vec![true; bytes.len()])
    }

    /// Decodes an inventory of which `fetched` says the bytes that are known.
    pub(super) fn parse_fetched(bytes: &[u8], fetched: &[bool]) -> Self {
        let mut inventory = Self::default();
        let Some(header) = bytes.get(..HEADER_LEN) else {
            inventory.problems.push(Problem::NoHeader);
            return inventory;
        };
        // Memory that nobody has written is all ones, or zeros.
        if header.iter().all(|byte| *byte == 0xff) || header.iter().all(|byte| *byte == 0) {
            inventory.problems.push(Problem::Empty);
            return inventory;
        }
        match *header {
            [1, ..] => {}
            [version, ..] => inventory.problems.push(Problem::HeaderVersion(version & 0x0f)),
            [] => {}
        }
        if !adds_up(header) {
            inventory.problems.push(Problem::HeaderChecksum);
        }
        let offsets = Offsets::of(header);
        let known = |start: usize, end: usize| {
            fetched.get(start..end).is_some_and(|part| part.iter().all(|done| *done))
        };
        for area in [Area::Chassis, Area::Board, Area::Product] {
            let Some(start) = offsets.get(area) else { continue };
            let Some(&[version, length, ..]) = bytes.get(start..) else {
                inventory.problems.push(Problem::Outside(area));
                continue;
            };
            if !known(start, start + 2) {
                inventory.problems.push(Problem::Unread(area));
                continue;
            }
            if length == 0 {
                inventory.problems.push(Problem::CutShort(area));
                continue;
            }
            let end = start + usize::from(length) * 8;
            let whole = bytes.get(start..end);
            let content = whole.or_else(|| bytes.get(start..)).unwrap_or_default();
            if whole.is_none() {
                inventory.problems.push(Problem::Outside(area));
            } else if !known(start, end) {
                inventory.problems.push(Problem::Unread(area));
                continue;
            } else if !adds_up(content) {
                inventory.problems.push(Problem::AreaChecksum(area));
            }
            if version & 0x0f != 1 {
                inventory.problems.push(Problem::AreaVersion(area, version & 0x0f));
            }
            inventory.read_area(area, content);
        }
        if let Some(start) = offsets.get(Area::Multirecord) {
            inventory.read_records(bytes, start, known);
        }
        inventory
    }

    fn read_area(&mut self, area: Area, content: &[u8]) {
        let rest = content.get(2..).unwrap_or_default();
        let mut fields = Fields { rest, english: true, cut_short: false };
        match area {
            Area::Chassis => {
                self.chassis = Some(Chassis {
                    chassis_type: fields.byte(),
                    part_number: fields.text(),
                    serial: fields.text(),
                    custom: fields.custom(),
                });
            }
            Area::Board => {
                let language = fields.language();
                let [low, middle, high] = [fields.byte(), fields.byte(), fields.byte()];
                let minutes = u32::from_le_bytes([low, middle, high, 0]);
                self.board = Some(Board {
                    language,
                    manufactured: (minutes != 0).then_some(BOARD_EPOCH + minutes * 60),
                    manufacturer: fields.text(),
                    name: fields.text(),
                    serial: fields.text(),
                    part_number: fields.text(),
                    fru_file: fields.text(),
                    custom: fields.custom(),
                });
            }
            Area::Product => {
                self.product = Some(Product {
                    language: fields.language(),
                    manufacturer: fields.text(),
                    name: fields.text(),
                    part_number: fields.text(),
                    version: fields.text(),
                    serial: fields.text(),
                    asset_tag: fields.text(),
                    fru_file: fields.text(),
                    custom: fields.custom(),
                });
            }
            Area::Multirecord => {}
        }
        if fields.cut_short {
            self.problems.push(Problem::CutShort(area));
        }
    }

    fn read_records(&mut self, bytes: &[u8], mut at: usize, known: impl Fn(usize, usize) -> bool) {
        loop {
            let header = bytes.get(at..at + RECORD_HEADER_LEN);
            let Some(&[record_type, flags, length, checksum, _]) = header else {
                return self.problems.push(Problem::Outside(Area::Multirecord));
            };
            let (start, end) = (at + RECORD_HEADER_LEN, at + RECORD_HEADER_LEN + usize::from(length));
            if !known(at, end) {
                return self.problems.push(Problem::Unread(Area::Multirecord));
            }
            let index = self.records.len();
            // A wrong header says neither how long its record is nor where the next one begins.
            if !header.is_some_and(adds_up) {
                return self.problems.push(Problem::RecordHeaderChecksum(index));
            }
            if flags & 0x0f != RECORD_VERSION {
                return self.problems.push(Problem::RecordVersion(index, flags & 0x0f));
            }
            let Some(data) = bytes.get(start..end) else {
                return self.problems.push(Problem::Outside(Area::Multirecord));
            };
            if data.iter().fold(checksum, |sum, byte| sum.wrapping_add(*byte)) != 0 {
                self.problems.push(Problem::RecordChecksum(index));
            }
            self.records.push(Multirecord { record_type, data: data.to_vec() });
            if flags & 0x80 != 0 {
                return;
            }
            at = end;
        }
    }
}

/// The type/length byte that ends the fields of an area.
const END_OF_FIELDS: u8 = 0xc1;

struct Fields<'a> {
    rest: &'a [u8],
    /// What text of type 3 is written in (section 13): Latin-1, or UTF-16 where this is false.
    english: bool,
    cut_short: bool,
}

impl Fields<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else {
            self.cut_short = true;
            return 0;
        };
        self.rest = rest;
        *first
    }

    /// The area's language code; 0 and 25 are English (section 15).
    fn language(&mut self) -> u8 {
        let code = self.byte();
        self.english = matches!(code, 0 | 25);
        code
    }

    /// The next field; empty if the area ended before it, as old ones do.
    fn text(&mut self) -> String {
        self.field().unwrap_or_default()
    }

    fn custom(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.field()).collect()
    }

    fn field(&mut self) -> Option<String> {
        let (&type_length, rest) = self.rest.split_first()?;
        if type_length == END_OF_FIELDS {
            return None;
        }
        let length = usize::from(type_length & 0x3f);
        let encoding = Encoding::of(type_length, Encoding::Binary);
        let (field, rest) = rest.split_at_checked(length).unwrap_or_else(|| {
            self.cut_short = true;
            (rest, &[])
        });
        self.rest = rest;
        let encoding = match encoding {
            Encoding::Latin1 if !self.english && !is_latin1(field) => Encoding::Unicode,
            encoding => encoding,
        };
        Some(decode(encoding, field))
    }
}

/// Whether this can be Latin-1, whatever the language code says: many areas have a wrong one, and UTF-16 shows by
/// bytes that no Latin-1 text has.
fn is_latin1(field: &[u8]) -> bool {
    let end = field.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    field.iter().take(end).all(|byte| matches!(byte, 0x20..0x7f | 0xa0..))
}
