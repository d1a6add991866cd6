//! A database for each test, spoken to exactly as the hosts do: one `rackhand.run` under a scope.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

use crate::cluster::Cluster;

/// A refusal by code, or the server's own error text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// An error code of rackhand-schema; or `SQLSTATE …` for anything that is not a refusal of ours.
    pub code: String,
    pub detail: String,
    pub needs_role: String,
}

pub struct TestDatabase {
    pub name: String,
    /// Logged in as `rackhand_api`, as the hosts are.
    pub api: Client,
    /// Superuser: arranges and inspects.
    pub owner: Client,
    cluster: Cluster,
}

impl TestDatabase {
    /// A migrated, empty database.
    pub async fn new() -> Self {
        static TEMPLATE: OnceCell<()> = OnceCell::const_new();
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let cluster = Cluster::shared();
        let admin = connect(&cluster.owner_url("postgres")).await;
        TEMPLATE
            .get_or_init(|| async {
                admin.batch_execute("create database template_rackhand").await.unwrap();
                let url = cluster.owner_url("template_rackhand");
                rackhand_server::setup::migrate(&url).await.expect("migrations run");
                admin.batch_execute(Cluster::ADMIT_API).await.unwrap();
            })
            .await;
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        admin.batch_execute(&format!("create database {name} template template_rackhand")).await.unwrap();
        Self::at(cluster.clone(), name).await
    }

    /// Until everything committed so far is shown: transactions of other tests' databases hold it back, too.
    pub async fn shown(&self) {
        let mark = self.value("select pg_current_xact_id()::text::bigint").await.as_u64().unwrap();
        let behind = format!("select pg_snapshot_xmin(pg_current_snapshot())::text::bigint <= {mark}");
        for _ in 0..600 {
            if self.value(&behind).await == Value::Bool(false) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("a transaction has been open for half a minute");
    }

    /// In a cluster of the test's own.
    pub async fn alone(cluster: Cluster, name: &str) -> Self {
        let name = name.to_owned();
        let admin = connect(&cluster.owner_url("postgres")).await;
        admin.batch_execute(&format!("create database {name}")).await.unwrap();
        rackhand_server::setup::migrate(&cluster.owner_url(&name)).await.expect("migrations run");
        admin.batch_execute(Cluster::ADMIT_API).await.unwrap();
        Self::at(cluster, name).await
    }

    async fn at(cluster: Cluster, name: String) -> Self {
        Self {
            api: connect(&cluster.api_url(&name)).await,
            owner: connect(&cluster.owner_url(&name)).await,
            name,
            cluster,
        }
    }

    /// New connections of this test's own, after the cluster was stopped and started.
    pub async fn reconnect(&mut self) {
        self.api = connect(&self.api_url()).await;
        self.owner = connect(&self.owner_url()).await;
    }

    /// A further connection as `rackhand_api`.
    pub async fn connect(&self) -> Client {
        connect(&self.api_url()).await
    }

    /// A further connection as superuser.
    pub async fn connect_owner(&self) -> Client {
        connect(&self.owner_url()).await
    }

    pub fn api_url(&self) -> String {
        self.cluster.api_url(&self.name)
    }

    pub fn owner_url(&self) -> String {
        self.cluster.owner_url(&self.name)
    }

    /// `select <statement>($1)` under `scope`, as a host sends it.
    pub async fn run(&self, scope: &Value, statement: &str, args: Value) -> Result<Value, Refused> {
        run(&self.api, scope, statement, args).await
    }

    /// Returns once `count` sessions of this database wait for a lock; fails after half a minute.
    pub async fn until_waiting(&self, count: i64) {
        let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'
            and datname = current_database()";
        let reached = async {
            while self.value(waiting).await != count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let within = tokio::time::timeout(Duration::from_secs(30), reached);
        within.await.unwrap_or_else(|_| panic!("{count} sessions do not wait for a lock"));
    }

    /// One value of a query as superuser.
    pub async fn value(&self, query: &str) -> Value {
        let row = self.owner.query_one(&format!("select to_jsonb(({query}))::text"), &[]).await.unwrap();
        row.get::<_, Option<&str>>(0).map_or(Value::Null, |text| serde_json::from_str(text).unwrap())
    }
}

pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("connects to Postgres");
    tokio::spawn(connection);
    client
}

/// One statement under a scope. A bare function name is called with the arguments.
pub async fn run(client: &Client, scope: &Value, statement: &str, args: Value) -> Result<Value, Refused> {
    let sql = if statement.contains(' ') {
        statement.to_owned()
    } else {
        format!("select rackhand.{statement}($1)")
    };
    let row = client
        .query_one(
            "select rackhand.run($1::text::jsonb, $2::text, $3::text::jsonb)",
            &[&scope.to_string(), &sql, &args.to_string()],
        )
        .await
        .map_err(|error| {
            let Some(database) = error.as_db_error() else { panic!("connection lost: {error}") };
            let ours = database.code().code() == "RH000";
            Refused {
                code: if ours {
                    database.message().to_owned()
                } else {
                    format!("SQLSTATE {}: {}", database.code().code(), database.message())
                },
                detail: database.detail().unwrap_or_default().to_owned(),
                needs_role: database.hint().unwrap_or_default().to_owned(),
            }
        })?;
    Ok(row.get::<_, Option<&str>>(0).map_or(json!(null), |text| serde_json::from_str(text).unwrap()))
}
