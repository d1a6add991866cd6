//! [`Postgres`] over the Durable Object that holds the connections: a request costs one hop to it instead
//! of a TCP connection and a SCRAM handshake (see `docs/adr/0010-connections-in-a-durable-object.md`).

use futures::future::BoxFuture;
use rackhand_functions::host::{Connections, Failure, Postgres, Scope, Statement};
use worker::{Method, ObjectNamespace, Request, RequestInit, send::SendFuture};

/// Separates the parts of a question; JSON and SQL cannot hold it.
pub const SEPARATOR: &str = "\0";

/// One object serves all people: each statement takes it a fraction of a millisecond.
const PEOPLE: &str = "pool";
/// One is the executors' own: whatever people ask for, leases are renewed in time.
const EXECUTORS: &str = "executors";

pub struct PooledDatabase {
    pub pools: ObjectNamespace,
    /// Where the object should live: near the database. A hint of Cloudflare's, such as `weur`.
    pub location: Option<String>,
}

impl Postgres for PooledDatabase {
    fn ask<'a>(
        &'a self,
        caller: &'a Scope,
        scope: &'a str,
        statement: &'static Statement,
        args: &'a str,
    ) -> BoxFuture<'a, Result<Option<String>, Failure>> {
        Box::pin(async move {
            let question = [scope, statement.sql, args].join(SEPARATOR);
            let pool = match caller.connections() {
                Connections::Executors => EXECUTORS,
                Connections::People => PEOPLE,
            };
            match SendFuture::new(self.send(pool, question)).await {
                Ok((200, answer)) => Ok(Some(answer)),
                Ok((status, text)) => Err(serde_json::from_str(&text)
                    .unwrap_or_else(|_| Failure::Unavailable(format!("the pool answered {status}")))),
                Err(error) => Err(Failure::Unavailable(error.to_string())),
            }
        })
    }
}

impl PooledDatabase {
    async fn send(&self, name: &str, question: String) -> worker::Result<(u16, String)> {
        let mut init = RequestInit::new();
        init.with_method(Method::Post).with_body(Some(question.into()));
        let request = Request::new_with_init("http://pool/run", &init)?;
        let pool = match &self.location {
            Some(location) => self.pools.get_by_name_with_location_hint(name, location)?,
            None => self.pools.get_by_name(name)?,
        };
        let mut response = pool.fetch_with_request(request).await?;
        Ok((response.status_code(), response.text().await?))
    }
}
