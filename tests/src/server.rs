//! The real native host over a test database, and a plain HTTP client for it.

use rackhand_functions::auth::token::SigningKeys;
use rackhand_server::{Config, Running, Server};
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;

use crate::site::{TestExecutor, TestSite};

/// For `POST /v1/tick`.
pub const TICK_TOKEN: &str = "the token of test ticks";

pub struct TestServer {
    pub running: Running,
    pub keys: SigningKeys,
    pub client: Client,
}

/// Status and JSON body of an answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Value,
}

impl Answer {
    /// The error code of a problem; empty for anything else.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}

impl TestServer {
    pub async fn start(site: &TestSite) -> Self {
        let keys = SigningKeys::from_seed(&[7; 32]);
        let mut config = Config::local(site.database.api_url(), keys.clone());
        config.tick_token = Some(TICK_TOKEN.to_owned());
        let running = Server::start(config).await.expect("it starts");
        Self { running, keys, client: client() }
    }

    /// An access token for the person of a scope made by [`crate::site::person`].
    pub fn token(&self, scope: &Value) -> String {
        user_token(&self.keys, scope)
    }

    pub fn executor_token(&self, site: &TestSite, executor: &TestExecutor) -> String {
        executor_token(&self.keys, site, executor)
    }

    pub async fn call(&self, method: &str, path: &str, token: Option<&str>, body: Option<&Value>) -> Answer {
        let mut request = self
            .client
            .request(Method::from_bytes(method.as_bytes()).unwrap(), self.running.url.clone() + path);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        answer(request.send().await.expect("the server answers")).await
    }
}

/// An access token for the person of a scope made by [`crate::site::person`].
pub fn user_token(keys: &SigningKeys, scope: &Value) -> String {
    let id = |name: &str| scope[name].as_str().unwrap();
    keys.sign_user(id("user").parse().unwrap(), id("session").parse().unwrap(), now()).unwrap()
}

pub fn executor_token(keys: &SigningKeys, site: &TestSite, executor: &TestExecutor) -> String {
    let (id, session) = (executor.id.parse().unwrap(), executor.session.parse().unwrap());
    keys.sign_executor(id, session, site.id.parse().unwrap(), now()).unwrap()
}

pub async fn answer(response: reqwest::Response) -> Answer {
    let status = response.status();
    let text = response.text().await.expect("a body");
    Answer { status, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
}

/// A client with the `ring` provider; it follows no redirect.
pub fn client() -> Client {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap()
}

/// Unix seconds.
#[expect(clippy::disallowed_methods, reason = "tokens are dated by the host's clock, here the test's")]
pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}
