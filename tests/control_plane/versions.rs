//! The planner and the executor, which share one comparison, and the Redfish client order versions alike,
//! though it knows neither.

use std::cmp::Ordering;

use rackhand_schema::version::compare;

#[test]
fn the_planner_orders_versions_as_the_redfish_client_does() {
    let versions = [
        "2.1",
        "2.1.0",
        "2.10",
        "2.9.1",
        "02.09.01",
        "6.00.30.00",
        "6.10.00.00",
        "1_2",
        "1 2",
        "1-2",
        "1.2.",
        "A01",
        "a01",
        "A02",
        "00.1B.53",
        "00.2A.2B",
        "0",
        "",
        "..",
        "18446744073709551616",
        "5",
    ];
    let mut told = 0;
    for a in versions {
        for b in versions {
            if let Some(order) = compare(a, b) {
                told += usize::from(order != Ordering::Equal);
                assert_eq!(order, rackhand_redfish::compare_versions(a, b), "{a:?} and {b:?}");
            }
        }
    }
    assert!(told > 100, "only {told} pairs were told apart");
}
