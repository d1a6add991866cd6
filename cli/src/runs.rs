//! `rackhand runs …`: one target's execution of a job.

use clap::Subcommand;
use rackhand_schema::{
    job::Reason,
    run::{EffectState, Run, RunDetail, RunState},
};

use crate::{
    args::reason,
    client::Client,
    error::{Result, help},
    jobs::show::{phase, state, why},
    output::{Column, Output, dash, moment, printable_lines, say, spaced, word},
    resolve,
};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// The runs of a job.
    #[command(after_help = help!("runs list 01a2225e -o wide"))]
    List {
        /// Its id or the beginning of it; `rackhand jobs list` shows it.
        job: String,
    },
    /// A run with its phases and the changes it made on the way.
    #[command(after_help = help!("runs show 01a2225f"))]
    Show {
        /// Its id or the beginning of it; `rackhand runs list JOB -o wide` shows it.
        run: String,
    },
    /// Close a run that no executor works on: one that cannot be finished, or that ended `unknown` and still holds its
    /// server. Its slots are freed; nothing is done to the server. It ends `unknown` if it had announced a change, else
    /// `cancelled`. Look at the server before you plan anything else for it.
    #[command(after_help = help!("runs close 01a2225f --reason \"the executor is gone\""))]
    Close {
        /// Its id or the beginning of it.
        run: String,
        /// Why, at least 3 characters; kept in the audit.
        #[arg(long, value_parser = reason)]
        reason: String,
    },
}

const COLUMNS: [Column<Run>; 9] = [
    Column::new("SERVER", |run: &Run| run.server.clone()),
    Column::new("STATE", state),
    Column::new("PHASE", phase),
    Column::new("PERCENT", |run| dash(run.percent)),
    Column::new("EXECUTOR", |run| dash(run.executor_name.as_deref())),
    Column::new("SINCE", |run| moment(&run.since)),
    Column::new("WHY", why),
    Column::wide("EPOCH", |run| run.epoch.to_string()),
    Column::wide("ID", |run| run.id.to_string()),
];

const NONE: &str = "this job has no runs; they begin when its plan is approved";

pub async fn run(verb: Verb, client: &Client, out: Output) -> Result<()> {
    match verb {
        Verb::List { job } => {
            let id = resolve::job(client, &job).await?.to_string();
            let runs: Vec<Run> = client.all(&["v1", "jobs", &id, "runs"], &[], None).await?;
            out.list_or(NONE, &runs, &COLUMNS, |run| run.id.to_string())
        }
        Verb::Show { run } => {
            let run = resolve::run(client, &run).await?;
            let run: RunDetail = client.get(&["v1", "runs", &run.to_string()]).send().await?;
            out.one(&run, &run.run.id.to_string(), || render(&run, out))
        }
        Verb::Close { run, reason } => {
            let run = resolve::run(client, &run).await?;
            let call = client.post(&["v1", "runs", &run.to_string(), "close"]).body(&Reason { reason })?;
            let run: Run = call.send().await?;
            say(closed(&run));
            Ok(())
        }
    }
}

fn closed(run: &Run) -> String {
    let server = &run.server;
    match run.state {
        RunState::Unknown => format!(
            "The run on {server} is closed; its outcome stays unknown. Look at the power, the BMC's job queue and the \
             versions of {server} before you plan anything else for it."
        ),
        state => format!("The run on {server} is closed: {}. It had announced no change.", word(&state)),
    }
}

fn render(detail: &RunDetail, out: Output) -> String {
    let run = &detail.run;
    let mut text = printable_lines(&format!(
        "run       {}\njob       {}\nserver    {}\nstate     {}\nwhy       {}\nsince     {}\nexecutor  {}\n",
        run.id,
        run.job_id,
        run.server,
        state(run),
        why(run),
        moment(&run.since),
        dash(run.executor_name.as_deref()),
    ));
    let phases: Vec<Vec<String>> = detail
        .phases
        .iter()
        .map(|phase| {
            let end = phase.finished_at.as_deref().map(moment);
            let evidence = if phase.evidence.is_null() { "-".to_owned() } else { phase.evidence.to_string() };
            vec![spaced(&phase.phase), word(&phase.state), moment(&phase.started_at), dash(end), evidence]
        })
        .collect();
    text.push('\n');
    text.push_str(&out.table(&["PHASE", "STATE", "FROM", "TO", "EVIDENCE"], &phases));
    if !detail.effects.is_empty() {
        let effects: Vec<Vec<String>> = detail
            .effects
            .iter()
            .map(|effect| {
                let property = format!("{}.{}", effect.object, effect.property);
                let open = if effect.state.is_open() || effect.state == EffectState::Conflict {
                    "yes"
                } else {
                    "no"
                };
                vec![
                    property,
                    word(&effect.state),
                    effect.prior.to_string(),
                    effect.wanted.to_string(),
                    open.to_owned(),
                ]
            })
            .collect();
        text.push('\n');
        text.push_str(&out.table(&["EFFECT", "STATE", "BEFORE", "SET TO", "NEEDS A LOOK"], &effects));
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::jobs::show::tests::run;

    #[test]
    fn who_closes_a_run_reads_which_server_to_look_at() {
        let said = super::closed(&run("web-3", "unknown", "apply"));
        assert!(said.contains("The run on web-3 is closed; its outcome stays unknown. Look at"), "{said}");
        let said = super::closed(&run("web-3", "cancelled", ""));
        assert_eq!(said, "The run on web-3 is closed: cancelled. It had announced no change.");
    }
}
