//! Names of sensor types (table 42-3) and entities (table 43-13).

use std::fmt;

/// What kind of thing a sensor watches: an index of table 42-3.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SensorType(pub u8);

impl SensorType {
    pub const TEMPERATURE: Self = Self(0x01);
    pub const VOLTAGE: Self = Self(0x02);
    pub const CURRENT: Self = Self(0x03);
    pub const FAN: Self = Self(0x04);
    pub const POWER_SUPPLY: Self = Self(0x08);
    pub const MEMORY: Self = Self(0x0c);
    pub const FIRMWARE_PROGRESS: Self = Self(0x0f);

    pub fn name(self) -> &'static str {
        match self.0 {
            0xc0.. => "OEM",
            code => TYPES.get(usize::from(code)).copied().unwrap_or("Unknown"),
        }
    }
}

impl fmt::Display for SensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The physical thing a sensor or FRU belongs to (section 39.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Entity {
    /// An index of table 43-13.
    pub id: u8,
    /// 1 and up; `0x60` to `0x7f` are relative to the device. Bit 7 marks a logical container.
    pub instance: u8,
}

impl Entity {
    pub fn name(self) -> &'static str {
        match self.id {
            0x90..=0xaf => "Chassis specific",
            0xb0..=0xcf => "Board set specific",
            0xd0.. => "OEM",
            code => ENTITIES.get(usize::from(code)).copied().unwrap_or("Unknown"),
        }
    }
}

/// Name and instance, such as `Power Supply 2`.
impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name(), self.instance & 0x7f)
    }
}

#[rustfmt::skip]
const TYPES: &[&str] = &[
    "Reserved", "Temperature", "Voltage", "Current", "Fan", "Physical Security", "Platform Security", "Processor",
    "Power Supply", "Power Unit", "Cooling Device", "Other", "Memory", "Drive Slot", "POST Memory Resize",
    "System Firmware Progress", "Event Logging Disabled", "Watchdog 1", "System Event", "Critical Interrupt",
    "Button", "Module / Board", "Microcontroller", "Add-in Card", "Chassis", "Chip Set", "Other FRU",
    "Cable / Interconnect", "Terminator", "System Boot Initiated", "Boot Error", "OS Boot", "OS Critical Stop",
    "Slot / Connector", "System ACPI Power State", "Watchdog 2", "Platform Alert", "Entity Presence",
    "Monitor ASIC", "LAN", "Management Subsystem Health", "Battery", "Session Audit", "Version Change", "FRU State",
];

#[rustfmt::skip]
const ENTITIES: &[&str] = &[
    "Unspecified", "Other", "Unknown", "Processor", "Disk", "Peripheral Bay", "System Management Module",
    "System Board", "Memory Module", "Processor Module", "Power Supply", "Add-in Card", "Front Panel Board",
    "Back Panel Board", "Power System Board", "Drive Backplane", "System Internal Expansion Board",
    "Other System Board", "Processor Board", "Power Unit", "Power Module", "Power Management Board",
    "Chassis Back Panel Board", "System Chassis", "Sub-chassis", "Other Chassis Board", "Disk Drive Bay",
    "Peripheral Bay", "Device Bay", "Fan", "Cooling Unit", "Cable / Interconnect", "Memory Device",
    "System Management Software", "System Firmware", "Operating System", "System Bus", "Group",
    "Remote Management Device", "External Environment", "Battery", "Processing Blade", "Connectivity Switch",
    "Processor / Memory Module", "I/O Module", "Processor / I/O Module", "Management Controller Firmware",
    "IPMI Channel", "PCI Bus", "PCI Express Bus", "SCSI Bus", "SATA / SAS Bus", "Front-side Bus",
    "Real Time Clock", "Reserved", "Air Inlet", "Reserved", "Reserved", "Reserved", "Reserved", "Reserved",
    "Reserved", "Reserved", "Reserved", "Air Inlet", "Processor", "Main System Board",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_in_step_with_their_codes() {
        for (code, name) in [(0x0f, "System Firmware Progress"), (0x23, "Watchdog 2"), (0x2c, "FRU State")] {
            assert_eq!(SensorType(code).name(), name);
        }
        assert_eq!((SensorType(0x2d).name(), SensorType(0xc1).name()), ("Unknown", "OEM"));
        for (id, name) in [
            (0x0a, "Power Supply"),
            (0x1d, "Fan"),
            (0x35, "Real Time Clock"),
            (0x37, "Air Inlet"),
            (0x42, "Main System Board"),
        ] {
            assert_eq!(Entity { id, instance: 1 }.name(), name);
        }
        assert_eq!(Entity { id: 10, instance: 0x82 }.to_string(), "Power Supply 2");
        assert_eq!(Entity { id: 0xa0, instance: 0 }.name(), "Chassis specific");
    }
}
