//! The Durable Object that speaks Postgres: a few connections, kept open between requests. Afterwards it wakes
//! whom a statement said to wake.
//!
//! A statement is a transaction of its own, so nothing of one request is left on a connection for the next.
//! A connection that does not answer in time is thrown away. The object may be restarted at any time: then
//! connections are made anew, and a statement under way is answered `database-unavailable`.

use std::{
    cell::{Cell, RefCell},
    error::Error,
    rc::Rc,
    time::Duration,
};

use futures::future::{Either, select};
use rackhand_functions::{
    database_url::{UNENCODED, after_scheme, is_encoded},
    host::{Failure, RUN_SQL},
};
use tokio_postgres::{Client, Config, NoTls, config::SslMode, error::Severity, types::Type};
use worker::{
    Delay, DurableObject, Env, Request, Response, SecureTransport, Socket, State, durable_object,
    postgres_tls::PassthroughTls,
};

use crate::{database::SEPARATOR, topics};

/// A Worker may have six connections open at once; waking takes one.
const CONNECTIONS: usize = 5;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often to look for a connection that is being opened.
const OPENING: Duration = Duration::from_millis(10);
/// Postgres itself ends a statement earlier (`statement_timeout` of the role).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Two answers to the same question, which a cache in between would make equal.
const CLOCK_SQL: &str = "select to_jsonb(clock_timestamp()::text)";
const CACHED: &str = "answers come from a cache, which would show one user's rows to another: \
    switch off caching of the Hyperdrive configuration (wrangler hyperdrive update ID --caching-disabled)";

#[durable_object]
pub struct Pool {
    state: State,
    env: Env,
    connections: RefCell<Vec<Rc<Connection>>>,
    opening: Cell<usize>,
}

struct Connection {
    client: Client,
    /// Statements under way.
    busy: Cell<usize>,
}

impl DurableObject for Pool {
    fn new(state: State, env: Env) -> Self {
        Self { state, env, connections: RefCell::default(), opening: Cell::new(0) }
    }

    async fn fetch(&self, mut request: Request) -> worker::Result<Response> {
        let question = request.text().await?;
        let mut parts = question.splitn(3, SEPARATOR);
        let (Some(scope), Some(sql), Some(args)) = (parts.next(), parts.next(), parts.next()) else {
            return Response::error("not a question", 400);
        };
        match self.run(scope, sql, args).await {
            Ok((answer, wakes)) => {
                if let Some(wakes) = wakes {
                    let env = self.env.clone();
                    self.state.wait_until(async move { topics::wake(&env, &wakes).await });
                }
                Response::ok(answer)
            }
            Err(trouble) => Ok(Response::from_json(&trouble)?.with_status(503)),
        }
    }
}

impl Pool {
    /// The answer, and the topics to wake.
    async fn run(&self, scope: &str, sql: &str, args: &str) -> Result<(String, Option<String>), Failure> {
        let connection = self.connection().await?;
        connection.busy.set(connection.busy.get() + 1);
        let outcome = within(ANSWER_TIMEOUT, ask(&connection.client, scope, sql, args)).await;
        connection.busy.set(connection.busy.get() - 1);
        let (failure, over) = match outcome {
            Some(Ok(answer)) => return Ok(answer),
            Some(Err(error)) => (explain(&error), is_over(&error)),
            None => (unavailable("no answer in time"), true),
        };
        if over {
            self.connections.borrow_mut().retain(|one| !Rc::ptr_eq(one, &connection));
        }
        Err(failure)
    }

    /// An idle connection, or a new one, or the one with the fewest statements to answer first.
    async fn connection(&self) -> Result<Rc<Connection>, Failure> {
        let mut patience = CONNECT_TIMEOUT;
        loop {
            let least_busy = {
                let mut connections = self.connections.borrow_mut();
                connections.retain(|one| !one.client.is_closed());
                connections.iter().min_by_key(|one| one.busy.get()).cloned()
            };
            let room = self.connections.borrow().len() + self.opening.get() < CONNECTIONS;
            match least_busy {
                Some(connection) if connection.busy.get() == 0 || !room => return Ok(connection),
                // As many as there may be are being opened for others.
                None if !room && !patience.is_zero() => {
                    Delay::from(OPENING).await;
                    patience = patience.saturating_sub(OPENING);
                }
                None if !room => return Err(unavailable("Postgres accepts no connection in time")),
                _ => break,
            }
        }
        self.opening.set(self.opening.get() + 1);
        let opened = within(CONNECT_TIMEOUT, open(&self.env)).await;
        self.opening.set(self.opening.get() - 1);
        let client = opened
            .ok_or_else(|| unavailable("Postgres did not accept a connection in time"))?
            .map_err(|error| unavailable(chain(&*error)))?;
        let connection = Rc::new(Connection { client, busy: Cell::new(0) });
        self.connections.borrow_mut().push(Rc::clone(&connection));
        Ok(connection)
    }
}

/// Connects through the Hyperdrive binding `DB`, or else to the secret `DATABASE_URL`.
async fn open(env: &Env) -> Result<Client, Box<dyn Error>> {
    let hyperdrive = env.hyperdrive("DB").ok();
    let url = match &hyperdrive {
        Some(hyperdrive) => hyperdrive.connection_string(),
        None => env
            .secret("DATABASE_URL")
            .map_err(|_| "neither the binding DB nor the secret DATABASE_URL is there")?
            .to_string(),
    };
    let after_scheme = after_scheme(&url)
        .ok_or("the database URL is not valid: it must begin with postgres:// or postgresql://")?;
    if !is_encoded(after_scheme) {
        return Err(format!("the database URL is not valid: {UNENCODED}").into());
    }
    let mut config: Config = url.parse().map_err(|_| "the database URL is not valid")?;
    config.application_name("rackhand-worker");
    let client = match hyperdrive {
        Some(hyperdrive) => start(config.connect_raw(hyperdrive.connect()?, NoTls).await?),
        None => {
            let (host, port) = address(&config)?;
            let local =
                host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
            let plain = match config.get_ssl_mode() {
                SslMode::Disable => true,
                SslMode::Prefer => local,
                _ => false,
            };
            if plain {
                start(config.connect_raw(Socket::builder().connect(host, port)?, NoTls).await?)
            } else {
                config.ssl_mode(SslMode::Require);
                let socket =
                    Socket::builder().secure_transport(SecureTransport::StartTls).connect(host, port)?;
                start(config.connect_raw(socket, PassthroughTls).await?)
            }
        }
    };
    let (first, _) = ask(&client, "{}", CLOCK_SQL, "null").await?;
    let (second, _) = ask(&client, "{}", CLOCK_SQL, "null").await?;
    if first == second {
        return Err(CACHED.into());
    }
    Ok(client)
}

/// Keeps a connection going in the background.
fn start<T>((client, connection): (Client, tokio_postgres::Connection<Socket, T>)) -> Client
where
    tokio_postgres::Connection<Socket, T>: Future<Output = Result<(), tokio_postgres::Error>> + 'static,
{
    wasm_bindgen_futures::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::warn!(error = chain(&error), "a connection to Postgres has ended");
        }
    });
    client
}

fn address(config: &Config) -> Result<(String, u16), Box<dyn Error>> {
    match config.get_hosts().first() {
        Some(tokio_postgres::config::Host::Tcp(host)) => {
            Ok((host.clone(), config.get_ports().first().copied().unwrap_or(5432)))
        }
        None => Err("the database URL names no host".into()),
    }
}

async fn ask(
    client: &Client,
    scope: &str,
    sql: &str,
    args: &str,
) -> Result<(String, Option<String>), tokio_postgres::Error> {
    let parameters = [scope, sql, args];
    let [scope, sql, args] = &parameters;
    let rows =
        client.query_typed(RUN_SQL, &[(scope, Type::TEXT), (sql, Type::TEXT), (args, Type::TEXT)]).await?;
    let Some(row) = rows.first() else { return Ok(("null".to_owned(), None)) };
    let answer: Option<String> = row.try_get(0)?;
    Ok((answer.unwrap_or_else(|| "null".to_owned()), row.try_get(1)?))
}

async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let (work, limit) = (std::pin::pin!(work), std::pin::pin!(Delay::from(limit)));
    match select(work, limit).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(_) => None,
    }
}

fn unavailable(why: impl Into<String>) -> Failure {
    Failure::Unavailable(why.into())
}

/// Whether the connection has ended with this error, or is about to: Postgres hangs up after one that is fatal.
fn is_over(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_none_or(|db| !matches!(db.parsed_severity(), Some(Severity::Error)))
}

/// Why a statement failed.
fn explain(error: &tokio_postgres::Error) -> Failure {
    match error.as_db_error() {
        Some(db) => Failure::Refused {
            sqlstate: db.code().code().to_owned(),
            message: db.message().to_owned(),
            detail: db.detail().map(str::to_owned),
            hint: db.hint().map(str::to_owned),
        },
        None => unavailable(chain(error)),
    }
}

/// An error with its sources, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}
