//! `rackhand doctor`: checks everything between this machine and the executors, and says what to do.

use rackhand_schema::{
    executor::{Executor, ExecutorState},
    identity::Me,
    site::Site,
};
use serde::Serialize;

use crate::{
    client::Client,
    credentials,
    error::{Failure, Result},
    executors,
    output::{Column, Output, counted, moment},
    sites, version,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    Warning,
    Failed,
}

#[derive(Debug, Serialize)]
struct Check {
    check: String,
    result: Verdict,
    detail: String,
}

#[derive(Default)]
struct Report(Vec<Check>);

impl Report {
    fn add(&mut self, check: impl Into<String>, result: Verdict, detail: impl Into<String>) {
        self.0.push(Check { check: check.into(), result, detail: detail.into() });
    }
}

const COLUMNS: [Column<Check>; 3] = [
    Column::new("CHECK", |check: &Check| check.check.clone()),
    Column::new("RESULT", |check| crate::output::word(&check.result)),
    Column::new("DETAIL", |check| check.detail.clone()),
];

pub async fn run(client: Result<Client>, out: Output) -> Result<()> {
    let mut report = Report::default();
    match client {
        Ok(client) => examine(&client, &mut report).await,
        Err(failure @ Failure::NotSignedIn(_)) => report.add("session", Verdict::Failed, failure.to_string()),
        Err(failure) => report.add("configuration", Verdict::Failed, failure.to_string()),
    }
    out.list(&report.0, &COLUMNS, |check| check.check.clone())?;
    let failed = report.0.iter().filter(|check| check.result == Verdict::Failed).count();
    if failed == 0 { Ok(()) } else { Err(Failure::Other(format!("{} failed", counted(failed, "check")))) }
}

async fn examine(client: &Client, report: &mut Report) {
    match client.config().loose_permissions() {
        None => report.add("tokens", Verdict::Ok, "only you can read them"),
        Some(detail) => report.add("tokens", Verdict::Failed, detail),
    }
    match client.get(&["v1", "health"]).anonymous::<serde_json::Value>().await {
        Ok(_) => report.add("control plane", Verdict::Ok, format!("{} answers", client.server())),
        Err(failure) => {
            report.add("control plane", Verdict::Failed, failure.to_string());
            return;
        }
    }
    match version::fetch(client).await {
        Ok(server) => {
            let skew = version::skew(version::CLIENT, &server);
            let verdict = if matches!(skew, "none" | "patch") { Verdict::Ok } else { Verdict::Warning };
            report.add(
                "versions",
                verdict,
                match skew {
                    "none" => format!("this command and the control plane are {server}"),
                    skew => format!(
                        "this command {}, control plane {server}: another {skew} version",
                        version::CLIENT
                    ),
                },
            );
        }
        Err(failure) => report.add("versions", Verdict::Failed, failure.to_string()),
    }
    match client.get(&["v1", "auth", "me"]).send::<Me>().await {
        Ok(me) => report.add("session", Verdict::Ok, format!("signed in as {}", me.email)),
        Err(failure) => {
            report.add("session", Verdict::Failed, failure.to_string());
            return;
        }
    }
    match client.all::<Site>(&["v1", "sites"], &[], None).await {
        Ok(sites) if sites.is_empty() => {
            report.add("sites", Verdict::Warning, "none; `rackhand sites create NAME` makes one");
        }
        Ok(sites) => {
            for site in sites {
                examine_site(client, &site, report).await;
            }
        }
        Err(failure) => report.add("sites", Verdict::Failed, failure.to_string()),
    }
}

/// A name as a shell takes it in one piece.
pub fn quoted(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:".contains(&byte);
    match !name.is_empty() && name.bytes().all(plain) {
        true => name.to_owned(),
        false => format!("'{}'", name.replace('\'', r"'\''")),
    }
}

async fn examine_site(client: &Client, site: &Site, report: &mut Report) {
    let name = format!("site {}", site.name);
    let id = site.id.to_string();
    match (site.executors_online, &site.public_key) {
        (0, None) => report.add(
            &name,
            Verdict::Failed,
            format!(
                "no executor yet; `rackhand executors enrol-token --site {}` admits one",
                quoted(&site.name)
            ),
        ),
        (0, Some(_)) => report.add(
            &name,
            Verdict::Failed,
            "no executor online, so no job runs there; start one with `rackhand-executor run --data DIR`",
        ),
        (_, None) => report.add(&name, Verdict::Failed, "no site key: credentials cannot be sealed"),
        (online, Some(_)) => {
            report.add(&name, Verdict::Ok, format!("{} online", counted(online, "executor")))
        }
    }
    if site.config.hardware_paused {
        let (by, quoted) = (sites::since(site), quoted(&site.name));
        report.add(
            &name,
            Verdict::Warning,
            format!(
                "hardware operations are paused{by}; `rackhand sites set {quoted} --hardware-paused false` resumes them"
            ),
        );
    }
    match executors::list(client, Some(&id)).await {
        Ok(executors) => {
            let away = |executor: &&Executor| executor.state == ExecutorState::Active && !executor.online;
            for executor in executors.iter().filter(away) {
                let seen = executor
                    .seen_at
                    .as_deref()
                    .map_or_else(|| "never seen".to_owned(), |at| format!("last seen {}", moment(at)));
                report.add(&name, Verdict::Warning, format!("{} is offline, {seen}", executor.name));
            }
            for executor in executors.iter().filter(|executor| executor.state == ExecutorState::Joining) {
                report.add(
                    &name,
                    Verdict::Warning,
                    format!(
                        "{} waits for its fingerprint to be confirmed: on the machine of an active executor, run \
                         `rackhand-executor confirm --data DIR FINGERPRINT` with the data directory of that one and the \
                         fingerprint that `enrol` printed on the machine of {}",
                        executor.name, executor.name
                    ),
                );
            }
        }
        Err(failure) => report.add(&name, Verdict::Failed, failure.to_string()),
    }
    match credentials::list(client, &[("site", id)]).await {
        Ok(credentials) => {
            for credential in credentials.iter().filter(|credential| credential.suspended) {
                report.add(
                    &name,
                    Verdict::Failed,
                    format!(
                        "credential {} is suspended after rejections: `rackhand credentials set {} --site {} --user USER \
                         --targets-file FILE` seals a new version, with the account on the BMCs and the file of \
                         `rackhand servers import`; if its password is right, `rackhand servers try-again SERVER` on a server \
                         that refused it",
                        credential.name,
                        quoted(&credential.name),
                        quoted(&site.name)
                    ),
                );
            }
        }
        Err(failure) => report.add(&name, Verdict::Failed, failure.to_string()),
    }
}
