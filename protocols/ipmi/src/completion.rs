//! Completion codes (section 5.2, table 5-2).

use std::fmt;

/// The first byte of every answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CompletionCode(pub u8);

impl CompletionCode {
    pub const OK: Self = Self(0x00);
    pub const NODE_BUSY: Self = Self(0xc0);
    pub const INVALID_COMMAND: Self = Self(0xc1);
    pub const TIMEOUT: Self = Self(0xc3);
    pub const RESERVATION_CANCELLED: Self = Self(0xc5);
    pub const LENGTH_INVALID: Self = Self(0xc7);
    pub const LENGTH_LIMIT_EXCEEDED: Self = Self(0xc8);
    pub const OUT_OF_RANGE: Self = Self(0xc9);
    pub const CANNOT_RETURN_LENGTH: Self = Self(0xca);
    pub const NOT_PRESENT: Self = Self(0xcb);
    pub const UNSPECIFIED: Self = Self(0xff);
}

impl fmt::Display for CompletionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "completion code {:#04x}", self.0)
    }
}
