//! The login budget: two executors and a wrong password never reach a BMC's blocking threshold.

use rackhand_tests::TestSite;
use serde_json::{Value, json};

async fn attempt(site: &TestSite, executor: &Value, bmc: &Value, step: &str) -> Value {
    site.database
        .run(
            executor,
            "credential_attempt",
            json!({"bmc_id": bmc, "credential_id": site.credential, "version": 1,
            "step": step}),
        )
        .await
        .unwrap()
}

#[tokio::test]
async fn a_wrong_password_costs_two_refusals_in_the_whole_site() {
    let site = TestSite::new().await;
    let (one, two) = (site.executor("one").await.scope, site.executor("two").await.scope);
    site.servers(5).await;
    let bmcs = site.database.value("select array_agg(id order by id) from rackhand.bmc").await;
    let bmcs = bmcs.as_array().unwrap();

    assert_eq!(attempt(&site, &one, &bmcs[0], "reserve").await["allowed"], true);
    let busy = attempt(&site, &two, &bmcs[1], "reserve").await;
    assert_eq!(busy["allowed"], false, "one BMC at a time while nobody has accepted the password");
    assert!(busy["retry_after_ms"].as_u64().is_some());
    attempt(&site, &one, &bmcs[0], "rejected").await;
    assert_eq!(attempt(&site, &two, &bmcs[1], "reserve").await["allowed"], true);
    attempt(&site, &two, &bmcs[1], "rejected").await;
    for (executor, bmc) in [(&one, &bmcs[0]), (&two, &bmcs[1]), (&one, &bmcs[2]), (&two, &bmcs[3])] {
        let answer = attempt(&site, executor, bmc, "reserve").await;
        assert_eq!(answer["allowed"], false);
        assert_eq!(answer["retry_after_ms"], Value::Null, "final until a new version comes");
    }
    site.admin("credential_put", json!({"site_id": site.id, "name": "bmc", "version": 2, "sealed": "bmV3"}))
        .await;
    let fresh = site
        .database
        .run(
            &one,
            "credential_attempt",
            json!({"bmc_id": bmcs[0], "credential_id": site.credential, "version": 2,
            "step": "reserve"}),
        )
        .await
        .unwrap();
    assert_eq!(fresh["allowed"], true);
}

#[tokio::test]
async fn an_attempt_whose_executor_died_counts_as_failed() {
    let site = TestSite::new().await;
    let one = site.executor("one").await.scope;
    site.servers(1).await;
    let bmc = site.database.value("select id from rackhand.bmc").await;
    for allowed in [true, true, false, false] {
        assert_eq!(attempt(&site, &one, &bmc, "reserve").await["allowed"], allowed);
    }
}

#[tokio::test]
async fn a_proven_credential_is_not_held_back() {
    let site = TestSite::new().await;
    let one = site.executor("one").await.scope;
    site.servers(2).await;
    let bmcs = site.database.value("select array_agg(id) from rackhand.bmc").await;
    attempt(&site, &one, &bmcs[0], "reserve").await;
    attempt(&site, &one, &bmcs[0], "accepted").await;
    for _ in 0..5 {
        assert_eq!(attempt(&site, &one, &bmcs[0], "reserve").await["allowed"], true);
    }
    assert_eq!(attempt(&site, &one, &bmcs[1], "reserve").await["allowed"], true);
}
