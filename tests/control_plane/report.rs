//! The report protocol: duplicates, gaps, poisoned items. Nothing lost, nothing blocked.

use rackhand_tests::{
    TestSite,
    site::{event, finish, granted, item},
};
use serde_json::json;

#[tokio::test]
async fn duplicates_and_reordering_change_nothing() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(2).await;
    site.job("inventory", &servers, 10).await;
    let runs = granted(&site.lease(&executor, &[], 5).await);

    let answers = site
        .report(
            &executor,
            vec![
                item(&runs[0], 2, event("second")),
                item(&runs[0], 1, event("first")),
                item(&runs[1], 1, event("other run")),
                item(&runs[0], 3, event("third")),
            ],
        )
        .await;
    assert_eq!(answers[0]["code"], "sequence-gap");
    assert_eq!(answers[0]["expected_seq"], 1);
    assert_eq!(answers[1]["status"], "accepted");
    assert_eq!(answers[2]["status"], "accepted", "a gap in one run does not block its neighbour");
    assert_eq!(answers[3]["expected_seq"], 2);
    let rest = vec![
        item(&runs[0], 1, event("first")),
        item(&runs[0], 2, event("second")),
        item(&runs[0], 3, event("third")),
    ];
    for round in 0..2 {
        let answers = site.report(&executor, rest.clone()).await;
        let expected = if round == 0 { "accepted" } else { "duplicate" };
        assert_eq!(answers[0]["status"], "duplicate");
        assert_eq!(answers[2]["status"], expected);
    }
    assert_eq!(
        site.database
            .value(&format!(
                "select array_agg(message order by id) from rackhand.event
                where run_id = '{}' and kind = 'run.log'",
                runs[0].0
            ))
            .await,
        json!(["first", "second", "third"])
    );
}

#[tokio::test]
async fn a_poisoned_item_is_quarantined_and_its_neighbours_pass() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(1).await;
    site.job("inventory", &servers, 10).await;
    let runs = granted(&site.lease(&executor, &[], 5).await);
    let answers = site
        .report(&executor, vec![
            item(&runs[0], 1, event("before")),
            item(&runs[0], 2, json!({"type": "effect", "id": "not a uuid", "object": "x"})),
            item(&runs[0], 3, json!({"type": "no such type"})),
            json!({"run_id": runs[0].0, "epoch": 1, "seq": 4, "quarantine": {"reason": "too large", "text": "…"}}),
            item(&runs[0], 5, event("after")),
            item(&runs[0], 6, finish("succeeded")),
        ])
        .await;
    let statuses: Vec<_> = answers.iter().map(|answer| answer["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["accepted", "quarantined", "quarantined", "quarantined", "accepted", "accepted"]);
    assert_eq!(
        site.database.value("select count(*) from rackhand.event where kind = 'report.quarantined'").await,
        3
    );
}

#[tokio::test]
async fn the_hash_chain_of_a_run_verifies_offline_and_shows_tampering() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(1).await;
    site.job("inventory", &servers, 10).await;
    let runs = granted(&site.lease(&executor, &[], 5).await);
    let items = (1..=20).map(|seq| item(&runs[0], seq, event(&format!("line {seq}")))).collect();
    site.report(&executor, items).await;
    let broken = "select count(*) from (
            select hash, rackhand.link(lag(hash, 1, '') over (order by id), at, kind, level, actor, message, data) as due
            from rackhand.event where run_id is not null) c where hash <> due";
    assert_eq!(site.database.value(broken).await, 0);
    site.database
        .owner
        .execute("update rackhand.event set message = 'line 7 as it never was' where message = 'line 7'", &[])
        .await
        .unwrap();
    assert_eq!(site.database.value(broken).await, 1);
}
