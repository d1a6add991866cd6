//! One session with one BMC, as a state machine without clock, socket or threads.
//!
//! Time, datagrams and random bytes go in; datagrams ([`Session::transmit`]), events ([`Session::event`]) and the next
//! deadline ([`Session::deadline`]) come out. After every call take all datagrams and events, and call
//! [`Session::wake`] when the deadline is reached.
//!
//! ```text
//! idle → opening (capabilities, Open Session, RAKP 1–4, privilege) → open → closing → closed
//!                    └──────────── any error ─────────────┐        └→ lost → closed
//!                                                         └──────────────────────┘
//! ```
//!
//! An open session that does not answer is first asked again (keep-alive), then the BMC itself is asked outside the
//! session, to tell one that is gone ([`Error::NoAnswer`]) from one that forgot the session ([`Error::ClosedByBmc`]).
//! Whatever ends it, the last event is [`Event::Closed`], and every command has been answered before it.

mod active;
mod config;
pub(crate) mod discovery;
#[cfg(test)]
pub(crate) mod fake;
mod handshake;
mod outbox;
mod replay;
mod sessionless;
#[cfg(test)]
pub(crate) mod tests;

use std::{collections::VecDeque, time::Instant};

use self::{
    active::{Active, Arrival, DATA_MAX, Owner},
    handshake::{Established, Handshake, Step},
    outbox::Outbox,
    sessionless::Incoming,
};
use crate::{
    Command, CompletionCode, Error, Request,
    commands::device::{
        CloseSession, GetAuthenticationCapabilities, GetDeviceId, SetPrivilege, THIS_CHANNEL,
    },
    error::PrivilegeRefusal,
    wire::{handshake::Status, packet::PayloadKind, suite::Suite},
};

pub use self::{
    config::{Config, Key, Lookup, Privilege, SuitePolicy, Timing},
    discovery::{Discovery, Findings},
    outbox::Entropy,
    replay::ReplayWindow,
};

/// How many commands may wait; more are refused.
pub const QUEUE_MAX: usize = 256;
/// How many payloads may wait to be taken; more are dropped, as on the wire.
const PAYLOADS_MAX: usize = 256;
/// How often Close Session is sent at most: nobody waits long for a BMC that is gone.
const CLOSE_ATTEMPTS: u32 = 2;
/// How often a BMC that no longer answers within a session is asked outside it.
const LOST_ATTEMPTS: u32 = 2;

/// Names a command until it is answered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(u64);

/// What both sides agreed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opened {
    /// To be given back as [`Config::pin`] next time.
    pub suite: Suite,
    pub privilege: Privilege,
    /// The system's GUID as the BMC sent it in RAKP 2.
    pub guid: [u8; 16],
    /// The BMC's id of the session, as Get Session Info names it.
    pub session: u32,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    Opened(Opened),
    /// A command is done, or has failed.
    Answered {
        id: RequestId,
        result: Result<(CompletionCode, Vec<u8>), Error>,
    },
    /// A payload that is no answer to a command, such as SOL.
    Payload {
        kind: PayloadKind,
        data: Vec<u8>,
    },
    /// The end: none when it was asked for.
    Closed(Option<Error>),
}

enum State {
    Idle,
    Handshake(Box<Handshake>),
    /// In use, or with its privilege level still to be set.
    Active {
        active: Box<Active>,
        opened: Option<Opened>,
    },
    Closing {
        active: Box<Active>,
        why: Option<Error>,
    },
    /// Is the BMC there at all?
    Lost {
        active: Box<Active>,
        sent: u32,
        due: Instant,
    },
    Closed,
}

pub struct Session {
    config: Config,
    entropy: Box<dyn Entropy>,
    state: State,
    /// Commands given before the session was open.
    early: VecDeque<(Owner, Request)>,
    next_id: u64,
    out: Outbox,
    events: VecDeque<Event>,
    payloads: usize,
}

impl Session {
    pub fn new(config: Config, entropy: impl Entropy + 'static) -> Result<Self, Error> {
        config.check()?;
        Ok(Self {
            config,
            entropy: Box::new(entropy),
            state: State::Idle,
            early: VecDeque::new(),
            next_id: 0,
            out: Outbox::default(),
            events: VecDeque::new(),
            payloads: 0,
        })
    }

    /// Begins to open the session; only the first call does something.
    pub fn start(&mut self, now: Instant) {
        if matches!(self.state, State::Idle) {
            let mut step =
                Step { config: &self.config, now, entropy: &mut *self.entropy, out: &mut self.out };
            match Handshake::start(&mut step) {
                Ok(handshake) => self.state = State::Handshake(Box::new(handshake)),
                Err(error) => self.end(Some(error)),
            }
        }
    }

    /// Queues a command; its answer is an [`Event::Answered`]. Before the session is open it waits for that.
    pub fn request(&mut self, now: Instant, request: Request) -> Result<RequestId, Error> {
        if request.data.len() > DATA_MAX {
            return Err(Error::Request("more than 1024 bytes of data"));
        }
        let id = RequestId(self.next_id);
        let owner = Owner::Caller(id);
        let (load, open) = match &mut self.state {
            State::Idle | State::Handshake(_) | State::Active { opened: None, .. } => {
                (self.early.len(), None)
            }
            State::Active { active, .. } | State::Lost { active, .. } => (active.load(), Some(active)),
            State::Closing { .. } | State::Closed => return Err(Error::Closed),
        };
        if load >= QUEUE_MAX {
            return Err(Error::Request("too many commands are waiting"));
        }
        self.next_id += 1;
        match open {
            Some(active) => active.queue(owner, request),
            None => self.early.push_back((owner, request)),
        }
        self.pump(now);
        Ok(id)
    }

    /// Forgets a command whose answer nobody wants any more. The BMC may carry it out all the same.
    pub fn cancel(&mut self, now: Instant, id: RequestId) {
        let owner = Owner::Caller(id);
        self.early.retain(|(queued, _)| *queued != owner);
        if let State::Active { active, .. } | State::Lost { active, .. } = &mut self.state {
            active.forget(owner);
        }
        self.pump(now);
    }

    /// Sends a payload of another kind, such as SOL, once: its own protocol repeats it.
    pub fn payload(&mut self, _now: Instant, kind: PayloadKind, data: &[u8]) -> Result<(), Error> {
        let State::Active { active, opened: Some(_) } = &mut self.state else { return Err(Error::Closed) };
        active.payload(kind, data, &mut *self.entropy, &mut self.out)
    }

    /// Takes a datagram from the BMC, decrypting it in place. What does not belong here is ignored.
    pub fn receive(&mut self, now: Instant, datagram: &mut [u8]) {
        let incoming = match sessionless::sort(datagram) {
            Ok(incoming) => incoming,
            Err(malformed) => {
                tracing::debug!(%malformed, "datagram ignored");
                if let State::Handshake(handshake) = &mut self.state {
                    handshake.note(malformed);
                }
                return;
            }
        };
        match (&mut self.state, incoming) {
            (State::Handshake(handshake), Incoming::Message(bytes)) => {
                let mut step =
                    Step { config: &self.config, now, entropy: &mut *self.entropy, out: &mut self.out };
                if let Err(error) = handshake.message(bytes, &mut step) {
                    self.end(Some(error));
                }
            }
            (State::Handshake(handshake), Incoming::Handshake(kind, payload)) => {
                let mut step =
                    Step { config: &self.config, now, entropy: &mut *self.entropy, out: &mut self.out };
                match handshake.payload(kind, payload, &mut step) {
                    Ok(None) => {}
                    Ok(Some(established)) => self.established(now, established),
                    Err(error) => self.end(Some(error)),
                }
            }
            (State::Lost { .. }, Incoming::Message(bytes))
                if sessionless::answer(&presence(), 0, bytes).is_some_and(|answer| answer.is_ok()) =>
            {
                self.end(Some(Error::ClosedByBmc));
            }
            (
                State::Active { active, .. } | State::Closing { active, .. } | State::Lost { active, .. },
                Incoming::Session(header, body),
            ) => {
                match active.receive(now, &self.config.timing, header, body) {
                    Ok(Some(arrival)) => self.arrived(now, arrival),
                    Ok(None) => {}
                    Err(malformed) => tracing::debug!(%malformed, "packet ignored"),
                }
                self.pump(now);
            }
            _ => {}
        }
    }

    /// Does what is due.
    pub fn wake(&mut self, now: Instant) {
        let timing = self.config.timing;
        match &mut self.state {
            State::Idle | State::Closed => {}
            State::Handshake(handshake) => {
                let mut step =
                    Step { config: &self.config, now, entropy: &mut *self.entropy, out: &mut self.out };
                if let Err(error) = handshake.wake(&mut step) {
                    self.end(Some(error));
                }
            }
            State::Lost { sent, due, .. } => {
                if now < *due {
                } else if *sent < LOST_ATTEMPTS {
                    self.ask_presence(now);
                } else {
                    let attempts = timing.attempts;
                    self.end(Some(Error::NoAnswer { to: "keep-alive", attempts }));
                }
            }
            State::Active { active, opened } => {
                if opened.is_some() && now >= active.heard + timing.keep_alive && active.load() == 0 {
                    active.queue(Owner::KeepAlive, GetDeviceId.request());
                }
                self.wake_active(now, timing);
            }
            State::Closing { .. } => {
                let timing = Timing { attempts: timing.attempts.min(CLOSE_ATTEMPTS), ..timing };
                self.wake_active(now, timing);
            }
        }
    }

    /// When to call [`wake`](Self::wake), if nothing else happens before.
    pub fn deadline(&self) -> Option<Instant> {
        let timing = &self.config.timing;
        match &self.state {
            State::Idle | State::Closed => None,
            State::Handshake(handshake) => Some(handshake.deadline()),
            State::Lost { due, .. } => Some(*due),
            State::Closing { active, .. } => active.deadline(timing),
            State::Active { active, .. } => {
                active.deadline(timing).or(Some(active.heard + timing.keep_alive))
            }
        }
    }

    /// Swaps the next datagram to send into `out`; false when there is none.
    pub fn transmit(&mut self, out: &mut Vec<u8>) -> bool {
        self.out.take(out)
    }

    pub fn event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if let Some(Event::Payload { .. }) = event {
            self.payloads -= 1;
        }
        event
    }

    /// Ends the session: waiting commands fail with [`Error::Closed`], and the BMC is told.
    pub fn close(&mut self, now: Instant) {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Active { active, .. } => self.say_goodbye(now, active, None),
            State::Handshake(mut handshake) => {
                let mut step =
                    Step { config: &self.config, now, entropy: &mut *self.entropy, out: &mut self.out };
                let told = handshake.abandon(Status::NO_RESOURCES, &mut step);
                self.end(told.err());
            }
            State::Lost { mut active, .. } => {
                let waiting = active.clear();
                self.fail(waiting, &Error::Closed);
                self.end(None);
            }
            State::Idle => self.end(None),
            state @ (State::Closing { .. } | State::Closed) => self.state = state,
        }
    }

    /// The last event has been made.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    fn established(&mut self, now: Instant, established: Established) {
        let mut active = Box::new(Active::new(established, now));
        // A session begins at user level (section 22.18).
        if self.config.privilege == Privilege::User {
            self.state = State::Active { active, opened: None };
            self.opened(now);
            return;
        }
        active.queue(Owner::Privilege, SetPrivilege(Some(self.config.privilege)).request());
        self.state = State::Active { active, opened: None };
        self.pump(now);
    }

    fn opened(&mut self, now: Instant) {
        let State::Active { active, opened } = &mut self.state else { return };
        let agreed = agreement(active, self.config.privilege);
        *opened = Some(agreed);
        for (owner, request) in self.early.drain(..) {
            active.queue(owner, request);
        }
        self.events.push_back(Event::Opened(agreed));
        self.pump(now);
    }

    fn arrived(&mut self, now: Instant, arrival: Arrival) {
        // Whatever it brings, the session is not lost.
        if let State::Lost { .. } = self.state
            && let State::Lost { active, .. } = std::mem::replace(&mut self.state, State::Closed)
        {
            let opened = Some(agreement(&active, self.config.privilege));
            self.state = State::Active { active, opened };
        }
        let (owner, completion, data) = match arrival {
            Arrival::Answer { owner, completion, data } => (owner, completion, data),
            Arrival::Payload { kind, data } => {
                if self.payloads < PAYLOADS_MAX {
                    self.payloads += 1;
                    self.events.push_back(Event::Payload { kind, data });
                }
                return;
            }
        };
        match owner {
            Owner::Caller(id) => {
                self.events.push_back(Event::Answered { id, result: Ok((completion, data)) });
            }
            Owner::KeepAlive => {}
            Owner::Close => {
                if let State::Closing { why, .. } = &mut self.state {
                    let why = why.take();
                    self.end(why);
                }
            }
            Owner::Privilege => {
                if completion == CompletionCode::OK {
                    return self.opened(now);
                }
                let privilege = self.config.privilege;
                let why = PrivilegeRefusal::Completion(completion);
                if let State::Active { active, .. } = std::mem::replace(&mut self.state, State::Closed) {
                    self.say_goodbye(now, active, Some(Error::Privilege { privilege, why }));
                }
            }
        }
    }

    fn pump(&mut self, now: Instant) {
        let active = match &mut self.state {
            State::Active { active, .. } | State::Closing { active, .. } => active,
            _ => return,
        };
        if let Err(error) = active.pump(now, &self.config.timing, &mut *self.entropy, &mut self.out) {
            self.end(Some(error));
        }
    }

    fn wake_active(&mut self, now: Instant, timing: Timing) {
        let (State::Active { active, .. } | State::Closing { active, .. }) = &mut self.state else { return };
        let lapsed = match active.wake(now, &timing, &mut *self.entropy, &mut self.out) {
            Ok(lapsed) => lapsed,
            Err(error) => return self.end(Some(error)),
        };
        for (owner, attempts) in lapsed {
            self.lapsed(now, owner, attempts);
        }
    }

    fn lapsed(&mut self, now: Instant, owner: Owner, attempts: u32) {
        match (owner, &mut self.state) {
            (Owner::Caller(id), State::Active { active, .. }) => {
                let result = Err(Error::NoAnswer { to: "command", attempts });
                self.events.push_back(Event::Answered { id, result });
                // Is it this command, or all of them?
                if !active.waits(Owner::KeepAlive) {
                    active.queue(Owner::KeepAlive, GetDeviceId.request());
                }
                self.pump(now);
            }
            (Owner::Privilege, _) => {
                self.end(Some(Error::NoAnswer { to: "Set Session Privilege Level", attempts }));
            }
            (Owner::KeepAlive, State::Active { .. }) => {
                if let State::Active { active, .. } = std::mem::replace(&mut self.state, State::Closed) {
                    self.state = State::Lost { active, sent: 0, due: now };
                    self.ask_presence(now);
                }
            }
            (Owner::Close, State::Closing { why, .. }) => {
                let why = why.take();
                self.end(why);
            }
            _ => {}
        }
    }

    fn ask_presence(&mut self, now: Instant) {
        let State::Lost { sent, due, .. } = &mut self.state else { return };
        *sent += 1;
        *due = now + self.config.timing.handshake_wait;
        match sessionless::old_form(&presence().request(), 0) {
            Ok(datagram) => self.out.put_copy(&datagram),
            Err(malformed) => self.end(Some(malformed.into())),
        }
    }

    fn say_goodbye(&mut self, now: Instant, mut active: Box<Active>, why: Option<Error>) {
        let failure = why.clone().unwrap_or(Error::Closed);
        let waiting = active.clear();
        self.fail(waiting, &failure);
        let session = active.established().managed_session;
        active.queue(Owner::Close, CloseSession { session }.request());
        self.state = State::Closing { active, why };
        self.pump(now);
    }

    fn fail(&mut self, waiting: Vec<Owner>, failure: &Error) {
        let early = self.early.drain(..).map(|(owner, _)| owner);
        for owner in waiting.into_iter().chain(early) {
            if let Owner::Caller(id) = owner {
                self.events.push_back(Event::Answered { id, result: Err(failure.clone()) });
            }
        }
    }

    fn end(&mut self, why: Option<Error>) {
        let waiting = match std::mem::replace(&mut self.state, State::Closed) {
            State::Active { mut active, .. }
            | State::Closing { mut active, .. }
            | State::Lost { mut active, .. } => active.clear(),
            State::Idle | State::Handshake(_) | State::Closed => Vec::new(),
        };
        let failure = why.clone().unwrap_or(Error::Closed);
        self.fail(waiting, &failure);
        self.events.push_back(Event::Closed(why));
    }
}

fn agreement(active: &Active, privilege: Privilege) -> Opened {
    let established = active.established();
    Opened {
        suite: established.suite,
        privilege,
        guid: established.guid,
        session: established.managed_session,
    }
}

/// What a BMC is asked to find out whether it is there.
fn presence() -> GetAuthenticationCapabilities {
    GetAuthenticationCapabilities { channel: THIS_CHANNEL, privilege: Privilege::User }
}
