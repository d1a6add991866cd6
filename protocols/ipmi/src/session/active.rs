//! An open session: commands under way, sequence numbers, and what arrives.
//!
//! A command keeps its request sequence number when it is repeated, so that a BMC can tell a repetition from a new
//! command; each packet has its own session sequence number, so that no firewall or BMC drops it as a replay.

use std::{collections::VecDeque, time::Instant};

use super::{
    config::Timing,
    handshake::Established,
    outbox::{Entropy, Outbox},
    replay::ReplayWindow,
};
use crate::{
    CompletionCode, Error, Malformed, Request,
    wire::{
        crypto::Keys,
        message::{BMC, CONSOLE, Message, OVERHEAD},
        packet::{self, Header, PAYLOAD_MAX, PayloadKind},
    },
};

/// Longest data of a request; far more than any BMC takes.
pub const DATA_MAX: usize = 1024;
const _: () = assert!(DATA_MAX + OVERHEAD <= PAYLOAD_MAX);

/// Request sequence numbers have six bits.
const SEQUENCES: u8 = 64;

/// Who waits for an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    Caller(super::RequestId),
    Privilege,
    KeepAlive,
    Close,
}

struct Flight {
    owner: Owner,
    request: Request,
    sequence: u8,
    /// How often it was sent since it got this sequence number.
    sent: u32,
    /// How often the BMC was too busy for it.
    busy: u32,
    /// Waiting for the BMC to be less busy, not for an answer.
    resting: bool,
    due: Instant,
}

/// What a packet of the session brought.
pub(super) enum Arrival {
    Answer { owner: Owner, completion: CompletionCode, data: Vec<u8> },
    Payload { kind: PayloadKind, data: Vec<u8> },
}

pub(super) struct Active {
    established: Established,
    /// Of the last packet sent.
    sequence: u32,
    window: ReplayWindow,
    /// Session sequence number of the newest SOL packet.
    newest_sol: u32,
    flights: Vec<Flight>,
    queue: VecDeque<(Owner, Request)>,
    next_sequence: u8,
    /// No new command before this, see [`Timing::gap`].
    not_before: Instant,
    /// When the BMC last carried out a command.
    pub heard: Instant,
    message: Vec<u8>,
}

/// A SOL packet that is older than this many others is ignored.
const OVERTAKEN: u32 = 7;

impl Active {
    pub fn new(established: Established, now: Instant) -> Self {
        Self {
            established,
            sequence: 0,
            window: ReplayWindow::default(),
            newest_sol: 0,
            flights: Vec::new(),
            queue: VecDeque::new(),
            next_sequence: 0,
            not_before: now,
            heard: now,
            message: Vec::new(),
        }
    }

    pub fn established(&self) -> &Established {
        &self.established
    }

    pub fn queue(&mut self, owner: Owner, request: Request) {
        self.queue.push_back((owner, request));
    }

    /// Commands queued and under way.
    pub fn load(&self) -> usize {
        self.queue.len() + self.flights.len()
    }

    pub fn waits(&self, owner: Owner) -> bool {
        self.flights.iter().any(|flight| flight.owner == owner)
            || self.queue.iter().any(|(queued, _)| *queued == owner)
    }

    /// Forgets a command; an answer that still comes is ignored.
    pub fn forget(&mut self, owner: Owner) {
        self.flights.retain(|flight| flight.owner != owner);
        self.queue.retain(|(queued, _)| *queued != owner);
    }

    /// Forgets everything, and tells who was waiting.
    pub fn clear(&mut self) -> Vec<Owner> {
        let flights = self.flights.drain(..).map(|flight| flight.owner);
        flights.chain(self.queue.drain(..).map(|(owner, _)| owner)).collect()
    }

    /// When [`wake`](Self::wake) has something to do.
    pub fn deadline(&self, timing: &Timing) -> Option<Instant> {
        let flights = self.flights.iter().map(|flight| flight.due).min();
        let queue = (!self.queue.is_empty() && self.flights.len() < timing.window).then_some(self.not_before);
        flights.into_iter().chain(queue).min()
    }

    /// Sends what window and pace allow.
    pub fn pump(
        &mut self,
        now: Instant,
        timing: &Timing,
        entropy: &mut dyn Entropy,
        out: &mut Outbox,
    ) -> Result<(), Error> {
        while self.flights.len() < timing.window && now >= self.not_before {
            let Some((owner, request)) = self.queue.pop_front() else { break };
            let sequence = self.take_sequence();
            let flight = Flight { owner, request, sequence, sent: 0, busy: 0, resting: false, due: now };
            self.flights.push(flight);
            let last = self.flights.len() - 1;
            self.send(last, now, timing, entropy, out)?;
        }
        Ok(())
    }

    /// Repeats what is due; who has had all attempts is returned, with how many they were.
    pub fn wake(
        &mut self,
        now: Instant,
        timing: &Timing,
        entropy: &mut dyn Entropy,
        out: &mut Outbox,
    ) -> Result<Vec<(Owner, u32)>, Error> {
        let mut lapsed = Vec::new();
        let mut place = 0;
        while let Some(flight) = self.flights.get_mut(place) {
            if now < flight.due {
                place += 1;
            } else if flight.resting {
                flight.resting = false;
                flight.sent = 0;
                let sequence = self.take_sequence();
                if let Some(flight) = self.flights.get_mut(place) {
                    flight.sequence = sequence;
                }
                self.send(place, now, timing, entropy, out)?;
                place += 1;
            } else if flight.sent < attempts(flight, timing) {
                self.send(place, now, timing, entropy, out)?;
                place += 1;
            } else {
                lapsed.push((flight.owner, flight.sent));
                self.flights.remove(place);
            }
        }
        self.pump(now, timing, entropy, out)?;
        Ok(lapsed)
    }

    /// Opens a packet of this session. Forged, replayed and unasked packets bring nothing.
    pub fn receive(
        &mut self,
        now: Instant,
        timing: &Timing,
        header: Header,
        body: &mut [u8],
    ) -> Result<Option<Arrival>, Malformed> {
        let suite = self.established.suite;
        // A packet with less protection than agreed is not the BMC's. SOL may be activated without encryption.
        let protected = header.authenticated == suite.authenticates()
            && (header.encrypted == suite.encrypts() || header.kind == PayloadKind::SOL);
        if header.session != self.established.console_session || !protected {
            return Ok(None);
        }
        let (header, payload) = match packet::open(body, Some(&self.established.keys)) {
            Ok(opened) => opened,
            Err(error) => return error.into_malformed().map_or(Ok(None), Err),
        };
        if !self.window.accept(header.sequence) {
            return Ok(None);
        }
        match header.kind {
            PayloadKind::IPMI => self.answer(now, timing, payload),
            // SOL's own numbers return after 15 packets, and by then as many answers have come: a packet that so many
            // have overtaken could be taken for a later one. Some servers (pyghmi) send neighbours out of order.
            PayloadKind::SOL if precedes(header.sequence, self.newest_sol.wrapping_sub(OVERTAKEN)) => {
                Ok(None)
            }
            PayloadKind::SOL => {
                if precedes(self.newest_sol, header.sequence) {
                    self.newest_sol = header.sequence;
                }
                Ok(Some(Arrival::Payload { kind: header.kind, data: payload.to_vec() }))
            }
            _ => Ok(None),
        }
    }

    /// Sends a payload of another kind than a command, once.
    pub fn payload(
        &mut self,
        kind: PayloadKind,
        payload: &[u8],
        entropy: &mut dyn Entropy,
        out: &mut Outbox,
    ) -> Result<(), Error> {
        let sequence = next(&mut self.sequence);
        seal(&self.established, sequence, kind, payload, entropy, out)
    }

    fn answer(
        &mut self,
        now: Instant,
        timing: &Timing,
        payload: &[u8],
    ) -> Result<Option<Arrival>, Malformed> {
        let message = Message::decode(payload)?;
        let place = self.flights.iter().position(|flight| {
            !flight.resting
                && message.sequence == flight.sequence
                && message.code == flight.request.code
                && message.net_fn == flight.request.net_fn.0 | 1
        });
        // A second answer, after a repetition, finds nobody waiting.
        let Some(place) = place else { return Ok(None) };
        let Some((&completion, data)) = message.data.split_first() else {
            return Err(Malformed { what: "IPMI answer", why: "no completion code" });
        };
        let completion = CompletionCode(completion);
        self.heard = now;
        if completion == CompletionCode::NODE_BUSY
            && let Some(flight) = self.flights.get_mut(place)
            && flight.busy < timing.busy_attempts
        {
            flight.busy += 1;
            flight.resting = true;
            flight.due = now + timing.busy_wait;
            return Ok(None);
        }
        let flight = self.flights.swap_remove(place);
        Ok(Some(Arrival::Answer { owner: flight.owner, completion, data: data.to_vec() }))
    }

    fn take_sequence(&mut self) -> u8 {
        // At most 16 are under way, so that a free one is soon found.
        loop {
            let sequence = self.next_sequence;
            self.next_sequence = (sequence + 1) % SEQUENCES;
            if self.flights.iter().all(|flight| flight.sequence != sequence) {
                return sequence;
            }
        }
    }

    fn send(
        &mut self,
        place: usize,
        now: Instant,
        timing: &Timing,
        entropy: &mut dyn Entropy,
        out: &mut Outbox,
    ) -> Result<(), Error> {
        let Some(flight) = self.flights.get_mut(place) else { return Ok(()) };
        let wait = if attempts(flight, timing) == 1 {
            timing.longest_wait.saturating_mul(2)
        } else {
            timing.first_wait.saturating_mul(1 << flight.sent.min(16)).min(timing.longest_wait)
        };
        flight.sent += 1;
        flight.due = now + wait;
        self.not_before = now + timing.gap;
        self.message.clear();
        Message {
            to: BMC,
            net_fn: flight.request.net_fn.0,
            to_lun: flight.request.lun,
            from: CONSOLE,
            from_lun: 0,
            sequence: flight.sequence,
            code: flight.request.code,
            data: &flight.request.data,
        }
        .encode(&mut self.message);
        let sequence = next(&mut self.sequence);
        seal(&self.established, sequence, PayloadKind::IPMI, &self.message, entropy, out)
    }
}

/// How often a command may be sent.
fn attempts(flight: &Flight, timing: &Timing) -> u32 {
    if flight.request.is_repeatable() { timing.attempts } else { 1 }
}

/// Whether a session sequence number is older than another; they wrap around.
fn precedes(number: u32, other: u32) -> bool {
    other.wrapping_sub(number).wrapping_sub(1) < u32::MAX / 2
}

/// The next session sequence number; 0 is left out.
fn next(sequence: &mut u32) -> u32 {
    *sequence = sequence.wrapping_add(1).max(1);
    *sequence
}

fn seal(
    established: &Established,
    sequence: u32,
    kind: PayloadKind,
    payload: &[u8],
    entropy: &mut dyn Entropy,
    out: &mut Outbox,
) -> Result<(), Error> {
    let suite = established.suite;
    let header = Header {
        kind,
        encrypted: suite.encrypts(),
        authenticated: suite.authenticates(),
        session: established.managed_session,
        sequence,
    };
    let mut iv = [0; 16];
    if header.encrypted {
        entropy.fill(&mut iv)?;
    }
    let keys: &Keys = &established.keys;
    out.put(|datagram| packet::seal(header, payload, Some(keys), &iv, datagram))?;
    Ok(())
}
