//! The firmware a server carries, row by row, and what an update does to it.

use std::time::Duration;

use crate::package::PackageHeader;
use crate::spec::{ComponentSpec, Kind};

/// One component with its firmware.
#[derive(Clone, Debug)]
pub(crate) struct Component {
    pub(crate) spec: ComponentSpec,
    /// When the installed version was written, in simulated time; before the lab started if absent.
    pub(crate) installed: Option<Duration>,
    /// Its rows say so until then.
    pub(crate) updating_until: Duration,
    /// Destroyed in mid-flash; no longer in the inventory.
    pub(crate) dead: bool,
}

impl Component {
    pub(crate) fn new(spec: ComponentSpec) -> Self {
        Self { spec, installed: None, updating_until: Duration::ZERO, dead: false }
    }

    /// Whether a package's content is for this component.
    pub(crate) fn takes(&self, header: &PackageHeader) -> bool {
        if self.spec.kind == Kind::Fixed || self.dead {
            return false;
        }
        if header.software_id == "0" {
            return header.pci.is_some() && header.pci == self.spec.pci;
        }
        self.spec.software_id == header.software_id
    }

    pub(crate) fn install(&mut self, version: &str, now: Duration) {
        if self.spec.version != version {
            self.spec.previous = Some(std::mem::replace(&mut self.spec.version, version.to_owned()));
        }
        self.installed = Some(now);
    }

    /// The rows this component has in the firmware inventory.
    pub(crate) fn rows(&self, rich: bool) -> Vec<Row<'_>> {
        if self.dead {
            return Vec::new();
        }
        let mut rows = vec![Row { component: self, slot: Slot::Installed, version: &self.spec.version }];
        let kind = self.spec.kind;
        let has_current =
            matches!(kind, Kind::Bios | Kind::Backplane) || kind == Kind::Nic && self.spec.software_id != "0";
        if rich && has_current {
            rows.push(Row { component: self, slot: Slot::Current, version: &self.spec.version });
        }
        if let Some(previous) = &self.spec.previous {
            rows.push(Row { component: self, slot: Slot::Previous, version: previous });
        }
        rows
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    Installed,
    Current,
    Previous,
}

impl Slot {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Installed => "Installed",
            Self::Current => "Current",
            Self::Previous => "Previous",
        }
    }
}

/// One member of `UpdateService/FirmwareInventory`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    pub(crate) component: &'a Component,
    pub(crate) slot: Slot,
    pub(crate) version: &'a str,
}

impl Row<'_> {
    /// `Installed-159-1.8.2__BIOS.Setup.1-1`
    pub(crate) fn id(&self) -> String {
        let spec = &self.component.spec;
        format!("{}-{}-{}__{}", self.slot.word(), spec.software_id, self.version, spec.fqdd)
    }
}
