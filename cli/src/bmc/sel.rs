//! `rackhand bmc sel`: the system event log.

use std::time::Duration;

use clap::{Args, ValueEnum};
use rackhand_ipmi::{
    Error,
    commands::{
        Moment,
        sdr::SdrCache,
        sel::{self, Content, Entry, Follower, Text},
    },
};
use serde::Serialize;
use tokio::time::sleep;

use super::{
    ipmi::{Access, Bmc},
    sensors::records,
};
use crate::{
    error::{Failure, Result},
    output::{Column, Format, Output, printable, say, write_stdout},
};

#[derive(Debug, Args)]
pub struct Sel {
    #[command(flatten)]
    access: Access,
    /// What to do.
    #[arg(value_enum, default_value_t = Action::List)]
    action: Action,
    /// Do not ask before the log is cleared.
    #[arg(long)]
    yes: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Action {
    /// All entries.
    List,
    /// All entries, then new ones as they come; JSON is one object a line.
    Follow,
    /// Erase the log.
    Clear,
}

#[derive(Debug, Serialize)]
struct Row {
    id: u16,
    /// In whatever time zone the BMC's clock was set to, `+h:mm:ss` after its start if it was not set; none for an
    /// entry without a time.
    time: Option<String>,
    text: String,
    raw: String,
}

const COLUMNS: [Column<Row>; 4] = [
    Column::new("ID", |row| format!("{:04x}", row.id)),
    Column::new("TIME", |row| row.time.clone().unwrap_or_else(|| "-".to_owned())),
    Column::new("EVENT", |row| row.text.clone()),
    Column::wide("RAW", |row| row.raw.clone()),
];

/// How often new entries are looked for.
const POLL: Duration = Duration::from_secs(2);

pub async fn run(args: Sel, out: Output) -> Result<()> {
    match args.action {
        Action::List => {
            let rows = args
                .access
                .session(async |bmc: &Bmc| {
                    let cache = names(bmc).await;
                    let log = sel::read(&bmc.client).await.map_err(|error| bmc.failed(&error))?;
                    if let Some(error) = &log.cut_short {
                        say(incomplete(bmc, error));
                    }
                    Ok(log.entries.iter().map(|entry| row(entry, cache.as_ref())).collect::<Vec<_>>())
                })
                .await?;
            out.list(&rows, &COLUMNS, |row| format!("{:04x}", row.id))
        }
        Action::Follow => args.access.session(async |bmc: &Bmc| follow(bmc, out).await).await,
        Action::Clear => {
            args.access.confirm(args.yes, "all entries of its event log will be erased.")?;
            args.access
                .session(async |bmc: &Bmc| sel::clear(&bmc.client).await.map_err(|error| bmc.failed(&error)))
                .await?;
            say("the log is cleared");
            Ok(())
        }
    }
}

/// Without the sensors' names the log is still worth reading.
async fn names(bmc: &Bmc) -> Option<SdrCache> {
    match records(bmc).await {
        Ok(cache) => Some(cache),
        Err(failure) => {
            say(format!("sensors have no names here: {failure}"));
            None
        }
    }
}

async fn follow(bmc: &Bmc, out: Output) -> Result<()> {
    let cache = names(bmc).await;
    let mut follower = Follower::default();
    let mut told = None;
    loop {
        let mut found = Vec::new();
        let polled = follower.poll(&bmc.client, &mut found).await;
        for entry in &found {
            let row = row(entry, cache.as_ref());
            let line = match out.format {
                Format::Json => {
                    serde_json::to_string(&row).map_err(|error| Failure::Other(error.to_string()))?
                }
                _ => printable(&line(&row)),
            };
            write_stdout(&format!("{line}\n"))?;
        }
        match polled {
            // The log can be read as far as it goes, and may be whole the next time.
            Err(error) if error.is_about_one_answer() => {
                let text = incomplete(bmc, &error);
                if told.as_ref() != Some(&text) {
                    say(&text);
                    told = Some(text);
                }
            }
            polled => polled.map_err(|error| bmc.failed(&error))?,
        }
        sleep(POLL).await;
    }
}

fn incomplete(bmc: &Bmc, error: &Error) -> String {
    bmc.says(format!("the log is not complete: {error}"))
}

fn line(row: &Row) -> String {
    format!("{:04x}  {:19}  {}", row.id, row.time.as_deref().unwrap_or("-"), row.text)
}

fn row(entry: &Entry, cache: Option<&SdrCache>) -> Row {
    let time = match entry.content() {
        Content::Event { time, .. } | Content::OemTimed { time, .. } => {
            (time.moment() != Moment::Unspecified).then(|| time.to_string())
        }
        Content::Oem { .. } | Content::Other { .. } => None,
    };
    Row { id: entry.id(), time, text: Text { entry, cache }.to_string(), raw: hex::encode(entry.raw) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_one_line() {
        // A temperature over its upper critical threshold (section 32.1).
        let raw = [1, 0, 2, 0x40, 0x42, 0x0f, 0x66, 0x20, 0, 4, 1, 3, 1, 0x59, 95, 90];
        insta::assert_snapshot!(line(&row(&Entry { raw }, None)));
    }
}
