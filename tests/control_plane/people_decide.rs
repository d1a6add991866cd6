//! What people decide about work that is under way: pause, cancel, close, and putting an executor out.

use rackhand_tests::{
    TestSite,
    site::{TestExecutor, event, finish, granted, item},
};
use serde_json::{Value, json};

fn intent() -> Value {
    json!({"type": "intent", "phase": "stage", "action": "stage_package", "before": {}, "deadline_ms": 1})
}

fn given_back() -> Value {
    json!({"type": "yield", "reason": "busy", "detail": "later", "resume_after_ms": 0})
}

async fn control(site: &TestSite, job: &str, action: &str) -> Value {
    site.admin("job_control", json!({"id": job, "action": action, "reason": "a test"})).await
}

async fn close(site: &TestSite, run: &str) -> Result<Value, String> {
    let args = json!({"id": run, "reason": "nobody can finish it"});
    site.database.run(&site.admin, "run_close", args).await.map_err(|refused| refused.code)
}

async fn slots(site: &TestSite) -> Value {
    site.database.value("select coalesce(sum(used), 0) from rackhand.capacity").await
}

#[tokio::test]
async fn a_pause_holds_what_was_admitted_and_has_not_begun() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(4).await;
    let job = site.job("firmware_update", &servers, 4).await;
    // Four are admitted, two leased: one of them announces a change, the other is given back untouched.
    let runs = granted(&site.lease(&executor, &[], 2).await);
    site.report(&executor, vec![item(&runs[0], 1, intent()), item(&runs[0], 2, given_back())]).await;
    site.report(&executor, vec![item(&runs[1], 1, given_back())]).await;
    assert_eq!(slots(&site).await, 12);

    control(&site, &job, "pause").await;
    let held = granted(&site.lease(&executor, &[], 10).await);
    assert_eq!(held, [(runs[0].0.clone(), 2)], "only what has begun goes on");
    assert_eq!(slots(&site).await, 3, "the others gave their slots back");
    assert_eq!(granted(&site.lease(&executor, &held, 10).await), []);

    control(&site, &job, "resume").await;
    assert_eq!(granted(&site.lease(&executor, &held, 10).await).len(), 3, "nothing was lost");
    assert_eq!(slots(&site).await, 12);
}

/// Who was put out may not have heard of it: until its own clock ends the lease, nobody else is given the server.
#[tokio::test]
async fn a_run_is_not_closed_while_the_executor_that_lost_it_may_act() {
    let site = TestSite::with(json!({"lease_ttl_ms": 1500})).await;
    let (one, two) = (site.executor("one").await, site.executor("two").await);
    let servers = site.servers(1).await;
    site.job("firmware_update", &servers, 1).await;
    let runs = granted(&site.lease(&one, &[], 1).await);
    assert_eq!(site.report(&one, vec![item(&runs[0], 1, intent())]).await[0]["status"], "accepted");
    site.admin("executor_revoke", json!({"id": one.id})).await;
    assert_eq!(close(&site, &runs[0].0).await, Err("run-state".to_owned()));
    site.job("firmware_update", &servers, 1).await;
    assert_eq!(granted(&site.lease(&two, &[], 1).await), [], "its server is still in use");
    tokio::time::sleep(std::time::Duration::from_millis(1600)).await;
    close(&site, &runs[0].0).await.unwrap();
    assert_eq!(granted(&site.lease(&two, &[], 1).await).len(), 1);
}

#[tokio::test]
async fn a_failing_canary_holds_what_was_admitted_beside_it() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(3).await;
    site.job("firmware_update", &servers, 3).await;
    let brake = "update rackhand.job set policy = policy || '{\"pause_after_failures\": 1}'";
    site.database.owner.execute(brake, &[]).await.unwrap();
    let canary = granted(&site.lease(&executor, &[], 1).await);
    site.report(&executor, vec![item(&canary[0], 1, finish("failed"))]).await;
    assert_eq!(granted(&site.lease(&executor, &[], 10).await), []);
    assert_eq!(slots(&site).await, 0);
}

#[tokio::test]
async fn a_run_that_nobody_can_finish_is_closed_by_a_person() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(3).await;
    site.job("firmware_update", &servers, 3).await;
    let runs = granted(&site.lease(&executor, &[], 2).await);
    let (begun, untouched) = (&runs[0], &runs[1]);
    let effect = json!({"type": "effect", "id": "01920000-0000-7000-8000-00000000000e",
        "object": "host_power", "property": "state", "prior": "off", "wanted": "on", "state": "applied"});
    let phase = json!({"type": "phase", "phase": "stage", "state": "running", "evidence": null});
    site.report(&executor, vec![item(begun, 1, intent()), item(begun, 2, effect), item(begun, 3, phase)])
        .await;
    assert_eq!(close(&site, &begun.0).await, Err("run-state".to_owned()), "an executor works on it");

    let gone = "update rackhand.executor_session set expires_at = now()";
    site.database.owner.execute(gone, &[]).await.unwrap();
    let closed = close(&site, &begun.0).await.unwrap();
    assert_eq!((&closed["state"], &closed["reason"]), (&json!("unknown"), &json!("outcome-unknown")));
    assert!(
        closed["detail"].as_str().unwrap().contains("Closed by Ada Admin: nobody can finish it"),
        "{closed}"
    );
    assert_eq!(close(&site, &untouched.0).await.unwrap()["state"], "cancelled");
    let waiting = site.database.value("select id from rackhand.run where epoch = 0").await;
    assert_eq!(close(&site, waiting.as_str().unwrap()).await.unwrap()["state"], "cancelled");
    assert_eq!(close(&site, &begun.0).await, Err("run-state".to_owned()), "once");

    assert_eq!(slots(&site).await, 0);
    assert_eq!(site.database.value("select state from rackhand.effect").await, "conflict");
    let phase = "select jsonb_build_array(p.state, p.finished_at is not null) from rackhand.run_phase p";
    assert_eq!(site.database.value(phase).await, json!(["failed", true]));
    let told = site
        .database
        .value("select data from rackhand.event where kind = 'run.closed' order by id limit 1")
        .await;
    assert_eq!(
        (&told["intent"]["action"], &told["not_restored"][0]["prior"]),
        (&json!("stage_package"), &json!("off"))
    );
    let job = site.database.value("select to_jsonb(j) from rackhand.job j").await;
    assert_eq!(
        (&job["state"], &job["open_runs"], &job["bad_runs"]),
        (&json!("failed"), &json!(0), &json!(1))
    );
    assert_eq!(job["state_reason"], "What became of 1 of its servers is unknown");
    assert_eq!(
        site.report(&executor, vec![item(begun, 4, finish("succeeded"))]).await[0]["status"],
        "refused"
    );
    site.admin("server_delete", json!({"id": servers[0]})).await;
}

#[tokio::test]
async fn one_unknown_run_is_closed_without_its_job() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(2).await;
    let job = site.job("firmware_update", &servers, 2).await;
    let runs = granted(&site.lease(&executor, &[], 2).await);
    site.report(&executor, vec![item(&runs[0], 1, finish("unknown"))]).await;
    assert_eq!(slots(&site).await, 6);
    assert_eq!(close(&site, &runs[0].0).await.unwrap()["state"], "unknown");
    assert_eq!(slots(&site).await, 3);
    let state =
        site.database.value(&format!("select to_jsonb(j) from rackhand.job j where id = '{job}'")).await;
    assert_eq!((&state["state"], &state["bad_runs"]), (&json!("running"), &json!(1)), "counted once");
}

#[tokio::test]
async fn a_cancelled_job_says_who_cancelled_it_and_why() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(2).await;
    let job = site.job("power", &servers, 2).await;
    let runs = granted(&site.lease(&executor, &[], 2).await);
    site.report(&executor, vec![item(&runs[0], 1, finish("failed"))]).await;
    let args = json!({"id": job, "action": "cancel", "reason": "wrong window"});
    let asked = site.admin("job_control", args).await;
    assert_eq!(
        (asked["state"].as_str(), asked["cancel_requested"].as_bool(), asked["state_reason"].as_str()),
        (
            Some("running"),
            Some(true),
            Some("Cancelled by Ada Admin: wrong window. What is in progress in a BMC is not interrupted.")
        )
    );
    site.report(&executor, vec![item(&runs[1], 1, finish("cancelled"))]).await;
    let ended = site.database.value("select to_jsonb(j) from rackhand.job j").await;
    assert_eq!(ended["state"], "cancelled");
    assert_eq!(ended["state_reason"], "Cancelled by Ada Admin: wrong window. 1 of its servers failed");
}

#[tokio::test]
async fn who_never_held_a_lease_adds_nothing_to_a_run() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let (one, two) = (site.executor("one").await, site.executor("two").await);
    let servers = site.servers(1).await;
    site.job("inventory", &servers, 1).await;
    let runs = granted(&site.lease(&one, &[], 1).await);
    site.report(&one, vec![item(&runs[0], 1, finish("succeeded"))]).await;
    let late = async |executor: &TestExecutor, epoch: u64| {
        let said = item(&(runs[0].0.clone(), epoch), 7, event("afterwards"));
        site.report(executor, vec![said]).await[0].clone()
    };
    assert_eq!(late(&one, 1).await["status"], "late");
    assert_eq!(late(&two, 1).await["code"], "not-found");
    assert_eq!(late(&one, 0).await["code"], "not-found", "an epoch that nobody was given");
    site.database.owner.execute("update rackhand.executor set state = 'joining'", &[]).await.unwrap();
    let joining = site.database.run(&two.scope, "executor_report", json!({"items": []})).await.unwrap_err();
    assert_eq!(joining.code, "executor-joining");
}

#[tokio::test]
async fn a_revoked_executor_ends_at_once_and_its_runs_when_its_own_clock_has_ended_them() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let (one, two) = (site.executor("one").await, site.executor("two").await);
    let servers = site.servers(1).await;
    site.job("power", &servers, 1).await;
    let runs = granted(&site.lease(&one, &[], 1).await);
    site.admin("executor_revoke", json!({"id": one.id})).await;
    assert_eq!(site.try_lease(&one, &runs, 0).await.unwrap_err().code, "executor-revoked");
    assert_eq!(site.database.value("select count(*) from rackhand.lease").await, 0);
    assert_eq!(granted(&site.lease(&two, &[], 1).await), [], "the other may still act on it");
    site.database.owner.execute("update rackhand.ready set ready_at = now()", &[]).await.unwrap();
    assert_eq!(granted(&site.lease(&two, &[], 1).await), [(runs[0].0.clone(), 2)]);
}

#[tokio::test]
async fn a_stranger_cannot_lock_a_job_that_they_may_not_control() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let servers = site.servers(1).await;
    let job = site.plan("power", &servers, 1).await;
    let config = json!({"lease_ttl_ms": 60_000, "max_mutating_runs": 1, "hardware_paused": false,
        "second_person": false});
    let other = site.admin("site_create", json!({"name": "other", "config": config})).await;
    let stranger =
        rackhand_tests::site::person(&site.database, "Sam Stranger", "operator", other["id"].as_str()).await;
    // Somebody holds the rows: who is refused without touching them is answered at once.
    let holder = site.database.connect_owner().await;
    holder
        .batch_execute("begin; select from rackhand.job for update; select from rackhand.server for update")
        .await
        .unwrap();
    let impatient = site.database.connect().await;
    impatient.batch_execute("set lock_timeout = '200ms'").await.unwrap();
    for (function, args) in [
        ("job_control", json!({"id": job, "action": "pause", "reason": "a test"})),
        ("job_approve", json!({"id": job, "digest": "d"})),
        ("server_delete", json!({"id": servers[0]})),
    ] {
        let refused = rackhand_tests::database::run(&impatient, &stranger, function, args).await.unwrap_err();
        assert_eq!(refused.code, "not-found", "{function}");
    }
}

/// A later version may count other slots: what runs already hold is what they give back.
#[tokio::test]
async fn a_run_gives_back_the_slots_that_it_took() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(3).await;
    site.job("firmware_update", &servers, 3).await;
    let runs = granted(&site.lease(&executor, &[], 3).await);
    let upgrade =
        "create or replace function rackhand.slot_keys(mutating boolean, job uuid, server uuid, site uuid)
        returns text[] language sql immutable as $$ select array['job:' || job, 'cluster:' || site] $$";
    site.database.owner.batch_execute(upgrade).await.unwrap();
    let answers = site.report(
        &executor,
        vec![
            item(&runs[0], 1, finish("succeeded")),
            item(&runs[1], 1, finish("unknown")),
            item(&runs[2], 1, given_back()),
        ],
    );
    assert!(answers.await.iter().all(|answer| answer["status"] == "accepted"));
    close(&site, &runs[1].0).await.unwrap();
    close(&site, &runs[2].0).await.unwrap();
    assert_eq!(slots(&site).await, 0);
}

#[tokio::test]
async fn a_queued_run_says_that_nobody_is_there_to_take_it() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(1).await;
    site.job("inventory", &servers, 1).await;
    let run = "(select rackhand.run_json(r) ->> 'reason' from rackhand.run r)";
    assert_eq!(site.database.value(run).await, "no_executor");
    let mut last = rackhand_tests::site::lease_args(&[], 0);
    site.lease(&executor, &[], 0).await;
    assert_eq!(site.database.value(run).await, "");
    // It stops, and says so.
    last["leaving"] = json!(true);
    site.database.run(&executor.scope, "executor_lease", last).await.unwrap();
    assert_eq!(site.database.value(run).await, "no_executor");
}

#[tokio::test]
async fn a_queued_run_says_what_it_waits_for() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000, "max_mutating_runs": 2})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(4).await;
    site.job("firmware_update", &servers[..2], 1).await;
    let first = granted(&site.lease(&executor, &[], 1).await);
    site.job("power", &servers[..1], 3).await;
    let told = "(select string_agg(coalesce(rackhand.run_json(r) ->> 'detail', ''), '|' order by r.created_at, r.position)
        from rackhand.run r where r.finished_at is null)";
    let busy = "Another job (firmware update) is changing this server. This run begins automatically when that one has \
                ended.";
    let turn = "Waits for its turn: at most 1 server of this job at once.";
    assert_eq!(site.database.value(told).await, format!("|{turn}|{busy}"));
    site.report(&executor, vec![item(&first[0], 1, finish("unknown"))]).await;
    site.lease(&executor, &[], 0).await;
    let unknown =
        "A run whose outcome is unknown still holds this server: look at the server, then close that run.";
    assert_eq!(site.database.value(told).await, format!("{turn}|{unknown}"));
    site.job("power", &servers[2..3], 3).await;
    assert_eq!(granted(&site.lease(&executor, &[], 3).await).len(), 1);
    site.job("power", &servers[3..], 3).await;
    let full = "Waits for its turn: at most 2 servers of this site are changed at once.";
    assert_eq!(site.database.value(told).await, format!("{turn}|{unknown}||{full}"));
}

#[tokio::test]
async fn a_queued_run_says_who_has_paused_the_site() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000, "hardware_paused": false})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(3).await;
    let configure = async |paused: bool| {
        let config = json!({"lease_ttl_ms": 60_000, "max_mutating_runs": 1, "hardware_paused": paused,
            "second_person": false});
        site.admin("site_update", json!({"id": site.id, "config": config})).await
    };
    site.job("firmware_update", &servers[..2], 1).await;
    assert_eq!(granted(&site.lease(&executor, &[], 1).await).len(), 1);
    let changed = configure(true).await;
    let since = changed["paused_at"].as_str().unwrap().to_owned();
    site.job("inventory", &servers[2..], 1).await;
    let told = "(select string_agg(coalesce(rackhand.run_json(r) ->> 'reason', ''), ',' order by r.created_at, r.position)
        from rackhand.run r)";
    assert_eq!(site.database.value(told).await, ",hardware_paused,", "one is taken up, one reads only");
    let why =
        "(select rackhand.run_json(r) ->> 'detail' from rackhand.run r where r.mutating and r.epoch = 0)";
    let why = site.database.value(why).await.as_str().unwrap().to_owned();
    let who = changed["paused_by_name"].as_str().unwrap();
    assert!(why.contains(&format!("are paused by {who} since {} at ", &since[..10])), "{why}");
    let again = configure(true).await;
    assert_eq!(again["paused_at"], since.as_str(), "it was paused all the time");
    let resumed = configure(false).await;
    assert!(resumed["paused_by_name"].is_null() && resumed["paused_at"].is_null());
    assert_eq!(site.database.value(told).await, ",in_turn,");
}

#[tokio::test]
async fn a_job_without_a_plan_says_what_blocks_its_servers() {
    let site = TestSite::new().await;
    let servers = site.servers(1).await;
    let targets: Vec<Value> = (1..=7)
        .map(|n| json!({"server_id": servers[0], "server": format!("bmc-{n}"), "blockers": ["No credential is set."]}))
        .collect();
    let args = json!({"site_id": site.id, "kind": "inventory", "params": {}, "mutating": false, "policy": {},
        "reason": "a test", "plan": {"targets": targets, "digest": "0".repeat(64), "estimated_minutes": 0}});
    let refused = site.database.run(&site.admin, "job_create", args).await.unwrap_err();
    assert_eq!(refused.code, "plan-empty");
    let said = refused.detail;
    assert!(said.contains("bmc-1: No credential is set. bmc-2: ") && said.ends_with("And 2 more."), "{said}");
    assert!(!said.contains("plan"), "there is none: {said}");
}

#[tokio::test]
async fn an_answer_that_was_lost_may_be_asked_for_again() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let set = |version: u32, sealed: &str| json!({"site_id": site.id, "name": "bmc", "version": version, "sealed": sealed});
    let first = site.admin("credential_put", set(2, "dHdv")).await;
    assert_eq!(site.admin("credential_put", set(2, "dHdv")).await, first);
    let other = site.database.run(&site.admin, "credential_put", set(2, "b3RoZXI=")).await.unwrap_err();
    assert_eq!(other.code, "credential-version");
    let kept = site.database.value("select count(*) from rackhand.event where kind = 'credential.set'").await;
    assert_eq!(kept, 2, "two versions, not three");

    // The job of the first answer comes back, though one of its targets is gone.
    let servers = site.servers(1).await;
    let once = json!({"key": "k", "request_hash": "h"});
    let job = site
        .admin(
            "job_create",
            json!({"site_id": site.id, "kind": "power", "params": {}, "mutating": true,
            "policy": {}, "reason": "a test", "plan": {"digest": "d", "targets": [], "estimated_minutes": 1},
            "idempotency": once}),
        )
        .await;
    site.admin("server_delete", json!({"id": servers[0]})).await;
    let again = json!({"site_id": site.id, "targets": servers, "idempotency": once});
    assert_eq!(site.admin("job_context", again).await["replayed"]["id"], job["id"]);
}

#[tokio::test]
async fn an_executor_that_holds_thousands_is_answered_in_time() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let many: Vec<_> = (0..10_000).map(|_| (uuid::Uuid::now_v7().to_string(), 1)).collect();
    let leases = format!(
        "insert into rackhand.lease (run_id, site_id, session_id, executor_id, epoch)
            select gen_random_uuid(), '{}', '{}', '{}', 1 from generate_series(1, 10000)",
        site.id, executor.session, executor.id
    );
    site.database.owner.batch_execute(&leases).await.unwrap();
    // As two nested loops over both this took minutes.
    let impatient = site.database.connect().await;
    impatient.batch_execute("set statement_timeout = '10s'").await.unwrap();
    let asked = rackhand_tests::site::lease_args(&many, 0);
    let answer =
        rackhand_tests::database::run(&impatient, &executor.scope, "executor_lease", asked).await.unwrap();
    assert_eq!(answer["lost"].as_array().unwrap().len(), 10_000);
}

/// An executor that was taken over has begun something and gives the run back for 30,000 years.
#[tokio::test]
async fn a_run_is_given_back_for_hours_at_most_and_offered_at_once_when_people_decide() {
    for action in ["cancel", "resume"] {
        let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
        let hostile = site.executor("one").await;
        let servers = site.servers(1).await;
        let job = site.job("power", &servers, 1).await;
        let run = granted(&site.lease(&hostile, &[], 1).await).remove(0);
        let effect = json!({"type": "effect", "id": "01920000-0000-7000-8000-00000000000e", "object": "host_power",
            "property": "state", "prior": "off", "wanted": "on", "state": "applied"});
        let mut later = given_back();
        later["resume_after_ms"] = json!(1_000_000_000_000_000_000_u64);
        let answers = site.report(&hostile, vec![item(&run, 1, effect), item(&run, 2, later)]).await;
        assert!(answers.iter().all(|answer| answer["status"] == "accepted"), "{answers:?}");
        let soon = "select to_jsonb(d.ready_at <= now() + interval '6 hours') from rackhand.ready d";
        assert_eq!(site.database.value(soon).await, json!(true));
        site.admin("executor_revoke", json!({"id": hostile.id})).await;
        let honest = site.executor("two").await;
        assert!(granted(&site.lease(&honest, &[], 1).await).is_empty(), "it waits");
        if action == "resume" {
            control(&site, &job, "pause").await;
        }
        control(&site, &job, action).await;
        assert_eq!(granted(&site.lease(&honest, &[], 1).await).len(), 1, "{action}");
    }
}
