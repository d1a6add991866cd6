//! LAN and SOL configuration parameters (sections 23.1, 23.2, 26.2, 26.3).
//!
//! What is written is kept and read back; the lab's BMC goes on listening where it listens. Only the
//! privilege limits of the cipher suites (parameter 24) change what it does.

use rackhand_ipmi::CompletionCode;

use super::answer::{Answer, at_least, done};
use super::app::is_lan;
use crate::model::Bmc;

/// Revision of the parameters: 1.1.
const REVISION: u8 = 0x11;
/// Parameter not supported (both sections).
const UNSUPPORTED: CompletionCode = CompletionCode(0x80);
/// Suites have four bits each in parameter 24, sixteen of them.
const SUITES: usize = 16;

impl Bmc {
    pub(super) fn transport(&mut self, code: u8, data: &[u8]) -> Answer {
        match code {
            0x01 => self.set_lan(data),
            0x02 => {
                let [flags, parameter, _, _] = at_least(data)?;
                if !is_lan(flags) {
                    return Err(CompletionCode::INVALID_FIELD);
                }
                self.configuration(flags, |bmc| bmc.lan_parameter(parameter))
            }
            // Nothing about SOL can be changed.
            0x21 => Err(CompletionCode(0x82)),
            0x22 => {
                let [flags, parameter, _, _] = at_least(data)?;
                self.configuration(flags, |bmc| bmc.sol_parameter(parameter))
            }
            _ => Err(CompletionCode::INVALID_COMMAND),
        }
    }

    /// Bit 7 asks for the revision alone.
    fn configuration(&self, flags: u8, parameter: impl FnOnce(&Self) -> Option<Vec<u8>>) -> Answer {
        if flags & 0x80 != 0 {
            return Ok(vec![REVISION]);
        }
        let value = parameter(self).ok_or(UNSUPPORTED)?;
        Ok([&[REVISION], value.as_slice()].concat())
    }

    fn set_lan(&mut self, data: &[u8]) -> Answer {
        let [channel, parameter, value @ ..] = data else { return Err(CompletionCode::LENGTH_INVALID) };
        if !is_lan(*channel) {
            return Err(CompletionCode::INVALID_FIELD);
        }
        let length = match parameter {
            0 | 4 => 1,
            3 | 6 | 12 | 14 => 4,
            5 | 13 | 15 => 6,
            16 => 18,
            20 => 2,
            24 => 9,
            1 | 7 | 22 | 23 => return Err(CompletionCode(0x82)),
            _ => return Err(UNSUPPORTED),
        };
        if value.len() != length {
            return Err(CompletionCode::LENGTH_INVALID);
        }
        self.ipmi.lan.insert(*parameter, value.to_vec());
        done()
    }

    fn lan_parameter(&self, parameter: u8) -> Option<Vec<u8>> {
        if let Some(set) = self.ipmi.lan.get(&parameter) {
            return Some(set.clone());
        }
        let suites = &self.ipmi.config.suites;
        let [a, b, c, ..] = self.seed.to_le_bytes();
        Some(match parameter {
            // Set in progress: none. Authentication types of IPMI 1.5: none.
            0 | 1 => vec![0],
            2 => vec![0; 5],
            3 => vec![127, 0, 0, 1],
            // Static.
            4 => vec![1],
            5 => vec![0x02, 0x00, a, b, c, 0x00],
            6 => vec![255, 0, 0, 0],
            7 => vec![0x40, 0x40, 0x10],
            12 | 14 => vec![0; 4],
            13 | 15 => vec![0; 6],
            16 => [b"public".as_slice(), &[0; 12]].concat(),
            20 => vec![0, 0],
            21 => vec![0],
            22 => vec![u8::try_from(suites.len()).unwrap_or_default()],
            23 => {
                let mut list = vec![0];
                list.extend(suites.iter().map(|suite| suite.id()));
                list.resize(1 + SUITES, 0);
                list
            }
            24 => {
                let mut limits = vec![0_u8; 1 + SUITES / 2];
                for (place, suite) in suites.iter().enumerate().take(SUITES) {
                    if let Some(pair) = limits.get_mut(1 + place / 2) {
                        *pair |= self.ipmi.suite_limit(*suite) << (4 * (place % 2));
                    }
                }
                limits
            }
            _ => return None,
        })
    }

    fn sol_parameter(&self, parameter: u8) -> Option<Vec<u8>> {
        let retry = u8::try_from(self.ipmi.config.sol_retry.as_millis() / 10).unwrap_or(u8::MAX);
        let retries = u8::try_from(self.ipmi.config.sol_retries).unwrap_or(u8::MAX);
        Some(match parameter {
            0 => vec![0],
            1 => vec![1],
            // Encrypted, authenticated, for users and above.
            2 => vec![0xc2],
            // Characters are sent at once.
            3 => vec![0, 1],
            4 => vec![retries & 0x07, retry],
            // 115.2 kbit/s.
            5 | 6 => vec![0x0a],
            7 => vec![1],
            8 => self.ipmi.port.to_le_bytes().to_vec(),
            _ => return None,
        })
    }
}
