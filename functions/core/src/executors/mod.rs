//! Executors as people see them. What executors themselves call is in [`crate::executor_protocol`].

use garde::Validate;
use http::StatusCode;
use rackhand_schema::{
    Page,
    executor::Executor,
    id::{ExecutorId, SiteId},
};
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;

use crate::{
    page::{DEFAULT_LIMIT, plain_cursor},
    problem::Answer,
    request::{Admin, Json, Params, Segment, Viewer},
    routing::{OpenApiRouter, routes},
    statement,
};

statement!(LIST, "executors", "list");
statement!(REVOKE, "executors", "revoke");

pub fn routes() -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(revoke))
}

/// Filter by site, and paging. Shared by the lists of executors and of credentials.
#[derive(Debug, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct OfSite {
    #[garde(skip)]
    pub site: Option<SiteId>,
    /// `next` of the page before.
    #[garde(length(bytes, max = 2000))]
    pub cursor: Option<String>,
    /// 1–500; 50 if absent.
    #[garde(range(min = 1, max = 500))]
    pub limit: Option<u32>,
}

/// Executors, in the order they were enrolled.
#[utoipa::path(get, path = "/v1/executors", tag = "executors", params(OfSite),
    responses((status = 200, body = Page<Executor>)), extensions(("x-rackhand-role" = json!("viewer"))))]
async fn list(Viewer(call): Viewer, Params(filter): Params<OfSite>) -> Answer<Json> {
    let cursor = plain_cursor::<ExecutorId>(filter.cursor.as_deref())?;
    let limit = filter.limit.unwrap_or(DEFAULT_LIMIT);
    call.json(&LIST, &json!({"site": filter.site, "cursor": cursor, "limit": limit})).await
}

/// Revoke an executor: it may not sign in again, and what it holds passes on.
#[utoipa::path(delete, path = "/v1/executors/{id}", tag = "executors", params(("id" = ExecutorId, Path)),
    responses((status = 204)), extensions(("x-rackhand-role" = json!("admin"))))]
async fn revoke(Admin(call): Admin, Segment(id): Segment<ExecutorId>) -> Answer<StatusCode> {
    call.text(&REVOKE, &json!({"id": id})).await?;
    Ok(StatusCode::NO_CONTENT)
}
