//! What the bits of a discrete sensor and the offsets of an event mean (tables 42-1, 42-2 and 42-3).

use std::fmt;

use super::names::SensorType;

/// Event/reading type code: which table the states are in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventType(pub u8);

impl EventType {
    pub const THRESHOLD: Self = Self(0x01);
    pub const SENSOR_SPECIFIC: Self = Self(0x6f);

    pub const fn is_threshold(self) -> bool {
        self.0 == Self::THRESHOLD.0
    }

    /// Discrete states whose meaning only the vendor knows.
    pub const fn is_oem(self) -> bool {
        matches!(self.0, 0x70..=0x7f)
    }
}

/// The meaning of state `offset` (0 to 14) of a sensor, where the specification gives one.
pub fn state_name(sensor_type: SensorType, event_type: EventType, offset: u8) -> Option<&'static str> {
    let table = match event_type {
        EventType::SENSOR_SPECIFIC => specific(sensor_type),
        generic => GENERIC.get(usize::from(generic.0).checked_sub(1)?).copied()?,
    };
    table.get(usize::from(offset)).copied().filter(|name| !name.is_empty())
}

/// The asserted states of a discrete sensor: bit n is offset n.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct States {
    pub bits: u16,
    pub sensor_type: SensorType,
    pub event_type: EventType,
}

impl States {
    /// Offset and name of each asserted state, lowest first; no name where the specification has none.
    pub fn iter(self) -> impl Iterator<Item = (u8, Option<&'static str>)> {
        (0..15_u8)
            .filter(move |offset| self.bits >> offset & 1 != 0)
            .map(move |offset| (offset, state_name(self.sensor_type, self.event_type, offset)))
    }
}

/// The names, separated by commas; `state 3` where there is none.
impl fmt::Display for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (offset, name)) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            match name {
                Some(name) => f.write_str(name)?,
                None => write!(f, "state {offset}")?,
            }
        }
        Ok(())
    }
}

/// Table 42-2, from event/reading type 0x01.
#[rustfmt::skip]
const GENERIC: &[&[&str]] = &[
    &[
        "Lower non-critical going low", "Lower non-critical going high", "Lower critical going low",
        "Lower critical going high", "Lower non-recoverable going low", "Lower non-recoverable going high",
        "Upper non-critical going low", "Upper non-critical going high", "Upper critical going low",
        "Upper critical going high", "Upper non-recoverable going low", "Upper non-recoverable going high",
    ],
    &["Idle", "Active", "Busy"],
    &["State deasserted", "State asserted"],
    &["Predictive failure deasserted", "Predictive failure asserted"],
    &["Limit not exceeded", "Limit exceeded"],
    &["Performance met", "Performance lags"],
    &[
        "OK", "Non-critical from OK", "Critical from less severe", "Non-recoverable from less severe",
        "Non-critical from more severe", "Critical from non-recoverable", "Non-recoverable", "Monitor",
        "Informational",
    ],
    &["Device absent", "Device present"],
    &["Device disabled", "Device enabled"],
    &[
        "Running", "In test", "Power off", "On line", "Off line", "Off duty", "Degraded", "Power save",
        "Install error",
    ],
    &[
        "Fully redundant", "Redundancy lost", "Redundancy degraded", "Non-redundant: sufficient from redundant",
        "Non-redundant: sufficient from insufficient", "Non-redundant: insufficient resources",
        "Redundancy degraded from fully redundant", "Redundancy degraded from non-redundant",
    ],
    &["D0 power state", "D1 power state", "D2 power state", "D3 power state"],
];

/// Table 42-3, by sensor type; empty for types without states of their own.
#[rustfmt::skip]
fn specific(sensor_type: SensorType) -> &'static [&'static str] {
    match sensor_type.0 {
        0x05 => &[
            "General chassis intrusion", "Drive bay intrusion", "I/O card area intrusion",
            "Processor area intrusion", "LAN leash lost", "Unauthorized dock", "Fan area intrusion",
        ],
        0x06 => &[
            "Secure mode violation attempt", "Pre-boot password violation: user",
            "Pre-boot password violation: setup", "Pre-boot password violation: network boot",
            "Pre-boot password violation: other", "Out-of-band access password violation",
        ],
        0x07 => &[
            "IERR", "Thermal trip", "FRB1/BIST failure", "FRB2/hang in POST", "FRB3/processor startup failure",
            "Configuration error", "Uncorrectable CPU-complex error", "Presence detected", "Disabled",
            "Terminator presence detected", "Throttled", "Uncorrectable machine check", "Correctable machine check",
        ],
        0x08 => &[
            "Presence detected", "Failure detected", "Predictive failure", "Input lost (AC/DC)",
            "Input lost or out of range", "Input out of range, but present", "Configuration error", "Inactive",
        ],
        0x09 => &[
            "Power off", "Power cycle", "240VA power down", "Interlock power down", "Input lost",
            "Soft power control failure", "Failure detected", "Predictive failure",
        ],
        0x0c => &[
            "Correctable ECC", "Uncorrectable ECC", "Parity", "Scrub failed (stuck bit)", "Device disabled",
            "Correctable ECC logging limit reached", "Presence detected", "Configuration error", "Spare",
            "Throttled", "Critical overtemperature",
        ],
        0x0d => &[
            "Drive present", "Drive fault", "Predictive failure", "Hot spare", "Consistency check in progress",
            "In critical array", "In failed array", "Rebuild in progress", "Rebuild aborted",
        ],
        0x0f => &["Firmware error", "Firmware hang", "Firmware progress"],
        0x10 => &[
            "Correctable memory error logging disabled", "Event type logging disabled", "Log cleared",
            "All event logging disabled", "Log full", "Log almost full",
            "Correctable machine check logging disabled",
        ],
        0x11 => &[
            "BIOS reset", "OS reset", "OS shut down", "OS power down", "OS power cycle", "OS NMI",
            "OS expired, status only", "OS pre-timeout interrupt",
        ],
        0x12 => &[
            "System reconfigured", "OEM boot event", "Undetermined hardware failure", "Entry added to auxiliary log",
            "PEF action", "Clock synchronised",
        ],
        0x13 => &[
            "Front panel NMI", "Bus timeout", "I/O channel check NMI", "Software NMI", "PCI PERR", "PCI SERR",
            "EISA fail safe timeout", "Bus correctable error", "Bus uncorrectable error", "Fatal NMI",
            "Bus fatal error", "Bus degraded",
        ],
        0x14 => &[
            "Power button pressed", "Sleep button pressed", "Reset button pressed", "FRU latch open",
            "FRU service requested",
        ],
        0x19 => &["Soft power control failure", "Thermal trip"],
        0x1b => &["Connected", "Configuration error"],
        0x1d => &[
            "Initiated by power up", "Initiated by hard reset", "Initiated by warm reset", "User requested PXE boot",
            "Automatic boot to diagnostic", "OS initiated hard reset", "OS initiated warm reset", "System restart",
        ],
        0x1e => &[
            "No bootable media", "Non-bootable disk in drive", "PXE server not found", "Invalid boot sector",
            "Timeout waiting for selection",
        ],
        0x1f => &[
            "A: boot completed", "C: boot completed", "PXE boot completed", "Diagnostic boot completed",
            "CD-ROM boot completed", "ROM boot completed", "Boot completed", "Installation started",
            "Installation completed", "Installation aborted", "Installation failed",
        ],
        0x20 => &[
            "Critical stop during OS load", "Run-time critical stop", "OS graceful stop", "OS graceful shutdown",
            "Soft shutdown by PEF", "Agent not responding",
        ],
        0x21 => &[
            "Fault", "Identify", "Device installed", "Ready for installation", "Ready for removal",
            "Slot power off", "Removal requested", "Interlock", "Slot disabled", "Slot holds spare device",
        ],
        0x22 => &[
            "S0/G0: working", "S1: sleeping, context kept", "S2: sleeping, processor context lost",
            "S3: sleeping, memory kept", "S4: suspended to disk", "S5/G2: soft off", "S4/S5: soft off",
            "G3: mechanical off", "Sleeping in S1, S2 or S3", "G1: sleeping", "S5: entered by override",
            "Legacy on", "Legacy off", "Unspecified", "Unknown",
        ],
        0x23 => &[
            "Timer expired", "Hard reset", "Power down", "Power cycle", "", "", "", "", "Timer interrupt",
        ],
        0x24 => &["Page sent", "LAN alert sent", "Platform event trap sent", "OEM SNMP trap sent"],
        0x25 => &["Present", "Absent", "Disabled"],
        0x27 => &["Heartbeat lost", "Heartbeat"],
        0x28 => &[
            "Sensor access degraded", "Controller access degraded", "Controller off line",
            "Controller unavailable", "Sensor failure", "FRU failure",
        ],
        0x29 => &["Low", "Failed", "Presence detected"],
        0x2a => &[
            "Session activated", "Session deactivated", "Invalid user name or password",
            "User disabled after bad passwords",
        ],
        0x2b => &[
            "Hardware change detected", "Firmware change detected", "Hardware incompatibility",
            "Firmware incompatibility", "Unsupported hardware version", "Unsupported firmware version",
            "Hardware change successful", "Firmware change successful",
        ],
        0x2c => &[
            "Not installed", "Inactive", "Activation requested", "Activation in progress", "Active",
            "Deactivation requested", "Deactivation in progress", "Communication lost",
        ],
        _ => &[],
    }
}

/// What the second byte of a "System Firmware Progress" event says, for offsets 0 (error), 1 (hang) and 2 (progress).
pub(crate) fn firmware_detail(offset: u8, detail: u8) -> Option<&'static str> {
    let table = match offset {
        0 => FIRMWARE_ERRORS,
        1 | 2 => FIRMWARE_PROGRESS,
        _ => return None,
    };
    table.get(usize::from(detail)).copied().filter(|name| !name.is_empty())
}

#[rustfmt::skip]
const FIRMWARE_ERRORS: &[&str] = &[
    "", "no memory installed", "no usable memory", "hard disk failure", "system board failure",
    "diskette subsystem failure", "hard disk controller failure", "keyboard failure",
    "removable boot media not found", "video controller failure", "no video device", "BIOS ROM corruption",
    "CPU voltage mismatch", "CPU speed mismatch",
];

#[rustfmt::skip]
const FIRMWARE_PROGRESS: &[&str] = &[
    "", "memory initialization", "hard disk initialization", "secondary processor initialization",
    "user authentication", "user-initiated setup", "USB configuration", "PCI configuration",
    "option ROM initialization", "video initialization", "cache initialization", "SMBus initialization",
    "keyboard controller initialization", "management controller initialization", "docking station attachment",
    "enabling docking station", "docking station ejection", "disabling docking station", "OS wake-up",
    "starting OS boot", "baseboard initialization", "", "floppy initialization", "keyboard test",
    "pointing device test", "primary processor initialization",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_named_by_both_tables() {
        let psu = States { bits: 0b1011, sensor_type: SensorType(8), event_type: EventType(0x6f) };
        assert_eq!(psu.to_string(), "Presence detected, Failure detected, Input lost (AC/DC)");
        let drive = States { bits: 0b10, sensor_type: SensorType(0x0d), event_type: EventType(8) };
        assert_eq!(drive.to_string(), "Device present");
        let vendor = States { bits: 0b101, sensor_type: SensorType(0xc1), event_type: EventType(0x70) };
        assert_eq!(vendor.to_string(), "state 0, state 2");
        assert_eq!(state_name(SensorType(0x23), EventType::SENSOR_SPECIFIC, 8), Some("Timer interrupt"));
        assert_eq!(state_name(SensorType(0x23), EventType::SENSOR_SPECIFIC, 5), None);
        assert_eq!(state_name(SensorType(1), EventType(0), 0), None);
        assert_eq!(state_name(SensorType(1), EventType::THRESHOLD, 9), Some("Upper critical going high"));
        assert_eq!(state_name(SensorType(1), EventType(0x0c), 3), Some("D3 power state"));
    }

    #[test]
    fn firmware_says_how_far_it_came() {
        assert_eq!(firmware_detail(2, 1), Some("memory initialization"));
        assert_eq!(firmware_detail(2, 0x19), Some("primary processor initialization"));
        assert_eq!(firmware_detail(0, 0x0d), Some("CPU speed mismatch"));
        assert_eq!(firmware_detail(2, 0x15), None);
    }
}
