//! The LAN channel: what it is, who may use it, and its cipher suites (sections 22.15 and 22.22 to 22.24).

use rackhand_ipmi::CompletionCode;
use rackhand_ipmi::wire::suite::{Algorithms, Suite};

use super::ADMINISTRATOR;
use super::answer::{Answer, at_least, done, exactly};
use super::app::{LAN, is_lan};
use crate::model::Bmc;

/// The channel to the host itself.
const SYSTEM: u8 = 0x0f;
/// Bytes of a list in one answer (table 22-18).
const PART: usize = 16;

impl Bmc {
    pub(super) fn channel(&mut self, code: u8, data: &[u8]) -> Answer {
        match code {
            // Set Channel Access is taken only as what it is already: always available.
            0x40 => {
                let [channel, access, _] = exactly(data)?;
                if is_lan(channel) && matches!(access & 0x07, 0 | 2) {
                    done()
                } else {
                    Err(CompletionCode::INVALID_FIELD)
                }
            }
            0x41 => {
                let [channel, _] = exactly(data)?;
                match channel & 0x0f {
                    // No alerts, per-message and user-level authentication on, always available.
                    channel if is_lan(channel) => Ok(vec![0x22, ADMINISTRATOR]),
                    _ => Err(CompletionCode::INVALID_FIELD),
                }
            }
            0x42 => match exactly::<1>(data)? {
                [channel] if is_lan(channel) => {
                    let active = u8::try_from(self.ipmi.active()).unwrap_or(u8::MAX) & 0x3f;
                    // 802.3 LAN, IPMB-1.0 protocol, many sessions; the IPMI forum's own number.
                    Ok(vec![LAN, 0x04, 0x01, 0x80 | active, 0xf2, 0x1b, 0x00, 0x00, 0x00])
                }
                [channel] if channel & 0x0f == SYSTEM => {
                    Ok(vec![SYSTEM, 0x0c, 0x05, 0x00, 0xf2, 0x1b, 0x00, 0xff, 0xff])
                }
                _ => Err(CompletionCode::INVALID_FIELD),
            },
            _ => self.cipher_suites(data),
        }
    }

    /// Get Channel Cipher Suites: records of suites, or with bit 7 clear every algorithm once.
    fn cipher_suites(&self, data: &[u8]) -> Answer {
        let [channel, _, which] = at_least(data)?;
        if !is_lan(channel) {
            return Err(CompletionCode::INVALID_FIELD);
        }
        let suites = &self.ipmi.config.suites;
        let list: Vec<u8> = if which & 0x80 != 0 {
            suites.iter().flat_map(|suite| record(*suite)).collect()
        } else {
            let mut algorithms: Vec<u8> =
                suites.iter().flat_map(|suite| tagged(suite.algorithms())).collect();
            algorithms.sort_unstable();
            algorithms.dedup();
            algorithms
        };
        let part = list.chunks(PART).nth(usize::from(which & 0x3f)).unwrap_or_default();
        Ok([&[LAN], part].concat())
    }
}

/// A standard cipher suite's record (table 22-19).
fn record(suite: Suite) -> Vec<u8> {
    [&[0xc0, suite.id()], tagged(suite.algorithms()).as_slice()].concat()
}

fn tagged(algorithms: Algorithms) -> [u8; 3] {
    [algorithms.authentication, 0x40 | algorithms.integrity, 0x80 | algorithms.confidentiality]
}
