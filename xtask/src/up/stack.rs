//! The processes of `up`: built, started in order, and where they are.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    Args,
    cli::{self, Cli},
    control,
    lab::{Lab, text},
};
use crate::{
    children::{Children, POSTGRES, first_line, guarded, ignore},
    edge::{self, Host},
    error::{Failure, Result},
    login::Login,
    paths,
    postgres::Postgres,
    terminal::say,
};

const DATABASE: &str = "rackhand";
pub const READY: Duration = Duration::from_secs(60);
/// Names a database of the user's own. Not `DATABASE_URL`, which many have set for something else: what is there is
/// migrated, and the password of `rackhand_api` replaced.
pub const OWN_DATABASE: &str = "RACKHAND_UP_DATABASE_URL";
pub const SITE: &str = "lab";
pub const EXECUTORS: [&str; 2] = ["executor-1", "executor-2"];
/// A killed executor's work is taken over after this; shorter than the default, so that nobody waits for it.
const LEASE_TTL_MS: &str = "5000";
/// What cargo builds.
pub const BINARIES: [&str; 4] = ["rackhand-server", "rackhand-executor", "rackhand-lab", "rackhand"];

/// Everything that runs.
pub struct Stack {
    pub cli: Cli,
    pub lab: Lab,
    pub url: String,
    pub email: String,
    pub password: String,
    pub site: String,
    /// The BIOS packages of the site, for a firmware job.
    pub packages: PathBuf,
    folder: PathBuf,
    speed: f64,
}

/// Builds the binaries, the host that was chosen, and the UI when its sources have changed.
pub fn build(host: Host) -> Result<()> {
    say("building the binaries");
    build_programs()?;
    edge::build(host)?;
    build_ui(&paths::root().join("ui"))
}

/// Builds the programs that `up` and tests start, with the features that the tests of the whole workspace ask for. Without
/// an example or a test among what is built, cargo leaves the features of dev-dependencies out, and compiles much of it a
/// second time.
pub fn build_programs() -> Result<()> {
    let mut cargo = paths::cargo();
    cargo.args(["build", "--workspace", "--example", "openapi"]);
    cargo.args(BINARIES.iter().flat_map(|binary| ["--bin", binary]));
    succeed(cargo, "cargo build")
}

/// Builds an example, with the features that the whole workspace asks for, and returns the command that runs it: cargo
/// says where it is.
pub fn example(name: &str) -> Result<Command> {
    let mut cargo = paths::cargo();
    cargo.args(["build", "--quiet", "--workspace", "--example", name]);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    let built = bound(&cargo)
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|source| Failure::io("cannot run cargo", source))?;
    if !built.status.success() {
        return Err(Failure::Other(format!("the example {name} does not build")));
    }
    let messages = String::from_utf8_lossy(&built.stdout);
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let is_named = |message: &serde_json::Value| message.pointer("/target/name").is_some_and(|it| it == name);
    let executable =
        messages.filter(is_named).find_map(|message| Some(message.get("executable")?.as_str()?.to_owned()));
    executable.map(Command::new).ok_or_else(|| Failure::Other(format!("cargo built no example {name}")))
}

/// Installs what a folder's lock file names, unless that is there already.
pub fn install_packages(folder: &Path) -> Result<()> {
    let installed = modified(&folder.join("node_modules/.package-lock.json"));
    let lock = modified(&folder.join("package-lock.json"));
    if installed.is_some() && installed >= lock {
        return Ok(());
    }
    let name = folder.strip_prefix(paths::root()).unwrap_or(folder);
    say(format!("installing the packages of {} (npm ci)", name.display()));
    let mut npm = Command::new("npm");
    npm.args(["ci", "--no-audit", "--no-fund"]).current_dir(folder);
    succeed(npm, "npm ci")
}

/// Runs npm only when something is newer than what was built last.
pub fn build_ui(ui: &Path) -> Result<()> {
    let built = modified(&ui.join("dist/index.html"));
    install_packages(ui)?;
    let schema = modified(&ui.join("../schema/openapi.json"));
    let sources = newest(ui)?.max(schema);
    if built.is_none() || built < sources {
        say("building the UI (npm run build)");
        let mut npm = Command::new("npm");
        npm.args(["run", "--silent", "build"]).current_dir(ui);
        succeed(npm, "npm run build")?;
    }
    Ok(())
}

impl Stack {
    /// Starts everything up to two executors that hold the site key. `children` gets the processes.
    pub async fn start(args: &Args, children: &mut Children) -> Result<Self> {
        let folder = paths::state().join("run");
        paths::remove_folder(&folder)?;
        paths::private_folder(&folder)?;
        let bin = paths::binaries();
        let elsewhere = env::var(OWN_DATABASE).ok().filter(|url| !url.is_empty());
        let login = database(elsewhere.as_deref(), &folder, children)?;

        let owner_file = folder.join("owner-url");
        // A database of the user's own is spoken to exactly as they said, parameters included.
        paths::write_secret(&owner_file, elsewhere.as_deref().unwrap_or(&login.url()))?;
        let server = bin.join("rackhand-server");
        say("migrating the database");
        let migrated = with(&server, &["migrate", "--owner-url-file", utf8(&owner_file)?]);
        cli::run(migrated, None).await.map_err(|failure| match &elsewhere {
            Some(_) => Failure::Other(format!(
                "{failure}\n{OWN_DATABASE} must name a database that is there, and a role that owns it and may create roles"
            )),
            None => failure,
        })?;
        let api_password = paths::random_secret()?;
        login.run(&folder, &format!("alter role rackhand_api password '{api_password}';\n"))?;
        let api_file = folder.join("api-url");
        paths::write_secret(&api_file, &login.of("rackhand_api", &api_password).url())?;

        // In a database that is kept, names of an earlier `up` are taken.
        let mark = if elsewhere.is_some() { paths::random_hex(3)? } else { String::new() };
        let email = format!("admin{mark}@rackhand.example");
        // Typed by a person, and only good on this machine.
        let password = paths::random_hex(10)?;
        let create = [
            "admin",
            "create",
            "--owner-url-file",
            utf8(&owner_file)?,
            "--email",
            &email,
            "--name",
            "Admin",
            "--password-stdin",
        ];
        cli::run(with(&server, &create), Some(&format!("{password}\n"))).await?;

        let url = control::start(args, &folder, &api_file, children).await?;
        let cli = Cli { config: folder.join("cli") };
        let login = ["login", url.as_str(), "--email", &email, "--password-stdin"];
        cli.json(&login, Some(&format!("{password}\n"))).await?;

        // Twenty characters: IPMI takes no more.
        let bmc_password = paths::random_hex(10)?;
        // For `rackhand bmc`, which people type.
        paths::write_secret(&folder.join("bmc-password"), &format!("{bmc_password}\n"))?;
        let lab = start_lab(args, &folder, &bmc_password, children).await?;
        let site = format!("{SITE}{mark}");
        cli.json(&["sites", "create", &site, "--lease-ttl-ms", LEASE_TTL_MS], None).await?;
        let packages = folder.join("packages.json");
        write_packages(&lab, &packages)?;
        let stack = Self { cli, lab, url, email, password, site, packages, folder, speed: args.speed };
        stack.join_executors(children).await?;
        stack.register(&bmc_password).await?;
        Ok(stack)
    }

    /// Starts an enrolled executor; after a kill it goes on from its journal.
    pub async fn start_executor(&self, name: &str, children: &mut Children) -> Result<()> {
        let data = self.folder.join(name);
        let log = children.log(name);
        let program = paths::binaries().join("rackhand-executor");
        let stdout = children.start(name, &program, &["run", "--data", utf8(&data)?], None).await?;
        first_line(stdout, READY, name, &log).await?;
        Ok(())
    }

    /// The first executor makes the site key; the second gets it once its fingerprint is confirmed on the first.
    async fn join_executors(&self, children: &mut Children) -> Result<()> {
        let program = paths::binaries().join("rackhand-executor");
        for name in EXECUTORS {
            let data = self.folder.join(name);
            paths::private_folder(&data)?;
            let settings = format!("device_time_scale = {:?}\n", self.speed);
            write(&data.join("executor.toml"), &settings)?;
            // BMCs that fetch packages themselves fetch them from the executor.
            let policy = "package_listen = \"127.0.0.1:0\"\npackage_hosts = [\"127.0.0.1\"]\n";
            write(&data.join("policy.toml"), policy)?;
            let token = self.cli.json(&["executors", "enrol-token", "--site", &self.site], None).await?;
            let enrol = with(
                &program,
                &["enrol", "--server", &self.url, "--data", utf8(&data)?, "--name", name, "--token-stdin"],
            );
            let words = cli::run(enrol, Some(&format!("{}\n", text(&token, "token")))).await?;
            let fingerprint = words.lines().find_map(|line| line.strip_prefix("Fingerprint: "));
            let fingerprint = fingerprint
                .ok_or_else(|| Failure::Other(format!("{name} enrolled without showing a fingerprint")))?;
            self.start_executor(name, children).await?;
            if name == EXECUTORS[0] {
                self.until("the site key", || async {
                    let site = self.cli.json(&["sites", "show", &self.site], None).await?;
                    Ok(!text(&site, "public_key").is_empty())
                })
                .await?;
            } else {
                let first = self.folder.join(EXECUTORS[0]);
                cli::run(with(&program, &["confirm", "--data", utf8(&first)?, fingerprint]), None).await?;
            }
            self.until(&format!("{name} to be active"), || async {
                let all = self.cli.json(&["executors", "list", "--site", &self.site], None).await?;
                Ok(items(&all)
                    .iter()
                    .any(|executor| text(executor, "name") == name && text(executor, "state") == "active"))
            })
            .await?;
            say(format!("{name} has joined, fingerprint {fingerprint}"));
        }
        Ok(())
    }

    /// Seals the BMCs' password for the site and registers the servers.
    async fn register(&self, bmc_password: &str) -> Result<()> {
        let rows: Vec<Value> = self
            .lab
            .bmcs
            .iter()
            .map(|bmc| {
                json!({"name": text(bmc, "name"), "bmc_url": text(bmc, "url"), "ipmi": bmc.get("ipmi"),
                       "spki_sha256": text(bmc, "spki_sha256"), "tags": ["simulated"]})
            })
            .collect();
        let file = self.folder.join("servers.json");
        write(&file, &Value::Array(rows).to_string())?;
        let file = utf8(&file)?;
        let credential = format!("{}-root", self.site);
        let set = [
            "credentials",
            "set",
            &credential,
            "--site",
            &self.site,
            "--user",
            "root",
            "--password-stdin",
            "--targets-file",
            file,
        ];
        self.cli.json(&set, Some(&format!("{bmc_password}\n"))).await?;
        let import = ["servers", "import", file, "--site", &self.site, "--credential", &credential];
        let sum = self.cli.json(&import, None).await?;
        say(format!("{} servers registered", sum.get("created").and_then(Value::as_u64).unwrap_or_default()));
        Ok(())
    }

    /// Asks again and again until it is so.
    async fn until<F, Fut>(&self, what: &str, mut check: F) -> Result<()>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<bool>>,
    {
        let end = Instant::now() + READY;
        while !check().await? {
            if Instant::now() >= end {
                return Err(Failure::Other(format!("waited {} s for {what}", READY.as_secs())));
            }
            sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// A file of this `up`, removed at the next.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Writes the BIOS packages of the site, by model, as `rackhand jobs plan firmware --package` takes them.
fn write_packages(lab: &Lab, path: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(&lab.bios_packages()?)
        .map_err(|error| Failure::Other(error.to_string()))?;
    write(path, &text)
}

/// The database: one of the user's own, or a private one that `children` stops.
fn database(elsewhere: Option<&str>, folder: &Path, children: &mut Children) -> Result<Login> {
    if let Some(url) = elsewhere {
        say(format!("using the database of {OWN_DATABASE}"));
        return Login::parse(url);
    }
    say("starting Postgres");
    let postgres = Postgres::create(&paths::state().join("postgres"), &children.log(POSTGRES))?;
    postgres.login("postgres").run(folder, &format!("create database {DATABASE};\n"))?;
    let login = postgres.login(DATABASE);
    say(format!("Postgres on 127.0.0.1:{}", postgres.port()));
    children.keep(postgres);
    Ok(login)
}

async fn start_lab(args: &Args, folder: &Path, password: &str, children: &mut Children) -> Result<Lab> {
    let ready = folder.join("lab.json");
    let (servers, speed) = (args.servers.to_string(), args.speed.to_string());
    let arguments = [
        "serve",
        "--servers",
        &servers,
        "--speed",
        &speed,
        "--password-stdin",
        "--ready-file",
        utf8(&ready)?,
    ];
    let log = children.log("lab");
    let program = paths::binaries().join("rackhand-lab");
    let stdout = children.start("lab", &program, &arguments, Some(&format!("{password}\n"))).await?;
    ignore(stdout);
    let end = Instant::now() + READY;
    let ready = loop {
        if let Ok(text) = fs::read_to_string(&ready) {
            break text;
        }
        if let Some((name, status)) = children.ended() {
            return Err(Failure::Other(format!("{name} ended ({status}); its log: {}", log.display())));
        }
        if Instant::now() >= end {
            return Err(Failure::Other(format!("the lab is not ready; its log: {}", log.display())));
        }
        sleep(Duration::from_millis(50)).await;
    };
    let ready: Value = serde_json::from_str(&ready)
        .map_err(|error| Failure::Other(format!("the lab's ready file is not JSON: {error}")))?;
    let lab = Lab::open(text(&ready, "control_url")).await?;
    say(format!("simulated site of {} BMCs, time runs {} times as fast", lab.bmcs.len(), args.speed));
    Ok(lab)
}

pub fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

pub fn utf8(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Failure::Other(format!("{} is not UTF-8", path.display())))
}

fn with(program: &Path, arguments: &[&str]) -> tokio::process::Command {
    let mut command = guarded(program, "TERM");
    command.args(arguments);
    command
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|source| Failure::at("write", path, source))
}

pub fn succeed(build: Command, what: &str) -> Result<()> {
    let mut command = bound(&build);
    // Data of a build is nothing for our stdout.
    command.stdout(std::io::stderr());
    let status = command.status().map_err(|source| Failure::io(format!("cannot run {what}"), source))?;
    if status.success() { Ok(()) } else { Err(Failure::Other(format!("{what} failed"))) }
}

/// The same command, which ends with us: a build whose result nobody waits for any more holds cargo's lock.
fn bound(build: &Command) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--"]).arg(build.get_program()).args(build.get_args());
    if let Some(folder) = build.get_current_dir() {
        command.current_dir(folder);
    }
    for (name, value) in build.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.stdin(std::process::Stdio::null());
    command
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|data| data.modified()).ok()
}

/// The youngest file of the UI's sources.
fn newest(folder: &Path) -> Result<Option<SystemTime>> {
    let mut youngest = None;
    let entries = fs::read_dir(folder).map_err(|source| Failure::at("read", folder, source))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        if matches!(name.to_str(), Some("node_modules" | "dist")) {
            continue;
        }
        let path = entry.path();
        youngest = youngest.max(if path.is_dir() { newest(&path)? } else { modified(&path) });
    }
    Ok(youngest)
}
