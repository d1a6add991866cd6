//! The one session of a client: when it is made, how it is proved, and that it is deleted.
//!
//! Session tables are small (8 on one field report's iDRAC) and leak when clients die. So a client makes one
//! session, lazily, shares it among all its requests, and deletes it in [`Client::close`]; what a crash leaves
//! behind can be deleted or used again by whoever kept the [`SessionHandle`]. Where no session can be had (no
//! session service, table full) every request carries HTTP Basic.
//!
//! Each request that presents a password not yet accepted asks the [`crate::AuthGate`] first. A new login after a
//! session ended asks again: the password may have been changed in the meantime.
//!
//! A session is given up when a request in it is answered 401, and deleted then: the answer may be about the
//! resource, or be wrong (field reports D02 and D04). Where a new session is answered the same, it is kept, and the
//! next 401 for that path, or for any path before something was answered otherwise, is taken for what it is.
//!
//! The deletion can be answered wrongly, too, or not at all. Such a session is remembered, and its deletion repeated
//! once there is another one, and at the end. Each is deleted by its own token alone: a service that has restarted
//! numbers its sessions anew, and another token would end whichever session has the number now.

use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Response, header};
use serde_json::json;
use tokio::{
    sync::MutexGuard,
    time::{Duration, Instant, timeout_at},
};
use zeroize::Zeroizing;

use crate::{
    auth::{AuthAttempt, AuthMethod, AuthOutcome, Credentials, SessionHandle},
    classify::{self, Class},
    client::{Call, Client, evidence, retry_after},
    discovery::{ROOT, Services},
    document::{self, Message},
    error::{Error, Problem},
    transport::{Body, NotSent, TransportError},
};

/// How long to wait for the deletion of a session.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// A session that was given up, and since when.
pub(crate) type Left = (SessionHandle, Instant);

/// A token that is unknown for so long after it was refused first is: its session has ended.
const WRONG: Duration = Duration::from_secs(60);
/// So many sessions are remembered whose end is not certain: more than that have no place in the table of a BMC.
const LEFT: usize = 8;
/// So long a path that was answered 401 in a new session, too, costs no other login, and the session is kept.
pub(crate) const FORBIDDEN: Duration = Duration::from_secs(300);

/// How a request to end a session was answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deletion {
    Done,
    /// The session has ended, or the answer is wrong.
    UnknownToken,
    /// It goes on.
    Forbidden,
}

/// How the client proves itself at present.
#[derive(Default)]
pub(crate) enum Auth {
    /// Nothing yet, or the session has ended.
    #[default]
    None,
    /// A session.
    Session(Arc<Session>),
    /// The service has refused the password: until then it is not presented.
    Refused { until: Instant, error: Error },
    /// HTTP Basic.
    Basic {
        /// Whether the service has accepted the password.
        proven: bool,
        /// When to ask for a session again; `None`: there is no session service.
        until: Option<Instant>,
    },
}

/// A session in use.
pub(crate) struct Session {
    handle: SessionHandle,
    /// Nothing but 401 was answered in it, which took the place of one with that answer: until then it is kept.
    keep_until: Mutex<Option<Instant>>,
}

impl Session {
    fn of(handle: SessionHandle) -> Arc<Self> {
        Arc::new(Self { handle, keep_until: Mutex::default() })
    }

    fn keep_until(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.keep_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something else than 401 was answered in it.
    pub fn note_accepted(&self) {
        *self.keep_until() = None;
    }

    /// Its first answer was 401, as the last one in the session before it.
    pub fn note_refused(&self) {
        *self.keep_until() = Some(Instant::now() + FORBIDDEN);
    }

    /// Whether it may have ended when 401 is answered in it.
    fn may_have_ended(&self) -> bool {
        self.keep_until().is_none_or(|until| Instant::now() >= until)
    }
}

/// What one request presents.
pub(crate) enum Presented {
    /// Nothing: the service root is public.
    Nothing,
    /// A session's token.
    Session(Arc<Session>),
    /// User and password. `Some`: not proven yet, and the gate has allowed this attempt.
    Basic(Option<AuthAttempt>),
}

impl Presented {
    /// The header that carries it. Marked sensitive, so that nobody's `Debug` prints it.
    pub fn header(&self, credentials: &Credentials) -> Option<(HeaderName, HeaderValue)> {
        let (name, mut value) = match self {
            Self::Nothing => return None,
            Self::Session(session) => {
                let token = HeaderValue::from_str(session.handle.token()).ok()?;
                (HeaderName::from_static("x-auth-token"), token)
            }
            Self::Basic(_) => {
                let pair = Zeroizing::new(format!("{}:{}", credentials.user(), credentials.password()));
                let encoded =
                    Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(pair.as_bytes()));
                let value = Zeroizing::new(format!("Basic {}", *encoded));
                (header::AUTHORIZATION, HeaderValue::from_str(&value).ok()?)
            }
        };
        value.set_sensitive(true);
        Some((name, value))
    }
}

impl Client {
    /// The session in use, to be sealed and kept: whoever has it can delete the session after a crash.
    pub async fn session_handle(&self) -> Option<SessionHandle> {
        match &*self.auth.lock().await {
            Auth::Session(session) => Some(session.handle.clone()),
            _ => None,
        }
    }

    /// [`Client::session_handle`], and the given-up sessions before it whose end is not certain.
    pub async fn session_handles(&self) -> Vec<SessionHandle> {
        let current = self.session_handle().await;
        self.left().iter().map(|(session, _)| session.clone()).chain(current).collect()
    }

    fn left(&self) -> std::sync::MutexGuard<'_, Vec<Left>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on with a session from before. If the service does not know it any more, the first request finds out
    /// and logs in.
    pub async fn adopt_session(&self, session: SessionHandle) {
        *self.auth.lock().await = Auth::Session(Session::of(session));
    }

    /// Deletes a session from before, proving it by its own token; presents no password.
    ///
    /// # Errors
    /// No answer, or a refusal. A session that has ended already is a success.
    pub async fn delete_session(&self, session: &SessionHandle) -> Result<(), Error> {
        self.delete_by_its_token(session, Instant::now() + CLOSE_TIMEOUT).await.map(drop)
    }

    async fn delete_by_its_token(
        &self,
        session: &SessionHandle,
        deadline: Instant,
    ) -> Result<Deletion, Error> {
        let Some(path) = self.endpoint.path_of(&session.uri) else { return Ok(Deletion::Done) };
        let call = Call { mutates: false, ..Call::delete(path, deadline) };
        let presented = Presented::Session(Session::of(session.clone()));
        let response = self
            .send_reading_twice(&call, &presented)
            .await
            .map_err(|failure| self.error(&Method::DELETE, path, false, Problem::Transport(failure)))?;
        match response.status().as_u16() {
            404 | 410 => Ok(Deletion::Done),
            401 => Ok(Deletion::UnknownToken),
            403 => Ok(Deletion::Forbidden),
            _ => self.check(&call, response).map(|_| Deletion::Done),
        }
    }

    /// Deletes the sessions whose end is not certain. The first one that gets no answer ends it: the observer sees
    /// that.
    async fn delete_left(&self, deadline: Instant) {
        let sessions = self.left().clone();
        for (session, since) in sessions {
            match self.delete_by_its_token(&session, deadline).await {
                Ok(Deletion::Done) => self.strike(&session),
                // A wrong answer does not last that long.
                Ok(Deletion::UnknownToken) if since.elapsed() > WRONG => self.strike(&session),
                Ok(Deletion::UnknownToken | Deletion::Forbidden) => {}
                Err(_) => return,
            }
        }
    }

    /// A session whose end is certain is remembered no more.
    fn strike(&self, session: &SessionHandle) {
        self.left().retain(|(other, _)| !other.is(session));
    }

    /// Deletes the session, if there is one. Call it on every way out. The client may be used again afterwards.
    ///
    /// If the deletion fails (the observer sees it), the session stays until the service lets it expire, after 30
    /// minutes by default on iDRACs; [`Client::end_session`] tells.
    pub async fn close(&self) {
        drop(self.end_session().await);
    }

    /// Like [`Client::close`], and says how it went.
    ///
    /// # Errors
    /// The deletion got no answer; the client still has the session. One whose end is not certain is still among the
    /// [`Client::session_handles`]; one that the service does not let end is given up: it ends after a while without use.
    pub async fn end_session(&self) -> Result<(), Error> {
        let mut auth = self.auth.lock().await;
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        if let Auth::Session(session) = &*auth {
            // Refused, it has ended, or the answer was wrong: it is asked once more below.
            if self.delete_by_its_token(&session.handle, deadline).await? != Deletion::Done {
                self.leave(&session.handle);
            }
            *auth = Auth::None;
        }
        let sessions = self.left().clone();
        for (session, since) in sessions {
            match self.delete_by_its_token(&session, deadline).await? {
                Deletion::UnknownToken if since.elapsed() <= WRONG => {}
                _ => self.strike(&session),
            }
        }
        Ok(())
    }

    /// Remembers a session whose end is not certain.
    fn leave(&self, session: &SessionHandle) {
        let mut left = self.left();
        if left.len() == LEFT {
            left.remove(0);
        }
        left.push((session.clone(), Instant::now()));
    }

    /// What the next request presents. Logs in when needed. While HTTP Basic is not proven, the guard is
    /// returned too: no second request presents the password before the first one's outcome is known.
    pub(crate) async fn authenticate(
        &self,
        deadline: Instant,
    ) -> Result<(Presented, Option<MutexGuard<'_, Auth>>), Error> {
        let Ok(mut auth) = timeout_at(deadline, self.auth.lock()).await else {
            let late = TransportError::NotSent { why: NotSent::ConnectTimeout };
            return Err(self.error(&Method::GET, ROOT, false, Problem::Transport(late)));
        };
        if let Auth::Basic { until: Some(until), .. } = *auth
            && Instant::now() >= until
        {
            *auth = Auth::None;
        }
        if let Auth::Refused { until, error } = &*auth {
            if Instant::now() < *until {
                return Err(error.clone());
            }
            *auth = Auth::None;
        }
        if matches!(*auth, Auth::None) {
            *auth = match self.log_in(deadline).await {
                Ok(auth) => auth,
                Err(error) => {
                    if matches!(error.problem(), Problem::Login { class: Class::Auth, .. }) {
                        *auth = self.refused(error.clone());
                    }
                    return Err(error);
                }
            };
            self.delete_left(goodbye_until(deadline)).await;
        }
        match &*auth {
            Auth::Session(session) => Ok((Presented::Session(Arc::clone(session)), None)),
            Auth::Basic { proven: true, .. } if self.gate.trusts() => Ok((Presented::Basic(None), None)),
            Auth::Basic { .. } | Auth::None | Auth::Refused { .. } => {
                let attempt = self.ask(AuthMethod::Basic, ROOT).await?;
                Ok((Presented::Basic(Some(attempt)), Some(auth)))
            }
        }
    }

    /// Reports how a first use of HTTP Basic went, and a rejection of one that had been proven. Of several requests
    /// that had been sent with it when the first one was rejected, only that one counts: a service counts them
    /// together, and none follows.
    pub(crate) async fn settle_basic(
        &self,
        presented: &Presented,
        guard: Option<MutexGuard<'_, Auth>>,
        seen: Result<u16, &TransportError>,
    ) {
        let Presented::Basic(attempt) = presented else { return };
        let outcome = match seen {
            Ok(401) => AuthOutcome::Rejected,
            Ok(503) => AuthOutcome::NotJudged,
            Ok(_) => AuthOutcome::Accepted,
            Err(failure) if failure.is_not_sent() => AuthOutcome::NotSent,
            Err(_) => AuthOutcome::Unknown,
        };
        let mut auth = match guard {
            Some(guard) => guard,
            None if outcome == AuthOutcome::Rejected => self.auth.lock().await,
            None => return,
        };
        if outcome == AuthOutcome::Rejected {
            if attempt.is_none() && !matches!(*auth, Auth::Basic { proven: true, .. }) {
                return;
            }
            let problem = Problem::Login { status: 401, id: None, class: Class::Auth };
            *auth = self.refused(self.error(&Method::GET, ROOT, false, problem));
        } else if let Auth::Basic { proven, .. } = &mut *auth {
            *proven = outcome == AuthOutcome::Accepted;
        }
        drop(auth);
        match attempt {
            Some(attempt) => self.gate.settle(attempt, outcome).await,
            // A password that had been accepted is rejected now: the budget must hear of it.
            None => self.gate.settle(&self.attempt(AuthMethod::Basic), outcome).await,
        }
    }

    /// Gives a session up in which `path` was answered 401, unless that is no reason to. Whether the request may follow
    /// in another one.
    ///
    /// It is deleted before there is a new one, so that the service has room for that; nobody logs in meanwhile. At
    /// most half of the time until `deadline` goes by with it.
    pub(crate) async fn give_up_session(
        &self,
        session: &Arc<Session>,
        path: &str,
        deadline: Instant,
    ) -> bool {
        if !session.may_have_ended() || self.with_links(|links| links.is_forbidden(path)) {
            return false;
        }
        let Ok(mut auth) = timeout_at(deadline, self.auth.lock()).await else { return false };
        if matches!(&*auth, Auth::Session(current) if Arc::ptr_eq(current, session)) {
            // Whoever asks may go away meanwhile.
            self.leave(&session.handle);
            *auth = Auth::None;
            // The observer sees how it went.
            let deletion = self.delete_by_its_token(&session.handle, goodbye_until(deadline)).await;
            if deletion.is_ok_and(|deletion| deletion == Deletion::Done) {
                self.strike(&session.handle);
            }
        }
        true
    }

    fn refused(&self, error: Error) -> Auth {
        Auth::Refused { until: Instant::now() + self.options.refused_period, error }
    }

    fn attempt(&self, method: AuthMethod) -> AuthAttempt {
        let (server, user) = (self.address().to_owned(), self.credentials.user().to_owned());
        AuthAttempt { server, user, method }
    }

    async fn ask(&self, method: AuthMethod, path: &str) -> Result<AuthAttempt, Error> {
        let attempt = self.attempt(method);
        match self.gate.ask(&attempt).await {
            Ok(()) => Ok(attempt),
            Err(denied) => Err(self.error(&Method::POST, path, false, Problem::Gate(denied))),
        }
    }

    /// Makes a session, or decides for HTTP Basic.
    async fn log_in(&self, deadline: Instant) -> Result<Auth, Error> {
        let sessions = match self.services(deadline).await? {
            Services::Known(root) => self.sessions_path(&root, deadline).await?,
            Services::NeedAuthentication => None,
        };
        let Some(sessions) = sessions else { return Ok(Auth::Basic { proven: false, until: None }) };
        let attempt = self.ask(AuthMethod::Session, &sessions).await?;
        let body = json!({ "UserName": self.credentials.user(), "Password": self.credentials.password() });
        let body = Zeroizing::new(body.to_string());
        let call = Call {
            method: Method::POST,
            path: &sessions,
            body: Body::from(Bytes::from_owner(Secret(body))),
            content_type: Some(HeaderValue::from_static("application/json")),
            deadline,
            began: Instant::now(),
            mutates: false,
        };
        let outcome = self.send(&call, &Presented::Nothing, 1).await;
        let response = match outcome {
            Ok(response) => response,
            Err(failure) => {
                let outcome = if failure.is_not_sent() { AuthOutcome::NotSent } else { AuthOutcome::Unknown };
                self.gate.settle(&attempt, outcome).await;
                return Err(self.error(&call.method, &sessions, false, Problem::Transport(failure)));
            }
        };
        let status = response.status().as_u16();
        let basic_for_now =
            Auth::Basic { proven: false, until: Some(Instant::now() + self.options.basic_period) };
        let (outcome, auth) = match status {
            200..=299 => (AuthOutcome::Accepted, self.session_of(&sessions, response)),
            _ => {
                let refused = self.login_refused(&call, &response);
                match refused.class() {
                    Class::SessionLimit => (AuthOutcome::NotJudged, Ok(basic_for_now)),
                    Class::Auth => (AuthOutcome::Rejected, Err(refused)),
                    Class::Unsupported | Class::NotFound => {
                        (AuthOutcome::NotJudged, Ok(Auth::Basic { proven: false, until: None }))
                    }
                    _ => (AuthOutcome::NotJudged, Err(refused)),
                }
            }
        };
        self.gate.settle(&attempt, outcome).await;
        auth
    }

    /// The error of a login that was not taken. A status of 401 or 403 is a rejection unless a message says otherwise;
    /// 400 with an authentication message too.
    pub(crate) fn login_refused(&self, call: &Call<'_>, response: &Response<Bytes>) -> Error {
        let status = response.status().as_u16();
        let messages = document::parse(response.body()).as_ref().map(document::messages).unwrap_or_default();
        let verdict = classify::classify(status, &messages, retry_after(response));
        let decided_by = verdict.message.unwrap_or(0);
        let id = messages.get(decided_by).and_then(Message::short_id).map(str::to_owned);
        let problem = Problem::Login { status, id, class: verdict.class };
        self.error(&call.method, call.path, false, problem)
    }

    /// The session of a successful login: `X-Auth-Token`, and `Location` or the body for its path (DSP0266).
    /// Without a token the login has shown that the password is right, and HTTP Basic is used.
    fn session_of(&self, sessions: &str, response: Response<Bytes>) -> Result<Auth, Error> {
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let body = self.parse(response.body());
        let in_body = body.as_ref().and_then(document::link);
        let uri = header("location").and_then(|link| self.endpoint.path_of_session(link)).or(in_body);
        match (header("x-auth-token").filter(|token| !token.trim().is_empty()), uri) {
            (Some(token), Some(uri)) => {
                let handle = SessionHandle::new(uri, Zeroizing::new(token.to_owned()));
                Ok(Auth::Session(Session::of(handle)))
            }
            (None, _) => Ok(Auth::Basic { proven: true, until: None }),
            (Some(_), None) => {
                // The body of a login may repeat the token, so it is not kept as evidence.
                let evidence = evidence(sessions, response.status().as_u16(), &Bytes::new());
                let what = "a login without the path of its session".to_owned();
                Err(self.error(&Method::POST, sessions, false, Problem::Malformed { what, evidence }))
            }
        }
    }
}

/// Until when sessions are deleted before a request that has to be answered by `deadline`.
fn goodbye_until(deadline: Instant) -> Instant {
    let now = Instant::now();
    now + CLOSE_TIMEOUT.min(deadline.saturating_duration_since(now) / 2)
}

/// Bytes that are wiped when the last reference goes.
struct Secret(Zeroizing<String>);

impl AsRef<[u8]> for Secret {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}
