//! `rackhand servers …`

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand, ValueEnum};
use rackhand_schema::{
    id::{CredentialId, SiteId},
    server::{
        BmcEndpoint, BulkUpsert, BulkUpsertResult, Credential, LastFailure, Server, ServerSummary, TriedAgain,
    },
};
use serde_json::{Value, json};

use crate::{
    args::at_least_one,
    client::Client,
    credentials,
    doctor::quoted,
    error::{Failure, Result, help, json_trouble, typed},
    output::{Column, Output, dash, moment, printable, printable_lines, say, word},
    resolve,
    secret::confirm,
};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// The fleet, filtered.
    #[command(mut_arg("site", |site| site.help(
        "Only servers of this site, by name or id. Without it those of all sites"
    )))]
    #[command(after_help = help!("servers list --health critical", "servers list --model R750 -o csv"))]
    List {
        #[command(flatten)]
        filter: Filter,
        /// Maximum number of servers. Without it all are shown.
        #[arg(long, value_name = "N", value_parser = at_least_one)]
        limit: Option<usize>,
    },
    /// One server with its firmware.
    #[command(after_help = help!("servers show bmc-01"))]
    Show {
        /// Name, service tag or id.
        server: String,
        /// Name or id of the site; not needed where there is only one.
        #[arg(long)]
        site: Option<String>,
    },
    /// Register a server, or change how its BMC is reached.
    /// What is not named for a server that is registered stays as it is.
    #[command(after_help = help!("servers add bmc-01 --bmc https://10.0.0.1 --pin HEX --credential root", "servers add bmc-02 --bmc ipmi://10.0.0.2 --credential ipmi --tag rack:7", "servers add bmc-02 --bmc ipmi://10.0.0.2 --clear tags"))]
    Add(Add),
    /// Register servers from a JSON list of objects with name, bmc_url, ipmi, spki_sha256, credential (its name),
    /// tags. A bmc_url is `https://host[:port]`, `https://host[:port]/redfish/v1/Systems/<id>` or
    /// `ipmi://host[:port]`, ipmi is `host[:port]`. What an object does not name stays as it is, null or an empty
    /// list removes it. One server per BMC: where a Redfish service has several systems, one of them.
    #[command(after_help = help!("servers import servers.json --credential root"))]
    Import {
        /// The file; `rackhand-executor pins` makes one.
        file: PathBuf,
        /// Name or id of the site; not needed where there is only one.
        #[arg(long)]
        site: Option<String>,
        /// The credential of every server that names none.
        #[arg(long, value_name = "NAME")]
        credential: Option<String>,
        /// Servers that are registered already and have another BMC or IPMI address in the file have moved there, and
        /// IPMI addresses that are null in it are removed. Otherwise they are refused, and the others are registered.
        #[arg(long)]
        replace: bool,
    },
    /// Let executors present the credential to the BMC of a server again, after it was refused or not answered. The
    /// BMC's refusals no longer count, nor do those of BMCs that no longer use the credential: if fewer than two by others
    /// are left, it is no longer suspended for any server.
    #[command(after_help = help!("servers try-again bmc-01"))]
    TryAgain {
        /// Name, service tag or id.
        server: String,
        /// Name or id of the site; not needed where there is only one.
        #[arg(long)]
        site: Option<String>,
    },
    /// Take a server out of the fleet; nothing is done to the machine.
    #[command(after_help = help!("servers remove bmc-01 --yes"))]
    Remove {
        /// Name, service tag or id.
        server: String,
        /// Name or id of the site; not needed where there is only one.
        #[arg(long)]
        site: Option<String>,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// The words of the API for [`PowerState`](rackhand_schema::server::PowerState).
const POWER: [&str; 5] = ["on", "off", "powering_on", "powering_off", "unknown"];
/// The words of the API for [`Health`](rackhand_schema::server::Health).
const HEALTH: [&str; 4] = ["ok", "warning", "critical", "unknown"];

/// The filters of the fleet list, also used to choose the targets of a job.
#[derive(Clone, Debug, Default, Args)]
pub struct Filter {
    /// Name or id of the site; not needed where there is only one.
    #[arg(long)]
    pub site: Option<String>,
    /// Part of name, service tag or model.
    #[arg(short, long, value_name = "TEXT")]
    query: Option<String>,
    /// Only servers in this power state.
    #[arg(long, value_name = "STATE", value_parser = POWER)]
    power: Option<String>,
    /// Only servers of this health.
    #[arg(long, value_name = "HEALTH", value_parser = HEALTH)]
    health: Option<String>,
    /// Only servers whose BMC is an `idrac8`, `idrac9`, `idrac10`, …
    #[arg(long)]
    generation: Option<String>,
    /// Only servers of this model, in any case. A list also takes a part, where no model is called that: `r750` finds
    /// `PowerEdge R750` and `PowerEdge R750xs`; a job is for a whole model.
    #[arg(long)]
    model: Option<String>,
    /// Only servers with this tag.
    #[arg(long)]
    tag: Option<String>,
}

impl Filter {
    /// Whether it says more than the site.
    pub fn is_narrow(&self) -> bool {
        [&self.query, &self.power, &self.health, &self.generation, &self.model, &self.tag]
            .into_iter()
            .any(Option::is_some)
    }

    /// What to say where no filter was given and there is no server.
    fn none(&self) -> String {
        match &self.site {
            Some(site) => none_in(site),
            None => "there are no servers; `rackhand servers import FILE` registers them".to_owned(),
        }
    }

    pub async fn list(&self, client: &Client, limit: Option<usize>) -> Result<Vec<ServerSummary>> {
        let site = resolve::site_id(client, self.site.as_deref()).await?.map(|site| site.to_string());
        let query: Vec<(&str, String)> = [
            ("site", &site),
            ("q", &self.query),
            ("power", &self.power),
            ("health", &self.health),
            ("generation", &self.generation),
            ("model", &self.model),
            ("tag", &self.tag),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.clone().map(|value| (name, value)))
        .collect();
        client.all(&["v1", "servers"], &query, limit).await
    }

    /// The servers that a job is for. A model is the whole one here: `R750` is also a part of `R750xs`, which needs other
    /// firmware.
    ///
    /// # Errors
    /// Also when `--model` is the whole of no model that was found.
    pub async fn targets(&self, client: &Client) -> Result<Vec<ServerSummary>> {
        let mut found = self.list(client, None).await?;
        let Some(named) = self.model.as_ref().map(|model| model.to_lowercase()) else { return Ok(found) };
        let models: BTreeSet<String> = found.iter().filter_map(|server| server.model.clone()).collect();
        let is_named = |model: &str| model.to_lowercase() == named;
        if !found.is_empty() && !models.iter().any(|model| is_named(model)) {
            let options = models.iter().map(|model| format!("--model {}", quoted(model))).collect::<Vec<_>>();
            return Err(Failure::Usage(format!(
                "a job is for a whole model; give {}. Nothing was planned",
                options.join(" or ")
            )));
        }
        found.retain(|server| server.model.as_deref().is_some_and(is_named));
        Ok(found)
    }
}

/// What to say of a site without servers.
pub fn none_in(site: &str) -> String {
    format!(
        "site {site} has no servers; `rackhand servers import FILE --site {}` registers them",
        quoted(site)
    )
}

/// The option that names the site again, for a command that is shown.
fn site_option(site: Option<&str>) -> String {
    site.map_or_else(String::new, |site| format!(" --site {}", quoted(site)))
}

#[derive(Debug, Args)]
pub struct Add {
    /// Name of the server.
    name: String,
    /// `https://host[:port]`; where the BMC has several systems, `https://host[:port]/redfish/v1/Systems/<id>`;
    /// where it has no Redfish, `ipmi://host[:port]`
    #[arg(long, value_name = "URL")]
    bmc: String,
    /// The same BMC's address for IPMI, used when Redfish is unreachable or does not support the operation. The
    /// credential must name `ipmi://host[:port]`, too.
    #[arg(long, value_name = "HOST[:PORT]")]
    ipmi: Option<String>,
    /// Name or id of the site; not needed where there is only one.
    #[arg(long)]
    site: Option<String>,
    /// Name of the credential.
    #[arg(long, value_name = "NAME")]
    credential: Option<String>,
    /// TLS key that the BMC must show, as its SHA-256 in 64 hex digits; `rackhand bmc inspect` prints it.
    #[arg(long, value_name = "HEX")]
    pin: Option<String>,
    /// A tag; repeat for more. They take the place of those that the server has.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Remove what is registered; repeat for more.
    #[arg(long, value_name = "WHAT", value_enum)]
    clear: Vec<Clear>,
    /// The server of this name has moved to another BMC address.
    #[arg(long)]
    replace: bool,
}

impl Add {
    /// What a new address means for the credential.
    fn moved(&self) -> Option<String> {
        let name = self.credential.as_ref().filter(|_| self.replace)?;
        Some(format!(
            "executors present {name} only to addresses that it was sealed for. If {} is not one of them, seal it \
             again with `rackhand credentials set {}{}`",
            self.bmc,
            quoted(name),
            site_option(self.site.as_deref())
        ))
    }

    /// What it says of the server: what was not given is not named, and what is to be removed is empty.
    fn row(&self, credential: Option<CredentialId>) -> Result<Value> {
        let mut row = serde_json::Map::new();
        row.insert("name".to_owned(), json!(self.name));
        row.insert("bmc_url".to_owned(), json!(self.bmc));
        let tags = (!self.tags.is_empty()).then_some(&self.tags);
        for (what, flag, name, given, empty) in [
            (Clear::Ipmi, "--ipmi", "ipmi", self.ipmi.as_ref().map(|ipmi| json!(ipmi)), Value::Null),
            (Clear::Pin, "--pin", "spki_sha256", self.pin.as_ref().map(|pin| json!(pin)), Value::Null),
            (Clear::Credential, "--credential", "credential_id", credential.map(|id| json!(id)), Value::Null),
            (Clear::Tags, "--tag", "tags", tags.map(|tags| json!(tags)), json!([])),
        ] {
            let value = match (given, self.clear.contains(&what)) {
                (Some(_), true) => {
                    return Err(Failure::Usage(format!("give either {flag} or --clear {}", what.word())));
                }
                (None, true) => empty,
                (Some(given), false) => given,
                (None, false) => continue,
            };
            row.insert(name.to_owned(), value);
        }
        Ok(Value::Object(row))
    }
}

/// What can be removed from a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Clear {
    Ipmi,
    Pin,
    Credential,
    Tags,
}

impl Clear {
    const fn word(self) -> &'static str {
        match self {
            Self::Ipmi => "ipmi",
            Self::Pin => "pin",
            Self::Credential => "credential",
            Self::Tags => "tags",
        }
    }
}

/// Why a server was not added. What is not valid is wrong usage, all else is at odds with what is registered.
async fn not_added(client: &Client, site: SiteId, name: &str, detail: &str) -> Failure {
    // What stands where a server of this name is meant to move.
    const KEPT: &str = " It was not changed.";
    let is_there = detail.contains(KEPT) || is_registered(client, site, name).await;
    let became = if is_there { "changed" } else { "registered" };
    match as_typed(detail) {
        Some(wrong) => Failure::Usage(format!("{name} was not {became}: {wrong}")),
        None => Failure::Conflict(format!("{name} was not {became}: {}", detail.replace(KEPT, ""))),
    }
}

/// Where that cannot be read: no.
async fn is_registered(client: &Client, site: SiteId, name: &str) -> bool {
    let query = [("site", site.to_string()), ("q", name.to_owned())];
    let found: Vec<ServerSummary> = client.all(&["v1", "servers"], &query, None).await.unwrap_or_default();
    found.iter().any(|server| server.name == name)
}

/// A refusal that names fields, with the options that fill them. `None`: it names none.
fn as_typed(detail: &str) -> Option<String> {
    let field_of = |part: &str| -> Option<String> {
        let (field, wrong) = part.split_once(": ")?;
        let name = field.split(['[', '.']).next()?;
        ENTRY.contains(&name).then(|| format!("{}: {wrong}", typed(field)))
    };
    let mut parts = detail.split("; ");
    let first = field_of(parts.next()?)?;
    let rest = parts.map(|part| field_of(part).unwrap_or_else(|| part.to_owned()));
    Some(std::iter::once(first).chain(rest).collect::<Vec<_>>().join("; "))
}

/// What a plan will block this server for, and the way out.
fn incomplete(name: &str, bmc: &BmcEndpoint, site: Option<&str>) -> Option<String> {
    let mut missing = Vec::new();
    let mut first = Vec::new();
    if bmc.spki_sha256.is_none() && !bmc.url.starts_with("ipmi://") {
        missing.push(("TLS key", "--pin HEX"));
        first.push(format!("`rackhand-executor pins {}` at the site prints the key", quoted(&bmc.url)));
    }
    if bmc.credential_id.is_none() {
        missing.push(("credential", "--credential NAME"));
        first.push(format!("`rackhand credentials set NAME{}` makes a credential", site_option(site)));
    }
    let (what, flags): (Vec<_>, Vec<_>) = missing.into_iter().unzip();
    (!what.is_empty()).then(|| {
        format!(
            "{name} has no {}: every plan leaves it blocked. {}; then run this command again with {}",
            what.join(" and no "),
            first.join(", "),
            flags.join(" ")
        )
    })
}

const COLUMNS: [Column<ServerSummary>; 16] = [
    Column::new("NAME", |server: &ServerSummary| server.name.clone()),
    Column::new("MODEL", |server| dash(server.model.as_deref())),
    Column::new("SERVICE TAG", |server| dash(server.service_tag.as_deref())),
    Column::new("POWER", |server| word(&server.power)),
    Column::new("HEALTH", |server| word(&server.health)),
    Column::new("BIOS", |server| dash(server.bios_version.as_deref())),
    Column::new("BMC FW", |server| dash(server.bmc_version.as_deref())),
    Column::new("SEEN", |server| dash(server.seen_at.as_deref().map(moment))),
    Column::new("LAST FAILURE", |server| dash(server.last_failure.as_ref().map(|last| &last.code))),
    Column::wide("BMC ADDRESS", |server| server.bmc_url.clone()),
    Column::wide("GENERATION", |server| dash(server.generation.as_deref())),
    Column::wide("VENDOR", |server| dash(server.vendor.as_deref())),
    Column::varied("SITE", |server| server.site.clone()),
    Column::wide("TAGS", |server| server.tags.join(" ")),
    Column::wide("JOB", |server| dash(server.active_job)),
    Column::wide("ID", |server| server.id.to_string()),
];

pub async fn run(verb: Verb, client: &Client, out: Output) -> Result<()> {
    match verb {
        Verb::List { filter, limit } => {
            let servers = filter.list(client, limit).await?;
            match filter.is_narrow() {
                true => out.list_matching("server", &servers, &COLUMNS, |server| server.name.clone()),
                false => out.list_or(&filter.none(), &servers, &COLUMNS, |server| server.name.clone()),
            }
        }
        Verb::Show { server, site } => {
            let site = resolve::site_id(client, site.as_deref()).await?;
            let id = resolve::server(client, &server, site).await?;
            let server: Server = client.get(&["v1", "servers", &id.to_string()]).send().await?;
            out.one(&server, &server.summary.name, || render(&server, out))
        }
        Verb::Add(add) => {
            let site = resolve::site(client, add.site.as_deref()).await?.id;
            let credential = credential_id(client, site, add.credential.as_deref()).await?;
            let row = add.row(credential)?;
            let stored = store(client, site, &[row], add.replace).await?;
            if let Some(refused) = stored.refused.first() {
                if !out.is_for_people() {
                    out.one(&stored, "", String::new)?;
                }
                return Err(not_added(client, site, &add.name, &refused.detail).await);
            }
            out.one(&stored, &add.name, || match (stored.created, stored.changed) {
                (0, 0) => format!("{} was registered like this already\n", add.name),
                (0, _) => format!("{} changed\n", add.name),
                _ => format!("{} registered\n", add.name),
            })?;
            if let Some(id) = stored.ids.get(&add.name) {
                let server: Server = client.get(&["v1", "servers", &id.to_string()]).send().await?;
                incomplete(&add.name, &server.bmc, add.site.as_deref()).into_iter().for_each(say);
            }
            add.moved().into_iter().for_each(say);
            Ok(())
        }
        Verb::Import { file, site, credential, replace } => {
            let text = fs::read_to_string(&file).map_err(|source| Failure::input("FILE", &file, source))?;
            let mut rows = rows_of(&file, &text)?;
            let id = resolve::site(client, site.as_deref()).await?.id;
            name_credentials(client, id, &mut rows, credential.as_deref()).await?;
            let stored = store(client, id, &rows, replace).await?;
            imported(client, site.as_deref(), &rows, &stored, out).await
        }
        Verb::TryAgain { server, site } => {
            let site = resolve::site_id(client, site.as_deref()).await?;
            let id = resolve::server(client, &server, site).await?;
            let call = client.post(&["v1", "servers", &id.to_string(), "credential", "try-again"]);
            say(tried_again(&server, &call.send().await?));
            Ok(())
        }
        Verb::Remove { server, site, yes } => {
            let site = resolve::site_id(client, site.as_deref()).await?;
            let id = resolve::server(client, &server, site).await?;
            confirm(yes, &format!("{server} leaves the fleet; the machine itself stays as it is."))?;
            client.delete(&["v1", "servers", &id.to_string()]).done().await?;
            say(format!("removed {server}"));
            Ok(())
        }
    }
}

fn tried_again(server: &str, became: &TriedAgain) -> String {
    match became {
        TriedAgain { changed: false, .. } => {
            format!("the BMC of {server} has refused nothing that counts: nothing was changed")
        }
        TriedAgain { suspended: Some(suspended), .. } => format!(
            "no refusal by the BMC of {server} counts any more. {suspended} `rackhand servers try-again` with such a \
             server lets it be tried again there, too"
        ),
        TriedAgain { suspended: None, .. } => format!(
            "executors may present the credential to the BMC of {server}: no refusal by it counts any more, nor does \
             one by a BMC that no longer uses the credential"
        ),
    }
}

/// The entries of a servers file.
fn rows_of(file: &Path, text: &str) -> Result<Vec<Value>> {
    let file = file.display();
    match serde_json::from_str(text) {
        Ok(Value::Array(rows)) if rows.is_empty() => {
            Err(Failure::Usage(format!("{file}: the list is empty; nothing was registered")))
        }
        Ok(Value::Array(rows)) => match strange_keys(&rows) {
            strange if strange.is_empty() => Ok(rows),
            strange => Err(Failure::Usage(format!(
                "{file}: an entry takes {}; nothing was registered:\n  {}",
                ENTRY.join(", "),
                strange.join("\n  ")
            ))),
        },
        Ok(_) => Err(Failure::Usage(format!(
            "{file}: a JSON list of servers is required, such as [{{\"name\": \"bmc-01\", \"bmc_url\": \
             \"https://10.0.0.1\"}}]; nothing was registered"
        ))),
        Err(error) => Err(Failure::Usage(format!(
            "{file} is not valid JSON: {}; nothing was registered",
            json_trouble(&error)
        ))),
    }
}

/// What is of another type than an entry takes, or missing, in words for who wrote it.
fn misfit(row: &Value) -> Option<String> {
    let Some(row) = row.as_object() else {
        return Some("requires an object with name and bmc_url".to_owned());
    };
    let text = |field: &str, needed: bool| match row.get(field) {
        None if needed => Some(format!("{field}: is missing")),
        None | Some(Value::String(_)) => None,
        Some(Value::Null) if !needed => None,
        Some(_) if needed => Some(format!("{field}: requires text in quotes")),
        Some(_) => Some(format!("{field}: requires text in quotes, or null")),
    };
    let tags = match row.get("tags") {
        None | Some(Value::Null) => None,
        Some(Value::Array(tags)) if tags.iter().all(Value::is_string) => None,
        Some(_) => Some("tags: requires a list of words, such as [\"rack:7\"]".to_owned()),
    };
    let wrong = [
        ("name", true),
        ("bmc_url", true),
        ("ipmi", false),
        ("spki_sha256", false),
        ("credential_id", false),
    ]
    .into_iter()
    .filter_map(|(field, needed)| text(field, needed))
    .chain(tags)
    .collect::<Vec<_>>()
    .join("; ");
    (!wrong.is_empty()).then_some(wrong)
}

/// What an entry of a servers file takes. In place of `credential` it may have the API's `credential_id`.
const ENTRY: [&str; 6] = ["name", "bmc_url", "ipmi", "spki_sha256", "credential", "tags"];

/// The first entries with a key that none has.
fn strange_keys(rows: &[Value]) -> Vec<String> {
    let strange = rows.iter().enumerate().filter_map(|(index, row)| {
        let is_known = |key: &&String| ENTRY.contains(&key.as_str()) || *key == "credential_id";
        let key = row.as_object()?.keys().find(|key| !is_known(key))?;
        Some(format!("{}: it has `{key}`", entry(rows, index)))
    });
    strange.take(NAMED).collect()
}

/// Most entries that one message names.
const NAMED: usize = 8;

async fn credential_id(client: &Client, site: SiteId, name: Option<&str>) -> Result<Option<CredentialId>> {
    let Some(name) = name else { return Ok(None) };
    Ok(Some(named(&credentials_of(client, site).await?, name)?))
}

async fn credentials_of(client: &Client, site: SiteId) -> Result<Vec<Credential>> {
    credentials::list(client, &[("site", site.to_string())]).await
}

fn named(credentials: &[Credential], name: &str) -> Result<CredentialId> {
    let found = credentials.iter().find(|credential| credential.name == name);
    found
        .map(|credential| credential.id)
        .ok_or_else(|| Failure::NotFound { what: "credential", name: name.to_owned() })
}

/// In each row the id of the credential that it names, else of `common`. Nothing is stored if one is not there.
async fn name_credentials(
    client: &Client,
    site: SiteId,
    rows: &mut [Value],
    common: Option<&str>,
) -> Result<()> {
    if common.is_none() && !rows.iter().any(|row| row.get("credential").is_some()) {
        return Ok(());
    }
    let known = credentials_of(client, site).await?;
    let mut wrong = Vec::new();
    for index in 0..rows.len() {
        let place = entry(rows, index);
        let Some(row) = rows.get_mut(index).and_then(Value::as_object_mut) else { continue };
        let own = row.remove("credential");
        if own.is_some() && row.contains_key("credential_id") {
            wrong.push(format!("{place}: give either credential or credential_id"));
            continue;
        }
        let name = match &own {
            Some(Value::String(name)) => Some(name.as_str()),
            Some(Value::Null) => {
                row.insert("credential_id".to_owned(), Value::Null);
                continue;
            }
            Some(_) => {
                wrong.push(format!("{place}: credential is a name"));
                continue;
            }
            None => common,
        };
        if let Some(name) = name.filter(|_| !row.contains_key("credential_id")) {
            match named(&known, name) {
                Ok(id) => drop(row.insert("credential_id".to_owned(), json!(id))),
                Err(failure) => wrong.push(format!("{place}: {failure}")),
            }
        }
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Failure::Usage(format!("nothing was registered:\n  {}", wrong.join("\n  ")))),
    }
}

/// An entry of the file as people find it: counted from 1, with its name.
fn entry(rows: &[Value], index: usize) -> String {
    match rows.get(index).and_then(|row| row.get("name")).and_then(Value::as_str) {
        Some(name) => format!("entry {} ({name})", index + 1),
        None => format!("entry {}", index + 1),
    }
}

/// Stores rows in portions; one bad row does not keep the others out. What changed is said.
async fn store(client: &Client, site_id: SiteId, rows: &[Value], replace: bool) -> Result<BulkUpsertResult> {
    const PORTION: usize = 500;
    let mut sum = BulkUpsertResult {
        created: 0,
        changed: 0,
        unchanged: 0,
        changes: std::collections::BTreeMap::new(),
        refused: Vec::new(),
        ids: std::collections::BTreeMap::new(),
    };
    for (portion, servers) in rows.chunks(PORTION).enumerate() {
        let body = BulkUpsert { site_id, servers: servers.to_vec(), replace };
        let call = client.post(&["v1", "servers", "bulk"]).idempotent();
        let mut result: BulkUpsertResult = call.body(&body)?.send().await?;
        for refused in &mut result.refused {
            refused.index += portion * PORTION;
        }
        sum.created += result.created;
        sum.changed += result.changed;
        sum.unchanged += result.unchanged;
        sum.refused.append(&mut result.refused);
        sum.ids.append(&mut result.ids);
        sum.changes.append(&mut result.changes);
    }
    for (name, change) in &sum.changes {
        say(format!("changed: {name}: {change}"));
    }
    for refused in &mut sum.refused {
        refused.detail = rows.get(refused.index).and_then(misfit).unwrap_or_else(|| {
            refused.detail.replace("`replace` (`--replace` on the command line)", "`--replace`")
        });
    }
    Ok(sum)
}

/// Prints what became of the servers of a file. `site` is named as it was typed.
async fn imported(
    client: &Client,
    site: Option<&str>,
    rows: &[Value],
    stored: &BulkUpsertResult,
    out: Output,
) -> Result<()> {
    for refused in &stored.refused {
        say(format!("refused: {}: {}", entry(rows, refused.index), refused.detail));
    }
    let names: Vec<&str> = stored.ids.keys().map(String::as_str).collect();
    out.one(stored, &names.join("\n"), || {
        format!(
            "{} created, {} changed, {} unchanged, {} refused\n",
            stored.created,
            stored.changed,
            stored.unchanged,
            stored.refused.len()
        )
    })?;
    blocked_by_plans(client, site, rows, stored).await.into_iter().for_each(say);
    match (stored.refused.len(), rows.len()) {
        (0, _) => Ok(()),
        (refused, count) if refused == count => Err(Failure::Other("every server was refused".to_owned())),
        (refused, count) => Err(Failure::Partial(format!("{refused} of {count} servers were refused"))),
    }
}

/// Most servers that are read to learn what an earlier registration gave them. Of further ones it was said then.
const MOST_READ: usize = 50;

/// What plans will block stored servers of a file for, and the way out.
async fn blocked_by_plans(
    client: &Client,
    site: Option<&str>,
    rows: &[Value],
    stored: &BulkUpsertResult,
) -> Option<String> {
    let (mut keyless, mut bare) = (Vec::new(), Vec::new());
    let mut readings = 0;
    for (index, row) in rows.iter().enumerate() {
        let Some(name) = row.get("name").and_then(Value::as_str) else { continue };
        let Some(id) = stored.ids.get(name) else { continue };
        if stored.refused.iter().any(|refused| refused.index == index) {
            continue;
        }
        let is_given = |field: &str| row.get(field).map(|value| !value.is_null());
        let over_ipmi =
            row.get("bmc_url").and_then(Value::as_str).is_some_and(|url| url.starts_with("ipmi://"));
        let mut key = if over_ipmi { Some(true) } else { is_given("spki_sha256") };
        let mut credential = is_given("credential_id");
        let is_new = stored.unchanged == 0 && !stored.changes.contains_key(name);
        if !is_new && (key.is_none() || credential.is_none()) {
            // What the row does not name stays as it was.
            let server = match readings < MOST_READ {
                true => client.get(&["v1", "servers", &id.to_string()]).send::<Server>().await.ok(),
                false => None,
            };
            readings += 1;
            key = key.or(Some(server.as_ref().is_none_or(|server| server.bmc.spki_sha256.is_some())));
            credential =
                credential.or(Some(server.as_ref().is_none_or(|server| server.bmc.credential_id.is_some())));
        }
        if key != Some(true) {
            keyless.push(name);
        }
        if credential != Some(true) {
            bare.push(name);
        }
    }
    let mut missing = Vec::new();
    let mut first = Vec::new();
    let mut with = Vec::new();
    if !keyless.is_empty() {
        missing.push(format!("no TLS key: {}", some(&keyless)));
        first.push("`rackhand-executor pins` at the site prints the keys".to_owned());
        with.push("the spki_sha256 of each");
    }
    if !bare.is_empty() {
        missing.push(format!("no credential: {}", some(&bare)));
        first.push(format!("`rackhand credentials set NAME{}` makes a credential", site_option(site)));
        with.push("--credential NAME");
    }
    (!missing.is_empty()).then(|| {
        format!(
            "{}. Every plan leaves these servers blocked. {}; then import the file again with {}",
            missing.join("; "),
            first.join(", "),
            with.join(" and ")
        )
    })
}

/// `bmc-01, bmc-02`, and how many more than a line names.
fn some(names: &[&str]) -> String {
    const NAMED: usize = 5;
    let shown = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// When, what, and the words of who noticed.
fn failure(last: &LastFailure) -> String {
    format!("{} {}: {}", moment(&last.at), last.code, last.detail)
}

/// The version of a piece of firmware, with the state in which it does not run.
pub fn version(version: Option<&str>, inactive: Option<&str>) -> String {
    inactive.map_or_else(|| dash(version), |state| format!("{} ({state})", dash(version)))
}

fn render(server: &Server, out: Output) -> String {
    let summary = &server.summary;
    let mut text = format!(
        "server        {}\nid            {}\nsite          {}\nvendor        {}\nmodel         {}\n\
         service tag   {}\ngeneration    {}\npower         {}\nhealth        {}\nBMC           {}\n\
         IPMI          {}\nBMC version   {}\nTLS key       {}\ncredential    {}\nexecutor      {}\ntags          {}\n\
         last read     {}\nlast failure  {}\nactive job    {}\ncapabilities  {}\n",
        summary.name,
        summary.id,
        summary.site,
        dash(summary.vendor.as_deref()),
        dash(summary.model.as_deref()),
        dash(summary.service_tag.as_deref()),
        dash(summary.generation.as_deref()),
        word(&summary.power),
        word(&summary.health),
        server.bmc.url,
        dash(server.bmc.ipmi.as_deref()),
        dash(summary.bmc_version.as_deref()),
        dash(server.bmc.spki_sha256.as_deref()),
        dash(server.bmc.credential.as_deref()),
        dash(server.bmc.owner_name.as_deref()),
        if summary.tags.is_empty() { "-".to_owned() } else { summary.tags.join(" ") },
        summary.seen_at.as_deref().map_or_else(|| "never".to_owned(), moment),
        dash(summary.last_failure.as_ref().map(failure)),
        dash(summary.active_job),
        if server.capabilities.is_empty() { "-".to_owned() } else { server.capabilities.join(" ") },
    );
    text = printable_lines(&text);
    if !server.components.is_empty() {
        let rows: Vec<Vec<String>> = server
            .components
            .iter()
            .map(|part| {
                let updateable = if part.updateable { "yes" } else { "no" };
                vec![
                    part.key.clone(),
                    version(Some(&part.version), part.inactive.as_deref()),
                    dash(part.software_id.as_deref()),
                    updateable.to_owned(),
                    part.name.clone(),
                ]
            })
            .collect();
        text.push('\n');
        text.push_str(&out.table(&["COMPONENT", "VERSION", "SOFTWARE ID", "UPDATEABLE", "NAME"], &rows));
    }
    if !server.unreadable.is_empty() {
        text.push_str("\ncould not be read:\n");
        for (what, why) in &server.unreadable {
            text.push_str(&printable(&format!("  {what}: {why}")));
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    fn sample() -> Server {
        serde_json::from_value(json!({
            "id": "01920000-0000-7000-8000-000000000001", "site_id": "01920000-0000-7000-8000-000000000002",
            "site": "lab", "name": "bmc-01", "bmc_url": "https://10.0.0.1", "vendor": "Dell Inc.", "model": "PowerEdge R750",
            "service_tag": "ABC1234", "generation": "idrac9", "bios_version": "1.8.2",
            "bmc_version": "6.00.30.00", "power": "on", "health": "warning", "tags": ["rack:7"],
            "seen_at": "2026-01-02T03:04:05.678901Z", "active_job": null,
            "last_failure": {"run_id": "01920000-0000-7000-8000-000000000008",
                "job_id": "01920000-0000-7000-8000-000000000007", "at": "2026-01-03T03:04:05Z",
                "code": "bmc-unreachable", "detail": "bmc-01: no answer for 60 s"},
            "bmc": {"id": "01920000-0000-7000-8000-000000000003", "url": "https://10.0.0.1", "ipmi": "10.0.0.1",
                    "credential_id": "01920000-0000-7000-8000-000000000004", "credential": "root",
                    "spki_sha256": null, "owner": "01920000-0000-7000-8000-000000000005",
                    "owner_name": "executor-1", "owner_epoch": 1},
            "components": [{"key": "BIOS.Setup.1-1", "name": "BIOS", "software_id": "159",
                            "version": "1.8.2", "updateable": true}],
            "capabilities": ["job_queue", "simple_update"],
            "unreadable": {"Storage": "status 503 for 30 s"},
            "created_at": "2026-01-01T00:00:00Z", "version": 3,
        }))
        .unwrap()
    }

    #[test]
    fn a_server_is_shown_with_what_could_not_be_read() {
        insta::assert_snapshot!(render(&sample(), Output::plain(Format::Table)));
    }

    #[test]
    fn trying_again_says_whether_it_changed_anything() {
        let said = |changed, suspended: Option<&str>| {
            tried_again("bmc-01", &TriedAgain { changed, suspended: suspended.map(str::to_owned) })
        };
        assert_eq!(
            said(false, None),
            "the BMC of bmc-01 has refused nothing that counts: nothing was changed"
        );
        assert!(said(true, None).starts_with("executors may present the credential to the BMC of bmc-01:"));
        let still = said(true, Some("Credential root version 1 is suspended: refused by the BMC of bmc-04."));
        assert!(
            still.contains("counts any more. Credential root version 1 is suspended: refused by"),
            "{still}"
        );
    }

    #[test]
    fn filters_take_the_words_of_the_api() {
        use rackhand_schema::server::{Health, PowerState};
        let power = POWER.map(|word| serde_json::from_value::<PowerState>(word.into()).unwrap());
        let health = HEALTH.map(|word| serde_json::from_value::<Health>(word.into()).unwrap());
        assert_eq!(json!([power, health]), json!([POWER, HEALTH]));
    }

    #[test]
    fn the_fleet_table() {
        let rows = [sample().summary];
        let text = |format| {
            Output::plain(format).render_list(&rows, &COLUMNS, |server| server.name.clone()).unwrap()
        };
        insta::assert_snapshot!("fleet_table", text(Format::Table));
        insta::assert_snapshot!("fleet_wide", text(Format::Wide));
        insta::assert_snapshot!("fleet_csv", text(Format::Csv));
    }

    #[test]
    fn a_name_must_mean_one_server() {
        let one = sample().summary;
        let mut other = one.clone();
        other.site = "dc2".into();
        other.site_id = "01920000-0000-7000-8000-000000000009".parse().unwrap();
        let chosen = Some(other.site_id);
        assert!(resolve::pick(std::slice::from_ref(&one), "bmc-01", None).is_ok());
        assert!(resolve::pick(std::slice::from_ref(&one), "ABC1234", None).is_ok());
        assert_eq!(resolve::pick(std::slice::from_ref(&one), "bmc-0", None).unwrap_err().exit_code(), 3);
        let both = [one, other];
        assert_eq!(resolve::pick(&both, "bmc-01", chosen).unwrap(), 1, "the chosen site decides");
        let error = resolve::pick(&both, "bmc-01", None).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("sites dc2, lab"), "{error}");
    }
}
