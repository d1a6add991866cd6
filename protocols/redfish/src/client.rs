//! Client.
use std::{sync::Arc, time::Duration};
use crate::{auth::{AuthGate, Credentials, Observer, SessionHandle}, error::Error, model::*, transport::Transport};

/// Address of a Redfish service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint { scheme: http::uri::Scheme, authority: http::uri::Authority }
/// Why a text is not an [`Endpoint`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not a URL.
    #[error("not a URL: {0}")]
    NotAUrl(String),
    /// A scheme other than https (or http on loopback).
    #[error("only https is accepted (plain http on loopback only)")]
    Scheme,
    /// User information in the URL.
    #[error("the URL must not hold a user or password")]
    UserInfo,
}
impl Endpoint {
    /// Reads `https://host[:port][/…]` or `host[:port]`.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub fn parse(_text: &str) -> Result<Self, EndpointError> { todo!() }
    /// Host and port.
    #[must_use]
    pub fn address(&self) -> &str { self.authority.as_str() }
}
/// Behaviour of a [`Client`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Deadline of each read request. Mutations bring their own.
    pub read_timeout: Duration,
    /// Which system of a service that holds several: its path, id, name or UUID.
    pub system: Option<String>,
    /// How long to stay with HTTP Basic after the session table was full.
    pub basic_period: Duration,
}
impl Default for Options {
    fn default() -> Self { Self { read_timeout: Duration::from_secs(60), system: None, basic_period: Duration::from_secs(300) } }
}
/// A client of one service.
pub struct Client { _s: () }
impl Client {
    /// With default options.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>, endpoint: Endpoint, credentials: Credentials, gate: Arc<dyn AuthGate>, observer: Arc<dyn Observer>) -> Self { Self::with_options(transport, endpoint, credentials, gate, observer, Options::default()) }
    /// With options.
    #[must_use]
    pub fn with_options(_transport: Arc<dyn Transport>, _endpoint: Endpoint, _credentials: Credentials, _gate: Arc<dyn AuthGate>, _observer: Arc<dyn Observer>, _options: Options) -> Self { todo!() }
    /// Host and port.
    #[must_use]
    pub fn address(&self) -> &str { todo!() }
    /// Deletes the session.
    pub async fn close(&self) { todo!() }
    /// The session in use.
    pub async fn session_handle(&self) -> Option<SessionHandle> { todo!() }
    /// Uses a session from before.
    pub async fn adopt_session(&self, _session: SessionHandle) { todo!() }
    /// Deletes a session from before, proving it by its own token.
    pub async fn delete_session(&self, _session: &SessionHandle) -> Result<(), Error> { todo!() }
    /// Drops what was discovered.
    pub fn forget_links(&self) { todo!() }
    /// Paths of the systems.
    pub async fn systems(&self) -> Result<Vec<String>, Error> { todo!() }
    /// Who the server is.
    pub async fn identity(&self) -> Result<Identity, Error> { todo!() }
    /// System now.
    pub async fn system(&self) -> Result<System, Error> { todo!() }
    /// Health.
    pub async fn health(&self) -> Result<HealthReport, Error> { todo!() }
    /// Firmware.
    pub async fn firmware_inventory(&self) -> Result<FirmwareInventory, Error> { todo!() }
    /// Capabilities.
    pub async fn capabilities(&self) -> Result<Capabilities, Error> { todo!() }
    /// The job queue.
    pub async fn jobs(&self) -> Result<Jobs, Error> { todo!() }
    /// One job; `None`: it does not exist (any more).
    pub async fn job(&self, _id: &str) -> Result<Option<Job>, Error> { todo!() }
    /// Lifecycle records newer than `since`, newest first.
    pub async fn lifecycle_log(&self, _since: Option<u64>) -> Result<LogRecords, Error> { todo!() }
    /// The newest Lifecycle record.
    pub async fn last_lifecycle_record(&self) -> Result<Option<LogRecord>, Error> { todo!() }
    /// `None`: not declared by this service.
    pub async fn readiness(&self) -> Result<Option<Readiness>, Error> { todo!() }
    /// Where a task stands.
    pub async fn follow(&self, _task: &TaskRef) -> Result<TaskProgress, Error> { todo!() }
}
