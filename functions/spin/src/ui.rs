//! The UI's files, from the folder that `spin.toml` mounts; addresses and headers as on the native host.

use std::path::Path;

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};

const FOLDER: &str = "/ui";

/// Scripts, styles and connections of our own origin only.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; \
    frame-ancestors 'none'";

pub fn is_api(path: &str) -> bool {
    path == "/v1"
        || path.starts_with("/v1/")
        || path.starts_with("/errors/")
        || matches!(path, "/openapi.json" | "/docs" | "/metrics")
}

/// A file; an address of the app itself gets the app, which knows its own pages.
pub fn answer(method: &Method, path: &str) -> Response {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let is_page = !path.rsplit('/').next().unwrap_or_default().contains('.');
    let file = if is_page { "/index.html" } else { path };
    // Built files have plain names; nothing climbs out of the folder.
    let plain = file.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
    let found =
        if plain && !file.contains("..") { std::fs::read(format!("{FOLDER}{file}")).ok() } else { None };
    let mut response = match found {
        Some(bytes) => {
            let kind =
                [(header::CONTENT_TYPE, content_type(file)), (header::CONTENT_LENGTH, bytes.len().into())];
            (kind, if *method == Method::HEAD { Body::empty() } else { bytes.into() }).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    };
    if is_page && response.status() == StatusCode::NOT_FOUND {
        tracing::error!("the UI has no index.html: build it and mount ui/dist at {FOLDER}");
    }
    // Built files carry their hash in the name.
    let immutable = path.starts_with("/assets/") && response.status().is_success();
    let cache = if immutable { "public, max-age=31536000, immutable" } else { "no-cache" };
    for (name, value) in [
        (header::CACHE_CONTROL, cache),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn content_type(file: &str) -> HeaderValue {
    let extension = Path::new(file).extension().and_then(|extension| extension.to_str());
    HeaderValue::from_static(match extension {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript",
        Some("css") => "text/css",
        Some("svg") => "image/svg+xml",
        Some("woff2") => "font/woff2",
        Some("png") => "image/png",
        Some("json") => "application/json",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    })
}
