//! Servers, their BMC endpoints, firmware components and sealed credentials.

use std::collections::BTreeMap;

use garde::Validate;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Timestamp,
    id::{BmcId, CredentialId, ExecutorId, ServerId, SiteId},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PowerState {
    On,
    Off,
    PoweringOn,
    PoweringOff,
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    Ok,
    Warning,
    Critical,
    Unknown,
}

/// One piece of firmware as installed now. Rows of the BMC for previous or staged versions are not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FirmwareComponent {
    /// Stable within the server: the vendor's component address, e.g. `BIOS.Setup.1-1` or `NIC.Slot.5-1`.
    pub key: String,
    pub name: String,
    /// The vendor's id of the firmware family, matched against packages (Dell `SoftwareId`, e.g. `159`).
    pub software_id: Option<String>,
    pub version: String,
    pub updateable: bool,
}

/// What an executor read from a server's BMC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Inventory {
    pub vendor: Option<String>,
    pub model: Option<String>,
    pub service_tag: Option<String>,
    /// Of the BMC: `idrac8`, `idrac9`, `idrac10` or another vendor's name.
    pub generation: Option<String>,
    pub bmc_version: Option<String>,
    pub power: PowerState,
    pub health: Health,
    /// Empty also where it could not be read: then `unreadable` names it.
    pub components: Vec<FirmwareComponent>,
    /// What the BMC is able to do, e.g. `simple_update`, `multipart_update`, `job_queue`.
    pub capabilities: Vec<String>,
    /// Subsystem → why it could not be read.
    pub unreadable: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BmcEndpoint {
    pub id: BmcId,
    pub url: String,
    /// `host[:port]` of the same BMC for IPMI, where it may be spoken to that way, too.
    pub ipmi: Option<String>,
    pub credential_id: Option<CredentialId>,
    /// SHA-256 of the BMC's SubjectPublicKeyInfo, hex; approved by an operator.
    pub spki_sha256: Option<String>,
    /// The executor through which all traffic to this BMC goes.
    pub owner: Option<ExecutorId>,
    pub owner_epoch: u64,
}

/// A row of the fleet list.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ServerSummary {
    pub id: ServerId,
    pub site_id: SiteId,
    pub site: String,
    pub name: String,
    pub vendor: Option<String>,
    pub model: Option<String>,
    pub service_tag: Option<String>,
    pub generation: Option<String>,
    pub bios_version: Option<String>,
    pub bmc_version: Option<String>,
    pub power: PowerState,
    pub health: Health,
    pub tags: Vec<String>,
    /// When the BMC was last read; absent: never.
    pub seen_at: Option<Timestamp>,
    /// The job that works on this server right now.
    pub active_job: Option<crate::id::JobId>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Server {
    #[serde(flatten)]
    pub summary: ServerSummary,
    pub bmc: BmcEndpoint,
    pub components: Vec<FirmwareComponent>,
    pub capabilities: Vec<String>,
    pub unreadable: BTreeMap<String, String>,
    pub created_at: Timestamp,
    pub version: u64,
}

/// How many servers of the filtered list have each value.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ServerCounts {
    pub total: u64,
    pub power: BTreeMap<String, u64>,
    pub health: BTreeMap<String, u64>,
    pub generation: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ServerList {
    pub items: Vec<ServerSummary>,
    pub next: Option<String>,
    pub counts: ServerCounts,
}

/// One server as a person or a sync agent registers it. Its name identifies it within the site.
#[derive(Debug, Clone, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerUpsert {
    #[garde(length(chars, min = 1, max = 120))]
    pub name: String,
    /// `https://host[:port]`, or `https://host[:port]/redfish/v1/Systems/<id>` where the service has several systems
    /// and this server is that one. A BMC that speaks IPMI only is `ipmi://host[:port]`. A service (host and port) is
    /// registered once in a site.
    #[garde(length(bytes, max = 300), custom(crate::check::bmc_address))]
    pub bmc_url: String,
    /// `host[:port]` of the same BMC for IPMI, port 623 if none is named: what Redfish cannot do or does not answer is
    /// then tried that way. Absent: never. Its credential must name `ipmi://host[:port]`, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    #[garde(length(bytes, max = 300), inner(custom(crate::check::ipmi_address)), custom(not_twice(&self.bmc_url)))]
    pub ipmi: Option<String>,
    #[garde(skip)]
    pub credential_id: Option<CredentialId>,
    #[garde(inner(custom(crate::check::sha256_hex)))]
    pub spki_sha256: Option<String>,
    #[serde(default)]
    #[garde(length(max = 64), inner(length(chars, min = 1, max = 64)))]
    pub tags: Vec<String>,
}

/// A BMC that is reached by IPMI alone has one address.
fn not_twice(bmc_url: &str) -> impl FnOnce(&Option<String>, &()) -> garde::Result + '_ {
    move |ipmi, ()| match ipmi {
        Some(_) if bmc_url.starts_with("ipmi://") => Err(garde::Error::new(
            "belongs to a BMC with an https:// address; this one is reached by IPMI anyway",
        )),
        _ => Ok(()),
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BulkUpsert {
    #[garde(skip)]
    pub site_id: SiteId,
    /// Objects with `name`, `bmc_url`, `ipmi`, `credential_id`, `spki_sha256` and `tags`, of which the first two are
    /// needed. A `bmc_url` is `https://host[:port]`, or `https://host[:port]/redfish/v1/Systems/<id>` where the service
    /// has several systems, or `ipmi://host[:port]`; `ipmi` is `host[:port]`. Checked one by one: a bad one is refused and named, the others are stored.
    #[garde(length(min = 1, max = 1000))]
    pub servers: Vec<serde_json::Value>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BulkUpsertResult {
    pub created: u64,
    pub changed: u64,
    pub unchanged: u64,
    pub refused: Vec<RefusedItem>,
    /// Name → id of every stored server.
    pub ids: BTreeMap<String, ServerId>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RefusedItem {
    /// Position in the request, from 0.
    pub index: usize,
    pub detail: String,
}

/// A credential as the cloud knows it: ciphertext and the name of the key it is sealed to.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Credential {
    pub id: CredentialId,
    pub site_id: SiteId,
    pub name: String,
    /// Grows with each replacement; failures are counted per version.
    pub version: u32,
    /// Stopped after rejections on two BMCs or twice on one, until a new version comes.
    pub suspended: bool,
    pub created_at: Timestamp,
}

/// Stores or replaces the credential of that name.
#[derive(Debug, Clone, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCredential {
    #[garde(skip)]
    pub site_id: SiteId,
    #[garde(length(chars, min = 1, max = 80))]
    pub name: String,
    /// Must be the current version + 1 (1 for a new name): it is also inside the sealed text.
    #[garde(range(min = 1))]
    pub version: u32,
    /// Base64 of an X25519-XSalsa20-Poly1305 sealed box to the site's public key; inside is JSON,
    /// [`SealedCredential`].
    #[garde(length(bytes, min = 64, max = 400_000))]
    pub sealed: String,
}

/// The plaintext inside a sealed credential. An executor refuses it for anything it does not name.
///
/// There is no `Debug`: this is the one type that holds a password.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedCredential {
    pub site_id: SiteId,
    pub name: String,
    pub version: u32,
    pub username: String,
    pub password: String,
    pub targets: Vec<CredentialTarget>,
}

/// A BMC for which a credential may be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialTarget {
    /// As in [`ServerUpsert::bmc_url`], or `ipmi://host[:port]`; scheme, host and port count.
    pub url: String,
    /// SHA-256 of the SubjectPublicKeyInfo the BMC must show, hex. Only IPMI has none: there both sides prove by the
    /// password itself who they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spki_sha256: Option<String>,
}
