//! The areas of a FRU inventory (Platform Management FRU Information Storage Definition, rev. 1.3, sections 8 to 16).

/// The common header (section 8): version, five offsets, padding, checksum.
pub const HEADER_LEN: usize = 8;
/// The header of a multirecord (section 16.1).
pub const RECORD_HEADER_LEN: usize = 5;
/// The format version of a multirecord header, in its second byte's low nibble.
pub(super) const RECORD_VERSION: u8 = 2;

/// The areas that are decoded. The internal use area (section 9) belongs to the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Area {
    Chassis,
    Board,
    Product,
    Multirecord,
}

impl Area {
    pub const ALL: [Self; 4] = [Self::Chassis, Self::Board, Self::Product, Self::Multirecord];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Chassis => "chassis area",
            Self::Board => "board area",
            Self::Product => "product area",
            Self::Multirecord => "multirecord area",
        }
    }
}

/// Where each area begins, in bytes; 0 is absent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Offsets {
    chassis: u8,
    board: u8,
    product: u8,
    multirecord: u8,
}

impl Offsets {
    /// Of a common header, good or bad.
    pub(super) const fn of(header: &[u8]) -> Self {
        match *header {
            [_version, _internal, chassis, board, product, multirecord, ..] => {
                Self { chassis, board, product, multirecord }
            }
            _ => Self { chassis: 0, board: 0, product: 0, multirecord: 0 },
        }
    }

    pub(super) fn get(self, area: Area) -> Option<usize> {
        let eighths = match area {
            Area::Chassis => self.chassis,
            Area::Board => self.board,
            Area::Product => self.product,
            Area::Multirecord => self.multirecord,
        };
        (eighths != 0).then_some(usize::from(eighths) * 8)
    }
}

/// What is wrong with an inventory; none of it keeps the rest from being read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Problem {
    #[error("the common header is missing")]
    NoHeader,
    /// Nobody has written it, or it was erased.
    #[error("the inventory is empty")]
    Empty,
    #[error("the common header has version {0}")]
    HeaderVersion(u8),
    #[error("the common header's checksum is wrong")]
    HeaderChecksum,
    #[error("the {} lies outside the inventory", .0.name())]
    Outside(Area),
    #[error("the {} could not be read", .0.name())]
    Unread(Area),
    #[error("the {} has version {}", .0.name(), .1)]
    AreaVersion(Area, u8),
    #[error("the {}'s checksum is wrong", .0.name())]
    AreaChecksum(Area),
    #[error("the {} ends within a field", .0.name())]
    CutShort(Area),
    #[error("the header checksum of multirecord {0} is wrong")]
    RecordHeaderChecksum(usize),
    #[error("multirecord {0} has version {1}")]
    RecordVersion(usize, u8),
    #[error("the checksum of multirecord {0} is wrong")]
    RecordChecksum(usize),
}

/// Whether bytes and their checksum add up to zero.
pub(super) fn adds_up(bytes: &[u8]) -> bool {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) == 0
}
