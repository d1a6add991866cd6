//! The IPMI side of the simulated BMCs: RMCP+ sessions, commands and Serial-over-LAN in front of the same
//! machine that Redfish shows. Section numbers are those of the *IPMI Specification, V2.0, Rev. 1.1*.
//!
//! Bytes and time in, bytes out: no socket, no clock. Encoding and cryptography are those of `rackhand-ipmi`;
//! what a BMC does with them is written here, from the specification and not from our client. Like real BMCs
//! these drop what they cannot read, what is not for a session of theirs, and what was seen before; a command
//! they know and will not carry out is refused by its completion code.
//!
//! Session timers, retries and delays are real time, whatever the speed of the lab; power, readings and the
//! log are the machine's, in simulated time.

mod answer;
mod app;
mod channel;
mod chassis;
mod command;
mod config;
mod console;
mod fru;
mod lan;
mod login;
mod oem;
mod payload;
mod reading;
mod sdr;
mod sel;
mod sensors;
mod session;
mod sol;
mod users;

use std::net::SocketAddr;
use std::time::Duration;

use rackhand_ipmi::wire::message::Message;
use rackhand_ipmi::wire::packet::{self, Form, Header, PayloadKind};
use rackhand_ipmi::wire::rmcp::{self, Class, Presence};

pub(crate) use self::config::Ipmi;
pub use self::config::{Datagram, IpmiConfig, IpmiUser};
pub(crate) use self::sel::{MAINS_LOST, TURNED_OFF, TURNED_ON};
use crate::fault::Fault;
use crate::model::Bmc;

/// Privilege levels (section 6.8).
pub(crate) const CALLBACK: u8 = 1;
pub(crate) const USER: u8 = 2;
pub(crate) const OPERATOR: u8 = 3;
pub(crate) const ADMINISTRATOR: u8 = 4;
pub(crate) const NO_ACCESS: u8 = 15;

/// How often somebody must call [`Bmc::ipmi_poll`] while there are only sessions.
const SESSIONS_POLL: Duration = Duration::from_secs(1);

impl Bmc {
    /// One datagram that reached the BMC, and what it sends because of it.
    pub(crate) fn ipmi_receive(
        &mut self,
        now: Duration,
        real: Duration,
        from: SocketAddr,
        datagram: &mut [u8],
    ) -> Vec<Datagram> {
        self.advance(now);
        self.ipmi.real = real;
        if !self.is_reachable() || real < self.ipmi.frozen_until {
            return Vec::new();
        }
        self.ipmi.counters.datagrams_received += 1;
        if self.ipmi_loses() {
            return Vec::new();
        }
        self.expire_sessions();
        match rmcp::decode(datagram) {
            Ok(Class::Asf) => self.ping(from, datagram),
            Ok(Class::Ipmi) => {
                let body = datagram.get_mut(rmcp::HEADER..).unwrap_or_default();
                match Form::of(body) {
                    Ok(Form::Sessionless) => self.before_session(from, body),
                    Ok(Form::RmcpPlus) => self.rmcp_plus(from, body),
                    Err(_) => {}
                }
            }
            Err(_) => {}
        }
        self.transmit_console();
        self.departures()
    }

    /// What is due without a datagram: repetitions on the console, sessions that time out.
    pub(crate) fn ipmi_poll(&mut self, now: Duration, real: Duration) -> Vec<Datagram> {
        self.advance(now);
        self.ipmi.real = real;
        if !self.is_reachable() || real < self.ipmi.frozen_until {
            return Vec::new();
        }
        self.expire_sessions();
        self.transmit_console();
        self.departures()
    }

    /// When [`Bmc::ipmi_poll`] would have something to do.
    pub(crate) fn ipmi_due(&self) -> Option<Duration> {
        match (&self.ipmi.sol, self.ipmi.sessions.is_empty()) {
            (Some(_), _) => Some(self.ipmi.real),
            (None, false) => Some(self.ipmi.real + SESSIONS_POLL),
            (None, true) => None,
        }
    }

    fn expire_sessions(&mut self) {
        if !self.ipmi.sessions.is_empty() {
            let stale = self.faults.is_on("ipmi_sol_stale");
            self.ipmi.expire(stale);
        }
    }

    fn ping(&mut self, from: SocketAddr, datagram: &[u8]) {
        if let Ok(Presence::Ping { tag }) = Presence::decode(datagram.get(rmcp::HEADER..).unwrap_or_default())
        {
            let mut bytes = Vec::new();
            Presence::Pong { tag, ipmi: true }.encode(&mut bytes);
            self.ipmi.out.push(Datagram { to: from, after: Duration::ZERO, bytes });
        }
    }

    /// The IPMI 1.5 form, which here serves only the questions that come before a session (section 13.27.1).
    fn before_session(&mut self, from: SocketAddr, body: &[u8]) {
        let Ok(message) = packet::open_sessionless(body).and_then(Message::decode) else { return };
        let Some(answer) = self.sessionless(&message) else { return };
        let mut bytes = Vec::new();
        if packet::seal_sessionless(&answer, &mut bytes).is_ok() {
            self.ipmi.out.push(Datagram { to: from, after: Duration::ZERO, bytes });
        }
    }

    fn rmcp_plus(&mut self, from: SocketAddr, body: &mut [u8]) {
        let Ok(header) = Header::peek(body) else { return };
        if header.session == 0 {
            let Ok((header, payload)) = packet::open(body, None) else { return };
            if header.kind == PayloadKind::IPMI {
                let answer = Message::decode(payload).ok().and_then(|message| self.sessionless(&message));
                if let Some(answer) = answer {
                    self.ipmi.send_plain(from, PayloadKind::IPMI, &answer);
                }
            } else {
                self.handshake(from, header.kind, payload);
            }
            return;
        }
        let real = self.ipmi.real;
        let Some(session) = self.ipmi.session(header.session).filter(|session| session.active) else {
            self.ipmi.counters.strays += 1;
            return;
        };
        // A session's packets are as well protected as its suite can; without authentication they cannot be
        // told from anybody's, so that the address has to do.
        if header.authenticated != session.suite.authenticates()
            || (!header.authenticated && session.peer != from)
        {
            self.ipmi.counters.strays += 1;
            return;
        }
        let Ok((header, payload)) = packet::open(body, session.keys.as_deref()) else {
            self.ipmi.counters.forged += 1;
            return;
        };
        if !session.window.accept(header.sequence) {
            self.ipmi.counters.replayed += 1;
            return;
        }
        session.peer = from;
        session.used = real;
        let (id, encrypts) = (session.id, session.suite.encrypts());
        match header.kind {
            PayloadKind::IPMI if header.encrypted == encrypts => {
                if let Ok(message) = Message::decode(payload) {
                    self.command(id, &message);
                }
            }
            PayloadKind::SOL => self.console_packet(id, header.encrypted, payload),
            _ => {}
        }
    }

    fn ipmi_loses(&mut self) -> bool {
        match self.faults.get("ipmi_loss") {
            Some(Fault::IpmiLoss { percent }) => {
                let percent = *percent;
                let lost = self.ipmi.chance(percent);
                self.ipmi.counters.datagrams_lost += u64::from(lost);
                lost
            }
            _ => false,
        }
    }

    /// What is sent, after the network of this BMC has had its way with it.
    fn departures(&mut self) -> Vec<Datagram> {
        let mut sent = Vec::new();
        for mut datagram in std::mem::take(&mut self.ipmi.out) {
            self.ipmi.counters.datagrams_sent += 1;
            if self.ipmi_loses() {
                continue;
            }
            if let Some(Fault::IpmiDelay { milliseconds }) = self.faults.take("ipmi_delay") {
                datagram.after += Duration::from_millis(milliseconds);
            }
            if self.faults.take("ipmi_duplicate").is_some() {
                sent.push(datagram.clone());
            }
            sent.push(datagram);
        }
        sent
    }
}
