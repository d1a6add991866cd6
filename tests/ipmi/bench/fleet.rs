//! What it costs to watch two thousand BMCs: the client's CPU while the sensors of each are read once a
//! minute.
//!
//! The BMCs are the lab's, in one other process: this program again, started with [`SERVE`]. Sessions and
//! records are kept, as an executor does; the BMCs' turns are spread over the minute. Opening two thousand
//! sessions and reading their records is not in the measure, keeping them alive is.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::SocketAddr,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use rackhand_ipmi::{
    Client, Sockets, Target,
    commands::{sdr::SdrCache, sensor::sweep},
    session::{Config, Key, Lookup, Privilege, SuitePolicy, Timing},
};
use rackhand_lab::{Lab, LabConfig, ServerSpec};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{Row, sweep::cpu_seconds};

/// The argument that makes this program the lab.
pub const SERVE: &str = "serve-lab";
const BMCS: usize = 2_000;
const MINUTE: Duration = Duration::from_secs(60);
/// Sessions opened at once.
const AT_ONCE: usize = 50;
const TARGET: f64 = 0.2;
const PASSWORD: &str = "planted-bench-lab";

/// The lab, until standard input ends. Prints the addresses, a line each, and an empty line.
pub async fn serve() {
    let config = LabConfig { redfish: false, ..LabConfig::new(ServerSpec::fleet(BMCS, 1), PASSWORD) };
    let lab = Lab::start(config).await.unwrap();
    let lines: String = lab.bmcs().iter().map(|bmc| format!("{}\n", bmc.ipmi.unwrap())).collect();
    let mut out = std::io::stdout();
    out.write_all(lines.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()).unwrap();
    // Ends with the process that measures, however that ends.
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.unwrap().unwrap();
    lab.shutdown().await;
}

pub async fn measure() -> Row {
    let mut lab = Command::new(std::env::current_exe().unwrap())
        .arg(SERVE)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let addresses: Vec<SocketAddr> = BufReader::new(lab.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .take_while(|line| !line.is_empty())
        .map(|line| line.parse().unwrap())
        .collect();
    let began = Instant::now();
    let fleet = open(addresses).await;
    eprintln!("  {} sessions in {:.1} s", fleet.len(), began.elapsed().as_secs_f64());
    let (cpu, failed) = watch(&fleet).await;
    drop(fleet);
    drop(lab.stdin.take());
    lab.wait().unwrap();
    let cores = cpu / MINUTE.as_secs_f64();
    Row {
        work: format!("watching {BMCS} lab BMCs, 40 sensors each once a minute: cores used"),
        ours: format!("{cores:.3}"),
        peer: format!("{failed} readings failed"),
        target: "< 0.2",
        met: Some(cores < TARGET && failed == 0),
    }
}

async fn open(addresses: Vec<SocketAddr>) -> Vec<(Client, SdrCache)> {
    let (sockets, slots) = (Sockets::new().unwrap(), Arc::new(Semaphore::new(AT_ONCE)));
    let mut tasks = JoinSet::new();
    for address in addresses {
        let (sockets, slots) = (Arc::clone(&sockets), Arc::clone(&slots));
        tasks.spawn(async move {
            let _slot = slots.acquire().await.unwrap();
            let target = Target { address, config: config() };
            let client = Client::connect(&sockets, target).await.unwrap();
            let cache = SdrCache::read(&client, "lab").await.unwrap();
            (client, cache)
        });
    }
    tasks.join_all().await
}

/// One minute: CPU seconds, and how many readings failed.
async fn watch(fleet: &[(Client, SdrCache)]) -> (f64, usize) {
    let (cpu, begin) = (cpu_seconds(), tokio::time::Instant::now());
    let turns = fleet.iter().enumerate().map(|(place, (client, cache))| async move {
        let turn = MINUTE.mul_f64(place as f64 / fleet.len() as f64);
        tokio::time::sleep_until(begin + turn).await;
        let readings = sweep(client, cache).await;
        readings.iter().filter(|reading| reading.value.is_err()).count()
    });
    let failed = futures::future::join_all(turns).await.into_iter().sum();
    tokio::time::sleep_until(begin + MINUTE).await;
    (cpu_seconds() - cpu, failed)
}

fn config() -> Config {
    Config {
        user: "root".to_owned(),
        password: Key::new(PASSWORD.as_bytes().to_vec().into()).unwrap(),
        privilege: Privilege::User,
        lookup: Lookup::default(),
        suites: SuitePolicy::default(),
        pin: None,
        bmc_key: None,
        timing: Timing::default(),
    }
}
