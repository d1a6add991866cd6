//! One Postgres cluster for the test process.
//!
//! Postgres refuses to run as root, so root starts it as the `postgres` user. It is told to die with the
//! thread that started it, which lives as long as the process.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{OnceLock, mpsc},
};

/// A running cluster. It trusts every local connection: it listens on loopback only and holds test data.
pub struct Cluster {
    pub port: u16,
}

impl Cluster {
    /// The process' cluster; started by the first caller.
    pub fn shared() -> &'static Self {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        CLUSTER.get_or_init(|| {
            let (sender, receiver) = mpsc::channel();
            std::thread::Builder::new()
                .name("postgres".to_owned())
                .spawn(move || {
                    // `directory` is kept by this thread, which never ends while the process lives.
                    let (directory, port) = start();
                    sender.send(port).unwrap();
                    loop {
                        std::thread::park();
                        let _ = &directory;
                    }
                })
                .unwrap();
            Self { port: receiver.recv().expect("Postgres did not start; see the output above") }
        })
    }

    pub fn url(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{database}", self.port)
    }
}

fn start() -> (tempfile::TempDir, u16) {
    let binaries = binaries();
    let directory = tempfile::Builder::new().prefix("rackhand-test-pg-").tempdir().unwrap();
    let data = directory.path().join("data");
    if rustix::process::geteuid().is_root() {
        let owned = Command::new("chown").arg("postgres:").arg(directory.path()).status().unwrap();
        assert!(owned.success(), "no `postgres` user: install Debian's postgresql package");
    }
    let made = unprivileged(&binaries.join("initdb"))
        .args([
            "--auth=trust",
            "--username=postgres",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "-D",
        ])
        .arg(&data)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(made.success(), "initdb failed");
    let port = free_port();
    let mut server = unprivileged(&binaries.join("postgres"));
    server
        .arg("-D")
        .arg(&data)
        .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1", "-c"])
        .arg(format!("unix_socket_directories={}", directory.path().display()))
        .args(["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=300"])
        .args(["-c", "log_min_messages=warning", "-c", "logging_collector=off", "-c", "track_functions=all"])
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(directory.path().join("log")).unwrap());
    server.spawn().unwrap();
    for _ in 0..200 {
        let answered = Command::new(binaries.join("pg_isready"))
            .args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()])
            .status()
            .unwrap();
        if answered.success() {
            return (directory, port);
        }
        std::thread::park_timeout(std::time::Duration::from_millis(50));
    }
    panic!("Postgres did not answer within 10 s; its log is in {}", directory.path().display());
}

/// The newest installed Postgres.
fn binaries() -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .expect("no Postgres: install Debian's postgresql package")
        .map(|entry| entry.unwrap().path().join("bin"))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    found.sort();
    found.pop().expect("no Postgres server in /usr/lib/postgresql")
}

/// `program` as a user that Postgres accepts, ended when this thread ends.
fn unprivileged(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if rustix::process::geteuid().is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command.args(["--pdeathsig=INT", "--"]).arg(program);
    command
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
