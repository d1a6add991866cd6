//! HTTP/1.1 over pinned TLS, written for one question: *has a byte of this request reached the BMC?*
//!
//! It drives hyper's connections itself instead of a pooling client, because a pool retries on its own and cannot
//! tell in which phase a deadline struck. Connecting is a phase of its own here, and a request that hyper hands back
//! was never written. A connection is kept alive for the next read and thrown away at the first doubt. A mutation
//! gets one of its own: small web servers hang up after an answer without saying so, and a request that meets that
//! would have an outcome that nobody knows.
//!
//! Dropping a send, or its deadline, closes the connection at once: an upload stops, it does not go on behind the
//! caller's back. Redirects are not followed and no proxy is used: credentials go to one address only. What small web
//! servers do beyond the standards is taken as it is meant: header lines that are none, bodies that are compressed
//! unasked, and connections that end without a word of TLS.
//! Plain HTTP is spoken to loopback only (see [`Endpoint::parse`]).

use std::{
    collections::VecDeque,
    io::{self, Read as _},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use flate2::read::GzDecoder;
use futures::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response, Uri, header, uri};
use http_body_util::BodyExt;
use hyper::{
    body::{Frame, SizeHint},
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsConnector;

use crate::{
    endpoint::Endpoint,
    tls::{self, Fingerprint, SpkiPin, TlsTrust},
    transport::{Body, DEFAULT_ANSWER_LIMIT, Fence, Mutates, NotSent, Repeated, Transport, TransportError},
};

/// Idle connections that are kept. A BMC serves one or two requests at a time anyway.
const MAX_IDLE: usize = 2;
/// A read takes a connection that was idle for up to this long; it may be repeated if the BMC has hung up.
const READ_IDLE: Duration = Duration::from_secs(20);
/// A mutation that has less time left once it is connected, and less than half of its time, is not sent: its answer would
/// come too late, and nobody would know its outcome.
const LEAST: Duration = Duration::from_secs(4);
/// A package is handed to the connection in pieces of this size, so that a deadline strikes between two.
const PIECE: usize = 64 * 1024;

/// How a gzip member begins (RFC 1952, section 2.3.1).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

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
        let max_idle = match *request.method() {
            _ if request.extensions().get::<Repeated>().is_some() => Duration::ZERO,
            Method::GET => READ_IDLE,
            _ => Duration::ZERO,
        };
        while let Some(mut connection) = self.take_idle(&authority, max_idle) {
            match self.run(&mut connection, request, deadline).await {
                Ok(response) => return Ok(self.keep(connection, response)),
                Err(Failed::HandedBack(unsent, _)) => request = *unsent,
                Err(Failed::For(error)) => return Err(error),
            }
        }
        let mut connection = self.connect(&uri, &authority, deadline).await?;
        if let Some(Mutates { began }) = request.extensions().get() {
            let least = LEAST.min(deadline.saturating_duration_since(*began) / 2);
            if deadline.saturating_duration_since(Instant::now()) < least {
                return Err(not_sent(NotSent::ConnectTimeout));
            }
        }
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
            handshake(AbruptEnd(open_tls(&self.tls, uri, tcp).await?), authority).await
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
        if request.body().is_fenced_off() {
            return Err(Failed::For(not_sent(NotSent::Invalid(BrokenOff.to_string()))));
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
            let status = head.status.as_u16();
            let body = self.read(body, status).await.map_err(Failed::For)?;
            let body = self.decoded(&head.headers, body, status).map_err(Failed::For)?;
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

    /// The body without its compression. A request that names no encoding allows any (RFC 9110, section 12.5.3); gzip
    /// is the one that services use. The limit holds for what comes out.
    fn decoded(&self, headers: &HeaderMap, body: Bytes, status: u16) -> Result<Bytes, TransportError> {
        let encoding = headers.get(header::CONTENT_ENCODING).and_then(|value| value.to_str().ok());
        let is_gzip = encoding
            .is_some_and(|name| matches!(name.trim().to_ascii_lowercase().as_str(), "gzip" | "x-gzip"));
        // Some services name the encoding and send plain text.
        if !is_gzip || !body.starts_with(&GZIP_MAGIC) {
            return Ok(body);
        }
        let limit = self.options.answer_limit;
        let mut plain = Vec::new();
        let reading = GzDecoder::new(body.as_ref()).take(limit as u64 + 1).read_to_end(&mut plain);
        match reading {
            Ok(length) if length > limit => Err(TransportError::TooLarge { status, limit }),
            Ok(_) => Ok(plain.into()),
            Err(error) => Err(TransportError::NoAnswer { why: format!("its gzip is broken: {error}") }),
        }
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

/// What a service shows of itself before anything is sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Of the key whose holder answered: what a pin is compared with.
    pub key: Fingerprint,
    /// SHA-256 of the certificate in DER, as browsers and BMCs' own pages show it; another one after each renewal.
    pub certificate: Fingerprint,
}

/// Opens TLS to `endpoint`, sends no request, and returns the fingerprint of the key whose holder answered.
///
/// # Errors
/// [`TransportError::NotSent`]: no connection, no TLS, or plain HTTP, which has no key.
pub async fn probe_pin(endpoint: &Endpoint, deadline: Instant) -> Result<Fingerprint, TransportError> {
    probe(endpoint, deadline).await.map(|shown| shown.key)
}

/// The same, with the fingerprint of the certificate.
///
/// # Errors
/// As [`probe_pin`].
pub async fn probe(endpoint: &Endpoint, deadline: Instant) -> Result<Shown, TransportError> {
    let pin = SpkiPin::new(TlsTrust::FirstUse);
    let tls = tls::client_config(pin.clone()).map(|config| TlsConnector::from(Arc::new(config)));
    let uri = endpoint.uri("/").map_err(|error| not_sent(NotSent::Invalid(error.to_string())))?;
    if uri.scheme_str() != Some("https") {
        return Err(not_sent(NotSent::Tls("plain HTTP has no key".to_owned())));
    }
    let handshake = async { open_tls(&tls, &uri, open_tcp(&uri).await?).await };
    let stream = timeout_at(deadline, handshake).await.unwrap_or(Err(not_sent(NotSent::ConnectTimeout)))?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.map(|der| Fingerprint(Sha256::digest(der).into()));
    pin.pin()
        .zip(certificate)
        .map(|(key, certificate)| Shown { key, certificate })
        .ok_or_else(|| not_sent(NotSent::Tls("the handshake showed no key".to_owned())))
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
            None => refused(tls.map_or_else(|| error.to_string(), tls::in_words)),
        }
    })
}

async fn handshake<S>(stream: S, authority: &str) -> Result<Connection, TransportError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: hyper::Error| not_sent(NotSent::Unreachable(describe(&error)));
    // A header line that is none is left out instead of losing the answer.
    let (sender, driver) = http1::Builder::new()
        .ignore_invalid_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    // Its errors also reach whoever waits for an answer; there is nobody else to tell.
    let driver = tokio::spawn(async move { drop(driver.await) });
    Ok(Connection { authority: authority.to_owned(), sender, driver, since: Instant::now() })
}

/// TLS whose peer may hang up without `close_notify`, as BMCs do. An answer of a stated length that is cut off is still
/// found out by its length; one that ends with its connection (HTTP/1.0) is whole when its JSON is.
struct AbruptEnd<S>(S);

impl<S: AsyncRead + Unpin> AsyncRead for AbruptEnd<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.0).poll_read(cx, buffer) {
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            other => other,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AbruptEnd<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
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
///
/// hyper writes in a task of its own, which goes on while whoever waits for the answer does not run, for example right
/// after the machine has slept. So the fence is asked here, before each piece.
struct Pieces {
    parts: VecDeque<Bytes>,
    left: usize,
    fence: Option<Fence>,
}

/// hyper closes the connection: the service sees a request that never ends.
#[derive(Debug, thiserror::Error)]
#[error("nothing more may be sent")]
struct BrokenOff;

impl Pieces {
    fn new(body: Body) -> Self {
        let (left, fence) = (body.len(), body.fence().cloned());
        Self { parts: body.into_parts().into(), left, fence }
    }

    fn is_fenced_off(&self) -> bool {
        self.fence.as_ref().is_some_and(|may_go_on| !may_go_on())
    }
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let pieces = self.get_mut();
        if pieces.is_fenced_off() {
            return Poll::Ready(Some(Err(BrokenOff)));
        }
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    #[test]
    fn what_is_unpacked_counts() {
        let mut packed = GzEncoder::new(Vec::new(), Compression::best());
        packed.write_all(&[b' '; 100_000]).unwrap();
        let packed = Bytes::from(packed.finish().unwrap());
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, header::HeaderValue::from_static("gzip"));
        let unpacked = |answer_limit, body: &Bytes| {
            let options = HttpsOptions { answer_limit, ..HttpsOptions::default() };
            HttpsTransport::with_options(TlsTrust::FirstUse, options).decoded(&headers, body.clone(), 200)
        };
        assert_eq!(unpacked(100_000, &packed).unwrap().len(), 100_000);
        assert!(matches!(unpacked(99_999, &packed), Err(TransportError::TooLarge { limit: 99_999, .. })));
        assert!(matches!(unpacked(99_999, &packed.slice(..50)), Err(TransportError::NoAnswer { .. })));
        assert_eq!(unpacked(10, &Bytes::from_static(b"{}")).unwrap(), "{}");
    }
}
