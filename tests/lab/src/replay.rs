//! Serves a recorded Redfish tree over HTTPS: every document as it was recorded. `$expand` on a collection
//! puts the recorded members in place of their links, as the recorded service did; other query options are
//! ignored.
//!
//! A tree is a tar archive, gzipped, of `redfish/v1/…/index.json` (and whole files, as registries have them).
//! `GET` works with and without a trailing slash; anything that would change something gets a Redfish error,
//! except logging in and out. Credentials are checked when some are given, otherwise any will do; the service
//! root is public. Fails when the archive cannot be read or holds no service root.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::shell::{LabError, new_key};

const ROOT: &str = "/redfish/v1";
/// A recorded document larger than this is no Redfish resource.
const DOCUMENT_LIMIT: u64 = 64 * 1024 * 1024;
const BODY_LIMIT: usize = 64 * 1024;

/// Why a tree cannot be served.
#[derive(Debug, Error)]
pub enum ReplayError {
    #[error("cannot read the recorded tree {}", .path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} holds no redfish/v1/index.json", .0.display())]
    NoServiceRoot(PathBuf),
    #[error("the replay server did not start")]
    Start(#[from] LabError),
}

/// A recorded tree by resource path.
#[derive(Clone, Debug)]
pub struct Tree {
    documents: BTreeMap<String, Bytes>,
}

impl Tree {
    /// Reads a `.tar.gz`; blocks while it does.
    pub fn read(path: &Path) -> Result<Self, ReplayError> {
        let failed = |source| ReplayError::Read { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(failed)?;
        let mut documents = BTreeMap::new();
        for entry in tar::Archive::new(GzDecoder::new(file)).entries().map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let name = entry.path().map_err(failed)?.to_string_lossy().into_owned();
            let mut content = Vec::new();
            entry.take(DOCUMENT_LIMIT).read_to_end(&mut content).map_err(failed)?;
            let name = format!("/{}", name.trim_start_matches("./").trim_start_matches('/'));
            let resource =
                name.strip_suffix("/index.json").or_else(|| name.strip_suffix("/index.xml")).unwrap_or(&name);
            documents.insert(resource.to_owned(), Bytes::from(content));
        }
        if !documents.contains_key(ROOT) {
            return Err(ReplayError::NoServiceRoot(path.to_owned()));
        }
        Ok(Self { documents })
    }

    /// The document of a resource; a trailing slash does not matter.
    pub fn get(&self, path: &str) -> Option<&Bytes> {
        self.documents.get(path.trim_end_matches('/'))
    }

    /// The document with its members expanded if the query asks for it.
    fn find(&self, path: &str, query: &str) -> Option<Bytes> {
        let document = self.get(path)?;
        if !query.contains("$expand=") && !query.contains("%24expand=") {
            return Some(document.clone());
        }
        let Ok(mut expanded) = serde_json::from_slice::<Value>(document) else {
            return Some(document.clone());
        };
        if let Some(members) = expanded.get_mut("Members").and_then(Value::as_array_mut) {
            for member in members {
                let link = member.get("@odata.id").and_then(Value::as_str).unwrap_or_default();
                if let Some(full) = self.get(link).and_then(|full| serde_json::from_slice(full).ok()) {
                    *member = full;
                }
            }
        }
        Some(Bytes::from(expanded.to_string()))
    }

    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.documents.keys().map(String::as_str)
    }
}

/// A server of one tree. Dropping it stops it; [`Replay::shutdown`] also waits.
#[derive(Debug)]
pub struct Replay {
    url: String,
    spki_sha256: String,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Replay {
    /// Serves `tree` at `address` (port 0: the system chooses). `credentials` are user and password.
    pub async fn start(
        tree: Tree,
        address: SocketAddr,
        credentials: Option<(String, String)>,
    ) -> Result<Self, ReplayError> {
        let listen = |source| LabError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let url = format!("https://{}", listener.local_addr().map_err(listen)?);
        let (tls, spki) = new_key("REPLAY1")?;
        let service = Arc::new(Service { tree, credentials, sessions: Mutex::default() });
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(serve(listener, tls, service, tasks.clone(), stop.clone()));
        tasks.close();
        Ok(Self { url, spki_sha256: hex::encode(Sha256::digest(spki)), stop, tasks })
    }

    /// `https://127.0.0.1:port`
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Lower-case hex SHA-256 of the certificate's SubjectPublicKeyInfo.
    pub fn spki_sha256(&self) -> &str {
        &self.spki_sha256
    }

    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    service: Arc<Service>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(tls);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        let (acceptor, service, stop) = (acceptor.clone(), Arc::clone(&service), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = one(acceptor, stream, service) => {}
            }
        });
    }
}

async fn one(acceptor: TlsAcceptor, stream: TcpStream, service: Arc<Service>) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let answer = service_fn(move |request| {
        let service = Arc::clone(&service);
        async move { Ok::<_, Infallible>(service.answer(request).await) }
    });
    if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await {
        tracing::debug!(%error, "a replay connection ended early");
    }
}

#[derive(Debug)]
struct Service {
    tree: Tree,
    credentials: Option<(String, String)>,
    /// Open sessions by id, and the next id.
    sessions: Mutex<(BTreeSet<u64>, u64)>,
}

impl Service {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().trim_end_matches('/');
        let login = parts.method == Method::POST && path.ends_with("/Sessions");
        let public = parts.method == Method::GET && matches!(path, "/redfish" | ROOT | "/redfish/v1/odata");
        if login {
            let Ok(body) = Limited::new(body, BODY_LIMIT).collect().await else {
                return error(StatusCode::BAD_REQUEST, "MalformedJSON", "The body cannot be read.");
            };
            return self.login(path, &body.to_bytes());
        }
        if !public && !self.admits(&parts.headers) {
            return error(
                StatusCode::UNAUTHORIZED,
                "AccessDenied",
                "The credentials are missing or invalid.",
            );
        }
        match parts.method {
            Method::GET | Method::HEAD => match self.tree.find(path, parts.uri.query().unwrap_or_default()) {
                Some(document) => document_response(document),
                None => error(StatusCode::NOT_FOUND, "ResourceMissingAtURI", "There is no such resource."),
            },
            Method::DELETE if path.contains("/Sessions/") => self.logout(path),
            _ => error(
                StatusCode::METHOD_NOT_ALLOWED,
                "OperationNotAllowed",
                "A recorded tree cannot be changed.",
            ),
        }
    }

    fn login(&self, path: &str, body: &[u8]) -> Response<Full<Bytes>> {
        let Ok(body) = serde_json::from_slice::<Value>(body) else {
            return error(StatusCode::BAD_REQUEST, "MalformedJSON", "The body is no JSON.");
        };
        let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default();
        let (user, password) = (text("UserName"), text("Password"));
        if self.credentials.as_ref().is_some_and(|(known, secret)| known != user || secret != password) {
            return error(
                StatusCode::UNAUTHORIZED,
                "AccessDenied",
                "The credentials are missing or invalid.",
            );
        }
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.1 += 1;
        let id = sessions.1;
        sessions.0.insert(id);
        let location = format!("{path}/{id}");
        let document = json!({
            "@odata.id": location,
            "@odata.type": "#Session.v1_3_0.Session",
            "Id": id.to_string(),
            "Name": "User Session",
            "UserName": user,
        });
        let mut response = document_response(Bytes::from(document.to_string()));
        *response.status_mut() = StatusCode::CREATED;
        if let (Ok(token), Ok(location)) = (token(id).parse(), location.parse()) {
            response.headers_mut().insert("x-auth-token", token);
            response.headers_mut().insert(http::header::LOCATION, location);
        }
        response
    }

    fn logout(&self, path: &str) -> Response<Full<Bytes>> {
        let id = path.rsplit('/').next().and_then(|id| id.parse().ok());
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if id.is_some_and(|id: u64| sessions.0.remove(&id)) {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        } else {
            error(StatusCode::NOT_FOUND, "ResourceMissingAtURI", "There is no such session.")
        }
    }

    fn admits(&self, headers: &http::HeaderMap) -> bool {
        let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
        if let Some(given) = text("x-auth-token") {
            let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            return sessions.0.iter().any(|id| token(*id) == given);
        }
        match text("authorization").and_then(crate::model::basic_credentials) {
            Some(given) => self.credentials.as_ref().is_none_or(|known| *known == given),
            None => false,
        }
    }
}

fn token(id: u64) -> String {
    format!("replay-{id:08x}")
}

fn document_response(body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    let json = http::HeaderValue::from_static("application/json;charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response.headers_mut().insert("odata-version", http::HeaderValue::from_static("4.0"));
    response
}

fn error(status: StatusCode, id: &str, text: &str) -> Response<Full<Bytes>> {
    let body = json!({"error": {
        "code": "Base.1.12.GeneralError",
        "message": "See ExtendedInfo.",
        "@Message.ExtendedInfo": [{"MessageId": format!("Base.1.12.{id}"), "Message": text, "Severity": "Warning"}],
    }});
    let mut response = document_response(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    response
}
