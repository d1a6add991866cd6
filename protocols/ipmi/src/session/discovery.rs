//! What can be learnt about a BMC without a user: is it there, what does it speak, which cipher suites does it offer.
//!
//! Three questions, asked at once and repeated: a presence ping, authentication capabilities, and the cipher suite list
//! (in either form: some BMCs answer only one). A BMC that has told its capabilities is asked the other two once more
//! at most: many answer no ping, and old ones have no list. Nothing here counts as an attempt to log in.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    config::Privilege,
    sessionless::{self, Incoming},
};
use crate::{
    Command,
    commands::device::{
        AuthenticationCapabilities, GetAuthenticationCapabilities, GetCipherSuites, SuiteRecord, THIS_CHANNEL,
    },
    wire::rmcp::Presence,
};

/// How long an answer may take.
const WAIT: Duration = Duration::from_millis(700);
/// How often each question is asked, of a BMC that answers nothing and of one that is there.
pub(crate) const ATTEMPTS: u32 = 4;
const ATTEMPTS_PRESENT: u32 = 2;
/// Tag of the ping and request sequence of the capabilities; the list's parts are numbered from 0.
const TAG: u8 = 0x21;

/// What was found; all empty when nothing answered.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Findings {
    /// The presence ping was answered: whether the BMC says that it speaks IPMI. Many BMCs answer no ping.
    pub presence: Option<bool>,
    pub authentication: Option<AuthenticationCapabilities>,
    /// None where the BMC does not tell, which older ones do not.
    pub suites: Option<Vec<SuiteRecord>>,
}

impl Findings {
    /// Somebody answered something.
    pub fn answered(&self) -> bool {
        self.presence.is_some() || self.authentication.is_some() || self.suites.is_some()
    }
}

/// The questions as a state machine, driven like a [`Session`](super::Session).
pub struct Discovery {
    findings: Findings,
    list: Vec<u8>,
    part: u8,
    listing: bool,
    sent: u32,
    due: Instant,
    out: VecDeque<Vec<u8>>,
}

impl Discovery {
    pub fn new(now: Instant) -> Self {
        let mut discovery = Self {
            findings: Findings::default(),
            list: Vec::new(),
            part: 0,
            listing: true,
            sent: 0,
            due: now,
            out: VecDeque::new(),
        };
        discovery.wake(now);
        discovery
    }

    /// Asks again what is not answered. Once every question is answered or was asked often enough, there is no
    /// deadline.
    pub fn wake(&mut self, now: Instant) {
        if now < self.due || self.is_done() {
            return;
        }
        self.sent += 1;
        self.due = now + WAIT;
        if self.is_done() {
            return;
        }
        if self.findings.presence.is_none() {
            let mut ping = Vec::new();
            Presence::Ping { tag: TAG }.encode(&mut ping);
            self.out.push_back(ping);
        }
        if self.findings.authentication.is_none() {
            self.out.extend(sessionless::old_form(&capabilities().request(), TAG));
        }
        self.ask_list();
    }

    pub fn receive(&mut self, now: Instant, datagram: &mut [u8]) {
        match sessionless::sort(datagram) {
            Ok(Incoming::Presence(Presence::Pong { ipmi, .. })) => self.findings.presence = Some(ipmi),
            Ok(Incoming::Message(bytes)) => {
                if let Some(Ok(Ok(answer))) = sessionless::answer(&capabilities(), TAG, bytes) {
                    self.findings.authentication = Some(answer);
                }
                match sessionless::answer(&self.question(), self.part, bytes) {
                    Some(Ok(Ok(part))) if self.listing => self.listed(now, &part),
                    Some(Ok(Err(_))) => self.listing = false,
                    _ => {}
                }
            }
            _ => {}
        }
    }

    pub fn transmit(&mut self) -> Option<Vec<u8>> {
        self.out.pop_front()
    }

    /// None when everything is answered.
    pub fn deadline(&self) -> Option<Instant> {
        (!self.is_done()).then_some(self.due)
    }

    pub fn findings(self) -> Findings {
        self.findings
    }

    fn is_done(&self) -> bool {
        let answered =
            self.findings.presence.is_some() && self.findings.authentication.is_some() && !self.listing;
        let attempts = if self.findings.authentication.is_some() { ATTEMPTS_PRESENT } else { ATTEMPTS };
        answered || self.sent > attempts
    }

    fn question(&self) -> GetCipherSuites {
        GetCipherSuites { channel: THIS_CHANNEL, part: self.part }
    }

    fn ask_list(&mut self) {
        if self.listing {
            let form = if self.sent % 2 == 1 { sessionless::new_form } else { sessionless::old_form };
            self.out.extend(form(&self.question().request(), self.part));
        }
    }

    fn listed(&mut self, now: Instant, part: &[u8]) {
        self.list.extend_from_slice(part);
        if part.len() == GetCipherSuites::PART && self.part < 63 {
            self.part += 1;
            self.due = now + WAIT;
            return self.ask_list();
        }
        self.listing = false;
        self.findings.suites = Some(SuiteRecord::read(&self.list));
    }
}

fn capabilities() -> GetAuthenticationCapabilities {
    GetAuthenticationCapabilities { channel: THIS_CHANNEL, privilege: Privilege::Administrator }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        session::fake::Bmc,
        wire::{rmcp, suite::Suite},
    };

    /// Runs to the end against `answer`; how long it took.
    fn discover(mut answer: impl FnMut(&[u8]) -> Option<Vec<u8>>) -> (Findings, Duration) {
        let start = Instant::now();
        let mut now = start;
        let mut discovery = Discovery::new(now);
        while let Some(deadline) = discovery.deadline() {
            while let Some(datagram) = discovery.transmit() {
                if let Some(mut answer) = answer(&datagram) {
                    discovery.receive(now, &mut answer);
                }
            }
            if discovery.deadline().is_some() {
                now = deadline;
                discovery.wake(now);
            }
        }
        (discovery.findings(), now - start)
    }

    #[test]
    fn a_bmc_tells_what_it_is() {
        // Six suites of five bytes do not fit one part.
        let mut bmc = Bmc { suites: Suite::ALL.to_vec(), ..Bmc::default() };
        let (findings, took) = discover(|datagram| {
            if rmcp::decode(datagram) == Ok(rmcp::Class::Ipmi) {
                return bmc.answer(datagram);
            }
            let mut pong = Vec::new();
            Presence::Pong { tag: TAG, ipmi: true }.encode(&mut pong);
            Some(pong)
        });
        assert_eq!(findings.presence, Some(true));
        assert!(findings.authentication.unwrap().ipmi20);
        let ids: Vec<_> = findings.suites.unwrap().iter().map(|record| record.id).collect();
        assert_eq!(ids, [0, 1, 2, 3, 17]);
        assert_eq!(took, Duration::ZERO);
    }

    #[test]
    fn silence_is_not_waited_for_long() {
        let (findings, took) = discover(|_| None);
        assert!(!findings.answered());
        assert_eq!(took, WAIT * ATTEMPTS);
        // One that answers in the IPMI 1.5 form only, and no ping.
        let mut bmc = Bmc::default();
        let old = |datagram: &[u8]| (datagram[4] == 0).then(|| bmc.answer(datagram)).flatten();
        let (findings, took) = discover(old);
        assert!(findings.authentication.is_some() && findings.suites.is_some());
        assert_eq!(took, WAIT * ATTEMPTS_PRESENT);
    }
}
