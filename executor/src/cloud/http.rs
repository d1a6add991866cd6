//! The control plane over HTTPS: signs in with the executor's key, repeats a sign-in once when a token has ended.
//!
//! A network device that forgets a connection drops what comes over it without a word, and every other connection
//! through it, too. So each call has a limit that includes the sign-in, and after a failed one all connections are
//! made anew.

use std::{
    path::Path,
    sync::{Arc, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use rackhand_schema::{
    Problem,
    executor::{Enrol, Enrolled, ExecutorToken, Nonce, NonceRequest, SiteKey, TokenRequest, audience},
    protocol::{AttemptAnswer, CredentialAttempt, LeaseRequest, LeaseResponse, Report, ReportResponse},
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use rustls_platform_verifier::BuilderVerifierExt as _;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{sync::Mutex, time::Instant};
use zeroize::Zeroizing;

use super::{Cloud, CloudError};
use crate::{cause, identity::Identity, journal::JournalError, sessions::Sessions, text::clean};

/// Of a call that is answered at once.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Of each of the two requests of a sign-in, for which other calls wait.
const SIGN_IN: Duration = Duration::from_secs(5);
/// Between two tries at a token beside one that is still good.
const RENEWAL_PAUSE: Duration = Duration::from_secs(15);
/// An idle connection is probed after so long, and again after the same time.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
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

/// Why there is no answer, for people.
fn reason(error: &reqwest::Error) -> String {
    if let Some(failure) = rackhand_redfish::tls_failure(error) {
        let why = failure.why;
        return match failure.trust {
            true => {
                format!("{why}. A private CA is trusted with --ca-file FILE, or `ca_file` in executor.toml")
            }
            false => why,
        };
    }
    cause::last(error).to_string()
}

/// A connection to one control plane, not signed in.
#[derive(Clone)]
pub struct Http {
    base: String,
    tls: rustls::ClientConfig,
    /// Replaced after a failure.
    client: Arc<std::sync::Mutex<reqwest::Client>>,
}

fn client(tls: rustls::ClientConfig) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(10))
        .tcp_keepalive(KEEP_ALIVE)
        .tcp_keepalive_interval(KEEP_ALIVE)
        .tcp_keepalive_retries(2)
        .build()
}

impl Http {
    /// # Errors
    /// When `server` is not an https address (or http on loopback).
    pub fn new(server: &str, tls: rustls::ClientConfig) -> Result<Self, CloudError> {
        let refused = |detail: String| CloudError::Refused { code: "invalid-address".into(), detail };
        let url = reqwest::Url::parse(server).map_err(|error| refused(error.to_string()))?;
        // A password would stand in errors, logs and identity.json.
        if server.contains(['@', '?', '#']) {
            return Err(refused(
                "the control plane's address is like https://rackhand.example, without more".into(),
            ));
        }
        let loopback = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        if url.scheme() != "https" && !(url.scheme() == "http" && loopback) {
            return Err(refused("the control plane's address starts with https://".into()));
        }
        let client = client(tls.clone()).map_err(|error| refused(error.to_string()))?;
        let client = Arc::new(std::sync::Mutex::new(client));
        Ok(Self { base: server.trim_end_matches('/').to_owned(), tls, client })
    }

    fn client(&self) -> reqwest::Client {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on other connections are used; calls under way keep theirs.
    fn reconnect(&self) {
        if let Ok(fresh) = client(self.tls.clone()) {
            *self.client.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        }
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
        let mut request = self.client().post(format!("{}{path}", self.base)).json(body).timeout(timeout);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let unreachable = |error: reqwest::Error| {
            self.reconnect();
            CloudError::Unreachable(format!("{}: {}", self.base, reason(&error.without_url())))
        };
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if bytes.len() + chunk.len() > MAX_ANSWER {
                return Err(CloudError::TooLarge);
            }
            bytes.extend_from_slice(&chunk);
        }
        if status.is_success() {
            let bytes: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
            return serde_json::from_slice(bytes).map_err(|error| {
                let error = clean(&error.to_string());
                CloudError::Unreachable(format!("{}: its answer is not valid: {error}", self.base))
            });
        }
        let problem: Option<Problem> = serde_json::from_slice(&bytes).ok();
        let (code, detail) = problem.map_or_else(
            || (format!("status-{}", status.as_u16()), String::new()),
            |problem| {
                let fields =
                    problem.fields.iter().map(|field| format!(" {}: {}.", field.field, field.detail));
                let fields: String = fields.collect();
                // For people: it ends in lines of a terminal and of a log.
                (clean(&problem.code), clean(&(problem.detail + &fields)))
            },
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
pub struct HttpCloud(Arc<SignedIn>);

struct SignedIn {
    http: Http,
    identity: Arc<Identity>,
    sessions: Sessions,
    token: Mutex<Option<Held>>,
}

struct Held {
    token: Zeroizing<String>,
    /// From then on another one is requested, beside it.
    renew_at: Instant,
}

impl SignedIn {
    /// A token is renewed before it ends, while it is used on: where sign-ins are held up, there are minutes of tries
    /// left, and no call waits for them.
    async fn token(self: &Arc<Self>) -> Result<Zeroizing<String>, CloudError> {
        let mut held = self.token.lock().await;
        if let Some(held) = &mut *held {
            if Instant::now() >= held.renew_at {
                held.renew_at = Instant::now() + RENEWAL_PAUSE;
                let own = Arc::clone(self);
                tokio::spawn(async move {
                    if let Ok(new) = own.sign_in().await {
                        *own.token.lock().await = Some(new);
                    }
                });
            }
            return Ok(held.token.clone());
        }
        let new = self.sign_in().await?;
        let token = new.token.clone();
        *held = Some(new);
        Ok(token)
    }

    async fn sign_in(&self) -> Result<Held, CloudError> {
        let executor_id = self.identity.membership.executor_id;
        let nonce: Nonce =
            self.http.call("/v1/executor/nonce", &NonceRequest { executor_id }, None, SIGN_IN).await?;
        let request = TokenRequest {
            executor_id,
            signature: self.identity.sign(&audience(&self.http.base), &nonce.nonce, self.sessions.own),
            nonce: nonce.nonce,
            session_id: self.sessions.own,
            resumes: self.sessions.former.clone(),
        };
        let journal =
            |error: JournalError| CloudError::Refused { code: "journal".into(), detail: error.to_string() };
        self.sessions.announce().await.map_err(journal)?;
        let token: ExecutorToken = self.http.call("/v1/executor/token", &request, None, SIGN_IN).await?;
        self.sessions.confirm().await.map_err(journal)?;
        let lasts = Duration::from_secs(token.expires_in.into());
        Ok(Held { token: Zeroizing::new(token.token), renew_at: Instant::now() + lasts * 2 / 3 })
    }
}

impl HttpCloud {
    pub fn new(http: Http, identity: Arc<Identity>, sessions: Sessions) -> Self {
        Self(Arc::new(SignedIn { http, identity, sessions, token: Mutex::new(None) }))
    }

    /// A call with its sign-in, within `limit`.
    async fn signed_in<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        limit: Duration,
    ) -> Result<T, CloudError> {
        tokio::time::timeout(limit, self.sign_in_and_call(path, body, limit)).await.unwrap_or_else(|_| {
            self.0.http.reconnect();
            Err(CloudError::Unreachable(format!("no answer within {} s", limit.as_secs_f32())))
        })
    }

    async fn sign_in_and_call<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        timeout: Duration,
    ) -> Result<T, CloudError> {
        let token = self.0.token().await?;
        match self.0.http.call(path, body, Some(&token), timeout).await {
            Err(CloudError::Refused { code, .. })
                if code == "session-ended" || code == "not-signed-in" || code == "status-401" =>
            {
                // The token has ended, unless another call has got a new one meanwhile.
                self.0.token.lock().await.take_if(|held| held.token == token);
                let token = self.0.token().await?;
                self.0.http.call(path, body, Some(&token), timeout).await
            }
            other => other,
        }
    }
}

impl Cloud for HttpCloud {
    fn lease<'a>(
        &'a self,
        request: &'a LeaseRequest,
        limit: Duration,
    ) -> BoxFuture<'a, Result<LeaseResponse, CloudError>> {
        Box::pin(self.signed_in("/v1/executor/lease", request, limit))
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    use rackhand_schema::id::{ExecutorId, SiteId};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use uuid::Uuid;

    use super::*;
    use crate::{
        identity::{Keys, Membership},
        journal::memory::MemoryJournal,
    };

    /// Answers what an executor asks.
    #[derive(Default)]
    struct Plane {
        /// So many connections, the first ones, are not heard of any more.
        dark: AtomicUsize,
        connections: AtomicUsize,
        /// So many times it signs in. The token says how many are left.
        signs_in: AtomicUsize,
        /// How long that takes, beside the time of each answer.
        sign_in_ms: AtomicU64,
        /// This token has ended.
        ended: AtomicUsize,
    }

    impl Plane {
        async fn start(signs_in: usize) -> (Arc<Self>, String) {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = format!("http://{}", listener.local_addr().unwrap());
            let plane = Arc::new(Self {
                signs_in: AtomicUsize::new(signs_in),
                ended: AtomicUsize::new(usize::MAX),
                ..Self::default()
            });
            let own = Arc::clone(&plane);
            tokio::spawn(async move {
                while let Ok((mut tcp, _)) = listener.accept().await {
                    let number = own.connections.fetch_add(1, Ordering::SeqCst) + 1;
                    let own = Arc::clone(&own);
                    tokio::spawn(async move {
                        let mut request = vec![0; 64 * 1024];
                        while let Ok(read @ 1..) = tcp.read(&mut request).await {
                            if own.dark.load(Ordering::SeqCst) >= number {
                                std::future::pending::<()>().await;
                            }
                            let text = String::from_utf8_lossy(&request[..read]).into_owned();
                            tcp.write_all(own.answer(&text).await.as_bytes()).await.unwrap();
                        }
                    });
                }
            });
            (plane, address)
        }

        async fn answer(&self, request: &str) -> String {
            // Long enough for two calls to need two connections.
            tokio::time::sleep(Duration::from_millis(100)).await;
            let path = request.split(' ').nth(1).unwrap_or_default();
            let ended = request.contains(&format!("Bearer t{}\r", self.ended.load(Ordering::SeqCst)));
            let (mut status, mut body) = ("200 OK", String::new());
            match path {
                "/v1/executor/nonce" => body.push_str("{\"nonce\": \"n\"}"),
                "/v1/executor/token" => {
                    tokio::time::sleep(Duration::from_millis(self.sign_in_ms.load(Ordering::SeqCst))).await;
                    let one_less = |left: usize| left.checked_sub(1);
                    match self.signs_in.try_update(Ordering::SeqCst, Ordering::SeqCst, one_less) {
                        Ok(left) => body = format!("{{\"token\": \"t{left}\", \"expires_in\": 600}}"),
                        Err(_) => status = "429 Too Many Requests",
                    }
                }
                _ if ended => {
                    // A lease is refused once others have signed in again.
                    let late = if path.ends_with("lease") { 600 } else { 0 };
                    tokio::time::sleep(Duration::from_millis(late)).await;
                    status = "401 Unauthorized";
                }
                "/v1/executor/report" => body.push_str("{\"results\": []}"),
                _ => body.push_str(
                    "{\"ttl_ms\": 30000, \"server_time\": \"\", \"grants\": [], \"lost\": [], \"cancel\": [], \
                     \"hardware_paused\": false, \"joining\": [], \"site_key\": null, \"site_public_key\": null}",
                ),
            }
            let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length:");
            format!("{head} {}\r\n\r\n{body}", body.len())
        }
    }

    fn nothing_to_lease() -> LeaseRequest {
        let (held, kinds, version) = (vec![], vec![], String::new());
        LeaseRequest { held, capacity: 0, kinds, changes: None, wait_ms: 0, version, leaving: false }
    }

    async fn cloud(address: &str) -> HttpCloud {
        let membership = Membership {
            server: address.to_owned(),
            name: "one".into(),
            executor_id: ExecutorId::from_uuid(Uuid::from_u128(1)),
            site_id: SiteId::from_uuid(Uuid::from_u128(2)),
            site: "lab".into(),
            site_public_key: None,
        };
        let identity = Arc::new(Identity::new(membership, Keys::generate().unwrap()));
        let http = Http::new(address, tls().unwrap()).unwrap();
        let sessions = Sessions::begin(Arc::new(MemoryJournal::default())).await.unwrap();
        HttpCloud::new(http, identity, sessions)
    }

    #[test]
    fn an_address_with_a_password_is_refused_and_not_repeated() {
        for address in
            ["https://ada:hunter2@rackhand.example", "http://hunter2@127.0.0.1:1", "https://x/#hunter2"]
        {
            let said = Http::new(address, tls().unwrap()).err().unwrap().to_string();
            assert!(!said.contains("hunter2") && said.contains("like https://rackhand.example"), "{said}");
        }
    }

    /// A network device forgets every connection at once, idle ones too: the second try takes a new one.
    #[tokio::test]
    async fn after_a_swallowed_request_no_old_connection_is_used() {
        let (plane, address) = Plane::start(9).await;
        let (cloud, request) = (cloud(&address).await, nothing_to_lease());
        let report = Report { items: vec![] };
        let limit = Duration::from_secs(20);
        cloud.report(&report).await.unwrap();
        let (lease, report) = tokio::join!(cloud.lease(&request, limit), cloud.report(&report));
        assert!(lease.is_ok() && report.is_ok());
        let before = plane.connections.load(Ordering::SeqCst);
        assert!(before >= 2, "{before} connections, of which one will be idle");
        plane.dark.store(before, Ordering::SeqCst);
        let swallowed = cloud.lease(&request, Duration::from_millis(500)).await;
        assert!(matches!(swallowed, Err(CloudError::Unreachable(_))), "{swallowed:?}");
        cloud.lease(&request, limit).await.unwrap();
    }

    /// Two calls with a token that has ended: the later refusal is not that of the token that the first one has got.
    #[tokio::test]
    async fn a_late_refusal_of_an_old_token_costs_no_new_one() {
        let (plane, address) = Plane::start(9).await;
        let (cloud, request) = (cloud(&address).await, nothing_to_lease());
        let report = Report { items: vec![] };
        cloud.report(&report).await.unwrap();
        plane.ended.store(9, Ordering::SeqCst);
        let (lease, report) = tokio::join!(cloud.lease(&request, TIMEOUT), cloud.report(&report));
        assert!(lease.is_ok() && report.is_ok());
        assert_eq!(plane.signs_in.load(Ordering::SeqCst), 9 - 2);
    }

    /// Others keep the control plane from taking its sign-ins. The token that it has is good for a while.
    #[tokio::test]
    async fn a_token_is_renewed_before_it_ends_and_used_on_while_that_is_refused() {
        let (plane, address) = Plane::start(2).await;
        let cloud = cloud(&address).await;
        let report = Report { items: vec![] };
        let is_due = async || cloud.0.token.lock().await.as_mut().unwrap().renew_at = Instant::now();
        cloud.report(&report).await.unwrap();
        assert_eq!(plane.signs_in.load(Ordering::SeqCst), 1);
        is_due().await;
        plane.sign_in_ms.store(2000, Ordering::SeqCst);
        let began = Instant::now();
        for _ in 0..3 {
            cloud.report(&report).await.unwrap();
        }
        assert!(began.elapsed() < Duration::from_secs(2), "no call waits for it");
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if cloud.0.token.lock().await.as_ref().unwrap().renew_at > Instant::now() + 2 * RENEWAL_PAUSE {
                break;
            }
        }
        assert_eq!(plane.signs_in.load(Ordering::SeqCst), 0, "renewed");
        plane.sign_in_ms.store(0, Ordering::SeqCst);
        is_due().await;
        for _ in 0..3 {
            cloud.report(&report).await.unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        let renew_at = cloud.0.token.lock().await.as_ref().unwrap().renew_at;
        assert!(renew_at < Instant::now() + RENEWAL_PAUSE, "refused, and not asked again at once");
    }
}
