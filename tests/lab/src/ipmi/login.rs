//! Open Session and RAKP 1 to 4, the BMC's side (sections 13.17 to 13.24).

use std::net::SocketAddr;

use rackhand_ipmi::wire::crypto::{Exchange, KEY_MAX, Keys};
use rackhand_ipmi::wire::handshake::{
    OpenRequest, OpenResponse, Rakp1, Rakp2, Rakp3, Rakp4, Refusal, Status,
};
use rackhand_ipmi::wire::packet::{self, Header, PayloadKind};
use rackhand_ipmi::wire::suite::Suite;

use super::session::{Login, Session, Window};
use super::{ADMINISTRATOR, Datagram, Ipmi, USER};
use crate::model::Bmc;

/// Bit 4 of the role byte: the user is looked up by name alone (table 13-11).
const NAME_ONLY: u8 = 0x10;

impl Bmc {
    pub(super) fn handshake(&mut self, from: SocketAddr, kind: PayloadKind, payload: &[u8]) {
        // What cannot be read is dropped, as noise on the port would be.
        let answer = match kind {
            PayloadKind::OPEN_REQUEST => OpenRequest::decode(payload)
                .ok()
                .map(|request| (PayloadKind::OPEN_RESPONSE, self.open(from, request))),
            PayloadKind::RAKP_1 => Rakp1::decode(payload)
                .ok()
                .and_then(|rakp1| Some((PayloadKind::RAKP_2, self.ipmi.rakp1(from, &rakp1)?))),
            PayloadKind::RAKP_3 => Rakp3::decode(payload)
                .ok()
                .and_then(|rakp3| Some((PayloadKind::RAKP_4, self.ipmi.rakp3(from, &rakp3)?))),
            _ => None,
        };
        if let Some((kind, payload)) = answer {
            self.ipmi.send_plain(from, kind, &payload);
        }
    }

    fn open(&mut self, from: SocketAddr, request: OpenRequest) -> Vec<u8> {
        let console_session = request.console_session;
        let refuse = |status| {
            let mut out = Vec::new();
            Refusal { tag: request.tag, status, console_session: Some(console_session) }.encode(&mut out);
            out
        };
        let asked = Suite::from_algorithms(request.algorithms);
        let offered = asked.filter(|suite| self.ipmi.config.suites.contains(suite));
        let Some(mut suite) = offered else { return refuse(Status::NO_MATCHING_SUITE) };
        if suite == Suite::S17 {
            if self.faults.take("ipmi_refuses_17").is_some() {
                return refuse(Status::NO_MATCHING_SUITE);
            }
            if self.faults.take("ipmi_answers_17_with_3").is_some() {
                suite = Suite::S3;
            }
        }
        let allowed = self.ipmi.suite_limit(suite);
        if allowed == 0 {
            return refuse(Status::NO_MATCHING_SUITE);
        }
        let ipmi = &mut self.ipmi;
        if self.faults.take("ipmi_session_table_full").is_some() || !ipmi.make_room() {
            ipmi.counters.sessions_refused += 1;
            return refuse(Status::NO_RESOURCES);
        }
        // A request that was sent again because its answer was lost gets the same session.
        let again = ipmi.sessions.iter().find(|session| {
            !session.active
                && session.peer == from
                && session.console == console_session
                && session.suite == suite
        });
        let id = match again.map(|session| session.id) {
            Some(id) => id,
            None => {
                let (id, managed_random) = (ipmi.new_session_id(), ipmi.draw_bytes());
                ipmi.sessions.push(Session {
                    id,
                    console: console_session,
                    peer: from,
                    suite,
                    asked: request.privilege,
                    managed_random,
                    login: None,
                    active: false,
                    user: 0,
                    privilege: USER,
                    limit: allowed,
                    used: ipmi.real,
                    keys: None,
                    window: Window::default(),
                    sent: 0,
                    commands: 0,
                });
                id
            }
        };
        let mut out = Vec::new();
        OpenResponse {
            tag: request.tag,
            privilege: allowed,
            console_session,
            managed_session: id,
            algorithms: suite.algorithms(),
        }
        .encode(&mut out);
        out
    }
}

impl Ipmi {
    pub(super) fn send_plain(&mut self, to: SocketAddr, kind: PayloadKind, payload: &[u8]) {
        let mut bytes = Vec::new();
        if packet::seal(Header::sessionless(kind), payload, None, &[0; 16], &mut bytes).is_ok() {
            self.out.push(Datagram { to, after: std::time::Duration::ZERO, bytes });
        }
    }

    /// Highest privilege that a suite may be used with; 0: none (section 23.2, parameter 24).
    pub(super) fn suite_limit(&self, suite: Suite) -> u8 {
        let place = self.config.suites.iter().position(|offered| *offered == suite).unwrap_or(0);
        match self.lan.get(&24).and_then(|limits| limits.get(1 + place / 2)) {
            Some(pair) if place % 2 == 0 => pair & 0x0f,
            Some(pair) => pair >> 4,
            None => ADMINISTRATOR,
        }
    }

    /// The user a name and a role byte stand for.
    fn look_up(&self, name: &[u8], role: u8) -> Result<usize, Status> {
        let wanted = role & 0x0f;
        let mut named = self
            .users
            .iter()
            .enumerate()
            .filter(|(_, user)| user.enabled && user.name.as_bytes() == name)
            .filter(|(_, user)| user.password.bytes().len() <= KEY_MAX && user.privilege <= ADMINISTRATOR);
        if role & NAME_ONLY != 0 {
            let (place, user) = named.next().ok_or(Status::UNAUTHORIZED_NAME)?;
            return if user.privilege >= wanted { Ok(place) } else { Err(Status::UNAUTHORIZED_ROLE) };
        }
        let found = named.find(|(_, user)| user.privilege >= wanted);
        found.map(|(place, _)| place).ok_or(Status::UNAUTHORIZED_NAME)
    }

    fn rakp1(&mut self, from: SocketAddr, rakp1: &Rakp1<'_>) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let real = self.real;
        let waiting = |session: &&mut Session| !session.active && session.peer == from;
        let Some(session) = self.session(rakp1.managed_session).filter(waiting) else {
            Refusal { tag: rakp1.tag, status: Status::INVALID_SESSION, console_session: None }
                .encode(&mut out);
            return Some(out);
        };
        session.used = real;
        let (id, console_session, asked) = (session.id, session.console, session.asked);
        let found = match rakp1.role & 0x0f {
            // 5 is the manufacturer's own level, which nobody here has.
            6.. | 5 => Err(Status::INVALID_ROLE),
            role if asked != 0 && role > asked => Err(Status::UNAUTHORIZED_ROLE),
            _ => self.look_up(rakp1.user, rakp1.role),
        };
        let user = match found {
            Ok(user) => user,
            Err(status) => {
                self.counters.failed_logins += 1;
                self.drop_session(id);
                let console_session = Some(console_session);
                Refusal { tag: rakp1.tag, status, console_session }.encode(&mut out);
                return Some(out);
            }
        };
        let guid = self.guid;
        let password = self.users.get(user)?.password.clone();
        let session = self.session(id)?;
        session.user = user;
        session.login =
            Some(Login { name: rakp1.user.to_vec(), role: rakp1.role, console_random: rakp1.console_random });
        let code = session.exchange(&guid)?.rakp2(password.bytes());
        Rakp2 {
            tag: rakp1.tag,
            console_session,
            managed_random: session.managed_random,
            guid,
            code: code.as_slice(),
        }
        .encode(&mut out);
        Some(out)
    }

    fn rakp3(&mut self, from: SocketAddr, rakp3: &Rakp3<'_>) -> Option<Vec<u8>> {
        let (guid, real, mut out) = (self.guid, self.real, Vec::new());
        let kg = self.config.bmc_key.clone();
        let known = self.sessions.iter().find(|session| session.id == rakp3.managed_session)?;
        let id = known.id;
        // Again after the first command: the answer is known to have arrived.
        if known.peer != from || known.commands > 0 {
            return None;
        }
        let user = self.users.get(known.user)?;
        let (password, privilege) = (user.password.clone(), user.privilege);
        if rakp3.status != Status::OK {
            // The console does not believe us: our code did not fit its password.
            self.counters.failed_logins += u64::from(!known.active);
            self.drop_session(id);
            return None;
        }
        let console_session = known.console;
        let room = known.active || self.active() < self.config.sessions;
        let session = self.session(id)?;
        let exchange = session.exchange(&guid)?;
        let refusal = if !exchange.rakp3(password.bytes()).matches(rakp3.code) {
            Some(Status::INVALID_CHECK_VALUE)
        } else if !room {
            Some(Status::NO_RESOURCES)
        } else {
            None
        };
        if let Some(status) = refusal {
            match status {
                Status::NO_RESOURCES => self.counters.sessions_refused += 1,
                _ => self.counters.failed_logins += 1,
            }
            self.drop_session(id);
            let console_session = Some(console_session);
            Refusal { tag: rakp3.tag, status, console_session }.encode(&mut out);
            return Some(out);
        }
        let key = exchange.session_key(password.bytes(), kg.as_ref().map(crate::Password::bytes));
        let check = exchange.rakp4(&key);
        Rakp4 { tag: rakp3.tag, console_session, check: check.as_slice() }.encode(&mut out);
        if !session.active {
            let role = session.login.as_ref().map_or(0, |login| login.role & 0x0f);
            session.active = true;
            session.used = real;
            session.keys = Some(Box::new(Keys::new(&key)));
            session.limit = session.limit.min(privilege).min(if role == 0 { ADMINISTRATOR } else { role });
            session.privilege = USER.min(session.limit);
            let active = self.active() as u64;
            self.counters.sessions_opened += 1;
            self.counters.sessions_peak = self.counters.sessions_peak.max(active);
        }
        Some(out)
    }
}

impl Session {
    /// Everything that both sides have said; none before RAKP 1.
    fn exchange<'a>(&'a self, guid: &'a [u8; 16]) -> Option<Exchange<'a>> {
        let login = self.login.as_ref()?;
        Some(Exchange {
            suite: self.suite,
            console_session: self.console,
            managed_session: self.id,
            console_random: &login.console_random,
            managed_random: &self.managed_random,
            guid,
            role: login.role,
            user: &login.name,
        })
    }
}
