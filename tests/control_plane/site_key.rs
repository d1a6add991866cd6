//! The site's key is handed on to whoever has none, and takes nothing from anybody.

use std::time::Duration;

use rackhand_tests::{
    TestSite,
    site::{TestExecutor, granted},
};
use serde_json::{Value, json};

fn share(with: &TestExecutor, sealed: &str) -> Value {
    json!({"executor_id": with.id, "sealed": sealed.repeat(64)})
}

fn key(shares: &[Value]) -> Value {
    json!({"public_key": "A".repeat(44), "shares": shares})
}

/// What it holds of the key after a restart is its share alone. Whoever has replaced that may be revoked by then.
#[tokio::test]
async fn the_share_of_an_executor_that_has_the_key_is_replaced_by_nobody_else() {
    let site = TestSite::new().await;
    let (hostile, honest) = (site.executor("one").await, site.executor("two").await);
    let set = |by: &TestExecutor, args| {
        let scope = by.scope.clone();
        let site = &site;
        async move { site.database.run(&scope, "site_key_set", args).await }
    };
    set(&honest, key(&[share(&honest, "A")])).await.unwrap();
    set(&honest, key(&[share(&hostile, "B")])).await.unwrap();
    set(&hostile, key(&[share(&honest, "C"), share(&hostile, "D")])).await.unwrap();
    assert_eq!(site.lease(&hostile, &[], 0).await["site_key"], "B".repeat(64));
    site.admin("executor_revoke", json!({"id": hostile.id})).await;
    // Nor is one that was revoked given the key again.
    set(&honest, key(&[share(&hostile, "E")])).await.unwrap();
    let revoked =
        "select jsonb_agg(jsonb_build_array(state, site_key)) from rackhand.executor where name = 'one'";
    assert_eq!(site.database.value(revoked).await, json!([["revoked", null]]));
    let restarted = site.session(&honest.id, Some(&honest.session)).await;
    assert_eq!(site.lease(&restarted, &[], 0).await["site_key"], "A".repeat(64));
}

/// Each event is kept for good.
#[tokio::test]
async fn a_share_that_changes_nothing_is_no_event() {
    let site = TestSite::new().await;
    let (hostile, other) = (site.executor("one").await, site.executor("two").await);
    let shares: Vec<_> = (0..100).map(|_| share(&other, "A")).collect();
    for _ in 0..10 {
        site.database.run(&hostile.scope, "site_key_set", key(&shares)).await.unwrap();
    }
    let events = "select to_jsonb(count(*)) from rackhand.event where kind = 'executor.confirmed'";
    assert_eq!(site.database.value(events).await, json!(1));
}

/// Each one that waited would hold a connection that the executors of all sites share.
#[tokio::test]
async fn whoever_hands_the_key_on_waits_for_no_row() {
    let site = TestSite::new().await;
    let (one, two) = (site.executor("one").await, site.executor("two").await);
    let set = |shares: Vec<Value>| {
        let set = site.database.run(&one.scope, "site_key_set", key(&shares));
        async { tokio::time::timeout(Duration::from_secs(10), set).await.expect("it waits for a row") }
    };
    let mut owner = site.database.connect_owner().await;
    for (table, shares) in [("site", vec![share(&one, "A")]), ("executor", vec![share(&two, "B")])] {
        let holds = owner.transaction().await.unwrap();
        holds.execute(&format!("select from rackhand.{table} for update"), &[]).await.unwrap();
        let refused = set(shares.clone()).await.unwrap_err();
        assert_eq!(refused.code, "report-busy", "{table}");
        holds.rollback().await.unwrap();
        set(shares).await.unwrap();
    }
    let holds = owner.transaction().await.unwrap();
    holds.execute("select from rackhand.site for update", &[]).await.unwrap();
    set(vec![share(&two, "B")]).await.unwrap();
    holds.rollback().await.unwrap();
    assert_eq!(site.lease(&two, &[], 0).await["site_key"], "B".repeat(64));
    assert!(granted(&site.lease(&one, &[], 0).await).is_empty());
}
