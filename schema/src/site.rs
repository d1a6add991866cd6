//! Sites: one private network each.

use garde::Validate;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Timestamp, id::SiteId};

/// What people set for a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SiteConfig {
    /// How long an executor's lease lasts without renewal, milliseconds.
    #[garde(range(min = 500, max = 600_000))]
    pub lease_ttl_ms: u32,
    /// At most this many mutating runs at once in the site.
    #[garde(range(min = 1, max = 10_000))]
    pub max_mutating_runs: u32,
    /// "Pause hardware operations": no new mutating run starts; what is in a BMC already is observed.
    #[garde(skip)]
    pub hardware_paused: bool,
    /// The person who approves a job must not be the one who created it.
    #[garde(skip)]
    pub second_person: bool,
}

impl Default for SiteConfig {
    fn default() -> Self {
        Self { lease_ttl_ms: 30_000, max_mutating_runs: 16, hardware_paused: false, second_person: false }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Site {
    pub id: SiteId,
    pub name: String,
    pub config: SiteConfig,
    /// The site's public key, base64 of 32 bytes X25519; credentials are sealed to it. Absent until the
    /// first executor has enrolled.
    pub public_key: Option<String>,
    pub servers: u64,
    pub executors_online: u64,
    /// Who has paused hardware operations, where they are paused.
    pub paused_by_name: Option<String>,
    /// Since when they are paused.
    pub paused_at: Option<Timestamp>,
    pub created_at: Timestamp,
    /// Grows with each change; the value for `If-Match`.
    pub version: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSite {
    /// 1 to 80 characters, no space at either end, none that cannot be seen, and neither `rackhand` nor `anonymous`.
    #[garde(custom(crate::check::site_name))]
    pub name: String,
    #[serde(default)]
    #[garde(dive)]
    pub config: SiteConfig,
}

/// A name that a new site may have.
///
/// # Errors
/// The rule, in words, for any other.
pub fn name(text: &str) -> Result<String, String> {
    crate::check::site_name(text, &()).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

/// Replaces a site's configuration.
#[derive(Debug, Clone, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SiteUpdate {
    #[garde(dive)]
    pub config: SiteConfig,
}
