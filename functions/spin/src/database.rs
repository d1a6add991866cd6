//! [`Database`] over `spin:postgres`: one statement, text in and text out.
//!
//! A connection is opened for each statement; Spin keeps the real ones in a pool behind that. Spin's
//! parameters are strictly typed, hence the casts in [`RUN_SQL`]. A refusal may come when the query is sent or
//! after its (missing) rows, and the hint stands among the extras: see `pg_extras` in Spin's
//! `crates/factor-outbound-pg/src/client.rs`.

use std::{pin::pin, time::Duration};

use futures::future::{BoxFuture, Either, select};
use rackhand_functions::host::{Database, DatabaseError, RUN_SQL, Scope, Statement};
use spin_sdk::pg::{
    Certificate, Connection, DbError, DbValue, Error, OpenOptions, ParameterValue, PgError, QueryError,
};

/// Postgres ends a statement after 15 s, with a proper error; this is for a database that fell silent. Counted
/// in short steps, because jco holds on to an abandoned sleep until it ends.
const ANSWER_TIMEOUT_STEPS: u32 = 20;
const STEP: Duration = Duration::from_secs(1);
/// A deadlock's victim starts anew so many times: it has changed nothing.
const RETRIES: u32 = 3;

pub struct SpinPostgres {
    /// URL of the role `rackhand_api`.
    pub address: String,
    /// PEM of the authority that signed the database's certificate, where it is not a public one.
    pub ca: Option<String>,
}

impl Database for SpinPostgres {
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
                match self.in_time(&scope, statement, &args).await {
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

impl SpinPostgres {
    async fn in_time(&self, scope: &str, statement: &Statement, args: &str) -> Result<String, Error> {
        let patience = async {
            for _ in 0..ANSWER_TIMEOUT_STEPS {
                spin_sdk::time::sleep(STEP).await;
            }
        };
        match select(pin!(self.once(scope, statement, args)), pin!(patience)).await {
            Either::Left((answer, _)) => answer,
            Either::Right(_) => Err(PgError::ConnectionFailed("no answer in time".to_owned()).into()),
        }
    }

    async fn once(&self, scope: &str, statement: &Statement, args: &str) -> Result<String, Error> {
        let connection = match &self.ca {
            None => Connection::open(self.address.as_str()).await?,
            Some(ca) => {
                let options = OpenOptions { ca_root: Some(Certificate::Text(ca.clone())) };
                Connection::open_with_options(&self.address, options).await?
            }
        };
        let texts = [scope, statement.sql, args].map(|text| ParameterValue::Str(text.to_owned()));
        let mut found = connection.query(RUN_SQL, texts).await?;
        let row = found.rows().next().await;
        found.result().await?;
        match row.and_then(|row| row.into_iter().next()) {
            Some(DbValue::Str(text)) => Ok(text),
            Some(DbValue::DbNull) => Ok("null".to_owned()),
            _ => Err(Error::Decode("the answer is not one text".to_owned())),
        }
    }
}

fn may_retry(error: &Error) -> bool {
    let Error::PgError(PgError::QueryFailed(QueryError::DbError(db))) = error else { return false };
    ["40001", "40P01"].contains(&db.code.as_str())
}

fn explain(error: Error, statement: &Statement) -> DatabaseError {
    let named = |cause: &str| format!("{}: {}", statement.name, cause.lines().next().unwrap_or_default());
    match error {
        Error::PgError(PgError::QueryFailed(QueryError::DbError(DbError {
            code,
            message,
            detail,
            extras,
            ..
        }))) => {
            let hint = extras.iter().find(|(name, _)| name == "hint").map(|(_, hint)| hint.as_str());
            match DatabaseError::from_postgres(&code, &message, detail.as_deref(), hint) {
                DatabaseError::Fault(cause) => DatabaseError::Fault(named(&cause)),
                other => other,
            }
        }
        // Without a Postgres error the connection broke, or there never was one.
        Error::PgError(
            PgError::ConnectionFailed(cause)
            | PgError::QueryFailed(QueryError::Text(cause))
            | PgError::Other(cause),
        ) => DatabaseError::Unavailable(named(&cause)),
        Error::PgError(PgError::BadParameter(cause) | PgError::ValueConversionFailed(cause))
        | Error::Decode(cause) => DatabaseError::Fault(named(&cause)),
    }
}
