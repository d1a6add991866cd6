//! The pool, and [`Postgres`] over it.
//!
//! Every request sends the one statement [`RUN_SQL`], prepared once for each connection, so it costs one
//! round trip.

use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts};
use futures::future::BoxFuture;
use rackhand_functions::host::{Failure, Postgres, RUN_SQL};
use tokio_postgres::{Config, config::Host, config::SslMode, types::Type};

use crate::pg_tls::{PgTls, PgTlsError};

/// How long one statement may take; Postgres ends it first, with a proper error (`schema/bootstrap.sql`).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a request waits for a free connection, or for a new one.
const POOL_WAIT: Duration = Duration::from_secs(5);

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

/// Connections of the role `rackhand_api`.
pub struct Pooled {
    pub pool: Pool,
}

impl Postgres for Pooled {
    fn ask<'a>(
        &'a self,
        scope: &'a str,
        sql: &'static str,
        args: &'a str,
    ) -> BoxFuture<'a, Result<Option<String>, Failure>> {
        Box::pin(async move {
            let client = self.pool.get().await.map_err(|error| Failure::Unavailable(chain(&error)))?;
            let ask = async {
                let prepared =
                    client.prepare_typed_cached(RUN_SQL, &[Type::TEXT, Type::TEXT, Type::TEXT]).await?;
                client.query_one(&prepared, &[&scope, &sql, &args]).await?.try_get(0)
            };
            let Ok(answer) = tokio::time::timeout(ANSWER_TIMEOUT, ask).await else {
                // What it still does must not meet the next request.
                drop(Object::take(client));
                return Err(Failure::Unavailable("no answer in time".to_owned()));
            };
            answer.map_err(|error: tokio_postgres::Error| match error.as_db_error() {
                Some(db) => Failure::Refused {
                    sqlstate: db.code().code().to_owned(),
                    message: db.message().to_owned(),
                    detail: db.detail().map(str::to_owned),
                    hint: db.hint().map(str::to_owned),
                },
                None => Failure::Unavailable(chain(&error)),
            })
        })
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
