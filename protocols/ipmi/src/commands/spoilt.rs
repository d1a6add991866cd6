//! Everything that is read of a BMC, where some of its recorded answers are not what they should be: nothing panics or
//! goes on for ever, what can be read is read, and what cannot is named.

use std::collections::BTreeMap;
use std::sync::Mutex;

use proptest::{collection::vec, prelude::*, sample::select, test_runner::TestRunner};

use super::fake::{Answer, FRU, READINGS, Repository, SEL, THRESHOLDS, by_number, lines, ok, refuse};
use super::sdr::SdrCache;
use super::sel::Entry;
use super::sensor::{Value, sweep};
use super::{channel, chassis, device, fru, lan, sel, user};
use crate::{Carrier, CompletionCode, Error, NetFn, Request};

/// Answers to everything as they should be, most of them recorded of an `ipmi_sim`.
struct Healthy {
    sdrs: Repository,
    readings: BTreeMap<u8, Vec<u8>>,
    thresholds: BTreeMap<u8, Vec<u8>>,
    log: Vec<Vec<u8>>,
    fru: Vec<u8>,
}

const USERS: [(&[u8], u8); 4] = [(b"", 0x0f), (b"admin", 0x34), (b"operator", 0x33), (b"", 0x0f)];

impl Healthy {
    fn new() -> Self {
        Self {
            sdrs: Repository::of_ipmi_sim(),
            readings: by_number(READINGS),
            thresholds: by_number(THRESHOLDS),
            log: lines(SEL),
            fru: lines(FRU).remove(0),
        }
    }

    fn answer(&self, request: &Request) -> Answer {
        let absent = || refuse(CompletionCode::NOT_PRESENT);
        let known = |found: Option<&Vec<u8>>| found.map_or_else(absent, |data| ok(data));
        match (request.net_fn, request.code, request.data.as_slice()) {
            (NetFn::SENSOR, 0x2d, [number]) => known(self.readings.get(number)),
            (NetFn::SENSOR, 0x27, [number]) => known(self.thresholds.get(number)),
            (NetFn::STORAGE, 0x40, _) => {
                ok(&[&[0x51, u8::try_from(self.log.len()).unwrap(), 0], [0; 11].as_slice()].concat())
            }
            (NetFn::STORAGE, 0x43, [_, _, low, high, _, _]) => {
                let place = match [*low, *high] {
                    [0, 0] => Some(0),
                    id => self.log.iter().position(|entry| entry[..2] == id),
                };
                let Some(place) = place else { return absent() };
                let next = self.log.get(place + 1).map_or([0xff, 0xff], |next| [next[0], next[1]]);
                ok(&[&next, self.log[place].as_slice()].concat())
            }
            (NetFn::STORAGE, 0x10, _) => {
                let [low, high] = u16::try_from(self.fru.len()).unwrap().to_le_bytes();
                ok(&[low, high, 0])
            }
            (NetFn::STORAGE, 0x11, [_, low, high, count]) => {
                let start = usize::from(u16::from_le_bytes([*low, *high]));
                let end = self.fru.len().min(start + usize::from(*count));
                let Some(part) = self.fru.get(start..end) else {
                    return refuse(CompletionCode::OUT_OF_RANGE);
                };
                ok(&[&[u8::try_from(part.len()).unwrap()], part].concat())
            }
            (NetFn::STORAGE, _, _) => self.sdrs.answer(request),
            (NetFn::APP, 0x44, [_, id]) => match USERS.get(usize::from(id - 1)) {
                Some((_, access)) => ok(&[4, 0x42, 1, *access]),
                None => refuse(CompletionCode::INVALID_FIELD),
            },
            (NetFn::APP, 0x46, [id]) => {
                let Some((name, _)) = USERS.get(usize::from(id - 1)) else {
                    return refuse(CompletionCode::INVALID_FIELD);
                };
                let mut name = name.to_vec();
                name.resize(16, 0);
                ok(&name)
            }
            (NetFn::APP, 0x42, [1 | 14]) => ok(&[1, 4, 1, 0x80, 0xf2, 0x1b, 0, 0, 0]),
            (NetFn::APP, 0x41, _) => ok(&[0x3a, 4]),
            (NetFn::APP, 0x01, _) => ok(&[0x20, 1, 2, 0x15, 2, 0xbf, 0xa2, 2, 0, 0, 1, 0, 0, 0, 0]),
            (NetFn::APP, 0x37, _) => ok(&[7; 16]),
            (NetFn::APP, 0x04, _) => ok(&[0x55, 0]),
            (NetFn::CHASSIS, 0x01, _) => ok(&[1, 0, 0, 0]),
            (NetFn::CHASSIS, 0x09, _) => ok(&[1, 5, 0x80, 4, 0, 0, 0]),
            (NetFn::TRANSPORT, 0x02, [_, parameter, ..]) => match parameter {
                3 => ok(&[0x11, 192, 0, 2, 7]),
                23 => ok(&[0x11, 0, 3, 17]),
                _ => refuse(CompletionCode(0x80)),
            },
            _ => refuse(CompletionCode::INVALID_COMMAND),
        }
    }
}

/// What is done to an answer.
#[derive(Clone, Debug)]
enum Spoil {
    Truncate(usize),
    Refuse(u8),
    Extend(Vec<u8>),
    Flip(usize, u8),
    /// The answer before it comes again.
    Repeat,
    /// The record that comes next is the first one.
    Loop,
}

impl Spoil {
    /// The answer still says what it said, or visibly does not: no other content takes its place.
    fn is_honest(&self) -> bool {
        matches!(self, Self::Truncate(_) | Self::Refuse(_) | Self::Loop)
    }

    fn apply(&self, request: &Request, answer: Answer, before: &Answer) -> Answer {
        let Ok((code, mut data)) = answer else { return answer };
        match self {
            Self::Truncate(to) => data.truncate(*to),
            Self::Refuse(code) => return refuse(CompletionCode(*code)),
            Self::Extend(more) => data.extend(more),
            Self::Flip(at, bits) => {
                let length = data.len().max(1);
                data.iter_mut().skip(at % length).take(1).for_each(|byte| *byte ^= bits);
            }
            Self::Repeat => return before.clone(),
            // Get SDR and Get SEL Entry begin with it.
            Self::Loop
                if (request.net_fn, request.code) != (NetFn::STORAGE, 0x23)
                    && (request.net_fn, request.code) != (NetFn::STORAGE, 0x43) => {}
            Self::Loop => data.iter_mut().zip([1, 0]).for_each(|(byte, id)| *byte = id),
        }
        Ok((code, data))
    }
}

/// Which answers are spoilt.
#[derive(Clone, Debug)]
enum Which {
    Nth(usize),
    From(usize),
    /// Every one to this command.
    Command(NetFn, u8),
}

/// More requests than this for one BMC go on for ever. The healthy one is asked about 300.
const MOST_REQUESTS: usize = 5_000;

struct Spoilt<'a> {
    bmc: &'a Healthy,
    which: &'a Which,
    spoil: &'a Spoil,
    state: Mutex<(usize, Answer)>,
}

impl Carrier for Spoilt<'_> {
    async fn carry(&self, request: Request) -> Answer {
        let mut state = self.state.lock().unwrap();
        let (count, before) = &mut *state;
        assert!(*count < MOST_REQUESTS, "it goes on for ever: {request:?}");
        let is_meant = match *self.which {
            Which::Nth(nth) => *count == nth,
            Which::From(from) => *count >= from,
            Which::Command(net_fn, code) => (request.net_fn, request.code) == (net_fn, code),
        };
        let answer = self.bmc.answer(&request);
        let answer = if is_meant { self.spoil.apply(&request, answer, before) } else { answer };
        *count += 1;
        before.clone_from(&answer);
        answer
    }
}

/// More sensors than there are: as many may be missing where records are.
const ALL: usize = 1_000;

/// What was read; each part has how often something was said to be missing.
#[derive(Default, Debug)]
struct Seen {
    sensors: BTreeMap<(u8, u8), Option<f64>>,
    sensors_named: usize,
    entries: Vec<Entry>,
    entries_named: usize,
    fru: fru::Inventory,
    fru_named: usize,
    users: Vec<(u8, String)>,
    users_named: usize,
    requests: usize,
}

impl Seen {
    async fn of(bmc: &Spoilt<'_>) -> Self {
        let mut seen = Self::default();
        seen.read_sensors(bmc).await;
        match sel::read(bmc).await {
            Ok(log) => {
                seen.entries_named = usize::from(log.cut_short.is_some());
                seen.entries = log.entries;
            }
            Err(error) => seen.entries_named = named(&error),
        }
        match fru::read(bmc, 0).await {
            Ok(inventory) => {
                seen.fru_named = inventory.problems.len();
                seen.fru = inventory;
            }
            Err(error) => seen.fru_named = named(&error),
        }
        match user::list(bmc, 14).await {
            Ok(found) => {
                seen.users_named = found.untold.len();
                seen.users = found.users.into_iter().map(|user| (user.id, user.name)).collect();
            }
            Err(error) => seen.users_named = named(&error),
        }
        // Single answers: an error or a value.
        let _ = (channel::list(bmc).await, lan::read(bmc, 14).await);
        let _ = (bmc.run(&device::GetDeviceId).await, bmc.run(&device::GetSystemGuid).await);
        let _ = (bmc.run(&device::GetSelfTest).await, bmc.run(&chassis::GetChassisStatus).await);
        let _ = bmc.run(&chassis::GetBootFlags).await;
        seen.requests = bmc.state.lock().unwrap().0;
        seen
    }

    async fn read_sensors(&mut self, bmc: &Spoilt<'_>) {
        let mut cache = match SdrCache::read(bmc, "bmc").await {
            Ok(cache) => cache,
            Err(error) => {
                self.sensors_named = ALL * named(&error);
                return;
            }
        };
        // A record that is left out may have stood for several sensors.
        let left_out = usize::from(cache.cut_short().is_some()) + cache.bad_records().count();
        self.sensors_named = ALL * left_out;
        if let Err(error) = cache.load_thresholds(bmc).await {
            self.sensors_named += named(&error);
        }
        for reading in sweep(bmc, &cache).await {
            let value = match reading.value {
                Ok(Value::Number { value, .. }) => Some(value),
                Ok(Value::States { .. }) => None,
                Ok(Value::Unavailable(_)) | Err(_) => {
                    self.sensors_named += 1;
                    None
                }
            };
            self.sensors.insert((reading.sensor.lun, reading.sensor.number), value);
        }
    }
}

/// Everything here is about answers: nothing else can go wrong.
fn named(error: &Error) -> usize {
    assert!(error.is_about_one_answer(), "{error}");
    1
}

fn survey(bmc: &Healthy, which: &Which, spoil: &Spoil) -> Seen {
    let bmc = Spoilt { bmc, which, spoil, state: Mutex::new((0, ok(&[]))) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(Seen::of(&bmc))
}

/// What the healthy BMC shows is there, or more is said to be missing than of the healthy one.
fn holds(healthy: &Seen, seen: &Seen) -> Result<(), TestCaseError> {
    let sensors = healthy.sensors.iter().all(|(key, value)| seen.sensors.get(key) == Some(value));
    prop_assert!(sensors || seen.sensors_named > healthy.sensors_named, "sensors: {:?}", seen.sensors);
    let entries = healthy.entries == seen.entries;
    prop_assert!(entries || seen.entries_named > 0, "entries: {:?}", seen.entries);
    prop_assert!(healthy.fru == seen.fru || seen.fru_named > 0, "FRU: {:?}", seen.fru);
    // A slot whose name is refused or cut is shown without it: that is what free ones look like.
    let users = healthy.users.len() == seen.users.len()
        && healthy.users.iter().zip(&seen.users).all(|(a, b)| a.0 == b.0 && a.1.starts_with(&b.1));
    prop_assert!(users || seen.users_named > 0, "users: {:?}", seen.users);
    Ok(())
}

fn spoilt_answers_are_survived(cases: u32) {
    let bmc = Healthy::new();
    let healthy = survey(&bmc, &Which::Nth(usize::MAX), &Spoil::Repeat);
    assert!(healthy.sensors.len() > 40 && healthy.entries.len() > 10 && healthy.users.len() == 4);
    assert_eq!((healthy.entries_named, healthy.fru_named, healthy.users_named), (0, 0, 0));
    let commands = [
        (NetFn::SENSOR, 0x2d),
        (NetFn::SENSOR, 0x27),
        (NetFn::STORAGE, 0x10),
        (NetFn::STORAGE, 0x11),
        (NetFn::STORAGE, 0x20),
        (NetFn::STORAGE, 0x22),
        (NetFn::STORAGE, 0x23),
        (NetFn::STORAGE, 0x40),
        (NetFn::STORAGE, 0x43),
        (NetFn::APP, 0x01),
        (NetFn::APP, 0x42),
        (NetFn::APP, 0x44),
        (NetFn::APP, 0x46),
        (NetFn::CHASSIS, 0x01),
        (NetFn::CHASSIS, 0x09),
        (NetFn::TRANSPORT, 0x02),
    ];
    let which = prop_oneof![
        4 => (0..healthy.requests).prop_map(Which::Nth),
        1 => (0..healthy.requests).prop_map(Which::From),
        2 => select(commands.to_vec()).prop_map(|(net_fn, code)| Which::Command(net_fn, code)),
    ];
    let spoil = prop_oneof![
        4 => (0..20_usize).prop_map(Spoil::Truncate),
        2 => (1..=u8::MAX).prop_map(Spoil::Refuse),
        1 => vec(any::<u8>(), 1..40).prop_map(Spoil::Extend),
        3 => (any::<usize>(), 1..=u8::MAX).prop_map(|(at, bits)| Spoil::Flip(at, bits)),
        1 => Just(Spoil::Repeat),
        2 => Just(Spoil::Loop),
    ];
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let outcome = TestRunner::new(config).run(&(which, spoil), |(which, spoil)| {
        let seen = survey(&bmc, &which, &spoil);
        if spoil.is_honest() { holds(&healthy, &seen) } else { Ok(()) }
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

#[test]
fn spoilt_answers_panic_nothing_end_and_hide_nothing() {
    spoilt_answers_are_survived(1_500);
}

#[test]
#[ignore = "a minute; part of --full"]
fn spoilt_answers_in_full() {
    spoilt_answers_are_survived(20_000);
}
