//! How many times all sensors of a BMC are read for one second of the client's CPU.
//!
//! Ours keeps its sessions, as an executor does, and is measured with a session opened for each sweep as
//! well; the others are started for each sweep, as they are meant to be used, with what they can keep: the
//! sensors' records, read before.

use std::{sync::Arc, time::Instant};

use rackhand_ipmi::{
    client::{Client, Target},
    commands::{
        sdr::SdrCache,
        sensor::{Value, sweep},
    },
    session::{Config, Key, Lookup, Privilege, SuitePolicy, Timing},
    sockets::Sockets,
};
use rackhand_ipmi_tests::{
    Bmc, Hardware,
    hardware::ADMINISTRATOR,
    process::succeed,
    reference::{FreeIpmi, Ipmitool},
};
use rustix::time::{ClockId, clock_gettime};

use crate::Row;

const BMCS: usize = 20;
const SENSORS: usize = 40;
/// Sweeps of each BMC.
const OURS: usize = 100;
const OPENED: usize = 10;
const THEIRS: usize = 3;

pub async fn measure() -> Vec<Row> {
    let mut fleet = Vec::new();
    for index in 0..BMCS {
        fleet.push(Bmc::start(Hardware::numbered(index).with_sensors(SENSORS)).await);
    }
    let (kept, opened) = ours(&fleet).await;
    let ipmitool: Vec<_> = fleet.iter().map(ipmitool).collect();
    let cached: Vec<_> = fleet.iter().map(ipmitool_cached).collect();
    let freeipmi: Vec<_> =
        fleet.iter().map(|bmc| FreeIpmi::new(bmc.address(), ADMINISTRATOR, &bmc.hardware.password)).collect();
    // Warms the cache.
    for client in &freeipmi {
        client.sensors();
    }
    let peers: [(&str, f64, &'static str, Option<f64>); 3] = [
        (
            "ipmitool `sdr list full`",
            theirs(|at| ipmitool[at].says(&["sdr", "list", "full"])),
            "≥ 20×",
            Some(20.0),
        ),
        (
            "ipmitool, records kept in a file",
            theirs(|at| cached[at].says(&["sdr", "list", "full"])),
            "–",
            None,
        ),
        (
            "FreeIPMI `ipmi-sensors`, records kept",
            theirs(|at| freeipmi[at].says("ipmi-sensors", &["--no-header-output"])),
            "≥ 8×",
            Some(8.0),
        ),
    ];
    let mut rows = Vec::new();
    for (name, theirs, target, least) in peers {
        rows.push(Row {
            work: format!("sweeps of {SENSORS} sensors for a second of client CPU, {BMCS} BMCs"),
            ours: format!("{kept:.0}"),
            peer: format!("{name}: {theirs:.0} ({:.1}×)", kept / theirs),
            target,
            met: least.map(|least| kept / theirs >= least),
        });
    }
    let (_, warm, ..) = peers[2];
    rows.push(Row {
        work: "the same, a session opened for each sweep by both".to_owned(),
        ours: format!("{opened:.0}"),
        peer: format!("FreeIPMI: {warm:.0} ({:.1}×)", opened / warm),
        target: "–",
        met: None,
    });
    rows
}

/// With sessions kept, and with one for each sweep.
async fn ours(fleet: &[Bmc]) -> (f64, f64) {
    let sockets = Sockets::new().unwrap();
    let mut sessions = Vec::new();
    for bmc in fleet {
        let client = session(&sockets, bmc).await;
        let cache = SdrCache::read(&client, "a BMC").await.unwrap();
        assert!(cache.sensors().len() == SENSORS);
        sessions.push((client, cache));
    }
    let (cpu, began) = (cpu_seconds(), Instant::now());
    let sweeps = sessions.iter().map(|(client, cache)| async move {
        for _ in 0..OURS {
            let readings = sweep(client, cache).await;
            assert!(readings.iter().all(|reading| reading.value.is_ok()));
            assert!(matches!(readings[0].value, Ok(Value::Number { .. })));
        }
    });
    futures::future::join_all(sweeps).await;
    let kept = cpu_seconds() - cpu;
    eprintln!("  ours: {} sweeps, {kept:.2} s of CPU, {:.1} s", BMCS * OURS, began.elapsed().as_secs_f64());
    let mut caches = Vec::new();
    for (client, cache) in sessions {
        client.close().await;
        caches.push(cache);
    }
    let cpu = cpu_seconds();
    let sockets = &sockets;
    let sweeps = fleet.iter().zip(&caches).map(|(bmc, cache)| async move {
        for _ in 0..OPENED {
            let client = session(sockets, bmc).await;
            assert!(sweep(&client, cache).await.iter().all(|reading| reading.value.is_ok()));
            client.close().await;
        }
    });
    futures::future::join_all(sweeps).await;
    let opened = cpu_seconds() - cpu;
    ((BMCS * OURS) as f64 / kept, (BMCS * OPENED) as f64 / opened)
}

pub async fn session(sockets: &Arc<Sockets>, bmc: &Bmc) -> Client {
    let config = Config {
        user: ADMINISTRATOR.to_owned(),
        password: Key::new(bmc.hardware.password.as_bytes().to_vec().into()).unwrap(),
        privilege: Privilege::Administrator,
        lookup: Lookup::default(),
        suites: SuitePolicy::default(),
        pin: None,
        bmc_key: None,
        timing: Timing::default(),
    };
    Client::connect(sockets, Target { address: bmc.address(), config }).await.unwrap()
}

/// Sweeps for a CPU second of the child processes; the argument is the BMC's place.
fn theirs(run: impl Fn(usize) -> String) -> f64 {
    let before = children_seconds();
    for _ in 0..THEIRS {
        for place in 0..BMCS {
            assert!(run(place).lines().count() >= SENSORS / 2);
        }
    }
    (BMCS * THEIRS) as f64 / (children_seconds() - before)
}

fn ipmitool(bmc: &Bmc) -> Ipmitool {
    Ipmitool::new(bmc.address(), ADMINISTRATOR, &bmc.hardware.password)
}

/// With the records of the BMC in a file, which `sdr dump` writes.
fn ipmitool_cached(bmc: &Bmc) -> Ipmitool {
    let file = bmc.path("records");
    let client = ipmitool(bmc);
    succeed(&mut client.command(&["sdr", "dump", &file.display().to_string()]));
    client.with_records(&file)
}

/// CPU of this process, all threads.
pub fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// CPU of the children that have ended: fields 16 and 17 of proc(5)'s `stat`, in ticks of 10 ms.
fn children_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
    (ticks(13) + ticks(14)) / 100.0
}
