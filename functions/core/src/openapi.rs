//! The OpenAPI document: what the handlers declare, completed with what holds for all of them.
//!
//! A handler names its role (`x-rackhand-role`) and the codes that are its own (`x-rackhand-errors`). The
//! codes that follow from role, method, parameters and body are added here, and every code becomes part of
//! a problem answer of its status.

use std::collections::BTreeMap;

use rackhand_schema::{ErrorCode, Problem, audit::Tree, error::FieldProblem};
use serde_json::{Value, json};
use utoipa::{
    PartialSchema as _, ToSchema as _,
    openapi::{
        ComponentsBuilder, Content, ContentBuilder, Info, OpenApi, OpenApiBuilder, Ref, RefOr,
        ResponseBuilder, Schema, SecurityRequirement,
        extensions::ExtensionsBuilder,
        path::{Operation, Parameter, ParameterIn, PathItem},
        security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme},
        tag::TagBuilder,
    },
};

use crate::routing::OpenApiRouter;

const TAGS: [(&str, &str); 12] = [
    ("auth", "Sign in and out, sessions."),
    ("users", "People and their roles."),
    ("sites", "Private networks and their settings."),
    ("executors", "The services inside the sites."),
    ("credentials", "BMC credentials, sealed to a site's key."),
    ("servers", "Physical machines."),
    ("jobs", "Intents and their plans."),
    ("runs", "One target's execution of a job."),
    ("events", "What happened."),
    ("audit", "The sealed trail of events, for those who check it."),
    ("executor", "What executors call."),
    ("service", "About this service."),
];

/// The whole document.
pub fn openapi() -> OpenApi {
    let mut document = crate::operations(OpenApiRouter::with_openapi(frame())).into_openapi();
    complete(&mut document);
    document
}

/// The frame that the handlers' operations are put into.
fn frame() -> OpenApi {
    let components = ComponentsBuilder::new()
        .schema(Problem::name(), Problem::schema())
        .schema(FieldProblem::name(), FieldProblem::schema())
        .schema(Tree::name(), Tree::schema())
        .security_scheme("access_token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)))
        .security_scheme(
            "browser",
            SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(crate::auth::browser::ACCESS_COOKIE))),
        )
        .security_scheme("executor_token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)))
        .security_scheme("tick_token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    let tags = TAGS.iter().map(|(name, what)| TagBuilder::new().name(*name).description(Some(*what)).build());
    let mut info = Info::new("Rackhand", env!("CARGO_PKG_VERSION"));
    info.description =
        Some("The control plane of Rackhand: bare-metal fleets that the cloud cannot reach.".into());
    OpenApiBuilder::new().info(info).components(Some(components.build())).tags(Some(tags)).build()
}

/// Completes every operation.
fn complete(document: &mut OpenApi) {
    for (path, item) in &mut document.paths.paths {
        let takes_id = path.contains('{');
        for (changes, operation) in operations(item) {
            complete_operation(operation, takes_id, changes);
        }
    }
}

/// The whole document as JSON, the same in each process: utoipa keeps extensions in no order.
///
/// # Errors
/// Never seen; when the document is not JSON.
pub fn document() -> Result<Value, serde_json::Error> {
    let mut document = serde_json::to_value(openapi())?;
    order_extensions(&mut document);
    Ok(document)
}

/// Puts the extensions of every object behind its other members, by name.
fn order_extensions(value: &mut Value) {
    match value {
        Value::Object(members) => {
            let (mut extensions, plain): (Vec<_>, Vec<_>) =
                std::mem::take(members).into_iter().partition(|(name, _)| name.starts_with("x-"));
            extensions.sort_by(|(a, _), (b, _)| a.cmp(b));
            members.extend(plain.into_iter().chain(extensions));
            members.values_mut().for_each(order_extensions);
        }
        Value::Array(items) => items.iter_mut().for_each(order_extensions),
        _ => {}
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (bool, &mut Operation)> {
    let reads = item.get.as_mut().map(|operation| (false, operation));
    let changes = [item.post.as_mut(), item.put.as_mut(), item.patch.as_mut(), item.delete.as_mut()];
    reads.into_iter().chain(changes.into_iter().flatten().map(|operation| (true, operation)))
}

fn complete_operation(operation: &mut Operation, takes_id: bool, changes: bool) {
    let own = |name: &str| operation.extensions.as_ref().and_then(|all| all.get(name)).cloned();
    let role = own("x-rackhand-role").and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default();
    let mut codes: Vec<ErrorCode> = own("x-rackhand-errors")
        .as_ref()
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|code| code.as_str().and_then(ErrorCode::parse))
        .collect();
    codes.extend([ErrorCode::Internal, ErrorCode::DatabaseUnavailable, ErrorCode::TooManyRequests]);
    if let Some(body) = &mut operation.request_body {
        if let RefOr::T(body) = body {
            body.content.values_mut().for_each(not_null);
        }
        codes.extend([
            ErrorCode::MalformedJson,
            ErrorCode::InvalidRequest,
            ErrorCode::RequestTimeout,
            ErrorCode::BodyTooLarge,
            ErrorCode::ServerBusy,
            ErrorCode::UnsupportedMediaType,
        ]);
    }
    if operation.parameters.as_ref().is_some_and(|all| all.iter().any(is_query)) {
        codes.push(ErrorCode::InvalidRequest);
    }
    if takes_id {
        codes.push(ErrorCode::NotFound);
    }
    let security = match role.as_str() {
        "anonymous" => Vec::new(),
        "scheduler" => {
            codes.push(ErrorCode::NotSignedIn);
            vec![SecurityRequirement::new("tick_token", Vec::<String>::new())]
        }
        "executor" => {
            codes.extend([ErrorCode::NotSignedIn, ErrorCode::ExecutorRevoked, ErrorCode::SessionSuperseded]);
            vec![SecurityRequirement::new("executor_token", Vec::<String>::new())]
        }
        _ => {
            codes.extend([ErrorCode::NotSignedIn, ErrorCode::SessionEnded]);
            if changes {
                codes.push(ErrorCode::OriginRefused);
            }
            if !matches!(role.as_str(), "any" | "viewer") {
                codes.extend([ErrorCode::ForbiddenRole, ErrorCode::NotFound]);
            }
            ["access_token", "browser"]
                .map(|name| SecurityRequirement::new(name, Vec::<String>::new()))
                .into()
        }
    };
    // Generated clients need unique names: the handler's, after its resource.
    if let (Some(tag), Some(name)) =
        (operation.tags.as_ref().and_then(|tags| tags.first()), &operation.operation_id)
    {
        operation.operation_id = Some(format!("{tag}_{name}"));
    }
    codes.sort_unstable();
    codes.dedup();
    operation.security = (!security.is_empty()).then_some(security);
    let mut by_status: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for code in &codes {
        by_status.entry(code.status()).or_default().push(code.as_str());
    }
    for (status, codes) in by_status {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(Problem::name()))).build();
        let response = ResponseBuilder::new()
            .description(codes.iter().map(|code| format!("`{code}`")).collect::<Vec<_>>().join(", "))
            .content("application/problem+json", content)
            .build();
        operation.responses.responses.insert(status.to_string(), response.into());
    }
    let names: Vec<_> = codes.iter().map(|code| code.as_str()).collect();
    operation.extensions = Some(
        ExtensionsBuilder::new()
            .add("x-rackhand-role", json!(role))
            .add("x-rackhand-errors", json!(names))
            .build(),
    );
}

/// A body that may be absent is described as one that may be null, which none is.
fn not_null(content: &mut RefOr<Content>) {
    if let RefOr::T(content) = content
        && let Some(schema) = &mut content.schema
        && let RefOr::T(Schema::OneOf(one_of)) = schema
        && let [known @ RefOr::Ref(_), RefOr::T(_)] | [RefOr::T(_), known @ RefOr::Ref(_)] =
            one_of.items.as_slice()
    {
        *schema = known.clone();
    }
}

fn is_query(parameter: &RefOr<Parameter>) -> bool {
    matches!(parameter, RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query)
}

#[cfg(test)]
mod tests;
