//! What a cancellation has done, and what it waits for.

use rackhand_schema::{
    job::Job,
    run::{Run, RunState},
};

use super::show;
use crate::output::{counted, say};

pub fn tell(job: &Job, runs: &[Run]) {
    for line in lines(job, runs) {
        say(line);
    }
}

/// A line for each thing that happens to runs; one for a job that had none.
fn lines(job: &Job, runs: &[Run]) -> Vec<String> {
    if runs.is_empty() {
        return vec!["nothing had started; the plan cannot be approved any more".to_owned()];
    }
    let (open, ended): (Vec<&Run>, Vec<&Run>) = runs.iter().partition(|run| !run.state.is_terminal());
    let (cancelled, before): (Vec<&Run>, Vec<&Run>) =
        ended.into_iter().partition(|run| run.state == RunState::Cancelled);
    let mut lines = Vec::new();
    let mut line = |runs: &[&Run], one: &str, several: &str| match runs.len() {
        0 => {}
        1 => lines.push(format!("1 run {one}: {}", named(runs))),
        more => lines.push(format!("{} {several}: {}", counted(more, "run"), named(runs))),
    };
    line(
        &cancelled,
        "is cancelled, nothing more is done to its server",
        "are cancelled, nothing more is done to their servers",
    );
    line(
        &open,
        "goes on to its next safe point and ends there; what its BMC has begun, such as a flash, is not interrupted, and \
         what was changed on the way is restored",
        "go on to their next safe point and end there; what their BMCs have begun, such as a flash, is not interrupted, \
         and what was changed on the way is restored",
    );
    line(&before, "had ended before and stays as it is", "had ended before and stay as they are");
    if !open.is_empty() {
        lines.push(format!("`rackhand jobs watch {}` follows it to its end", job.id));
    }
    lines
}

/// Most servers that a line names.
const NAMED: usize = 8;

/// `bmc-01 (running, flash), bmc-02 (queued) and 3 more`
fn named(runs: &[&Run]) -> String {
    let name = |run: &&Run| match (run.state, run.phase.as_str()) {
        (RunState::Cancelled, _) => run.server.clone(),
        (_, "") => format!("{} ({})", run.server, show::state(run)),
        (state, _) if state.is_terminal() => format!("{} ({})", run.server, show::state(run)),
        _ => format!("{} ({}, {})", run.server, show::state(run), show::phase(run)),
    };
    let names = runs.iter().take(NAMED).map(name).collect::<Vec<_>>().join(", ");
    match runs.len().saturating_sub(NAMED) {
        0 => names,
        more => format!("{names} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::show::tests::{run, sample};

    #[test]
    fn a_cancellation_says_what_ends_now_and_what_goes_on() {
        let job = sample();
        assert_eq!(lines(&job, &[]), ["nothing had started; the plan cannot be approved any more"]);
        let runs = [
            run("bmc-04", "cancelled", ""),
            run("bmc-05", "waiting", "apply"),
            run("bmc-06", "no_change", ""),
            run("bmc-07", "cancelled", "check"),
        ];
        insta::assert_snapshot!(lines(&job, &runs).join("\n"), @r"
        2 runs are cancelled, nothing more is done to their servers: bmc-04, bmc-07
        1 run goes on to its next safe point and ends there; what its BMC has begun, such as a flash, is not interrupted, and what was changed on the way is restored: bmc-05 (waiting, apply)
        1 run had ended before and stays as it is: bmc-06 (no change)
        `rackhand jobs watch 01920000-0000-7000-8000-000000000001` follows it to its end
        ");
    }
}
