//! [`Database`] over the Durable Object that holds the connections: a request costs one hop to it instead
//! of a TCP connection and a SCRAM handshake (see `docs/adr/0010-connections-in-a-durable-object.md`).

use futures::future::BoxFuture;
use rackhand_functions::host::{Database, DatabaseError, Scope, Statement};
use serde::{Deserialize, Serialize};
use worker::{Method, ObjectNamespace, Request, RequestInit, send::SendFuture};

/// Separates the parts of a question; Postgres' text cannot hold it.
pub const SEPARATOR: char = '\0';

/// One object serves all: each statement takes it a fraction of a millisecond.
const NAME: &str = "pool";

/// Why a statement gave no answer, between the object and its callers.
#[derive(Serialize, Deserialize)]
#[serde(tag = "trouble", rename_all = "snake_case")]
pub enum Trouble {
    /// What Postgres said.
    Postgres { sqlstate: String, message: String, detail: Option<String>, hint: Option<String> },
    /// No connection, or no answer.
    Unavailable { why: String },
}

pub struct PooledDatabase {
    pub pools: ObjectNamespace,
    /// Where the object should live: near the database. A hint of Cloudflare's, such as `weur`.
    pub location: Option<String>,
}

impl Database for PooledDatabase {
    fn run<'a>(
        &'a self,
        scope: &'a Scope,
        statement: &'static Statement,
        args: String,
    ) -> BoxFuture<'a, Result<String, DatabaseError>> {
        Box::pin(async move {
            let scope = serde_json::to_string(scope)
                .map_err(|error| DatabaseError::Fault(format!("the scope as JSON: {error}")))?;
            if args.contains(SEPARATOR) {
                return Err(DatabaseError::Fault(format!("{}: a NUL in the arguments", statement.name)));
            }
            let question = format!("{scope}{SEPARATOR}{}{SEPARATOR}{args}", statement.sql);
            let (status, text) = SendFuture::new(self.ask(question))
                .await
                .map_err(|error| DatabaseError::Unavailable(format!("{}: {error}", statement.name)))?;
            if status == 200 {
                return Ok(text);
            }
            Err(match serde_json::from_str(&text) {
                Ok(Trouble::Postgres { sqlstate, message, detail, hint }) => {
                    let error =
                        DatabaseError::from_postgres(&sqlstate, &message, detail.as_deref(), hint.as_deref());
                    named(error, statement)
                }
                Ok(Trouble::Unavailable { why }) => {
                    DatabaseError::Unavailable(format!("{}: {why}", statement.name))
                }
                Err(_) => {
                    DatabaseError::Unavailable(format!("{}: the pool answered {status}", statement.name))
                }
            })
        })
    }
}

impl PooledDatabase {
    async fn ask(&self, question: String) -> worker::Result<(u16, String)> {
        let mut init = RequestInit::new();
        init.with_method(Method::Post).with_body(Some(question.into()));
        let request = Request::new_with_init("http://pool/run", &init)?;
        let pool = match &self.location {
            Some(location) => self.pools.get_by_name_with_location_hint(NAME, location)?,
            None => self.pools.get_by_name(NAME)?,
        };
        let mut response = pool.fetch_with_request(request).await?;
        Ok((response.status_code(), response.text().await?))
    }
}

fn named(error: DatabaseError, statement: &Statement) -> DatabaseError {
    match error {
        DatabaseError::Fault(cause) => DatabaseError::Fault(format!("{}: {cause}", statement.name)),
        other => other,
    }
}
