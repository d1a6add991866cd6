//! BMCs by pyghmi (OpenStack), for cipher suite 17 and for what a dishonest server does.

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{process::Running, sim::free_port, venv::environment};

/// How the server behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Suites 17 and 3, as proposed.
    Honest,
    /// Answers every proposal with suite 3.
    Downgrade,
    /// Refuses 17 in the open-session answer; speaks 3.
    Refuse17,
    /// Does not know the password: its RAKP 2 is wrong.
    WrongRakp,
    /// Answers the first three commands with "node busy".
    Busy,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Honest => "honest",
            Self::Downgrade => "downgrade",
            Self::Refuse17 => "refuse17",
            Self::WrongRakp => "wrong-rakp",
            Self::Busy => "busy",
        }
    }
}

pub struct ForeignBmc {
    process: Running,
    port: u16,
    _directory: TempDir,
}

impl ForeignBmc {
    pub const USER: &str = "admin";
    pub const PASSWORD: &str = "Fr3md-planted";

    pub async fn start(mode: Mode) -> Self {
        let python = environment("pyghmi", &["pyghmi==1.6.19"]).join("python");
        let directory = tempfile::Builder::new().prefix("rackhand-test-pyghmi-").tempdir().unwrap();
        let program = directory.path().join("pyghmi_bmc.py");
        fs::write(&program, include_str!("pyghmi_bmc.py")).unwrap();
        let port = free_port();
        let arguments = [program.display().to_string(), port.to_string(), mode.name().to_owned()];
        let log = directory.path().join("events");
        let (process, stdin) =
            Running::start_with_input(&python, &arguments, directory.path(), &log, Stdio::piped());
        let account = serde_json::json!({ "user": Self::USER, "password": Self::PASSWORD });
        stdin.unwrap().write_all(account.to_string().as_bytes()).unwrap();
        let mut bmc = Self { process, port, _directory: directory };
        let deadline = Instant::now() + Duration::from_secs(60);
        while bmc.events().is_empty() {
            assert!(!bmc.process.ended() && Instant::now() < deadline, "no pyghmi: {}", bmc.process.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bmc
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// What it saw, in order.
    pub fn events(&self) -> Vec<Value> {
        self.process.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// How many events of a kind there were: `open`, `rakp1`, `rakp3`, `session`.
    pub fn count(&self, kind: &str) -> usize {
        self.events().iter().filter(|event| event["event"] == kind).count()
    }

    /// The suites that were proposed, in order.
    pub fn proposals(&self) -> Vec<u64> {
        self.events().iter().filter_map(|event| event["proposed"].as_u64()).collect()
    }

    /// When each command arrived, seconds on a clock of the server.
    pub fn commands(&self) -> Vec<f64> {
        self.events().iter().filter_map(|event| event["at"].as_f64()).collect()
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    pub fn process_id(&self) -> u32 {
        self.process.id()
    }
}
