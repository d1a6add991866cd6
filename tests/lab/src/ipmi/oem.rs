//! Dell's raw commands for the fans (network function 30h), which newer firmware refuses.
//!
//! Source: tigerblue77/Dell_iDRAC_fan_controller_Docker issues 346 and 349: 30h 30h 01h 00h takes the fans by
//! hand, 01h 01h gives them back, 02h FFh and a percentage sets all of them; iDRAC9 from 3.34.34.34 on
//! answers D4h, 3.30.30.30 is the last that takes them.

use rackhand_ipmi::CompletionCode;

use super::answer::{Answer, done};
use super::config::Fans;
use crate::model::{Bmc, version_at_least};
use crate::spec::Generation;

pub(super) const DELL: u8 = 0x30;
const FANS: u8 = 0x30;

impl Bmc {
    pub(super) fn dell(&mut self, code: u8, data: &[u8]) -> Answer {
        if code != FANS {
            return Err(CompletionCode::INVALID_COMMAND);
        }
        let refuses = match self.spec.model.generation() {
            Generation::Idrac8 => false,
            Generation::Idrac9 => version_at_least(self.idrac_version(), "3.34"),
            Generation::Idrac10 => true,
        };
        if refuses {
            return Err(CompletionCode::PRIVILEGE);
        }
        match *data {
            [0x01, 0x00] => self.ipmi.fans = Fans::Manual(20),
            [0x01, 0x01] => self.ipmi.fans = Fans::Automatic,
            [0x02, 0xff, percent @ 0..=100] if self.ipmi.fans != Fans::Automatic => {
                self.ipmi.fans = Fans::Manual(percent);
            }
            [0x02, 0xff, 0..=100] => return Err(CompletionCode::NOT_IN_STATE),
            _ => return Err(CompletionCode::INVALID_FIELD),
        }
        self.ipmi.counters.fan_commands += 1;
        done()
    }
}
