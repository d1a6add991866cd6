//! The Worker's memory under load, also where callers go away in the middle: workerd alone, whose JavaScript
//! heap may take 64 MiB, with the runtime itself and the WebAssembly memory.

use rackhand_tests::load;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_over_5_000_requests() {
    bounded(5_000, 220).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes two minutes; part of --full"]
async fn memory_over_50_000_requests() {
    bounded(50_000, 350).await;
}

/// `most` MiB resident.
async fn bounded(requests: usize, most: u64) {
    let samples = load::resident(requests).await;
    println!("{requests} requests: resident MiB {samples:?}");
    assert!(samples.iter().all(|resident| *resident <= most), "{samples:?} MiB");
}
