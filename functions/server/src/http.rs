//! Around the Router: the host's gifts for each request, metrics, the log line, and the UI's files.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Method, StatusCode, header};
use rackhand_functions::{
    Host,
    forwarded::{Network, client_address},
    host::ClientAddress,
    request::{keep_to_https, log},
    ui::{self, is_api},
};
use tower::ServiceExt as _;
use tower_http::{compression::CompressionLayer, services::ServeDir};

use crate::{
    metrics::{Gauges, Metrics},
    patience::complete_within,
    postgres::Pooled,
    quiet::Quiet,
    slots::Slots,
    wakeup::Wakeups,
};

/// Everything that answers requests.
#[derive(Clone)]
pub struct App {
    pub core: Router,
    pub ui: Option<PathBuf>,
    /// Whether clients reach this over HTTPS, be it through a proxy.
    pub https: bool,
    pub trusted_proxies: Arc<[Network]>,
    /// How long a whole body may take.
    pub body_limit: Duration,
    pub quiet: Quiet,
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
        rackhand_functions::router().layer(from_fn_with_state(around, observe)).layer(CompressionLayer::new())
    }

    /// The page of metrics, for a listener of its own: it shows who is refused and how busy the server is.
    pub fn metrics(around: Around) -> Router {
        Router::new().route("/metrics", axum::routing::get(async move || render_metrics(&around)))
    }

    /// Answers one request from `peer`.
    pub async fn answer(self, mut request: Request, peer: IpAddr) -> Response {
        let client = client_address(peer, request.headers(), &self.trusted_proxies);
        request.extensions_mut().insert(ClientAddress(client));
        let request = request.map(|body| complete_within(body, self.body_limit));
        let https = self.https;
        let mut response = match &self.ui {
            Some(ui) if !is_api(request.uri().path()) => answer_ui(ui, request).await,
            _ => self.core.oneshot(request).await.into_response(),
        };
        if https {
            keep_to_https(&mut response);
        }
        response
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

/// A file of the UI; an address of the app itself gets the app, which knows its own pages.
async fn answer_ui(folder: &Path, request: Request) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let path = request.uri().path().to_owned();
    let is_page = ui::file(&path) != path;
    let (mut parts, _) = request.into_parts();
    if is_page {
        parts.uri = http::Uri::from_static("/index.html");
    }
    let compressed = CompressionLayer::new();
    let files = tower::ServiceBuilder::new().layer(compressed).service(ServeDir::new(folder));
    let request = Request::from_parts(parts, axum::body::Body::empty());
    let mut response = match files.oneshot(request).await {
        Ok(response) => response.map(axum::body::Body::new),
        Err(never) => match never {},
    };
    if is_page && response.status() == StatusCode::NOT_FOUND {
        tracing::error!(ui = %folder.display(), "the UI has no index.html");
    }
    let found = response.status().is_success();
    response.headers_mut().extend(ui::headers(&path, found));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn get(ui: &Path, path: &str) -> (StatusCode, String, String) {
        let request = Request::builder().uri(path).body(axum::body::Body::empty()).unwrap();
        let response = answer_ui(ui, request).await;
        assert!(response.headers().contains_key(header::CONTENT_SECURITY_POLICY));
        let cache = response.headers()[header::CACHE_CONTROL].to_str().unwrap().to_owned();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, cache, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn pages_get_the_app_and_files_themselves() {
        let dir = std::env::temp_dir().join(format!("rackhand-ui-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("assets")).unwrap();
        std::fs::write(dir.join("index.html"), "<app>").unwrap();
        std::fs::write(dir.join("assets/a-1.js"), "js").unwrap();
        assert_eq!(get(&dir, "/").await, (StatusCode::OK, "no-cache".into(), "<app>".into()));
        assert_eq!(get(&dir, "/jobs/1?x=y").await.2, "<app>");
        let (status, cache, body) = get(&dir, "/assets/a-1.js").await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, "js"));
        assert!(cache.contains("immutable"));
        assert_eq!(get(&dir, "/assets/gone.js").await.0, StatusCode::NOT_FOUND);
        assert_eq!(get(&dir, "/../../etc/passwd.x").await.0, StatusCode::NOT_FOUND);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
