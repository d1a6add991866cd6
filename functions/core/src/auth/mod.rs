//! Sign-in: password to tokens, rotation of refresh tokens, sign-out.
//!
//! A sign-in is two statements around the hash: count the attempt and read the stored hash; then settle.
//! Both wrong passwords and unknown users end in the same answer after the same work.

pub mod browser;
mod jwt;
pub mod password;
pub mod token;

use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use http::{HeaderMap, StatusCode, Uri, header};
use rackhand_schema::{
    ErrorCode,
    digest::sha256_hex,
    id::{SessionId, UserId},
    identity::{Login, Me, Refresh, SignedIn},
};
use serde::Deserialize;
use serde_json::json;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    auth::token::ACCESS_TTL,
    host::{Host, Statement},
    problem::{Answer, Refusal},
    request::{Anyone, Body, Call, Json, RawBody, Viewer, parse},
};

/// How long a session lasts however it is used, seconds.
const SESSION_TTL: u32 = 7 * 24 * 3600;

static LOGIN_BEGIN: Statement = Statement { name: "auth/login_begin", sql: include_str!("login_begin.sql") };
static LOGIN_FINISH: Statement =
    Statement { name: "auth/login_finish", sql: include_str!("login_finish.sql") };
static REFRESH: Statement = Statement { name: "auth/refresh", sql: include_str!("refresh.sql") };
static LOGOUT: Statement = Statement { name: "auth/logout", sql: include_str!("logout.sql") };
static ME: Statement = Statement { name: "auth/me", sql: include_str!("me.sql") };

pub fn routes() -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(login))
        .routes(routes!(refresh))
        .routes(routes!(logout))
        .routes(routes!(me))
}

/// Standard base64, with or without padding.
pub fn base64_decode(text: &str) -> Option<Vec<u8>> {
    base64::engine::general_purpose::STANDARD_NO_PAD.decode(text.trim_end_matches('=')).ok()
}

/// An opaque token of 32 random bytes and what is stored of it.
pub fn opaque_token(host: &Host) -> Answer<(String, String)> {
    let token = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(host.random::<32>()?);
    let hash = sha256_hex(token.as_bytes());
    Ok((token, hash))
}

/// Sign in with e-mail and password.
#[utoipa::path(post, path = "/v1/auth/login", tag = "auth", request_body = Login,
    responses((status = 200, body = SignedIn)),
    extensions(("x-rackhand-role" = json!("anonymous")),
        ("x-rackhand-errors" = json!(["invalid-credentials", "login-limited", "origin-refused"]))))]
async fn login(
    Anyone(call): Anyone,
    uri: Uri,
    headers: HeaderMap,
    Body(login): Body<Login>,
) -> Answer<Response> {
    #[derive(Deserialize)]
    struct Known {
        user_id: Option<UserId>,
        password_hash: Option<String>,
    }
    let browser = asked_by_browser(&call, &uri, &headers)?;
    let known: Known = call.run(&LOGIN_BEGIN, &json!({"email": login.email})).await?;
    let accepted = password::fits(&login.password, known.password_hash.as_deref())?;
    let (refresh_token, refresh_hash) = opaque_token(&call.host)?;
    let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let session: Option<Started> = call
        .run(
            &LOGIN_FINISH,
            &json!({
                "email": login.email, "user_id": known.user_id, "accepted": accepted,
                "refresh_hash": refresh_hash, "user_agent": agent, "ttl_s": SESSION_TTL,
            }),
        )
        .await?;
    let session =
        session.ok_or_else(|| Refusal::new(ErrorCode::InvalidCredentials, "E-mail or password is wrong."))?;
    signed_in(&call, session, refresh_token, browser)
}

/// Exchange a refresh token for new tokens.
#[utoipa::path(post, path = "/v1/auth/refresh", tag = "auth", request_body = Refresh,
    responses((status = 200, body = SignedIn)),
    extensions(("x-rackhand-role" = json!("anonymous")),
        ("x-rackhand-errors" = json!(["not-signed-in", "session-ended", "refresh-reused", "origin-refused"]))))]
async fn refresh(
    Anyone(call): Anyone,
    uri: Uri,
    headers: HeaderMap,
    RawBody(body): RawBody,
) -> Answer<Response> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Exchanged {
        Refused { refused: String, detail: String },
        Started(Started),
    }
    let body: Refresh = parse(&body)?;
    let (presented, browser) = match body.refresh_token {
        Some(token) => (token, asked_by_browser(&call, &uri, &headers)?),
        None => {
            let cookie = browser::cookie(&headers, browser::REFRESH_COOKIE).map(str::to_owned);
            let token = cookie
                .ok_or_else(|| Refusal::new(ErrorCode::NotSignedIn, "There is no refresh token to renew."))?;
            browser::check_origin(&headers, &uri, call.host.settings.public_url.as_deref())?;
            (token, true)
        }
    };
    let (refresh_token, next_hash) = opaque_token(&call.host)?;
    let args = json!({"hash": sha256_hex(presented.as_bytes()), "next_hash": next_hash});
    match call.run(&REFRESH, &args).await? {
        Exchanged::Started(session) => signed_in(&call, session, refresh_token, browser),
        Exchanged::Refused { refused, detail } => {
            let code = ErrorCode::parse(&refused).unwrap_or(ErrorCode::SessionEnded);
            Err(Refusal::new(code, detail))
        }
    }
}

/// End this session.
#[utoipa::path(post, path = "/v1/auth/logout", tag = "auth", responses((status = 204)),
    extensions(("x-rackhand-role" = json!("any"))))]
async fn logout(Viewer(call): Viewer) -> Answer<Response> {
    call.text(&LOGOUT, &json!({})).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    for name in [browser::ACCESS_COOKIE, browser::REFRESH_COOKIE] {
        response.headers_mut().append(header::SET_COOKIE, browser::set_cookie(name, "", 0)?);
    }
    Ok(response)
}

/// Who is signed in, with the roles granted.
#[utoipa::path(get, path = "/v1/auth/me", tag = "auth", responses((status = 200, body = Me)),
    extensions(("x-rackhand-role" = json!("any"))))]
async fn me(Viewer(call): Viewer) -> Answer<Json> {
    call.json(&ME, &json!({})).await
}

#[derive(Deserialize)]
struct Started {
    session_id: SessionId,
    user: Me,
}

fn asked_by_browser(call: &Call, uri: &Uri, headers: &HeaderMap) -> Answer<bool> {
    if !browser::is_browser(headers) {
        return Ok(false);
    }
    browser::check_origin(headers, uri, call.host.settings.public_url.as_deref())?;
    Ok(true)
}

fn signed_in(call: &Call, session: Started, refresh_token: String, browser: bool) -> Answer<Response> {
    let access = call.host.keys.sign_user(session.user.id, session.session_id, call.host.now_unix())?;
    let body = |access_token, refresh_token| {
        Json::of(&SignedIn { user: session.user, expires_in: ACCESS_TTL, access_token, refresh_token })
    };
    if !browser {
        return Ok(body(Some(access), Some(refresh_token))?.into_response());
    }
    let mut response = body(None, None)?.into_response();
    let headers = response.headers_mut();
    headers.append(header::SET_COOKIE, browser::set_cookie(browser::ACCESS_COOKIE, &access, ACCESS_TTL)?);
    headers.append(
        header::SET_COOKIE,
        browser::set_cookie(browser::REFRESH_COOKIE, &refresh_token, SESSION_TTL)?,
    );
    Ok(response)
}
