//! Recorded: jobs and their plans, the queue, events.

use rackhand_schema::ErrorCode as Code;
use serde_json::{Value, json};

use super::{
    UNKNOWN,
    fleet::{register, server},
    step::{Body, Step, any, delete, get, post},
};

pub fn steps() -> Vec<Step> {
    [
        inventory(),
        events(),
        boot_override(),
        firmware(),
        undoing(),
        refusals(),
        waiting(),
        control(),
        upkeep(),
    ]
    .concat()
}

fn job(site: &str, kind: &str, params: Value, targets: Value) -> Value {
    json!({"site_id": site, "kind": kind, "params": params, "targets": targets, "reason": "parity of the hosts",
        "policy": {"max_parallel": 4, "pause_after_failures": 0}})
}

fn create(name: &'static str, kind: &str, params: Value, targets: Value) -> Step {
    post(name, "/v1/jobs", job("${alpha}", kind, params, targets)).by("olga").ok(201)
}

fn power(name: &'static str, target: &str) -> Step {
    create(name, "power", json!({"action": "graceful_restart"}), json!([target]))
        .keep("job", "/id")
        .keep("digest", "/plan/digest")
}

fn act(name: &'static str, action: &str) -> Step {
    post(name, format!("/v1/jobs/${{job}}/{action}"), json!({"reason": "parity"})).by("olga")
}

/// By Ada, who has made no job.
fn approve(name: &'static str) -> Step {
    post(name, "/v1/jobs/${job}/approve", json!({"digest": "${digest}"})).by("ada")
}

fn lease(name: &'static str, held: Value, capacity: u32, wait_ms: u32) -> Step {
    let body = json!({"held": held, "capacity": capacity, "kinds": ["inventory", "power", "boot_override", "firmware_update"],
        "wait_ms": wait_ms, "version": "parity"});
    post(name, "/v1/executor/lease", body).by("one")
}

fn report(name: &'static str, items: Value) -> Step {
    post(name, "/v1/executor/report", json!({"items": items})).by("one")
}

/// An item of `${run}` in its first lease.
fn item(seq: u64, mut body: Value) -> Value {
    let fields = body.as_object_mut().unwrap();
    fields.extend([
        ("run_id".into(), json!("${run}")),
        ("epoch".into(), json!(1)),
        ("seq".into(), json!(seq)),
    ]);
    body
}

fn log(seq: u64, message: &str) -> Value {
    item(
        seq,
        json!({"type": "event", "level": "info", "message": message, "data": {"n": 1.5, "big": 9_007_199_254_740_993_u64}}),
    )
}

fn finish(seq: u64, outcome: &str) -> Value {
    item(
        seq,
        json!({"type": "finish", "outcome": outcome, "code": "", "detail": "", "evidence": {"read": true}}),
    )
}

fn read_inventory() -> Value {
    json!({"type": "inventory", "vendor": "Dell Inc.", "model": "PowerEdge R750", "service_tag": "ABC1234",
        "generation": "idrac9", "bmc_version": "6.10.30.00", "power": "on", "health": "ok",
        "components": [{"key": "BIOS.Setup.1-1", "name": "BIOS", "software_id": "159", "version": "2.10.2",
            "updateable": true}], "capabilities": ["simple_update"], "unreadable": {"nic": "timed out"}})
}

fn inventory() -> Vec<Step> {
    let long = "a log line with \u{1}, \u{7f}, \u{2028} and ☃".repeat(20);
    let broken = br#"{"items":[{"run_id":"#.to_vec();
    vec![
        create("an inventory starts at once", "inventory", json!({}), json!(["${node1}"])).keep("job", "/id"),
        lease("it is granted", json!([]), 4, 0)
            .keep("run", "/grants/0/run_id")
            .keep("bmc", "/grants/0/target/bmc_id"),
        lease("it is granted again", json!([]), 4, 0),
        lease("it is held", json!([{"run_id": "${run}", "epoch": 1}]), 4, 0),
        lease("another epoch is lost", json!([{"run_id": "${run}", "epoch": 7}]), 0, 0),
        attempt("may it try", "reserve"),
        attempt("it fitted", "accepted"),
        attempt("it was not sent", "not_sent"),
        attempt("of a BMC there is not", "reserve")
            .json(json!({"bmc_id": UNKNOWN, "credential_id": "${credential}",
            "version": 2, "step": "reserve"}))
            .refused(Code::NotFound),
        delete("a server at work stays", "/v1/servers/${node1}").by("olga").refused(Code::JobState),
        report(
            "phase, log, inventory",
            json!([
                item(1, json!({"type": "phase", "phase": "read", "state": "running"})),
                log(2, &long),
                item(3, read_inventory()),
                item(
                    4,
                    json!({"type": "checkpoint", "phase": "read", "state": {"at": 1}, "percent": 40,
                "waiting": {"reason": "bmc_restarting", "detail": "It restarts", "within_ms": 60_000}})
                ),
            ]),
        ),
        report(
            "twice, a gap, poison, nobody's and none",
            json!([
                log(2, "again"), log(9, "too far"), item(5, json!({"type": "from_the_future"})),
                {"run_id": UNKNOWN, "epoch": 1, "seq": 1, "type": "event", "level": "info", "message": "whose?"},
                {"seq": 6}, 17, item(6, json!({"type": "event", "level": "info", "message": "x".repeat(70_000)})),
            ]),
        ),
        post("a report that breaks off", "/v1/executor/report", json!(null))
            .by("one")
            .body(Body::Raw("application/json", broken))
            .refused(Code::MalformedJson),
        post("what JSON cannot hold is made to fit", "/v1/executor/report", json!(null)).by("one").body(
            Body::Raw(
                "application/json; charset=utf-8",
                b"{\"items\":[\"\xff\xfe\",{\"message\":\"\\u0000 \\ud800 \x01\"}]}".to_vec(),
            ),
        ),
        get("the run waits", "/v1/runs/${run}").by("vic"),
        report(
            "it ends",
            json!([
                item(7, json!({"type": "phase", "phase": "read", "state": "done", "evidence": {"a": [1]}})),
                finish(8, "succeeded")
            ]),
        ),
        report("afterwards", json!([finish(8, "succeeded"), finish(9, "failed"), log(10, "late")])),
        get("the run", "/v1/runs/${run}").by("vic"),
        get("the job", "/v1/jobs/${job}").by("vic"),
        get("a run that Otto cannot see", "/v1/runs/${run}").by("otto").refused(Code::NotFound),
        get("its runs", "/v1/jobs/${job}/runs").by("vic"),
        get("the server, read", "/v1/servers/${node1}").by("vic"),
        get("servers by what was read", "/v1/servers?q=abc12&power=on&health=ok&generation=idrac9").by("vic"),
    ]
}

fn attempt(name: &'static str, step: &str) -> Step {
    let body = json!({"bmc_id": "${bmc}", "credential_id": "${credential}", "version": 2, "step": step});
    post(name, "/v1/executor/credential-attempt", body).by("one")
}

fn events() -> Vec<Step> {
    let of_run = "/v1/events?run=${run}";
    let stream = |name: &'static str| get(name, "/v1/events/stream?run=${run}").by("vic");
    vec![
        get("the run's events", of_run).by("vic"),
        get("the first two", format!("{of_run}&limit=2")).by("vic").keep("cursor", "/cursor"),
        get("the next two", format!("{of_run}&limit=2&after=${{cursor}}"))
            .by("vic")
            .keep("event", "/items/1/cursor"),
        get("the newest two", format!("{of_run}&limit=2&before=latest")).by("vic").keep("older", "/cursor"),
        get("the two before", format!("{of_run}&limit=2&before=${{older}}")).by("vic"),
        get("from now on there is nothing", "/v1/events?after=latest&wait_ms=0").by("vic"),
        get("of a job", "/v1/events?job=${job}").by("vic"),
        get("of a server", "/v1/events?server=${node1}&limit=4").by("vic"),
        get("of a site", "/v1/events?site=${alpha}").by("vic"),
        get("of the fleet", "/v1/events?limit=1000").by("ada"),
        get("Otto sees none of it", "/v1/events?site=${alpha}").by("otto"),
        get("both directions", "/v1/events?after=1.1&before=2.2").by("vic").refused(Code::InvalidRequest),
        get("no cursor", "/v1/events?after=x").by("vic").refused(Code::InvalidRequest),
        stream("a stream").events(3),
        stream("a stream goes on").header("last-event-id", "${cursor}").events(2),
        stream("a stream knows better than its address").header("last-event-id", "${event}").events(1),
        get("a stream of no cursor", "/v1/events/stream?after=x").by("vic").refused(Code::InvalidRequest),
    ]
}

fn boot_override() -> Vec<Step> {
    let boot = |name, params| create(name, "boot_override", params, json!(["${node1}"]));
    vec![
        boot("a boot override is planned", json!({"target": "pxe"}))
            .keep("job", "/id")
            .keep("digest", "/plan/digest"),
        act("and cancelled", "cancel"),
        boot("another, with all it can say", json!({"target": "cd", "times": "continuous", "mode": "uefi"}))
            .keep("job", "/id"),
        act("is cancelled, too", "cancel"),
        boot("from nowhere", json!({"target": "floppy"})).refused(Code::InvalidRequest),
    ]
}

fn firmware() -> Vec<Step> {
    let package = |version: &str| {
        json!({"packages": {"idrac9": {"name": "BIOS", "file_name": "BIOS.EXE", "url": "http://repo.example/BIOS.EXE",
            "sha256": "cd".repeat(32), "size": 1000, "software_id": "159", "version": version}}})
    };
    let update = |name, version: &str| create(name, "firmware_update", package(version), json!(["${node1}"]));
    let mut bad = package("3");
    bad["packages"]["idrac9"]["sha256"] = json!("none");
    let later = json!({"digest": "ef".repeat(32)});
    vec![
        create(
            "over what was never read",
            "firmware_update",
            package("2.19.1"),
            json!(["${node1}", "${node2}", "${node3}"]),
        )
        .keep("job", "/id"),
        act("which nobody wants", "cancel"),
        update("a downgrade is blocked", "2.0.0"),
        create("a package without its sum", "firmware_update", bad, json!(["${node1}"]))
            .refused(Code::InvalidRequest),
        update("an update is planned", "2.19.1").keep("job", "/id").keep("digest", "/plan/digest"),
        post("another plan than was read", "/v1/jobs/${job}/approve", later)
            .by("ada")
            .refused(Code::PlanStale),
        approve("by whom it was made").by("olga").refused(Code::SecondPersonRequired),
        approve("by somebody else"),
        approve("approved already").refused(Code::JobState),
        get("it runs", "/v1/jobs/${job}").by("vic"),
    ]
}

/// The update begins, is cancelled, and what it had changed is put back.
fn undoing() -> Vec<Step> {
    let effect = |seq, state: &str| {
        item(
            seq,
            json!({"type": "effect", "id": "01920000-0000-7000-8000-0000000000e1", "object": "host_power",
            "property": "state", "prior": "on", "wanted": "off", "state": state}),
        )
    };
    let held = json!([{"run_id": "${run}", "epoch": 1}]);
    vec![
        lease("the update is granted", json!([]), 4, 0).keep("run", "/grants/0/run_id"),
        report(
            "about to",
            json!([
                effect(1, "intended"),
                item(
                    2,
                    json!({"type": "intent", "phase": "stage", "action": "stage_package", "before": {"jobs": []},
                "deadline_ms": 60_000})
                ),
                finish(3, "failed"),
                item(3, json!({"type": "intent_resolved", "resolution": "applied"})),
                effect(4, "applied"),
            ]),
        ),
        lease("nobody cancelled yet", held.clone(), 0, 0),
        act("cancelled", "cancel"),
        lease("which it hears", held, 0, 0),
        report("it gives up, with something to undo", json!([finish(5, "cancelled")])),
        lease("to undo it", json!([]), 4, 0),
        report(
            "undone",
            json!([
                {"run_id": "${run}", "epoch": 2, "seq": 1, "type": "effect", "id": "01920000-0000-7000-8000-0000000000e1",
                    "object": "host_power", "property": "state", "prior": "on", "wanted": "off", "state": "settled"},
                {"run_id": "${run}", "epoch": 2, "seq": 2, "type": "finish", "outcome": "cancelled", "code": "cancelled",
                    "detail": "Put back", "evidence": null},
                log(6, "from the lease before"),
                item(7, json!({"type": "phase", "phase": "stage", "state": "done"})),
            ]),
        ),
        get("the run, undone", "/v1/runs/${run}").by("vic"),
        get("what happened", "/v1/events?run=${run}").by("vic"),
        act("again, please", "retry-failed")
            .header("idempotency-key", "retry")
            .ok(201)
            .keep("retried", "/id"),
        act("the same answer", "retry-failed").header("idempotency-key", "retry").ok(201),
        post("another wish", "/v1/jobs/${job}/retry-failed", json!({"reason": "another"}))
            .by("olga")
            .header("idempotency-key", "retry")
            .refused(Code::IdempotencyMismatch),
        post("which is not wanted either", "/v1/jobs/${retried}/cancel", json!({"reason": "parity"}))
            .by("olga"),
    ]
}

fn refusals() -> Vec<Step> {
    let list = |query: &str| format!("/v1/jobs?site=${{alpha}}&{query}");
    let once = |name: &'static str, target: &str| power(name, target).header("idempotency-key", "once");
    vec![
        create("a server there is not", "inventory", json!({}), json!([UNKNOWN]))
            .refused(Code::InvalidRequest),
        create("a server twice", "inventory", json!({}), json!(["${node1}", "${node1}"]))
            .refused(Code::InvalidRequest),
        create("a kind there is not", "dance", json!({}), json!(["${node1}"])).refused(Code::InvalidRequest),
        create("nobody has its key", "inventory", json!({}), json!(["${node3}"])).refused(Code::PlanEmpty),
        post("in no site", "/v1/jobs", job(UNKNOWN, "inventory", json!({}), json!([UNKNOWN])))
            .by("olga")
            .refused(Code::NotFound),
        create("an empty key", "inventory", json!({}), json!(["${node1}"]))
            .header("idempotency-key", "")
            .refused(Code::InvalidRequest),
        create("a key that is not plain text", "inventory", json!({}), json!(["${node1}"]))
            .header("idempotency-key", "schlüssel")
            .refused(Code::InvalidRequest),
        power("all of it blocked", "${node3}"),
        approve("of which nothing is left").refused(Code::PlanEmpty),
        act("it has not started", "pause").refused(Code::JobState),
        act("nor ended", "retry-failed").refused(Code::JobState),
        once("once", "${node2}"),
        once("and the same again", "${node2}"),
        post("but not for another", "/v1/jobs", job("${alpha}", "inventory", json!({}), json!(["${node1}"])))
            .by("olga")
            .header("idempotency-key", "once")
            .refused(Code::IdempotencyMismatch),
        get("jobs", list("limit=2")).by("vic").keep("jobs_next", "/next"),
        get("more jobs", list("limit=2&cursor=${jobs_next}")).by("vic"),
        get("cancelled ones", list("state=cancelled")).by("vic"),
        get("Otto's jobs", "/v1/jobs").by("otto"),
        get("a job that Otto cannot see", "/v1/jobs/${job}").by("otto").refused(Code::NotFound),
        get("and its runs", "/v1/jobs/${job}/runs").by("otto").refused(Code::NotFound),
        act("not by Otto", "cancel").by("otto").refused(Code::NotFound),
    ]
}

/// What is held open: until its time is over, or until something happens.
fn waiting() -> Vec<Step> {
    let soon = 0..4_000;
    let poll = |name: &'static str, wait_ms: u32| {
        get(name, format!("/v1/events?job=${{job}}&after=${{latest}}&wait_ms={wait_ms}")).by("vic")
    };
    vec![
        get("up to now", "/v1/events?job=${job}&before=latest&limit=1")
            .by("vic")
            .keep("latest", "/items/0/cursor"),
        poll("nothing happens", 600).held(500..3_000),
        lease("nor to an executor", json!([]), 4, 600).held(500..3_000),
        poll("something does", 8_000).meanwhile(approve("Ada approves")).held(soon.clone()),
        lease("and is taken", json!([]), 4, 8_000).keep("run", "/grants/0/run_id").held(soon.clone()),
        lease("an executor hears", json!([{"run_id": "${run}", "epoch": 1}]), 0, 8_000)
            .meanwhile(act("Olga cancels", "cancel"))
            .held(soon),
        report("it ends too", json!([finish(1, "cancelled")])),
        lease("longer than is allowed", json!([]), 0, 60_001).refused(Code::InvalidRequest),
        poll("longer than is allowed to people", 60_001).refused(Code::InvalidRequest),
    ]
}

fn control() -> Vec<Step> {
    let mut bare = server("node-2", 2);
    bare["credential_id"] = json!(null);
    let mut elsewhere = server("node-2", 2);
    elsewhere["credential_id"] = json!("${for_one}");
    vec![
        create("an inventory that nobody takes", "inventory", json!({}), json!(["${node2}"]))
            .keep("job", "/id"),
        get("its run", "/v1/jobs/${job}/runs").by("vic").keep("run", "/items/0/id"),
        post("is closed", "/v1/runs/${run}/close", json!({"reason": "parity"})).by("olga"),
        post("once", "/v1/runs/${run}/close", json!({"reason": "parity"})).by("olga").refused(Code::RunState),
        any("POST", "its BMC may be tried again", "/v1/servers/${node2}/credential/try-again").by("olga"),
        create("an inventory to wait", "inventory", json!({}), json!(["${node2}"])).keep("job", "/id"),
        act("it is not paused", "resume").refused(Code::JobState),
        act("pause", "pause"),
        act("paused already", "pause").refused(Code::JobState),
        lease("a paused job grants nothing", json!([]), 4, 0),
        act("resume", "resume"),
        act("cancel", "cancel"),
        act("cancelled already", "cancel").refused(Code::JobState),
        register("its key is taken away", json!([bare])),
        act("so there is nothing to retry", "retry-failed").refused(Code::PlanEmpty),
        register("another, which is sealed for another BMC", json!([elsewhere])),
        power("that blocks it", "${node2}"),
        act("nothing is left of it", "cancel"),
        register("and given back", json!([server("node-2", 2)])),
    ]
}

fn upkeep() -> Vec<Step> {
    let tick = |name: &'static str| any("POST", name, "/v1/tick");
    vec![
        tick("a tick by nobody").refused(Code::NotSignedIn),
        tick("a tick by an admin").by("ada").refused(Code::NotSignedIn),
        tick("a tick").by("tick").numbers_vary(),
        get("the keys of the audit", "/v1/audit/keys"),
        get("checkpoints after the last", "/v1/audit/audit/checkpoints?after=1000000").by("ada"),
        get("the first record", "/v1/audit/audit/records?limit=1").by("ada").numbers_vary(),
        get("records beyond the last", "/v1/audit/audit/records?after=9.9.9&limit=1")
            .by("ada")
            .refused(Code::InvalidRequest),
    ]
}
