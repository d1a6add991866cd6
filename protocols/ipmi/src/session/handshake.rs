//! Opening a session: authentication capabilities, Open Session, RAKP 1 to 4 (sections 13.14 to 13.24).
//!
//! Rules that keep it safe and kind:
//! * The next suite is tried only where the BMC refuses one before any authentication (by a status, or by answering
//!   with the next one), or does not answer it and does not list it. What happens after RAKP 1 never leads to another
//!   suite.
//! * A wrong password shows in RAKP 2, before any proof of ours is sent. The BMC is told (RAKP 3 with a status), so
//!   that it frees its half-open session, and nothing is tried again.
//! * A message is repeated as it was. A BMC that answered twice with different random numbers gets a RAKP 3 for each;
//!   RAKP 4 is matched to its RAKP 3 by the tag. If RAKP 4 stays out although the password has been proved right, the
//!   handshake starts once more from Open Session.

use std::time::Instant;

use super::{
    config::{Config, Lookup},
    outbox::{Entropy, Outbox},
    sessionless,
};
use crate::{
    Command, CompletionCode, Error, Malformed,
    commands::device::{
        CloseSession, GetAuthenticationCapabilities, GetCipherSuites, SuiteRecord, THIS_CHANNEL,
    },
    error::{PrivilegeRefusal, Rejection},
    wire::{
        crypto::{Code, Exchange, Keys},
        handshake::{OpenRequest, OpenResponse, Rakp1, Rakp2, Rakp3, Rakp4, Refusal, Status},
        packet::{self, Header, PayloadKind},
        suite::Suite,
    },
};

/// Role bit 4 of RAKP 1: look the user up by name alone (table 13-11).
const NAME_ONLY: u8 = 0x10;

/// A session that both sides have agreed on.
pub(super) struct Established {
    pub suite: Suite,
    pub keys: Keys,
    pub console_session: u32,
    pub managed_session: u32,
    pub guid: [u8; 16],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Capabilities,
    Open,
    /// The BMC does not answer an Open Session Request: does it list the suite?
    List,
    Rakp2,
    Rakp4,
}

impl Stage {
    /// What was sent last.
    fn sent(self) -> &'static str {
        match self {
            Self::Capabilities => "Get Channel Authentication Capabilities",
            Self::Open | Self::List => "Open Session Request",
            Self::Rakp2 => "RAKP message 1",
            Self::Rakp4 => "RAKP message 3",
        }
    }
}

/// A RAKP 2 that fits the password, and what must come of it.
struct Proved {
    /// Of the RAKP 3 that answered it.
    tag: u8,
    managed_random: [u8; 16],
    guid: [u8; 16],
    check: Code,
    keys: Keys,
}

/// What a step may look at and use.
pub(super) struct Step<'a> {
    pub config: &'a Config,
    pub now: Instant,
    pub entropy: &'a mut dyn Entropy,
    pub out: &'a mut Outbox,
}

pub(super) struct Handshake {
    stage: Stage,
    /// Those not tried yet come after the first one.
    suites: &'static [Suite],
    console_session: u32,
    managed_session: u32,
    console_random: [u8; 16],
    role: u8,
    /// Of the message that was sent last.
    tag: u8,
    /// Of RAKP 1.
    rakp1_tag: u8,
    /// At most two: see the module's rules.
    proved: Vec<Proved>,
    /// The message to repeat.
    datagram: Vec<u8>,
    sent: u32,
    due: Instant,
    may_restart: bool,
    list: Vec<u8>,
    part: u8,
    /// The last thing that could not be read: a better reason than silence.
    noise: Option<Malformed>,
}

impl Handshake {
    /// Sends the first message.
    pub fn start(step: &mut Step<'_>) -> Result<Self, Error> {
        let mut tag = [0];
        step.entropy.fill(&mut tag)?;
        let [tag] = tag;
        let role = step.config.privilege.number()
            | match step.config.lookup {
                Lookup::Name => NAME_ONLY,
                Lookup::NameAndPrivilege => 0,
            };
        let mut handshake = Self {
            stage: Stage::Capabilities,
            suites: step.config.suites(),
            console_session: 0,
            managed_session: 0,
            console_random: [0; 16],
            role,
            tag,
            rakp1_tag: tag,
            proved: Vec::new(),
            datagram: Vec::new(),
            sent: 0,
            due: step.now,
            may_restart: true,
            list: Vec::new(),
            part: 0,
            noise: None,
        };
        let datagram = sessionless::old_form(&capabilities(step.config).request(), 0)?;
        handshake.send(Stage::Capabilities, datagram, step);
        Ok(handshake)
    }

    pub fn deadline(&self) -> Instant {
        self.due
    }

    pub fn note(&mut self, noise: Malformed) {
        self.noise = Some(noise);
    }

    /// Repeats what was not answered, or gives up.
    pub fn wake(&mut self, step: &mut Step<'_>) -> Result<(), Error> {
        if step.now < self.due {
            return Ok(());
        }
        if self.sent < step.config.timing.attempts {
            if self.stage == Stage::List {
                // Some BMCs tell their list in one of the two forms only.
                let form = if self.sent % 2 == 1 { sessionless::old_form } else { sessionless::new_form };
                self.datagram = form(&self.part().request(), self.part)?;
            }
            self.sent += 1;
            self.due = step.now + step.config.timing.handshake_wait;
            step.out.put_copy(&self.datagram);
            return Ok(());
        }
        match self.stage {
            Stage::Open if self.suites.len() > 1 && self.noise.is_none() => self.ask_list(step),
            Stage::Rakp4 if self.may_restart => {
                self.may_restart = false;
                self.release(step)?;
                self.open(step)
            }
            Stage::Rakp4 => {
                self.release(step)?;
                Err(Error::NoAnswer { to: self.stage.sent(), attempts: self.sent })
            }
            stage => Err(match self.noise.take() {
                Some(malformed) => malformed.into(),
                None => Error::NoAnswer { to: stage.sent(), attempts: self.sent },
            }),
        }
    }

    /// A message outside a session: an answer to a command.
    pub fn message(&mut self, bytes: &[u8], step: &mut Step<'_>) -> Result<(), Error> {
        match self.stage {
            Stage::Capabilities => match sessionless::answer(&capabilities(step.config), 0, bytes) {
                None => Ok(()),
                Some(Err(malformed)) => {
                    self.note(malformed);
                    Ok(())
                }
                Some(Ok(Err(CompletionCode::NODE_BUSY))) => {
                    self.due = step.now + step.config.timing.busy_wait;
                    Ok(())
                }
                Some(Ok(Ok(answer))) if !answer.ipmi20 => Err(Error::NoRmcpPlus),
                // A BMC that refuses the question may open a session all the same.
                Some(Ok(_)) => self.open(step),
            },
            Stage::List => match sessionless::answer(&self.part(), self.part, bytes) {
                Some(Ok(Ok(part))) => self.listed(&part, step),
                Some(Ok(Err(_))) => Err(Error::NoAnswer { to: self.stage.sent(), attempts: self.sent }),
                Some(Err(_)) | None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// A handshake payload. Those of another stage or another tag are duplicates or late, and ignored.
    pub fn payload(
        &mut self,
        kind: PayloadKind,
        payload: &[u8],
        step: &mut Step<'_>,
    ) -> Result<Option<Established>, Error> {
        match (kind, self.stage) {
            (PayloadKind::OPEN_RESPONSE, Stage::Open | Stage::List) => match OpenResponse::decode(payload) {
                Ok(Ok(answer)) => self.opened(answer, step).map(|()| None),
                Ok(Err(refusal)) if self.concerns(refusal, self.tag) => {
                    self.open_refused(refusal.status, step).map(|()| None)
                }
                answer => self.unusable(answer),
            },
            (PayloadKind::RAKP_2, Stage::Rakp2 | Stage::Rakp4) => match Rakp2::decode(payload) {
                Ok(Ok(answer)) => self.rakp2(answer, step).map(|()| None),
                Ok(Err(refusal)) if self.stage == Stage::Rakp2 && self.concerns(refusal, self.rakp1_tag) => {
                    Err(refused("RAKP message 1", refusal.status, step.config))
                }
                answer => self.unusable(answer),
            },
            (PayloadKind::RAKP_4, Stage::Rakp4) => match Rakp4::decode(payload) {
                Ok(Ok(answer)) => self.rakp4(answer),
                Ok(Err(refusal)) if self.concerns(refusal, self.tag) => {
                    // The BMC has moved on: it had our RAKP 3 before, or made another random number meanwhile.
                    let moved_on = matches!(
                        refusal.status,
                        Status::INVALID_SESSION | Status::INACTIVE_SESSION | Status::INVALID_CHECK_VALUE
                    ) && (self.sent > 1 || self.proved.len() > 1);
                    if moved_on && self.may_restart {
                        self.may_restart = false;
                        return self.open(step).map(|()| None);
                    }
                    Err(refused("RAKP message 3", refusal.status, step.config))
                }
                answer => self.unusable(answer),
            },
            _ => Ok(None),
        }
    }

    /// Tells the BMC that a half-open session will not be used (section 13.23, status code of RAKP 3).
    pub fn abandon(&mut self, status: Status, step: &mut Step<'_>) -> Result<(), Error> {
        match self.stage {
            Stage::Rakp2 => {
                let rakp3 = Rakp3 { tag: self.tag, status, managed_session: self.managed_session, code: &[] };
                let header = Header::sessionless(PayloadKind::RAKP_3);
                let mut payload = Vec::new();
                rakp3.encode(&mut payload);
                step.out.put(|datagram| packet::seal(header, &payload, None, &[0; 16], datagram))?;
                Ok(())
            }
            Stage::Rakp4 => self.release(step),
            Stage::Capabilities | Stage::Open | Stage::List => Ok(()),
        }
    }

    /// Closes a session that the BMC may have opened although its RAKP 4 did not arrive: its keys are known.
    fn release(&self, step: &mut Step<'_>) -> Result<(), Error> {
        let close = CloseSession { session: self.managed_session }.request();
        let message = sessionless::message(&close, 0);
        let suite = self.suite();
        let header = Header {
            kind: PayloadKind::IPMI,
            encrypted: suite.encrypts(),
            authenticated: suite.authenticates(),
            session: self.managed_session,
            sequence: 1,
        };
        for proved in &self.proved {
            let mut iv = [0; 16];
            step.entropy.fill(&mut iv)?;
            step.out.put(|datagram| packet::seal(header, &message, Some(&proved.keys), &iv, datagram))?;
        }
        Ok(())
    }

    fn suite(&self) -> Suite {
        // `suites` is never empty: the policy names at least one, and the last one stays.
        self.suites.first().copied().unwrap_or(Suite::S17)
    }

    fn part(&self) -> GetCipherSuites {
        GetCipherSuites { channel: THIS_CHANNEL, part: self.part }
    }

    fn concerns(&self, refusal: Refusal, tag: u8) -> bool {
        // Some BMCs fill in 0 instead of our session id when they refuse.
        refusal.tag == tag && refusal.console_session.is_none_or(|id| id == self.console_session || id == 0)
    }

    fn unusable<T, U>(&mut self, answer: Result<T, Malformed>) -> Result<Option<U>, Error> {
        if let Err(malformed) = answer {
            self.note(malformed);
        }
        Ok(None)
    }

    fn send(&mut self, stage: Stage, datagram: Vec<u8>, step: &mut Step<'_>) {
        self.stage = stage;
        self.datagram = datagram;
        self.sent = 1;
        self.due = step.now + step.config.timing.handshake_wait;
        self.noise = None;
        step.out.put_copy(&self.datagram);
    }

    fn send_payload(
        &mut self,
        stage: Stage,
        kind: PayloadKind,
        payload: &[u8],
        step: &mut Step<'_>,
    ) -> Result<(), Error> {
        let mut datagram = Vec::new();
        packet::seal(Header::sessionless(kind), payload, None, &[0; 16], &mut datagram)?;
        self.send(stage, datagram, step);
        Ok(())
    }

    fn open(&mut self, step: &mut Step<'_>) -> Result<(), Error> {
        let mut id = [0; 4];
        step.entropy.fill(&mut id)?;
        // 0 means no session.
        self.console_session = u32::from_le_bytes(id).max(1);
        step.entropy.fill(&mut self.console_random)?;
        self.tag = self.tag.wrapping_add(1);
        self.proved.clear();
        let mut payload = Vec::new();
        OpenRequest {
            tag: self.tag,
            privilege: 0,
            console_session: self.console_session,
            algorithms: self.suite().algorithms(),
        }
        .encode(&mut payload);
        self.send_payload(Stage::Open, PayloadKind::OPEN_REQUEST, &payload, step)
    }

    fn ask_list(&mut self, step: &mut Step<'_>) -> Result<(), Error> {
        let datagram = sessionless::new_form(&self.part().request(), self.part)?;
        self.send(Stage::List, datagram, step);
        Ok(())
    }

    fn listed(&mut self, part: &[u8], step: &mut Step<'_>) -> Result<(), Error> {
        self.list.extend_from_slice(part);
        if part.len() == GetCipherSuites::PART && self.part < 63 {
            self.part += 1;
            return self.ask_list(step);
        }
        let records = SuiteRecord::read(&self.list);
        let listed = records.iter().any(|record| record.algorithms == self.suite().algorithms());
        match self.suites {
            [_, rest @ ..] if !listed && !records.is_empty() && !rest.is_empty() => {
                self.suites = rest;
                self.open(step)
            }
            _ => Err(Error::NoAnswer { to: Stage::Open.sent(), attempts: step.config.timing.attempts }),
        }
    }

    fn opened(&mut self, answer: OpenResponse, step: &mut Step<'_>) -> Result<(), Error> {
        if answer.tag != self.tag || answer.console_session != self.console_session {
            return Ok(());
        }
        if answer.algorithms != self.suite().algorithms() {
            return match self.suites {
                // It refuses in its own way: with the suite that it has. That one is asked for in its turn, if it is
                // allowed, so that both sides have said the same before anything is proved.
                [_, rest @ ..] if rest.iter().any(|suite| suite.algorithms() == answer.algorithms) => {
                    self.suites = rest;
                    self.open(step)
                }
                _ => Err(Error::Downgraded { asked: self.suite(), answered: answer.algorithms }),
            };
        }
        step.entropy.fill(&mut self.console_random)?;
        self.managed_session = answer.managed_session;
        self.tag = self.tag.wrapping_add(1);
        self.rakp1_tag = self.tag;
        let mut payload = Vec::new();
        Rakp1 {
            tag: self.tag,
            managed_session: self.managed_session,
            console_random: self.console_random,
            role: self.role,
            user: step.config.user.as_bytes(),
        }
        .encode(&mut payload);
        self.send_payload(Stage::Rakp2, PayloadKind::RAKP_1, &payload, step)
    }

    fn open_refused(&mut self, status: Status, step: &mut Step<'_>) -> Result<(), Error> {
        match self.suites {
            [_, rest @ ..] if status.refuses_suite() && !rest.is_empty() => {
                self.suites = rest;
                self.open(step)
            }
            _ if status.refuses_suite() => Err(Error::SuiteRefused { suite: self.suite(), status }),
            _ => Err(refused("Open Session Request", status, step.config)),
        }
    }

    fn rakp2(&mut self, answer: Rakp2<'_>, step: &mut Step<'_>) -> Result<(), Error> {
        if answer.tag != self.rakp1_tag || answer.console_session != self.console_session {
            return Ok(());
        }
        if self.proved.iter().any(|proved| proved.managed_random == answer.managed_random) {
            return Ok(());
        }
        let exchange = Exchange {
            suite: self.suite(),
            console_session: self.console_session,
            managed_session: self.managed_session,
            console_random: &self.console_random,
            managed_random: &answer.managed_random,
            guid: &answer.guid,
            role: self.role,
            user: step.config.user.as_bytes(),
        };
        let password = step.config.password.bytes();
        if !exchange.rakp2(password).leads(answer.code) {
            if !self.proved.is_empty() {
                return Ok(());
            }
            self.abandon(Status::INVALID_CHECK_VALUE, step)?;
            return Err(Error::Credentials { by: Rejection::Code });
        }
        let code = exchange.rakp3(password);
        let key = exchange.session_key(password, step.config.bmc_key.as_ref().map(|key| key.bytes()));
        let check = exchange.rakp4(&key);
        self.tag = self.tag.wrapping_add(1);
        self.proved.truncate(1);
        self.proved.insert(
            0,
            Proved {
                tag: self.tag,
                managed_random: answer.managed_random,
                guid: answer.guid,
                check,
                keys: Keys::new(&key),
            },
        );
        let mut payload = Vec::new();
        Rakp3 {
            tag: self.tag,
            status: Status::OK,
            managed_session: self.managed_session,
            code: code.as_slice(),
        }
        .encode(&mut payload);
        self.send_payload(Stage::Rakp4, PayloadKind::RAKP_3, &payload, step)
    }

    fn rakp4(&mut self, answer: Rakp4<'_>) -> Result<Option<Established>, Error> {
        let place = self.proved.iter().position(|proved| proved.tag == answer.tag);
        let Some(place) = place.filter(|_| answer.console_session == self.console_session) else {
            return Ok(None);
        };
        let Proved { check, keys, guid, .. } = self.proved.swap_remove(place);
        if answer.check.len() < check.as_slice().len() {
            return Err(Error::NoProof);
        }
        if !check.leads(answer.check) {
            return Err(Error::BmcKey);
        }
        Ok(Some(Established {
            suite: self.suite(),
            keys,
            console_session: self.console_session,
            managed_session: self.managed_session,
            guid,
        }))
    }
}

fn capabilities(config: &Config) -> GetAuthenticationCapabilities {
    GetAuthenticationCapabilities { channel: THIS_CHANNEL, privilege: config.privilege }
}

/// The error for a refusal that is not about the suite.
fn refused(at: &'static str, status: Status, config: &Config) -> Error {
    match status {
        Status::NO_RESOURCES | Status::NO_RESOURCES_FOR_ROLE => Error::NoFreeSession,
        Status::INVALID_ROLE | Status::UNAUTHORIZED_ROLE => {
            Error::Privilege { privilege: config.privilege, why: PrivilegeRefusal::Status(status) }
        }
        Status::UNAUTHORIZED_NAME | Status::INVALID_NAME_LENGTH | Status::INVALID_CHECK_VALUE => {
            Error::Credentials { by: Rejection::Status(status) }
        }
        _ => Error::SessionRefused { at, status },
    }
}
