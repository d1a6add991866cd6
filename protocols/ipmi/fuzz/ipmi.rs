//! libFuzzer over the targets of `targets.rs`: the one that `RACKHAND_FUZZ_TARGET` names, or all of them.
#![no_main]

mod targets;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use targets::{TARGETS, Target};

static CHOSEN: OnceLock<Vec<&'static Target>> = OnceLock::new();

fn choose() -> Vec<&'static Target> {
    let name = std::env::var("RACKHAND_FUZZ_TARGET").ok();
    let chosen: Vec<_> =
        TARGETS.iter().filter(|target| name.as_deref().is_none_or(|name| name == target.name)).collect();
    assert!(!chosen.is_empty(), "no target is named {name:?}");
    chosen
}

fuzz_target!(|data: &[u8]| {
    for target in CHOSEN.get_or_init(choose) {
        (target.run)(data);
    }
});
