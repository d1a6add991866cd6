//! The rollout that `up` shows: inventory, plan, approval, a killed executor, and the proof at the end.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    Args,
    lab::text,
    stack::{EXECUTORS, Stack, items, utf8},
};
use crate::{
    children::Children,
    error::{Failure, Result},
    terminal::{result, say},
};

/// A rollout that takes longer than this does not end by itself.
const LIMIT: &str = "900";
/// How long to wait for the first flash.
const FLASH: Duration = Duration::from_secs(240);

/// Reads the inventory of every server.
pub async fn inventory(stack: &Stack) -> Result<()> {
    say("\nreading the inventory of every server");
    let inventory = [
        "jobs",
        "plan",
        "inventory",
        "--site",
        &stack.site,
        "--all",
        "--reason",
        "first inventory",
        "--wait",
        "--timeout",
        LIMIT,
        "-o",
        "name",
    ];
    expect(stack.cli.follow(&inventory).await?, "the inventory")
}

pub async fn run(args: &Args, stack: &Stack, children: &mut Children) -> Result<()> {
    inventory(stack).await?;
    let (job, digest) = plan(stack).await?;
    stack.cli.json(&["jobs", "apply", &job, "--digest", &digest], None).await?;
    say(format!("approved: {}/jobs/{job}", stack.url));
    let started = Instant::now();
    let victim = if args.no_kill { None } else { Some(kill_one(stack, &job, children).await?) };
    let watch = ["jobs", "watch", &job, "--timeout", LIMIT, "-o", "name"];
    let ended_well = stack.cli.follow(&watch).await? == 0;
    let seconds = started.elapsed().as_secs();
    if let Some(victim) = &victim {
        stack.start_executor(victim, children).await?;
        say(format!("{victim} is back"));
    }
    let faults = summary(stack, &job, victim.as_deref(), seconds).await?;
    if ended_well && faults.is_empty() {
        return Ok(());
    }
    Err(Failure::Other(format!(
        "the rollout did not end as it should: {}",
        match faults.as_slice() {
            [] => "a job failed".to_owned(),
            faults => faults.join("; "),
        }
    )))
}

/// Plans the BIOS update of every server and shows the plan. Gives the job's id and the plan's digest.
async fn plan(stack: &Stack) -> Result<(String, String)> {
    let parallel = stack.lab.bmcs.len().to_string();
    let plan = [
        "jobs",
        "plan",
        "firmware",
        "--site",
        &stack.site,
        "--package",
        utf8(&stack.packages)?,
        "--all",
        "--max-parallel",
        &parallel,
        "--reason",
        "BIOS update of the simulated site",
    ];
    let job = stack.cli.plan(&plan).await?;
    let id = text(&job, "id");
    say("");
    stack.cli.show(&["jobs", "show", id]).await?;
    let digest = job.pointer("/plan/digest").and_then(Value::as_str).unwrap_or_default();
    Ok((id.to_owned(), digest.to_owned()))
}

/// Kills an executor while the lab flashes a server whose run it holds.
async fn kill_one(stack: &Stack, job: &str, children: &mut Children) -> Result<String> {
    let end = Instant::now() + FLASH;
    say("\nwaiting for the first flashes");
    while Instant::now() < end {
        let flashing = stack.lab.flashing().await?;
        if !flashing.is_empty() {
            let mut holders: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for run in runs(stack, job).await? {
                let (server, executor) = (text(&run, "server").to_owned(), text(&run, "executor_name"));
                if flashing.contains(&server) && !executor.is_empty() {
                    holders.entry(executor.to_owned()).or_default().push(server);
                }
            }
            // The first of those that hold a flash: executor-1 where it holds one.
            if let Some((victim, servers)) = holders.into_iter().next().filter(|(name, _)| known(name)) {
                children.kill(&victim).await?;
                say(format!("killed {victim} (SIGKILL) while it was flashing {}", servers.join(", ")));
                return Ok(victim);
            }
        }
        let over = runs(stack, job).await?.iter().all(|run| is_terminal(text(run, "state")));
        if over {
            break;
        }
        sleep(Duration::from_millis(200)).await;
    }
    Err(Failure::Other("no flash was seen, so no executor could be killed in the middle of one".to_owned()))
}

/// Prints what happened to every server; gives what went wrong.
async fn summary(stack: &Stack, job: &str, victim: Option<&str>, seconds: u64) -> Result<Vec<String>> {
    let counters = stack.lab.counters().await?;
    let flashes = counters.get("flashes").map(items).unwrap_or_default();
    let planned = stack.cli.json(&["jobs", "show", job], None).await?;
    let mut faults = Vec::new();
    let mut open_effects = 0_usize;
    result(format!(
        "\n{:<10} {:<18} {:<11} {:<12} {:<12} {:>7}",
        "SERVER", "MODEL", "OUTCOME", "BIOS WAS", "BIOS NOW", "FLASHES"
    ));
    let runs = runs(stack, job).await?;
    for run in &runs {
        let server = text(run, "server");
        let detail = stack.cli.json(&["runs", "show", text(run, "id")], None).await?;
        let effects = detail.get("effects").map(items).unwrap_or_default();
        open_effects += effects
            .iter()
            .filter(|effect| {
                matches!(text(effect, "state"), "intended" | "applied" | "settling" | "conflict")
            })
            .count();
        let now = stack.cli.json(&["servers", "show", server, "--site", &stack.site], None).await?;
        let count = flashes.iter().filter(|flash| text(flash, "bmc") == server).count();
        let wanted = wanted(&planned, text(run, "server_id"));
        let (from, to) = wanted.unwrap_or_default();
        let state = text(run, "state");
        result(format!(
            "{server:<10} {:<18} {state:<11} {from:<12} {:<12} {count:>7}",
            text(&now, "model"),
            text(&now, "bios_version"),
        ));
        if state != "succeeded" {
            faults.push(format!("{server} is {state}"));
        }
        if count != 1 {
            faults.push(format!("{server} was flashed {count} times"));
        }
        if text(&now, "bios_version") != to {
            faults.push(format!("{server} has BIOS {}, not {to}", text(&now, "bios_version")));
        }
    }
    let targets = runs.iter().map(|run| text(run, "server"));
    for server in left_out(stack, &targets.collect::<Vec<_>>()) {
        result(format!("{server:<10} left out of the plan"));
        let found = stack.cli.json(&["servers", "show", server, "--site", &stack.site], None).await?;
        let unreadable = found.get("unreadable").map(Value::to_string).unwrap_or_default();
        let blockers = blockers(&planned, text(&found, "id"));
        faults.push(format!("{server} was not updated: {blockers}; could not be read: {unreadable}"));
    }
    let number = |name: &str| counters.get(name).and_then(Value::as_u64).unwrap_or_default();
    if open_effects > 0 {
        faults.push(format!("{open_effects} settings were not put back"));
    }
    for (name, words) in [
        ("bricked", "components were bricked"),
        ("overlapping_mutations", "changes of one server at the same time"),
        ("auth_failures", "sign-ins were refused"),
    ] {
        if number(name) > 0 {
            faults.push(format!("{} {words}", number(name)));
        }
    }
    result(format!(
        "\n{seconds} s; executor killed: {}; settings not put back: {open_effects}; components bricked: {}; two changes of one \
         server at once: {}",
        victim.unwrap_or("none"),
        number("bricked"),
        number("overlapping_mutations"),
    ));
    result(match faults.is_empty() {
        true => "every server has the wanted version; each was flashed once",
        false => "this went wrong:",
    });
    for fault in &faults {
        result(format!("  {fault}"));
    }
    Ok(faults)
}

/// From and to of a server's BIOS, as the plan said.
fn wanted(job: &Value, server: &str) -> Option<(String, String)> {
    let targets = job.pointer("/plan/targets").map(items).unwrap_or_default();
    let target = targets.iter().find(|target| text(target, "server_id") == server)?;
    let step = target.pointer("/steps/0")?;
    Some((text(step, "from").to_owned(), text(step, "to").to_owned()))
}

/// Why the plan left a server out.
fn blockers(job: &Value, server: &str) -> String {
    let targets = job.pointer("/plan/targets").map(items).unwrap_or_default();
    let target = targets.iter().find(|target| text(target, "server_id") == server);
    let blockers = target.and_then(|target| target.get("blockers")).map(items).unwrap_or_default();
    blockers.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
}

/// Servers of the lab that no run was for.
fn left_out<'a>(stack: &'a Stack, ran: &[&str]) -> Vec<&'a str> {
    let names = stack.lab.bmcs.iter().map(|bmc| text(bmc, "name"));
    names.filter(|name| !ran.contains(name)).collect()
}

async fn runs(stack: &Stack, job: &str) -> Result<Vec<Value>> {
    let mut runs = items(&stack.cli.json(&["runs", "list", job], None).await?).to_vec();
    runs.sort_by(|left, right| text(left, "server").cmp(text(right, "server")));
    Ok(runs)
}

fn is_terminal(state: &str) -> bool {
    matches!(state, "succeeded" | "no_change" | "failed" | "cancelled" | "unknown")
}

fn known(name: &str) -> bool {
    EXECUTORS.contains(&name)
}

fn expect(code: i32, what: &str) -> Result<()> {
    if code == 0 { Ok(()) } else { Err(Failure::Other(format!("{what} did not succeed (exit code {code})"))) }
}
