//! Bodies that no BMC should send. Whatever comes, the client ends, in bounded time, without a panic.

use bytes::Bytes;
use proptest::prelude::*;
use rackhand_redfish::{Message, TaskRef, classify, compare_versions};
use serde_json::{Map, Value, json};

use crate::support::{Act, Bmc, OEM_JOBS, SIMPLE_UPDATE, bench};

/// Property names the client looks for, so that random documents get past the first check.
const NAMES: &[&str] = &[
    "@odata.id",
    "@odata.type",
    "Members",
    "Members@odata.count",
    "Members@odata.nextLink",
    "Id",
    "Name",
    "Links",
    "Oem",
    "Dell",
    "Jobs",
    "Actions",
    "Messages",
    "MessageId",
    "Message",
    "MessageArgs",
    "JobState",
    "TaskState",
    "PercentComplete",
    "error",
    "@Message.ExtendedInfo",
    "Status",
    "Health",
    "Version",
    "Systems",
    "Managers",
    "UpdateService",
    "FirmwareInventory",
    "JobService",
    "Tasks",
    "LogServices",
    "Entries",
    "DellSoftwareInventory",
    "IdentityInfoValue",
    "target",
    "ManagedBy",
    "Chassis",
    "ProtocolFeaturesSupported",
    "ExpandQuery",
    "NoLinks",
];
const TEXTS: &[&str] = &[
    "",
    "Completed",
    "Running",
    "/redfish/v1/",
    "/redfish/v1/Systems",
    "//evil",
    "https://evil/x",
    "JID_1",
    "\u{0}",
    "IDRAC.2.7.PR21",
    "..",
    "/a/../..",
    "99999999999999999999",
    "DCIM:firmware:14E4:165F:1028:",
    "é\u{202e}",
];

fn hostile() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|float| json!(float)),
        proptest::sample::select(TEXTS).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        let member = (proptest::sample::select(NAMES), inner.clone());
        let object = proptest::collection::vec(member, 0..6).prop_map(|members| {
            Value::Object(
                members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>(),
            )
        });
        prop_oneof![proptest::collection::vec(inner, 0..5).prop_map(Value::from), object]
    })
}

/// Calls everything; the results do not matter.
async fn call_everything(bmc: std::sync::Arc<Bmc>) {
    let bench = bench(bmc);
    let client = &bench.client;
    let _ = client.identity().await;
    let _ = client.system().await;
    let _ = client.health().await;
    let _ = client.capabilities().await;
    let _ = client.firmware_inventory().await;
    let _ = client.jobs().await;
    let _ = client.lifecycle_log(Some(3)).await;
    let _ = client.readiness().await;
    let _ = client.follow(&TaskRef { id: Some("JID_1".to_owned()), ..TaskRef::default() }).await;
    client.close().await;
    assert!(bench.bmc.seen().len() < 2000, "bounded");
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(test);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_document_in_any_place(documents in proptest::collection::vec(hostile(), 6)) {
        let places = [
            "/redfish/v1/Systems", "/redfish/v1/Systems/System.Embedded.1", "/redfish/v1/Managers/iDRAC.Embedded.1",
            "/redfish/v1/UpdateService", "/redfish/v1/UpdateService/FirmwareInventory", OEM_JOBS,
        ];
        for one in 0..places.len() {
            let bmc = Bmc::small();
            bmc.put(places[one], documents[one].clone());
            run(call_everything(bmc));
        }
        let bmc = Bmc::small();
        bmc.put("/redfish/v1", documents[0].clone());
        run(call_everything(bmc));
    }

    #[test]
    fn any_bytes_as_a_body(body in proptest::collection::vec(any::<u8>(), 0..300), status in 100u16..600) {
        run(async move {
            let bench = bench(Bmc::small());
            bench.bmc.next("GET", "/redfish/v1/UpdateService", Act::Raw(status, vec![], Bytes::from(body.clone())));
            let _ = bench.client.firmware_inventory().await;
            bench.bmc.next("POST", SIMPLE_UPDATE, Act::Raw(status, vec![], Bytes::from(body)));
            let update = rackhand_redfish::SimpleUpdate { image_uri: "http://a/b".to_owned(), ..Default::default() };
            let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
            let _ = bench.client.simple_update(&update, deadline).await;
        });
    }

    #[test]
    fn any_message_is_classified(status in any::<u16>(), id in ".{0,20}", text in ".{0,40}", arg in ".{0,20}") {
        let message = Message { id: Some(id), text, args: vec![arg], severity: None };
        let _ = classify(status, &[message], None);
    }

    #[test]
    fn version_order_is_total(a in "[0-9A-Fa-f.\\-]{0,12}", b in "[0-9A-Fa-f.\\-]{0,12}", c in "[0-9A-Fa-f.\\-]{0,12}") {
        prop_assert_eq!(compare_versions(&a, &b), compare_versions(&b, &a).reverse());
        if compare_versions(&a, &b).is_le() && compare_versions(&b, &c).is_le() {
            prop_assert!(compare_versions(&a, &c).is_le());
        }
    }
}

#[test]
fn deep_nesting_ends_as_a_malformed_answer() {
    run(async {
        let bench = bench(Bmc::small());
        bench.bmc.put_raw("/redfish/v1/Systems/System.Embedded.1", "[".repeat(100_000));
        assert!(bench.client.system().await.is_err());
        let text = format!("{}1{}", "{\"Oem\":".repeat(100_000), "}".repeat(100_000));
        bench.bmc.put_raw("/redfish/v1/Systems/System.Embedded.1", text);
        assert!(bench.client.system().await.is_err());
    });
}

#[test]
fn a_collection_that_never_ends_ends() {
    run(async {
        let bench = bench(Bmc::small());
        for page in 0..200 {
            let path = if page == 0 { OEM_JOBS.to_owned() } else { format!("{OEM_JOBS}/page{page}") };
            let next = format!("{OEM_JOBS}/page{}", page + 1);
            let job = json!({ "Id": format!("JID_{page}"), "JobState": "New" });
            bench.bmc.put(&path, json!({ "Members": [job], "Members@odata.nextLink": next }));
        }
        let jobs = bench.client.jobs().await.unwrap();
        assert!(!jobs.complete && jobs.jobs.len() < 100);
    });
}
