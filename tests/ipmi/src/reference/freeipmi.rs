//! FreeIPMI 1.6.10 over `LAN_2_0`.

use std::{net::SocketAddr, process::Command};

use super::{Access, Shown};
use crate::process::{installed, run, succeed};

pub struct FreeIpmi {
    access: Access,
}

impl FreeIpmi {
    /// As `user` with the highest privilege, cipher suite 3. `opensesspriv`: `ipmi_sim` wants the privilege
    /// in the open-session request.
    pub fn new(address: SocketAddr, user: &'static str, password: &str) -> Self {
        let access = Access::new(address, user);
        access.secret(
            "freeipmi.conf",
            &format!(
                "username {user}\npassword {password}\ndriver-type LAN_2_0\ncipher-suite-id 3\n\
                 privilege-level ADMIN\nworkaround-flags opensesspriv\n"
            ),
        );
        Self { access }
    }

    pub fn command(&self, tool: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(installed(tool, "freeipmi-tools"));
        let directory = self.access.directory.path();
        command.arg(format!("--config-file={}", directory.join("freeipmi.conf").display()));
        command.arg(format!("--hostname={}", self.access.address));
        if matches!(tool, "ipmi-sensors" | "ipmi-sel" | "ipmi-fru") {
            command.arg(format!("--sdr-cache-directory={}", directory.display()));
            command.args(["--sdr-cache-recreate", "--quiet-cache"]);
        }
        command.args(arguments).env("TZ", "UTC");
        command
    }

    pub fn says(&self, tool: &str, arguments: &[&str]) -> String {
        succeed(&mut self.command(tool, arguments))
    }

    /// Every sensor, in the order of the repository.
    pub fn sensors(&self) -> Vec<Shown> {
        let arguments = [
            "--comma-separated-output",
            "--output-sensor-thresholds",
            "--no-header-output",
            "--shared-sensors",
        ];
        let text = self.says("ipmi-sensors", &arguments);
        text.lines().map(|line| sensor(&line.splitn(12, ',').collect::<Vec<_>>())).collect()
    }

    /// Rows of the event log: id, date, time, name, type, direction, event.
    pub fn sel(&self) -> Vec<Vec<String>> {
        let arguments = ["--comma-separated-output", "--no-header-output", "-vv", "--interpret-oem-data"];
        let text = self.says("ipmi-sel", &arguments);
        text.lines().map(|line| line.splitn(7, ',').map(str::to_owned).collect()).collect()
    }

    /// The inventory of device 0.
    pub fn fru(&self) -> Vec<(String, String)> {
        super::ipmitool::fields(&self.says("ipmi-fru", &["--device-id=0"]))
    }

    pub fn is_on(&self) -> bool {
        let text = self.says("ipmi-power", &["--stat"]);
        match text.trim().rsplit(' ').next() {
            Some("on") => true,
            Some("off") => false,
            other => panic!("ipmi-power says {other:?}"),
        }
    }

    pub fn device(&self) -> Vec<(String, String)> {
        super::ipmitool::fields(&self.says("bmc-info", &[]))
    }

    /// A section of `bmc-config --checkout`, as pairs.
    pub fn setting(&self, section: &str) -> Vec<(String, String)> {
        // It fails in the end for what `ipmi_sim` does not tell; what it read before that is printed.
        let output = run(&mut self.command("bmc-config", &["--checkout", &format!("--section={section}")]));
        let text = String::from_utf8_lossy(&output.stdout);
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#') && !line.is_empty());
        lines
            .filter_map(|line| line.split_once(char::is_whitespace))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect()
    }
}

fn sensor(columns: &[&str]) -> Shown {
    let [_, name, kind, value, unit, lnr, lc, lnc, unc, uc, unr, state] = columns else {
        panic!("ipmi-sensors says {columns:?}")
    };
    let number = |printed: &&str| (*printed != "N/A").then(|| (*printed).to_owned());
    Shown {
        name: (*name).to_owned(),
        kind: (*kind).to_owned(),
        value: number(value),
        unit: (*unit).to_owned(),
        thresholds: [number(lnc), number(lc), number(lnr), number(unc), number(uc), number(unr)],
        state: (*state).to_owned(),
    }
}
