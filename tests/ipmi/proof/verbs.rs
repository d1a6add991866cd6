//! `rackhand bmc …`: what its verbs print, as JSON and as text, is what the BMC was given.

use std::{process::Stdio, time::Duration};

use rackhand_ipmi_tests::{
    Bmc, ForeignBmc, Hardware,
    hardware::{ADMINISTRATOR, Kind, OPERATOR, READER},
    pyghmi::Mode,
    reference::Ipmitool,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    time::timeout,
};

use crate::{
    command::{Account, binary, text},
    secrets::{holds_none, processes_hold_none},
};

async fn bmc(index: usize) -> (Bmc, Account) {
    let bmc = Bmc::start(Hardware::numbered(index)).await;
    let account = Account::new(bmc.address(), ADMINISTRATOR, &bmc.hardware.password);
    (bmc, account)
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("no list: {value}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_is_read_and_changed_and_read_back() {
    let (bmc, account) = bmc(0).await;
    let found = account.json("power", &[]).await;
    assert_eq!((&found["action"], &found["power"]), (&json!("status"), &json!("on")));
    assert_eq!(found["faults"], json!([]));
    let (code, said) = account.fails("power", &["off"]).await;
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("No terminal to ask on; give --yes to do it"), "{said}");
    assert_eq!(bmc.file("power"), "1", "nothing was done");
    assert_eq!(account.ok("power", &["off", "--yes"]).await, "`off` was sent\npower off\n");
    assert_eq!(bmc.file("chassis.log"), "power 0");
    assert_eq!(account.json("power", &["status"]).await["power"], "off");
    assert_eq!(account.json("power", &["on"]).await["power"], "on");
    assert_eq!(bmc.file("power"), "1");
    let (code, said) = account.fails("power", &["cycle"]).await;
    assert!(code == 2 && said.contains("give --yes to do it"), "{said}");
    let cycled = account.ok("power", &["cycle", "--yes"]).await;
    assert_eq!(cycled, "`cycle` was sent\npower on\n", "it waits until it is on again");
    assert_eq!(bmc.file("chassis.log"), "power 0\npower 1\npower 0\npower 1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sensors_are_what_was_configured() {
    let (bmc, account) = bmc(3).await;
    let found = account.json("sensors", &[]).await;
    assert_eq!(list(&found).len(), bmc.hardware.sensors.len());
    for (row, sensor) in list(&found).iter().zip(&bmc.hardware.sensors) {
        assert_eq!((&row["number"], &row["name"]), (&json!(sensor.number), &json!(sensor.name)));
        let Kind::Analog(analog) = &sensor.kind else {
            assert_eq!(row["value"], Value::Null, "{row}");
            continue;
        };
        is(&row["value"], Some(analog.value(analog.raw)), row);
        let [lower, lower_critical, _, upper, upper_critical, _] =
            analog.thresholds.map(|raw| raw.map(|raw| analog.value(raw)));
        is(&row["lower_non_critical"], lower, row);
        is(&row["lower_critical"], lower_critical, row);
        is(&row["upper_non_critical"], upper, row);
        is(&row["upper_critical"], upper_critical, row);
        assert_eq!(row["status"] == "ok", analog.reached() == 0, "{row}");
    }
    let table = account.ok("sensors", &[]).await;
    assert_eq!(table.lines().count(), bmc.hardware.sensors.len() + 1, "{table}");
    assert!(table.starts_with("NAME "), "{table}");
}

fn is(found: &Value, expected: Option<f64>, row: &Value) {
    match (found.as_f64(), expected) {
        (Some(found), Some(expected)) => {
            assert!((found - expected).abs() <= 1e-9 * expected.abs(), "{expected}: {row}");
        }
        (found, expected) => assert_eq!(found, expected, "{row}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_event_log_is_read_followed_and_cleared() {
    let (bmc, account) = bmc(2).await;
    let found = account.json("sel", &["list"]).await;
    let records: Vec<_> = list(&found).iter().map(|row| row["raw"].as_str().unwrap().to_owned()).collect();
    let expected: Vec<String> = bmc.hardware.events.iter().map(|event| hex(&event.record)).collect();
    assert_eq!(records, expected);
    for (row, event) in list(&found).iter().zip(&bmc.hardware.events) {
        assert_eq!((&row["id"], row["time"].is_null()), (&json!(event.id), event.time().is_none()), "{row}");
    }
    // The first is an hour count after 2026-01-02 03:04:05.
    assert!(found[0]["time"].as_str().unwrap().starts_with("2026-01-02 05:04:05"), "{}", found[0]);
    let name = &bmc.hardware.sensors.iter().find(|sensor| sensor.number == 2).unwrap().name;
    assert!(found[0]["text"].as_str().unwrap().contains(name.as_str()), "{}: {name}", found[0]);

    let mut command = std::process::Command::new(binary());
    account.person.equip(&mut command);
    command.args([
        "bmc",
        "sel",
        &account.url,
        "follow",
        "--json",
        "--user",
        &account.user,
        "--password-stdin",
    ]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut following = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
    let mut stdin = following.stdin.take().unwrap();
    stdin.write_all(format!("{}\n", account.password).as_bytes()).await.unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = timeout(Duration::from_secs(30), lines.next_line()).await.expect("an entry").unwrap();
        serde_json::from_str::<Value>(&line.expect("no end")).unwrap()["raw"].as_str().unwrap().to_owned()
    };
    for record in &expected {
        assert_eq!(next().await, *record);
    }
    // Add SEL Entry (section 31.6): an OEM record without a time.
    let ipmitool = Ipmitool::new(bmc.address(), ADMINISTRATOR, &bmc.hardware.password);
    ipmitool.raw(&[0x0a, 0x44, 0, 0, 0xe1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 2, 3, 4, 5]);
    assert_eq!(next().await[4..], *"e109080706050403020102030405");
    // What is in memory for so long is nowhere else.
    processes_hold_none(&[&account.password]);
    let id = rustix::process::Pid::from_raw(i32::try_from(following.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    let status = timeout(Duration::from_secs(30), following.wait()).await.expect("it ends").unwrap();
    assert_eq!(status.code(), Some(130));

    let (code, said) = account.fails("sel", &["clear"]).await;
    assert!(code == 2 && said.contains("--yes"), "{said}");
    account.ok("sel", &["clear", "--yes"]).await;
    assert_eq!(account.json("sel", &[]).await, json!([]));
    assert_eq!(ipmitool.sel().len(), 0);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inventories_users_and_raw_bytes_are_what_was_configured() {
    let (bmc, account) = bmc(5).await;
    let found = account.json("fru", &[]).await;
    let fields = list(&found[0]["fields"]);
    let fru = &bmc.hardware.fru;
    for (name, value) in [
        ("chassis part number", &fru.chassis_part),
        ("chassis serial", &fru.chassis_serial),
        ("board manufacturer", &fru.board_manufacturer),
        ("board name", &fru.board_product),
        ("board serial", &fru.board_serial),
        ("board part number", &fru.board_part),
        ("product manufacturer", &fru.product_manufacturer),
        ("product name", &fru.product_name),
        ("product version", &fru.product_version),
        ("product serial", &fru.product_serial),
        ("asset tag", &fru.product_asset),
    ] {
        assert!(fields.contains(&json!({ "name": name, "value": value })), "{name} {value}: {fields:?}");
    }
    assert_eq!(found[0]["problems"], json!([]));
    let users = account.json("users", &[]).await;
    for (id, name, enabled, privilege) in [
        (2, OPERATOR, true, "operator"),
        (3, ADMINISTRATOR, true, "administrator"),
        (4, READER, true, "user"),
        (5, "retired", false, "administrator"),
    ] {
        let row = list(&users).iter().find(|row| row["id"] == id).unwrap_or_else(|| panic!("{users}"));
        assert_eq!((&row["name"], &row["privilege"]), (&json!(name), &json!(privilege)), "{row}");
        // ipmi_sim tells for no user whether it is enabled, or tells the truth.
        assert!(row["enabled"].is_null() || row["enabled"] == enabled, "{row}");
    }
    // Get Device ID: revision 3, firmware 9.08, IPMI 2.0.
    let device = account.ok("raw", &["06", "01"]).await;
    assert!(device.starts_with("00 03 09 08 02 9f 91 12 00 02 0f"), "{device}");
    let device = account.json("raw", &["0x06", "0x01"]).await;
    assert_eq!(device["completion"], 0);
    assert!(device["data"].as_str().unwrap().starts_with("00030908029f911200020f"), "{device}");
    let (code, said) = account.fails("raw", &["2e", "01"]).await;
    assert!(code == 1 && said.contains("the command was refused: "), "{code}: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inspect_names_what_is_weak() {
    let (bmc, account) = bmc(4).await;
    let found = account.json("inspect", &[]).await;
    assert_eq!((&found["url"], &found["suite"]), (&json!(account.url), &json!(3)));
    assert_eq!((&found["firmware"], &found["power"]), (&json!("9.08"), &json!("on")));
    assert_eq!(found["manufacturer"], 0x1291);
    let weak: Vec<_> = list(&found["weak"]).iter().map(|weak| weak["code"].as_str().unwrap()).collect();
    assert!(weak.contains(&"ipmi_1_5") && weak.contains(&"no_authentication"), "{weak:?}");
    assert_eq!(found["unreadable"], json!([]));
    // No IPMI is looked for at a Redfish address that does not answer: that is the failure.
    let https = format!("https://{}", bmc.address());
    let person = &account.person;
    let input = format!("{}\n", account.password);
    let output = person.bmc(&["inspect", &https, "--user", "admin", "--password-stdin"], &input).await;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_tried_once_and_written_nowhere() {
    let (bmc, right) = bmc(6).await;
    let wrong = "Kq7-planted-not-it";
    let account = Account::new(bmc.address(), ADMINISTRATOR, wrong);
    for (verb, more) in [
        ("power", &["status"][..]),
        ("sensors", &[]),
        ("sel", &[]),
        ("fru", &[]),
        ("users", &[]),
        ("raw", &["06", "01"]),
        ("console", &[]),
        ("inspect", &[]),
    ] {
        let (code, said) = account.fails(verb, more).await;
        assert_eq!(code, 4, "{verb}: {said}");
        assert!(said.contains("one attempt was made; another one counts towards a lockout"), "{said}");
        assert!(said.starts_with(&format!("error: {}: ", account.url)), "{said}");
        holds_none(verb, &said, &[wrong, &right.password]);
    }
    let output = right.run("sensors", &[]).await;
    holds_none("what it says", &(text(&output.stdout) + &text(&output.stderr)), &[&right.password]);
    // An account that may do less is told apart.
    let reader = Account::new(bmc.address(), READER, &bmc.hardware.password);
    assert_eq!(reader.ok("power", &["--privilege", "user"]).await, "power on\n");
    let (code, said) = reader.fails("power", &["off", "--yes", "--privilege", "user"]).await;
    assert!(code == 1 && said.contains("insufficient privilege"), "{code}: {said}");
    assert_eq!(bmc.file("power"), "1");
    // Nobody listens there.
    let nobody = Account::new((std::net::Ipv4Addr::LOCALHOST, 9).into(), ADMINISTRATOR, wrong);
    let (code, said) = nobody.fails("power", &[]).await;
    assert!(matches!(code, 1 | 8), "{code}: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suite_17_is_used_and_insisted_on() {
    let foreign = ForeignBmc::start(Mode::Honest).await;
    let account = Account::new(foreign.address(), ForeignBmc::USER, ForeignBmc::PASSWORD);
    assert_eq!(account.json("power", &["--strict"]).await["power"], "on");
    assert!(foreign.proposals().iter().all(|suite| *suite == 17), "{:?}", foreign.proposals());
    let device = account.ok("raw", &["--strict", "06", "01"]).await;
    assert!(device.split_whitespace().count() >= 11, "{device}");
    let found = account.json("inspect", &[]).await;
    assert_eq!(found["suite"], 17, "{found}");
    // A BMC that only has suite 3 is refused then.
    let (bmc, _) = bmc(0).await;
    let account = Account::new(bmc.address(), ADMINISTRATOR, &bmc.hardware.password);
    let (code, said) = account.fails("power", &["--strict"]).await;
    assert!(code == 1 && said.contains("no session was opened, nothing was done"), "{code}: {said}");
}
