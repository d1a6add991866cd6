//! `rackhand executors …`

use clap::Subcommand;
use rackhand_schema::{
    executor::{EnrolmentToken, Executor, ExecutorState},
    id::ExecutorId,
};
use serde::Serialize;

use crate::{
    client::Client,
    doctor::quoted,
    error::{Failure, Result, help},
    output::{Column, Output, counted, dash, moment, printable, say, word},
    resolve,
    secret::confirm,
};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Executors, whether they are online and what they hold.
    #[command(after_help = help!("executors list --site lab"))]
    List {
        /// Only executors of this site, by name or id. Without it those of all sites.
        #[arg(long)]
        site: Option<String>,
    },
    /// Print a one-time token with which one executor may join a site.
    #[command(after_help = help!("executors enrol-token --site lab"))]
    EnrolToken {
        /// Name or id of the site; not needed where there is only one.
        #[arg(long)]
        site: Option<String>,
    },
    /// Shut an executor out for good: its key is never accepted again.
    #[command(after_help = help!("executors revoke executor-2 --site lab", "executors revoke executor-2 --yes"))]
    Revoke {
        /// Its name or id.
        executor: String,
        /// Name or id of the site; not needed where there is only one.
        #[arg(long)]
        site: Option<String>,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// An executor, and the name of its site.
#[derive(Serialize)]
struct Listed {
    #[serde(flatten)]
    executor: Executor,
    #[serde(skip)]
    site: String,
}

const COLUMNS: [Column<Listed>; 10] = [
    Column::new("NAME", |row: &Listed| row.executor.name.clone()),
    Column::new("STATE", |row| word(&row.executor.state)),
    Column::new("LINK", |row| if row.executor.online { "online" } else { "offline" }.to_owned()),
    Column::new("RUNS", |row| row.executor.runs_held.to_string()),
    Column::new("VERSION", |row| row.executor.version.clone()),
    Column::new("SEEN", |row| dash(row.executor.seen_at.as_deref().map(moment))),
    Column::varied("SITE", |row| row.site.clone()),
    Column::wide("KINDS", |row| row.executor.kinds.join(" ")),
    Column::wide("FINGERPRINT", |row| row.executor.fingerprint.clone()),
    Column::wide("ID", |row| row.executor.id.to_string()),
];

pub async fn run(verb: Verb, client: &Client, out: Output) -> Result<()> {
    match verb {
        Verb::List { site } => {
            let executors = list(client, site.as_deref()).await?;
            let sites = executors.iter().map(|executor| executor.site_id);
            let names = resolve::site_names(client, sites, out).await;
            let row = |executor: Executor| Listed { site: names.of(executor.site_id), executor };
            let rows: Vec<_> = executors.into_iter().map(row).collect();
            out.list_or(&none(site.as_deref()), &rows, &COLUMNS, |row| row.executor.name.clone())
        }
        Verb::EnrolToken { site } => {
            let site = resolve::site(client, site.as_deref()).await?;
            let call = client.post(&["v1", "sites", &site.id.to_string(), "enrolment-tokens"]);
            let token: EnrolmentToken = call.send().await?;
            say(format!(
                "valid once, for {} minutes; on the machine inside {}:\n  \
                 rackhand-executor enrol --server {} --data DIR --name NAME --token-stdin",
                token.expires_in.div_ceil(60),
                printable(&site.name),
                client.server(),
            ));
            out.one(&token, &token.token, || format!("{}\n", token.token))
        }
        Verb::Revoke { executor, site, yes } => {
            let all = list(client, site.as_deref()).await?;
            let id: ExecutorId = match executor.parse() {
                Ok(id) => id,
                Err(_) => resolve::executor(&all, &executor)?,
            };
            let gone = all.iter().find(|one| one.id == id);
            let gone = gone.ok_or_else(|| Failure::NotFound { what: "executor", name: executor.clone() })?;
            if gone.state == ExecutorState::Revoked {
                say(format!("{} was revoked already", gone.name));
                return Ok(());
            }
            confirm(yes, &after_revoke(gone, &all))?;
            client.delete(&["v1", "executors", &id.to_string()]).done().await?;
            say(format!("revoked {}", gone.name));
            Ok(())
        }
    }
}

/// What is said where there is no executor.
fn none(site: Option<&str>) -> String {
    match site {
        Some(site) => format!(
            "site {site} has no executors; `rackhand executors enrol-token --site {}` prints a token for one",
            quoted(site)
        ),
        None => "there are no executors; `rackhand executors enrol-token` prints a token for one".to_owned(),
    }
}

/// What follows when `gone`, one of `all`, is revoked.
fn after_revoke(gone: &Executor, all: &[Executor]) -> String {
    let mut text = format!(
        "{} is shut out for good: its key is never accepted again, and to return it must enrol anew.",
        gone.name
    );
    let is_left = |one: &&Executor| {
        one.site_id == gone.site_id && one.id != gone.id && one.state == ExecutorState::Active
    };
    let left: Vec<&Executor> = all.iter().filter(is_left).collect();
    let online = left.iter().any(|one| one.online);
    if gone.runs_held > 0 {
        let runs = counted(gone.runs_held, "run");
        text.push_str(&match online {
            true => format!(" The other executors of its site take over the {runs} that it holds."),
            false => format!(
                " It holds {runs}: no other executor of its site is online, so they wait until one is."
            ),
        });
    } else if !online {
        text.push_str(" No other executor of its site is online: no job runs there until one is.");
    }
    if left.is_empty() && gone.state == ExecutorState::Active {
        text.push_str(
            " No other executor holds the key of the site, and without one that does none can join: the site and its \
             credentials are lost for good. Let another executor join first.",
        );
    }
    text
}

pub async fn list(client: &Client, site: Option<&str>) -> Result<Vec<Executor>> {
    let site = resolve::site_id(client, site).await?;
    let query: Vec<(&str, String)> = site.map(|site| ("site", site.to_string())).into_iter().collect();
    client.all(&["v1", "executors"], &query, None).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn executor(last: u8, state: &str, online: bool, runs: u64) -> Executor {
        serde_json::from_value(json!({
            "id": format!("01920000-0000-7000-8000-0000000000{last:02}"),
            "site_id": "01920000-0000-7000-8000-000000000099", "name": format!("executor-{last}"),
            "state": state, "fingerprint": "", "online": online, "version": "1", "kinds": [], "runs_held": runs,
            "seen_at": null, "enrolled_at": "2026-01-01T00:00:00Z",
        }))
        .unwrap()
    }

    #[test]
    fn a_revoke_says_what_follows() {
        let after = |rest: &[Executor], runs| {
            let gone = executor(1, "active", true, runs);
            let all: Vec<Executor> = std::iter::once(gone.clone()).chain(rest.iter().cloned()).collect();
            after_revoke(&gone, &all)
        };
        let (online, offline) = (executor(2, "active", true, 0), executor(2, "active", false, 0));
        let said = after(std::slice::from_ref(&online), 0);
        assert!(said.ends_with("to return it must enrol anew."), "{said}");
        let said = after(&[online], 2);
        assert!(said.ends_with("take over the 2 runs that it holds."), "{said}");
        let said = after(&[offline], 1);
        assert!(
            said.ends_with(
                "It holds 1 run: no other executor of its site is online, so they wait until one is."
            ),
            "{said}"
        );
        for rest in ["joining", "revoked"] {
            let said = after(&[executor(2, rest, true, 0)], 0);
            assert!(said.contains("no job runs there") && said.contains("are lost for good"), "{said}");
        }
    }
}
