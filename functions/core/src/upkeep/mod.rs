//! What no request does, called by the host about once a minute: [`run`] from a timer or cron trigger, or
//! `POST /v1/tick` where the host has neither.
//!
//! Leases of dead sessions end, runs are admitted, what has expired is deleted, what was refused becomes
//! events, and all events are sealed (`audit/seal.rs`). Partitions for the months to come are made, and old
//! ones dropped.

use std::sync::Arc;

use http::HeaderMap;
use rackhand_schema::{audit::Tree, id::TraceId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use subtle::ConstantTimeEq as _;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    audit::{refusals, seal},
    host::{Host, Scope},
    problem::{Answer, Refusal},
    request::{Anyone, Call, Json, bearer, not_signed_in},
    routing::{OpenApiRouter, routes},
    statement,
};

statement!(RUN, "upkeep", "run");
statement!(SITE, "upkeep", "site");
statement!(BEGIN, "upkeep", "begin");
statement!(PARTITIONS, "upkeep", "partitions");

/// Checkpoints of a tree in one call, at most; the next call goes on.
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
    /// Refusals of minutes that are over, told as events.
    #[serde(default)]
    pub refusals: u32,
    /// Partitions of events made for the time to come.
    #[serde(default)]
    pub made: u32,
    /// Months of lines dropped.
    #[serde(default)]
    pub dropped: u32,
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
        return Err(not_signed_in(&headers, "This needs the tick token."));
    }
    Json::of(&work(&call).await?)
}

/// One round of upkeep.
///
/// # Errors
/// The database does not answer, or a statement does not work; the next round does what this one did not.
pub async fn run(host: Arc<Host>) -> Result<Upkeep, String> {
    work(&own_call(host)?).await.map_err(explain)
}

/// For a process that begins: after a restore into another cluster, events go on in a new era.
///
/// # Errors
/// The database does not answer; the first round of upkeep does the same.
pub async fn begin(host: Arc<Host>) -> Result<(), String> {
    own_call(host)?.text(&BEGIN, &json!({})).await.map_err(explain)?;
    Ok(())
}

fn own_call(host: Arc<Host>) -> Result<Call, String> {
    let trace = TraceId::from_uuid(Uuid::from_bytes(host.random().map_err(|error| error.to_string())?));
    Ok(Call { host, scope: Scope::Anonymous { trace, address: String::new() }, site_of_token: None })
}

fn explain(refusal: Refusal) -> String {
    refusal.cause.unwrap_or(refusal.detail)
}

async fn work(call: &Call) -> Answer<Upkeep> {
    refusals::flush(&call.host).await;
    let Round { mut done, sites } = call.run(&RUN, &json!({})).await?;
    // A site that does not work or a tree that cannot be sealed holds up none of the others, nor the partitions.
    let mut trouble = None;
    for site in sites {
        match call.run(&SITE, &json!({"site_id": site})).await {
            Ok(Site { expired, admitted }) => {
                done.expired += expired;
                done.admitted += admitted;
            }
            Err(refusal) => {
                trouble.get_or_insert(refusal);
            }
        }
    }
    let mut verified = None;
    for tree in Tree::ALL {
        for _ in 0..CHECKPOINTS {
            let sealed = seal::next(call, tree).await;
            if let (Ok(sealed), Tree::Lines) = (&sealed, tree) {
                verified = Some(sealed.verified);
            }
            match sealed {
                Ok(sealed) if sealed.made => done.sealed += 1,
                Ok(_) => break,
                Err(refusal) => {
                    trouble.get_or_insert(refusal);
                    break;
                }
            }
        }
    }
    let Partitions { made, dropped } = call.run(&PARTITIONS, &json!({"verified": verified})).await?;
    trouble.map_or(Ok(Upkeep { made, dropped, ..done }), Err)
}

#[derive(Deserialize)]
struct Round {
    #[serde(flatten)]
    done: Upkeep,
    /// Those that there is something to do for.
    #[serde(default)]
    sites: Vec<Uuid>,
}

#[derive(Deserialize)]
struct Site {
    expired: u32,
    admitted: u32,
}

#[derive(Deserialize)]
struct Partitions {
    made: u32,
    dropped: u32,
}
