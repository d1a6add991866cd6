//! `rackhand sites …`

use clap::{Args, Subcommand};
use rackhand_schema::site::{NewSite, Site, SiteConfig, SiteUpdate};

use crate::{
    client::Client,
    credentials::key_fingerprint,
    error::{EXIT_CODES, Failure, Result},
    output::{Column, Output, moment},
    resolve,
};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// All sites you may see.
    #[command(after_help = EXIT_CODES)]
    List,
    /// One site with its settings and key.
    #[command(after_help = EXIT_CODES)]
    Show { site: String },
    /// Add a site.
    #[command(after_help = EXIT_CODES)]
    Create {
        name: String,
        #[command(flatten)]
        settings: Settings,
    },
    /// Change settings of a site; what is not named stays.
    #[command(after_help = EXIT_CODES)]
    Set {
        site: String,
        #[command(flatten)]
        settings: Settings,
    },
}

#[derive(Debug, Args)]
pub struct Settings {
    /// How long an executor's lease lasts without renewal, milliseconds.
    #[arg(long, value_name = "MS")]
    lease_ttl_ms: Option<u32>,
    /// At most so many mutating runs at once.
    #[arg(long, value_name = "N")]
    max_mutating_runs: Option<u32>,
    /// Start no mutating run ("pause hardware operations").
    #[arg(long, value_name = "true|false")]
    hardware_paused: Option<bool>,
    /// Whoever approves a job must not have created it.
    #[arg(long, value_name = "true|false")]
    second_person: Option<bool>,
}

impl Settings {
    fn over(&self, config: SiteConfig) -> SiteConfig {
        SiteConfig {
            lease_ttl_ms: self.lease_ttl_ms.unwrap_or(config.lease_ttl_ms),
            max_mutating_runs: self.max_mutating_runs.unwrap_or(config.max_mutating_runs),
            hardware_paused: self.hardware_paused.unwrap_or(config.hardware_paused),
            second_person: self.second_person.unwrap_or(config.second_person),
        }
    }
}

const COLUMNS: [Column<Site>; 8] = [
    Column::new("NAME", |site: &Site| site.name.clone()),
    Column::new("SERVERS", |site| site.servers.to_string()),
    Column::new("EXECUTORS ONLINE", |site| site.executors_online.to_string()),
    Column::new("HARDWARE", |site| if site.config.hardware_paused { "paused" } else { "active" }.to_owned()),
    Column::wide("LEASE", |site| format!("{} ms", site.config.lease_ttl_ms)),
    Column::wide("MAX RUNS", |site| site.config.max_mutating_runs.to_string()),
    Column::wide("SECOND PERSON", |site| if site.config.second_person { "yes" } else { "no" }.to_owned()),
    Column::wide("ID", |site| site.id.to_string()),
];

pub async fn run(verb: Verb, client: &Client, out: Output) -> Result<()> {
    match verb {
        Verb::List => {
            let sites: Vec<Site> = client.all(&["v1", "sites"], &[], None).await?;
            out.list(&sites, &COLUMNS, |site| site.name.clone())
        }
        Verb::Show { site } => {
            let site = resolve::site(client, Some(&site)).await?;
            out.one(&site, &site.name, || render(&site))
        }
        Verb::Create { name, settings } => {
            let body = NewSite { name, config: settings.over(SiteConfig::default()) };
            let site: Site = client.post(&["v1", "sites"]).idempotent().body(&body)?.send().await?;
            out.one(&site, &site.name, || render(&site))
        }
        Verb::Set { site, settings } => {
            let before = resolve::site(client, Some(&site)).await?;
            let config = settings.over(before.config.clone());
            if config == before.config {
                return Err(Failure::Usage("nothing to change; name a setting (see --help)".to_owned()));
            }
            let call = client.put(&["v1", "sites", &before.id.to_string()]).if_match(before.version);
            let site: Site = call.body(&SiteUpdate { config })?.send().await?;
            out.one(&site, &site.name, || render(&site))
        }
    }
}

fn render(site: &Site) -> String {
    let key = match &site.public_key {
        Some(key) => format!("{key}\nkey fingerprint   {}", key_fingerprint(key)),
        None => "none yet; the first executor makes it".to_owned(),
    };
    format!(
        "site              {}\nid                {}\nservers           {}\nexecutors online  {}\n\
         lease             {} ms\nmutating runs     at most {}\nhardware          {}\nsecond person     {}\n\
         key               {key}\ncreated           {}\nversion           {}\n",
        site.name,
        site.id,
        site.servers,
        site.executors_online,
        site.config.lease_ttl_ms,
        site.config.max_mutating_runs,
        if site.config.hardware_paused { "paused" } else { "active" },
        if site.config.second_person { "needed for approval" } else { "not needed" },
        moment(&site.created_at),
        site.version,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_settings_change() {
        let settings = Settings {
            lease_ttl_ms: None,
            max_mutating_runs: Some(3),
            hardware_paused: Some(true),
            second_person: None,
        };
        let config = settings.over(SiteConfig::default());
        assert_eq!(config.max_mutating_runs, 3);
        assert!(config.hardware_paused);
        assert_eq!(config.lease_ttl_ms, SiteConfig::default().lease_ttl_ms);
    }
}
