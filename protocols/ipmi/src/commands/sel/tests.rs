use std::sync::Mutex;

use super::super::fake::{Answer, Fake, Repository, SEL, lines, ok, refuse};
use super::super::sdr::SdrCache;
use super::commands::{ClearSel, GetSelEntry};
use super::*;
use crate::{Command, CompletionCode, NetFn, Request};

fn entries() -> Vec<Entry> {
    lines(SEL).into_iter().map(|raw| Entry { raw: raw.try_into().unwrap() }).collect()
}

/// An entry that differs by its id and time.
fn entry(id: u16, time: u32) -> Entry {
    let mut raw = entries()[5].raw;
    raw[..2].copy_from_slice(&id.to_le_bytes());
    raw[3..7].copy_from_slice(&time.to_le_bytes());
    Entry { raw }
}

/// A log as a BMC keeps it.
#[derive(Default)]
struct Log {
    entries: Vec<Entry>,
    erase: u32,
    reservation: u16,
    /// An entry that arrives right after the next reservation.
    arrives: Option<Entry>,
    erasing: u32,
}

impl Log {
    fn answer(&mut self, request: &Request) -> Answer {
        assert_eq!(request.net_fn, NetFn::STORAGE);
        match request.code {
            0x40 => {
                let mut info = vec![0x51];
                info.extend(u16::try_from(self.entries.len()).unwrap().to_le_bytes());
                info.extend([0xff, 0xff, 0, 0, 0, 0]);
                info.extend(self.erase.to_le_bytes());
                info.push(0x0a);
                ok(&info)
            }
            0x42 => {
                self.reservation += 1;
                let reservation = self.reservation;
                if let Some(arrives) = self.arrives.take() {
                    self.add(arrives);
                }
                ok(&reservation.to_le_bytes())
            }
            0x43 => {
                let id = u16::from_le_bytes([request.data[2], request.data[3]]);
                let index = match id {
                    0 => Some(0),
                    0xffff => self.entries.len().checked_sub(1),
                    id => self.entries.iter().position(|entry| entry.id() == id),
                };
                let Some(found) = index.and_then(|index| self.entries.get(index)) else {
                    return refuse(CompletionCode::NOT_PRESENT);
                };
                let next = self.entries.get(index.unwrap() + 1).map_or(0xffff, Entry::id);
                ok(&[&next.to_le_bytes(), found.raw.as_slice()].concat())
            }
            0x47 => {
                let reservation = u16::from_le_bytes([request.data[0], request.data[1]]);
                if reservation != self.reservation {
                    return refuse(CompletionCode::RESERVATION_CANCELLED);
                }
                assert_eq!(&request.data[2..5], b"CLR");
                if request.data[5] == 0xaa {
                    self.entries.clear();
                    self.erase += 1;
                    self.erasing = 2;
                }
                self.erasing = self.erasing.saturating_sub(1);
                ok(&[u8::from(self.erasing == 0)])
            }
            _ => refuse(CompletionCode::INVALID_COMMAND),
        }
    }

    fn add(&mut self, entry: Entry) {
        self.entries.push(entry);
        self.reservation += 1;
    }
}

fn bmc(log: &Mutex<Log>) -> Fake<impl Fn(&Request) -> Answer + Send + Sync + '_> {
    Fake::new(|request| log.lock().unwrap().answer(request))
}

async fn poll(follower: &mut Follower, log: &Mutex<Log>) -> Vec<Entry> {
    let mut found = Vec::new();
    follower.poll(&bmc(log), &mut found).await.unwrap();
    found
}

#[tokio::test]
async fn a_followed_log_gives_each_entry_once() {
    let log = Mutex::new(Log { entries: vec![entry(1, 10), entry(2, 10)], ..Log::default() });
    let mut follower = Follower::default();
    assert_eq!(poll(&mut follower, &log).await, [entry(1, 10), entry(2, 10)]);
    assert_eq!(poll(&mut follower, &log).await, []);
    log.lock().unwrap().add(entry(7, 10));
    // The position survives a restart of ours.
    let mut follower = Follower::from_bytes(&follower.to_bytes()).unwrap();
    assert_eq!(poll(&mut follower, &log).await, [entry(7, 10)]);
}

#[tokio::test]
async fn nothing_new_costs_two_commands() {
    let log = Mutex::new(Log { entries: (1..200).map(|id| entry(id, 5)).collect(), ..Log::default() });
    let mut follower = Follower::default();
    assert_eq!(poll(&mut follower, &log).await.len(), 199);
    let bmc = bmc(&log);
    follower.poll(&bmc, &mut Vec::new()).await.unwrap();
    assert_eq!(bmc.count(), 2);
}

#[tokio::test]
async fn a_clear_by_somebody_else_loses_nothing() {
    let log = Mutex::new(Log { entries: vec![entry(1, 10), entry(2, 10)], ..Log::default() });
    let mut follower = Follower::default();
    poll(&mut follower, &log).await;
    // Cleared, and the same ids are used again, up to the last one that was read.
    *log.lock().unwrap() = Log { entries: vec![entry(1, 20), entry(2, 20)], erase: 1, ..Log::default() };
    assert_eq!(poll(&mut follower, &log).await, [entry(1, 20), entry(2, 20)]);
    // The same by a BMC that keeps no erase time, with fewer entries than before.
    *log.lock().unwrap() = Log { entries: vec![entry(1, 30)], erase: 1, ..Log::default() };
    assert_eq!(poll(&mut follower, &log).await, [entry(1, 30)]);
    *log.lock().unwrap() = Log { erase: 2, ..Log::default() };
    assert_eq!(poll(&mut follower, &log).await, []);
    log.lock().unwrap().add(entry(1, 40));
    assert_eq!(poll(&mut follower, &log).await, [entry(1, 40)]);
}

#[tokio::test]
async fn a_deleted_entry_repeats_nothing() {
    let log = Mutex::new(Log { entries: (1..6).map(|id| entry(id, 10)).collect(), ..Log::default() });
    let mut follower = Follower::default();
    poll(&mut follower, &log).await;
    // The last one that was read is deleted, and another one arrives.
    {
        let mut state = log.lock().unwrap();
        state.entries.pop();
        state.erase += 1;
        state.entries.push(entry(6, 11));
    }
    assert_eq!(poll(&mut follower, &log).await, [entry(6, 11)]);
}

#[tokio::test]
async fn a_log_that_overwrites_is_followed_for_ever() {
    let log = Mutex::new(Log { entries: (0..10).map(|id| entry(id + 1, 10)).collect(), ..Log::default() });
    let mut follower = Follower::default();
    poll(&mut follower, &log).await;
    for step in 0..500_u16 {
        let new = entry(step % 10 + 1, 11 + u32::from(step));
        {
            let mut state = log.lock().unwrap();
            state.entries.remove(0);
            state.entries.push(new);
        }
        assert_eq!(poll(&mut follower, &log).await, [new], "step {step}");
        assert!(follower.to_bytes().len() < 200 * 16, "what was seen does not grow");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clear_waits_for_what_arrives_in_between() {
    let log = Mutex::new(Log { entries: vec![entry(1, 10)], arrives: Some(entry(2, 10)), ..Log::default() });
    let mut follower = Follower::default();
    let mut found = Vec::new();
    follower.drain_and_clear(&bmc(&log), &mut found).await.unwrap();
    assert_eq!(found, [entry(1, 10), entry(2, 10)]);
    assert!(log.lock().unwrap().entries.is_empty());
    log.lock().unwrap().add(entry(1, 12));
    assert_eq!(poll(&mut follower, &log).await, [entry(1, 12)]);
    clear(&bmc(&log)).await.unwrap();
    assert_eq!(read(&bmc(&log)).await.unwrap().entries, []);
}

#[tokio::test]
async fn a_log_that_goes_in_circles_ends() {
    let bmc = Fake::new(|request| match request.code {
        0x40 => ok(&[0x51, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        _ if request.data[2] == 2 => ok(&[&[1, 0], entry(2, 1).raw.as_slice()].concat()),
        _ => ok(&[&[2, 0], entry(1, 1).raw.as_slice()].concat()),
    });
    let mut found = Vec::new();
    assert!(Follower::default().poll(&bmc, &mut found).await.is_err());
    assert_eq!(found, [entry(1, 1), entry(2, 1)]);
    let log = read(&bmc).await.unwrap();
    assert_eq!(log.entries, found);
    assert!(log.cut_short.is_some());
}

#[tokio::test]
async fn a_count_of_zero_is_checked_and_a_cut_entry_hides_no_other() {
    let answer = |first: &[u8]| {
        let first = first.to_vec();
        Fake::new(move |request: &Request| match (request.code, request.data.get(2)) {
            (0x40, _) => ok(&[0x51, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            (0x43, Some(2)) => ok(&[&[0xff, 0xff], entry(2, 1).raw.as_slice()].concat()),
            _ => ok(&first),
        })
    };
    let whole = [&[2, 0], entry(1, 1).raw.as_slice()].concat();
    let log = read(&answer(&whole)).await.unwrap();
    assert_eq!((log.entries, log.cut_short), (vec![entry(1, 1), entry(2, 1)], None));
    // Zeros or ones instead of a refusal.
    for nothing in [[0; 18], [0xff; 18]] {
        assert_eq!(
            read(&answer(&nothing)).await.unwrap(),
            super::Log { entries: Vec::new(), cut_short: None }
        );
    }
    let cut = Fake::new(|request| match (request.code, request.data.get(2)) {
        (0x40, _) => ok(&[0x51, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (0x43, Some(2)) => ok(&[&[0xff, 0xff], entry(2, 1).raw.as_slice()].concat()),
        _ => ok(&[&[2, 0], &entry(1, 1).raw[..9]].concat()),
    });
    let log = read(&cut).await.unwrap();
    assert_eq!(log.entries, [entry(2, 1)]);
    assert!(log.cut_short.is_some());
}

#[tokio::test]
async fn events_in_words() {
    let repository = Repository::of_ipmi_sim();
    let cache = SdrCache::read(&Fake::new(|request| repository.answer(request)), "bmc").await.unwrap();
    let with: Vec<_> =
        entries().iter().map(|entry| Text { entry, cache: Some(&cache) }.to_string()).collect();
    assert_eq!(
        with,
        [
            "Inlet Temp (Temperature): Upper non-critical going high, asserted; reading 95, threshold 80 degrees C",
            "Inlet Temp (Temperature): Upper critical going high, asserted; reading 95, threshold 90 degrees C",
            "Inlet Temp (Temperature): Upper non-critical going high, deasserted; reading 50, threshold 80 degrees C",
            "Inlet Temp (Temperature): Upper critical going high, deasserted; reading 50, threshold 90 degrees C",
            "Intrusion (Physical Security): General chassis intrusion, deasserted",
            "CPU1 Status (Processor): Thermal trip, asserted",
            "12V Rail (Temperature): Lower non-critical going low, asserted; reading 0.315, threshold 1.26 Volts",
            "software 21h #50h (System Firmware Progress): Firmware progress, asserted; memory initialization",
            "OEM record c1h of manufacturer 343: 010203040506",
            "OEM record e5h: 0102030405060708090a0b0c0d",
            "#40h (Memory): Uncorrectable ECC, asserted; data 0x03",
        ]
    );
    let mut memory = entries()[10];
    memory.raw[13] = 0x71;
    memory.raw[14] = 0x00;
    assert_eq!(
        Text { entry: &memory, cache: None }.to_string(),
        "#40h (Memory): Uncorrectable ECC, asserted; before: Correctable ECC, module 3"
    );
    let without = Text { entry: &entries()[0], cache: None }.to_string();
    assert_eq!(
        without,
        "#01h (Temperature): Upper non-critical going high, asserted; raw reading 0x5f, raw threshold 0x50"
    );
}

#[test]
fn entries_say_what_they_are() {
    let all = entries();
    let Content::Event { event, .. } = all[1].content() else { panic!() };
    assert_eq!(event.crossed(), Some((super::super::sensor::Threshold::UpperCritical, true)));
    assert_eq!(event.byte_use(), (ByteUse::Trigger, ByteUse::Trigger));
    let Content::OemTimed { manufacturer: 343, data: [1, 2, 3, 4, 5, 6], .. } = all[8].content() else {
        panic!()
    };
    let mut reserved = all[0];
    reserved.raw[2] = 0x03;
    assert!(matches!(reserved.content(), Content::Other { .. }));
}

#[test]
fn requests_are_those_of_the_specification() {
    assert_eq!(GetSelEntry { id: 0x1234 }.request().data, [0, 0, 0x34, 0x12, 0, 0xff]);
    let clear = ClearSel { reservation: 0x0201, begin: true };
    assert_eq!(clear.request().data, [1, 2, b'C', b'L', b'R', 0xaa]);
    assert_eq!((clear.parse(&[0xf1]), clear.parse(&[0])), (Ok(true), Ok(false)));
    // As ipmi_sim answers.
    let info = GetSelInfo.parse(&[0x51, 11, 0, 0xd0, 0x0b, 0xb5, 0x60, 0, 0, 0, 0, 0, 0, 0x0a]).unwrap();
    assert_eq!((info.entries, info.free, info.can_delete, info.can_reserve), (11, 3024, true, true));
    let allocation = GetSelAllocationInfo.parse(&[200, 0, 16, 0, 189, 0, 189, 0, 1]).unwrap();
    assert_eq!((allocation.units, allocation.unit_size, allocation.largest_record), (200, 16, 1));
}
