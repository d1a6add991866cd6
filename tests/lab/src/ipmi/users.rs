//! Users: names, passwords, privileges (sections 22.26 to 22.30). User 2 is the account that Redfish knows,
//! too.

use rackhand_ipmi::CompletionCode;

use super::answer::{Answer, at_least, done, exactly};
use super::app::is_lan;
use super::config::{USERS, User};
use super::{ADMINISTRATOR, NO_ACCESS};
use crate::model::Bmc;
use crate::spec::Password;

/// The lab's account.
const ACCOUNT: u8 = 2;

impl Bmc {
    pub(super) fn user_command(&mut self, code: u8, data: &[u8]) -> Answer {
        match code {
            0x43 => self.set_access(data),
            0x44 => self.get_access(data),
            0x45 => self.set_name(data),
            0x46 => {
                let [id] = exactly(data)?;
                let mut name = [0; 16];
                for (place, byte) in name.iter_mut().zip(self.user(id)?.name.bytes()) {
                    *place = byte;
                }
                Ok(name.to_vec())
            }
            _ => self.set_password(data),
        }
    }

    fn user(&mut self, id: u8) -> Result<&mut User, CompletionCode> {
        let place = usize::from(id & 0x3f).checked_sub(1).ok_or(CompletionCode::INVALID_FIELD)?;
        self.ipmi.users.get_mut(place).ok_or(CompletionCode::INVALID_FIELD)
    }

    fn get_access(&mut self, data: &[u8]) -> Answer {
        let [channel, id] = exactly(data)?;
        if !is_lan(channel) {
            return Err(CompletionCode::INVALID_FIELD);
        }
        let enabled = self.ipmi.users.iter().filter(|user| user.enabled).count();
        let user = self.user(id)?;
        let state = if user.enabled { 0x40 } else { 0x80 };
        let messaging = if user.privilege <= ADMINISTRATOR { 0x10 } else { 0 };
        let enabled = u8::try_from(enabled).unwrap_or_default();
        let users = u8::try_from(USERS).unwrap_or_default();
        // User 1 has a fixed name: none.
        Ok(vec![users, state | enabled, 1, messaging | user.privilege])
    }

    fn set_access(&mut self, data: &[u8]) -> Answer {
        let [channel, id, privilege] = at_least(data)?;
        let privilege = privilege & 0x0f;
        if !is_lan(channel) || !(1..=ADMINISTRATOR).contains(&privilege) && privilege != NO_ACCESS {
            return Err(CompletionCode::INVALID_FIELD);
        }
        self.user(id)?.privilege = privilege;
        done()
    }

    fn set_name(&mut self, data: &[u8]) -> Answer {
        let [id, name @ ..] = exactly::<17>(data)?;
        let length = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        let name = name.get(..length).unwrap_or_default();
        let Ok(name) = std::str::from_utf8(name) else { return Err(CompletionCode::INVALID_FIELD) };
        if id & 0x3f == 1 {
            return Err(CompletionCode::INVALID_FIELD);
        }
        name.clone_into(&mut self.user(id)?.name);
        if id & 0x3f == ACCOUNT {
            name.clone_into(&mut self.username);
        }
        done()
    }

    /// Set User Password (section 22.30), which also enables, disables and tests.
    fn set_password(&mut self, data: &[u8]) -> Answer {
        let [id, operation] = at_least(data)?;
        let given = data.get(2..).unwrap_or_default();
        let size = if id & 0x80 != 0 { 20 } else { 16 };
        if operation & 0x03 > 1 && given.len() != size {
            return Err(CompletionCode::LENGTH_INVALID);
        }
        let length = given.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let given = given.get(..length).unwrap_or_default();
        let user = self.user(id)?;
        match operation & 0x03 {
            0 => user.enabled = false,
            1 => user.enabled = true,
            2 => {
                let Ok(text) = std::str::from_utf8(given) else { return Err(CompletionCode::INVALID_FIELD) };
                let password = Password::from(text);
                user.password = password.clone();
                user.sol = true;
                if id & 0x3f == ACCOUNT {
                    self.password = password;
                }
            }
            _ if user.password.bytes() == given => {}
            _ => return Err(CompletionCode(0x80)),
        }
        done()
    }
}
