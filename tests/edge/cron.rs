//! The Worker's cron trigger does what no request does.

use std::time::Duration;

use rackhand_tests::{
    TestSite,
    edge::Edge,
    host::{Kind, Options},
};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cron_trigger_admits_and_seals() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let edge = Edge::with(Kind::Worker, site, Options::default()).await;
    let servers = edge.site.servers(2).await;
    edge.site.job("inventory", &servers, 10).await;
    edge.recovers(Duration::from_secs(5)).await;
    edge.host.signal_cron();
    let done =
        "select (select count(*) from rackhand.ready) = 2 and exists (select from rackhand.checkpoint)";
    for _ in 0..200 {
        if edge.site.database.value(done).await == json!(true) {
            return;
        }
        // A transaction elsewhere in the cluster may hold events back for a moment; the next round seals
        // them.
        tokio::time::sleep(Duration::from_millis(100)).await;
        edge.host.signal_cron();
    }
    panic!("not within 20 s\n{}", edge.log());
}
