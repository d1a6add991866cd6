//! Credentials: sealed before they come here; only name, version and addresses are ever shown again.

use http::StatusCode;
use rackhand_schema::{
    Page,
    id::CredentialId,
    server::{Credential, NewCredential},
};
use serde_json::json;

use crate::{
    auth::base64_decode,
    executors::OfSite,
    page::{DEFAULT_LIMIT, plain_cursor},
    problem::{Answer, Refusal},
    request::{Body, Json, Operator, Params, Viewer},
    routing::{OpenApiRouter, routes},
    statement,
};

statement!(LIST, "credentials", "list");
statement!(PUT, "credentials", "put");

/// Bytes that a sealed box has beside its text: the sender's key and the tag.
const SEALED_BOX_OVERHEAD: usize = 48;

pub fn routes() -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(list, put))
}

/// Credentials by age, without their secret parts.
#[utoipa::path(get, path = "/v1/credentials", tag = "credentials", params(OfSite),
    responses((status = 200, body = Page<Credential>)), extensions(("x-rackhand-role" = json!("viewer"))))]
async fn list(Viewer(call): Viewer, Params(filter): Params<OfSite>) -> Answer<Json> {
    let cursor = plain_cursor::<CredentialId>(filter.cursor.as_deref())?;
    let limit = filter.limit.unwrap_or(DEFAULT_LIMIT);
    call.json(&LIST, &json!({"site": filter.site, "cursor": cursor, "limit": limit})).await
}

/// Store a sealed credential, or its next version.
#[utoipa::path(post, path = "/v1/credentials", tag = "credentials", request_body = NewCredential,
    responses((status = 201, body = Credential)),
    extensions(("x-rackhand-role" = json!("operator")), ("x-rackhand-errors" = json!(["credential-version"]))))]
async fn put(Operator(call): Operator, Body(credential): Body<NewCredential>) -> Answer<(StatusCode, Json)> {
    // Whoever forgets to seal sends JSON or a password; neither may get as far as the database.
    let Some(text_bytes) =
        base64_decode(&credential.sealed).and_then(|sealed| sealed.len().checked_sub(SEALED_BOX_OVERHEAD))
    else {
        return Err(Refusal::invalid("sealed", "is not base64 of a sealed box"));
    };
    // What may be sealed bounds what is stored in the clear.
    if let Some(targets) = &credential.sealed_for {
        let json = serde_json::to_vec(targets)
            .map_err(|error| Refusal::internal(format!("the list of a credential: {error}")))?;
        if json.len() > text_bytes {
            return Err(Refusal::invalid(
                "sealed_for",
                "is longer than the sealed text, which contains the same list",
            ));
        }
    }
    Ok((StatusCode::CREATED, call.json(&PUT, &credential).await?))
}
