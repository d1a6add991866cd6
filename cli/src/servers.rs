//! `rackhand servers …`

use std::{fs, path::PathBuf};

use clap::{Args, Subcommand};
use rackhand_schema::{
    id::SiteId,
    server::{BulkUpsert, BulkUpsertResult, Credential, Server, ServerSummary},
};
use serde_json::{Value, json};

use crate::{
    client::Client,
    credentials,
    error::{EXIT_CODES, Failure, Result},
    output::{Column, Output, dash, moment, printable, printable_lines, say, word},
    resolve,
};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// The fleet, filtered.
    #[command(after_help = EXIT_CODES)]
    List {
        #[command(flatten)]
        filter: Filter,
        /// At most so many.
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// One server with its firmware.
    #[command(after_help = EXIT_CODES)]
    Show {
        /// Name, service tag or id.
        server: String,
        #[arg(long)]
        site: Option<String>,
    },
    /// Register a server, or change how its BMC is reached.
    #[command(after_help = EXIT_CODES)]
    Add(Add),
    /// Register servers from a JSON list of objects with name, bmc_url, ipmi, spki_sha256, tags. A bmc_url is
    /// `https://host[:port]`, `https://host[:port]/redfish/v1/Systems/<id>` or `ipmi://host[:port]`, ipmi is
    /// `host[:port]`; each BMC is registered once.
    #[command(after_help = EXIT_CODES)]
    Import {
        file: PathBuf,
        #[arg(long)]
        site: Option<String>,
        /// The credential of every server that names none.
        #[arg(long, value_name = "NAME")]
        credential: Option<String>,
    },
    /// Take a server out of the fleet; nothing is done to the machine.
    #[command(after_help = EXIT_CODES)]
    Remove {
        /// Name, service tag or id.
        server: String,
        #[arg(long)]
        site: Option<String>,
    },
}

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
    #[arg(long, value_name = "on|off|…")]
    power: Option<String>,
    /// Only servers of this health.
    #[arg(long, value_name = "ok|warning|critical|unknown")]
    health: Option<String>,
    /// Only servers whose BMC is an `idrac8`, `idrac9`, `idrac10`, …
    #[arg(long)]
    generation: Option<String>,
    /// Only servers of this model.
    #[arg(long)]
    model: Option<String>,
    /// Only servers with this tag.
    #[arg(long)]
    tag: Option<String>,
}

impl Filter {
    /// Whether anything but the site is asked for.
    pub fn is_narrow(&self) -> bool {
        [&self.query, &self.power, &self.health, &self.generation, &self.model, &self.tag]
            .into_iter()
            .any(Option::is_some)
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
}

#[derive(Debug, Args)]
pub struct Add {
    name: String,
    /// `https://host[:port]`; where the BMC has several systems, `https://host[:port]/redfish/v1/Systems/<id>`;
    /// where it has no Redfish, `ipmi://host[:port]`
    #[arg(long, value_name = "URL")]
    bmc: String,
    /// The same BMC's address for IPMI: what Redfish cannot do or does not answer is then tried that way. The
    /// credential must name `ipmi://host[:port]`, too.
    #[arg(long, value_name = "HOST[:PORT]")]
    ipmi: Option<String>,
    #[arg(long)]
    site: Option<String>,
    /// Name of the credential.
    #[arg(long, value_name = "NAME")]
    credential: Option<String>,
    /// Key the BMC must show; `rackhand bmc inspect` prints it.
    #[arg(long, value_name = "HEX")]
    pin: Option<String>,
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
}

const COLUMNS: [Column<ServerSummary>; 14] = [
    Column::new("NAME", |server: &ServerSummary| server.name.clone()),
    Column::new("MODEL", |server| dash(server.model.as_deref())),
    Column::new("SERVICE TAG", |server| dash(server.service_tag.as_deref())),
    Column::new("POWER", |server| word(&server.power)),
    Column::new("HEALTH", |server| word(&server.health)),
    Column::new("BIOS", |server| dash(server.bios_version.as_deref())),
    Column::new("BMC", |server| dash(server.bmc_version.as_deref())),
    Column::new("SEEN", |server| dash(server.seen_at.as_deref().map(moment))),
    Column::wide("GENERATION", |server| dash(server.generation.as_deref())),
    Column::wide("VENDOR", |server| dash(server.vendor.as_deref())),
    Column::wide("SITE", |server| server.site.clone()),
    Column::wide("TAGS", |server| server.tags.join(" ")),
    Column::wide("JOB", |server| dash(server.active_job)),
    Column::wide("ID", |server| server.id.to_string()),
];

pub async fn run(verb: Verb, client: &Client, out: Output) -> Result<()> {
    match verb {
        Verb::List { filter, limit } => {
            let servers = filter.list(client, limit).await?;
            out.list(&servers, &COLUMNS, |server| server.name.clone())
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
            let row = json!({
                "name": add.name, "bmc_url": add.bmc, "ipmi": add.ipmi, "spki_sha256": add.pin, "tags": add.tags,
                "credential_id": credential,
            });
            upsert(client, site, vec![row], out).await
        }
        Verb::Import { file, site, credential } => {
            let text = fs::read_to_string(&file)
                .map_err(|source| Failure::file(format!("cannot read {}", file.display()), source))?;
            let mut rows: Vec<Value> = serde_json::from_str(&text)
                .map_err(|error| Failure::Usage(format!("{}: not a JSON list: {error}", file.display())))?;
            let site = resolve::site(client, site.as_deref()).await?.id;
            let credential = credential_id(client, site, credential.as_deref()).await?;
            if let Some(id) = credential {
                for row in rows.iter_mut().filter_map(Value::as_object_mut) {
                    row.entry("credential_id").or_insert_with(|| json!(id));
                }
            }
            upsert(client, site, rows, out).await
        }
        Verb::Remove { server, site } => {
            let site = resolve::site_id(client, site.as_deref()).await?;
            let id = resolve::server(client, &server, site).await?;
            client.delete(&["v1", "servers", &id.to_string()]).done().await?;
            say(format!("removed {server}"));
            Ok(())
        }
    }
}

async fn credential_id(
    client: &Client,
    site: SiteId,
    name: Option<&str>,
) -> Result<Option<rackhand_schema::id::CredentialId>> {
    let Some(name) = name else { return Ok(None) };
    let all: Vec<Credential> = credentials::list(client, &[("site", site.to_string())]).await?;
    let found = all.into_iter().find(|credential| credential.name == name);
    found
        .map(|credential| Some(credential.id))
        .ok_or_else(|| Failure::NotFound { what: "credential", name: name.to_owned() })
}

/// Stores rows in portions; one bad row does not keep the others out.
async fn upsert(client: &Client, site_id: SiteId, rows: Vec<Value>, out: Output) -> Result<()> {
    const PORTION: usize = 500;
    let count = rows.len();
    let mut sum = BulkUpsertResult {
        created: 0,
        changed: 0,
        unchanged: 0,
        refused: Vec::new(),
        ids: std::collections::BTreeMap::new(),
    };
    for (portion, servers) in rows.chunks(PORTION).enumerate() {
        let body = BulkUpsert { site_id, servers: servers.to_vec() };
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
    }
    for refused in &sum.refused {
        say(format!("refused: item {}: {}", refused.index, refused.detail));
    }
    let names: Vec<&str> = sum.ids.keys().map(String::as_str).collect();
    out.one(&sum, &names.join("\n"), || {
        format!(
            "{} created, {} changed, {} unchanged, {} refused\n",
            sum.created,
            sum.changed,
            sum.unchanged,
            sum.refused.len()
        )
    })?;
    match sum.refused.len() {
        0 => Ok(()),
        refused if refused == count => Err(Failure::Other("every server was refused".to_owned())),
        refused => Err(Failure::Partial(format!("{refused} of {count} servers were refused"))),
    }
}

fn render(server: &Server, out: Output) -> String {
    let summary = &server.summary;
    let mut text = format!(
        "server        {}\nid            {}\nsite          {}\nvendor        {}\nmodel         {}\n\
         service tag   {}\ngeneration    {}\npower         {}\nhealth        {}\nBMC           {}\n\
         IPMI          {}\nBMC version   {}\nBMC key       {}\nowner         {}\ntags          {}\nlast read     {}\n\
         active job    {}\ncapabilities  {}\n",
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
        dash(server.bmc.owner),
        if summary.tags.is_empty() { "-".to_owned() } else { summary.tags.join(" ") },
        summary.seen_at.as_deref().map_or_else(|| "never".to_owned(), moment),
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
                vec![part.key.clone(), part.version.clone(), updateable.to_owned(), part.name.clone()]
            })
            .collect();
        text.push('\n');
        text.push_str(&out.table(&["COMPONENT", "VERSION", "UPDATEABLE", "NAME"], &rows));
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
            "site": "lab", "name": "bmc-01", "vendor": "Dell Inc.", "model": "PowerEdge R750",
            "service_tag": "ABC1234", "generation": "idrac9", "bios_version": "1.8.2",
            "bmc_version": "6.00.30.00", "power": "on", "health": "warning", "tags": ["rack:7"],
            "seen_at": "2026-01-02T03:04:05.678901Z", "active_job": null,
            "bmc": {"id": "01920000-0000-7000-8000-000000000003", "url": "https://10.0.0.1", "ipmi": "10.0.0.1",
                    "credential_id": null, "spki_sha256": null, "owner": null, "owner_epoch": 0},
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
        assert!(resolve::pick(std::slice::from_ref(&one), "bmc-01").is_ok());
        assert!(resolve::pick(std::slice::from_ref(&one), "ABC1234").is_ok());
        assert_eq!(resolve::pick(std::slice::from_ref(&one), "bmc-0").unwrap_err().exit_code(), 3);
        let error = resolve::pick(&[one, other], "bmc-01").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("sites lab, dc2"), "{error}");
    }
}
