//! The host behind the BMC: power, boots, and the boot that runs staged updates.

use std::time::Duration;

use super::bmc::Bmc;
use super::job::State;
use super::messages::Message;
use crate::fault::Fault;
use crate::ipmi;
use crate::spec::Kind;

/// What the host is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Off,
    ShuttingDown {
        until: Duration,
        then_boot: bool,
    },
    /// Power-on self test on the way into the Lifecycle Controller.
    BootingToUpdate {
        until: Duration,
    },
    /// The Lifecycle Controller runs staged jobs, one after the other.
    Updating,
    Post {
        until: Duration,
    },
    Running,
    /// The BIOS is destroyed: on, and never out of POST.
    Dead,
}

impl Host {
    pub(crate) fn is_on(self) -> bool {
        self != Self::Off
    }

    pub(crate) fn is_updating(self) -> bool {
        self == Self::Updating
    }

    pub(crate) fn due(self) -> Option<Duration> {
        match self {
            Self::ShuttingDown { until, .. } | Self::BootingToUpdate { until } | Self::Post { until } => {
                Some(until)
            }
            _ => None,
        }
    }

    /// `ServerStatus` of `GetRemoteServicesAPIStatus`.
    pub(crate) fn server_status(self) -> &'static str {
        match self {
            Self::Off => "PoweredOff",
            Self::BootingToUpdate { .. } | Self::Post { .. } | Self::Dead => "InPOST",
            Self::Updating => "AutomatedTaskExecution",
            Self::Running | Self::ShuttingDown { .. } => "OutOfPOST",
        }
    }

    /// `BootProgress.LastState`.
    pub(crate) fn boot_progress(self) -> &'static str {
        match self {
            Self::Off => "None",
            Self::BootingToUpdate { .. } | Self::Post { .. } | Self::Dead => {
                "SystemHardwareInitializationComplete"
            }
            Self::Updating => "SetupEntered",
            Self::Running | Self::ShuttingDown { .. } => "OSRunning",
        }
    }
}

impl Bmc {
    /// An accepted reset request: it takes effect a little later.
    pub(crate) fn request_power(&mut self, reset: &str) {
        if self.faults.take("power_ignored").is_some() || reset == "Nmi" {
            return;
        }
        let delay = match self.faults.take("slow_power") {
            Some(Fault::SlowPower { seconds }) => Duration::from_secs(seconds),
            _ => self.timings.power_latency,
        };
        self.pending_power = Some((self.now + delay, reset.to_owned()));
    }

    pub(crate) fn apply_power(&mut self, reset: &str) {
        *self.counters.host_resets.entry(reset.to_owned()).or_default() += 1;
        self.log_lc("Audit", Message::info("RAC1195", format!("Requested power action {reset}.")));
        let on = self.host.is_on();
        match reset {
            "On" if !on => self.boot(),
            "ForceOff" if on => self.power_off(),
            "ForceRestart" | "PowerCycle" if on => {
                self.power_off();
                self.boot();
            }
            "GracefulShutdown" if on => self.ask_host_down(false),
            "PushPowerButton" if on => self.ask_host_down(false),
            "PushPowerButton" => self.boot(),
            "GracefulRestart" if on => self.ask_host_down(true),
            _ => {}
        }
    }

    /// An operating system takes its time; anything earlier than that just loses power.
    fn ask_host_down(&mut self, then_boot: bool) {
        match self.host {
            Host::Running => {
                self.host = Host::ShuttingDown { until: self.now + self.timings.shutdown, then_boot };
            }
            Host::ShuttingDown { until, .. } => self.host = Host::ShuttingDown { until, then_boot },
            _ => {
                self.power_off();
                if then_boot {
                    self.boot();
                }
            }
        }
    }

    pub(crate) fn power_off(&mut self) {
        self.brick_what_flashes();
        if self.host.is_on() {
            let message = Message::info("SYS1001", "The system is turned off.");
            self.sel.add_event(self.now, "System Health", message, ipmi::TURNED_OFF);
        }
        self.host = Host::Off;
        self.log_lc("System Health", Message::info("SYS1001", "The system is turned off."));
    }

    pub(crate) fn boot(&mut self) {
        self.log_lc("System Health", Message::info("SYS1000", "The system is turned on."));
        let message = Message::info("SYS1000", "The system is turned on.");
        self.sel.add_event(self.now, "System Health", message, ipmi::TURNED_ON);
        self.last_boot = self.now;
        let bios = self.version_of(Kind::Bios).to_owned();
        let product = self.spec.model.product();
        self.ipmi.serial(&format!("\r\n{product} BIOS {bios}\r\nMemory test: passed\r\n"));
        let source = self.boot_override.consume();
        self.boots.push(source);
        if self.components.iter().any(|at| at.dead && at.spec.kind == Kind::Bios) {
            self.host = Host::Dead;
            return;
        }
        self.finish_pending_reboots();
        let stuck = self.faults.is_on("stuck_scheduled");
        self.host = if self.next_scheduled().is_some() && !stuck {
            Host::BootingToUpdate { until: self.now + self.timings.boot_to_update }
        } else {
            Host::Post { until: self.now + self.timings.post }
        };
    }

    /// Jobs that only wanted a reboot get their version now.
    fn finish_pending_reboots(&mut self) {
        for index in 0..self.jobs.len() {
            let Some(job) = self.jobs.get(index).filter(|job| job.state == State::RebootPending) else {
                continue;
            };
            if let Some(header) = job.header().cloned() {
                let targets = job.targets.clone();
                self.install(index, &header, &targets);
            }
        }
    }

    /// The BMC reboots the host to apply what it staged. A host that is off stays off.
    pub(crate) fn self_reboot(&mut self) {
        if matches!(self.host, Host::Off | Host::Dead | Host::Updating | Host::BootingToUpdate { .. }) {
            return;
        }
        self.counters.self_reboots += 1;
        self.ask_host_down(true);
    }

    pub(crate) fn step_host(&mut self) {
        match self.host {
            Host::ShuttingDown { then_boot, .. } => {
                self.power_off();
                if then_boot {
                    self.boot();
                }
            }
            Host::BootingToUpdate { .. } => {
                self.host = Host::Updating;
                self.ipmi.serial("Lifecycle Controller: updates are being installed\r\n");
                self.boot_continues();
            }
            Host::Post { .. } => {
                self.host = Host::Running;
                self.ipmi.serial("Starting the operating system\r\nReady.\r\nlab$ ");
                self.log_lc("System Health", Message::info("SYS1003", "The operating system is starting."));
            }
            Host::Off | Host::Updating | Host::Running | Host::Dead => {}
        }
    }

    /// Runs the next staged job, or goes on to the operating system.
    pub(crate) fn boot_continues(&mut self) {
        if !self.host.is_updating() {
            return;
        }
        match self.next_scheduled() {
            Some(index) => self.start_flash(index),
            None => self.host = Host::Post { until: self.now + self.timings.post },
        }
    }
}
