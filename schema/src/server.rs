//! Servers, their BMC endpoints, firmware components and sealed credentials.

use std::collections::{BTreeMap, BTreeSet};

use garde::Validate;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::{
    Timestamp,
    id::{BmcId, CredentialId, ExecutorId, JobId, RunId, ServerId, SiteId},
    version,
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
    /// The state in which the BMC says that this version does not run, e.g. `Updating` or `Disabled`.
    pub inactive: Option<String>,
    /// It is the firmware of the BMC itself, which runs the version that its manager shows.
    #[serde(default)]
    #[schema(required = false)]
    pub of_bmc: bool,
}

impl FirmwareComponent {
    /// The iDRAC's own firmware.
    pub fn is_idrac(&self) -> bool {
        self.key.starts_with("iDRAC.")
    }

    /// The BMC's own firmware.
    pub fn is_bmc(&self) -> bool {
        self.of_bmc || self.is_idrac()
    }

    /// Why this row does not prove that its version runs. `bmc_version`: what the BMC says to run itself. That may be
    /// written in another form, and then says only whether it is still the version `before`.
    pub fn doubt(&self, bmc_version: Option<&str>, before: Option<&str>) -> Option<String> {
        let Self { name, version, .. } = self;
        if let Some(state) = &self.inactive {
            return Some(format!("the BMC lists {name} {version} as {state}"));
        }
        let is_other = |running: &&str| {
            let is_before = before.is_some_and(|before| version::same(running, before));
            !version::same(running, version) && (is_before || version::alike(running, version))
        };
        let running = bmc_version.filter(|_| self.is_bmc()).filter(is_other)?;
        Some(format!("the BMC lists {name} {version}, but still runs {running}"))
    }
}

/// What an executor read from a server's BMC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Inventory {
    pub vendor: Option<String>,
    pub model: Option<String>,
    pub service_tag: Option<String>,
    /// UUID of the system, as the BMC shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub uuid: Option<String>,
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
    /// Name of that credential.
    pub credential: Option<String>,
    /// SHA-256 of the BMC's SubjectPublicKeyInfo, hex; approved by an operator.
    pub spki_sha256: Option<String>,
    /// The executor through which all traffic to this BMC goes.
    pub owner: Option<ExecutorId>,
    /// Name of that executor.
    pub owner_name: Option<String>,
    pub owner_epoch: u64,
}

/// How the latest run on a server ended, where that was not well.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LastFailure {
    pub run_id: RunId,
    pub job_id: JobId,
    /// When it ended.
    pub at: Timestamp,
    /// An error code, such as `bmc-unreachable`.
    pub code: String,
    pub detail: String,
}

/// A row of the fleet list.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ServerSummary {
    pub id: ServerId,
    pub site_id: SiteId,
    pub site: String,
    pub name: String,
    /// Address of its BMC, as registered.
    #[serde(default)]
    pub bmc_url: String,
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
    pub active_job: Option<JobId>,
    /// Absent where the latest finished run ended well, and where there was none.
    pub last_failure: Option<LastFailure>,
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

/// One server as a person or an inventory source registers it. Its name identifies it within the site. Where it is
/// registered already, what is not given stays as it is, and null or an empty list removes it.
#[derive(Debug, Clone, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerUpsert {
    #[garde(length(chars, min = 1, max = 120), custom(crate::check::server_name))]
    pub name: String,
    /// `https://host[:port]`, or `https://host[:port]/redfish/v1/Systems/<id>` where the service has several systems
    /// and this server is that one. A BMC that speaks IPMI only is `ipmi://host[:port]`. A service (host and port) is
    /// registered once in a site.
    #[garde(length(bytes, max = 300), custom(crate::check::bmc_address))]
    pub bmc_url: String,
    /// `host[:port]` of the same BMC for IPMI, port 623 if none is named: what Redfish cannot do or does not answer is
    /// then tried that way. None: never. Its credential must name `ipmi://host[:port]`, too.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, required = false)]
    #[garde(length(bytes, max = 300), inner(inner(custom(crate::check::ipmi_address))), custom(not_twice(&self.bmc_url)))]
    pub ipmi: Option<Option<String>>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<CredentialId>, required = false)]
    #[garde(skip)]
    pub credential_id: Option<Option<CredentialId>>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, required = false)]
    #[garde(inner(inner(custom(crate::check::sha256_hex))))]
    pub spki_sha256: Option<Option<String>>,
    #[serde(default, deserialize_with = "given_list", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>, required = false)]
    #[garde(length(max = 64), inner(inner(length(chars, min = 1, max = 64), custom(crate::check::visible))))]
    pub tags: Option<Vec<String>>,
}

/// A field that is there, be it null.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// A list that is there; null is an empty one.
fn given_list<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    Option::deserialize(from).map(|list| Some(list.unwrap_or_default()))
}

impl ServerUpsert {
    /// One item of a [`BulkUpsert`].
    ///
    /// # Errors
    /// What does not fit, in words for who wrote it.
    pub fn from_item(item: serde_json::Value) -> Result<Self, String> {
        if !item.is_object() {
            return Err("a server is an object".to_owned());
        }
        let server: Self = serde_json::from_value(item).map_err(|error| error.to_string())?;
        server.validate().map_err(|report| report.to_string().trim_end().replace('\n', "; "))?;
        let texts = [&server.name, &server.bmc_url].into_iter().chain(server.ipmi.iter().flatten());
        let texts = texts.chain(server.tags.iter().flatten());
        // Postgres holds none.
        let has_nul = { texts }.any(|text| text.contains('\0'));
        if has_nul { Err("a text contains a NUL character".to_owned()) } else { Ok(server) }
    }
}

/// A BMC that is reached by IPMI alone has one address.
fn not_twice(bmc_url: &str) -> impl FnOnce(&Option<Option<String>>, &()) -> garde::Result + '_ {
    move |ipmi, ()| match ipmi {
        Some(Some(_)) if bmc_url.starts_with("ipmi://") => Err(garde::Error::new(
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
    /// needed. Where the name is registered, a field that is not there stays as it is, and null or an empty list
    /// removes it; with another `bmc_url`, `ipmi` and `spki_sha256` that are not there are removed, too, because they
    /// are those of the former address. A `bmc_url` is `https://host[:port]`, or
    /// `https://host[:port]/redfish/v1/Systems/<id>` where the service has several systems, or `ipmi://host[:port]`;
    /// `ipmi` is `host[:port]`. Checked one by one: a bad one is refused and named, the others are stored.
    #[garde(length(min = 1, max = 1000))]
    pub servers: Vec<serde_json::Value>,
    /// Servers whose name is registered may get another `bmc_url`, or another `ipmi` or none in place of one.
    /// Otherwise such a one is refused: its runs and its credential would go to another machine, at once or with the
    /// next `ipmi`. For people who know that a server has moved, and for inventory sources that own the addresses. What
    /// was read at a former `bmc_url` is no longer shown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    #[garde(skip)]
    pub replace: bool,
}

/// The result of letting the credential of one BMC be tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TriedAgain {
    /// Whether there was anything to forget.
    pub changed: bool,
    /// That the credential stays suspended all the same, and which servers refused it.
    pub suspended: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BulkUpsertResult {
    pub created: u64,
    pub changed: u64,
    pub unchanged: u64,
    /// Name → what was set, removed or replaced, in words, of every changed server.
    #[serde(default)]
    #[schema(required = false)]
    pub changes: BTreeMap<String, String>,
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
    /// When a BMC last refused this version.
    pub refused_at: Option<Timestamp>,
    /// How many addresses this version is sealed for, as whoever sealed it says; absent: not said.
    pub address_count: Option<u32>,
    /// The first 20 of them at most.
    pub addresses: Option<Vec<String>>,
    /// When this version was stored.
    pub created_at: Timestamp,
}

/// Stores or replaces the credential of that name.
#[derive(Debug, Clone, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCredential {
    #[garde(skip)]
    pub site_id: SiteId,
    #[garde(length(chars, min = 1, max = 80), custom(crate::check::name))]
    pub name: String,
    /// Must be the current version + 1 (1 for a new name): it is also inside the sealed text.
    #[garde(range(min = 1))]
    pub version: u32,
    /// Base64 of an X25519-XSalsa20-Poly1305 sealed box to the site's public key; inside is JSON,
    /// [`SealedCredential`].
    #[garde(length(bytes, min = 64, max = 400_000))]
    pub sealed: String,
    /// [`SealedCredential::targets`] in the clear, by which plans say in advance what an executor would refuse. An
    /// executor goes by the sealed list alone and does not compare the two: who changes this one makes plans wrong, and
    /// opens no credential for any other BMC. Its JSON is at most as long as the sealed text. Absent: plans do not look
    /// at it; nor do they at more than 50,000 targets for a job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    #[garde(length(min = 1, max = 20_000), dive)]
    pub sealed_for: Option<Vec<CredentialTarget>>,
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

/// A BMC for which a credential may be used. An `ipmi://` address right after an `https://` one in the list is that
/// of the same BMC, and is used beside no other. Any other is a BMC of its own: those stand before the first
/// `https://` one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CredentialTarget {
    /// `https://host[:port]` or `ipmi://host[:port]`; a path is ignored.
    #[garde(length(bytes, max = 300), custom(crate::check::bmc_address))]
    pub url: String,
    /// SHA-256 of the SubjectPublicKeyInfo the BMC must show, hex. Only IPMI has none: there both sides prove by the
    /// password itself who they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    #[garde(inner(custom(crate::check::sha256_hex)), custom(pin_unless_ipmi(&self.url)))]
    pub spki_sha256: Option<String>,
}

impl CredentialTarget {
    /// Whether a credential can be sealed for it.
    pub fn is_valid(&self) -> bool {
        self.validate().is_ok()
    }
}

fn pin_unless_ipmi(url: &str) -> impl FnOnce(&Option<String>, &()) -> garde::Result + '_ {
    move |pin, ()| match (url.starts_with("ipmi://"), pin) {
        (false, None) => Err(garde::Error::new("an https:// address requires the key of its BMC")),
        (true, Some(_)) => Err(garde::Error::new("an ipmi:// address has no key")),
        _ => Ok(()),
    }
}

/// What a list of [`CredentialTarget`]s allows for each BMC. Plans and executors go by this one rule: a plan by the
/// list in the clear, an executor by the sealed one.
pub struct Coverage<'a> {
    by_origin: BTreeMap<String, Named<'a>>,
}

#[derive(Default)]
struct Named<'a> {
    pins: Vec<&'a str>,
    /// Origins of its addresses for IPMI.
    ipmi: BTreeSet<String>,
}

/// What may be done with a credential at one BMC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Covered<'a> {
    /// The key that it must show; none where its address is one for IPMI.
    pub spki_sha256: Option<&'a str>,
    /// Whether its other address, the one for IPMI, may be used as well.
    pub ipmi: bool,
}

/// Why a credential must not be used for a BMC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotCovered {
    Address,
    Pin,
}

impl<'a> Coverage<'a> {
    pub fn of(targets: &'a [CredentialTarget]) -> Self {
        let mut by_origin = BTreeMap::<String, Named<'a>>::new();
        // The https address right before an ipmi one: both are of the same BMC.
        let mut beside: Option<String> = None;
        for target in targets {
            let origin = origin(&target.url);
            let named = by_origin.entry(origin.clone()).or_default();
            if !target.url.starts_with("ipmi://") {
                named.pins.extend(target.spki_sha256.as_deref());
                beside = Some(origin);
            } else if let Some(named) = beside.take().and_then(|beside| by_origin.get_mut(&beside)) {
                named.ipmi.insert(origin);
            }
        }
        Self { by_origin }
    }

    /// What is allowed at the BMC with this address, key and address for IPMI, as registered.
    ///
    /// # Errors
    /// [`NotCovered`]: nothing.
    pub fn at(
        &self,
        url: &str,
        spki_sha256: Option<&str>,
        ipmi: Option<&str>,
    ) -> Result<Covered<'a>, NotCovered> {
        let named = self.by_origin.get(&origin(url)).ok_or(NotCovered::Address)?;
        if url.starts_with("ipmi://") {
            return Ok(Covered { spki_sha256: None, ipmi: false });
        }
        let pin = named.pins.iter().find(|pin| spki_sha256.is_none_or(|registered| registered == **pin));
        let pin = *pin.ok_or(NotCovered::Pin)?;
        let ipmi = ipmi.is_some_and(|address| named.ipmi.contains(&origin(&format!("ipmi://{address}"))));
        Ok(Covered { spki_sha256: Some(pin), ipmi })
    }
}

/// `https://host[:port]` or `ipmi://host[:port]` in one spelling, whatever the case of the host, a path or a
/// written-out default port.
pub fn origin(url: &str) -> String {
    let host = url.find("://").map_or(0, |scheme| scheme + 3);
    let origin = url.get(host..).and_then(|rest| rest.find('/')).and_then(|path| url.get(..host + path));
    let url = origin.unwrap_or(url).to_ascii_lowercase();
    let usual = if url.starts_with("ipmi://") { ":623" } else { ":443" };
    url.strip_suffix(usual).map_or_else(|| url.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str, pin: Option<&str>) -> CredentialTarget {
        CredentialTarget { url: url.into(), spki_sha256: pin.map(str::to_owned) }
    }

    #[test]
    fn a_credential_covers_the_addresses_and_keys_that_it_names() {
        let targets = [
            target("ipmi://bmc-9", None),
            target("https://BMC-1:443/redfish/v1/Systems/1", Some("aa")),
            target("ipmi://bmc-1:623", None),
            target("https://bmc-2", Some("bb")),
            target("https://bmc-2", Some("cc")),
            target("ipmi://[fd00::2]:6230", None),
            target("https://bmc-3", None),
            target("https://bmc-4", Some("dd")),
            target("ipmi://bmc-4", None),
            target("ipmi://bmc-5", None),
        ];
        let coverage = Coverage::of(&targets);
        let redfish = |pin, ipmi| Ok(Covered { spki_sha256: Some(pin), ipmi });
        let over_ipmi = Ok(Covered { spki_sha256: None, ipmi: false });
        for (url, pin, ipmi, expected) in [
            ("https://bmc-1", Some("aa"), None, redfish("aa", false)),
            ("https://bmc-1/redfish/v1/Systems/2", None, Some("BMC-1"), redfish("aa", true)),
            ("https://bmc-1:8443", Some("aa"), None, Err(NotCovered::Address)),
            ("https://bmc-1", Some("bb"), None, Err(NotCovered::Pin)),
            ("https://bmc-2", Some("cc"), Some("[fd00::2]:6230"), redfish("cc", true)),
            ("https://bmc-2", Some("bb"), Some("[fd00::2]"), redfish("bb", false)),
            // Of another BMC, and before any.
            ("https://bmc-2", None, Some("bmc-1"), redfish("bb", false)),
            ("https://bmc-1", None, Some("bmc-9"), redfish("aa", false)),
            ("https://bmc-3", None, None, Err(NotCovered::Pin)),
            ("https://bmc-4", None, Some("bmc-4"), redfish("dd", true)),
            // The second one after it is a BMC of its own.
            ("https://bmc-4", None, Some("bmc-5"), redfish("dd", false)),
            ("ipmi://bmc-5", None, None, over_ipmi),
            ("ipmi://bmc-9:623", None, None, over_ipmi),
            ("ipmi://bmc-1", None, None, over_ipmi),
            ("ipmi://bmc-2", None, None, Err(NotCovered::Address)),
            ("https://bmc-9", None, None, Err(NotCovered::Address)),
        ] {
            assert_eq!(coverage.at(url, pin, ipmi), expected, "{url} {pin:?} {ipmi:?}");
        }
    }

    #[test]
    fn a_target_has_a_pin_unless_it_is_spoken_to_over_ipmi() {
        let pin = "0".repeat(64);
        let valid = |url: &str, pin: Option<&str>| target(url, pin).is_valid();
        assert!(valid("https://10.0.0.1", Some(&pin)) && valid("ipmi://10.0.0.1", None));
        assert!(!valid("https://10.0.0.1", None) && !valid("https://10.0.0.1", Some("0")));
        assert!(!valid("ipmi://10.0.0.1", Some(&pin)) && !valid("10.0.0.1", None));
        assert!(!valid("https://10.0.0.1\u{202e}", Some(&pin)));
    }
}
