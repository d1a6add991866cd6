//! Invariants 8 and 9: what the control plane, or whoever writes its database, cannot make an executor do.

use std::time::Duration;

use rackhand_lab::{Fault, Model, ServerSpec, Times};
use rackhand_tests::{StackConfig, TestStack};
use serde_json::{Value, json};
use tokio::net::TcpListener;

fn servers(names: &[&str]) -> Vec<ServerSpec> {
    names.iter().map(|name| ServerSpec::new(*name, Model::R750)).collect()
}

async fn sql(stack: &TestStack, statement: &str) {
    stack.site.database.owner.batch_execute(statement).await.unwrap();
}

fn inventory(stack: &TestStack) -> Value {
    json!({"kind": "inventory", "params": {}, "targets": stack.ids.values().collect::<Vec<_>>(),
        "policy": {"max_parallel": 50, "pause_after_failures": 0}})
}

/// Somebody who writes the database points credentials at other machines and at other keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_cannot_redirect_a_credential() {
    let names = ["mixed-up", "moved", "other-pin", "other-text", "impostor", "untouched"];
    let stack = TestStack::registered(StackConfig::new(servers(&names))).await;
    let trap = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let trap_url = format!("https://{}", trap.local_addr().unwrap());
    let sprung = tokio::spawn(async move { trap.accept().await.unwrap() });

    // Sealed for another server, put on this one.
    let foreign = stack.store_credential("foreign", 1, "its-Pa55word", &["untouched"]).await;
    let bmc = |name: &str| format!("where server_id = '{}'", stack.ids[name]);
    sql(&stack, &format!("update rackhand.bmc set credential_id = '{foreign}' {}", bmc("mixed-up"))).await;
    // The ciphertext of one row in another.
    let copied = stack.store_credential("copied", 1, "its-Pa55word", &["other-text"]).await;
    sql(
        &stack,
        &format!(
            "update rackhand.credential set sealed = (select sealed from rackhand.credential where name = 'lab')
             where id = '{copied}';
             update rackhand.bmc set credential_id = '{copied}' {}",
            bmc("other-text")
        ),
    )
    .await;
    sql(&stack, &format!("update rackhand.bmc set url = '{trap_url}' {}", bmc("moved"))).await;
    let pin = "ab".repeat(32);
    sql(&stack, &format!("update rackhand.bmc set spki_sha256 = '{pin}' {}", bmc("other-pin"))).await;
    stack.lab.fault("impostor", Fault::ChangedTlsKey, Times::Always).unwrap();
    // And the list in the clear says that every credential is sealed for all of them: no plan is in the way.
    sql(
        &stack,
        "update rackhand.credential set sealed_for = (select jsonb_agg(
             jsonb_build_object('url', b.url, 'spki_sha256', b.spki_sha256)) from rackhand.bmc b)",
    )
    .await;

    let job = stack.create(inventory(&stack)).await;
    stack.ended(&job, Duration::from_secs(60)).await;
    let (runs, story) = (stack.runs(&job).await, stack.story(&job).await);
    for name in names {
        let reason = match name {
            "untouched" => "",
            "impostor" => "bmc-key-changed",
            _ => "credential-refused",
        };
        assert_eq!(runs[name]["reason"], reason, "{name}: {story}");
        let counters = stack.lab.counters_of(name).unwrap();
        let spoken_to = (counters.requests > 0, counters.logins + counters.auth_failures > 0);
        let trusted = name == "untouched";
        assert_eq!(spoken_to, (trusted, trusted), "{name}: {counters:?}");
    }
    assert!(!sprung.is_finished(), "somebody dialled the address that the credential does not name");
    sprung.abort();
}

/// The site key goes to confirmed machines only, whatever stands in the database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_executor_that_nobody_confirmed_gets_no_site_key() {
    let mut stack = TestStack::registered(StackConfig::new(servers(&["target"]))).await;
    let evil = "update rackhand.executor set sealing_key = encode(sha256('evil'), 'base64')";

    // One with a stolen token; one that was confirmed, but whose key was swapped before.
    let (mut rogue, _) = stack.enrol("rogue").await;
    // Else it might see the right key first, and rightly share with that.
    stack.executors[0].kill();
    let (mut swapped, fingerprint) = stack.enrol("swapped").await;
    sql(&stack, &format!("{evil} where name = 'swapped'")).await;
    stack.executors[0].confirm(&fingerprint);
    stack.executors[0].start();
    rogue.start();
    swapped.start();
    // One that is a member: its key is swapped, and the others are asked to share with it once more.
    stack.executors[1].kill();
    sql(&stack, &format!("{evil}, state = 'joining', site_key = null where name = 'executor-2'")).await;
    stack.executors[0].kill();
    stack.executors[0].start();

    let asked_for = async || {
        let log = std::fs::read_to_string(&stack.executors[0].log).unwrap();
        let waits = |name: &&str| {
            let name = format!("executor=\"{name}\"");
            log.lines().any(|line| line.contains("waits to be confirmed") && line.contains(&name))
        };
        ["rogue", "swapped", "executor-2"].iter().all(waits)
    };
    stack.until("it was asked to share with all three", Duration::from_secs(20), asked_for).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let keys = "select jsonb_agg(name order by name) from rackhand.executor where site_key is not null";
    assert_eq!(stack.site.database.value(keys).await, json!(["executor-1"]));

    // Declared a member by force, and alone in the site: without the key there is nothing it could open.
    sql(&stack, "update rackhand.executor set state = 'active' where name in ('rogue', 'swapped')").await;
    stack.executors[0].kill();
    let job = stack.create(inventory(&stack)).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(stack.runs(&job).await["target"]["state"], "queued", "{}", stack.story(&job).await);
    assert_eq!(stack.lab.counters().requests, 0);
    drop((rogue, swapped));

    stack.executors[0].start();
    let ended = stack.ended(&job, Duration::from_secs(30)).await;
    assert_eq!(ended["state"], "succeeded", "{}", stack.story(&job).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_policy_toml_forbids_is_refused() {
    let config = StackConfig {
        policy: "servers = [\"lab-*\"]\nkinds = [\"inventory\", \"power\"]".to_owned(),
        ..StackConfig::new(servers(&["lab-1", "production"]))
    };
    let stack = TestStack::registered(config).await;
    let job = stack.create(inventory(&stack)).await;
    stack.ended(&job, Duration::from_secs(60)).await;
    let (runs, story) = (stack.runs(&job).await, stack.story(&job).await);
    assert_eq!(runs["lab-1"]["state"], "succeeded", "{story}");
    let refused = &runs["production"];
    assert_eq!(
        (&refused["state"], &refused["reason"]),
        (&json!("failed"), &json!("policy-refused")),
        "{story}"
    );
    assert!(refused["detail"].as_str().unwrap().contains("`servers`"), "it names the key: {refused}");

    let job = stack.power("force_off", &["production"]).await;
    stack.ended(&job, Duration::from_secs(60)).await;
    assert_eq!(stack.runs(&job).await["production"]["reason"], "policy-refused");
    assert_eq!(stack.lab.counters_of("production").unwrap().requests, 0, "nobody has spoken to it");
    assert!(stack.lab.counters().mutations.is_empty());

    // A kind that no executor of the site takes waits, and nothing is done.
    let job = stack.approved(stack.firmware("159", &["lab-1"])).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(stack.runs(&job).await["lab-1"]["epoch"], 0, "{}", stack.story(&job).await);
    assert!(stack.lab.counters().mutations.is_empty());
}
