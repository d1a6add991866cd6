//! The journal on disk: SQLite, write-ahead log, `synchronous=FULL`, locked for one process.
//!
//! `flock` on a file beside it makes a second executor fail at once with a clear word and ends with the process,
//! however it ends; SQLite's own locks stay shared so that `rackhand-executor journal` can read meanwhile. Items
//! that were acknowledged and closed runs are kept for the last [`KEEP_RUNS`] runs.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    str::FromStr as _,
};

use futures::future::BoxFuture;
use rackhand_schema::id::RunId;
use sqlx::{
    ConnectOptions as _, Row as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::sync::Mutex;

use super::{Journal, JournalError, Pending, Write};

/// Closed runs kept for reading.
const KEEP_RUNS: i64 = 500;

const SCHEMA: &str = "
create table if not exists entry (
    id integer primary key autoincrement,
    at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ','now')),
    run text not null, epoch integer not null, kind text not null, body text not null
) strict;
create index if not exists entry_run on entry (run, epoch);
create table if not exists outbox (
    run text not null, epoch integer not null, seq integer not null, item text not null,
    primary key (run, epoch, seq)
) strict, without rowid;
create table if not exists meta (key text primary key, value text not null) strict, without rowid;
";

pub struct SqliteJournal {
    connection: Mutex<SqliteConnection>,
    _lock: File,
}

impl From<sqlx::Error> for JournalError {
    fn from(error: sqlx::Error) -> Self {
        Self(error.to_string())
    }
}

fn options(directory: &Path) -> Result<SqliteConnectOptions, JournalError> {
    let options = SqliteConnectOptions::from_str("sqlite://").map_err(JournalError::from)?;
    Ok(options.filename(directory.join("journal.sqlite")).disable_statement_logging())
}

impl SqliteJournal {
    /// Opens or creates the journal of `directory` and takes its lock.
    ///
    /// # Errors
    /// When another process holds the lock, or the file cannot be used.
    pub async fn open(directory: &Path) -> Result<Self, JournalError> {
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(directory.join("lock"))
            .map_err(|error| JournalError(format!("cannot open the lock file: {error}")))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            JournalError(format!("another process works in {}; one at a time", directory.display()))
        })?;
        let mut connection = options(directory)?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .connect()
            .await?;
        sqlx::raw_sql(SCHEMA).execute(&mut connection).await?;
        sqlx::query("delete from entry where run in (select run from entry where kind = 'closed' group by run order by max(id) desc limit -1 offset ?) and run not in (select run from outbox)")
            .bind(KEEP_RUNS)
            .execute(&mut connection)
            .await?;
        Ok(Self { connection: Mutex::new(connection), _lock: lock })
    }

    async fn entry(&self, run: RunId, epoch: u64, kind: &str, body: &Write) -> Result<(), JournalError> {
        let body = serde_json::to_string(body).map_err(|error| JournalError(error.to_string()))?;
        sqlx::query("insert into entry (run, epoch, kind, body) values (?, ?, ?, ?)")
            .bind(run.to_string())
            .bind(number(epoch))
            .bind(kind)
            .bind(body)
            .execute(&mut *self.connection.lock().await)
            .await?;
        Ok(())
    }
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Journal for SqliteJournal {
    fn write(&self, write: Write) -> BoxFuture<'_, Result<(), JournalError>> {
        Box::pin(async move {
            match &write {
                Write::Granted { run, epoch, .. } => self.entry(*run, *epoch, "granted", &write).await,
                Write::Intent { run, epoch, .. } => self.entry(*run, *epoch, "intent", &write).await,
                Write::Outcome { run, epoch, .. } => self.entry(*run, *epoch, "outcome", &write).await,
                Write::Closed { run, epoch } => self.entry(*run, *epoch, "closed", &write).await,
                Write::Outbox { run, epoch, seq, item } => {
                    sqlx::query("insert into outbox (run, epoch, seq, item) values (?, ?, ?, ?) on conflict (run, epoch, seq) do update set item = excluded.item")
                        .bind(run.to_string())
                        .bind(number(*epoch))
                        .bind(number(*seq))
                        .bind(item)
                        .execute(&mut *self.connection.lock().await)
                        .await?;
                    Ok(())
                }
                Write::Acknowledged { run, epoch, seq } => {
                    let mut connection = self.connection.lock().await;
                    let (run, epoch, seq) = (run.to_string(), number(*epoch), number(*seq));
                    sqlx::query("insert into entry (run, epoch, kind, body) select run, epoch, 'reported', item from outbox where run = ? and epoch = ? and seq = ?")
                        .bind(&run)
                        .bind(epoch)
                        .bind(seq)
                        .execute(&mut *connection)
                        .await?;
                    sqlx::query("delete from outbox where run = ? and epoch = ? and seq = ?")
                        .bind(&run)
                        .bind(epoch)
                        .bind(seq)
                        .execute(&mut *connection)
                        .await?;
                    Ok(())
                }
                Write::Meta { key, value: Some(value) } => {
                    sqlx::query("insert into meta (key, value) values (?, ?) on conflict (key) do update set value = excluded.value")
                        .bind(key)
                        .bind(value)
                        .execute(&mut *self.connection.lock().await)
                        .await?;
                    Ok(())
                }
                Write::Meta { key, value: None } => {
                    sqlx::query("delete from meta where key = ?")
                        .bind(key)
                        .execute(&mut *self.connection.lock().await)
                        .await?;
                    Ok(())
                }
            }
        })
    }

    fn pending(&self) -> BoxFuture<'_, Result<Vec<Pending>, JournalError>> {
        Box::pin(async move {
            let rows = sqlx::query("select run, epoch, seq, item from outbox order by run, epoch, seq")
                .fetch_all(&mut *self.connection.lock().await)
                .await?;
            let mut pending = Vec::with_capacity(rows.len());
            for row in rows {
                let run: String = row.try_get(0)?;
                let (epoch, seq): (i64, i64) = (row.try_get(1)?, row.try_get(2)?);
                pending.push(Pending {
                    run: run.parse().map_err(|error| JournalError(format!("outbox: {error}")))?,
                    epoch: u64::try_from(epoch).unwrap_or(0),
                    seq: u64::try_from(seq).unwrap_or(0),
                    item: row.try_get(3)?,
                });
            }
            Ok(pending)
        })
    }

    fn meta<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<String>, JournalError>> {
        Box::pin(async move {
            let row = sqlx::query("select value from meta where key = ?")
                .bind(key)
                .fetch_optional(&mut *self.connection.lock().await)
                .await?;
            row.map(|row| row.try_get(0).map_err(JournalError::from)).transpose()
        })
    }

    fn metas<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<(String, String)>, JournalError>> {
        Box::pin(async move {
            let rows =
                sqlx::query("select key, value from meta where substr(key, 1, length(?1)) = ?1 order by key")
                    .bind(prefix)
                    .fetch_all(&mut *self.connection.lock().await)
                    .await?;
            rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
        })
    }
}

/// One line of [`print`].
pub struct Line {
    pub at: String,
    pub run: String,
    pub epoch: i64,
    pub kind: String,
    pub body: String,
}

/// Everything in the journal of `directory`, oldest first, then what is still to be reported. Only reads, also
/// beside a running executor.
///
/// # Errors
/// When there is no journal or it cannot be read.
pub async fn print(directory: &Path) -> Result<Vec<Line>, JournalError> {
    if !directory.join("journal.sqlite").exists() {
        return Err(JournalError(format!("there is none in {}; has it run yet?", directory.display())));
    }
    let mut connection = options(directory)?.read_only(true).connect().await?;
    let rows = sqlx::query("select at, run, epoch, kind, body from (select id, at, run, epoch, kind, body from entry union all select 9223372036854775807, '', run, epoch, 'unreported', item from outbox) order by id")
        .fetch_all(&mut connection)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Line {
                at: row.try_get(0)?,
                run: row.try_get(1)?,
                epoch: row.try_get(2)?,
                kind: row.try_get(3)?,
                body: row.try_get(4)?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use rackhand_schema::protocol::{Intent, Resolution};
    use serde_json::json;

    use super::*;

    const RUN: RunId = RunId::from_uuid(uuid::Uuid::from_u128(7));

    #[tokio::test]
    async fn what_was_written_is_there_after_a_crash_and_one_process_holds_it() {
        let directory = tempfile::tempdir().unwrap();
        let journal = SqliteJournal::open(directory.path()).await.unwrap();
        let second = SqliteJournal::open(directory.path()).await.err().unwrap();
        assert!(second.to_string().contains("another process"), "{second}");
        let intent = Intent {
            phase: "stage".into(),
            action: "stage_package".into(),
            before: json!({ "jobs": [] }),
            deadline_ms: 1,
        };
        let outbox = |seq, item: &str| Write::Outbox { run: RUN, epoch: 2, seq, item: item.into() };
        for write in [
            Write::Granted { run: RUN, epoch: 2, grant: json!({}) },
            Write::Intent { run: RUN, epoch: 2, intent },
            outbox(1, "\"one\""),
            outbox(2, "\"two\""),
            outbox(2, "\"two again\""),
            Write::Acknowledged { run: RUN, epoch: 2, seq: 1 },
            Write::Outcome { run: RUN, epoch: 2, resolution: Resolution::Applied, evidence: json!(null) },
            Write::Meta { key: "session".into(), value: Some("s".into()) },
            Write::Meta { key: "gone".into(), value: Some("x".into()) },
            Write::Meta { key: "gone".into(), value: None },
        ] {
            journal.write(write).await.unwrap();
        }
        // Beside the running one, as `rackhand-executor journal` does.
        let kinds: Vec<String> =
            print(directory.path()).await.unwrap().into_iter().map(|line| line.kind).collect();
        assert_eq!(kinds, ["granted", "intent", "reported", "outcome", "unreported"]);
        drop(journal);
        let journal = SqliteJournal::open(directory.path()).await.unwrap();
        let pending = journal.pending().await.unwrap();
        assert_eq!(pending, [Pending { run: RUN, epoch: 2, seq: 2, item: "\"two again\"".into() }]);
        assert_eq!(journal.meta("session").await.unwrap().as_deref(), Some("s"));
        assert_eq!(journal.metas("g").await.unwrap(), []);
    }
}
