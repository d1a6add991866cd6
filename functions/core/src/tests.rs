//! The Router over a scripted database: what every answer has in common, and how long polls end.

use std::{
    cell::Cell,
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{body::Body, response::Response};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture};
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::{
    auth::{browser::ACCESS_COOKIE, token::SigningKeys},
    bodies::{Bodies, Rooms},
    host::{
        Database, DatabaseError, Host, Notifier, Process, Scope, Settings, Statement, Subscription, Topic,
        Wake,
    },
    request::{MAX_ANONYMOUS_BODY_BYTES, MAX_BODY_BYTES, MAX_LEASE_BYTES, largest_body, sender},
};

const ID: &str = "01920000-0000-7000-8000-000000000001";
const TICK_TOKEN: &str = "a token for ticks";
const START_MS: u64 = 1_800_000_000_000;

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(START_MS) };
}

type Script = Arc<Mutex<VecDeque<Result<Value, DatabaseError>>>>;

/// Answers from a script and notes what was asked.
#[derive(Clone, Default)]
struct Scripted {
    answers: Script,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    /// What was told of refusals, which any request may do.
    refused: Arc<Mutex<Vec<Value>>>,
    wakes: Arc<Mutex<VecDeque<Wake>>>,
}

impl Database for Scripted {
    fn run<'a>(
        &'a self,
        scope: &'a Scope,
        statement: &'static Statement,
        args: String,
    ) -> BoxFuture<'a, Result<String, DatabaseError>> {
        Box::pin(async move {
            let mut args: Value = serde_json::from_str(&args).unwrap();
            if statement.name == "audit/refusals_add" {
                self.refused.lock().unwrap().extend(args["items"].as_array().unwrap().clone());
                return Ok("{}".to_owned());
            }
            args["scope"] = serde_json::to_value(scope).unwrap();
            self.asked.lock().unwrap().push((statement.name.to_owned(), args));
            let answer = self.answers.lock().unwrap().pop_front();
            answer.unwrap_or_else(|| Err(DatabaseError::Fault("secret cause".into()))).map(|v| v.to_string())
        })
    }
}

/// Wakes from a script; when it is empty, time passes.
impl Notifier for Scripted {
    fn subscribe(&self, _: Topic) -> Box<dyn Subscription> {
        Box::new(self.clone())
    }
}

impl Subscription for Scripted {
    fn wait(&mut self, at_most: Duration) -> BoxFuture<'_, Wake> {
        Box::pin(async move {
            let wake = self.wakes.lock().unwrap().pop_front();
            wake.unwrap_or_else(|| {
                NOW.set(NOW.get() + u64::try_from(at_most.as_millis()).unwrap());
                Wake::TimedOut
            })
        })
    }
}

struct Service {
    scripted: Scripted,
    keys: SigningKeys,
    process: Arc<Process>,
}

impl Service {
    fn new(answers: impl IntoIterator<Item = Result<Value, DatabaseError>>) -> Self {
        NOW.set(START_MS);
        let scripted =
            Scripted { answers: Arc::new(Mutex::new(answers.into_iter().collect())), ..Default::default() };
        Self { scripted, keys: SigningKeys::from_seed(&[1; 32]), process: Arc::default() }
    }

    fn user(&self) -> String {
        self.keys.sign_user(ID.parse().unwrap(), ID.parse().unwrap(), START_MS / 1000).unwrap()
    }

    fn executor(&self) -> String {
        let id = || ID.parse().unwrap();
        self.keys.sign_executor(id(), ID.parse().unwrap(), ID.parse().unwrap(), START_MS / 1000).unwrap()
    }

    async fn send(&self, mut request: Request<Body>) -> Response {
        let host = Host {
            database: Box::new(self.scripted.clone()),
            notifier: Box::new(self.scripted.clone()),
            work: Box::new(crate::host::InPlace),
            now_unix_ms: || NOW.get(),
            entropy: |bytes| {
                bytes.fill(9);
                Ok(())
            },
            settings: Settings {
                version: "test",
                public_url: None,
                max_wait: Duration::from_secs(20),
                tick_token: Some(TICK_TOKEN.to_owned()),
            },
            keys: self.keys.clone(),
            process: Arc::clone(&self.process),
        };
        request.extensions_mut().insert(Arc::new(host));
        crate::router().oneshot(request).await.unwrap()
    }

    async fn call(&self, method: &str, path: &str, token: Option<&str>, body: &[u8]) -> (StatusCode, Value) {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let response = self.send(request.body(Body::from(body.to_vec())).unwrap()).await;
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    fn asked(&self) -> Vec<(String, Value)> {
        self.scripted.asked.lock().unwrap().clone()
    }
}

/// Method, path with ids filled in, role, whether it takes a body, and whether it needs it.
fn operations() -> Vec<(String, String, String, Option<bool>)> {
    let document = crate::document().unwrap();
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let filled = path
            .replace("{grant_id}", ID)
            .replace("{id}", ID)
            .replace("{code}", "internal")
            .replace("{tree}", "audit");
        for (method, operation) in methods.as_object().unwrap() {
            let role = operation["x-rackhand-role"].as_str().unwrap().to_owned();
            let body = operation.get("requestBody").map(|body| body["required"] == true);
            found.push((method.to_uppercase(), filled.clone(), role, body));
        }
    }
    found
}

#[tokio::test]
async fn scheduled_work_takes_the_tick_token_alone() {
    let nothing = || Ok(json!({"log": ID, "newest": 0, "head": null, "cursor": null, "leaves": []}));
    let partitions = Ok(json!({"made": 1, "dropped": 0}));
    let answers = [Ok(json!({"expired": 1})), nothing(), nothing(), partitions];
    for token in [None, Some("wrong"), Some("")] {
        let service = Service::new([]);
        let (status, body) = service.call("POST", "/v1/tick", token, b"").await;
        assert_eq!((status.as_u16(), &body["code"]), (401, &json!("not-signed-in")));
        assert!(service.asked().is_empty());
    }
    let service = Service::new(answers);
    let (status, body) = service.call("POST", "/v1/tick", Some(TICK_TOKEN), b"").await;
    assert_eq!((status.as_u16(), &body["expired"], &body["sealed"]), (200, &json!(1), &json!(0)));
}

#[tokio::test]
async fn who_was_refused_is_told_and_what_happens_to_everybody_is_not() {
    let refused = |code, needs_role: &str| {
        Err(DatabaseError::Rejected { code, detail: String::new(), needs_role: Some(needs_role.to_owned()) })
    };
    let code = rackhand_schema::ErrorCode::ForbiddenRole;
    let service = Service::new([refused(code, "admin"), refused(code, "admin"), refused(code, "admin")]);
    let (user, executor) = (service.user(), service.executor());
    for (path, token) in [("/v1/users", &user), ("/v1/sites", &executor)] {
        service.call("GET", path, Some(token), b"").await;
    }
    service.call("POST", "/v1/tick", Some("a wrong token"), b"").await;
    let told = service.scripted.refused.lock().unwrap().clone();
    let says = |item: &Value| {
        let text = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
        (text("code"), text("kind"), text("id"), text("session"), text("path"))
    };
    let of = |code: &str, kind: &str, id: &str, path: &str| {
        (code.to_owned(), kind.to_owned(), id.to_owned(), id.to_owned(), path.to_owned())
    };
    assert_eq!(
        told.iter().map(says).collect::<Vec<_>>(),
        [
            of("forbidden-role", "user", ID, "/v1/users"),
            of("not-signed-in", "anonymous", "", "/v1/sites"),
            of("not-signed-in", "anonymous", "", "/v1/tick"),
        ]
    );
    assert!(told.iter().all(|item| item["minute"] == START_MS / 1000 && item["count"] == 1), "{told:?}");

    NOW.set(START_MS + 700_000);
    let (status, _) = service.call("GET", "/v1/users", Some(&user), b"").await;
    assert_eq!(status.as_u16(), 401, "the token has expired, as each does");
    assert_eq!(service.scripted.refused.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn nobody_gets_past_the_door_and_the_wrong_kind_of_token_does_not_help() {
    for (method, path, role, _) in operations() {
        if matches!(role.as_str(), "anonymous" | "scheduler") {
            continue;
        }
        let service = Service::new([]);
        let (user, executor) = (service.user(), service.executor());
        let wrong = if role == "executor" { &user } else { &executor };
        for token in [None, Some("nonsense"), Some(wrong.as_str())] {
            let (status, body) = service.call(&method, &path, token, b"{}").await;
            assert_eq!((status.as_u16(), &body["code"]), (401, &json!("not-signed-in")), "{method} {path}");
        }
        assert!(service.asked().is_empty(), "{method} {path}");
    }
}

#[tokio::test]
async fn bad_bodies_are_refused_before_the_database_is_asked() {
    let larger_than = |most| [b"{\"x\":\"".as_slice(), &vec![b'x'; most], b"\"}"].concat();
    let large = larger_than(MAX_BODY_BYTES);
    let large_for_anyone = larger_than(MAX_ANONYMOUS_BODY_BYTES);
    let fields_in_order = serde_json::to_vec(&[ID; 12]).unwrap();
    let mut optional = 0;
    for (method, path, role, body) in operations() {
        let Some(required) = body else { continue };
        let service = Service::new([]);
        let token = if role == "executor" { service.executor() } else { service.user() };
        for (body, code) in [
            (b"{\"a\":".as_slice(), "malformed-json"),
            (b"\xff\xfe", "malformed-json"),
            (b"[", "malformed-json"),
            (b"[1]", "invalid-request"),
            (b" []", "invalid-request"),
            (&fields_in_order, "invalid-request"),
            (b"null", "invalid-request"),
            (if role == "anonymous" { &large_for_anyone } else { &large }, "body-too-large"),
        ] {
            let (status, answer) = service.call(&method, &path, Some(&token), body).await;
            assert_eq!(answer["code"], code, "{method} {path} {status}");
        }
        assert!(service.asked().is_empty(), "{method} {path}");
        let (_, answer) = service.call(&method, &path, Some(&token), b"").await;
        assert_eq!(answer["code"] == "unsupported-media-type", required, "{method} {path}");
        optional += usize::from(!required);
    }
    assert_eq!(optional, 1, "signing out needs no body");
}

/// Of half-sent bodies the oldest goes when the room is full, and only those of the same kind of caller: executors,
/// people (an account without a role will do), strangers.
#[tokio::test]
async fn half_sent_bodies_keep_nobody_else_out() {
    let mut service = Service::new([]);
    let rooms = Rooms { executors: 3_000_000, people: 3_000_000, strangers: 20_000 };
    service.process = Arc::new(Process { bodies: Bodies::within(rooms), ..Process::default() });
    let (person, executor) = (service.user(), service.executor());
    let never_ends = |bytes: usize| {
        let first = futures::stream::iter([Ok::<_, std::io::Error>(vec![b' '; bytes])]);
        Body::from_stream(first.chain(futures::stream::pending()))
    };
    let post = |path: &str, token: &str, body: Body| {
        let request = Request::builder().method("POST").uri(path);
        let request = request.header(header::CONTENT_TYPE, "application/json");
        service.send(request.header(header::AUTHORIZATION, format!("Bearer {token}")).body(body).unwrap())
    };
    for (path, token, half, whole) in [
        ("/v1/auth/login", "", 16_000, 5_000),
        ("/v1/jobs", person.as_str(), 2_000_000, 2_000_000),
        ("/v1/executor/report", executor.as_str(), 2_000_000, 2_000_000),
    ] {
        let mut half_sent = Box::pin(post(path, token, never_ends(half)));
        assert!(half_sent.as_mut().now_or_never().is_none());
        for other in
            ["/v1/auth/login", "/v1/jobs", "/v1/executor/report"].into_iter().filter(|other| *other != path)
        {
            let token = match other {
                "/v1/jobs" => &*person,
                "/v1/executor/report" => &*executor,
                _ => "",
            };
            assert_eq!(post(other, token, Body::from("{")).await.status(), 400, "{other} beside {path}");
        }
        assert!(half_sent.as_mut().now_or_never().is_none(), "{path}: there was room");
        assert_eq!(post(path, token, Body::from(vec![b' '; whole])).await.status(), 400);
        let refused = half_sent.await;
        assert_eq!(refused.status(), 503, "{path}");
        assert_eq!(refused.headers()[header::RETRY_AFTER], "3");
    }
}

/// A request for leases waits long: it has no more than it needs.
#[tokio::test]
async fn a_request_for_leases_has_room_for_all_held_runs() {
    let held = vec![json!({"run_id": ID, "epoch": u64::MAX}); 10_000];
    let kinds = vec!["k".repeat(64); 64];
    let request = json!({"held": held, "capacity": 1000, "kinds": kinds, "changes": 1000,
        "wait_ms": 0, "version": "v".repeat(60), "leaving": false});
    let mut body = request.to_string().into_bytes();
    let service = Service::new([due(json!({}))]);
    let token = service.executor();
    let path = "/v1/executor/lease";
    let (status, answer) = service.call("POST", path, Some(&token), &body).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    body.resize(MAX_LEASE_BYTES + 1, b' ');
    let (status, answer) = service.call("POST", path, Some(&token), &body).await;
    assert_eq!((status.as_u16(), &answer["code"]), (413, &json!("body-too-large")));
}

/// A host that reads bodies first gives a stranger no more room than the Router would.
#[test]
fn a_body_is_read_as_far_as_its_token_allows() {
    let service = Service::new([]);
    let largest = |name, value: &str| {
        let headers = HeaderMap::from_iter([(name, value.parse().unwrap())]);
        largest_body(sender(&headers, &service.keys, START_MS / 1000, None))
    };
    let (person, executor) = (service.user(), service.executor());
    for token in [person.as_str(), executor.as_str()] {
        assert_eq!(largest(header::AUTHORIZATION, &format!("Bearer {token}")), MAX_BODY_BYTES);
        assert_eq!(largest(header::AUTHORIZATION, &format!("Bearer {token}x")), MAX_ANONYMOUS_BODY_BYTES);
    }
    assert_eq!(largest(header::COOKIE, &format!("{ACCESS_COOKIE}={person}")), MAX_BODY_BYTES);
    assert_eq!(largest(header::ACCEPT, "*/*"), MAX_ANONYMOUS_BODY_BYTES);
}

#[tokio::test]
async fn answers_carry_the_trace_and_problems_say_only_what_is_for_the_caller() {
    let rejected = DatabaseError::Rejected {
        code: rackhand_schema::ErrorCode::ForbiddenRole,
        detail: "needs more".into(),
        needs_role: Some("admin".into()),
    };
    let service = Service::new([
        Ok(json!({"id": ID})),
        Ok(Value::Null),
        Err(rejected),
        Err(DatabaseError::Unavailable("secret host".into())),
        Err(DatabaseError::Fault("secret sql".into())),
    ]);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let ask = || async {
        let request = Request::builder()
            .uri(format!("/v1/runs/{ID}"))
            .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"))
            .header(header::AUTHORIZATION, format!("Bearer {}", service.user()));
        let response = service.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.headers()[crate::request::TRACE_HEADER], trace);
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts, String::from_utf8(body.to_vec()).unwrap())
    };
    let (parts, body) = ask().await;
    assert_eq!(
        (parts.status.as_u16(), body.as_str()),
        (200, r#"{"id":"01920000-0000-7000-8000-000000000001"}"#)
    );
    for (status, code) in
        [(404, "not-found"), (403, "forbidden-role"), (503, "database-unavailable"), (500, "internal")]
    {
        let (parts, body) = ask().await;
        assert_eq!(parts.status.as_u16(), status);
        assert_eq!(parts.headers[header::CONTENT_TYPE], "application/problem+json");
        assert!(!body.contains("secret"), "{body}");
        let problem: rackhand_schema::Problem = serde_json::from_str(&body).unwrap();
        assert_eq!((problem.code.as_str(), problem.trace_id.as_deref()), (code, Some(trace)));
        assert_eq!(problem.needs_role.is_some(), status == 403);
    }
    let (_, args) = &service.asked()[0];
    assert_eq!(args["scope"]["trace"].as_str().unwrap().replace('-', ""), trace);
    assert_eq!(args["scope"]["need"], "viewer");
}

#[tokio::test]
async fn unknown_addresses_methods_and_ids_are_problems() {
    let service = Service::new([]);
    let token = service.user();
    for (method, path, status, code) in [
        ("GET", "/nowhere", 404, "not-found"),
        ("PATCH", "/v1/sites", 405, "method-not-allowed"),
        ("GET", "/v1/sites/not-an-id", 404, "not-found"),
        ("GET", "/v1/sites/%ff%fe", 404, "not-found"),
        ("GET", "/v1/servers?limit=0", 422, "invalid-request"),
        ("GET", "/v1/servers?limit=x", 422, "invalid-request"),
        ("GET", "/v1/jobs?cursor=x", 422, "invalid-request"),
    ] {
        let (found, body) = service.call(method, path, Some(&token), b"").await;
        assert_eq!((found.as_u16(), &body["code"]), (status, &json!(code)), "{method} {path}");
    }
}

#[tokio::test]
async fn a_bad_traceparent_is_replaced() {
    for bad in [
        "",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-xyz-1-1",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ] {
        let service = Service::new([]);
        let request = Request::builder().uri("/v1/version").header("traceparent", bad);
        let response = service.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.headers()[crate::request::TRACE_HEADER], "09".repeat(16), "{bad}");
    }
}

fn due(change: Value) -> Result<Value, DatabaseError> {
    let mut answer = json!({
        "ttl_ms": 30_000, "server_time": "", "grants": [], "lost": [], "cancel": [],
        "hardware_paused": false, "joining": [], "site_key": null, "site_public_key": null, "wake_in_ms": null,
    });
    answer.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    Ok(answer)
}

/// Answers, wake-ups → how many times the database was asked, and how long it took, milliseconds.
async fn lease(answers: Vec<Value>, wakes: &[Wake], wait_ms: u32) -> (usize, u64, Value) {
    let mut answers: Vec<_> = answers.into_iter().map(due).collect();
    answers.extend((0..200).map(|_| due(json!({}))));
    let service = Service::new(answers);
    service.scripted.wakes.lock().unwrap().extend(wakes);
    let body =
        json!({"held": [], "capacity": 1, "kinds": [], "wait_ms": wait_ms, "version": "1"}).to_string();
    let token = service.executor();
    let (status, answer) = service.call("POST", "/v1/executor/lease", Some(&token), body.as_bytes()).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    (service.asked().len(), NOW.get() - START_MS, answer)
}

#[tokio::test]
async fn a_lease_is_held_until_there_is_news() {
    let lost = json!([{"run_id": ID, "epoch": 1}]);
    let (asked, took, _) = lease(vec![json!({"lost": lost})], &[], 20_000).await;
    assert_eq!((asked, took), (1, 0), "news at once");
    let (asked, took, answer) = lease(vec![json!({}), json!({"lost": lost})], &[Wake::Changed], 20_000).await;
    assert_eq!((asked, took, answer["lost"].as_array().unwrap().len()), (2, 0, 1), "news on wake-up");
    let (asked, took, _) = lease(vec![], &[], 20_000).await;
    assert_eq!((asked, took), (2, 10_000), "a third of the lease at most");
    let (asked, took, _) =
        lease(vec![json!({}), json!({"hardware_paused": true})], &[Wake::Changed], 20_000).await;
    assert_eq!((asked, took), (2, 0), "a changed setting is news");
    let suspended = json!({"suspended": [{"id": ID, "version": 1}]});
    let (_, took, _) = lease(vec![json!({}), suspended], &[Wake::Changed], 20_000).await;
    assert_eq!(took, 0, "a credential that is not to be presented any more is news");
    let paused = || json!({"hardware_paused": true});
    let (_, took, _) = lease(vec![paused(), paused(), paused()], &[Wake::Changed], 3_000).await;
    assert_eq!(took, 3_000, "a standing one is not");
    let cancel = || json!({"cancel": [ID]});
    let (_, took, _) = lease(vec![cancel(), cancel(), cancel()], &[], 20_000).await;
    assert_eq!(took, 1_000, "a standing cancellation is repeated, but not without pause");
    let (asked, took, _) = lease(vec![json!({"wake_in_ms": 400}), json!({"lost": lost})], &[], 20_000).await;
    assert_eq!((asked, took), (2, 400), "looks again when something is due");
    let (asked, took, _) = lease(vec![], &[Wake::Closing], 20_000).await;
    assert_eq!((asked, took), (1, 0), "answers when the host closes");
    let (_, took, _) = lease(vec![], &[], 0).await;
    assert_eq!(took, 0, "no wait asked for");
}

fn page(cursor: &str, ids: &[u32]) -> Result<Value, DatabaseError> {
    let items: Vec<_> = ids
        .iter()
        .map(|id| {
            json!({"cursor": format!("9.{id}"), "at": "", "kind": "run.log", "level": "info",
                "message": "two\nlines", "site_id": null, "job_id": null, "run_id": null, "server_id": null,
                "trace_id": null, "actor": "a", "late": false, "data": null})
        })
        .collect();
    Ok(json!({"items": items, "cursor": cursor, "more": false}))
}

#[tokio::test]
async fn a_stream_goes_on_from_its_cursor_survives_the_database_and_ends_with_the_token() {
    let mut answers = vec![
        page("9.1", &[1]),
        page("9.3", &[2, 3]),
        Err(DatabaseError::Unavailable("away".into())),
        page("9.4", &[4]),
    ];
    answers.extend((0..2000).map(|_| page("9.4", &[])));
    let service = Service::new(answers);
    let request = Request::builder()
        .uri("/v1/events/stream?after=1.1")
        .header("last-event-id", "9.0")
        .header(header::AUTHORIZATION, format!("Bearer {}", service.user()));
    let response = service.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    let ids: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    assert_eq!(ids, ["9.1", "9.2", "9.3", "9.4"]);
    assert!(text.contains("\nevent: run.log\ndata: {"), "{text}");
    assert!(text.contains(": keep-alive\n\n"));
    assert!(NOW.get() - START_MS >= 600_000, "until the token ends");
    let after: Vec<_> = service.asked().iter().take(5).map(|(_, args)| args["after"].clone()).collect();
    assert_eq!(after, ["9.0", "9.1", "9.3", "9.3", "9.4"]);
}

#[tokio::test]
async fn a_stream_ends_when_the_session_does() {
    let ended = DatabaseError::Rejected {
        code: rackhand_schema::ErrorCode::SessionEnded,
        detail: String::new(),
        needs_role: None,
    };
    let service = Service::new([page("9.1", &[1]), Err(ended)]);
    let (token, path) = (service.user(), "/v1/events/stream");
    let (status, _) = service.call("GET", path, Some(&token), b"").await;
    assert_eq!((status, service.asked().len()), (StatusCode::OK, 2));
    let refused = Service::new([]);
    let (status, body) = refused.call("GET", path, Some(&token), b"").await;
    assert_eq!((status.as_u16(), &body["code"]), (500, &json!("internal")), "the first look is a request");
}

/// A look for others waits in nobody's line: whoever opens many streams would fill it with looks of their own.
#[tokio::test]
async fn a_stream_that_nobody_shares_looks_in_its_own_persons_line() {
    let ended = DatabaseError::Rejected {
        code: rackhand_schema::ErrorCode::SessionEnded,
        detail: String::new(),
        needs_role: None,
    };
    let mut service = Service::new((0..20).map(|_| page("1.1.1", &[])).chain([Err(ended)]));
    service.process = Arc::new(Process::of_all_requests());
    let (token, path) = (service.user(), "/v1/events/stream?after=1.1.1");
    let (status, _) = service.call("GET", path, Some(&token), b"").await;
    assert_eq!((status, service.asked().len()), (StatusCode::OK, 21));
    assert!(service.asked().iter().all(|(look, _)| look == "events/after"), "{:?}", service.asked());
}

#[tokio::test]
async fn a_long_poll_returns_what_comes() {
    let service = Service::new([page("9.1", &[]), page("9.1", &[]), page("9.2", &[2])]);
    let token = service.user();
    let (_, body) = service.call("GET", "/v1/events?wait_ms=30000&after=9.1", Some(&token), b"").await;
    assert_eq!((body["items"].as_array().unwrap().len(), &body["cursor"]), (1, &json!("9.2")));
}

#[tokio::test]
async fn newest_first_is_never_held_open() {
    let service = Service::new([page("9.2", &[]), page("9.2", &[3, 2])]);
    let token = service.user();
    let path = format!("/v1/events?before=latest&limit=2&server={ID}");
    for items in [0, 2] {
        let (_, body) = service.call("GET", &path, Some(&token), b"").await;
        assert_eq!(body["items"].as_array().unwrap().len(), items);
    }
    let (_, asked) = &service.asked()[0];
    assert_eq!(
        (&asked["before"], &asked["server"], &asked["limit"]),
        (&json!("latest"), &json!(ID), &json!(2))
    );
    for both in ["after=9.1", "wait_ms=1000"] {
        let (status, body) =
            service.call("GET", &format!("/v1/events?before=9.9&{both}"), Some(&token), b"").await;
        assert_eq!((status.as_u16(), &body["code"]), (422, &json!("invalid-request")), "{both}");
    }
    assert_eq!(service.asked().len(), 2);
}

#[test]
fn what_is_wrong_with_a_field_is_said_once() {
    let body = serde_json::json!({"present": "x", "new": ""});
    let change: rackhand_schema::identity::PasswordChange = serde_json::from_value(body).unwrap();
    let refused = crate::request::validate(&change).unwrap_err();
    assert_eq!(refused.detail, "Nothing was done.");
    let said: Vec<_> = refused.fields.iter().map(|field| (&*field.field, &*field.detail)).collect();
    assert_eq!(said, [("new", "has fewer than 12 characters")]);
}
