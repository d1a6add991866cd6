//! The machine around the BMC (chapter 28). Power is the host's, as Redfish sees it.

use std::time::Duration;

use rackhand_ipmi::CompletionCode;

use super::answer::{Answer, at_least, done, exactly};
use crate::model::{Bmc, BootOverride};

/// How long the light is on when nobody says how long (section 28.5).
const IDENTIFY: u8 = 15;
/// Parameters of the boot options (table 28-14).
const BOOT_FLAGS: u8 = 5;

impl Bmc {
    pub(super) fn chassis_command(&mut self, session: u32, code: u8, data: &[u8]) -> Answer {
        match code {
            // Capabilities: an intrusion sensor, and the BMC is everything else.
            0x00 => Ok(vec![0x01, 0x20, 0x20, 0x20, 0x20, 0x20]),
            0x01 => {
                let [power, light] = [u8::from(self.host.is_on()), self.light()];
                let last = if self.host.is_on() { 0x10 } else { 0x00 };
                Ok(vec![power | self.ipmi.restore << 5, last, 0x40 | light << 4])
            }
            0x02 => {
                let [action] = exactly(data)?;
                self.control(session, action & 0x0f)
            }
            0x04 => {
                let seconds = data.first().copied().unwrap_or(IDENTIFY);
                let forced = data.get(1).is_some_and(|flags| flags & 0x01 != 0);
                let length = if forced { Duration::MAX } else { Duration::from_secs(seconds.into()) };
                self.ipmi.identify_until = self.now.saturating_add(length);
                done()
            }
            0x06 => {
                let [policy] = exactly(data)?;
                if policy & 0x07 < 3 {
                    self.ipmi.restore = policy & 0x07;
                }
                // All three policies are supported.
                Ok(vec![0x07])
            }
            // Restart cause: unknown, the LAN channel.
            0x07 => Ok(vec![0x00, 0x01]),
            0x08 => self.set_boot_option(data),
            0x09 => self.boot_option(data),
            // Power-on hours: counted by the hour.
            0x0f => {
                let hours = u32::try_from(self.now.as_secs() / 3_600).unwrap_or(u32::MAX);
                Ok([&[60], hours.to_le_bytes().as_slice()].concat())
            }
            _ => Err(CompletionCode::INVALID_COMMAND),
        }
    }

    /// 0 off, 1 for a time, 2 until turned off.
    fn light(&self) -> u8 {
        match self.ipmi.identify_until {
            Duration::MAX => 2,
            until if until > self.now => 1,
            _ => 0,
        }
    }

    /// Chassis Control (section 28.3).
    fn control(&mut self, session: u32, action: u8) -> Answer {
        let on = self.host.is_on();
        let reset = match (action, on) {
            (0, true) => "ForceOff",
            (1, false) => "On",
            // Nothing to do.
            (0, false) | (1, true) => return done(),
            (2, true) => "PowerCycle",
            (3, true) => "ForceRestart",
            (4, true) => "Nmi",
            (5, true) => "GracefulShutdown",
            (2..=5, false) => return Err(CompletionCode::NOT_IN_STATE),
            _ => return Err(CompletionCode::INVALID_FIELD),
        };
        let (client, real) = (self.ipmi.session(session).map(|session| session.peer.ip()), self.ipmi.real);
        if let Some(client) = client {
            self.record_ipmi_power(&format!("ipmi-{session:08x}"), client, real);
        }
        self.request_power(reset);
        done()
    }

    fn set_boot_option(&mut self, data: &[u8]) -> Answer {
        let [parameter, rest @ ..] = data else { return Err(CompletionCode::LENGTH_INVALID) };
        match parameter & 0x7f {
            BOOT_FLAGS => {
                self.set_boot_flags(exactly(rest)?);
                done()
            }
            // Set in progress, service partition, clearing of flags, acknowledgement, initiator: taken,
            // without effect.
            0..=7 => done(),
            _ => Err(CompletionCode(0x80)),
        }
    }

    /// The boot flags and Redfish's override are one setting; flags that are not valid are none.
    fn set_boot_flags(&mut self, [flags, device, rest @ ..]: [u8; 5]) {
        let target = match device >> 2 & 0x0f {
            1 => "Pxe",
            2 | 3 | 11 => "Hdd",
            4 => "Utilities",
            5 | 8 => "Cd",
            6 => "BiosSetup",
            _ => "None",
        };
        let enabled = match (flags & 0x80 != 0 && target != "None", flags & 0x40 != 0) {
            (false, _) => "Disabled",
            (true, false) => "Once",
            (true, true) => "Continuous",
        };
        let mode = if flags & 0x20 != 0 || !self.legacy_boot() { "UEFI" } else { "Legacy" };
        self.ipmi.boot = rest;
        if self.faults.take("setting_ignored").is_none() {
            let target = if enabled == "Disabled" { "None" } else { target };
            self.boot_override = BootOverride {
                target: target.to_owned(),
                enabled: enabled.to_owned(),
                mode: mode.to_owned(),
            };
        }
    }

    fn boot_flags(&self) -> [u8; 5] {
        let BootOverride { target, enabled, mode } = &self.boot_override;
        let device = match target.as_str() {
            "Pxe" | "UefiHttp" => 1,
            "Hdd" | "UefiTarget" => 2,
            "Utilities" => 4,
            "Cd" => 5,
            "BiosSetup" => 6,
            _ => 0,
        };
        let efi = if mode == "UEFI" { 0x20 } else { 0 };
        let flags = match enabled.as_str() {
            "Once" => 0x80 | efi,
            "Continuous" => 0xc0 | efi,
            _ => 0,
        };
        let [a, b, c] = self.ipmi.boot;
        [flags, device << 2, a, b, c]
    }

    fn boot_option(&self, data: &[u8]) -> Answer {
        let [parameter] = at_least(data)?;
        let parameter = parameter & 0x7f;
        let value: &[u8] = match parameter {
            0..=3 => &[0],
            4 => &[0, 0],
            BOOT_FLAGS => &self.boot_flags(),
            6 => &[0; 9],
            7 => &[0; 17],
            _ => return Err(CompletionCode(0x80)),
        };
        Ok([&[0x01, parameter], value].concat())
    }
}
