//! The UI's files, from the folder that `spin.toml` mounts; addresses and headers as on the native host.

use std::path::Path;

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use http::{HeaderValue, Method, StatusCode, header};
use rackhand_functions::ui;

const FOLDER: &str = "/ui";

/// A file; an address of the app itself gets the app, which knows its own pages.
pub fn answer(method: &Method, path: &str) -> Response {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let file = ui::file(path);
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
    if file != path && response.status() == StatusCode::NOT_FOUND {
        tracing::error!("the UI has no index.html: build it and mount ui/dist at {FOLDER}");
    }
    let found = response.status().is_success();
    response.headers_mut().extend(ui::headers(path, found));
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
        _ => "application/octet-stream",
    })
}
