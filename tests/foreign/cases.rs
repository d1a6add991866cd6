//! The table: a folder of `tests/foreign/redfish` for each case, with what it is, where it was reported, and
//! what is right. What a case does not say holds as for `base`, the healthy server under all of them.

use std::path::{Path, PathBuf};

use rackhand_tests::cli::CommandLine;
use serde_json::{Map, Value};

use crate::{
    device::{Device, PASSWORD, USER},
    site,
};

const CASES: [&str; 56] = [
    "actions-info-absent",
    "base-control",
    "chunked",
    "close-after-each",
    "count-as-text",
    "error-beside-members",
    "error-message-object",
    "etag-number",
    "fw-expand-404",
    "fw-expand-405",
    "fw-expand-501",
    "fw-expand-503",
    "fw-expanded-error-member",
    "fw-member-absolute-url",
    "fw-member-null-entry",
    "fw-member-relative",
    "fw-members-null",
    "fw-no-members",
    "fw-spare-rows",
    "fw-version-number",
    "get-redirect-slash",
    "gzip-unasked",
    "header-oddities",
    "health-conditions",
    "health-rollup-capital-u",
    "health-swapped",
    "html-200",
    "http10-close",
    "ilo4-firmware-in-system",
    "invalid-utf8",
    "managedby-object",
    "manager-no-version",
    "managers-many-no-managedby",
    "no-systems-enclosure",
    "nul-padded",
    "openbmc-image-states",
    "openbmc-two-images",
    "password-change-required",
    "power-lower-case",
    "power-starting",
    "retry-503-once",
    "sensors-one-chassis-broken",
    "sensors-subsystem-only",
    "serial-only-in-chassis",
    "serial-placeholder",
    "session-cookie-no-token",
    "session-links-null",
    "session-location-only",
    "session-location-other-name",
    "session-no-location-body",
    "session-redirect-slash",
    "state-sleep",
    "systems-collection-broken",
    "systems-hgx-first",
    "trailing-comma",
    "vendor-of-the-stack",
];

fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("foreign/redfish").join(case)
}

fn described(case: &str) -> Value {
    let text = std::fs::read_to_string(folder(case).join("case.json")).expect(case);
    serde_json::from_str(&text).expect(case)
}

/// What is right for a case, over what is right for the healthy server.
fn expected(case: &Value) -> Map<String, Value> {
    let mut expected = described("base")["expect"].as_object().unwrap().clone();
    expected.extend(case["expect"].as_object().unwrap().clone());
    expected
}

/// What does not hold, in words.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn same(&mut self, what: &str, found: &Value, wanted: &Value) {
        if found != wanted {
            self.0.push(format!("{what} is {found}, not {wanted}"));
        }
    }

    fn says(&mut self, what: &str, text: &str, words: &Value) {
        for word in words.as_array().into_iter().flatten().map(|word| word.as_str().unwrap()) {
            if !text.contains(word) {
                self.0.push(format!("{what} does not say {word}: {text}"));
            }
        }
    }
}

async fn device(case: &str, described: &Value) -> Device {
    Device::start(&folder("base"), &folder(case), &described["device"]).await
}

async fn by_the_command_line(case: &str, described: &Value) -> Vec<String> {
    let wanted = expected(described);
    let device = device(case, described).await;
    let pin = ["--pin", device.spki_sha256.as_str()];
    let inspect = ["bmc", "inspect", &device.url, "--user", USER, "--password-stdin", "--no-ipmi", "--json"];
    let output = CommandLine::new().run(&[inspect.as_slice(), &pin].concat(), PASSWORD).await;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut faults = Faults::default();
    faults.same("sessions left open", &device.open_sessions().into(), &0.into());
    let code = wanted.get("fails").cloned().unwrap_or(0.into());
    faults.same("the exit code", &output.status.code().into(), &code);
    if code != 0 || !output.status.success() {
        faults.says("stderr", &complaint, &wanted["says"]);
        return faults.0;
    }
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for field in
        ["vendor", "model", "serial", "bios_version", "bmc_version", "power", "health", "reset_kinds"]
    {
        faults.same(field, &report[field], &wanted[field]);
    }
    let row = |row: &Value| {
        let text = |name: &str| row[name].as_str().unwrap_or("-").to_owned();
        let updateable = match row["updateable"].as_bool() {
            Some(true) => "yes",
            Some(false) => "no",
            None => "-",
        };
        let inactive = row["inactive"].as_str().map(|state| format!(" {state}")).unwrap_or_default();
        format!("{} {} {} {updateable}{inactive}", text("component"), text("version"), text("row"))
    };
    let rows: Vec<_> = report["firmware"].as_array().unwrap().iter().map(row).collect();
    faults.same("firmware", &rows.into(), &wanted["firmware"]);
    faults.same("firmware_complete", &report["firmware_complete"], &wanted["complete"]);
    let unreadable = report["unreadable"].as_array().unwrap();
    let what = format!("unreadable parts of {unreadable:?}");
    faults.same(&what, &unreadable.len().into(), &wanted["unreadable"]);
    faults.says("the report", &report.to_string(), &wanted["says"]);
    faults.0
}

async fn by_an_executor(case: &str, described: &Value) -> Vec<String> {
    let mut wanted = expected(described);
    if let Some(other) = wanted.get("executor").cloned() {
        wanted.extend(other.as_object().unwrap().clone());
    }
    let device = device(case, described).await;
    let (broker, line) = site::line(&device).await;
    let mut faults = Faults::default();
    let inventory = match line.inventory().await {
        Ok((_, inventory)) => inventory,
        Err(error) if wanted.contains_key("fails") => {
            faults.says("the error", &error.to_string(), &wanted["says"]);
            return faults.0;
        }
        Err(error) => return vec![format!("no inventory: {error}")],
    };
    if wanted.contains_key("fails") {
        return vec![format!("an inventory without reason: {inventory:?}")];
    }
    let inventory = serde_json::to_value(inventory).unwrap();
    for field in ["vendor", "model", "bmc_version", "health"] {
        faults.same(field, &inventory[field], &wanted[field]);
    }
    let unknown = Value::from("unknown");
    let power = if wanted["power"].is_null() { &unknown } else { &wanted["power"] };
    faults.same("power", &inventory["power"], power);
    // Only what runs is a component of a server.
    let component = |row: &Value| {
        let words: Vec<_> = row.as_str().unwrap().split(' ').collect();
        let inactive = words.get(4).map(|state| format!(" {state}")).unwrap_or_default();
        let updateable = words[3] == "yes";
        (words[2] == "plain").then(|| format!("{} {} {updateable}{inactive}", words[0], words[1]))
    };
    let rows = wanted["firmware"].as_array().unwrap().iter().filter_map(component);
    let found = inventory["components"].as_array().unwrap().iter().map(|part| {
        let text = |name: &str| part[name].as_str().unwrap().to_owned();
        let inactive = part["inactive"].as_str().map(|state| format!(" {state}")).unwrap_or_default();
        format!("{} {} {}{inactive}", text("key"), text("version"), part["updateable"])
    });
    faults.same("components", &found.collect(), &rows.collect());
    let unreadable = &inventory["unreadable"];
    let what = format!("unreadable parts of {unreadable}");
    faults.same(&what, &unreadable.as_object().unwrap().len().into(), &wanted["unreadable"]);
    faults.says("the inventory", &unreadable.to_string(), &wanted["says"]);
    if let Some(sensors) = wanted.get("sensors") {
        let report = line.sensors().await.unwrap().1;
        let shown = report.readings.iter().map(|reading| {
            let value = reading.value.map_or_else(|| "-".to_owned(), |value| value.to_string());
            let health = serde_json::to_value(reading.health).unwrap();
            let words = [reading.name.as_str(), &value, &reading.unit, health.as_str().unwrap()];
            words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
        });
        faults.same("sensors", &shown.collect(), sensors);
        let unreadable = format!("{:?}", report.unreadable);
        faults.says("the sensors", &unreadable, wanted.get("sensors_unreadable").unwrap_or(&Value::Null));
    }
    drop(line);
    broker.close().await;
    faults.same("sessions left open", &device.open_sessions().into(), &0.into());
    faults.0
}

/// Every folder is a case of the table, and every case a folder.
#[test]
fn the_table_is_the_folders() {
    let mut folders: Vec<_> = std::fs::read_dir(folder(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "base")
        .collect();
    folders.sort();
    assert_eq!(folders, CASES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_case_is_read_right_by_the_command_line_and_by_an_executor() {
    let running = CASES.map(|case| {
        tokio::spawn(async move {
            let described = described(case);
            let line = by_the_command_line(case, &described).await;
            let executor = by_an_executor(case, &described).await;
            let told = |who: &str, faults: Vec<String>| {
                faults.into_iter().map(|fault| format!("{case}, {who}: {fault}")).collect::<Vec<_>>()
            };
            [told("command line", line), told("executor", executor)].concat()
        })
    });
    let mut faults = Vec::new();
    for case in running {
        faults.extend(case.await.unwrap());
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// Nobody at a terminal, no `--pin`: the password stays here, and the text says which pin to give.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_not_sent_to_the_holder_of_an_unknown_key() {
    let device = device("base-control", &described("base-control")).await;
    let inspect = ["bmc", "inspect", &device.url, "--user", USER, "--password-stdin", "--no-ipmi"];
    let output = CommandLine::new().run(&inspect, PASSWORD).await;
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{complaint}");
    assert!(complaint.contains(&format!("--pin {}", device.spki_sha256)), "{complaint}");
    assert!(complaint.contains("The password was not sent"), "{complaint}");
    assert_eq!(device.passwords_seen(), 0);
}

/// A service that stops answering in the middle: what was read is shown, what was not is named, the session
/// is closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inspection_ends_in_its_time_and_names_what_was_not_read() {
    let mut described = described("base-control");
    for (silent, code, says) in [
        ("/redfish/v1/UpdateService/FirmwareInventory", 0, "firmware inventory"),
        ("/redfish/v1/Systems", 8, "nothing was read within 3 s"),
    ] {
        described["device"]["answers"] = serde_json::json!([{ "path": silent, "status": 0 }]);
        let device = device("base-control", &described).await;
        let inspect = ["bmc", "inspect", &device.url, "--user", USER, "--password-stdin", "--no-ipmi"];
        let limit = ["--within", "3", "--pin", device.spki_sha256.as_str()];
        let (line, inspect) = (CommandLine::new(), [inspect.as_slice(), &limit].concat());
        let run = line.run(&inspect, PASSWORD);
        let output = tokio::time::timeout(std::time::Duration::from_secs(40), run).await.unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(says), "{said}");
        assert_eq!(code == 0, said.contains("not read in time"), "{said}");
        assert_eq!(device.open_sessions(), 0, "{said}");
    }
}
