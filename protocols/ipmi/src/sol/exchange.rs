//! Tests: the machine against a model of a BMC, over a channel that loses, doubles, delays and reorders.

use std::{collections::VecDeque, time::Duration};

use proptest::{collection::vec, prelude::*};
use tokio::time::Instant;

use super::{
    Lines, SolEnd,
    machine::{Machine, Settings},
    packet::{Packet, ack_only, operation, status},
};

/// A BMC's side, by the book: one packet under way, repeated until it is answered; a repeated packet of the console is
/// answered as it was the first time.
struct Bmc {
    to_send: VecDeque<u8>,
    from_console: Vec<u8>,
    breaks: Vec<usize>,
    sequence: u8,
    under_way: Option<(Packet, Instant)>,
    answered: Option<(u8, u8, bool)>,
    paused: bool,
    /// Characters taken of each packet.
    takes: usize,
    largest: usize,
}

impl Bmc {
    fn new(to_send: &[u8], takes: usize, largest: usize) -> Self {
        Self {
            to_send: to_send.iter().copied().collect(),
            from_console: Vec::new(),
            breaks: Vec::new(),
            sequence: 1,
            under_way: None,
            answered: None,
            paused: false,
            takes,
            largest,
        }
    }

    fn handle(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        let packet = Packet::parse(payload).unwrap();
        self.paused = packet.nack;
        if let Some((under_way, _)) = &self.under_way
            && under_way.sequence == packet.acknowledges
        {
            self.to_send.drain(..usize::from(packet.accepted));
            self.under_way = None;
        }
        if packet.sequence == 0 {
            return None;
        }
        let (accepted, nack) = match self.answered {
            Some((sequence, accepted, nack)) if sequence == packet.sequence => (accepted, nack),
            // A packet that is older than the last one is not for us any more.
            Some((sequence, ..)) if packet.sequence != sequence % 15 + 1 => return None,
            _ => {
                let taken = packet.characters.len().min(self.takes);
                self.from_console.extend(&packet.characters[..taken]);
                if packet.has(operation::BREAK) {
                    self.breaks.push(self.from_console.len());
                }
                (u8::try_from(taken).unwrap(), taken < packet.characters.len())
            }
        };
        self.answered = Some((packet.sequence, accepted, nack));
        Some(ack_only(packet.sequence, usize::from(accepted), nack).encode())
    }

    fn poll(&mut self, now: Instant) -> Option<Vec<u8>> {
        if let Some((packet, at)) = &mut self.under_way {
            if *at > now || self.paused && *at + Duration::from_secs(3) > now {
                return None;
            }
            *at = now + Duration::from_millis(300);
            return Some(packet.encode());
        }
        if self.to_send.is_empty() || self.paused {
            return None;
        }
        let characters = self.to_send.iter().copied().take(self.largest).collect();
        let packet = Packet { sequence: self.sequence, characters, ..Packet::default() };
        self.sequence = self.sequence % 15 + 1;
        self.under_way = Some((packet.clone(), now + Duration::from_millis(300)));
        Some(packet.encode())
    }
}

/// What happens to one datagram: how late each of its copies comes, in milliseconds. Sooner than fifteen packets later,
/// when its number comes again: the session's replay window drops what is older.
type Fate = Vec<u64>;

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![
        6 => (1u64..40).prop_map(|late| vec![late]),
        1 => Just(vec![]),
        1 => vec(1u64..40, 2),
    ];
    vec(fate, 1..80)
}

/// Runs both sides until everything has arrived; each datagram draws one of `fates`.
struct World {
    now: Instant,
    step: usize,
    fates: Vec<Fate>,
    /// When, to the BMC or from it, what.
    wire: Vec<(Instant, bool, Vec<u8>)>,
}

impl World {
    fn new(fates: Vec<Fate>) -> Self {
        Self { now: Instant::now(), step: 0, fates, wire: Vec::new() }
    }

    fn send(&mut self, to_bmc: bool, payload: &[u8]) {
        // Drawn in no order: a channel in step with the repetitions could eat every answer for ever.
        let draw = (self.step as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        for late in &self.fates[draw as usize % self.fates.len()] {
            self.wire.push((self.now + Duration::from_millis(*late), to_bmc, payload.to_vec()));
        }
        self.step += 1;
    }

    fn run(
        &mut self,
        machine: &mut Machine,
        bmc: &mut Bmc,
        mut user: impl FnMut(&mut Machine, Instant),
        done: impl Fn(&Machine, &Bmc) -> bool,
    ) {
        for _ in 0..200_000 {
            user(machine, self.now);
            while let Some(payload) = machine.poll_transmit(self.now) {
                self.send(true, &payload);
            }
            while let Some(payload) = bmc.poll(self.now) {
                self.send(false, &payload);
            }
            if done(machine, bmc) || machine.end().is_some() {
                return;
            }
            self.now += Duration::from_millis(5);
            let now = self.now;
            for (_, to_bmc, payload) in self.wire.extract_if(.., |(at, ..)| *at <= now).collect::<Vec<_>>() {
                if !to_bmc {
                    machine.handle(&payload, now);
                } else if let Some(answer) = bmc.handle(&payload) {
                    self.send(false, &answer);
                }
            }
        }
        panic!("nothing moves any more");
    }
}

fn patient() -> Settings {
    Settings { retries: 60, ..Settings::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 60, ..ProptestConfig::default() })]

    /// All bytes of both directions arrive, once and in order, whatever the channel does; a BMC that takes only part
    /// of a packet and a reader that is slow included.
    #[test]
    fn all_bytes_arrive_once_and_in_order(
        fates in fates(),
        typed in vec(any::<u8>(), 0..2_000),
        shown in vec(any::<u8>(), 0..4_000),
        takes in 1usize..300,
        largest in 1usize..=255,
        buffer in 255usize..700,
        reads in 1usize..64,
        breaks in vec(0usize..2_000, 0..3),
    ) {
        prop_assume!(fates.iter().filter(|fate| fate.is_empty()).count() * 2 <= fates.len());
        // A few packets more than the channel's loss can eat in a row; small takes and packets would run for very long.
        let typed = &typed[..typed.len().min(takes * 120)];
        let shown = &shown[..shown.len().min(largest * 240)];
        let mut breaks: Vec<usize> = breaks.iter().map(|at| at % (typed.len() + 1)).collect();
        breaks.sort_unstable();
        breaks.dedup();
        let mut machine = Machine::new(Settings { receive_buffer: buffer, send_buffer: 512, ..patient() });
        let mut bmc = Bmc::new(shown, takes, largest);
        let mut world = World::new(fates);
        // This BMC insists on the order of numbers: that the first four packets are lost is the end for it.
        machine.open(world.now);
        let answer = machine.poll_transmit(world.now).and_then(|payload| bmc.handle(&payload)).unwrap();
        machine.handle(&answer, world.now);
        let (mut written, mut seen) = (0, Vec::new());
        let mut due: VecDeque<usize> = breaks.iter().copied().collect();
        world.run(
            &mut machine,
            &mut bmc,
            |machine, now| {
                let until = due.front().copied().unwrap_or(typed.len());
                written += machine.write(&typed[written..until]);
                if due.front() == Some(&written) {
                    due.pop_front();
                    machine.send_break();
                }
                let mut buffer = vec![0; reads];
                let count = machine.read(&mut buffer, now);
                seen.extend_from_slice(&buffer[..count]);
            },
            |machine, bmc| {
                machine.flushed() && bmc.from_console.len() >= typed.len() && bmc.to_send.is_empty()
                    && !machine.readable() && bmc.breaks.len() >= breaks.len()
            },
        );
        prop_assert_eq!(machine.end(), None);
        prop_assert_eq!(&bmc.from_console, typed);
        prop_assert_eq!(seen, shown);
        prop_assert_eq!(bmc.breaks, breaks);
    }

    #[test]
    fn no_payload_makes_it_panic_or_grow(payloads in vec(vec(any::<u8>(), 0..300), 0..60)) {
        let mut machine = Machine::new(Settings { receive_buffer: 300, ..Settings::default() });
        let mut now = Instant::now();
        for payload in payloads {
            machine.write(b"x");
            machine.handle(&payload, now);
            for _ in 0..64 {
                if machine.poll_transmit(now).is_none() {
                    break;
                }
            }
            prop_assert!(machine.poll_transmit(now).is_none(), "it talks without end");
            now += Duration::from_millis(100);
        }
        let mut buffer = [0; 1_000];
        prop_assert!(machine.read(&mut buffer, now) <= 300);
    }
}

fn sent(machine: &mut Machine, now: Instant) -> Vec<Packet> {
    std::iter::from_fn(|| machine.poll_transmit(now))
        .map(|payload| Packet::parse(&payload).unwrap())
        .collect()
}

fn data(sequence: u8, characters: &[u8]) -> Vec<u8> {
    Packet { sequence, characters: characters.to_vec(), ..Packet::default() }.encode()
}

fn read(machine: &mut Machine, now: Instant) -> Vec<u8> {
    let mut buffer = vec![0; 4_096];
    let count = machine.read(&mut buffer, now);
    buffer.truncate(count);
    buffer
}

#[test]
fn a_repeated_packet_keeps_its_number_and_the_patience_ends() {
    let mut machine = Machine::new(Settings { retries: 3, ..Settings::default() });
    let start = Instant::now();
    machine.write(b"ls\r");
    let first = sent(&mut machine, start);
    assert_eq!((first[0].sequence, first[0].characters.as_slice()), (1, &b"ls\r"[..]));
    let mut waits = Vec::new();
    while let Some(at) = machine.deadline() {
        waits.push((at - start).as_millis());
        let again = sent(&mut machine, at);
        assert!(again.is_empty() || again == first);
    }
    assert_eq!(waits, [250, 750, 1_750, 3_750]);
    assert_eq!(machine.end(), Some(&SolEnd::TooManyRetries { unacknowledged: 3 }));
    assert_eq!(machine.status().repeated, 3);
}

#[test]
fn what_was_not_taken_goes_into_the_next_packet_after_a_pause() {
    let now = Instant::now();
    let mut machine = Machine::new(Settings::default());
    machine.write(b"abcdef");
    sent(&mut machine, now);
    machine.handle(&ack_only(1, 2, true).encode(), now);
    assert!(sent(&mut machine, now).is_empty(), "a NACK pauses");
    let later = machine.deadline().unwrap();
    let rest = sent(&mut machine, later);
    assert_eq!((rest[0].sequence, rest[0].characters.as_slice()), (2, &b"cdef"[..]));
    machine.handle(&ack_only(2, 0, true).encode(), later);
    machine.handle(&Packet::default().encode(), later);
    assert_eq!(sent(&mut machine, later)[0].sequence, 3, "a packet without a NACK ends the pause");
}

#[test]
fn an_unavailable_host_pauses_without_end_and_is_told() {
    let mut now = Instant::now();
    let mut machine = Machine::new(Settings::default());
    machine.write(b"x");
    for sequence in (1..=15).cycle().take(40) {
        assert_eq!(sent(&mut machine, now)[0].sequence, sequence);
        let packet = Packet { flags: status::UNAVAILABLE, ..ack_only(sequence, 0, true) };
        machine.handle(&packet.encode(), now);
        assert!(machine.status().host_unavailable);
        now = machine.deadline().unwrap();
    }
    assert_eq!(machine.end(), None);
    sent(&mut machine, now);
    machine.handle(&ack_only(11, 1, false).encode(), now);
    assert!(machine.flushed() && !machine.status().host_unavailable);
}

#[test]
fn a_packet_that_comes_twice_is_answered_twice_and_shown_once() {
    let now = Instant::now();
    let mut machine = Machine::new(Settings::default());
    machine.handle(&data(7, b"login: "), now);
    machine.handle(&data(7, b"login: "), now);
    // OpenBMC repeats with more when more has come meanwhile.
    machine.handle(&data(7, b"login: root"), now);
    let answers: Vec<_> =
        sent(&mut machine, now).iter().map(|packet| (packet.acknowledges, packet.accepted)).collect();
    assert_eq!(answers, [(7, 7), (7, 7), (7, 11)]);
    assert_eq!(read(&mut machine, now), b"login: root");
    machine.handle(&data(6, b"old"), now);
    assert!(sent(&mut machine, now).is_empty() && !machine.readable());
    machine.handle(&data(10, b" gap"), now);
    assert_eq!(read(&mut machine, now), b" gap", "the BMC gave two packets up");
}

#[test]
fn a_bmc_that_starts_its_numbers_anew_is_believed_after_a_while() {
    let mut now = Instant::now();
    let mut machine = Machine::new(Settings::default());
    machine.handle(&data(6, b"a"), now);
    for _ in 0..5 {
        machine.handle(&data(1, b"b"), now);
        now += Duration::from_millis(500);
    }
    assert_eq!(read(&mut machine, now), b"ab");
}

#[test]
fn a_slow_reader_makes_the_bmc_pause_and_go_on() {
    let now = Instant::now();
    let mut machine = Machine::new(Settings { receive_buffer: 300, ..Settings::default() });
    machine.handle(&data(1, &[b'a'; 250]), now);
    machine.handle(&data(2, &[b'b'; 250]), now);
    machine.handle(&data(2, &[b'b'; 250]), now);
    let answers = sent(&mut machine, now);
    assert_eq!(answers, [ack_only(1, 250, false), ack_only(0, 0, true)], "one NACK, nothing answered");
    assert_eq!(read(&mut machine, now).len(), 250);
    assert_eq!(sent(&mut machine, now), [Packet::default()], "there is room again");
    machine.handle(&data(2, &[b'b'; 250]), now);
    assert_eq!(sent(&mut machine, now), [ack_only(2, 250, false)]);
    assert_eq!(machine.deadline(), None);
}

#[test]
fn a_deactivation_ends_after_the_last_characters() {
    let now = Instant::now();
    let mut machine = Machine::new(Settings::default());
    let last = Packet {
        sequence: 1,
        flags: status::DEACTIVATING | status::OVERRUN | status::BREAK,
        characters: b"bye".to_vec(),
        ..Packet::default()
    };
    machine.handle(&last.encode(), now);
    assert_eq!(machine.end(), Some(&SolEnd::Deactivated));
    assert_eq!((machine.status().overruns, machine.status().breaks), (1, 1));
    assert_eq!(read(&mut machine, now), b"bye");
    assert!(sent(&mut machine, now).is_empty());
}

#[test]
fn the_lines_are_in_every_packet() {
    let now = Instant::now();
    let mut machine = Machine::new(Settings::default());
    machine.set_lines(Lines { cts_pause: true, drop_dcd_dsr: true });
    let told = sent(&mut machine, now);
    assert_eq!((told.len(), told[0].sequence), (1, 0));
    machine.write(b"x");
    let packet = &sent(&mut machine, now)[0];
    assert!(packet.has(operation::CTS_PAUSE) && packet.has(operation::DROP_DCD_DSR));
}

/// What goes out before any answer.
fn opened() -> (Machine, Instant) {
    let mut machine = Machine::new(Settings::default());
    let now = Instant::now();
    machine.open(now);
    machine.write(b"x");
    let first = sent(&mut machine, now);
    assert_eq!(first, [Packet { sequence: 1, ..Packet::default() }], "characters wait");
    (machine, now)
}

/// OpenBMC, BMCs by the book, and an `ipmi_sim` whose last number was 1.
#[test]
fn an_answered_first_number_is_used_up() {
    let (mut machine, now) = opened();
    machine.handle(&ack_only(1, 7, false).encode(), now);
    let next = &sent(&mut machine, now)[0];
    assert_eq!((next.sequence, next.characters.as_slice()), (2, &b"x"[..]));
}

/// An older `ipmi_sim` whose last number was another one.
#[test]
fn without_an_answer_the_first_characters_are_number_1() {
    let (mut machine, start) = opened();
    let mut numbers = Vec::new();
    let mut now = start;
    while numbers.last() != Some(&(1, 1)) {
        now = machine.deadline().unwrap();
        numbers
            .extend(sent(&mut machine, now).iter().map(|packet| (packet.sequence, packet.characters.len())));
    }
    assert_eq!(numbers, [(1, 0), (2, 0), (2, 0), (1, 1)]);
    assert_eq!((now - start).as_millis(), 1_500);
}

/// OpenBMC took the first packet, its answer was lost, and the repetition is dropped.
#[test]
fn a_lost_first_answer_costs_only_time_with_openbmc() {
    let (mut machine, _) = opened();
    let mut now = machine.deadline().unwrap();
    sent(&mut machine, now);
    now = machine.deadline().unwrap();
    assert_eq!(sent(&mut machine, now)[0].sequence, 2);
    machine.handle(&ack_only(2, 0, false).encode(), now);
    assert_eq!(sent(&mut machine, now)[0].sequence, 3);
}

/// With OpenBMC one lost answer later on is the end, which says what is in doubt. What comes from the host until then
/// is still shown.
#[test]
fn openbmcs_lost_answer_is_an_end_that_says_what_is_in_doubt() {
    let (mut machine, now) = opened();
    machine.handle(&ack_only(1, 0, false).encode(), now);
    machine.write(b"reboot\r");
    sent(&mut machine, now);
    while let Some(at) = machine.deadline() {
        machine.handle(&data(1, b"going down"), at);
        sent(&mut machine, at);
    }
    assert_eq!(machine.end(), Some(&SolEnd::TooManyRetries { unacknowledged: 8 }));
    assert_eq!(
        machine.end().unwrap().to_string(),
        "the BMC does not acknowledge any more; the last 8 bytes may or may not have reached the host: \
         look before they are typed again"
    );
    assert_eq!(read(&mut machine, now), b"going down");
}

/// Older `ipmi_sim`s obey a break each time it comes and never answer it.
#[test]
fn a_bmc_that_does_not_answer_gets_a_break_once() {
    let (mut machine, _) = opened();
    machine.send_break();
    machine.write(b"y");
    let mut numbers = Vec::new();
    while numbers.len() < 3 {
        let now = machine.deadline().unwrap();
        for packet in sent(&mut machine, now) {
            if !packet.characters.is_empty() {
                machine.handle(&ack_only(packet.sequence, 1, false).encode(), now);
            }
            if !packet.characters.is_empty() || packet.has(operation::BREAK) {
                numbers.push((packet.sequence, packet.flags));
            }
        }
        numbers.extend(sent(&mut machine, now).iter().map(|packet| (packet.sequence, packet.flags)));
    }
    assert_eq!(numbers, [(1, 0), (2, operation::BREAK), (3, 0)]);
    assert_eq!((machine.status().breaks_unanswered, machine.end()), (1, None));
}
