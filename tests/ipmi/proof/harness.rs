//! The peers by themselves: what the other tests compare with is what the reference clients see, and the
//! network is as bad as it is told to be.

use std::{io::Write as _, time::Duration};

use rackhand_ipmi_tests::{
    Bmc, ForeignBmc, Hardware, Relay,
    hardware::{ADMINISTRATOR, Kind, OPERATOR, READER},
    pyghmi::Mode,
    reference::{FreeIpmi, Ipmitool, near, same},
    relay::{Ways, Weather},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UdpSocket,
};

#[tokio::test]
async fn both_reference_clients_see_what_the_bmc_was_given() {
    let bmc = Bmc::start(Hardware::numbered(13)).await;
    let ipmitool = Ipmitool::new(bmc.address(), ADMINISTRATOR, &bmc.hardware.password);
    let freeipmi = FreeIpmi::new(bmc.address(), ADMINISTRATOR, &bmc.hardware.password);
    let (theirs, free) = (ipmitool.sensors(), freeipmi.sensors());
    assert_eq!(theirs.len(), bmc.hardware.sensors.len());
    assert_eq!(free.len(), bmc.hardware.sensors.len());
    for ((sensor, (number, one)), two) in bmc.hardware.sensors.iter().zip(&theirs).zip(&free) {
        assert_eq!(*number, sensor.number);
        let Kind::Analog(analog) = &sensor.kind else {
            assert_eq!((&one.value, &two.value), (&None, &None), "{}", sensor.name);
            continue;
        };
        let value = analog.value(analog.raw);
        assert!(same(value, one.value.as_deref().unwrap()), "{}: {value}, {one:?}", sensor.name);
        assert!(near(value, two.value.as_deref().unwrap()), "{}: {value}, {two:?}", sensor.name);
        for (at, threshold) in analog.thresholds.iter().enumerate() {
            let Some(raw) = threshold else {
                assert_eq!((&one.thresholds[at], &two.thresholds[at]), (&None, &None), "{}", sensor.name);
                continue;
            };
            let value = analog.value(*raw);
            assert!(same(value, one.thresholds[at].as_deref().unwrap()), "{}: {value}, {one:?}", sensor.name);
            assert!(near(value, two.thresholds[at].as_deref().unwrap()), "{}: {value}, {two:?}", sensor.name);
        }
        assert_eq!(one.state == "ok", analog.reached() == 0, "{}: {one:?}", sensor.name);
    }
    assert_eq!(ipmitool.sel().len(), bmc.hardware.events.len());
    assert_eq!(freeipmi.sel().len(), bmc.hardware.events.len());
    let serial = ("Product Serial".to_owned(), bmc.hardware.fru.product_serial.clone());
    assert!(ipmitool.fru().contains(&serial));
    let names: Vec<_> = ipmitool.users().into_iter().map(|(_, name, _)| name).collect();
    assert_eq!(names, [OPERATOR, ADMINISTRATOR, READER, "retired"]);
    assert!(freeipmi.setting("User3").contains(&("Username".to_owned(), ADMINISTRATOR.to_owned())));
    assert_eq!((ipmitool.is_on(), freeipmi.is_on()), (bmc.hardware.on, bmc.hardware.on));
    // Boot flags: valid bits that ipmi_sim never sets, then the device in bits 2 to 5 (CD-ROM).
    assert_eq!(bmc.hardware.boot, "cdrom");
    assert_eq!(ipmitool.raw(&[0x00, 0x09, 0x05, 0x00, 0x00]), [0x01, 0x05, 0x00, 0x14, 0x00, 0x00, 0x00]);
}

#[tokio::test]
async fn power_and_readings_change() {
    let with = rackhand_ipmi_tests::sim::With { live: Some(1), ..Default::default() };
    let bmc = Bmc::start_with(Hardware::numbered(1), with).await;
    let ipmitool = Ipmitool::new(bmc.address(), ADMINISTRATOR, &bmc.hardware.password);
    assert!(!ipmitool.is_on());
    ipmitool.says(&["chassis", "power", "on"]);
    assert!(ipmitool.is_on());
    assert_eq!(bmc.file("chassis.log"), "power 1");
    bmc.set_reading(1, 77);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(ipmitool.sensors()[0].1.value.as_deref(), Some("77"));
}

#[tokio::test]
async fn a_killed_bmc_is_silent_and_comes_back_at_its_address() {
    let mut bmc = Bmc::start(Hardware::numbered(2)).await;
    let ipmitool = Ipmitool::new(bmc.address(), ADMINISTRATOR, &bmc.hardware.password);
    bmc.kill();
    assert!(!ipmitool.succeeds(&["mc", "info"]));
    bmc.restart().await;
    assert!(ipmitool.succeeds(&["mc", "info"]), "{}", bmc.log());
}

#[tokio::test]
async fn ipmitool_speaks_suite_17_and_3_with_the_foreign_bmc() {
    let bmc = ForeignBmc::start(Mode::Honest).await;
    for suite in [17, 3] {
        let ipmitool = Ipmitool::new(bmc.address(), ForeignBmc::USER, ForeignBmc::PASSWORD).with_suite(suite);
        assert!(ipmitool.is_on(), "{}", bmc.log());
        let device = ipmitool.device();
        assert!(device.iter().any(|(name, value)| name == "IPMI Version" && value == "2.0"), "{device:?}");
    }
    assert!(bmc.proposals().contains(&17) && bmc.proposals().contains(&3));
    let wrong = Ipmitool::new(bmc.address(), ForeignBmc::USER, "not it").with_suite(17);
    assert!(!wrong.succeeds(&["chassis", "power", "status"]));
}

/// Each fault is one that a reference client sees as well.
#[tokio::test]
async fn the_foreign_bmc_fails_as_it_is_told() {
    for (mode, fails, works) in
        [(Mode::Refuse17, 17, Some(3)), (Mode::Downgrade, 17, Some(3)), (Mode::WrongRakp, 17, None)]
    {
        let bmc = ForeignBmc::start(mode).await;
        let with = |suite| {
            let ipmitool = Ipmitool::new(bmc.address(), ForeignBmc::USER, ForeignBmc::PASSWORD);
            ipmitool.with_suite(suite).succeeds(&["chassis", "power", "status"])
        };
        assert!(!with(fails), "{mode:?}");
        assert!(works.is_none_or(with), "{mode:?}: {}", bmc.log());
    }
}

/// The same seed gives the same fate; shares are about what was asked for; a cut lets nothing through.
#[tokio::test]
async fn the_relay_is_as_bad_as_it_is_told() {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let weather =
        Weather { dropped: 20, duplicated: 10, delayed: 30, delay: Duration::from_millis(20), apart: true };
    let relay = Relay::start(server.local_addr().unwrap(), 7, Ways::both(weather)).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut arrived = Vec::new();
    let mut buffer = [0; 16];
    for number in 0..1_000_u32 {
        client.send_to(&number.to_le_bytes(), relay.address()).await.unwrap();
        while let Ok(Ok(length)) =
            tokio::time::timeout(Duration::from_micros(200), server.recv(&mut buffer)).await
        {
            arrived.push(u32::from_le_bytes(buffer[..length].try_into().unwrap()));
        }
    }
    while let Ok(Ok(length)) =
        tokio::time::timeout(Duration::from_millis(100), server.recv(&mut buffer)).await
    {
        arrived.push(u32::from_le_bytes(buffer[..length].try_into().unwrap()));
    }
    let Ways { to_bmc: there, to_client: back } = relay.counts();
    assert_eq!((there.received, back.received), (1_000, 0));
    assert!((150..250).contains(&there.dropped) && (50..120).contains(&there.duplicated), "{there:?}");
    assert_eq!(arrived.len() as u64, there.received - there.dropped + there.duplicated);
    assert!(!arrived.is_sorted(), "some passed others");
    relay.cut();
    client.send_to(b"cut", relay.address()).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(100), server.recv(&mut buffer)).await.is_err());
    relay.mend();
    relay.set(Ways::default());
    client.send_to(b"mended", relay.address()).await.unwrap();
    let length =
        tokio::time::timeout(Duration::from_secs(1), server.recv(&mut buffer)).await.unwrap().unwrap();
    assert_eq!(&buffer[..length], b"mended");
}

#[tokio::test]
async fn ipmitool_has_the_console_of_the_bmc() {
    let with = rackhand_ipmi_tests::sim::With { console: true, ..Default::default() };
    let bmc = Bmc::start_with(Hardware::numbered(0), with).await;
    let mut host = bmc.console().await;
    let ipmitool = Ipmitool::new(bmc.address(), ADMINISTRATOR, &bmc.hardware.password);
    let (console, mut keyboard) = ipmitool.console();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !console.log().contains("SOL Session operational") {
        assert!(tokio::time::Instant::now() < deadline, "{}", console.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    host.write_all(b"login: ").await.unwrap();
    keyboard.write_all(b"root\n").unwrap();
    let mut typed = [0; 5];
    tokio::time::timeout(Duration::from_secs(10), host.read_exact(&mut typed)).await.unwrap().unwrap();
    assert!(typed.starts_with(b"root"), "{typed:?}");
    while !console.log().contains("login: ") {
        assert!(tokio::time::Instant::now() < deadline, "{}", console.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
