//! The whole product over a simulated site: the native host, real executor processes, BMCs over HTTPS.
//!
//! The server and the lab live in the test's process, so a test can count, cut and advance. Executors are the
//! real binary, so a test can kill and stop them as an operating system would. Each reaches the
//! control plane through a relay of its own that the test may cut; BMCs may get one too, to make an upload
//! slow.

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rackhand_lab::{Lab, LabConfig, Package, ServerSpec};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use serde_json::{Value, json};

use crate::{relay::Relay, server::Answer, server::TestServer, site::TestSite};

/// The BMCs' password; tests look for it where it must not be. Short enough for IPMI (20 bytes).
pub const BMC_PASSWORD: &str = "planted-Pa55word-lab";

pub struct StackConfig {
    pub servers: Vec<ServerSpec>,
    pub executors: usize,
    /// Simulated seconds in a real one.
    pub speed: f64,
    pub lease_ttl_ms: u32,
    /// What the sealed credential says; the right password unless a test plants another.
    pub password: String,
    /// Lines for every executor's policy file.
    pub policy: String,
    /// Put a [`Relay`] in front of each BMC.
    pub bmc_relays: bool,
    /// Register the BMCs' IPMI, too.
    pub ipmi: bool,
    /// What the site's repository offers.
    pub packages: Vec<Package>,
}

impl StackConfig {
    pub fn new(servers: Vec<ServerSpec>) -> Self {
        Self {
            servers,
            executors: 2,
            speed: 120.0,
            lease_ttl_ms: 2000,
            password: BMC_PASSWORD.to_owned(),
            policy: String::new(),
            bmc_relays: false,
            ipmi: false,
            packages: Package::repository(),
        }
    }
}

pub struct TestStack {
    pub site: TestSite,
    pub server: TestServer,
    pub lab: Lab,
    /// Server name → the relay in front of its BMC; empty unless asked for.
    pub bmc_relays: BTreeMap<String, Relay>,
    pub executors: Vec<ExecutorProcess>,
    /// Access token of the fleet admin.
    pub token: String,
    /// Server name → id.
    pub ids: BTreeMap<String, String>,
    /// Spent ones, for tests that look for them where they must not be.
    pub enrolment_tokens: Vec<String>,
    speed: f64,
    policy: String,
    ipmi: bool,
    directory: tempfile::TempDir,
}

/// A BMC as it is registered.
#[derive(Debug, Clone)]
pub struct ForeignBmc {
    pub name: String,
    /// `https://host:port`, or `ipmi://host:port`.
    pub url: String,
    /// Hex; empty where there is no TLS.
    pub spki_sha256: String,
    /// `host:port` of its IPMI beside an `https` address.
    pub ipmi: Option<String>,
}

impl ForeignBmc {
    fn pin(&self) -> Option<&str> {
        Some(self.spki_sha256.as_str()).filter(|pin| !pin.is_empty())
    }
}

/// One executor: its data directory, and its process while it runs.
pub struct ExecutorProcess {
    pub name: String,
    pub data: PathBuf,
    pub log: PathBuf,
    /// Its way to the control plane.
    pub relay: Relay,
    child: Option<Child>,
}

impl TestStack {
    /// Everything up, servers registered and inventoried.
    pub async fn start(config: StackConfig) -> Self {
        let stack = Self::registered(config).await;
        let targets: Vec<_> = stack.ids.values().cloned().collect();
        let job = stack.create(json!({"kind": "inventory", "params": {}, "targets": targets})).await;
        let done = stack.ended(&job, Duration::from_secs(60)).await;
        assert_eq!(done["state"], "succeeded", "{}", stack.story(&job).await);
        stack
    }

    /// Server and executors up, no BMC yet: they are registered with [`Self::register_bmcs`].
    pub async fn start_empty(config: StackConfig) -> Self {
        assert!(config.servers.is_empty(), "these would not be read");
        Self::registered(config).await
    }

    /// Everything up and servers registered, but not read.
    pub async fn registered(config: StackConfig) -> Self {
        let site = TestSite::with(json!({"lease_ttl_ms": config.lease_ttl_ms})).await;
        let server = TestServer::start(&site).await;
        let lab = LabConfig::new(config.servers, BMC_PASSWORD).speed(config.speed);
        let lab = Lab::start(LabConfig { packages: config.packages, ..lab }).await.expect("the lab");
        let mut bmc_relays = BTreeMap::new();
        if config.bmc_relays {
            for bmc in lab.bmcs() {
                let address = bmc.url.trim_start_matches("https://").parse().unwrap();
                bmc_relays.insert(bmc.name.clone(), Relay::start(address).await);
            }
        }
        let token = server.token(&site.admin);
        let directory = tempfile::Builder::new().prefix("rackhand-test-").tempdir().unwrap();
        let mut stack = Self {
            site,
            server,
            lab,
            bmc_relays,
            executors: vec![],
            token,
            ids: [].into(),
            enrolment_tokens: vec![],
            speed: config.speed,
            policy: config.policy,
            ipmi: config.ipmi,
            directory,
        };
        for index in 0..config.executors {
            stack.add_executor(&format!("executor-{}", index + 1)).await;
        }
        stack.register(&config.password).await;
        stack
    }

    /// Enrols and starts an executor; one that joins is confirmed on the first.
    pub async fn add_executor(&mut self, name: &str) {
        let (mut executor, fingerprint) = self.enrol(name).await;
        executor.start();
        if let Some(first) = self.executors.first() {
            first.confirm(&fingerprint);
        }
        self.executors.push(executor);
        let count = self.executors.len();
        self.until("every executor is active", Duration::from_secs(20), async || {
            let list = self.get("/v1/executors").await;
            list["items"].as_array().unwrap().iter().filter(|one| one["state"] == "active").count() == count
        })
        .await;
    }

    /// Enrols an executor and writes its files, but neither starts nor confirms it. With its fingerprint.
    pub async fn enrol(&mut self, name: &str) -> (ExecutorProcess, String) {
        let path = format!("/v1/sites/{}/enrolment-tokens", self.site.id);
        let enrolment = self.call("POST", &path, Some(json!({}))).await;
        self.enrolment_tokens.extend(enrolment.body["token"].as_str().map(str::to_owned));
        let data = self.directory.path().join(name);
        let relay = Relay::start(self.server.running.address).await;
        let output = run_with_input(
            Command::new(binary("rackhand-executor"))
                .args(["enrol", "--server", &relay.url(), "--name", name, "--token-stdin", "--data"])
                .arg(&data),
            enrolment.body["token"].as_str().expect("a token"),
        );
        let fingerprint = output.lines().find_map(|line| line.strip_prefix("Fingerprint: ")).expect(&output);
        std::fs::write(data.join("executor.toml"), format!("device_time_scale = {:?}\n", self.speed))
            .unwrap();
        let mut file = std::fs::OpenOptions::new().append(true).open(data.join("policy.toml")).unwrap();
        writeln!(file, "package_listen = \"127.0.0.1:0\"\npackage_hosts = [\"127.0.0.1\"]\n{}", self.policy)
            .unwrap();
        let log = self.directory.path().join(format!("{name}.log"));
        let executor = ExecutorProcess { name: name.to_owned(), data, log, relay, child: None };
        (executor, fingerprint.to_owned())
    }

    /// Where a BMC is registered: its own address, or its relay's.
    fn registered_at(&self, bmc: &rackhand_lab::BmcInfo) -> ForeignBmc {
        let url = match self.bmc_relays.get(&bmc.name) {
            Some(relay) => relay.url().replace("http://", "https://"),
            None => bmc.url.clone(),
        };
        let ipmi = bmc.ipmi.filter(|_| self.ipmi).map(|address| address.to_string());
        ForeignBmc { name: bmc.name.clone(), url, spki_sha256: bmc.spki_sha256.clone(), ipmi }
    }

    /// Seals `password` for the BMCs of some servers of the lab, as version `version` of a credential. Its
    /// id.
    pub async fn store_credential(
        &self,
        credential: &str,
        version: u32,
        password: &str,
        servers: &[&str],
    ) -> String {
        let lab: Vec<_> = servers.iter().map(|name| self.lab.bmc(name).unwrap()).collect();
        let bmcs: Vec<_> = lab.iter().map(|bmc| self.registered_at(bmc)).collect();
        self.seal_for(credential, version, &lab[0].username, password, &bmcs).await
    }

    async fn seal_for(
        &self,
        credential: &str,
        version: u32,
        username: &str,
        password: &str,
        bmcs: &[ForeignBmc],
    ) -> String {
        let site = self.get(&format!("/v1/sites/{}", self.site.id)).await;
        let mut targets = Vec::new();
        for bmc in bmcs {
            targets.push(json!({"url": bmc.url, "spki_sha256": bmc.pin()}));
            let ipmi = bmc.ipmi.as_ref();
            targets.extend(ipmi.map(|address| json!({"url": format!("ipmi://{address}")})));
        }
        let sealed = seal(
            site["public_key"].as_str().expect("the first executor made the site key"),
            &json!({"site_id": self.site.id, "name": credential, "version": version, "username": username,
                "password": password, "targets": targets}),
        );
        let new = json!({"site_id": self.site.id, "name": credential, "version": version, "sealed": sealed,
            "sealed_for": targets});
        let stored = self.call("POST", "/v1/credentials", Some(new)).await;
        assert_eq!(stored.status, 201, "{stored:?}");
        stored.body["id"].as_str().unwrap().to_owned()
    }

    async fn register(&mut self, password: &str) {
        let Some(first) = self.lab.bmcs().first() else { return };
        let bmcs: Vec<_> = self.lab.bmcs().iter().map(|bmc| self.registered_at(bmc)).collect();
        let username = first.username.clone();
        self.register_bmcs("lab", &username, password, &bmcs).await;
    }

    /// Registers BMCs, of this lab or not, with one credential that is sealed for all of them.
    pub async fn register_bmcs(
        &mut self,
        credential: &str,
        username: &str,
        password: &str,
        bmcs: &[ForeignBmc],
    ) {
        let credential_id = self.seal_for(credential, 1, username, password, bmcs).await;
        let servers: Vec<_> = bmcs
            .iter()
            .map(|bmc| {
                json!({"name": bmc.name, "bmc_url": bmc.url, "credential_id": credential_id,
                "ipmi": bmc.ipmi, "spki_sha256": bmc.pin(), "tags": [credential]})
            })
            .collect();
        let bulk = self
            .call("POST", "/v1/servers/bulk", Some(json!({"site_id": self.site.id, "servers": servers})))
            .await;
        assert_eq!(bulk.body["refused"], json!([]), "{bulk:?}");
        let ids: BTreeMap<String, String> = serde_json::from_value(bulk.body["ids"].clone()).unwrap();
        self.ids.extend(ids);
    }

    /// One request as the fleet admin.
    pub async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.server.call(method, path, Some(&self.token), body.as_ref()).await
    }

    pub async fn get(&self, path: &str) -> Value {
        let answer = self.call("GET", path, None).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.body
    }

    /// Creates a job over this site; `job` gives kind, params and targets. Its id.
    pub async fn create(&self, mut job: Value) -> String {
        job["site_id"] = json!(self.site.id);
        job["reason"] = json!("an end-to-end test");
        let made = self.call("POST", "/v1/jobs", Some(job)).await;
        assert_eq!(made.status, 201, "{made:?}");
        made.body["id"].as_str().unwrap().to_owned()
    }

    /// Creates a job and approves its plan.
    pub async fn approved(&self, job: Value) -> String {
        let id = self.create(job).await;
        let plan = self.get(&format!("/v1/jobs/{id}")).await;
        let approval = json!({"digest": plan["plan"]["digest"]});
        let started = self.call("POST", &format!("/v1/jobs/{id}/approve"), Some(approval)).await;
        assert_eq!(started.status, 200, "{started:?} {plan}");
        id
    }

    /// A firmware job's spec: the newest package of `software_id` (`159`: BIOS) for each model of the lab.
    pub fn firmware(&self, software_id: &str, targets: &[&str]) -> Value {
        let packages = self.lab.packages();
        let mut by_model = serde_json::Map::new();
        for package in packages.iter().filter(|package| package.header.software_id == software_id) {
            for model in &package.header.models {
                by_model.insert(
                    model.clone(),
                    json!({"name": format!("{} {}", package.header.component,
                    package.header.version), "file_name": package.file_name, "url": package.url,
                    "sha256": package.sha256, "size": package.size, "software_id": software_id,
                    "version": package.header.version}),
                );
            }
        }
        let targets: Vec<_> = targets.iter().map(|name| self.ids[*name].clone()).collect();
        json!({"kind": "firmware_update", "params": {"packages": by_model}, "targets": targets,
            "policy": {"max_parallel": 50, "pause_after_failures": 0}})
    }

    /// The job once it has ended.
    pub async fn ended(&self, job: &str, within: Duration) -> Value {
        let path = format!("/v1/jobs/{job}");
        let deadline = Instant::now() + within;
        loop {
            let now = self.get(&path).await;
            if !matches!(now["state"].as_str().unwrap(), "planned" | "running") {
                return now;
            }
            if Instant::now() > deadline {
                panic!("not ended within {within:?}: {}", self.story(job).await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Starts a job that changes the power of some servers. Its id.
    pub async fn power(&self, action: &str, servers: &[&str]) -> String {
        let targets: Vec<_> = servers.iter().map(|name| &self.ids[*name]).collect();
        self.approved(json!({"kind": "power", "params": {"action": action}, "targets": targets,
            "policy": {"max_parallel": 50, "pause_after_failures": 0}}))
            .await
    }

    /// `cancel`, `pause`, `resume` or `retry-failed`; the job then.
    pub async fn control(&self, job: &str, action: &str) -> Value {
        let path = format!("/v1/jobs/{job}/{action}");
        let answer = self.call("POST", &path, Some(json!({"reason": "an end-to-end test"}))).await;
        assert!(answer.status.is_success(), "{answer:?}");
        answer.body
    }

    /// The site's switch "pause hardware operations".
    pub async fn pause_hardware(&self, paused: bool) {
        let path = format!("/v1/sites/{}", self.site.id);
        let mut config = self.get(&path).await["config"].clone();
        config["hardware_paused"] = json!(paused);
        let answer = self.call("PUT", &path, Some(json!({"config": config}))).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Which executor works on a server of a job, or did last.
    pub async fn executor_of(&self, job: &str, server: &str) -> usize {
        let runs = self.runs(job).await;
        let name = runs[server]["executor_name"].as_str().expect("an executor").to_owned();
        self.executors.iter().position(|executor| executor.name == name).expect("one of ours")
    }

    /// Every event of a job, in order.
    pub async fn events(&self, job: &str) -> Vec<Value> {
        let page = self.get(&format!("/v1/events?job={job}&limit=1000")).await;
        page["items"].as_array().unwrap().clone()
    }

    /// How many effects nobody has settled.
    pub async fn open_effects(&self) -> Value {
        let query = "select count(*) from rackhand.effect where state in ('intended', 'applied', 'settling')";
        self.site.database.value(query).await
    }

    /// Runs of a job, by server name.
    pub async fn runs(&self, job: &str) -> BTreeMap<String, Value> {
        let page = self.get(&format!("/v1/jobs/{job}/runs?limit=100")).await;
        let items = page["items"].as_array().unwrap();
        items.iter().map(|run| (run["server"].as_str().unwrap().to_owned(), run.clone())).collect()
    }

    /// Everything known about a job, for a failed assertion.
    pub async fn story(&self, job: &str) -> String {
        let mut story = format!("job: {}\n", self.get(&format!("/v1/jobs/{job}")).await["runs"]);
        for (server, run) in self.runs(job).await {
            story +=
                &format!("{server}: {} {} {} {}\n", run["state"], run["phase"], run["reason"], run["detail"]);
        }
        for event in self.events(job).await {
            story += &format!(
                "{} {} {}{}\n",
                event["at"].as_str().unwrap(),
                event["kind"].as_str().unwrap(),
                event["message"].as_str().unwrap(),
                if event["late"] == true { " (late)" } else { "" }
            );
        }
        for executor in &self.executors {
            let log = std::fs::read_to_string(&executor.log).unwrap_or_default();
            let tail: Vec<_> = log.lines().rev().take(25).collect();
            story +=
                &format!("── {}\n{}\n", executor.name, tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        story
    }

    /// Waits for a condition.
    pub async fn until(&self, what: &str, within: Duration, mut condition: impl AsyncFnMut() -> bool) {
        let deadline = Instant::now() + within;
        while !condition().await {
            if Instant::now() > deadline {
                let logs: Vec<_> = self
                    .executors
                    .iter()
                    .map(|executor| std::fs::read_to_string(&executor.log).unwrap_or_default())
                    .collect();
                panic!("{what}: not within {within:?}\n{}", logs.join("\n──\n"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl ExecutorProcess {
    /// Lets another executor join, as the person at this machine would.
    pub fn confirm(&self, fingerprint: &str) {
        let confirmed = Command::new(binary("rackhand-executor"))
            .args(["confirm", "--data"])
            .arg(&self.data)
            .arg(fingerprint)
            .output()
            .unwrap();
        assert!(confirmed.status.success(), "{confirmed:?}");
    }

    /// Starts the process; again after a kill.
    pub fn start(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let child = Command::new(binary("rackhand-executor"))
            .args(["run", "--data"])
            .arg(&self.data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .env("RACKHAND_LOG", "info,rackhand_executor=debug")
            .spawn()
            .expect("the executor starts");
        self.child = Some(child);
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// SIGKILL: no goodbye.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGSTOP or SIGCONT.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(self.child.as_ref().expect("it runs"));
        kill_process(pid, signal).unwrap();
    }

    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }
}

impl Drop for ExecutorProcess {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A binary of this workspace, built beside this test.
pub fn binary(name: &str) -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let directory = exe.ancestors().find(|path| path.join(name).is_file()).map(Path::to_path_buf);
    directory.unwrap_or_else(|| panic!("{name} is not built: cargo build --workspace --bins")).join(name)
}

fn run_with_input(command: &mut Command, input: &str) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// A sealed box for the site's public key (base64), as the CLI makes it.
pub fn seal(site_key: &str, plaintext: &Value) -> String {
    let key: [u8; 32] = STANDARD.decode(site_key).unwrap().try_into().unwrap();
    let key = crypto_box::PublicKey::from(key);
    STANDARD.encode(key.seal(&mut crypto_box::aead::OsRng, plaintext.to_string().as_bytes()).unwrap())
}
