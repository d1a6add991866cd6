//! The UDP ports of the BMCs.
//!
//! One socket and one small task per BMC: thousands fit into one process. A task owns no buffer; datagrams
//! are read onto the stack and answered at once, and what is to leave later gets a task of its own. A port
//! that a BMC has is kept while the BMC is away: what arrives then is read and thrown away, as nobody answers
//! on a dead network.

use std::net::{SocketAddr, UdpSocket as StdUdpSocket};
use std::sync::Arc;

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::{LabError, Shared};
use crate::ipmi::Datagram;

/// Longest datagram; IPMI's are far below.
const DATAGRAM: usize = 2048;
/// Descriptors beside those of the BMCs: connections, the runtime, the process itself.
const SPARE: u64 = 1024;
/// Descriptors of one BMC: a TCP port that listens and its reservation, a UDP port, and clients of it.
const EACH: u64 = 4;

/// One BMC's port.
#[derive(Clone, Debug)]
pub(super) struct Port {
    shared: Arc<Shared>,
    index: usize,
    socket: Arc<UdpSocket>,
}

/// Lets this process have as many descriptors as so many BMCs need, as far as its hard limit goes.
pub(super) fn make_room(bmcs: usize) {
    let wanted = SPARE + EACH * bmcs as u64;
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    limit.current = Some(limit.maximum.map_or(wanted, |most| wanted.min(most)));
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, wanted, "the limit of open files stays; large labs may not start");
    }
}

impl Port {
    pub(super) fn open(shared: Arc<Shared>, index: usize, address: SocketAddr) -> Result<Self, LabError> {
        let failed = |source| LabError::Listen { address, source };
        let socket = StdUdpSocket::bind(address).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        let socket = Arc::new(UdpSocket::from_std(socket).map_err(failed)?);
        let port = Self { shared, index, socket };
        let number = port.address().map_err(failed)?.port();
        port.shared.site().ipmi_listens(index, number);
        Ok(port)
    }

    pub(super) fn address(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    pub(super) async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                ready = self.socket.readable() => if ready.is_err() { return },
            }
            while let Some(datagrams) = self.receive() {
                self.send(datagrams, &stop);
            }
        }
    }

    /// One datagram and what the BMC makes of it; `None` when there is none.
    fn receive(&self) -> Option<Vec<Datagram>> {
        let mut buffer = [0; DATAGRAM];
        let (length, from) = self.socket.try_recv_from(&mut buffer).ok()?;
        let datagram = buffer.get_mut(..length)?;
        let (now, real) = (self.shared.now(), self.shared.real());
        Some(self.shared.site().ipmi_receive(self.index, now, real, from, datagram))
    }

    /// Sends what is due without a datagram.
    pub(super) fn poll(&self, stop: &CancellationToken) {
        let (now, real) = (self.shared.now(), self.shared.real());
        let datagrams = {
            let mut site = self.shared.site();
            if site.ipmi_due(self.index).is_none_or(|due| due > real) {
                return;
            }
            site.ipmi_poll(self.index, now, real)
        };
        self.send(datagrams, stop);
    }

    fn send(&self, datagrams: Vec<Datagram>, stop: &CancellationToken) {
        for Datagram { to, after, bytes } in datagrams {
            if after.is_zero() {
                // A full send buffer loses a datagram, as a network does.
                let _ = self.socket.try_send_to(&bytes, to);
                continue;
            }
            let (socket, stop) = (Arc::clone(&self.socket), stop.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(after) => {
                        let _ = socket.try_send_to(&bytes, to);
                    }
                }
            });
        }
    }
}
