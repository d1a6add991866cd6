//! `rackhand bmc power`: reads and changes the power of a host, and reads it back.

use std::time::Duration;

use clap::{Args, ValueEnum};
use rackhand_ipmi::{
    Carrier as _,
    commands::chassis::{ChassisControl, ChassisStatus, GetChassisStatus, RestorePolicy},
};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::ipmi::{Access, Bmc};
use crate::{
    error::{Failure, Result},
    output::{Output, word},
};

#[derive(Debug, Args)]
pub struct Power {
    #[command(flatten)]
    access: Access,
    /// What to do.
    #[arg(value_enum, default_value_t = Action::Status)]
    action: Action,
    /// Do not ask before the host is stopped.
    #[arg(long)]
    yes: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    /// Read it.
    Status,
    /// Switch it on.
    On,
    /// At once, without asking the operating system.
    Off,
    /// Off and on again.
    Cycle,
    /// Restart at once, without asking the operating system; the power stays on.
    Reset,
    /// Ask the operating system to shut down.
    Soft,
    /// Send a diagnostic interrupt: many systems write a dump and restart.
    Diag,
}

/// The JSON of `bmc power --json`.
#[derive(Debug, Serialize)]
struct Report {
    action: Action,
    power: &'static str,
    /// What is wrong: `overload`, `power_fault`, …
    faults: Vec<&'static str>,
    /// What happens when mains power comes back.
    restore: &'static str,
}

/// A host that was switched shows it within this time.
const SHOWS: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(500);

pub async fn run(power: Power, out: Output) -> Result<()> {
    let Power { access, action, yes } = power;
    if !matches!(action, Action::Status | Action::On) {
        access.confirm(yes, &format!("`{}` disturbs or stops what runs on the host.", word(&action)))?;
    }
    let report = access.session(async |bmc: &Bmc| act(bmc, action).await).await?;
    out.one(&report, report.power, || {
        let mut text = match action {
            Action::Status => String::new(),
            action => format!("`{}` was sent\n", word(&action)),
        };
        text.push_str(&format!("power {}\n", report.power));
        for fault in &report.faults {
            text.push_str(&format!("fault {fault}\n"));
        }
        text
    })
}

async fn act(bmc: &Bmc, action: Action) -> Result<Report> {
    let control = match action {
        Action::Status => None,
        Action::On => Some(ChassisControl::PowerUp),
        Action::Off => Some(ChassisControl::PowerDown),
        Action::Cycle => Some(ChassisControl::PowerCycle),
        Action::Reset => Some(ChassisControl::HardReset),
        Action::Soft => Some(ChassisControl::SoftShutdown),
        Action::Diag => Some(ChassisControl::Diagnostic),
    };
    if let Some(control) = control {
        bmc.client.run(&control).await.map_err(|error| bmc.failed(&error))?;
    }
    let expected = match action {
        // A BMC may read off for a while in between.
        Action::On | Action::Cycle | Action::Reset => Some(true),
        Action::Off => Some(false),
        _ => None,
    };
    let deadline = Instant::now() + SHOWS;
    loop {
        let status = bmc.client.run(&GetChassisStatus).await.map_err(|error| bmc.failed(&error))?;
        if expected.is_none_or(|on| on == status.power_on) {
            return Ok(report(action, &status));
        }
        if Instant::now() >= deadline {
            let text = format!(
                "power {} was accepted, but after {} s the power is still {}",
                word(&action),
                SHOWS.as_secs(),
                on_off(status.power_on)
            );
            return Err(Failure::TimedOut(bmc.says(text)));
        }
        sleep(POLL).await;
    }
}

fn report(action: Action, status: &ChassisStatus) -> Report {
    let faults = [
        ("overload", status.overload),
        ("interlock", status.interlock),
        ("power_fault", status.power_fault),
        ("control_fault", status.control_fault),
        ("drive_fault", status.drive_fault),
        ("cooling_fault", status.cooling_fault),
        ("intrusion", status.intrusion),
    ];
    Report {
        action,
        power: on_off(status.power_on),
        faults: faults.into_iter().filter(|(_, is)| *is).map(|(name, _)| name).collect(),
        restore: match status.restore {
            RestorePolicy::StayOff => "stay_off",
            RestorePolicy::Previous => "previous",
            RestorePolicy::TurnOn => "turn_on",
            RestorePolicy::Unknown => "unknown",
        },
    }
}

fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}
