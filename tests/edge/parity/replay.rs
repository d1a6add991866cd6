//! Sends the list to one host and writes down what it answered.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use base64::Engine as _;
use ed25519_dalek::{Signer as _, SigningKey};
use rackhand_schema::executor::token_message;
use rackhand_tests::{
    TestDatabase,
    host::HostProcess,
    server::{TICK_TOKEN, client},
};
use reqwest::{Client, Method};
use serde_json::Value;

use super::{
    normal::Normal,
    step::{Act, Body, Expect, Place, Request, Step},
};

/// What one request got, comparable between hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    pub step: String,
    pub method: &'static str,
    /// As it was sent.
    pub path: String,
    pub status: u16,
    pub code: Option<String>,
    pub headers: Vec<String>,
    pub body: String,
}

/// Headers that speak of the transport and not of the answer; `vary` comes from the native host's
/// compression, which the platforms do themselves.
const OF_TRANSPORT: [&str; 6] =
    ["date", "connection", "keep-alive", "transfer-encoding", "content-length", "vary"];

/// A request may take so long, everything included.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Replay<'a> {
    host: &'a HostProcess,
    database: &'a TestDatabase,
    client: Client,
    known: BTreeMap<String, String>,
    normal: Normal,
    pub transcript: Vec<Answered>,
    /// Where an answer was not the expected one.
    pub wrong: Vec<String>,
}

struct Raw {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
    took: Duration,
}

impl<'a> Replay<'a> {
    pub fn new(host: &'a HostProcess, database: &'a TestDatabase) -> Self {
        let authority = host.url.trim_start_matches("http://").to_owned();
        let known = [("authority", authority), ("tick", TICK_TOKEN.to_owned())];
        let known = known.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self {
            host,
            database,
            client: client(),
            known,
            normal: Normal::default(),
            transcript: Vec::new(),
            wrong: Vec::new(),
        }
    }

    pub async fn all(&mut self, steps: &[Step]) {
        for (number, step) in steps.iter().enumerate() {
            self.normal.begin(number);
            self.one(step).await;
            // Later steps would only say what this one says already.
            if self.wrong.len() > 20 {
                return;
            }
        }
    }

    async fn one(&mut self, step: &Step) {
        match &step.act {
            Act::Database(sql) => self.database.owner.batch_execute(sql).await.unwrap(),
            Act::Sign { executor, key, session } => {
                let (executor, session) = (self.fill(&format!("${{{executor}}}")), self.fill(session));
                let nonce = self.fill("${nonce}");
                let called = self.fill("${authority}");
                let message =
                    token_message(&called, &nonce, executor.parse().unwrap(), session.parse().unwrap());
                let signature = SigningKey::from_bytes(&[*key; 32]).sign(message.as_bytes()).to_bytes();
                let text = base64::engine::general_purpose::STANDARD.encode(signature);
                self.known.insert("signature".to_owned(), text);
            }
            Act::Request(request) => self.ask(&step.name, request).await,
        }
    }

    async fn ask(&mut self, name: &str, request: &Request) {
        if request.path.starts_with("/v1/events") && request.meanwhile.is_none() {
            self.settled().await;
        }
        let sent = self.send(request);
        let (raw, other) = match &request.meanwhile {
            None => (sent.await, None),
            Some(step) => {
                let Act::Request(other) = &step.act else { panic!("{name}: only a request goes meanwhile") };
                let others = self.send(other);
                let later = async {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    others.await
                };
                let (raw, answer) = tokio::join!(sent, later);
                (raw, Some((step.name.clone(), (**other).clone(), answer)))
            }
        };
        if let Some((name, request, raw)) = other {
            self.note(&name, &request, raw);
        }
        self.note(name, request, raw);
    }

    /// Events show once no older transaction of the cluster is open: until then a page may end early.
    async fn settled(&self) {
        let open =
            "select exists (select from rackhand.event where xid >= pg_snapshot_xmin(pg_current_snapshot()))";
        while self.database.value(open).await == true {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn send(&self, request: &Request) -> impl Future<Output = Raw> + use<> {
        let method = Method::from_bytes(request.method.as_bytes()).unwrap();
        let mut builder = self.client.request(method, self.host.url.clone() + &self.fill(&request.path));
        for (name, value) in &request.headers {
            builder = builder.header(*name, self.fill(value));
        }
        builder = match &request.body {
            Body::None => builder,
            Body::Json(value) => {
                builder.header("content-type", "application/json").body(self.fill(&value.to_string()))
            }
            Body::Raw(kind, bytes) => builder.header("content-type", *kind).body(bytes.clone()),
        };
        let (events, began) = (request.events, Instant::now());
        async move {
            let exchange = async {
                let mut response = builder.send().await?;
                let status = response.status().as_u16();
                let headers = response
                    .headers()
                    .iter()
                    .map(|(name, value)| {
                        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
                    })
                    .collect();
                let mut body = Vec::new();
                while let Some(chunk) = response.chunk().await? {
                    body.extend_from_slice(&chunk);
                    if let Some(part) = events.and_then(|count| first_events(&body, count)) {
                        body.truncate(part);
                        break;
                    }
                }
                let body = String::from_utf8(body).expect("text");
                Ok::<_, reqwest::Error>(Raw { status, headers, body, took: began.elapsed() })
            };
            let broken =
                |why: String| Raw { status: 0, headers: Vec::new(), body: why, took: began.elapsed() };
            match tokio::time::timeout(PATIENCE, exchange).await {
                Ok(Ok(raw)) => raw,
                Ok(Err(error)) => broken(format!("{error:?}")),
                Err(_) => broken("no answer in time".to_owned()),
            }
        }
    }

    fn note(&mut self, name: &str, request: &Request, raw: Raw) {
        let value: Value = serde_json::from_str(&raw.body).unwrap_or_default();
        let code = value["code"].as_str().filter(|_| raw.status >= 400).map(str::to_owned);
        let expected = match request.expect {
            Expect::Status(_) => None,
            // An answer to HEAD has no body.
            Expect::Refused(code) => (request.method != "HEAD").then(|| code.as_str().to_owned()),
        };
        if (raw.status, &code) != (request.expect.status(), &expected) {
            let expected = (request.expect.status(), expected);
            let kind = self.host.kind;
            self.wrong
                .push(format!("{kind:?}, {name}: expected {expected:?}, got {} {}", raw.status, raw.body));
        }
        if let Some(held) = request.held.as_ref().filter(|held| !held.contains(&millis(raw.took))) {
            self.wrong.push(format!("{:?}, {name}: took {:?}, not {held:?} ms", self.host.kind, raw.took));
        }
        for (key, place) in &request.keep {
            let found = match place {
                Place::Body(pointer) => value.pointer(pointer).and_then(|found| match found {
                    Value::String(text) => Some(text.clone()),
                    Value::Null => None,
                    other => Some(other.to_string()),
                }),
                Place::Cookie(cookie) => raw.headers.iter().find_map(|(name, value)| {
                    let pair = value.split(';').next()?;
                    (name == "set-cookie" && pair.starts_with(&format!("{cookie}="))).then(|| pair.to_owned())
                }),
            };
            match found {
                Some(found) => {
                    self.known.insert((*key).to_owned(), found);
                }
                None => self
                    .wrong
                    .push(format!("{:?}, {name}: the answer has no {key}: {}", self.host.kind, raw.body)),
            }
        }
        let mut headers: Vec<_> = raw.headers.iter().collect();
        // Hosts may order names, not values of one name.
        headers.sort_by_key(|(name, _)| name);
        let headers = headers
            .into_iter()
            .filter(|(name, _)| !OF_TRANSPORT.contains(&name.as_str()) && !name.starts_with("cf-"))
            .map(|(name, value)| {
                // Counted down from the start of a window.
                let counts_down = name == "retry-after" && code.as_deref() == Some("login-limited");
                format!("{name}: {}", self.normal.text(value, counts_down))
            })
            .collect();
        self.transcript.push(Answered {
            step: name.to_owned(),
            method: request.method,
            path: self.fill(&request.path),
            status: raw.status,
            code,
            headers,
            body: self.normal.text(&raw.body, request.numbers_vary),
        });
    }

    fn fill(&self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}').expect("a closed reference");
            out.push_str(before);
            match self.known.get(name) {
                Some(value) => out.push_str(value),
                None => panic!("{:?}: nothing is known as {name}; {:#?}", self.host.kind, self.wrong),
            }
            rest = after;
        }
        out + rest
    }
}

/// The length of the text up to the end of so many events, once they are there.
fn first_events(body: &[u8], count: usize) -> Option<usize> {
    let text = std::str::from_utf8(body).ok()?;
    let mut seen = 0;
    let mut at = 0;
    for block in text.split_inclusive("\n\n") {
        if !block.ends_with("\n\n") {
            return None;
        }
        at += block.len();
        seen += usize::from(block.starts_with("id: "));
        if seen == count {
            return Some(at);
        }
    }
    None
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap()
}
