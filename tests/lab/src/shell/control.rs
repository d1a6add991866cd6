//! The control API: plain HTTP and JSON on loopback, for tests and people. Not part of what is simulated.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /lab` | | speed, simulated and real seconds since the start, all BMCs and packages |
//! | `GET /lab/bmcs/{name}` | | state, faults and counters |
//! | `PUT /lab/bmcs/{name}/faults/{fault}` | the fault's parameters, and `times` (absent: until cleared) | 204 |
//! | `DELETE /lab/bmcs/{name}/faults/{fault}` | | 204, or 404 when it was not in force |
//! | `POST /lab/bmcs/{name}/foreign-job` | `ForeignJob` | `{"job": id}` |
//! | `POST /lab/bmcs/{name}/partition` | `{"enabled": true}` (the default) or false | 204 |
//! | `POST /lab/bmcs/{name}/power-failure` | | 204 |
//! | `GET /lab/counters` | | the site's sum |
//! | `POST /lab/advance` | `{"seconds": 60}` | `{"simulated_seconds": …}` |
//!
//! Errors are `{"error": text}` with 400, 404 or 405.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{BmcInfo, Shared, repository};
use crate::fault::{Fault, Times};
use crate::model::{ForeignJob, UnknownBmc};
use crate::package::PackageInfo;

const BODY_LIMIT: usize = 64 * 1024;

/// What the API says about the lab as it was started.
pub(super) struct Directory {
    pub(super) bmcs: Vec<BmcInfo>,
    pub(super) packages: Vec<PackageInfo>,
    pub(super) repository_url: String,
}

pub(super) async fn run(
    shared: Arc<Shared>,
    directory: Directory,
    listener: TcpListener,
    stop: CancellationToken,
) {
    let directory = Arc::new(directory);
    repository::serve_plain(listener, stop, move |request| {
        let (shared, directory) = (Arc::clone(&shared), Arc::clone(&directory));
        async move { respond(route(&shared, &directory, request).await) }
    })
    .await;
}

/// A refusal: status and text.
type Refusal = (StatusCode, String);
type Answer = Result<Option<Value>, Refusal>;

fn respond(answer: Answer) -> Response<Full<Bytes>> {
    let (status, body) = match answer {
        Ok(Some(value)) => (StatusCode::OK, value.to_string()),
        Ok(None) => (StatusCode::NO_CONTENT, String::new()),
        Err((status, error)) => (status, json!({ "error": error }).to_string()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}

async fn route(shared: &Shared, directory: &Directory, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, BODY_LIMIT)
        .collect()
        .await
        .map_err(|error| (StatusCode::BAD_REQUEST, format!("the body cannot be read: {error}")))?
        .to_bytes();
    let path = parts.uri.path().trim_matches('/').to_owned();
    let segments: Vec<&str> = path.split('/').collect();
    let now = shared.now();
    match (&parts.method, segments.as_slice()) {
        (&Method::GET, ["lab"]) => Ok(Some(json!({
            "speed": shared.speed,
            "simulated_seconds": now.as_secs_f64(),
            "real_seconds": shared.real().as_secs_f64(),
            "repository_url": directory.repository_url,
            "bmcs": directory.bmcs,
            "packages": directory.packages,
        }))),
        (&Method::GET, ["lab", "counters"]) => to_json(&shared.site().total()),
        (&Method::POST, ["lab", "advance"]) => {
            let seconds = object(&body)?.get("seconds").and_then(Value::as_f64);
            let time = seconds
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                .ok_or_else(|| bad("seconds: a number that is not negative"))?;
            shared.skip(time);
            Ok(Some(json!({ "simulated_seconds": shared.now().as_secs_f64() })))
        }
        (&Method::GET, ["lab", "bmcs", name]) => {
            let mut site = shared.site();
            let status = site.status(name, now).map_err(unknown)?;
            let faults = site.faults(name).map_err(unknown)?;
            let counters = site.counters(name).map_err(unknown)?;
            Ok(Some(json!({ "state": status, "faults": faults, "counters": counters })))
        }
        (&Method::PUT, ["lab", "bmcs", name, "faults", fault]) => {
            let mut settings = object(&body)?;
            let times = match settings.remove("times") {
                None | Some(Value::Null) => Times::Always,
                Some(value) => Times::Count(
                    value
                        .as_u64()
                        .and_then(|count| u32::try_from(count).ok())
                        .ok_or_else(|| bad("times: how often the fault happens, a whole number"))?,
                ),
            };
            settings.insert("fault".to_owned(), json!(fault));
            let fault: Fault =
                serde_json::from_value(Value::Object(settings)).map_err(|error| bad(&error.to_string()))?;
            shared.site().arm(name, now, fault, times).map_err(unknown)?;
            Ok(None)
        }
        (&Method::DELETE, ["lab", "bmcs", name, "faults", fault]) => {
            if shared.site().clear_fault(name, now, fault).map_err(unknown)? {
                Ok(None)
            } else {
                Err((StatusCode::NOT_FOUND, format!("the fault {fault:?} is not in force")))
            }
        }
        (&Method::POST, ["lab", "bmcs", name, "foreign-job"]) => {
            let wish: ForeignJob = parse(&body)?;
            let header = match &wish.package {
                None => None,
                Some(file) => Some(
                    shared
                        .package(file)
                        .map(|package| package.header.clone())
                        .ok_or_else(|| bad(&format!("there is no package of the name {file:?}")))?,
                ),
            };
            let job = shared.site().foreign_job(name, now, header, wish.immediate).map_err(unknown)?;
            Ok(Some(json!({ "job": job })))
        }
        (&Method::POST, ["lab", "bmcs", name, "partition"]) => {
            let enabled = object(&body)?.get("enabled").and_then(Value::as_bool).unwrap_or(true);
            let mut site = shared.site();
            if enabled {
                site.arm(name, now, Fault::Partition, Times::Always).map_err(unknown)?;
            } else {
                site.clear_fault(name, now, Fault::Partition.name()).map_err(unknown)?;
            }
            Ok(None)
        }
        (&Method::POST, ["lab", "bmcs", name, "power-failure"]) => {
            shared.site().power_failure(name, now).map_err(unknown)?;
            Ok(None)
        }
        (&Method::GET | &Method::PUT | &Method::POST | &Method::DELETE, _) => {
            Err((StatusCode::NOT_FOUND, format!("nothing at /{path} for {}", parts.method)))
        }
        _ => Err((StatusCode::METHOD_NOT_ALLOWED, format!("{} is not supported", parts.method))),
    }
}

fn to_json<T: Serialize>(value: &T) -> Answer {
    serde_json::to_value(value)
        .map(Some)
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

fn bad(text: &str) -> Refusal {
    (StatusCode::BAD_REQUEST, text.to_owned())
}

fn unknown(error: UnknownBmc) -> Refusal {
    (StatusCode::NOT_FOUND, error.to_string())
}

/// An absent body is an empty object.
fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    let body: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| bad(&error.to_string()))
}

fn object(body: &Bytes) -> Result<Map<String, Value>, Refusal> {
    parse(body)
}
