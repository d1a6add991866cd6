//! A Redfish service made of files: a healthy tree, a case's files laid over it, and how its web server
//! behaves.
//!
//! It writes its answers byte by byte, because what is wrong with a foreign service is often the HTTP itself.
//! In a case's folder `index.json` is a document, `index.raw` is sent as it is, and `index.gone` hides a
//! resource.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::{Compression, write::GzEncoder};
use rcgen::{CertificateParams, KeyPair, PublicKeyData as _};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

pub const USER: &str = "root";
pub const PASSWORD: &str = "s3cret-pw";
const ROOT: &str = "/redfish/v1";

/// How the bytes of an answer differ from those of a plain web server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Wire {
    #[default]
    Plain,
    Chunked,
    CloseAfterEach,
    Gzip,
    Http10,
    OddHeaders,
    RedirectToSlash,
    AbsoluteLinks,
}

/// What a login is answered with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Login {
    #[default]
    Plain,
    Cookie,
    LocationOnly,
    OtherName,
    BodyOnly,
    RedirectToSlash,
}

/// Status of a canned answer that never comes.
const NEVER: u16 = 0;

/// A request that is answered by itself. `*` is every resource that needs a login.
#[derive(Clone, Debug)]
struct Canned {
    path: String,
    query: Option<String>,
    status: u16,
    headers: Vec<(String, String)>,
    body: Value,
    /// How often; none: always.
    times: Option<u64>,
}

/// What a service keeps while it runs.
#[derive(Default)]
struct State {
    tokens: BTreeSet<String>,
    /// Logins that the service accepted.
    logins: usize,
    /// Uses of each canned answer.
    used: BTreeMap<usize, u64>,
    /// Requests that presented a password.
    passwords: usize,
}

struct Service {
    base: PathBuf,
    over: PathBuf,
    wire: Wire,
    login: Login,
    canned: Vec<Canned>,
    state: Mutex<State>,
}

/// A running service; dropping it stops it.
pub struct Device {
    pub url: String,
    pub spki_sha256: String,
    service: Arc<Service>,
    task: JoinHandle<()>,
}

impl Drop for Device {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Device {
    /// Serves the case in `over`, whose `device` says how.
    pub async fn start(base: &Path, over: &Path, device: &Value) -> Self {
        let word = |name: &str| device[name].as_str().unwrap_or_default().to_owned();
        let wire = match word("wire").as_str() {
            "" => Wire::Plain,
            "chunked" => Wire::Chunked,
            "close_after_each" => Wire::CloseAfterEach,
            "gzip" => Wire::Gzip,
            "http10" => Wire::Http10,
            "odd_headers" => Wire::OddHeaders,
            "redirect_to_slash" => Wire::RedirectToSlash,
            "absolute_links" => Wire::AbsoluteLinks,
            other => panic!("{other} is no wire"),
        };
        let login = match word("login").as_str() {
            "" => Login::Plain,
            "cookie" => Login::Cookie,
            "location_only" => Login::LocationOnly,
            "other_name" => Login::OtherName,
            "body_only" => Login::BodyOnly,
            "redirect_to_slash" => Login::RedirectToSlash,
            other => panic!("{other} is no login"),
        };
        let canned = device["answers"].as_array().into_iter().flatten().map(canned).collect();
        let (base, over) = (base.to_owned(), over.to_owned());
        let service = Arc::new(Service { base, over, wire, login, canned, state: Mutex::default() });
        let (tls, spki_sha256) = key();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(serve(listener, tls, Arc::clone(&service)));
        Self { url, spki_sha256, service, task }
    }

    pub fn open_sessions(&self) -> usize {
        self.service.state.lock().unwrap().tokens.len()
    }

    /// Requests so far that showed the password.
    pub fn passwords_seen(&self) -> usize {
        self.service.state.lock().unwrap().passwords
    }
}

fn canned(rule: &Value) -> Canned {
    let headers = rule["headers"].as_object().into_iter().flatten();
    Canned {
        path: rule["path"].as_str().unwrap().to_owned(),
        query: rule["query"].as_str().map(str::to_owned),
        status: u16::try_from(rule["status"].as_u64().unwrap()).unwrap(),
        headers: headers.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect(),
        body: rule["body"].clone(),
        times: rule["times"].as_u64(),
    }
}

/// A fresh key with a self-signed certificate, and the SHA-256 of its SubjectPublicKeyInfo.
fn key() -> (TlsAcceptor, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["bmc.example".into()]).unwrap().self_signed(&key).unwrap();
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), hex::encode(Sha256::digest(key.subject_public_key_info())))
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, service: Arc<Service>) {
    loop {
        let Ok((tcp, _)) = listener.accept().await else { continue };
        let (tls, service) = (tls.clone(), Arc::clone(&service));
        tokio::spawn(async move {
            if let Ok(stream) = tls.accept(tcp).await {
                // A client that hangs up is no failure of this service.
                let _ = connection(stream, &service).await;
            }
        });
    }
}

struct Request {
    method: String,
    path: String,
    query: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Answer {
    fn json(status: u16, body: &Value) -> Self {
        Self { status, headers: Vec::new(), body: Some(body.to_string().into_bytes()) }
    }

    fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: None }
    }

    fn error(status: u16, id: &str) -> Self {
        let message = json!({ "MessageId": id, "Message": "error" });
        let error = json!({ "code": id, "message": "error", "@Message.ExtendedInfo": [message] });
        Self::json(status, &json!({ "error": error }))
    }

    fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

async fn connection(mut stream: TlsStream<TcpStream>, service: &Service) -> std::io::Result<()> {
    let mut read = Vec::new();
    loop {
        let Some(request) = next_request(&mut stream, &mut read).await? else { return Ok(()) };
        let answer = service.answer(&request);
        if answer.status == NEVER {
            std::future::pending::<()>().await;
        }
        let is_read = request.method == "GET" && answer.status == 200;
        let (bytes, close) = written(answer, if is_read { service.wire } else { Wire::Plain });
        stream.write_all(&bytes).await?;
        stream.flush().await?;
        if close || service.wire == Wire::CloseAfterEach {
            // Without a word of TLS, as small web servers do.
            return Ok(());
        }
    }
}

async fn next_request(
    stream: &mut TlsStream<TcpStream>,
    read: &mut Vec<u8>,
) -> std::io::Result<Option<Request>> {
    let end = loop {
        if let Some(at) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(read).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&read[..end]).into_owned();
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length: usize = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while read.len() < end + length {
        if stream.read_buf(read).await? == 0 {
            return Ok(None);
        }
    }
    let body = read[end..end + length].to_vec();
    let request = Request { method: method.into(), path: path.into(), query: query.into(), headers, body };
    read.drain(..end + length);
    Ok(Some(request))
}

/// The bytes of an answer, and whether the connection ends with them.
fn written(answer: Answer, wire: Wire) -> (Vec<u8>, bool) {
    let mut body = answer.body.unwrap_or_default();
    let mut head = format!("HTTP/1.{} {} X\r\n", u8::from(wire != Wire::Http10), answer.status);
    let has_type = answer.headers.iter().any(|(name, _)| name == "Content-Type");
    if !body.is_empty() && !has_type {
        head.push_str("Content-Type: application/json;odata.metadata=minimal;charset=utf-8\r\n");
    }
    for (name, value) in &answer.headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    if wire == Wire::Gzip {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(&body).unwrap();
        body = packed.finish().unwrap();
        head.push_str("Content-Encoding: gzip\r\n");
    }
    let mut bytes = head.into_bytes();
    match wire {
        Wire::Chunked => {
            bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            for chunk in body.chunks(37) {
                bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                bytes.extend(chunk);
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"0\r\n\r\n");
            return (bytes, false);
        }
        Wire::Http10 => {
            bytes.extend(b"\r\n");
            bytes.extend(body);
            return (bytes, true);
        }
        Wire::OddHeaders => bytes.extend(b"X Odd Name: 1\r\nServer: BMC\xae\r\n"),
        _ => {}
    }
    bytes.extend(format!("Content-Length: {}\r\n\r\n", body.len()).into_bytes());
    bytes.extend(body);
    (bytes, wire == Wire::OddHeaders)
}

impl Service {
    fn answer(&self, request: &Request) -> Answer {
        let path = request.path.trim_end_matches('/');
        let is_login = request.method == "POST" && path.ends_with("/Sessions");
        if is_login && self.login == Login::RedirectToSlash && !request.path.ends_with('/') {
            return Answer::empty(308).with("Location", format!("{path}/"));
        }
        if is_login {
            return self.log_in(path, &request.body);
        }
        let admitted = self.admits(&request.headers);
        if path != ROOT && !admitted {
            return Answer::error(401, "Base.1.0.InsufficientPrivilege");
        }
        match request.method.as_str() {
            "DELETE" => {
                let id = path.rsplit('/').next().unwrap_or_default();
                let ended = self.state.lock().unwrap().tokens.remove(&token(id));
                if ended { Answer::empty(204) } else { Answer::error(404, "Base.1.0.ResourceMissingAtURI") }
            }
            "GET" => self.get(request, path),
            _ => Answer::error(405, "Base.1.0.OperationNotAllowed"),
        }
    }

    fn get(&self, request: &Request, path: &str) -> Answer {
        if self.wire == Wire::RedirectToSlash && !request.path.ends_with('/') {
            let host = request.headers.get("host").unwrap();
            return Answer::empty(301).with("Location", format!("https://{host}{path}/"));
        }
        if let Some(answer) = self.canned(request, path) {
            return answer;
        }
        let Some(body) = self.load(path) else {
            return Answer::error(404, "Base.1.0.ResourceMissingAtURI");
        };
        let body = match self.wire {
            Wire::AbsoluteLinks => {
                let host = request.headers.get("host").unwrap();
                let text = String::from_utf8(body).unwrap();
                let linked = text.replace("\"@odata.id\": \"/", &format!("\"@odata.id\": \"https://{host}/"));
                linked.into_bytes()
            }
            _ => body,
        };
        Answer { status: 200, headers: Vec::new(), body: Some(body) }
    }

    fn canned(&self, request: &Request, path: &str) -> Option<Answer> {
        let fits = |rule: &Canned| {
            let everything = rule.path == "*" && path != ROOT && !path.contains("/Sessions/");
            let query = rule.query.as_ref().is_none_or(|query| request.query.contains(query));
            (everything || rule.path == path) && query
        };
        let (at, rule) = self.canned.iter().enumerate().find(|(_, rule)| fits(rule))?;
        let mut state = self.state.lock().unwrap();
        let used = state.used.entry(at).or_default();
        if rule.times.is_some_and(|times| *used >= times) {
            return None;
        }
        *used += 1;
        let answer = Answer::json(rule.status, &rule.body);
        Some(rule.headers.iter().fold(answer, |answer, (name, value)| answer.with(name, value.as_str())))
    }

    fn load(&self, path: &str) -> Option<Vec<u8>> {
        let of = |tree: &Path, name: &str| tree.join(path.trim_start_matches('/')).join(name);
        if of(&self.over, "index.gone").exists() {
            return None;
        }
        let files = [of(&self.over, "index.raw"), of(&self.over, "index.json"), of(&self.base, "index.json")];
        files.iter().find_map(|file| std::fs::read(file).ok())
    }

    fn log_in(&self, path: &str, body: &[u8]) -> Answer {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let mut state = self.state.lock().unwrap();
        state.passwords += 1;
        if (body["UserName"].as_str(), body["Password"].as_str()) != (Some(USER), Some(PASSWORD)) {
            return Answer::error(401, "Base.1.0.ResourceAtUriUnauthorized");
        }
        state.logins += 1;
        let id = state.logins.to_string();
        let location = format!("{path}/{id}");
        let session = json!({ "@odata.id": location, "Id": id, "Name": "User Session" });
        if self.login == Login::Cookie {
            let cookie = "QSESSIONID=abc; Secure; HttpOnly";
            return Answer::json(201, &json!({ "Id": id }))
                .with("Set-Cookie", cookie)
                .with("Location", location);
        }
        state.tokens.insert(token(&id));
        let answer = match self.login {
            Login::LocationOnly => Answer::empty(201).with("Location", location),
            Login::OtherName => {
                Answer::empty(201).with("Location", format!("https://bmc-17.example.net{location}"))
            }
            Login::BodyOnly => Answer::json(201, &session),
            _ => Answer::json(201, &session).with("Location", location),
        };
        answer.with("X-Auth-Token", token(&id))
    }

    fn admits(&self, headers: &BTreeMap<String, String>) -> bool {
        let mut state = self.state.lock().unwrap();
        if let Some(token) = headers.get("x-auth-token") {
            return state.tokens.contains(token);
        }
        let Some(given) = headers.get("authorization") else { return false };
        state.passwords += 1;
        *given == format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")))
    }
}

fn token(id: &str) -> String {
    format!("token-{id}")
}
