//! What is approved is approved for one machine: its addresses and TLS key stay while anybody counts on them,
//! and a run is granted only for the machine of its plan.

use std::time::Duration;

use rackhand_tests::{
    TestSite,
    site::{granted, item},
};
use serde_json::{Value, json};

/// `node-0000` as it is registered, with one member changed.
fn entry(site: &TestSite, member: &str, value: Value) -> Value {
    let mut server = json!({"index": 0, "name": "node-0000", "bmc_url": "https://10.0.0.1:1000", "ipmi": null,
        "credential_id": site.credential, "spki_sha256": "00".repeat(32), "tags": []});
    server[member] = value;
    json!({"site_id": site.id, "servers": [server], "replace": true})
}

/// What would make it another machine.
fn elsewhere() -> [(&'static str, Value); 4] {
    [
        ("bmc_url", json!("https://10.0.0.9")),
        ("bmc_url", json!("https://10.0.0.1:1000/redfish/v1/Systems/2")),
        ("ipmi", json!("10.0.0.9")),
        ("spki_sha256", json!("11".repeat(32))),
    ]
}

/// A refusal names the job.
async fn refused(site: &TestSite, job: &str) -> bool {
    let mut all = vec![];
    for (member, value) in elsewhere() {
        let answer = site.admin("servers_upsert", entry(site, member, value)).await;
        let refused = &answer["refused"][0];
        let is_refused = answer["changed"] == 0 && refused["index"] == 0;
        assert!(!is_refused || refused["detail"].as_str().unwrap().contains(job), "{answer}");
        all.push(is_refused);
    }
    assert!(all.iter().all(|one| *one == all[0]), "all or none: {all:?}");
    all[0]
}

#[tokio::test]
async fn addresses_and_keys_stay_while_a_plan_waits_or_a_run_is_not_over() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(1).await;
    let job = site.plan("power", &servers, 1).await;
    assert!(refused(&site, &job).await, "a plan waits");
    let answer = site.admin("servers_upsert", entry(&site, "ipmi", json!("10.0.0.9"))).await;
    let told = answer["refused"][0]["detail"].as_str().unwrap();
    assert!(told.ends_with(&format!("`rackhand jobs cancel {job} --reason …` ends it.")), "{told}");
    let tags = site.admin("servers_upsert", entry(&site, "tags", json!(["rack-1"]))).await;
    assert_eq!(tags["changed"], 1, "what says nothing about the machine may change");
    site.admin("job_approve", json!({"id": job, "digest": "d"})).await;
    assert!(refused(&site, &job).await, "a run waits");
    let runs = granted(&site.lease(&executor, &[], 1).await);
    assert!(refused(&site, &job).await, "a run is leased");
    let unknown = rackhand_tests::site::item(&runs[0], 1, rackhand_tests::site::finish("unknown"));
    site.report(&executor, vec![unknown]).await;
    assert!(refused(&site, &job).await, "what happened to the machine is not known");
    site.admin("job_control", json!({"id": job, "action": "cancel", "reason": "looked at it"})).await;
    assert!(!refused(&site, &job).await, "nobody counts on it any more");
}

#[tokio::test]
async fn a_plan_for_another_machine_is_not_approved() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let servers = site.servers(1).await;
    for change in [
        "update rackhand.bmc set url = 'https://10.0.0.9'",
        "update rackhand.bmc set ipmi = '10.0.0.9'",
        "update rackhand.bmc set spki_sha256 = repeat('11', 32)",
        "update rackhand.server set service_tag = 'OTHER01'",
        "update rackhand.server set uuid = 'another'",
    ] {
        let known = "update rackhand.server set service_tag = 'THIS001', uuid = 'this'";
        site.database.owner.execute(known, &[]).await.unwrap();
        let job = site.plan("power", &servers, 1).await;
        site.database.owner.execute(change, &[]).await.unwrap();
        let approve = json!({"id": job, "digest": "d"});
        let answer = site.database.run(&site.admin, "job_approve", approve).await.unwrap_err();
        assert_eq!(answer.code, "plan-stale", "{change}");
        site.admin("job_control", json!({"id": job, "action": "cancel", "reason": "again"})).await;
    }
}

#[tokio::test]
async fn a_run_for_another_machine_is_not_granted_and_holds_up_nobody() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(3).await;
    let job = site.job("power", &servers, 3).await;
    let moved = "update rackhand.bmc set url = 'https://10.0.0.9' where url = 'https://10.0.0.1:1000'";
    site.database.owner.execute(moved, &[]).await.unwrap();
    let mut held = vec![];
    for _ in 0..3 {
        held.extend(granted(&site.lease(&executor, &held, 1).await));
    }
    assert_eq!(held.len(), 2, "the two that are still what was approved");
    assert_eq!(granted(&site.lease(&executor, &held, 1).await), []);
    let stuck = site.database.value("select to_jsonb(r) from rackhand.run r where position = 1").await;
    assert_eq!((&stuck["state"], &stuck["reason"]), (&json!("queued"), &json!("another-machine")));
    site.admin("job_control", json!({"id": job, "action": "cancel", "reason": "gone"})).await;
    let states = "select array_agg(state order by position) from rackhand.run";
    assert_eq!(site.database.value(states).await, json!(["cancelled", "leased", "leased"]));
}

/// An inventory of `node-0000` that shows this service tag and UUID.
fn shows(tag: &str, uuid: &str) -> Value {
    json!({"type": "inventory", "power": "on", "health": "ok", "components": [], "capabilities": [],
        "unreadable": {}, "service_tag": tag, "uuid": uuid})
}

#[tokio::test]
async fn a_tag_and_a_uuid_that_identify_nothing_are_not_taken_for_another_machine() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(1).await;
    let known = "update rackhand.server set service_tag = 'THIS001', uuid = '4c4c4544-0042-3510'";
    site.database.owner.execute(known, &[]).await.unwrap();
    site.job("inventory", &servers, 10).await;
    let held = granted(&site.lease(&executor, &[], 1).await);
    site.plan("power", &servers, 1).await;
    let said =
        [("", "00000000-0000-0000-0000-000000000000"), ("To be filled by O.E.M.", "FFFF"), (" N/A ", "0x0")];
    let items = (1..).zip(said).map(|(seq, (tag, uuid))| item(&held[0], seq, shows(tag, uuid))).collect();
    site.report(&executor, items).await;
    let stored = "select jsonb_build_array(service_tag, uuid) from rackhand.server";
    assert_eq!(site.database.value(stored).await, json!(["THIS001", "4c4c4544-0042-3510"]));

    // Another spelling is the same machine.
    site.report(&executor, vec![item(&held[0], 4, shows("this001 ", "4C4C4544-0042-3510"))]).await;
    assert_eq!(site.database.value(stored).await, json!(["this001", "4C4C4544-0042-3510"]));
    let job = site.database.value("select id from rackhand.job where state = 'planned'").await;
    site.admin("job_approve", json!({"id": job, "digest": "d"})).await;
    assert_eq!(granted(&site.lease(&executor, &held, 1).await).len(), 1);
}

/// A board was replaced in mid-run, or a BMC shows another's tag: what the run has done still has to come to
/// an end.
#[tokio::test]
async fn a_run_that_has_acted_is_granted_to_a_successor_whatever_the_machine_shows() {
    let site = TestSite::with(json!({"lease_ttl_ms": 500})).await;
    let (first, second) = (site.executor("one").await, site.executor("two").await);
    let servers = site.servers(2).await;
    let known = "update rackhand.server set service_tag = 'THIS001'";
    site.database.owner.execute(known, &[]).await.unwrap();
    site.job("firmware_update", &servers, 10).await;
    let held = granted(&site.lease(&first, &[], 2).await);
    let intent = json!({"type": "intent", "phase": "stage", "action": "stage_package", "before": {},
        "deadline_ms": 1});
    site.report(
        &first,
        vec![
            item(&held[0], 1, intent),
            item(&held[0], 2, shows("OTHER01", "another")),
            item(&held[1], 1, shows("OTHER01", "another")),
        ],
    )
    .await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let mut taken = vec![];
    for _ in 0..5 {
        taken.extend(granted(&site.lease(&second, &taken, 2).await));
    }
    assert_eq!(taken, [(held[0].0.clone(), 2)], "the one that has changed nothing waits for a person");
}
