//! Users and the roles granted to them.

use http::StatusCode;
use rackhand_schema::{
    Page,
    id::{GrantId, UserId},
    identity::{Grant, NewGrant, NewUser, PasswordLink, User, UserChange},
};
use serde_json::json;

use crate::{
    auth::{opaque_token, password},
    page::{DEFAULT_LIMIT, Paging},
    problem::Answer,
    request::{Admin, Body, FleetAdmin, Json, Params, Segment, Segments, Viewer},
    routing::{OpenApiRouter, routes},
    statement,
};

statement!(LIST, "users", "list");
statement!(CREATE, "users", "create");
statement!(GRANT, "users", "grant");
statement!(TAKE, "users", "take");
statement!(UPDATE, "users", "update");
statement!(END_SESSIONS, "users", "end_sessions");
statement!(RESET, "users", "reset");

/// How long a link for a new password works, seconds.
const LINK_TTL: u32 = 24 * 3600;

pub fn routes() -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(change))
        .routes(routes!(end_sessions))
        .routes(routes!(reset_password))
        .routes(routes!(grant))
        .routes(routes!(take))
}

/// All users, by e-mail.
#[utoipa::path(get, path = "/v1/users", tag = "users", params(Paging),
    responses((status = 200, body = Page<User>)), extensions(("x-rackhand-role" = json!("fleet admin"))))]
async fn list(FleetAdmin(call): FleetAdmin, Params(paging): Params<Paging>) -> Answer<Json> {
    let args = json!({"cursor": paging.cursor, "limit": paging.limit.unwrap_or(DEFAULT_LIMIT)});
    call.json(&LIST, &args).await
}

/// Create a user, without any role yet.
#[utoipa::path(post, path = "/v1/users", tag = "users", request_body = NewUser,
    responses((status = 201, body = User)),
    extensions(("x-rackhand-role" = json!("fleet admin")),
        ("x-rackhand-errors" = json!(["name-taken", "login-busy"]))))]
async fn create(FleetAdmin(call): FleetAdmin, Body(user): Body<NewUser>) -> Answer<(StatusCode, Json)> {
    let password_hash = match user.password {
        Some(password) => {
            // Whoever may not is told so before the work.
            call.json(&LIST, &json!({"cursor": null, "limit": 1})).await?;
            Some(password::hash(&call.host, password).await?)
        }
        None => None,
    };
    let args = json!({"email": user.email, "name": user.name, "password_hash": password_hash});
    Ok((StatusCode::CREATED, call.json(&CREATE, &args).await?))
}

/// Change a user's name, or disable or enable the account. The last admin of the fleet cannot be disabled.
#[utoipa::path(patch, path = "/v1/users/{id}", tag = "users", params(("id" = UserId, Path)),
    request_body = UserChange, responses((status = 200, body = User)),
    extensions(("x-rackhand-role" = json!("fleet admin")),
        ("x-rackhand-errors" = json!(["not-found", "invalid-request"]))))]
async fn change(
    FleetAdmin(call): FleetAdmin,
    Segment(id): Segment<UserId>,
    Body(change): Body<UserChange>,
) -> Answer<Json> {
    call.json(&UPDATE, &json!({"id": id, "name": change.name, "disabled": change.disabled})).await
}

/// End all sessions of a user (fleet admin), or all of one's own but this one.
#[utoipa::path(delete, path = "/v1/users/{id}/sessions", tag = "users", params(("id" = UserId, Path)),
    responses((status = 204)),
    extensions(("x-rackhand-role" = json!("any")), ("x-rackhand-errors" = json!(["forbidden-role", "not-found"]))))]
async fn end_sessions(Viewer(call): Viewer, Segment(id): Segment<UserId>) -> Answer<StatusCode> {
    call.text(&END_SESSIONS, &json!({"id": id})).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Make a link with which the person chooses a password, once. An earlier link ends; the present password stays until
/// the link is used, and nobody is held up by what strangers tried with the account.
#[utoipa::path(post, path = "/v1/users/{id}/password-link", tag = "users", params(("id" = UserId, Path)),
    responses((status = 201, body = PasswordLink)),
    extensions(("x-rackhand-role" = json!("fleet admin")),
        ("x-rackhand-errors" = json!(["not-found", "invalid-request"]))))]
async fn reset_password(
    FleetAdmin(call): FleetAdmin,
    Segment(id): Segment<UserId>,
) -> Answer<(StatusCode, Json)> {
    let (token, token_hash) = opaque_token(&call.host)?;
    call.text(&RESET, &json!({"id": id, "token_hash": token_hash, "ttl_s": LINK_TTL})).await?;
    // After the `#`: what stands there is never sent to a server, nor written into its log.
    let page = call.host.settings.public_url.as_deref();
    let link = page.map(|url| format!("{}/choose-password#{token}", url.trim_end_matches('/')));
    Ok((StatusCode::CREATED, Json::of(&PasswordLink { token, expires_in: LINK_TTL, link })?))
}

/// Grant a role for a site, or for the whole fleet.
#[utoipa::path(post, path = "/v1/users/{id}/grants", tag = "users", request_body = NewGrant,
    params(("id" = UserId, Path)), responses((status = 201, body = Grant)),
    extensions(("x-rackhand-role" = json!("admin"))))]
async fn grant(
    // An admin of the site or of the fleet: the function that is called names which.
    Viewer(call): Viewer,
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
