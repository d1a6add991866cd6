//! Commands about the BMC itself and its sessions (chapters 20 and 22).

use std::net::SocketAddr;

use rackhand_ipmi::CompletionCode;

use super::answer::{Answer, at_least, done, exactly};
use super::{ADMINISTRATOR, Ipmi};
use crate::model::Bmc;

/// Dell's enterprise number, which its BMCs answer with.
const DELL: [u8; 3] = [0xa2, 0x02, 0x00];
/// The LAN channel.
pub(super) const LAN: u8 = 1;
/// "The channel this came in by".
const PRESENT: u8 = 0x0e;

/// Whether a channel number means the LAN.
pub(super) fn is_lan(channel: u8) -> bool {
    matches!(channel & 0x0f, LAN | PRESENT)
}

impl Bmc {
    pub(super) fn app(&mut self, session: u32, code: u8, data: &[u8]) -> Answer {
        match code {
            0x01 => Ok(self.device_id()),
            0x02 | 0x03 => {
                self.reset_bmc(self.timings.bmc_reset, false);
                done()
            }
            // Get Self Test Results: no error (section 20.4).
            0x04 => Ok(vec![0x55, 0x00]),
            // Get Device GUID, Get System GUID: one machine, one id.
            0x08 | 0x37 => Ok(self.ipmi.guid.to_vec()),
            // Get BMC Global Enables: the event log is on.
            0x2f => Ok(vec![0x08]),
            0x38 => self.ipmi.authentication_capabilities(data),
            0x3b => self.ipmi.set_privilege(session, data),
            0x3c => self.ipmi.close_session(session, data),
            0x3d => self.ipmi.session_info(session, data),
            _ => Err(CompletionCode::INVALID_COMMAND),
        }
    }

    /// Get Device ID (section 20.1). The firmware is the one Redfish shows: major, minor in decimal digits,
    /// the rest in the auxiliary bytes.
    fn device_id(&self) -> Vec<u8> {
        let mut numbers = self.idrac_version().split('.').map(|part| part.parse::<u8>().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        let (major, minor, third, fourth) = (next(), next(), next(), next());
        let minor = ((minor / 10 % 10) << 4) | (minor % 10);
        // Everything but a bridge and an event receiver of its own; IPMI 2.0.
        let mut id = vec![0x20, 0x01, major & 0x7f, minor, 0x02, 0x8f];
        id.extend(DELL);
        id.extend([0x00, 0x01, 0x00, fourth, third, 0x00]);
        id
    }
}

impl Ipmi {
    /// Get Channel Authentication Capabilities (section 22.13): RMCP+ only.
    fn authentication_capabilities(&self, data: &[u8]) -> Answer {
        let [channel, _] = exactly(data)?;
        if !is_lan(channel) {
            return Err(CompletionCode::INVALID_FIELD);
        }
        let extended = channel & 0x80 != 0;
        let named = self.users.iter().any(|user| user.enabled && !user.name.is_empty());
        let null = self.users.iter().any(|user| user.enabled && user.name.is_empty());
        let anonymous = self
            .users
            .iter()
            .any(|user| user.enabled && user.name.is_empty() && user.password.bytes().is_empty());
        let mut status = u8::from(named) << 2 | u8::from(null) << 1 | u8::from(anonymous);
        if extended && self.config.bmc_key.is_some() {
            status |= 0x20;
        }
        let (types, versions) = if extended { (0x80, 0x02) } else { (0x00, 0x00) };
        Ok(vec![LAN, types, status, versions, 0, 0, 0, 0])
    }

    /// Set Session Privilege Level (section 22.18); 0 asks for the one in force.
    fn set_privilege(&mut self, session: u32, data: &[u8]) -> Answer {
        let [level] = exactly(data)?;
        let Some(session) = self.session(session) else { return Err(CompletionCode::UNSPECIFIED) };
        match level & 0x0f {
            0 => {}
            level if level > session.limit => return Err(CompletionCode(0x81)),
            1 | 5.. => return Err(CompletionCode::INVALID_FIELD),
            level => session.privilege = level,
        }
        Ok(vec![session.privilege])
    }

    /// Close Session (section 22.19). The own session ends after its answer is sealed: it is only marked
    /// here.
    fn close_session(&mut self, own: u32, data: &[u8]) -> Answer {
        let id = u32::from_le_bytes(at_least(data)?);
        let handle = data.get(4).copied().filter(|_| id == 0);
        let target = match handle {
            Some(handle) => self.by_handle(handle).map(|(_, session)| session.id),
            None => Some(id),
        };
        let privilege = self.session(own).map_or(0, |session| session.privilege);
        let found = target.and_then(|id| self.session(id)).filter(|session| session.active);
        let Some(session) = found else {
            return Err(CompletionCode(if handle.is_some() { 0x88 } else { 0x87 }));
        };
        let id = session.id;
        if id != own && privilege < ADMINISTRATOR {
            return Err(CompletionCode::PRIVILEGE);
        }
        self.counters.sessions_closed += 1;
        if id == own {
            if let Some(session) = self.session(id) {
                session.active = false;
            }
        } else {
            self.drop_session(id);
        }
        done()
    }

    /// Sessions are numbered from 1 in the order in which they were opened.
    fn by_handle(&self, handle: u8) -> Option<(u8, &super::session::Session)> {
        let mut active = (1..).zip(self.sessions.iter().filter(|session| session.active));
        active.find(|(number, _)| *number == handle)
    }

    /// Get Session Info (section 22.20): of the own session, by position, by handle or by id.
    fn session_info(&self, own: u32, data: &[u8]) -> Answer {
        let by_id = |id: u32| {
            let mut active = (1..).zip(self.sessions.iter().filter(|session| session.active));
            active.find(|(_, session)| session.id == id)
        };
        let found = match *data {
            [0x00] => by_id(own),
            [0xfe, handle] => self.by_handle(handle),
            [0xff, a, b, c, d] => by_id(u32::from_le_bytes([a, b, c, d])),
            [index @ 0x01..=0xfd] => self.by_handle(index),
            _ => return Err(CompletionCode::LENGTH_INVALID),
        };
        let possible = u8::try_from(self.config.sessions).unwrap_or(u8::MAX) & 0x3f;
        let active = u8::try_from(self.active()).unwrap_or(u8::MAX) & 0x3f;
        let Some((handle, session)) = found else { return Ok(vec![0, possible, active]) };
        let user = u8::try_from(session.user + 1).unwrap_or_default();
        // RMCP+ on the LAN channel.
        let mut info = vec![handle, possible, active, user, session.privilege, 0x10 | LAN];
        let (address, port) = match session.peer {
            SocketAddr::V4(peer) => (peer.ip().octets(), peer.port()),
            SocketAddr::V6(peer) => ([0; 4], peer.port()),
        };
        info.extend(address);
        info.extend([0; 6]);
        info.extend(port.to_le_bytes());
        Ok(info)
    }
}
