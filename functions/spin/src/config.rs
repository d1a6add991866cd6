//! Spin variables → [`Host`]. `spin.toml` says what each one is for.
//!
//! Read once for each instance: Spin ends instances after a while, so a changed variable is seen soon.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use rackhand_functions::{
    Host,
    auth::token::SigningKeys,
    database_url::{LIKE, allows, hosts, settled},
    forwarded::Network,
    host::{InPlace, NoEntropy, Settings, public_address},
};
use spin_sdk::variables;

use crate::{database::SpinPostgres, polling::Polling};

const DEFAULT_MAX_WAIT_MS: u64 = 20_000;
const LONGEST_WAIT_MS: u64 = 60_000;
const DEFAULT_POLL_MS: u64 = 250;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("set the variable `{0}`; until then every request fails")]
    Missing(&'static str),
    /// Never says what the value is: it may be a secret.
    #[error("set the variable `{0}` to {1}; until then every request fails")]
    Wrong(&'static str, &'static str),
    #[error("the variable `{0}` cannot be read: {1}")]
    Unreadable(&'static str, variables::Error),
}

/// What an instance runs with.
pub struct Configured {
    pub host: Arc<Host>,
    /// Whose `X-Forwarded-For` says who the client is.
    pub trusted_proxies: Vec<Network>,
}

/// The instance's own; made by the first request that finds all it needs.
pub async fn configured() -> Result<&'static Configured, ConfigError> {
    static CONFIGURED: OnceLock<Configured> = OnceLock::new();
    if let Some(configured) = CONFIGURED.get() {
        return Ok(configured);
    }
    let url = required("database_url").await?;
    let address = settled(&url, "rackhand-spin").ok_or(ConfigError::Wrong("database_url", LIKE))?;
    // Spin itself would refuse each connection, and tell its own log alone.
    let allowed = required("database_host").await?;
    if !hosts(&url).is_some_and(|hosts| hosts.split(',').all(|host| allows(&allowed, host))) {
        return Err(ConfigError::Wrong("database_host", "host and port of `database_url`"));
    }
    let proxies = optional("trusted_proxies").await?.unwrap_or_default();
    let trusted_proxies = proxies
        .split(',')
        .map(str::trim)
        .filter(|network| !network.is_empty())
        .map(str::parse)
        .collect::<Result<Vec<Network>, _>>()
        .map_err(|_| {
            ConfigError::Wrong("trusted_proxies", "networks with commas between: `10.0.0.0/8,fd00::/8`")
        })?;
    let ca = optional("database_ca").await?;
    let keys = SigningKeys::from_text(&required("signing_key").await?)
        .map_err(|_| ConfigError::Wrong("signing_key", "64 hex digits, or a PKCS#8 PEM of an Ed25519 key"))?;
    let wrong = || ConfigError::Wrong("public_url", "scheme, host and port: `https://rackhand.example`");
    let public_url = optional("public_url").await?;
    let public_url = public_url.map(|url| public_address(&url).ok_or_else(wrong)).transpose()?;
    let max_wait = number("max_wait_ms", DEFAULT_MAX_WAIT_MS, 0..=LONGEST_WAIT_MS, "0 to 60000").await?;
    let tick_token = optional("tick_token").await?;
    let poll = number("poll_ms", DEFAULT_POLL_MS, 20..=10_000, "20 to 10000").await?;
    let host = Host {
        database: Box::new(SpinPostgres { address, ca }),
        notifier: Box::new(Polling { first: poll }),
        now_unix_ms,
        work: Box::new(InPlace),
        entropy: |bytes| getrandom::fill(bytes).map_err(|_| NoEntropy),
        settings: Settings { version: env!("CARGO_PKG_VERSION"), public_url, max_wait, tick_token },
        keys,
        process: Arc::default(),
    };
    Ok(CONFIGURED.get_or_init(|| Configured { host: Arc::new(host), trusted_proxies }))
}

/// Empty is as good as absent: `spin.toml` gives optional variables an empty default.
async fn optional(name: &'static str) -> Result<Option<String>, ConfigError> {
    match variables::get(name).await {
        Ok(value) => Ok(Some(value.trim().to_owned()).filter(|value| !value.is_empty())),
        Err(variables::Error::Undefined(_)) => Ok(None),
        Err(error) => Err(ConfigError::Unreadable(name, error)),
    }
}

async fn required(name: &'static str) -> Result<String, ConfigError> {
    optional(name).await?.ok_or(ConfigError::Missing(name))
}

async fn number(
    name: &'static str,
    default: u64,
    allowed: std::ops::RangeInclusive<u64>,
    expected: &'static str,
) -> Result<Duration, ConfigError> {
    let Some(text) = optional(name).await? else { return Ok(Duration::from_millis(default)) };
    let value = text.parse().ok().filter(|value| allowed.contains(value));
    value.map(Duration::from_millis).ok_or(ConfigError::Wrong(name, expected))
}

#[expect(clippy::disallowed_methods, reason = "the one place where the host's clock is read, to date tokens")]
fn now_unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
