//! Event streams beside executors: whatever people ask for, leases are renewed in time.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, future::join_all};
use rackhand_tests::{
    TestServer, TestSite,
    site::{TestExecutor, granted, lease_args, person},
};
use serde_json::{Value, json};

/// Streams of one session.
const PER_SESSION: usize = 32;

/// Enough people for so many streams; a token of each.
async fn tokens(site: &TestSite, server: &TestServer, streams: usize) -> Vec<String> {
    let mut tokens = Vec::new();
    for n in 0..streams.div_ceil(PER_SESSION).max(1) {
        let viewer = person(&site.database, &format!("Vera {n}"), "viewer", Some(&site.id)).await;
        tokens.push(server.token(&viewer));
    }
    tokens
}

/// Opens a stream and counts the events of a kind that come over it. What began before may come, too: the
/// latest cursor is where the oldest transaction of the whole cluster began.
async fn open(server: &TestServer, token: &str, kind: &str) -> tokio::task::JoinHandle<usize> {
    let marker = format!("\nevent: {kind}\n");
    let url = format!("{}/v1/events/stream?after=latest", server.running.url);
    let response = server.client.get(url).bearer_auth(token).send().await.unwrap();
    assert_eq!(response.status(), 200);
    tokio::spawn(async move {
        let mut seen = 0;
        let mut body = response.bytes_stream();
        while let Some(Ok(chunk)) = body.next().await {
            seen += String::from_utf8_lossy(&chunk).matches(&marker).count();
        }
        seen
    })
}

/// An event about this, and time to be shown.
async fn append(site: &TestSite, about: &str) {
    let event = format!(
        "select rackhand.append_event('test', 'info', 'one', {about}), rackhand.wake('events:{}')",
        site.id
    );
    site.database.owner.batch_execute(&event).await.unwrap();
    site.database.shown().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
}

async fn lease(server: &TestServer, token: &str, held: &[(String, u64)]) -> Duration {
    let mut args = lease_args(held, 0);
    args["wait_ms"] = json!(0);
    let began = Instant::now();
    let answer = server.call("POST", "/v1/executor/lease", Some(token), Some(&args)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    began.elapsed()
}

/// So many streams of people of a site while so many executors of that site lease and report. What a
/// lease took at the 99th percentile, and events seen over all streams.
async fn beside(streams: usize, executors: usize, rounds: u64) -> (Duration, usize) {
    let site = TestSite::with(json!({"lease_ttl_ms": 300_000})).await;
    let server = TestServer::start(&site).await;
    let mut working: Vec<(TestExecutor, Vec<(String, u64)>)> = Vec::new();
    let servers = site.servers(executors).await;
    site.job("inventory", &servers, 1000).await;
    for index in 0..executors {
        let executor = site.executor(&format!("executor-{index}")).await;
        let held = granted(&site.lease(&executor, &[], 1).await);
        working.push((executor, held));
    }
    let tokens = tokens(&site, &server, streams).await;
    let mut open_ones = Vec::new();
    for index in 0..streams {
        open_ones.push(open(&server, &tokens[index / PER_SESSION], "run.log").await);
    }
    // Executors do not move in step.
    let apart = Duration::from_secs(1) / u32::try_from(executors).unwrap();
    let took = join_all(working.iter().zip(0_u32..).map(async |((executor, held), place)| {
        tokio::time::sleep(apart * place).await;
        let token = server.executor_token(&site, executor);
        let mut took = Vec::new();
        for round in 1..=rounds {
            if place == 0 {
                let run = &held[0];
                let report = report(run, round);
                let answer = server.call("POST", "/v1/executor/report", Some(&token), Some(&report)).await;
                assert_eq!(answer.status, 200, "{answer:?}");
            }
            took.push(lease(&server, &token, held).await);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        took
    }))
    .await;
    let mut took: Vec<_> = took.into_iter().flatten().collect();
    took.sort_unstable();
    let p99 = took[took.len() * 99 / 100];
    // Streams look in turn.
    site.database.shown().await;
    tokio::time::sleep(Duration::from_millis(2000 + streams as u64)).await;
    server.running.shutdown().await;
    let seen = join_all(open_ones).await.into_iter().map(Result::unwrap).sum();
    (p99, seen)
}

/// One line of a run.
fn report(run: &(String, u64), seq: u64) -> Value {
    json!({"items": [{"run_id": run.0, "epoch": run.1, "seq": seq, "type": "event", "level": "info",
        "message": "a line", "data": null}]})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_are_quick_beside_some_streams_and_each_stream_shows_each_event() {
    let (p99, seen) = beside(60, 6, 2).await;
    assert!(p99 < Duration::from_millis(500), "{p99:?}");
    assert!(seen >= 60 * 2, "{seen}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute of load: 2,000 streams and 200 executors"]
async fn leases_are_quick_beside_two_thousand_streams() {
    let (alone, _) = beside(0, 200, 10).await;
    let (p99, seen) = beside(2000, 200, 10).await;
    eprintln!("lease p99 with 200 executors: {alone:?} alone, {p99:?} beside 2,000 streams");
    assert!(p99 < Duration::from_millis(200), "{p99:?}, {alone:?} without streams");
    assert!(seen >= 2000 * 10, "{seen}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn executors_lease_while_people_have_every_connection_of_theirs() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let server = TestServer::start(&site).await;
    let executor = site.executor("one").await;
    let (token, people) = (server.executor_token(&site, &executor), server.token(&site.admin));
    lease(&server, &token, &[]).await;
    // Every statement of a person waits for this.
    site.database.owner.batch_execute("begin; lock table rackhand.user_grant").await.unwrap();
    let stuck = join_all((0..40).map(|_| server.call("GET", "/v1/servers", Some(&people), None)));
    let leased = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let took = lease(&server, &token, &[]).await;
        site.database.owner.batch_execute("rollback").await.unwrap();
        took
    };
    let (answers, took) = tokio::join!(stuck, leased);
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert!(answers.iter().any(|answer| answer.status == 200), "they waited for the lock");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_stream_too_many_ends_the_oldest_of_its_session() {
    let site = TestSite::new().await;
    let server = TestServer::start(&site).await;
    let token = server.token(&site.admin);
    let mut streams = Vec::new();
    for _ in 0..=PER_SESSION {
        streams.push(open(&server, &token, "test").await);
    }
    let path = "/v1/events?after=latest&wait_ms=100";
    assert_eq!(server.call("GET", path, Some(&token), None).await.status, 200, "nor is a long poll refused");
    // Who has lost its place hears nothing more; an event is the moment at which it notices.
    append(&site, &format!("jsonb_build_object('site', '{}')", site.id)).await;
    let within = |stream| tokio::time::timeout(Duration::from_secs(5), stream);
    for lost in streams.drain(..2) {
        assert_eq!(within(lost).await.expect("it has ended").unwrap(), 0);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(streams.iter().all(|stream| !stream.is_finished()), "the others go on");
    server.running.shutdown().await;
    for stream in streams {
        assert_eq!(stream.await.unwrap(), 1);
    }
}

/// What others found is shown to a session only as long as it may see it. It takes a quarter of a minute, and
/// waits for most of it: a session that has ended is noticed by the next look of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_beside_others_sees_what_its_own_session_may_and_ends_with_it() {
    let site = TestSite::new().await;
    let server = TestServer::start(&site).await;
    let viewer = person(&site.database, "Vera Viewer", "viewer", Some(&site.id)).await;
    let [all, some] = [server.token(&site.admin), server.token(&viewer)];
    let streams = [
        open(&server, &all, "test").await,
        open(&server, &all, "test").await,
        open(&server, &some, "test").await,
    ];
    let ending = open(&server, &some, "test").await;
    append(&site, &format!("jsonb_build_object('site', '{}')", site.id)).await;
    append(&site, "'{}'").await;
    let end = format!(
        "update rackhand.user_session set ended_at = now() where id = '{}'",
        viewer["session"].as_str().unwrap()
    );
    site.database.owner.batch_execute(&end).await.unwrap();
    // Long enough beside the two thousand streams of another test.
    let seen = tokio::time::timeout(Duration::from_mins(1), ending).await.expect("it ends with its session");
    assert_eq!(seen.unwrap(), 1, "nothing of people, for a viewer");
    server.running.shutdown().await;
    let seen = join_all(streams).await.into_iter().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(seen, [2, 2, 1]);
}
