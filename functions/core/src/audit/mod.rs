//! The audit trail for those who check it: public keys, signed checkpoints, and the records they are over.
//!
//! Nothing here has to be believed: a record is hashed as it stands, the tree over all of them has the root
//! that a checkpoint signs, and whoever kept an earlier checkpoint sees that nothing before it was changed.
//! ADR 21 describes records and trees.

pub mod note;
pub mod refusals;
pub mod seal;

use axum::response::{IntoResponse as _, Response};
use ed25519_dalek::VerifyingKey;
use garde::Validate;
use http::{HeaderName, HeaderValue, header};
use rackhand_schema::audit::{AuditKey, CheckpointPage, PublicKeys, Tree};
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;

use crate::{
    problem::{Answer, Refusal},
    request::{Anyone, FleetAdmin, Json, Params, Segment},
    routing::{OpenApiRouter, routes},
    statement,
};

statement!(KEYS, "audit", "keys");
statement!(CHECKPOINTS, "audit", "checkpoints");
statement!(RECORDS, "audit", "records");

/// Names the last record of a page of records.
const CURSOR: HeaderName = HeaderName::from_static("x-next-cursor");

pub fn routes() -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(keys)).routes(routes!(checkpoints)).routes(routes!(records))
}

/// What a tree of a deployment is called in its checkpoints and keys.
fn origin(log: &str, tree: Tree) -> String {
    format!("rackhand/{log}/{tree}")
}

/// The public keys that verify checkpoints and access tokens. Of those that the database says have signed checkpoints,
/// the ones that are known here: others may have written into it.
#[utoipa::path(get, path = "/v1/audit/keys", tag = "audit", responses((status = 200, body = PublicKeys)),
    extensions(("x-rackhand-role" = json!("anonymous"))))]
async fn keys(Anyone(call): Anyone) -> Answer<Json> {
    #[derive(Deserialize)]
    struct Used {
        log: String,
        keys: Vec<AuditKey>,
    }
    let Used { log, keys: mut checkpoints } = call.run(&KEYS, &json!({})).await?;
    let keys = &call.host.keys;
    let name = |tree, key: &VerifyingKey| note::verifier_key(&origin(&log, tree), key);
    let known =
        |vkey: &str| Tree::ALL.iter().any(|tree| keys.checkpoint_keys().any(|key| name(*tree, key) == vkey));
    checkpoints.retain(|key| known(&key.vkey));
    for tree in Tree::ALL {
        let vkey = name(tree, &keys.checkpoints().verifying_key());
        if !checkpoints.iter().any(|key| key.vkey == vkey) {
            checkpoints.push(AuditKey { vkey, since: None });
        }
    }
    Json::of(&PublicKeys { log, checkpoints, tokens: call.host.keys.public_keys() })
}

#[derive(Debug, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
struct CheckpointQuery {
    /// Those with a higher number. Absent: from the first one.
    #[garde(range(max = 1_000_000_000_000))]
    after: Option<u64>,
    /// 1–1000; 100 if absent.
    #[garde(range(min = 1, max = 1000))]
    limit: Option<u32>,
}

/// Signed heads of a tree, in order.
#[utoipa::path(get, path = "/v1/audit/{tree}/checkpoints", tag = "audit",
    params(("tree" = Tree, Path), CheckpointQuery), responses((status = 200, body = CheckpointPage)),
    extensions(("x-rackhand-role" = json!("fleet admin"))))]
async fn checkpoints(
    FleetAdmin(call): FleetAdmin,
    Segment(tree): Segment<Tree>,
    Params(query): Params<CheckpointQuery>,
) -> Answer<Json> {
    let args = json!({"tree": tree, "after": query.after.unwrap_or(0), "limit": query.limit.unwrap_or(100)});
    call.json(&CHECKPOINTS, &args).await
}

#[derive(Debug, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
struct RecordQuery {
    /// A cursor: records after it. Absent: from the first one.
    #[garde(length(bytes, max = 64))]
    after: Option<String>,
    /// 1–1000; 500 if absent.
    #[garde(range(min = 1, max = 1000))]
    limit: Option<u32>,
}

/// The records of a tree in its order, a line of canonical JSON (RFC 8785) each: the bytes that are hashed. The
/// header `x-next-cursor` is where to go on; it stays the same when there is nothing more. A page ends at `limit`, or
/// at about 1 MiB.
#[utoipa::path(get, path = "/v1/audit/{tree}/records", tag = "audit",
    params(("tree" = Tree, Path), RecordQuery),
    responses((status = 200, content_type = "application/jsonl", body = String)),
    extensions(("x-rackhand-role" = json!("fleet admin"))))]
async fn records(
    FleetAdmin(call): FleetAdmin,
    Segment(tree): Segment<Tree>,
    Params(query): Params<RecordQuery>,
) -> Answer<Response> {
    #[derive(Deserialize)]
    struct Found {
        records: Vec<String>,
        cursor: String,
    }
    let args = json!({"tree": tree, "after": query.after, "limit": query.limit.unwrap_or(500)});
    let found: Found = call.run(&RECORDS, &args).await?;
    let mut text = found.records.join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    let cursor =
        HeaderValue::from_str(&found.cursor).map_err(|_| Refusal::internal("a cursor for no header"))?;
    let kind = HeaderValue::from_static("application/jsonl");
    Ok(([(header::CONTENT_TYPE, kind), (CURSOR, cursor)], text).into_response())
}
