//! One row for each BMC: what has one owner has one session and one login budget.

use rackhand_tests::TestSite;
use serde_json::{Value, json};

async fn register(site: &TestSite, name: &str, url: &str) -> Value {
    let server = json!({"index": 0, "name": name, "bmc_url": url, "credential_id": site.credential,
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
