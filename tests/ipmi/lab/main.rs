//! Other people's clients against the lab's BMCs: ipmitool and FreeIPMI with cipher suites 17 and 3, and
//! pyghmi. What they print is compared with the same machine as the lab itself shows it. Our own client goes
//! through a bad network.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests: a failed step ends the test, loudly"
)]

mod pyghmi;
mod weather;

use std::{io::Write as _, net::SocketAddr, time::Duration};

use rackhand_ipmi_tests::reference::{FreeIpmi, Ipmitool};
use rackhand_lab::{BmcInfo, Fault, IpmiConfig, IpmiUser, Lab, LabConfig, Model, ServerSpec, Times};
use tokio::time::{Instant, sleep};

const PASSWORD: &str = "planted-Kq7-lab";
const SUITES: [u8; 2] = [17, 3];

async fn lab(model: Model) -> (Lab, BmcInfo, SocketAddr) {
    let reader =
        IpmiUser { name: "reader".to_owned(), password: PASSWORD.into(), privilege: 2, enabled: true };
    let config = LabConfig {
        ipmi: Some(IpmiConfig {
            users: vec![reader],
            sol_retry: Duration::from_millis(100),
            ..IpmiConfig::default()
        }),
        ..LabConfig::new(vec![ServerSpec::new("bmc-7", model)], PASSWORD)
    };
    let lab = Lab::start(config).await.unwrap();
    let bmc = lab.bmcs()[0].clone();
    let address = bmc.ipmi.unwrap();
    (lab, bmc, address)
}

fn root(address: SocketAddr, suite: u8) -> Ipmitool {
    Ipmitool::new(address, "root", PASSWORD).with_suite(suite)
}

/// The lab answers on this runtime: whoever waits for a child process must not hold it up.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

fn value(fields: &[(String, String)], name: &str) -> String {
    let found = fields.iter().find(|(field, _)| field == name);
    found.map_or_else(|| panic!("no {name} in {fields:?}"), |(_, value)| value.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ipmitool_reads_everything_with_suites_17_and_3() {
    let (lab, bmc, address) = lab(Model::R750).await;
    let tag = bmc.service_tag.clone();
    beside(move || {
        for suite in SUITES {
            let ipmitool = root(address, suite);
            let device = ipmitool.device();
            assert_eq!(value(&device, "Firmware Revision"), "6.00");
            assert_eq!(value(&device, "Manufacturer Name"), "Dell Inc.");
            assert!(ipmitool.is_on());
            let sensors = ipmitool.sensors();
            assert_eq!(sensors.len(), 40, "suite {suite}");
            let sensor = |name: &str| &sensors.iter().find(|(_, sensor)| sensor.name == name).unwrap().1;
            let inlet = sensor("Inlet Temp");
            assert_eq!((inlet.unit.as_str(), inlet.state.as_str()), ("degrees C", "ok"));
            assert!(inlet.value.as_ref().unwrap().parse::<f64>().unwrap() < 30.0);
            assert_eq!(inlet.thresholds[1].as_deref(), Some("-7.000"));
            assert_eq!(sensor("Fan1A").unit, "RPM");
            assert_eq!(ipmitool.says(&["sdr", "list"]).lines().count(), 40);
            let fru = ipmitool.fru();
            assert_eq!(value(&fru, "Product Serial"), tag);
            assert_eq!(value(&fru, "Product Name"), "PowerEdge R750");
            assert_eq!(value(&fru, "Product Asset Tag"), "bmc-7");
            let users = ipmitool.users();
            let user =
                |number: u8, name: &str, privilege: &str| (number, name.to_owned(), privilege.to_owned());
            assert!(users.contains(&user(2, "root", "ADMINISTRATOR")), "{users:?}");
            assert!(users.contains(&user(3, "reader", "USER")), "{users:?}");
            let lan = ipmitool.says(&["lan", "print", "1"]);
            assert!(lan.contains("RMCP+ Cipher Suites     : 3,17") && lan.contains("aaXXXXX"), "{lan}");
            assert!(ipmitool.says(&["session", "info", "active"]).contains("RMCP+"));
            assert!(ipmitool.says(&["sol", "info", "1"]).contains(&address.port().to_string()));
            assert!(ipmitool.says(&["mc", "guid"]).contains("System GUID"));
            assert!(ipmitool.succeeds(&["channel", "getaccess", "1", "2"]));
            assert!(ipmitool.succeeds(&["channel", "getciphers", "ipmi", "1"]));
        }
    })
    .await;
    let ipmi = lab.counters().ipmi;
    assert_eq!(
        (ipmi.failed_logins, ipmi.forged, ipmi.replayed, ipmi.sessions_open),
        (0, 0, 0, 0),
        "{ipmi:?}"
    );
    assert_eq!(ipmi.sessions_opened, ipmi.sessions_closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ipmitool_changes_power_boot_device_and_log_of_the_one_machine() {
    let (lab, _, address) = lab(Model::R750).await;
    let lab = std::sync::Arc::new(lab);
    let model = std::sync::Arc::clone(&lab);
    beside(move || {
        let ipmitool = root(address, 17);
        ipmitool.says(&["chassis", "bootdev", "pxe", "options=efiboot"]);
        assert_eq!(model.status("bmc-7").unwrap().boot_override.0, "Pxe");
        let flags = ipmitool.says(&["chassis", "bootparam", "get", "5"]);
        assert!(flags.contains("Force PXE") && flags.contains("EFI"), "{flags}");
        ipmitool.says(&["chassis", "power", "off"]);
        model.advance(Duration::from_secs(5));
        assert!(!ipmitool.is_on());
        assert_eq!(model.status("bmc-7").unwrap().power_state, "Off");
        let sensors = ipmitool.sensors();
        let fan = sensors.iter().find(|(_, sensor)| sensor.name == "Fan1A").unwrap();
        assert_eq!(fan.1.value, None, "{fan:?}");
        assert!(!ipmitool.succeeds(&["chassis", "power", "cycle"]));
        ipmitool.says(&["chassis", "power", "on"]);
        model.advance(Duration::from_secs(5));
        assert!(ipmitool.is_on());
        assert_eq!(model.status("bmc-7").unwrap().boots.last().map(String::as_str), Some("Pxe"));
        assert_eq!(ipmitool.sel().len(), 3);
        let events = ipmitool.says(&["sel", "elist"]);
        assert!(events.contains("S4/S5: soft-off") && events.contains("S0/G0: working"), "{events}");
        ipmitool.says(&["sel", "clear"]);
        assert_eq!(ipmitool.sel().len(), 1);
        ipmitool.says(&["sensor", "thresh", "Inlet Temp", "ucr", "45"]);
        let sensors = ipmitool.sensors();
        let inlet = sensors.iter().find(|(_, sensor)| sensor.name == "Inlet Temp").unwrap();
        assert_eq!(inlet.1.thresholds[4].as_deref(), Some("45.000"));
        // As the firmware of this model has it.
        assert!(!ipmitool.succeeds(&["raw", "0x30", "0x30", "0x01", "0x00"]));
        ipmitool.says(&["user", "set", "name", "4", "fresh"]);
        ipmitool.says(&["user", "priv", "4", "3", "1"]);
        ipmitool.says(&["user", "enable", "4"]);
        assert!(ipmitool.users().contains(&(4, "fresh".to_owned(), "OPERATOR".to_owned())));
    })
    .await;
    assert_eq!(lab.counters().host_resets.values().sum::<u64>(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ipmitool_is_refused_a_wrong_password_and_more_than_it_may() {
    let (lab, _, address) = lab(Model::R7525).await;
    beside(move || {
        for suite in SUITES {
            let wrong = Ipmitool::new(address, "root", "not-the-password").with_suite(suite);
            assert!(!wrong.succeeds(&["mc", "info"]));
            let reader = Ipmitool::new(address, "reader", PASSWORD).with_suite(suite);
            assert!(!reader.succeeds(&["mc", "info"]), "as administrator");
        }
        // Suites that are not offered.
        for suite in [0, 1, 2] {
            assert!(!root(address, suite).succeeds(&["mc", "info"]), "suite {suite}");
        }
    })
    .await;
    // ipmitool does not answer a RAKP 2 whose code it does not believe: only the privilege counts.
    assert_eq!(lab.counters().ipmi.failed_logins, 2);
    assert_eq!(lab.counters().ipmi.sessions_opened, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ipmitool_has_the_console_and_a_second_one_is_refused() {
    let (lab, _, address) = lab(Model::R650).await;
    for suite in SUITES {
        let ipmitool = root(address, suite);
        let (console, mut keyboard) = ipmitool.console();
        let seen = async |wanted: &str| {
            let deadline = Instant::now() + Duration::from_secs(15);
            while !console.log().contains(wanted) {
                assert!(Instant::now() < deadline, "no {wanted:?}: {}", console.log());
                sleep(Duration::from_millis(50)).await;
            }
        };
        seen("SOL Session operational").await;
        keyboard.write_all(b"hello\r").unwrap();
        seen("unknown: hello").await;
        keyboard.write_all(b"bulk 300\r").unwrap();
        seen("bulk 00000300 ").await;
        let text = console.log();
        let lines = (1..=300).filter(|number| text.matches(&format!("bulk {number:08} ")).count() == 1);
        assert_eq!(lines.count(), 300, "each line once");
        let second = root(address, suite);
        assert!(!beside(move || second.succeeds(&["sol", "activate"])).await);
        let third = root(address, suite);
        beside(move || third.says(&["chassis", "power", "cycle"])).await;
        lab.advance(Duration::from_secs(5));
        seen("PowerEdge R650 BIOS").await;
        let fourth = root(address, suite);
        beside(move || fourth.says(&["sol", "deactivate"])).await;
        lab.advance(Duration::from_secs(600));
        drop(console);
    }
    assert!(lab.counters().ipmi.consoles_refused >= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn freeipmi_reads_the_lab_with_suites_17_and_3() {
    let (lab, bmc, address) = lab(Model::R770).await;
    let tag = bmc.service_tag.clone();
    beside(move || {
        for suite in SUITES {
            let suite = format!("--cipher-suite-id={suite}");
            let freeipmi = FreeIpmi::new(address, "root", PASSWORD);
            let says = |tool: &str, arguments: &[&str]| {
                freeipmi.says(tool, &[&[suite.as_str()], arguments].concat())
            };
            let device = says("bmc-info", &["--get-device-id"]);
            assert!(device.contains("Dell"), "{device}");
            let sensors = says("ipmi-sensors", &["--no-header-output", "--comma-separated-output"]);
            assert_eq!(sensors.lines().count(), 40, "{sensors}");
            assert!(sensors.contains("Inlet Temp,Temperature"), "{sensors}");
            let events = says("ipmi-sel", &["--no-header-output"]);
            assert!(events.contains("Log Area Reset/Cleared"), "{events}");
            assert!(says("ipmi-fru", &["--device-id=0"]).contains(&tag));
            assert!(says("ipmi-power", &["--stat"]).contains("on"));
        }
        assert_eq!(FreeIpmi::new(address, "root", PASSWORD).sensors().len(), 40);
    })
    .await;
    let ipmi = lab.counters().ipmi;
    assert_eq!((ipmi.failed_logins, ipmi.forged), (0, 0), "{ipmi:?}");
}

/// What a foreign client survives, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ipmitool_gets_through_faults_of_the_network() {
    let (lab, _, address) = lab(Model::R750).await;
    for fault in
        [Fault::IpmiDuplicate, Fault::IpmiDelay { milliseconds: 200 }, Fault::IpmiReadLimit { bytes: 16 }]
    {
        lab.fault(
            "bmc-7",
            fault.clone(),
            if fault.name() == "ipmi_read_limit" { Times::Always } else { Times::Once },
        )
        .unwrap();
        let lines = beside(move || root(address, 17).says(&["sdr", "list"]).lines().count()).await;
        assert_eq!(lines, 40, "{fault:?}");
    }
    lab.fault("bmc-7", Fault::IpmiWrongIntegrity, Times::Once).unwrap();
    assert!(!beside(move || root(address, 17).succeeds(&["mc", "info"])).await, "a forged answer is refused");
}
