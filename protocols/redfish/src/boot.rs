//! What the system boots from next (DSP0268, ComputerSystem, `Boot`).
//!
//! Only the override is handled, by the values that the service declares; the boot order is left alone. A BMC may
//! answer with success before it shows the new value, or forget it: read it back.

use http::Method;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::{
    client::{Call, Client},
    discovery::ROOT,
    document::{at, text_at, texts_at},
    error::Error,
};

/// The override as it stands, in the service's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Boot {
    /// `BootSourceOverrideTarget`, such as `Pxe`; `None` is a value, too.
    pub target: Option<String>,
    /// `BootSourceOverrideEnabled`: `Disabled`, `Once` or `Continuous`.
    pub enabled: Option<String>,
    /// `BootSourceOverrideMode`: `UEFI` or `Legacy`.
    pub mode: Option<String>,
    /// Declared values; empty where the service does not say.
    pub targets: Vec<String>,
    pub modes: Vec<String>,
}

/// What is to be set; absent members stay as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootChange {
    pub target: String,
    pub enabled: String,
    pub mode: Option<String>,
}

impl Client {
    /// The boot override now.
    ///
    /// # Errors
    /// The system cannot be read; `Unsupported` when it has no `Boot`.
    pub async fn boot(&self) -> Result<Boot, Error> {
        let system = self.system_document().await?;
        let boot = at(&system.value, &["Boot"]);
        let boot = boot.ok_or_else(|| self.not_declared(ROOT, "a boot override"))?;
        if text_at(boot, "BootSourceOverrideEnabled").is_none() {
            return Err(self.not_declared(ROOT, "a boot override"));
        }
        Ok(Boot {
            target: text_at(boot, "BootSourceOverrideTarget"),
            enabled: text_at(boot, "BootSourceOverrideEnabled"),
            mode: text_at(boot, "BootSourceOverrideMode"),
            targets: texts_at(boot, "BootSourceOverrideTarget@Redfish.AllowableValues"),
            modes: texts_at(boot, "BootSourceOverrideMode@Redfish.AllowableValues"),
        })
    }

    /// Sets the boot override by a PATCH of the system.
    ///
    /// # Errors
    /// `Unsupported` when a value is not among the declared ones: nothing was sent. `Ambiguous` when the answer was
    /// lost.
    pub async fn set_boot(&self, change: &BootChange, deadline: Instant) -> Result<(), Error> {
        let began = Instant::now();
        let (path, declared) =
            self.before(deadline, async { Ok((self.system_path().await?, self.boot().await?)) }).await?;
        let unknown =
            |values: &[String], value: &str| !values.is_empty() && !values.iter().any(|v| v == value);
        if unknown(&declared.targets, &change.target) {
            return Err(self.not_declared(&path, &format!("the boot source {}", change.target)));
        }
        let mut boot = Map::new();
        boot.insert("BootSourceOverrideEnabled".to_owned(), json!(change.enabled));
        boot.insert("BootSourceOverrideTarget".to_owned(), json!(change.target));
        if let Some(mode) = &change.mode {
            if unknown(&declared.modes, mode) {
                return Err(self.not_declared(&path, &format!("the boot mode {mode}")));
            }
            boot.insert("BootSourceOverrideMode".to_owned(), json!(mode));
        }
        let body = json!({ "Boot": Value::Object(boot) });
        let call = Call { method: Method::PATCH, began, ..Call::post(&path, &body, deadline) };
        self.exchange(call).await.map(drop)
    }
}
