//! The BMC's end of Serial-over-LAN (sections 15.9 to 15.11).
//!
//! One packet each way is under way. A packet from the console whose number was just taken is a repetition:
//! it is acknowledged again and its characters are not. A packet to the console is repeated under its number
//! until it is acknowledged; after the last repetition its characters are lost and the console is told of an
//! overrun. What is taken only in part is followed by a new packet with the rest. A NACK makes the BMC hold
//! until a packet comes that is none, for [`HOLD`] at most.

use std::collections::VecDeque;
use std::time::Duration;

use rackhand_ipmi::sol::packet::{MAX_CHARACTERS, Packet, ack_only, operation, status};
use rackhand_ipmi::wire::packet::PayloadKind;

use crate::fault::Fault;
use crate::model::Bmc;

/// How long a NACK is obeyed when nothing follows it.
const HOLD: Duration = Duration::from_secs(5);
/// Characters kept for the console.
const BUFFER: usize = 16 * 1024;
/// A program on the host writes more once less than this waits.
const LOW: usize = 2 * 1024;
/// Throw away what waits for the console (table 15-1, bit 0).
const FLUSH_OUTBOUND: u8 = 1;

/// An active payload.
#[derive(Debug)]
pub(super) struct Sol {
    /// The session that has it.
    pub session: u32,
    encrypted: bool,
    waiting: VecDeque<u8>,
    under_way: Option<UnderWay>,
    next: u8,
    /// The last packet taken: its number and how many of its characters.
    last: Option<(u8, usize)>,
    held_until: Option<Duration>,
    clear_to_send: bool,
    overrun: bool,
    /// Answers to packets of the console.
    answers: Vec<Packet>,
}

#[derive(Debug)]
struct UnderWay {
    packet: Packet,
    repeat_at: Duration,
    repetitions: u32,
}

impl Sol {
    pub fn new(session: u32, encrypted: bool) -> Self {
        Self {
            session,
            encrypted,
            waiting: VecDeque::new(),
            under_way: None,
            next: 1,
            last: None,
            held_until: None,
            clear_to_send: true,
            overrun: false,
            answers: Vec::new(),
        }
    }

    /// What the host writes.
    pub fn push(&mut self, text: &[u8]) {
        let room = BUFFER.saturating_sub(self.waiting.len());
        self.overrun |= text.len() > room;
        self.waiting.extend(text.iter().take(room));
    }

    /// Whether a program that writes without end should write more.
    pub fn wants_more(&self) -> bool {
        self.waiting.len() < LOW
    }

    /// What an answer of the console says about the packet under way.
    fn acknowledged(&mut self, packet: &Packet, real: Duration) {
        if let Some(flying) = self
            .under_way
            .take_if(|flying| packet.acknowledges != 0 && flying.packet.sequence == packet.acknowledges)
        {
            let accepted = usize::from(packet.accepted).min(flying.packet.characters.len());
            let rest = flying.packet.characters.get(accepted..).unwrap_or_default();
            for character in rest.iter().rev() {
                self.waiting.push_front(*character);
            }
        }
        if packet.nack {
            self.held_until = Some(real + HOLD);
        } else {
            self.held_until = None;
        }
        self.clear_to_send = !packet.has(operation::CTS_PAUSE);
        if packet.has(FLUSH_OUTBOUND) {
            self.waiting.clear();
        }
    }

    /// The packets to send now.
    fn transmit(&mut self, real: Duration, retry: Duration, retries: u32) -> Vec<Packet> {
        let mut packets = std::mem::take(&mut self.answers);
        if self.held_until.is_some_and(|until| until <= real) {
            self.held_until = None;
        }
        if self.held_until.is_some() || !self.clear_to_send {
            return packets;
        }
        if let Some(flying) = &mut self.under_way
            && flying.repeat_at <= real
        {
            if flying.repetitions < retries {
                flying.repetitions += 1;
                flying.repeat_at = real + retry;
                packets.push(flying.packet.clone());
            } else {
                self.under_way = None;
                self.overrun = true;
            }
        }
        if self.under_way.is_none() && !self.waiting.is_empty() {
            let count = self.waiting.len().min(MAX_CHARACTERS);
            let packet = Packet {
                sequence: self.next,
                flags: if std::mem::take(&mut self.overrun) { status::OVERRUN } else { 0 },
                characters: self.waiting.drain(..count).collect(),
                ..Packet::default()
            };
            self.next = self.next % 15 + 1;
            packets.push(packet.clone());
            self.under_way = Some(UnderWay { packet, repeat_at: real + retry, repetitions: 0 });
        }
        packets
    }
}

impl Bmc {
    /// A packet from a console.
    pub(super) fn console_packet(&mut self, session: u32, encrypted: bool, payload: &[u8]) {
        let Ok(packet) = Packet::parse(payload) else { return };
        let real = self.ipmi.real;
        let host_is_on = self.host.is_on();
        let limit = match self.faults.get("ipmi_sol_partial") {
            Some(Fault::IpmiSolPartial { characters }) => usize::from(*characters),
            _ => MAX_CHARACTERS,
        };
        let ipmi = &mut self.ipmi;
        let sol = ipmi.sol.as_mut().filter(|sol| sol.session == session && sol.encrypted == encrypted);
        let Some(sol) = sol else {
            // Not active for this session: the console is told so (table 15-2, bit 4).
            let answer = Packet { flags: status::DEACTIVATING, ..ack_only(packet.sequence, 0, true) };
            ipmi.send_in(session, PayloadKind::SOL, &answer.encode(), encrypted);
            return;
        };
        ipmi.counters.console_packets += 1;
        sol.acknowledged(&packet, real);
        if packet.has(operation::BREAK) && host_is_on {
            ipmi.console.line_break(sol);
        }
        if packet.sequence == 0 {
            return;
        }
        if let Some((sequence, accepted)) = sol.last
            && sequence == packet.sequence
        {
            sol.answers.push(ack_only(sequence, accepted, false));
            return;
        }
        if !host_is_on {
            let answer = ack_only(packet.sequence, 0, true);
            sol.answers.push(Packet { flags: status::UNAVAILABLE, ..answer });
            return;
        }
        let taken = packet.characters.len().min(limit);
        sol.last = Some((packet.sequence, taken));
        sol.answers.push(ack_only(packet.sequence, taken, false));
        ipmi.console.typed(packet.characters.get(..taken).unwrap_or_default(), sol);
    }

    /// Sends what the console of this BMC has to send.
    pub(super) fn transmit_console(&mut self) {
        let ipmi = &mut self.ipmi;
        let Some(sol) = &mut ipmi.sol else { return };
        ipmi.console.write_on(sol);
        let (retry, retries) = (ipmi.config.sol_retry, ipmi.config.sol_retries);
        let packets = sol.transmit(ipmi.real, retry, retries);
        let (session, encrypted) = (sol.session, sol.encrypted);
        for packet in packets {
            ipmi.send_in(session, PayloadKind::SOL, &packet.encode(), encrypted);
        }
    }

    /// Tells who has the console that it has it no longer.
    pub(super) fn say_deactivated(&mut self) {
        if let Some(sol) = &self.ipmi.sol {
            let (session, encrypted) = (sol.session, sol.encrypted);
            let farewell = Packet { flags: status::DEACTIVATING, ..Packet::default() };
            self.ipmi.send_in(session, PayloadKind::SOL, &farewell.encode(), encrypted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Duration = Duration::from_millis(500);

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_packet_is_repeated_then_given_up_with_an_overrun() {
        let mut sol = Sol::new(1, true);
        sol.push(b"one");
        assert_eq!(sol.transmit(at(0), RETRY, 1)[0].characters, b"one");
        assert!(sol.transmit(at(499), RETRY, 1).is_empty());
        assert_eq!(sol.transmit(at(500), RETRY, 1)[0].sequence, 1);
        assert!(sol.transmit(at(1_000), RETRY, 1).is_empty());
        sol.push(b"two");
        let packets = sol.transmit(at(1_001), RETRY, 1);
        assert_eq!((packets[0].sequence, packets[0].has(status::OVERRUN)), (2, true));
    }

    #[test]
    fn what_was_not_taken_goes_into_the_next_packet_and_a_nack_holds() {
        let mut sol = Sol::new(1, true);
        sol.push(b"hello");
        sol.transmit(at(0), RETRY, 7);
        sol.acknowledged(&ack_only(1, 2, true), at(1));
        assert!(sol.transmit(at(2), RETRY, 7).is_empty(), "held");
        sol.acknowledged(&Packet::default(), at(3));
        let packets = sol.transmit(at(4), RETRY, 7);
        assert_eq!((packets[0].sequence, packets[0].characters.as_slice()), (2, b"llo".as_slice()));
        sol.acknowledged(&ack_only(2, 3, false), at(5));
        assert!(sol.transmit(at(600), RETRY, 7).is_empty(), "nothing left");
    }

    #[test]
    fn numbers_go_from_one_to_fifteen() {
        let mut sol = Sol::new(1, true);
        let numbers: Vec<u8> = (0..17)
            .map(|_| {
                sol.push(b"x");
                let sequence = sol.transmit(at(0), RETRY, 7)[0].sequence;
                sol.acknowledged(&ack_only(sequence, 1, false), at(0));
                sequence
            })
            .collect();
        assert_eq!(numbers, (1..=15).chain(1..=2).collect::<Vec<u8>>());
    }
}
