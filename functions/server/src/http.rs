//! Around the Router: the host's gifts for each request, metrics, the log line, and the UI's files.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::HttpBody as _,
    extract::{MatchedPath, Request, State},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
};
use http::{Extensions, HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use http_body_util::BodyExt as _;
use rackhand_functions::{
    Host,
    forwarded::{Network, client_address},
    host::ClientAddress,
    request::{Caller, keep_to_https, log},
    ui::is_api,
};
use tower::ServiceExt as _;
use tower_http::compression::{CompressionLayer, DefaultPredicate, Predicate as _};

use crate::{
    files::Files,
    metrics::{Gauges, Metrics},
    patience::complete_within,
    postgres::Pooled,
    quiet::Quiet,
    shares::{Shares, Untaken, Who},
    slots::Slots,
    wakeup::Wakeups,
};

/// Everything that answers requests.
#[derive(Clone)]
pub struct App {
    pub core: Router,
    pub ui: Option<Arc<Files>>,
    /// Whether clients reach this over HTTPS, be it through a proxy.
    pub https: bool,
    pub trusted_proxies: Arc<[Network]>,
    /// How long a whole body may take.
    pub body_limit: Duration,
    pub quiet: Quiet,
    pub shares: Arc<Shares>,
}

/// What the layers around the Router need.
#[derive(Clone)]
pub struct Around {
    pub host: Arc<Host>,
    pub metrics: Arc<Metrics>,
    pub pools: Pooled,
    pub wakeups: Wakeups,
    pub slots: Arc<Slots>,
}

impl App {
    /// The Router, measured and logged.
    pub fn core(around: Around) -> Router {
        rackhand_functions::router()
            .layer(from_fn_with_state(around, observe))
            .layer(CompressionLayer::new().compress_when(DefaultPredicate::new().and(is_worth_it)))
            .layer(from_fn(compressed_whole))
    }

    /// The page of metrics, for a listener of its own: it shows who is refused and how busy the server is.
    pub fn metrics(around: Around) -> Router {
        Router::new().route("/metrics", axum::routing::get(async move || render_metrics(&around)))
    }

    /// Answers one request from `peer`; what counts the answer until it is taken.
    pub async fn answer(&self, mut request: Request, peer: IpAddr) -> (Response, Option<Untaken>) {
        let client = client_address(peer, request.headers(), &self.trusted_proxies);
        request.extensions_mut().insert(ClientAddress(client));
        let request = request.map(|body| complete_within(body, self.body_limit));
        let https = self.https;
        let mut response = match &self.ui {
            Some(ui) if !is_api(request.uri().path()) => ui.answer(&request),
            _ => self.core.clone().oneshot(request).await.into_response(),
        };
        if https {
            keep_to_https(&mut response);
        }
        let untaken = self.untaken(&response, client);
        (response, untaken)
    }

    /// Files and pages for everybody are in memory once.
    fn untaken(&self, response: &Response, client: IpAddr) -> Option<Untaken> {
        let caller = response.extensions().get::<Caller>()?;
        let who = caller.scope().map_or_else(|| Some(Who::stranger(client)), Who::of)?;
        let bytes = response.body().size_hint().exact();
        let bytes = bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        (bytes != Some(0) && !is_public(response.headers())).then(|| self.shares.answer(who, bytes))
    }
}

fn is_public(headers: &HeaderMap) -> bool {
    headers.get(header::CACHE_CONTROL).is_some_and(|value| value.as_bytes().starts_with(b"public"))
}

/// Of what everybody gets from the same memory, each would have a copy of their own.
fn is_worth_it(_: StatusCode, _: Version, headers: &HeaderMap, _: &Extensions) -> bool {
    !is_public(headers)
}

/// What compresses an answer takes some 300 kB: it is not kept until a client has taken it.
async fn compressed_whole(request: Request, next: Next) -> Response {
    let (parts, body) = next.run(request).await.into_parts();
    if !parts.headers.contains_key(header::CONTENT_ENCODING) {
        return Response::from_parts(parts, body);
    }
    match body.collect().await {
        Ok(whole) => Response::from_parts(parts, whole.to_bytes().into()),
        Err(error) => {
            tracing::error!(%error, "an answer could not be compressed");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Puts in what the host gives, measures, and logs.
async fn observe(State(around): State<Around>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let _under_way = around.metrics.begin();
    request.extensions_mut().insert(Arc::clone(&around.host));
    let method = request.method().clone();
    let matched = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    let (status, took) = (response.status().as_u16(), began.elapsed());
    let route = matched.as_deref().unwrap_or("unmatched");
    // An invented method would be a new series.
    let known = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::HEAD,
        Method::OPTIONS,
        Method::PATCH,
    ];
    let method_label = if known.contains(&method) { method.as_str() } else { "other" };
    around.metrics.record(method_label, route, status, took);
    log(&method, &path, &response, u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    response
}

fn render_metrics(around: &Around) -> Response {
    let (people, executors) = (around.pools.people.status(), around.pools.executors.status());
    let (connections, connections_refused) = around.slots.counts();
    let text = around.metrics.render(&Gauges {
        pool_size: people.size + executors.size,
        pool_available: people.available + executors.available,
        pool_waiting: people.waiting + executors.waiting,
        listening: around.wakeups.hearing(),
        connections,
        connections_refused,
        streams: around.host.process.stream_counts(),
    });
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
