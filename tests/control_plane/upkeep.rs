//! Scheduled work over a real Postgres: leases of the dead, expired rows, partitions, eras, and what was
//! refused.

use std::time::Duration;

use rackhand_tests::{
    TestServer, TestSite,
    server::TICK_TOKEN,
    server::client,
    site::{granted, person},
};
use serde_json::{Value, json};

pub async fn tick(server: &TestServer) -> Value {
    let answer = server.call("POST", "/v1/tick", Some(TICK_TOKEN), None).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

/// Seals all that was committed so far, each tree with one checkpoint. Transactions of other tests' databases hold new
/// events back for a moment, and a tick in that moment would seal a part of them.
pub async fn sealed(site: &TestSite, server: &TestServer) {
    site.database.shown().await;
    let done = tick(server).await;
    assert_ne!(done["sealed"], 0, "{done}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_executors_lease_ends_though_nobody_polls() {
    let site = TestSite::with(json!({"lease_ttl_ms": 300})).await;
    let server = TestServer::start(&site).await;
    let executor = site.executor("one").await;
    let servers = site.servers(1).await;
    site.job("inventory", &servers, 10).await;
    assert_eq!(granted(&site.lease(&executor, &[], 5).await).len(), 1);
    assert_eq!(tick(&server).await["expired"], 0, "it lives");
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(tick(&server).await["expired"], 1);
    assert_eq!(tick(&server).await["expired"], 0, "once");
    let state = site.database.value("select state || ' ' || reason from rackhand.run").await;
    assert_eq!(state, "queued lease_expired");
}

/// A successor of an open intent sends nothing before it is resolved: how long the device has had since then does not
/// begin anew when it dies, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_intent_is_as_old_as_the_lease_it_was_announced_under() {
    let site = TestSite::with(json!({"lease_ttl_ms": 400})).await;
    let executors = [site.executor("one").await, site.executor("two").await];
    let servers = site.servers(1).await;
    site.job("power", &servers, 1).await;
    let mut run = granted(&site.lease(&executors[0], &[], 1).await).remove(0);
    let item =
        |run: &(String, u64), body: Value| json!({"run_id": run.0, "epoch": run.1, "seq": 1, "body": body});
    let intent = json!({"type": "intent", "phase": "stage", "action": "stage_package", "before": {}, "deadline_ms": 1});
    let mut answer = site.report(&executors[0], vec![item(&run, intent)]).await;
    assert_eq!(answer.remove(0)["status"], "accepted");
    let mut ages = Vec::new();
    let take_over = async |executor: usize| loop {
        let lease = site.lease(&executors[executor], &[], 1).await;
        let age = lease["grants"][0]["predecessor_ended_ms"].as_u64();
        if let Some(age) = age {
            return (granted(&lease).remove(0), age);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    for executor in [1, 0, 1] {
        let (taken, age) = take_over(executor).await;
        ages.push(age);
        run = taken;
    }
    assert!(ages.windows(2).all(|pair| pair[1] >= pair[0] + 300), "{ages:?}");
    // Resolved, it counts no more.
    let resolved = json!({"type": "intent_resolved", "resolution": "applied", "evidence": {}});
    let mut answer = site.report(&executors[1], vec![item(&run, resolved)]).await;
    assert_eq!(answer.remove(0)["status"], "accepted");
    let (_, age) = take_over(0).await;
    assert!(age < ages[2], "{age} {ages:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_are_admitted_though_nobody_polls() {
    let site = TestSite::new().await;
    let server = TestServer::start(&site).await;
    let servers = site.servers(3).await;
    site.job("inventory", &servers, 10).await;
    assert_eq!(tick(&server).await["admitted"], 3);
    assert_eq!(site.database.value("select count(*) from rackhand.ready").await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_expired_is_deleted_and_nothing_else() {
    let site = TestSite::new().await;
    let server = TestServer::start(&site).await;
    site.executor("one").await;
    tick(&server).await;
    let old = "insert into rackhand.login_limit values ('old', 1, now() - interval '1 second'),
            ('new', 1, now() + interval '1 minute');
        insert into rackhand.executor_nonce select 'old', id, now() - interval '1 second' from rackhand.executor;
        insert into rackhand.executor_nonce select 'new', id, now() + interval '1 minute' from rackhand.executor;
        insert into rackhand.user_session (user_id, family, expires_at)
            select id, uuid_send(gen_random_uuid()), now() - interval '31 days' from rackhand.users";
    site.database.owner.batch_execute(old).await.unwrap();
    let sessions = site.database.value("select count(*) from rackhand.user_session").await.as_i64().unwrap();
    assert_eq!(tick(&server).await["pruned"], 3);
    assert_eq!(
        site.database
            .value("select string_agg(key, ' ') from rackhand.login_limit where length(key) = 3")
            .await,
        "new"
    );
    assert_eq!(
        site.database
            .value("select string_agg(nonce, ' ') from rackhand.executor_nonce where length(nonce) = 3")
            .await,
        "new"
    );
    assert_eq!(site.database.value("select count(*) from rackhand.user_session").await, sessions - 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_with_a_start_time_waits_for_it() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let server = TestServer::start(&site).await;
    let executor = site.executor("one").await;
    let servers = site.servers(1).await;
    let token = server.token(&site.admin);
    let create = async |start_after: &Value| {
        let job = json!({"site_id": site.id, "kind": "inventory", "params": {}, "targets": servers,
            "reason": "a test", "policy": {"start_after": start_after}});
        server.call("POST", "/v1/jobs", Some(&token), Some(&job)).await
    };
    let refused = create(&json!("tomorrow")).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (422, "invalid-request"), "{refused:?}");

    let start =
        "select to_char((now() + interval '3 seconds') at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')";
    let start = site.database.value(start).await;
    assert_eq!(create(&start).await.status, 201);
    let due = format!("select now() >= '{}'", start.as_str().unwrap());
    let early = site.lease(&executor, &[], 5).await;
    assert_eq!(
        (granted(&early).len(), site.database.value(&due).await),
        (0, json!(false)),
        "before its time"
    );
    assert!(early["wake_in_ms"].as_u64().unwrap() <= 3000, "{early}: the executor looks again in time");
    assert_eq!(tick(&server).await["admitted"], 0);
    while site.database.value(&due).await == json!(false) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(tick(&server).await["admitted"], 1, "and nobody had to poll");
    assert_eq!(granted(&site.lease(&executor, &[], 5).await).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_refused_is_in_the_audit_with_who_and_how_often() {
    let site = TestSite::new().await;
    let server = TestServer::start(&site).await;
    let viewer = person(&site.database, "Vera Viewer", "viewer", Some(&site.id)).await;
    let token = server.token(&viewer);
    for _ in 0..5 {
        assert_eq!(server.call("GET", "/v1/users", Some(&token), None).await.status, 403);
    }
    // Who shows nothing does not try to get in: our own page asks so first.
    let nothing = [("GET", "/v1/sites", None), ("POST", "/v1/auth/refresh", Some(&json!({})))];
    for (method, path, body) in nothing {
        assert_eq!(server.call(method, path, None, body).await.code(), "not-signed-in");
    }
    // What is shown and wrong counts, wherever it stands.
    let shown = [("authorization", "Basic cm9vdDpyb290"), ("cookie", "__Host-rackhand_access=x.y.z")];
    for header in shown {
        let url = format!("{}/v1/auth/me", server.running.url);
        let refused = client().get(url).header(header.0, header.1).send().await.unwrap();
        assert_eq!(refused.status(), 401);
    }
    assert_eq!(server.call("POST", "/v1/tick", Some("a wrong token"), None).await.status, 401);
    let enrolment = json!({"token": "no such token", "name": "x", "signing_key": "00".repeat(32),
        "sealing_key": "00".repeat(32)});
    let refused = server.call("POST", "/v1/executor/enrol", None, Some(&enrolment)).await;
    assert!(matches!(refused.code(), "enrolment-refused" | "invalid-request"), "{refused:?}");
    // Their minute is over, as far as the database knows; the rest of the count comes with the tick.
    let over = "update rackhand.refusal set minute = minute - interval '1 minute'";
    site.database.owner.batch_execute(over).await.unwrap();
    tick(&server).await;
    site.database.owner.batch_execute(over).await.unwrap();
    tick(&server).await;
    let told = site
        .database
        .value(
            "select jsonb_object_agg(data ->> 'code' || ' ' || (data ->> 'path'), total) from (
                select jsonb_build_object('code', data ->> 'code', 'path', data ->> 'path') as data,
                    jsonb_build_array(sum((data ->> 'count')::int), min(actor_kind), min(actor_id::text),
                        min(actor_session::text), min(e.data ->> 'address')) as total
                from rackhand.event e where kind = 'request.refused' group by 1) e",
        )
        .await;
    assert_eq!(
        told["forbidden-role /v1/users"],
        json!([5, "user", viewer["user"], viewer["session"], "127.0.0.1"]),
        "{told}"
    );
    assert_eq!(told["not-signed-in /v1/auth/me"], json!([2, "anonymous", null, null, "127.0.0.1"]), "{told}");
    assert_eq!(told["not-signed-in /v1/tick"], json!([1, "anonymous", null, null, "127.0.0.1"]), "{told}");
    assert_eq!(told.as_object().unwrap().keys().filter(|key| key.starts_with("not-")).count(), 2, "{told}");
    let minutes = "select bool_and(e.message like format('%% between %s and %s UTC',
            to_char(m.minute, 'HH24:MI'), to_char(m.minute + interval '1 minute', 'HH24:MI')))
        from rackhand.event e, lateral (select (e.data ->> 'minute')::timestamptz at time zone 'UTC' as minute) m
        where e.kind = 'request.refused'";
    assert_eq!(site.database.value(minutes).await, true, "they are written later, and say when they came");
    site.database.shown().await;
    let seen = async |who: &Value| {
        let page = site.database.run(who, "events_after", json!({"limit": 1000})).await.unwrap();
        page["items"].as_array().unwrap().iter().filter(|item| item["site_id"] == json!(null)).count()
    };
    let fleet_viewer = person(&site.database, "Fay Fleet", "viewer", None).await;
    for (who, sees) in [(&viewer, false), (&fleet_viewer, false), (&site.admin, true)] {
        assert_eq!(seen(who).await > 0, sees, "what belongs to no site is for admins of the fleet: {who}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn months_of_lines_are_dropped_when_sealed_and_the_trail_says_so() {
    let site = TestSite::new().await;
    let server = TestServer::start(&site).await;
    let owner = &site.database.owner;
    owner
        .batch_execute(
            "set role rackhand_owner;
             select rackhand.partitions_ahead('2020-01-15');
             insert into rackhand.event (tree, at, kind, level, message, actor_kind, data, stream, n)
                 select 'lines', '2020-01-20', 'run.log', 'info', 'old', 'system', '{}', id, 1 from rackhand.site;
             insert into rackhand.event (tree, at, kind, level, message, actor_kind, data, stream, n)
                 select 'lines', '2020-07-20', 'run.log', 'info', 'nowhere', 'system', '{}', id, 2 from rackhand.site;
             select rackhand.partitions_ahead('2020-07-01');
             reset role",
        )
        .await
        .unwrap();
    let partition =
        "select jsonb_object_agg(message, tableoid::regclass::text) from rackhand.event where tree = 'lines'";
    assert_eq!(
        site.database.value(partition).await,
        json!({"old": "rackhand.event_lines_2020_01", "nowhere": "rackhand.event_lines_2020_07"}),
        "what came before its partition was moved there"
    );
    let checkpoints = "select count(*) from rackhand.checkpoint where tree = 'lines'";
    let anonymous = json!({"kind": "anonymous"});
    let early = site.database.run(&anonymous, "upkeep_partitions", json!({})).await.unwrap();
    assert_ne!(early["dropped"], 0, "empty months need no seal");
    assert_eq!(
        site.database.value(partition).await.as_object().unwrap().len(),
        2,
        "the others are not sealed"
    );
    while site.database.value(checkpoints).await == 0 {
        tick(&server).await;
    }
    // Somebody else's checkpoint may not have been refused yet.
    tick(&server).await;
    assert_ne!(site.database.value(partition).await, json!(null), "sealed less than a day ago");
    let old = "update rackhand.checkpoint set at = now() - interval '25 hours' where tree = 'lines'";
    owner.batch_execute(old).await.unwrap();
    for unverified in [json!({}), json!({"verified": 0})] {
        let done = site.database.run(&anonymous, "upkeep_partitions", unverified).await.unwrap();
        assert_eq!(done["dropped"], 0, "no key of the host has signed it");
    }
    while site.database.value(partition).await != json!(null) {
        tick(&server).await;
    }
    let said = "select jsonb_agg(jsonb_build_array(data ->> 'partition', data -> 'records', data -> 'size') order by id)
        from rackhand.event where kind = 'trail.lines_dropped' and (data ->> 'records')::int > 0";
    assert_eq!(
        site.database.value(said).await,
        json!([["event_lines_2020_01", 1, 2], ["event_lines_2020_07", 1, 2]])
    );
    assert_ne!(site.database.value(checkpoints).await, 0, "heads stay");
    let made = "select count(*) > 0 from pg_class where relname = 'event_lines_' || to_char(now() + interval '2 months', 'YYYY_MM')";
    assert_eq!(site.database.value(made).await, true, "partitions are made ahead");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restore_into_a_younger_cluster_history_cursors_and_sealing_go_on() {
    let site = TestSite::new().await;
    let server = TestServer::start(&site).await;
    let ask = async |after: &Value| {
        site.database.run(&site.admin, "events_after", json!({"after": after, "limit": 1000})).await.unwrap()
    };
    let append = |message: &str| {
        format!(
            "select rackhand.append_event('test', 'info', '{message}', jsonb_build_object('site', '{}'))",
            site.id
        )
    };
    let words = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap().iter();
        let tests = items.filter(|item| item["kind"] == "test");
        tests.map(|item| item["message"].as_str().unwrap().to_owned()).collect()
    };
    site.database.owner.batch_execute(&append("before")).await.unwrap();
    sealed(&site, &server).await;
    // A dump from a cluster that had come much further.
    let restored = "update rackhand.event set xid = ((xid::text)::bigint + 1000000000)::text::xid8;
        update rackhand.checkpoint set xid = ((xid::text)::bigint + 1000000000)::text::xid8;
        update rackhand.trail set floor = ((floor::text)::bigint + 1000000000)::text::xid8";
    site.database.owner.batch_execute(restored).await.unwrap();
    let last = site
        .database
        .value("select era || '.' || xid || '.' || id from rackhand.event order by era desc, xid desc, id desc limit 1")
        .await;
    assert_eq!(words(&ask(&json!("")).await), [""; 0], "nothing is shown while it may be wrong");

    site.database.owner.batch_execute(&append("after")).await.unwrap();
    let mut page = ask(&json!("")).await;
    while words(&page).len() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        page = ask(&json!("")).await;
    }
    assert_eq!(words(&page), ["before", "after"], "history is shown, in order");
    assert_eq!(words(&ask(&last).await), ["after"], "an old cursor goes on");
    assert_eq!(site.database.value("select era from rackhand.trail").await, 2);
    let unsealed = "select (select count(*) from rackhand.event where tree = 'audit')
        - (select max(size) from rackhand.checkpoint where tree = 'audit')";
    while site.database.value(unsealed).await != 0 {
        tick(&server).await;
    }
    assert_eq!(site.database.value("select era from rackhand.trail").await, 2, "once");
}

/// A restore to a moment, or a standby that was behind and took over: the marks of the trail are set back
/// with all else, only the timeline of the write-ahead log has changed.
#[tokio::test]
async fn after_a_restore_to_a_moment_readers_miss_nothing_and_no_run_is_handed_out_for_a_while() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(1).await;
    site.job("power", &servers, 1).await;
    let seen = site
        .database
        .value("select to_jsonb('1.' || (pg_snapshot_xmax(pg_current_snapshot())::text::bigint + 1000000) || '.9')")
        .await;
    site.database.owner.batch_execute("update rackhand.trail set timeline = timeline - 1").await.unwrap();
    let append = format!(
        "select rackhand.append_event('test', 'info', 'after', jsonb_build_object('site', '{}'))",
        site.id
    );
    site.database.owner.batch_execute(&append).await.unwrap();
    site.database.shown().await;
    let page = site.admin("events_after", json!({"after": seen, "limit": 100})).await;
    let kinds: Vec<_> = page["items"].as_array().unwrap().iter().map(|item| item["kind"].clone()).collect();
    assert_eq!(kinds, ["trail.era", "test"], "the first that is written begins the era");

    let answer = site.lease(&executor, &[], 1).await;
    assert_eq!(granted(&answer), []);
    let wake = answer["wake_in_ms"].as_u64().unwrap();
    assert!((650_000..=720_000).contains(&wake), "the lease, an upload and its settling: {wake}");
    let over = "update rackhand.trail set held_until = clock_timestamp()";
    site.database.owner.batch_execute(over).await.unwrap();
    assert_eq!(granted(&site.lease(&executor, &[], 1).await).len(), 1);
    site.database.run(&json!({"kind": "anonymous"}), "upkeep_begin", json!({})).await.unwrap();
    assert_eq!(site.database.value("select era from rackhand.trail").await, 2, "once");
}

/// A site whose settings cannot be read: what is due in others is done, and the tick says that not all was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_does_not_work_holds_up_no_other() {
    let mut site = TestSite::new().await;
    let server = TestServer::start(&site).await;
    let servers = site.servers(1).await;
    site.job("inventory", &servers, 10).await;
    let broken = "update rackhand.site set config = config || jsonb_build_object('max_mutating_runs', 'x')";
    site.database.owner.batch_execute(broken).await.unwrap();
    let config = json!({"lease_ttl_ms": 5_000, "max_mutating_runs": 16, "hardware_paused": false,
        "second_person": false});
    let other = site.admin("site_create", json!({"name": "other", "config": config})).await;
    other["id"].as_str().unwrap().clone_into(&mut site.id);
    let sealed = json!({"site_id": site.id, "name": "bmc", "version": 1, "sealed": "c2VhbGVk"});
    let credential = site.admin("credential_put", sealed).await;
    credential["id"].as_str().unwrap().clone_into(&mut site.credential);
    let servers = site.servers(1).await;
    site.job("inventory", &servers, 10).await;
    let answer = server.call("POST", "/v1/tick", Some(TICK_TOKEN), None).await;
    assert_eq!(answer.status, 500, "{answer:?}");
    let ready = "select jsonb_agg(site_id) from rackhand.ready";
    assert_eq!(site.database.value(ready).await, json!([site.id]));
}

/// A minute of refusals, from more addresses than are kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_do_not_fill_what_is_kept_for_good() {
    let site = TestSite::new().await;
    let server = TestServer::start(&site).await;
    let item = |kind: &str, id: &Value, address: String| {
        json!({"minute": 60, "code": "not-signed-in", "kind": kind, "id": id, "session": id, "path": "/v1/me",
            "address": address, "count": 2})
    };
    let mut all = vec![item("user", &site.admin["user"], "192.0.2.1".to_owned())];
    all.extend((0..1500).map(|n| item("anonymous", &json!(null), format!("10.0.{}.{}", n / 250, n % 250))));
    let anonymous = json!({"kind": "anonymous"});
    for items in [&all[..900], &all[900..]] {
        site.database.run(&anonymous, "refusals_add", json!({"items": items})).await.unwrap();
    }
    for _ in 0..2 {
        tick(&server).await;
    }
    let told = "select jsonb_object_agg(tree, jsonb_build_array(n, count)) from (
        select tree, count(*) as n, sum((data ->> 'count')::int) as count
        from rackhand.event where kind = 'request.refused' group by tree) t";
    assert_eq!(site.database.value(told).await, json!({"audit": [1, 2], "lines": [1001, 3000]}));
}
