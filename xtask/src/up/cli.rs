//! Everything `up` asks of the control plane goes through the `rackhand` command: what a person would type.

use std::{path::PathBuf, process::Stdio, time::Duration};

use serde_json::Value;
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

use crate::{
    children::guarded,
    error::{Failure, Result},
    paths,
};

/// Longest time one command may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Exit code of `rackhand` where some servers failed or are blocked.
const PARTIAL: i32 = 7;

/// The command with its own configuration folder, so that the user's sessions are left alone.
#[derive(Clone)]
pub struct Cli {
    pub config: PathBuf,
}

impl Cli {
    /// Runs a command and reads its JSON.
    pub async fn json(&self, arguments: &[&str], input: Option<&str>) -> Result<Value> {
        self.read(arguments, input, &[0]).await
    }

    /// The same for a plan, which may leave servers blocked.
    pub async fn plan(&self, arguments: &[&str]) -> Result<Value> {
        self.read(arguments, None, &[0, PARTIAL]).await
    }

    async fn read(&self, arguments: &[&str], input: Option<&str>, good: &[i32]) -> Result<Value> {
        let mut command = self.command(arguments);
        command.arg("--json");
        let text = ended(command, input, good).await?;
        serde_json::from_str(&text)
            .map_err(|error| Failure::Other(format!("rackhand {}: not JSON: {error}", arguments.join(" "))))
    }

    /// Runs a command on the terminal: its words are for the person. Gives its exit code.
    pub async fn show(&self, arguments: &[&str]) -> Result<i32> {
        let mut command = self.command(arguments);
        command.stdin(Stdio::null());
        let status = command.status().await.map_err(|source| Failure::io("cannot run rackhand", source))?;
        Ok(status.code().unwrap_or(1))
    }

    /// The same without its data: only what it says of its progress is shown.
    pub async fn follow(&self, arguments: &[&str]) -> Result<i32> {
        let mut command = self.command(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let status = command.status().await.map_err(|source| Failure::io("cannot run rackhand", source))?;
        Ok(status.code().unwrap_or(1))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = guarded(&paths::binaries().join("rackhand"), "TERM");
        command.args(arguments).env("XDG_CONFIG_HOME", &self.config).env_remove("RACKHAND_API");
        command
    }
}

/// Runs any program to its end; `input` goes to its stdin. Its words are in the failure.
pub async fn run(command: Command, input: Option<&str>) -> Result<String> {
    ended(command, input, &[0]).await
}

async fn ended(mut command: Command, input: Option<&str>, good: &[i32]) -> Result<String> {
    let name = format!("{:?}", command.as_std().get_args().nth(3).unwrap_or_default());
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| Failure::io(format!("cannot run {name}"), source))?;
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        stdin
            .write_all(input.as_bytes())
            .await
            .map_err(|source| Failure::io(format!("cannot speak to {name}"), source))?;
    }
    let output = timeout(LIMIT, child.wait_with_output())
        .await
        .map_err(|_| Failure::Other(format!("{name} takes longer than {} s", LIMIT.as_secs())))?
        .map_err(|source| Failure::io(format!("cannot wait for {name}"), source))?;
    if output.status.code().is_some_and(|code| good.contains(&code)) {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(Failure::Other(format!("{name} failed ({}): {}", output.status, words.trim())))
}
