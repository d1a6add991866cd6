//! Serial-over-LAN: how soon a keystroke comes back from a host that echoes it, and how fast text goes
//! through.

use std::time::{Duration, Instant};

use rackhand_ipmi::{
    sockets::Sockets,
    sol::{SolOptions, SolStream},
};
use rackhand_ipmi_tests::{Bmc, Hardware, sim::With};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{Row, sweep::session};

const KEYS: usize = 1_000;
const TEXT: usize = 4 * 1024 * 1024;

pub async fn measure() -> Vec<Row> {
    let with = With { console: true, ..With::default() };
    let bmc = Bmc::start_with(Hardware::numbered(0), with).await;
    let mut host = bmc.console().await;
    let sockets = Sockets::new().unwrap();
    let client = session(&sockets, &bmc).await;
    let mut stream = client.sol(SolOptions::default()).await.unwrap();
    let mut times = echoes(&mut stream, &mut host).await;
    times.sort_unstable();
    let at = |share: usize| times[times.len() * share / 100].as_secs_f64() * 1_000.0;
    let rate = throughput(&mut stream, &mut host).await;
    let _ = stream.close().await;
    client.close().await;
    let row =
        |work: String, ours: String| Row { work, ours, peer: "–".to_owned(), target: "–", met: None };
    vec![
        row(
            format!("keystroke through SOL and its echo, {KEYS} times"),
            format!("p50 {:.2} ms, p99 {:.2} ms", at(50), at(99)),
        ),
        row("text from the host through SOL".to_owned(), format!("{rate:.1} MB/s")),
    ]
}

async fn echoes(stream: &mut SolStream, host: &mut TcpStream) -> Vec<Duration> {
    let mut times = Vec::new();
    for key in 0..KEYS {
        let key = [b'a' + u8::try_from(key % 26).unwrap()];
        let mut seen = [0];
        let began = Instant::now();
        stream.write_all(&key).await.unwrap();
        host.read_exact(&mut seen).await.unwrap();
        host.write_all(&seen).await.unwrap();
        stream.read_exact(&mut seen).await.unwrap();
        times.push(began.elapsed());
        assert!(seen == key);
        // People type slower than this.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    times
}

/// MB each second.
async fn throughput(stream: &mut SolStream, host: &mut TcpStream) -> f64 {
    let text = vec![b'x'; TEXT];
    let mut seen = vec![0; 64 * 1024];
    let began = Instant::now();
    let write = async { host.write_all(&text).await.unwrap() };
    let read = async {
        let mut count = 0;
        while count < TEXT {
            count += stream.read(&mut seen).await.unwrap();
        }
    };
    tokio::join!(write, read);
    TEXT as f64 / 1e6 / began.elapsed().as_secs_f64()
}
