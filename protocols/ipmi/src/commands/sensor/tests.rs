use super::super::fake::{Fake, READINGS, Repository, THRESHOLDS, by_number, ok, refuse};
use super::super::sdr::SdrCache;
use super::*;
use crate::{CompletionCode, Error, Malformed, NetFn, Request};

/// What `ipmitool sensor` printed for the same BMC: name, value, unit, status and six thresholds in its order.
const IPMITOOL: &str = include_str!("../../../tests/data/ipmi_sim/ipmitool-sensor.txt");

fn answer(repository: &Repository, request: &Request) -> super::super::fake::Answer {
    match (request.net_fn, request.code) {
        (NetFn::SENSOR, 0x2d) => ok(&by_number(READINGS)[&request.data[0]]),
        (NetFn::SENSOR, 0x27) => ok(&by_number(THRESHOLDS)[&request.data[0]]),
        _ => repository.answer(request),
    }
}

/// As ipmitool prints a number.
fn printed(value: f64) -> String {
    format!("{value:.3}")
}

#[tokio::test]
async fn numbers_and_thresholds_are_those_of_ipmitool() {
    let repository = Repository::of_ipmi_sim();
    let bmc = Fake::new(|request| answer(&repository, request));
    let mut cache = SdrCache::read(&bmc, "bmc").await.unwrap();
    cache.load_thresholds(&bmc).await.unwrap();
    let readings = sweep(&bmc, &cache).await;
    let mut compared = 0;
    for line in IPMITOOL.lines() {
        let fields: Vec<_> = line.split('|').map(str::trim).collect();
        let Some(reading) = readings.iter().find(|reading| reading.sensor.name == fields[0]) else {
            continue;
        };
        let Ok(Value::Number { value, status, .. }) = reading.value else { continue };
        compared += 1;
        assert_eq!(printed(value), fields[1], "{line}");
        // ipmitool leaves rates out.
        let units = Units { rate: units::Rate::None, ..reading.sensor.units };
        assert_eq!(units.to_string(), fields[2], "{line}");
        let severity = match status.severity() {
            Severity::Ok => "ok",
            Severity::NonCritical => "nc",
            Severity::Critical => "cr",
            Severity::NonRecoverable => "nr",
        };
        assert_eq!(severity, fields[3], "{line}");
        let thresholds = &reading.sensor.thresholds;
        let order = [
            thresholds.lower_non_recoverable,
            thresholds.lower_critical,
            thresholds.lower_non_critical,
            thresholds.upper_non_critical,
            thresholds.upper_critical,
            thresholds.upper_non_recoverable,
        ];
        for (found, expected) in order.iter().zip(&fields[4..]) {
            assert_eq!(found.map_or("na".to_owned(), printed), *expected, "{line}");
        }
    }
    assert!(compared >= 25, "only {compared} sensors were compared");
}

#[tokio::test]
async fn states_are_named() {
    let repository = Repository::of_ipmi_sim();
    let bmc = Fake::new(|request| answer(&repository, request));
    let cache = SdrCache::read(&bmc, "bmc").await.unwrap();
    let readings = sweep(&bmc, &cache).await;
    let states = |name: &str| match readings.iter().find(|reading| reading.sensor.name == name).unwrap().value
    {
        Ok(Value::States { states, .. }) => states.to_string(),
        ref value => panic!("{value:?}"),
    };
    assert_eq!(states("PSU1 Status"), "Presence detected, Failure detected, Input lost (AC/DC)");
    assert_eq!(states("CPU1 Status"), "Thermal trip, Presence detected");
    assert_eq!(states("PS Redundancy"), "Fully redundant");
    assert_eq!(states("Drive 1"), "Drive present");
    assert_eq!(states("Bay B"), "Device present");
    assert_eq!(states("ACPI"), "S0/G0: working");
    assert_eq!(states("OEM disc"), "state 0, state 2");
    assert_eq!(states("Watchdog"), "");
    let post = readings.iter().find(|reading| reading.sensor.name == "POST").unwrap();
    assert_eq!(post.value.as_ref().unwrap(), &Value::Unavailable(Unavailable::EventOnly));
}

#[tokio::test]
async fn a_sweep_is_one_command_for_each_sensor() {
    let repository = Repository::of_ipmi_sim();
    let bmc = Fake::new(|request| answer(&repository, request));
    let cache = SdrCache::read(&bmc, "bmc").await.unwrap();
    let before = bmc.count();
    let readings = sweep(&bmc, &cache).await;
    assert_eq!(bmc.count() - before, readings.len() - 1, "the event-only sensor is not asked");
}

#[tokio::test]
async fn no_reading_is_not_zero() {
    let repository = Repository::of_ipmi_sim();
    let bmc = Fake::new(|request| match (request.code, request.data.first()) {
        (0x2d, Some(1)) => ok(&[0, 0xe0, 0, 0]),
        (0x2d, Some(2)) => ok(&[0, 0x80, 0, 0]),
        (0x2d, Some(3)) => refuse(CompletionCode::NOT_PRESENT),
        (0x2d, Some(4)) => refuse(CompletionCode(0xd5)),
        (0x2d, Some(5)) => ok(&[0]),
        // Only the two required bytes.
        (0x2d, Some(6)) => ok(&[100, 0x40]),
        _ => answer(&repository, request),
    });
    let cache = SdrCache::read(&bmc, "bmc").await.unwrap();
    let readings = sweep(&bmc, &cache).await;
    let unavailable = |index: usize| match readings[index].value {
        Ok(Value::Unavailable(why)) => why,
        ref value => panic!("{value:?}"),
    };
    assert_eq!(unavailable(0), Unavailable::NoReading);
    assert_eq!(unavailable(1), Unavailable::ScanningDisabled);
    assert_eq!(unavailable(2), Unavailable::NotPresent);
    assert!(matches!(readings[3].value, Err(Error::Refused { completion: CompletionCode(0xd5), .. })));
    assert!(matches!(readings[4].value, Err(Error::Malformed(_))));
    assert!(matches!(
        readings[5].value,
        Ok(Value::Number { value: 7500.0, status: Status { passed: 0 }, .. })
    ));
    assert!(readings[6..].iter().all(|reading| reading.value.is_ok()));
}

#[tokio::test]
async fn a_lost_session_is_the_error_of_all_that_follow() {
    let repository = Repository::of_ipmi_sim();
    let bmc = Fake::new(|request| match (request.code, request.data.first()) {
        (0x2d, Some(3)) => Err(Error::Closed),
        _ => answer(&repository, request),
    });
    let cache = SdrCache::read(&bmc, "bmc").await.unwrap();
    let before = bmc.count();
    let readings = sweep(&bmc, &cache).await;
    assert_eq!(bmc.count() - before, 3);
    assert!(readings[..2].iter().all(|reading| reading.value.is_ok()));
    assert!(readings[2..].iter().all(|reading| reading.value == Err(Error::Closed)));
}

#[tokio::test]
async fn a_non_linear_sensor_asks_for_its_factors() {
    let mut record = super::super::fake::lines(super::super::fake::SDRS)[0].clone();
    record[23] = 0x70;
    let repository = Repository::new(vec![record]);
    let bmc = Fake::new(|request| match request.code {
        0x2d => ok(&[50, 0xc0, 0]),
        0x23 if request.net_fn == NetFn::SENSOR => {
            assert_eq!(request.data, [1, 50]);
            ok(&[51, 3, 0, 7, 0, 0, 0])
        }
        _ => repository.answer(request),
    });
    let cache = SdrCache::read(&bmc, "bmc").await.unwrap();
    assert_eq!(cache.sensors()[0].thresholds, Thresholds::default());
    let readings = sweep(&bmc, &cache).await;
    assert!(matches!(readings[0].value, Ok(Value::Number { value: 157.0, .. })));
}

#[test]
fn thresholds_of_the_record_are_those_it_says_are_readable() {
    let mut raw = super::super::fake::lines(super::super::fake::SDRS)[0].clone();
    let sensor = |raw: &[u8]| super::super::sdr::Record::parse(raw).unwrap().sensors()[0].clone();
    assert_eq!(sensor(&raw).thresholds.upper_critical, Some(90.0));
    assert_eq!(sensor(&raw).hysteresis, Some(Hysteresis { positive: 2, negative: 3 }));
    raw[18] = 0b01_0000;
    let only_upper_critical = Thresholds { upper_critical: Some(90.0), ..Thresholds::default() };
    assert_eq!(sensor(&raw).thresholds, only_upper_critical);
    raw[11] &= !0x3c;
    assert_eq!((sensor(&raw).thresholds, sensor(&raw).hysteresis), (Thresholds::default(), None));
}

#[test]
fn a_vendors_discrete_sensor_keeps_its_number() {
    let record = super::super::fake::lines(super::super::fake::SDRS)
        .iter()
        .map(|raw| super::super::sdr::Record::parse(raw).unwrap())
        .find(|record| record.sensors().first().is_some_and(|sensor| sensor.name == "HP fan"))
        .unwrap();
    let sensor = &record.sensors()[0];
    let raw = RawReading {
        raw: 100,
        events_enabled: true,
        scanning_enabled: true,
        unavailable: false,
        states: Some(1),
    };
    let Value::States { number, .. } = raw.value(sensor, sensor.factors.as_ref()) else { panic!() };
    assert_eq!(number.map(printed).as_deref(), Some("39.200"));
}

#[test]
fn a_short_answer_is_malformed() {
    let command = GetSensorReading { number: 1, lun: 0 };
    assert_eq!(
        crate::Command::parse(&command, &[1]),
        Err(Malformed { what: "sensor reading", why: "too short" })
    );
}

/// Section 35.14 lets the bytes after the flags be missing: then a number is compared here, and states are unknown.
#[tokio::test]
async fn an_answer_without_states_is_not_one_where_none_is_asserted() {
    let repository = Repository::of_ipmi_sim();
    let cut = Fake::new(|request| match (request.net_fn, request.code) {
        (NetFn::SENSOR, 0x2d) => ok(&by_number(READINGS)[&request.data[0]][..2]),
        _ => answer(&repository, request),
    });
    let whole = Fake::new(|request| answer(&repository, request));
    let mut cache = SdrCache::read(&whole, "bmc").await.unwrap();
    cache.load_thresholds(&whole).await.unwrap();
    let mut compared = [0, 0];
    for (cut, whole) in sweep(&cut, &cache).await.iter().zip(sweep(&whole, &cache).await) {
        match (&cut.value, &whole.value) {
            (Ok(Value::Number { status: cut, .. }), Ok(Value::Number { status: told, .. })) => {
                // ipmi_sim compares bytes, so that its word on signed readings is wrong, and does not compare the one
                // sensor that it never fed.
                let is_signed = |factors: &Factors| factors.format != AnalogFormat::Unsigned;
                if whole.sensor.factors.as_ref().is_some_and(is_signed) || whole.sensor.name == "Dead sensor"
                {
                    continue;
                }
                assert_eq!(cut.severity(), told.severity(), "{}", whole.sensor.name);
                compared[usize::from(told.severity() > Severity::Ok)] += 1;
            }
            (cut, Ok(Value::States { .. })) => {
                assert_eq!(cut, &Ok(Value::Unavailable(Unavailable::NoStates)), "{}", whole.sensor.name);
            }
            (cut, whole) => assert_eq!(cut, whole),
        }
    }
    assert!(compared.iter().all(|count| *count > 1), "{compared:?}");
}
