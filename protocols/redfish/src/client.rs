//! The client: requests with authentication, deadlines, one careful retry, and evidence.
//!
//! Every request goes through [`Client::exchange`]. It is repeated at most once, and only when that is harmless:
//! a read whose answer was lost or is promised for a moment later, or any request that was answered 401 because the
//! session had ended. A redirect is followed where it stays on the service. Whether and how a password may be
//! presented is decided in `session.rs`.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    auth::{AuthGate, Credentials, Exchange, Observer},
    classify::Class,
    discovery::{Links, ROOT},
    document::{self, Document, Evidence},
    endpoint::Endpoint,
    error::{Error, Problem},
    session::{Auth, Left, Presented},
    transport::{Body, Mutates, NotSent, Repeated, Transport, TransportError},
};

/// Behaviour of a [`Client`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Deadline of each read request. Mutations bring their own.
    pub read_timeout: Duration,
    /// Which system of a service that holds several: its path, or the last segment of it. `None`: the one that the
    /// address names ([`Endpoint::system`]), or the only one.
    pub system: Option<String>,
    /// How long to stay with HTTP Basic after the session table was full.
    pub basic_period: Duration,
    /// So long a password that the service has refused is not presented again. Services lock accounts out after a few
    /// refusals.
    pub refused_period: Duration,
    /// Longest time for the members of one collection. Those that are not read by then are named as unreadable.
    pub collection_time: Duration,
}

/// Redirects in a row that are followed.
const MAX_REDIRECTS: usize = 4;
/// A read that is answered "later" is repeated when that is at most so long.
const PATIENCE: Duration = Duration::from_secs(5);

impl Default for Options {
    fn default() -> Self {
        // An iDRAC8 takes more than half a minute for an expanded inventory.
        Self {
            read_timeout: Duration::from_secs(60),
            system: None,
            basic_period: Duration::from_secs(300),
            refused_period: Duration::from_secs(300),
            collection_time: Duration::from_secs(300),
        }
    }
}

/// A client of one Redfish service. Share it by reference: it has one session, and requests may run concurrently.
///
/// Call [`Client::close`] when done with it: dropping it cannot delete the session.
pub struct Client {
    pub(crate) endpoint: Endpoint,
    pub(crate) credentials: Credentials,
    pub(crate) gate: Arc<dyn AuthGate>,
    pub(crate) options: Options,
    /// Held across a login, so that concurrent requests wait for one session instead of opening their own.
    pub(crate) auth: tokio::sync::Mutex<Auth>,
    /// Sessions that were given up and whose end is not certain, the oldest first.
    pub(crate) left: Mutex<Vec<Left>>,
    pub(crate) links: Mutex<Links>,
    transport: Arc<dyn Transport>,
    observer: Arc<dyn Observer>,
}

/// A request before it is authenticated.
pub(crate) struct Call<'a> {
    pub method: Method,
    pub path: &'a str,
    pub body: Body,
    pub content_type: Option<HeaderValue>,
    pub deadline: Instant,
    /// When the time began that ends with the deadline: what is read before a mutation takes of it.
    pub began: Instant,
    /// Whether the service may change something because of it.
    pub mutates: bool,
}

impl Client {
    /// A client with default options. Sends nothing yet.
    #[must_use]
    pub fn new(
        transport: Arc<dyn Transport>,
        endpoint: Endpoint,
        credentials: Credentials,
        gate: Arc<dyn AuthGate>,
        observer: Arc<dyn Observer>,
    ) -> Self {
        Self::with_options(transport, endpoint, credentials, gate, observer, Options::default())
    }

    /// A client with the given options. Sends nothing yet.
    #[must_use]
    pub fn with_options(
        transport: Arc<dyn Transport>,
        endpoint: Endpoint,
        credentials: Credentials,
        gate: Arc<dyn AuthGate>,
        observer: Arc<dyn Observer>,
        options: Options,
    ) -> Self {
        let (auth, left, links) = (tokio::sync::Mutex::default(), Mutex::default(), Mutex::default());
        Self { endpoint, credentials, gate, options, auth, left, links, transport, observer }
    }

    /// Host and port of the service.
    #[must_use]
    pub fn address(&self) -> &str {
        self.endpoint.address()
    }

    pub(crate) fn read_deadline(&self) -> Instant {
        Instant::now() + self.options.read_timeout
    }

    /// GETs a resource.
    pub(crate) async fn get(&self, path: &str) -> Result<Document, Error> {
        self.get_by(path, self.read_deadline()).await
    }

    /// GETs a resource by a deadline.
    pub(crate) async fn get_by(&self, path: &str, deadline: Instant) -> Result<Document, Error> {
        let call = Call::get(path, deadline);
        let response = self.exchange(call).await?;
        let document = self.document(&Method::GET, path, response)?;
        if document::is_error(&document.value) {
            return Err(self.error_within(path, &document.value, &document.evidence));
        }
        Ok(document)
    }

    /// A resource, or `None` when the service says that it does not exist.
    pub(crate) async fn find(&self, path: &str) -> Result<Option<Document>, Error> {
        match self.get(path).await {
            Ok(document) => Ok(Some(document)),
            Err(error) if error.class() == Class::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn document(
        &self,
        method: &Method,
        path: &str,
        response: Response<Bytes>,
    ) -> Result<Document, Error> {
        let evidence = evidence(path, response.status().as_u16(), response.body());
        match self.parse(&evidence.body) {
            Some(value) => Ok(Document { value, evidence }),
            None => {
                let problem = Problem::Malformed { what: not_json(&response), evidence };
                Err(self.error(method, path, false, problem))
            }
        }
    }

    /// The object of a body, its links written as paths of this service.
    pub(crate) fn parse(&self, body: &[u8]) -> Option<Value> {
        let mut value = document::parse(body)?;
        self.endpoint.own_links(&mut value);
        Some(value)
    }

    /// The error that an answer tells of although its status says success.
    pub(crate) fn error_within(&self, path: &str, holder: &Value, evidence: &Evidence) -> Error {
        let (status, messages) = (evidence.status, document::messages(holder));
        let problem = Problem::Answer { status, messages, retry_after: None, evidence: evidence.clone() };
        self.error(&Method::GET, path, false, problem)
    }

    pub(crate) fn error(&self, method: &Method, path: &str, mutates: bool, problem: Problem) -> Error {
        Error::new(self.address(), method, path, mutates, problem)
    }

    /// The error of something that is not declared.
    pub(crate) fn not_declared(&self, path: &str, what: &str) -> Error {
        self.error(&Method::GET, path, false, Problem::NotDeclared { what: what.to_owned() })
    }

    pub(crate) fn no_queue(&self) -> Error {
        self.error(&Method::GET, crate::discovery::ROOT, false, Problem::NoQueue)
    }

    /// What is read before a mutation, bounded by the mutation's own deadline. Nothing has been changed when it fails.
    pub(crate) async fn before<T>(
        &self,
        deadline: Instant,
        reading: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::time::timeout_at(deadline, reading).await.unwrap_or_else(|_| {
            let late = TransportError::NotSent { why: NotSent::ConnectTimeout };
            Err(self.error(&Method::GET, ROOT, false, Problem::Transport(late)))
        })
    }

    /// The error of a request that cannot be made.
    pub(crate) fn bad_request(&self, path: &str, what: &str) -> Error {
        self.error(&Method::POST, path, false, Problem::Request { what: what.to_owned() })
    }

    /// Sends a call with authentication. Any answer of 2xx is a success, everything else an error.
    pub(crate) async fn exchange(&self, call: Call<'_>) -> Result<Response<Bytes>, Error> {
        let (presented, guard) = self.authenticate(call.deadline).await?;
        let response = match self.send_reading_twice(&call, &presented).await {
            Ok(response) => response,
            Err(failure) => {
                self.settle_basic(&presented, guard, Err(&failure)).await;
                return Err(self.error(&call.method, call.path, call.mutates, Problem::Transport(failure)));
            }
        };
        self.settle_basic(&presented, guard, Ok(response.status().as_u16())).await;
        let Presented::Session(session) = &presented else {
            return self.check_as(&presented, &call, response);
        };
        if response.status().as_u16() != 401 {
            session.note_accepted();
            return self.check(&call, response);
        }
        if !self.give_up_session(session, call.path, call.deadline).await {
            return self.check(&call, response);
        }
        // A 401 was not acted upon, so even a mutation may follow in a new session.
        let (presented, guard) = self.authenticate(call.deadline).await?;
        let outcome = self.send(&call, &presented, 2).await;
        let seen = outcome.as_ref().map(|response| response.status().as_u16());
        match (&presented, seen) {
            (Presented::Session(session), Ok(401)) => {
                session.note_refused();
                self.with_links(|links| links.forbid(call.path));
            }
            (Presented::Session(session), Ok(_)) => session.note_accepted(),
            _ => {}
        }
        self.settle_basic(&presented, guard, seen).await;
        match outcome {
            Ok(response) => self.check_as(&presented, &call, response),
            Err(failure) => {
                Err(self.error(&call.method, call.path, call.mutates, Problem::Transport(failure)))
            }
        }
    }

    /// Sends once; a read whose answer was lost, or is promised for a moment later, is sent once more.
    pub(crate) async fn send_reading_twice(
        &self,
        call: &Call<'_>,
        presented: &Presented,
    ) -> Result<Response<Bytes>, TransportError> {
        let outcome = self.send(call, presented, 1).await;
        let wait = match &outcome {
            _ if call.mutates => None,
            Err(TransportError::NoAnswer { .. }) => Some(Duration::ZERO),
            // DSP0266: 503 with Retry-After is a service that is busy for a moment.
            Ok(response) if matches!(response.status().as_u16(), 429 | 503) => {
                retry_after(response).filter(|wait| *wait <= PATIENCE)
            }
            _ => None,
        };
        match wait {
            Some(wait) if Instant::now() + wait < call.deadline => {
                tokio::time::sleep(wait).await;
                self.send(call, presented, 2).await
            }
            _ => outcome,
        }
    }

    /// One exchange, redirects on this service included (DSP0266).
    pub(crate) async fn send(
        &self,
        call: &Call<'_>,
        presented: &Presented,
        attempt: u32,
    ) -> Result<Response<Bytes>, TransportError> {
        let mut response = self.send_to(call.path, call, presented, attempt).await?;
        for _ in 0..MAX_REDIRECTS {
            let Some(path) = self.redirected(call, &response) else { break };
            response = self.send_to(&path, call, presented, attempt).await?;
        }
        Ok(response)
    }

    /// Where an answer sends the same request to. Another scheme, host or port is not followed: what a request
    /// presents is for this service. A POST is repeated only by the statuses that promise that it was not acted upon
    /// (RFC 9110, sections 15.4.8 and 15.4.9).
    fn redirected(&self, call: &Call<'_>, response: &Response<Bytes>) -> Option<String> {
        let follows = match response.status().as_u16() {
            307 | 308 => true,
            301..=303 => call.method == Method::GET,
            _ => false,
        };
        let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
        let path = self.endpoint.path_of_redirect(location)?;
        follows.then(|| path.to_owned())
    }

    /// One exchange, observed.
    async fn send_to(
        &self,
        path: &str,
        call: &Call<'_>,
        presented: &Presented,
        attempt: u32,
    ) -> Result<Response<Bytes>, TransportError> {
        let started = Instant::now();
        let outcome = match self.request(path, call, presented) {
            // Not every transport looks at the clock before it writes.
            Ok(_) if started >= call.deadline => {
                Err(TransportError::NotSent { why: NotSent::ConnectTimeout })
            }
            Ok(mut request) => {
                if call.mutates {
                    request.extensions_mut().insert(Mutates { began: call.began });
                } else if attempt > 1 {
                    request.extensions_mut().insert(Repeated);
                }
                self.transport.send(request, call.deadline).await
            }
            Err(error) => {
                let why = NotSent::Invalid(error.to_string());
                Err(TransportError::NotSent { why })
            }
        };
        self.observer.observe(&Exchange {
            server: self.address(),
            method: &call.method,
            path: document::without_query(path),
            status: outcome.as_ref().ok().map(|response| response.status().as_u16()),
            duration: started.elapsed(),
            attempt,
            answer_bytes: outcome.as_ref().map_or(0, |response| response.body().len()),
            failure: outcome.as_ref().err(),
        });
        outcome
    }

    fn request(
        &self,
        path: &str,
        call: &Call<'_>,
        presented: &Presented,
    ) -> Result<Request<Body>, http::Error> {
        let mut request = Request::builder().method(call.method.clone()).uri(self.endpoint.uri(path)?);
        if let Some(content_type) = &call.content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        // DSP0266: services answer this version, and some insist on hearing it.
        request = request.header("OData-Version", HeaderValue::from_static("4.0"));
        if let Some((name, value)) = presented.header(&self.credentials) {
            request = request.header(name, value);
        }
        request.body(call.body.clone())
    }

    /// As [`Client::check`]; where the request presented the password itself, a status of 401 refuses that.
    fn check_as(
        &self,
        presented: &Presented,
        call: &Call<'_>,
        response: Response<Bytes>,
    ) -> Result<Response<Bytes>, Error> {
        if matches!(presented, Presented::Basic(_)) && response.status().as_u16() == 401 {
            return Err(self.login_refused(call, &response));
        }
        self.check(call, response)
    }

    pub(crate) fn check(&self, call: &Call<'_>, response: Response<Bytes>) -> Result<Response<Bytes>, Error> {
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        if matches!(status, 404 | 410) {
            self.forget_moved(call.path);
        }
        let retry_after = retry_after(&response);
        let messages = document::parse(response.body()).as_ref().map(document::messages).unwrap_or_default();
        let evidence = evidence(call.path, status, response.body());
        let problem = Problem::Answer { status, messages, retry_after, evidence };
        Err(self.error(&call.method, call.path, call.mutates, problem))
    }
}

impl<'a> Call<'a> {
    pub fn get(path: &'a str, deadline: Instant) -> Self {
        let (method, body) = (Method::GET, Body::empty());
        Self { method, path, body, content_type: None, deadline, began: Instant::now(), mutates: false }
    }

    pub fn post(path: &'a str, body: &Value, deadline: Instant) -> Self {
        let body = Body::from(Bytes::from(body.to_string()));
        let content_type = Some(HeaderValue::from_static("application/json"));
        let began = Instant::now();
        Self { method: Method::POST, path, body, content_type, deadline, began, mutates: true }
    }

    pub fn delete(path: &'a str, deadline: Instant) -> Self {
        let (method, body) = (Method::DELETE, Body::empty());
        Self { method, path, body, content_type: None, deadline, began: Instant::now(), mutates: true }
    }
}

/// `Retry-After` in seconds, of at most an hour; its other form, a date, is not understood.
pub(crate) fn retry_after(response: &Response<Bytes>) -> Option<Duration> {
    let seconds = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    (seconds <= 3600).then(|| Duration::from_secs(seconds))
}

/// What a body is that holds no JSON object, by its first character or its media type. More of it is not repeated:
/// nobody knows what a page of an unknown program shows.
fn not_json(response: &Response<Bytes>) -> String {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).map(str::trim).unwrap_or_default();
    match kind {
        _ if response.body().trim_ascii_start().starts_with(b"<") => "it is not JSON but markup".to_owned(),
        "" => "it is not JSON".to_owned(),
        kind if kind.contains("json") => "it is not JSON, although it says so".to_owned(),
        kind => format!("it is not JSON but {}", kind.chars().take(60).collect::<String>()),
    }
}

pub(crate) fn evidence(path: &str, status: u16, body: &Bytes) -> Evidence {
    Evidence { path: document::without_query(path).into(), status, body: body.clone() }
}
