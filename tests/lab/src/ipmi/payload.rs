//! Activating and deactivating SOL, and who has it (chapter 24).

use rackhand_ipmi::CompletionCode;
use rackhand_ipmi::sol::packet::{HEADER, MAX_CHARACTERS};

use super::answer::{Answer, at_least, done, exactly};
use super::app::is_lan;
use super::sol::Sol;
use super::{ADMINISTRATOR, OPERATOR};
use crate::model::Bmc;

const SOL: u8 = 1;
/// The only serial port.
const INSTANCE: u8 = 1;
const ALREADY_ACTIVE: CompletionCode = CompletionCode(0x80);
const DISABLED: CompletionCode = CompletionCode(0x81);
const NOT_ACTIVE: CompletionCode = CompletionCode(0x80);
const NO_ENCRYPTION: CompletionCode = CompletionCode(0x83);
const ENCRYPTION_REQUIRED: CompletionCode = CompletionCode(0x84);

impl Bmc {
    pub(super) fn payload(&mut self, session: u32, code: u8, data: &[u8]) -> Answer {
        match code {
            0x48 => self.activate(session, data),
            0x49 => self.deactivate(session, data),
            0x4a => {
                let [kind] = exactly(data)?;
                let active = kind == SOL && self.ipmi.sol.is_some();
                Ok(vec![u8::from(kind == SOL), u8::from(active), 0])
            }
            0x4b => {
                let [kind, instance] = exactly(data)?;
                if (kind, instance) != (SOL, INSTANCE) {
                    return Err(CompletionCode::INVALID_FIELD);
                }
                let holder = self.ipmi.sol.as_ref().map_or(0, |sol| sol.session);
                Ok([holder.to_le_bytes().as_slice(), &[INSTANCE, 0, 0, 0, 0, 0, 0, 0]].concat())
            }
            0x4c => {
                let [_, who, standard, ..] = at_least::<4>(data)?;
                let place = usize::from(who & 0x3f).checked_sub(1);
                let user = place.and_then(|place| self.ipmi.users.get_mut(place));
                let user = user.ok_or(CompletionCode::INVALID_FIELD)?;
                // Operation in bits 7:6: 0 enables what is set, 1 disables it.
                if standard & 1 << SOL != 0 {
                    user.sol = who & 0x40 == 0;
                }
                done()
            }
            0x4d => {
                let [_, who] = exactly(data)?;
                let place = usize::from(who & 0x3f).checked_sub(1);
                let user = place.and_then(|place| self.ipmi.users.get(place));
                let user = user.ok_or(CompletionCode::INVALID_FIELD)?;
                Ok(vec![u8::from(user.sol) << SOL, 0, 0, 0])
            }
            // Payloads of the channel: IPMI messages and SOL, and those that open sessions.
            0x4e => match exactly::<1>(data)? {
                [channel] if is_lan(channel) => Ok(vec![0x03, 0x00, 0x3f, 0x00, 0, 0, 0, 0]),
                _ => Err(CompletionCode::INVALID_FIELD),
            },
            _ => match exactly::<2>(data)? {
                // Version 1.0.
                [_, 0 | SOL | 0x10..=0x15] => Ok(vec![0x10]),
                _ => Err(CompletionCode(0x80)),
            },
        }
    }

    /// Activate Payload (section 24.1).
    fn activate(&mut self, session: u32, data: &[u8]) -> Answer {
        let [kind, instance, options, ..] = at_least::<6>(data)?;
        if (kind & 0x3f, instance & 0x0f) != (SOL, INSTANCE) {
            return Err(CompletionCode::INVALID_FIELD);
        }
        let Some(own) = self.ipmi.session(session) else { return Err(CompletionCode::UNSPECIFIED) };
        let (user, encrypts, privilege) = (own.user, own.suite.encrypts(), own.privilege);
        let encrypted = options & 0x80 != 0;
        if encrypted && !encrypts {
            return Err(NO_ENCRYPTION);
        }
        if !encrypted && encrypts {
            return Err(ENCRYPTION_REQUIRED);
        }
        if privilege < OPERATOR || !self.ipmi.users.get(user).is_some_and(|user| user.sol) {
            return Err(DISABLED);
        }
        if self.ipmi.sol.is_some() {
            self.ipmi.counters.consoles_refused += 1;
            return Err(ALREADY_ACTIVE);
        }
        self.ipmi.counters.consoles_opened += 1;
        self.ipmi.sol = Some(Sol::new(session, encrypted));
        self.ipmi.console = super::console::Console::default();
        let size = u16::try_from(HEADER + MAX_CHARACTERS).unwrap_or_default().to_le_bytes();
        Ok([&[0, 0, 0, 0], &size[..], &size, &self.ipmi.port.to_le_bytes(), &[0xff, 0xff]].concat())
    }

    /// Deactivate Payload (section 24.2): one's own, and an administrator anybody's. Who had it is told.
    fn deactivate(&mut self, session: u32, data: &[u8]) -> Answer {
        let [kind, instance] = at_least(data)?;
        if (kind & 0x3f, instance & 0x0f) != (SOL, INSTANCE) {
            return Err(CompletionCode::INVALID_FIELD);
        }
        let privilege = self.ipmi.session(session).map_or(0, |session| session.privilege);
        let holder = self.ipmi.sol.as_ref().map(|sol| sol.session).ok_or(NOT_ACTIVE)?;
        if holder != session {
            if privilege < ADMINISTRATOR {
                return Err(CompletionCode::PRIVILEGE);
            }
            self.say_deactivated();
        }
        self.ipmi.sol = None;
        done()
    }
}
