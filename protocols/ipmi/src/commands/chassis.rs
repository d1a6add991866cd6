//! The machine around the BMC (chapter 28): power, identification light and what it boots from.

use crate::{Command, Malformed, NetFn, Request, wire::bytes::Reader};

fn chassis(code: u8, data: Vec<u8>) -> Request {
    Request { net_fn: NetFn::CHASSIS, code, lun: 0, data }
}

/// Get Chassis Status (section 28.2).
#[derive(Clone, Copy, Debug)]
pub struct GetChassisStatus;

/// What happens when mains power returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RestorePolicy {
    StayOff,
    Previous,
    TurnOn,
    Unknown,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChassisStatus {
    pub power_on: bool,
    pub overload: bool,
    pub interlock: bool,
    pub power_fault: bool,
    pub control_fault: bool,
    pub restore: RestorePolicy,
    /// Why power last went down: bit 0 AC failed, 1 overload, 2 interlock, 3 fault, 4 turned on by command.
    pub last_event: u8,
    pub intrusion: bool,
    pub lockout: bool,
    pub drive_fault: bool,
    pub cooling_fault: bool,
    /// 0 off, 1 timed, 2 on; none where the BMC does not tell.
    pub identify: Option<u8>,
}

impl Command for GetChassisStatus {
    type Answer = ChassisStatus;

    fn request(&self) -> Request {
        chassis(0x01, Vec::new())
    }

    fn parse(&self, data: &[u8]) -> Result<ChassisStatus, Malformed> {
        let [power, last_event, other] = Reader::new("Get Chassis Status answer", data).array()?;
        Ok(ChassisStatus {
            power_on: power & 0x01 != 0,
            overload: power & 0x02 != 0,
            interlock: power & 0x04 != 0,
            power_fault: power & 0x08 != 0,
            control_fault: power & 0x10 != 0,
            restore: match power >> 5 & 3 {
                0 => RestorePolicy::StayOff,
                1 => RestorePolicy::Previous,
                2 => RestorePolicy::TurnOn,
                _ => RestorePolicy::Unknown,
            },
            last_event: last_event & 0x1f,
            intrusion: other & 0x01 != 0,
            lockout: other & 0x02 != 0,
            drive_fault: other & 0x04 != 0,
            cooling_fault: other & 0x08 != 0,
            identify: (other & 0x40 != 0).then_some(other >> 4 & 3),
        })
    }
}

/// Chassis Control (section 28.3). Sent once: after a lost answer read the power state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChassisControl {
    PowerDown,
    PowerUp,
    /// Off and on again; refused by many BMCs when the power is off.
    PowerCycle,
    HardReset,
    /// A diagnostic interrupt (NMI).
    Diagnostic,
    /// Asks the operating system to shut down, as the power button does.
    SoftShutdown,
}

impl Command for ChassisControl {
    type Answer = ();

    fn request(&self) -> Request {
        let action = match self {
            Self::PowerDown => 0,
            Self::PowerUp => 1,
            Self::PowerCycle => 2,
            Self::HardReset => 3,
            Self::Diagnostic => 4,
            Self::SoftShutdown => 5,
        };
        chassis(0x02, vec![action])
    }

    fn parse(&self, _data: &[u8]) -> Result<(), Malformed> {
        Ok(())
    }
}

/// Chassis Identify (section 28.5): the light.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChassisIdentify {
    /// For so many seconds; 0 turns it off.
    Seconds(u8),
    /// Until it is turned off.
    On,
}

impl Command for ChassisIdentify {
    type Answer = ();

    fn request(&self) -> Request {
        chassis(
            0x04,
            match self {
                Self::Seconds(seconds) => vec![*seconds],
                Self::On => vec![0, 1],
            },
        )
    }

    fn parse(&self, _data: &[u8]) -> Result<(), Malformed> {
        Ok(())
    }
}

/// Set Power Restore Policy (section 28.8).
#[derive(Clone, Copy, Debug)]
pub struct SetRestorePolicy(pub RestorePolicy);

impl Command for SetRestorePolicy {
    type Answer = ();

    fn request(&self) -> Request {
        let policy = match self.0 {
            RestorePolicy::StayOff => 0,
            RestorePolicy::Previous => 1,
            RestorePolicy::TurnOn => 2,
            // 3 asks for the supported policies and changes nothing.
            RestorePolicy::Unknown => 3,
        };
        chassis(0x06, vec![policy])
    }

    fn parse(&self, _data: &[u8]) -> Result<(), Malformed> {
        Ok(())
    }
}

/// Where to boot from (section 28.13, table 28-14, boot flags, data 2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BootDevice {
    /// As the firmware is set up.
    NoOverride,
    Network,
    Disk,
    DiskSafeMode,
    Diagnostic,
    Cdrom,
    Setup,
    RemoteFloppy,
    RemoteCdrom,
    RemoteMedia,
    RemoteDisk,
    Floppy,
    /// A number that the specification reserves.
    Other(u8),
}

impl BootDevice {
    const NUMBERS: [(u8, Self); 12] = [
        (0, Self::NoOverride),
        (1, Self::Network),
        (2, Self::Disk),
        (3, Self::DiskSafeMode),
        (4, Self::Diagnostic),
        (5, Self::Cdrom),
        (6, Self::Setup),
        (7, Self::RemoteFloppy),
        (8, Self::RemoteCdrom),
        (9, Self::RemoteMedia),
        (11, Self::RemoteDisk),
        (15, Self::Floppy),
    ];

    fn from_number(number: u8) -> Self {
        Self::NUMBERS
            .into_iter()
            .find(|(n, _)| *n == number)
            .map_or(Self::Other(number), |(_, device)| device)
    }

    fn number(self) -> u8 {
        match self {
            Self::Other(number) => number & 0x0f,
            _ => Self::NUMBERS.into_iter().find(|(_, device)| *device == self).map_or(0, |(n, _)| n),
        }
    }
}

/// The boot flags: parameter 5 of the system boot options (table 28-14).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BootFlags {
    /// The flags are to be obeyed. A BMC clears it after 60 s, or when the machine has booted.
    pub valid: bool,
    /// Also for the boots after the next one.
    pub persistent: bool,
    /// Boot as UEFI does, not as a PC BIOS.
    pub uefi: bool,
    pub device: BootDevice,
}

const BOOT_FLAGS: u8 = 5;

/// Get System Boot Options for the boot flags (section 28.13).
#[derive(Clone, Copy, Debug)]
pub struct GetBootFlags;

impl Command for GetBootFlags {
    type Answer = BootFlags;

    fn request(&self) -> Request {
        chassis(0x09, vec![BOOT_FLAGS, 0, 0])
    }

    fn parse(&self, data: &[u8]) -> Result<BootFlags, Malformed> {
        let mut reader = Reader::new("Get System Boot Options answer", data);
        let [_, parameter, first, second] = reader.array()?;
        if parameter & 0x7f != BOOT_FLAGS {
            return Err(reader.malformed("another parameter than asked for"));
        }
        Ok(BootFlags {
            // Bit 7 of the parameter marks it locked or unsettled.
            valid: first & 0x80 != 0 && parameter & 0x80 == 0,
            persistent: first & 0x40 != 0,
            uefi: first & 0x20 != 0,
            device: BootDevice::from_number(second >> 2 & 0x0f),
        })
    }
}

/// Set System Boot Options for the boot flags (section 28.12). Some BMCs ignore them while another has them in use:
/// send [`AcknowledgeBootInfo`] first, and read them back.
#[derive(Clone, Copy, Debug)]
pub struct SetBootFlags(pub BootFlags);

impl Command for SetBootFlags {
    type Answer = ();

    fn request(&self) -> Request {
        let BootFlags { valid, persistent, uefi, device } = self.0;
        let first = u8::from(valid) << 7 | u8::from(persistent) << 6 | u8::from(uefi) << 5;
        chassis(0x08, vec![BOOT_FLAGS, first, device.number() << 2, 0, 0, 0])
    }

    fn parse(&self, _data: &[u8]) -> Result<(), Malformed> {
        Ok(())
    }
}

/// Marks the boot information as taken by nobody yet: parameter 4 (table 28-14), before the flags are set.
#[derive(Clone, Copy, Debug)]
pub struct AcknowledgeBootInfo;

impl Command for AcknowledgeBootInfo {
    type Answer = ();

    fn request(&self) -> Request {
        // Write mask for the BIOS's bit, and that bit set: the BIOS has dealt with the old information.
        chassis(0x08, vec![4, 0x01, 0x01])
    }

    fn parse(&self, _data: &[u8]) -> Result<(), Malformed> {
        Ok(())
    }
}

/// Lets the boot flags stand until a boot uses them: parameter 3 (table 28-14). Without it a BMC drops them 60 s after
/// they were set, or when the power button is pressed. Not every BMC knows the parameter.
#[derive(Clone, Copy, Debug)]
pub struct KeepBootFlags;

impl Command for KeepBootFlags {
    type Answer = ();

    fn request(&self) -> Request {
        // Not cleared by PEF, the timeout, the watchdog, a reset button or the power button.
        chassis(0x08, vec![3, 0x1f])
    }

    fn parse(&self, _data: &[u8]) -> Result<(), Malformed> {
        Ok(())
    }
}

/// Keeps other consoles from setting boot options meanwhile: parameter 0 (table 28-14). Optional: completion code 80h
/// is a BMC that does not know it, 81h one where somebody else is at it (section 28.12).
#[derive(Clone, Copy, Debug)]
pub struct SetInProgress(pub bool);

impl Command for SetInProgress {
    type Answer = ();

    fn request(&self) -> Request {
        chassis(0x08, vec![0, u8::from(self.0)])
    }

    fn parse(&self, _data: &[u8]) -> Result<(), Malformed> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chassis_status_is_read() {
        let status = GetChassisStatus.parse(&[0x41, 0x10, 0x50]).unwrap();
        assert!(status.power_on && !status.power_fault);
        assert_eq!(status.restore, RestorePolicy::TurnOn);
        assert_eq!((status.last_event, status.identify), (0x10, Some(1)));
        assert!(GetChassisStatus.parse(&[1, 2]).is_err());
    }

    #[test]
    fn boot_flags_are_read_as_they_were_set() {
        for (_, device) in BootDevice::NUMBERS {
            let flags = BootFlags { valid: true, persistent: true, uefi: false, device };
            let mut answer = SetBootFlags(flags).request().data.clone();
            answer.insert(0, 1);
            assert_eq!(GetBootFlags.parse(&answer), Ok(flags));
        }
        assert!(GetBootFlags.parse(&[1, 4, 0, 0]).is_err());
        assert_eq!(BootDevice::Other(10).number(), 10);
    }

    #[test]
    fn control_and_identify_have_their_numbers() {
        assert_eq!(ChassisControl::SoftShutdown.request().data, [5]);
        assert_eq!(ChassisIdentify::On.request().data, [0, 1]);
        assert_eq!(ChassisIdentify::Seconds(0).request().data, [0]);
    }
}
