//! Credentials: sealed before they come here; only name and version are ever shown again.

use http::StatusCode;
use rackhand_schema::{
    Page,
    id::CredentialId,
    server::{Credential, NewCredential},
};
use serde_json::json;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    executors::OfSite,
    page::{DEFAULT_LIMIT, plain_cursor},
    problem::Answer,
    request::{Body, Json, Operator, Params, Viewer},
    statement,
};

statement!(LIST, "credentials", "list");
statement!(PUT, "credentials", "put");

pub fn routes() -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(list, put))
}

/// Credentials by age, without their secret parts.
#[utoipa::path(get, path = "/v1/credentials", tag = "credentials", params(OfSite),
    responses((status = 200, body = Page<Credential>)), extensions(("x-rackhand-role" = json!("viewer"))))]
async fn list(Viewer(call): Viewer, Params(filter): Params<OfSite>) -> Answer<Json> {
    let cursor = plain_cursor::<CredentialId>(filter.cursor.as_deref())?;
    let limit = filter.limit.unwrap_or(DEFAULT_LIMIT);
    call.json(&LIST, &json!({"site": filter.site, "cursor": cursor, "limit": limit})).await
}

/// Store a sealed credential, or its next version.
#[utoipa::path(post, path = "/v1/credentials", tag = "credentials", request_body = NewCredential,
    responses((status = 201, body = Credential)),
    extensions(("x-rackhand-role" = json!("operator")), ("x-rackhand-errors" = json!(["credential-version"]))))]
async fn put(Operator(call): Operator, Body(credential): Body<NewCredential>) -> Answer<(StatusCode, Json)> {
    Ok((StatusCode::CREATED, call.json(&PUT, &credential).await?))
}
