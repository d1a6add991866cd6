//! A few UDP sockets for thousands of BMCs.
//!
//! A datagram is known by the socket it arrives on and the address it comes from, so that each pair belongs to one
//! owner: a second session with the same BMC takes another socket. One task per socket reads and hands each datagram
//! to its owner at once, without a copy and without another task in between. Sockets are made when needed.
//!
//! A full send buffer loses the datagram, as the network may: whoever sent it repeats it.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{net::UdpSocket, runtime::Handle, task::JoinHandle};

use crate::Error;

/// How many peers share one socket. Their answers share its receive buffer, some 200 kB by default.
const PEERS: usize = 256;
/// Longest datagram; IPMI's are far below.
const DATAGRAM: usize = 8192;
/// Rest after a failing read, so that a broken socket does not spin.
const REST: Duration = Duration::from_millis(100);

/// Who gets the datagrams of one peer.
pub(crate) trait Receiver: Send + Sync {
    /// Called on the reading task: must be quick and must not block.
    fn receive(&self, datagram: &mut [u8]);
}

/// A set of sockets. Dropped when its last user is gone; its reading tasks end then.
pub struct Sockets {
    runtime: Handle,
    sockets: Mutex<Vec<Arc<Socket>>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

struct Socket {
    ipv6: bool,
    /// The same socket as the reading task's: sending needs no readiness from the runtime.
    sender: std::net::UdpSocket,
    /// None for a place that is reserved.
    peers: Mutex<BTreeMap<SocketAddr, Option<Weak<dyn Receiver>>>>,
}

impl Socket {
    /// False where the socket is full, or somebody speaks with `peer` through it.
    fn reserve(&self, peer: SocketAddr) -> bool {
        let mut peers = lock(&self.peers);
        if peers.len() >= PEERS || peers.contains_key(&peer) {
            return false;
        }
        peers.insert(peer, None);
        true
    }
}

impl Sockets {
    /// Must be called within a tokio runtime, whose tasks will read.
    pub fn new() -> io::Result<Arc<Self>> {
        let runtime = Handle::try_current().map_err(io::Error::other)?;
        Ok(Arc::new(Self { runtime, sockets: Mutex::default(), tasks: Mutex::default() }))
    }

    /// How many sockets are open.
    pub fn count(&self) -> usize {
        lock(&self.sockets).len()
    }

    /// Gives `peer` a place on a socket where nobody else speaks with it. Nothing is received before
    /// [`Line::listen`].
    pub(crate) fn reserve(self: &Arc<Self>, peer: SocketAddr) -> Result<Line, Error> {
        let peer = plain(peer);
        let mut sockets = lock(&self.sockets);
        let place = sockets.iter().find(|socket| socket.ipv6 == peer.is_ipv6() && socket.reserve(peer));
        let socket = match place {
            Some(socket) => Arc::clone(socket),
            None => {
                let socket = self
                    .open(peer.is_ipv6())
                    .map_err(|error| Error::System { what: "opening a UDP socket", kind: error.kind() })?;
                socket.reserve(peer);
                sockets.push(Arc::clone(&socket));
                socket
            }
        };
        Ok(Line { sockets: Arc::clone(self), socket, peer })
    }

    fn open(&self, ipv6: bool) -> io::Result<Arc<Socket>> {
        let address: IpAddr = if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let sender = std::net::UdpSocket::bind((address, 0))?;
        sender.set_nonblocking(true)?;
        let _guard = self.runtime.enter();
        let reader = UdpSocket::from_std(sender.try_clone()?)?;
        let socket = Arc::new(Socket { ipv6, sender, peers: Mutex::default() });
        let task = self.runtime.spawn(read(reader, Arc::clone(&socket)));
        lock(&self.tasks).push(task);
        Ok(socket)
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        for task in lock(&self.tasks).drain(..) {
            task.abort();
        }
    }
}

/// One peer on one socket of a set; given back when dropped.
pub(crate) struct Line {
    sockets: Arc<Sockets>,
    socket: Arc<Socket>,
    peer: SocketAddr,
}

impl Line {
    /// From now on `receiver` gets what the peer sends.
    pub fn listen(&self, receiver: Weak<dyn Receiver>) {
        lock(&self.socket.peers).insert(self.peer, Some(receiver));
    }

    pub fn send(&self, datagram: &[u8]) {
        if let Err(error) = self.socket.sender.send_to(datagram, self.peer) {
            tracing::debug!(peer = %self.peer, %error, "datagram not sent");
        }
    }

    pub fn runtime(&self) -> &Handle {
        &self.sockets.runtime
    }

    pub fn peer(&self) -> SocketAddr {
        self.peer
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        lock(&self.socket.peers).remove(&self.peer);
    }
}

async fn read(reader: UdpSocket, socket: Arc<Socket>) {
    let mut buffer = vec![0; DATAGRAM];
    loop {
        match reader.recv_from(&mut buffer).await {
            Ok((length, peer)) => {
                let receiver =
                    lock(&socket.peers).get(&plain(peer)).and_then(|place| place.as_ref()?.upgrade());
                if let (Some(receiver), Some(datagram)) = (receiver, buffer.get_mut(..length)) {
                    receiver.receive(datagram);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "reading from a UDP socket failed");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

/// Without the flow label, which an answer need not repeat.
fn plain(mut peer: SocketAddr) -> SocketAddr {
    if let SocketAddr::V6(peer) = &mut peer {
        peer.set_flowinfo(0);
    }
    peer
}

/// A panic while the lock was held leaves data as whole as before: everything here is one insert or remove.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
