//! The part of the list that follows from the OpenAPI document: what every operation refuses, whoever asks.
//! The body that is otherwise right is the one recorded for the operation.

use rackhand_functions::request::{MAX_ANONYMOUS_BODY_BYTES, MAX_BODY_BYTES, MAX_LEASE_BYTES};
use rackhand_schema::ErrorCode as Code;
use serde_json::json;

use super::{
    UNKNOWN,
    document::{Operation, operation_of},
    step::{Act, Body, Expect, Request, Step, any, database},
};

/// Lists in lists: a stack would not hold them.
const DEEP: usize = 100_000;

/// Operations that answer without the database.
pub const WITHOUT_DATABASE: [&str; 5] =
    ["GET /docs", "GET /errors/{code}", "GET /openapi.json", "GET /v1/version", "POST /v1/executor/nonce"];
/// The nonce of the example is too old by then, and that is seen before the database is asked.
const REFUSED_BEFORE: &str = "POST /v1/executor/token";

pub fn steps(operations: &[Operation], recorded: &[Step]) -> Vec<Step> {
    let mut steps = Vec::new();
    let examples: Vec<_> = operations.iter().map(|one| (one, example(operations, one, recorded))).collect();
    for (operation, example) in &examples {
        steps.extend(of_caller(operation, example));
        steps.extend(of_body(operation, example));
        steps.extend(of_address(operation, example));
    }
    for (what, code, sql) in [
        ("without a database", Code::DatabaseUnavailable, AWAY),
        ("over a fault of ours", Code::Internal, AT_FAULT),
    ] {
        steps.push(database(what, sql));
        let asks = |name: &str| name != REFUSED_BEFORE && !WITHOUT_DATABASE.contains(&name);
        let asking = examples.iter().filter(|(one, _)| asks(&one.name));
        steps.extend(asking.map(|(one, example)| like(one, example, what).refused(code)));
    }
    steps
}

/// Every statement begins with `enter`; now it says what a full or a broken database would.
const AWAY: &str =
    "create or replace function rackhand.enter(scope jsonb) returns void language plpgsql as $$
    begin raise exception using errcode = '53300', message = 'sorry, too many clients already'; end $$";
const AT_FAULT: &str =
    "create or replace function rackhand.enter(scope jsonb) returns void language plpgsql as $$
    begin raise exception using errcode = '42P01', message = 'a secret of ours'; end $$";

/// The first recorded request of an operation that succeeds.
fn example(operations: &[Operation], wanted: &Operation, recorded: &[Step]) -> Request {
    let found = recorded.iter().find_map(|step| {
        let Act::Request(request) = &step.act else { return None };
        let request = match &request.meanwhile {
            Some(other) if !is(operations, wanted, request) => match &other.act {
                Act::Request(other) => other,
                _ => return None,
            },
            _ => request,
        };
        let good =
            matches!(request.expect, Expect::Status(status) if status < 300) && request.method != "HEAD";
        (good && is(operations, wanted, request)).then(|| (**request).clone())
    });
    found.unwrap_or_else(|| panic!("no recorded step shows how {} succeeds", wanted.name))
}

fn is(operations: &[Operation], wanted: &Operation, request: &Request) -> bool {
    operation_of(operations, request.method, &request.path).is_some_and(|one| one.name == wanted.name)
}

/// Who may do everything that the operation's role may.
fn caller(operation: &Operation) -> Option<&'static str> {
    match operation.role.as_str() {
        "anonymous" => None,
        "executor" => Some("one"),
        "scheduler" => Some("tick"),
        _ => Some("ada"),
    }
}

/// The example's address and body, by nobody.
fn bare(operation: &Operation, example: &Request, what: &str) -> Step {
    let path = example.path.split('?').next().unwrap_or_default();
    any(operation.method, format!("{}: {what}", operation.name), path).body(example.body.clone())
}

/// The same by whom it takes.
fn like(operation: &Operation, example: &Request, what: &str) -> Step {
    let step = bare(operation, example, what);
    match caller(operation) {
        Some(who) => step.by(who),
        None => step,
    }
}

fn of_caller(operation: &Operation, example: &Request) -> Vec<Step> {
    let of = |what| bare(operation, example, what);
    let mut steps = Vec::new();
    if operation.role == "anonymous" {
        return steps;
    }
    steps.push(of("by nobody").refused(Code::NotSignedIn));
    steps.push(
        of("with a forged token").header("authorization", "Bearer ${ada}.x").refused(Code::NotSignedIn),
    );
    match operation.role.as_str() {
        "scheduler" => {}
        "executor" => {
            steps.push(of("by a person").by("ada").refused(Code::NotSignedIn));
            steps.push(of("by a revoked executor").by("revoked").refused(Code::ExecutorRevoked));
            steps.push(
                of("by a process that another followed").by("superseded").refused(Code::SessionSuperseded),
            );
        }
        role => {
            steps.push(of("by an executor").by("one").refused(Code::NotSignedIn));
            steps.push(of("after the session").by("ended").refused(Code::SessionEnded));
            if operation.method != "GET" {
                let cookie = of("by a foreign page").header("cookie", "__Host-rackhand_access=${ada}");
                steps.push(cookie.refused(Code::OriginRefused));
            }
            if !matches!(role, "any" | "viewer") {
                steps.push(of("by who may only look").by("vic").refused(Code::ForbiddenRole));
            }
        }
    }
    steps
}

fn of_body(operation: &Operation, example: &Request) -> Vec<Step> {
    let Some(schema) = &operation.body else { return Vec::new() };
    let sent =
        |what, kind, bytes: &[u8]| like(operation, example, what).body(Body::Raw(kind, bytes.to_vec()));
    const JSON: &str = "application/json";
    let most = match operation.path.as_str() {
        "/v1/executor/lease" => MAX_LEASE_BYTES,
        _ if operation.role == "anonymous" => MAX_ANONYMOUS_BODY_BYTES,
        _ => MAX_BODY_BYTES,
    };
    let depth = DEEP.min(most / 2 - 8);
    let deep = [b"{\"a\":".as_slice(), &vec![b'['; depth], &vec![b']'; depth], b"}"].concat();
    let mut steps = vec![
        sent("a body of nothing", JSON, b"").refused(Code::MalformedJson),
        sent("a body too deep for a stack", JSON, &deep).refused(Code::InvalidRequest),
        sent("a body that breaks off", JSON, b"{\"a\":").refused(Code::MalformedJson),
        sent("a body that is no text", JSON, b"\xff\xfe").refused(Code::MalformedJson),
        sent("a list for a body", JSON, b"[]").refused(Code::InvalidRequest),
        sent("text for a body", "text/plain", b"{}").refused(Code::UnsupportedMediaType),
        sent("a body too large", JSON, &vec![b' '; most + 1]).refused(Code::BodyTooLarge),
    ];
    if operation.needs_body {
        let none = like(operation, example, "no body").body(Body::None);
        steps.push(none.refused(Code::UnsupportedMediaType));
    }
    if schema["required"].as_array().is_some_and(|names| !names.is_empty()) || schema.get("allOf").is_some() {
        steps.push(sent("nothing of what it needs", JSON, b"{}").refused(Code::InvalidRequest));
    }
    if let (Some(false), Body::Json(body)) = (schema["additionalProperties"].as_bool(), &example.body) {
        let mut body = body.clone();
        body["surplus"] = json!(1);
        steps.push(like(operation, example, "more than it takes").json(body).refused(Code::InvalidRequest));
    }
    steps
}

/// Paths that take PATCH.
const PATCHED: [&str; 1] = ["/v1/users/{id}"];

fn of_address(operation: &Operation, example: &Request) -> Vec<Step> {
    let path = example.path.split('?').next().unwrap_or_default();
    let at = |what: &str, method, path: String| {
        let step = any(method, format!("{}: {what}", operation.name), path).body(example.body.clone());
        match caller(operation) {
            Some(who) => step.by(who),
            None => step,
        }
    };
    let filled = |id: &str| {
        let parts = operation.path.split('/').map(|part| if part.starts_with('{') { id } else { part });
        parts.collect::<Vec<_>>().join("/")
    };
    let mut steps = Vec::new();
    if operation.takes_id() {
        steps.push(at("an id that is none", operation.method, filled("x")).refused(Code::NotFound));
        steps.push(at("an unknown id", operation.method, filled(UNKNOWN)).refused(Code::NotFound));
    }
    for (name, value) in &operation.wrong_queries {
        let path = format!("{path}?{name}={value}");
        steps.push(at(&format!("{name} that does not fit"), "GET", path).refused(Code::InvalidRequest));
    }
    let other = if PATCHED.contains(&operation.path.as_str()) { "PUT" } else { "PATCH" };
    steps.push(at("a method it does not take", other, path.to_owned()).refused(Code::MethodNotAllowed));
    if operation.method == "GET" && example.events.is_none() {
        steps.push(at("only the headers", "HEAD", path.to_owned()).ok(200));
    }
    steps
}
