//! A run with its timeline, and closing one that nobody can finish. Nothing else here moves one: that is the lease
//! holder's.

use rackhand_schema::{
    id::RunId,
    job::Reason,
    run::{Run, RunDetail},
};
use serde_json::json;

use crate::{
    problem::Answer,
    request::{Body, Json, Operator, Segment, Viewer},
    routing::{OpenApiRouter, routes},
    statement,
};

statement!(READ, "runs", "read");
statement!(CLOSE, "runs", "close");

pub fn routes() -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(read)).routes(routes!(close))
}

/// A run with its phases and effects.
#[utoipa::path(get, path = "/v1/runs/{id}", tag = "runs", params(("id" = RunId, Path)),
    responses((status = 200, body = RunDetail)), extensions(("x-rackhand-role" = json!("viewer"))))]
async fn read(Viewer(call): Viewer, Segment(id): Segment<RunId>) -> Answer<Json> {
    call.json(&READ, &json!({"id": id})).await
}

/// Close a run that no executor works on and that nobody can finish. It ends `unknown` if it had announced a change,
/// else `cancelled`; its slots are freed, and what it had changed and not restored stays for people to see.
#[utoipa::path(post, path = "/v1/runs/{id}/close", tag = "runs", params(("id" = RunId, Path)),
    request_body = Reason, responses((status = 200, body = Run)),
    extensions(("x-rackhand-role" = json!("operator")), ("x-rackhand-errors" = json!(["run-state"]))))]
async fn close(
    Operator(call): Operator,
    Segment(id): Segment<RunId>,
    Body(reason): Body<Reason>,
) -> Answer<Json> {
    call.json(&CLOSE, &json!({"id": id, "reason": reason.reason})).await
}
