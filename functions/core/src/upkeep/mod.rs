//! What no request does, called by the host about once a minute: [`run`] from a timer or cron trigger, or
//! `POST /v1/tick` where the host has neither.
//!
//! Leases of dead sessions end, runs are admitted, what has expired is deleted, and the heads of all event streams
//! that grew are sealed: a Merkle root over them, signed with the control plane's key and chained to the one before.

mod merkle;

use std::sync::Arc;

use http::HeaderMap;
use rackhand_schema::{ErrorCode, id::TraceId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use subtle::ConstantTimeEq as _;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    host::{Host, Scope},
    problem::{Answer, Refusal},
    request::{Anyone, Call, Json, bearer},
    statement,
};

statement!(RUN, "upkeep", "run");
statement!(DUE, "upkeep", "due");
statement!(STORE, "upkeep", "store");

/// Events under one checkpoint, at most.
const EVENTS: u32 = 10_000;
/// Checkpoints in one call, at most; the next call goes on.
const CHECKPOINTS: u32 = 20;

pub fn routes() -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(tick))
}

/// What was done, in numbers.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Upkeep {
    /// Leases of dead sessions ended.
    #[serde(default)]
    pub expired: u32,
    /// Runs that got their slots.
    #[serde(default)]
    pub admitted: u32,
    /// Runs with open effects that nobody would have been offered.
    #[serde(default)]
    pub requeued: u32,
    /// Expired rows deleted.
    #[serde(default)]
    pub pruned: u32,
    /// Checkpoints signed.
    #[serde(default)]
    pub sealed: u32,
    /// Another call was at it.
    #[serde(default)]
    pub busy: bool,
}

/// Scheduled work, for hosts without a timer of their own. Takes the tick token.
#[utoipa::path(post, path = "/v1/tick", tag = "service", responses((status = 200, body = Upkeep)),
    extensions(("x-rackhand-role" = json!("scheduler"))))]
async fn tick(Anyone(call): Anyone, headers: HeaderMap) -> Answer<Json> {
    let fits = match (&call.host.settings.tick_token, bearer(&headers)) {
        (Some(token), Some(given)) => bool::from(token.as_bytes().ct_eq(given.as_bytes())),
        _ => false,
    };
    if !fits {
        return Err(Refusal::new(ErrorCode::NotSignedIn, "This needs the tick token."));
    }
    Json::of(&work(&call).await?)
}

/// One round of upkeep.
///
/// # Errors
/// The database does not answer, or a statement does not work; the next round does what this one did not.
pub async fn run(host: Arc<Host>) -> Result<Upkeep, String> {
    let trace = TraceId::from_uuid(Uuid::from_bytes(host.random().map_err(|error| error.to_string())?));
    let call = Call { host, scope: Scope::Anonymous { trace, address: String::new() }, site_of_token: None };
    work(&call).await.map_err(|refusal| refusal.cause.unwrap_or(refusal.detail))
}

async fn work(call: &Call) -> Answer<Upkeep> {
    let mut done: Upkeep = call.run(&RUN, &json!({})).await?;
    while done.sealed < CHECKPOINTS && seal(call).await? {
        done.sealed += 1;
    }
    Ok(done)
}

#[derive(Deserialize)]
struct Due {
    number: u64,
    at: String,
    cursor: Option<String>,
    previous: String,
    /// Stream and head, by stream.
    streams: Vec<(Uuid, String)>,
}

/// Signs the next checkpoint; false when there was nothing, or somebody else was faster.
async fn seal(call: &Call) -> Answer<bool> {
    let due: Due = call.run(&DUE, &json!({"limit": EVENTS})).await?;
    let Some(cursor) = due.cursor else { return Ok(false) };
    let leaves = due.streams.iter().map(|(stream, head)| {
        let head = hex::decode(head).map_err(|_| Refusal::internal("a head that is not hex"))?;
        Ok([stream.as_bytes().as_slice(), &head].concat())
    });
    let root = hex::encode(merkle::root(&leaves.collect::<Answer<Vec<_>>>()?));
    let keys = &call.host.keys;
    let text = checkpoint_text(due.number, &due.at, &cursor, due.streams.len(), &root, &due.previous);
    let stored: bool = call
        .run(
            &STORE,
            &json!({"number": due.number, "at": due.at, "cursor": cursor, "streams": due.streams.len(),
                "root": root, "previous": due.previous, "kid": keys.kid(),
                "signature": hex::encode(keys.sign_bytes(text.as_bytes()))}),
        )
        .await?;
    Ok(stored)
}

/// What the signature of a checkpoint is over: a line for each field.
pub fn checkpoint_text(
    number: u64,
    at: &str,
    cursor: &str,
    streams: usize,
    root: &str,
    previous: &str,
) -> String {
    format!("rackhand checkpoint 1\n{number}\n{at}\n{cursor}\n{streams}\n{root}\n{previous}\n")
}
