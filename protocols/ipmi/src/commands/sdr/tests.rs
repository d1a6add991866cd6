use super::super::fake::{Fake, OverLimit, Repository, SDRS, lines, ok, refuse};
use super::super::sensor::{Entity, SensorKind};
use super::*;
use crate::{CompletionCode, Error, NetFn};

async fn read(repository: &Repository) -> SdrCache {
    SdrCache::read(&Fake::new(|request| repository.answer(request)), "bmc").await.unwrap()
}

fn raw(cache: &SdrCache) -> Vec<Vec<u8>> {
    cache.records().iter().map(|record| record.raw.clone()).collect()
}

#[tokio::test]
async fn every_record_is_read_whatever_the_limit() {
    let cases = [
        (255, OverLimit::AnswerShort),
        (58, OverLimit::AnswerShort),
        (22, OverLimit::AnswerShort),
        (16, OverLimit::Refuse(CompletionCode::CANNOT_RETURN_LENGTH)),
        (10, OverLimit::Refuse(CompletionCode::LENGTH_INVALID)),
        (7, OverLimit::Refuse(CompletionCode::LENGTH_LIMIT_EXCEEDED)),
        (4, OverLimit::Refuse(CompletionCode::UNSPECIFIED)),
        (1, OverLimit::AnswerShort),
    ];
    for (limit, over_limit) in cases {
        let mut repository = Repository::of_ipmi_sim();
        repository.limit = limit;
        repository.over_limit = over_limit;
        let cache = read(&repository).await;
        assert_eq!(raw(&cache), lines(SDRS), "limit {limit}");
        assert!(cache.cut_short().is_none());
    }
}

#[tokio::test]
async fn a_whole_record_takes_one_request() {
    let repository = Repository::of_ipmi_sim();
    let bmc = Fake::new(|request| repository.answer(request));
    let cache = SdrCache::read(&bmc, "bmc").await.unwrap();
    // Info before and after, one reservation.
    assert_eq!(bmc.count(), cache.records().len() + 3);
}

#[tokio::test]
async fn a_lost_reservation_is_taken_again() {
    let mut repository = Repository::of_ipmi_sim();
    repository.limit = 16;
    repository.state.lock().unwrap().to_lose = 9;
    assert_eq!(raw(&read(&repository).await), lines(SDRS));
}

#[tokio::test]
async fn reservations_lost_for_ever_end_the_reading() {
    let mut repository = Repository::of_ipmi_sim();
    repository.limit = 16;
    repository.state.lock().unwrap().to_lose = u32::MAX;
    let cache = read(&repository).await;
    assert!(matches!(
        cache.cut_short(),
        Some(Error::Refused { completion: CompletionCode::RESERVATION_CANCELLED, .. })
    ));
}

#[tokio::test]
async fn ids_that_come_round_again_end_the_reading() {
    let records = lines(SDRS);
    let bmc = Fake::new(|request| match request.code {
        0x20 => ok(&[0x51, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        0x22 => ok(&[1, 0]),
        // 1 → 2 → 1
        _ if request.data[2] == 2 => ok(&[&[1, 0], records[1].as_slice()].concat()),
        _ => ok(&[&[2, 0], records[0].as_slice()].concat()),
    });
    let cache = SdrCache::read(&bmc, "bmc").await.unwrap();
    assert_eq!(cache.records().len(), 2);
    assert!(matches!(cache.cut_short(), Some(Error::Malformed(_))));
}

#[tokio::test]
async fn a_bad_record_hides_no_good_one() {
    let mut records = lines(SDRS);
    let count = records.len();
    // A body that is too short, and one whose header promises more than there is.
    records[3].truncate(20);
    records[3][4] = 15;
    records[5].truncate(30);
    let cache = read(&Repository::new(records)).await;
    assert!(cache.cut_short().is_none());
    assert_eq!(cache.records().len(), count);
    assert_eq!(cache.bad_records().count(), 2);
    assert_eq!(cache.sensors().len(), read(&Repository::of_ipmi_sim()).await.sensors().len() - 2);
}

#[tokio::test]
async fn a_busy_bmc_is_asked_again() {
    tokio::time::pause();
    let repository = Repository::of_ipmi_sim();
    let turn = std::sync::atomic::AtomicU32::new(0);
    let bmc = Fake::new(|request| match turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 3 {
        0 => refuse(CompletionCode::SDR_UPDATING),
        1 => refuse(CompletionCode::TIMEOUT),
        _ => repository.answer(request),
    });
    assert_eq!(raw(&SdrCache::read(&bmc, "bmc").await.unwrap()), lines(SDRS));
}

#[tokio::test]
async fn a_bmc_without_a_repository_is_read_by_its_devices() {
    let records = lines(SDRS);
    let bmc = Fake::new(|request| match (request.net_fn, request.code, request.lun) {
        (NetFn::SENSOR, 0x20, 0) => ok(&[2, 0x05]),
        (NetFn::SENSOR, 0x22, _) => ok(&[1, 0]),
        (NetFn::SENSOR, 0x21, 0) => ok(&[&[0xff, 0xff], records[0].as_slice()].concat()),
        (NetFn::SENSOR, 0x21, 2) => ok(&[&[0xff, 0xff], records[1].as_slice()].concat()),
        _ => refuse(CompletionCode::INVALID_COMMAND),
    });
    let cache = SdrCache::read(&bmc, "bmc").await.unwrap();
    assert_eq!(
        cache.sensors().iter().map(|sensor| sensor.name.as_str()).collect::<Vec<_>>(),
        ["Inlet Temp", "CPU Temp"]
    );
    assert_eq!(cache.stamp(), Stamp::Device { population: 0, luns: 5, records: 2 });
    assert!(cache.is_current(&bmc, "bmc").await.unwrap());
}

#[tokio::test]
async fn a_cache_is_current_until_the_repository_changes() {
    let repository = Repository::of_ipmi_sim();
    let bmc = Fake::new(|request| repository.answer(request));
    let cache = SdrCache::read(&bmc, "bmc").await.unwrap();
    let stored = SdrCache::from_bytes(&cache.to_bytes()).unwrap();
    assert_eq!(stored.records(), cache.records());
    assert_eq!(stored.identity(), "bmc");
    assert!(stored.is_current(&bmc, "bmc").await.unwrap());
    assert!(!stored.is_current(&bmc, "another").await.unwrap());
    repository.state.lock().unwrap().addition = 7;
    assert!(!stored.is_current(&bmc, "bmc").await.unwrap());
    for cut in 0..cache.to_bytes().len() {
        // A file that was cut is refused, or is one with fewer records.
        if let Ok(part) = SdrCache::from_bytes(&cache.to_bytes()[..cut]) {
            assert!(part.records().len() < cache.records().len());
        }
    }
}

#[tokio::test]
async fn a_bmc_that_refuses_both_stores_is_an_error() {
    let bmc = Fake::new(|request| match request.net_fn {
        NetFn::STORAGE => refuse(CompletionCode::PRIVILEGE),
        _ => refuse(CompletionCode::INVALID_COMMAND),
    });
    let refused = SdrCache::read(&bmc, "bmc").await.unwrap_err();
    assert!(matches!(refused, Error::Refused { completion: CompletionCode::PRIVILEGE, .. }));
}

#[tokio::test]
async fn a_session_lost_on_the_way_is_an_error() {
    let repository = Repository::of_ipmi_sim();
    let bmc = Fake::new(|request| match *request.data {
        [_, _, 20, ..] => Err(Error::Closed),
        _ => repository.answer(request),
    });
    assert_eq!(SdrCache::read(&bmc, "bmc").await.unwrap_err(), Error::Closed);
}

#[tokio::test]
async fn names_in_every_encoding() {
    let cache = read(&Repository::of_ipmi_sim()).await;
    let names: Vec<_> = cache.sensors().iter().map(|sensor| sensor.name.as_str()).collect();
    for name in [
        "SIX BIT NAME",
        "12-34.5 6",
        "Tmp\u{b0}\u{3a9}",
        "Latin \u{b5}\u{e9}",
        "Drive 1",
        "Drive 4",
        "Bay A",
        "Bay B",
    ] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    let fourth = cache.sensor(0x20, 0, 0x38).unwrap();
    assert_eq!((fourth.name.as_str(), fourth.entity), ("Drive 4", Entity { id: 4, instance: 4 }));
    let post = cache.sensor(0x20, 0, 0x50).unwrap();
    assert_eq!((post.name.as_str(), post.kind), ("POST", SensorKind::EventOnly));
}

#[test]
fn locators_and_others_are_told() {
    let records: Vec<_> = lines(SDRS).iter().map(|raw| Record::parse(raw).unwrap()).collect();
    let [association, fru, controller, oem, other] = &records[records.len() - 5..] else { panic!() };
    let Body::Association(association) = &association.body else { panic!("{association:?}") };
    assert_eq!(association.container, Entity { id: 7, instance: 1 });
    assert_eq!(association.contained, [Entity { id: 10, instance: 1 }, Entity { id: 10, instance: 2 }]);
    assert!(association.is_range && !association.is_linked);
    let Body::Fru(fru) = &fru.body else { panic!("{fru:?}") };
    assert_eq!((fru.name.as_str(), fru.device, fru.is_logical), ("Mainboard", 0, true));
    let Body::Controller(controller) = &controller.body else { panic!("{controller:?}") };
    assert_eq!((controller.name.as_str(), controller.address, controller.capabilities), ("BMC", 0x20, 0xbf));
    assert_eq!(oem.body, Body::Oem { manufacturer: 343, data: vec![1, 2, 3, 4] });
    assert_eq!((other.record_type, &other.body), (0x09, &Body::Other));
}

#[tokio::test]
async fn a_record_too_short_for_a_header_hides_no_other_and_an_empty_store_is_no_full_one() {
    let mut records = lines(SDRS);
    let whole = read(&Repository::of_ipmi_sim()).await.sensors().len();
    records[2].truncate(3);
    let cache = read(&Repository::new(records)).await;
    assert_eq!(cache.sensors().len(), whole - 1);
    assert!(cache.cut_short().is_some());
    let repository = Repository::of_ipmi_sim();
    let bmc = Fake::new(|request| match (request.net_fn, request.code) {
        (NetFn::STORAGE, 0x23) => refuse(CompletionCode::NOT_PRESENT),
        _ => repository.answer(request),
    });
    let cache = SdrCache::read(&bmc, "bmc").await.unwrap();
    assert!(cache.records().is_empty() && cache.cut_short().is_some());
}
