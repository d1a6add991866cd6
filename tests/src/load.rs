//! Load on the Worker, and what it takes of memory.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use reqwest::Method;

use crate::{
    TestSite,
    edge::{Edge, Usage, send},
    host::{Kind, Options},
};

const CLIENTS: usize = 8;

/// Resident MiB of workerd after each tenth of so many requests, of which some are given up by who sent them.
pub async fn resident(requests: usize) -> Vec<u64> {
    let options = Options { alone: true, ..Options::default() };
    let edge = Arc::new(Edge::with(Kind::Worker, TestSite::new().await, options).await);
    edge.site.servers(20).await;
    let pid = edge.host.runtime_pid();
    edge.recovers(Duration::from_secs(5)).await;
    let mut samples = vec![];
    for _ in 0..10 {
        let left = Arc::new(AtomicUsize::new(requests / 10));
        let clients: Vec<_> =
            (0..CLIENTS).map(|_| tokio::spawn(client(Arc::clone(&edge), Arc::clone(&left)))).collect();
        for client in clients {
            client.await.unwrap();
        }
        samples.push(Usage::of(pid).resident >> 20);
    }
    assert!(edge.connections().await <= 5);
    samples
}

/// Of ten requests three ask the version, two the health, two list; two wait for events and one reads their
/// stream, and go away.
async fn client(edge: Arc<Edge>, left: Arc<AtomicUsize>) {
    while let Ok(before) = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
    {
        let answer = match before % 10 {
            0..3 => send(edge.request(Method::GET, "/v1/version", "")).await,
            3..5 => send(edge.request(Method::GET, "/v1/health", "")).await,
            5..7 => send(edge.get("/v1/servers?limit=20")).await,
            kind => {
                let path =
                    if kind == 7 { "/v1/events/stream" } else { "/v1/events?after=latest&wait_ms=300" };
                let waiting = async {
                    let mut answer = edge.get(path).send().await.expect("the host answers");
                    assert!(answer.status().is_success(), "{}", answer.status());
                    while answer.chunk().await.expect("the host answers").is_some() {}
                };
                let patience = Duration::from_millis(before as u64 % 40);
                assert!(tokio::time::timeout(patience, waiting).await.is_err(), "nothing happens here");
                continue;
            }
        };
        assert!(answer.status.is_success(), "{answer:?}\n{}", edge.log());
    }
}
