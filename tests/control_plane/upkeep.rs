//! Scheduled work over a real Postgres: leases of the dead, expired rows, and the sealed audit trail.

use std::{collections::BTreeMap, time::Duration};

use ed25519_dalek::{Signature, VerifyingKey};
use rackhand_functions::upkeep::checkpoint_text;
use rackhand_tests::{TestServer, TestSite, server::TICK_TOKEN, site::granted};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

async fn tick(server: &TestServer) -> Value {
    let answer = server.call("POST", "/v1/tick", Some(TICK_TOKEN), None).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

/// Ticks until something was sealed: a transaction elsewhere in the cluster holds new events back for a moment.
async fn sealed(server: &TestServer) -> Value {
    for _ in 0..200 {
        let done = tick(server).await;
        if done["sealed"] != 0 {
            return done["sealed"].clone();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("nothing was sealed in 10 s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_executors_lease_ends_though_nobody_polls() {
    let site = TestSite::with(json!({"lease_ttl_ms": 300})).await;
    let server = TestServer::start(&site).await;
    let executor = site.executor("one").await;
    let servers = site.servers(1).await;
    site.job("inventory", &servers, 10).await;
    assert_eq!(granted(&site.lease(&executor, &[], 5).await).len(), 1);
    assert_eq!(tick(&server).await["expired"], 0, "it lives");
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(tick(&server).await["expired"], 1);
    assert_eq!(tick(&server).await["expired"], 0, "once");
    let state = site.database.value("select state || ' ' || reason from rackhand.run").await;
    assert_eq!(state, "queued lease_expired");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_are_admitted_though_nobody_polls() {
    let site = TestSite::new().await;
    let server = TestServer::start(&site).await;
    let servers = site.servers(3).await;
    site.job("inventory", &servers, 10).await;
    assert_eq!(tick(&server).await["admitted"], 3);
    assert_eq!(site.database.value("select count(*) from rackhand.ready").await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_expired_is_deleted_and_nothing_else() {
    let site = TestSite::new().await;
    let server = TestServer::start(&site).await;
    site.executor("one").await;
    tick(&server).await;
    let old = "insert into rackhand.login_limit values ('old', 1, now() - interval '1 second'),
            ('new', 1, now() + interval '1 minute');
        insert into rackhand.executor_nonce select 'old', id, now() - interval '1 second' from rackhand.executor;
        insert into rackhand.executor_nonce select 'new', id, now() + interval '1 minute' from rackhand.executor;
        insert into rackhand.user_session (user_id, expires_at)
            select id, now() - interval '31 days' from rackhand.users";
    site.database.owner.batch_execute(old).await.unwrap();
    let sessions = site.database.value("select count(*) from rackhand.user_session").await.as_i64().unwrap();
    assert_eq!(tick(&server).await["pruned"], 3);
    assert_eq!(site.database.value("select string_agg(key, ' ') from rackhand.login_limit").await, "new");
    assert_eq!(
        site.database.value("select string_agg(nonce, ' ') from rackhand.executor_nonce").await,
        "new"
    );
    assert_eq!(site.database.value("select count(*) from rackhand.user_session").await, sessions - 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_with_a_start_time_waits_for_it() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let server = TestServer::start(&site).await;
    let executor = site.executor("one").await;
    let servers = site.servers(1).await;
    let token = server.token(&site.admin);
    let create = async |start_after: &Value| {
        let job = json!({"site_id": site.id, "kind": "inventory", "params": {}, "targets": servers,
            "reason": "a test", "policy": {"start_after": start_after}});
        server.call("POST", "/v1/jobs", Some(&token), Some(&job)).await
    };
    let refused = create(&json!("tomorrow")).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (422, "invalid-request"), "{refused:?}");

    let start =
        "select to_char((now() + interval '3 seconds') at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')";
    let start = site.database.value(start).await;
    assert_eq!(create(&start).await.status, 201);
    let due = format!("select now() >= '{}'", start.as_str().unwrap());
    let early = site.lease(&executor, &[], 5).await;
    assert_eq!(
        (granted(&early).len(), site.database.value(&due).await),
        (0, json!(false)),
        "before its time"
    );
    assert!(early["wake_in_ms"].as_u64().unwrap() <= 3000, "{early}: the executor looks again in time");
    assert_eq!(tick(&server).await["admitted"], 0);
    while site.database.value(&due).await == json!(false) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(tick(&server).await["admitted"], 1, "and nobody had to poll");
    assert_eq!(granted(&site.lease(&executor, &[], 5).await).len(), 1);
}

/// What an auditor does with the events, the checkpoints and the public key alone.
async fn verify(site: &TestSite, key: &VerifyingKey) -> Result<usize, String> {
    let rows = |sql: &'static str| async move {
        let all = site.database.value(sql).await;
        all.as_array().cloned().unwrap_or_default()
    };
    let events = rows(
        "select coalesce(jsonb_agg(jsonb_build_array(xid::text, id, stream, encode(hash, 'hex'))
            order by xid, id), '[]') from rackhand.event",
    )
    .await;
    let checkpoints = rows(
        "select coalesce(jsonb_agg(jsonb_build_object('number', number, 'at', rackhand.ts(at), 'xid', xid::text,
            'id', event_id, 'streams', streams, 'root', encode(root, 'hex'), 'previous', encode(previous, 'hex'),
            'signature', encode(signature, 'hex')) order by number), '[]') from rackhand.checkpoint",
    )
    .await;
    let place =
        |xid: &Value, id: &Value| (xid.as_str().unwrap().parse::<u64>().unwrap(), id.as_i64().unwrap());
    let (mut from, mut previous) = ((0, 0), "00".repeat(32));
    for checkpoint in &checkpoints {
        let upto = place(&checkpoint["xid"], &checkpoint["id"]);
        let mut heads = BTreeMap::new();
        for event in &events {
            let at = place(&event[0], &event[1]);
            if at > from && at <= upto {
                heads.insert(event[2].as_str().unwrap().to_owned(), event[3].as_str().unwrap().to_owned());
            }
        }
        let leaves: Vec<Vec<u8>> = heads
            .iter()
            .map(|(stream, head)| {
                [stream.parse::<uuid::Uuid>().unwrap().as_bytes().as_slice(), &hex::decode(head).unwrap()]
                    .concat()
            })
            .collect();
        let root = hex::encode(merkle(&leaves));
        if checkpoint["root"] != root {
            return Err(format!(
                "checkpoint {}: the events are not those that were sealed",
                checkpoint["number"]
            ));
        }
        let text = checkpoint_text(
            checkpoint["number"].as_u64().unwrap(),
            checkpoint["at"].as_str().unwrap(),
            &format!("{}.{}", upto.0, upto.1),
            leaves.len(),
            &root,
            &previous,
        );
        let signature = hex::decode(checkpoint["signature"].as_str().unwrap()).unwrap();
        let signature = Signature::from_slice(&signature).unwrap();
        key.verify_strict(text.as_bytes(), &signature).map_err(|_| format!("signature over {text:?}"))?;
        (from, previous) = (upto, root);
    }
    Ok(checkpoints.len())
}

/// RFC 6962 §2.1, written a second time.
fn merkle(leaves: &[Vec<u8>]) -> Vec<u8> {
    match leaves.len() {
        0 => Sha256::digest(b"").to_vec(),
        1 => Sha256::digest([&[0], leaves[0].as_slice()].concat()).to_vec(),
        count => {
            let mut split = 1;
            while split * 2 < count {
                split *= 2;
            }
            Sha256::digest([vec![1], merkle(&leaves[..split]), merkle(&leaves[split..])].concat()).to_vec()
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_trail_is_sealed_and_a_change_shows() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let server = TestServer::start(&site).await;
    let key = VerifyingKey::from_bytes(&server.keys.public_key()).unwrap();
    assert_eq!(sealed(&server).await, 1);
    assert_eq!(tick(&server).await["sealed"], 0, "nothing happened since");

    let executor = site.executor("one").await;
    let servers = site.servers(5).await;
    site.job("inventory", &servers, 10).await;
    site.lease(&executor, &[], 5).await;
    assert_eq!(sealed(&server).await, 1);
    assert_eq!(verify(&site, &key).await, Ok(2));

    // History that was changed with its chain made right again fits no sealed root.
    let forged = "update rackhand.event set hash = sha256('another past') where id = (select min(id) from rackhand.event
        where kind = 'run.leased')";
    site.database.owner.batch_execute(forged).await.unwrap();
    let found = verify(&site, &key).await.unwrap_err();
    assert!(found.contains("checkpoint 2"), "{found}");
}
