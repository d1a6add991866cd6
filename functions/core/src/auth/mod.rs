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
    identity::{Login, Logout, Me, PasswordChange, PasswordChoice, Refresh, SignedIn},
};
use serde::Deserialize;
use serde_json::json;

use crate::{
    auth::token::ACCESS_TTL,
    host::{Host, Statement},
    problem::{Answer, Refusal},
    request::{Anyone, Body, Call, Json, OptionalBody, RawBody, Viewer, bearer, not_signed_in, parse},
    routing::{OpenApiRouter, routes},
};

/// How long a session lasts however it is used, seconds.
const SESSION_TTL: u32 = 7 * 24 * 3600;

/// How long a session lasts that is not used, seconds.
const SESSION_IDLE: u32 = 24 * 3600;

static LOGIN_BEGIN: Statement = Statement { name: "auth/login_begin", sql: include_str!("login_begin.sql") };
static LOGIN_FINISH: Statement =
    Statement { name: "auth/login_finish", sql: include_str!("login_finish.sql") };
static REFRESH: Statement = Statement { name: "auth/refresh", sql: include_str!("refresh.sql") };
static LOGOUT: Statement = Statement { name: "auth/logout", sql: include_str!("logout.sql") };
static RESET_BEGIN: Statement = Statement { name: "auth/reset_begin", sql: include_str!("reset_begin.sql") };
static RESET_FINISH: Statement =
    Statement { name: "auth/reset_finish", sql: include_str!("reset_finish.sql") };
static CHANGE_BEGIN: Statement =
    Statement { name: "auth/change_begin", sql: include_str!("change_begin.sql") };
static CHANGE_FINISH: Statement =
    Statement { name: "auth/change_finish", sql: include_str!("change_finish.sql") };
static ME: Statement = Statement { name: "auth/me", sql: include_str!("me.sql") };

pub fn routes() -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(login))
        .routes(routes!(refresh))
        .routes(routes!(logout))
        .routes(routes!(change_password))
        .routes(routes!(choose_password))
        .routes(routes!(me))
}

/// Standard base64, with padding.
pub fn base64_encode(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
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

/// `<family>.<secret>`, both random. All tokens of a session have its family, so that one that was exchanged long ago
/// is known without a row of its own; the database has SHA-256 of the family and of the whole.
struct RefreshToken(String);

impl RefreshToken {
    fn of_family(host: &Host, family: &str) -> Answer<Self> {
        let (secret, _) = opaque_token(host)?;
        Ok(Self(format!("{family}.{secret}")))
    }

    fn family(&self) -> &str {
        self.0.split_once('.').map_or("", |(family, _)| family)
    }

    fn family_hash(&self) -> String {
        sha256_hex(self.family().as_bytes())
    }

    fn hash(&self) -> String {
        sha256_hex(self.0.as_bytes())
    }
}

/// Sign in with e-mail and password.
#[utoipa::path(post, path = "/v1/auth/login", tag = "auth", request_body = Login,
    responses((status = 200, body = SignedIn)),
    extensions(("x-rackhand-role" = json!("anonymous")),
        ("x-rackhand-errors" =
            json!(["invalid-credentials", "login-limited", "login-busy", "origin-refused"]))))]
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
    let fitted = password::fitted(&call.host, login.password, known.password_hash).await?;
    let (family, _) = opaque_token(&call.host)?;
    let refresh_token = RefreshToken::of_family(&call.host, &family)?;
    // What this browser was signed in with before is of no use to anybody any more.
    let former = browser::cookie(&headers, browser::REFRESH_COOKIE).filter(|_| browser);
    let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let session: Option<Started> = call
        .run(
            &LOGIN_FINISH,
            &json!({
                "email": login.email, "user_id": known.user_id, "fitted": fitted,
                "family": refresh_token.family_hash(), "refresh_hash": refresh_token.hash(),
                "former": former.map(|token| RefreshToken(token.to_owned()).family_hash()),
                "user_agent": agent, "ttl_s": SESSION_TTL,
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
        ("x-rackhand-errors" =
            json!(["not-signed-in", "session-ended", "refresh-reused", "login-limited", "origin-refused"]))))]
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
            let token =
                cookie.ok_or_else(|| not_signed_in(&headers, "There is no refresh token to renew."))?;
            browser::check_origin(&headers, &uri, call.host.settings.public_url.as_deref())?;
            (token, true)
        }
    };
    let presented = RefreshToken(presented);
    let next = RefreshToken::of_family(&call.host, presented.family())?;
    let args = json!({
        "family": presented.family_hash(), "hash": presented.hash(), "next_hash": next.hash(),
        "idle_s": SESSION_IDLE,
    });
    match call.run(&REFRESH, &args).await? {
        Exchanged::Started(session) => signed_in(&call, session, next, browser),
        Exchanged::Refused { refused, detail } => {
            let code = ErrorCode::parse(&refused).unwrap_or(ErrorCode::SessionEnded);
            Err(Refusal::new(code, detail))
        }
    }
}

/// End this session, by its access token or its refresh token; either may have expired. A browser's cookies are
/// deleted. If the database does not answer they stay, so that asking again still ends the session.
#[utoipa::path(post, path = "/v1/auth/logout", tag = "auth", request_body = Option<Logout>,
    responses((status = 204)),
    extensions(("x-rackhand-role" = json!("anonymous")), ("x-rackhand-errors" = json!(["origin-refused"]))))]
async fn logout(
    Anyone(call): Anyone,
    uri: Uri,
    headers: HeaderMap,
    OptionalBody(body): OptionalBody,
) -> Answer<Response> {
    let given: Logout = body.map(|body| parse(&body)).transpose()?.unwrap_or_default();
    let cookie = |name| browser::cookie(&headers, name).map(str::to_owned);
    let (access, refresh) = (cookie(browser::ACCESS_COOKIE), cookie(browser::REFRESH_COOKIE));
    if access.is_some() || refresh.is_some() {
        browser::check_origin(&headers, &uri, call.host.settings.public_url.as_deref())?;
    }
    let access = bearer(&headers).map(str::to_owned).or(access);
    let session = access.and_then(|token| call.host.keys.verify_user(&token, call.host.now_unix()).ok());
    let refresh = given.refresh_token.or(refresh);
    let args = json!({
        "session": session.map(|claims| claims.sid),
        "family": refresh.map(|token| RefreshToken(token).family_hash()),
    });
    call.text(&LOGOUT, &args).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    for name in [browser::ACCESS_COOKIE, browser::REFRESH_COOKIE] {
        response.headers_mut().append(header::SET_COOKIE, browser::set_cookie(name, "", 0)?);
    }
    Ok(response)
}

/// Change one's own password. All other sessions of one's own end.
#[utoipa::path(post, path = "/v1/auth/password", tag = "auth", request_body = PasswordChange,
    responses((status = 204)),
    extensions(("x-rackhand-role" = json!("any")),
        ("x-rackhand-errors" = json!(["password-wrong", "login-limited", "login-busy"]))))]
async fn change_password(Viewer(call): Viewer, Body(change): Body<PasswordChange>) -> Answer<StatusCode> {
    #[derive(Deserialize)]
    struct Known {
        password_hash: Option<String>,
    }
    let known: Known = call.run(&CHANGE_BEGIN, &json!({})).await?;
    let fitted = password::fitted(&call.host, change.present, known.password_hash).await?;
    let fitted = fitted
        .ok_or_else(|| Refusal::new(ErrorCode::PasswordWrong, "The present password is not this one."))?;
    let password_hash = password::hash(&call.host, change.new).await?;
    call.text(&CHANGE_FINISH, &json!({"fitted": fitted, "password_hash": password_hash})).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Choose a password with a one-time link. All sessions of the account end.
#[utoipa::path(post, path = "/v1/auth/password-choice", tag = "auth", request_body = PasswordChoice,
    responses((status = 204)),
    extensions(("x-rackhand-role" = json!("anonymous")),
        ("x-rackhand-errors" = json!(["reset-refused", "login-limited", "login-busy"]))))]
async fn choose_password(Anyone(call): Anyone, Body(choice): Body<PasswordChoice>) -> Answer<StatusCode> {
    let token_hash = sha256_hex(choice.token.as_bytes());
    if !call.run::<bool, _>(&RESET_BEGIN, &json!({"token_hash": token_hash})).await? {
        let detail = "This link is unknown, used, expired or withdrawn. Ask an admin for a new one.";
        return Err(Refusal::new(ErrorCode::ResetRefused, detail));
    }
    let password_hash = password::hash(&call.host, choice.password).await?;
    call.text(&RESET_FINISH, &json!({"token_hash": token_hash, "password_hash": password_hash})).await?;
    Ok(StatusCode::NO_CONTENT)
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

fn signed_in(
    call: &Call,
    session: Started,
    RefreshToken(refresh_token): RefreshToken,
    browser: bool,
) -> Answer<Response> {
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
