//! The login budget: two executors and a wrong password never reach a BMC's blocking threshold.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rackhand_tests::{TestServer, TestSite, database::run as run_on, site::TestExecutor};
use serde_json::{Value, json};

/// A site, the scope of its executor, and its servers and their BMCs, in the same order.
struct Rack {
    site: TestSite,
    one: Value,
    servers: Vec<String>,
    bmcs: Vec<Value>,
}

impl Rack {
    /// At most ten servers: they are ordered by number.
    async fn of(servers: usize) -> Self {
        let site = TestSite::new().await;
        let one = site.executor("one").await.scope;
        let servers = site.servers(servers).await;
        let bmcs = site.database.value("select array_agg(id order by url) from rackhand.bmc").await;
        Self { site, one, servers, bmcs: bmcs.as_array().unwrap().clone() }
    }
}

/// By the executor that owns the BMC.
async fn attempt(site: &TestSite, executor: &Value, bmc: &Value, step: &str) -> Value {
    own(site, executor, bmc).await;
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

async fn own(site: &TestSite, executor: &Value, bmc: &Value) {
    let (executor, bmc) = (executor["executor"].as_str().unwrap(), bmc.as_str().unwrap());
    let own = "update rackhand.bmc set owner_executor = $1::text::uuid where id = $2::text::uuid";
    site.database.owner.execute(own, &[&executor, &bmc]).await.unwrap();
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
    let earlier = "update rackhand.credential set created_at = now() - interval '1 day'";
    site.database.owner.execute(earlier, &[]).await.unwrap();
    site.admin("credential_put", json!({"site_id": site.id, "name": "bmc", "version": 2, "sealed": "bmV3"}))
        .await;
    let stored = "select created_at > now() - interval '1 hour' from rackhand.credential";
    assert_eq!(site.database.value(stored).await, true, "as old as its version");
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
    let Rack { site, one, bmcs, .. } = Rack::of(1).await;
    let bmc = &bmcs[0];
    for allowed in [true, true, false, false] {
        assert_eq!(attempt(&site, &one, bmc, "reserve").await["allowed"], allowed);
    }
}

#[tokio::test]
async fn a_proven_credential_is_not_held_back() {
    let Rack { site, one, bmcs, .. } = Rack::of(2).await;
    attempt(&site, &one, &bmcs[0], "reserve").await;
    attempt(&site, &one, &bmcs[0], "accepted").await;
    for _ in 0..5 {
        assert_eq!(attempt(&site, &one, &bmcs[0], "reserve").await["allowed"], true);
    }
    assert_eq!(attempt(&site, &one, &bmcs[1], "reserve").await["allowed"], true);
}

#[tokio::test]
async fn to_a_bmc_at_another_address_nothing_is_proven_and_refusals_count_still() {
    let Rack { site, one, bmcs, .. } = Rack::of(2).await;
    let names = site.database.value("select array_agg(name order by name) from rackhand.server").await;
    let names = names.as_array().unwrap();
    let uses = "select count(*) from rackhand.credential_use";
    let first = site.database.value("select server_id from rackhand.bmc order by url limit 1").await;
    let entry = |n: usize, url: &str, ipmi: Option<&str>, key: &str| {
        let server = json!({"index": 0, "name": names[n], "bmc_url": url, "ipmi": ipmi,
            "credential_id": site.credential, "spki_sha256": key.repeat(32), "tags": []});
        json!({"site_id": site.id, "servers": [server], "replace": true})
    };
    attempt(&site, &one, &bmcs[1], "reserve").await;
    attempt(&site, &one, &bmcs[1], "accepted").await;
    attempt(&site, &one, &bmcs[0], "reserve").await;
    attempt(&site, &one, &bmcs[0], "rejected").await;
    assert_eq!(site.database.value(uses).await, 2);
    let changed = site.admin("servers_upsert", entry(0, "https://10.9.9.9", None, "11")).await;
    assert_eq!(changed["changed"], 1, "{changed}");
    assert_eq!(site.database.value(uses).await, 2);

    // The same at one address, with another key or IPMI address.
    let usage = format!(
        "select jsonb_build_array(u.proven_at is not null, u.failures) from rackhand.credential_use u where u.bmc_id = {}",
        bmcs[0].to_string().replace('"', "'")
    );
    assert_eq!(site.database.value(&usage).await, json!([false, 1]));
    for (ipmi, key) in [(Some("10.9.9.9"), "11"), (Some("10.9.9.9"), "22")] {
        attempt(&site, &one, &bmcs[0], "reserve").await;
        attempt(&site, &one, &bmcs[0], "accepted").await;
        assert_eq!(site.database.value(&usage).await, json!([true, 0]));
        site.admin("servers_upsert", entry(0, "https://10.9.9.9", ipmi, key)).await;
        assert_eq!(site.database.value(&usage).await, json!([false, 0]), "{ipmi:?} {key}");
    }
    attempt(&site, &one, &bmcs[0], "reserve").await;
    attempt(&site, &one, &bmcs[0], "rejected").await;
    site.admin("servers_upsert", entry(0, "https://10.9.9.9", None, "33")).await;
    assert_eq!(site.database.value(&usage).await, json!([false, 1]));

    // A login that ends while the address changes is the former machine's.
    attempt(&site, &one, &bmcs[0], "reserve").await;
    let mut owner = site.database.connect_owner().await;
    let moving = owner.transaction().await.unwrap();
    let moved = entry(0, "https://10.9.9.8", None, "22");
    let statement =
        "select rackhand.run($1::text::jsonb, 'select rackhand.servers_upsert($1)', $2::text::jsonb)";
    moving.execute(statement, &[&site.admin.to_string(), &moved.to_string()]).await.unwrap();
    let connection = site.database.connect().await;
    let step = json!({"bmc_id": bmcs[0], "credential_id": site.credential, "version": 1, "step": "accepted"});
    let accepted = run_on(&connection, &one, "credential_attempt", step);
    let changed = async {
        site.database.until_waiting(1).await;
        moving.commit().await.unwrap();
    };
    let (accepted, ()) = tokio::join!(accepted, changed);
    accepted.unwrap();
    assert_eq!(site.database.value(&usage).await, json!([false, 1]), "the former machine has accepted it");

    // As is one that ends after another key was set.
    site.admin("credential_try_again", json!({"server_id": first})).await;
    attempt(&site, &one, &bmcs[0], "reserve").await;
    site.admin("servers_upsert", entry(0, "https://10.9.9.8", None, "44")).await;
    attempt(&site, &one, &bmcs[0], "accepted").await;
    assert_eq!(site.database.value(&usage).await, json!([false, 0]));
    attempt(&site, &one, &bmcs[0], "reserve").await;
    attempt(&site, &one, &bmcs[0], "accepted").await;
    assert_eq!(site.database.value(&usage).await, json!([true, 0]));
}

#[tokio::test]
async fn attempts_without_an_answer_are_forgotten_one_in_ten_minutes() {
    let Rack { site, one, bmcs, .. } = Rack::of(1).await;
    let bmc = &bmcs[0];
    let later = async || {
        let passed = "update rackhand.credential_use set reserved_at = reserved_at - interval '10 minutes',
            unanswered_at = unanswered_at - interval '10 minutes'";
        site.database.owner.execute(passed, &[]).await.unwrap();
    };
    for allowed in [true, true, false] {
        assert_eq!(attempt(&site, &one, bmc, "reserve").await["allowed"], allowed);
    }
    let barred = attempt(&site, &one, bmc, "reserve").await;
    assert!(barred["retry_after_ms"].as_u64().is_some(), "not for good: {barred}");
    for _ in 0..3 {
        later().await;
        assert_eq!(attempt(&site, &one, bmc, "reserve").await["allowed"], true);
        assert_eq!(attempt(&site, &one, bmc, "reserve").await["allowed"], false);
    }
    // A refusal is not forgotten.
    attempt(&site, &one, bmc, "rejected").await;
    later().await;
    later().await;
    later().await;
    assert_eq!(attempt(&site, &one, bmc, "reserve").await["allowed"], true);
    assert_eq!(attempt(&site, &one, bmc, "reserve").await["allowed"], false);
}

#[tokio::test]
async fn a_person_lets_one_bmc_be_tried_again_and_is_told_when_it_refused() {
    let Rack { site, one, servers, bmcs } = Rack::of(2).await;
    for _ in 0..2 {
        attempt(&site, &one, &bmcs[0], "reserve").await;
        attempt(&site, &one, &bmcs[0], "rejected").await;
    }
    let refused = attempt(&site, &one, &bmcs[0], "reserve").await;
    let told = refused["detail"].as_str().unwrap();
    assert!(told.contains(" UTC. Nothing was sent since."), "{told}");
    let credential = site.database.value("select to_jsonb(c) from rackhand.credential c").await;
    assert_ne!(credential["refused_at"], Value::Null);
    let context = json!({"site_id": site.id, "targets": servers});
    let context = site.admin("job_context", context).await;
    assert!(context["servers"][0]["refused_at"].as_str().unwrap().ends_with(" UTC"), "{context}");
    assert_eq!(context["servers"][1]["refused_at"], Value::Null);
    assert_eq!(context["credentials"][site.credential.as_str()]["suspended"], refused["detail"]);

    let first = json!({"server_id": servers[0]});
    site.admin("credential_try_again", first).await;
    assert_eq!(attempt(&site, &one, &bmcs[0], "reserve").await["allowed"], true);
    let credential = site.database.value("select to_jsonb(c) from rackhand.credential c").await;
    assert_eq!((&credential["refused_at"], &credential["suspended_at"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn a_server_that_refused_nothing_ends_no_suspension_and_the_others_are_named() {
    let Rack { site, one, servers, bmcs } = Rack::of(8).await;
    let names = site
        .database
        .value(
            "select array_agg(v.name order by b.url) from rackhand.bmc b join rackhand.server v
        on v.id = b.server_id",
        )
        .await;
    let names: Vec<&str> = names.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    for bmc in &bmcs[1..] {
        attempt(&site, &one, bmc, "reserve").await;
        attempt(&site, &one, bmc, "accepted").await;
    }
    for bmc in &bmcs[1..] {
        attempt(&site, &one, bmc, "rejected").await;
    }
    let again = async |server: &String| {
        site.database.run(&site.admin, "credential_try_again", json!({"server_id": server})).await
    };
    let refused = again(&servers[0]).await.unwrap_err().detail;
    let told = format!("The BMC of {} has refused nothing that counts: nothing was changed. ", names[0]);
    assert!(refused.starts_with(&told), "{refused}");
    let refusers = format!("refused by the BMCs of {} and 2 more, last on ", names[1..6].join(", "));
    assert!(refused.contains(&refusers), "{refused}");
    for (server, name) in servers.iter().zip(&names).take(6).skip(1) {
        let became = again(server).await.unwrap();
        assert_eq!(became["changed"], true);
        let suspended = became["suspended"].as_str().unwrap();
        assert!(suspended.contains("refused by the BMCs of ") && !suspended.contains(name), "{suspended}");
    }
    assert_eq!(again(&servers[6]).await.unwrap(), json!({"changed": true, "suspended": null}));
}

/// Those that are gone, or have another credential now, keep none suspended.
#[tokio::test]
async fn refusals_of_removed_servers_keep_no_credential_suspended() {
    let site = TestSite::new().await;
    let one = site.executor("one").await.scope;
    let servers = site.servers(3).await;
    for server in &servers[1..] {
        let bmc =
            site.database.value(&format!("select id from rackhand.bmc where server_id = '{server}'")).await;
        attempt(&site, &one, &bmc, "reserve").await;
        attempt(&site, &one, &bmc, "rejected").await;
    }
    let again = async || {
        site.database.run(&site.admin, "credential_try_again", json!({"server_id": servers[0]})).await
    };
    assert!(again().await.unwrap_err().detail.contains("refused by the BMCs of "));
    for server in &servers[1..] {
        site.admin("server_delete", json!({"id": server})).await;
    }
    assert_eq!(again().await, Ok(json!({"changed": true, "suspended": null})));
    let bmc = "select id from rackhand.bmc where server_id = '";
    let bmc = site.database.value(&format!("{bmc}{}'", servers[0])).await;
    attempt(&site, &one, &bmc, "reserve").await;
    attempt(&site, &one, &bmc, "rejected").await;
    assert_eq!(site.database.value("select suspended_at from rackhand.credential").await, Value::Null);
}

/// A BMC has an old refusal, and its executor presents the new version, when it gets another credential.
#[tokio::test]
async fn an_attempt_under_way_is_not_forgotten_with_older_ones_of_its_bmc() {
    let Rack { site, one, servers, bmcs } = Rack::of(2).await;
    attempt(&site, &one, &bmcs[0], "reserve").await;
    attempt(&site, &one, &bmcs[0], "rejected").await;
    site.admin("credential_put", json!({"site_id": site.id, "name": "bmc", "version": 2, "sealed": "bmV3"}))
        .await;
    let of_second = async |bmc: &Value, step: &str| {
        own(&site, &one, bmc).await;
        let args = json!({"bmc_id": bmc, "credential_id": site.credential, "version": 2, "step": step});
        site.database.run(&one, "credential_attempt", args).await.unwrap()
    };
    for (bmc, step) in [(&bmcs[1], "reserve"), (&bmcs[1], "rejected"), (&bmcs[0], "reserve")] {
        of_second(bmc, step).await;
    }
    let other = "update rackhand.bmc set credential_id = null where id = $1::text::uuid";
    site.database.owner.execute(other, &[&bmcs[0].as_str()]).await.unwrap();
    let again = site.admin("credential_try_again", json!({"server_id": servers[1]})).await;
    assert_eq!(again["changed"], true);
    of_second(&bmcs[0], "rejected").await;
    let counted = "select failures from rackhand.credential_use where version = 2";
    assert_eq!(site.database.value(counted).await, 1);
}

/// Somebody gives a BMC the credential back that it has refused, while another person lets it be tried again elsewhere.
#[tokio::test]
async fn refusals_of_a_bmc_that_gets_the_credential_back_meanwhile_count() {
    let Rack { site, one, servers, bmcs } = Rack::of(2).await;
    for step in ["reserve", "rejected", "reserve", "rejected"] {
        attempt(&site, &one, &bmcs[0], step).await;
    }
    let of_first = bmcs[0].as_str().unwrap();
    let set = |to: &str| format!("update rackhand.bmc set credential_id = {to} where id = '{of_first}'");
    site.database.owner.execute(&set("null"), &[]).await.unwrap();
    let mut owner = site.database.connect_owner().await;
    let giving = owner.transaction().await.unwrap();
    giving.execute(&set(&format!("'{}'", site.credential)), &[]).await.unwrap();
    let again = site.database.run(&site.admin, "credential_try_again", json!({"server_id": servers[1]}));
    let given = async {
        site.database.until_waiting(1).await;
        giving.commit().await.unwrap();
    };
    let both = async { tokio::join!(again, given) };
    let (again, ()) =
        tokio::time::timeout(Duration::from_secs(30), both).await.expect("one waits for the other");
    assert!(again.is_err(), "{again:?}");
    let counted = "select jsonb_build_array(u.failures, c.suspended_at is not null)
        from rackhand.credential_use u join rackhand.credential c on c.id = u.credential_id";
    assert_eq!(site.database.value(counted).await, json!([2, true]));
}

/// Who renews the certificate of a BMC still reads that it refused.
#[tokio::test]
async fn a_new_tls_key_hides_no_refusal_from_plans_and_another_address_does() {
    let Rack { site, one, servers, bmcs } = Rack::of(1).await;
    attempt(&site, &one, &bmcs[0], "reserve").await;
    attempt(&site, &one, &bmcs[0], "rejected").await;
    let name = site.database.value("select name from rackhand.server").await;
    let url = site.database.value("select url from rackhand.bmc").await;
    for (address, shown) in [(url.as_str().unwrap(), true), ("https://10.77.0.1", false)] {
        let server = json!({"index": 0, "name": name, "bmc_url": address, "credential_id": site.credential,
            "spki_sha256": "77".repeat(32), "tags": []});
        let put = json!({"site_id": site.id, "servers": [server], "replace": true});
        assert_eq!(site.admin("servers_upsert", put).await["changed"], 1);
        let context = json!({"site_id": site.id, "targets": servers});
        let context = site.admin("job_context", context).await;
        assert_eq!(context["servers"][0]["refused_at"].is_string(), shown, "{address}: {context}");
    }
}

/// A server that is removed and registered again is the same BMC, whoever counts.
#[tokio::test]
async fn a_bmc_that_is_registered_again_and_again_is_not_locked() {
    let site = TestSite::new().await;
    let one = site.executor("one").await.scope;
    let mut refused = 0;
    for _ in 0..6 {
        let server = site.servers(1).await.remove(0);
        let bmc = format!("select id from rackhand.bmc where server_id = '{server}'");
        let bmc = site.database.value(&bmc).await;
        if attempt(&site, &one, &bmc, "reserve").await["allowed"] == true {
            refused += 1;
            attempt(&site, &one, &bmc, "rejected").await;
        }
        site.admin("server_delete", json!({"id": server})).await;
    }
    assert_eq!(refused, 2);
}

/// Its address goes there and back between the refusals.
#[tokio::test]
async fn a_bmc_that_is_moved_away_and_back_is_not_locked() {
    let Rack { site, one, bmcs, .. } = Rack::of(1).await;
    let bmc = &bmcs[0];
    let name = site.database.value("select name from rackhand.server").await;
    let url = site.database.value("select url from rackhand.bmc").await;
    let mut refused = 0;
    for _ in 0..4 {
        if attempt(&site, &one, bmc, "reserve").await["allowed"] == true {
            refused += 1;
            attempt(&site, &one, bmc, "rejected").await;
        }
        for to in ["https://10.77.0.1", url.as_str().unwrap()] {
            let server = json!({"index": 0, "name": name, "bmc_url": to, "ipmi": null,
                "credential_id": site.credential, "spki_sha256": "77".repeat(32), "tags": []});
            let moved = json!({"site_id": site.id, "servers": [server], "replace": true});
            assert_eq!(site.admin("servers_upsert", moved).await["changed"], 1);
        }
    }
    assert_eq!(refused, 2);
}

/// What a removed server refused counts against no other one once a person has looked, also before anything is suspended.
#[tokio::test]
async fn refusals_of_removed_servers_are_forgotten_before_they_do_harm() {
    let site = TestSite::new().await;
    let one = site.executor("one").await.scope;
    let servers = site.servers(2).await;
    let mut bmcs = Vec::new();
    for server in &servers {
        let of_server = format!("select id from rackhand.bmc where server_id = '{server}'");
        bmcs.push(site.database.value(&of_server).await);
    }
    attempt(&site, &one, &bmcs[0], "reserve").await;
    attempt(&site, &one, &bmcs[0], "rejected").await;
    // An executor has died over another try.
    attempt(&site, &one, &bmcs[0], "reserve").await;
    site.admin("server_delete", json!({"id": servers[0]})).await;
    let again = || async {
        site.admin("credential_try_again", json!({"server_id": servers[1]})).await["changed"] == true
    };
    assert!(!again().await, "that try may still be under way");
    let passed = "update rackhand.credential_use set reserved_at = reserved_at - interval '11 minutes'";
    site.database.owner.execute(passed, &[]).await.unwrap();
    assert!(again().await);
    let said = "select message from rackhand.event where kind = 'credential.try_again'";
    let said = site.database.value(said).await.to_string();
    assert!(
        said.contains("at BMCs that no longer use it do not count any more; it is not suspended"),
        "{said}"
    );
    assert!(!again().await);
    for step in ["reserve", "accepted", "reserve", "rejected"] {
        attempt(&site, &one, &bmcs[1], step).await;
    }
    assert_eq!(site.database.value("select suspended_at is null from rackhand.credential").await, true);
}

/// Refusals of an old version are nothing that can be forgotten of the present one.
#[tokio::test]
async fn a_refusal_of_an_old_version_is_none_of_the_present_one() {
    let site = TestSite::new().await;
    let one = site.executor("one").await.scope;
    let servers = site.servers(3).await;
    for server in &servers {
        let bmc = format!("select id from rackhand.bmc where server_id = '{server}'");
        let bmc = site.database.value(&bmc).await;
        attempt(&site, &one, &bmc, "reserve").await;
        attempt(&site, &one, &bmc, "rejected").await;
        // The first refusal was one of an earlier version.
        let earlier = "update rackhand.credential_use u set version = 0 where bmc_id = $1::text::uuid";
        if *server == servers[0] {
            site.database.owner.execute(earlier, &[&bmc.as_str()]).await.unwrap();
        }
    }
    let again = json!({"server_id": servers[0]});
    let refused = site.database.run(&site.admin, "credential_try_again", again).await.unwrap_err();
    assert!(refused.detail.contains("has refused nothing that counts"), "{}", refused.detail);
}

#[tokio::test]
async fn where_no_executor_was_refused_trying_again_changes_and_notes_nothing() {
    let Rack { site, one, servers, bmcs } = Rack::of(1).await;
    let bmc = &bmcs[0];
    attempt(&site, &one, bmc, "reserve").await;
    attempt(&site, &one, bmc, "accepted").await;
    let state = async || {
        let uses = "select jsonb_build_array((select jsonb_agg(u) from rackhand.credential_use u),
            (select count(*) from rackhand.event e where e.kind = 'credential.try_again'))";
        site.database.value(uses).await
    };
    let before = state().await;
    assert_eq!(before[1], 0);
    site.admin("credential_try_again", json!({"server_id": servers[0]})).await;
    assert_eq!(state().await, before);
    attempt(&site, &one, bmc, "reserve").await;
    attempt(&site, &one, bmc, "rejected").await;
    site.admin("credential_try_again", json!({"server_id": servers[0]})).await;
    assert_eq!(state().await, json!([null, 1]));
}

#[tokio::test]
async fn only_who_speaks_to_a_bmc_may_say_how_a_login_went() {
    let site = TestSite::new().await;
    let (one, two) = (site.executor("one").await.scope, site.executor("two").await.scope);
    site.servers(1).await;
    let bmc = site.database.value("select id from rackhand.bmc").await;
    let ask = async |executor: &Value, step: &str| {
        let args = json!({"bmc_id": bmc, "credential_id": site.credential, "version": 1, "step": step});
        site.database.run(executor, "credential_attempt", args).await
    };
    own(&site, &one, &bmc).await;
    assert_eq!(ask(&two, "reserve").await.unwrap()["allowed"], false, "not the owner");
    assert_eq!(ask(&one, "reserve").await.unwrap()["allowed"], true);
    for step in ["accepted", "rejected", "not_sent"] {
        assert_eq!(ask(&two, step).await.unwrap()["allowed"], false, "{step} by another executor");
    }
    let usage = site.database.value("select to_jsonb(u) from rackhand.credential_use u").await;
    assert_eq!((&usage["failures"], &usage["proven_at"]), (&json!(0), &Value::Null));
    assert_eq!(ask(&one, "rejected").await.unwrap()["allowed"], true);
    assert_eq!(ask(&one, "rejected").await.unwrap()["allowed"], false, "one attempt is refused once");
    site.database.owner.execute("update rackhand.executor set state = 'joining'", &[]).await.unwrap();
    assert_eq!(ask(&one, "reserve").await.unwrap_err().code, "executor-joining");
}

#[tokio::test]
async fn an_attempt_that_is_refused_leaves_no_row() {
    let site = TestSite::new().await;
    let (one, two) = (site.executor("one").await.scope, site.executor("two").await.scope);
    site.servers(1).await;
    let bmc = site.database.value("select id from rackhand.bmc").await;
    own(&site, &one, &bmc).await;
    for (executor, version, step) in [
        (&two, 1, "reserve"),
        (&one, 2, "reserve"),
        (&one, 99, "reserve"),
        (&one, 1, "rejected"),
        (&two, 7, "accepted"),
    ] {
        let args = json!({"bmc_id": bmc, "credential_id": site.credential, "version": version, "step": step});
        let answer = site.database.run(executor, "credential_attempt", args).await.unwrap();
        assert_eq!(answer["allowed"], false, "{step} of version {version}");
    }
    assert_eq!(site.database.value("select count(*) from rackhand.credential_use").await, 0);
    assert_eq!(attempt(&site, &one, &bmc, "reserve").await["allowed"], true);
    assert_eq!(site.database.value("select count(*) from rackhand.credential_use").await, 1);
}

#[tokio::test]
async fn a_plan_says_which_servers_the_credential_is_not_sealed_for() {
    let site = TestSite::new().await;
    let server = TestServer::start(&site).await;
    let token = server.token(&site.admin);
    let servers = site.servers(2).await;
    let sealed = STANDARD.encode([7; 400]);
    let set = async |version: u32, sealed_for: Value| {
        let mut body = json!({"site_id": site.id, "name": "bmc", "version": version, "sealed": sealed});
        if !sealed_for.is_null() {
            body["sealed_for"] = sealed_for;
        }
        server.call("POST", "/v1/credentials", Some(&token), Some(&body)).await
    };
    let blocked = async || {
        let job = json!({"site_id": site.id, "kind": "power", "params": {"action": "on"}, "targets": servers,
            "reason": "a test"});
        let planned = server.call("POST", "/v1/jobs", Some(&token), Some(&job)).await;
        assert_eq!(planned.status, 201, "{planned:?}");
        let targets = planned.body["plan"]["targets"].as_array().unwrap().clone();
        targets.iter().map(|target| target["blockers"].clone()).collect::<Vec<_>>()
    };
    let shown = async || {
        let path = format!("/v1/credentials?site={}", site.id);
        let shown = server.call("GET", &path, Some(&token), None).await.body["items"][0].clone();
        json!([shown["address_count"], shown["addresses"]])
    };
    let nothing = json!([null, null]);
    assert_eq!(
        (shown().await, blocked().await),
        (nothing.clone(), vec![json!([]), json!([])]),
        "nothing is said"
    );

    let first = json!([{"url": "https://10.0.0.1:1000", "spki_sha256": "00".repeat(32)}]);
    let stored = set(2, first.clone()).await;
    assert_eq!(stored.status, 201, "{stored:?}");
    assert_eq!(
        (&stored.body["address_count"], &stored.body["addresses"]),
        (&json!(1), &json!(["https://10.0.0.1:1000"]))
    );
    assert_eq!(set(2, first).await.body, stored.body, "the same again");
    assert_eq!(shown().await, json!([1, ["https://10.0.0.1:1000"]]));
    let text = "Its credential bmc is not sealed for https://10.0.0.1:1001: seal it again for that address too, or \
        register the server with another one.";
    assert_eq!(blocked().await, [json!([]), json!([text])]);

    for wrong in [
        json!([]),
        json!([{"url": "http://10.0.0.1", "spki_sha256": "00".repeat(32)}]),
        json!([{"url": "https://10.0.0.1"}]),
        json!([{"url": "https://10.0.0.1", "spki_sha256": "00".repeat(32), "password": "x"}]),
    ] {
        let refused = set(3, wrong.clone()).await;
        assert_eq!(refused.body["code"], "invalid-request", "{wrong} {refused:?}");
    }
    // The next version says nothing again: what was said of the one before is gone.
    assert_eq!(set(3, Value::Null).await.status, 201);
    assert_eq!((shown().await, blocked().await), (nothing, vec![json!([]), json!([])]));
}

#[tokio::test]
async fn a_list_is_not_longer_than_what_is_sealed() {
    let site = TestSite::new().await;
    let server = TestServer::start(&site).await;
    let token = server.token(&site.admin);
    let targets: Vec<_> = (0..100).map(|n| json!({"url": format!("ipmi://10.0.0.{n}")})).collect();
    let bytes = json!(targets).to_string().len();
    let put = async |text: usize| {
        // Beside the text, a box has the sender's key and a tag.
        let body = json!({"site_id": site.id, "name": "long", "version": 1,
            "sealed": STANDARD.encode(vec![7; 48 + text]), "sealed_for": targets});
        server.call("POST", "/v1/credentials", Some(&token), Some(&body)).await
    };
    let refused = put(bytes - 1).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (422, "invalid-request"), "{refused:?}");
    assert_eq!(refused.body["fields"][0]["field"], "sealed_for", "{refused:?}");
    let stored = put(bytes).await;
    assert_eq!(stored.status, 201, "{stored:?}");
    assert_eq!(stored.body["address_count"], 100);
    assert_eq!(stored.body["addresses"].as_array().unwrap().len(), 20);
    assert_eq!(stored.body["addresses"][19], "ipmi://10.0.0.19");
}

/// Credentials of the site beside its own, each with a list of `targets` that no server of the site is in.
async fn with_long_lists(site: &TestSite, credentials: i32, targets: i32) {
    let insert = "insert into rackhand.credential (site_id, name, version, sealed, sealed_for)
        select $1::text::uuid, 'long-' || g, 1, 'c2VhbGVk',
            (select jsonb_agg(jsonb_build_object('url', 'https://10.1.0.1:' || n, 'spki_sha256', repeat('00', 32)))
             from generate_series(1, $3) n)
        from generate_series(1, $2) g";
    site.database.owner.execute(insert, &[&site.id, &credentials, &targets]).await.unwrap();
}

#[tokio::test]
async fn a_page_of_credentials_with_long_lists_is_small() {
    let site = TestSite::new().await;
    let server = TestServer::start(&site).await;
    with_long_lists(&site, 50, 3000).await;
    let page = server.call("GET", "/v1/credentials?limit=100", Some(&server.token(&site.admin)), None).await;
    assert_eq!(page.status, 200, "{page:?}");
    let items = page.body["items"].as_array().unwrap();
    assert_eq!((items.len(), &items[50]["address_count"]), (51, &json!(3000)));
    assert_eq!(items[50]["addresses"].as_array().unwrap().len(), 20);
    let bytes = page.body.to_string().len();
    assert!(bytes < 100_000, "{bytes} bytes");
}

#[tokio::test]
async fn a_plan_looks_at_50_000_targets_of_credentials_at_most() {
    let site = TestSite::new().await;
    let server = TestServer::start(&site).await;
    let servers = site.servers(5).await;
    with_long_lists(&site, 5, 12_500).await;
    let spread = "update rackhand.bmc b set credential_id = c.id
        from (select id, row_number() over (order by id) as place from rackhand.credential where name <> 'bmc') c,
            rackhand.server v
        where v.id = b.server_id and v.name = 'node-000' || (c.place - 1)";
    assert_eq!(site.database.owner.execute(spread, &[]).await.unwrap(), 5);
    let context = site.admin("job_context", json!({"site_id": site.id, "targets": servers})).await;
    let given: Vec<_> = context["credentials"]
        .as_object()
        .unwrap()
        .values()
        .map(|credential| credential["sealed_for"].as_array().map_or(0, Vec::len))
        .collect();
    assert_eq!(given, [12_500, 12_500, 12_500, 12_500, 0]);

    let job = json!({"site_id": site.id, "kind": "power", "params": {"action": "on"}, "targets": servers,
        "reason": "a test"});
    let planned = server.call("POST", "/v1/jobs", Some(&server.token(&site.admin)), Some(&job)).await;
    assert_eq!(planned.status, 201, "{planned:?}");
    let blockers: Vec<_> = planned.body["plan"]["targets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|target| target["blockers"].as_array().unwrap().len())
        .collect();
    assert_eq!(blockers, [1, 1, 1, 1, 0], "the executor refuses the last");
}

/// A site of five BMCs that have all accepted the password, and which executor owns them.
async fn proven_everywhere() -> (TestSite, TestExecutor, Vec<String>, Vec<Value>) {
    let site = TestSite::new().await;
    let executor = site.executor("one").await;
    let servers = site.servers(5).await;
    let ids = json!(servers);
    let bmcs = format!(
        "select jsonb_agg(b.id order by s.place) from jsonb_array_elements_text('{ids}') with ordinality as s (id, place)
        join rackhand.bmc b on b.server_id = s.id::uuid"
    );
    let bmcs = site.database.value(&bmcs).await.as_array().unwrap().clone();
    for bmc in &bmcs {
        attempt(&site, &executor.scope, bmc, "reserve").await;
        attempt(&site, &executor.scope, bmc, "accepted").await;
    }
    (site, executor, servers, bmcs)
}

/// What the next grants say of the credential.
fn proven(answer: &Value) -> Vec<Value> {
    let grants = answer["grants"].as_array().unwrap();
    grants.iter().map(|grant| grant["target"]["credential"]["proven"].clone()).collect()
}

/// The password was changed behind BMCs that had all accepted it.
#[tokio::test]
async fn a_suspended_credential_is_proven_nowhere() {
    let (site, executor, servers, bmcs) = proven_everywhere().await;
    let one = executor.scope.clone();
    let answer = site.lease(&executor, &[], 0).await;
    assert_eq!(answer["suspended"], json!([]));
    for bmc in &bmcs[..2] {
        attempt(&site, &one, bmc, "rejected").await;
    }
    site.job("inventory", &servers, 10).await;
    let answer = site.lease(&executor, &[], 10).await;
    assert_eq!(proven(&answer), vec![json!(false); 5]);
    assert_eq!(answer["suspended"], json!([{"id": site.credential, "version": 1}]), "{answer}");
    // Who asks is told why.
    let held_back = attempt(&site, &one, &bmcs[4], "reserve").await;
    assert_eq!(held_back["allowed"], false);
    assert!(held_back["detail"].as_str().unwrap().contains("is suspended"), "{held_back}");
}

/// Two BMCs refused it, and a person lets one of them be tried again: until one accepts it, it is presented to one at a
/// time everywhere, as if nobody had accepted it before.
#[tokio::test]
async fn one_bmc_that_is_tried_again_proves_nothing_for_others() {
    let (site, executor, servers, bmcs) = proven_everywhere().await;
    let one = executor.scope.clone();
    for bmc in &bmcs[..2] {
        attempt(&site, &one, bmc, "rejected").await;
    }
    site.admin("credential_try_again", json!({"server_id": servers[0]})).await;
    site.job("inventory", &servers, 10).await;
    let answer = site.lease(&executor, &[], 10).await;
    assert_eq!(answer["suspended"], json!([]));
    assert_eq!(proven(&answer), vec![json!(false); 5]);
    assert_eq!(attempt(&site, &one, &bmcs[0], "reserve").await["allowed"], true);
    let waits = attempt(&site, &one, &bmcs[4], "reserve").await;
    assert_eq!((&waits["allowed"], waits["retry_after_ms"].is_u64()), (&json!(false), true), "{waits}");
    attempt(&site, &one, &bmcs[0], "accepted").await;
    assert_eq!(attempt(&site, &one, &bmcs[3], "reserve").await["allowed"], true);
    assert_eq!(attempt(&site, &one, &bmcs[4], "reserve").await["allowed"], true);
}

/// Logins were under way when the version was suspended. One that was accepted may be from before the password was
/// changed; one that was refused without having been asked for counts.
#[tokio::test]
async fn what_is_heard_after_the_suspension_proves_nothing_and_refuses_still() {
    let Rack { site, one, bmcs, .. } = Rack::of(5).await;
    for bmc in &bmcs[..4] {
        attempt(&site, &one, bmc, "reserve").await;
        attempt(&site, &one, bmc, "accepted").await;
    }
    assert_eq!(attempt(&site, &one, &bmcs[4], "reserve").await["allowed"], true);
    for bmc in &bmcs[..2] {
        attempt(&site, &one, bmc, "rejected").await;
    }
    assert_eq!(attempt(&site, &one, &bmcs[4], "accepted").await["allowed"], true);
    assert_eq!(attempt(&site, &one, &bmcs[2], "rejected").await["allowed"], true);
    let state = "select jsonb_build_array(count(proven_at), sum(failures),
        (select count(*) from rackhand.credential where suspended_at is not null)) from rackhand.credential_use";
    assert_eq!(site.database.value(state).await, json!([0, 3, 1]));
    let server = "select to_jsonb(b.server_id) from rackhand.bmc b order by url limit 1 offset";
    for (offset, left) in [(0, json!([0, 2, 1])), (1, json!([0, 1, 0]))] {
        let server = site.database.value(&format!("{server} {offset}")).await;
        site.admin("credential_try_again", json!({"server_id": server})).await;
        assert_eq!(site.database.value(state).await, left);
    }
}

/// An executor that was taken over says by turns that a BMC has accepted and refused the password.
#[tokio::test]
async fn refusals_that_an_executor_makes_up_fill_no_trail() {
    let site = TestSite::new().await;
    let hostile = site.executor("one").await.scope;
    site.servers(1).await;
    let bmc = site.database.value("select to_jsonb(id) from rackhand.bmc").await;
    for _ in 0..110 {
        for step in ["reserve", "accepted", "rejected"] {
            assert_eq!(attempt(&site, &hostile, &bmc, step).await["allowed"], true, "{step}");
        }
    }
    let events = "select jsonb_build_array(count(*), max(message) filter (where message like '%100th%'))
        from rackhand.event where kind = 'credential.rejected'";
    let last = "https://10.0.0.1:1000 refused credential bmc version 1, for the 100th time. Further refusals of this \
        version by this BMC are not kept";
    assert_eq!(site.database.value(events).await, json!([100, last]));
}
