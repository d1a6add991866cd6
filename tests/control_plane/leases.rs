//! Invariant 3: leases fence writes. Liveness, redelivery, expiry, takeover, ownership of BMCs.

use std::time::{Duration, Instant};

use rackhand_tests::{
    TestServer, TestSite,
    database::run as run_on,
    site::{event, finish, granted, item, lease_args},
};
use serde_json::{Value, json};

#[tokio::test]
async fn a_lost_lease_answer_is_delivered_again() {
    let site = TestSite::new().await;
    let executor = site.executor("one").await;
    let servers = site.servers(3).await;
    site.job("inventory", &servers, 10).await;

    let first = granted(&site.lease(&executor, &[], 2).await);
    assert_eq!(first.len(), 2);
    // The answer was lost: the executor lists nothing as held and has room for nothing more.
    let again = granted(&site.lease(&executor, &[], 0).await);
    assert_eq!(again, first, "the same runs with the same epochs");
    let quiet = site.lease(&executor, &first, 0).await;
    assert_eq!(quiet["grants"], json!([]));
    assert_eq!(quiet["lost"], json!([]));
}

/// Each one that waited would hold a connection that the executors of all sites share.
#[tokio::test]
async fn an_executor_has_few_requests_for_leases_under_way() {
    let site = TestSite::new().await;
    let (one, two) = (site.executor("one").await, site.executor("two").await);
    let mut owner = site.database.connect_owner().await;
    let holds = owner.transaction().await.unwrap();
    let sessions = "select from rackhand.executor_session for update";
    holds.execute(sessions, &[]).await.unwrap();
    let waiting = (0..3).map(|_| async {
        let connection = site.database.connect().await;
        run_on(&connection, &one.scope, "executor_lease", lease_args(&[], 0)).await
    });
    let refused = async {
        site.database.until_waiting(3).await;
        let connection = site.database.connect().await;
        let refused = run_on(&connection, &one.scope, "executor_lease", lease_args(&[], 0)).await;
        assert_eq!(refused.unwrap_err().code, "lease-busy");
        holds.rollback().await.unwrap();
    };
    let (answers, ()) = tokio::join!(futures::future::join_all(waiting), refused);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    site.lease(&one, &[], 0).await;
    site.lease(&two, &[], 0).await;
}

/// What an executor can do stays as it is while it has room for no further change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_executor_gets_as_many_changes_as_it_has_room_for() {
    let site = TestSite::new().await;
    let server = TestServer::start(&site).await;
    let executor = site.executor("one").await;
    let servers = site.servers(4).await;
    let (power, look) = servers.split_at(3);
    site.job("power", power, 10).await;
    site.job("inventory", look, 10).await;
    let params = r#"update rackhand.job set params = '{"action": "on"}' where kind = 'power'"#;
    site.database.owner.batch_execute(params).await.unwrap();
    let token = server.executor_token(&site, &executor);
    let mut held = Vec::new();
    for (changes, kinds) in [(Some(0), vec!["inventory"]), (Some(1), vec!["power"]), (None, vec!["power"; 2])]
    {
        let mut args = lease_args(&held, 8);
        args["wait_ms"] = json!(0);
        if let Some(changes) = changes {
            args["changes"] = json!(changes);
        }
        let answer = server.call("POST", "/v1/executor/lease", Some(&token), Some(&args)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let grants = answer.body["grants"].as_array().unwrap().clone();
        assert_eq!(
            grants.iter().map(|grant| &grant["spec"]["kind"]).collect::<Vec<_>>(),
            kinds,
            "{changes:?}"
        );
        held.extend(granted(&answer.body));
        let told = site.database.value("select to_jsonb(e.kinds) from rackhand.executor e").await;
        assert_eq!(told, args["kinds"], "{changes:?}");
    }
}

/// What it was granted by an answer that was lost is granted again, and fills the room.
#[tokio::test]
async fn lost_answers_make_no_executor_hold_more_than_it_has_room_for() {
    let site = TestSite::new().await;
    let executor = site.executor("one").await;
    let servers = site.servers(8).await;
    site.job("inventory", &servers, 100).await;
    let mut first = granted(&site.lease(&executor, &[], 2).await);
    first.sort();
    for _ in 0..3 {
        let mut again = granted(&site.lease(&executor, &[], 2).await);
        again.sort();
        assert_eq!(again, first);
    }
    // What it lists is its own count.
    assert_eq!(granted(&site.lease(&executor, &first, 2).await).len(), 2);
}

#[tokio::test]
async fn a_dead_executors_runs_go_to_another_with_a_new_epoch_and_its_writes_are_refused() {
    let site = TestSite::with(json!({"lease_ttl_ms": 500})).await;
    let (first, second) = (site.executor("one").await, site.executor("two").await);
    let servers = site.servers(1).await;
    site.job("power", &servers, 10).await;
    let held = granted(&site.lease(&first, &[], 5).await);
    assert_eq!(held.len(), 1);
    let accepted = site
        .report(
            &first,
            vec![
                item(&held[0], 1, json!({"type": "checkpoint", "phase": "act", "state": {"step": 1}})),
                item(
                    &held[0],
                    2,
                    json!({"type": "intent", "phase": "act", "action": "reset_host", "before": {},
                "deadline_ms": 100}),
                ),
            ],
        )
        .await;
    assert_eq!(accepted[1]["status"], "accepted");

    // While it lives, its run and its BMC are nobody else's.
    assert_eq!(granted(&site.lease(&second, &[], 5).await), vec![]);

    let died = Instant::now();
    let taken = loop {
        let answer = site.lease(&second, &[], 5).await;
        if !granted(&answer).is_empty() {
            break answer;
        }
        let wake = answer["wake_in_ms"].as_u64().expect("the answer says when to look again");
        tokio::time::sleep(Duration::from_millis(wake)).await;
    };
    assert!(
        died.elapsed() < Duration::from_millis(600),
        "re-leased within 1.2 × TTL, took {:?}",
        died.elapsed()
    );
    let grant = &taken["grants"][0];
    assert_eq!(grant["epoch"], 2);
    assert_eq!(grant["checkpoint"], json!({"step": 1}));
    assert_eq!(grant["intent"]["action"], "reset_host", "the successor learns what may have happened");
    assert_eq!(grant["target"]["owner_epoch"], 2, "the BMC has a new owner");

    // The first one wakes up: state is refused, observations are kept and marked late.
    let late = site
        .report(
            &first,
            vec![
                item(&held[0], 3, event("the reset was sent after all")),
                item(
                    &held[0],
                    4,
                    json!({"type": "intent_resolved", "resolution": "applied", "evidence": null}),
                ),
                item(&held[0], 5, finish("succeeded")),
                item(&held[0], 3, event("the reset was sent after all")),
            ],
        )
        .await;
    let statuses: Vec<_> = late.iter().map(|result| result["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["late", "refused", "refused", "duplicate"]);
    assert_eq!(late[1]["code"], "stale-epoch");
    assert_eq!(site.database.value("select count(*) from rackhand.event where late").await, 1);
    assert_eq!(site.database.value("select intent ->> 'action' from rackhand.run").await, "reset_host");
    assert_eq!(site.lease(&first, &held, 0).await["lost"], json!([{"run_id": held[0].0, "epoch": 1}]));
}

/// The answer to the renewal that shortened the lease is lost: the executor still counts on the longer one.
#[tokio::test]
async fn a_shorter_lease_time_does_not_take_back_what_was_promised() {
    let site = TestSite::with(json!({"lease_ttl_ms": 300_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(1).await;
    site.job("power", &servers, 10).await;
    let held = granted(&site.lease(&executor, &[], 1).await);
    let ends = "select extract(epoch from max(expires_at)) from rackhand.executor_session";
    let promised = site.database.value(ends).await.as_f64().unwrap();
    let config = json!({"lease_ttl_ms": 5_000, "max_mutating_runs": 16, "hardware_paused": false,
        "second_person": false});
    site.admin("site_update", json!({"id": site.id, "config": config})).await;
    assert_eq!(site.lease(&executor, &held, 1).await["ttl_ms"], 5_000, "what is promised from now on");
    assert!(site.database.value(ends).await.as_f64().unwrap() >= promised);
}

#[tokio::test]
async fn a_late_renewal_keeps_what_nobody_took() {
    let site = TestSite::with(json!({"lease_ttl_ms": 500})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(1).await;
    site.job("inventory", &servers, 10).await;
    let held = granted(&site.lease(&executor, &[], 5).await);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(
        site.report(&executor, vec![item(&held[0], 1, finish("succeeded"))]).await[0]["code"],
        "stale-epoch",
        "an expired session may write nothing before it has renewed"
    );
    // Its own poll does the expiry of the site, so it gets its run back under a new epoch or keeps it;
    // either way nothing is in two hands.
    let renewed = site.lease(&executor, &held, 5).await;
    assert_eq!(renewed["lost"], json!([]));
    assert_eq!(renewed["grants"], json!([]));
    assert_eq!(
        site.report(&executor, vec![item(&held[0], 1, finish("succeeded"))]).await[0]["status"],
        "accepted"
    );
}

#[tokio::test]
async fn a_second_process_of_the_same_executor_supersedes_the_first() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let first = site.executor("one").await;
    let servers = site.servers(1).await;
    site.job("power", &servers, 10).await;
    let held = granted(&site.lease(&first, &[], 5).await);
    assert_eq!(held.len(), 1);

    // A clone that cannot prove the first process dead waits for its lease.
    let clone = site.session(&first.id, None).await;
    assert_eq!(granted(&site.lease(&clone, &[], 5).await), vec![]);
    let refused = site.try_lease(&first, &held, 0).await.unwrap_err();
    assert_eq!(refused.code, "session-superseded");

    // A restart that holds the journal's lock gets the run at once, under a new epoch.
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let first = site.executor("one").await;
    let servers = site.servers(1).await;
    site.job("power", &servers, 10).await;
    let held = granted(&site.lease(&first, &[], 5).await);
    let restarted = site.session(&first.id, Some(&first.session)).await;
    let regained = granted(&site.lease(&restarted, &[], 5).await);
    assert_eq!(regained, vec![(held[0].0.clone(), 2)]);
}

#[tokio::test]
async fn unowned_bmcs_are_shared_between_executors_and_then_stay() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let (first, second) = (site.executor("one").await, site.executor("two").await);
    site.lease(&first, &[], 0).await;
    site.lease(&second, &[], 0).await;
    let servers = site.servers(12).await;
    site.job("inventory", &servers, 100).await;
    let (mut ours, mut theirs) = (vec![], vec![]);
    for _ in 0..8 {
        ours.extend(granted(&site.lease(&first, &ours, 50).await));
        theirs.extend(granted(&site.lease(&second, &theirs, 50).await));
    }
    assert_eq!(ours.len() + theirs.len(), 12);
    assert!(ours.len() >= 4 && theirs.len() >= 4, "{} and {}", ours.len(), theirs.len());
    for run in &ours {
        site.report(&first, vec![item(run, 1, finish("succeeded"))]).await;
    }
    // A later run of an owned BMC goes to its owner only.
    site.job("inventory", &servers, 100).await;
    let mut again = vec![];
    for _ in 0..8 {
        again.extend(granted(&site.lease(&first, &again, 50).await));
    }
    assert_eq!(again.len(), ours.len());
}

#[tokio::test]
async fn open_effects_turn_a_finish_into_settling_until_they_are_undone() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let (first, second) = (site.executor("one").await, site.executor("two").await);
    let servers = site.servers(1).await;
    let job = site.job("power", &servers, 10).await;
    let held = granted(&site.lease(&first, &[], 5).await);
    let effect = |state: &str| {
        json!({"type": "effect", "id": "01920000-0000-7000-8000-00000000000e",
        "object": "host_power", "property": "state", "prior": "off", "wanted": "on", "state": state})
    };
    let answers = site
        .report(
            &first,
            vec![
                item(&held[0], 1, effect("intended")),
                item(&held[0], 2, effect("applied")),
                item(&held[0], 3, finish("failed")),
                item(&held[0], 3, finish("failed")),
            ],
        )
        .await;
    assert_eq!(answers[2]["status"], "accepted");
    assert_eq!(answers[3]["status"], "duplicate");
    assert_eq!(site.database.value("select state from rackhand.run").await, "settling");
    assert_eq!(site.database.value("select max(used) from rackhand.capacity").await, 1, "slots are kept");

    let settle = site.lease(&first, &[], 5).await;
    assert_eq!(settle["grants"][0]["settle"]["outcome"], "failed");
    assert_eq!(settle["grants"][0]["effects"][0]["state"], "applied");
    let held = granted(&settle);
    let early = site.report(&first, vec![item(&held[0], 1, finish("failed"))]).await;
    assert_eq!(early[0]["code"], "effects-open", "a run cannot end with an effect open");
    site.report(&first, vec![item(&held[0], 1, effect("settled")), item(&held[0], 2, finish("failed"))])
        .await;
    assert_eq!(site.database.value("select state from rackhand.run").await, "failed");
    assert_eq!(site.database.value("select max(used) from rackhand.capacity").await, 0, "slots are free");
    assert_eq!(
        site.database.value(&format!("select state from rackhand.job where id = '{job}'")).await,
        "failed"
    );
    assert_eq!(granted(&site.lease(&second, &[], 5).await), vec![]);
}

#[tokio::test]
async fn an_unknown_outcome_keeps_its_slots_until_a_person_closes_it() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(1).await;
    let job = site.job("firmware_update", &servers, 10).await;
    let held = granted(&site.lease(&executor, &[], 5).await);
    let intent = json!({"type": "intent", "phase": "stage", "action": "stage_package", "before": {}, "deadline_ms": 1});
    let answers = site
        .report(
            &executor,
            vec![
                item(&held[0], 1, intent),
                item(&held[0], 2, finish("succeeded")),
                item(&held[0], 2, finish("unknown")),
            ],
        )
        .await;
    assert_eq!(answers[1]["code"], "intent-open", "no success with an unresolved intent");
    assert_eq!(answers[2]["status"], "accepted");
    let next = site.job("power", &servers, 10).await;
    assert_eq!(granted(&site.lease(&executor, &[], 5).await), vec![], "nothing else mutates that server");
    site.admin("job_control", json!({"id": job, "action": "cancel", "reason": "looked at it"})).await;
    assert_eq!(granted(&site.lease(&executor, &[], 5).await).len(), 1, "job {next} goes on");
}

/// Whatever a lease looks at for each executor of the site is looked at once, not once for each of them.
#[tokio::test]
async fn a_lease_among_many_executors_asks_a_few_times_who_lives() {
    let site = TestSite::new().await;
    let servers = site.servers(20).await;
    site.job("inventory", &servers, 1000).await;
    let mut last = None;
    for index in 0..20 {
        let executor = site.executor(&format!("executor-{index}")).await;
        let held = granted(&site.lease(&executor, &[], 1).await);
        last = Some((executor, held));
    }
    let (executor, held) = last.unwrap();
    let owner = &site.database.owner;
    owner.batch_execute("begin; set local track_functions = 'pl'").await.unwrap();
    let (scope, args) = (executor.scope.to_string(), lease_args(&held, 10).to_string());
    let lease = "select rackhand.run($1::text::jsonb, 'select rackhand.executor_lease($1)', $2::text::jsonb)";
    owner.query_one(lease, &[&scope, &args]).await.unwrap();
    let calls =
        "select coalesce(sum(calls), 0)::bigint from pg_stat_xact_user_functions where funcname = 'living'";
    let calls: i64 = owner.query_one(calls, &[]).await.unwrap().get(0);
    owner.batch_execute("rollback").await.unwrap();
    assert!((1..=3).contains(&calls), "{calls}");
}

/// Plans are kept, also those that were made when there was next to nothing to read.
#[tokio::test]
async fn a_lease_reads_indexes_however_much_a_queue_has_grown() {
    let site = TestSite::with(json!({"lease_ttl_ms": 600_000})).await;
    let executor = site.executor("one").await;
    let first = site.servers(1).await;
    site.job("inventory", &first, 1000).await;
    let owner = &site.database.owner;
    owner.batch_execute("vacuum analyze").await.unwrap();
    let first_run = granted(&site.lease(&executor, &[], 1).await);
    assert_eq!(first_run.len(), 1);
    let servers = site.servers(2000).await;
    for chunk in servers.chunks(500) {
        site.job("inventory", chunk, 1000).await;
    }
    let before = rows_of_whole_tables(&site).await;
    let mut held = first_run;
    for _ in 0..3 {
        let more = granted(&site.lease(&executor, &held, 1).await);
        assert_eq!(more.len(), 1);
        held.extend(more);
    }
    let read = rows_of_whole_tables(&site).await - before;
    assert!(read < 200, "{read} rows");
}

/// Rows read by looking at all of a table, so far, of those that grow with fleet and queue.
async fn rows_of_whole_tables(site: &TestSite) -> i64 {
    for session in [&site.database.api, &site.database.owner] {
        session.batch_execute("select pg_stat_force_next_flush()").await.unwrap();
    }
    let query = "select sum(seq_tup_read)::bigint from pg_stat_user_tables
        where relname in ('bmc', 'capacity', 'job', 'lease', 'ready', 'run', 'server', 'waiting')";
    site.database.owner.batch_execute("select pg_stat_clear_snapshot()").await.unwrap();
    site.database.owner.query_one(query, &[]).await.unwrap().get(0)
}

/// An executor that takes a run and dies, over and over, and one that gives it back each time: the trail and the leases
/// get slower, people see it, and can have it looked at now.
#[tokio::test]
async fn leases_without_a_step_forward_get_rare_and_leave_little() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let mut executor = site.executor("one").await;
    let servers = site.servers(1).await;
    let job = site.job("power", &servers, 1).await;
    let due = "update rackhand.ready set ready_at = now()";
    let pause = "select round(extract(epoch from ready_at - now()) / 60) from rackhand.ready";
    let phase = json!({"type": "phase", "phase": "act", "state": "running", "evidence": null});
    let back = json!({"type": "yield", "reason": "settling", "detail": "The BMC does not answer",
        "resume_after_ms": 1_800_000});
    let mut pauses = Vec::new();
    for lease in 0..20 {
        site.database.owner.batch_execute(due).await.unwrap();
        let run = granted(&site.lease(&executor, &[], 1).await).remove(0);
        site.report(&executor, vec![item(&run, 1, phase.clone())]).await;
        if lease % 2 == 0 {
            executor = site.session(&executor.id, Some(&executor.session)).await;
            site.lease(&executor, &[], 0).await;
        } else {
            site.report(&executor, vec![item(&run, 2, back.clone())]).await;
        }
        pauses.push(site.database.value(pause).await.as_f64().unwrap());
    }
    assert_eq!(pauses[..10], [0.0, 30.0, 0.0, 30.0, 2.0, 30.0, 8.0, 30.0, 32.0, 64.0]);
    assert_eq!(pauses[14..], [360.0; 6], "at most 6 hours");
    let told = "select jsonb_object_agg(kind, n) from (select kind, count(*) as n from rackhand.event
        where run_id is not null group by kind) k";
    assert_eq!(
        site.database.value(told).await,
        json!({"run.leased": 20, "run.phase": 1, "run.lease_expired": 2, "run.yielded": 2})
    );
    let shown = site.database.value("select rackhand.run_json(r) from rackhand.run r").await;
    let detail = shown["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("The BMC does not answer. The run is stuck: 20 leases in a row ended"),
        "{detail}"
    );
    let warned = "select message from rackhand.event where kind = 'run.yielded' order by id desc limit 1";
    assert!(site.database.value(warned).await.as_str().unwrap().contains("The run is stuck: 4 leases"));

    // A person has mended it.
    for action in ["pause", "resume"] {
        site.admin("job_control", json!({"id": job, "action": action, "reason": "mended"})).await;
    }
    let run = granted(&site.lease(&executor, &[], 1).await).remove(0);
    let next = json!({"type": "phase", "phase": "verify", "state": "running", "evidence": null});
    site.report(&executor, vec![item(&run, 1, phase), item(&run, 2, next)]).await;
    assert_eq!(site.database.value("select idle_leases from rackhand.run").await, 0, "a step forward");
}

/// The host of a run was restarted for it, or a request to it has no answer yet, and its executors die or give it back
/// over and over: once one lives, the host does not wait for hours.
#[tokio::test]
async fn a_run_that_owes_something_to_its_host_is_looked_at_each_quarter_of_an_hour() {
    let effect = json!({"type": "effect", "id": uuid::Uuid::now_v7(), "object": "host_power", "property": "state",
        "prior": "on", "wanted": "restarted", "state": "applied"});
    let intent =
        json!({"type": "intent", "phase": "power", "action": "reset_host", "before": {}, "deadline_ms": 1});
    for owed in [effect, intent] {
        let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
        let mut executor = site.executor("one").await;
        let servers = site.servers(1).await;
        site.job("power", &servers, 1).await;
        let state = json!({"type": "checkpoint", "phase": "apply", "state": {"progress": "40 %"}, "waiting": null,
            "percent": 40});
        let back = json!({"type": "yield", "reason": "settling", "detail": "The BMC does not answer",
            "resume_after_ms": 1_800_000});
        let mut pauses = Vec::new();
        for lease in 0..16 {
            site.database.owner.batch_execute("update rackhand.ready set ready_at = now()").await.unwrap();
            let run = granted(&site.lease(&executor, &[], 1).await).remove(0);
            let said = if lease == 0 { owed.clone() } else { state.clone() };
            let mut items = vec![item(&run, 1, said)];
            if lease % 2 == 0 {
                items.push(item(&run, 2, back.clone()));
            }
            assert!(site.report(&executor, items).await.iter().all(|answer| answer["status"] == "accepted"));
            if lease % 2 == 1 {
                executor = site.session(&executor.id, Some(&executor.session)).await;
                site.lease(&executor, &[], 0).await;
            }
            let pause = "select round(extract(epoch from ready_at - now()) / 60) from rackhand.ready";
            pauses.push(site.database.value(pause).await.as_f64().unwrap());
        }
        assert!(pauses.iter().all(|minutes| *minutes <= 15.0), "{owed}: {pauses:?}");
        assert_eq!(pauses[12..], [15.0; 4], "{owed}: stuck");
    }
}

/// What a successor is told changes under a lease: that is a step forward, also without a new phase. What was waited in
/// vain is none, nor is the same again.
#[tokio::test]
async fn a_checkpoint_that_has_changed_is_a_step_forward() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let mut executor = site.executor("one").await;
    let servers = site.servers(1).await;
    site.job("power", &servers, 1).await;
    let phase = json!({"type": "phase", "phase": "apply", "state": "running", "evidence": null});
    let checkpoint = |state: Value, percent: Option<u8>| json!({"type": "checkpoint", "phase": "apply", "state": state, "waiting": null, "percent": percent});
    let patience = |minutes: u64| json!({"action": "apply", "blind_minutes": minutes});
    for (said, idle) in [
        (vec![checkpoint(json!({"progress": "Running 20"}), Some(20))], 1),
        (vec![checkpoint(json!({"progress": "Running 20"}), Some(20))], 2),
        (vec![checkpoint(json!({"progress": "Running 20", "patience": patience(1)}), Some(20))], 3),
        (vec![checkpoint(json!({"progress": "Running 20", "patience": patience(2)}), None)], 4),
        (vec![checkpoint(json!({"progress": "Running 40"}), Some(40))], 1),
        (vec![checkpoint(json!({"progress": "Running 40"}), Some(40))], 2),
        (
            vec![
                checkpoint(json!({"progress": "Running 40"}), Some(40)),
                checkpoint(json!({"progress": "Running 40"}), Some(50)),
            ],
            1,
        ),
        (vec![checkpoint(json!({"progress": "Running 40"}), Some(40))], 2),
        (vec![checkpoint(Value::Null, None)], 1),
        (vec![checkpoint(json!({"patience": patience(1)}), None)], 2),
        (vec![checkpoint(json!("text"), None)], 1),
    ] {
        site.database.owner.batch_execute("update rackhand.ready set ready_at = now()").await.unwrap();
        let run = granted(&site.lease(&executor, &[], 1).await).remove(0);
        let said: Vec<_> = (1..)
            .zip([phase.clone()].into_iter().chain(said))
            .map(|(seq, body)| item(&run, seq, body))
            .collect();
        let last = said.last().unwrap()["body"].clone();
        assert!(site.report(&executor, said).await.iter().all(|answer| answer["status"] == "accepted"));
        executor = site.session(&executor.id, Some(&executor.session)).await;
        site.lease(&executor, &[], 0).await;
        assert_eq!(site.database.value("select idle_leases from rackhand.run").await, idle, "{last}");
    }
    // A phase, and four steps after leases without one.
    assert_eq!(site.database.value("select said from rackhand.run").await, 5, "steps are bounded, too");
}

/// A data directory on two machines: whoever goes on from it takes the runs over, and the process that still holds them
/// announces nothing more. Started again beside it, that one is not let in, and people are told once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_executors_with_one_data_directory_do_not_act_at_once() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let first = site.executor("one").await;
    let servers = site.servers(1).await;
    site.job("power", &servers, 1).await;
    let held = granted(&site.lease(&first, &[], 1).await).remove(0);
    let copy = site.session(&first.id, Some(&first.session)).await;
    let taken = granted(&site.lease(&copy, &[], 1).await).remove(0);
    assert_eq!(taken, (held.0.clone(), held.1 + 1));
    let intent =
        json!({"type": "intent", "phase": "power", "action": "reset_host", "before": {}, "deadline_ms": 1});
    let mut late = item(&held, 1, intent.clone());
    late["index"] = json!(0);
    let refused = site.database.run(&first.scope, "executor_report", json!({"items": [late]})).await;
    assert_eq!(refused.unwrap_err().code, "session-superseded");
    assert_eq!(site.report(&copy, vec![item(&taken, 1, intent)]).await[0]["status"], "accepted");
    assert_eq!(site.try_lease(&first, &[], 1).await.unwrap_err().code, "session-superseded");

    let start = async || {
        let args = json!({"executor_id": first.id, "session_id": uuid::Uuid::now_v7(), "resumes": [first.session],
            "nonce": uuid::Uuid::now_v7()});
        let anonymous = json!({"kind": "anonymous"});
        site.database.run(&anonymous, "executor_session_start", args).await.unwrap()
    };
    for _ in 0..3 {
        let refused = start().await["copied"].as_str().unwrap().to_owned();
        assert!(refused.starts_with("Executor one runs twice, or from an old copy"), "{refused}");
    }
    assert_eq!(site.lease(&copy, &[taken], 0).await["lost"], json!([]), "the other one goes on");
    let told = "select jsonb_agg(level) from rackhand.event where kind = 'executor.copied'";
    assert_eq!(site.database.value(told).await, json!(["error"]));

    // Where no other one lives, a directory that was restored from a copy may go on.
    site.database
        .owner
        .batch_execute("update rackhand.executor_session set expires_at = now()")
        .await
        .unwrap();
    assert_eq!(start().await["site_id"], json!(site.id));
}
