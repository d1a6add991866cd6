//! The control plane on each of its hosts, as a process of its own (the native one in this process), over a
//! test database. `cargo xtask edge build` makes what the Wasm hosts run.

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rackhand_functions::auth::token::SigningKeys;
use rackhand_server::{Config, Running, Server};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use xtask::edge;

use crate::{TestDatabase, server::TICK_TOKEN, workerd};

pub use xtask::edge::Host as Kind;

/// Hex, for [`SigningKeys::from_text`]; the same on every host, so that one token serves them all.
const SIGNING_KEY: &str = "0707070707070707070707070707070707070707070707070707070707070707";

/// What a test may want otherwise.
#[derive(Clone, Default)]
pub struct Options {
    /// Another way to the database than straight: a relay's address.
    pub database_url: Option<String>,
    /// For the Worker: through its Hyperdrive binding instead of the secret.
    pub hyperdrive: bool,
    /// For the Worker: workerd without Miniflare, which does not pass on that a caller has gone. Its
    /// JavaScript heap is limited, as the platform would; beyond that it ends.
    pub alone: bool,
    /// For Spin: variables that differ.
    pub variables: Vec<(&'static str, &'static str)>,
    /// Longest time a request is held open; 20 s (Spin: 5 s) if absent.
    pub max_wait: Option<Duration>,
}

/// A control plane that runs. It ends when dropped.
pub struct HostProcess {
    pub kind: Kind,
    pub url: String,
    pub keys: SigningKeys,
    /// What a Wasm host says.
    pub log: PathBuf,
    folder: tempfile::TempDir,
    running: Option<Running>,
    child: Option<Child>,
    database_url: String,
    options: Options,
}

impl HostProcess {
    pub async fn start(kind: Kind, database: &TestDatabase) -> Self {
        Self::with(kind, database, Options::default()).await
    }

    pub async fn with(kind: Kind, database: &TestDatabase, options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut host = Self {
            kind,
            url: String::new(),
            keys: SigningKeys::from_text(SIGNING_KEY).unwrap(),
            log: folder.path().join("log"),
            folder,
            running: None,
            child: None,
            database_url: options.database_url.clone().unwrap_or_else(|| database.api_url()),
            options,
        };
        host.run(0).await;
        host
    }

    /// Kills it without a goodbye and starts it on the same port.
    pub async fn restart(&mut self) {
        let port = self.url.rsplit(':').next().unwrap().parse().unwrap();
        self.kill().await;
        self.run(port).await;
    }

    /// SIGKILL, to the runtime's own processes too.
    pub async fn kill(&mut self) {
        drop(self.running.take());
        if let Some(mut child) = self.child.take() {
            let pid = child.id();
            for one in descendants(pid) {
                let _ = kill_process(Pid::from_raw(one).unwrap(), Signal::KILL);
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The process that runs the Wasm code: workerd, or node for the Spin component.
    pub fn runtime_pid(&self) -> u32 {
        let pid = self.child.as_ref().expect("a Wasm host").id();
        let below = descendants(pid);
        below.last().map_or(pid, |one| one.unsigned_abs())
    }

    /// Runs what the platform would run every minute: the Worker's cron trigger, else the tick route.
    pub fn signal_cron(&self) {
        let pid = Pid::from_child(self.child.as_ref().expect("a Worker"));
        kill_process(pid, Signal::USR2).unwrap();
    }

    async fn run(&mut self, port: u16) {
        let max_wait = self.options.max_wait;
        if self.kind == Kind::Server {
            let mut config = Config::local(self.database_url.clone(), self.keys.clone());
            config.listen.set_port(port);
            config.tick_token = Some(TICK_TOKEN.to_owned());
            config.max_wait = max_wait.unwrap_or(config.max_wait);
            let running = Server::start(config).await.expect("it starts");
            self.url = running.url.clone();
            self.running = Some(running);
            return;
        }
        let settings = self.folder.path().join("settings.json");
        let wait_ms =
            max_wait.map_or(if self.kind == Kind::Spin { 5_000 } else { 20_000 }, |wait| wait.as_millis());
        let mut command = Command::new("node");
        match self.kind {
            Kind::Server => unreachable!("started above"),
            Kind::Worker if self.options.alone => {
                let bindings = [
                    ("SIGNING_KEY", SIGNING_KEY),
                    ("TICK_TOKEN", TICK_TOKEN),
                    ("MAX_WAIT_MS", &wait_ms.to_string()),
                    ("DATABASE_URL", &self.database_url),
                ];
                command = workerd::worker(self.folder.path(), port, &bindings);
            }
            Kind::Worker => {
                let mut bindings = json!({"SIGNING_KEY": SIGNING_KEY, "TICK_TOKEN": TICK_TOKEN,
                    "MAX_WAIT_MS": wait_ms.to_string()});
                let mut all = json!({"port": port});
                let target = if self.options.hyperdrive {
                    &mut all["hyperdrive"]
                } else {
                    &mut bindings["DATABASE_URL"]
                };
                *target = json!(self.database_url);
                all["bindings"] = bindings;
                std::fs::write(&settings, all.to_string()).unwrap();
                command.arg(edge::worker_folder().join("serve.mjs")).arg(&settings);
            }
            Kind::Spin => {
                let place = self.database_url.rsplit('@').next().unwrap().split('/').next().unwrap();
                let mut variables = json!({"signing_key": SIGNING_KEY, "tick_token": TICK_TOKEN,
                    "database_url": self.database_url, "database_host": place, "database_ca": "",
                    "public_url": "", "trusted_proxies": "", "max_wait_ms": wait_ms.to_string(), "poll_ms": "100"});
                for (name, value) in &self.options.variables {
                    variables[name] = json!(value);
                }
                std::fs::write(&settings, variables.to_string()).unwrap();
                command.arg(edge::spin_runner().join("serve.mjs"));
                command.arg("--component").arg(edge::spin_component()).arg("--variables").arg(&settings);
                command.arg("--out").arg(xtask::paths::target().join("edge/spin"));
                command.arg("--port").arg(port.to_string());
            }
        }
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let mut more = log.try_clone().unwrap();
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().expect("it starts");
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| {
            let words = std::fs::read_to_string(&self.log).unwrap_or_default();
            panic!("{:?} did not start: {line}{words}\n(cargo xtask edge build)", self.kind)
        });
        self.url = match ready["port"].as_u64() {
            Some(port) => format!("http://127.0.0.1:{port}"),
            None => ready["url"].as_str().unwrap().to_owned(),
        };
        self.child = Some(child);
        // workerd alone logs there; it ends with the process.
        std::thread::spawn(move || std::io::copy(&mut output, &mut more));
    }
}

impl Drop for HostProcess {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            for one in descendants(child.id()) {
                let _ = kill_process(Pid::from_raw(one).unwrap(), Signal::KILL);
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Every process under this one, parents first.
fn descendants(pid: u32) -> Vec<i32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = std::fs::read_to_string(path).unwrap_or_default();
    let mut found = Vec::new();
    for child in children.split_ascii_whitespace() {
        found.push(child.parse().unwrap());
        found.extend(descendants(child.parse().unwrap()));
    }
    found
}
