//! What executors call: join, sign in, lease, report. See `rackhand_schema::protocol` for the rules.
//!
//! Signing in is nonce → Ed25519 signature → token, with the server's time alone: an executor needs no
//! clock. The signature is verified here, before the session starts and the nonce is written down as used.

mod nonce;
mod report;
mod sanitise;
mod turns;

use axum::response::{IntoResponse, Response};
use ed25519_dalek::{Signature, VerifyingKey};
use futures::future::{Either, select};
use http::{HeaderMap, StatusCode, Uri};
use rackhand_schema::{
    ErrorCode,
    digest::sha256_hex,
    executor::{
        Enrol, Enrolled, ExecutorToken, Nonce, NonceRequest, SiteKey, TokenRequest, audience, token_message,
    },
    id::{ExecutorId, SiteId},
    protocol::{
        AttemptAnswer, Claim, CredentialAttempt, LeaseRequest, LeaseResponse, Report, ReportResponse,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;

use crate::{
    auth::{base64_decode, browser, token::ACCESS_TTL},
    host::{Scope, Topic, Wake},
    problem::{Answer, Refusal},
    request::{Anyone, Body, Call, Executor, Json, MAX_LEASE_BYTES, RawBody, SmallBody},
    routing::{OpenApiRouter, routes},
    statement,
};
use turns::Turn;
pub use turns::Turns;

statement!(ENROL, "executor_protocol", "enrol");
statement!(CHALLENGE, "executor_protocol", "challenge");
statement!(SESSION, "executor_protocol", "session");
statement!(LEASE, "executor_protocol", "lease");
statement!(REPORT, "executor_protocol", "report");
statement!(ATTEMPT, "executor_protocol", "attempt");
statement!(SITE_KEY, "executor_protocol", "site_key");

/// An answer that only repeats cancellations is held so long, so that an executor that cannot stop yet
/// does not poll without pause.
const REPEATED_CANCEL_HOLD: Duration = Duration::from_secs(1);

/// For so long a nonce may be signed and sent, seconds; as much may the clocks of two hosts differ.
const NONCE_TTL: u64 = 60;

/// However soon something is due.
const SHORTEST_WAIT_MS: u64 = 10;

pub fn routes() -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(enrol))
        .routes(routes!(nonce))
        .routes(routes!(token))
        .routes(routes!(lease))
        .routes(routes!(report))
        .routes(routes!(credential_attempt))
        .routes(routes!(site_key))
}

/// Join a site with a one-time token.
#[utoipa::path(post, path = "/v1/executor/enrol", tag = "executor", request_body = Enrol,
    responses((status = 201, body = Enrolled)),
    extensions(("x-rackhand-role" = json!("anonymous")),
        ("x-rackhand-errors" = json!(["enrolment-refused", "name-taken"]))))]
async fn enrol(Anyone(call): Anyone, Body(enrol): Body<Enrol>) -> Answer<(StatusCode, Json)> {
    let key = |field: &str, text: &str| -> Answer<[u8; 32]> {
        let bytes = base64_decode(text).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        bytes.ok_or_else(|| Refusal::invalid(field, "is not base64 of 32 bytes"))
    };
    let (signing, sealing) =
        (key("signing_key", &enrol.signing_key)?, key("sealing_key", &enrol.sealing_key)?);
    if VerifyingKey::from_bytes(&signing).map_or(true, |key| key.is_weak()) {
        return Err(Refusal::invalid("signing_key", "is not a sound Ed25519 key"));
    }
    let args = json!({
        "token_hash": sha256_hex(enrol.token.as_bytes()), "name": enrol.name,
        "signing_key": enrol.signing_key, "sealing_key": enrol.sealing_key,
        "fingerprint": fingerprint(&signing, &sealing),
    });
    Ok((StatusCode::CREATED, call.json(&ENROL, &args).await?))
}

/// SHA-256 over the signing and the sealing key, hex in groups of four.
pub fn fingerprint(signing: &[u8; 32], sealing: &[u8; 32]) -> String {
    let hex = sha256_hex(&[signing.as_slice(), sealing].concat());
    let mut grouped = String::with_capacity(80);
    for (index, digit) in hex.chars().enumerate() {
        if index > 0 && index % 4 == 0 {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

/// A nonce to sign, valid for a minute and once. Nothing is stored for it: whoever asks for many of them takes nothing
/// from the executor.
#[utoipa::path(post, path = "/v1/executor/nonce", tag = "executor", request_body = NonceRequest,
    responses((status = 200, body = Nonce)), extensions(("x-rackhand-role" = json!("anonymous"))))]
async fn nonce(Anyone(call): Anyone, Body(request): Body<NonceRequest>) -> Answer<Json> {
    let (keys, random) = (&call.host.keys, call.host.random()?);
    Json::of(&Nonce { nonce: nonce::issue(keys, request.executor_id, call.host.now_unix(), random) })
}

/// Exchange a signed nonce for a token of ten minutes.
#[utoipa::path(post, path = "/v1/executor/token", tag = "executor", request_body = TokenRequest,
    responses((status = 200, body = ExecutorToken)),
    extensions(("x-rackhand-role" = json!("anonymous")), ("x-rackhand-errors" = json!(
        ["executor-revoked", "nonce-invalid", "signature-invalid", "session-superseded", "login-limited"]))))]
async fn token(
    Anyone(call): Anyone,
    uri: Uri,
    headers: HeaderMap,
    Body(request): Body<TokenRequest>,
) -> Answer<Json> {
    #[derive(Deserialize)]
    struct Challenge {
        signing_key: String,
        site_id: SiteId,
    }
    #[derive(Deserialize)]
    struct Started {
        copied: Option<String>,
    }
    let now = call.host.now_unix();
    if !nonce::is_ours(&call.host.keys, request.executor_id, now, &request.nonce) {
        let detail = "The nonce is older than a minute, not for this executor, or not one of ours.";
        return Err(Refusal::new(ErrorCode::NonceInvalid, detail));
    }
    let challenge: Challenge = call.run(&CHALLENGE, &json!({"executor_id": request.executor_id})).await?;
    let called = called(&uri, &headers, call.host.settings.public_url.as_deref())?;
    let message = token_message(&called, &request.nonce, request.executor_id, request.session_id);
    if !signature_fits(&challenge.signing_key, &message, &request.signature) {
        let detail = format!(
            "The signature is not by the key this executor enrolled with, or not for the control plane at {called}."
        );
        return Err(Refusal::new(ErrorCode::SignatureInvalid, detail));
    }
    let args = json!({
        "executor_id": request.executor_id, "session_id": request.session_id, "resumes": request.resumes,
        "nonce": request.nonce,
    });
    let Started { copied } = call.run(&SESSION, &args).await?;
    if let Some(why) = copied {
        return Err(Refusal::new(ErrorCode::SessionSuperseded, why));
    }
    let token =
        call.host.keys.sign_executor(request.executor_id, request.session_id, challenge.site_id, now)?;
    Json::of(&ExecutorToken { token, expires_in: ACCESS_TTL })
}

/// How executors call this control plane: by its public address, or as this machine. Another name in the request is no
/// proof that the executor meant us: whoever was called by it may have passed the request on.
fn called(uri: &Uri, headers: &HeaderMap, public_url: Option<&str>) -> Answer<String> {
    let address = public_url.or_else(|| browser::called_locally(headers, uri));
    address.map(audience).ok_or_else(|| {
        let detail = "This control plane's settings do not name its public URL, so it cannot tell whether this executor \
            was meant for it.";
        Refusal::new(ErrorCode::SignatureInvalid, detail)
    })
}

/// Ed25519 (RFC 8032), strict: one key and message have one signature.
fn signature_fits(key: &str, message: &str, signature: &str) -> bool {
    let key = base64_decode(key)
        .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
        .and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok());
    let signature = base64_decode(signature).and_then(|bytes| Signature::from_slice(&bytes).ok());
    key.zip(signature)
        .is_some_and(|(key, signature)| key.verify_strict(message.as_bytes(), &signature).is_ok())
}

/// Renew the session and get what is due: grants, losses, cancellations, settings. Held open while there is
/// nothing new, for `wait_ms` at most (and a third of the lease).
#[utoipa::path(post, path = "/v1/executor/lease", tag = "executor", request_body = LeaseRequest,
    responses((status = 200, body = LeaseResponse)),
    extensions(("x-rackhand-role" = json!("executor")), ("x-rackhand-errors" = json!(["lease-busy"]))))]
async fn lease(
    Executor(call): Executor,
    SmallBody(request): SmallBody<LeaseRequest, MAX_LEASE_BYTES>,
) -> Answer<Json> {
    #[derive(Serialize)]
    struct Asked<'a> {
        #[serde(flatten)]
        request: &'a LeaseRequest,
        claim: Claim<'a>,
    }
    #[derive(Deserialize)]
    struct Due {
        #[serde(flatten)]
        answer: LeaseResponse,
        #[serde(default)]
        wake_in_ms: Option<u64>,
    }
    let Some(site) = call.site_of_token else {
        return Err(Refusal::internal("an executor's call without its site"));
    };
    let mut subscription = call.host.notifier.subscribe(Topic::Site(site));
    let now = || (call.host.now_unix_ms)();
    let began = now();
    let mut first: Option<String> = None;
    let asked = Asked { request: &request, claim: request.claim() };
    let mut poll = None;
    loop {
        let turn = lease_turn(&call).await?;
        let Due { answer, wake_in_ms } = call.run(&LEASE, &asked).await?;
        drop(turn);
        let longest = u64::try_from(call.host.settings.max_wait.as_millis()).unwrap_or(u64::MAX);
        let mut hold = u64::from(request.wait_ms).min(longest).min(u64::from(answer.ttl_ms / 3));
        if !answer.cancel.is_empty() {
            hold = hold.min(u64::try_from(REPEATED_CANCEL_HOLD.as_millis()).unwrap_or(u64::MAX));
        }
        // What holds until the executor acts on it; only a change of it is news.
        let standing = serde_json::to_string(&(
            &answer.cancel,
            &answer.suspended,
            answer.hardware_paused,
            &answer.joining,
            &answer.site_key,
            &answer.site_public_key,
        ))?;
        let changed = first.get_or_insert_with(|| standing.clone()) != &standing;
        let left = began.saturating_add(hold).saturating_sub(now());
        if left == 0 || changed || !answer.grants.is_empty() || !answer.lost.is_empty() {
            return Json::of(&answer);
        }
        let wait = Duration::from_millis(left.min(wake_in_ms.unwrap_or(u64::MAX).max(SHORTEST_WAIT_MS)));
        if poll.is_none() {
            poll = turns(&call).map(|(turns, executor)| turns.poll(executor));
        }
        let news = subscription.wait(wait);
        let woken = match &mut poll {
            Some(poll) => match select(&mut poll.ended, news).await {
                Either::Left(_) => return Json::of(&answer),
                Either::Right((woken, _)) => woken,
            },
            None => news.await,
        };
        if woken == Wake::Closing {
            return Json::of(&answer);
        }
    }
}

fn turns(call: &Call) -> Option<(&Turns, ExecutorId)> {
    match (&call.host.process.turns, &call.scope) {
        (Some(turns), Scope::Executor { executor, .. }) => Some((turns, *executor)),
        _ => None,
    }
}

/// The right to run a lease statement.
async fn lease_turn(call: &Call) -> Answer<Option<Turn>> {
    let Some((turns, executor)) = turns(call) else { return Ok(None) };
    turns.lease(executor).await.map(Some).ok_or_else(|| {
        let detail = "A newer request of this executor for leases has come. Nothing was done for this one.";
        Refusal::new(ErrorCode::LeaseBusy, detail)
    })
}

/// The right to run any other statement.
async fn turn(call: &Call) -> Answer<Option<Turn>> {
    let Some((turns, executor)) = turns(call) else { return Ok(None) };
    turns.other(executor).await.map(Some).ok_or_else(|| {
        let detail =
            "Too many requests of this executor wait. Nothing was done for this one. Send it again later.";
        Refusal::new(ErrorCode::ReportBusy, detail)
    })
}

/// Report what happened. Items are accepted, kept as late, quarantined or refused one by one.
#[utoipa::path(post, path = "/v1/executor/report", tag = "executor", request_body = Report,
    responses((status = 200, body = ReportResponse)),
    extensions(("x-rackhand-role" = json!("executor")), ("x-rackhand-errors" = json!(["report-busy"]))))]
async fn report(Executor(call): Executor, RawBody(body): RawBody) -> Answer<Json> {
    let _turn = turn(&call).await?;
    let sorted = report::sort_out(&body)?;
    let mut results = if sorted.items.is_empty() {
        Vec::new()
    } else {
        call.run::<ReportResponse, _>(&REPORT, &json!({"items": sorted.items})).await?.results
    };
    results.extend(sorted.refused);
    results.sort_by_key(|result| result.index);
    Json::of(&ReportResponse { results })
}

/// Ask to present an unproven credential, or say how it went.
#[utoipa::path(post, path = "/v1/executor/credential-attempt", tag = "executor",
    request_body = CredentialAttempt, responses((status = 200, body = AttemptAnswer)),
    extensions(("x-rackhand-role" = json!("executor")),
        ("x-rackhand-errors" = json!(["not-found", "report-busy"]))))]
async fn credential_attempt(
    Executor(call): Executor,
    Body(attempt): Body<CredentialAttempt>,
) -> Answer<Json> {
    let _turn = turn(&call).await?;
    call.json(&ATTEMPT, &attempt).await
}

/// Set the site's public key (first executor), or share its private half with others.
#[utoipa::path(post, path = "/v1/executor/site-key", tag = "executor", request_body = SiteKey,
    responses((status = 204)),
    extensions(("x-rackhand-role" = json!("executor")),
        ("x-rackhand-errors" = json!(["site-key-conflict", "report-busy"]))))]
async fn site_key(Executor(call): Executor, Body(key): Body<SiteKey>) -> Answer<Response> {
    let _turn = turn(&call).await?;
    call.text(&SITE_KEY, &key).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;

    #[test]
    fn only_the_enrolled_key_over_the_exact_message_fits() {
        let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
        let key = SigningKey::from_bytes(&[5; 32]);
        let public = base64(key.verifying_key().as_bytes());
        let signature = base64(&key.sign(b"message").to_bytes());
        assert!(signature_fits(&public, "message", &signature));
        assert!(signature_fits(&public, "message", signature.trim_end_matches('=')));
        assert!(!signature_fits(&public, "other", &signature));
        let other = base64(SigningKey::from_bytes(&[6; 32]).verifying_key().as_bytes());
        assert!(!signature_fits(&other, "message", &signature));
        for broken in ["", "!!", "AAAA"] {
            assert!(!signature_fits(&public, "message", broken));
            assert!(!signature_fits(broken, "message", &signature));
        }
    }

    #[test]
    fn fingerprints_come_in_groups_of_four() {
        let fingerprint = fingerprint(&[1; 32], &[2; 32]);
        assert_eq!(fingerprint.split(' ').count(), 16);
        assert!(fingerprint.split(' ').all(|group| group.len() == 4));
    }
}
