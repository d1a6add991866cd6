//! BMCs with the habits of BMCs in the field: the cases of `foreign`, served by a program that shares no code
//! with the client.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{process::Running, venv::environment};

/// One habit, and what is right to make of it.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    /// For the program, see its head.
    pub bmc: Value,
    /// `fails` or what each verb of `rackhand bmc` reads; what is not given is as of the case `control`.
    pub expected: BTreeMap<String, Value>,
}

/// Every case, by name.
pub fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("foreign");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: &Path| -> Value { serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap() };
    let members = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let control = read(&paths.iter().find(|path| path.ends_with("control.json")).unwrap().clone());
    let cases = paths.iter().map(|path| {
        let file = read(path);
        let mut expected = members(&control["expected"]);
        expected.extend(members(&file["expected"]));
        Case {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            bmc: file["bmc"].clone(),
            expected: expected.into_iter().collect(),
        }
    });
    cases.collect()
}

/// A running program with one BMC for each case.
pub struct QuirkyBmcs {
    _process: Running,
    _directory: TempDir,
    ports: BTreeMap<String, u16>,
}

impl QuirkyBmcs {
    pub const USER: &str = "root";

    pub async fn start(cases: &[Case], password: &str) -> Self {
        let python = environment("pyghmi", &["pyghmi==1.6.19"]).join("python");
        let directory = tempfile::Builder::new().prefix("rackhand-test-quirky-").tempdir().unwrap();
        let program = directory.path().join("quirky_bmc.py");
        fs::write(&program, include_str!("quirky_bmc.py")).unwrap();
        let log = directory.path().join("log");
        let (mut process, stdin) =
            Running::start_with_input(&python, &[&program], directory.path(), &log, Stdio::piped());
        let specs: BTreeMap<&str, Value> = cases
            .iter()
            .map(|case| {
                let mut bmc = case.bmc.clone();
                bmc["user"] = json!(Self::USER);
                bmc["password"] = json!(password);
                (case.name.as_str(), bmc)
            })
            .collect();
        stdin.unwrap().write_all(json!(specs).to_string().as_bytes()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        let ports = loop {
            let log = process.log();
            if let Some(line) = log.strip_suffix('\n') {
                break serde_json::from_str(line).unwrap_or_else(|_| panic!("{log}"));
            }
            assert!(!process.ended() && Instant::now() < deadline, "no BMCs: {log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        Self { _process: process, _directory: directory, ports }
    }

    pub fn address(&self, case: &Case) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports[&case.name]).into()
    }
}

/// Equal; numbers as far as binary fractions are.
pub fn same(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Array(found), Value::Array(expected)) => {
            found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| same(a, b))
        }
        (Value::Number(found), Value::Number(expected)) => {
            let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
            (found - expected).abs() <= 1e-9 * expected.abs().max(1.0)
        }
        _ => found == expected,
    }
}
