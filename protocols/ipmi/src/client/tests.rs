//! Clients on real sockets, with the tests' BMC behind a port of its own.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use super::*;
use crate::{
    NetFn,
    session::{fake::Bmc, tests::config},
};

/// A BMC on a thread. It answers one console at a time, as one [`Bmc`] holds one session.
struct Server {
    address: SocketAddr,
    bmc: Arc<Mutex<Bmc>>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    fn start(bmc: Bmc) -> Self {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let address = socket.local_addr().unwrap();
        let bmc = Arc::new(Mutex::new(bmc));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (Arc::clone(&bmc), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, peer)) = socket.recv_from(&mut buffer) else { continue };
                if let Some(answer) = lock(&shared).answer(&buffer[..length]) {
                    socket.send_to(&answer, peer).unwrap();
                }
            }
        });
        Self { address, bmc, stop, thread: Some(thread) }
    }

    fn target(&self) -> Target {
        Target { address: self.address, config: config() }
    }

    /// Waits until the BMC was told that the session is over.
    async fn closed(&self) {
        while !lock(&self.bmc).closed {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn request(code: u8) -> Request {
    Request { net_fn: NetFn::APP, code, lun: 0, data: vec![code] }
}

#[tokio::test]
async fn commands_of_many_callers_get_their_own_answers() {
    let server = Server::start(Bmc::default());
    let sockets = Sockets::new().unwrap();
    let client = Client::connect(&sockets, server.target()).await.unwrap();
    assert_eq!(client.suite(), Suite::S17);
    let callers: Vec<_> = (0x40..0x80)
        .map(|code| {
            let client = client.clone();
            tokio::spawn(async move { (code, client.carry(request(code)).await) })
        })
        .collect();
    for caller in callers {
        let (code, answer) = caller.await.unwrap();
        assert_eq!(answer, Ok((CompletionCode::OK, vec![code])));
    }
    client.close().await;
    assert_eq!(client.carry(request(1)).await, Err(Error::Closed));
    assert!(lock(&server.bmc).closed);
}

#[tokio::test]
async fn dropping_the_last_handle_closes_the_session() {
    let server = Server::start(Bmc::default());
    let sockets = Sockets::new().unwrap();
    let client = Client::connect(&sockets, server.target()).await.unwrap();
    let channel = client.payloads(PayloadKind::SOL).unwrap();
    drop(client);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!lock(&server.bmc).closed, "the channel still needs it");
    drop(channel);
    server.closed().await;
}

#[tokio::test]
async fn payloads_come_back_over_their_channel() {
    let server = Server::start(Bmc::default());
    let client = Client::connect(&Sockets::new().unwrap(), server.target()).await.unwrap();
    let mut channel = client.payloads(PayloadKind::SOL).unwrap();
    assert!(client.payloads(PayloadKind::SOL).is_err(), "one reader at a time");
    channel.send(b"echo").unwrap();
    assert_eq!(channel.recv().await.as_deref(), Some(&b"echo"[..]));
    client.close().await;
    assert_eq!(channel.recv().await, None);
    assert_eq!(channel.closed().await, Ok(()));
    assert_eq!(channel.send(b"late"), Err(Error::Closed));
}

#[tokio::test]
async fn a_second_session_with_a_bmc_takes_another_socket() {
    let sockets = Sockets::new().unwrap();
    let servers = [Server::start(Bmc::default()), Server::start(Bmc::default())];
    let first = Client::connect(&sockets, servers[0].target()).await.unwrap();
    let other = Client::connect(&sockets, servers[1].target()).await.unwrap();
    assert_eq!(sockets.count(), 1, "one socket serves many BMCs");
    let again = Client::connect(&sockets, servers[0].target()).await.unwrap();
    assert_eq!(sockets.count(), 2);
    again.close().await;
    drop((first, other));
}

#[tokio::test]
async fn a_caller_that_gives_up_leaves_nothing_behind() {
    let server = Server::start(Bmc::default());
    let client = Client::connect(&Sockets::new().unwrap(), server.target()).await.unwrap();
    lock(&server.bmc).mute = true;
    let gone = tokio::time::timeout(Duration::from_millis(30), client.carry(request(9))).await;
    assert!(gone.is_err());
    lock(&server.bmc).mute = false;
    assert!(lock(&client.handle.link.state).waiting.is_empty());
    assert_eq!(client.carry(request(8)).await, Ok((CompletionCode::OK, vec![8])));
    client.close().await;
}

#[tokio::test]
async fn a_connection_given_up_half_way_leaves_its_place() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let sockets = Sockets::new().unwrap();
    let target = Target { address: silent.local_addr().unwrap(), config: config() };
    for _ in 0..3 {
        let connecting = Client::connect(&sockets, target.clone());
        assert!(tokio::time::timeout(Duration::from_millis(20), connecting).await.is_err());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(sockets.count(), 1);
}

#[tokio::test]
async fn a_wrong_password_is_an_error_of_its_own() {
    let server = Server::start(Bmc { password: b"another", ..Bmc::default() });
    let answer = Client::connect(&Sockets::new().unwrap(), server.target()).await;
    assert!(matches!(answer.err(), Some(Error::Credentials { .. })));
    assert_eq!(lock(&server.bmc).opens.len(), 1);
}

#[tokio::test]
async fn a_probe_needs_no_user() {
    let server = Server::start(Bmc::default());
    let sockets = Sockets::new().unwrap();
    let findings = probe(&sockets, server.address).await.unwrap();
    assert_eq!(findings.suites.unwrap().len(), 2);
    assert!(lock(&server.bmc).opens.is_empty());
}
