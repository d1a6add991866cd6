//! What a host gives to the Router: the database, wake-ups, time, entropy and settings.
//!
//! Nothing here does I/O. A host puts an [`std::sync::Arc`]`<`[`Host`]`>` and the caller's [`ClientAddress`]
//! into the extensions of each request; without them every request is answered `internal`.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use http::Uri;
use rackhand_schema::{
    ErrorCode, Role,
    id::{ExecutorId, ExecutorSessionId, SessionId, SiteId, TraceId, UserId},
};
use serde::{Deserialize, Serialize};

use crate::{
    audit::refusals::Refusals,
    auth::token::SigningKeys,
    bodies::{Bodies, Rooms},
    events::streams::Streams,
    executor_protocol::Turns,
};

pub use crate::events::streams::StreamCounts;

/// One SQL statement: takes one `jsonb` parameter, gives one `jsonb` value.
#[derive(Debug)]
pub struct Statement {
    /// For logs and metrics, e.g. `servers/list`.
    pub name: &'static str,
    pub sql: &'static str,
}

/// The one statement that hosts really send: scope, statement and arguments in; JSON text out, and which topics
/// the statement woke (names with spaces between them, or null), for a host that cannot LISTEN.
pub const RUN_SQL: &str = "select rackhand.run($1::text::jsonb, $2::text, $3::text::jsonb), \
    nullif(current_setting('rackhand.wakes', true), '')";

/// The SQLSTATE with which functions of the schema refuse; message = [`ErrorCode`], detail = text for
/// people, hint = the role that would allow it.
pub const REFUSED_SQLSTATE: &str = "RH000";

/// On whose behalf a statement runs. The database derives from it what may be seen and done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Scope {
    /// `fleet`: an admin of the whole fleet is required, whatever `need` says.
    User {
        user: UserId,
        session: SessionId,
        need: Role,
        fleet: bool,
        trace: TraceId,
    },
    Executor {
        executor: ExecutorId,
        session: ExecutorSessionId,
        trace: TraceId,
    },
    Anonymous {
        trace: TraceId,
        address: String,
    },
}

impl Scope {
    pub const fn trace(&self) -> TraceId {
        match self {
            Self::User { trace, .. } | Self::Executor { trace, .. } | Self::Anonymous { trace, .. } => *trace,
        }
    }
}

/// Whose connections to the database a statement takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    People,
    /// Kept for whoever has proved to be an executor, so that leases are renewed in time whatever people and strangers
    /// ask for. Who enrols or asks for a token is a stranger still.
    Executors,
}

impl Scope {
    pub const fn connections(&self) -> Connections {
        match self {
            Self::Executor { .. } => Connections::Executors,
            Self::User { .. } | Self::Anonymous { .. } => Connections::People,
        }
    }
}

/// With this a host fails a body that takes too long.
#[derive(Debug, thiserror::Error)]
#[error("the body did not arrive in time")]
pub struct BodyTooSlow;

/// The same for a body that is given up for others.
#[derive(Debug, thiserror::Error)]
#[error("there is no room for the body")]
pub struct NoRoom;

#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The statement refused: the caller's fault, with a code.
    #[error("refused with {code}: {detail}")]
    Rejected { code: ErrorCode, detail: String, needs_role: Option<String> },
    /// No connection, or no answer in time: known trouble, worth a retry.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// The caller has too many requests under way; nothing was done.
    #[error("too many statements of one caller")]
    TooMany,
    /// Our fault: a statement that does not work.
    #[error("database fault: {0}")]
    Fault(String),
}

impl DatabaseError {
    /// From the four fields of a Postgres error, as every host's driver gives them.
    fn from_postgres(sqlstate: &str, message: &str, detail: Option<&str>, hint: Option<&str>) -> Self {
        if sqlstate == REFUSED_SQLSTATE {
            return match ErrorCode::parse(message) {
                Some(code) => Self::Rejected {
                    code,
                    detail: detail.unwrap_or_default().to_owned(),
                    needs_role: hint.filter(|role| !role.is_empty()).map(str::to_owned),
                },
                None => Self::Fault(format!("refused with the unknown code `{message}`")),
            };
        }
        // A number out of range, a character that text cannot hold (NUL): from the caller, whatever the field.
        if ["22003", "22021", "22P05"].contains(&sqlstate) {
            return Self::Rejected {
                code: ErrorCode::InvalidRequest,
                detail: "A number is out of range, or a text contains a NUL character.".to_owned(),
                needs_role: None,
            };
        }
        // Class 08 connection, 53 resources, 57 operator intervention (statement timeout included), 58 system;
        // serialisation failures, deadlocks and lock timeouts pass on a retry; read-only: a standby.
        let passing = ["08", "53", "57", "58"].iter().any(|class| sqlstate.starts_with(class))
            || ["40001", "40P01", "55P03", "25006"].contains(&sqlstate);
        if passing {
            Self::Unavailable(format!("{sqlstate}: {message}"))
        } else {
            Self::Fault(format!("{sqlstate}: {message}"))
        }
    }
}

pub trait Database: Send + Sync {
    /// Runs `statement` under `scope`; `args` is one JSON document, and so is the answer.
    fn run<'a>(
        &'a self,
        scope: &'a Scope,
        statement: &'static Statement,
        args: String,
    ) -> BoxFuture<'a, Result<String, DatabaseError>>;
}

/// Why [`Postgres::ask`] gave no answer. As JSON where the driver runs elsewhere than the Router.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// What Postgres said.
    Refused { sqlstate: String, message: String, detail: Option<String>, hint: Option<String> },
    /// No connection, or no answer in time.
    Unavailable(String),
    /// The caller has more requests under way than the host takes.
    TooMany,
    /// The driver could not make sense of question or answer.
    Fault(String),
}

/// What a host's driver brings: one attempt. The rest of a [`Database`] is the same for all of them.
pub trait Postgres: Send + Sync {
    /// Runs [`RUN_SQL`] with the scope (`caller` as JSON), the statement's SQL and the arguments; the first column of
    /// its row.
    fn ask<'a>(
        &'a self,
        caller: &'a Scope,
        scope: &'a str,
        statement: &'static Statement,
        args: &'a str,
    ) -> BoxFuture<'a, Result<Option<String>, Failure>>;
}

/// A deadlock's victim starts anew so many times.
const RETRIES: u32 = 3;

impl<P: Postgres> Database for P {
    fn run<'a>(
        &'a self,
        scope: &'a Scope,
        statement: &'static Statement,
        args: String,
    ) -> BoxFuture<'a, Result<String, DatabaseError>> {
        Box::pin(async move {
            let named = |cause: String| format!("{}: {cause}", statement.name);
            let caller = scope;
            let scope = serde_json::to_string(caller)
                .map_err(|error| DatabaseError::Fault(named(format!("the scope as JSON: {error}"))))?;
            let mut tried = 0;
            loop {
                tried += 1;
                return Err(match self.ask(caller, &scope, statement, &args).await {
                    Ok(answer) => return Ok(answer.unwrap_or_else(|| "null".to_owned())),
                    // Serialisation failure, deadlock: nothing was changed.
                    Err(Failure::Refused { sqlstate, .. })
                        if tried <= RETRIES && ["40001", "40P01"].contains(&sqlstate.as_str()) =>
                    {
                        tracing::info!(
                            statement = statement.name,
                            tried,
                            "deadlock or conflict, trying again"
                        );
                        continue;
                    }
                    Err(Failure::Refused { sqlstate, message, detail, hint }) => {
                        match DatabaseError::from_postgres(
                            &sqlstate,
                            &message,
                            detail.as_deref(),
                            hint.as_deref(),
                        ) {
                            DatabaseError::Fault(cause) => DatabaseError::Fault(named(cause)),
                            DatabaseError::Unavailable(cause) => DatabaseError::Unavailable(named(cause)),
                            rejected => rejected,
                        }
                    }
                    Err(Failure::Unavailable(cause)) => DatabaseError::Unavailable(named(cause)),
                    Err(Failure::TooMany) => DatabaseError::TooMany,
                    Err(Failure::Fault(cause)) => DatabaseError::Fault(named(cause)),
                });
            }
        })
    }
}

/// What to be woken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// Something changed for the executors of a site.
    Site(SiteId),
    /// New events, anywhere.
    Events,
    /// New events of a site.
    EventsOf(SiteId),
}

impl Topic {
    /// Whom a wake-up of the database is for, by its payload (`rackhand.wake`); nobody if it is not one of ours.
    pub fn woken_by(payload: &str) -> Vec<Self> {
        let (events, site) = match payload.strip_prefix("events") {
            Some("") => return vec![Self::Events],
            Some(rest) => (true, rest.strip_prefix(':').unwrap_or_default()),
            None => (false, payload),
        };
        match (events, site.parse()) {
            (true, Ok(site)) => vec![Self::Events, Self::EventsOf(site)],
            (false, Ok(site)) => vec![Self::Site(site)],
            (_, Err(_)) => Vec::new(),
        }
    }

    /// A name of its own.
    pub fn name(&self) -> String {
        match self {
            Self::Site(site) => site.to_string(),
            Self::Events => "events".to_owned(),
            Self::EventsOf(site) => format!("events:{site}"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// Perhaps something happened; look.
    Changed,
    /// Nothing was heard for the time given (or for shorter: look anyway).
    TimedOut,
    /// The host shuts down: answer now.
    Closing,
}

pub trait Notifier: Send + Sync {
    /// Starts listening. Taken before the first query, so that no wake-up falls between the two.
    fn subscribe(&self, topic: Topic) -> Box<dyn Subscription>;
}

pub trait Subscription: Send {
    /// Waits for a wake-up since the last call (or since `subscribe`), at most so long. A host without
    /// notifications may answer [`Wake::TimedOut`] early, which makes the caller look again.
    fn wait(&mut self, at_most: Duration) -> BoxFuture<'_, Wake>;
}

/// Does what takes a processor for long (comparing a password), where it holds up nobody else.
pub trait Work: Send + Sync {
    /// Does it once, or not at all if too much is under way already.
    fn run(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'_, Result<(), Overloaded>>;
}

/// More costly work is under way than the host has room for.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("too much costly work is under way")]
pub struct Overloaded;

/// For a host that has one thread for each request.
pub struct InPlace;

impl Work for InPlace {
    fn run(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'_, Result<(), Overloaded>> {
        work();
        Box::pin(std::future::ready(Ok(())))
    }
}

/// The host has no entropy to give.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("no entropy")]
pub struct NoEntropy;

#[derive(Clone)]
pub struct Settings {
    pub version: &'static str,
    /// Scheme, host and port under which browsers and executors reach us, without a trailing slash. Absent: they
    /// reach us on this machine only.
    pub public_url: Option<String>,
    /// Longest time for which a request is held open.
    pub max_wait: Duration,
    /// Who knows it may ask for [`crate::upkeep`]; absent: nobody, the host has a timer.
    pub tick_token: Option<String>,
}

/// `text` as [`Settings::public_url`], where it is one: `https://host[:port]` or `http://`. Strangers are told it, and
/// people type it, so nothing else stands in it.
pub fn public_address(text: &str) -> Option<String> {
    let uri: Uri = text.trim_end_matches('/').parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:[]".contains(&byte);
    let sound = matches!(scheme, "https" | "http")
        && !authority.host().is_empty()
        && authority.as_str().bytes().all(plain)
        && (authority.as_str() == authority.host() || authority.port_u16().is_some_and(|port| port > 0))
        && matches!(uri.path(), "" | "/")
        && uri.query().is_none()
        && !text.contains('#');
    let port = authority.port_u16().map_or_else(String::new, |port| format!(":{port}"));
    sound.then(|| format!("{scheme}://{}{port}", authority.host()))
}

impl Settings {
    /// Whether browsers reach us over HTTPS, as far as the settings tell.
    pub fn is_https(&self) -> bool {
        self.public_url.as_ref().is_some_and(|url| url.starts_with("https://"))
    }
}

/// Bytes of bodies that a process holds at once.
const ROOMS: Rooms = Rooms { executors: 96 << 20, people: 96 << 20, strangers: 64 << 20 };

/// What a process of a host remembers between requests. It may be lost: no answer depends on it.
#[derive(Debug, Default)]
pub struct Process {
    pub(crate) streams: Streams,
    pub(crate) refusals: Refusals,
    pub(crate) shares_looks: bool,
    pub(crate) bodies: Bodies,
    pub(crate) turns: Option<Turns>,
}

impl Process {
    /// For a host whose requests share one process until each has ended. On Workers none may wait for what another one
    /// does, and one that its client gives up is never ended: what it holds would be lost.
    pub fn of_all_requests() -> Self {
        Self {
            shares_looks: true,
            bodies: Bodies::within(ROOMS),
            turns: Some(Turns::default()),
            ..Self::default()
        }
    }

    /// Of event streams and long polls.
    pub fn stream_counts(&self) -> StreamCounts {
        self.streams.counts()
    }
}

/// Everything a handler gets from outside.
pub struct Host {
    pub database: Box<dyn Database>,
    pub notifier: Box<dyn Notifier>,
    pub work: Box<dyn Work>,
    /// Unix milliseconds. Dates tokens and ends long polls; decides nothing else.
    pub now_unix_ms: fn() -> u64,
    /// Fills the slice from a cryptographically secure source.
    pub entropy: fn(&mut [u8]) -> Result<(), NoEntropy>,
    pub settings: Settings,
    pub keys: SigningKeys,
    /// The same in all hosts of a process.
    pub process: Arc<Process>,
}

impl Host {
    /// Unix seconds.
    pub fn now_unix(&self) -> u64 {
        (self.now_unix_ms)() / 1000
    }

    /// The result of costly work.
    ///
    /// # Errors
    /// [`Overloaded`]: it was not done.
    pub async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Overloaded> {
        let (give, take) = futures::channel::oneshot::channel();
        let give = move || {
            // Whoever asked may be gone by now.
            let _ = give.send(work());
        };
        self.work.run(Box::new(give)).await?;
        take.await.map_err(|_| Overloaded)
    }

    pub fn random<const N: usize>(&self) -> Result<[u8; N], NoEntropy> {
        let mut bytes = [0; N];
        (self.entropy)(&mut bytes)?;
        Ok(bytes)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("version", &self.settings.version).finish_non_exhaustive()
    }
}

/// The peer's address as the host knows it; counts sign-in attempts.
#[derive(Debug, Clone, Copy)]
pub struct ClientAddress(pub IpAddr);

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn scope_has_the_shape_the_schema_reads() {
        let id = "01920000-0000-7000-8000-000000000001";
        let scope = Scope::User {
            user: id.parse().unwrap(),
            session: id.parse().unwrap(),
            need: Role::Operator,
            fleet: false,
            trace: id.parse().unwrap(),
        };
        let expected = serde_json::json!({"kind": "user", "user": id, "session": id, "need": "operator",
            "fleet": false, "trace": id});
        assert_eq!(serde_json::to_value(scope).unwrap(), expected);
    }

    #[test]
    fn strangers_take_no_connection_kept_for_executors() {
        struct Asked(std::sync::Mutex<Vec<Connections>>);
        impl Postgres for Asked {
            fn ask<'a>(
                &'a self,
                caller: &'a Scope,
                _: &'a str,
                _: &'static Statement,
                _: &'a str,
            ) -> BoxFuture<'a, Result<Option<String>, Failure>> {
                self.0.lock().unwrap().push(caller.connections());
                Box::pin(std::future::ready(Ok(None)))
            }
        }
        static CHALLENGE: Statement = Statement { name: "executor_protocol/challenge", sql: "" };
        let id = "01920000-0000-7000-8000-000000000001";
        let trace = id.parse().unwrap();
        let asked = Asked(std::sync::Mutex::default());
        for scope in [
            Scope::Anonymous { trace, address: String::new() },
            Scope::User {
                user: id.parse().unwrap(),
                session: id.parse().unwrap(),
                need: Role::Viewer,
                fleet: false,
                trace,
            },
            Scope::Executor { executor: id.parse().unwrap(), session: id.parse().unwrap(), trace },
        ] {
            let answer = asked.run(&scope, &CHALLENGE, String::new()).now_or_never();
            assert_eq!(answer.unwrap().unwrap(), "null");
        }
        let (people, executors) = (Connections::People, Connections::Executors);
        assert_eq!(*asked.0.lock().unwrap(), [people, people, executors]);
    }

    #[test]
    fn a_wake_up_names_its_topics() {
        let site: SiteId = "01920000-0000-7000-8000-000000000001".parse().unwrap();
        assert_eq!(Topic::woken_by(&site.to_string()), [Topic::Site(site)]);
        assert_eq!(Topic::woken_by("events"), [Topic::Events]);
        assert_eq!(Topic::woken_by(&format!("events:{site}")), [Topic::Events, Topic::EventsOf(site)]);
        for foreign in ["", "eventsx", "events:", "nonsense"] {
            assert_eq!(Topic::woken_by(foreign), [], "{foreign}");
        }
    }

    #[test]
    fn postgres_errors_are_told_apart() {
        let of = |state| DatabaseError::from_postgres(state, "not-found", Some("gone"), Some(""));
        assert!(matches!(
            of("RH000"),
            DatabaseError::Rejected { code: ErrorCode::NotFound, needs_role: None, .. }
        ));
        assert!(matches!(of("57014"), DatabaseError::Unavailable(_)));
        assert!(matches!(of("40P01"), DatabaseError::Unavailable(_)));
        assert!(matches!(of("42703"), DatabaseError::Fault(_)));
        assert!(matches!(
            DatabaseError::from_postgres("RH000", "no-such-code", None, None),
            DatabaseError::Fault(_)
        ));
    }
}
