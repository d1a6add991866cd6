//! The pool, and [`Database`] over it.
//!
//! Every request sends the one statement [`RUN_SQL`], prepared once for each connection, so it costs one
//! round trip. A deadlock or serialisation failure has changed nothing and is tried again; anything else
//! that is not a refusal becomes `database-unavailable` or a fault.

use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts};
use futures::future::BoxFuture;
use rackhand_functions::host::{Database, DatabaseError, RUN_SQL, Scope, Statement};
use tokio_postgres::{Config, config::Host, config::SslMode, error::SqlState, types::Type};

use crate::pg_tls::{PgTls, PgTlsError};

/// How long one statement may take; Postgres ends it first, with a proper error (`schema/bootstrap.sql`).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a request waits for a free connection, or for a new one.
const POOL_WAIT: Duration = Duration::from_secs(5);
/// A deadlock's victim starts anew so many times.
const RETRIES: u32 = 3;

#[derive(Debug, thiserror::Error)]
pub enum PoolSetupError {
    #[error("the database URL is not valid")]
    Url(#[source] tokio_postgres::Error),
    #[error("TLS to the database")]
    Tls(#[from] PgTlsError),
    #[error("the connection pool")]
    Pool(#[from] deadpool_postgres::BuildError),
}

/// Reads a database URL and settles what it leaves open: patience, name, and TLS beyond this machine.
///
/// # Errors
/// When the URL is not one. The error does not repeat it: it may hold a password.
pub fn parse_url(url: &str) -> Result<Config, PoolSetupError> {
    let mut config: Config = url.trim().parse().map_err(PoolSetupError::Url)?;
    let local = config.get_hosts().iter().all(|host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
        }
    });
    if config.get_ssl_mode() == SslMode::Prefer {
        // "Prefer" would fall back to plain text when somebody in between refuses TLS.
        config.ssl_mode(if local { SslMode::Disable } else { SslMode::Require });
    }
    if config.get_application_name().is_none() {
        config.application_name("rackhand-server");
    }
    config.connect_timeout(POOL_WAIT);
    Ok(config)
}

pub fn pool(config: &Config, connections: usize) -> Result<Pool, PoolSetupError> {
    let how = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_config(config.clone(), PgTls::new()?, how);
    let timeouts = Timeouts { wait: Some(POOL_WAIT), create: Some(POOL_WAIT), recycle: Some(POOL_WAIT) };
    Ok(Pool::builder(manager).max_size(connections).timeouts(timeouts).runtime(Runtime::Tokio1).build()?)
}

pub struct Postgres {
    pub pool: Pool,
}

impl Database for Postgres {
    fn run<'a>(
        &'a self,
        scope: &'a Scope,
        statement: &'static Statement,
        args: String,
    ) -> BoxFuture<'a, Result<String, DatabaseError>> {
        Box::pin(async move {
            let scope = serde_json::to_string(scope)
                .map_err(|error| DatabaseError::Fault(format!("the scope as JSON: {error}")))?;
            let mut tried = 0;
            loop {
                tried += 1;
                match self.once(&scope, statement, &args).await {
                    Err(error) if tried <= RETRIES && may_retry(&error) => {
                        tracing::info!(
                            statement = statement.name,
                            tried,
                            "deadlock or conflict, trying again"
                        );
                    }
                    outcome => return outcome.map_err(|error| explain(error, statement)),
                }
            }
        })
    }
}

enum Failure {
    Pool(deadpool_postgres::PoolError),
    Postgres(tokio_postgres::Error),
    NoAnswer,
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

impl Postgres {
    async fn once(&self, scope: &str, statement: &Statement, args: &str) -> Result<String, Failure> {
        let client = self.pool.get().await.map_err(Failure::Pool)?;
        let ask = async {
            let prepared =
                client.prepare_typed_cached(RUN_SQL, &[Type::TEXT, Type::TEXT, Type::TEXT]).await?;
            client.query_one(&prepared, &[&scope, &statement.sql, &args]).await
        };
        let Ok(row) = tokio::time::timeout(ANSWER_TIMEOUT, ask).await else {
            // What it still does must not meet the next request.
            drop(Object::take(client));
            return Err(Failure::NoAnswer);
        };
        let answer: Option<String> = row?.try_get(0)?;
        Ok(answer.unwrap_or_else(|| "null".to_owned()))
    }
}

fn may_retry(failure: &Failure) -> bool {
    let Failure::Postgres(error) = failure else { return false };
    matches!(error.code(), Some(code)
        if *code == SqlState::T_R_DEADLOCK_DETECTED || *code == SqlState::T_R_SERIALIZATION_FAILURE)
}

fn explain(failure: Failure, statement: &Statement) -> DatabaseError {
    match failure {
        Failure::Postgres(error) => match error.as_db_error() {
            Some(db) => {
                let explained =
                    DatabaseError::from_postgres(db.code().code(), db.message(), db.detail(), db.hint());
                match explained {
                    DatabaseError::Fault(cause) => {
                        DatabaseError::Fault(format!("{}: {cause}", statement.name))
                    }
                    other => other,
                }
            }
            None => DatabaseError::Unavailable(format!("{}: {}", statement.name, chain(&error))),
        },
        Failure::Pool(error) => DatabaseError::Unavailable(format!("{}: {}", statement.name, chain(&error))),
        Failure::NoAnswer => DatabaseError::Unavailable(format!("{}: no answer in time", statement.name)),
    }
}

/// An error with its sources, in one line. Some libraries repeat a source in their own words; it is said once.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let words = source.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let refused = sqlx::Error::Protocol("role does not exist".to_owned());
        let failed = crate::setup::SetupError::from(sqlx::migrate::MigrateError::Execute(refused));
        let text = chain(&failed);
        assert_eq!(text.matches("role does not exist").count(), 1, "{text}");
        assert!(text.starts_with("a migration failed: "), "{text}");
    }

    #[test]
    fn tls_is_required_beyond_this_machine_unless_refused() {
        let mode = |url: &str| parse_url(url).unwrap().get_ssl_mode();
        assert_eq!(mode("postgres://u@127.0.0.1/db"), SslMode::Disable);
        assert_eq!(mode("postgres://u@%2Frun%2Fpostgresql/db"), SslMode::Disable);
        assert_eq!(mode("postgres://u@db.example/db"), SslMode::Require);
        assert_eq!(mode("postgres://u@db.example/db?sslmode=disable"), SslMode::Disable);
        let refused = parse_url("postgres://user:hunter2@[").unwrap_err();
        assert!(!chain(&refused).contains("hunter2"), "{}", chain(&refused));
    }
}
