//! Progress for people: bars when stderr is a terminal, a line for each change elsewhere.

use std::collections::BTreeMap;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use rackhand_schema::{
    id::RunId,
    job::{Job, JobState},
    run::{Run, RunState},
};

use super::show;
use crate::output::{Output, printable, say, word};

/// More bars than this do not fit a terminal; then only the sum is shown.
const MOST_BARS: usize = 24;

pub struct Progress {
    bars: Option<Bars>,
    /// What was said last of each run.
    said: BTreeMap<RunId, String>,
    /// The state in which the job waits for a person, once that was said.
    waits: Option<JobState>,
    /// How the job stood when it was read last.
    stands: Option<String>,
}

struct Bars {
    multi: MultiProgress,
    total: ProgressBar,
    runs: BTreeMap<RunId, ProgressBar>,
}

impl Progress {
    pub fn new(out: Output) -> Self {
        let bars = out.live.then(|| {
            let multi = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            let total = multi.add(ProgressBar::new(0));
            total.set_style(style("{prefix:16} {bar:30} {pos}/{len}  {msg}"));
            Bars { multi, total, runs: BTreeMap::new() }
        });
        Self { bars, said: BTreeMap::new(), waits: None, stands: None }
    }

    /// What becomes of the job when it is no longer watched, said of it: `goes on`.
    pub fn stands(&self) -> &str {
        self.stands.as_deref().unwrap_or("stays as it is")
    }

    pub fn show(&mut self, job: &Job, runs: &[Run]) {
        self.stands = Some(stands(job));
        let waits = waits(job);
        if let Some(words) = waits.as_ref().filter(|_| self.waits != Some(job.state)) {
            match &self.bars {
                Some(bars) => bars.multi.suspend(|| say(words)),
                None => say(words),
            }
        }
        self.waits = waits.map(|_| job.state);
        if job.state == JobState::Planned {
            // There is nothing to draw before the runs exist.
            return;
        }
        match &mut self.bars {
            Some(bars) => bars.show(job, runs),
            None => {
                for run in runs {
                    let stage = stage(run);
                    if self.said.get(&run.id) != Some(&stage) {
                        say(line(run));
                        self.said.insert(run.id, stage);
                    }
                }
            }
        }
    }

    /// Removes the bars, so that what follows stands alone.
    pub fn finish(&mut self) {
        if let Some(bars) = &self.bars {
            // A terminal that cannot be cleared keeps the bars; nothing is lost.
            let _ = bars.multi.clear();
        }
    }
}

/// What a person must do for the job to go on; nothing while it goes on automatically.
fn waits(job: &Job) -> Option<String> {
    match (job.state, show::outlook(job)) {
        (JobState::Planned, show::Outlook::Work) => Some(stands(job)),
        (JobState::Planned, _) => Some(show::next_step(job)),
        (JobState::Paused, _) if !job.cancel_requested => Some(format!("the job {}", stands(job))),
        _ => None,
    }
}

/// How the job stands, said of it, with the next command where it waits for a person.
fn stands(job: &Job) -> String {
    let id = job.id;
    match (job.state, show::outlook(job)) {
        (JobState::Planned, show::Outlook::Work) => {
            format!("waits for approval: {}", show::approval(job))
        }
        (JobState::Planned, _) => format!("is planned; {}", show::next_step(job)),
        (JobState::Paused | JobState::Running, _) if job.cancel_requested => "is being cancelled".to_owned(),
        (JobState::Paused, _) => printable(&format!(
            "is paused: {}. No further run starts. To continue: rackhand jobs resume {id} --reason TEXT; to end it: \
             rackhand jobs cancel {id} --reason TEXT",
            job.state_reason.trim_end_matches(['.', ' ']),
        )),
        _ => "goes on".to_owned(),
    }
}

impl Bars {
    fn show(&mut self, job: &Job, runs: &[Run]) {
        let done = runs.iter().filter(|run| run.state.is_terminal()).count();
        self.total.set_length(runs.len() as u64);
        self.total.set_position(done as u64);
        self.total.set_prefix(format!("job {}", word(&job.state)));
        self.total.set_message(show::counts_of(runs));
        if runs.len() > MOST_BARS {
            return;
        }
        for run in runs {
            let bar = self.runs.entry(run.id).or_insert_with(|| {
                let bar = self.multi.add(ProgressBar::new(100));
                bar.set_style(style("  {prefix:14} {bar:30} {msg}"));
                bar.set_prefix(printable(&run.server));
                bar
            });
            bar.set_position(if run.state.is_terminal() { 100 } else { u64::from(run.percent.unwrap_or(0)) });
            bar.set_message(words(run, true));
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// What makes a new line worth it: not a percentage, nor other words for the same reason.
fn stage(run: &Run) -> String {
    format!(
        "{} {} {} {}",
        show::state(run),
        run.phase,
        run.reason,
        run.executor_name.as_deref().unwrap_or_default()
    )
}

fn line(run: &Run) -> String {
    format!("{}: {}", run.server, words(run, false))
}

/// `running · apply 40% · device job: the BMC works (executor-1)`. Lines leave out the percentage, else every
/// step of it would be one.
fn words(run: &Run, percent: bool) -> String {
    let mut parts = vec![show::state(run)];
    if !run.phase.is_empty() && !run.state.is_terminal() {
        let phase = show::phase(run);
        parts.push(match run.percent.filter(|_| percent) {
            Some(percent) => format!("{phase} {percent}%"),
            None => phase,
        });
    }
    if run.state != RunState::Succeeded && !(run.reason.is_empty() && run.detail.is_empty()) {
        parts.push(show::why(run));
    }
    let mut text = parts.join(" · ");
    if let Some(executor) = run.executor_name.as_ref().filter(|_| !run.state.is_terminal()) {
        text.push_str(&format!(" ({executor})"));
    }
    printable(&text)
}
