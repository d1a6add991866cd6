//! From a job's creation to the first report of its run, with one idle executor: what waking instead of polling
//! gives. Both instants are the database's.

use std::time::Duration;

use rackhand_lab::{Model, ServerSpec};
use rackhand_tests::{StackConfig, TestStack};
use serde_json::json;

use crate::Row;

const JOBS: usize = 200;

pub async fn measure() -> Vec<Row> {
    let mut config = StackConfig::new(vec![ServerSpec::new("one", Model::R750)]);
    config.executors = 1;
    config.lease_ttl_ms = 30_000;
    let stack = TestStack::start(config).await;
    for _ in 0..JOBS {
        let job =
            stack.create(json!({"kind": "inventory", "params": {}, "targets": [stack.ids["one"]]})).await;
        stack.ended(&job, Duration::from_secs(30)).await;
        // Idle again: its next poll is held open.
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    let percentile = async |share: f64| {
        let query = format!(
            "select percentile_cont({share}) within group (order by extract(epoch from started - created_at) * 1000)
             from (select j.created_at, min(e.at) as started from rackhand.job j
                 join rackhand.event e on e.job_id = j.id and e.kind = 'run.phase'
                 group by j.id order by j.id desc limit {JOBS}) runs"
        );
        stack.site.database.value(&query).await.as_f64().unwrap()
    };
    let (half, most) = (percentile(0.5).await, percentile(0.99).await);
    vec![Row {
        work: format!("job created → run started, one idle executor, {JOBS} jobs"),
        ours: format!("p50 {half:.1} ms, p99 {most:.1} ms"),
        peer: "–".to_owned(),
        target: "p50 ≤ 10 ms".to_owned(),
        met: half <= 10.0,
    }]
}
