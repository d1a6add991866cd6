//! Completion codes (section 5.2, table 5-2).

use std::fmt;

/// The first byte of every answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CompletionCode(pub u8);

impl CompletionCode {
    pub const OK: Self = Self(0x00);
    pub const NODE_BUSY: Self = Self(0xc0);
    pub const INVALID_COMMAND: Self = Self(0xc1);
    pub const INVALID_FOR_LUN: Self = Self(0xc2);
    pub const TIMEOUT: Self = Self(0xc3);
    pub const OUT_OF_SPACE: Self = Self(0xc4);
    pub const RESERVATION_CANCELLED: Self = Self(0xc5);
    pub const TRUNCATED: Self = Self(0xc6);
    pub const LENGTH_INVALID: Self = Self(0xc7);
    pub const LENGTH_LIMIT_EXCEEDED: Self = Self(0xc8);
    pub const OUT_OF_RANGE: Self = Self(0xc9);
    pub const CANNOT_RETURN_LENGTH: Self = Self(0xca);
    pub const NOT_PRESENT: Self = Self(0xcb);
    pub const INVALID_FIELD: Self = Self(0xcc);
    pub const ILLEGAL_FOR_SENSOR: Self = Self(0xcd);
    pub const NO_RESPONSE: Self = Self(0xce);
    pub const DUPLICATED: Self = Self(0xcf);
    pub const SDR_UPDATING: Self = Self(0xd0);
    pub const FIRMWARE_UPDATING: Self = Self(0xd1);
    pub const INITIALISING: Self = Self(0xd2);
    pub const UNAVAILABLE: Self = Self(0xd3);
    pub const PRIVILEGE: Self = Self(0xd4);
    pub const NOT_IN_STATE: Self = Self(0xd5);
    pub const DISABLED: Self = Self(0xd6);
    pub const UNSPECIFIED: Self = Self(0xff);

    /// Asking again will not help: the firmware does not know the command, or will not take it from this user or at
    /// all. (iDRAC9 answers D4h to fan control since firmware 3.34, other boards C1h or D5h.)
    pub fn is_permanent(self) -> bool {
        matches!(
            self,
            Self::INVALID_COMMAND
                | Self::INVALID_FOR_LUN
                | Self::PRIVILEGE
                | Self::NOT_IN_STATE
                | Self::DISABLED
        )
    }

    /// What the code means; codes 0x80 to 0xbe mean something else for each command.
    pub fn name(self) -> &'static str {
        match self.0 {
            0x00 => "done",
            0x01..=0x7e => "specific to the manufacturer",
            0x80..=0xbe => "specific to the command",
            0xc0 => "node busy",
            0xc1 => "invalid command",
            0xc2 => "command invalid for this unit (LUN)",
            0xc3 => "timeout while processing",
            0xc4 => "out of space",
            0xc5 => "reservation cancelled or invalid",
            0xc6 => "request data truncated",
            0xc7 => "request data length invalid",
            0xc8 => "request data longer than allowed",
            0xc9 => "parameter out of range",
            0xca => "cannot return so many bytes",
            0xcb => "sensor, data or record not present",
            0xcc => "invalid data field",
            0xcd => "command illegal for this sensor or record",
            0xce => "no response could be given",
            0xcf => "duplicated request",
            0xd0 => "SDR repository is being updated",
            0xd1 => "device is in firmware update mode",
            0xd2 => "BMC is initialising",
            0xd3 => "destination unavailable",
            0xd4 => "insufficient privilege",
            0xd5 => "not supported in the present state",
            0xd6 => "sub-function disabled or unavailable",
            0xff => "unspecified error",
            _ => "reserved",
        }
    }
}

impl fmt::Display for CompletionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (completion code {:#04x})", self.name(), self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d43_completion_codes_are_named() {
        assert_eq!(CompletionCode::NODE_BUSY.to_string(), "node busy (completion code 0xc0)");
        assert_eq!(CompletionCode::PRIVILEGE.to_string(), "insufficient privilege (completion code 0xd4)");
        assert_eq!(CompletionCode(0x81).name(), "specific to the command");
        assert_eq!(CompletionCode(0xe0).name(), "reserved");
    }
}
