//! `rackhand executors …`

use clap::Subcommand;
use rackhand_schema::{
    executor::{EnrolmentToken, Executor},
    id::ExecutorId,
};

use crate::{
    client::Client,
    error::{Result, help},
    output::{Column, Output, dash, moment, say, word},
    resolve,
};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Executors, whether they are online and what they hold.
    #[command(after_help = help!("executors list --site lab"))]
    List {
        /// Only executors of this site.
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
    /// Shut an executor out for good.
    #[command(after_help = help!("executors revoke executor-2 --site lab"))]
    Revoke {
        /// Its name or id.
        executor: String,
        /// Name or id of the site; not needed where there is only one.
        #[arg(long)]
        site: Option<String>,
    },
}

const COLUMNS: [Column<Executor>; 9] = [
    Column::new("NAME", |executor: &Executor| executor.name.clone()),
    Column::new("STATE", |executor| word(&executor.state)),
    Column::new("LINK", |executor| if executor.online { "online" } else { "offline" }.to_owned()),
    Column::new("RUNS", |executor| executor.runs_held.to_string()),
    Column::new("VERSION", |executor| executor.version.clone()),
    Column::new("SEEN", |executor| dash(executor.seen_at.as_deref().map(moment))),
    Column::wide("KINDS", |executor| executor.kinds.join(" ")),
    Column::wide("FINGERPRINT", |executor| executor.fingerprint.clone()),
    Column::wide("ID", |executor| executor.id.to_string()),
];

pub async fn run(verb: Verb, client: &Client, out: Output) -> Result<()> {
    match verb {
        Verb::List { site } => {
            let executors = list(client, site.as_deref()).await?;
            out.list(&executors, &COLUMNS, |executor| executor.name.clone())
        }
        Verb::EnrolToken { site } => {
            let site = resolve::site(client, site.as_deref()).await?;
            let call = client.post(&["v1", "sites", &site.id.to_string(), "enrolment-tokens"]);
            let token: EnrolmentToken = call.send().await?;
            say(format!(
                "valid once, for {} minutes; on the machine inside {}:\n  \
                 rackhand-executor enrol --server {} --data DIR --name NAME --token-stdin",
                token.expires_in.div_ceil(60),
                site.name,
                client.server(),
            ));
            out.one(&token, &token.token, || format!("{}\n", token.token))
        }
        Verb::Revoke { executor, site } => {
            let id: ExecutorId = match executor.parse() {
                Ok(id) => id,
                Err(_) => resolve::executor(&list(client, site.as_deref()).await?, &executor)?,
            };
            client.delete(&["v1", "executors", &id.to_string()]).done().await?;
            say(format!("revoked {executor}"));
            Ok(())
        }
    }
}

pub async fn list(client: &Client, site: Option<&str>) -> Result<Vec<Executor>> {
    let site = resolve::site_id(client, site).await?;
    let query: Vec<(&str, String)> = site.map(|site| ("site", site.to_string())).into_iter().collect();
    client.all(&["v1", "executors"], &query, None).await
}
