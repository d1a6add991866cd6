//! The `rackhand` command as a person runs it: the real binary, a home of its own, passwords on stdin.

use std::process::{Command, Output, Stdio};

use rackhand_server::setup;
use serde_json::Value;

use crate::{server::TestServer, site::TestSite, stack::binary};

/// A person with a password and a signed-in command line.
pub struct CommandLine {
    home: tempfile::TempDir,
}

impl CommandLine {
    /// A home without any session, for what needs no control plane.
    pub fn new() -> Self {
        Self { home: tempfile::Builder::new().prefix("rackhand-test-home-").tempdir().unwrap() }
    }

    /// Makes a fleet admin and signs in as them.
    pub async fn signed_in(site: &TestSite, server: &TestServer, email: &str, password: &str) -> Self {
        let (owner, name) = (site.database.owner_url(), "Cleo Commandline");
        setup::create_admin(&owner, email, name, password, setup::Existing::Refuse).await.expect("an admin");
        let line = Self::new();
        line.ok(&["login", &server.running.url, "--email", email, "--password-stdin"], password).await;
        line
    }

    /// Runs to the end without blocking the runtime that may be serving the command.
    pub async fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new(binary("rackhand"));
        command
            .args(arguments)
            .env("XDG_CONFIG_HOME", self.home.path())
            .env("HOME", self.home.path())
            .env_remove("RACKHAND_API")
            .env_remove("RACKHAND_CA_FILE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let input = format!("{input}\n");
        let running = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().expect("the command starts");
            // A command that takes no input may have closed it already.
            let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes());
            child.wait_with_output().unwrap()
        });
        running.await.unwrap()
    }

    /// Standard output of a command that must succeed.
    pub async fn ok(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run(arguments, input).await;
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(
            output.status.success(),
            "rackhand {arguments:?}: {}\n{text}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }

    pub async fn json(&self, arguments: &[&str], input: &str) -> Value {
        serde_json::from_str(&self.ok(arguments, input).await).expect("JSON")
    }
}

impl Default for CommandLine {
    fn default() -> Self {
        Self::new()
    }
}
