//! The Spin host of the control plane: a component (wasi:http 0.3, so Spin 4.1 or later) around the Router of
//! `rackhand-functions`, with `spin:postgres` as its database and Spin variables as its settings.
//!
//! It holds nothing that matters: Spin may run any number of instances and end each at any time. Without its
//! database it answers 503; without its settings every request is answered `internal`, and the log says which
//! variable to set. A panic ends the instance with the requests in it.

#![cfg(all(target_arch = "wasm32", target_os = "wasi"))]

mod config;
mod database;
mod polling;
mod ui;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, LazyLock},
    time::Instant,
};

use axum::{
    Router,
    body::Body,
    response::{IntoResponse as _, Response},
};
use http::HeaderMap;
use rackhand_functions::{
    forwarded::client_address,
    host::ClientAddress,
    request::{keep_to_https, log},
};
use spin_sdk::http_service;
use tower::ServiceExt as _;

/// Spin puts the peer's address and port there, whatever the client sent under that name.
const CLIENT_HEADER: &str = "spin-client-addr";

/// Built once for each instance.
static ROUTER: LazyLock<Router> = LazyLock::new(|| {
    let logs = tracing_subscriber::fmt().with_ansi(false).with_target(false).with_writer(std::io::stderr);
    logs.with_max_level(tracing::Level::INFO).init();
    rackhand_functions::router()
});

#[http_service]
async fn handle(request: spin_sdk::http::Request) -> Response {
    let router = ROUTER.clone();
    let mut request = request.map(Body::new);
    let mut https = false;
    match config::configured().await {
        Ok(config::Configured { host, trusted_proxies }) => {
            https = host.settings.is_https();
            if let Some(peer) = peer(request.headers()) {
                let client = client_address(peer, request.headers(), trusted_proxies);
                request.extensions_mut().insert(ClientAddress(client));
            }
            request.extensions_mut().insert(Arc::clone(host));
        }
        Err(error) => tracing::error!("{error}"),
    }
    let mut response = if rackhand_functions::ui::is_api(request.uri().path()) {
        let (began, method, path) =
            (Instant::now(), request.method().clone(), request.uri().path().to_owned());
        let response = router.oneshot(request).await.into_response();
        log(&method, &path, &response, u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
        response
    } else {
        ui::answer(request.method(), request.uri().path())
    };
    if https {
        keep_to_https(&mut response);
    }
    response
}

/// The last value is Spin's, should a client's own ever stand beside it.
fn peer(headers: &HeaderMap) -> Option<IpAddr> {
    let text = headers.get_all(CLIENT_HEADER).iter().next_back()?.to_str().ok()?;
    text.parse::<SocketAddr>().map(|address| address.ip()).or_else(|_| text.parse()).ok()
}
