//! From what people type to ids: a name, an id or the beginning of an id works everywhere.

use std::{collections::BTreeSet, str::FromStr};

use rackhand_schema::{
    id::{ExecutorId, JobId, RunId, ServerId, SiteId},
    server::ServerSummary,
    site::Site,
};
use serde::Deserialize;

use crate::{
    client::Client,
    error::{Failure, Result},
    output::{Format, Output},
};

/// Fewer digits are too easily meant otherwise.
const SHORTEST: usize = 4;
/// How many of the latest jobs the beginning of an id is looked for in.
const LATEST_JOBS: usize = 1_000;
/// The same for runs, which are listed by job.
const LATEST_JOBS_WITH_RUNS: usize = 20;
/// How many ids an error names.
const NAMED: usize = 5;

/// The part of a listed thing that is looked at here: what else it holds may be of a later version.
#[derive(Deserialize)]
struct Listed {
    id: String,
}

/// Names of sites, for lists that tell them apart by it.
pub struct SiteNames(Vec<Site>);

impl SiteNames {
    /// The id, where the name cannot be read.
    pub fn of(&self, id: SiteId) -> String {
        let found = self.0.iter().find(|site| site.id == id);
        found.map_or_else(|| id.to_string(), |site| site.name.clone())
    }
}

/// The names of these sites. A short list of one site does not show it, so nothing is read for it.
pub async fn site_names(client: &Client, ids: impl Iterator<Item = SiteId>, out: Output) -> SiteNames {
    let shown = matches!(out.format, Format::Wide | Format::Csv) || ids.collect::<BTreeSet<_>>().len() > 1;
    let sites = if shown { client.all(&["v1", "sites"], &[], None).await } else { Ok(Vec::new()) };
    SiteNames(sites.unwrap_or_default())
}

/// The site of that name or id. If none is named: the only one, or the one of `rackhand sites use`.
pub async fn site(client: &Client, named: Option<&str>) -> Result<Site> {
    let mut sites: Vec<Site> = client.all(&["v1", "sites"], &[], None).await?;
    let missing = |name: &str| Failure::NotFound { what: "site", name: name.to_owned() };
    if let Some(named) = named {
        if let Some(place) = sites.iter().position(|site| site.name == named) {
            return Ok(sites.swap_remove(place));
        }
        let id = id_of(sites.iter().map(|site| site.id.to_string()), named, "site")?;
        return sites.into_iter().find(|site| site.id == id).ok_or_else(|| missing(named));
    }
    if sites.len() == 1 {
        return sites.pop().ok_or_else(|| missing("any"));
    }
    let chosen = client.chosen_site()?;
    if let Some(place) = sites.iter().position(|site| Some(site.id) == chosen) {
        return Ok(sites.swap_remove(place));
    }
    let names: Vec<&str> = sites.iter().map(|site| site.name.as_str()).collect();
    Err(match names.is_empty() {
        true => missing("any"),
        false => Failure::Usage(format!(
            "which site? give --site, or choose one for good with `rackhand sites use NAME`: {}",
            names.join(", ")
        )),
    })
}

/// The id of the site, if one is named.
pub async fn site_id(client: &Client, named: Option<&str>) -> Result<Option<SiteId>> {
    match named {
        None => Ok(None),
        Some(named) => match named.parse() {
            Ok(id) => Ok(Some(id)),
            Err(_) => Ok(Some(site(client, Some(named)).await?.id)),
        },
    }
}

/// The server of that id, or of exactly that name or service tag.
pub async fn server(client: &Client, named: &str, site: Option<SiteId>) -> Result<ServerId> {
    if let Ok(id) = named.parse() {
        return Ok(id);
    }
    let found = servers(client, &[named.to_owned()], site).await?;
    let missing = || Failure::NotFound { what: "server", name: named.to_owned() };
    found.first().map(|server| server.id).ok_or_else(missing)
}

/// The server of each name, service tag or id, in the same order.
pub async fn servers(client: &Client, named: &[String], site: Option<SiteId>) -> Result<Vec<ServerSummary>> {
    let chosen = client.chosen_site()?;
    let mut query: Vec<(&str, String)> = site.map(|site| ("site", site.to_string())).into_iter().collect();
    let all = query.clone();
    // One reading of the fleet instead of a request for each name.
    query.extend(match named {
        [one] => Some(("q", one.clone())),
        _ => None,
    });
    let mut fleet: Vec<ServerSummary> = client.all(&["v1", "servers"], &query, None).await?;
    let mut found = Vec::with_capacity(named.len());
    for name in named {
        let place = match pick(&fleet, name, chosen) {
            Err(Failure::NotFound { .. }) if is_beginning(name) => {
                if query != all {
                    // A filter by name does not find ids.
                    fleet = client.all(&["v1", "servers"], &all, None).await?;
                    query.clone_from(&all);
                }
                let id: ServerId = id_of(fleet.iter().map(|server| server.id.to_string()), name, "server")?;
                fleet.iter().position(|server| server.id == id)
            }
            picked => Some(picked?),
        };
        let server = place.and_then(|place| fleet.get(place)).cloned();
        found.push(server.ok_or_else(|| Failure::NotFound { what: "server", name: name.clone() })?);
    }
    Ok(found)
}

/// Where in `found` the one stands that has this name, service tag or id. Of several the one in the chosen site counts.
pub fn pick(found: &[ServerSummary], named: &str, chosen: Option<SiteId>) -> Result<usize> {
    let id: Option<ServerId> = named.parse().ok();
    let is_named = |server: &ServerSummary| {
        server.name == named || server.service_tag.as_deref() == Some(named) || Some(server.id) == id
    };
    let exact: Vec<(usize, &ServerSummary)> =
        found.iter().enumerate().filter(|(_, server)| is_named(server)).collect();
    match exact.as_slice() {
        [] => Err(Failure::NotFound { what: "server", name: named.to_owned() }),
        [(place, _)] => Ok(*place),
        several => {
            let mut here = several.iter().filter(|(_, server)| Some(server.site_id) == chosen);
            if let (Some((place, _)), None) = (here.next(), here.next()) {
                return Ok(*place);
            }
            let sites: BTreeSet<&str> = several.iter().map(|(_, server)| server.site.as_str()).collect();
            let sites: Vec<&str> = sites.into_iter().collect();
            Err(Failure::Usage(format!(
                "`{named}` means several servers (sites {}); give --site or the id",
                sites.join(", ")
            )))
        }
    }
}

/// The job of that id, or of which it is the beginning.
pub async fn job(client: &Client, text: &str) -> Result<JobId> {
    match text.trim().parse() {
        Ok(id) => Ok(id),
        Err(_) => {
            let beginning = beginning(text, "job")?;
            id_of(jobs(client, LATEST_JOBS).await?.into_iter(), beginning, "job")
        }
    }
}

/// The run of that id, or of which it is the beginning, among the runs of the latest jobs.
pub async fn run(client: &Client, text: &str) -> Result<RunId> {
    if let Ok(id) = text.trim().parse() {
        return Ok(id);
    }
    let beginning = beginning(text, "run")?;
    let mut ids = Vec::new();
    for job in jobs(client, LATEST_JOBS_WITH_RUNS).await? {
        let runs: Vec<Listed> = client.all(&["v1", "jobs", &job, "runs"], &[], None).await?;
        ids.extend(runs.into_iter().map(|run| run.id));
    }
    id_of(ids.into_iter(), beginning, "run")
}

/// The executor of that name or id among these.
pub fn executor(executors: &[rackhand_schema::executor::Executor], named: &str) -> Result<ExecutorId> {
    let mut same = executors.iter().filter(|executor| executor.name == named);
    match (same.next(), same.next()) {
        (None, _) => id_of(executors.iter().map(|executor| executor.id.to_string()), named, "executor"),
        (Some(found), None) => Ok(found.id),
        _ => Err(Failure::Usage(format!("several executors are called `{named}`; give --site or the id"))),
    }
}

async fn jobs(client: &Client, limit: usize) -> Result<Vec<String>> {
    let jobs: Vec<Listed> = client.all(&["v1", "jobs"], &[], Some(limit)).await?;
    Ok(jobs.into_iter().map(|job| job.id).collect())
}

/// Whether a text can be the beginning of an id.
fn is_beginning(text: &str) -> bool {
    text.len() >= SHORTEST && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

fn beginning<'a>(text: &'a str, what: &str) -> Result<&'a str> {
    let trimmed = text.trim();
    match is_beginning(trimmed) {
        true => Ok(trimmed),
        false => Err(Failure::Usage(format!(
            "`{}` is not the id of a {what}, nor the first {SHORTEST} or more digits of one",
            text.escape_debug()
        ))),
    }
}

/// The one id that is, or begins with, what was typed.
fn id_of<T: FromStr>(ids: impl Iterator<Item = String>, typed: &str, what: &'static str) -> Result<T> {
    let missing = || Failure::NotFound { what, name: typed.to_owned() };
    let typed = typed.to_ascii_lowercase();
    if !is_beginning(&typed) {
        return Err(missing());
    }
    let found: BTreeSet<String> = ids.filter(|id| id.starts_with(&typed)).collect();
    let named: Vec<&str> = found.iter().take(NAMED).map(String::as_str).collect();
    match named.as_slice() {
        [one] => one.parse().map_err(|_| missing()),
        [] => Err(missing()),
        several => Err(Failure::Usage(format!(
            "`{typed}` begins the ids of {} {what}s; give more of it:\n  {}{}",
            found.len(),
            several.join("\n  "),
            match found.len().saturating_sub(NAMED) {
                0 => String::new(),
                more => format!("\n  … and {more} more"),
            }
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_an_id_is_enough_if_it_means_one() {
        let ids = ["01a2225e-dba1-7000-8000-000000000001", "01a2225e-dba2-7000-8000-000000000002"];
        let of = |typed: &str| id_of::<JobId>(ids.iter().map(ToString::to_string), typed, "job");
        assert_eq!(of("01a2225e-dba1").unwrap().to_string(), ids[0]);
        assert_eq!(of(&ids[1].to_uppercase()).unwrap().to_string(), ids[1]);
        let error = of("01a2").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(ids[0]) && error.to_string().contains(ids[1]), "{error}");
        let many = (0..7).map(|last| format!("01a2225e-dba1-7000-8000-00000000000{last}"));
        let error = id_of::<JobId>(many, "01a2", "job").unwrap_err().to_string();
        assert!(error.ends_with("000000000004\n  … and 2 more"), "{error}");
        assert_eq!(of("02b3").unwrap_err().exit_code(), 3);
        assert_eq!(of("01a").unwrap_err().exit_code(), 3, "three digits are too few");
        let error = beginning("x\r", "run").unwrap_err().to_string();
        assert!(error.starts_with("`x\\r` is not the id of a run"), "{error}");
        assert_eq!(beginning("01a2225e\r\n", "run").unwrap(), "01a2225e");
    }
}
