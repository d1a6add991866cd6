//! Each host starts and reaches its database.

use rackhand_tests::{
    TestDatabase,
    host::{HostProcess, Kind},
    server::{answer, client},
};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_host_is_healthy() {
    for kind in [Kind::Server, Kind::Worker, Kind::Spin] {
        let database = TestDatabase::new().await;
        let host = HostProcess::start(kind, &database).await;
        let health = client().get(format!("{}/v1/health", host.url)).send().await.unwrap();
        assert_eq!(answer(health).await.body, json!({"status": "ok"}), "{kind:?}");
    }
}
