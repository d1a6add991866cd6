//! [`Postgres`] over `spin:postgres`: one statement, text in and text out.
//!
//! A connection is opened for each statement; Spin keeps the real ones in a pool behind that. Spin's
//! parameters are strictly typed, hence the casts in [`RUN_SQL`]. A refusal may come when the query is sent or
//! after its (missing) rows, and the hint stands among the extras: see `pg_extras` in Spin's
//! `crates/factor-outbound-pg/src/client.rs`.

use std::{pin::pin, time::Duration};

use futures::future::{BoxFuture, Either, select};
use rackhand_functions::host::{Failure, Postgres, RUN_SQL, Scope, Statement};
use spin_sdk::pg::{
    Certificate, Connection, DbValue, Error, OpenOptions, ParameterValue, PgError, QueryError,
};

/// Postgres ends a statement after 15 s, with a proper error; this is for a database that fell silent. Counted
/// in short steps, because jco holds on to an abandoned sleep until it ends.
const ANSWER_TIMEOUT_STEPS: u32 = 20;
const STEP: Duration = Duration::from_secs(1);

pub struct SpinPostgres {
    /// URL of the role `rackhand_api`.
    pub address: String,
    /// PEM of the authority that signed the database's certificate, where it is not a public one.
    pub ca: Option<String>,
}

impl Postgres for SpinPostgres {
    fn ask<'a>(
        &'a self,
        _caller: &'a Scope,
        scope: &'a str,
        statement: &'static Statement,
        args: &'a str,
    ) -> BoxFuture<'a, Result<Option<String>, Failure>> {
        Box::pin(async move { self.in_time(scope, statement.sql, args).await.map_err(explain) })
    }
}

impl SpinPostgres {
    async fn in_time(&self, scope: &str, sql: &str, args: &str) -> Result<Option<String>, Error> {
        let patience = async {
            for _ in 0..ANSWER_TIMEOUT_STEPS {
                spin_sdk::time::sleep(STEP).await;
            }
        };
        match select(pin!(self.once(scope, sql, args)), pin!(patience)).await {
            Either::Left((answer, _)) => answer,
            Either::Right(_) => Err(PgError::ConnectionFailed("no answer in time".to_owned()).into()),
        }
    }

    async fn once(&self, scope: &str, sql: &str, args: &str) -> Result<Option<String>, Error> {
        let connection = match &self.ca {
            None => Connection::open(self.address.as_str()).await?,
            Some(ca) => {
                let options = OpenOptions { ca_root: Some(Certificate::Text(ca.clone())) };
                Connection::open_with_options(&self.address, options).await?
            }
        };
        let texts = [scope, sql, args].map(|text| ParameterValue::Str(text.to_owned()));
        let mut found = connection.query(RUN_SQL, texts).await?;
        let row = found.rows().next().await;
        found.result().await?;
        match row.and_then(|row| row.into_iter().next()) {
            Some(DbValue::Str(text)) => Ok(Some(text)),
            Some(DbValue::DbNull) => Ok(None),
            _ => Err(Error::Decode("the answer is not one text".to_owned())),
        }
    }
}

fn explain(error: Error) -> Failure {
    let first_line = |cause: &str| cause.lines().next().unwrap_or_default().to_owned();
    match error {
        Error::PgError(PgError::QueryFailed(QueryError::DbError(db))) => Failure::Refused {
            sqlstate: db.code,
            message: db.message,
            detail: db.detail,
            hint: db.extras.into_iter().find(|(name, _)| name == "hint").map(|(_, hint)| hint),
        },
        // Without a Postgres error the connection broke, or there never was one.
        Error::PgError(
            PgError::ConnectionFailed(cause)
            | PgError::QueryFailed(QueryError::Text(cause))
            | PgError::Other(cause),
        ) => Failure::Unavailable(first_line(&cause)),
        Error::PgError(PgError::BadParameter(cause) | PgError::ValueConversionFailed(cause))
        | Error::Decode(cause) => Failure::Fault(first_line(&cause)),
    }
}
