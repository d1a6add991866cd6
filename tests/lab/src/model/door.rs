//! The front door of a BMC: what every request passes before it means anything, and logins.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use sha2::{Digest, Sha256};

use super::auth::Failure;
use super::bmc::Bmc;
use super::messages::{self, Message};
use super::{Reply, mutation_kind};
use crate::fault::Fault;

/// A request that passed the front door.
pub(crate) struct Call {
    pub(crate) method: Method,
    /// Without a trailing slash.
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) client: IpAddr,
    /// Session id, `basic`, or `none`.
    pub(crate) session: String,
}

impl Bmc {
    pub(crate) fn handle(&mut self, now: Duration, client: IpAddr, request: Request<Bytes>) -> Reply {
        self.advance(now);
        if !self.is_reachable() {
            return Reply::Refuse;
        }
        if self.auth.is_blocked(client, self.now) {
            self.counters.blocked += 1;
            return Reply::Refuse;
        }
        self.counters.requests += 1;
        if self.faults.take("hang").is_some() {
            return Reply::Hang;
        }
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().trim_end_matches('/').to_owned();
        let mutating = mutation_kind(&parts.method, &path).is_some();
        let cuts = matches!(parts.method, Method::POST | Method::PATCH);
        if mutating && cuts && self.faults.take("cut_before_accept").is_some() {
            return Reply::CutBeforeProcessing;
        }
        let session = self.session_name(&parts.headers);
        let call = Call {
            method: parts.method,
            path,
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: parts.headers,
            body,
            client,
            session,
        };
        let polled = call.method == Method::GET && call.path.contains("/JID_");
        if polled && self.faults.take("bmc_reset_while_polled").is_some() {
            self.reset_bmc(self.timings.bmc_reset, false);
            return Reply::CutAfterProcessing;
        }
        let response = self.admit(&call);
        if mutating
            && cuts
            && response.status().is_success()
            && self.faults.take("cut_after_accept").is_some()
        {
            return Reply::CutAfterProcessing;
        }
        let slow = match self.faults.take("slow_responses") {
            Some(Fault::SlowResponses { milliseconds }) => Duration::from_millis(milliseconds),
            _ => Duration::ZERO,
        };
        let usual =
            if call.method == Method::GET { self.timings.read_latency } else { self.timings.write_latency };
        Reply::Respond { after: usual + slow, response }
    }

    /// Authentication and the states in which nobody is served, then the routes.
    fn admit(&mut self, call: &Call) -> http::Response<Bytes> {
        if super::routes::is_public(call, &self.traits()) {
            return self.route(call);
        }
        if let Some(refusal) = self.authenticate(call) {
            return refusal;
        }
        if self.faults.take("spurious_unauthorized").is_some() {
            return self.access_denied();
        }
        if self.faults.take("not_ready_swc0700").is_some() {
            let message = Message::critical("SWC0700", "The iDRAC is not ready. Retry in a few minutes.");
            return self.error(StatusCode::BAD_REQUEST, &message);
        }
        if self.now < self.data_ready_at {
            let message = Message::info("SYS518", "Data sources are unavailable. Retry in 30 seconds.");
            let response = self.error(StatusCode::SERVICE_UNAVAILABLE, &message);
            return messages::retry_after(response, 30);
        }
        self.route(call)
    }

    fn authenticate(&mut self, call: &Call) -> Option<http::Response<Bytes>> {
        if let Some(token) = call.headers.get("x-auth-token").and_then(|value| value.to_str().ok()) {
            if self.faults.take("session_dies").is_some() {
                self.auth.close_all();
            }
            if self.auth.touch(token, self.now).is_some() {
                return None;
            }
            // A dead token is refused, but guesses no password: it does not count towards blocking.
            self.counters.auth_failures += 1;
            return Some(self.access_denied());
        }
        let Some(value) = call.headers.get(http::header::AUTHORIZATION) else {
            return Some(self.access_denied());
        };
        match basic_credentials(value.to_str().unwrap_or_default()) {
            Some((user, password)) if user == self.username && self.password.matches(&password) => {
                self.auth.succeeded(call.client);
                None
            }
            _ => Some(self.login_failed(call.client)),
        }
    }

    pub(crate) fn login_failed(&mut self, client: IpAddr) -> http::Response<Bytes> {
        self.counters.auth_failures += 1;
        let text = format!("A login from {client} failed.");
        self.log_lc("Audit", Message::info("USR0031", text).with_args([client.to_string()]));
        if self.auth.failed(client, self.now) == Failure::Blocked {
            self.counters.addresses_blocked += 1;
            let text = format!("The address {client} is blocked for 60 seconds.");
            self.log_lc("Audit", Message::new("USR0034", text).with_args([client.to_string()]));
        }
        self.access_denied()
    }

    fn access_denied(&self) -> http::Response<Bytes> {
        let text = "The authentication credentials of this request are missing or invalid.";
        let mut response =
            self.error(StatusCode::UNAUTHORIZED, &Message::critical("Base.1.12.AccessDenied", text));
        let basic = http::HeaderValue::from_static("Basic realm=\"RedfishService\"");
        response.headers_mut().insert(http::header::WWW_AUTHENTICATE, basic);
        response
    }

    /// A token that nobody guesses and that is the same for the same seed.
    pub(crate) fn new_token(&mut self) -> String {
        self.tokens += 1;
        hex::encode(Sha256::digest(format!("{}/{}/{}", self.seed, self.spec.name, self.tokens)))
    }

    pub(crate) fn error(&self, status: StatusCode, message: &Message) -> http::Response<Bytes> {
        let traits = self.traits();
        messages::error(status, traits.registry, traits.single_error_object, message)
    }

    pub(crate) fn session_name(&self, headers: &HeaderMap) -> String {
        if let Some(token) = headers.get("x-auth-token").and_then(|value| value.to_str().ok()) {
            return self.auth.id_of(token).map_or("none".to_owned(), |id| id.to_string());
        }
        if headers.contains_key(http::header::AUTHORIZATION) { "basic" } else { "none" }.to_owned()
    }
}

/// User and password of a Basic `Authorization` header.
pub(crate) fn basic_credentials(value: &str) -> Option<(String, String)> {
    use base64::Engine as _;
    let encoded = value.strip_prefix("Basic ")?;
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}
