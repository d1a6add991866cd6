//! What the owner does: roles and migrations, and the first admin.
//!
//! Everything is done in transactions, and nothing outlives one on the connection: a pooler in transaction mode may
//! stand in between.

use std::{fmt, iter, time::Duration};

use garde::Validate as _;
use rackhand_functions::auth::password;
use rackhand_schema::identity::NewUser;
use sha2::{Digest as _, Sha256};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Transaction, error::SqlState, types::Type};

use crate::address::{Address, AddressError, NoConnection};

/// Migrations and role bootstrap travel inside the binary: version, name, SQL.
const MIGRATIONS: &[(i32, &str, &str)] = include!(concat!(env!("OUT_DIR"), "/migrations.rs"));
const BOOTSTRAP: &str = include_str!("../../../schema/bootstrap.sql");

/// Held by one `migrate` at a time, for the length of a transaction. Any number that nobody else takes in this
/// database.
const LOCK: i64 = 0x7261_636b_6861_6e64;
/// First in every transaction of the owner: in `public` others may have put a function that fits a call better than
/// the one of Postgres, and it would run with the owner's rights.
const SEARCH_PATH: &str = "set local search_path = pg_catalog, pg_temp";
/// A statement that alters a table waits so long for those that use it: while it waits, everything that comes after
/// it waits too.
const LOCK_TIMEOUT: &str = "set local lock_timeout = '2s'";
const LOCK_ATTEMPTS: u32 = 15;
const LOCK_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("the settings of the owner's connection")]
    Address(#[from] AddressError),
    #[error(transparent)]
    Connect(#[from] NoConnection),
    #[error("the database refused")]
    Database(#[from] tokio_postgres::Error),
    #[error("{0} failed and was undone; what was applied before stays")]
    Step(Step, #[source] tokio_postgres::Error),
    #[error(
        "{0} waited {LOCK_ATTEMPTS} times for statements that use the same tables, and was undone; what was applied \
         before stays. Run `migrate` again when less is going on"
    )]
    Busy(Step),
    #[error("migration {0} was applied to this database with another text than this program has")]
    Changed(i32),
    #[error("this database has migration {0}, which this program does not know: use the newer program")]
    Newer(i32),
    #[error("no entropy for a salt")]
    Entropy,
    #[error("the password could not be hashed")]
    Hash,
    #[error("this user cannot be created: {0}")]
    Refused(String),
    #[error(
        "{0} has an account already; nothing was changed. Its password stays as it is, and so do its sessions. To \
         choose a new password for it, end its sessions and make it a fleet admin, run the same command with \
         --reset-password"
    )]
    AccountExists(String),
}

impl SetupError {
    /// Whether a lock was waited for in vain.
    fn is_busy(&self) -> bool {
        let (Self::Step(_, cause) | Self::Database(cause)) = self else { return false };
        cause.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
    }

    /// Whether another database of the same cluster made the roles at the same moment: they are the cluster's, and
    /// our lock is the database's.
    fn is_raced(&self) -> bool {
        let Self::Step(Step::Roles, cause) = self else { return false };
        cause.code().is_some_and(races)
    }
}

/// Whether a refusal of the step that makes the roles may come from another `migrate` at the same moment. Postgres
/// has no code of its own for a row that another session has just changed: it is an internal error, in whatever
/// language the server speaks. One that lasts is reported after the last attempt.
fn races(code: &SqlState) -> bool {
    [SqlState::UNIQUE_VIOLATION, SqlState::DUPLICATE_OBJECT, SqlState::INTERNAL_ERROR].contains(code)
}

/// The owner's connection; it ends when dropped.
struct Owner {
    client: Client,
    driver: JoinHandle<()>,
}

impl Owner {
    /// With the same rules for TLS as every other connection.
    async fn connect(url: &str) -> Result<Self, SetupError> {
        let (client, connection) = Address::parse(url)?.connect().await?;
        let driver = tokio::spawn(async move {
            // Whoever asked gets the error as the answer.
            let _ = connection.await;
        });
        Ok(Self { client, driver })
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Makes the roles if they are missing and applies the migrations that are not applied yet, each in a transaction.
///
/// # Errors
/// The database is unreachable, refuses, or is newer than this program. What was done before stays.
pub async fn migrate(owner_url: &str) -> Result<(), SetupError> {
    let migrations = MIGRATIONS.iter().map(Step::Migration);
    walk(owner_url, iter::once(Step::Roles).chain(migrations).chain(iter::once(Step::Era))).await
}

/// Makes the roles and nothing else: what a dump needs before it can be restored into another cluster.
///
/// # Errors
/// As [`migrate`].
pub async fn make_roles(owner_url: &str) -> Result<(), SetupError> {
    walk(owner_url, iter::once(Step::Roles)).await
}

async fn walk(owner_url: &str, steps: impl Iterator<Item = Step>) -> Result<(), SetupError> {
    let mut owner = Owner::connect(owner_url).await?;
    for step in steps {
        let mut attempt = 1;
        while let Err(error) = take(&mut owner.client, step).await {
            let raced = error.is_raced();
            if !raced && !error.is_busy() {
                return Err(error);
            }
            if attempt == LOCK_ATTEMPTS {
                return Err(if raced { error } else { SetupError::Busy(step) });
            }
            attempt += 1;
            let why = if raced {
                "another database of this cluster"
            } else {
                "statements that use the same tables"
            };
            tracing::info!(%step, "waits for {why}");
            tokio::time::sleep(LOCK_PAUSE).await;
        }
    }
    Ok(())
}

/// What is done in one transaction.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    Roles,
    /// Version, name, SQL.
    Migration(&'static (i32, &'static str, &'static str)),
    /// After a restore from a dump, events go on in a new era.
    Era,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Roles => f.write_str("the step that makes the roles"),
            Self::Migration((version, name, _)) => write!(f, "migration {version} `{name}`"),
            Self::Era => f.write_str("the step that looks whether the database was restored"),
        }
    }
}

async fn take(client: &mut Client, step: Step) -> Result<(), SetupError> {
    let transaction = locked(client).await?;
    match step {
        Step::Roles => {
            transaction.batch_execute(BOOTSTRAP).await.map_err(|error| SetupError::Step(step, error))?;
            let newest = applied(&transaction).await?.last().map(|(version, _)| *version);
            if newest > MIGRATIONS.last().map(|(version, ..)| *version) {
                return Err(SetupError::Newer(newest.unwrap_or_default()));
            }
            transaction.commit().await?;
            Ok(())
        }
        Step::Migration((version, name, sql)) => {
            let digest = hex::encode(Sha256::digest(sql));
            if let Some((_, found)) = applied(&transaction).await?.iter().find(|(known, _)| known == version)
            {
                return if *found == digest { Ok(()) } else { Err(SetupError::Changed(*version)) };
            }
            let work = async {
                transaction.batch_execute(sql).await?;
                transaction.batch_execute("set local role rackhand_owner").await?;
                let row = [(version as _, Type::INT4), (name as _, Type::TEXT), (&digest as _, Type::TEXT)];
                let insert = "insert into rackhand.migration (version, name, sha256) values ($1, $2, $3)";
                transaction.query_typed(insert, &row).await?;
                transaction.commit().await
            };
            work.await.map_err(|error| SetupError::Step(step, error))?;
            tracing::info!(version, name, "applied");
            Ok(())
        }
        Step::Era => {
            let begin = "set local role rackhand_owner; select rackhand.era_begin()";
            transaction.batch_execute(begin).await.map_err(|error| SetupError::Step(step, error))?;
            transaction.commit().await?;
            Ok(())
        }
    }
}

/// Versions and SHA-256 (hex) of the migrations that are applied, in order.
async fn applied(transaction: &Transaction<'_>) -> Result<Vec<(i32, String)>, SetupError> {
    // Not by to_regclass: it may answer from before another `migrate` that we have just waited for.
    let there = "select exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = 'rackhand' and c.relname = 'migration')";
    let rows = transaction.query_typed(there, &[]).await?;
    if !rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(false) {
        return Ok(Vec::new());
    }
    transaction.batch_execute("set local role rackhand_owner").await?;
    let rows = transaction
        .query_typed("select version, sha256 from rackhand.migration order by version", &[])
        .await?;
    transaction.batch_execute("set local role none").await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// A transaction in which nothing of others is found by its bare name.
async fn begun(client: &mut Client) -> Result<Transaction<'_>, SetupError> {
    let transaction = client.transaction().await?;
    transaction.batch_execute(SEARCH_PATH).await?;
    Ok(transaction)
}

/// A transaction that no other `migrate` has at the same time, and that waits for no table longer than
/// [`LOCK_TIMEOUT`] says.
async fn locked(client: &mut Client) -> Result<Transaction<'_>, SetupError> {
    let transaction = begun(client).await?;
    transaction.query_typed("select pg_advisory_xact_lock($1)", &[(&LOCK, Type::INT8)]).await?;
    transaction.batch_execute(LOCK_TIMEOUT).await?;
    Ok(transaction)
}

/// What `admin create` does with an account that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Nothing.
    Refuse,
    /// It gets name and password anew, is enabled and becomes a fleet admin; its sessions end. The way back in.
    Reset,
}

/// Makes a fleet admin.
///
/// # Errors
/// The e-mail address, name or password is not one that the API would take, the e-mail address has an account and
/// `existing` says to refuse, or the database does not answer or refuses.
pub async fn create_admin(
    owner_url: &str,
    email: &str,
    name: &str,
    password: &str,
    existing: Existing,
) -> Result<(), SetupError> {
    let user =
        NewUser { email: email.to_owned(), name: name.to_owned(), password: Some(password.to_owned()) };
    user.validate()
        .map_err(|report| SetupError::Refused(report.to_string().trim_end().replace('\n', "; ")))?;
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|_| SetupError::Entropy)?;
    let hash = password::hash_with_salt(password, &salt).map_err(|_| SetupError::Hash)?;
    let reset = existing == Existing::Reset;
    let args =
        serde_json::json!({"email": email, "name": name, "password_hash": hash, "reset": reset}).to_string();
    let mut owner = Owner::connect(owner_url).await?;
    let transaction = begun(&mut owner.client).await?;
    transaction.batch_execute("set local role rackhand_owner").await?;
    let create = "select rackhand.admin_create($1::text::jsonb) ->> 'id' is not null";
    let rows = transaction.query_typed(create, &[(&args, Type::TEXT)]).await?;
    if !rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(false) {
        return Err(SetupError::AccountExists(email.to_owned()));
    }
    transaction.commit().await?;
    Ok(())
}
