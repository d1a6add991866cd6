//! What one reading may cost: size of a document, pages, members, redirects and time. Each bound is told of.

use std::time::Duration;

use bytes::Bytes;
use rackhand_redfish::{FirmwareInventory, Options};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{Act, Bench, Bmc, PASSWORD, bench, bench_with};

const ROWS: &str = "/redfish/v1/UpdateService/FirmwareInventory";

fn told(inventory: &FirmwareInventory) -> String {
    inventory.unreadable.iter().map(|part| format!("{} {}\n", part.what, part.error)).collect()
}

fn row(n: usize) -> Value {
    json!({ "Id": format!("row-{n}"), "Version": "1.0" })
}

#[tokio::test(start_paused = true)]
async fn pages_without_an_end_are_left() {
    let bmc = Bmc::small();
    for page in 0..70 {
        let path = if page == 0 { ROWS.to_owned() } else { format!("{ROWS}/page-{page}") };
        let next = format!("{ROWS}/page-{}", page + 1);
        bmc.put(&path, json!({ "Members": [row(page)], "Members@odata.nextLink": next }));
    }
    let inventory = bench(bmc).client.firmware_inventory().await.unwrap();
    assert_eq!((inventory.components.len(), inventory.complete), (64, false));
    assert!(told(&inventory).contains("64 pages were read and there is no end"), "{}", told(&inventory));
}

#[tokio::test(start_paused = true)]
async fn pages_in_a_circle_are_left() {
    let bmc = Bmc::small();
    bmc.put(ROWS, json!({ "Members": [row(0)], "Members@odata.nextLink": format!("{ROWS}/2") }));
    bmc.put(&format!("{ROWS}/2"), json!({ "Members": [row(1)], "Members@odata.nextLink": ROWS }));
    let inventory = bench(bmc).client.firmware_inventory().await.unwrap();
    assert_eq!((inventory.components.len(), inventory.complete), (2, false));
}

#[tokio::test(start_paused = true)]
async fn members_beyond_the_bound_are_left() {
    let bmc = Bmc::small();
    bmc.put(ROWS, json!({ "Members": (0..5001).map(row).collect::<Vec<_>>() }));
    let inventory = bench(bmc).client.firmware_inventory().await.unwrap();
    assert_eq!((inventory.components.len(), inventory.complete), (5000, false));
    assert!(told(&inventory).contains("more than 5000 members"), "{}", told(&inventory));
}

#[tokio::test(start_paused = true)]
async fn a_collection_ends_in_time_with_what_was_read() {
    let bmc = Bmc::small();
    let members: Vec<_> = (0..50).map(|n| json!({ "@odata.id": format!("{ROWS}/{n}") })).collect();
    bmc.put(ROWS, json!({ "Members": members }));
    for n in 0..50 {
        bmc.put(&format!("{ROWS}/{n}"), row(n));
    }
    for n in 3..50 {
        bmc.next("GET", &format!("{ROWS}/{n}"), Act::Hang);
        bmc.next("GET", &format!("{ROWS}/{n}"), Act::Hang);
    }
    let options = Options { collection_time: Duration::from_secs(100), ..Options::default() };
    let bench = bench_with(bmc, PASSWORD, options);
    let started = Instant::now();
    let inventory = bench.client.firmware_inventory().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(130), "{:?}", started.elapsed());
    assert_eq!((inventory.components.len(), inventory.complete), (3, false));
    assert!(told(&inventory).contains("not all members could be read within 100 s"), "{}", told(&inventory));
}

fn redirect(bench: &Bench, from: &str, status: u16, to: &str) {
    bench.bmc.next("GET", from, Act::Raw(status, vec![("location", to.to_owned())], Bytes::new()));
}

#[tokio::test(start_paused = true)]
async fn redirects_are_followed_four_times() {
    const MANAGER: &str = "/redfish/v1/Managers/iDRAC.Embedded.1";
    for hops in [4, 5] {
        let bench = bench(Bmc::small());
        let place = |n: usize| if n == 0 { MANAGER.to_owned() } else { format!("/redfish/v1/hop-{n}") };
        for n in 0..hops {
            redirect(&bench, &place(n), 301, &format!("https://10.0.0.7{}", place(n + 1)));
        }
        bench.bmc.put(&place(hops), json!({ "FirmwareVersion": "7.7" }));
        let identity = bench.client.identity().await.unwrap();
        assert_eq!(identity.bmc_version.is_some(), hops == 4, "{:?}", identity.unreadable);
        if hops == 5 {
            let why = identity.unreadable.iter().map(|part| part.error.to_string()).collect::<String>();
            assert!(why.contains("status 301, a redirect that is not followed"), "{why}");
        }
    }
}

/// What proves who we are is shown to the one scheme, host and port only.
#[tokio::test(start_paused = true)]
async fn no_redirect_leads_elsewhere() {
    const SYSTEM: &str = "/redfish/v1/Systems/System.Embedded.1";
    let elsewhere = [
        "https://10.0.0.8/redfish/v1/other",
        "https://10.0.0.7:8443/redfish/v1/other",
        "http://10.0.0.7/redfish/v1/other",
        "//10.0.0.8/redfish/v1/other",
    ];
    for location in elsewhere {
        let bench = bench(Bmc::small());
        redirect(&bench, SYSTEM, 307, location);
        bench.client.system().await.unwrap_err();
        assert_eq!(bench.bmc.count("GET", "/redfish/v1/other"), 0, "{location}");
    }
}
