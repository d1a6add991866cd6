//! A run with its timeline. Nothing here moves one: that is the lease holder's.

use rackhand_schema::{id::RunId, run::RunDetail};
use serde_json::json;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    problem::Answer,
    request::{Json, Segment, Viewer},
    statement,
};

statement!(READ, "runs", "read");

pub fn routes() -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(read))
}

/// A run with its phases and effects.
#[utoipa::path(get, path = "/v1/runs/{id}", tag = "runs", params(("id" = RunId, Path)),
    responses((status = 200, body = RunDetail)), extensions(("x-rackhand-role" = json!("viewer"))))]
async fn read(Viewer(call): Viewer, Segment(id): Segment<RunId>) -> Answer<Json> {
    call.json(&READ, &json!({"id": id})).await
}
