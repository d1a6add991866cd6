//! The control plane as a Cloudflare Worker: an adapter around the Router of `rackhand-functions`.
//!
//! A request gets a [`Host`] of its own, because I/O objects must not outlive a request here. What outlives
//! one lives in two Durable Objects: [`pool::Pool`] holds the connections to Postgres, [`topics::Topic`]
//! wakes who waits. Settings and secrets are bindings; while one is missing every request is answered
//! `internal` and the log names it.
#![cfg(all(target_arch = "wasm32", target_os = "unknown"))]

mod database;
mod logs;
mod pool;
mod topics;

use std::{cell::OnceCell, net::IpAddr, rc::Rc, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use http::{Request, Response};
use rackhand_functions::{
    Host,
    auth::token::SigningKeys,
    host::{ClientAddress, InPlace, NoEntropy, Process, Settings, public_address},
    reading::{self, Holder, Reading},
    request::{keep_to_https, log, sender},
};
use tower::ServiceExt as _;
use worker::{Context, Delay, Env, HttpRequest, ScheduleContext, ScheduledEvent, event};

use crate::{database::PooledDatabase, topics::Topics};

/// Longest time for which a request is held open, if `MAX_WAIT_MS` says nothing.
const MAX_WAIT: Duration = Duration::from_secs(20);

/// What an isolate reads once.
struct Isolate {
    router: Router,
    keys: SigningKeys,
    settings: Settings,
    pool_location: Option<String>,
    process: Arc<Process>,
}

thread_local! {
    static READING: Reading = Reading::default();
    static ISOLATE: OnceCell<Rc<Isolate>> = const { OnceCell::new() };
}

#[event(start)]
fn start() {
    logs::install();
}

#[event(fetch)]
async fn fetch(request: HttpRequest, env: Env, context: Context) -> worker::Result<Response<Body>> {
    let began = now_unix_ms();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let isolate = isolate(&env);
    let (parts, body) = request.into_parts();
    let address = parts.headers.get("cf-connecting-ip").and_then(|value| value.to_str().ok());
    let address = address.and_then(|text| text.parse::<IpAddr>().ok());
    let holder = isolate.as_ref().map_or(Holder::Stranger(None), |isolate| {
        sender(&parts.headers, &isolate.keys, began / 1000, address)
    });
    let reading = READING.with(Clone::clone);
    let body = reading.whole(Body::new(body), holder, now_unix_ms, Delay::from(reading::LIMIT)).await;
    let mut request = Request::from_parts(parts, body);
    if let Some(address) = address {
        request.extensions_mut().insert(ClientAddress(address));
    }
    let secure = request.uri().scheme_str() == Some("https");
    let router = match isolate {
        Ok(isolate) => {
            request.extensions_mut().insert(Arc::new(host(&isolate, &env, Some(context))?));
            isolate.router.clone()
        }
        Err(missing) => {
            tracing::error!(%missing, "not configured");
            rackhand_functions::router()
        }
    };
    let Ok(mut response) = router.oneshot(request).await;
    if secure {
        keep_to_https(&mut response);
    }
    log(&method, &path, &response, now_unix_ms().saturating_sub(began));
    Ok(response)
}

/// The cron trigger.
#[event(scheduled)]
async fn scheduled(_: ScheduledEvent, env: Env, _: ScheduleContext) {
    let host = match isolate(&env).map(|isolate| host(&isolate, &env, None)) {
        Ok(Ok(host)) => Arc::new(host),
        Ok(Err(error)) => return tracing::error!(%error, "not configured"),
        Err(missing) => return tracing::error!(%missing, "not configured"),
    };
    match rackhand_functions::upkeep::run(host).await {
        Ok(done) => tracing::info!(?done, "upkeep"),
        Err(error) => tracing::warn!(error, "upkeep has to wait"),
    }
}

/// The isolate's own, read at its first request.
fn isolate(env: &Env) -> Result<Rc<Isolate>, String> {
    ISOLATE.with(|cell| {
        if let Some(isolate) = cell.get() {
            return Ok(Rc::clone(isolate));
        }
        let key = env.secret("SIGNING_KEY").map_err(|_| "the secret SIGNING_KEY".to_owned())?;
        let keys =
            SigningKeys::from_text(&key.to_string()).map_err(|error| format!("SIGNING_KEY: {error}"))?;
        let text = |name| env.var(name).ok().map(|value| value.to_string()).filter(|text| !text.is_empty());
        let max_wait = match text("MAX_WAIT_MS") {
            Some(text) => text.parse().map(Duration::from_millis).map_err(|_| "MAX_WAIT_MS as a number")?,
            None => MAX_WAIT,
        };
        let public_url = text("PUBLIC_URL");
        let public_url = public_url
            .map(|url| public_address(&url).ok_or("PUBLIC_URL as https://host[:port]"))
            .transpose()?;
        let tick_token = env.secret("TICK_TOKEN").ok().map(|token| token.to_string());
        let settings = Settings { version: env!("CARGO_PKG_VERSION"), public_url, max_wait, tick_token };
        let isolate = Isolate {
            router: rackhand_functions::router(),
            keys,
            settings,
            pool_location: text("POOL_LOCATION"),
            process: Arc::default(),
        };
        Ok(Rc::clone(cell.get_or_init(|| Rc::new(isolate))))
    })
}

fn host(isolate: &Isolate, env: &Env, context: Option<Context>) -> worker::Result<Host> {
    Ok(Host {
        database: Box::new(PooledDatabase {
            pools: env.durable_object("POOL")?,
            location: isolate.pool_location.clone(),
        }),
        notifier: Box::new(Topics::new(env.durable_object("TOPIC")?, context)),
        now_unix_ms,
        work: Box::new(InPlace),
        entropy: |bytes| getrandom::fill(bytes).map_err(|_| NoEntropy),
        settings: isolate.settings.clone(),
        keys: isolate.keys.clone(),
        process: Arc::clone(&isolate.process),
    })
}

fn now_unix_ms() -> u64 {
    worker::Date::now().as_millis()
}
