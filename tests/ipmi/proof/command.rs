//! The `rackhand` command as a person runs it: the real binary, a home of its own, the password by stdin or
//! by file.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
    time::Duration,
};

use rackhand_ipmi_tests::process::succeed;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, time::timeout};

/// Longest time for one command.
const LONG: Duration = Duration::from_secs(90);

/// The binary beside this test; made if it is not there.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let exe = std::env::current_exe().unwrap();
        // target/<profile>/deps/<test>
        let folder = exe.ancestors().nth(2).unwrap();
        let path = folder.join("rackhand");
        if !path.is_file() {
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let mut command = Command::new(cargo);
            command.args([
                "build",
                "--quiet",
                "--package",
                "rackhand",
                "--bin",
                "rackhand",
                "--manifest-path",
            ]);
            command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
            command.arg("--target-dir").arg(folder.parent().unwrap());
            if folder.ends_with("release") {
                command.arg("--release");
            }
            succeed(&mut command);
        }
        path
    })
}

pub fn url(address: SocketAddr) -> String {
    format!("ipmi://{address}")
}

/// A person with a home.
pub struct Person {
    pub home: TempDir,
}

impl Person {
    pub fn new() -> Self {
        Self { home: tempfile::Builder::new().prefix("rackhand-test-home-").tempdir().unwrap() }
    }

    /// A file that holds a password.
    pub fn secret(&self, password: &str) -> PathBuf {
        let path = self.home.path().join("password");
        fs::write(&path, password).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// What `command` needs to be run as this person. Whatever it might log, it does.
    pub fn equip<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("XDG_CONFIG_HOME", self.home.path())
            .env("HOME", self.home.path())
            .env("RUST_LOG", "trace")
            .env_remove("RACKHAND_API")
    }

    /// Runs `rackhand bmc …` to its end.
    pub async fn bmc(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new(binary());
        self.equip(command.arg("bmc").args(arguments));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that takes no input may have closed it already.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        timeout(LONG, child.wait_with_output()).await.expect("it ends").unwrap()
    }
}

/// A person with an account on a BMC.
pub struct Account {
    pub person: Person,
    pub url: String,
    pub user: String,
    pub password: String,
}

impl Account {
    pub fn new(address: SocketAddr, user: &str, password: &str) -> Self {
        Self { person: Person::new(), url: url(address), user: user.into(), password: password.into() }
    }

    /// `verb` with everything that signs in, then `more`.
    pub async fn run(&self, verb: &str, more: &[&str]) -> Output {
        let start = [verb, &self.url, "--user", &self.user, "--password-stdin"];
        self.person.bmc(&[&start[..], more].concat(), &format!("{}\n", self.password)).await
    }

    /// What it printed, if it succeeded.
    pub async fn ok(&self, verb: &str, more: &[&str]) -> String {
        let output = self.run(verb, more).await;
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{verb} {more:?}: {}\n{stdout}{stderr}", output.status);
        stdout
    }

    pub async fn json(&self, verb: &str, more: &[&str]) -> Value {
        serde_json::from_str(&self.ok(verb, &[more, &["--json"]].concat()).await).unwrap()
    }

    /// Exit code and standard error of a command that fails.
    pub async fn fails(&self, verb: &str, more: &[&str]) -> (i32, String) {
        let output = self.run(verb, more).await;
        assert!(!output.status.success(), "{verb} {more:?}: {}", text(&output.stdout));
        assert_eq!(text(&output.stdout), "");
        (output.status.code().expect("an exit code"), text(&output.stderr))
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
