//! A private Postgres cluster from the installed server: own folder, own port, loopback only, gone with its parent.
//!
//! Postgres refuses to run as root, so root starts it as the user `postgres` (Debian's package makes it) or
//! `nobody`. If that user cannot enter the wanted folder (a work tree under `/root`), the cluster is put under
//! `/var/tmp` instead. The superuser's password stands in a file of mode 0600 and in [`Postgres::login`] only.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use crate::{
    error::{Failure, Result},
    login::Login,
    paths,
};

/// How long the server may take to answer.
const START: Duration = Duration::from_secs(30);
/// How long a fast shutdown may take.
const STOP: Duration = Duration::from_secs(15);
const SUPERUSER: &str = "rackhand_super";

/// Which server, and how it is reached.
#[derive(Clone)]
pub struct Flavour {
    /// The folder with `initdb` and `postgres`.
    pub binaries: PathBuf,
    /// With it, nobody gets in without TLS.
    pub tls: Option<Tls>,
}

/// PEM texts.
#[derive(Clone)]
pub struct Tls {
    pub certificate: String,
    pub key: String,
}

/// A running cluster. Dropping it stops the server; the data stays where it is.
pub struct Postgres {
    flavour: Flavour,
    server: Child,
    port: u16,
    password: String,
    folder: PathBuf,
    log: PathBuf,
}

/// The newest installed server's programs, if there is one (Debian puts them in `/usr/lib/postgresql/N/bin`).
pub fn installed() -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.parse().ok()?;
            let bin = entry.path().join("bin");
            (bin.join("initdb").exists() && bin.join("postgres").exists()).then_some((version, bin))
        })
        .collect();
    found.sort();
    found.pop().map(|(_, bin)| bin)
}

/// A port that nobody listens on now.
pub fn free_port() -> Result<u16> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|source| Failure::io("no free port", source))
}

impl Postgres {
    /// Makes a new cluster in `folder` (what was there is removed) and starts it. Blocks for a few seconds.
    ///
    /// The server ends with the *thread* that calls this: call it from one that lives as long as the cluster.
    ///
    /// # Errors
    /// No server is installed, no user may run it, or it does not come up; the text names its log.
    pub fn create(folder: &Path, log: &Path) -> Result<Self> {
        let binaries = installed().ok_or_else(|| {
            Failure::Missing("no Postgres server found; install it: apt-get install postgresql".to_owned())
        })?;
        Self::create_as(&Flavour { binaries, tls: None }, folder, log)
    }

    /// The same with another server.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn create_as(flavour: &Flavour, folder: &Path, log: &Path) -> Result<Self> {
        let binaries = &flavour.binaries;
        let user = RunAs::choose()?;
        let folder = user.usable(folder)?;
        let data = folder.join("data");
        let password = paths::random_secret()?;
        let password_file = folder.join("superuser-password");
        paths::write_secret(&password_file, &password)?;
        user.own(&folder)?;
        let made = user
            .command(&binaries.join("initdb"))
            .args(["--auth=scram-sha-256", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"])
            .arg(format!("--username={SUPERUSER}"))
            .arg(format!("--pwfile={}", password_file.display()))
            .arg("-D")
            .arg(&data)
            .current_dir(&folder)
            .output()
            .map_err(|source| Failure::io("cannot run initdb", source))?;
        if !made.status.success() {
            return Err(Failure::Other(format!(
                "initdb failed: {}",
                String::from_utf8_lossy(&made.stderr).trim()
            )));
        }
        if let Some(tls) = &flavour.tls {
            paths::write_secret(&data.join("server.crt"), &tls.certificate)?;
            paths::write_secret(&data.join("server.key"), &tls.key)?;
            let access = "hostssl all all 127.0.0.1/32 scram-sha-256\n";
            paths::write_secret(&data.join("pg_hba.conf"), access)?;
            user.own(&data)?;
        }
        // Somebody may take the port between our look and the server's start: then another one is tried.
        for _ in 0..4 {
            let port = free_port()?;
            if let Some(server) = start(&user, flavour, &data, &folder, log, port)? {
                let flavour = flavour.clone();
                return Ok(Self { flavour, server, port, password, folder, log: log.to_owned() });
            }
        }
        Err(Failure::Other(format!("Postgres does not start; its log: {}", log.display())))
    }

    /// Stops the server: sessions are ended, the data is written. Blocks until it has ended.
    pub fn stop(&mut self) {
        if ended_within(&mut self.server, Duration::ZERO) {
            return;
        }
        // SIGINT is Postgres' fast shutdown.
        signal(&self.server, rustix::process::Signal::INT);
        if !ended_within(&mut self.server, STOP) {
            let _ = self.server.kill();
            let _ = self.server.wait();
        }
    }

    /// How the server has ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.server.try_wait().ok().flatten()
    }

    /// Starts it again after [`Self::stop`], with its data and on its port. The same thread as before must call.
    ///
    /// # Errors
    /// It does not come up, or its port was taken meanwhile.
    pub fn start_again(&mut self) -> Result<()> {
        let data = self.folder.join("data");
        self.server = start(&RunAs::choose()?, &self.flavour, &data, &self.folder, &self.log, self.port)?
            .ok_or_else(|| Failure::Other(format!("port {} was taken", self.port)))?;
        Ok(())
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connects as superuser to `database`. Holds a password: for files of mode 0600 only.
    pub fn login(&self, database: &str) -> Login {
        Login {
            user: SUPERUSER.to_owned(),
            password: self.password.clone(),
            host: "127.0.0.1".to_owned(),
            port: self.port,
            database: database.to_owned(),
        }
    }

    /// Runs SQL as superuser, statement by statement.
    ///
    /// # Errors
    /// The server's own words.
    pub fn run(&self, database: &str, sql: &str) -> Result<()> {
        self.login(database).run(&self.folder, sql)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

fn start(
    user: &RunAs,
    flavour: &Flavour,
    data: &Path,
    folder: &Path,
    log: &Path,
    port: u16,
) -> Result<Option<Child>> {
    let log_file = fs::File::create(log).map_err(|source| Failure::at("write", log, source))?;
    let mut command = user.command(&flavour.binaries.join("postgres"));
    if flavour.tls.is_some() {
        command.args(["-c", "ssl=on"]);
    }
    // Not every server comes with it; that of the clients' package speaks to any.
    let is_ready = Some(flavour.binaries.join("pg_isready")).filter(|path| path.exists());
    let is_ready = is_ready.unwrap_or_else(|| PathBuf::from("pg_isready"));
    let mut server = command
        .arg("-D")
        .arg(data)
        .args(["-p", &port.to_string()])
        .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
        .args(["-c", "max_connections=300", "-c", "synchronous_commit=off"])
        .current_dir(folder)
        // Ctrl-C is for us: the server is stopped after everything that uses it.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log_file)
        .spawn()
        .map_err(|source| Failure::io("cannot start Postgres", source))?;
    let until = Instant::now() + START;
    while Instant::now() < until {
        if ended_within(&mut server, Duration::from_millis(50)) {
            return Ok(None);
        }
        let ready = Command::new(&is_ready)
            .args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()])
            .status()
            .map_err(|source| Failure::io("cannot run pg_isready", source))?;
        // Another Postgres on this port would answer too; ours has ended then.
        if ready.success() && !ended_within(&mut server, Duration::from_millis(100)) {
            return Ok(Some(server));
        }
    }
    let _ = server.kill();
    let _ = server.wait();
    Err(Failure::Other(format!("Postgres does not answer; its log: {}", log.display())))
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        // It may have ended already.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

fn ended_within(child: &mut Child, time: Duration) -> bool {
    let until = Instant::now() + time;
    loop {
        if !matches!(child.try_wait(), Ok(None)) {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Who runs the server, and what else refuses to be root.
pub enum RunAs {
    Myself,
    User(&'static str),
}

impl RunAs {
    /// # Errors
    /// We are root, and there is no user to step down to.
    pub fn choose() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Myself);
        }
        let passwd =
            fs::read_to_string("/etc/passwd").map_err(|source| Failure::io("/etc/passwd", source))?;
        let known = |name: &str| passwd.lines().any(|line| line.split(':').next() == Some(name));
        ["postgres", "nobody"]
            .into_iter()
            .find(|name| known(name))
            .map(Self::User)
            .ok_or_else(|| Failure::Missing("no user `postgres` or `nobody` to run Postgres as".to_owned()))
    }

    /// `program` as this user, ended by the death of the thread that starts it.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        if let Self::User(name) = self {
            command.args(["--reuid", name, "--regid", group(name), "--clear-groups"]);
        }
        command.args(["--pdeathsig", "INT", "--"]).arg(program);
        command
    }

    /// An empty folder this user can work in: the wanted one, or one under `/var/tmp`.
    fn usable(&self, wanted: &Path) -> Result<PathBuf> {
        paths::remove_folder(wanted)?;
        paths::private_folder(wanted)?;
        self.own(wanted)?;
        let enters = self
            .command(Path::new("test"))
            .arg("-w")
            .arg(wanted)
            .status()
            .map_err(|source| Failure::io("cannot run setpriv (util-linux)", source))?;
        if enters.success() {
            return Ok(wanted.to_owned());
        }
        let name: String = wanted
            .display()
            .to_string()
            .chars()
            .map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' })
            .collect();
        let elsewhere = PathBuf::from(format!("/var/tmp/rackhand{name}"));
        paths::remove_folder(&elsewhere)?;
        paths::private_folder(&elsewhere)?;
        self.own(&elsewhere)?;
        Ok(elsewhere)
    }

    /// Gives this user a folder and all in it.
    ///
    /// # Errors
    /// chown failed.
    pub fn own(&self, folder: &Path) -> Result<()> {
        let Self::User(name) = self else { return Ok(()) };
        let owned = Command::new("chown")
            .args(["-R", &format!("{name}:{}", group(name))])
            .arg(folder)
            .status()
            .map_err(|source| Failure::io("cannot run chown", source))?;
        if owned.success() {
            Ok(())
        } else {
            Err(Failure::Other(format!("cannot give {} to {name}", folder.display())))
        }
    }
}

/// Debian's group of a system user.
fn group(user: &str) -> &str {
    if user == "nobody" { "nogroup" } else { user }
}
