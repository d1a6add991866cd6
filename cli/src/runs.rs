//! `rackhand runs …`: one target's execution of a job.

use clap::Subcommand;
use rackhand_schema::{
    id::RunId,
    run::{EffectState, Run, RunDetail},
};

use crate::{
    client::Client,
    error::{EXIT_CODES, Result},
    jobs::why,
    output::{Column, Output, dash, moment, printable_lines, word},
    resolve,
};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// The runs of a job.
    #[command(after_help = EXIT_CODES)]
    List { job: String },
    /// A run with its phases and the changes it made on the way.
    #[command(after_help = EXIT_CODES)]
    Show { run: RunId },
}

const COLUMNS: [Column<Run>; 9] = [
    Column::new("SERVER", |run: &Run| run.server.clone()),
    Column::new("STATE", |run| word(&run.state)),
    Column::new("PHASE", |run| dash(Some(run.phase.as_str()).filter(|phase| !phase.is_empty()))),
    Column::new("PERCENT", |run| dash(run.percent)),
    Column::new("EXECUTOR", |run| dash(run.executor_name.as_deref())),
    Column::new("SINCE", |run| moment(&run.since)),
    Column::new("WHY", why),
    Column::wide("EPOCH", |run| run.epoch.to_string()),
    Column::wide("ID", |run| run.id.to_string()),
];

pub async fn run(verb: Verb, client: &Client, out: Output) -> Result<()> {
    match verb {
        Verb::List { job } => {
            let id = resolve::job(&job)?.to_string();
            let runs: Vec<Run> = client.all(&["v1", "jobs", &id, "runs"], &[], None).await?;
            out.list(&runs, &COLUMNS, |run| run.id.to_string())
        }
        Verb::Show { run } => {
            let run: RunDetail = client.get(&["v1", "runs", &run.to_string()]).send().await?;
            out.one(&run, &run.run.id.to_string(), || render(&run, out))
        }
    }
}

fn render(detail: &RunDetail, out: Output) -> String {
    let run = &detail.run;
    let mut text = printable_lines(&format!(
        "run       {}\njob       {}\nserver    {}\nstate     {}\nwhy       {}\nsince     {}\nexecutor  {}\n\
         epoch     {}\n",
        run.id,
        run.job_id,
        run.server,
        word(&run.state),
        why(run),
        moment(&run.since),
        dash(run.executor_name.as_deref()),
        run.epoch,
    ));
    let phases: Vec<Vec<String>> = detail
        .phases
        .iter()
        .map(|phase| {
            let end = phase.finished_at.as_deref().map(moment);
            let evidence = if phase.evidence.is_null() { "-".to_owned() } else { phase.evidence.to_string() };
            vec![phase.phase.clone(), word(&phase.state), moment(&phase.started_at), dash(end), evidence]
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
