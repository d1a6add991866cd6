//! About the service itself: health, version, the OpenAPI document, and pages for people.

mod pages;

use std::sync::OnceLock;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, header};
use rackhand_schema::ErrorCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::{
    problem::{Answer, Refusal},
    request::{Anyone, Json, Segment},
    routing::{OpenApiRouter, routes},
    statement,
};

statement!(HEALTH, "meta", "health");

/// The document as it is checked in; `cargo xtask openapi --check` holds it to the code.
const OPENAPI: &str = include_str!("../../../../schema/openapi.json");

const PUBLIC: &str = "public, max-age=300";

pub fn routes() -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(health))
        .routes(routes!(version))
        .routes(routes!(document))
        .routes(routes!(docs))
        .routes(routes!(error_page))
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct HealthStatus {
    /// `ok`; trouble is a 503 instead.
    pub status: String,
}

/// Whether the service and its database answer.
#[utoipa::path(get, path = "/v1/health", tag = "service", responses((status = 200, body = HealthStatus)),
    extensions(("x-rackhand-role" = json!("anonymous"))))]
async fn health(Anyone(call): Anyone) -> Answer<Json> {
    call.json(&HEALTH, &json!({})).await
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ServiceVersion {
    pub version: String,
}

/// The version of the control plane.
#[utoipa::path(get, path = "/v1/version", tag = "service", responses((status = 200, body = ServiceVersion)),
    extensions(("x-rackhand-role" = json!("anonymous"))))]
async fn version(Anyone(call): Anyone) -> Answer<Json> {
    Json::of(&ServiceVersion { version: call.host.settings.version.to_owned() })
}

/// This description of the API, OpenAPI 3.1.
#[utoipa::path(get, path = "/openapi.json", tag = "service",
    responses((status = 200, content_type = "application/json", body = Object)),
    extensions(("x-rackhand-role" = json!("anonymous"))))]
async fn document() -> Answer<Response> {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static(PUBLIC)),
    ];
    // The text itself, not a copy for each: anybody may ask for it.
    Ok((headers, Bytes::from_static(OPENAPI.as_bytes())).into_response())
}

/// The operations of this API as a page for people.
#[utoipa::path(get, path = "/docs", tag = "service",
    responses((status = 200, content_type = "text/html", body = String)),
    extensions(("x-rackhand-role" = json!("anonymous"))))]
async fn docs() -> Answer<Response> {
    static PAGE: OnceLock<Bytes> = OnceLock::new();
    if let Some(page) = PAGE.get() {
        return Ok(html(page.clone()));
    }
    let page = pages::operations(&serde_json::from_str(OPENAPI)?);
    Ok(html(PAGE.get_or_init(|| page.into()).clone()))
}

/// What an error code means, and what to do.
#[utoipa::path(get, path = "/errors/{code}", tag = "service", params(("code" = String, Path)),
    responses((status = 200, content_type = "text/html", body = String)),
    extensions(("x-rackhand-role" = json!("anonymous"))))]
async fn error_page(Segment(code): Segment<String>) -> Answer<Response> {
    let code = ErrorCode::parse(&code)
        .ok_or_else(|| Refusal::new(ErrorCode::NotFound, "There is no error code of that name."))?;
    Ok(html(pages::markdown(code.title(), code.page()).into()))
}

fn html(page: Bytes) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static(PUBLIC)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(pages::POLICY)),
    ];
    (headers, page).into_response()
}
