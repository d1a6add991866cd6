//! ipmitool 1.8.19 over `lanplus`.

use std::{
    ffi::OsStr,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
};

use super::{Access, Shown};
use crate::process::{Running, installed, run, succeed};

pub struct Ipmitool {
    access: Access,
    suite: u8,
    /// A file of `sdr dump`.
    records: Option<PathBuf>,
}

impl Ipmitool {
    /// As `user` with the highest privilege, cipher suite 3.
    pub fn new(address: SocketAddr, user: &'static str, password: &str) -> Self {
        let access = Access::new(address, user);
        access.secret("password", password);
        Self { access, suite: 3, records: None }
    }

    pub fn with_suite(self, suite: u8) -> Self {
        Self { suite, ..self }
    }

    /// Takes the sensors' records from a file instead of the BMC.
    pub fn with_records(self, file: &Path) -> Self {
        Self { records: Some(file.to_owned()), ..self }
    }

    /// The command line, ready to run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(installed("ipmitool", "ipmitool"));
        command
            .args(["-I", "lanplus", "-H", &self.access.address.ip().to_string()])
            .args(["-p", &self.access.address.port().to_string(), "-C", &self.suite.to_string()])
            .args(["-U", self.access.user, "-L", "ADMINISTRATOR", "-N", "1", "-R", "2", "-f"])
            .arg(self.access.directory.path().join("password"))
            .args(self.records.iter().flat_map(|file| [OsStr::new("-S"), file.as_os_str()]))
            .args(arguments)
            .env("TZ", "UTC");
        command
    }

    /// What it prints, if it succeeds.
    pub fn says(&self, arguments: &[&str]) -> String {
        succeed(&mut self.command(arguments))
    }

    pub fn succeeds(&self, arguments: &[&str]) -> bool {
        run(&mut self.command(arguments)).status.success()
    }

    /// `sol activate` on a terminal of its own: a process that lasts, and what types into it. Its output is
    /// its log.
    pub fn console(&self) -> (Running, ChildStdin) {
        let command = self.command(&["sol", "activate"]);
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let line: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
        let directory = self.access.directory.path();
        let (process, input) = Running::start_with_input(
            &installed("script", "bsdutils"),
            &["-qfec", &line.join(" "), "/dev/null"],
            directory,
            &directory.join("console"),
            Stdio::piped(),
        );
        (process, input.unwrap())
    }

    /// `raw`: the bytes of an answer.
    pub fn raw(&self, request: &[u8]) -> Vec<u8> {
        let bytes: Vec<_> = request.iter().map(|byte| format!("{byte:#04x}")).collect();
        let arguments: Vec<_> = std::iter::once("raw").chain(bytes.iter().map(String::as_str)).collect();
        hex(&self.says(&arguments))
    }

    /// `sensor -v`: every sensor by its number, thresholds as the BMC has them now.
    pub fn sensors(&self) -> Vec<(u8, Shown)> {
        let text = self.says(&["-v", "sensor", "list"]);
        blocks(&text).filter_map(|block| sensor(&block)).collect()
    }

    /// `sel list -v`, as blocks of named fields.
    pub fn sel(&self) -> Vec<Vec<(String, String)>> {
        let text = self.says(&["-v", "sel", "list"]);
        blocks(&text).map(|block| fields(&block)).filter(|fields| !fields.is_empty()).collect()
    }

    /// `fru print 0`.
    pub fn fru(&self) -> Vec<(String, String)> {
        fields(&self.says(&["fru", "print", "0"]))
    }

    /// `user list 1`, its columns: number, name, privilege as printed, for users with a name.
    pub fn users(&self) -> Vec<(u8, String, String)> {
        let text = self.says(&["-c", "user", "list", "1"]);
        let rows = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
        rows.filter_map(|row| {
            let [number, name, .., privilege] = row[..] else { return None };
            let number = number.parse().ok()?;
            (!name.is_empty()).then(|| (number, name.to_owned(), privilege.to_owned()))
        })
        .collect()
    }

    pub fn is_on(&self) -> bool {
        let text = self.says(&["chassis", "power", "status"]);
        match text.trim() {
            "Chassis Power is on" => true,
            "Chassis Power is off" => false,
            other => panic!("ipmitool says {other}"),
        }
    }

    pub fn device(&self) -> Vec<(String, String)> {
        fields(&self.says(&["mc", "info"]))
    }
}

fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("hex from ipmitool")).collect()
}

/// Paragraphs.
fn blocks(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split("\n\n").map(str::to_owned)
}

/// `name : value` lines.
pub fn fields(text: &str) -> Vec<(String, String)> {
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
}

/// The first field of that name.
fn field(block: &str, name: &str) -> String {
    let found = fields(block).into_iter().find(|(field, _)| field == name);
    found.map(|(_, value)| value).unwrap_or_default()
}

fn sensor(block: &str) -> Option<(u8, Shown)> {
    let id = field(block, "Sensor ID");
    let (name, number) = id.rsplit_once(" (0x")?;
    let number = u8::from_str_radix(number.trim_end_matches(')'), 16).ok()?;
    let reading = field(block, "Sensor Reading");
    // `42 (+/- 0) degrees C`
    let (value, unit) = match reading.split_once(" (") {
        Some((value, rest)) => {
            let unit = rest.split_once(") ").map_or("", |(_, unit)| unit);
            (Some(value.to_owned()), unit.to_owned())
        }
        None => (None, String::new()),
    };
    let threshold = |name: &str| {
        let printed = field(block, name);
        printed.parse::<f64>().is_ok().then_some(printed)
    };
    let shown = Shown {
        name: name.to_owned(),
        kind: ["Threshold", "Discrete"].map(|kind| field(block, &format!("Sensor Type ({kind})"))).concat(),
        value,
        unit,
        thresholds: [
            threshold("Lower Non-Critical"),
            threshold("Lower Critical"),
            threshold("Lower Non-Recoverable"),
            threshold("Upper Non-Critical"),
            threshold("Upper Critical"),
            threshold("Upper Non-Recoverable"),
        ],
        state: field(block, "Status") + &asserted(block),
    };
    Some((number, shown))
}

/// The states of a discrete sensor, each in brackets on a line of its own.
fn asserted(block: &str) -> String {
    let lines = block.lines().skip_while(|line| !line.contains("States Asserted"));
    let states = lines.filter_map(|line| line.split_once('[')?.1.split_once(']').map(|(state, _)| state));
    states.collect::<Vec<_>>().join(";")
}
