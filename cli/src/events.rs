//! `rackhand events tail`: what happened, and what happens.
//!
//! Following is a long poll at a time: the server answers at the moment something happens, and the cursor skips
//! nothing in between, also over an outage of the control plane.

use clap::{Args, Subcommand};
use rackhand_schema::{
    ErrorCode,
    event::{Event, EventPage},
};

use crate::{
    client::{Away, Client},
    error::{Failure, Result, help},
    output::{Column, Format, Output, moment, printable, word, write_stdout},
    resolve,
};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// The latest events; with `--follow` also those to come.
    #[command(after_help = help!("events tail --job 01a2225e --follow"))]
    Tail(Tail),
}

#[derive(Debug, Args)]
pub struct Tail {
    /// Only events of this site, by name or id. Without it those of all sites.
    #[arg(long)]
    site: Option<String>,
    /// Only events of this job: its id or the beginning of it.
    #[arg(long, value_name = "ID")]
    job: Option<String>,
    /// Only events of this run: its id or the beginning of it.
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// Name, service tag or id.
    #[arg(long)]
    server: Option<String>,
    /// Begin after this event instead of with the latest; the cursor stands in the JSON form.
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// How many of the latest events to begin with.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Wait for further events until Ctrl-C.
    #[arg(short, long)]
    follow: bool,
}

/// Most events of one answer.
const MOST: usize = 500;
/// How long the server holds an answer open while nothing happens.
const WAIT_MS: &str = "20000";

const COLUMNS: [Column<Event>; 7] = [
    Column::new("AT", |event: &Event| moment(&event.at)),
    Column::new("LEVEL", |event| word(&event.level)),
    Column::new("KIND", |event| event.kind.clone()),
    Column::new("ACTOR", |event| event.actor.clone()),
    Column::new("MESSAGE", message),
    Column::wide("RUN", |event| crate::output::dash(event.run_id)),
    Column::wide("CURSOR", |event| event.cursor.clone()),
];

pub async fn run(verb: Verb, client: &Client, out: Output) -> Result<()> {
    let Verb::Tail(args) = verb;
    let query = args.query(client).await?;
    let (events, mut cursor) = match &args.after {
        Some(after) => all_after(client, &query, after).await.map_err(|failure| of_cursor(failure, after))?,
        None => latest(client, &query, args.limit).await?,
    };
    if !args.follow {
        return out.list_matching("event", &events, &COLUMNS, |event| event.cursor.clone());
    }
    print(&events, out)?;
    let mut away = Away::default();
    loop {
        match page(client, &query, &cursor, Some(WAIT_MS)).await {
            Ok(page) => {
                away.over();
                print(&page.items, out)?;
                cursor = page.cursor;
            }
            Err(failure) => away.wait(failure).await?,
        }
    }
}

/// With a cursor that someone typed, what is not valid is the cursor.
fn of_cursor(failure: Failure, after: &str) -> Failure {
    match failure {
        Failure::Problem(problem) if problem.code == ErrorCode::InvalidRequest.as_str() => {
            Failure::Usage(format!(
                "--after: `{}` is not a cursor; each event has one in `rackhand events tail --json`",
                after.escape_debug()
            ))
        }
        other => other,
    }
}

/// Every event after the cursor, and where to go on.
async fn all_after(
    client: &Client,
    query: &[(&'static str, String)],
    after: &str,
) -> Result<(Vec<Event>, String)> {
    let (mut events, mut cursor) = (Vec::new(), after.to_owned());
    loop {
        let page = page(client, query, &cursor, None).await?;
        let empty = page.items.is_empty();
        events.extend(page.items);
        cursor = page.cursor;
        if empty {
            return Ok((events, cursor));
        }
    }
}

/// The last `count` events, the newest at the end, and where those to come begin.
async fn latest(
    client: &Client,
    query: &[(&'static str, String)],
    count: usize,
) -> Result<(Vec<Event>, String)> {
    let mut events: Vec<Event> = Vec::new();
    let mut before = "latest".to_owned();
    let mut follow = None;
    loop {
        // One is asked for even where none is wanted: its cursor is where following begins.
        let limit = count.saturating_sub(events.len()).clamp(1, MOST);
        let mut call = client.get(&["v1", "events"]).query("limit", limit.to_string());
        for (name, value) in query {
            call = call.query(name, value);
        }
        let page: EventPage = call.query("before", &before).send().await?;
        let newest = page.items.first().map_or(&page.cursor, |event| &event.cursor);
        let follow = follow.get_or_insert_with(|| newest.clone());
        let last = !page.more;
        before = page.cursor;
        events.extend(page.items);
        if last || events.len() >= count {
            events.truncate(count);
            events.reverse();
            return Ok((events, follow.clone()));
        }
    }
}

impl Tail {
    async fn query(&self, client: &Client) -> Result<Vec<(&'static str, String)>> {
        let site = resolve::site_id(client, self.site.as_deref()).await?;
        let mut query = Vec::new();
        query.extend(site.map(|site| ("site", site.to_string())));
        if let Some(job) = &self.job {
            query.push(("job", resolve::job(client, job).await?.to_string()));
        }
        if let Some(run) = &self.run {
            query.push(("run", resolve::run(client, run).await?.to_string()));
        }
        if let Some(server) = &self.server {
            query.push(("server", resolve::server(client, server, site).await?.to_string()));
        }
        Ok(query)
    }
}

/// One page of events after `cursor`; with `wait_ms` held open while there is none.
pub async fn page(
    client: &Client,
    query: &[(&'static str, String)],
    cursor: &str,
    wait_ms: Option<&str>,
) -> Result<EventPage> {
    let mut call = client.get(&["v1", "events"]).query("limit", MOST.to_string());
    for (name, value) in query {
        call = call.query(name, value);
    }
    call.query("after", cursor).query_if("wait_ms", wait_ms).send().await
}

/// Streams: JSON as one object per line, anything else as one line for each event.
fn print(events: &[Event], out: Output) -> Result<()> {
    for event in events {
        let line = match out.format {
            Format::Json => {
                serde_json::to_string(event).map_err(|error| Failure::Other(error.to_string()))?
            }
            Format::Name => event.cursor.clone(),
            Format::Table | Format::Wide | Format::Csv => line(event),
        };
        write_stdout(&format!("{line}\n"))?;
    }
    Ok(())
}

fn line(event: &Event) -> String {
    let text = format!(
        "{}  {:<5}  {:<16}  {}  {}",
        moment(&event.at),
        word(&event.level),
        event.kind,
        event.actor,
        message(event)
    );
    printable(&text)
}

fn message(event: &Event) -> String {
    if event.late { format!("{} (late)", event.message) } else { event.message.clone() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_is_one_line() {
        let event: Event = serde_json::from_value(json!({
            "cursor": "7-1", "at": "2026-01-02T03:04:05.6Z", "kind": "run.log", "level": "warn",
            "message": "two\nlines\u{1b}[31m", "site_id": null, "job_id": null, "run_id": null,
            "server_id": null, "trace_id": null, "actor": "executor-1", "late": true, "data": {},
        }))
        .unwrap();
        assert_eq!(
            line(&event),
            "2026-01-02 03:04:05Z  warn   run.log           executor-1  two lines [31m (late)"
        );
    }
}
