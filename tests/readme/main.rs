//! README's way to one's own servers, typed as it stands.
//!
//! Every `sh` block of the chapter is given to one shell of a user without rights, in order, and each command
//! must succeed. What a reader replaces (addresses, names, the BMCs' password, what a command has just
//! printed) is replaced from a table, every row of which must be used. Around it there is only what the
//! chapter presupposes: a Postgres, a foreign Redfish service over HTTPS whose certificate a private CA has
//! issued, and a BMC by OpenIPMI.
//!
//! One thing is not done as printed: `cargo build --release` and `npm ci && npm run build` would take minutes
//! and need the network. Programs of these names check that they are called as the chapter says, and copy
//! this workspace's debug binaries and the UI that was built before to where the real ones would put theirs.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step ends the test"
)]

mod shell;
mod units;

use std::{fs, path::Path, time::Duration};

use rackhand_ipmi_tests::{Bmc, Hardware, hardware::Privilege};
use rackhand_tests::sushy::SushyEmulator;
use shell::Shell;
use xtask::postgres::{Postgres, free_port};

/// Short enough for IPMI 1.5, whose 16 bytes are all that OpenIPMI's simulator reads.
const BMC_PASSWORD: &str = "planted-Pa55word";
const CHAPTER: &str = "## Running it on your own servers";

/// The contents of each `sh` block of the chapter.
fn blocks(readme: &str) -> Vec<String> {
    let chapter = readme.split(CHAPTER).nth(1).expect("the chapter");
    let chapter = chapter.split("\n## ").next().unwrap();
    let blocks: Vec<String> = chapter
        .split("\n```sh\n")
        .skip(1)
        .map(|rest| rest.split_once("\n```\n").expect("a closed block").0.to_owned())
        .collect();
    let fences = chapter.lines().filter(|line| line.starts_with("```")).count();
    assert_eq!(fences, 2 * blocks.len(), "every block of the chapter is typed");
    blocks
}

/// Replaces what a reader replaces; each row is to be used at least once in the whole chapter.
struct Table(Vec<(String, String, bool)>);

impl Table {
    fn set(&mut self, printed: &str, mine: String) {
        self.0.push((printed.to_owned(), mine, false));
    }

    fn filled(&mut self, block: &str) -> String {
        let mut text = block.to_owned();
        for (printed, mine, used) in &mut self.0 {
            *used |= text.contains(printed.as_str());
            text = text.replace(printed.as_str(), mine);
        }
        text
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chapter_works_as_typed() {
    let root = xtask::paths::root();
    let folder = tempfile::Builder::new().prefix("rackhand-test-readme-").tempdir().unwrap();
    let mut shell = Shell::start(folder.path(), &root);

    // It ends with this thread, which blocks until the chapter has ended.
    let postgres = Postgres::create(&folder.path().join("postgres"), &folder.path().join("postgres.log"));
    let postgres = postgres.expect("a Postgres");
    // No superuser, as hosted ones give none.
    postgres.run("postgres", "create role hosted login createrole createdb password 'hosted'").unwrap();
    let login = postgres.login("postgres").of("hosted", "hosted");
    shell.may_use_postgres(&login);
    let redfish = SushyEmulator::start(&["web"], BMC_PASSWORD).await;
    let ipmi = Bmc::start(hardware()).await;

    let port = free_port().unwrap();
    let mut table = Table(Vec::new());
    let database = format!("127.0.0.1:{}", login.port);
    let host = format!("host=127.0.0.1 port={}", login.port);
    table.set("host=db.example user=postgres", format!("{host} user={}", login.user));
    table.set("host=db.example", host);
    table.set("@db.example", format!("@{database}"));
    table.set("0.0.0.0:8420", format!("127.0.0.1:{port}"));
    table.set("rackhand.example:8420", format!("localhost:{port}"));
    table.set("DNS:rackhand.example", "DNS:localhost".to_owned());
    table.set("https://10.0.0.17", redfish.url());
    table.set("ipmi://10.0.0.18", format!("ipmi://{}", ipmi.address()));
    table.set("://10.0.0.*", "://127.0.0.1:*".to_owned());
    table.set("calvin", BMC_PASSWORD.to_owned());
    table.set("--user root", format!("--user {}", SushyEmulator::USERNAME));

    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    for block in blocks(&readme) {
        let typed = table.filled(&block);
        let printed = shell.type_block(&typed).await;
        // A reader sees what has started before going on.
        if typed.contains("rackhand-server --listen") {
            shell.log_shows("server.log", "ready").await;
        }
        if typed.contains("rackhand-executor run") {
            shell.log_shows("executor.log", "key of the site").await;
        }
        if let Some(key) = printed.lines().find_map(|line| line.strip_prefix("Key: ")) {
            table.set("--site-key KEY", format!("--site-key {key}"));
        }
        if let Some(line) = printed.lines().find(|line| line.contains("rackhand jobs apply ")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let after = |word: &str| words[words.iter().position(|at| *at == word).unwrap() + 1].to_owned();
            table.set("apply JOB", format!("apply {}", after("apply")));
            table.set("DIGEST", after("--digest"));
        }
    }
    for (printed, _, used) in &table.0 {
        assert!(used, "the chapter does not say {printed}; the table is out of date");
    }

    // An update, while both run.
    shell.type_block(&format!("cd ~/tree\n{}", blocks(&readme)[0])).await;
    assert!(shell.home().join("rackhand/ui/index.html").is_file());
    assert!(!shell.home().join("rackhand/ui/dist").exists());
    let servers = shell.type_block("rackhand servers list --json").await;
    let servers: serde_json::Value = serde_json::from_str(&servers).expect("the fleet");
    let of = |name: &str| servers.as_array().unwrap().iter().find(|server| server["name"] == name).unwrap();
    assert_eq!(of("web-1")["vendor"], "Sushy Emulator");
    assert_eq!(of("web-2")["power"], "on", "{servers}");
    assert_eq!(ipmi.file("power"), "1", "the job has switched it on");
    for log in ["server.log", "executor.log"] {
        let log = shell.log(log);
        assert!(!log.contains(" WARN ") && !log.contains(" ERROR "), "nothing was wrong:\n{log}");
    }
    secrets_are_private(&shell.home().join("rackhand"));
}

fn hardware() -> Hardware {
    // Off, because of its odd number.
    let mut hardware = Hardware::numbered(1);
    hardware.password = BMC_PASSWORD.to_owned();
    // The account that the Redfish service has, too.
    let user = hardware.users.iter_mut().find(|user| user.name == SushyEmulator::USERNAME).unwrap();
    user.privilege = Privilege::Administrator;
    hardware
}

/// Nothing that the chapter makes can be read by another user.
fn secrets_are_private(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", entry.path().display());
    }
}

/// How long one command may take; a job on two BMCs needs a few seconds.
const PATIENCE: Duration = Duration::from_secs(90);
