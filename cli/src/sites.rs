//! `rackhand sites …`

use clap::{Args, Subcommand};
use rackhand_schema::site::{NewSite, Site, SiteConfig, SiteUpdate};

use crate::{
    client::Client,
    credentials::key_fingerprint,
    doctor::quoted,
    error::{Failure, Result, help},
    output::{Column, Output, moment, printable, say, seconds},
    resolve,
};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// All sites you may see.
    #[command(after_help = help!("sites list"))]
    List,
    /// One site with its settings and key.
    #[command(after_help = help!("sites show lab"))]
    Show {
        /// Name or id of the site.
        site: String,
    },
    /// Add a site.
    #[command(after_help = help!("sites create lab --max-mutating-runs 4"))]
    Create {
        /// Name of the new site.
        #[arg(value_parser = rackhand_schema::site::name)]
        name: String,
        #[command(flatten)]
        settings: Settings,
    },
    /// Remove a site in which nothing was ever registered.
    #[command(after_help = help!("sites remove my-closet"))]
    Remove {
        /// Name or id of the site.
        site: String,
    },
    /// Choose the site of commands that require one, where --site is not given. Lists still show all sites.
    #[command(
        group = clap::ArgGroup::new("choice").required(true).args(["site", "none"]),
        after_help = help!("sites use lab", "sites use --none")
    )]
    Use {
        /// Name or id of the site.
        site: Option<String>,
        /// Choose none.
        #[arg(long)]
        none: bool,
    },
    /// Change settings of a site; what is not named stays.
    #[command(after_help = help!("sites set lab --hardware-paused true"))]
    Set {
        /// Name or id of the site.
        site: String,
        #[command(flatten)]
        settings: Settings,
    },
}

#[derive(Debug, Args)]
pub struct Settings {
    /// How long an executor keeps a run without contact to the control plane: 500 to 600000 milliseconds. A new site has
    /// 30000.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(500..=600_000))]
    lease_ttl_ms: Option<u32>,
    /// Maximum number of concurrent runs that change something, 1 to 10000. A new site has 16.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    max_mutating_runs: Option<u32>,
    /// Start no run that changes something ("pause hardware operations"). A new site has false.
    #[arg(long, value_name = "true|false")]
    hardware_paused: Option<bool>,
    /// A second person must approve each job. A new site has false.
    #[arg(long, value_name = "true|false")]
    second_person: Option<bool>,
}

impl Settings {
    fn is_empty(&self) -> bool {
        let Self { lease_ttl_ms, max_mutating_runs, hardware_paused, second_person } = self;
        lease_ttl_ms.is_none()
            && max_mutating_runs.is_none()
            && hardware_paused.is_none()
            && second_person.is_none()
    }

    /// What is said where the site has all of these settings already.
    fn already(&self, site: &str) -> String {
        match self {
            Self {
                hardware_paused: Some(paused),
                lease_ttl_ms: None,
                max_mutating_runs: None,
                second_person: None,
            } => {
                let state = if *paused { "paused" } else { "active" };
                format!("hardware operations of {site} are {state} already\n")
            }
            _ => format!("nothing was changed: {site} is set so already\n"),
        }
    }

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
    Column::wide("LEASE", |site| seconds(site.config.lease_ttl_ms)),
    Column::wide("MAX RUNS", |site| site.config.max_mutating_runs.to_string()),
    Column::wide("SECOND PERSON", |site| if site.config.second_person { "yes" } else { "no" }.to_owned()),
    Column::wide("ID", |site| site.id.to_string()),
];

pub async fn run(verb: Verb, client: &Client, out: Output) -> Result<()> {
    match verb {
        Verb::List => {
            let sites: Vec<Site> = client.all(&["v1", "sites"], &[], None).await?;
            let none = "there are no sites; `rackhand sites create NAME` makes one";
            out.list_or(none, &sites, &COLUMNS, |site| site.name.clone())
        }
        Verb::Show { site } => {
            let site = resolve::site(client, Some(&site)).await?;
            out.one(&site, &site.name, || render(&site))
        }
        Verb::Create { name, settings } => {
            let body = NewSite { name, config: settings.over(SiteConfig::default()) };
            let site: Site = client.post(&["v1", "sites"]).idempotent().body(&body)?.send().await?;
            out.one(&site, &site.name, || render(&site))?;
            say(format!(
                "Next: an executor in its network. `rackhand executors enrol-token --site {}` prints the token with \
                 which it joins",
                quoted(&site.name)
            ));
            Ok(())
        }
        Verb::Remove { site } => {
            let site = resolve::site(client, Some(&site)).await?;
            client.delete(&["v1", "sites", &site.id.to_string()]).done().await?;
            if client.chosen_site()? == Some(site.id) {
                client.choose_site(None)?;
            }
            say(format!("removed {}", printable(&site.name)));
            Ok(())
        }
        Verb::Use { site, none: _ } => {
            let Some(named) = site else {
                client.choose_site(None)?;
                say("no site is chosen");
                return Ok(());
            };
            let site = resolve::site(client, Some(&named)).await?;
            client.choose_site(Some(site.id))?;
            say(format!(
                "commands that require a site take {} where --site is not given; lists still show all sites",
                printable(&site.name)
            ));
            Ok(())
        }
        Verb::Set { settings, .. } if settings.is_empty() => {
            Err(Failure::Usage("nothing to change; name a setting (see --help)".to_owned()))
        }
        Verb::Set { site, settings } => {
            let before = resolve::site(client, Some(&site)).await?;
            let config = settings.over(before.config.clone());
            if config == before.config {
                return out.one(&before, &before.name, || settings.already(&before.name));
            }
            let call = client.put(&["v1", "sites", &before.id.to_string()]).if_match(before.version);
            let site: Site = call.body(&SiteUpdate { config })?.send().await?;
            out.one(&site, &site.name, || render(&site))
        }
    }
}

/// ` by Ada since 2026-01-02 03:04:05Z`, where it is known.
pub fn since(site: &Site) -> String {
    match (&site.paused_by_name, &site.paused_at) {
        (Some(name), Some(at)) => format!(" by {name} since {}", moment(at)),
        _ => String::new(),
    }
}

/// What is said of a site whose hardware operations are paused, and the way out.
pub fn paused(site: &Site) -> Option<String> {
    site.config.hardware_paused.then(|| {
        let (name, quoted, since) = (printable(&site.name), quoted(&site.name), since(site));
        format!(
            "warning: hardware operations of site {name} are paused{since}: nothing that changes a server starts there until \
             `rackhand sites set {quoted} --hardware-paused false`"
        )
    })
}

fn render(site: &Site) -> String {
    let key = match &site.public_key {
        Some(key) => format!("{key}\nkey fingerprint   {}", key_fingerprint(key)),
        None => "none yet; the first executor makes it".to_owned(),
    };
    format!(
        "site              {}\nid                {}\nservers           {}\nexecutors online  {}\n\
         lease             {}: how long an executor keeps a run without contact to the control plane\n\
         changing runs     at most {} at once\nhardware          {}\nsecond person     {}\n\
         key               {key}\ncreated           {}\nversion           {}\n",
        site.name,
        site.id,
        site.servers,
        site.executors_online,
        seconds(site.config.lease_ttl_ms),
        site.config.max_mutating_runs,
        match (site.config.hardware_paused, since(site)) {
            (true, since) => format!("paused{since}"),
            (false, _) => "active".to_owned(),
        },
        if site.config.second_person {
            "required for approval"
        } else {
            "not required: who plans a job may approve it"
        },
        moment(&site.created_at),
        site.version,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_what_a_new_site_has() {
        use clap::Args as _;
        let mut command = Settings::augment_args(clap::Command::new("set"));
        let help = command.render_long_help().to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        let SiteConfig { lease_ttl_ms, max_mutating_runs, hardware_paused, second_person } =
            SiteConfig::default();
        assert!(help.contains(&format!("milliseconds. A new site has {lease_ttl_ms}")), "{help}");
        assert!(help.contains(&format!("10000. A new site has {max_mutating_runs}")), "{help}");
        assert_eq!((hardware_paused, second_person), (false, false));
        assert_eq!(help.matches("A new site has false").count(), 2, "{help}");
    }

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
