//! `rackhand jobs plan …`: creates a job and prints what the server says it would do.

use std::{collections::BTreeMap, ffi::OsStr, fs, path::PathBuf};

use clap::{
    Args, Subcommand, ValueEnum,
    builder::{EnumValueParser, PossibleValue, TypedValueParser},
    error::ErrorKind,
};
use rackhand_schema::{
    id::{ServerId, SiteId},
    job::{
        BootMode, BootOverrideParams, BootTarget, BootTimes, FirmwarePackage, FirmwareUpdateParams,
        InventoryParams, Job, JobPolicy, JobSpec, JobState, NewJob, PowerAction, PowerParams,
    },
    server::ServerSummary,
};

use super::{
    Limit, follow, package,
    show::{self, Outlook},
};
use crate::{
    args::{reason, utc},
    client::Client,
    doctor::quoted,
    error::{Failure, Result, help},
    output::{Output, say},
    resolve,
    servers::{self, Filter},
};

#[derive(Debug, Subcommand)]
pub enum Kind {
    /// Read identity, power, health and firmware; starts at once, since it changes nothing.
    #[command(after_help = help!("jobs plan inventory --all --reason \"first look\" --wait"))]
    Inventory {
        #[command(flatten)]
        common: Common,
        /// Follow the job to its end. Exit code 0: every server of the plan succeeded; 7: some failed or were blocked;
        /// 1: none succeeded.
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        limit: Limit,
    },
    /// Change the power state of hosts.
    #[command(after_help = help!("jobs plan power --action graceful-shutdown --servers bmc-01,bmc-02 --reason \"rack 7 moves\""))]
    Power {
        /// What to do.
        #[arg(long, value_parser = ActionParser)]
        action: Action,
        #[command(flatten)]
        common: Common,
    },
    /// Set what hosts boot from, without restarting them.
    #[command(after_help = help!("jobs plan boot-override --target pxe --tag rack:7 --reason \"reinstall\""))]
    BootOverride {
        /// `none` clears an override that stands.
        #[arg(long, value_enum)]
        target: Source,
        /// For every boot until it is cleared, not only for the next one.
        #[arg(long)]
        continuous: bool,
        /// As the firmware is set up, unless given.
        #[arg(long, value_enum)]
        mode: Option<Mode>,
        #[command(flatten)]
        common: Common,
    },
    /// Install a firmware package.
    #[command(after_help = help!("jobs plan firmware --package bios.json --model \"PowerEdge R750\" --reason \"quarterly BIOS\""))]
    Firmware {
        /// JSON of the package: name, file_name, url, sha256, size, software_id, version; or an object of such
        /// packages by the whole model (`PowerEdge R750`) or BMC generation (`idrac9`).
        #[arg(long, value_name = "FILE")]
        package: PathBuf,
        /// Also install a version older than the installed one.
        #[arg(long)]
        allow_downgrade: bool,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
pub struct Common {
    /// Names, service tags or ids, separated by commas; or choose by the filters below.
    #[arg(long, value_name = "A,B,…", value_delimiter = ',')]
    servers: Vec<String>,
    /// Every server of the site.
    #[arg(long, conflicts_with = "servers")]
    all: bool,
    #[command(flatten)]
    filter: Filter,
    /// Why, at least 3 characters; kept in the audit.
    #[arg(long, value_parser = reason)]
    reason: String,
    /// Maximum number of concurrent runs, 1 to 1000.
    #[arg(long, value_name = "N", default_value_t = JobPolicy::default().max_parallel,
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    max_parallel: u32,
    /// Pause after this many failed runs, 0 to 1000; 0 never pauses.
    #[arg(long, value_name = "N", default_value_t = JobPolicy::default().pause_after_failures,
        value_parser = clap::value_parser!(u32).range(0..=1000))]
    pause_after_failures: u32,
    /// No run starts before: UTC, as 2026-12-01T22:00:00Z. Without it runs start once the job is approved.
    #[arg(long, value_name = "TIME", value_parser = utc)]
    start_after: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Action {
    On,
    ForceOff,
    #[value(alias = "soft")]
    GracefulShutdown,
    GracefulRestart,
    ForceRestart,
    #[value(alias = "cycle")]
    PowerCycle,
}

/// The names of [`Action`], and those of `bmc power` that mean one of them. A word that could mean two gets both, the
/// gentle one first.
#[derive(Clone)]
struct ActionParser;

impl TypedValueParser for ActionParser {
    type Value = Action;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Action, clap::Error> {
        let word = value.to_string_lossy().to_ascii_lowercase();
        let meant = match word.as_str() {
            "off" | "poweroff" | "power-off" | "shutdown" => {
                "graceful-shutdown (the operating system is asked), force-off (cut without asking)"
            }
            "restart" | "reboot" | "reset" => {
                "graceful-restart (the operating system is asked), force-restart (cut without asking)"
            }
            _ => return EnumValueParser::<Action>::new().parse_ref(command, argument, value),
        };
        let text = format!("`{word}` is not an action; one of: {meant}\n");
        Err(clap::Error::raw(ErrorKind::InvalidValue, text).with_cmd(command))
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(Action::value_variants().iter().filter_map(Action::to_possible_value)))
    }
}

impl From<Action> for PowerAction {
    fn from(action: Action) -> Self {
        match action {
            Action::On => Self::On,
            Action::ForceOff => Self::ForceOff,
            Action::GracefulShutdown => Self::GracefulShutdown,
            Action::GracefulRestart => Self::GracefulRestart,
            Action::ForceRestart => Self::ForceRestart,
            Action::PowerCycle => Self::PowerCycle,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Source {
    None,
    Pxe,
    Disk,
    Cd,
    BiosSetup,
}

impl From<Source> for BootTarget {
    fn from(source: Source) -> Self {
        match source {
            Source::None => Self::None,
            Source::Pxe => Self::Pxe,
            Source::Disk => Self::Disk,
            Source::Cd => Self::Cd,
            Source::BiosSetup => Self::BiosSetup,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Mode {
    Uefi,
    Legacy,
}

impl From<Mode> for BootMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Uefi => Self::Uefi,
            Mode::Legacy => Self::Legacy,
        }
    }
}

pub async fn run(kind: Kind, client: &Client, out: Output) -> Result<()> {
    let (spec, common, follow) = match kind {
        Kind::Inventory { common, wait, limit } => {
            (JobSpec::Inventory(InventoryParams {}), common, wait.then_some(limit))
        }
        Kind::Power { action, common } => {
            (JobSpec::Power(PowerParams { action: action.into() }), common, None)
        }
        Kind::BootOverride { target, continuous, mode, common } => {
            let times = if continuous { BootTimes::Continuous } else { BootTimes::Once };
            let params = BootOverrideParams { target: target.into(), times, mode: mode.map(Into::into) };
            (JobSpec::BootOverride(params), common, None)
        }
        Kind::Firmware { package, allow_downgrade, common } => {
            let packages = packages(&package)?;
            (JobSpec::FirmwareUpdate(FirmwareUpdateParams { packages, allow_downgrade }), common, None)
        }
    };
    let (site_id, targets) = targets(&common, client).await?;
    let body = NewJob {
        site_id,
        spec,
        targets,
        policy: JobPolicy {
            max_parallel: common.max_parallel,
            pause_after_failures: common.pause_after_failures,
            start_after: common.start_after,
        },
        reason: common.reason,
    };
    let job: Job = client.post(&["v1", "jobs"]).idempotent().body(&body)?.send().await?;
    if let Some(limit) = follow {
        return follow::to_end(client, job.id, limit.duration(), out).await;
    }
    out.one(&job, &job.id.to_string(), || show::plan(&job, out))?;
    after(&job, client, out).await
}

/// Says what follows a plan that was printed to the person who made it. Servers that it leaves blocked make it a
/// partial success.
pub async fn after(job: &Job, client: &Client, out: Output) -> Result<()> {
    let outlook = show::outlook(job);
    if job.state == JobState::Planned && out.is_for_people() && outlook != Outlook::Blocked {
        // Where the site cannot be read, the approval itself says it.
        let site = match outlook {
            Outlook::Work => super::site(client, job).await,
            _ => None,
        };
        say(match site.is_some_and(|site| site.config.second_person) {
            true => show::next_step_of_another(job),
            false => show::next_step(job),
        });
    }
    match (outlook, show::blocked(job).count()) {
        (Outlook::Blocked, _) => Err(Failure::Partial(show::next_step(job))),
        (_, 0) => Ok(()),
        (_, 1) => {
            Err(Failure::Partial("1 server is blocked, as said above: nothing is done to it".to_owned()))
        }
        (_, several) => Err(Failure::Partial(format!(
            "{several} servers are blocked, as said above: nothing is done to them"
        ))),
    }
}

/// The frozen list of servers, all of one site.
async fn targets(common: &Common, client: &Client) -> Result<(SiteId, Vec<ServerId>)> {
    let site = common.filter.site.as_deref();
    if !common.servers.is_empty() {
        if common.filter.is_narrow() {
            return Err(Failure::Usage("give either --servers or filters".to_owned()));
        }
        let site = resolve::site_id(client, site).await?;
        let servers = resolve::servers(client, &common.servers, site).await.map_err(|failure| match failure {
            Failure::NotFound { what, name } => Failure::NothingChosen(format!(
                "there is no {what} `{name}`; nothing was planned. `rackhand {what}s list` shows the ones you may see"
            )),
            other => other,
        })?;
        named_once(&common.servers, &servers)?;
        return one_site(&servers);
    }
    if !common.all && !common.filter.is_narrow() {
        return Err(Failure::Usage("which servers? give --servers, a filter, or --all".to_owned()));
    }
    let site = resolve::site(client, site).await?;
    let mut filter = common.filter.clone();
    filter.site = Some(site.id.to_string());
    let ids: Vec<ServerId> = filter.targets(client).await?.iter().map(|server| server.id).collect();
    if ids.is_empty() {
        return Err(Failure::NothingChosen(no_target(&site.name, common.filter.is_narrow())));
    }
    Ok((site.id, ids))
}

/// Why there is nothing to plan for in the site, and what to do.
fn no_target(site: &str, filtered: bool) -> String {
    match filtered {
        true => format!(
            "no server of site {site} matches the filter; `rackhand servers list --site {}` with the filter shows the \
             same",
            quoted(site)
        ),
        false => servers::none_in(site),
    }
}

/// `found` is what each of `typed` means.
fn named_once(typed: &[String], found: &[ServerSummary]) -> Result<()> {
    let mut known = BTreeMap::new();
    for (name, server) in typed.iter().zip(found) {
        match known.insert(server.id, name) {
            Some(earlier) if earlier == name => {
                return Err(Failure::Usage(format!("--servers names {name} twice; nothing was planned")));
            }
            Some(earlier) => {
                return Err(Failure::Usage(format!(
                    "--servers: {earlier} and {name} are the same server, {}; nothing was planned",
                    server.name
                )));
            }
            None => {}
        }
    }
    Ok(())
}

/// The site that all of these are in, and their ids.
fn one_site(servers: &[ServerSummary]) -> Result<(SiteId, Vec<ServerId>)> {
    let sites: BTreeMap<SiteId, &str> =
        servers.iter().map(|server| (server.site_id, server.site.as_str())).collect();
    let ids = servers.iter().map(|server| server.id).collect();
    match sites.keys().collect::<Vec<_>>().as_slice() {
        [site] => Ok((**site, ids)),
        _ => Err(Failure::Usage(format!(
            "a job belongs to one site; these servers are in {}",
            sites.into_values().collect::<Vec<_>>().join(", ")
        ))),
    }
}

fn packages(path: &PathBuf) -> Result<BTreeMap<String, FirmwarePackage>> {
    let text = fs::read_to_string(path).map_err(|source| Failure::input("--package", path, source))?;
    package::parse(&text)
        .map_err(|why| Failure::Usage(format!("{}: {why}. Nothing was planned", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_action_is_taken_by_the_word_of_bmc_power_where_it_means_one() {
        let command = clap::Command::new("rackhand");
        let parse = |word: &str| ActionParser.parse_ref(&command, None, OsStr::new(word));
        assert!(matches!(parse("cycle"), Ok(Action::PowerCycle)));
        assert!(matches!(parse("soft"), Ok(Action::GracefulShutdown)));
        let said = parse("reboot").unwrap_err().to_string();
        assert!(
            said.contains("graceful-restart (the operating system is asked), force-restart (cut without"),
            "{said}"
        );
        assert!(parse("off").unwrap_err().to_string().contains("force-off (cut without asking)"));
    }
}
