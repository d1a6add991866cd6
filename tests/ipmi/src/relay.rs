//! A bad network: a UDP relay in front of a BMC that drops, duplicates, delays and reorders datagrams by a
//! seeded chance, can be cut, and tells what it saw.
//!
//! Each client that speaks to it gets a socket of its own towards the BMC, as a NAT router would give it.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::random::Random;

/// The largest datagram that IPMI and SOL use is far smaller.
const MOST: usize = 2_048;

/// What happens to a datagram. The default is a good network.
#[derive(Clone, Copy, Default, Debug)]
pub struct Weather {
    /// Shares, in percent.
    pub dropped: u8,
    pub duplicated: u8,
    /// Held back for up to `delay`, while later ones pass it.
    pub delayed: u8,
    pub delay: Duration,
    /// Copies of a datagram are delayed each by itself; otherwise together. Those that are not delayed leave
    /// one behind the other, with nothing between them.
    pub apart: bool,
}

/// Datagrams by what became of them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Count {
    pub received: u64,
    pub dropped: u64,
    pub duplicated: u64,
    pub delayed: u64,
}

/// A datagram as it came in.
#[derive(Clone, Debug)]
pub struct Seen {
    pub at: Instant,
    pub to_bmc: bool,
    pub bytes: Vec<u8>,
}

/// One for each direction.
#[derive(Clone, Copy, Default, Debug)]
pub struct Ways<T> {
    pub to_bmc: T,
    pub to_client: T,
}

impl<T: Copy> Ways<T> {
    pub fn both(value: T) -> Self {
        Self { to_bmc: value, to_client: value }
    }
}

struct State {
    random: Random,
    weather: Ways<Weather>,
    cut: bool,
    count: Ways<Count>,
    /// None: not asked for.
    seen: Option<Vec<Seen>>,
    clients: BTreeMap<SocketAddr, Arc<UdpSocket>>,
}

pub struct Relay {
    address: SocketAddr,
    front: Arc<UdpSocket>,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Relay {
    pub async fn start(target: SocketAddr, seed: u64, weather: Ways<Weather>) -> Self {
        let front = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
        let address = front.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            random: Random::new(seed),
            weather,
            cut: false,
            count: Ways::default(),
            seen: None,
            clients: BTreeMap::new(),
        }));
        let task = tokio::spawn(inbound(Arc::clone(&front), target, Arc::clone(&state)));
        Self { address, front, state, task }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set(&self, weather: Ways<Weather>) {
        lock(&self.state).weather = weather;
    }

    /// Drops everything in both directions.
    pub fn cut(&self) {
        lock(&self.state).cut = true;
    }

    pub fn mend(&self) {
        lock(&self.state).cut = false;
    }

    pub fn counts(&self) -> Ways<Count> {
        lock(&self.state).count
    }

    /// Keeps every datagram from now on; the ones kept so far.
    pub fn record(&self) -> Vec<Seen> {
        lock(&self.state).seen.replace(Vec::new()).unwrap_or_default()
    }

    /// Sends these bytes to every client, from the address at which they know the BMC.
    pub async fn inject(&self, bytes: &[u8]) {
        let clients: Vec<_> = lock(&self.state).clients.keys().copied().collect();
        for client in clients {
            let _ = self.front.send_to(bytes, client).await;
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From clients to the BMC.
async fn inbound(front: Arc<UdpSocket>, target: SocketAddr, state: Arc<Mutex<State>>) {
    let mut buffer = [0; MOST];
    // They end with this task.
    let mut back_ways = tokio::task::JoinSet::new();
    loop {
        let Ok((length, client)) = front.recv_from(&mut buffer).await else { continue };
        let known = lock(&state).clients.get(&client).cloned();
        let socket = match known {
            Some(socket) => socket,
            None => {
                let socket = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
                socket.connect(target).await.unwrap();
                lock(&state).clients.insert(client, Arc::clone(&socket));
                back_ways.spawn(outbound(
                    Arc::clone(&socket),
                    Arc::clone(&front),
                    client,
                    Arc::clone(&state),
                ));
                socket
            }
        };
        for (wait, copies) in fate(&state, true, &buffer[..length]) {
            pass(Arc::clone(&socket), target, buffer[..length].to_vec(), wait, copies).await;
        }
    }
}

/// From the BMC to one client.
async fn outbound(
    socket: Arc<UdpSocket>,
    front: Arc<UdpSocket>,
    client: SocketAddr,
    state: Arc<Mutex<State>>,
) {
    let mut buffer = [0; MOST];
    loop {
        // A BMC that was killed shows as an error here; it may come back.
        let Ok(length) = socket.recv(&mut buffer).await else { continue };
        for (wait, copies) in fate(&state, false, &buffer[..length]) {
            pass(Arc::clone(&front), client, buffer[..length].to_vec(), wait, copies).await;
        }
    }
}

/// How long so many copies of a datagram wait; nothing if it is lost.
fn fate(state: &Mutex<State>, to_bmc: bool, bytes: &[u8]) -> Vec<(Duration, u64)> {
    let mut state = lock(state);
    if let Some(seen) = &mut state.seen {
        seen.push(Seen { at: Instant::now(), to_bmc, bytes: bytes.to_vec() });
    }
    let State { random, weather, count, cut, .. } = &mut *state;
    let (weather, count) = match to_bmc {
        true => (weather.to_bmc, &mut count.to_bmc),
        false => (weather.to_client, &mut count.to_client),
    };
    count.received += 1;
    if random.percent(weather.dropped) || *cut {
        count.dropped += 1;
        return Vec::new();
    }
    let copies = if random.percent(weather.duplicated) { 2 } else { 1 };
    count.duplicated += copies - 1;
    let most = u64::try_from(weather.delay.as_micros()).unwrap().max(1);
    let mut wait = || match random.percent(weather.delayed) {
        true => Duration::from_micros(1 + random.below(most)),
        false => Duration::ZERO,
    };
    let waits: Vec<_> = match weather.apart {
        true => (0..copies).map(|_| (wait(), 1)).collect(),
        false => vec![(wait(), copies)],
    };
    count.delayed += waits.iter().filter(|(wait, _)| !wait.is_zero()).count() as u64;
    waits
}

async fn pass(socket: Arc<UdpSocket>, to: SocketAddr, bytes: Vec<u8>, wait: Duration, copies: u64) {
    let connected = socket.peer_addr().is_ok();
    let send = async move {
        for _ in 0..copies {
            // A refused port is the same as a lost datagram.
            let _ = if connected { socket.send(&bytes).await } else { socket.send_to(&bytes, to).await };
        }
    };
    if wait.is_zero() {
        send.await;
    } else {
        tokio::spawn(async move {
            sleep(wait).await;
            send.await;
        });
    }
}
