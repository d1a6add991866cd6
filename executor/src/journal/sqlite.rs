//! The journal on disk: SQLite, write-ahead log, `synchronous=FULL`, locked for one process.
//!
//! `flock` on a file beside it makes a second executor fail at once with a clear word and ends with the process,
//! however it ends. What is asked for while a transaction waits for the disk goes into the next one together, or
//! runs side by side would wait in line. SQLite's own locks stay shared so that `rackhand-executor journal` can read
//! meanwhile.
//!
//! What still has to be reported is kept until it is. What is over is kept for reading, while the service runs and at
//! each start no more of it than the last [`KEEP_RUNS`] closed runs, [`KEEP_DAYS`] days and [`KEEP_BYTES`] bytes: the
//! control plane has all of it.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    str::FromStr as _,
    sync::Arc,
};

use futures::future::BoxFuture;
use rackhand_schema::id::RunId;
use sqlx::{
    ConnectOptions as _, Connection as _, Row as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::{Journal, JournalError, Pending, Write};

/// Closed runs kept for reading.
const KEEP_RUNS: i64 = 500;
/// Days for which anything is kept for reading, of runs that were never closed here, too.
const KEEP_DAYS: i64 = 30;
/// Bytes of entries kept for reading.
const KEEP_BYTES: i64 = 64 * 1024 * 1024;
/// Entries are pruned after so many commits.
const PRUNE_EVERY: usize = 2_000;

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

/// Makes the write-ahead log as long as it gets before SQLite begins it anew (1,000 pages): a commit that
/// makes a file longer waits for the file system's own log, too, which takes milliseconds instead of a
/// fraction of one.
const ROOM: [&str; 4] = [
    "drop table if exists room",
    "create table room as select zeroblob(1000 * (select page_size from pragma_page_size)) as pages",
    "drop table room",
    "pragma wal_checkpoint(restart)",
];

/// Commits that share one wait for the disk, at most.
const GROUP: usize = 256;

/// Belongs to the runtime in which it was opened.
pub struct SqliteJournal {
    connection: Arc<Mutex<SqliteConnection>>,
    queue: mpsc::UnboundedSender<Commit>,
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
        prune(&mut connection, KEEP_BYTES).await?;
        for statement in ROOM {
            sqlx::raw_sql(statement).execute(&mut connection).await?;
        }
        let connection = Arc::new(Mutex::new(connection));
        let (queue, commits) = mpsc::unbounded_channel();
        tokio::spawn(work(Arc::clone(&connection), commits));
        Ok(Self { connection, queue, _lock: lock })
    }
}

async fn prune(connection: &mut SqliteConnection, bytes: i64) -> Result<(), JournalError> {
    sqlx::query("delete from entry where run in (select run from entry where kind = 'closed' group by run order by max(id) desc limit -1 offset ?) and run not in (select run from outbox)")
        .bind(KEEP_RUNS)
        .execute(&mut *connection)
        .await?;
    sqlx::query("delete from entry where at < strftime('%Y-%m-%dT%H:%M:%fZ', 'now', ? || ' days')")
        .bind(-KEEP_DAYS)
        .execute(&mut *connection)
        .await?;
    sqlx::query("delete from entry where id <= (select id from (select id, sum(length(body)) over (order by id desc) as newer from entry) where newer > ? order by id desc limit 1)")
        .bind(bytes)
        .execute(connection)
        .await?;
    Ok(())
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Writes that wait for the disk together.
struct Commit {
    writes: Vec<Write>,
    done: oneshot::Sender<Result<(), JournalError>>,
}

/// Ends when the journal is dropped and everything in the queue is written.
async fn work(connection: Arc<Mutex<SqliteConnection>>, mut queue: mpsc::UnboundedReceiver<Commit>) {
    let (mut commits, mut unpruned) = (Vec::new(), 0);
    while queue.recv_many(&mut commits, GROUP).await > 0 {
        let mut connection = connection.lock().await;
        unpruned += commits.len();
        if unpruned >= PRUNE_EVERY {
            unpruned = 0;
            // A disk that is full is told by the commit.
            if let Err(error) = prune(&mut connection, KEEP_BYTES).await {
                tracing::warn!(%error, "old entries stay");
            }
        }
        let together = apply(&mut connection, commits.iter().flat_map(|commit| &commit.writes)).await;
        let alone = commits.len() == 1;
        for Commit { writes, done } in commits.drain(..) {
            let result = match &together {
                Err(error) if alone => Err(error.clone()),
                // One of them is to blame.
                Err(_) => apply(&mut connection, writes.iter()).await,
                Ok(()) => Ok(()),
            };
            // Whoever asked may be gone.
            let _ = done.send(result);
        }
    }
}

async fn apply(
    connection: &mut SqliteConnection,
    writes: impl Iterator<Item = &Write> + Send,
) -> Result<(), JournalError> {
    let mut transaction = connection.begin().await?;
    for write in writes {
        apply_one(&mut transaction, write).await?;
    }
    Ok(transaction.commit().await?)
}

async fn apply_one(connection: &mut SqliteConnection, write: &Write) -> Result<(), JournalError> {
    match write {
        Write::Granted { run, epoch, .. } => entry(connection, *run, *epoch, "granted", write).await,
        Write::Intent { run, epoch, .. } => entry(connection, *run, *epoch, "intent", write).await,
        Write::Outcome { run, epoch, .. } => entry(connection, *run, *epoch, "outcome", write).await,
        Write::Closed { run, epoch } => entry(connection, *run, *epoch, "closed", write).await,
        Write::Outbox { run, epoch, seq, item } => {
            sqlx::query("insert into outbox (run, epoch, seq, item) values (?, ?, ?, ?) on conflict (run, epoch, seq) do update set item = excluded.item")
                .bind(run.to_string())
                .bind(number(*epoch))
                .bind(number(*seq))
                .bind(item)
                .execute(connection)
                .await?;
            Ok(())
        }
        Write::Acknowledged { run, epoch, seq } => {
            let (run, epoch, seq) = (run.to_string(), number(*epoch), number(*seq));
            for statement in [
                "insert into entry (run, epoch, kind, body) select run, epoch, 'reported', item from outbox where run = ? and epoch = ? and seq = ?",
                "delete from outbox where run = ? and epoch = ? and seq = ?",
            ] {
                sqlx::query(statement).bind(&run).bind(epoch).bind(seq).execute(&mut *connection).await?;
            }
            Ok(())
        }
        Write::Meta { key, value: Some(value) } => {
            sqlx::query("insert into meta (key, value) values (?, ?) on conflict (key) do update set value = excluded.value")
                .bind(key)
                .bind(value)
                .execute(connection)
                .await?;
            Ok(())
        }
        Write::Meta { key, value: None } => {
            sqlx::query("delete from meta where key = ?").bind(key).execute(connection).await?;
            Ok(())
        }
    }
}

async fn entry(
    connection: &mut SqliteConnection,
    run: RunId,
    epoch: u64,
    kind: &str,
    body: &Write,
) -> Result<(), JournalError> {
    let body = serde_json::to_string(body).map_err(|error| JournalError(error.to_string()))?;
    sqlx::query("insert into entry (run, epoch, kind, body) values (?, ?, ?, ?)")
        .bind(run.to_string())
        .bind(number(epoch))
        .bind(kind)
        .bind(body)
        .execute(connection)
        .await?;
    Ok(())
}

impl Journal for SqliteJournal {
    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<(), JournalError>> {
        let (done, finished) = oneshot::channel();
        // Queued here and not when the future is first polled: the order of the calls is the order on disk.
        let queued = self.queue.send(Commit { writes, done });
        Box::pin(async move {
            let closed = || JournalError("it is closed".to_owned());
            queued.map_err(|_| closed())?;
            finished.await.map_err(|_| closed())?
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

/// A meta value of the journal in `directory`; none where there is no journal. Only reads, also beside a running
/// executor.
///
/// # Errors
/// When it cannot be read.
pub async fn read_meta(directory: &Path, key: &str) -> Result<Option<String>, JournalError> {
    if !directory.join("journal.sqlite").exists() {
        return Ok(None);
    }
    let mut connection = options(directory)?.read_only(true).connect().await?;
    let row =
        sqlx::query("select value from meta where key = ?").bind(key).fetch_optional(&mut connection).await?;
    row.map(|row| row.try_get(0).map_err(JournalError::from)).transpose()
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

    /// A commit that makes the log longer takes its time.
    #[tokio::test]
    async fn the_log_is_as_long_from_the_beginning_as_it_gets() {
        let directory = tempfile::tempdir().unwrap();
        let length = || std::fs::metadata(directory.path().join("journal.sqlite-wal")).unwrap().len();
        for start in 1..=2 {
            let journal = SqliteJournal::open(directory.path()).await.unwrap();
            let before = length();
            assert!(before >= 1000 * 4096, "{before}");
            for n in 0..300 {
                let item = Write::Outbox { run: RUN, epoch: start, seq: n, item: "x".repeat(500) };
                journal.write(item).await.unwrap();
            }
            assert_eq!(length(), before);
        }
    }

    /// Runs that wait for days, and runs that were never closed here, fill no disk; what is still to be reported stays.
    #[tokio::test]
    async fn entries_are_pruned_while_it_runs_by_number_age_and_size() {
        let directory = tempfile::tempdir().unwrap();
        let journal = SqliteJournal::open(directory.path()).await.unwrap();
        let item = |n: u64| Write::Outbox { run: RUN, epoch: 1, seq: n, item: "x".repeat(100) };
        let open = item(1_000_000);
        journal.write(open).await.unwrap();
        for n in 1..=1000 {
            let done = Write::Acknowledged { run: RUN, epoch: 1, seq: n };
            journal.commit(vec![item(n), done]).await.unwrap();
        }
        let count = async || {
            let mut connection = journal.connection.lock().await;
            let row = sqlx::query("select count(*) from entry").fetch_one(&mut *connection).await.unwrap();
            row.get::<i64, _>(0)
        };
        assert_eq!(count().await, 1000);
        prune(&mut *journal.connection.lock().await, 5_000).await.unwrap();
        assert_eq!(count().await, 50, "the newest 5000 bytes");
        let kept = print(directory.path()).await.unwrap();
        assert_eq!(kept.last().map(|line| line.kind.as_str()), Some("unreported"));
        sqlx::query("update entry set at = '2020-01-01T00:00:00.000Z'")
            .execute(&mut *journal.connection.lock().await)
            .await
            .unwrap();
        // In the worker, by itself.
        let closed = |n: u128| Write::Closed { run: RunId::from_uuid(uuid::Uuid::from_u128(n)), epoch: 1 };
        let writes = (0..2 * PRUNE_EVERY as u128 + 600).map(|n| journal.write(closed(n)));
        futures::future::join_all(writes).await;
        let kept = count().await;
        assert!(kept <= KEEP_RUNS + (PRUNE_EVERY + GROUP) as i64, "{kept} of 4600");
        assert_eq!(journal.pending().await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn commits_at_once_keep_their_order_and_fail_alone() {
        let directory = tempfile::tempdir().unwrap();
        let journal = SqliteJournal::open(directory.path()).await.unwrap();
        let setup = "create trigger no before insert on meta when new.key = 'bad' begin select raise(abort, 'no'); end";
        sqlx::raw_sql(setup).execute(&mut *journal.connection.lock().await).await.unwrap();
        let meta = |key: &str, value: &str| Write::Meta { key: key.into(), value: Some(value.into()) };
        let commits: Vec<_> = (0..300)
            .map(|n| match n {
                7 => journal.commit(vec![meta("last", "never"), meta("bad", "x")]),
                n => journal.commit(vec![meta("last", &n.to_string()), meta(&format!("n{n}"), "")]),
            })
            .collect();
        let results = futures::future::join_all(commits).await;
        let failed: Vec<_> = results.iter().enumerate().filter(|(_, result)| result.is_err()).collect();
        assert!(
            matches!(failed.as_slice(), [(7, Err(error))] if error.to_string().contains("no")),
            "{failed:?}"
        );
        assert_eq!(journal.meta("last").await.unwrap().as_deref(), Some("299"));
        assert_eq!(journal.metas("n").await.unwrap().len(), 299);
    }
}
