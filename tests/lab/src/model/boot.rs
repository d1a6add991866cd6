//! What the host boots from next: one setting, whichever protocol sets or reads it.
//!
//! Redfish shows it as `ComputerSystem.Boot.BootSourceOverride…` (DSP0268, ComputerSystem). A `Once` is used
//! up by the next boot.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::bmc::Bmc;
use super::door::Call;
use super::messages::{self, Message};

/// `BootSourceOverrideTarget` as these BMCs list it.
const TARGETS: [&str; 8] = ["None", "Pxe", "Cd", "Hdd", "BiosSetup", "Utilities", "UefiTarget", "UefiHttp"];
const TIMES: [&str; 3] = ["Disabled", "Once", "Continuous"];

/// The override, in Redfish's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BootOverride {
    pub(crate) target: String,
    /// `Disabled`, `Once` or `Continuous`.
    pub(crate) enabled: String,
    pub(crate) mode: String,
}

impl Default for BootOverride {
    fn default() -> Self {
        Self { target: "None".to_owned(), enabled: "Disabled".to_owned(), mode: "UEFI".to_owned() }
    }
}

impl BootOverride {
    pub(crate) fn is_on(&self) -> bool {
        self.enabled != "Disabled" && self.target != "None"
    }

    /// The host boots: where from, as Redfish names it.
    pub(crate) fn consume(&mut self) -> String {
        let source = if self.is_on() { self.target.clone() } else { "None".to_owned() };
        if self.enabled == "Once" {
            *self = Self { mode: self.mode.clone(), ..Self::default() };
        }
        source
    }
}

impl Bmc {
    /// `Boot` of the system.
    pub(crate) fn boot_document(&self) -> Value {
        let mut boot = json!({
            "BootOrder": ["Boot0000", "Boot0001"],
            "BootOrder@odata.count": 2,
            "BootSourceOverrideEnabled": self.boot_override.enabled,
            "BootSourceOverrideMode": self.boot_override.mode,
            "BootSourceOverrideTarget": self.boot_override.target,
            "BootSourceOverrideTarget@Redfish.AllowableValues": TARGETS,
            "UefiTargetBootSourceOverride": null,
        });
        // The recorded R750 does not list its modes.
        if !self.legacy_boot()
            && let Some(boot) = boot.as_object_mut()
        {
            boot.insert("BootSourceOverrideMode@Redfish.AllowableValues".to_owned(), json!(["UEFI"]));
        }
        boot
    }

    /// iDRAC10 boots by UEFI only.
    pub(crate) fn legacy_boot(&self) -> bool {
        self.spec.model != crate::spec::Model::R770
    }

    /// PATCH of the system: its boot override, and nothing else.
    pub(crate) fn patch_system(&mut self, call: &Call) -> Response<Bytes> {
        let Some(body) = self.object(&call.body) else { return self.bad_json() };
        let Some(boot) = body.get("Boot").and_then(Value::as_object) else { return *self.missing("Boot") };
        let mut wanted = self.boot_override.clone();
        for (name, value) in boot {
            let modes: &[&str] = if self.legacy_boot() { &["Legacy", "UEFI"] } else { &["UEFI"] };
            let (slot, allowed): (&mut String, &[&str]) = match name.as_str() {
                "BootSourceOverrideTarget" => (&mut wanted.target, &TARGETS),
                "BootSourceOverrideEnabled" => (&mut wanted.enabled, &TIMES),
                "BootSourceOverrideMode" => (&mut wanted.mode, modes),
                _ => {
                    let message = Message::info("SYS428", format!("{name} cannot be set here."));
                    return self.error(StatusCode::BAD_REQUEST, &message);
                }
            };
            match value.as_str().filter(|value| allowed.contains(value)) {
                Some(value) => value.clone_into(slot),
                None => return *self.not_acceptable(value.as_str().unwrap_or_default(), name),
            }
        }
        // Without a target there is nothing to override, and without an override no target.
        if wanted.target == "None" || wanted.enabled == "Disabled" {
            wanted = BootOverride { mode: wanted.mode, ..BootOverride::default() };
        }
        if self.faults.take("setting_ignored").is_none() {
            self.boot_override = wanted;
        }
        messages::no_content()
    }
}
