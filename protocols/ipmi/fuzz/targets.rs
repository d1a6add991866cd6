//! What is fuzzed: every function that reads bytes of a BMC, and the exchanges that a BMC can lead astray.
//!
//! A target must not panic, must end, and must keep its output in proportion to its input; it asserts the last itself.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rackhand_ipmi::commands::sdr::{Record, SdrCache};
use rackhand_ipmi::commands::sel::{Content, Entry, Follower, Text};
use rackhand_ipmi::commands::sensor::{
    AnalogFormat, GetHysteresis, GetReadingFactors, GetSensorReading, GetThresholds, Sensor, States, sweep,
};
use rackhand_ipmi::commands::{channel, chassis, device, fru, lan, sdr, sel, user};
use rackhand_ipmi::session::{Config, Discovery, Key, Lookup, Privilege, Session, SuitePolicy, Timing};
use rackhand_ipmi::sol::{self, Machine, Packet, Settings};
use rackhand_ipmi::wire::packet::{Header, PayloadKind};
use rackhand_ipmi::wire::suite::Suite;
use rackhand_ipmi::wire::{crypto, handshake, message, packet, rmcp};
use rackhand_ipmi::{Carrier, Command, CompletionCode, Error, Request};

pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
}

pub const TARGETS: &[Target] = &[
    Target { name: "sdr_record", run: sdr_record },
    Target { name: "sdr_cache", run: sdr_cache },
    Target { name: "sdr_exchange", run: sdr_exchange },
    Target { name: "sel_entry", run: sel_entry },
    Target { name: "sel_exchange", run: sel_exchange },
    Target { name: "fru_inventory", run: fru_inventory },
    Target { name: "fru_exchange", run: fru_exchange },
    Target { name: "settings_exchange", run: settings_exchange },
    Target { name: "answers", run: answers },
    Target { name: "wire", run: wire },
    Target { name: "sealed", run: sealed },
    Target { name: "session", run: session },
    Target { name: "sol", run: sol },
];

/// Most bytes of text that any id string or field can become: four characters for three bytes, three bytes each.
const TEXT_PER_BYTE: usize = 4;

fn sdr_record(data: &[u8]) {
    let Ok(record) = Record::parse(data) else { return };
    assert!(record.raw.len() <= data.len() && record.raw.len() <= sdr::record::MAX_LEN);
    assert!(record.sensors().len() <= 15);
    for sensor in record.sensors() {
        look_at(sensor, data);
    }
    // What is stored is read again as the same.
    let again = Record::parse(&record.raw).expect("a kept record is one");
    assert_eq!(again.raw, record.raw);
}

fn look_at(sensor: &Sensor, data: &[u8]) {
    assert!(sensor.name.len() <= TEXT_PER_BYTE * data.len() + 3);
    let _ = (sensor.entity.to_string(), sensor.units.to_string(), sensor.sensor_type.name());
    let states = States { bits: 0x7fff, sensor_type: sensor.sensor_type, event_type: sensor.event_type };
    assert!(states.to_string().len() < 2048);
    if let Some(factors) = &sensor.factors {
        for raw in 0..=u8::MAX {
            assert!(factors.convert(raw).is_none_or(f64::is_finite));
            assert!(factors.convert_width(raw).is_none_or(f64::is_finite));
        }
    }
}

fn sdr_cache(data: &[u8]) {
    let Ok(cache) = SdrCache::from_bytes(data) else { return };
    let stored = cache.to_bytes();
    assert!(stored.len() <= data.len());
    let again = SdrCache::from_bytes(&stored).expect("what was written can be read");
    assert_eq!(again.to_bytes(), stored);
}

fn sel_entry(data: &[u8]) {
    let cache = data.get(16..).and_then(|rest| SdrCache::from_bytes(rest).ok());
    let Some(Ok(raw)) = data.get(..16).map(<[u8; 16]>::try_from) else { return };
    let entry = Entry { raw };
    if let Content::Event { time, event } = entry.content() {
        let _ = (time.to_string(), event.crossed(), event.byte_use());
    }
    let most = 512 + TEXT_PER_BYTE * data.len();
    assert!(Text { entry: &entry, cache: cache.as_ref() }.to_string().len() < most);
}

fn fru_inventory(data: &[u8]) {
    let inventory = fru::Inventory::parse(data);
    assert!(inventory.records.len() <= data.len() / 5);
    assert!(inventory.problems.len() <= 16 + inventory.records.len());
    let custom = inventory.product.iter().map(|product| product.custom.len()).sum::<usize>();
    assert!(custom <= data.len());
}

/// A BMC whose answers are cut from the input: a length, a completion code, data. It is gone when that ends.
struct Liar<'a> {
    rest: Mutex<&'a [u8]>,
    answers: AtomicUsize,
}

impl Liar<'_> {
    fn new(data: &[u8]) -> Liar<'_> {
        Liar { rest: Mutex::new(data), answers: AtomicUsize::new(0) }
    }
}

impl Carrier for Liar<'_> {
    async fn carry(&self, _request: Request) -> Result<(CompletionCode, Vec<u8>), Error> {
        let mut rest = self.rest.lock().expect("never held over a panic");
        let Some((&[length, code], tail)) = rest.split_first_chunk::<2>() else { return Err(Error::Closed) };
        let (data, tail) = tail.split_at_checked(usize::from(length)).unwrap_or((tail, &[]));
        *rest = tail;
        self.answers.fetch_add(1, Ordering::Relaxed);
        Ok((CompletionCode(code), data.to_vec()))
    }
}

/// Runs an exchange to its end on a clock that jumps over every pause.
fn exchange<F: Future>(future: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().expect("a runtime").block_on(future)
}

fn sdr_exchange(data: &[u8]) {
    exchange(async {
        let bmc = Liar::new(data);
        if let Ok(mut cache) = SdrCache::read(&bmc, "bmc").await {
            assert!(cache.records().len() <= bmc.answers.load(Ordering::Relaxed));
            let _ = cache.load_thresholds(&bmc).await;
            assert_eq!(sweep(&bmc, &cache).await.len(), cache.sensors().len());
        }
    });
}

fn sel_exchange(data: &[u8]) {
    exchange(async {
        let bmc = Liar::new(data);
        let mut follower = Follower::default();
        let mut found = Vec::new();
        for _ in 0..3 {
            let _ = follower.poll(&bmc, &mut found).await;
            let stored = follower.to_bytes();
            assert_eq!(
                Follower::from_bytes(&stored).expect("what was written can be read").to_bytes(),
                stored
            );
        }
        assert!(found.len() <= bmc.answers.load(Ordering::Relaxed));
        let _ = follower.drain_and_clear(&bmc, &mut found).await;
    });
    let _ = Follower::from_bytes(data);
}

fn fru_exchange(data: &[u8]) {
    let _ = exchange(async { fru::read(&Liar::new(data), 0).await });
}

fn settings_exchange(data: &[u8]) {
    exchange(async {
        let bmc = Liar::new(data);
        if let Ok(found) = user::list(&bmc, 1).await {
            assert!(found.users.len() + found.untold.len() <= 63);
        }
        if let Ok(channels) = channel::list(&bmc).await {
            assert!(channels.len() <= 13);
        }
        if let Ok(settings) = lan::read(&bmc, 1).await {
            assert!(settings.suites.len() <= 16);
        }
    });
}

fn answers(data: &[u8]) {
    fn parse(command: &impl Command, data: &[u8]) {
        let _ = command.request();
        let _ = command.parse(data);
    }
    let format = AnalogFormat::of(data.first().copied().unwrap_or(0)).unwrap_or(AnalogFormat::Unsigned);
    parse(&GetSensorReading { number: 1, lun: 0 }, data);
    parse(&GetThresholds { number: 1, lun: 0 }, data);
    parse(&GetHysteresis { number: 1, lun: 0 }, data);
    parse(&GetReadingFactors { number: 1, lun: 0, raw: 1, format }, data);
    parse(&sdr::commands::GetRepositoryInfo, data);
    parse(&sdr::commands::GetDeviceSdrInfo, data);
    parse(&sdr::commands::Reserve(sdr::commands::Store::Repository), data);
    parse(&sel::GetSelInfo, data);
    parse(&sel::GetSelAllocationInfo, data);
    parse(&sel::commands::GetSelEntry { id: 0 }, data);
    parse(&sel::commands::ReserveSel, data);
    parse(&sel::commands::ClearSel { reservation: 1, begin: true }, data);
    parse(&sel::commands::GetSelTime, data);
    parse(&fru::commands::GetFruAreaInfo { fru: 0 }, data);
    parse(&fru::commands::ReadFruData { fru: 0, offset: 0, count: 8, by_words: true }, data);
    parse(&channel::GetChannelInfo { channel: 1 }, data);
    parse(&channel::GetChannelAccess { channel: 1, stored: true }, data);
    parse(&lan::GetLanParameter { channel: 1, parameter: 3 }, data);
    parse(&user::GetUserAccess { channel: 1, id: 1 }, data);
    parse(&user::GetUserName { id: 1 }, data);
    parse(&device::GetDeviceId, data);
    parse(&device::GetSelfTest, data);
    parse(&device::GetSystemGuid, data);
    parse(&chassis::GetChassisStatus, data);
    parse(&chassis::GetBootFlags, data);
}

fn wire(data: &[u8]) {
    let _ = rmcp::decode(data);
    let _ = rmcp::Presence::decode(data);
    let _ = Header::peek(data);
    let _ = packet::Form::of(data);
    let _ = packet::open_sessionless(data).map(|payload| assert!(payload.len() <= data.len()));
    let mut open = data.to_vec();
    let _ = packet::open(&mut open, None).map(|(_, payload)| assert!(payload.len() <= data.len()));
    let _ = message::Message::decode(data);
    let _ = handshake::OpenResponse::decode(data);
    let _ = handshake::Rakp1::decode(data);
    let _ = handshake::Rakp2::decode(data);
    let _ = handshake::Rakp3::decode(data);
    let _ = handshake::Rakp4::decode(data);
}

/// Packets of a session: as they come, and payloads that were sealed with the right keys.
fn sealed(data: &[u8]) {
    let (random, guid) = ([7; 16], [9; 16]);
    for suite in [Suite::S1, Suite::S3, Suite::S17] {
        let exchange = crypto::Exchange {
            suite,
            console_session: 1,
            managed_session: 2,
            console_random: &random,
            managed_random: &random,
            guid: &guid,
            role: 0x14,
            user: b"admin",
        };
        let keys = crypto::Keys::new(&exchange.session_key(b"secret", None));
        let _ = packet::open(&mut data.to_vec(), Some(&keys));
        let header = Header {
            kind: PayloadKind::IPMI,
            encrypted: suite.encrypts(),
            authenticated: suite.authenticates(),
            session: 2,
            sequence: 1,
        };
        let mut out = Vec::new();
        if packet::seal(header, data, Some(&keys), &random, &mut out).is_ok() {
            assert!(out.len() <= data.len() + 96);
            let body = out.get_mut(rmcp::HEADER..).expect("a header comes first");
            match packet::open(body, Some(&keys)) {
                Ok((found, payload)) => assert_eq!((found, payload), (header, data)),
                Err(_) => panic!("a sealed packet cannot be opened"),
            }
        }
        let _ = keys.decrypt(&mut data.to_vec());
    }
}

/// A session and a discovery that get anything: datagrams as they are, or payloads in a well-formed wrapper.
fn session(data: &[u8]) {
    let timing = Timing { attempts: 2, ..Timing::default() };
    let config = Config {
        user: "admin".into(),
        password: Key::new(b"secret".to_vec().into()).expect("a short key"),
        privilege: Privilege::Administrator,
        lookup: Lookup::Name,
        suites: SuitePolicy::Standard,
        pin: None,
        bmc_key: None,
        timing,
    };
    let mut now = Instant::now();
    let mut session = Session::new(config, |bytes: &mut [u8]| bytes.fill(7)).expect("a good configuration");
    let mut discovery = Discovery::new(now);
    session.start(now);
    let mut rest = data;
    let mut steps = 0;
    while let Some((&[form, length], tail)) = rest.split_first_chunk::<2>() {
        let (bytes, tail) = tail.split_at_checked(usize::from(length)).unwrap_or((tail, &[]));
        rest = tail;
        steps += 1;
        let mut datagram = Vec::new();
        match form {
            0..=0x7f => {
                let header = Header::sessionless(PayloadKind(form & 0x3f));
                let _ = packet::seal(header, bytes, None, &[0; 16], &mut datagram);
            }
            0x80..=0xbf => {
                let _ = packet::seal_sessionless(bytes, &mut datagram);
            }
            _ => datagram.extend(bytes),
        }
        discovery.receive(now, &mut datagram.clone());
        session.receive(now, &mut datagram);
        if form & 1 != 0 {
            now += Duration::from_millis(700);
            session.wake(now);
            discovery.wake(now);
        }
        let mut sent = 0;
        while session.transmit(&mut Vec::new()) {
            sent += 1;
            assert!(sent < 64, "one datagram is answered by many");
        }
        while session.event().is_some() {}
        while discovery.transmit().is_some() {}
    }
    assert!(steps <= data.len());
}

/// The console's side of a serial port, and a BMC that sends anything: a step, a length, a payload.
fn sol(data: &[u8]) {
    if let Ok(packet) = Packet::parse(data) {
        assert_eq!(Packet::parse(&packet.encode()), Ok(packet));
    }
    parse_sol_answers(data);
    let settings = Settings { receive_buffer: 1024, send_buffer: 256, ..Settings::default() };
    let mut machine = Machine::new(settings);
    let mut now = tokio::time::Instant::now();
    let (mut rest, mut arrived, mut read) = (data, 0, 0);
    while let Some((&[step, length], tail)) = rest.split_first_chunk::<2>() {
        let (payload, tail) = tail.split_at_checked(usize::from(length)).unwrap_or((tail, &[]));
        rest = tail;
        arrived += payload.len();
        match step % 4 {
            0 => drop(machine.write(payload)),
            1 => machine.send_break(),
            _ => {}
        }
        machine.handle(payload, now);
        let mut sent = 0;
        while let Some(packet) = machine.poll_transmit(now) {
            sent += 1;
            assert!(packet.len() < 300 && sent < 64, "one payload is answered by many");
        }
        if step & 0x10 != 0 {
            read += machine.read(&mut [0; 64], now);
        }
        if step & 0x20 != 0 {
            now = machine.deadline().unwrap_or(now).max(now);
        }
    }
    assert!(read <= arrived, "characters come from the BMC alone");
}

fn parse_sol_answers(data: &[u8]) {
    let _ = sol::ActivatePayload { instance: 1, encryption: true, authentication: true }.parse(data);
    let _ = sol::GetPayloadActivationStatus.parse(data);
    let _ = sol::GetPayloadInstanceInfo { instance: 1 }.parse(data);
    let _ = device::GetSessionInfo::Id(1).parse(data);
    let _ = sol::GetSolParameter { channel: 14, parameter: 1 }.parse(data);
}
