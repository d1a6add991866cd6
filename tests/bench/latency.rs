//! From a job's creation to the first report of its run, with one idle executor: what waking instead of
//! polling gives. All instants are the database's.
//!
//! The jobs go round several BMCs: each may be asked only so often, and a whole inventory uses that up, so
//! that the next one of the same BMC would take its time (after it has started).

use std::time::Duration;

use rackhand_lab::{Model, ServerSpec};
use rackhand_tests::{StackConfig, TestStack};
use serde_json::json;

use crate::Row;

const JOBS: usize = 200;
const BMCS: usize = 8;

pub async fn measure() -> Vec<Row> {
    let names: Vec<_> = (0..BMCS).map(|index| format!("node-{index}")).collect();
    let servers = names.iter().map(|name| ServerSpec::new(name, Model::R750)).collect();
    let mut config = StackConfig::new(servers);
    config.executors = 1;
    config.lease_ttl_ms = 30_000;
    let stack = TestStack::start(config).await;
    for name in names.iter().cycle().take(JOBS) {
        let job =
            stack.create(json!({"kind": "inventory", "params": {}, "targets": [stack.ids[name]]})).await;
        stack.ended(&job, Duration::from_secs(30)).await;
        // Idle again: its next poll is held open.
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    let percentile = async |share: f64, kind: &str| {
        let query = format!(
            "select percentile_cont({share}) within group (order by extract(epoch from reached - created_at) * 1000)
             from (select j.created_at, min(e.at) as reached from rackhand.job j
                 join rackhand.event e on e.job_id = j.id and e.kind = '{kind}'
                 group by j.id order by j.id desc limit {JOBS}) runs"
        );
        stack.site.database.value(&query).await.as_f64().unwrap()
    };
    let leased = percentile(0.5, "run.leased").await;
    let (half, most) = (percentile(0.5, "run.phase").await, percentile(0.99, "run.phase").await);
    let ended = percentile(0.5, "run.finished").await;
    vec![Row {
        work: format!("job created → run started, one idle executor, {JOBS} jobs over {BMCS} BMCs"),
        ours: format!("p50 {half:.1} ms, p99 {most:.1} ms (p50 leased {leased:.1} ms, ended {ended:.0} ms)"),
        peer: "–".to_owned(),
        target: "p50 ≤ 10 ms".to_owned(),
        met: half <= 10.0,
    }]
}
