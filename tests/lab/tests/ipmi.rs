//! The lab's IPMI over real UDP, with our own client: one machine behind two protocols, privileges, sessions,
//! the console, faults and counters. Other people's clients are in `tests/ipmi`.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests fail the test")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use rackhand_ipmi::commands::chassis::{ChassisControl, GetChassisStatus};
use rackhand_ipmi::commands::device::GetDeviceId;
use rackhand_ipmi::commands::sdr::SdrCache;
use rackhand_ipmi::commands::sensor::{Value as Shown, sweep};
use rackhand_ipmi::commands::{fru, sel, user};
use rackhand_ipmi::session::{Config, Key, Lookup, Privilege, SuitePolicy, Timing};
use rackhand_ipmi::sol::{SolEnd, SolError, SolOptions};
use rackhand_ipmi::wire::suite::Suite;
use rackhand_ipmi::{Carrier as _, Client, CompletionCode, Error, NetFn, Request, Sockets, Target, probe};
use rackhand_lab::{
    BmcInfo, Fault, IpmiConfig, IpmiUser, Lab, LabConfig, LyingLength, Model, ServerSpec, Times,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

const PASSWORD: &str = "correct-horse";
const LIMIT: Duration = Duration::from_secs(60);

fn config() -> Config {
    Config {
        user: "root".to_owned(),
        password: Key::new(PASSWORD.as_bytes().to_vec().into()).unwrap(),
        privilege: Privilege::Administrator,
        lookup: Lookup::default(),
        suites: SuitePolicy::default(),
        pin: None,
        bmc_key: None,
        timing: Timing {
            handshake_wait: Duration::from_millis(300),
            first_wait: Duration::from_millis(200),
            longest_wait: Duration::from_millis(400),
            ..Timing::default()
        },
    }
}

/// A lab of one BMC that speaks IPMI alone.
async fn lab(server: ServerSpec, ipmi: IpmiConfig) -> (Lab, BmcInfo) {
    let config = LabConfig { redfish: false, ipmi: Some(ipmi), ..LabConfig::new(vec![server], PASSWORD) };
    let lab = Lab::start(config).await.unwrap();
    let bmc = lab.bmcs()[0].clone();
    (lab, bmc)
}

fn one() -> ServerSpec {
    ServerSpec::new("one", Model::R750)
}

async fn connect(bmc: &BmcInfo, config: Config) -> Result<Client, Error> {
    Client::connect(&Sockets::new().unwrap(), Target { address: bmc.ipmi.unwrap(), config }).await
}

fn raw(net_fn: u8, code: u8, data: &[u8]) -> Request {
    Request { net_fn: NetFn(net_fn), code, lun: 0, data: data.to_vec() }
}

async fn completion(client: &Client, net_fn: u8, code: u8, data: &[u8]) -> u8 {
    client.carry(raw(net_fn, code, data)).await.unwrap().0.0
}

#[tokio::test]
async fn power_and_boot_device_are_those_of_redfish_and_the_log_is_the_same() {
    timeout(LIMIT, async {
        let lab = Lab::start(LabConfig::new(vec![one()], PASSWORD)).await.unwrap();
        let bmc = lab.bmcs()[0].clone();
        let https = rackhand_lab::trusting_client().unwrap().build().unwrap();
        let system = format!("{}/redfish/v1/Systems/System.Embedded.1", bmc.url);
        let get = async |url: &str| -> Value {
            let answer = https.get(url).basic_auth("root", Some(PASSWORD)).send().await.unwrap();
            serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
        };
        let client = connect(&bmc, config()).await.unwrap();
        assert_eq!(client.suite(), Suite::S17);

        client.run(&ChassisControl::PowerDown).await.unwrap();
        lab.advance(Duration::from_secs(5));
        assert_eq!(get(&system).await["PowerState"], "Off");
        assert!(!client.run(&GetChassisStatus).await.unwrap().power_on);

        let reset = format!("{system}/Actions/ComputerSystem.Reset");
        let on = json!({ "ResetType": "On" });
        let answer = https.post(&reset).basic_auth("root", Some(PASSWORD)).json(&on).send().await.unwrap();
        assert!(answer.status().is_success());
        lab.advance(Duration::from_secs(5));
        assert!(client.run(&GetChassisStatus).await.unwrap().power_on);

        // Valid, once, EFI; PXE.
        assert_eq!(completion(&client, 0x00, 0x08, &[5, 0xa0, 0x04, 0, 0, 0]).await, 0);
        let boot = get(&system).await["Boot"].clone();
        assert_eq!(
            (&boot["BootSourceOverrideEnabled"], &boot["BootSourceOverrideTarget"]),
            (&json!("Once"), &json!("Pxe"))
        );
        client.run(&ChassisControl::PowerCycle).await.unwrap();
        lab.advance(Duration::from_secs(5));
        let (_, flags) = client.carry(raw(0x00, 0x09, &[5, 0, 0])).await.unwrap();
        assert_eq!(flags[2] & 0x80, 0, "used up: {flags:?}");

        let entries = sel::read(&client).await.unwrap().entries;
        let log = format!("{}/redfish/v1/Managers/iDRAC.Embedded.1/LogServices/Sel", bmc.url);
        let shown = get(&format!("{log}/Entries")).await;
        assert_eq!(entries.len(), shown["Members"].as_array().unwrap().len());
        assert_eq!(entries.len(), 5, "cleared, off, on, off, on: {entries:?}");
        sel::clear(&client).await.unwrap();
        assert_eq!(get(&format!("{log}/Entries")).await["Members"].as_array().unwrap().len(), 1);
        assert_eq!(sel::read(&client).await.unwrap().entries.len(), 1);

        // Set User Password: 20 bytes, user 2.
        let mut password = b"a-new-one".to_vec();
        password.resize(20, 0);
        assert_eq!(completion(&client, 0x06, 0x47, &[&[0x82, 2], password.as_slice()].concat()).await, 0);
        let signed = https.get(&system).basic_auth("root", Some("a-new-one")).send().await.unwrap();
        assert!(signed.status().is_success());
        assert!(matches!(connect(&bmc, config()).await, Err(Error::Credentials { .. })));

        let counters = lab.counters_of("one").unwrap();
        assert_eq!(counters.host_resets.values().sum::<u64>(), 3, "{:?}", counters.host_resets);
        assert_eq!(counters.mutation_log.iter().filter(|record| record.path.starts_with("ipmi:")).count(), 2);
        client.close().await;
        assert_eq!(lab.counters().ipmi.sessions_closed, 1);
        lab.shutdown().await;
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn sensors_inventory_and_users_are_read_whole_and_follow_the_power() {
    timeout(LIMIT, async {
        let (lab, bmc) = lab(one(), IpmiConfig { read_limit: 20, ..IpmiConfig::default() }).await;
        let client = connect(&bmc, config()).await.unwrap();
        let cache = SdrCache::read(&client, "one").await.unwrap();
        assert_eq!((cache.sensors().len(), cache.bad_records().count()), (40, 0));
        let number = |name: &str, readings: &[rackhand_ipmi::commands::sensor::Reading]| {
            let reading = readings.iter().find(|reading| reading.sensor.name == name).unwrap();
            match reading.value.as_ref().unwrap() {
                Shown::Number { value, .. } => Some(*value),
                _ => None,
            }
        };
        let running = sweep(&client, &cache).await;
        assert!(running.iter().all(|reading| reading.value.is_ok()));
        assert!((20.0..26.0).contains(&number("Inlet Temp", &running).unwrap()));
        assert!(number("Fan1A", &running).unwrap() > 4_000.0);
        assert!((11.5..12.5).contains(&number("12V", &running).unwrap()));
        client.run(&ChassisControl::PowerDown).await.unwrap();
        lab.advance(Duration::from_secs(5));
        let off = sweep(&client, &cache).await;
        assert_eq!((number("Fan1A", &off), number("CPU1 Temp", &off)), (None, None));
        assert!(number("Inlet Temp", &off).is_some());
        assert!(number("Pwr Consumption", &off).unwrap() < 30.0);

        let inventory = fru::read(&client, 0).await.unwrap();
        assert!(format!("{inventory:?}").contains(&bmc.service_tag), "{inventory:?}");
        let users = user::list(&client, 1).await.unwrap().users;
        assert_eq!(users.len(), 16);
        assert!(format!("{:?}", users[1]).contains("root"), "{users:?}");
        client.close().await;
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn who_may_what_is_enforced_and_logins_are_counted() {
    timeout(LIMIT, async {
        let person = |name: &str, privilege, enabled| IpmiUser {
            name: name.to_owned(),
            password: "another-one".into(),
            privilege,
            enabled,
        };
        let users = vec![person("reader", 2, true), person("operator", 3, true), person("gone", 4, false)];
        let (lab, bmc) = lab(one(), IpmiConfig { users, ..IpmiConfig::default() }).await;
        let other = |user: &str, privilege| Config {
            user: user.to_owned(),
            password: Key::new(b"another-one".to_vec().into()).unwrap(),
            privilege,
            ..config()
        };
        let reader = connect(&bmc, other("reader", Privilege::User)).await.unwrap();
        reader.run(&GetDeviceId).await.unwrap();
        for (net_fn, code, data) in [
            (0x00, 0x02, vec![0]),
            (0x06, 0x43, vec![0x81, 3, 4]),
            (0x0a, 0x47, vec![0; 6]),
            (0x06, 0x02, vec![]),
        ] {
            assert_eq!(completion(&reader, net_fn, code, &data).await, CompletionCode::PRIVILEGE.0);
        }
        assert!(lab.status("one").unwrap().power_state == "On");
        assert_eq!(completion(&reader, 0x06, 0x3b, &[4]).await, 0x81, "no way up");
        reader.close().await;

        let operator = connect(&bmc, other("operator", Privilege::Operator)).await.unwrap();
        assert_eq!(completion(&operator, 0x00, 0x04, &[15]).await, 0);
        assert_eq!(completion(&operator, 0x06, 0x43, &[0x81, 3, 4]).await, CompletionCode::PRIVILEGE.0);
        operator.close().await;

        let refused = connect(&bmc, other("operator", Privilege::Administrator)).await;
        assert!(matches!(refused, Err(Error::Privilege { .. })), "{:?}", refused.err());
        for user in ["nobody", "gone", "root"] {
            let refused = connect(&bmc, other(user, Privilege::User)).await;
            assert!(matches!(refused, Err(Error::Credentials { .. })), "{user}: {:?}", refused.err());
        }
        let lookup = Config { lookup: Lookup::NameAndPrivilege, ..other("operator", Privilege::Operator) };
        connect(&bmc, lookup).await.unwrap().close().await;
        let ipmi = lab.counters().ipmi;
        assert_eq!((ipmi.sessions_opened, ipmi.sessions_closed, ipmi.sessions_open), (3, 3, 0));
        assert_eq!(ipmi.failed_logins, 4);
        assert!(ipmi.commands["06h"] > 0 && ipmi.commands_refused >= 6, "{ipmi:?}");
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn suites_are_those_of_the_configuration() {
    timeout(LIMIT, async {
        let suites = vec![Suite::S0, Suite::S3];
        let (_lab, bmc) = lab(one(), IpmiConfig { suites, null_user: true, ..IpmiConfig::default() }).await;
        let sockets = Sockets::new().unwrap();
        let findings = format!("{:?}", probe(&sockets, bmc.ipmi.unwrap()).await.unwrap());
        assert!(!findings.contains("17"), "{findings}");
        let client = connect(&bmc, config()).await.unwrap();
        assert_eq!(client.suite(), Suite::S3);
        client.close().await;
        let exactly = |suite| Config { suites: SuitePolicy::Exactly(suite), ..config() };
        let weak = connect(&bmc, exactly(Suite::S0)).await.unwrap();
        weak.run(&GetDeviceId).await.unwrap();
        weak.close().await;
        assert!(matches!(connect(&bmc, exactly(Suite::S17)).await, Err(Error::SuiteRefused { .. })));
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_bmc_key_is_needed_where_there_is_one() {
    timeout(LIMIT, async {
        let (_lab, bmc) =
            lab(one(), IpmiConfig { bmc_key: Some("k-g".into()), ..IpmiConfig::default() }).await;
        assert!(matches!(connect(&bmc, config()).await, Err(Error::BmcKey)));
        let bmc_key = Some(Key::new(b"k-g".to_vec().into()).unwrap());
        connect(&bmc, Config { bmc_key, ..config() }).await.unwrap().close().await;
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_session_table_has_a_limit_and_idle_sessions_leave_it() {
    timeout(LIMIT, async {
        let session_timeout = Duration::from_millis(1_500);
        let (lab, bmc) =
            lab(one(), IpmiConfig { sessions: 2, session_timeout, ..IpmiConfig::default() }).await;
        let (first, second) =
            (connect(&bmc, config()).await.unwrap(), connect(&bmc, config()).await.unwrap());
        assert!(matches!(connect(&bmc, config()).await, Err(Error::NoFreeSession)));
        assert_eq!(lab.counters().ipmi.sessions_refused, 1);
        second.close().await;
        connect(&bmc, config()).await.unwrap().close().await;
        sleep(session_timeout + Duration::from_millis(1_200)).await;
        assert_eq!(lab.counters().ipmi.sessions_timed_out, 1);
        assert_eq!(lab.counters().ipmi.sessions_open, 0);
        assert!(first.run(&GetDeviceId).await.is_err());
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn overlapping_commands_are_seen() {
    timeout(LIMIT, async {
        let latency = Duration::from_millis(50);
        let (lab, bmc) = lab(one(), IpmiConfig { latency, ..IpmiConfig::default() }).await;
        let timing = Timing { window: 4, ..config().timing };
        let client = connect(&bmc, Config { timing, ..config() }).await.unwrap();
        assert_eq!(lab.counters().ipmi.most_under_way, 1);
        let device = || client.run(&GetDeviceId);
        let (a, b, c, d) = tokio::join!(device(), device(), device(), device());
        assert!(a.is_ok() && b.is_ok() && c.is_ok() && d.is_ok());
        assert_eq!(lab.counters().ipmi.most_under_way, 4);
        client.close().await;
    })
    .await
    .unwrap();
}

/// Each fault of the network and of answers is survived, and shows that it happened.
#[tokio::test]
async fn faults_of_datagrams_are_repeated_or_refused() {
    timeout(LIMIT, async {
        let (lab, bmc) = lab(one(), IpmiConfig::default()).await;
        let client = connect(&bmc, config()).await.unwrap();
        let device = client.run(&GetDeviceId).await.unwrap();
        for fault in [
            Fault::IpmiDelay { milliseconds: 100 },
            Fault::IpmiDelay { milliseconds: 300 },
            Fault::IpmiDuplicate,
            Fault::IpmiWrongSequence,
            Fault::IpmiWrongIntegrity,
            Fault::IpmiBusy,
            Fault::IpmiLyingLengths { what: LyingLength::Datagram },
            Fault::IpmiLyingLengths { what: LyingLength::Message },
        ] {
            lab.fault("one", fault.clone(), Times::Once).unwrap();
            let sent = lab.counters().ipmi.datagrams_sent;
            assert_eq!(client.run(&GetDeviceId).await.unwrap(), device, "{fault:?}");
            let again = matches!(fault, Fault::IpmiDuplicate | Fault::IpmiDelay { milliseconds: 100 });
            let answers = lab.counters().ipmi.datagrams_sent - sent;
            assert_eq!(answers > 1, !again, "{fault:?}: {answers} answers");
            assert!(lab.status("one").is_ok());
        }
        client.close().await;
        let stubborn = Timing { attempts: 15, first_wait: Duration::from_millis(50), ..config().timing };
        let client = connect(&bmc, Config { timing: stubborn, ..config() }).await.unwrap();
        lab.fault("one", Fault::IpmiLoss { percent: 20 }, Times::Always).unwrap();
        for _ in 0..60 {
            assert_eq!(client.run(&GetDeviceId).await.unwrap(), device);
        }
        assert!(lab.counters().ipmi.datagrams_lost > 5);
        lab.clear_fault("one", "ipmi_loss").unwrap();
        let wrong = Fault::IpmiCompletion { net_fn: 0x06, command: 0x01, completion: 0xd4 };
        lab.fault("one", wrong, Times::Once).unwrap();
        assert_eq!(completion(&client, 0x06, 0x01, &[]).await, 0xd4);
        assert_eq!(completion(&client, 0x06, 0x01, &[]).await, 0x00);
        client.close().await;
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn lying_lengths_of_records_do_not_end_a_session() {
    timeout(LIMIT, async {
        let (lab, bmc) = lab(one(), IpmiConfig::default()).await;
        let client = connect(&bmc, config()).await.unwrap();
        for what in [LyingLength::Sdr, LyingLength::Fru, LyingLength::Sel] {
            lab.fault("one", Fault::IpmiLyingLengths { what }, Times::Always).unwrap();
            let lied = match what {
                LyingLength::Fru => fru::read(&client, 0).await.err(),
                LyingLength::Sdr => SdrCache::read(&client, "one").await.err(),
                _ => sel::read(&client).await.err(),
            };
            // Whatever it makes of it, the session goes on.
            lab.clear_fault("one", "ipmi_lying_lengths").unwrap();
            client.run(&GetDeviceId).await.unwrap_or_else(|error| panic!("{what:?}, {lied:?}: {error}"));
        }
        lab.fault("one", Fault::IpmiReadLimit { bytes: 16 }, Times::Always).unwrap();
        assert_eq!(SdrCache::read(&client, "one").await.unwrap().sensors().len(), 40);
        client.close().await;
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn d37_a_suite_that_is_listed_and_refused_or_answered_with_another() {
    timeout(LIMIT, async {
        let (lab, bmc) = lab(one(), IpmiConfig::default()).await;
        lab.fault("one", Fault::IpmiRefuses17, Times::Always).unwrap();
        let client = connect(&bmc, config()).await.unwrap();
        assert_eq!(client.suite(), Suite::S3);
        client.close().await;
        assert_eq!(lab.counters().ipmi.failed_logins, 0);
        lab.clear_fault("one", "ipmi_refuses_17").unwrap();
        lab.fault("one", Fault::IpmiAnswers17With3, Times::Always).unwrap();
        let strict = Config { suites: SuitePolicy::Strict, ..config() };
        assert!(matches!(connect(&bmc, strict).await, Err(Error::Downgraded { .. })));
        let client = connect(&bmc, config()).await.unwrap();
        assert_eq!(client.suite(), Suite::S3);
        client.close().await;
        lab.clear_fault("one", "ipmi_answers_17_with_3").unwrap();
        lab.fault("one", Fault::IpmiSessionTableFull, Times::Once).unwrap();
        assert!(matches!(connect(&bmc, config()).await, Err(Error::NoFreeSession)));
        assert_eq!(connect(&bmc, config()).await.unwrap().suite(), Suite::S17);
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn d38_too_many_commands_in_a_second_freeze_the_bmc() {
    timeout(LIMIT, async {
        let (lab, bmc) = lab(one(), IpmiConfig::default()).await;
        lab.fault("one", Fault::IpmiFreeze { commands: 10, seconds: 1 }, Times::Always).unwrap();
        let paced = Timing { gap: Duration::from_millis(150), ..config().timing };
        let client = connect(&bmc, Config { timing: paced, ..config() }).await.unwrap();
        for _ in 0..12 {
            client.run(&GetDeviceId).await.unwrap();
        }
        assert_eq!(lab.counters().ipmi.freezes, 0);
        client.close().await;
        let client = connect(&bmc, config()).await.unwrap();
        for _ in 0..40 {
            let _ = client.run(&GetDeviceId).await;
        }
        assert!(lab.counters().ipmi.freezes > 0);
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn d43_raw_fan_commands_go_by_the_firmware_and_turn_the_fans() {
    timeout(LIMIT, async {
        for (model, version, code) in [
            (Model::R730, "2.86.86.86", 0x00),
            (Model::R750, "3.30.30.30", 0x00),
            (Model::R750, "3.34.34.34", 0xd4),
            (Model::R750, "6.00.30.00", 0xd4),
            (Model::R770, "1.20.25.00", 0xd4),
        ] {
            let (lab, bmc) = lab(ServerSpec::new("one", model).idrac(version), IpmiConfig::default()).await;
            let client = connect(&bmc, config()).await.unwrap();
            assert_eq!(completion(&client, 0x30, 0x30, &[0x01, 0x00]).await, code, "{version}");
            if code == 0 {
                assert_eq!(completion(&client, 0x30, 0x30, &[0x02, 0xff, 80]).await, 0);
                let (_, fan) = client.carry(raw(0x04, 0x2d, &[0x40])).await.unwrap();
                assert_eq!(u32::from(fan[0]) * 120, 14_400);
                assert_eq!(completion(&client, 0x30, 0x30, &[0x01, 0x01]).await, 0);
                let (_, fan) = client.carry(raw(0x04, 0x2d, &[0x40])).await.unwrap();
                assert!(u32::from(fan[0]) * 120 < 6_000);
                assert_eq!(lab.counters().ipmi.fan_commands, 3);
            }
            client.close().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_reset_forgets_every_session_and_is_silent_for_a_while() {
    timeout(LIMIT, async {
        let (lab, bmc) = lab(one(), IpmiConfig::default()).await;
        let client = connect(&bmc, config()).await.unwrap();
        lab.fault("one", Fault::IpmiBmcReset { seconds: 3_600 }, Times::Once).unwrap();
        assert!(client.run(&GetDeviceId).await.is_err());
        assert!(!lab.status("one").unwrap().reachable);
        let quick = Timing { attempts: 1, ..config().timing };
        assert!(connect(&bmc, Config { timing: quick, ..config() }).await.is_err());
        lab.advance(Duration::from_secs(3_700));
        assert_eq!(lab.counters().ipmi.sessions_lost, 1);
        connect(&bmc, config()).await.unwrap().close().await;
    })
    .await
    .unwrap();
}

async fn until(stream: &mut (impl tokio::io::AsyncRead + Unpin), wanted: &str) -> String {
    let (mut seen, mut buffer) = (String::new(), [0; 4_096]);
    while !seen.contains(wanted) {
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(count > 0, "the end before {wanted:?}: {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    seen
}

#[tokio::test]
async fn the_console_echoes_prints_in_bulk_and_shows_the_boot() {
    timeout(LIMIT, async {
        let (lab, bmc) = lab(one(), IpmiConfig::default()).await;
        let client = connect(&bmc, config()).await.unwrap();
        let mut console = client.sol(SolOptions::default()).await.unwrap();
        console.write_all(b"hello\r").await.unwrap();
        until(&mut console, "unknown: hello\r\nlab$ ").await;
        lab.fault("one", Fault::IpmiSolPartial { characters: 3 }, Times::Always).unwrap();
        console.write_all(b"bulk 2000\r").await.unwrap();
        let text = until(&mut console, "lab$ ").await;
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("bulk 0")).collect();
        assert_eq!(lines.len(), 2_000);
        assert!(lines.iter().zip(1..).all(|(line, number)| line.starts_with(&format!("bulk {number:08} "))));
        lab.clear_fault("one", "ipmi_sol_partial").unwrap();
        client.run(&ChassisControl::PowerCycle).await.unwrap();
        lab.advance(Duration::from_secs(5));
        until(&mut console, "PowerEdge R750 BIOS 1.8.2").await;
        lab.advance(Duration::from_secs(600));
        until(&mut console, "Ready.").await;

        let second = connect(&bmc, config()).await.unwrap();
        let refused = second.sol(SolOptions::default()).await;
        assert!(matches!(refused, Err(SolError::InUse(_))), "{:?}", refused.err());
        assert_eq!(lab.counters().ipmi.consoles_refused, 1);
        // An administrator takes it away; who had it is told.
        assert_eq!(completion(&second, 0x06, 0x49, &[1, 1, 0, 0, 0, 0]).await, 0);
        let mut buffer = [0; 64];
        let end = loop {
            match console.read(&mut buffer).await {
                Ok(count) => assert!(count > 0),
                Err(error) => break SolEnd::of(&error).cloned().unwrap(),
            }
        };
        assert!(matches!(end, SolEnd::Deactivated | SolEnd::TakenOver { .. }), "{end:?}");
        second.close().await;
        client.close().await;
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn d39_a_console_whose_client_is_gone_is_free_after_the_timeout_or_never() {
    timeout(LIMIT, async {
        let session_timeout = Duration::from_millis(1_000);
        for stale in [false, true] {
            let (lab, bmc) = lab(one(), IpmiConfig { session_timeout, ..IpmiConfig::default() }).await;
            if stale {
                lab.fault("one", Fault::IpmiSolStale, Times::Always).unwrap();
            }
            let client = connect(&bmc, config()).await.unwrap();
            let console = client.sol(SolOptions::default()).await.unwrap();
            let remembered = console.activated().own;
            // The client dies: nothing of it reaches the BMC any more.
            lab.fault("one", Fault::Partition, Times::Always).unwrap();
            drop(console);
            drop(client);
            // It repeats its farewell for a while.
            sleep(Duration::from_secs(4)).await;
            lab.clear_fault("one", "partition").unwrap();
            let next = connect(&bmc, config()).await.unwrap();
            let taken = next.sol(SolOptions::default()).await;
            assert_eq!(matches!(taken, Err(SolError::InUse(_))), stale, "{:?}", taken.err());
            if stale {
                let recovered = next.sol(SolOptions { remembered, ..SolOptions::default() }).await.unwrap();
                assert!(recovered.activated().recovered);
            }
        }
    })
    .await
    .unwrap();
}

/// The name in a URL and the one in JSON are the same; the control API is told by it.
#[test]
fn faults_have_one_name() {
    for fault in [
        Fault::IpmiDelay { milliseconds: 1 },
        Fault::IpmiLoss { percent: 1 },
        Fault::IpmiDuplicate,
        Fault::IpmiWrongSequence,
        Fault::IpmiWrongIntegrity,
        Fault::IpmiBusy,
        Fault::IpmiSessionTableFull,
        Fault::IpmiLyingLengths { what: LyingLength::Sdr },
        Fault::IpmiReadLimit { bytes: 1 },
        Fault::IpmiFreeze { commands: 1, seconds: 1 },
        Fault::IpmiRefuses17,
        Fault::IpmiAnswers17With3,
        Fault::IpmiSolStale,
        Fault::IpmiSolPartial { characters: 1 },
        Fault::IpmiBmcReset { seconds: 1 },
        Fault::IpmiCompletion { net_fn: 0, command: 0, completion: 0 },
    ] {
        let written = serde_json::to_value(&fault).unwrap();
        assert_eq!(written["fault"], fault.name());
        assert_eq!(serde_json::from_value::<Fault>(written).unwrap(), fault);
    }
}

/// SplitMix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
}

fn some_bytes(state: &mut u64, most: u64) -> Vec<u8> {
    (0..random(state) % most).map(|_| (random(state) >> 56) as u8).collect()
}

/// Any datagram outside a session and any command inside one leave the BMC as well as it was.
#[tokio::test]
async fn nonsense_is_dropped_or_refused() {
    timeout(LIMIT, async {
        let (lab, bmc) = lab(one(), IpmiConfig::default()).await;
        let client = connect(&bmc, config()).await.unwrap();
        let mut state = 0x1b41;
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for _ in 0..5_000 {
            let mut datagram =
                vec![0x06, 0x00, 0xff, if random(&mut state).is_multiple_of(4) { 0x06 } else { 0x07 }];
            // Session wrapper of either form, and of each message that opens a session.
            match random(&mut state) % 3 {
                0 => datagram.push(0x00),
                1 => datagram.extend([
                    0x06,
                    0x10 + (random(&mut state) % 6) as u8,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    40,
                    0,
                ]),
                _ => datagram.extend([0x06, random(&mut state) as u8]),
            }
            datagram.extend(some_bytes(&mut state, 90));
            socket.send_to(&datagram, bmc.ipmi.unwrap()).await.unwrap();
            tokio::task::yield_now().await;
        }
        client.run(&GetDeviceId).await.unwrap();
        for _ in 0..4_000 {
            let functions = [0x00, 0x04, 0x06, 0x0a, 0x0c, 0x2c, 0x30];
            let net_fn = functions[(random(&mut state) % 7) as usize];
            let code = (random(&mut state) % 0x60) as u8;
            // Not the ends of the session, nor what changes who is who.
            if net_fn == 0x06 && matches!(code, 0x02 | 0x03 | 0x3b | 0x3c | 0x43..=0x47) {
                continue;
            }
            let data = some_bytes(&mut state, 20);
            client.carry(raw(net_fn, code, &data)).await.unwrap();
        }
        client.run(&GetDeviceId).await.unwrap();
        client.close().await;
        assert_eq!(lab.counters().ipmi.sessions_opened, 1);
    })
    .await
    .unwrap();
}

/// Two thousand BMCs in this process, each read once: sessions, all records, all sensors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_bmcs_start_and_are_read() {
    const COUNT: usize = 2_000;
    let began = Instant::now();
    let servers = ServerSpec::fleet(COUNT, 7);
    let config_of_lab = LabConfig { redfish: false, ..LabConfig::new(servers, PASSWORD) };
    let lab = Lab::start(config_of_lab).await.unwrap();
    let started = began.elapsed();
    let sockets = Sockets::new().unwrap();
    let slots = Arc::new(tokio::sync::Semaphore::new(64));
    let mut tasks = tokio::task::JoinSet::new();
    for bmc in lab.bmcs() {
        let (sockets, slots, address) = (Arc::clone(&sockets), Arc::clone(&slots), bmc.ipmi.unwrap());
        tasks.spawn(async move {
            let _slot = slots.acquire().await.unwrap();
            let patient = Config { timing: Timing::default(), ..config() };
            let client = Client::connect(&sockets, Target { address, config: patient }).await.unwrap();
            let cache = SdrCache::read(&client, "lab").await.unwrap();
            let readings = sweep(&client, &cache).await;
            client.close().await;
            readings.iter().filter(|reading| reading.value.is_ok()).count()
        });
    }
    let mut read = 0;
    while let Some(readings) = timeout(Duration::from_secs(240), tasks.join_next()).await.unwrap() {
        assert_eq!(readings.unwrap(), 40);
        read += 1;
    }
    assert_eq!(read, COUNT);
    let ipmi = lab.counters().ipmi;
    assert_eq!((ipmi.sessions_opened, ipmi.sessions_closed), (COUNT as u64, COUNT as u64));
    println!("{COUNT} BMCs: started in {started:?}, read in {:?}", began.elapsed() - started);
    lab.shutdown().await;
}
