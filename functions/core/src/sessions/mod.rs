//! A person's living sessions, and ending one.

use garde::Validate;
use http::StatusCode;
use rackhand_schema::{
    Page,
    id::{SessionId, UserId},
    identity::Session,
};
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;

use crate::{
    problem::Answer,
    request::{Json, Params, Segment, Viewer},
    routing::{OpenApiRouter, routes},
    statement,
};

statement!(LIST, "sessions", "list");
statement!(END, "sessions", "end");

pub fn routes() -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(end))
}

#[derive(Debug, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Another user's sessions (fleet admin).
    #[garde(skip)]
    user: Option<UserId>,
}

/// Living sessions, newest first; one's own if no user is named.
#[utoipa::path(get, path = "/v1/sessions", tag = "auth", params(Filter),
    responses((status = 200, body = Page<Session>)), extensions(("x-rackhand-role" = json!("any"))))]
async fn list(Viewer(call): Viewer, Params(filter): Params<Filter>) -> Answer<Json> {
    call.json(&LIST, &json!({"user": filter.user})).await
}

/// End a session; its access tokens stop working at once.
#[utoipa::path(delete, path = "/v1/sessions/{id}", tag = "auth", params(("id" = SessionId, Path)),
    responses((status = 204)), extensions(("x-rackhand-role" = json!("any"))))]
async fn end(Viewer(call): Viewer, Segment(id): Segment<SessionId>) -> Answer<StatusCode> {
    call.text(&END, &json!({"id": id})).await?;
    Ok(StatusCode::NO_CONTENT)
}
