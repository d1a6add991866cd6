//! The pool, and [`Postgres`] over it.
//!
//! Every request sends the one statement [`RUN_SQL`], unnamed, so it costs one round trip, is a transaction
//! of its own, and leaves nothing on the connection: a pooler in transaction mode may stand in between.

use std::{sync::Arc, time::Duration};

use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, QueueMode, RecyclingMethod, Runtime, Timeouts,
};
use futures::future::BoxFuture;
use rackhand_functions::host::{Connections, Failure, Postgres, RUN_SQL, Scope, Statement};
use tokio_postgres::{
    error::{Severity, SqlState},
    types::Type,
};

use crate::{
    address::Address,
    pg_tls::PgTls,
    shares::{Shares, Turn},
};

/// How long one statement may take; Postgres ends it first, with a proper error (`schema/bootstrap.sql`).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a request waits for a free connection, or for a new one.
const POOL_WAIT: Duration = Duration::from_secs(5);
/// How long a statement whose caller is gone may take to end by itself.
const GRACE: Duration = Duration::from_millis(250);
/// How long a cancel request may take.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

fn pool(address: &Address, connections: usize) -> Result<Pool, deadpool_postgres::BuildError> {
    let how = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_config(address.config.clone(), address.tls.clone(), how);
    let timeouts = Timeouts { wait: Some(POOL_WAIT), create: Some(POOL_WAIT), recycle: Some(POOL_WAIT) };
    // The one used last has everything at hand.
    let order = QueueMode::Lifo;
    Pool::builder(manager)
        .max_size(connections)
        .queue_mode(order)
        .timeouts(timeouts)
        .runtime(Runtime::Tokio1)
        .build()
}

/// Connections of the role `rackhand_api`. A third of them is for executors alone: whatever people ask for,
/// leases are renewed in time.
#[derive(Clone)]
pub struct Pooled {
    pub people: Pool,
    pub executors: Pool,
    pub shares: Arc<Shares>,
    /// For cancel requests.
    tls: PgTls,
}

impl Pooled {
    /// # Errors
    /// When the pools cannot be set up.
    pub fn new(address: &Address, connections: usize) -> Result<Self, deadpool_postgres::BuildError> {
        let executors = (connections / 3).max(1);
        let people = connections.saturating_sub(executors).max(1);
        Ok(Self {
            people: pool(address, people)?,
            executors: pool(address, executors)?,
            shares: Shares::of(people),
            tls: address.tls.clone(),
        })
    }
}

impl Postgres for Pooled {
    fn ask<'a>(
        &'a self,
        caller: &'a Scope,
        scope: &'a str,
        statement: &'static Statement,
        args: &'a str,
    ) -> BoxFuture<'a, Result<Option<String>, Failure>> {
        Box::pin(async move {
            let turn = self.shares.take(caller, statement).await.ok_or(Failure::TooMany)?;
            let pool = match caller.connections() {
                Connections::Executors => &self.executors,
                Connections::People => &self.people,
            };
            let client = pool.get().await.map_err(|error| Failure::Unavailable(chain(&error)))?;
            // A caller who goes away drops this future in the middle; what the statement still does must
            // neither go on for nobody nor meet the next request. It counts until it has ended.
            let give_up = |(client, turn)| abandon(client, turn, self.tls.clone());
            let held = scopeguard::guard((client, turn), give_up);
            let client = &held.0;
            let parameters =
                [(&scope as _, Type::TEXT), (&statement.sql as _, Type::TEXT), (&args as _, Type::TEXT)];
            let ask = async {
                let rows = client.query_typed(RUN_SQL, &parameters).await?;
                rows.first().map(|row| row.try_get(0)).transpose().map(Option::flatten)
            };
            let Ok(answer) = tokio::time::timeout(ANSWER_TIMEOUT, ask).await else {
                return Err(Failure::Unavailable("no answer in time".to_owned()));
            };
            // Answered: back into the pool, unless Postgres hangs up after an error that is fatal.
            let (client, _turn) = scopeguard::ScopeGuard::into_inner(held);
            let fatal = |error: &tokio_postgres::Error| {
                error.as_db_error().is_some_and(|db| db.parsed_severity() != Some(Severity::Error))
            };
            if answer.as_ref().is_err_and(fatal) {
                drop(Object::take(client));
            }
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

/// Most statements end in a moment, and their connection goes back into the pool: a new one costs more than they
/// do, and an executor breaks off its lease request at the end of each run. What lasts is cancelled, and the
/// connection thrown away. It counts as one of the pool's until then, and is open until then: a pooler cancels only
/// for a client that it still has. Once cancelled it is not used again even if the statement ends at once, because
/// nothing tells when a cancel request arrives.
fn abandon(client: Object, turn: Turn, tls: PgTls) {
    // Without a runtime the process is at its end.
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return drop(Object::take(client)) };
    runtime.spawn(async move {
        let _turn = turn;
        // Sent behind the statement, and answered when that has ended.
        if let Ok(Ok(())) = tokio::time::timeout(GRACE, client.batch_execute("")).await {
            return;
        }
        match tokio::time::timeout(CANCEL_TIMEOUT, client.cancel_token().cancel_query(tls)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = chain(&error), "a statement could not be cancelled"),
            Err(_) => tracing::warn!("a statement could not be cancelled in time"),
        }
        drop(Object::take(client));
    });
}

/// What a first look at the database found.
pub enum FirstLook {
    Ready,
    /// It may come yet: the server starts, and answers 503 until then.
    NotYet(String),
    /// Nobody but a person can mend this.
    Refused(String),
}

/// Logs in once and looks whether the schema is there.
pub async fn first_look(pool: &Pool, address: &Address) -> FirstLook {
    let look = async {
        let client = pool.get().await.map_err(|error| {
            let said = |error: &(dyn std::error::Error + 'static)| address.unconnected(error).to_string();
            match &error {
                deadpool_postgres::PoolError::Backend(refused) if is_lasting(refused) => {
                    FirstLook::Refused(said(refused))
                }
                deadpool_postgres::PoolError::Backend(error) => FirstLook::NotYet(said(error)),
                other => FirstLook::NotYet(said(other)),
            }
        })?;
        let sql = "select to_regprocedure('rackhand.run(jsonb, text, jsonb)') is not null";
        let found = client.query_typed(sql, &[]).await.and_then(|rows| match rows.first() {
            Some(row) => row.try_get::<_, bool>(0),
            None => Ok(false),
        });
        match found {
            Ok(true) => Ok(()),
            Ok(false) => Err(FirstLook::Refused(format!(
                "Rackhand's schema is not in the database at {}: run `rackhand-server migrate` first",
                address.place()
            ))),
            Err(error) => Err(FirstLook::NotYet(chain(&error))),
        }
    };
    match look.await {
        Ok(()) => FirstLook::Ready,
        Err(found) => found,
    }
}

/// Whether trying again cannot help: user, password or database are not what the server knows.
fn is_lasting(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| {
        [
            SqlState::INVALID_PASSWORD,
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            SqlState::INVALID_CATALOG_NAME,
        ]
        .contains(code)
    })
}

/// An error with its sources, in one line. Some libraries repeat a source in their own words; it is said
/// once.
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

    #[derive(Debug, thiserror::Error)]
    #[error("the outer part: {0}")]
    struct Repeats(#[source] std::io::Error);

    #[test]
    fn a_cause_is_said_once() {
        let text = chain(&Repeats(std::io::Error::other("role does not exist")));
        assert_eq!(text, "the outer part: role does not exist");
    }
}
