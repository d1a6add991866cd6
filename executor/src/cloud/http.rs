//! The control plane over HTTPS: signs in with the executor's key, repeats a sign-in once when a token has ended.

use std::{path::Path, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use rackhand_schema::{
    Problem,
    executor::{Enrol, Enrolled, ExecutorToken, Nonce, NonceRequest, SiteKey, TokenRequest},
    id::ExecutorSessionId,
    protocol::{AttemptAnswer, CredentialAttempt, LeaseRequest, LeaseResponse, Report, ReportResponse},
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use rustls_platform_verifier::BuilderVerifierExt as _;
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::{Cloud, CloudError};
use crate::identity::Identity;

/// On top of the time for which a lease request is held open.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Largest answer taken: thousands of grants with their credentials.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// TLS as the operating system trusts.
///
/// # Errors
/// When the trust store cannot be read.
pub fn tls() -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth())
}

/// TLS that trusts the certificates in `file` (PEM) and no other.
///
/// # Errors
/// When the file holds none.
pub fn tls_with(file: &Path) -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(file).map_err(|error| error.to_string())?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// A connection to one control plane, not signed in.
#[derive(Clone)]
pub struct Http {
    base: String,
    client: reqwest::Client,
}

impl Http {
    /// # Errors
    /// When `server` is not an https address (or http on loopback).
    pub fn new(server: &str, tls: rustls::ClientConfig) -> Result<Self, CloudError> {
        let refused = |detail: String| CloudError::Refused { code: "invalid-address".into(), detail };
        let url = reqwest::Url::parse(server).map_err(|error| refused(error.to_string()))?;
        let loopback = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        if url.scheme() != "https" && !(url.scheme() == "http" && loopback) {
            return Err(refused("the control plane's address starts with https://".into()));
        }
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10))
            .build()
            .map_err(|error| refused(error.to_string()))?;
        Ok(Self { base: server.trim_end_matches('/').to_owned(), client })
    }

    /// Exchanges a one-time token for a membership.
    ///
    /// # Errors
    /// [`CloudError`].
    pub async fn enrol(&self, enrol: &Enrol) -> Result<Enrolled, CloudError> {
        self.call("/v1/executor/enrol", enrol, None, TIMEOUT).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        token: Option<&str>,
        timeout: Duration,
    ) -> Result<T, CloudError> {
        let mut request = self.client.post(format!("{}{path}", self.base)).json(body).timeout(timeout);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let unreachable = |error: reqwest::Error| CloudError::Unreachable(error.without_url().to_string());
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if bytes.len() + chunk.len() > MAX_ANSWER {
                return Err(CloudError::Unreachable("the answer is too large".into()));
            }
            bytes.extend_from_slice(&chunk);
        }
        if status.is_success() {
            let bytes: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
            return serde_json::from_slice(bytes)
                .map_err(|error| CloudError::Unreachable(format!("the answer is not understood: {error}")));
        }
        let problem: Option<Problem> = serde_json::from_slice(&bytes).ok();
        let (code, detail) = problem.map_or_else(
            || (format!("status-{}", status.as_u16()), String::new()),
            |problem| (problem.code, problem.detail),
        );
        Err(match code.as_str() {
            "session-superseded" => CloudError::Superseded,
            "executor-revoked" => CloudError::Revoked(detail),
            _ if status.is_server_error() || status.as_u16() == 429 => {
                CloudError::Unreachable(format!("{code}: {detail}"))
            }
            _ => CloudError::Refused { code, detail },
        })
    }
}

/// The control plane for one start of the process.
pub struct HttpCloud {
    http: Http,
    identity: Arc<Identity>,
    session: ExecutorSessionId,
    resumes: Option<ExecutorSessionId>,
    token: Mutex<Option<Zeroizing<String>>>,
}

impl HttpCloud {
    /// `resumes`: the session of the former process, which the journal's lock proves dead.
    pub fn new(
        http: Http,
        identity: Arc<Identity>,
        session: ExecutorSessionId,
        resumes: Option<ExecutorSessionId>,
    ) -> Self {
        Self { http, identity, session, resumes, token: Mutex::new(None) }
    }

    async fn token(&self) -> Result<Zeroizing<String>, CloudError> {
        let mut held = self.token.lock().await;
        if let Some(token) = &*held {
            return Ok(token.clone());
        }
        let executor_id = self.identity.membership.executor_id;
        let nonce: Nonce =
            self.http.call("/v1/executor/nonce", &NonceRequest { executor_id }, None, TIMEOUT).await?;
        let request = TokenRequest {
            executor_id,
            signature: self.identity.sign(&nonce.nonce, self.session),
            nonce: nonce.nonce,
            session_id: self.session,
            resumes: self.resumes,
        };
        let token: ExecutorToken = self.http.call("/v1/executor/token", &request, None, TIMEOUT).await?;
        let token = Zeroizing::new(token.token);
        *held = Some(token.clone());
        Ok(token)
    }

    async fn signed_in<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        timeout: Duration,
    ) -> Result<T, CloudError> {
        let token = self.token().await?;
        match self.http.call(path, body, Some(&token), timeout).await {
            Err(CloudError::Refused { code, .. })
                if code == "session-ended" || code == "not-signed-in" || code == "status-401" =>
            {
                // The token has ended: tokens last ten minutes.
                *self.token.lock().await = None;
                let token = self.token().await?;
                self.http.call(path, body, Some(&token), timeout).await
            }
            other => other,
        }
    }
}

impl Cloud for HttpCloud {
    fn lease<'a>(&'a self, request: &'a LeaseRequest) -> BoxFuture<'a, Result<LeaseResponse, CloudError>> {
        let timeout = TIMEOUT + Duration::from_millis(request.wait_ms.into());
        Box::pin(self.signed_in("/v1/executor/lease", request, timeout))
    }

    fn report<'a>(&'a self, report: &'a Report) -> BoxFuture<'a, Result<ReportResponse, CloudError>> {
        Box::pin(self.signed_in("/v1/executor/report", report, TIMEOUT))
    }

    fn credential_attempt<'a>(
        &'a self,
        attempt: &'a CredentialAttempt,
    ) -> BoxFuture<'a, Result<AttemptAnswer, CloudError>> {
        Box::pin(self.signed_in("/v1/executor/credential-attempt", attempt, TIMEOUT))
    }

    fn site_key<'a>(&'a self, key: &'a SiteKey) -> BoxFuture<'a, Result<(), CloudError>> {
        Box::pin(self.signed_in("/v1/executor/site-key", key, TIMEOUT))
    }
}
