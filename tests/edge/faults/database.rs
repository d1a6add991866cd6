//! Postgres away, and connections cut in mid-query.

use std::time::Duration;

use rackhand_tests::{
    TestDatabase, TestSite,
    cluster::Cluster,
    edge::{Edge, assert_unavailable, body, send},
    host::{Kind, Options},
    relay::Relay,
};
use reqwest::Method;
use serde_json::{Value, json};
use xtask::postgres::Postgres;

use super::process::{Stream, cursor};

const WASM: [Kind; 2] = [Kind::Worker, Kind::Spin];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_stopped_and_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut postgres = Postgres::create(&folder.path().join("cluster"), &folder.path().join("log")).unwrap();
    for kind in WASM {
        let name = format!("{kind:?}").to_lowercase();
        let site = TestSite::over(TestDatabase::alone(Cluster::own(&postgres), &name).await, json!({})).await;
        let server = site.servers(1).await.remove(0);
        let mut edge = Edge::with(kind, site, Options::default()).await;
        let page = body(send(edge.get("/v1/events?after=latest")).await);
        let start = page["cursor"].as_str().unwrap().to_owned();
        let mut stream = Stream::open(&edge, &start).await;
        let before = body(send(edge.job(&server, "before")).await);
        stream.read(1).await;

        postgres.stop();
        for _ in 0..3 {
            assert_unavailable(&send(edge.request(Method::GET, "/v1/health", "")).await);
            assert_unavailable(&send(edge.get("/v1/servers")).await);
            assert_unavailable(&send(edge.job(&server, "during")).await);
        }
        let version = send(edge.request(Method::GET, "/v1/version", "")).await;
        assert!(version.status.is_success(), "it needs no database: {version:?}");
        postgres.start_again().unwrap();

        edge.recovers(Duration::from_secs(10)).await;
        edge.site.database.reconnect().await;
        let (first, second) =
            (send(edge.job(&server, "during")).await, send(edge.job(&server, "during")).await);
        assert_eq!(body(first)["id"], body(second)["id"]);
        assert_eq!(body(send(edge.job(&server, "before")).await)["id"], before["id"]);
        assert_eq!(edge.site.database.value("select count(*) from rackhand.job").await, 2);
        // The stream went on, or ends so that its reader resumes: each event once and in order.
        let path = format!("/v1/events?after={start}&limit=1000");
        let all = body(send(edge.get(&path)).await);
        let told: Vec<_> = all["items"].as_array().unwrap().iter().map(cursor).collect();
        stream.read(told.len()).await;
        let mut resumed = Stream::open(&edge, stream.seen.last().unwrap()).await;
        resumed.read(told.len() - stream.seen.len()).await;
        assert_eq!([stream.seen, resumed.seen].concat(), told, "{kind:?}");
    }
}

/// Two ways to lose a connection: Postgres ends the session (nothing was done), or the line breaks while Postgres goes
/// on (all was done, and the answer is lost).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_cut_in_mid_query() {
    for kind in WASM {
        let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
        let server = site.servers(1).await.remove(0);
        let executor = site.executor("one").await;
        let (relay, through) = Relay::before(&site.database.api_url()).await;
        let edge =
            Edge::with(kind, site, Options { database_url: Some(through), ..Options::default() }).await;
        let token = edge.executor_token(&executor);

        // A job, while the table of events cannot be written.
        let end_session = async || {
            let ended =
                "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'rackhand_api'
                and datname = current_database() and wait_event_type = 'Lock'";
            edge.site.database.owner.batch_execute(ended).await.unwrap();
        };
        assert_unavailable(&held(&edge, edge.job(&server, "ended"), &end_session).await);
        assert_eq!(edge.site.database.value("select count(*) from rackhand.job").await, 0);
        let job = body(send(edge.job(&server, "ended")).await);

        let cut_line = async || {
            relay.cut();
            tokio::time::sleep(Duration::from_millis(100)).await;
            relay.mend();
        };
        assert_unavailable(&held(&edge, edge.job(&server, "cut"), &cut_line).await);
        edge.recovers(Duration::from_secs(5)).await;
        let again = body(send(edge.job(&server, "cut")).await);
        assert_ne!(again["id"], job["id"]);
        assert_eq!(edge.site.database.value("select count(*) from rackhand.job").await, 2);

        // A report, sent again by an executor that had no answer.
        let leased =
            body(send(edge.request(Method::POST, "/v1/executor/lease", &token).json(&lease(&[]))).await);
        let runs: Vec<_> = rackhand_tests::site::granted(&leased);
        assert_eq!(runs.len(), 2, "{leased}");
        let report = json!({"items": [told(&runs[0], 1, "once")]});
        let request = || edge.request(Method::POST, "/v1/executor/report", &token).json(&report);
        let answers = [held(&edge, request(), &end_session).await, held(&edge, request(), &cut_line).await];
        for answer in &answers {
            // A host that asks once more meets the statement that Postgres is still at.
            if !is_busy(answer) {
                assert_unavailable(answer);
            }
        }
        edge.recovers(Duration::from_secs(5)).await;
        for _ in 0..2 {
            // The line broke after it was done, or while Postgres was still at it.
            let mut answer = send(request()).await;
            while is_busy(&answer) {
                tokio::time::sleep(Duration::from_millis(50)).await;
                answer = send(request()).await;
            }
            let results = body(answer);
            assert_eq!(results["results"][0]["status"], "duplicate", "{results}");
        }
        let stored = "select count(*) from rackhand.event where message = 'once'";
        assert_eq!(edge.site.database.value(stored).await, 1, "{kind:?}");
        assert!(edge.connections().await <= 16);
    }
}

/// Whether Postgres is still at a former report of the executor.
fn is_busy(answer: &rackhand_tests::server::Answer) -> bool {
    answer.body["code"] == "report-busy"
}

pub fn lease(held: &[(String, u64)]) -> Value {
    let mut request = rackhand_tests::site::lease_args(held, 4);
    request["wait_ms"] = json!(0);
    request
}

/// A report's item, as an executor sends it.
pub fn told(run: &(String, u64), seq: u64, message: &str) -> Value {
    json!({"run_id": run.0, "epoch": run.1, "seq": seq, "type": "event", "level": "info", "message": message})
}

/// Sends a request that waits in Postgres for the table of events, does `harm`, lets Postgres go on; the answer.
async fn held(
    edge: &Edge,
    request: reqwest::RequestBuilder,
    harm: &impl AsyncFn(),
) -> rackhand_tests::server::Answer {
    let blocker = rackhand_tests::database::connect(&edge.site.database.owner_url()).await;
    blocker.batch_execute("begin; lock table rackhand.event in exclusive mode").await.unwrap();
    let answer = tokio::spawn(send(request));
    waiting(edge, 1).await;
    harm().await;
    let answer = answer.await.unwrap();
    blocker.batch_execute("rollback").await.unwrap();
    waiting(edge, 0).await;
    answer
}

/// Until so many of the host's statements wait for a lock.
pub async fn waiting(edge: &Edge, count: u64) {
    let query = "select count(*) from pg_stat_activity where usename = 'rackhand_api'
        and datname = current_database() and wait_event_type = 'Lock'";
    for _ in 0..500 {
        if edge.site.database.value(query).await == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("there are not {count} statements that wait: {}", edge.log());
}
