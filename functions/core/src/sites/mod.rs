//! Sites: settings, with optimistic locking, and tokens for executors to join.

use axum::response::{IntoResponse, Response};
use garde::Validate;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use rackhand_schema::{
    Page,
    executor::EnrolmentToken,
    id::SiteId,
    site::{NewSite, Site, SiteUpdate},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::{
    auth::opaque_token,
    page::{DEFAULT_LIMIT, Paging, decode_cursor},
    problem::{Answer, Refusal},
    request::{Admin, Body, FleetAdmin, Json, Params, Segment, Viewer},
    routing::{OpenApiRouter, routes},
    statement,
};

/// How long an enrolment token may be used, seconds.
const ENROLMENT_TTL: u32 = 3600;

statement!(LIST, "sites", "list");
statement!(READ, "sites", "read");
statement!(CREATE, "sites", "create");
statement!(UPDATE, "sites", "update");
statement!(DELETE, "sites", "delete");
statement!(ENROLMENT, "sites", "enrolment_token");

pub fn routes() -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(read, update, remove))
        .routes(routes!(enrolment_token))
}

/// The sites the caller may see, by name.
#[utoipa::path(get, path = "/v1/sites", tag = "sites", params(Paging),
    responses((status = 200, body = Page<Site>)), extensions(("x-rackhand-role" = json!("viewer"))))]
async fn list(Viewer(call): Viewer, Params(paging): Params<Paging>) -> Answer<Json> {
    let cursor = decode_cursor(paging.cursor.as_deref())?;
    call.json(&LIST, &json!({"cursor": cursor, "limit": paging.limit.unwrap_or(DEFAULT_LIMIT)})).await
}

/// Create a site.
#[utoipa::path(post, path = "/v1/sites", tag = "sites", request_body = NewSite,
    responses((status = 201, body = Site)),
    extensions(("x-rackhand-role" = json!("fleet admin")), ("x-rackhand-errors" = json!(["name-taken"]))))]
async fn create(FleetAdmin(call): FleetAdmin, Body(site): Body<NewSite>) -> Answer<(StatusCode, Json)> {
    Ok((StatusCode::CREATED, call.json(&CREATE, &site).await?))
}

/// A site; its `ETag` is the version that an update names.
#[utoipa::path(get, path = "/v1/sites/{id}", tag = "sites", params(("id" = SiteId, Path)),
    responses((status = 200, body = Site)), extensions(("x-rackhand-role" = json!("viewer"))))]
async fn read(Viewer(call): Viewer, Segment(id): Segment<SiteId>) -> Answer<Response> {
    with_etag(call.json(&READ, &json!({"id": id})).await?)
}

/// Replace a site's settings. `If-Match` with the version that was read refuses to overwrite somebody
/// else's change.
#[utoipa::path(put, path = "/v1/sites/{id}", tag = "sites", request_body = SiteUpdate,
    params(("id" = SiteId, Path), ("If-Match" = Option<String>, Header)), responses((status = 200, body = Site)),
    extensions(("x-rackhand-role" = json!("admin")), ("x-rackhand-errors" = json!(["version-conflict"]))))]
async fn update(
    Admin(call): Admin,
    Segment(id): Segment<SiteId>,
    headers: HeaderMap,
    Body(update): Body<SiteUpdate>,
) -> Answer<Response> {
    let version = headers.get(header::IF_MATCH).map(if_match).transpose()?.flatten();
    let args = json!({"id": id, "config": update.config, "version": version});
    with_etag(call.json(&UPDATE, &args).await?)
}

/// Remove a site in which nothing ever was.
#[utoipa::path(delete, path = "/v1/sites/{id}", tag = "sites", params(("id" = SiteId, Path)),
    responses((status = 204)),
    extensions(("x-rackhand-role" = json!("fleet admin")), ("x-rackhand-errors" = json!(["site-in-use"]))))]
async fn remove(FleetAdmin(call): FleetAdmin, Segment(id): Segment<SiteId>) -> Answer<StatusCode> {
    call.text(&DELETE, &json!({"id": id})).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewEnrolmentToken {}

/// Make a token with which one executor may join, once, within an hour.
#[utoipa::path(post, path = "/v1/sites/{id}/enrolment-tokens", tag = "sites", params(("id" = SiteId, Path)),
    request_body = NewEnrolmentToken, responses((status = 201, body = EnrolmentToken)),
    extensions(("x-rackhand-role" = json!("admin"))))]
async fn enrolment_token(
    Admin(call): Admin,
    Segment(id): Segment<SiteId>,
    Body(NewEnrolmentToken {}): Body<NewEnrolmentToken>,
) -> Answer<(StatusCode, Json)> {
    let (token, token_hash) = opaque_token(&call.host)?;
    call.text(&ENROLMENT, &json!({"site_id": id, "token_hash": token_hash, "ttl_s": ENROLMENT_TTL})).await?;
    Ok((StatusCode::CREATED, Json::of(&EnrolmentToken { token, expires_in: ENROLMENT_TTL })?))
}

/// The version that `If-Match` names; `*` names none in particular.
fn if_match(value: &HeaderValue) -> Answer<Option<u64>> {
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let digits = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    digits.parse().map(Some).map_err(|_| Refusal::invalid("If-Match", "is not the ETag of a site"))
}

fn with_etag(site: Json) -> Answer<Response> {
    #[derive(Serialize, Deserialize)]
    struct Version {
        version: u64,
    }
    let Version { version } = serde_json::from_str(&site.0)?;
    let mut response = site.into_response();
    if let Ok(etag) = HeaderValue::from_str(&format!("\"{version}\"")) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    Ok(response)
}
