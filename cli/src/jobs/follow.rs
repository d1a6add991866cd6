//! Follows a job to its end and turns its outcome into an exit code.
//!
//! Events wake it (one long poll at a time); what it shows is always read from the job and its runs, so that a
//! lost event cannot leave a wrong picture. A control plane that is away for a while is waited for.

use std::{collections::BTreeSet, time::Duration};

use rackhand_schema::{
    ErrorCode,
    id::JobId,
    job::{Job, JobState},
    run::{Run, RunState},
};
use tokio::time::{Instant, sleep, timeout_at};

use super::{get, progress::Progress, runs, show};
use crate::{
    client::{Away, Client},
    error::{Failure, Result},
    events,
    output::{Output, counted, interrupts, say, word},
};

/// Least time between two readings of the job.
const PAUSE: Duration = Duration::from_millis(300);
/// How long one long poll is held; also how often the job is read when nothing happens.
const WAIT_MS: &str = "10000";

pub async fn to_end(client: &Client, id: JobId, limit: Option<Duration>, out: Output) -> Result<()> {
    let mut interrupts = interrupts()?;
    let mut progress = Progress::new(out);
    let watched = async {
        match limit {
            None => watch(client, id, &mut progress).await,
            Some(limit) => {
                timeout_at(Instant::now() + limit, watch(client, id, &mut progress)).await.map_err(|_| {
                    let within = limit.as_secs();
                    Failure::TimedOut(format!(
                        "job {id} has not ended within {within} s; it {}",
                        progress.stands()
                    ))
                })?
            }
        }
    };
    let ended = tokio::select! {
        ended = watched => Some(ended),
        _ = interrupts.recv() => None,
    };
    let ended = ended.unwrap_or_else(|| Err(Failure::Left(format!("job {id} {}", progress.stands()))));
    progress.finish();
    let (job, runs) = ended?;
    out.one(&job, &job.id.to_string(), || show::job(&job, &runs, out))?;
    for code in codes(&runs) {
        say(format!("more: {}/errors/{code}", client.server()));
    }
    verdict(&job, &runs)
}

/// What the runs ended for, each once: those that have a page.
fn codes(runs: &[Run]) -> Vec<ErrorCode> {
    let ended = runs.iter().filter(|run| run.state.is_terminal());
    let codes: BTreeSet<&str> = ended.map(|run| run.reason.as_str()).collect();
    codes.into_iter().filter_map(ErrorCode::parse).take(NAMED).collect()
}

async fn watch(client: &Client, id: JobId, progress: &mut Progress) -> Result<(Job, Vec<Run>)> {
    let query = [("job", id.to_string())];
    // What comes after the first reading matters.
    let mut cursor = "latest".to_owned();
    let mut away = Away::default();
    loop {
        let step = async {
            // The cursor is older than the reading, so that nothing falls between the two.
            if cursor == "latest" {
                cursor = events::page(client, &query, &cursor, None).await?.cursor;
            }
            let job = get(client, id).await?;
            let runs = runs(client, id).await?;
            progress.show(&job, &runs);
            if ended(&job, &runs) {
                return Ok((Some((job, runs)), cursor.clone()));
            }
            let page = events::page(client, &query, &cursor, Some(WAIT_MS)).await?;
            Ok::<_, Failure>((None, page.cursor))
        };
        match step.await {
            Ok((Some(end), _)) => return Ok(end),
            Ok((None, next)) => {
                away.over();
                cursor = next;
                sleep(PAUSE).await;
            }
            Err(failure) => away.wait(failure).await?,
        }
    }
}

/// A job has ended when it says so; one that still undoes something has not.
fn ended(job: &Job, runs: &[Run]) -> bool {
    matches!(job.state, JobState::Succeeded | JobState::Failed | JobState::Cancelled)
        && runs.iter().all(|run| run.state.is_terminal())
}

/// How many servers the last line names.
const NAMED: usize = 5;

/// Everything has succeeded only if every server of the job has: one that the plan left blocked has not.
fn verdict(job: &Job, runs: &[Run]) -> Result<()> {
    let is_good = |run: &&Run| matches!(run.state, RunState::Succeeded | RunState::NoChange);
    let good = runs.iter().filter(is_good).count();
    let bad = runs.iter().filter(|run| !is_good(run));
    // Its sentence was said when the run ended, and stands in the table.
    let bad = bad.map(|run| match (show::state(run), &run.reason) {
        (state, reason) if reason.is_empty() || *reason == state => format!("{} ({state})", run.server),
        (state, reason) => format!("{} ({state}: {reason})", run.server),
    });
    let bad: Vec<String> = bad.chain(show::blocked(job)).collect();
    if bad.is_empty() && job.state == JobState::Succeeded {
        return Ok(());
    }
    let more = match bad.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let not = match bad.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("; ") {
        none if none.is_empty() => none,
        not => format!(". Not: {not}{more}"),
    };
    let text = format!(
        "job {} ended {}: {good} of {} succeeded{not}",
        job.id,
        word(&job.state),
        counted(job.plan.targets.len(), "server"),
    );
    if good == 0 { Err(Failure::Other(text)) } else { Err(Failure::Partial(text)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::show::tests::{run, sample};

    /// The sentences were said when the runs ended.
    #[test]
    fn the_last_line_has_names_and_codes_only() {
        let mut job = sample();
        job.state = JobState::Failed;
        job.plan.targets.retain(|target| target.blockers.is_empty());
        let because = |run: Run, reason: &str| Run {
            reason: reason.to_owned(),
            detail: "A long sentence.".to_owned(),
            ..run
        };
        let runs = [
            because(run("bmc-04", "failed", "stage"), "device-failed"),
            because(run("bmc-05", "cancelled", ""), "cancelled"),
            run("bmc-06", "no_change", ""),
        ];
        assert_eq!(codes(&runs), [ErrorCode::CancelledByPerson, ErrorCode::DeviceFailed]);
        let said = verdict(&job, &runs).unwrap_err().to_string();
        assert!(
            said.ends_with(
                "ended failed: 1 of 3 servers succeeded. Not: bmc-04 (failed: device-failed); bmc-05 (cancelled)"
            ),
            "{said}"
        );
    }
}
