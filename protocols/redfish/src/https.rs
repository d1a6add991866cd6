//! HTTPS.
use std::time::Duration;
use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::time::Instant;
use crate::{client::Endpoint, tls::{Fingerprint, TlsTrust}, transport::{Body, DEFAULT_ANSWER_LIMIT, Transport, TransportError}};

/// Limits of an [`HttpsTransport`].
#[derive(Clone, Copy, Debug)]
pub struct HttpsOptions {
    /// For TCP and TLS together.
    pub connect_timeout: Duration,
    /// The largest answer that is read, in bytes.
    pub answer_limit: usize,
}
impl Default for HttpsOptions {
    fn default() -> Self { Self { connect_timeout: Duration::from_secs(10), answer_limit: DEFAULT_ANSWER_LIMIT } }
}
/// The real [`Transport`]: HTTP/1.1 over pinned TLS, connections kept alive.
pub struct HttpsTransport { _o: HttpsOptions }
impl HttpsTransport {
    /// With default limits.
    #[must_use]
    pub fn new(trust: TlsTrust) -> Self { Self::with_options(trust, HttpsOptions::default()) }
    /// With the given limits.
    #[must_use]
    pub fn with_options(_trust: TlsTrust, options: HttpsOptions) -> Self { Self { _o: options } }
    /// The pin in force: the given one, or the one seen at first use; `None` before the first handshake.
    #[must_use]
    pub fn observed_pin(&self) -> Option<Fingerprint> { None }
}
impl Transport for HttpsTransport {
    fn send<'a>(&'a self, _request: http::Request<Body>, _deadline: Instant) -> BoxFuture<'a, Result<http::Response<Bytes>, TransportError>> { todo!() }
}
/// Opens TLS to `endpoint`, sends nothing, and returns the fingerprint of the key the peer proved to hold.
///
/// # Errors
/// [`TransportError::NotSent`].
pub async fn probe_pin(_endpoint: &Endpoint, _deadline: Instant) -> Result<Fingerprint, TransportError> { todo!() }
