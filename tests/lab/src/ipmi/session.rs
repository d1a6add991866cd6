//! The session table of a BMC, sequence numbers, and what goes out through a session (sections 6.12 and
//! 13.6).

use std::net::SocketAddr;
use std::time::Duration;

use rackhand_ipmi::Malformed;
use rackhand_ipmi::wire::crypto::Keys;
use rackhand_ipmi::wire::packet::{self, Header, PayloadKind};
use rackhand_ipmi::wire::suite::Suite;

use super::{Datagram, Ipmi};

/// A handshake that is not finished is forgotten after this (section 13.20 leaves it to the BMC).
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes remembered beside the sessions; the oldest makes room.
pub(super) const HANDSHAKES: usize = 8;

/// A session, or one on its way.
pub(super) struct Session {
    /// The BMC's id and the console's.
    pub id: u32,
    pub console: u32,
    pub peer: SocketAddr,
    pub suite: Suite,
    /// Highest privilege asked for in the open request, 0 for whatever is possible.
    pub asked: u8,
    pub managed_random: [u8; 16],
    pub login: Option<Login>,
    pub active: bool,
    /// Place in the user table.
    pub user: usize,
    /// In force, and how far it can be raised.
    pub privilege: u8,
    pub limit: u8,
    pub used: Duration,
    pub keys: Option<Box<Keys>>,
    pub window: Window,
    /// Number of the last packet sent.
    pub sent: u32,
    /// Commands carried out.
    pub commands: u64,
}

/// What RAKP 1 said.
pub(super) struct Login {
    pub name: Vec<u8>,
    pub role: u8,
    pub console_random: [u8; 16],
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("id", &self.id).field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// Numbers seen (section 6.12.13): at most 15 ahead of the newest, at most 16 behind it, and each one once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    newest: u32,
    seen: u32,
}

impl Window {
    const AHEAD: u32 = 15;
    const BEHIND: u32 = 16;

    pub fn accept(&mut self, number: u32) -> bool {
        if number == 0 {
            return false;
        }
        let ahead = number.wrapping_sub(self.newest);
        if (1..=Self::AHEAD).contains(&ahead) {
            self.seen = self.seen << ahead | 1;
            self.newest = number;
            return true;
        }
        let behind = self.newest.wrapping_sub(number);
        if behind > Self::BEHIND || self.seen & 1 << behind != 0 {
            return false;
        }
        self.seen |= 1 << behind;
        true
    }
}

impl Session {
    /// A whole datagram of this session; `repeat` gives it the number of the one before.
    pub fn seal(
        &mut self,
        kind: PayloadKind,
        payload: &[u8],
        iv: &[u8; 16],
        encrypted: bool,
        repeat: bool,
    ) -> Result<Vec<u8>, Malformed> {
        if !repeat || self.sent == 0 {
            self.sent = self.sent.wrapping_add(1).max(1);
        }
        let header = Header {
            kind,
            encrypted: encrypted && self.suite.encrypts(),
            authenticated: self.suite.authenticates(),
            session: self.console,
            sequence: self.sent,
        };
        let mut out = Vec::with_capacity(payload.len() + 80);
        packet::seal(header, payload, self.keys.as_deref(), iv, &mut out)?;
        Ok(out)
    }
}

impl Ipmi {
    pub(super) fn session(&mut self, id: u32) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|session| session.id == id)
    }

    pub(super) fn active(&self) -> usize {
        self.sessions.iter().filter(|session| session.active).count()
    }

    /// A place for one more handshake; false when the table is full.
    pub(super) fn make_room(&mut self) -> bool {
        if self.active() >= self.config.sessions {
            return false;
        }
        let waiting = self.sessions.iter().filter(|session| !session.active);
        if waiting.clone().count() >= HANDSHAKES
            && let Some(oldest) = waiting.min_by_key(|session| session.used).map(|session| session.id)
        {
            self.sessions.retain(|session| session.id != oldest);
        }
        true
    }

    /// An id that is in use nowhere.
    pub(super) fn new_session_id(&mut self) -> u32 {
        loop {
            let id = (self.draw() & 0xffff_ffff) as u32;
            if id != 0 && self.sessions.iter().all(|session| session.id != id) {
                return id;
            }
        }
    }

    /// Ends a session; its console goes with it.
    pub(super) fn drop_session(&mut self, id: u32) -> bool {
        let before = self.sessions.len();
        self.sessions.retain(|session| session.id != id);
        if self.sol.as_ref().is_some_and(|sol| sol.session == id) {
            self.sol = None;
        }
        self.sessions.len() < before
    }

    /// Forgets idle sessions and handshakes nobody went on with. With `stale`, who has the console stays.
    pub(super) fn expire(&mut self, stale: bool) {
        let (real, timeout) = (self.real, self.config.session_timeout);
        let console = self.sol.as_ref().map(|sol| sol.session);
        let over: Vec<(u32, bool)> = self
            .sessions
            .iter()
            .filter(|session| !(stale && console == Some(session.id)))
            .filter(|session| {
                real >= session.used + if session.active { timeout } else { HANDSHAKE.min(timeout) }
            })
            .map(|session| (session.id, session.active))
            .collect();
        for (id, active) in over {
            self.counters.sessions_timed_out += u64::from(active);
            self.drop_session(id);
        }
    }

    /// Sends through a session.
    pub(super) fn send_in(&mut self, id: u32, kind: PayloadKind, payload: &[u8], encrypted: bool) {
        self.send_late(id, kind, payload, encrypted, Duration::ZERO, false);
    }

    pub(super) fn send_late(
        &mut self,
        id: u32,
        kind: PayloadKind,
        payload: &[u8],
        encrypted: bool,
        after: Duration,
        repeat: bool,
    ) {
        let iv = self.draw_bytes();
        let Some(session) = self.session(id) else { return };
        let to = session.peer;
        // What the BMC itself makes is never too long.
        if let Ok(bytes) = session.seal(kind, payload, &iv, encrypted, repeat) {
            self.out.push(Datagram { to, after, bytes });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Window;

    #[test]
    fn numbers_are_taken_once_within_fifteen_ahead_and_sixteen_behind() {
        let mut window = Window::default();
        for (number, taken) in [
            (0, false),
            (1, true),
            (1, false),
            (16, true),
            (2, true),
            (2, false),
            (32, false),
            (31, true),
            (15, true),
            (14, false),
        ] {
            assert_eq!(window.accept(number), taken, "{number}");
        }
        let mut window = Window { newest: u32::MAX, seen: 1 };
        assert!(!window.accept(0), "0 is no number");
        assert!(window.accept(1));
        assert!(!window.accept(u32::MAX));
    }
}
