//! The HTTPS server of one BMC.
//!
//! While its BMC is away the port stays reserved by a socket that is bound and does not listen, so that
//! connections are refused by the kernel and nobody else gets the port. When the BMC goes, open connections
//! are closed as soon as they have answered what was already carried out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::tls::Keys;
use super::{LabError, Shared};
use crate::model::Reply;

const BACKLOG: u32 = 128;
/// Real time in which a BMC that goes away may still send the answer to what it already carried out.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Requests larger than this are cut, as a BMC with little memory does.
const BODY_LIMIT: usize = 64 * 1024 * 1024;

/// A port that belongs to a BMC whether it listens or not.
#[derive(Debug)]
pub(super) struct Door {
    address: SocketAddr,
    /// Keeps the port; never listens.
    _reservation: TcpSocket,
    listener: Option<TcpListener>,
}

impl Door {
    pub(super) fn open(address: SocketAddr) -> Result<Self, LabError> {
        let failed = |source| LabError::Listen { address, source };
        let reservation = bind(address).map_err(failed)?;
        let address = reservation.local_addr().map_err(failed)?;
        let mut door = Self { address, _reservation: reservation, listener: None };
        door.listen().map_err(failed)?;
        Ok(door)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    fn listen(&mut self) -> std::io::Result<()> {
        if self.listener.is_none() {
            self.listener = Some(bind(self.address)?.listen(BACKLOG)?);
        }
        Ok(())
    }
}

fn bind(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

pub(super) async fn run(
    shared: Arc<Shared>,
    index: usize,
    mut door: Door,
    keys: Arc<Keys>,
    mut reachable: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    let connections = TaskTracker::new();
    let mut alive = stop.child_token();
    loop {
        if *reachable.borrow_and_update() {
            if let Err(error) = door.listen() {
                tracing::error!(address = %door.address, %error, "a BMC cannot listen again");
                sleep(super::PULSE).await;
                continue;
            }
        } else {
            door.listener = None;
            alive.cancel();
            alive = stop.child_token();
        }
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            changed = reachable.changed() => match changed {
                Ok(()) => continue,
                Err(_) => break,
            },
            accepted = accept(door.listener.as_ref()) => accepted,
        };
        let Ok((stream, client)) = accepted else { continue };
        let guest = Guest { shared: Arc::clone(&shared), index, client };
        connections.spawn(one(guest, stream, Arc::clone(&keys), alive.clone()));
    }
    alive.cancel();
    connections.close();
    connections.wait().await;
}

async fn accept(listener: Option<&TcpListener>) -> std::io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

async fn one(guest: Guest, stream: TcpStream, keys: Arc<Keys>, alive: CancellationToken) {
    let config = if guest.shared.site().has_changed_key(guest.index) { &keys.changed } else { &keys.usual };
    let acceptor = TlsAcceptor::from(Arc::clone(config));
    let accepted = tokio::select! {
        () = alive.cancelled() => return,
        accepted = acceptor.accept(stream) => accepted,
    };
    let stream = match accepted {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, "a TLS handshake failed");
            return;
        }
    };
    let service = service_fn(move |request| guest.clone().answer(request));
    let connection =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = alive.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match timeout(LAST_WORDS, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended without a proper close");
    }
}

/// The connection is to be closed without an answer.
#[derive(Debug, Error)]
#[error("the connection is cut")]
struct Cut;

/// One client's connection.
#[derive(Clone)]
struct Guest {
    shared: Arc<Shared>,
    index: usize,
    client: SocketAddr,
}

impl Guest {
    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Cut> {
        let in_flight = InFlight::begin(&self, &request);
        let (parts, body) = request.into_parts();
        let body = Limited::new(body, BODY_LIMIT).collect().await.map_err(|_| Cut)?.to_bytes();
        let request = Request::from_parts(parts, body);
        let reply = {
            let (now, real) = (self.shared.now(), self.shared.real());
            let mut site = self.shared.site();
            let reply = site.handle(self.index, now, self.client.ip(), request);
            if let Some(number) = in_flight.number
                && reply.was_handled()
            {
                site.handled(self.index, number, now, real);
            }
            reply
        };
        match reply {
            Reply::Respond { after, response } => {
                sleep(self.shared.scaled(after)).await;
                in_flight.end(response.status().as_u16());
                Ok(response.map(Full::new))
            }
            Reply::CutAfterProcessing | Reply::CutBeforeProcessing | Reply::Refuse => Err(Cut),
            Reply::Hang => std::future::pending().await,
        }
    }
}

/// A mutation in flight; ended without an answer when the connection dies.
struct InFlight {
    shared: Arc<Shared>,
    index: usize,
    number: Option<u64>,
}

impl InFlight {
    fn begin(guest: &Guest, request: &Request<Incoming>) -> Self {
        let (now, real) = (guest.shared.now(), guest.shared.real());
        let number = guest.shared.site().begin(guest.index, now, real, guest.client.ip(), request);
        Self { shared: Arc::clone(&guest.shared), index: guest.index, number }
    }

    fn end(mut self, status: u16) {
        self.finish(Some(status));
    }

    fn finish(&mut self, status: Option<u16>) {
        if let Some(number) = self.number.take() {
            let (now, real) = (self.shared.now(), self.shared.real());
            self.shared.site().end(self.index, number, now, real, status);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.finish(None);
    }
}
