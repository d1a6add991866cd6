//! Lease + complete with fence, capacity and history: batches of 100, four executors.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rackhand_tests::{
    TestSite,
    cluster::Cluster,
    database::run,
    site::{finish, granted, item, lease_args},
};
use serde_json::json;

use crate::{Peers, Row};

const JOBS: usize = 20;
const SERVERS: usize = 1000;
const EXECUTORS: usize = 4;
const BATCH: u32 = 100;

/// Ours and graphile-worker's throughput on the same Postgres, runs a second.
pub async fn measure(peers: &Peers) -> Vec<Row> {
    let site = TestSite::with(json!({"lease_ttl_ms": 600_000})).await;
    let servers = site.servers(SERVERS).await;
    let mut executors = vec![];
    for index in 0..EXECUTORS {
        let executor = site.executor(&format!("executor-{index}")).await;
        site.lease(&executor, &[], 0).await;
        let client = site.database.connect().await;
        // As the hosts' connections.
        client.batch_execute("set jit = off").await.unwrap();
        executors.push((executor, client));
    }
    for _ in 0..JOBS {
        site.job("inventory", &servers, 1000).await;
    }
    site.database.owner.batch_execute("analyze").await.unwrap();
    let done = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let tasks: Vec<_> = executors
        .into_iter()
        .map(|(executor, client)| {
            let done = Arc::clone(&done);
            tokio::spawn(async move {
                while done.load(Ordering::Relaxed) < JOBS * SERVERS {
                    let answer = run(&client, &executor.scope, "executor_lease", lease_args(&[], BATCH))
                        .await
                        .unwrap();
                    let runs = granted(&answer);
                    if runs.is_empty() {
                        // A host would hold the poll open.
                        tokio::time::sleep(Duration::from_millis(2)).await;
                        continue;
                    }
                    let items: Vec<_> = runs
                        .iter()
                        .enumerate()
                        .map(|(index, run_key)| {
                            let mut ended = item(run_key, 1, finish("succeeded"));
                            ended["index"] = json!(index);
                            ended
                        })
                        .collect();
                    let answer = run(&client, &executor.scope, "executor_report", json!({"items": items}))
                        .await
                        .unwrap();
                    for result in answer["results"].as_array().unwrap() {
                        assert_eq!(result["status"], "accepted");
                    }
                    done.fetch_add(runs.len(), Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let seconds = started.elapsed().as_secs_f64();
    let ended = site.database.value("select count(*) from rackhand.run where state = 'succeeded'").await;
    assert_eq!(ended, JOBS * SERVERS);
    let ours = (JOBS * SERVERS) as f64 / seconds;
    site.database.owner.batch_execute("create database graphile").await.unwrap();
    let url = Cluster::shared().owner_url("graphile");
    let theirs = peers.run("node", "graphile.mjs", &[], &url);
    theirs
        .iter()
        .map(|peer| {
            let theirs = peer["per_second"].as_f64().unwrap();
            Row {
                work: format!("lease + complete with fence, capacity and history, batches of {BATCH}, {EXECUTORS} executors"),
                ours: format!("{ours:.0} runs/s"),
                peer: format!("graphile-worker, {}: {theirs:.0} jobs/s", peer["mode"].as_str().unwrap()),
                target: if peer["mode"] == "batched" { "≥ 1×".to_owned() } else { "–".to_owned() },
                met: ours >= theirs,
            }
        })
        .collect()
}
