//! What every request goes through: trace id, body limits, who calls, and the finished problem answers.
//!
//! [`frame`] is the outermost layer. Handlers take a caller ([`Anyone`], [`Viewer`], [`Operator`],
//! [`Admin`], [`FleetAdmin`], [`Executor`]), their parameters ([`Segment`], [`Params`]) and at last a [`Body`]. A caller's
//! type is the least role the operation needs; the database checks it again, for the site concerned.

use std::{
    fmt::Display,
    net::IpAddr,
    str::FromStr,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use axum::{
    extract::{FromRequest, FromRequestParts, MatchedPath, Path, Query, Request},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::future::{Either, select};
use garde::Validate;
use http::{HeaderMap, HeaderValue, Method, header, request::Parts};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use rackhand_schema::{
    ErrorCode, Role,
    error::FieldProblem,
    id::{SiteId, TraceId},
};
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::{
    audit::refusals,
    auth::{
        browser,
        token::{Claims, SigningKeys},
    },
    bodies::{Held, Holder},
    forwarded::networks,
    host::{BodyTooSlow, ClientAddress, Host, NoRoom, Scope, Statement},
    problem::{Answer, Refusal},
};

/// Largest request body, bytes.
pub const MAX_BODY_BYTES: usize = 2 * 1024 * 1024;

/// The same for requests without a person's or an executor's token. None of them needs a quarter of it.
pub const MAX_ANONYMOUS_BODY_BYTES: usize = 16 * 1024;

/// The same for a request for leases: 10,000 held runs with the largest epochs, and some 16 KiB for the rest.
pub const MAX_LEASE_BYTES: usize = 10_000 * 80 + 16 * 1024;

/// The answer's header that names the trace, 32 hex digits.
pub const TRACE_HEADER: &str = "x-trace-id";

/// Asked for all the time.
const FREQUENT: [&str; 4] = ["/v1/health", "/v1/executor/lease", "/v1/executor/report", "/v1/events"];

/// The host's log line of a request: who asked from where, but no query, headers or bodies. What is asked for
/// all the time is of interest only when it failed.
pub fn log(method: &Method, path: &str, response: &Response, ms: u64) {
    let trace = response.extensions().get::<Trace>().map(|trace| trace.0.to_hex()).unwrap_or_default();
    let status = response.status().as_u16();
    let caller = response.extensions().get::<Caller>();
    let address = caller.and_then(|caller| caller.address).map(|address| address.to_string());
    let (user, executor, session) = match caller.and_then(Caller::scope) {
        Some(Scope::User { user, session, .. }) => (Some(user.to_string()), None, Some(session.to_string())),
        Some(Scope::Executor { executor, session, .. }) => {
            (None, Some(executor.to_string()), Some(session.to_string()))
        }
        Some(Scope::Anonymous { .. }) | None => (None, None, None),
    };
    // Absent fields are not written.
    let (address, user, executor, session) =
        (address.as_deref(), user.as_deref(), executor.as_deref(), session.as_deref());
    if FREQUENT.contains(&path) && status < 400 {
        tracing::debug!(%method, path, status, ms, trace_id = trace, address, user, executor, session, "request");
    } else {
        tracing::info!(%method, path, status, ms, trace_id = trace, address, user, executor, session, "request");
    }
}

/// Who asks: known by address from the beginning, and by name once a handler's extractor has checked the
/// token.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    pub address: Option<IpAddr>,
    scope: Arc<OnceLock<Scope>>,
    /// The room of the body, kept until the handler has answered: what was parsed is as large.
    held: Arc<Mutex<Option<Held>>>,
}

impl Caller {
    pub fn scope(&self) -> Option<&Scope> {
        self.scope.get()
    }

    fn hold(&self, held: Option<Held>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
    }

    fn holder(&self) -> Holder {
        match self.scope() {
            Some(Scope::Executor { executor, .. }) => Holder::Executor(*executor),
            Some(Scope::User { user, .. }) => Holder::Person(*user),
            Some(Scope::Anonymous { .. }) | None => stranger(self.address),
        }
    }
}

/// For answers over HTTPS: browsers keep to it for a year.
pub fn keep_to_https(response: &mut Response) {
    let year = HeaderValue::from_static("max-age=31536000");
    response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, year);
}

/// The trace of this request, for handlers and the host's log.
#[derive(Debug, Clone, Copy)]
pub struct Trace(pub TraceId);

/// Outermost layer: reads `traceparent` or makes a trace id, finishes problem answers, marks the answer.
pub async fn frame(mut request: Request, next: Next) -> Response {
    let trace = trace_of(&request);
    let address = request.extensions().get::<ClientAddress>().map(|address| address.0);
    let caller = Caller { address, ..Caller::default() };
    let host = request.extensions().get::<Arc<Host>>().cloned();
    let route = request.extensions().get::<MatchedPath>().cloned();
    request.extensions_mut().insert(Trace(trace));
    request.extensions_mut().insert(caller.clone());
    let mut response = next.run(request).await;
    caller.hold(None);
    if let Some(refusal) = response.extensions_mut().remove::<Refusal>() {
        if let Some(host) = host {
            refusals::note(&host, &caller, &refusal, route.as_ref().map_or("", MatchedPath::as_str)).await;
        }
        response = refusal.respond(trace);
    }
    response.extensions_mut().insert(Trace(trace));
    response.extensions_mut().insert(caller);
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&trace.to_hex()) {
        headers.insert(TRACE_HEADER, value);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// W3C Trace Context §3.2: `00-<32 hex trace>-<16 hex parent>-<2 hex flags>`; all zeros is invalid. A later
/// version may have more fields after these.
fn trace_of(request: &Request) -> TraceId {
    let given = request.headers().get("traceparent").and_then(|value| value.to_str().ok()).and_then(|text| {
        let mut parts = text.split('-');
        let (version, trace, parent) = (parts.next()?, parts.next()?, parts.next()?);
        let lower_hex = |part: &str, length: usize| {
            part.len() == length
                && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        };
        let sound = lower_hex(version, 2) && version != "ff" && lower_hex(trace, 32) && lower_hex(parent, 16);
        sound.then(|| Uuid::parse_str(trace).ok()).flatten().filter(|uuid| !uuid.is_nil())
    });
    let uuid = given.unwrap_or_else(|| {
        let random = request.extensions().get::<Arc<Host>>().and_then(|host| host.random::<16>().ok());
        Uuid::from_bytes(random.unwrap_or([1; 16]))
    });
    TraceId::from_uuid(uuid)
}

/// A request's caller with the means to ask the database.
pub struct Call {
    pub host: Arc<Host>,
    pub scope: Scope,
    /// For an executor: its site.
    pub site_of_token: Option<SiteId>,
}

impl Call {
    /// Runs a statement and gives the JSON text it answers.
    pub async fn text<A: Serialize + Sync>(&self, statement: &'static Statement, args: &A) -> Answer<String> {
        let args = serde_json::to_string(args)?;
        Ok(self.host.database.run(&self.scope, statement, args).await?)
    }

    /// The same, for an answer that is looked into.
    pub async fn run<T: DeserializeOwned, A: Serialize + Sync>(
        &self,
        statement: &'static Statement,
        args: &A,
    ) -> Answer<T> {
        Ok(serde_json::from_str(&self.text(statement, args).await?)?)
    }

    /// The same, handed through as the answer's body; SQL `null` is a 404.
    pub async fn json<A: Serialize + Sync>(&self, statement: &'static Statement, args: &A) -> Answer<Json> {
        match self.text(statement, args).await? {
            text if text.is_empty() || text == "null" => Err(Refusal::not_found()),
            text => Ok(Json(text)),
        }
    }
}

/// A JSON text that is ready to be sent.
pub struct Json(pub String);

impl Json {
    pub fn of<T: Serialize>(value: &T) -> Answer<Self> {
        Ok(Self(serde_json::to_string(value)?))
    }
}

impl IntoResponse for Json {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], self.0).into_response()
    }
}

fn host(parts: &Parts) -> Answer<(Arc<Host>, TraceId)> {
    match (parts.extensions.get::<Arc<Host>>(), parts.extensions.get::<Trace>()) {
        (Some(host), Some(trace)) => Ok((Arc::clone(host), trace.0)),
        _ => Err(Refusal::internal("the host gave no `Host` with the request")),
    }
}

pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// A request shows nothing by which it might be let in. Our own page asks so first, to learn whether anyone is signed
/// in: that is no attempt to get in. An `Authorization` that cannot be used is one.
pub fn not_signed_in(headers: &HeaderMap, detail: &str) -> Refusal {
    let routine = !headers.contains_key(header::AUTHORIZATION);
    Refusal { routine, ..Refusal::new(ErrorCode::NotSignedIn, detail) }
}

/// Who sends a request, for a host that has to read the body before the Router sees it.
pub fn sender(headers: &HeaderMap, keys: &SigningKeys, now_unix: u64, address: Option<IpAddr>) -> Holder {
    let token = bearer(headers).or_else(|| browser::cookie(headers, browser::ACCESS_COOKIE));
    let known = token.and_then(|token| {
        let person = keys.verify_user(token, now_unix).map(|claims| Holder::Person(claims.sub));
        person
            .or_else(|_| keys.verify_executor(token, now_unix).map(|claims| Holder::Executor(claims.sub)))
            .ok()
    });
    known.unwrap_or_else(|| stranger(address))
}

fn stranger(address: Option<IpAddr>) -> Holder {
    Holder::Stranger(address.map(|address| networks(address.to_canonical())[1].0))
}

/// Of any request, bytes.
pub const fn largest_body(holder: Holder) -> usize {
    match holder {
        Holder::Stranger(_) => MAX_ANONYMOUS_BODY_BYTES,
        Holder::Executor(_) | Holder::Person(_) => MAX_BODY_BYTES,
    }
}

/// Signs the caller in by bearer token or the browser's cookie. A cookie travels by itself, so with one a
/// request that changes something must also prove that our own page sent it.
fn signed_in(parts: &Parts, need: Role, fleet: bool) -> Answer<Call> {
    let (host, trace) = host(parts)?;
    let cookie = browser::cookie(&parts.headers, browser::ACCESS_COOKIE);
    let claims = match (bearer(&parts.headers), cookie) {
        (Some(token), _) => host.keys.verify_user(token, host.now_unix())?,
        (None, Some(token)) => {
            if !matches!(parts.method, Method::GET | Method::HEAD) {
                browser::check_origin(&parts.headers, &parts.uri, host.settings.public_url.as_deref())?;
            }
            host.keys.verify_user(token, host.now_unix())?
        }
        (None, None) => return Err(not_signed_in(&parts.headers, "This needs a signed-in user.")),
    };
    let Claims { sub: user, sid: session, .. } = claims;
    Ok(Call { host, scope: Scope::User { user, session, need, fleet, trace }, site_of_token: None })
}

/// When the caller's access token ends, Unix seconds.
pub struct TokenEnd(pub u64);

impl<S: Send + Sync> FromRequestParts<S> for TokenEnd {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Answer<Self> {
        let (host, _) = host(parts)?;
        let token = bearer(&parts.headers)
            .or_else(|| browser::cookie(&parts.headers, browser::ACCESS_COOKIE))
            .unwrap_or_default();
        Ok(Self(host.keys.verify_user(token, host.now_unix())?.exp))
    }
}

macro_rules! callers {
    ($($(#[$doc:meta])* $name:ident = $parts:ident => $call:expr;)*) => {$(
        $(#[$doc])*
        pub struct $name(pub Call);

        impl<S: Send + Sync> FromRequestParts<S> for $name {
            type Rejection = Refusal;

            async fn from_request_parts($parts: &mut Parts, _: &S) -> Answer<Self> {
                let call: Call = $call?;
                if let Some(caller) = $parts.extensions.get::<Caller>() {
                    let _ = caller.scope.set(call.scope.clone());
                }
                Ok(Self(call))
            }
        }
    )*};
}

callers! {
    /// Nobody in particular: what is asked proves itself (password, token, signature) or is public.
    Anyone = parts => anyone(parts);
    Viewer = parts => signed_in(parts, Role::Viewer, false);
    Operator = parts => signed_in(parts, Role::Operator, false);
    Admin = parts => signed_in(parts, Role::Admin, false);
    /// An admin of the whole fleet. A refusal names the fleet whichever roles for sites the caller has.
    FleetAdmin = parts => signed_in(parts, Role::Viewer, true);
    /// An executor with its session.
    Executor = parts => executor(parts);
}

fn anyone(parts: &Parts) -> Answer<Call> {
    let (host, trace) = host(parts)?;
    let address = parts.extensions.get::<ClientAddress>().map(|address| address.0.to_canonical().to_string());
    let scope = Scope::Anonymous { trace, address: address.unwrap_or_default() };
    Ok(Call { host, scope, site_of_token: None })
}

fn executor(parts: &Parts) -> Answer<Call> {
    let (host, trace) = host(parts)?;
    let token = bearer(&parts.headers)
        .ok_or_else(|| not_signed_in(&parts.headers, "This needs an executor's token."))?;
    let claims = host.keys.verify_executor(token, host.now_unix())?;
    let scope = Scope::Executor { executor: claims.sub, session: claims.sid, trace };
    Ok(Call { host, scope, site_of_token: Some(claims.site) })
}

/// The id in the path; what is not an id names nothing.
pub struct Segment<T>(pub T);

impl<T, S> FromRequestParts<S> for Segment<T>
where
    T: FromStr<Err: Display>,
    S: Send + Sync,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Answer<Self> {
        let Path(text) =
            Path::<String>::from_request_parts(parts, state).await.map_err(|_| Refusal::not_found())?;
        text.parse().map(Self).map_err(|error: T::Err| Refusal::new(ErrorCode::NotFound, error.to_string()))
    }
}

/// Two ids in the path.
pub struct Segments<A, B>(pub A, pub B);

impl<A, B, S> FromRequestParts<S> for Segments<A, B>
where
    A: FromStr<Err: Display>,
    B: FromStr<Err: Display>,
    S: Send + Sync,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Answer<Self> {
        let Path((first, second)) = Path::<(String, String)>::from_request_parts(parts, state)
            .await
            .map_err(|_| Refusal::not_found())?;
        let refuse = |error: String| Refusal::new(ErrorCode::NotFound, error);
        Ok(Self(
            first.parse().map_err(|error: A::Err| refuse(error.to_string()))?,
            second.parse().map_err(|error: B::Err| refuse(error.to_string()))?,
        ))
    }
}

/// The query string, validated.
pub struct Params<T>(pub T);

impl<T, S> FromRequestParts<S> for Params<T>
where
    T: DeserializeOwned + Validate<Context = ()>,
    S: Send + Sync,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Answer<Self> {
        let Query(params) = Query::<T>::try_from_uri(&parts.uri)
            .map_err(|error| Refusal::new(ErrorCode::InvalidRequest, error.body_text()))?;
        validate(&params)?;
        Ok(Self(params))
    }
}

/// A JSON body, validated.
pub struct Body<T>(pub T);

impl<T, S> FromRequest<S> for Body<T>
where
    T: DeserializeOwned + Validate<Context = ()>,
    S: Send + Sync,
{
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Answer<Self> {
        let value = parse::<T>(&read_json(request).await?)?;
        validate(&value)?;
        Ok(Self(value))
    }
}

/// The same, of at most `MOST` bytes, for a request that may wait long. It takes no room once it is parsed: how many of
/// them a caller has is bounded otherwise.
pub struct SmallBody<T, const MOST: usize>(pub T);

impl<T, S, const MOST: usize> FromRequest<S> for SmallBody<T, MOST>
where
    T: DeserializeOwned + Validate<Context = ()>,
    S: Send + Sync,
{
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Answer<Self> {
        let (_, body, _held) = read_within(request, MOST).await?;
        let value = parse::<T>(&body)?;
        validate(&value)?;
        Ok(Self(value))
    }
}

/// A JSON body as it came, within the limit; for what is taken apart item by item.
pub struct RawBody(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for RawBody {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Answer<Self> {
        read_json(request).await.map(Self)
    }
}

/// The same, or nothing: a request that names no content type has no body.
pub struct OptionalBody(pub Option<Bytes>);

impl<S: Send + Sync> FromRequest<S> for OptionalBody {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Answer<Self> {
        if request.headers().contains_key(header::CONTENT_TYPE) {
            return read_json(request).await.map(Some).map(Self);
        }
        Ok(Self(None))
    }
}

async fn read_json(request: Request) -> Answer<Bytes> {
    let (caller, body, held) = read_within(request, MAX_BODY_BYTES).await?;
    caller.hold(Some(held));
    Ok(body)
}

async fn read_within(request: Request, most: usize) -> Answer<(Caller, Bytes, Held)> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = kind.and_then(|kind| kind.split(';').next()).map(str::trim).unwrap_or_default();
    if !essence.eq_ignore_ascii_case("application/json") {
        let detail = "Send the body as `Content-Type: application/json`.";
        return Err(Refusal::new(ErrorCode::UnsupportedMediaType, detail));
    }
    let (parts, body) = request.into_parts();
    let (host, _) = host(&parts)?;
    let caller = parts.extensions.get::<Caller>().cloned().unwrap_or_default();
    let holder = caller.holder();
    let most = most.min(largest_body(holder));
    let mut held = host.process.bodies.hold(holder);
    let (mut body, mut read) = (Limited::new(body, most), Vec::new());
    loop {
        let frame = match select(body.frame(), &mut held.given_up).await {
            Either::Left((Some(frame), _)) => frame,
            Either::Left((None, _)) => break,
            Either::Right(_) => return Err(no_room()),
        };
        let Ok(data) = frame.map_err(|error| unread(&*error, most))?.into_data() else { continue };
        if !held.grow(data.len()) {
            return Err(no_room());
        }
        read.extend_from_slice(&data);
    }
    held.arrived();
    Ok((caller, read.into(), held))
}

fn no_room() -> Refusal {
    let detail = "Too many requests are arriving at once; nothing was done. Try again in a few seconds.";
    Refusal::new(ErrorCode::ServerBusy, detail)
}

/// Why a body could not be read.
fn unread(error: &(dyn std::error::Error + 'static), most: usize) -> Refusal {
    if error.is::<LengthLimitError>() {
        let detail = format!("The body is larger than {most} bytes, the maximum of this request.");
        Refusal::new(ErrorCode::BodyTooLarge, detail)
    } else if has_cause::<NoRoom>(error) {
        no_room()
    } else if has_cause::<BodyTooSlow>(error) {
        let detail = "The body took too long to arrive; nothing was done. Send it again.";
        Refusal::new(ErrorCode::RequestTimeout, detail)
    } else {
        Refusal::new(ErrorCode::MalformedJson, "The body ended before it was complete.")
    }
}

fn has_cause<E: std::error::Error + 'static>(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<E>())
}

/// Parses a JSON object that people or programs sent. The messages never repeat a value: it may be a secret.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Answer<T> {
    // A derived struct would take an array as its fields in order.
    let parsed = match body.trim_ascii_start().first() {
        Some(b'[') => {
            Err(<serde_json::Error as serde::de::Error>::custom("Expected an object, not an array."))
        }
        _ => serde_json::from_slice(body),
    };
    parsed.map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        // The first wrong field may stand before the place where the text breaks off.
        if let Err(broken) = serde_json::from_slice::<serde::de::IgnoredAny>(body) {
            let place = format!("line {}, column {}", broken.line(), broken.column());
            return Refusal::new(ErrorCode::MalformedJson, format!("The body is not valid JSON at {place}."));
        }
        let text = error.to_string();
        let quotes_a_value = text.starts_with("invalid type") || text.starts_with("invalid value");
        let detail = match text.split_once(", expected ") {
            Some((_, expected)) if quotes_a_value => format!("Expected {expected}."),
            _ if quotes_a_value => format!("A value of the wrong kind at {place}."),
            _ => text,
        };
        Refusal::new(ErrorCode::InvalidRequest, detail)
    })
}

/// Applies the rules of the type; each broken one becomes a field of the problem.
pub fn validate<T: Validate<Context = ()>>(value: &T) -> Answer<()> {
    value.validate().map_err(|report| {
        let field = |(path, error): &(garde::Path, garde::Error)| FieldProblem {
            field: path.to_string(),
            detail: error.message().to_owned(),
        };
        Refusal::of_fields(report.iter().map(field).collect())
    })
}
