//! A planted password is nowhere but in memory: not in an argument, an environment, a log line, an error or a
//! debug output, whatever happens to the session.

use std::{
    fs, io,
    sync::{Arc, Mutex, PoisonError},
};

use rackhand_ipmi::{
    Carrier as _,
    client::Target,
    commands::device::GetDeviceId,
    session::{Config, SuitePolicy},
};
use rackhand_ipmi_tests::{
    Bmc, ForeignBmc, Hardware, Relay,
    hardware::ADMINISTRATOR,
    pyghmi::Mode,
    reference::{FreeIpmi, Ipmitool},
    relay::{Ways, Weather},
};
use tracing_subscriber::filter::LevelFilter;

use crate::{
    ours::{config, connect},
    parity::Read,
};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

/// The password as people and debuggers write it.
fn writings(password: &str) -> [String; 4] {
    let bytes = password.as_bytes();
    let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [
        password.to_owned(),
        hex.concat(),
        hex.join(" "),
        format!("{bytes:?}").trim_matches(['[', ']']).to_owned(),
    ]
}

pub fn holds_none(what: &str, text: &str, passwords: &[&str]) {
    for password in passwords {
        for written in writings(password) {
            assert!(
                !text.to_lowercase().contains(&written.to_lowercase()),
                "{what} holds a password: {text}"
            );
        }
    }
}

/// One thread, so that this subscriber sees all of it.
#[tokio::test]
async fn a_password_is_in_no_log_error_argument_or_environment() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    tracing::trace!("listening");
    let bmc = Bmc::start(Hardware::numbered(77)).await;
    let password = bmc.hardware.password.clone();
    let wrong = "Kq7-planted-wrong";
    let passwords = [password.as_str(), wrong, ForeignBmc::PASSWORD];
    let target = Target { address: bmc.address(), config: config(ADMINISTRATOR, &password) };
    holds_none("a target", &format!("{target:?} {target:#?}"), &passwords);
    // A lossy way, so that repetitions are logged too.
    let weather = Ways::both(Weather { dropped: 5, duplicated: 10, ..Weather::default() });
    let relay = Relay::start(bmc.address(), 9, weather).await;
    let client = connect(relay.address(), target.config.clone()).await.unwrap();
    holds_none("what was opened", &format!("{:?}", client.opened()), &passwords);
    Read::from(&client).await;
    relay.inject(&[0xff; 40]).await;
    client.run(&GetDeviceId).await.unwrap();
    processes_hold_none(&passwords);
    let ipmitool = Ipmitool::new(bmc.address(), ADMINISTRATOR, &password);
    let command = format!("{:?}", ipmitool.command(&["mc", "info"]));
    let freeipmi = FreeIpmi::new(bmc.address(), ADMINISTRATOR, &password);
    holds_none("a command line", &command, &passwords);
    holds_none("a command line", &format!("{:?}", freeipmi.command("bmc-info", &[])), &passwords);
    relay.set(Ways::default());
    client.close().await;
    let mut errors = Vec::new();
    errors.push(connect(bmc.address(), config(ADMINISTRATOR, wrong)).await.err().unwrap());
    errors.push(connect(bmc.address(), config("nobody", &password)).await.err().unwrap());
    for mode in [Mode::WrongRakp, Mode::Downgrade] {
        let foreign = ForeignBmc::start(mode).await;
        let suites = SuitePolicy::Strict;
        let config = Config { suites, ..config(ForeignBmc::USER, ForeignBmc::PASSWORD) };
        errors.push(connect(foreign.address(), config).await.err().unwrap());
        holds_none("pyghmi's log", &foreign.log(), &passwords);
        processes_hold_none(&passwords);
    }
    for error in errors {
        holds_none("an error", &format!("{error} {error:?}"), &passwords);
    }
    let text = log.text();
    assert!(text.contains("listening"), "the log was kept");
    holds_none("the log", &text, &passwords);
}

/// Every process of this machine that we may look into.
pub fn processes_hold_none(passwords: &[&str]) {
    let mut seen = 0;
    for process in fs::read_dir("/proc").unwrap().flatten() {
        for file in ["cmdline", "environ"] {
            // It may have ended, or be somebody else's.
            let Ok(bytes) = fs::read(process.path().join(file)) else { continue };
            seen += 1;
            holds_none(file, &String::from_utf8_lossy(&bytes), passwords);
        }
    }
    assert!(seen > 4, "this process and the BMC");
}
