//! A recorded PowerEdge R750, served over HTTPS, goes through the whole path: registered, read by a real
//! executor, shown by the API and by the command line, and inspected without any control plane.

use std::{net::SocketAddr, path::Path, time::Duration};

use rackhand_lab::replay::{Replay, Tree};
use rackhand_tests::{
    StackConfig, TestStack, cli::CommandLine, skip::skip, stack::BMC_PASSWORD, stack::ForeignBmc,
};
use serde_json::{Value, json};

const TREE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/redfish/dell-poweredge-r750.tar.gz");

/// What the tree itself says, found by its own links.
struct Recorded {
    installed: usize,
    system: Value,
}

fn recorded(tree: &Tree) -> Recorded {
    let get = |path: &str| -> Value { serde_json::from_slice(tree.get(path).expect(path)).unwrap() };
    let link = |document: &Value, name: &str| document[name]["@odata.id"].as_str().unwrap().to_owned();
    let root = get("/redfish/v1");
    let systems = get(&link(&root, "Systems"));
    let system = get(systems["Members"][0]["@odata.id"].as_str().unwrap());
    let firmware = get(&link(&get(&link(&root, "UpdateService")), "FirmwareInventory"));
    let installed = firmware["Members"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|member| member["@odata.id"].as_str().unwrap().contains("/Installed-"))
        .count();
    Recorded { installed, system }
}

fn component<'a>(server: &'a Value, key: &str) -> &'a Value {
    let found = server["components"].as_array().unwrap().iter().find(|component| component["key"] == key);
    found.unwrap_or_else(|| panic!("no {key} in {}", server["components"]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recorded_r750_is_registered_read_and_shown() {
    if !Path::new(TREE).exists() {
        skip(
            "replay::a_recorded_r750_is_registered_read_and_shown",
            "no recorded tree at ../shared/data/redfish",
        );
        return;
    }
    let tree = Tree::read(Path::new(TREE)).unwrap();
    let recorded = recorded(&tree);
    let credentials = Some(("root".to_owned(), BMC_PASSWORD.to_owned()));
    let replay = Replay::start(tree, SocketAddr::from(([127, 0, 0, 1], 0)), credentials).await.unwrap();

    let mut stack = TestStack::start_empty(StackConfig { executors: 1, ..StackConfig::new(vec![]) }).await;
    let bmc = ForeignBmc {
        name: "r750".to_owned(),
        url: replay.url().to_owned(),
        spki_sha256: replay.spki_sha256().to_owned(),
        ipmi: None,
    };
    stack.register_bmcs("recorded", "root", BMC_PASSWORD, &[bmc]).await;
    let job = stack
        .create(json!({"kind": "inventory", "params": {}, "targets": [stack.ids["r750"].clone()]}))
        .await;
    let done = stack.ended(&job, Duration::from_secs(60)).await;
    assert_eq!(done["state"], "succeeded", "{}", stack.story(&job).await);

    let server = stack.get(&format!("/v1/servers/{}", stack.ids["r750"])).await;
    for (field, expected) in [
        ("vendor", "Dell"),
        ("model", "PowerEdge R750"),
        ("service_tag", "F54P1G3"),
        ("generation", "idrac9"),
        ("bios_version", "1.8.2"),
        ("bmc_version", "6.00.30.00"),
    ] {
        assert_eq!(server[field], expected, "{field} of {server}");
    }
    let lower = |value: &Value| value.as_str().unwrap().to_lowercase();
    assert_eq!(server["power"], lower(&recorded.system["PowerState"]));
    assert_eq!(server["health"], lower(&recorded.system["Status"]["HealthRollup"]));
    assert_eq!(server["components"].as_array().unwrap().len(), recorded.installed, "every installed part");
    let bios = component(&server, "BIOS.Setup.1-1");
    assert_eq!((&bios["version"], &bios["software_id"]), (&json!("1.8.2"), &json!("159")));
    assert_eq!(component(&server, "iDRAC.Embedded.1-1")["version"], "6.00.30.00");
    for capability in ["simple_update", "multipart_update", "job_queue", "sessions", "power"] {
        assert!(server["capabilities"].as_array().unwrap().contains(&json!(capability)), "{server}");
    }
    // The crawl did not follow every link; what is missing is named, and nothing else is.
    for (part, why) in server["unreadable"].as_object().unwrap() {
        assert!(why.as_str().unwrap().contains("404"), "{part}: {why}");
    }
    let list = stack.get("/v1/servers?q=F54P1G3&generation=idrac9").await;
    assert_eq!(list["items"][0]["name"], "r750", "found by its service tag: {list}");

    let line =
        CommandLine::signed_in(&stack.site, &stack.server, "cleo@example.test", "correct horse battery")
            .await;
    let shown = line.ok(&["servers", "show", "r750"], "").await;
    for word in ["PowerEdge R750", "F54P1G3", "idrac9", "1.8.2", "6.00.30.00", "BIOS.Setup.1-1"] {
        assert!(shown.contains(word), "no {word} in\n{shown}");
    }
    let shown = line.json(&["servers", "show", "F54P1G3", "--json"], "").await;
    assert_eq!(shown["id"], server["id"], "the same server by its service tag");
    assert_eq!(shown["components"], server["components"]);

    // Without any control plane.
    let direct = CommandLine::new();
    let key = ["--pin", replay.spki_sha256()];
    let asked = ["bmc", "inspect", replay.url(), "--user", "root", "--password-stdin"];
    let inspect = [asked.as_slice(), &key].concat();
    let report = direct.json(&[inspect.as_slice(), &["--json"]].concat(), BMC_PASSWORD).await;
    for field in ["model", "service_tag", "bios_version", "bmc_version", "power", "health"] {
        assert_eq!(report[field], server[field], "{field} of {report}");
    }
    assert_eq!(report["spki_sha256"], replay.spki_sha256());
    let text = direct.ok(&inspect, BMC_PASSWORD).await;
    for word in ["PowerEdge R750", "F54P1G3", "1.8.2", "6.00.30.00"] {
        assert!(text.contains(word), "no {word} in\n{text}");
    }
    let refused = direct.run(&inspect, "another password").await;
    assert!(!refused.status.success(), "a wrong password is an error");
    let another_key = "00".repeat(32);
    let wrong_key = [asked.as_slice(), &["--pin", &another_key]].concat();
    let mistaken = direct.run(&wrong_key, BMC_PASSWORD).await;
    let said = String::from_utf8_lossy(&mistaken.stderr);
    assert!(!mistaken.status.success(), "another key is an error");
    assert!(
        said.contains("shows another TLS key: ") && said.contains("The password was not sent to it."),
        "{said}"
    );
    replay.shutdown().await;
}
