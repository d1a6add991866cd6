//! The accept loop: TLS or plain connections, HTTP/1.1 and 2, their limits, and an orderly end.

use std::{
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::{Body, Bytes, HttpBody};
use http::{HeaderValue, Version, header};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::service_fn;

use crate::{http::App, patience::Patient, quiet::Requests, slots::Slots};

/// A client that does not finish its handshake or headers by then is let go.
const PATIENCE: Duration = Duration::from_secs(15);
/// A client that takes nothing of its answer for so long is let go.
const STALLED: Duration = Duration::from_secs(30);
/// Requests at once on one connection of HTTP/2: a browser has one for all its tabs, each of which holds an event
/// stream, up to 32 for a session.
const STREAMS: u32 = 40;
/// How long requests under way may take to end at shutdown.
const FAREWELL: Duration = Duration::from_secs(10);
/// How long a client may take to agree that a quiet connection ends.
const LEAVE: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum TlsSetupError {
    #[error("the certificate or key file is not PEM")]
    Pem(#[from] rustls_pki_types::pem::Error),
    #[error("the certificate and key do not work")]
    Rustls(#[from] rustls::Error),
}

/// From a PEM chain and a PEM key.
pub fn acceptor(cert_pem: &[u8], key_pem: &[u8]) -> Result<TlsAcceptor, TlsSetupError> {
    let chain = CertificateDer::pem_slice_iter(cert_pem).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(key_pem)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Accepts until closing, then waits for what is under way.
pub async fn run(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    app: App,
    slots: Arc<Slots>,
    closing: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = closing.cancelled() => break,
            accepted = listener.accept() => accepted,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended && error.is_panic() {
                    tracing::error!("a connection's task panicked");
                }
                continue;
            }
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(slot) = slots.take(peer.ip()) else { continue };
                let (tls, app, closing) = (tls.clone(), app.clone(), closing.clone());
                connections.spawn(async move {
                    connection(stream, peer, tls, app, closing).await;
                    drop(slot);
                });
            }
            Err(error) => {
                // Out of file descriptors, mostly: the next attempt would fail at once.
                tracing::warn!(%error, "accepting a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(FAREWELL, ended).await.is_err() {
        tracing::warn!("some requests did not end in time and were cut");
    }
    connections.shutdown().await;
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    app: App,
    closing: CancellationToken,
) {
    // Small answers to long polls must not wait for more to come.
    let _ = stream.set_nodelay(true);
    let stream = Patient::new(stream, STALLED);
    match tls {
        None => requests(stream, peer, app, closing).await,
        Some(acceptor) => match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => requests(stream, peer, app, closing).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
        },
    }
}

tokio::task_local! {
    /// Ends the stream of HTTP/2 in whose task this is.
    static STOP: CancellationToken;
}

/// Runs each stream of HTTP/2 in a task of its own, which can be ended alone: dropped, hyper resets the stream.
#[derive(Clone, Copy)]
struct Streams;

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let stop = CancellationToken::new();
        let stream = STOP.scope(stop.clone(), stream);
        tokio::spawn(async move {
            tokio::select! {
                () = stream => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

/// What is left of a request's body is read for so long before its answer is sent, and so many bytes of it.
const REST: (Duration, usize) = (Duration::from_millis(200), 64 * 1024);

/// A request's body, which is given back when it is dropped; none when it was read to its end.
struct Lent {
    body: Option<Incoming>,
    back: Arc<Mutex<Option<Option<Incoming>>>>,
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if frame.is_none() {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.back.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.body.take());
    }
}

/// Whether the body was read to its end, or is now. A client that `waits` to be asked for it is not asked.
async fn read_out(back: Option<Option<Incoming>>, waits: bool) -> bool {
    let Some(back) = back else { return false };
    let Some(mut body) = back else { return true };
    if waits || body.is_end_stream() {
        return body.is_end_stream();
    }
    let rest = async {
        let mut left = REST.1;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            let length = frame.data_ref().map_or(0, Bytes::len);
            let Some(less) = left.checked_sub(length) else { return false };
            left = less;
        }
        true
    };
    tokio::time::timeout(REST.0, rest).await.unwrap_or(false)
}

async fn requests<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    peer: SocketAddr,
    app: App,
    closing: CancellationToken,
) {
    let shared = app.trusted_proxies.iter().any(|proxies| proxies.contains(peer.ip().to_canonical()));
    let (quiet, under_way) = (app.quiet, Requests::new(shared));
    let counted = under_way.clone();
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (app, under_way) = (app.clone(), counted.begin());
        async move {
            let in_turn = request.version() < Version::HTTP_2;
            let waits = request.headers().contains_key(header::EXPECT);
            let back = Arc::default();
            // Over HTTP/2 a body that nobody reads is in nobody's way, unless it is kept.
            let request = request.map(|body| match in_turn {
                true => Body::new(Lent { body: Some(body), back: Arc::clone(&back) }),
                false => Body::new(body),
            });
            let (mut answer, untaken) = app.answer(request, peer.ip()).await;
            let left = back.lock().unwrap_or_else(PoisonError::into_inner).take();
            // hyper ends the connection then, without a word: a client's next request on it would be lost
            // (RFC 9112, sections 9.3 and 9.6).
            if in_turn && !read_out(left, waits).await {
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            let stop = STOP.try_with(Clone::clone).ok();
            Ok::<_, std::convert::Infallible>(answer.map(|body| under_way.answered(body, untaken, stop)))
        }
    });
    let mut builder = Builder::new(Streams);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    let mut http2 = builder.http2();
    http2.timer(TokioTimer::new()).keep_alive_interval(Some(Duration::from_secs(30)));
    http2.max_concurrent_streams(STREAMS);
    let service = hyper_util::service::TowerToHyperService::new(service);
    let mut served = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = closing.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
        () = under_way.end_of(quiet) => {
            served.as_mut().graceful_shutdown();
            // A client that agrees to nothing is cut.
            tokio::time::timeout(LEAVE, served).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, error = %error, "a connection broke");
    }
}
