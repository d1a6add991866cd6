//! Our client and the lab's BMC with a bad network between them.

use std::time::Duration;

use rackhand_ipmi::{
    Carrier as _, Client, Sockets, Target,
    commands::{device::GetDeviceId, sdr::SdrCache, sensor::sweep},
    session::{Config, Key, Lookup, Privilege, SuitePolicy, Timing},
    sol::SolOptions,
};
use rackhand_ipmi_tests::{
    Relay,
    relay::{Ways, Weather},
};
use rackhand_lab::Model;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::{PASSWORD, lab};

const BAD: Weather =
    Weather { dropped: 5, duplicated: 10, delayed: 20, delay: Duration::from_millis(3), apart: true };
const LINES: u32 = 1_000;

fn config() -> Config {
    Config {
        user: "root".to_owned(),
        password: Key::new(PASSWORD.as_bytes().to_vec().into()).unwrap(),
        privilege: Privilege::Administrator,
        lookup: Lookup::default(),
        suites: SuitePolicy::Strict,
        pin: None,
        bmc_key: None,
        timing: Timing {
            handshake_wait: Duration::from_millis(200),
            first_wait: Duration::from_millis(50),
            attempts: 10,
            ..Timing::default()
        },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_sensors_and_the_console_survive_a_bad_network() {
    let (lab, _, address) = lab(Model::R750).await;
    for seed in 1..=2 {
        let relay = Relay::start(address, seed, Ways::both(BAD)).await;
        let sockets = Sockets::new().unwrap();
        let target = Target { address: relay.address(), config: config() };
        let client = Client::connect(&sockets, target).await.unwrap();
        client.run(&GetDeviceId).await.unwrap();
        let cache = SdrCache::read(&client, "lab").await.unwrap();
        assert_eq!(cache.sensors().len(), 40);
        assert!(sweep(&client, &cache).await.iter().all(|reading| reading.value.is_ok()));
        let mut console = client.sol(SolOptions::default()).await.unwrap();
        console.write_all(format!("bulk {LINES}\r").as_bytes()).await.unwrap();
        let mut text = String::new();
        let mut buffer = [0; 4_096];
        while !text.contains(&format!("bulk {LINES:08} ")) {
            let count = timeout(Duration::from_secs(30), console.read(&mut buffer)).await.unwrap().unwrap();
            assert!(count > 0, "the end after {} bytes", text.len());
            text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        let numbers: Vec<u32> = text
            .lines()
            .filter_map(|line| line.strip_prefix("bulk 0")?.split(' ').next()?.parse().ok())
            .collect();
        assert_eq!(numbers, (1..=LINES).collect::<Vec<_>>(), "each line once and in order");
        console.close().await.unwrap();
        client.close().await;
        let (there, back) = (relay.counts().to_bmc, relay.counts().to_client);
        assert!(there.dropped > 0 && back.dropped > 0 && there.duplicated > 0, "{there:?} {back:?}");
    }
    let ipmi = lab.counters().ipmi;
    assert!(ipmi.replayed > 0, "copies are noticed: {ipmi:?}");
    assert_eq!((ipmi.failed_logins, ipmi.forged), (0, 0), "{ipmi:?}");
}
