//! Lease + complete with fence, capacity and history: batches of 100, four executors.

use std::time::Instant;

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
        executors.push((executor, site.database.connect().await));
    }
    for _ in 0..JOBS {
        site.job("inventory", &servers, 1000).await;
    }
    site.database.owner.batch_execute("analyze").await.unwrap();
    let started = Instant::now();
    let tasks: Vec<_> = executors
        .into_iter()
        .map(|(executor, client)| {
            tokio::spawn(async move {
                let (mut done, mut idle) = (0, 0);
                while idle < 3 {
                    let answer = run(&client, &executor.scope, "executor_lease", lease_args(&[], BATCH))
                        .await
                        .unwrap();
                    let runs = granted(&answer);
                    if runs.is_empty() {
                        idle += 1;
                        continue;
                    }
                    idle = 0;
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
                    done += runs.len();
                }
                done
            })
        })
        .collect();
    let mut done = 0;
    for task in tasks {
        done += task.await.unwrap();
    }
    let seconds = started.elapsed().as_secs_f64();
    assert_eq!(done, JOBS * SERVERS);
    let ours = done as f64 / seconds;
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
