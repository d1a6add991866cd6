//! Processes that end with this one.
//!
//! Each is started through `setpriv --pdeathsig`, so that even SIGKILL of this process ends it, and in a process
//! group of its own, so that Ctrl-C reaches only us and everything is stopped in order. Start them from the main
//! thread: the kernel sends the death signal when the starting *thread* ends.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::{
    error::{Failure, Result},
    postgres::Postgres,
};

/// How long a process may take to end when asked.
const GRACE: Duration = Duration::from_secs(8);

/// The name of the database, and of its log.
pub const POSTGRES: &str = "postgres";

/// The background processes, stopped in reverse order, and the database, stopped after everything that uses it.
pub struct Children {
    logs: PathBuf,
    running: Vec<Background>,
    database: Option<Postgres>,
}

pub struct Background {
    pub name: String,
    child: Child,
}

impl Children {
    /// `logs` is the folder their stderr goes to.
    pub fn new(logs: PathBuf) -> Self {
        Self { logs, running: Vec::new(), database: None }
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    /// Stops this database after all others.
    pub fn keep(&mut self, database: Postgres) {
        self.database = Some(database);
    }

    /// Starts a program in the background. Its stderr goes to its log (added to, if it was started before), its
    /// stdout is handed back. What `program` is told over `input` is seen by nobody else.
    pub async fn start(
        &mut self,
        name: &str,
        program: &Path,
        arguments: &[&str],
        input: Option<&str>,
    ) -> Result<ChildStdout> {
        let log_path = self.log(name);
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log_path)
            .map_err(|source| Failure::at("write", &log_path, source))?;
        let mut command = guarded(program, "TERM");
        command.args(arguments).stdout(Stdio::piped()).stderr(log);
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        command.process_group(0);
        let mut child =
            command.spawn().map_err(|source| Failure::io(format!("cannot start {name}"), source))?;
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            stdin
                .write_all(input.as_bytes())
                .await
                .map_err(|source| Failure::io(format!("cannot speak to {name}"), source))?;
        }
        let stdout = child.stdout.take().ok_or_else(|| Failure::Other(format!("{name} has no stdout")))?;
        self.running.push(Background { name: name.to_owned(), child });
        Ok(stdout)
    }

    /// Ends one at once, as a power failure would.
    pub async fn kill(&mut self, name: &str) -> Result<()> {
        let Some(index) = self.running.iter().position(|running| running.name == name) else {
            return Err(Failure::Other(format!("{name} is not running")));
        };
        let mut running = self.running.remove(index);
        send(&running.child, Signal::KILL);
        running
            .child
            .wait()
            .await
            .map_err(|source| Failure::io(format!("cannot wait for {name}"), source))?;
        Ok(())
    }

    /// Names one that has ended by itself, the database first; each is named once.
    pub fn ended(&mut self) -> Option<(String, ExitStatus)> {
        if let Some(status) = self.database.as_mut().and_then(Postgres::ended) {
            self.database = None;
            return Some((POSTGRES.to_owned(), status));
        }
        let (index, status) = self.running.iter_mut().enumerate().find_map(|(index, running)| {
            running.child.try_wait().ok().flatten().map(|status| (index, status))
        })?;
        Some((self.running.remove(index).name, status))
    }

    /// Stops all, the latest first, the database last; whoever does not listen is killed.
    pub async fn stop(&mut self) {
        while let Some(mut running) = self.running.pop() {
            send(&running.child, Signal::TERM);
            if timeout(GRACE, running.child.wait()).await.is_err() {
                send(&running.child, Signal::KILL);
                // A killed process ends; there is nothing to do about one that cannot be waited for.
                let _ = running.child.wait().await;
            }
        }
        self.database = None;
    }
}

/// The first line of a process' output, as soon as it comes. The rest is read and dropped, so that it never blocks.
pub async fn first_line(stdout: ChildStdout, limit: Duration, what: &str, log: &Path) -> Result<String> {
    let mut lines = BufReader::new(stdout).lines();
    let hint = || format!("; its log: {}", log.display());
    let line = timeout(limit, lines.next_line())
        .await
        .map_err(|_| Failure::Other(format!("{what} is not ready after {} s{}", limit.as_secs(), hint())))?
        .map_err(|source| Failure::io(format!("cannot read from {what}"), source))?
        .ok_or_else(|| Failure::Other(format!("{what} ended at once{}", hint())))?;
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok(line)
}

/// Reads and drops what a process prints.
pub fn ignore(stdout: ChildStdout) {
    tokio::spawn(async move {
        let mut lines = BufReader::new(stdout).lines();
        while let Ok(Some(_)) = lines.next_line().await {}
    });
}

/// A command that gets `signal` when this process dies.
pub fn guarded(program: &Path, signal: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", signal, "--"]).arg(program);
    command.kill_on_drop(true);
    command
}

fn send(child: &Child, signal: Signal) {
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
        // It may have ended already.
        let _ = kill_process(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_database_that_ends_is_named_once() {
        let logs = tempfile::tempdir().unwrap();
        let mut children = Children::new(logs.path().to_owned());
        let log = children.log(POSTGRES);
        children.keep(Postgres::create(&logs.path().join("cluster"), &log).unwrap());
        assert!(children.ended().is_none());
        children.database.as_mut().unwrap().stop();
        let (name, status) = children.ended().unwrap();
        assert!(status.success() && children.log(&name).exists(), "its log is named: {name}");
        assert!(children.ended().is_none());
    }
}
