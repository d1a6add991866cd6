//! One row for each BMC: what has one owner has one session and one login budget.

use rackhand_tests::TestSite;
use serde_json::{Value, json};

async fn register(site: &TestSite, name: &str, url: &str) -> Value {
    register_both(site, name, url, None).await
}

async fn register_both(site: &TestSite, name: &str, url: &str, ipmi: Option<&str>) -> Value {
    let server = json!({"index": 0, "name": name, "bmc_url": url, "ipmi": ipmi, "credential_id": site.credential,
        "spki_sha256": null, "tags": []});
    site.admin("servers_upsert", json!({"site_id": site.id, "servers": [server]})).await
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
    let moved = register(&site, "node-1", &format!("https://chassis.example{system}")).await;
    assert_eq!(moved["changed"], 1, "{moved}");
    let moved = register(&site, "ipv6", "https://chassis.example").await;
    assert_eq!((&moved["changed"], &moved["refused"][0]["index"]), (&json!(0), &json!(0)), "{moved}");

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
    let without = register_both(&site, "node-1", "https://10.0.0.1", None).await;
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
