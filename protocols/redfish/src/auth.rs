//! Credentials, the session they bought, and the two hooks through which the owner of a BMC watches their use.
//!
//! BMCs count failed logins and block the *address* they came from (an R750: three failures within 60 s), so a
//! client may not decide alone to try a password again. It asks an [`AuthGate`] before every request that presents
//! a password which has not been accepted yet, and reports how it went. A gate that says no costs no attempt.

use std::{fmt, sync::atomic::AtomicBool, sync::atomic::Ordering, time::Duration};

use futures::future::BoxFuture;
use zeroize::Zeroizing;

use crate::transport::TransportError;

/// A user name and its password. The password is wiped on drop and never printed.
#[derive(Clone)]
pub struct Credentials {
    user: String,
    password: Zeroizing<String>,
}

impl Credentials {
    /// Takes the password over; pass a value that is not kept elsewhere.
    #[must_use]
    pub fn new(user: impl Into<String>, password: Zeroizing<String>) -> Self {
        Self { user: user.into(), password }
    }

    /// The user name.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// A session at the service: where to delete it, and the token that proves it. Treat it as a credential.
#[derive(Clone)]
pub struct SessionHandle {
    /// Path of the session resource, such as `/redfish/v1/SessionService/Sessions/12`.
    pub uri: String,
    token: Zeroizing<String>,
}

impl SessionHandle {
    /// A handle that was exported before. The token is the value of `X-Auth-Token`.
    #[must_use]
    pub fn new(uri: impl Into<String>, token: Zeroizing<String>) -> Self {
        Self { uri: uri.into(), token }
    }

    /// The secret token, to be sealed before it is stored.
    #[must_use]
    pub fn token(&self) -> &Zeroizing<String> {
        &self.token
    }

    /// Whether both are the same session. A service that has restarted numbers its sessions anew: the path alone does
    /// not tell.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.uri == other.uri && self.token == other.token
    }
}

impl fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionHandle").field("uri", &self.uri).finish_non_exhaustive()
    }
}

/// How a password is presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// A login: POST to the session collection.
    Session,
    /// HTTP Basic on an ordinary request.
    Basic,
}

/// One request that presents a password which this client has not seen accepted.
#[derive(Clone, Debug)]
pub struct AuthAttempt {
    /// Address of the service, host and port.
    pub server: String,
    /// The user name.
    pub user: String,
    /// How the password is presented.
    pub method: AuthMethod,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthOutcome {
    /// The password was accepted.
    Accepted,
    /// The service said 401 (or 403 at login). It has counted a failure.
    Rejected,
    /// Nothing reached the service; it has counted nothing.
    NotSent,
    /// The service answered without judging the password: not ready, session table full. It has counted nothing.
    NotJudged,
    /// No answer, or one that says nothing about the password. Count it as a failure to be safe.
    Unknown,
}

/// A gate's refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct GateDenied {
    /// Why, in words for people; no secrets.
    pub reason: String,
    /// When to ask again; `None`: not before the credential has changed.
    pub retry_after: Option<Duration>,
}

/// Decides whether a password may be presented. See the module's introduction.
pub trait AuthGate: Send + Sync {
    /// Asked before the request is sent. On `Err` nothing is sent.
    fn ask<'a>(&'a self, attempt: &'a AuthAttempt) -> BoxFuture<'a, Result<(), GateDenied>>;

    /// Whether a password that the service has accepted may still be presented without asking. If not, it is asked for
    /// as one that was not accepted yet.
    fn trusts(&self) -> bool {
        true
    }

    /// Told after each attempt that was allowed, exactly once unless the caller's future is dropped meanwhile:
    /// a gate must treat a reservation that is never settled as [`AuthOutcome::Unknown`].
    fn settle<'a>(&'a self, attempt: &'a AuthAttempt, outcome: AuthOutcome) -> BoxFuture<'a, ()>;
}

/// A gate for a single client without a shared budget: closed for good by the first rejection.
#[derive(Debug, Default)]
pub struct FirstRejectionCloses {
    closed: AtomicBool,
}

impl AuthGate for FirstRejectionCloses {
    fn ask<'a>(&'a self, _attempt: &'a AuthAttempt) -> BoxFuture<'a, Result<(), GateDenied>> {
        let closed = self.closed.load(Ordering::Acquire);
        Box::pin(async move {
            if closed {
                let reason = "the service has rejected this password; it is not tried again".to_owned();
                return Err(GateDenied { reason, retry_after: None });
            }
            Ok(())
        })
    }

    fn settle<'a>(&'a self, _attempt: &'a AuthAttempt, outcome: AuthOutcome) -> BoxFuture<'a, ()> {
        if outcome == AuthOutcome::Rejected {
            self.closed.store(true, Ordering::Release);
        }
        Box::pin(async {})
    }
}

/// One finished exchange, as an observer sees it: no headers, no bodies, no query.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// Address of the service, host and port.
    pub server: &'a str,
    /// The method.
    pub method: &'a http::Method,
    /// The path without its query.
    pub path: &'a str,
    /// The status, when there was an answer.
    pub status: Option<u16>,
    /// From handing it to the transport to its end.
    pub duration: Duration,
    /// 1 for the first try, 2 after a new login, a lost read or a fallback.
    pub attempt: u32,
    /// Size of the answer's body in bytes.
    pub answer_bytes: usize,
    /// Why there was no answer.
    pub failure: Option<&'a TransportError>,
}

/// Sees every exchange, for metrics, traces and rate limits. Must not block.
pub trait Observer: Send + Sync {
    /// Called once for each exchange, after its end.
    fn observe(&self, exchange: &Exchange<'_>);
}

/// An observer that does not care.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn observe(&self, _exchange: &Exchange<'_>) {}
}
