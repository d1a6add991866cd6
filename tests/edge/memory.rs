//! The Worker's memory under load, also where callers go away in the middle.
//!
//! Resident memory of workerd grows under load while its WebAssembly memory stays at a few MiB: what grows is taken to
//! be the heap of JavaScript, which nothing limits here as the platform would. The limits catch a blow-up, not a slow
//! leak.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rackhand_tests::{
    edge::{Edge, Usage, send},
    host::Kind,
};
use reqwest::Method;

const CLIENTS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_over_5_000_requests() {
    bounded(5_000, 400).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes two minutes; part of --full"]
async fn memory_over_50_000_requests() {
    bounded(50_000, 900).await;
}

/// Takes ten samples on the way; `most` MiB resident.
async fn bounded(requests: usize, most: u64) {
    let edge = Arc::new(Edge::start(Kind::Worker).await);
    edge.site.servers(20).await;
    let pid = edge.host.runtime_pid();
    let mut samples = vec![];
    edge.recovers(Duration::from_secs(5)).await;
    for _ in 0..10 {
        let left = Arc::new(AtomicUsize::new(requests / 10));
        let clients: Vec<_> =
            (0..CLIENTS).map(|_| tokio::spawn(load(Arc::clone(&edge), Arc::clone(&left)))).collect();
        for client in clients {
            client.await.unwrap();
        }
        samples.push(Usage::of(pid).resident >> 20);
    }
    println!("{requests} requests: resident MiB {samples:?}");
    assert!(samples.iter().all(|resident| *resident <= most), "{samples:?} MiB");
    assert!(edge.connections().await <= 5);
}

/// Of ten requests three ask the version, three the health, two list, two wait for events and go away.
async fn load(edge: Arc<Edge>, left: Arc<AtomicUsize>) {
    while let Ok(before) = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
    {
        let answer = match before % 10 {
            0..3 => send(edge.request(Method::GET, "/v1/version", "")).await,
            3..6 => send(edge.request(Method::GET, "/v1/health", "")).await,
            6..8 => send(edge.get("/v1/servers?limit=20")).await,
            _ => {
                let poll = edge.get("/v1/events?after=latest&wait_ms=300").send();
                let patience = Duration::from_millis(before as u64 % 40);
                assert!(tokio::time::timeout(patience, poll).await.is_err(), "nothing happens here");
                continue;
            }
        };
        assert!(answer.status.is_success(), "{answer:?}\n{}", edge.log());
    }
}
