//! Jobs, plans and runs as text.

use std::collections::BTreeMap;

use rackhand_schema::{
    job::{BootTarget, Job, PlanStep, PlanTarget, Reboot},
    run::{Run, RunState},
};

use crate::doctor::quoted;
use crate::output::{Output, counted, dash, moment, printable_lines, spaced, word};

/// `8 succeeded, 2 running`, from the states of the API.
pub fn run_counts(runs: &BTreeMap<String, u64>) -> String {
    let parts: Vec<String> = runs
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(state, count)| format!("{count} {}", state_word(state)))
        .collect();
    if parts.is_empty() { "-".to_owned() } else { parts.join(", ") }
}

/// The same, from the runs themselves: each counts as [`state`] shows it.
pub fn counts_of(runs: &[Run]) -> String {
    let mut counts = BTreeMap::new();
    for run in runs {
        *counts.entry(state(run)).or_default() += 1;
    }
    run_counts(&counts)
}

/// The state of a run in the words of the UI. A device that says how far it is does not keep anyone waiting.
pub fn state(run: &Run) -> String {
    match (run.state, run.percent) {
        (RunState::Waiting, Some(_)) => word(&RunState::Running),
        (state, _) => state_word(&word(&state)),
    }
}

fn state_word(state: &str) -> String {
    match state {
        "leased" => "taken".to_owned(),
        other => spaced(other),
    }
}

/// The phase of a run, in words.
pub fn phase(run: &Run) -> String {
    dash(Some(spaced(&run.phase)).filter(|phase| !phase.is_empty()))
}

/// The plan as people approve it.
pub fn plan(job: &Job, out: Output) -> String {
    let mut text = format!(
        "job      {}\nkind     {}\nsite     {}\nstate    {}\nreason   {}\nlimits   at most {} at once, {}\n\
         minutes  about {}\ndigest   {}\n",
        job.id,
        spaced(job.spec.kind()),
        job.site,
        word(&job.state),
        job.reason,
        job.policy.max_parallel,
        match job.policy.pause_after_failures {
            0 => "never pauses on failures".to_owned(),
            failures => format!("pauses after {}", counted(failures, "failure")),
        },
        job.plan.estimated_minutes,
        job.plan.digest,
    );
    if let Some(at) = &job.policy.start_after {
        text.push_str(&format!("starts   not before {}\n", moment(at)));
    }
    if let (Some(name), Some(at)) = (&job.plan.approved_by_name, &job.plan.approved_at) {
        text.push_str(&format!("approved {name}, {}\n", moment(at)));
    }
    text = printable_lines(&text);
    let mut rows = Vec::new();
    for target in &job.plan.targets {
        rows.extend(target_rows(target));
    }
    text.push('\n');
    text.push_str(&out.table(&["SERVER", "STEP", "FROM", "TO", "REBOOT", "MINUTES"], &rows));
    let (all_blocked, blockers) = told(&job.plan.targets, "blocked", |target| &target.blockers);
    let (all_warned, warnings) = told(&job.plan.targets, "warning", |target| &target.warnings);
    let alone =
        blockers.into_iter().zip(warnings).flat_map(|(blockers, warnings)| [blockers, warnings]).flatten();
    for line in all_blocked.into_iter().chain(all_warned).chain(alone) {
        text.push_str(&printable_lines(&format!("{line}\n")));
    }
    text
}

/// What is said of every server, once, and what is said of each alone.
fn told(
    targets: &[PlanTarget],
    what: &str,
    texts: impl Fn(&PlanTarget) -> &Vec<String>,
) -> (Vec<String>, Vec<Vec<String>>) {
    let of_all =
        |text: &&String| targets.len() > 1 && targets.iter().all(|target| texts(target).contains(text));
    let first = targets.first().into_iter().flat_map(&texts);
    let shared: Vec<&String> = first.filter(of_all).collect();
    let alone = targets.iter().map(|target| {
        let own = texts(target).iter().filter(|text| !shared.contains(text));
        own.map(|text| format!("{what}: {}: {text}", target.server)).collect()
    });
    let alone = alone.collect();
    (shared.iter().map(|text| format!("{what}: all {} servers: {text}", targets.len())).collect(), alone)
}

/// What is left to do of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// At least one server is changed or read.
    Work,
    /// No server needs anything.
    Nothing,
    /// Nothing can be done: every server is blocked, but for those that need nothing.
    Blocked,
}

pub fn outlook(job: &Job) -> Outlook {
    // A list gives plans without their targets.
    if job.plan.targets.is_empty() {
        return Outlook::Work;
    }
    let works = |target: &PlanTarget| {
        target.steps.iter().any(|step| !matches!(step, PlanStep::AlreadyInstalled { .. }))
    };
    let (free, blocked): (Vec<_>, Vec<_>) =
        job.plan.targets.iter().partition(|target| target.blockers.is_empty());
    match (free.into_iter().any(works), blocked.is_empty()) {
        (true, _) => Outlook::Work,
        (false, true) => Outlook::Nothing,
        (false, false) => Outlook::Blocked,
    }
}

/// What stands after a plan that waits for approval.
pub fn next_step(job: &Job) -> String {
    match (outlook(job), blocked(job).count()) {
        (Outlook::Work, _) => format!("to carry it out: {}", approval(job)),
        (Outlook::Nothing, _) => format!(
            "nothing is to be done: every server has the wanted version already. `rackhand jobs cancel {} --reason TEXT` \
             closes the job",
            job.id
        ),
        (Outlook::Blocked, 1) => {
            "nothing can be done: 1 server is blocked, for the reason above; resolve it, then plan again"
                .to_owned()
        }
        (Outlook::Blocked, several) => format!(
            "nothing can be done: {several} servers are blocked, for the reasons above; resolve them, then plan again"
        ),
    }
}

/// The same where whoever planned the job may not approve it.
pub fn next_step_of_another(job: &Job) -> String {
    format!("another person has to approve it: {}", approval(job))
}

/// The command that approves a plan.
pub fn approval(job: &Job) -> String {
    format!("rackhand jobs apply {} --digest {}", job.id, quoted(&job.plan.digest))
}

/// The servers that a job leaves out, with the first reason of each: `bmc-07 (blocked: no inventory yet)`.
pub fn blocked(job: &Job) -> impl Iterator<Item = String> {
    job.plan.targets.iter().filter_map(|target| {
        let why = target.blockers.first()?;
        Some(format!("{} (blocked: {})", target.server, why.trim_end_matches('.')))
    })
}

/// A job with its plan and the state of each run.
pub fn job(job: &Job, runs: &[Run], out: Output) -> String {
    let mut text = plan(job, out);
    if !runs.is_empty() {
        text.push_str(&format!("\nruns     {}\n", counts_of(runs)));
    }
    if !job.state_reason.is_empty() {
        text.push_str(&printable_lines(&format!("because  {}\n", job.state_reason)));
    }
    if !runs.is_empty() {
        let rows: Vec<Vec<String>> = runs
            .iter()
            .map(|run| {
                vec![
                    run.server.clone(),
                    state(run),
                    phase(run),
                    dash(run.executor_name.as_deref()),
                    moment(&run.since),
                    why(run),
                ]
            })
            .collect();
        text.push('\n');
        text.push_str(&out.table(&["SERVER", "STATE", "PHASE", "EXECUTOR", "SINCE", "WHY"], &rows));
    }
    text
}

/// Reason and detail of a run's state. It always stands beside the server's name, so a detail that begins with the
/// name goes without.
pub fn why(run: &Run) -> String {
    let detail = run.detail.strip_prefix(&run.server).and_then(|rest| rest.strip_prefix(": "));
    let detail = detail.unwrap_or(&run.detail);
    // An error code has no underscore: it stays as it is, since its page is found by it.
    let reason = spaced(&run.reason);
    match (reason.is_empty(), detail.is_empty()) {
        (true, true) => "-".to_owned(),
        (false, true) => reason,
        (true, false) => detail.to_owned(),
        (false, false) if reason == word(&run.state) => detail.to_owned(),
        (false, false) => format!("{reason}: {detail}"),
    }
}

fn target_rows(target: &PlanTarget) -> Vec<Vec<String>> {
    let minutes = target.estimated_minutes.to_string();
    if !target.blockers.is_empty() {
        return vec![vec![
            target.server.clone(),
            "blocked".into(),
            "-".into(),
            "-".into(),
            "-".into(),
            "-".into(),
        ]];
    }
    target
        .steps
        .iter()
        .enumerate()
        .map(|(index, step)| {
            let (name, from, to, reboot) = step_cells(step, target);
            let first = index == 0;
            vec![
                if first { target.server.clone() } else { String::new() },
                name,
                from,
                to,
                reboot.to_owned(),
                if first { minutes.clone() } else { String::new() },
            ]
        })
        .collect()
}

fn step_cells(step: &PlanStep, target: &PlanTarget) -> (String, String, String, &'static str) {
    let none = || "-".to_owned();
    match step {
        PlanStep::ReadInventory => ("read inventory".to_owned(), none(), none(), "no"),
        PlanStep::Power { action } => {
            let reboot = if action.restarts() { "host" } else { "no" };
            let from = target.power.map_or_else(|| "not known".to_owned(), |power| word(&power));
            let action_word = word(action);
            let name =
                if action_word.starts_with("power ") { action_word } else { format!("power {action_word}") };
            (name, from, word(&action.leads_to()), reboot)
        }
        PlanStep::BootOverride { target, times, mode } => {
            let mode = mode.map(|mode| format!(", {}", word(&mode))).unwrap_or_default();
            let name = match target {
                BootTarget::None => "boot override: cleared".to_owned(),
                target => format!("boot override: {}, {}{mode}", word(target), word(times)),
            };
            (name, none(), none(), "no")
        }
        PlanStep::AlreadyInstalled { component, version } => {
            (format!("{component}: nothing to do"), version.clone(), version.clone(), "no")
        }
        PlanStep::Firmware { component_name, from, to, reboot, .. } => {
            let reboot = match reboot {
                Reboot::None => "no",
                Reboot::Bmc => "BMC only",
                Reboot::Host => "host",
                Reboot::HostAtOnce => "host, at once by the BMC",
            };
            (component_name.clone(), from.clone(), to.clone(), reboot)
        }
    }
}

#[cfg(test)]
pub mod tests {
    use serde_json::json;

    use rackhand_schema::server::PowerState;

    use super::*;
    use crate::output::Format;

    pub fn run(server: &str, state: &str, phase: &str) -> Run {
        serde_json::from_value(json!({
            "id": "01920000-0000-7000-8000-000000000009", "job_id": "01920000-0000-7000-8000-000000000001",
            "site_id": "01920000-0000-7000-8000-000000000002", "server_id": "01920000-0000-7000-8000-000000000004",
            "server": server, "state": state, "reason": "", "detail": "", "since": "2026-01-02T03:10:00Z",
            "phase": phase, "percent": null, "epoch": 2, "executor": null, "executor_name": null,
            "cancel_requested": false, "created_at": "2026-01-02T03:04:05Z", "finished_at": null,
        }))
        .unwrap()
    }

    pub fn sample() -> Job {
        let id = |last: u8| format!("01920000-0000-7000-8000-0000000000{last:02}");
        let firmware = |reboot: &str| {
            json!({"step": "firmware", "component": "BIOS.Setup.1-1", "component_name": "BIOS", "from": "1.8.2",
                   "to": "1.13.2", "sha256": "0".repeat(64), "reboot": reboot})
        };
        let target = |last: u8, steps: serde_json::Value, blockers: &[&str], warnings: &[&str]| {
            json!({"server_id": id(last), "server": format!("bmc-{last:02}"), "steps": steps,
                   "blockers": blockers, "warnings": warnings, "estimated_minutes": 14})
        };
        serde_json::from_value(json!({
            "id": id(1), "site_id": id(2), "site": "lab", "kind": "firmware_update",
            "params": {"packages": {"any": {
                "name": "BIOS 1.13.2", "file_name": "B.EXE", "url": "http://127.0.0.1:1/B.EXE",
                "sha256": "0".repeat(64), "size": 1, "software_id": "159", "version": "1.13.2"}}},
            "policy": {"max_parallel": 8, "pause_after_failures": 3}, "reason": "quarterly BIOS",
            "state": "planned", "state_reason": "", "since": "2026-01-02T03:04:05Z",
            "created_at": "2026-01-02T03:04:05Z", "created_by": null, "created_by_name": "Ada", "cancel_requested": false,
            "trace_id": id(3), "targets": 4, "runs": {"succeeded": 2, "failed": 1},
            "plan": {"digest": "a".repeat(64), "estimated_minutes": 28, "approved_by_name": null,
                "approved_at": null, "targets": [
                    target(4, json!([firmware("host")]), &[], &[]),
                    target(5, json!([firmware("host_at_once")]), &[], &["the BMC restarts the host by itself"]),
                    target(6, json!([{"step": "already_installed", "component": "BIOS", "version": "1.13.2"}]), &[], &[]),
                    target(7, json!([]), &["no inventory yet"], &[]),
                ]},
        }))
        .unwrap()
    }

    #[test]
    fn a_plan_says_what_happens_to_whom() {
        insta::assert_snapshot!(plan(&sample(), Output::plain(Format::Table)));
    }

    #[test]
    fn what_is_said_of_every_server_is_said_once() {
        let mut job = sample();
        for target in &mut job.plan.targets {
            target.warnings.push("paused by Ada".to_owned());
        }
        let text = plan(&job, Output::plain(Format::Table));
        assert_eq!(text.matches("paused by Ada").count(), 1, "{text}");
        assert!(text.contains("\nwarning: all 4 servers: paused by Ada\nwarning: bmc-05: the BMC"), "{text}");
        job.plan.targets.truncate(1);
        let text = plan(&job, Output::plain(Format::Table));
        assert!(text.contains("warning: bmc-04: paused by Ada"), "{text}");
    }

    #[test]
    fn a_plan_is_offered_only_where_something_can_be_done() {
        let mut job = sample();
        assert!(next_step(&job).starts_with("to carry it out: rackhand jobs apply"));
        let kept = |job: &mut Job, servers: &[&str]| {
            *job = sample();
            job.plan.targets.retain(|target| servers.contains(&target.server.as_str()));
        };
        kept(&mut job, &["bmc-06"]);
        let nothing =
            "nothing is to be done: every server has the wanted version already. `rackhand jobs cancel ";
        assert!(next_step(&job).starts_with(nothing));
        kept(&mut job, &["bmc-06", "bmc-07"]);
        assert!(next_step(&job).starts_with("nothing can be done: 1 server is blocked"));
        assert_eq!(blocked(&job).collect::<Vec<_>>(), ["bmc-07 (blocked: no inventory yet)"]);
    }

    #[test]
    fn a_power_plan_says_from_what_to_what() {
        let mut job = sample();
        let step = |action: &str| serde_json::from_value(json!({"step": "power", "action": action})).unwrap();
        let cases = [
            ("force_off", Some(PowerState::On)),
            ("on", Some(PowerState::Off)),
            ("graceful_restart", Some(PowerState::PoweringOn)),
            ("power_cycle", None),
        ];
        for (target, (action, power)) in job.plan.targets.iter_mut().zip(cases) {
            target.steps = vec![step(action)];
            target.power = power;
            target.blockers.clear();
        }
        let rows: Vec<_> =
            job.plan.targets.iter().flat_map(target_rows).map(|row| row[1..5].join(" | ")).collect();
        assert_eq!(
            rows,
            [
                "power force off | on | off | no",
                "power on | off | on | no",
                "power graceful restart | powering on | on | host",
                "power cycle | not known | on | host",
            ]
        );
    }

    #[test]
    fn states_have_the_words_of_the_ui() {
        let mut one = run("bmc-04", "leased", "clean_up");
        assert_eq!((&*state(&one), &*phase(&one)), ("taken", "clean up"));
        one.state = RunState::Waiting;
        assert_eq!(state(&one), "waiting");
        one.percent = Some(20);
        assert_eq!(state(&one), "running");
        one.state = RunState::NoChange;
        assert_eq!(state(&one), "no change");
        assert_eq!(counts_of(&[one, run("bmc-05", "leased", "")]), "1 no change, 1 taken");
        let counts = [("leased".to_owned(), 2), ("no_change".to_owned(), 1)].into();
        assert_eq!(run_counts(&counts), "2 taken, 1 no change");
        let mut ended = run("bmc-04", "cancelled", "");
        (ended.reason, ended.detail) = ("cancelled".to_owned(), "Cancelled before it began".to_owned());
        assert_eq!(why(&ended), "Cancelled before it began");
    }

    #[test]
    fn a_job_says_why_its_runs_stand_where_they_stand() {
        let run = Run {
            reason: "device-failed".to_owned(),
            detail: "bmc-04: RED007: Unable to verify Update Package signature.".to_owned(),
            executor_name: Some("executor-2".to_owned()),
            ..run("bmc-04", "failed", "stage")
        };
        insta::assert_snapshot!(job(&sample(), &[run], Output::plain(Format::Table)));
    }
}
