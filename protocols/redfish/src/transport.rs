//! One exchange with a Redfish service, and how it can fail before anybody has read the answer.
//!
//! [`Transport`] is the only door to the network: [`crate::HttpsTransport`] is the real one, a simulated site
//! brings its own. The rest of the crate works over `dyn Transport` and under tokio's paused time, so time here
//! is always [`tokio::time`].
//!
//! What callers live on is the *phase* of a failure. [`TransportError::NotSent`] promises that no byte of the
//! request reached the service, so it may be repeated. [`TransportError::NoAnswer`] promises nothing: the service
//! may have acted on it.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::time::Instant;

use crate::tls::PinMismatch;

/// The largest answer that is read, unless the transport was told otherwise: a firmware inventory of a fully
/// populated server, expanded, is about 1 MiB.
pub const DEFAULT_ANSWER_LIMIT: usize = 8 * 1024 * 1024;

/// Marks, as an extension of a request, one that repeats a read whose answer was lost: on a connection of its own,
/// because those that are kept may be gone like the one before.
#[derive(Clone, Copy, Debug)]
pub struct Repeated;

/// Marks, as an extension of a request, one that changes something. The client's own sessions are no change, and not
/// everything that is posted is one.
#[derive(Clone, Copy, Debug)]
pub struct Mutates {
    /// When its time began, which ends with the deadline.
    pub began: Instant,
}

/// Sends one request and returns its whole answer.
///
/// The request carries an absolute URI. Implementations must end or abort the exchange by `deadline`: a request
/// which is still being written then is cut off, not finished in the background. They neither follow redirects
/// nor repeat a request of which any byte may have been sent.
pub trait Transport: Send + Sync {
    /// Runs one exchange. Any status is a success here; only the lack of an answer is an error.
    fn send<'a>(
        &'a self,
        request: http::Request<Body>,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<http::Response<Bytes>, TransportError>>;
}

/// Whether more of a request may leave. Asked from the task that writes it, before each piece.
pub type Fence = Arc<dyn Fn() -> bool + Send + Sync>;

/// A request body: a sequence of buffers, never copied together. An upload is its frame and the package.
#[derive(Clone, Default)]
pub struct Body {
    parts: Vec<Bytes>,
    fence: Option<Fence>,
}

impl Body {
    /// No body at all.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// A body of the given buffers in order.
    #[must_use]
    pub fn from_parts(parts: Vec<Bytes>) -> Self {
        Self { parts: parts.into_iter().filter(|part| !part.is_empty()).collect(), fence: None }
    }

    /// The same body, broken off as soon as `fence` says no: the rest of it is never written.
    #[must_use]
    pub fn fenced(self, fence: Fence) -> Self {
        Self { fence: Some(fence), ..self }
    }

    /// See [`Body::fenced`].
    #[must_use]
    pub fn fence(&self) -> Option<&Fence> {
        self.fence.as_ref()
    }

    /// The length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }

    /// Whether nothing will be sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The buffers in order.
    #[must_use]
    pub fn into_parts(self) -> Vec<Bytes> {
        self.parts
    }

    /// The whole body in one buffer. Copies unless it is one buffer already.
    #[must_use]
    pub fn into_bytes(mut self) -> Bytes {
        if self.parts.len() == 1 {
            return self.parts.pop().unwrap_or_default();
        }
        self.parts.concat().into()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::from_parts(vec![bytes])
    }
}

/// Bodies carry passwords at login, so only the length is shown.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.len())
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TransportError {
    /// Nothing reached the service: no connection, no TLS, or the request was still queued at its deadline.
    #[error("nothing was sent: {why}")]
    NotSent {
        /// What went wrong, without addresses or secrets.
        why: NotSent,
    },
    /// The request, or some of it, was sent and no whole answer came back. The service may have acted on it.
    #[error("no answer after the request was sent: {why}")]
    NoAnswer {
        /// What went wrong, without addresses or secrets.
        why: String,
    },
    /// The answer is larger than the transport reads. The service has acted on the request.
    #[error("the answer (status {status}) is larger than {limit} bytes")]
    TooLarge {
        /// The status line was read.
        status: u16,
        /// The limit in bytes.
        limit: usize,
    },
    /// The service showed another key than the pinned one. No request was sent.
    #[error("the service shows another TLS key")]
    PinMismatch(#[source] PinMismatch),
}

/// Why nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// The port is closed.
    #[error("connection refused")]
    Refused,
    /// No route, name not resolved, or another failure to connect.
    #[error("cannot connect: {0}")]
    Unreachable(String),
    /// No connection in time.
    #[error("no connection in time")]
    ConnectTimeout,
    /// The TLS handshake failed, for another reason than the pin.
    #[error("TLS handshake failed: {0}")]
    Tls(String),
    /// The request itself cannot be sent, for example a URI without a host.
    #[error("the request cannot be sent: {0}")]
    Invalid(String),
}

impl TransportError {
    /// Whether it is certain that the service has not seen the request.
    #[must_use]
    pub fn is_not_sent(&self) -> bool {
        matches!(self, Self::NotSent { .. } | Self::PinMismatch(_))
    }
}
