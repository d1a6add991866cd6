//! The report protocol: duplicates, gaps, poisoned items. Nothing lost, nothing blocked.

use std::time::{Duration, Instant};

use rackhand_tests::{
    TestSite,
    database::run as run_on,
    site::{event, finish, granted, item},
};
use serde_json::{Value, json};

#[tokio::test]
async fn duplicates_and_reordering_change_nothing() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(2).await;
    site.job("inventory", &servers, 10).await;
    let runs = granted(&site.lease(&executor, &[], 5).await);

    let answers = site
        .report(
            &executor,
            vec![
                item(&runs[0], 2, event("second")),
                item(&runs[0], 1, event("first")),
                item(&runs[1], 1, event("other run")),
                item(&runs[0], 3, event("third")),
            ],
        )
        .await;
    assert_eq!(answers[0]["code"], "sequence-gap");
    assert_eq!(answers[0]["expected_seq"], 1);
    assert_eq!(answers[1]["status"], "accepted");
    assert_eq!(answers[2]["status"], "accepted", "a gap in one run does not block its neighbour");
    assert_eq!(answers[3]["expected_seq"], 2);
    let rest = vec![
        item(&runs[0], 1, event("first")),
        item(&runs[0], 2, event("second")),
        item(&runs[0], 3, event("third")),
    ];
    for round in 0..2 {
        let answers = site.report(&executor, rest.clone()).await;
        let expected = if round == 0 { "accepted" } else { "duplicate" };
        assert_eq!(answers[0]["status"], "duplicate");
        assert_eq!(answers[2]["status"], expected);
    }
    assert_eq!(
        site.database
            .value(&format!(
                "select array_agg(message order by id) from rackhand.event
                where run_id = '{}' and kind = 'run.log'",
                runs[0].0
            ))
            .await,
        json!(["first", "second", "third"])
    );
}

#[tokio::test]
async fn a_poisoned_item_is_quarantined_and_its_neighbours_pass() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(1).await;
    site.job("power", &servers, 10).await;
    let runs = granted(&site.lease(&executor, &[], 5).await);
    let answers = site
        .report(&executor, vec![
            item(&runs[0], 1, event("before")),
            item(&runs[0], 2, json!({"type": "effect", "id": "not a uuid", "object": "x"})),
            item(&runs[0], 3, json!({"type": "no such type"})),
            json!({"run_id": runs[0].0, "epoch": 1, "seq": 4, "quarantine": {"reason": "too large", "text": "…"}}),
            item(&runs[0], 5, event("after")),
            item(&runs[0], 6, finish("succeeded")),
        ])
        .await;
    let statuses: Vec<_> = answers.iter().map(|answer| answer["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["accepted", "quarantined", "quarantined", "quarantined", "accepted", "accepted"]);
    assert_eq!(
        site.database.value("select count(*) from rackhand.event where kind = 'report.quarantined'").await,
        3
    );
}

/// What a report leaves behind, without ids and times.
const LEFT_BEHIND: &str = "jsonb_build_object(
    'runs', (select jsonb_agg(jsonb_build_array(r.position, r.state, r.reason, r.detail, r.phase, r.percent, r.admitted,
            r.epoch, r.last_seq, r.settle, r.finish, r.intent, r.finished_at is null,
            exists (select from rackhand.lease l where l.run_id = r.id),
            exists (select from rackhand.ready d where d.run_id = r.id and d.owner = r.executor_id))
        order by r.position) from rackhand.run r),
    'events', (select jsonb_agg(jsonb_build_array(r.position, e.kind, e.level, e.message, e.actor_kind, e.epoch, e.seq, e.late,
            e.data, e.trace_id = r.trace_id, e.job_id = r.job_id, e.server_id = r.server_id, e.site_id = r.site_id,
            e.user_id, e.tree, e.n, e.actor_id = (select x.id from rackhand.executor x),
            e.actor_session = (select x.id from rackhand.executor_session x)) order by r.position, e.id)
        from rackhand.event e join rackhand.run r on r.id = e.run_id),
    'job', (select jsonb_agg(jsonb_build_array(j.state, j.state_reason, j.open_runs, j.bad_runs)) from rackhand.job j),
    'slots', (select jsonb_agg(c.used) from rackhand.capacity c),
    'gaps', (select count(*) from (
        select e.n, row_number() over (partition by e.stream, e.tree order by e.id) as due
            from rackhand.event e where e.run_id is not null) c where n <> due),
    'counted', (select count(*) from rackhand.run r where (r.events, r.lines) = (
        select count(*) filter (where e.tree = 'audit'), count(*) filter (where e.tree = 'lines')
            from rackhand.event e where e.run_id = r.id)))";

#[tokio::test]
async fn a_report_taken_at_once_leaves_what_one_taken_item_by_item_leaves() {
    let mut outcomes = vec![];
    for at_once in [true, false] {
        let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
        if !at_once {
            let off = "create or replace function rackhand.report_plain(items jsonb, me rackhand.executor, session uuid)
                returns table (index int, ended boolean, job uuid, bad boolean, freed text[])
                language plpgsql as $$ begin raise exception 'switched off'; end $$";
            site.database.owner.batch_execute(off).await.unwrap();
        }
        let executor = site.executor("one").await;
        let servers = site.servers(12).await;
        site.job("power", &servers, 20).await;
        let mut runs = granted(&site.lease(&executor, &[], 20).await);
        assert_eq!(runs.len(), 12);
        // In the order of the targets, whatever their ids.
        let order = "select jsonb_agg(id order by position) from rackhand.run";
        let order = site.database.value(order).await;
        runs.sort_by_key(|run| order.as_array().unwrap().iter().position(|id| id == run.0.as_str()));
        let effect = json!({"type": "effect", "id": "01920000-0000-7000-8000-00000000000e", "object": "host_power",
            "property": "state", "prior": "off", "wanted": "on", "state": "applied"});
        let ended = |detail: &str| {
            json!({"type": "finish", "outcome": "failed", "code": "device-refused", "detail": detail,
                "evidence": {"status": 400}})
        };
        let of_nobody = (String::from("01920000-0000-7000-8000-00000000dead"), 1);
        let stale = (runs[8].0.clone(), 7);
        let first = vec![
            item(&runs[0], 1, event("a")),
            item(&runs[1], 1, ended("said no")),
            item(&runs[0], 2, event("b")),
            item(&runs[0], 3, finish("succeeded")),
            item(&runs[2], 2, event("too early")),
            item(&runs[2], 1, event("in time")),
            item(&runs[3], 1, event("once")),
            item(&runs[3], 1, event("once")),
            item(&runs[3], 2, finish("no_change")),
            item(&runs[4], 1, effect),
            item(&runs[4], 2, finish("succeeded")),
            item(
                &runs[5],
                1,
                json!({"type": "phase", "phase": "read", "state": "running", "evidence": null}),
            ),
            item(&runs[5], 2, event("reading")),
            item(&runs[6], 1, finish("unknown")),
            item(&runs[7], 1, finish("cancelled")),
            item(&runs[7], 2, event("after the end")),
            item(&stale, 1, event("from the future")),
            item(&runs[9], 1, event("one")),
            item(&runs[9], 2, event("two")),
            item(&of_nobody, 1, finish("succeeded")),
        ];
        let second = vec![
            item(&runs[8], 1, event("fine")),
            item(&runs[9], 3, json!({"type": "event", "level": "info"})),
            item(&runs[9], 4, finish("succeeded")),
            item(&runs[10], 1, finish("no such outcome")),
            item(&runs[11], 1, ended("")),
        ];
        let third = vec![item(&runs[8], 2, finish("succeeded")), item(&runs[10], 2, finish("succeeded"))];
        let mut answers = vec![];
        for batch in [first, second, third] {
            answers.push(site.report(&executor, batch.clone()).await);
            // The answer was lost.
            answers.push(site.report(&executor, batch).await);
        }
        let left: serde_json::Value = site.database.value(&format!("select {LEFT_BEHIND}")).await;
        assert_eq!(left["gaps"], 0);
        assert_eq!(left["counted"], 12);
        outcomes.push((answers, left));
    }
    let by_item = outcomes.pop().unwrap();
    let at_once = outcomes.pop().unwrap();
    for (at_once, by_item) in at_once.0.iter().zip(&by_item.0) {
        assert_eq!(at_once, by_item);
    }
    for part in ["runs", "events", "job", "slots"] {
        assert_eq!(at_once.1[part], by_item.1[part], "{part}");
    }
}

/// As an executor says them: `from` to `to`, each its number.
async fn say(site: &TestSite, run: &str, from: u32, to: u32) {
    let lines = format!(
        "insert into rackhand.event (tree, at, kind, level, message, actor_kind, site_id, run_id, data, stream, n, epoch, seq)
            select 'lines', now(), 'run.log', 'info', 'x', 'executor', r.site_id, r.id, 'null', r.id, g, r.epoch, g
            from rackhand.run r, generate_series({from}, {to}) g where r.id = '{run}';
        update rackhand.run set lines = {to}, last_seq = {to} where id = '{run}';
        analyze rackhand.event"
    );
    site.database.owner.batch_execute(&lines).await.unwrap();
}

/// What comes late is compared with what is there, and an executor may have said much about one run.
#[tokio::test]
async fn late_lines_of_a_talkative_run_are_looked_up_quickly() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(1).await;
    site.job("power", &servers, 1).await;
    let run = granted(&site.lease(&executor, &[], 1).await).remove(0);
    // More than are kept, so that each look at all of them takes its time.
    say(&site, &run.0, 1, 60_000).await;
    site.database.owner.execute("update rackhand.run set lines = 0", &[]).await.unwrap();
    site.report(&executor, vec![item(&run, 60_001, finish("succeeded"))]).await;
    let late: Vec<_> = (60_002..60_502).map(|seq| item(&run, seq, event("late"))).collect();
    let began = Instant::now();
    let answers = site.report(&executor, late.clone()).await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(answers.iter().all(|answer| answer["status"] == "late"), "{answers:?}");
    let again = site.report(&executor, late).await;
    assert!(again.iter().all(|answer| answer["status"] == "duplicate"), "{again:?}");
}

#[tokio::test]
async fn a_former_leases_lines_are_kept_once_each() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(1).await;
    site.job("power", &servers, 1).await;
    let run = granted(&site.lease(&executor, &[], 1).await).remove(0);
    let back = json!({"type": "yield", "reason": "policy", "detail": "Not now", "resume_after_ms": 0});
    site.report(&executor, vec![item(&run, 1, event("in time")), item(&run, 2, back)]).await;
    let next = granted(&site.lease(&executor, &[], 1).await).remove(0);
    assert_eq!((&next.0, next.1), (&run.0, run.1 + 1));
    let statuses = async |seqs: [u64; 4]| {
        let items = seqs.map(|seq| item(&run, seq, event("of the former lease")));
        let answers = site.report(&executor, items.to_vec()).await;
        answers.iter().map(|answer| answer["status"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(statuses([1, 2, 3, 5]).await, ["duplicate", "duplicate", "late", "late"]);
    assert_eq!(statuses([5, 4, 3, 2]).await, ["duplicate", "late", "duplicate", "duplicate"]);
    let never_held = (run.0.clone(), run.1 - 1);
    let refused = site.report(&executor, vec![item(&never_held, 1, event("who was that?"))]).await;
    assert_eq!(refused[0]["code"], "not-found");
}

#[tokio::test]
async fn the_lines_of_a_run_have_an_end_and_the_last_one_says_so() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(1).await;
    site.job("power", &servers, 1).await;
    let run = granted(&site.lease(&executor, &[], 1).await).remove(0);
    say(&site, &run.0, 1, 19_997).await;
    let lines = (19_998..20_004).map(|seq| item(&run, seq, event("more"))).collect();
    let answers = site.report(&executor, lines).await;
    assert!(answers.iter().all(|answer| answer["status"] == "accepted"), "{answers:?}");
    let end = vec![item(&run, 20_004, event("and more")), item(&run, 20_005, finish("succeeded"))];
    site.report(&executor, end).await;
    site.report(&executor, vec![item(&run, 20_006, event("and even more"))]).await;
    let last =
        "select jsonb_agg(message order by n) from rackhand.event where kind = 'run.log' and n > 19997";
    assert_eq!(
        site.database.value(last).await,
        json!([
            "more",
            "more",
            "This run has reported 19999 lines, the maximum. Further lines are not kept."
        ])
    );
    assert_eq!(site.database.value("select state from rackhand.run").await, "succeeded");
}

fn phase(phase: &str, state: &str, evidence: &str) -> Value {
    json!({"type": "phase", "phase": phase, "state": state, "evidence": evidence})
}

#[tokio::test]
async fn a_phase_that_is_said_again_is_no_event_and_a_large_evidence_is_left_out() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(1).await;
    site.job("inventory", &servers, 1).await;
    let run = granted(&site.lease(&executor, &[], 1).await).remove(0);
    let said = [("running", "a"), ("running", "b"), ("done", &"x".repeat(40_000)), ("running", "c")];
    let items =
        (1..).zip(said).map(|(seq, (state, evidence))| item(&run, seq, phase("read", state, evidence)));
    let answers = site.report(&executor, items.collect()).await;
    assert!(answers.iter().all(|answer| answer["status"] == "accepted"), "{answers:?}");
    let told = "select jsonb_agg(jsonb_build_array(data -> 'state', data -> 'evidence') order by n)
        from rackhand.event where kind = 'run.phase'";
    let left_out = json!({"left_out": "too large", "bytes": 40_002});
    assert_eq!(
        site.database.value(told).await,
        json!([["running", "a"], ["done", left_out], ["running", "c"]])
    );
}

/// The state of the run goes on, so that an honest executor can still bring it to its end.
#[tokio::test]
async fn what_a_run_adds_to_the_trail_for_good_has_an_end_and_the_last_one_says_so() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(1).await;
    site.job("power", &servers, 1).await;
    let run = granted(&site.lease(&executor, &[], 1).await).remove(0);
    site.database.owner.execute("update rackhand.run set said = 9998", &[]).await.unwrap();
    let waiting = |reason: &str| {
        json!({"type": "checkpoint", "phase": "act", "state": {"at": reason}, "percent": 7,
            "waiting": {"reason": reason, "detail": "Waits", "within_ms": 1000}})
    };
    let intent = json!({"type": "intent", "action": "reset", "target": "system", "detail": {}});
    let resolved = json!({"type": "intent_resolved", "resolution": "applied", "evidence": null});
    let effect = json!({"type": "effect", "id": "01920000-0000-7000-8000-00000000000e", "object": "host_power",
        "property": "state", "prior": "off", "wanted": "on", "state": "intended"});
    let said = [
        phase("check", "running", "a"),
        phase("check", "done", "a"),
        phase("check", "running", "b"),
        phase("act", "running", "c"),
        waiting("device_job"),
        waiting("host_booting"),
        intent,
        resolved,
        effect,
    ];
    let items = (1..).zip(said).map(|(seq, body)| item(&run, seq, body));
    let answers = site.report(&executor, items.collect()).await;
    let (last, others) = answers.split_last().unwrap();
    assert!(others.iter().all(|answer| answer["status"] == "accepted"), "{answers:?}");
    assert_eq!(last["code"], "run-spent", "it was not made yet");
    let state = "select jsonb_build_array(r.said, r.reason, r.checkpoint, r.intent, r.acted,
        (select jsonb_object_agg(p.phase, p.state) from rackhand.run_phase p)) from rackhand.run r";
    assert_eq!(
        site.database.value(state).await,
        json!([10_000, "host_booting", {"at": "host_booting"}, null, true, {"check": "running"}])
    );
    let back = json!({"type": "yield", "reason": "policy", "detail": "Not now", "resume_after_ms": 0});
    site.report(&executor, vec![item(&run, 9, back)]).await;
    let pause = "select extract(epoch from ready_at - now()) > 50 from rackhand.ready";
    assert_eq!(site.database.value(pause).await, json!(true), "each lease is an event, too");
    site.database.owner.execute("update rackhand.ready set ready_at = now()", &[]).await.unwrap();
    let run = granted(&site.lease(&executor, &[], 1).await).remove(0);
    site.report(
        &executor,
        vec![item(&run, 1, phase("check", "done", "b")), item(&run, 2, finish("succeeded"))],
    )
    .await;
    let told = "select jsonb_agg(jsonb_build_array(kind, message) order by n) from rackhand.event
        where run_id is not null and tree = 'audit' and kind not in ('run.leased')";
    let told = site.database.value(told).await;
    let kinds: Vec<_> = told.as_array().unwrap().iter().map(|event| event[0].as_str().unwrap()).collect();
    assert_eq!(kinds, ["run.phase", "run.quarantined", "run.finished"], "{told}");
    let words =
        "This run has caused 9999 events, the maximum. Its state is still kept, but further events are not.";
    assert_eq!(told[1][1], words);
}

/// Whoever holds it would hold up the leases of that site.
#[tokio::test]
async fn a_run_of_another_site_is_not_locked() {
    let mut site = TestSite::with(json!({"lease_ttl_ms": 300_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(1).await;
    site.job("inventory", &servers, 1).await;
    let run = granted(&site.lease(&executor, &[], 1).await).remove(0);
    let config = json!({"lease_ttl_ms": 1000, "max_mutating_runs": 16, "hardware_paused": false, "second_person": false});
    let other = site.admin("site_create", json!({"name": "other", "config": config})).await;
    site.id = other["id"].as_str().unwrap().to_owned();
    let foreign = site.executor("foreign").await;
    let mut owner = site.database.connect_owner().await;
    let holds = owner.transaction().await.unwrap();
    holds.execute("select from rackhand.run for update", &[]).await.unwrap();
    let items = vec![item(&run, 1, event("x"))];
    let report = tokio::time::timeout(Duration::from_secs(30), site.report(&foreign, items)).await;
    let report = report.expect("the report waits for nobody");
    assert_eq!(report[0]["status"], "refused", "{report:?}");
}

/// Each one that waited would hold a connection that the executors of all sites share.
#[tokio::test]
async fn an_executor_has_one_report_under_way() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let (one, two) = (site.executor("one").await, site.executor("two").await);
    let servers = site.servers(1).await;
    site.job("power", &servers, 1).await;
    let run = granted(&site.lease(&one, &[], 1).await).remove(0);
    let mut owner = site.database.connect_owner().await;
    let holds = owner.transaction().await.unwrap();
    holds.execute("select from rackhand.run for update", &[]).await.unwrap();
    let report =
        json!({"items": [{"index": 0, "run_id": run.0, "epoch": run.1, "seq": 1, "body": event("a")}]});
    let waiting = site.database.connect().await;
    let waiting = run_on(&waiting, &one.scope, "executor_report", report.clone());
    let refused = async {
        site.database.until_waiting(1).await;
        let refused = site.database.run(&one.scope, "executor_report", report.clone()).await.unwrap_err();
        assert_eq!(refused.code, "report-busy");
        site.database.run(&two.scope, "executor_report", json!({"items": []})).await.unwrap();
        holds.rollback().await.unwrap();
    };
    let (taken, ()) = tokio::join!(waiting, refused);
    assert_eq!(taken.unwrap()["results"][0]["status"], "accepted");
    let again = site.database.run(&one.scope, "executor_report", report).await.unwrap();
    assert_eq!(again["results"][0]["status"], "duplicate");
}

#[tokio::test]
async fn what_a_run_reports_names_its_server_and_says_what_is_meant() {
    let site = TestSite::new().await;
    let executor = site.executor("one").await;
    let servers = site.servers(1).await;
    site.job("power", &servers, 1).await;
    let runs = granted(&site.lease(&executor, &[], 1).await);
    let phase = |state: &str| json!({"type": "phase", "phase": "clean_up", "state": state, "evidence": null});
    let effect = json!({"type": "effect", "id": "01920000-0000-7000-8000-00000000000e", "object": "bmc_job",
        "property": "BIOS.Setup.1-1", "prior": null, "wanted": null, "state": "settled"});
    let items = vec![
        item(&runs[0], 1, phase("running")),
        item(&runs[0], 2, effect),
        item(&runs[0], 3, phase("done")),
    ];
    site.report(&executor, items).await;
    let name = site.database.value("select name from rackhand.server").await;
    let name = name.as_str().unwrap();
    let messages = "select jsonb_agg(message order by id) from rackhand.event
        where kind in ('run.phase', 'run.effect')";
    assert_eq!(
        site.database.value(messages).await,
        json!([
            format!("{name}: phase clean up has begun"),
            format!("{name}: update job for BIOS.Setup.1-1: over"),
            format!("{name}: phase clean up is complete"),
        ])
    );
}

/// A row that is named as unreadable is no component that is gone, whatever it is named by.
#[tokio::test]
async fn a_firmware_row_that_could_not_be_read_is_not_removed() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(1).await;
    site.job("inventory", &servers, 10).await;
    let runs = granted(&site.lease(&executor, &[], 5).await);
    let row = |key: &str| {
        json!({"key": key, "name": key, "software_id": "1", "version": "1", "updateable": true,
            "inactive": null})
    };
    let inventory = |rows: &[&str], unreadable: &[&str]| {
        let unreadable: serde_json::Map<_, _> =
            unreadable.iter().map(|what| ((*what).to_owned(), json!("status 503"))).collect();
        json!({"type": "inventory", "vendor": null, "model": null, "service_tag": null, "generation": null,
            "bmc_version": null, "power": "on", "health": "ok",
            "components": rows.iter().map(|key| row(key)).collect::<Vec<_>>(), "capabilities": [],
            "unreadable": unreadable})
    };
    let all = ["BIOS", "C.1", "FAN", "NIC.1", "PSU.1", "SystemRom"];
    let list = "/redfish/v1/UpdateService/FirmwareInventory";
    let named = [
        format!("{list}/FAN"),
        format!("{list}/Installed-25227-7.0__NIC.1"),
        "SystemRom".to_owned(),
        "/redfish/v1/Chassis/PSU.12".to_owned(),
    ];
    let named: Vec<&str> = named.iter().map(String::as_str).collect();
    let mut seq = 0;
    for (rows, unreadable, left) in [
        (&all[..], vec![], &all[..]),
        (&all[..1], named, &["BIOS", "FAN", "NIC.1", "SystemRom"][..]),
        (&all[..1], vec!["firmware"], &["BIOS", "FAN", "NIC.1", "SystemRom"][..]),
        (&all[..1], vec!["system"], &["BIOS"][..]),
    ] {
        seq += 1;
        let answers = site.report(&executor, vec![item(&runs[0], seq, inventory(rows, &unreadable))]).await;
        assert_eq!(answers[0]["status"], "accepted", "{answers:?}");
        let known = "select jsonb_agg(key order by key) from rackhand.firmware";
        assert_eq!(site.database.value(known).await, json!(left), "{unreadable:?}");
    }
}
