//! `executor.toml` in the data directory: how this process runs. What it may do stands in `policy.toml`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use rackhand_schema::has_password;

use crate::timing::Timing;

/// What is wrong with a file of settings, with its line, unless a password may stand there.
pub fn trouble(text: &str, error: &toml::de::Error) -> String {
    let shown = error.to_string();
    if !has_password(&shown) {
        return shown;
    }
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    format!(
        "line {} is wrong, or not valid TOML; an address has no user and password",
        before.matches('\n').count() + 1
    )
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Runs at once, reading ones included.
    pub capacity: u32,
    /// Certificates (PEM) that are trusted for the control plane and the package repository instead of the
    /// operating system's.
    pub ca_file: Option<PathBuf>,
    /// For simulated sites: devices live so many times as fast as the wall clock.
    pub device_time_scale: f64,
    /// Where packages are kept; `packages` in the data directory unless set.
    pub cache_dir: Option<PathBuf>,
    /// Most GiB of packages that are kept; those used longest ago go first.
    pub cache_gib: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { capacity: 64, ca_file: None, device_time_scale: 1.0, cache_dir: None, cache_gib: 16 }
    }
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("{file}: {why}")]
pub struct ConfigError {
    file: String,
    why: String,
}

impl Config {
    /// Reads `executor.toml` of `directory`; the default when there is none.
    ///
    /// # Errors
    /// When the file cannot be read or says something this version does not know.
    pub fn load(directory: &Path) -> Result<Self, ConfigError> {
        let path = directory.join("executor.toml");
        let error = |why: String| ConfigError { file: path.display().to_string(), why };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(other) => return Err(error(other.to_string())),
        };
        let config: Self = toml::from_str(&text).map_err(|why| error(trouble(&text, &why)))?;
        if config.capacity == 0 || config.capacity > 1000 {
            return Err(error("`capacity` is 1 to 1000".into()));
        }
        if !(1.0..=10_000.0).contains(&config.device_time_scale) {
            return Err(error("`device_time_scale` is 1 to 10000".into()));
        }
        Ok(config)
    }

    pub fn timing(&self) -> Timing {
        Timing::default().scaled(self.device_time_scale)
    }

    /// TLS towards the control plane and the repository.
    ///
    /// # Errors
    /// When no trust store can be read.
    pub fn tls(&self) -> Result<rustls::ClientConfig, ConfigError> {
        let error = |why: String| ConfigError { file: "TLS".into(), why };
        match &self.ca_file {
            Some(file) => crate::cloud::http::tls_with(file).map_err(error),
            None => crate::cloud::http::tls().map_err(|why| error(why.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_line_is_shown_unless_a_password_may_stand_there() {
        let said = |text: &str| trouble(text, &toml::from_str::<Config>(text).unwrap_err());
        assert!(said("capacity = 3\nfans = true").contains("fans"));
        let hidden = said("capacity = 3\nserver = \"https://ada:hunter2@x\"\n");
        assert!(!hidden.contains("hunter2") && hidden.starts_with("line 2 is wrong"), "{hidden}");
    }
}
