//! Users and the roles granted to them.

use http::StatusCode;
use rackhand_schema::{
    Page,
    id::{GrantId, UserId},
    identity::{Grant, NewGrant, NewUser, User},
};
use serde_json::json;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    auth::password,
    page::{DEFAULT_LIMIT, Paging},
    problem::Answer,
    request::{Admin, Body, Json, Params, Segment, Segments},
    statement,
};

statement!(LIST, "users", "list");
statement!(CREATE, "users", "create");
statement!(GRANT, "users", "grant");
statement!(TAKE, "users", "take");

pub fn routes() -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(grant)).routes(routes!(take))
}

/// All users, by e-mail.
#[utoipa::path(get, path = "/v1/users", tag = "users", params(Paging),
    responses((status = 200, body = Page<User>)), extensions(("x-rackhand-role" = json!("fleet admin"))))]
async fn list(Admin(call): Admin, Params(paging): Params<Paging>) -> Answer<Json> {
    let args = json!({"cursor": paging.cursor, "limit": paging.limit.unwrap_or(DEFAULT_LIMIT)});
    call.json(&LIST, &args).await
}

/// Create a user, without any role yet.
#[utoipa::path(post, path = "/v1/users", tag = "users", request_body = NewUser,
    responses((status = 201, body = User)),
    extensions(("x-rackhand-role" = json!("fleet admin")), ("x-rackhand-errors" = json!(["name-taken"]))))]
async fn create(Admin(call): Admin, Body(user): Body<NewUser>) -> Answer<(StatusCode, Json)> {
    let password_hash = password::hash(&call.host, &user.password)?;
    let args = json!({"email": user.email, "name": user.name, "password_hash": password_hash});
    Ok((StatusCode::CREATED, call.json(&CREATE, &args).await?))
}

/// Grant a role for a site, or for the whole fleet.
#[utoipa::path(post, path = "/v1/users/{id}/grants", tag = "users", request_body = NewGrant,
    params(("id" = UserId, Path)), responses((status = 201, body = Grant)),
    extensions(("x-rackhand-role" = json!("admin"))))]
async fn grant(
    Admin(call): Admin,
    Segment(user): Segment<UserId>,
    Body(grant): Body<NewGrant>,
) -> Answer<(StatusCode, Json)> {
    let args = json!({"user_id": user, "role": grant.role, "site_id": grant.site_id});
    Ok((StatusCode::CREATED, call.json(&GRANT, &args).await?))
}

/// Take a role away.
#[utoipa::path(delete, path = "/v1/users/{id}/grants/{grant_id}", tag = "users",
    params(("id" = UserId, Path), ("grant_id" = GrantId, Path)), responses((status = 204)),
    extensions(("x-rackhand-role" = json!("admin")), ("x-rackhand-errors" = json!(["invalid-request"]))))]
async fn take(Admin(call): Admin, Segments(user, id): Segments<UserId, GrantId>) -> Answer<StatusCode> {
    call.text(&TAKE, &json!({"user_id": user, "id": id})).await?;
    Ok(StatusCode::NO_CONTENT)
}
