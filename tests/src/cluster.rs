//! One Postgres cluster for the test process: `xtask`'s private one, with durability off.
//!
//! It ends with the thread that started it, which lives as long as the process.

use std::sync::{OnceLock, mpsc};

use xtask::{login::Login, postgres::Postgres};

#[derive(Clone)]
pub struct Cluster {
    superuser: Login,
}

/// Password of `rackhand_api`; the cluster listens on loopback only and holds test data.
const API_PASSWORD: &str = "test-api-password";

impl Cluster {
    /// The process' cluster; started by the first caller.
    pub fn shared() -> &'static Self {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        CLUSTER.get_or_init(|| {
            let (sender, receiver) = mpsc::channel();
            std::thread::Builder::new()
                .name("postgres".to_owned())
                .spawn(move || {
                    // Both are kept by this thread, which never ends while the process lives.
                    let (folder, postgres) = start();
                    sender.send(postgres.login("postgres")).unwrap();
                    loop {
                        std::thread::park();
                        let _ = (&folder, &postgres);
                    }
                })
                .unwrap();
            Self { superuser: receiver.recv().expect("Postgres did not start; see the output above") }
        })
    }

    /// One that a test starts, stops and drops by itself, without harm to the others.
    pub fn own(postgres: &Postgres) -> Self {
        Self { superuser: postgres.login("postgres") }
    }

    /// As superuser.
    pub fn owner_url(&self, database: &str) -> String {
        Login { database: database.to_owned(), ..self.superuser.clone() }.url()
    }

    /// As `rackhand_api`, as the hosts log in; once [`Self::ADMIT_API`] has run.
    pub fn api_url(&self, database: &str) -> String {
        Login { database: database.to_owned(), ..self.superuser.of("rackhand_api", API_PASSWORD) }.url()
    }

    /// Gives `rackhand_api` its password, after the bootstrap has made it.
    pub const ADMIT_API: &str = "alter role rackhand_api password 'test-api-password'";
}

const FOLDER: &str = "rackhand-test-pg-";

/// A folder for a cluster of this process; what processes that have ended left behind is removed.
pub fn folder() -> tempfile::TempDir {
    remove_leftovers();
    let prefix = format!("{FOLDER}{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir().unwrap()
}

fn start() -> (tempfile::TempDir, Postgres) {
    let folder = folder();
    let postgres =
        Postgres::create(&folder.path().join("cluster"), &folder.path().join("log")).expect("a Postgres");
    let fast =
        "alter system set fsync = off; alter system set full_page_writes = off; select pg_reload_conf()";
    postgres.run("postgres", fast).expect("settings");
    (folder, postgres)
}

/// A test process ends without a word, so the next one removes its folder.
fn remove_leftovers() {
    for entry in std::fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner =
            name.strip_prefix(FOLDER).and_then(|rest| rest.split_once('-')).map(|(pid, _)| pid.to_owned());
        if owner.is_some_and(|pid| !std::path::Path::new("/proc").join(pid).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
