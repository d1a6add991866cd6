//! Hostile requests against every operation of the OpenAPI document: always a 4xx problem with a known code
//! and a trace id, never a 5xx, and the server goes on answering.

mod samples;

use std::time::Duration;

use rackhand_functions::request::{MAX_ANONYMOUS_BODY_BYTES, MAX_BODY_BYTES};
use rackhand_schema::ErrorCode;
use rackhand_tests::{TestServer, TestSite, server::client, site::granted, site::person};
use reqwest::{
    Client, Method,
    header::{CONTENT_TYPE, HeaderValue},
};
use samples::{Ids, Operation, mutations, operations};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

struct Target {
    site: TestSite,
    server: TestServer,
    client: Client,
    ids: Ids,
    /// Of an executor with a session.
    machine: String,
    tried: usize,
}

/// What a hostile request may get.
#[derive(Clone, Copy, PartialEq)]
enum Wanted {
    /// Exactly this refusal.
    Code(ErrorCode),
    /// Some refusal.
    Refusal,
    /// A refusal, or success: not everything odd is wrong.
    NoFault,
}

impl Target {
    async fn new() -> Self {
        let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
        let server = TestServer::start(&site).await;
        let executor = site.executor("one").await;
        let servers = site.servers(2).await;
        let job = site.job("inventory", &servers, 10).await;
        let runs = granted(&site.lease(&executor, &[], 1).await);
        let bystander = person(&site.database, "Bea Bystander", "viewer", Some(&site.id)).await;
        let ids = Ids {
            site: site.id.clone(),
            server: servers[0].clone(),
            job,
            run: runs[0].0.clone(),
            executor: executor.id.clone(),
            credential: site.credential.clone(),
            user: bystander["user"].as_str().unwrap().to_owned(),
        };
        let machine = server.executor_token(&site, &executor);
        Self { site, server, client: client(), ids, machine, tried: 0 }
    }

    /// A new token for each use: some operations end the session they are called with.
    async fn token(&self, operation: &Operation) -> Option<String> {
        match operation.role.as_str() {
            "anonymous" => None,
            "executor" => Some(self.machine.clone()),
            _ => {
                let name = format!("Ada {}", uuid::Uuid::now_v7().simple());
                Some(self.server.token(&person(&self.site.database, &name, "admin", None).await))
            }
        }
    }

    async fn send(&mut self, request: reqwest::RequestBuilder, wanted: Wanted, what: &str) {
        self.tried += 1;
        let response = request.timeout(Duration::from_secs(30)).send().await;
        let response = response.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let status = response.status();
        let kind = response.headers().get(CONTENT_TYPE).map(|kind| kind.to_str().unwrap().to_owned());
        let trace = response.headers().get("x-trace-id").map(|trace| trace.to_str().unwrap().to_owned());
        assert!(!status.is_server_error(), "{what}: {status} {:?}", response.text().await);
        if !status.is_client_error() {
            assert!(wanted == Wanted::NoFault, "{what}: {status} {:?}", response.text().await);
            return;
        }
        let text = response.text().await.unwrap();
        let problem: Value =
            serde_json::from_str(&text).unwrap_or_else(|_| panic!("{what}: {status} {text}"));
        assert_eq!(kind.as_deref(), Some("application/problem+json"), "{what}");
        let code = ErrorCode::parse(problem["code"].as_str().unwrap_or_default());
        let code = code.unwrap_or_else(|| panic!("{what}: no code of the registry: {problem}"));
        assert_eq!(code.status(), status.as_u16(), "{what}: {problem}");
        let named = problem["trace_id"].as_str().unwrap_or_default();
        assert!(named.len() == 32 && trace.as_deref() == Some(named), "{what}: {problem} {trace:?}");
        if let Wanted::Code(expected) = wanted {
            assert_eq!(code, expected, "{what}: {problem}");
        }
    }

    fn request(&self, operation: &Operation, path: &str, token: Option<&str>) -> reqwest::RequestBuilder {
        let method = Method::from_bytes(operation.method.to_uppercase().as_bytes()).unwrap();
        let mut request = self.client.request(method, self.server.running.url.clone() + path);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        request
    }

    async fn is_well(&self) {
        let health = self.server.call("GET", "/v1/health", None, None).await;
        assert_eq!(health.status, 200, "{health:?}");
    }
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_are_no_request_are_refused_by_every_operation() {
    let mut target = Target::new().await;
    let deep = |open: &str, close: &str| open.repeat(100_000) + "1" + &close.repeat(100_000);
    let bodies: Vec<(&str, Vec<u8>, Wanted)> = vec![
        ("empty", b"".to_vec(), Wanted::Code(ErrorCode::MalformedJson)),
        ("cut short", b"{\"site_id\":".to_vec(), Wanted::Code(ErrorCode::MalformedJson)),
        ("two documents", b"{} {}".to_vec(), Wanted::Refusal),
        ("trailing comma", b"{\"a\":1,}".to_vec(), Wanted::Refusal),
        ("a NUL", b"\x00".to_vec(), Wanted::Code(ErrorCode::MalformedJson)),
        ("not UTF-8", b"{\"name\":\"\xff\xfe\",\"reason\":\"\xc3\x28\"}".to_vec(), Wanted::Refusal),
        ("a lone surrogate", br#"{"name":"\ud800","reason":"\udfff"}"#.to_vec(), Wanted::Refusal),
        ("a byte order mark", b"\xef\xbb\xbf{}".to_vec(), Wanted::Refusal),
        ("null", b"null".to_vec(), Wanted::Refusal),
        ("a number", b"17".to_vec(), Wanted::Refusal),
        ("a huge number", b"1e999999".to_vec(), Wanted::Refusal),
        ("a string", b"\"a\"".to_vec(), Wanted::Refusal),
        // A report takes its items one by one, and refuses the one it sees here.
        ("deep lists", deep("[", "]").into_bytes(), Wanted::NoFault),
        ("deep objects", deep("{\"a\":", "}").into_bytes(), Wanted::Refusal),
        ("deep and open", b"[".repeat(1_000_000), Wanted::Refusal),
        ("too large", vec![b' '; MAX_BODY_BYTES + 1], Wanted::Code(ErrorCode::BodyTooLarge)),
    ];
    let mut covered = 0;
    for operation in operations(&target.ids).iter().filter(|operation| operation.body.is_some()) {
        covered += 1;
        let token = target.token(operation).await;
        let most = if token.is_some() { MAX_BODY_BYTES } else { MAX_ANONYMOUS_BODY_BYTES };
        for (name, body, wanted) in &bodies {
            let what = format!("{} {}: {name}", operation.method, operation.path);
            let request = target.request(operation, &operation.path, token.as_deref());
            // Beyond one byte too many the connection may end before the answer is read.
            let body = body[..body.len().min(most + 1)].to_vec();
            target.send(request.header(CONTENT_TYPE, JSON).body(body), *wanted, &what).await;
        }
        let body = operation.body.clone().unwrap().to_string();
        for kind in ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "\u{ff}"] {
            let what = format!("{} {} as {kind:?}", operation.method, operation.path);
            let kind = HeaderValue::from_bytes(kind.as_bytes()).unwrap();
            let request = target.request(operation, &operation.path, token.as_deref());
            let request = request.header(CONTENT_TYPE, kind).body(body.clone());
            target.send(request, Wanted::Code(ErrorCode::UnsupportedMediaType), &what).await;
        }
        target.is_well().await;
    }
    assert!(covered >= 15, "only {covered} operations take a body");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_field_of_each_body_may_hold_anything() {
    let mut target = Target::new().await;
    for operation in operations(&target.ids) {
        let Some(sample) = &operation.body else { continue };
        for (place, body) in mutations(sample) {
            let what = format!("{} {}: {place}", operation.method, operation.path);
            // Signing in costs a password hash each time, and is limited.
            let token = target.token(&operation).await;
            if token.is_none() && body.len() > MAX_ANONYMOUS_BODY_BYTES {
                // Its connection may be closed before all is sent.
                continue;
            }
            let request = target.request(&operation, &operation.path, token.as_deref());
            target.send(request.header(CONTENT_TYPE, JSON).body(body), Wanted::NoFault, &what).await;
        }
        target.is_well().await;
    }
    assert!(target.tried > 500, "only {} requests", target.tried);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_queries_and_headers_may_hold_anything() {
    let mut target = Target::new().await;
    let long = "a".repeat(4000);
    let hostile = [
        "",
        "%00",
        "%ff%fe",
        "%ed%a0%80",
        "'",
        "-1",
        "0",
        "99999999999999999999",
        "1e9",
        "null",
        "latest",
        "..%2f..%2fetc",
        "%F0%9F%98%80",
        "7b7d",
        "7b2261223a226e756c5c7530303030227d",
        "zz",
        &long,
        "00000000-0000-0000-0000-000000000000",
        "%7B01a1fc18-49e1-73ea-832f-74b192a4a6b1%7D",
    ];
    for operation in operations(&target.ids) {
        let token = target.token(&operation).await;
        for name in &operation.path_parameters {
            for value in hostile.iter().filter(|value| !value.is_empty()) {
                let path = operation.template.replace(&format!("{{{name}}}"), value);
                let path = samples::fill(&path, &target.ids);
                let what = format!("{} {path}", operation.method);
                let body = operation.body.clone();
                let mut request = target.request(&operation, &path, token.as_deref());
                if let Some(body) = body {
                    request = request.json(&body);
                }
                target.send(request, Wanted::Refusal, &what).await;
            }
        }
        for name in &operation.query_parameters {
            for value in hostile {
                for query in [format!("{name}={value}"), format!("{name}={value}&{name}={value}")] {
                    let path = format!("{}?{query}", operation.path);
                    let what = format!("{} {path}", operation.method);
                    let request = target.request(&operation, &path, token.as_deref());
                    target.send(request, Wanted::NoFault, &what).await;
                }
            }
        }
        let bytes = |bytes: &[u8]| HeaderValue::from_bytes(bytes).unwrap();
        let odd =
            [bytes(b"\xff\xfe\x80"), bytes(b""), bytes(&b"x".repeat(60_000)), bytes(b"00-\xe9-\xe9-01")];
        for name in
            ["traceparent", "last-event-id", "idempotency-key", "cookie", "origin", "accept", "user-agent"]
        {
            for value in &odd {
                let what =
                    format!("{} {} with {name}: {} bytes", operation.method, operation.path, value.len());
                let mut request =
                    target.request(&operation, &operation.path, None).header(name, value.clone());
                // Without a token nothing is made or ended; what is open to all stays as it is.
                if operation.body.is_some() {
                    request = request.header(CONTENT_TYPE, JSON).body("{}");
                }
                target.send(request, Wanted::NoFault, &what).await;
            }
        }
        for token in ["", "x", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", &"x".repeat(50_000)] {
            if operation.role == "anonymous" {
                continue;
            }
            let what = format!("{} {} with a false token", operation.method, operation.path);
            let request = target.request(&operation, &operation.path, Some(token));
            target.send(request, Wanted::Code(ErrorCode::NotSignedIn), &what).await;
        }
        target.is_well().await;
    }
    let admin = target.server.token(&target.site.admin);
    for path in [
        "/v1",
        "/v1/",
        "/v1/nothing",
        "/v1//jobs",
        "/v1/jobs/",
        "/v1/jobs/a/b/c/d",
        "/v2/jobs",
        "/%00",
        "/%ff",
        "/errors/%00",
        "/errors/nothing",
    ] {
        let request = target.client.get(target.server.running.url.clone() + path).bearer_auth(&admin);
        target.send(request, Wanted::Code(ErrorCode::NotFound), path).await;
    }
    for method in ["PATCH", "TRACE", "PROPFIND", "QUERY"] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = target.client.request(method, target.server.running.url.clone() + "/v1/jobs");
        target.send(request, Wanted::Code(ErrorCode::MethodNotAllowed), "a strange method").await;
    }
}

/// A connection that ends after an answer is said to: a request that followed on it would be lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_before_the_body_was_read_says_that_the_connection_ends() {
    let target = Target::new().await;
    let long = "x".repeat(1009);
    let login = "/v1/auth/login";
    let length = |length: usize| format!("content-length: {length}");
    let asks = |length: &str| format!("{length}\r\nexpect: 100-continue");
    let chunked = "transfer-encoding: chunked".to_owned();
    let spaces = " ".repeat(MAX_ANONYMOUS_BODY_BYTES + 1);
    for (path, kind, rest, body, ends) in [
        (login, "text/plain", length(5000), long.as_str(), true),
        (login, "text/plain", asks(&length(2)), "", true),
        (login, "application/json", length(spaces.len() + 2000), &spaces, true),
        ("/v1/jobs", "application/json", length(5000), &long, true),
        ("/v1/nothing", "application/json", length(5000), &long, true),
        (login, "text/plain", length(long.len()), &long, false),
        (login, "application/json", length(2), "{}", false),
        (login, "application/json", length(0), "", false),
        (login, "application/json", chunked.clone(), "2\r\n{}\r\n0\r\n\r\n", false),
        (login, "application/json", asks(&chunked), "2\r\n{}\r\n0\r\n\r\n", false),
    ] {
        let mut socket = tokio::net::TcpStream::connect(target.server.running.address).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\n{rest}\r\n\r\n{body}");
        socket.write_all(head.as_bytes()).await.unwrap();
        let (mut answer, mut buffer) = (String::new(), [0; 4096]);
        while !answer.trim_start_matches("http/1.1 100 continue\r\n\r\n").contains("\r\n\r\n") {
            let reading = tokio::time::timeout(Duration::from_secs(20), socket.read(&mut buffer));
            let count = reading.await.expect("an answer").expect("a connection");
            assert!(count > 0, "{path} {kind} {rest}: the connection ended without an answer");
            answer += &String::from_utf8_lossy(&buffer[..count]).to_lowercase();
        }
        assert!(answer.contains("http/1.1 4"), "{answer}");
        assert_eq!(answer.contains("\r\nconnection: close\r\n"), ends, "{path} {kind} {rest}: {answer}");
    }
    target.is_well().await;
}

/// What does not even become a request: HTTP's own layer refuses it, and the next caller is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_http_disturb_nobody() {
    let target = Target::new().await;
    let header =
        |size: usize| format!("GET /v1/health HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(size));
    let many: String = (0..2000).map(|index| format!("x-{index}: y\r\n")).collect();
    let inputs: Vec<Vec<u8>> = vec![
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc".to_vec(),
        b"GARBAGE\r\n\r\n".to_vec(),
        b"GET /v1/health HTTP/9.9\r\n\r\n".to_vec(),
        b"GET /v1/health\x00 HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        header(1_000_000).into_bytes(),
        format!("GET /v1/health HTTP/1.1\r\nhost: x\r\n{many}\r\n").into_bytes(),
        format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(200_000)).into_bytes(),
        b"POST /v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n".to_vec(),
        b"POST /v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
          transfer-encoding: chunked\r\n\r\nzz\r\n"
            .to_vec(),
        b"POST /v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef"
            .to_vec(),
    ];
    for input in inputs {
        let mut socket = tokio::net::TcpStream::connect(target.server.running.address).await.unwrap();
        // The server may have closed it before all was written.
        let _ = socket.write_all(&input).await;
        let mut answer = Vec::new();
        let reading = tokio::time::timeout(Duration::from_secs(5), async {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = socket.read(&mut buffer).await {
                answer.extend_from_slice(&buffer[..count]);
                if answer.len() > 12 {
                    break;
                }
            }
        });
        reading.await.expect("an answer or an end");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        target.is_well().await;
    }
}
