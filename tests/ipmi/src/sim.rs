//! BMCs by OpenIPMI's `ipmi_sim`: one process of about 6 MB (most of it shared) for each.
//!
//! It speaks RMCP+ with cipher suites 0 to 3 and refuses 17. Power and boot device are files that a small
//! script reads and writes; readings that a test changes are files too.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    time::{Instant, timeout},
};

use crate::{
    Hardware,
    hardware::stored,
    process::{Running, installed, succeed},
};

/// The file under the state directory that holds the SDRs, SEL and users of the BMC at 20h.
const NAME: &str = "bmc";
/// A start takes 20 ms; a hundred at once on two cores a second or two.
const START: Duration = Duration::from_secs(30);

pub struct Bmc {
    pub hardware: Hardware,
    process: Running,
    port: u16,
    directory: TempDir,
    console: Option<TcpListener>,
}

/// What else a BMC is to have.
#[derive(Clone, Copy, Default)]
pub struct With {
    /// Serial-over-LAN; [`Bmc::console`] is the server's end.
    pub console: bool,
    /// A sensor whose reading [`Bmc::set_reading`] changes.
    pub live: Option<u8>,
}

impl Bmc {
    pub async fn start(hardware: Hardware) -> Self {
        Self::start_with(hardware, With::default()).await
    }

    pub async fn start_with(hardware: Hardware, with: With) -> Self {
        let mut bmc = Self::launch(hardware, with).await;
        bmc.answers().await;
        bmc
    }

    /// `count` BMCs, each numbered, side by side.
    pub async fn fleet(count: usize) -> Vec<Self> {
        let mut fleet = Vec::new();
        for index in 0..count {
            fleet.push(Self::launch(Hardware::numbered(index), With::default()).await);
        }
        for bmc in &mut fleet {
            bmc.answers().await;
        }
        fleet
    }

    async fn launch(hardware: Hardware, with: With) -> Self {
        let directory = tempfile::Builder::new().prefix("rackhand-test-ipmi-").tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let state = at("state").join("ipmi_sim").join(NAME);
        fs::create_dir_all(&state).unwrap();
        fs::write(at("fru"), hardware.fru.encoded()).unwrap();
        fs::write(at("power"), if hardware.on { "1" } else { "0" }).unwrap();
        fs::write(at("boot"), hardware.boot).unwrap();
        fs::write(at("chassis"), CHASSIS).unwrap();
        fs::set_permissions(at("chassis"), fs::Permissions::from_mode(0o755)).unwrap();
        if let Some(number) = with.live {
            let sensor = hardware.sensors.iter().find(|sensor| sensor.number == number);
            let analog = sensor.and_then(crate::hardware::Sensor::analog).expect("a sensor with a value");
            fs::write(at(&format!("sensor-{number}")), analog.raw.to_string()).unwrap();
        }
        fs::write(at("sdrs"), hardware.sdr_source()).unwrap();
        fs::write(state.join("sel.20"), stored(&hardware.events)).unwrap();
        succeed(
            Command::new(installed("sdrcomp", "openipmi"))
                .arg("-o")
                .arg(state.join("sdr.20.main"))
                .arg(at("sdrs")),
        );
        fs::write(at("bmc.emu"), hardware.commands(directory.path())).unwrap();
        let console = if with.console {
            Some(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap())
        } else {
            None
        };
        let serial = console.as_ref().map(|listener| listener.local_addr().unwrap().port());
        let port = free_port();
        fs::write(at("lan.conf"), hardware.lan_conf(NAME, port, serial, &at("chassis"))).unwrap();
        let process = start(directory.path());
        Self { hardware, process, port, directory, console }
    }

    /// Waits until it answers a presence ping (section 13.2.4).
    async fn answers(&mut self) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let deadline = Instant::now() + START;
        let mut answer = [0; 64];
        loop {
            assert!(!self.process.ended(), "ipmi_sim ended: {}", self.process.log());
            assert!(Instant::now() < deadline, "ipmi_sim does not answer: {}", self.process.log());
            let _ = socket.send_to(&PING, self.address()).await;
            let received = timeout(Duration::from_millis(50), socket.recv(&mut answer)).await;
            if matches!(received, Ok(Ok(length)) if length >= 12) {
                return;
            }
        }
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Whether it ended by itself.
    pub fn ended(&mut self) -> bool {
        self.process.ended()
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    /// A file of its own, such as `power`, `boot` or `chassis.log`.
    pub fn file(&self, name: &str) -> String {
        fs::read_to_string(self.directory.path().join(name)).unwrap_or_default().trim().to_owned()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Changes the raw reading of the sensor that was started as live; the BMC sees it within 0.1 s.
    pub fn set_reading(&self, number: u8, raw: u8) {
        let new = self.path("reading");
        fs::write(&new, raw.to_string()).unwrap();
        fs::rename(new, self.path(&format!("sensor-{number}"))).unwrap();
    }

    /// The server's end of the serial line; a BMC that has just been started connects within a second.
    pub async fn console(&self) -> TcpStream {
        let listener = self.console.as_ref().expect("started with a console");
        let (stream, _) =
            timeout(START, listener.accept()).await.expect("the BMC opens its serial line").unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Ends it without a word, as a power cut does.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Stops it from answering, without an end: a BMC that hangs. [`Bmc::resume`] lets it go on.
    pub fn freeze(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let id = i32::try_from(self.process.id()).unwrap();
        let id = rustix::process::Pid::from_raw(id).unwrap();
        rustix::process::kill_process(id, signal).unwrap();
    }

    /// Starts it again at the same address, after [`Bmc::kill`]: a BMC that was reset, its sessions
    /// forgotten.
    pub async fn restart(&mut self) {
        self.process.kill();
        self.process = start(self.directory.path());
        self.answers().await;
    }
}

fn start(directory: &Path) -> Running {
    let arguments = ["-n", "-c", "lan.conf", "-f", "bmc.emu", "-s", "state"];
    Running::start(&installed("ipmi_sim", "openipmi"), &arguments, directory, &directory.join("log"))
}

/// A UDP port that nobody has now.
pub fn free_port() -> u16 {
    std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// RMCP header without acknowledgement, ASF, IANA 4542, presence ping with tag 7.
const PING: [u8; 12] = [0x06, 0x00, 0xff, 0x06, 0x00, 0x00, 0x11, 0xbe, 0x80, 0x07, 0x00, 0x00];

/// Called as `chassis get power`, `chassis set boot "pxe"`; notes what it was asked to do.
const CHASSIS: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
case "$1 $2" in
"get power") echo "power:$(cat power)" ;;
"get boot") echo "boot:$(cat boot)" ;;
"set power") echo "power $3" >> chassis.log; printf %s "$3" > power ;;
"set boot") echo "boot $3" >> chassis.log; printf %s "$3" > boot ;;
*) echo "$2 $3" >> chassis.log ;;
esac
"#;
