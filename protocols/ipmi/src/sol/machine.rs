//! The exchange of SOL packets (sections 15.9 to 15.11), without a socket or a clock.
//!
//! Each direction has one packet under way. A packet with characters carries a number from 1 to 15 and is repeated
//! under the same number until it is answered. An answer says how many characters were taken; the rest goes into the
//! next packet. A NACK asks the sender to pause. Answers travel alone and never on a packet with characters: some
//! BMCs (OpenBMC's net-ipmid) throw a whole packet away when the number it answers is no longer the awaited one.
//!
//! When the reader is slow, a packet that finds no room stays unanswered and a NACK that answers nothing asks for a
//! pause. To say "none of it was taken" would be read in two ways: OpenBMC repeats the packet, others put its
//! characters into the next one, and where datagrams overtake each other characters would come twice.
//!
//! An exchange begins with a numbered packet without characters ([`Machine::open`]). OpenBMC takes no other first
//! number than 1 and answers it. OpenIPMI's `ipmi_sim` keeps the last number it took across activations and would
//! answer, but not take, characters under the same number; older ones answer a packet without characters only when
//! they know the number already, newer ones always (2.0.33). So an answer, whatever it means, says that the next
//! number is the right one, and silence that 1 is; only where all of the first packets get lost is that wrong for a
//! BMC that insists on the order.
//!
//! How it fails: [`Machine::end`] is set when the BMC deactivates SOL or leaves a packet unanswered for too long.
//! Some BMCs (OpenBMC) drop a repeated packet that they have taken without answering it again: there one lost answer
//! ends the exchange, and nobody can tell whether its characters reached the host. To go on with the next number
//! would be no way out: a BMC that had not seen the packet takes that too. A BMC that did not answer the first
//! packets gets a break once: it would break the line each time, and never answer. A packet that makes no sense is
//! counted and ignored.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::{
    end::SolEnd,
    packet::{MAX_CHARACTERS, Packet, ack_only, operation, status},
};

/// Sizes and patience of a [`Machine`].
#[derive(Clone, Debug)]
pub struct Settings {
    /// Characters in one packet to the BMC, 1 to 255.
    pub characters: usize,
    /// Bytes from the host kept for a slow reader; when they are used up, the BMC is asked to pause.
    pub receive_buffer: usize,
    /// Bytes kept for the host.
    pub send_buffer: usize,
    /// A packet without an answer is repeated after this, then after twice as long, and so on.
    pub first_retry: Duration,
    /// Longest time between two repetitions.
    pub longest_retry: Duration,
    /// Repetitions of one packet before the BMC counts as gone.
    pub retries: u32,
}

impl Default for Settings {
    /// Twelve repetitions within about 20 s: a BMC that restarts its network comes back within that.
    fn default() -> Self {
        Self {
            characters: MAX_CHARACTERS,
            receive_buffer: 64 * 1024,
            send_buffer: 16 * 1024,
            first_retry: Duration::from_millis(250),
            longest_retry: Duration::from_secs(2),
            retries: 12,
        }
    }
}

/// What the host's serial port sees of its other side.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lines {
    /// CTS is taken away: the host should stop sending.
    pub cts_pause: bool,
    /// DCD and DSR are taken away: the line looks hung up.
    pub drop_dcd_dsr: bool,
}

/// What is known besides the characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Status {
    /// The host is off, asleep or in reset: what is typed waits.
    pub host_unavailable: bool,
    /// Packets that said that characters from the host were lost inside the BMC.
    pub overruns: u64,
    /// Breaks from the host.
    pub breaks: u64,
    /// Breaks to the host that the BMC did not answer: nobody can tell whether the host saw them.
    pub breaks_unanswered: u64,
    /// Packets of ours that were sent again.
    pub repeated: u64,
    /// Packets that were ignored: malformed, or older than one already taken.
    pub ignored: u64,
}

/// The console's side of one active SOL payload.
///
/// Give it what arrives ([`handle`](Self::handle)) and what is typed ([`write`](Self::write)); send what
/// [`poll_transmit`](Self::poll_transmit) gives until it gives nothing; come back at [`deadline`](Self::deadline).
#[derive(Debug)]
pub struct Machine {
    settings: Settings,
    outgoing: VecDeque<u8>,
    /// Positions in the stream of sent characters at which a break is due.
    breaks: VecDeque<u64>,
    /// Characters that left `outgoing`.
    taken_by_bmc: u64,
    opening: Option<Opening>,
    /// The BMC does not answer packets without characters, such as breaks.
    mute: bool,
    under_way: Option<UnderWay>,
    next_sequence: u8,
    hold: Hold,
    incoming: VecDeque<u8>,
    last: Option<Taken>,
    stale: Option<Stale>,
    refused: Option<Refused>,
    answers: VecDeque<Packet>,
    lines: Lines,
    announce_lines: bool,
    status: Status,
    end: Option<SolEnd>,
}

/// The packets without characters at the beginning.
#[derive(Debug)]
struct Opening {
    /// How many of [`OPENING`] were sent.
    sent: usize,
    next_at: Instant,
}

/// The packet that waits for its answer.
#[derive(Debug)]
struct UnderWay {
    packet: Packet,
    repetitions: u32,
    repeat_at: Instant,
}

/// Sending pauses: the BMC did not take characters.
#[derive(Debug, Default)]
struct Hold {
    until: Option<Instant>,
    step: Option<Duration>,
}

/// The last packet from the BMC that was taken.
#[derive(Clone, Copy, Debug)]
struct Taken {
    sequence: u8,
    characters: usize,
}

/// A number that looks older than the last one, seen again and again.
#[derive(Clone, Copy, Debug)]
struct Stale {
    sequence: u8,
    first: Instant,
    times: u32,
}

/// A packet from the BMC that found no room.
#[derive(Clone, Copy, Debug)]
struct Refused {
    /// No other NACK before this.
    nack_at: Instant,
    /// Set once there is room: when to tell the BMC, and how often it was told.
    resume: Option<(Instant, u32)>,
}

/// Numbers of the first packets, and how long each waits for its answer. After two the number goes up: where the answer
/// to the first was lost, OpenBMC answers only the next number. Nothing is in doubt as long as there are no characters.
const OPENING: [(u8, Duration); 4] = [
    (1, Duration::from_millis(250)),
    (1, Duration::from_millis(250)),
    (2, Duration::from_millis(500)),
    (2, Duration::from_millis(500)),
];
/// Two NACKs are at least this far apart: some BMCs answer one by repeating at once.
const NACK_INTERVAL: Duration = Duration::from_millis(200);
/// The BMC is told that there is room again, this often and this many times, until it sends.
const RESUME_INTERVAL: Duration = Duration::from_millis(500);
const RESUMES: u32 = 20;
/// First and longest pause when the BMC does not take characters.
const HOLD: Duration = Duration::from_millis(200);
const LONGEST_HOLD: Duration = Duration::from_secs(5);
/// A BMC that started its numbers anew is believed after repeating the same old number this often, for this long.
const RESTART_TIMES: u32 = 3;
const RESTART_TIME: Duration = Duration::from_secs(2);
/// Answers waiting to be sent; more come only from a BMC that ignores the protocol.
const MAX_ANSWERS: usize = 16;

impl Machine {
    pub fn new(mut settings: Settings) -> Self {
        settings.characters = settings.characters.clamp(1, MAX_CHARACTERS);
        // One whole packet must fit, else nothing would ever be taken.
        settings.receive_buffer = settings.receive_buffer.max(MAX_CHARACTERS);
        settings.send_buffer = settings.send_buffer.max(1);
        Self {
            settings,
            outgoing: VecDeque::new(),
            breaks: VecDeque::new(),
            taken_by_bmc: 0,
            opening: None,
            mute: false,
            under_way: None,
            next_sequence: 1,
            hold: Hold::default(),
            incoming: VecDeque::new(),
            last: None,
            stale: None,
            refused: None,
            answers: VecDeque::new(),
            lines: Lines::default(),
            announce_lines: false,
            status: Status::default(),
            end: None,
        }
    }

    /// Finds out which number the BMC takes first; characters wait for it, 1.5 s at the longest. To be called first.
    pub fn open(&mut self, now: Instant) {
        self.opening = Some(Opening { sent: 0, next_at: now });
    }

    /// Takes characters for the host: how many found room.
    pub fn write(&mut self, characters: &[u8]) -> usize {
        let room = self.settings.send_buffer.saturating_sub(self.outgoing.len());
        let taken = characters.len().min(room);
        self.outgoing.extend(characters.iter().take(taken));
        taken
    }

    /// A break on the host's line, after everything written so far.
    pub fn send_break(&mut self) {
        let position = self.taken_by_bmc + self.outgoing.len() as u64;
        // Two breaks at one place are one long break.
        if self.breaks.back() != Some(&position) {
            self.breaks.push_back(position);
        }
    }

    pub fn set_lines(&mut self, lines: Lines) {
        self.announce_lines |= lines != self.lines;
        self.lines = lines;
    }

    /// Moves characters from the host into `buffer`: how many.
    pub fn read(&mut self, buffer: &mut [u8], now: Instant) -> usize {
        let count = buffer.len().min(self.incoming.len());
        for (slot, character) in buffer.iter_mut().zip(self.incoming.drain(..count)) {
            *slot = character;
        }
        let room = self.room() >= MAX_CHARACTERS;
        if let Some(refused) = self.refused.as_mut().filter(|refused| room && refused.resume.is_none()) {
            refused.resume = Some((now, 0));
        }
        count
    }

    pub fn readable(&self) -> bool {
        !self.incoming.is_empty()
    }

    pub fn writable(&self) -> bool {
        self.outgoing.len() < self.settings.send_buffer
    }

    /// Everything written has been taken by the BMC.
    pub fn flushed(&self) -> bool {
        self.outgoing.is_empty() && self.breaks.is_empty() && self.under_way.is_none()
    }

    pub fn status(&self) -> Status {
        self.status
    }

    pub fn end(&self) -> Option<&SolEnd> {
        self.end.as_ref()
    }

    /// Ends the exchange; the first reason stays.
    pub fn finish(&mut self, end: SolEnd) {
        self.end.get_or_insert(end);
    }

    /// A SOL payload that arrived.
    pub fn handle(&mut self, payload: &[u8], now: Instant) {
        if self.end.is_some() {
            return;
        }
        let Ok(packet) = Packet::parse(payload) else {
            self.status.ignored += 1;
            return;
        };
        self.status.host_unavailable = packet.has(status::UNAVAILABLE);
        self.answered(&packet, now);
        let fresh = packet.sequence == 0 || self.arrived(&packet, now);
        self.status.overruns += u64::from(fresh && packet.has(status::OVERRUN));
        self.status.breaks += u64::from(fresh && packet.has(status::BREAK));
        if packet.has(status::DEACTIVATING) {
            self.finish(SolEnd::Deactivated);
        }
    }

    /// What the packet says about the one of ours that is under way.
    fn answered(&mut self, packet: &Packet, now: Instant) {
        let paused = packet.nack || packet.has(status::UNAVAILABLE);
        if let Some(number) = self.opening.as_ref().and_then(Opening::number)
            && number == packet.acknowledges
        {
            self.opening = None;
            self.next_sequence = after(number);
        }
        let sequence = self.under_way.as_ref().map(|under_way| under_way.packet.sequence);
        if packet.acknowledges == 0 || sequence != Some(packet.acknowledges) {
            if paused {
                self.pause(now);
            } else {
                self.hold.until = None;
            }
            return;
        }
        let Some(under_way) = self.under_way.take() else { return };
        if under_way.packet.has(operation::BREAK) {
            // A refused break is not repeated: nobody can tell whether the host saw it.
            self.breaks.pop_front();
            self.hold = Hold::default();
            return;
        }
        let sent = under_way.packet.characters.len();
        let accepted = usize::from(packet.accepted).min(sent);
        self.outgoing.drain(..accepted.min(self.outgoing.len()));
        self.taken_by_bmc += accepted as u64;
        if paused || accepted == 0 {
            self.pause(now);
        } else {
            self.hold = Hold::default();
        }
    }

    fn pause(&mut self, now: Instant) {
        let step = self.hold.step.map_or(HOLD, |step| (step * 2).min(LONGEST_HOLD));
        self.hold = Hold { until: Some(now + step), step: Some(step) };
    }

    /// Takes the characters of a numbered packet, or refuses them. Whether the packet was new.
    fn arrived(&mut self, packet: &Packet, now: Instant) -> bool {
        let distance = self.last.map_or(1, |last| (packet.sequence + 15 - last.sequence) % 15);
        // Half of the numbers are ahead: a gap is a packet that the BMC gave up.
        if distance > 7 && !self.restarted(packet.sequence, now) {
            self.status.ignored += 1;
            return false;
        }
        let known = self.last.filter(|_| distance == 0).map_or(0, |last| last.characters);
        // A repeated packet may have grown; what was taken is not taken twice.
        let fresh = packet.characters.get(known..).unwrap_or_default();
        if fresh.len() > self.room() {
            self.refuse(now);
            return false;
        }
        self.incoming.extend(fresh);
        self.answer(ack_only(packet.sequence, packet.characters.len(), false));
        self.last = Some(Taken { sequence: packet.sequence, characters: packet.characters.len().max(known) });
        self.stale = None;
        self.refused = None;
        distance != 0
    }

    fn restarted(&mut self, sequence: u8, now: Instant) -> bool {
        let seen = self.stale.filter(|stale| stale.sequence == sequence);
        let stale = seen.map_or(Stale { sequence, first: now, times: 1 }, |stale| Stale {
            times: stale.times.saturating_add(1),
            ..stale
        });
        self.stale = Some(stale);
        stale.times >= RESTART_TIMES && now.duration_since(stale.first) >= RESTART_TIME
    }

    /// Asks for a pause. The packet stays unanswered, so that the BMC keeps it.
    fn refuse(&mut self, now: Instant) {
        if self.refused.is_some_and(|refused| now < refused.nack_at) {
            return;
        }
        self.answer(ack_only(0, 0, true));
        self.refused = Some(Refused { nack_at: now + NACK_INTERVAL, resume: None });
    }

    fn answer(&mut self, packet: Packet) {
        if self.answers.len() < MAX_ANSWERS {
            self.answers.push_back(packet);
        }
    }

    fn room(&self) -> usize {
        self.settings.receive_buffer.saturating_sub(self.incoming.len())
    }

    /// The next payload to send now, if any.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.end.is_some() {
            return None;
        }
        let packet = self
            .answers
            .pop_front()
            .or_else(|| self.lines_packet())
            .or_else(|| self.resume_packet(now))
            .or_else(|| self.opening_packet(now))
            .or_else(|| self.repeated(now))
            .or_else(|| self.next_packet(now))?;
        let mut flags = packet.flags;
        flags |= if self.lines.cts_pause { operation::CTS_PAUSE } else { 0 };
        flags |= if self.lines.drop_dcd_dsr { operation::DROP_DCD_DSR } else { 0 };
        Some(Packet { flags, ..packet }.encode())
    }

    fn lines_packet(&mut self) -> Option<Packet> {
        std::mem::take(&mut self.announce_lines).then(Packet::default)
    }

    /// Says that there is room again: a packet that answers nothing, without the NACK.
    fn resume_packet(&mut self, now: Instant) -> Option<Packet> {
        let refused = self.refused.as_mut()?;
        let (_, told) = refused.resume.filter(|(at, _)| *at <= now)?;
        if told < RESUMES {
            refused.resume = Some((now + RESUME_INTERVAL, told + 1));
        } else {
            self.refused = None;
        }
        Some(Packet::default())
    }

    fn opening_packet(&mut self, now: Instant) -> Option<Packet> {
        let opening = self.opening.as_mut().filter(|opening| opening.next_at <= now)?;
        let Some((sequence, wait)) = OPENING.get(opening.sent).copied() else {
            self.opening = None;
            self.mute = true;
            return None;
        };
        *opening = Opening { sent: opening.sent + 1, next_at: now + wait };
        Some(Packet { sequence, ..Packet::default() })
    }

    fn repeated(&mut self, now: Instant) -> Option<Packet> {
        let under_way = self.under_way.as_mut().filter(|under_way| under_way.repeat_at <= now)?;
        if under_way.packet.has(operation::BREAK) && self.mute {
            self.under_way = None;
            self.breaks.pop_front();
            self.status.breaks_unanswered += 1;
            return None;
        }
        if under_way.repetitions >= self.settings.retries {
            let unacknowledged = under_way.packet.characters.len();
            self.finish(SolEnd::TooManyRetries { unacknowledged });
            return None;
        }
        under_way.repetitions += 1;
        let wait = self.settings.first_retry.saturating_mul(1 << under_way.repetitions.min(16));
        under_way.repeat_at = now + wait.min(self.settings.longest_retry);
        self.status.repeated += 1;
        Some(under_way.packet.clone())
    }

    fn next_packet(&mut self, now: Instant) -> Option<Packet> {
        if self.opening.is_some()
            || self.under_way.is_some()
            || self.hold.until.is_some_and(|until| until > now)
        {
            return None;
        }
        let before_break = self.breaks.front().map(|position| position.saturating_sub(self.taken_by_bmc));
        let flags = if before_break == Some(0) { operation::BREAK } else { 0 };
        let limit = before_break.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX));
        let characters: Vec<u8> =
            self.outgoing.iter().copied().take(limit.min(self.settings.characters)).collect();
        if flags == 0 && characters.is_empty() {
            return None;
        }
        let packet = Packet { sequence: self.next_sequence, flags, characters, ..Packet::default() };
        self.next_sequence = after(self.next_sequence);
        let repeat_at = now + self.settings.first_retry;
        self.under_way = Some(UnderWay { packet: packet.clone(), repetitions: 0, repeat_at });
        Some(packet)
    }

    /// When [`poll_transmit`](Self::poll_transmit) has something again, if nothing happens before.
    pub fn deadline(&self) -> Option<Instant> {
        if self.end.is_some() {
            return None;
        }
        let opening = self.opening.as_ref().map(|opening| opening.next_at);
        let repeat = self.under_way.as_ref().map(|under_way| under_way.repeat_at);
        let waiting = self.opening.is_none() && self.under_way.is_none() && !self.flushed();
        let hold = self.hold.until.filter(|_| waiting);
        let resume = self.refused.and_then(|refused| refused.resume).map(|(at, _)| at);
        [opening, repeat, hold, resume].into_iter().flatten().min()
    }
}

impl Opening {
    /// The number of the last packet sent.
    fn number(&self) -> Option<u8> {
        OPENING.get(self.sent.checked_sub(1)?).map(|(number, _)| *number)
    }
}

/// The number that follows.
fn after(number: u8) -> u8 {
    number % 15 + 1
}
