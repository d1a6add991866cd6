//! `rackhand jobs …`: plan, approve, watch and stop work.

mod cancel;
mod follow;
mod package;
mod plan;
mod progress;
pub mod show;

use std::time::Duration;

use clap::{Args, Subcommand};
use rackhand_schema::{
    id::JobId,
    job::{Approval, Job, JobState, Reason},
    run::Run,
    site::Site,
};

use crate::{
    args::{at_least_one, digest, reason},
    client::Client,
    doctor::quoted,
    error::{EXIT_CODES, Failure, Result, help},
    output::{Column, Output, moment, say, spaced, word},
    resolve, secret,
    sites::paused,
};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Jobs, the latest first.
    #[command(after_help = help!("jobs list --state running"))]
    List {
        /// Only jobs of this site, by name or id. Without it those of all sites.
        #[arg(long)]
        site: Option<String>,
        /// Only jobs in this state.
        #[arg(long, value_parser = STATES)]
        state: Option<String>,
        /// Maximum number of jobs.
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = at_least_one)]
        limit: usize,
    },
    /// A job with its plan and its runs.
    #[command(after_help = help!("jobs show 01a2225e"))]
    Show {
        /// Its id or the beginning of it; `rackhand jobs list` shows it.
        job: String,
    },
    /// Let the control plane compute what would be done; nothing that changes a machine starts. Exit code 7: some or
    /// all servers are blocked.
    #[command(subcommand, after_help = EXIT_CODES)]
    Plan(Box<plan::Kind>),
    /// Approve a plan; its runs start.
    #[command(after_help = help!("jobs apply 01a2225e --wait"))]
    Apply(Apply),
    /// Follow a job to its end. Exit code 0: every server of the plan succeeded; 7: some failed or were blocked; 1:
    /// none succeeded.
    #[command(after_help = help!("jobs watch 01a2225e --timeout 600"))]
    Watch {
        /// Its id or the beginning of it; `rackhand jobs list` shows it.
        job: String,
        #[command(flatten)]
        limit: Limit,
    },
    /// End a job at the next safe point of each run.
    #[command(after_help = help!("jobs cancel 01a2225e --reason \"wrong window\""))]
    Cancel(Because),
    /// Start no further run.
    #[command(after_help = help!("jobs pause 01a2225e --reason \"a rack is dark\""))]
    Pause(Because),
    /// Go on with a paused job. The failures so far count as seen: the job pauses itself again after as many new ones
    /// as its plan says.
    #[command(after_help = help!("jobs resume 01a2225e --reason \"power is back\""))]
    Resume(Because),
    /// Plan a new job for the targets that did not succeed.
    #[command(after_help = help!("jobs retry 01a2225e --reason \"cables fixed\""))]
    Retry(Because),
}

#[derive(Debug, Args)]
pub struct Apply {
    /// Its id or the beginning of it; `rackhand jobs list` shows it.
    job: String,
    /// Digest of the plan that was read. Required without a terminal; at one, the plan is shown once more and `yes`
    /// approves it.
    #[arg(long, value_name = "HEX", value_parser = digest)]
    digest: Option<String>,
    /// Follow the job to its end. Exit code 0: every server of the plan succeeded; 7: some failed or were blocked; 1:
    /// none succeeded.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    limit: Limit,
}

#[derive(Debug, Args)]
pub struct Because {
    /// Its id or the beginning of it; `rackhand jobs list` shows it.
    job: String,
    /// Why, at least 3 characters; kept in the audit.
    #[arg(long, value_parser = reason)]
    reason: String,
}

/// The words of the API for [`JobState`].
const STATES: [&str; 6] = ["planned", "running", "paused", "succeeded", "failed", "cancelled"];

/// How long to wait.
#[derive(Debug, Args)]
pub struct Limit {
    /// Stop waiting after this many seconds; the job itself is left as it is. Without it there is no limit.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
}

impl Limit {
    fn duration(&self) -> Option<Duration> {
        self.timeout.map(Duration::from_secs)
    }
}

const COLUMNS: [Column<Job>; 9] = [
    Column::new("ID", |job: &Job| job.id.to_string()),
    Column::new("KIND", |job| spaced(job.spec.kind())),
    Column::new("STATE", |job| word(&job.state)),
    Column::new("RUNS", |job| show::run_counts(&job.runs)),
    Column::new("REASON", |job| job.reason.clone()),
    Column::new("CREATED", |job| moment(&job.created_at)),
    Column::wide("BY", |job| job.created_by_name.clone()),
    Column::varied("SITE", |job| job.site.clone()),
    Column::wide("TRACE", |job| job.trace_id.to_hex()),
];

const NONE: &str = "there are no jobs; `rackhand jobs plan inventory --all --reason TEXT` reads the servers";

pub async fn run(verb: Verb, client: &Client, out: Output) -> Result<()> {
    match verb {
        Verb::List { site, state, limit } => {
            let site = resolve::site_id(client, site.as_deref()).await?;
            let mut query = Vec::new();
            query.extend(site.map(|site| ("site", site.to_string())));
            query.extend(state.map(|state| ("state", state)));
            let jobs: Vec<Job> = client.all(&["v1", "jobs"], &query, Some(limit)).await?;
            match query.is_empty() {
                true => out.list_or(NONE, &jobs, &COLUMNS, |job| job.id.to_string()),
                false => out.list_matching("job", &jobs, &COLUMNS, |job| job.id.to_string()),
            }
        }
        Verb::Show { job } => {
            let job = get(client, resolve::job(client, &job).await?).await?;
            let runs = runs(client, job.id).await?;
            out.one(&job, &job.id.to_string(), || show::job(&job, &runs, out))
        }
        Verb::Plan(kind) => plan::run(*kind, client, out).await,
        Verb::Apply(args) => apply(args, client, out).await,
        Verb::Watch { job, limit } => {
            follow::to_end(client, resolve::job(client, &job).await?, limit.duration(), out).await
        }
        Verb::Cancel(because) => {
            let job = act(client, because, "cancel", out).await?;
            cancel::tell(&job, &runs(client, job.id).await?);
            Ok(())
        }
        Verb::Pause(because) => act(client, because, "pause", out).await.map(drop),
        Verb::Resume(because) => {
            let job = act(client, because, "resume", out).await?;
            warn_if_paused(client, &job).await;
            Ok(())
        }
        Verb::Retry(because) => {
            let job = act(client, because, "retry-failed", out).await?;
            plan::after(&job, client, out).await
        }
    }
}

async fn apply(args: Apply, client: &Client, out: Output) -> Result<()> {
    let id = resolve::job(client, &args.job).await?;
    let digest = match args.digest {
        Some(digest) => digest,
        None => confirm(client, &get(client, id).await?, out).await?,
    };
    let call = client.post(&["v1", "jobs", &id.to_string(), "approve"]).idempotent();
    let job: Job = call.body(&Approval { digest })?.send().await?;
    say(format!("approved {}", job.id));
    warn_if_paused(client, &job).await;
    if args.wait {
        return follow::to_end(client, id, args.limit.duration(), out).await;
    }
    out.one(&job, &job.id.to_string(), || format!("{} {}\n", job.id, word(&job.state)))
}

/// Shows the plan once more and asks; the digest that was shown is the one that gets approved.
async fn confirm(client: &Client, job: &Job, out: Output) -> Result<String> {
    if job.state != JobState::Planned {
        return Err(Failure::Conflict(format!("job {} is {}, not planned", job.id, word(&job.state))));
    }
    say(show::plan(job, out.colourless()));
    if show::outlook(job) == show::Outlook::Blocked {
        return Err(Failure::Partial(show::next_step(job)));
    }
    warn_if_paused(client, job).await;
    match secret::ask("Carry out this plan? Type `yes`:")?.as_deref() {
        Some("yes") => Ok(job.plan.digest.clone()),
        Some(_) => Err(Failure::Other("not approved".to_owned())),
        None => Err(Failure::Usage(format!(
            "no terminal to ask on; approve the plan you read with --digest {}",
            quoted(&job.plan.digest)
        ))),
    }
}

/// Says of a job that changes something that it will not start while its site is paused. The plan may be older than the
/// pause. Where the site cannot be read nothing is said: the runs of the job say it themselves.
async fn warn_if_paused(client: &Client, job: &Job) {
    let site = site(client, job).await;
    let words = site.filter(|_| job.spec.mutates()).and_then(|site| paused(&site));
    words.into_iter().for_each(say);
}

/// The site of a job, where it can be read.
async fn site(client: &Client, job: &Job) -> Option<Site> {
    client.get(&["v1", "sites", &job.site_id.to_string()]).send().await.ok()
}

async fn act(client: &Client, because: Because, verb: &str, out: Output) -> Result<Job> {
    let id = resolve::job(client, &because.job).await?;
    let call = client.post(&["v1", "jobs", &id.to_string(), verb]).idempotent();
    let job: Job = call.body(&Reason { reason: because.reason })?.send().await?;
    out.one(&job, &job.id.to_string(), || {
        if job.state == JobState::Planned {
            show::plan(&job, out)
        } else {
            format!("{} {}\n", job.id, became(&job))
        }
    })?;
    Ok(job)
}

/// The state of a job after a command; one that is cancelled keeps its state until its last run has ended.
fn became(job: &Job) -> String {
    match job.state {
        JobState::Running | JobState::Paused if job.cancel_requested => "is being cancelled".to_owned(),
        state => word(&state),
    }
}

async fn get(client: &Client, id: JobId) -> Result<Job> {
    client.get(&["v1", "jobs", &id.to_string()]).send().await
}

async fn runs(client: &Client, id: JobId) -> Result<Vec<Run>> {
    client.all(&["v1", "jobs", &id.to_string(), "runs"], &[], None).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_is_cancelled_says_so_before_it_has_ended() {
        let mut job = show::tests::sample();
        job.state = JobState::Paused;
        assert_eq!(became(&job), "paused");
        job.cancel_requested = true;
        assert_eq!(became(&job), "is being cancelled");
        job.state = JobState::Cancelled;
        assert_eq!(became(&job), "cancelled");
    }

    #[test]
    fn states_are_the_words_of_the_api() {
        for state in STATES {
            assert_eq!(word(&serde_json::from_value::<JobState>(state.into()).unwrap()), state);
        }
    }
}
