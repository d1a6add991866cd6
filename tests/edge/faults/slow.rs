//! A database that is slow, silent, or behind a cache.

use std::time::{Duration, Instant};

use rackhand_tests::{
    TestSite,
    edge::{Edge, assert_unavailable, body, send},
    host::{Kind, Options},
    relay::Relay,
};
use reqwest::Method;
use tokio::net::TcpListener;

use super::database::waiting;

/// As `statement_timeout` of the role does after 15 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_takes_too_long_is_ended() {
    for kind in [Kind::Worker, Kind::Spin] {
        let site = TestSite::new().await;
        let server = site.servers(1).await.remove(0);
        let sooner = format!(
            "alter role rackhand_api in database {} set statement_timeout = '1s'",
            site.database.name
        );
        site.database.owner.batch_execute(&sooner).await.unwrap();
        let edge = Edge::with(kind, site, Options::default()).await;
        let owner = &edge.site.database.owner;
        owner.batch_execute("begin; lock table rackhand.event in exclusive mode").await.unwrap();
        assert_unavailable(&send(edge.job(&server, "slow")).await);
        edge.logs("57014").await;
        // Others are not held up by it.
        assert!(send(edge.get("/v1/servers")).await.status.is_success());
        owner.batch_execute("rollback").await.unwrap();
        let job = body(send(edge.job(&server, "slow")).await);
        assert_eq!(body(send(edge.job(&server, "slow")).await)["id"], job["id"]);
        assert_eq!(edge.site.database.value("select count(*) from rackhand.job").await, 1);
        waiting(&edge, 0).await;
    }
}

/// Somebody takes connections and says nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_database_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let database_url = format!("postgres://rackhand_api:x@{}/test", silent.local_addr().unwrap());
    let options = Options { database_url: Some(database_url), ..Options::default() };
    for kind in [Kind::Worker, Kind::Spin] {
        let edge = Edge::with(kind, TestSite::new().await, options.clone()).await;
        let began = Instant::now();
        assert_unavailable(&send(edge.request(Method::GET, "/v1/health", "")).await);
        let took = began.elapsed();
        assert!((4..9).contains(&took.as_secs()), "{kind:?} took {took:?}");
    }
}

/// A line that carries nothing any more: the Worker gives the statement up, and the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_never_comes_is_given_up() {
    let site = TestSite::new().await;
    let (relay, through) = Relay::before(&site.database.api_url()).await;
    let options = Options { database_url: Some(through), ..Options::default() };
    let edge = Edge::with(Kind::Worker, site, options).await;
    edge.recovers(Duration::from_secs(5)).await;
    // A byte each second: the question takes longer than anybody waits.
    relay.throttle(1);
    let began = Instant::now();
    assert_unavailable(&send(edge.get("/v1/servers")).await);
    let took = began.elapsed();
    assert!((19..29).contains(&took.as_secs()), "{took:?}");
    relay.throttle(0);
    edge.recovers(Duration::from_secs(5)).await;
}

/// Hyperdrive caches what it takes for reads, unless it is told not to: one user would get another's rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caching_hyperdrive_is_refused() {
    let options = Options { hyperdrive: true, ..Options::default() };
    let edge = Edge::with(Kind::Worker, TestSite::new().await, options.clone()).await;
    edge.site.servers(2).await;
    let listed = body(send(edge.get("/v1/servers")).await);
    assert_eq!(listed["items"].as_array().unwrap().len(), 2, "{listed}");

    let site = TestSite::new().await;
    // As through a cache: the same question has the same answer.
    let constant =
        "create or replace function rackhand.run(scope jsonb, statement text, args jsonb) returns text
        language sql as $$ select '\"2026-01-01 00:00:00+00\"' $$";
    site.database.owner.batch_execute(constant).await.unwrap();
    let edge = Edge::with(Kind::Worker, site, options).await;
    for _ in 0..2 {
        assert_unavailable(&send(edge.request(Method::GET, "/v1/health", "")).await);
        assert_unavailable(&send(edge.get("/v1/servers")).await);
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(edge.log().contains("--caching-disabled"), "the log names the remedy: {}", edge.log());
}
