//! The HTTP client of the control plane: bearer tokens, refresh by rotation, problems as failures.
//!
//! An access token is used until the server refuses it; then the refresh token is spent, under a lock shared with
//! other commands, and the request is made once more. Requests that create something carry an `Idempotency-Key`,
//! so that a lost answer may be asked for again.

use std::{io::ErrorKind, path::Path, sync::Mutex, time::Duration};

use rackhand_schema::{
    Page, Problem,
    id::SiteId,
    identity::{Refresh, SignedIn},
};
use reqwest::{Method, StatusCode, Url, header};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::{
    args::Global,
    config::{Config, StoredSession},
    error::{Failure, Result},
    output::{printable, say},
};

/// Longer than any answer that is held open on purpose.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(90);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Most items of one page.
const PAGE: &str = "200";

pub struct Client {
    http: reqwest::Client,
    base: Url,
    config: Config,
    session: Mutex<Option<StoredSession>>,
}

/// One request in the making.
pub struct Call<'a> {
    client: &'a Client,
    method: Method,
    url: Url,
    body: Option<serde_json::Value>,
    headers: Vec<(&'static str, String)>,
}

/// Before asking an absent control plane again.
const ABSENT: Duration = Duration::from_secs(2);

/// A control plane that is unreachable for a while is waited for; said once each time.
#[derive(Default)]
pub struct Away(bool);

impl Away {
    /// Waits a little after a failure that passes; any other is given back.
    pub async fn wait(&mut self, failure: Failure) -> Result<()> {
        if !failure.passes() {
            return Err(failure);
        }
        if !std::mem::replace(&mut self.0, true) {
            say(format!("{failure}; waiting for it"));
        }
        tokio::time::sleep(ABSENT).await;
        Ok(())
    }

    /// It has answered.
    pub fn over(&mut self) {
        if std::mem::take(&mut self.0) {
            say("the control plane is back");
        }
    }
}

/// Normalises the address of a control plane: scheme and host, nothing after.
pub fn parse_server(text: &str) -> Result<Url> {
    // What stands before a `@` may be a password, and what follows a `#` a one-time token: none of it is repeated.
    if let Some(sign) = ["@", "%40", "#"].into_iter().find(|sign| text.contains(sign)) {
        return Err(Failure::Usage(format!(
            "the address of a control plane has no `{sign}`: write scheme and host only, like https://rackhand.example"
        )));
    }
    let url = Url::parse(text).map_err(|_| no_scheme(text))?;
    let loopback = is_loopback(&url);
    match url.scheme() {
        "https" => {}
        "http" if loopback => {}
        "http" => {
            return Err(Failure::Usage(format!(
                "{text}: plain HTTP would show the password to everyone on the way; use https://"
            )));
        }
        _ => return Err(no_scheme(text)),
    }
    if !has_name(&url) {
        return Err(Failure::Usage(format!(
            "the host in `{text}` is not valid: write scheme and host only, like https://rackhand.example"
        )));
    }
    if url.path() != "/" || url.query().is_some() {
        return Err(Failure::Usage(format!(
            "{text}: write scheme and host only, like {}",
            url.origin().ascii_serialization()
        )));
    }
    Ok(url)
}

/// Whether it is a service of this machine.
pub fn is_loopback(url: &Url) -> bool {
    matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"))
}

/// Whether its host is a name or an address. A URL may hold more there, which would run as a command of the shell of
/// whoever copies it.
fn has_name(url: &Url) -> bool {
    let named = |host: &str| host.chars().all(|c| c.is_ascii_alphanumeric() || ".-_:[]".contains(c));
    url.host_str().is_some_and(named)
}

/// What to write instead of an address without its beginning.
fn no_scheme(text: &str) -> Failure {
    let read = |scheme: &str| Url::parse(&format!("{scheme}://{text}")).ok();
    let meant = read("http").filter(is_loopback).or_else(|| read("https"));
    let meant = meant.filter(|url| has_name(url) && url.query().is_none() && !text.contains("://"));
    let Some(url) = meant else {
        return Failure::Usage(format!("`{text}` is not an address like https://rackhand.example"));
    };
    // As it was read, for it is copied: the text may hold more than was read of it.
    let address = url.origin().ascii_serialization();
    Failure::Usage(if url.path() == "/" {
        format!("{text}: write {address}")
    } else {
        format!("{text}: write scheme and host only, like {address}")
    })
}

/// The address as it is stored and shown.
pub fn origin(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

impl Client {
    /// A client for the control plane that was named, or for the one signed in to last.
    pub fn open(config: Config, global: &Global) -> Result<Self> {
        let sessions = config.sessions()?;
        let server = global.api.clone().or(sessions.current.clone()).ok_or(Failure::NotSignedIn(None))?;
        let base = parse_server(&server)?;
        let session = sessions.sessions.get(&origin(&base)).cloned();
        Ok(Self { http: http(global.ca_file.as_deref())?, base, config, session: Mutex::new(session) })
    }

    pub fn server(&self) -> String {
        origin(&self.base)
    }

    fn not_signed_in(&self) -> Failure {
        Failure::NotSignedIn(Some(self.server()))
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The site that is meant where none is named.
    pub fn chosen_site(&self) -> Result<Option<SiteId>> {
        Ok(self.config.chosen_sites()?.get(&self.server()).and_then(|id| id.parse().ok()))
    }

    /// Remembers that site, or none.
    pub fn choose_site(&self, site: Option<SiteId>) -> Result<()> {
        let mut chosen = self.config.chosen_sites()?;
        match site {
            Some(site) => chosen.insert(self.server(), site.to_string()),
            None => chosen.remove(&self.server()),
        };
        self.config.save_chosen_sites(&chosen)
    }

    pub fn signed_in(&self) -> bool {
        self.token().is_some()
    }

    /// Whether this is the e-mail address of whoever is signed in.
    pub fn is_me(&self, email: &str) -> bool {
        self.with_session(|session| {
            session.as_ref().is_some_and(|session| session.email.eq_ignore_ascii_case(email))
        })
    }

    pub fn get<'a>(&'a self, segments: &[&str]) -> Call<'a> {
        self.call(Method::GET, segments)
    }

    pub fn post<'a>(&'a self, segments: &[&str]) -> Call<'a> {
        self.call(Method::POST, segments)
    }

    pub fn put<'a>(&'a self, segments: &[&str]) -> Call<'a> {
        self.call(Method::PUT, segments)
    }

    pub fn patch<'a>(&'a self, segments: &[&str]) -> Call<'a> {
        self.call(Method::PATCH, segments)
    }

    pub fn delete<'a>(&'a self, segments: &[&str]) -> Call<'a> {
        self.call(Method::DELETE, segments)
    }

    /// All pages of a list, or the first `limit` items.
    pub async fn all<T: DeserializeOwned>(
        &self,
        segments: &[&str],
        query: &[(&str, String)],
        limit: Option<usize>,
    ) -> Result<Vec<T>> {
        let mut items: Vec<T> = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut call = self.get(segments).query("limit", PAGE);
            for (name, value) in query {
                call = call.query(name, value);
            }
            if let Some(cursor) = &cursor {
                call = call.query("cursor", cursor);
            }
            let page: Page<T> = call.send().await?;
            items.extend(page.items);
            if let Some(limit) = limit.filter(|limit| items.len() >= *limit) {
                items.truncate(limit);
                return Ok(items);
            }
            match page.next {
                // A server that hands out the same cursor again would keep us here for ever.
                Some(next) if Some(&next) != cursor.as_ref() => cursor = Some(next),
                _ => return Ok(items),
            }
        }
    }

    /// Stores the tokens of a fresh sign-in and makes this the current control plane.
    pub fn adopt(&self, email: &str, signed_in: &SignedIn) -> Result<()> {
        let (Some(access), Some(refresh)) = (&signed_in.access_token, &signed_in.refresh_token) else {
            return Err(Failure::Foreign {
                url: self.server(),
                detail: "signed in, but no tokens came".to_owned(),
            });
        };
        let session = StoredSession {
            email: email.to_owned(),
            access_token: access.clone(),
            refresh_token: refresh.clone(),
        };
        let _lock = self.config.lock()?;
        self.store(Some(session))
    }

    /// The token with which the session is renewed and ended.
    pub fn refresh_token(&self) -> Option<String> {
        self.with_session(|session| session.as_ref().map(|session| session.refresh_token.clone()))
    }

    /// Forgets the tokens of this control plane.
    pub fn forget(&self) -> Result<()> {
        let _lock = self.config.lock()?;
        self.store(None)
    }

    fn call<'a>(&'a self, method: Method, segments: &[&str]) -> Call<'a> {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.clear().extend(segments);
        }
        Call { client: self, method, url, body: None, headers: Vec::new() }
    }

    fn token(&self) -> Option<String> {
        self.with_session(|session| session.as_ref().map(|session| session.access_token.clone()))
    }

    fn with_session<T>(&self, act: impl FnOnce(&mut Option<StoredSession>) -> T) -> T {
        act(&mut self.session.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Writes the session to disk and uses it. The caller holds the lock.
    fn store(&self, session: Option<StoredSession>) -> Result<()> {
        let mut sessions = self.config.sessions()?;
        let server = self.server();
        match &session {
            Some(session) => {
                sessions.sessions.insert(server.clone(), session.clone());
                sessions.current = Some(server);
            }
            // It stays the current one: the next command says where to sign in again.
            None => drop(sessions.sessions.remove(&server)),
        }
        self.config.save_sessions(&sessions)?;
        self.with_session(|held| *held = session);
        Ok(())
    }

    /// Gets a new access token after `refused` was not accepted.
    async fn refresh(&self, refused: &str) -> Result<()> {
        let _lock = self.config.lock()?;
        let stored =
            self.config.sessions()?.sessions.remove(&self.server()).ok_or_else(|| self.not_signed_in())?;
        if stored.access_token != refused {
            // Another command has refreshed meanwhile.
            self.with_session(|held| *held = Some(stored));
            return Ok(());
        }
        let call = self.post(&["v1", "auth", "refresh"]);
        let body = Refresh { refresh_token: Some(stored.refresh_token.clone()) };
        let response = call.body(&body)?.once(None).await?;
        let signed_in: SignedIn = match decode(response).await {
            Ok(signed_in) => signed_in,
            Err(failure @ Failure::Problem(_))
                if failure.exit_code() == crate::error::exit::NOT_AUTHENTICATED =>
            {
                self.store(None)?;
                return Err(failure);
            }
            Err(other) => return Err(other),
        };
        let (Some(access_token), Some(refresh_token)) = (signed_in.access_token, signed_in.refresh_token)
        else {
            return Err(Failure::Foreign {
                url: self.server(),
                detail: "refreshed, but no tokens came".to_owned(),
            });
        };
        let current = self.config.sessions()?.current;
        self.store(Some(StoredSession { email: stored.email, access_token, refresh_token }))?;
        // A refresh in the background must not change which control plane is the current one.
        let mut sessions = self.config.sessions()?;
        sessions.current = current;
        self.config.save_sessions(&sessions)
    }
}

impl Call<'_> {
    #[must_use]
    pub fn query(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.url.query_pairs_mut().append_pair(name, value.as_ref());
        self
    }

    #[must_use]
    pub fn query_if(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.query(name, value.to_string()),
            None => self,
        }
    }

    pub fn body<T: Serialize>(mut self, body: &T) -> Result<Self> {
        self.body = Some(serde_json::to_value(body).map_err(|error| Failure::Other(error.to_string()))?);
        Ok(self)
    }

    /// Replaces only the version that was read.
    #[must_use]
    pub fn if_match(mut self, version: u64) -> Self {
        self.headers.push(("if-match", format!("\"{version}\"")));
        self
    }

    /// Makes repeating this request harmless.
    #[must_use]
    pub fn idempotent(mut self) -> Self {
        self.headers.push(("idempotency-key", Uuid::now_v7().to_string()));
        self
    }

    /// Sends it and reads the answer.
    pub async fn send<T: DeserializeOwned>(self) -> Result<T> {
        decode(self.authenticated().await?).await
    }

    /// Sends it; the answer is text.
    pub async fn text(self) -> Result<String> {
        let response = self.authenticated().await?;
        if !response.status().is_success() {
            return Err(problem(response).await);
        }
        let url = response.url().clone();
        response.text().await.map_err(|error| transport(&url, &error))
    }

    /// Sends it; the answer has no body.
    pub async fn done(self) -> Result<()> {
        let response = self.authenticated().await?;
        if response.status().is_success() { Ok(()) } else { Err(problem(response).await) }
    }

    /// Sends it without a token.
    pub async fn anonymous<T: DeserializeOwned>(self) -> Result<T> {
        decode(self.once(None).await?).await
    }

    /// The same; the answer has no body.
    pub async fn anonymous_done(self) -> Result<()> {
        let response = self.once(None).await?;
        if response.status().is_success() { Ok(()) } else { Err(problem(response).await) }
    }

    async fn authenticated(self) -> Result<reqwest::Response> {
        let token = self.client.token().ok_or_else(|| self.client.not_signed_in())?;
        let response = self.once(Some(&token)).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        // Boxed: refreshing makes a call of its own.
        Box::pin(self.client.refresh(&token)).await?;
        let token = self.client.token().ok_or_else(|| self.client.not_signed_in())?;
        self.once(Some(&token)).await
    }

    async fn once(&self, token: Option<&str>) -> Result<reqwest::Response> {
        let mut request = self.client.http.request(self.method.clone(), self.url.clone());
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = &self.body {
            request = request.json(body);
        } else if self.method == Method::POST {
            request = request.json(&serde_json::json!({}));
        }
        request.send().await.map_err(|error| transport(&self.client.base, &error))
    }
}

fn http(ca_file: Option<&Path>) -> Result<reqwest::Client> {
    let tls = match ca_file {
        Some(file) => {
            tls_with(file).map_err(|why| Failure::Usage(format!("--ca-file {}: {why}", file.display())))?
        }
        None => tls().map_err(|error| Failure::Other(format!("cannot set up TLS: {error}")))?,
    };
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("rackhand/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| Failure::Other(format!("cannot set up HTTP: {error}")))
}

/// Trusts what the operating system trusts.
fn tls() -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let verifier = rustls_platform_verifier::Verifier::new(provider.clone())?;
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(std::sync::Arc::new(verifier))
        .with_no_client_auth())
}

/// Trusts the certificates in `file` (PEM) and no other.
fn tls_with(file: &Path) -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| error.to_string())? {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() {
        return Err("it holds no certificate".to_owned());
    }
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

fn transport(base: &Url, error: &reqwest::Error) -> Failure {
    if error.is_timeout() && !error.is_connect() {
        return Failure::NoAnswer(origin(base));
    }
    if let Some(failure) = rackhand_redfish::tls_failure(error) {
        let detail = match failure.trust {
            true => format!("{}. A private CA is trusted with --ca-file FILE", failure.why),
            false => failure.why,
        };
        return Failure::Unreachable { url: origin(base), detail };
    }
    // The innermost cause says most: "connection refused", "certificate has expired".
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == ErrorKind::ConnectionRefused) {
        return Failure::NotListening(origin(base));
    }
    Failure::Unreachable { url: origin(base), detail: cause.to_string() }
}

async fn decode<T: DeserializeOwned>(response: reqwest::Response) -> Result<T> {
    if !response.status().is_success() {
        return Err(problem(response).await);
    }
    let url = response.url().clone();
    let bytes = response.bytes().await.map_err(|error| transport(&url, &error))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Failure::Foreign { url: url.to_string(), detail: error.to_string() })
}

async fn problem(response: reqwest::Response) -> Failure {
    let status = response.status();
    let (url, page) = (response.url().to_string(), response.url().join("/errors/").ok());
    let retry = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .map(|seconds| format!(" Try again in {seconds} s."));
    match response.json::<Problem>().await {
        Ok(mut problem) => {
            // Lines of our own follow, which it could look like.
            problem.code = printable(&problem.code);
            problem.detail = printable(&problem.detail) + &retry.unwrap_or_default();
            for field in &mut problem.fields {
                (field.field, field.detail) = (printable(&field.field), printable(&field.detail));
            }
            // The page of the code, by its whole address.
            if let Some(page) = page.and_then(|page| page.join(&problem.code).ok()) {
                problem.kind = page.into();
            }
            Failure::Problem(Box::new(problem))
        }
        Err(_) => Failure::Foreign { url, detail: format!("status {status} without a problem body") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        assert_eq!(origin(&parse_server("https://rackhand.example/").unwrap()), "https://rackhand.example");
        assert_eq!(origin(&parse_server("http://127.0.0.1:8420").unwrap()), "http://127.0.0.1:8420");
        for bad in
            ["http://rackhand.example", "rackhand.example", "https://u:p@x", "https://x/path", "ftp://x"]
        {
            assert_eq!(parse_server(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
        for (bad, cure) in [
            ("rackhand.example", "write https://rackhand.example"),
            ("rackhand.example:8420", "write https://rackhand.example:8420"),
            ("127.0.0.1:8420", "write http://127.0.0.1:8420"),
            ("localhost:8420", "write http://localhost:8420"),
            ("localhost:443", "write http://localhost:443"),
            ("[::1]:8420", "write http://[::1]:8420"),
            ("localhost:8420/x", "write scheme and host only, like http://localhost:8420"),
            ("rackhand.example:8420/x", "write scheme and host only, like https://rackhand.example:8420"),
            ("x\\a;reboot", "write scheme and host only, like https://x"),
            ("x\nreboot", "write https://xreboot"),
            ("ftp://x", "an address like https://rackhand.example"),
            ("rackhand.example/x", "write scheme and host only, like https://rackhand.example"),
            ("https://rackhand.example/x?y", "write scheme and host only, like https://rackhand.example"),
            ("ada:hunter2@rackhand.example", "write scheme and host only, like https://rackhand.example"),
            (
                "https://ada:hunter2@rackhand.example",
                "write scheme and host only, like https://rackhand.example",
            ),
            (
                "http://ada:hunter2@rackhand.example",
                "write scheme and host only, like https://rackhand.example",
            ),
            (
                "https://rackhand.example/choose-password#hunter2",
                "write scheme and host only, like https://rackhand.example",
            ),
            (
                "https://ada:hunter2%40rackhand.example",
                "write scheme and host only, like https://rackhand.example",
            ),
            (
                "https://x;reboot",
                "host in `https://x;reboot` is not valid: write scheme and host only, like https://rackhand.example",
            ),
            ("x;reboot", "an address like https://rackhand.example"),
            ("rackhand.example:8420?$(reboot)", "an address like https://rackhand.example"),
            (
                "https://rackhand.example/#hunter2",
                "write scheme and host only, like https://rackhand.example",
            ),
        ] {
            let said = parse_server(bad).unwrap_err().to_string();
            assert!(said.ends_with(cure) && !said.contains("hunter2"), "{said}");
        }
    }
}
