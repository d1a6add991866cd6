//! HTTP/1.1 over pinned TLS, written for one question: *has a byte of this request reached the BMC?*
//!
//! It drives hyper's connections itself instead of a pooling client, because a pool retries on its own and cannot
//! tell in which phase a deadline struck. Connecting is a phase of its own here, and a request that hyper hands
//! back was never written. A connection is kept alive for the next request and thrown away at the first doubt;
//! mutations take only a connection which was used a moment ago, so that a keep-alive timeout of the BMC does not
//! turn them into ambiguities.
//!
//! Dropping a send, or its deadline, closes the connection at once: an upload stops, it does not go on behind the
//! caller's back. Redirects are not followed and no proxy is used: credentials go to one address only.
//! Plain HTTP is spoken to loopback only (see [`Endpoint::parse`]).

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use http::{Method, Request, Response, Uri, header, uri};
use http_body_util::BodyExt;
use hyper::{
    body::{Frame, SizeHint},
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::{
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsConnector;

use crate::{
    endpoint::Endpoint,
    tls::{self, Fingerprint, SpkiPin, TlsTrust},
    transport::{Body, DEFAULT_ANSWER_LIMIT, NotSent, Transport, TransportError},
};

/// Idle connections that are kept. A BMC serves one or two requests at a time anyway.
const MAX_IDLE: usize = 2;
/// A read takes a connection that was idle for up to this long; it may be repeated if the BMC has hung up.
const READ_IDLE: Duration = Duration::from_secs(20);
/// A mutation takes a connection that was idle for up to this long.
const MUTATION_IDLE: Duration = Duration::from_secs(1);
/// A package is handed to the connection in pieces of this size, so that a deadline strikes between two.
const PIECE: usize = 64 * 1024;

/// Limits of an [`HttpsTransport`].
#[derive(Clone, Copy, Debug)]
pub struct HttpsOptions {
    /// For TCP and TLS together.
    pub connect_timeout: Duration,
    /// The largest answer that is read, in bytes.
    pub answer_limit: usize,
}

impl Default for HttpsOptions {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(10), answer_limit: DEFAULT_ANSWER_LIMIT }
    }
}

/// The real [`Transport`]. One for each BMC: it holds that BMC's pin and connections.
pub struct HttpsTransport {
    options: HttpsOptions,
    pin: Arc<SpkiPin>,
    tls: Result<TlsConnector, rustls::Error>,
    idle: Mutex<VecDeque<Connection>>,
}

struct Connection {
    authority: String,
    sender: SendRequest<Pieces>,
    /// Aborted when the connection is dropped, which closes the socket.
    driver: JoinHandle<()>,
    since: Instant,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl HttpsTransport {
    /// With default limits.
    #[must_use]
    pub fn new(trust: TlsTrust) -> Self {
        Self::with_options(trust, HttpsOptions::default())
    }

    /// With the given limits.
    #[must_use]
    pub fn with_options(trust: TlsTrust, options: HttpsOptions) -> Self {
        let pin = SpkiPin::new(trust);
        let tls = tls::client_config(pin.clone()).map(|config| TlsConnector::from(Arc::new(config)));
        Self { options, pin, tls, idle: Mutex::default() }
    }

    /// The pin in force: the given one, or the one seen at first use; `None` before the first handshake.
    #[must_use]
    pub fn observed_pin(&self) -> Option<Fingerprint> {
        self.pin.pin()
    }

    async fn exchange(
        &self,
        request: Request<Body>,
        deadline: Instant,
    ) -> Result<Response<Bytes>, TransportError> {
        let (mut request, uri, authority) = prepare(request)?;
        let max_idle = if *request.method() == Method::GET { READ_IDLE } else { MUTATION_IDLE };
        while let Some(mut connection) = self.take_idle(&authority, max_idle) {
            match self.run(&mut connection, request, deadline).await {
                Ok(response) => return Ok(self.keep(connection, response)),
                Err(Failed::HandedBack(unsent, _)) => request = *unsent,
                Err(Failed::For(error)) => return Err(error),
            }
        }
        let mut connection = self.connect(&uri, &authority, deadline).await?;
        match self.run(&mut connection, request, deadline).await {
            Ok(response) => Ok(self.keep(connection, response)),
            Err(Failed::HandedBack(_, why)) => Err(not_sent(NotSent::Unreachable(why))),
            Err(Failed::For(error)) => Err(error),
        }
    }

    /// Connects within the connect timeout and the deadline. Nothing of a request is sent.
    async fn connect(
        &self,
        uri: &Uri,
        authority: &str,
        deadline: Instant,
    ) -> Result<Connection, TransportError> {
        let until = deadline.min(Instant::now() + self.options.connect_timeout);
        let connecting = async {
            let tcp = open_tcp(uri).await?;
            if uri.scheme_str() == Some("http") {
                return handshake(tcp, authority).await;
            }
            handshake(open_tls(&self.tls, uri, tcp).await?, authority).await
        };
        timeout_at(until, connecting).await.unwrap_or(Err(not_sent(NotSent::ConnectTimeout)))
    }

    async fn run(
        &self,
        connection: &mut Connection,
        request: Request<Pieces>,
        deadline: Instant,
    ) -> Result<Response<Bytes>, Failed> {
        match timeout_at(deadline, connection.sender.ready()).await {
            Ok(Ok(())) if Instant::now() < deadline => {}
            Ok(Err(error)) => return Err(Failed::HandedBack(Box::new(request), describe(&error))),
            Ok(Ok(())) | Err(_) => return Err(Failed::For(not_sent(NotSent::ConnectTimeout))),
        }
        let exchange = async {
            let response = match connection.sender.try_send_request(request).await {
                Ok(response) => response,
                Err(mut error) => {
                    let unsent = error.take_message();
                    let why = describe(&error.into_error());
                    return Err(match unsent {
                        Some(unsent) => Failed::HandedBack(Box::new(unsent), why),
                        None => Failed::For(TransportError::NoAnswer { why }),
                    });
                }
            };
            let (head, body) = response.into_parts();
            let body = self.read(body, head.status.as_u16()).await.map_err(Failed::For)?;
            Ok(Response::from_parts(head, body))
        };
        let late = || Failed::For(TransportError::NoAnswer { why: "no whole answer in time".to_owned() });
        timeout_at(deadline, exchange).await.unwrap_or_else(|_| Err(late()))
    }

    async fn read(&self, mut body: hyper::body::Incoming, status: u16) -> Result<Bytes, TransportError> {
        let limit = self.options.answer_limit;
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| TransportError::NoAnswer { why: describe(&error) })?;
            let Ok(data) = frame.into_data() else { continue };
            if first.len() + rest.len() + data.len() > limit {
                return Err(TransportError::TooLarge { status, limit });
            }
            if first.is_empty() {
                first = data;
            } else {
                rest.extend_from_slice(&data);
            }
        }
        if rest.is_empty() {
            return Ok(first);
        }
        let mut whole = BytesMut::with_capacity(first.len() + rest.len());
        whole.extend_from_slice(&first);
        whole.unsplit(rest);
        Ok(whole.freeze())
    }

    fn take_idle(&self, authority: &str, max_idle: Duration) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|connection| !connection.sender.is_closed() && connection.since.elapsed() < READ_IDLE);
        let usable = |connection: &Connection| {
            connection.authority == authority && connection.since.elapsed() < max_idle
        };
        let at = idle.iter().rposition(usable)?;
        idle.remove(at)
    }

    fn keep(&self, mut connection: Connection, response: Response<Bytes>) -> Response<Bytes> {
        if !connection.sender.is_closed() {
            connection.since = Instant::now();
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() >= MAX_IDLE {
                idle.pop_front();
            }
            idle.push_back(connection);
        }
        response
    }
}

impl Transport for HttpsTransport {
    fn send<'a>(
        &'a self,
        request: Request<Body>,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<Response<Bytes>, TransportError>> {
        Box::pin(self.exchange(request, deadline))
    }
}

/// Opens TLS to `endpoint`, sends no request, and returns the fingerprint of the key whose holder answered.
///
/// # Errors
/// [`TransportError::NotSent`]: no connection, no TLS, or plain HTTP, which has no key.
pub async fn probe_pin(endpoint: &Endpoint, deadline: Instant) -> Result<Fingerprint, TransportError> {
    let pin = SpkiPin::new(TlsTrust::FirstUse);
    let tls = tls::client_config(pin.clone()).map(|config| TlsConnector::from(Arc::new(config)));
    let uri = endpoint.uri("/").map_err(|error| not_sent(NotSent::Invalid(error.to_string())))?;
    if uri.scheme_str() != Some("https") {
        return Err(not_sent(NotSent::Tls("plain HTTP has no key".to_owned())));
    }
    let handshake = async { open_tls(&tls, &uri, open_tcp(&uri).await?).await.map(drop) };
    timeout_at(deadline, handshake).await.unwrap_or(Err(not_sent(NotSent::ConnectTimeout)))?;
    pin.pin().ok_or_else(|| not_sent(NotSent::Tls("the handshake showed no key".to_owned())))
}

enum Failed {
    /// Not a byte was written; here it is again.
    HandedBack(Box<Request<Pieces>>, String),
    For(TransportError),
}

/// Turns an absolute request into one for an HTTP/1.1 connection: origin form, `Host`, `Accept`.
fn prepare(request: Request<Body>) -> Result<(Request<Pieces>, Uri, String), TransportError> {
    let invalid = |why: &str| not_sent(NotSent::Invalid(why.to_owned()));
    let (mut head, body) = request.into_parts();
    let authority = head.uri.authority().ok_or_else(|| invalid("the URI has no host"))?.as_str().to_owned();
    let host = authority.parse().map_err(|_| invalid("the host is not a header value"))?;
    head.headers.insert(header::HOST, host);
    let mut origin_form = uri::Parts::default();
    origin_form.path_and_query =
        Some(head.uri.path_and_query().cloned().unwrap_or(uri::PathAndQuery::from_static("/")));
    let origin_form = Uri::from_parts(origin_form).map_err(|_| invalid("the path is not a URI"))?;
    let uri = std::mem::replace(&mut head.uri, origin_form);
    head.headers.entry(header::ACCEPT).or_insert(header::HeaderValue::from_static("application/json"));
    Ok((Request::from_parts(head, Pieces::new(body)), uri, authority))
}

async fn open_tcp(uri: &Uri) -> Result<TcpStream, TransportError> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let default_port = if uri.scheme_str() == Some("http") { 80 } else { 443 };
    let port = uri.port_u16().unwrap_or(default_port);
    let tcp = TcpStream::connect((host, port)).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::ConnectionRefused => not_sent(NotSent::Refused),
        std::io::ErrorKind::TimedOut => not_sent(NotSent::ConnectTimeout),
        _ => not_sent(NotSent::Unreachable(error.to_string())),
    })?;
    // Requests are small and answers waited for: Nagle only adds delay. Failing to set it harms nothing.
    let _ = tcp.set_nodelay(true);
    // A request that is broken off at its deadline must not go on out of the kernel's buffer: closing resets.
    let _ = tcp.set_zero_linger();
    Ok(tcp)
}

async fn open_tls(
    tls: &Result<TlsConnector, rustls::Error>,
    uri: &Uri,
    tcp: TcpStream,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, TransportError> {
    let refused = |why: String| not_sent(NotSent::Tls(why));
    let connector = tls.as_ref().map_err(|error| refused(error.to_string()))?;
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).map_err(|error| refused(error.to_string()))?;
    connector.connect(name, tcp).await.map_err(|error| {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match tls.and_then(tls::mismatch_in) {
            Some(mismatch) => TransportError::PinMismatch(mismatch),
            None => refused(error.to_string()),
        }
    })
}

async fn handshake<S>(stream: S, authority: &str) -> Result<Connection, TransportError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: hyper::Error| not_sent(NotSent::Unreachable(describe(&error)));
    let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // Its errors also reach whoever waits for an answer; there is nobody else to tell.
    let driver = tokio::spawn(async move { drop(driver.await) });
    Ok(Connection { authority: authority.to_owned(), sender, driver, since: Instant::now() })
}

fn not_sent(why: NotSent) -> TransportError {
    TransportError::NotSent { why }
}

fn describe(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// A [`Body`] as hyper wants it, in small pieces.
struct Pieces {
    parts: VecDeque<Bytes>,
    left: usize,
}

impl Pieces {
    fn new(body: Body) -> Self {
        let left = body.len();
        Self { parts: body.into_parts().into(), left }
    }
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let pieces = self.get_mut();
        let Some(part) = pieces.parts.front_mut() else { return Poll::Ready(None) };
        let piece = part.split_to(part.len().min(PIECE));
        if part.is_empty() {
            pieces.parts.pop_front();
        }
        pieces.left = pieces.left.saturating_sub(piece.len());
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}
