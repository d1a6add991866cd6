//! Servers: bulk registration, the fleet list with filters and counts, detail, removal.

use garde::Validate;
use http::StatusCode;
use rackhand_schema::{
    id::{ServerId, SiteId},
    server::{
        BulkUpsert, BulkUpsertResult, Health, PowerState, RefusedItem, Server, ServerList, ServerUpsert,
        TriedAgain,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::IntoParams;

use crate::{
    page::{DEFAULT_LIMIT, decode_cursor},
    problem::Answer,
    request::{Body, Json, Operator, Params, Segment, Viewer},
    routing::{OpenApiRouter, routes},
    statement,
};

statement!(LIST, "servers", "list");
statement!(READ, "servers", "read");
statement!(UPSERT, "servers", "upsert");
statement!(DELETE, "servers", "delete");
statement!(TRY_AGAIN, "servers", "try_again");

pub fn routes() -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(bulk))
        .routes(routes!(list))
        .routes(routes!(read, remove))
        .routes(routes!(try_again))
}

#[derive(Debug, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
struct Filter {
    #[garde(skip)]
    site: Option<SiteId>,
    /// Part of a name, service tag or model, in any case.
    #[garde(length(chars, max = 120))]
    q: Option<String>,
    #[garde(skip)]
    #[param(inline)]
    power: Option<PowerState>,
    #[garde(skip)]
    #[param(inline)]
    health: Option<Health>,
    /// Of the BMC, e.g. `idrac9`.
    #[garde(length(chars, max = 64))]
    generation: Option<String>,
    /// The model in full or, where there is none of that name, a part of it; in any case.
    #[garde(length(chars, max = 120))]
    model: Option<String>,
    #[garde(length(chars, max = 64))]
    tag: Option<String>,
    /// `next` of the page before.
    #[garde(length(bytes, max = 2000))]
    cursor: Option<String>,
    /// 1–500; 50 if absent.
    #[garde(range(min = 1, max = 500))]
    limit: Option<u32>,
}

/// Servers by name, with how many of all that fit the filter have each power state, health and generation.
#[utoipa::path(get, path = "/v1/servers", tag = "servers", params(Filter),
    responses((status = 200, body = ServerList)), extensions(("x-rackhand-role" = json!("viewer"))))]
async fn list(Viewer(call): Viewer, Params(filter): Params<Filter>) -> Answer<Json> {
    let cursor = decode_cursor(filter.cursor.as_deref())?;
    // The database cannot hold a NUL, so nothing there contains one.
    let text = |text: Option<String>| text.map(|text| text.replace('\0', "\u{fffd}"));
    let in_any_case = |part| text(part).map(|part| part.to_lowercase());
    let args = json!({
        "site": filter.site, "q": in_any_case(filter.q), "power": filter.power,
        "health": filter.health, "generation": text(filter.generation), "model": in_any_case(filter.model),
        "tag": text(filter.tag), "cursor": cursor, "limit": filter.limit.unwrap_or(DEFAULT_LIMIT),
    });
    call.json(&LIST, &args).await
}

/// A server with its BMC endpoint and firmware.
#[utoipa::path(get, path = "/v1/servers/{id}", tag = "servers", params(("id" = ServerId, Path)),
    responses((status = 200, body = Server)), extensions(("x-rackhand-role" = json!("viewer"))))]
async fn read(Viewer(call): Viewer, Segment(id): Segment<ServerId>) -> Answer<Json> {
    call.json(&READ, &json!({"id": id})).await
}

/// Remove a server that no job works on; its history stays.
#[utoipa::path(delete, path = "/v1/servers/{id}", tag = "servers", params(("id" = ServerId, Path)),
    responses((status = 204)),
    extensions(("x-rackhand-role" = json!("operator")), ("x-rackhand-errors" = json!(["job-state"]))))]
async fn remove(Operator(call): Operator, Segment(id): Segment<ServerId>) -> Answer<StatusCode> {
    call.text(&DELETE, &json!({"id": id})).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Let executors present the credential to the BMC of this server again, after refusals or attempts without an answer
/// have barred it. The attempts of this BMC do not count any more, nor do those of BMCs that no longer use the
/// credential. Refused, and nothing is changed, if this BMC has refused nothing and two refusals of other BMCs that use
/// the credential keep it suspended.
#[utoipa::path(post, path = "/v1/servers/{id}/credential/try-again", tag = "servers",
    params(("id" = ServerId, Path)), responses((status = 200, body = TriedAgain)),
    extensions(("x-rackhand-role" = json!("operator")), ("x-rackhand-errors" = json!(["invalid-request"]))))]
async fn try_again(Operator(call): Operator, Segment(id): Segment<ServerId>) -> Answer<Json> {
    call.json(&TRY_AGAIN, &json!({"server_id": id})).await
}

/// Register servers, or change their registration: what is not named stays, null or an empty list removes it. Each
/// stands alone: a bad one is refused and named. So is one whose name is taken by a server with another BMC address,
/// unless `replace` is set.
#[utoipa::path(post, path = "/v1/servers/bulk", tag = "servers", request_body = BulkUpsert,
    responses((status = 200, body = BulkUpsertResult)), extensions(("x-rackhand-role" = json!("operator"))))]
async fn bulk(Operator(call): Operator, Body(bulk): Body<BulkUpsert>) -> Answer<Json> {
    let (good, refused) = sort_out(bulk.servers);
    let args = json!({"site_id": bulk.site_id, "servers": good, "replace": bulk.replace});
    let mut result: BulkUpsertResult = call.run(&UPSERT, &args).await?;
    result.refused.extend(refused);
    result.refused.sort_by_key(|item| item.index);
    Json::of(&result)
}

/// What `rackhand.servers_upsert` takes of a server.
#[derive(Serialize)]
struct Item<'a> {
    index: usize,
    #[serde(flatten)]
    server: &'a ServerUpsert,
}

/// The items that can be stored, with their position in the request, and the refusals of the others. Of several items
/// with one name, the same addresses and the same TLS key the last one stands; where only one of them names an IPMI address
/// or a key, or removes it, none does, for nobody can tell what is meant.
fn sort_out(items: Vec<Value>) -> (Vec<Value>, Vec<RefusedItem>) {
    let mut named = std::collections::BTreeMap::<String, Vec<(usize, ServerUpsert)>>::new();
    let mut refused = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        match ServerUpsert::from_item(item) {
            Ok(server) => named.entry(server.name.clone()).or_default().push((index, server)),
            Err(detail) => refused.push(RefusedItem { index, detail }),
        }
    }
    let mut good = Vec::new();
    for (name, mut servers) in named {
        let mut addresses: Vec<_> =
            servers.iter().map(|(_, server)| (&server.bmc_url, &server.ipmi, &server.spki_sha256)).collect();
        addresses.dedup();
        let detail = if addresses.len() == 1 {
            good.extend(servers.pop().map(|(index, server)| json!(Item { index, server: &server })));
            format!("the server `{name}` is named again further down: that entry stands")
        } else {
            format!(
                "the server `{name}` is named several times, and not always with the same addresses and TLS key: write one entry for it, with all fields"
            )
        };
        refused.extend(servers.into_iter().map(|(index, _)| RefusedItem { index, detail: detail.clone() }));
    }
    refused.sort_by_key(|refused| refused.index);
    (good, refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_removed_is_told_apart_from_what_is_not_named() {
        let named = json!({"name": "a", "bmc_url": "https://10.0.0.1", "ipmi": null, "credential_id": null,
            "spki_sha256": null, "tags": null});
        let (good, _) = sort_out(vec![named]);
        let stored = json!({"index": 0, "name": "a", "bmc_url": "https://10.0.0.1", "ipmi": null,
            "credential_id": null, "spki_sha256": null, "tags": []});
        assert_eq!(good, [stored]);
        let (good, _) = sort_out(vec![json!({"name": "a", "bmc_url": "https://10.0.0.1"})]);
        assert_eq!(good, [json!({"index": 0, "name": "a", "bmc_url": "https://10.0.0.1"})]);
    }

    #[test]
    fn one_bad_server_does_not_block_its_neighbours() {
        let (good, refused) = sort_out(vec![
            json!({"name": "a", "bmc_url": "https://10.0.0.1"}),
            json!({"name": "b", "bmc_url": "http://10.0.0.2"}),
            json!("not even an object"),
            json!({"name": "c\u{0}", "bmc_url": "https://10.0.0.3"}),
            json!({"name": "d", "bmc_url": "https://10.0.0.4", "tags": ["x"]}),
            json!({"name": "a", "bmc_url": "https://10.0.0.5"}),
            json!(["e", "https://10.0.0.6", null, null, []]),
            json!({"name": "f", "bmc_url": "https://10.0.0.7", "ipmi": "10.0.0.7:6230"}),
            json!({"name": "g", "bmc_url": "ipmi://10.0.0.8"}),
            json!({"name": "h", "bmc_url": "https://10.0.0.9", "ipmi": "ipmi://10.0.0.9"}),
            json!({"name": "i", "bmc_url": "ipmi://10.0.0.10", "ipmi": "10.0.0.10"}),
            json!({"name": "d", "bmc_url": "https://10.0.0.4", "tags": ["y"]}),
        ]);
        let names: Vec<_> =
            good.iter().map(|item| (item["index"].as_u64().unwrap(), &item["bmc_url"])).collect();
        assert_eq!(
            names,
            [
                (11, &json!("https://10.0.0.4")),
                (7, &json!("https://10.0.0.7")),
                (8, &json!("ipmi://10.0.0.8"))
            ]
        );
        let ipmi: Vec<_> = good.iter().map(|item| item.get("ipmi")).collect();
        assert_eq!(ipmi, [None, Some(&json!("10.0.0.7:6230")), None], "what is not named is not passed on");
        assert_eq!(refused.iter().map(|item| item.index).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 9, 10]);
        assert_eq!(
            refused[0].detail,
            "the server `a` is named several times, and not always with the same addresses and TLS key: write one entry for it, with all fields"
        );
        assert_eq!(refused[4].detail, "the server `d` is named again further down: that entry stands");
    }

    #[test]
    fn entries_that_differ_in_an_address_or_the_key_are_all_refused() {
        let named = |ipmi: Value| json!({"name": "a", "bmc_url": "https://10.0.0.1", "ipmi": ipmi});
        let unnamed = || json!({"name": "a", "bmc_url": "https://10.0.0.1"});
        let one = || named(json!("10.0.0.2"));
        let with_key =
            |key: &str| json!({"name": "a", "bmc_url": "https://10.0.0.1", "spki_sha256": key.repeat(64)});
        for (items, stored) in [
            (vec![one(), one()], 1),
            (vec![named(Value::Null), named(Value::Null)], 1),
            (vec![unnamed(), unnamed()], 1),
            (vec![one(), unnamed()], 0),
            (vec![unnamed(), one()], 0),
            (vec![named(Value::Null), unnamed()], 0),
            (vec![one(), named(Value::Null)], 0),
            (vec![one(), unnamed(), one()], 0),
            (vec![one(), named(json!("10.0.0.3")), one()], 0),
            (vec![with_key("1"), with_key("1")], 1),
            (vec![with_key("1"), with_key("2")], 0),
            (vec![with_key("1"), unnamed()], 0),
        ] {
            let count = items.len();
            let (good, refused) = sort_out(items);
            assert_eq!((good.len(), refused.len()), (stored, count - stored), "{refused:?}");
        }
    }
}
