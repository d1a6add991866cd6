//! Capacity and the rule of one mutating run for each server, under concurrent executors.

use std::{collections::BTreeSet, time::Duration};

use rackhand_tests::{
    TestSite,
    database::run,
    site::{finish, granted, item, lease_args},
};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_two_executors_leasing_at_once_never_exceed_a_capacity() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000, "max_mutating_runs": 7})).await;
    let servers = site.servers(60).await;
    let job = site.job("power", &servers, 5).await;
    let other = site.job("firmware_update", &servers, 4).await;
    let mut executors = vec![];
    for index in 0..32 {
        let executor = site.executor(&format!("executor-{index}")).await;
        executors.push((executor, site.database.connect().await));
    }
    let tasks: Vec<_> = executors
        .into_iter()
        .map(|(executor, client)| {
            tokio::spawn(async move {
                let mut done = 0;
                for _ in 0..40 {
                    let answer =
                        run(&client, &executor.scope, "executor_lease", lease_args(&[], 3)).await.unwrap();
                    for run_key in granted(&answer) {
                        tokio::time::sleep(Duration::from_millis(3)).await;
                        let mut ended = item(&run_key, 1, finish("succeeded"));
                        ended["index"] = json!(0);
                        let report = json!({"items": [ended]});
                        let answer = run(&client, &executor.scope, "executor_report", report).await.unwrap();
                        assert_eq!(answer["results"][0]["status"], "accepted");
                        done += 1;
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                done
            })
        })
        .collect();
    // Meanwhile every snapshot of the leases keeps every limit.
    let mut seen_busy = 0;
    while tasks.iter().any(|task| !task.is_finished()) {
        let row = site
            .database
            .owner
            .query_one(
                "select count(*), count(*) filter (where r.job_id::text = $1), count(*) filter (where r.job_id::text = $2),
                    count(*) - count(distinct r.server_id)
                 from rackhand.lease l join rackhand.run r on r.id = l.run_id",
                &[&job, &other],
            )
            .await
            .unwrap();
        let (all, first, second, doubled): (i64, i64, i64, i64) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        assert!(all <= 7 && first <= 5 && second <= 4, "{all} leased: {first} and {second}");
        assert_eq!(doubled, 0, "two mutating runs on one server");
        seen_busy = seen_busy.max(all);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut done = 0;
    for task in tasks {
        done += task.await.unwrap();
    }
    assert!(seen_busy >= 5, "the test saw real concurrency: {seen_busy}");
    // Whatever is left is done by one executor, so that nothing was lost on the way.
    let last = site.executor("last").await;
    site.database
        .owner
        .execute("update rackhand.executor_session set expires_at = now()", &[])
        .await
        .unwrap();
    for _ in 0..200 {
        for run_key in granted(&site.lease(&last, &[], 10).await) {
            site.report(&last, vec![item(&run_key, 1, finish("succeeded"))]).await;
            done += 1;
        }
    }
    assert_eq!(done, 120);
    assert_eq!(site.database.value("select coalesce(sum(used), 0) from rackhand.capacity").await, 0);
    let states = site.database.value("select array_agg(distinct state) from rackhand.job").await;
    assert_eq!(states, json!(["succeeded"]));
}

#[tokio::test]
async fn two_jobs_never_mutate_one_server_together_but_reading_goes_on() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(1).await;
    let (power, firmware) =
        (site.job("power", &servers, 5).await, site.job("firmware_update", &servers, 5).await);
    let reading = site.job("inventory", &servers, 5).await;
    let answer = site.lease(&executor, &[], 10).await;
    let jobs: BTreeSet<_> =
        answer["grants"].as_array().unwrap().iter().map(|grant| grant["job_id"].as_str().unwrap()).collect();
    assert_eq!(jobs, BTreeSet::from([power.as_str(), reading.as_str()]));
    for run_key in granted(&answer) {
        site.report(&executor, vec![item(&run_key, 1, finish("succeeded"))]).await;
    }
    let next = site.lease(&executor, &[], 10).await;
    assert_eq!(next["grants"][0]["job_id"], firmware);
}

#[tokio::test]
async fn pausing_hardware_stops_new_mutating_runs_only() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000, "hardware_paused": true})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(2).await;
    site.job("power", &servers[..1], 5).await;
    site.job("inventory", &servers[1..], 5).await;
    let answer = site.lease(&executor, &[], 10).await;
    assert_eq!(answer["hardware_paused"], true);
    assert_eq!(answer["grants"].as_array().unwrap().len(), 1);
    assert_eq!(answer["grants"][0]["spec"]["kind"], "inventory");
}

#[tokio::test]
async fn a_job_pauses_itself_after_so_many_failures_and_retries_only_those() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(4).await;
    let job = site.job("power", &servers, 2).await;
    site.database
        .owner
        .execute("update rackhand.job set policy = policy || '{\"pause_after_failures\": 1}'", &[])
        .await
        .unwrap();
    let runs = granted(&site.lease(&executor, &[], 10).await);
    site.report(&executor, vec![item(&runs[0], 1, finish("failed"))]).await;
    assert_eq!(site.database.value("select state from rackhand.job").await, "paused");
    assert_eq!(granted(&site.lease(&executor, &runs[1..], 10).await), vec![], "no new run starts");
    let told = "(select string_agg(distinct concat_ws(': ', rackhand.run_json(r) ->> 'reason', \
        rackhand.run_json(r) ->> 'detail'), '|') from rackhand.run r where r.state = 'queued')";
    assert_eq!(
        site.database.value(told).await,
        "job_paused: Paused automatically after 1 failure. This run begins once the job is resumed."
    );
    site.report(&executor, vec![item(&runs[1], 1, finish("succeeded"))]).await;
    let resumed = site.admin("job_control", json!({"id": job, "action": "resume", "reason": "seen"})).await;
    assert_eq!(resumed["policy"]["pause_after_failures"], 1, "the policy is what was approved");
    let told = site.database.value("select data from rackhand.event where kind = 'job.resume'").await;
    assert_eq!(told["seen_at_resume"], json!({"before": 0, "after": 1}), "{told}");
    // The brake holds for what fails from now on.
    let runs = granted(&site.lease(&executor, &[], 10).await);
    site.report(&executor, vec![item(&runs[0], 1, finish("failed"))]).await;
    assert_eq!(site.database.value("select state from rackhand.job").await, "paused");
    site.admin("job_control", json!({"id": job, "action": "resume", "reason": "seen again"})).await;
    site.report(&executor, vec![item(&runs[1], 1, finish("succeeded"))]).await;
    assert_eq!(site.database.value("select state from rackhand.job").await, "failed");
    let events = "select jsonb_agg(message order by id) from rackhand.event where kind in ('job.paused', 'job.failed')";
    let told = |became: &str| format!("Job {job} {became}: power of 4 servers, “a test”");
    let paused = told("paused automatically after 1 failure");
    assert_eq!(site.database.value(events).await, json!([paused, paused, told("failed")]));
    let retry = site.admin("job_retry_context", json!({"id": job})).await;
    assert_eq!(retry["targets"].as_array().unwrap().len(), 2);
    assert_eq!(retry["policy"]["pause_after_failures"], 1, "a retry is planned with the approved policy");
}
