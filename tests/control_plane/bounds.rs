//! What executors say has an end in bytes, also one that was taken over: against the others of its site, against the
//! control plane, and against who reads.

use rackhand_tests::{
    TestServer, TestSite,
    site::{TestExecutor, event, finish, granted, item},
};
use serde_json::{Value, json};
use uuid::Uuid;

const RUN: &str = include_str!("../../functions/core/src/runs/read.sql");

/// A site, an executor and its run of a job of this kind.
async fn leased(kind: &str) -> (TestSite, TestExecutor, (String, u64)) {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(1).await;
    site.job(kind, &servers, 10).await;
    let run = granted(&site.lease(&executor, &[], 5).await).remove(0);
    (site, executor, run)
}

fn effect(wanted: &str) -> Value {
    json!({"type": "effect", "id": Uuid::now_v7(), "object": "host_power", "property": "state", "prior": "off",
        "wanted": wanted, "state": "applied"})
}

fn intent(before: Value) -> Value {
    json!({"type": "intent", "phase": "act", "action": "reset_host", "before": before, "deadline_ms": 1})
}

fn checkpoint(phase: &str, state: Value, detail: &str) -> Value {
    json!({"type": "checkpoint", "phase": phase, "state": state, "percent": null,
        "waiting": {"reason": "device_job", "detail": detail, "within_ms": 1000}})
}

/// In the database each of these numbers has 301 digits.
fn numbers() -> Value {
    serde_json::from_str(&format!("[{}1]", "1e300,".repeat(10_000))).unwrap()
}

/// No one approves such a run: another executor must not be granted work to undo for it.
#[tokio::test]
async fn a_run_that_only_reads_has_neither_effects_nor_intents() {
    let (site, executor, run) = leased("inventory").await;
    for made_up in [effect("on"), intent(json!({}))] {
        let answers = site.report(&executor, vec![item(&run, 1, made_up)]).await;
        assert_eq!(answers[0]["code"], "invalid-request");
    }
    let answers = site.report(&executor, vec![item(&run, 1, finish("failed"))]).await;
    assert_eq!(answers[0]["status"], "accepted");
    let left = "select jsonb_build_array(r.state, r.acted, (select count(*) from rackhand.effect)) from rackhand.run r";
    assert_eq!(site.database.value(left).await, json!(["failed", false, 0]));
}

/// It is revoked; what it has left goes to another executor with each answer until the run has ended.
#[tokio::test]
async fn what_a_run_leaves_to_the_next_executor_has_an_end() {
    let (site, hostile, run) = leased("power").await;
    let long = "x".repeat(5_000);
    let mut much = effect("on");
    much["prior"] = json!(long);
    let mut named = effect("on");
    named["property"] = json!(long);
    for (too_large, what) in
        [(effect(&long), "wanted"), (much, "prior"), (named, "property"), (intent(numbers()), "intent")]
    {
        let answers = site.report(&hostile, vec![item(&run, 1, too_large)]).await;
        assert_eq!(answers[0]["code"], "invalid-request", "{what}: {answers:?}");
    }
    let blocks_nothing = [
        checkpoint("act", numbers(), ""),
        checkpoint(&long, json!({}), ""),
        json!({"type": "phase", "phase": long, "state": "done", "evidence": null}),
    ];
    let items = (1..).zip(blocks_nothing).map(|(seq, body)| item(&run, seq, body)).collect();
    let answers = site.report(&hostile, items).await;
    assert!(answers.iter().all(|answer| answer["status"] == "quarantined"), "{answers:?}");
    let mut seq = 3;
    let mut say = |body: Value| {
        seq += 1;
        item(&run, seq, body)
    };
    let phase = |n: usize| json!({"type": "phase", "phase": format!("p{n}"), "state": "done", "evidence": "e".repeat(32_000)});
    let mut items: Vec<Value> = (0..100).map(|n| say(phase(n))).collect();
    items.push(say(checkpoint("act", json!("s".repeat(60_000)), "")));
    items.push(say(intent(json!("b".repeat(60_000)))));
    items.push(say(json!({"type": "intent_resolved", "resolution": "applied", "evidence": null})));
    items.extend((0..64).map(|_| say(effect(&"w".repeat(4_000)))));
    let answers = site.report(&hostile, items).await;
    assert!(answers.iter().all(|answer| answer["status"] == "accepted"), "{answers:?}");
    let last = (run.clone(), seq + 1);
    let answers = site.report(&hostile, vec![item(&last.0, last.1, effect("one more"))]).await;
    assert_eq!(answers[0]["code"], "run-spent");
    let mut ending = finish("failed");
    ending["evidence"] = numbers();
    site.report(&hostile, vec![item(&last.0, last.1, ending)]).await;
    site.admin("executor_revoke", json!({"id": hostile.id})).await;
    let honest = site.executor("two").await;
    let answer = site.lease(&honest, &[], 5).await;
    let grant = &answer["grants"][0];
    assert_eq!(grant["effects"].as_array().unwrap().len(), 64);
    assert_eq!(grant["settle"]["evidence"]["left_out"], "too large");
    let bytes = answer.to_string().len();
    assert!(bytes < 512 * 1024, "{bytes} bytes");
    let shown = site.admin(RUN, json!({"id": run.0})).await;
    assert_eq!(shown["phases"].as_array().unwrap().len(), 64);
    let bytes = shown.to_string().len();
    assert!(bytes < 4 << 20, "{bytes} bytes");
}

/// One credential for some hundred BMCs has tens of kilobytes, and comes with each grant. An answer has to come over a
/// slow uplink within seconds, or the lease ends.
#[tokio::test]
async fn large_grants_come_in_several_answers() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(12).await;
    let seal = async |times: i32| {
        let sealed = "update rackhand.credential set sealed = repeat('c2VhbGVk', $1)";
        site.database.owner.execute(sealed, &[&times]).await.unwrap();
    };
    seal(6_250).await;
    site.job("inventory", &servers, 12).await;
    let mut held = vec![];
    for answers in 1..=4 {
        let answer = site.lease(&executor, &held, 12).await;
        let bytes = answer.to_string().len();
        assert!(bytes < 264 * 1024, "{bytes} bytes");
        assert_eq!(answer["lost"], json!([]));
        held.extend(granted(&answer));
        assert_eq!(held.len(), [5, 10, 12, 12][answers - 1], "after {answers} answers");
    }
    let runs: std::collections::BTreeSet<_> = held.iter().map(|(run, _)| run).collect();
    assert_eq!(runs.len(), 12);
    // One that is larger than an answer comes alone.
    seal(50_000).await;
    assert_eq!(granted(&site.lease(&executor, &held[..10], 12).await).len(), 1);
}

/// A job may name 32 packages with long addresses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_jobs_has_an_end_in_bytes() {
    let site = TestSite::new().await;
    let server = TestServer::start(&site).await;
    let servers = site.servers(1).await;
    let mut jobs = Vec::new();
    for _ in 0..8 {
        jobs.push(site.plan("inventory", &servers, 1).await);
    }
    jobs.reverse();
    let large = "update rackhand.job set params = jsonb_build_object('packages', repeat('p', 300000))";
    site.database.owner.execute(large, &[]).await.unwrap();
    let (mut seen, mut pages, mut cursor) = (Vec::new(), Vec::new(), String::new());
    loop {
        let path = format!("/v1/jobs?limit=500{cursor}");
        let page = server.call("GET", &path, Some(&server.token(&site.admin)), None).await.body;
        assert!(page.to_string().len() < 1_300_000);
        let items = page["items"].as_array().unwrap();
        seen.extend(items.iter().map(|job| job["id"].as_str().unwrap().to_owned()));
        pages.push(items.len());
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!((seen, pages), (jobs, vec![3, 3, 2]));
}

#[tokio::test]
async fn a_line_is_no_longer_than_what_is_kept_of_other_items() {
    let (site, executor, run) = leased("inventory").await;
    let long = "x".repeat(60_000);
    let mut large = event(&long);
    large["data"] = numbers();
    // The first two at once; the third by itself, beside an item that is not plain.
    site.report(&executor, vec![item(&run, 1, large.clone()), item(&run, 2, event("y"))]).await;
    site.report(&executor, vec![item(&run, 3, checkpoint("read", json!({}), &long)), item(&run, 4, large)])
        .await;
    let listed = "select jsonb_agg(length(r.detail)) from rackhand.run r";
    assert_eq!(site.database.value(listed).await, json!([2000]));
    let mut ending = finish("failed");
    ending["detail"] = json!(long);
    ending["evidence"] = numbers();
    site.report(&executor, vec![item(&run, 5, ending)]).await;
    assert_eq!(site.database.value(listed).await, json!([2000]));
    let kept = "select jsonb_build_object('texts', max(length(message)), 'data', max(length(data::text)),
        'all', count(*)) from rackhand.event where run_id is not null";
    let kept = site.database.value(kept).await;
    assert_eq!((&kept["all"], &kept["texts"]), (&json!(6), &json!(2000)), "{kept}");
    assert!(kept["data"].as_u64().unwrap() < 3_000, "{kept}");
}

/// A thousand of the largest lines are what every viewer of the site may ask for, and what `rackhand audit export` asks
/// for.
#[tokio::test]
async fn a_page_of_events_and_of_records_has_an_end_in_bytes() {
    let (site, executor, run) = leased("inventory").await;
    let mut large = event("large");
    large["data"] = json!("x".repeat(32_000));
    for report in 0..10 {
        let lines = (1..=10).map(|n| item(&run, report * 10 + n, large.clone()));
        site.report(&executor, lines.collect()).await;
    }
    site.database.shown().await;
    let all = site.database.value("select count(*) from rackhand.event where run_id is not null").await;
    for (side, from) in [("after", ""), ("before", "latest")] {
        let (mut seen, mut pages, mut cursor) = (std::collections::BTreeSet::new(), 0, json!(from));
        loop {
            let page = site.admin("events_after", json!({"run": run.0, "limit": 1000, side: cursor})).await;
            let bytes = page.to_string().len();
            assert!(bytes < 2 << 20, "{bytes} bytes");
            let items = page["items"].as_array().unwrap();
            seen.extend(items.iter().map(|event| event["cursor"].to_string()));
            (cursor, pages) = (page["cursor"].clone(), pages + 1);
            if page["more"] == false {
                break;
            }
        }
        assert_eq!((json!(seen.len()), pages), (all.clone(), 4), "{side}");
    }
    let lines = site.database.value("select count(*) from rackhand.event where tree = 'lines'").await;
    let (mut seen, mut cursor) = (0, Value::Null);
    loop {
        let page =
            site.admin("audit_records", json!({"tree": "lines", "limit": 1000, "after": cursor})).await;
        let bytes = page.to_string().len();
        assert!(bytes < 2 << 20, "{bytes} bytes");
        let records = page["records"].as_array().unwrap().len();
        if records == 0 {
            assert_eq!(page["cursor"], cursor, "the end stays the end");
            break;
        }
        seen += records;
        cursor = page["cursor"].clone();
    }
    assert_eq!(json!(seen), lines);
}

/// Plans, and which machine it is, are made from what was read: it changes with an event or not at all.
#[tokio::test]
async fn who_has_caused_the_last_event_of_a_run_changes_nothing_of_what_is_known() {
    let (site, executor, run) = leased("inventory").await;
    let read = |tag: &str| {
        json!({"type": "inventory", "service_tag": tag, "power": "on", "health": "ok", "components": [],
            "capabilities": [], "unreadable": {}})
    };
    let told = "select jsonb_build_array(v.service_tag, (select count(*) from rackhand.event where kind = 'server.observed'))
        from rackhand.server v";
    site.report(&executor, vec![item(&run, 1, read("AAA1111"))]).await;
    assert_eq!(site.database.value(told).await, json!(["AAA1111", 1]));
    site.database.owner.execute("update rackhand.run set said = 10000", &[]).await.unwrap();
    let items = vec![item(&run, 2, read("BBB2222")), item(&run, 3, finish("succeeded"))];
    let answers = site.report(&executor, items).await;
    assert_eq!((&answers[0]["status"], &answers[1]["status"]), (&json!("quarantined"), &json!("accepted")));
    assert_eq!(site.database.value(told).await, json!(["AAA1111", 1]));
}

/// Each sign-in takes the place of the one before, and is an event for good. One that starts anew every few seconds
/// does not notice.
#[tokio::test]
async fn sign_ins_of_one_executor_fill_no_trail() {
    let site = TestSite::new().await;
    let (one, other) = (site.executor("one").await, site.executor("two").await);
    let mut refused = Vec::new();
    for number in 0..200 {
        let args = json!({"executor_id": one.id, "session_id": Uuid::now_v7(), "nonce": number.to_string()});
        let started = site.database.run(&json!({"kind": "anonymous"}), "executor_session_start", args).await;
        refused.extend(started.err());
    }
    assert!(refused.iter().all(|refused| refused.code == "login-limited"), "{refused:?}");
    assert!(refused[0].detail.contains("Try again in"), "{:?}", refused[0]);
    let kept = "select jsonb_build_array(
            (select count(*) from rackhand.event where kind = 'executor.started' and actor_id = $ID),
            (select count(*) from rackhand.executor_session where executor_id = $ID))"
        .replace("$ID", &format!("'{}'", one.id));
    assert_eq!(site.database.value(&kept).await, json!([60, 60]));
    site.session(&other.id, Some(&other.session)).await;
    let later = "update rackhand.login_limit set until = now() - interval '1 second'";
    site.database.owner.execute(later, &[]).await.unwrap();
    site.session(&one.id, None).await;
}

/// A time that is 30,000 years away is none that people or the next executor can wait for.
#[tokio::test]
async fn the_times_that_an_executor_gives_have_an_end() {
    let (site, hostile, run) = leased("power").await;
    let endless = 1_000_000_000_000_000_000_u64;
    let mut waits = checkpoint("act", json!({}), "Busy.");
    waits["waiting"]["within_ms"] = json!(endless);
    let mut announced = intent(json!({}));
    announced["deadline_ms"] = json!(endless);
    let answers = site.report(&hostile, vec![item(&run, 1, waits), item(&run, 2, announced)]).await;
    assert!(answers.iter().all(|answer| answer["status"] == "accepted"), "{answers:?}");
    let kept =
        "select jsonb_build_array(r.expected_by <= now() + interval '7 days', r.intent -> 'deadline_ms')
        from rackhand.run r";
    assert_eq!(site.database.value(kept).await, json!([true, 6 * 3600 * 1000]));
}
