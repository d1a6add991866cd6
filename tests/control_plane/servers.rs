//! One row for each BMC: what has one owner has one session and one login budget.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rackhand_tests::{
    TestServer, TestSite,
    site::{granted, item},
};
use serde_json::{Value, json};

async fn register(site: &TestSite, name: &str, url: &str) -> Value {
    register_both(site, name, url, None).await
}

async fn register_both(site: &TestSite, name: &str, url: &str, ipmi: Option<&str>) -> Value {
    let server = entry(site, name, url, ipmi);
    site.admin("servers_upsert", json!({"site_id": site.id, "servers": [server]})).await
}

fn entry(site: &TestSite, name: &str, url: &str, ipmi: Option<&str>) -> Value {
    json!({"index": 0, "name": name, "bmc_url": url, "ipmi": ipmi, "credential_id": site.credential,
        "spki_sha256": null, "tags": []})
}

#[tokio::test]
async fn a_bmc_is_registered_once_whichever_system_the_address_names() {
    let site = TestSite::new().await;
    let system = "/redfish/v1/Systems/node-2";
    let first = register(&site, "node-1", "https://chassis.example/redfish/v1/Systems/node-1").await;
    assert_eq!(first["created"], 1, "{first}");
    for url in [
        "https://chassis.example",
        "https://Chassis.example:443",
        &format!("https://chassis.example{system}"),
        &format!("https://CHASSIS.example:443{system}"),
    ] {
        let second = register(&site, "node-2", url).await;
        assert_eq!(second["created"], 0, "{url}");
        assert_eq!(
            second["refused"][0]["detail"],
            "The BMC at https://chassis.example is the one of server node-1. A BMC is registered once, also where it \
             has several systems.",
        );
    }
    for (name, url) in [
        ("other port", format!("https://chassis.example:8443{system}")),
        ("other host", format!("https://chassis-2.example{system}")),
        ("ipv6", "https://[fd00::443]".to_owned()),
        ("ipv6 with a port", "https://[fd00::443]:4430".to_owned()),
    ] {
        assert_eq!(register(&site, name, &url).await["created"], 1, "{url}");
    }
    // The same server may name another of its systems; another server may not move there.
    let moved = async |name: &str, url: &str| {
        let servers = [entry(&site, name, url, None)];
        site.admin("servers_upsert", json!({"site_id": site.id, "servers": servers, "replace": true})).await
    };
    let other_system = moved("node-1", &format!("https://chassis.example{system}")).await;
    assert_eq!(other_system["changed"], 1, "{other_system}");
    let taken = moved("ipv6", "https://chassis.example").await;
    assert_eq!((&taken["changed"], &taken["refused"][0]["index"]), (&json!(0), &json!(0)), "{taken}");

    // A removed server's BMC is free again, as often as it is removed.
    for name in ["node-1", "node-2"] {
        let query = format!("select id from rackhand.server where name = '{name}'");
        let id = site.database.value(&query).await;
        site.admin("server_delete", json!({"id": id})).await;
        let again = register(&site, "node-2", &format!("https://chassis.example{system}")).await;
        assert_eq!(again["created"], 1, "{again}");
    }
}

/// However its IPMI is named: beside a Redfish service, or as its only address.
#[tokio::test]
async fn a_bmc_is_registered_once_whichever_way_its_ipmi_is_named() {
    let site = TestSite::new().await;
    let first = register_both(&site, "node-1", "https://10.0.0.1", Some("10.0.0.1")).await;
    assert_eq!(first["created"], 1, "{first}");
    for (url, ipmi) in [
        ("https://10.0.0.2", Some("10.0.0.1")),
        ("https://10.0.0.2", Some("10.0.0.1:623")),
        ("ipmi://10.0.0.1", None),
        ("ipmi://10.0.0.1:623", None),
    ] {
        let second = register_both(&site, "node-2", url, ipmi).await;
        assert_eq!(second["created"], 0, "{url} {ipmi:?}");
        let detail = second["refused"][0]["detail"].as_str().unwrap();
        assert!(detail.contains("server node-1"), "{detail}");
    }
    for (name, url, ipmi) in [
        ("no ipmi", "https://10.0.0.3", None),
        ("no ipmi either", "https://10.0.0.4", None),
        ("other port", "https://10.0.0.5", Some("10.0.0.1:624")),
        ("alone", "ipmi://10.0.0.6:1623", None),
    ] {
        assert_eq!(register_both(&site, name, url, ipmi).await["created"], 1, "{url}");
    }
    let same = register_both(&site, "node-1", "https://10.0.0.1", Some("10.0.0.1")).await;
    assert_eq!(same["unchanged"], 1, "{same}");
    let servers = [entry(&site, "node-1", "https://10.0.0.1", None)];
    let without = json!({"site_id": site.id, "servers": servers, "replace": true});
    let without = site.admin("servers_upsert", without).await;
    assert_eq!(without["changed"], 1, "{without}");
    assert_eq!(register_both(&site, "node-2", "ipmi://10.0.0.1", None).await["created"], 1, "free again");

    let id = site.database.value("select id from rackhand.server where name = 'node-2'").await;
    site.admin("server_delete", json!({"id": id})).await;
    assert_eq!(
        register_both(&site, "node-3", "ipmi://10.0.0.1", None).await["created"],
        1,
        "free after removal"
    );
}

#[tokio::test]
async fn another_address_for_a_name_that_is_taken_has_to_be_requested() {
    let site = TestSite::new().await;
    let (url, system) = ("https://bmc.example", "https://bmc.example/redfish/v1/Systems/2");
    register_both(&site, "node-1", url, Some("bmc.example")).await;
    let stored = async || {
        let query = "select jsonb_build_array(b.url, b.ipmi) from rackhand.bmc b join rackhand.server v
            on v.id = b.server_id where v.name = 'node-1'";
        site.database.value(query).await
    };
    for (count, (to, ipmi, said)) in [
        ("https://10.0.0.9", Some("bmc.example"), (url, "https://10.0.0.9")),
        ("https://bmc.example:8443", Some("bmc.example"), (url, "https://bmc.example:8443")),
        ("ipmi://bmc.example", None, (url, "ipmi://bmc.example")),
        (url, Some("10.0.0.9"), ("ipmi://bmc.example", "ipmi://10.0.0.9")),
        (url, Some("bmc.example:6230"), ("ipmi://bmc.example", "ipmi://bmc.example:6230")),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("neighbour-{count}");
        let mut neighbour = entry(&site, &name, &format!("https://{name}"), None);
        neighbour["index"] = json!(1);
        let servers = json!([entry(&site, "node-1", to, ipmi), neighbour]);
        let answer = site.admin("servers_upsert", json!({"site_id": site.id, "servers": servers})).await;
        let wanted = format!(
            "Server node-1 has its BMC at {}, not at {}. It was not changed. If the same server is now there, register \
             it with `replace` (`--replace` on the command line); else give another name.",
            said.0, said.1
        );
        assert_eq!(answer["refused"], json!([{"index": 0, "detail": wanted}]), "{answer}");
        assert_eq!((&answer["created"], &answer["changed"]), (&json!(1), &json!(0)), "{answer}");
        assert_eq!(stored().await, json!([url, "bmc.example"]));
    }

    // Left out and named again, it would be another one in two steps.
    let without = register_both(&site, "node-1", url, None).await;
    let wanted = "Server node-1 has its BMC at ipmi://bmc.example, too. It was not changed. To remove \
                  that address, register the server with `replace` (`--replace` on the command line).";
    assert_eq!(without["refused"], json!([{"index": 0, "detail": wanted}]), "{without}");
    assert_eq!(stored().await, json!([url, "bmc.example"]));

    // Where there was none, one more is no other one.
    register_both(&site, "node-2", "https://two.example", None).await;
    let added = register_both(&site, "node-2", "https://two.example", Some("two.example")).await;
    assert_eq!(added["changed"], 1, "{added}");

    // Another spelling is the same address.
    for ipmi in [Some("BMC.example:623"), Some("bmc.example")] {
        let same = register_both(&site, "node-1", "https://BMC.example:443", ipmi).await;
        assert_eq!(same["changed"], 1, "{ipmi:?} {same}");
    }
    let again = register_both(&site, "node-1", "https://BMC.example:443", Some("bmc.example")).await;
    assert_eq!(again["unchanged"], 1, "{again}");

    // One of the systems of the service that is registered already, and from then on no other one.
    let exact = register_both(&site, "node-1", system, Some("bmc.example")).await;
    assert_eq!(exact["changed"], 1, "{exact}");
    for other in [url, "https://bmc.example/redfish/v1/Systems/3"] {
        let other = register_both(&site, "node-1", other, Some("bmc.example")).await;
        assert_eq!(other["refused"].as_array().unwrap().len(), 1, "{other}");
        assert_eq!(stored().await, json!([system, "bmc.example"]));
    }

    let servers = [entry(&site, "node-1", "https://10.0.0.9", Some("10.0.0.9"))];
    let moved = json!({"site_id": site.id, "servers": servers, "replace": true});
    assert_eq!(site.admin("servers_upsert", moved.clone()).await["changed"], 1);
    assert_eq!(stored().await, json!(["https://10.0.0.9", "10.0.0.9"]));
    assert_eq!(site.admin("servers_upsert", moved).await["unchanged"], 1);
}

/// Why a server shows nothing stands on the server, and goes when it was read.
/// Whoever reads a plan or approves it sees names; an approval is worth what they show.
#[tokio::test]
async fn names_hide_nothing() {
    let site = TestSite::new().await;
    let server = TestServer::start(&site).await;
    let token = server.token(&site.admin);
    let sealed = STANDARD.encode([7; 64]);
    let hidden = ["lab-\u{202e}7-dorp", "lab\u{200b}-7", "lab-7\u{1b}[2K", "lab-7\n"];
    for (name, sound) in hidden.into_iter().map(|name| (name, false)).chain([("Zo\u{eb}", true)]) {
        let one = json!({"name": name, "bmc_url": "https://10.20.0.1", "credential_id": null,
            "spki_sha256": null, "tags": []});
        let bulk = json!({"site_id": site.id, "servers": [one]});
        let bulk = server.call("POST", "/v1/servers/bulk", Some(&token), Some(&bulk)).await;
        assert_eq!(bulk.body["created"], i32::from(sound), "{name:?} {bulk:?}");
        assert_eq!(bulk.body["refused"].as_array().unwrap().len(), usize::from(!sound), "{name:?} {bulk:?}");
        let credential = json!({"site_id": site.id, "name": name, "version": 1, "sealed": sealed});
        for (path, body) in [("/v1/credentials", credential), ("/v1/sites", json!({"name": name}))] {
            let answer = server.call("POST", path, Some(&token), Some(&body)).await;
            assert_eq!(answer.status == 201, sound, "{path} {name:?} {answer:?}");
            let field = if sound { Value::Null } else { json!("name") };
            assert_eq!(answer.body["fields"][0]["field"], field, "{path} {name:?} {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_server_shows_its_last_failure_until_it_is_read() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(1).await;
    let shown = async || {
        let statement = include_str!("../../functions/core/src/servers/read.sql");
        site.database.run(&site.admin, statement, json!({"id": servers[0]})).await.unwrap()
    };
    assert_eq!(shown().await["last_failure"], Value::Null);
    for (outcome, code) in [("failed", "bmc-unreachable"), ("unknown", "outcome-unknown"), ("succeeded", "")]
    {
        let job = site.job("inventory", &servers, 1).await;
        let runs = granted(&site.lease(&executor, &[], 1).await);
        let end = json!({"type": "finish", "outcome": outcome, "code": code, "detail": "no answer for 60 s",
            "evidence": null});
        let answers = site.report(&executor, vec![item(&runs[0], 1, end)]).await;
        assert_eq!(answers[0]["status"], "accepted", "{answers:?}");
        let last = shown().await["last_failure"].clone();
        if outcome == "succeeded" {
            assert_eq!(last, Value::Null);
        } else {
            assert_eq!((&last["run_id"], &last["job_id"]), (&json!(runs[0].0), &json!(job)));
            assert_eq!((&last["code"], &last["detail"]), (&json!(code), &json!("no answer for 60 s")));
        }
    }
    let shown = shown().await;
    assert_eq!((&shown["bmc"]["owner_name"], &shown["bmc"]["credential"]), (&json!("one"), &json!("bmc")));
}

#[tokio::test]
async fn only_a_site_in_which_nothing_was_is_removed() {
    let site = TestSite::new().await;
    site.servers(2).await;
    site.executor("one").await;
    let delete = async |id: &Value| site.database.run(&site.admin, "site_delete", json!({"id": id})).await;
    let refused = delete(&json!(site.id)).await.unwrap_err();
    assert_eq!(refused.code, "site-in-use");
    assert_eq!(
        refused.detail,
        "Site lab holds servers (2), credentials (1), executors (1); those that were removed count. It keeps their \
         history and stays. To stop all work there, pause its hardware operations."
    );
    let config = json!({"lease_ttl_ms": 60_000, "max_mutating_runs": 1, "hardware_paused": false,
        "second_person": false});
    let mistyped = site.admin("site_create", json!({"name": "my closet", "config": config})).await;
    delete(&mistyped["id"]).await.unwrap();
    assert_eq!(delete(&mistyped["id"]).await.unwrap_err().code, "not-found");
    // Its name is free, and what was done is kept.
    site.admin("site_create", json!({"name": "my closet", "config": config})).await;
    let kept = "select message from rackhand.event where kind = 'site.removed'";
    assert_eq!(site.database.value(kept).await, "Site my closet removed");
}

#[tokio::test]
async fn the_audit_says_what_a_registration_was_before_and_what_it_is() {
    let site = TestSite::new().await;
    site.servers(1).await;
    let changed = json!({"index": 0, "name": "node-0000", "bmc_url": "https://10.0.0.1:1000", "ipmi": null,
        "credential_id": null, "spki_sha256": "00".repeat(32), "tags": []});
    site.admin("servers_upsert", json!({"site_id": site.id, "servers": [changed]})).await;
    let told = site.database.value("select data from rackhand.event where kind = 'server.changed'").await;
    let mut wanted = told["after"].clone();
    wanted["credential_id"] = json!(site.credential);
    wanted.as_object_mut().unwrap().remove("name");
    assert_eq!((&told["before"], &told["after"]["credential_id"]), (&wanted, &json!(null)), "{told}");
}

/// The version is stored with it, and goes when the BMC says that the version runs.
#[tokio::test]
async fn the_state_of_firmware_that_does_not_run_reaches_people_and_plans() {
    let site = TestSite::new().await;
    let executor = site.executor("one").await;
    let servers = site.servers(1).await;
    site.job("inventory", &servers, 10).await;
    let held = granted(&site.lease(&executor, &[], 1).await);
    for (seq, inactive, of_bmc) in [(1, json!("Updating"), true), (2, json!(null), false)] {
        let part = json!({"key": "BIOS.Setup.1-1", "name": "BIOS", "software_id": "159", "version": "1.15.2",
            "updateable": true, "inactive": inactive, "of_bmc": of_bmc});
        let read = json!({"type": "inventory", "power": "on", "health": "ok", "components": [part],
            "capabilities": [], "unreadable": {}});
        site.report(&executor, vec![item(&held[0], seq, read)]).await;
        let context = json!({"site_id": site.id, "targets": servers, "idempotency": null});
        let context = site.admin("job_context", context).await;
        assert_eq!(context["servers"][0]["components"], json!([part]));
    }
}

/// A whole page of what an API shows of the first server.
async fn shown(site: &TestSite, id: &str) -> Value {
    let statement = include_str!("../../functions/core/src/servers/read.sql");
    site.database.run(&site.admin, statement, json!({"id": id})).await.unwrap()
}

async fn upsert(site: &TestSite, server: Value, replace: bool) -> Value {
    let args = json!({"site_id": site.id, "servers": [server], "replace": replace});
    site.admin("servers_upsert", args).await
}

async fn latest(site: &TestSite, kind: &str) -> Value {
    let query =
        format!("select to_jsonb(e) from rackhand.event e where kind = '{kind}' order by id desc limit 1");
    site.database.value(&query).await
}

#[tokio::test]
async fn the_model_filter_finds_the_whole_or_else_a_part_in_any_case() {
    let site = TestSite::new().await;
    site.servers(3).await;
    let set = "update rackhand.server set model = case name when 'node-0001' then 'PowerEdge R750' else 'PowerEdge R750xs' end
        where name <> 'node-0002'";
    site.database.owner.execute(set, &[]).await.unwrap();
    let statement = include_str!("../../functions/core/src/servers/list.sql");
    let found = async |model: &str| {
        let args = json!({"limit": 5, "cursor": null, "site": null, "power": null, "health": null, "generation": null,
            "model": model, "tag": null, "q": null});
        let list = site.database.run(&site.admin, statement, args).await.unwrap();
        let names = list["items"].as_array().unwrap().iter().map(|item| item["name"].clone());
        (names.collect::<Vec<_>>(), list["counts"]["total"].clone())
    };
    let one = (vec![json!("node-0001")], json!(1));
    assert_eq!(found("r750").await, (vec![json!("node-0000"), json!("node-0001")], json!(2)));
    assert_eq!(found("poweredge r750").await, one, "what is a part of another one can be named");
    assert_eq!(found("r75_").await, (vec![], json!(0)), "no pattern");
}

#[tokio::test]
async fn a_server_that_has_moved_was_never_read() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(1).await;
    let fresh = shown(&site, &servers[0]).await;
    let read = json!({"type": "inventory", "vendor": "Dell Inc.", "model": "PowerEdge R750", "service_tag": "THIS001",
        "uuid": "4c4c4544-0042-3510", "generation": "idrac9", "bmc_version": "6.00", "power": "on",
        "health": "critical", "capabilities": ["power_on"], "unreadable": {"Storage": "status 503"},
        "components": [{"key": "BIOS.Setup.1-1", "name": "BIOS", "software_id": "159", "version": "1.8.2",
            "updateable": true, "inactive": "Updating", "of_bmc": false}]});
    let failed = json!({"type": "finish", "outcome": "failed", "code": "bmc-unreachable", "detail": "no answer",
        "evidence": null});
    site.job("inventory", &servers, 1).await;
    let runs = granted(&site.lease(&executor, &[], 1).await);
    site.report(&executor, vec![item(&runs[0], 1, read), item(&runs[0], 2, failed)]).await;
    let before = shown(&site, &servers[0]).await;
    assert_eq!((&before["model"], &before["power"]), (&json!("PowerEdge R750"), &json!("on")));
    assert_eq!(before["last_failure"]["code"], "bmc-unreachable");
    assert_eq!(before["components"].as_array().unwrap().len(), 1);
    let used = "insert into rackhand.credential_use (bmc_id, credential_id, version, failures, rejected_at, proven_at)
        select b.id, b.credential_id, 1, 1, now(), now() from rackhand.bmc b";
    site.database.owner.execute(used, &[]).await.unwrap();

    // Another spelling, key or address for IPMI is the same machine.
    for change in [
        json!({"bmc_url": "https://10.0.0.1:1000", "spki_sha256": "11".repeat(32)}),
        json!({"bmc_url": "https://10.0.0.1:1000", "ipmi": "10.0.0.1"}),
    ] {
        let mut same = change.clone();
        same["name"] = json!("node-0000");
        same["index"] = json!(0);
        assert_eq!(upsert(&site, same, true).await["changed"], 1);
        let after = shown(&site, &servers[0]).await;
        for fact in ["model", "power", "seen_at", "components", "last_failure"] {
            assert_eq!(after[fact], before[fact], "{change} {fact}");
        }
    }

    let there = json!({"index": 0, "name": "node-0000", "bmc_url": "https://10.0.0.9"});
    let answer = upsert(&site, there, true).await;
    let said = "BMC address https://10.0.0.1:1000 → https://10.0.0.9, IPMI address 10.0.0.1 removed, TLS key \
        1111111111111111… removed. What was read at the former address is no longer shown; an inventory job reads the \
        server there.";
    assert_eq!(answer["changes"], json!({"node-0000": said}));
    let mut after = shown(&site, &servers[0]).await;
    assert_eq!(after["bmc"]["spki_sha256"], Value::Null, "the key was that of the BMC at the former address");
    assert_eq!(after["bmc"]["ipmi"], Value::Null, "nothing is sent to the former machine");
    assert_eq!(after["bmc"]["credential"], "bmc");
    // All the rest is as on the day it was registered.
    for member in ["bmc", "bmc_url", "version"] {
        after[member] = fresh[member].clone();
    }
    assert_eq!(after, fresh);
    let kept = "select jsonb_build_array((select count(*) from rackhand.firmware),
        (select jsonb_build_array(count(proven_at), sum(failures)) from rackhand.credential_use),
        (select uuid from rackhand.server))";
    assert_eq!(
        site.database.value(kept).await,
        json!([0, [0, 1], null]),
        "nothing is proven, refusals count still"
    );
    let context = json!({"site_id": site.id, "targets": servers});
    let context = site.admin("job_context", context).await;
    let target = &context["servers"][0];
    assert_eq!(
        (&target["inventoried"], &target["machine"]),
        (&json!(false), &json!({"url": "https://10.0.0.9"}))
    );
}

#[tokio::test]
async fn what_a_registration_does_not_name_stays() {
    let site = TestSite::new().await;
    let full = json!({"index": 0, "name": "node-1", "bmc_url": "https://10.0.0.1", "ipmi": "10.0.0.1",
        "credential_id": site.credential, "spki_sha256": "11".repeat(32), "tags": ["rack:7", "lab"]});
    assert_eq!(upsert(&site, full, false).await["created"], 1);
    let stored = async || {
        let query =
            "select jsonb_build_array(b.ipmi, b.credential_id is not null, left(b.spki_sha256, 2), v.tags)
            from rackhand.bmc b join rackhand.server v on v.id = b.server_id";
        site.database.value(query).await
    };
    let named = |member: &str, value: Value| json!({"index": 0, "name": "node-1", "bmc_url": "https://10.0.0.1", member: value});
    let nothing = json!({"index": 0, "name": "node-1", "bmc_url": "https://10.0.0.1"});
    assert_eq!(upsert(&site, nothing.clone(), false).await["unchanged"], 1);
    assert_eq!(upsert(&site, nothing, true).await["unchanged"], 1);
    assert_eq!(stored().await, json!(["10.0.0.1", true, "11", ["lab", "rack:7"]]));

    // One after the other is given as empty; what it was is said in the answer and in the event.
    for (member, value, replace, said, left) in [
        (
            "tags",
            json!(["lab", "rack:8"]),
            false,
            "tags added: rack:8, tags removed: rack:7",
            json!(["10.0.0.1", true, "11", ["lab", "rack:8"]]),
        ),
        ("tags", json!([]), false, "tags removed: lab, rack:8", json!(["10.0.0.1", true, "11", []])),
        (
            "spki_sha256",
            json!(null),
            false,
            "TLS key 1111111111111111… removed",
            json!(["10.0.0.1", true, null, []]),
        ),
        (
            "spki_sha256",
            json!("22".repeat(32)),
            false,
            "TLS key set to 2222222222222222…",
            json!(["10.0.0.1", true, "22", []]),
        ),
        ("credential_id", json!(null), false, "credential bmc removed", json!(["10.0.0.1", false, "22", []])),
        ("ipmi", json!(null), true, "IPMI address 10.0.0.1 removed", json!([null, false, "22", []])),
    ] {
        let answer = upsert(&site, named(member, value), replace).await;
        assert_eq!(answer["changes"], json!({"node-1": said}), "{answer}");
        assert_eq!(stored().await, left, "{said}");
        assert_eq!(latest(&site, "server.changed").await["message"], format!("node-1: {said}"));
    }
}

#[tokio::test]
async fn the_text_of_a_change_is_bounded() {
    let site = TestSite::new().await;
    let tags = |first: char| (0..64).map(|n| format!("{first}{n:063}")).collect::<Vec<_>>();
    let entry = |tags: Vec<String>| json!({"index": 0, "name": "n".repeat(120), "bmc_url": "https://10.0.0.1", "tags": tags});
    upsert(&site, entry(tags('a')), false).await;
    let answer = upsert(&site, entry(tags('b')), false).await;
    assert_eq!(answer["changed"], 1, "{answer}");
    let message = latest(&site, "server.changed").await["message"].as_str().unwrap().to_owned();
    assert!(message.chars().count() < 600 && message.contains('…'), "{message}");
}

#[tokio::test]
async fn changed_settings_are_named_with_what_they_were() {
    let site = TestSite::new().await;
    let config = json!({"lease_ttl_ms": 2000, "max_mutating_runs": 16, "hardware_paused": true, "second_person": false});
    for said in ["hardware operations paused: no → yes, lease in ms: 1000 → 2000", "saved without a change"]
    {
        site.admin("site_update", json!({"id": site.id, "config": config})).await;
        assert_eq!(latest(&site, "site.changed").await["message"], format!("Settings of site lab: {said}"));
    }
}
