//! `rackhand-server` as people start it.

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use rackhand_tests::server::client;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

pub const ADMIN: &str = "ada@example.test";
pub const PASSWORD: &str = "a password of Ada's own";
pub const SIGNING_KEY: &str = "0707070707070707070707070707070707070707070707070707070707070707";
pub const TICK_TOKEN: &str = "the token of hosted ticks";

/// What `cargo xtask test hosted` builds first.
fn binary() -> PathBuf {
    xtask::paths::binaries().join("rackhand-server")
}

/// Runs it to its end; its words if it fails.
pub async fn run(arguments: &[&str], input: &str) -> Result<(), String> {
    let mut child = tokio::process::Command::new(binary())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("cargo build -p rackhand-server");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// A server that runs. It ends when dropped.
pub struct Program {
    pub url: String,
    metrics: String,
    folder: tempfile::TempDir,
    child: Child,
}

impl Program {
    pub async fn serve(database_url: &str, listen_url: Option<&str>) -> Self {
        Self::serve_with_files(database_url, listen_url, None).await
    }

    /// `files`: how many it may have open.
    pub async fn serve_with_files(database_url: &str, listen_url: Option<&str>, files: Option<u32>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig=KILL", "--"]);
        if let Some(files) = files {
            command.args(["prlimit", &format!("--nofile={files}"), "--"]);
        }
        command.arg(binary());
        command.args(["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]);
        command.arg("--database-url-file").arg(file("database-url", database_url));
        command.arg("--signing-key-file").arg(file("signing-key", SIGNING_KEY));
        command.arg("--tick-token-file").arg(file("tick-token", TICK_TOKEN));
        if let Some(url) = listen_url {
            command.arg("--listen-url-file").arg(file("listen-url", url));
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let output = child.stdout.take().unwrap();
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(output).read_line(&mut line).unwrap();
            line
        });
        let line = line.await.unwrap();
        let mut program = Self { url: String::new(), metrics: String::new(), folder, child };
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}{}", program.log()));
        program.url = ready["url"].as_str().unwrap().to_owned();
        program.metrics = ready["metrics_url"].as_str().unwrap().to_owned();
        program
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// The value of a gauge.
    pub async fn metric(&self, name: &str) -> f64 {
        let page = client().get(&self.metrics).send().await.unwrap().text().await.unwrap();
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
