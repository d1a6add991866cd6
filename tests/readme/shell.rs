//! One shell of a user without rights, with a home that holds a work tree of this repository.

use std::{
    fs,
    io::Write as _,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
};

use rackhand_tests::stack::binary;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::time::{Duration, Instant, sleep};
use xtask::login::Login;

use crate::PATIENCE;

/// No user of any machine: nothing is made in its user database, and nothing belongs to it but the home.
const USER: &str = "61317";

pub struct Shell {
    child: Child,
    input: ChildStdin,
    home: PathBuf,
    blocks: usize,
}

impl Shell {
    /// The shell begins in the work tree, as the chapter says.
    pub fn start(folder: &Path, root: &Path) -> Self {
        let home = folder.join("home");
        let tree = home.join("tree");
        fs::create_dir_all(tree.join("ui")).unwrap();
        fs::create_dir_all(tree.join("target/release")).unwrap();
        builds(&home, root);
        // The shell writes here what commands print.
        fs::write(home.join("screen"), "").unwrap();
        let is_root = rustix::process::geteuid().is_root();
        if is_root {
            // Others may pass, not look around.
            fs::set_permissions(folder, fs::Permissions::from_mode(0o711)).unwrap();
            let owned = Command::new("chown").args(["-R", &format!("{USER}:{USER}")]).arg(&home).status();
            assert!(owned.unwrap().success(), "chown");
        }
        let mut command = Command::new("setpriv");
        if is_root {
            command.args(["--reuid", USER, "--regid", USER, "--clear-groups", "--no-new-privs"]);
        }
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", home.join("builds").display());
        let screen = fs::File::options().append(true).open(home.join("screen")).unwrap();
        let mut child = command
            .args(["--pdeathsig=KILL", "--", "bash", "--noprofile", "--norc"])
            .current_dir(tree)
            .env_clear()
            .env("HOME", &home)
            .env("PATH", path)
            .env("LANG", "C.UTF-8")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(screen.try_clone().unwrap())
            .stderr(screen)
            .spawn()
            .expect("setpriv (Debian: util-linux) starts bash");
        let mut input = child.stdin.take().unwrap();
        // The first command that fails ends it; so does the end of this test, with all that it has started.
        writeln!(input, "set -e -o pipefail; trap 'kill 0' EXIT").unwrap();
        Self { child, input, home, blocks: 0 }
    }

    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The password of whoever may make roles, where `psql` looks for it.
    pub fn may_use_postgres(&self, login: &Login) {
        let file = self.home.join(".pgpass");
        let line = format!("{}:{}:*:{}:{}\n", login.host, login.port, login.user, login.password);
        fs::write(&file, line).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        if rustix::process::geteuid().is_root() {
            let user = USER.parse().unwrap();
            std::os::unix::fs::chown(&file, Some(user), Some(user)).unwrap();
        }
    }

    /// Types a block and waits for its end; what it printed.
    pub async fn type_block(&mut self, block: &str) -> String {
        self.blocks += 1;
        let end = format!("-- block {} ended", self.blocks);
        let before = self.screen().len();
        writeln!(self.input, "{block}\necho; echo '{end}'").unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            let printed = screen.get(before..).unwrap_or_default();
            if let Some((printed, _)) = printed.split_once(&end) {
                return printed.to_owned();
            }
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "{block}\n\ndid not succeed:\n{printed}\n{}",
                self.logs()
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits for words in a log that the chapter keeps.
    pub async fn log_shows(&self, name: &str, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log(name).contains(words) {
            assert!(Instant::now() < deadline, "no `{words}` in {name}:\n{}", self.logs());
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn screen(&self) -> String {
        fs::read_to_string(self.home.join("screen")).unwrap()
    }

    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.home.join("rackhand").join(name)).unwrap_or_default()
    }

    fn logs(&self) -> String {
        format!("server.log:\n{}\nexecutor.log:\n{}", self.log("server.log"), self.log("executor.log"))
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// `cargo` and `npm` of this user: see the head of the test.
fn builds(home: &Path, root: &Path) {
    let folder = home.join("builds");
    fs::create_dir_all(&folder).unwrap();
    for name in ["rackhand", "rackhand-server", "rackhand-executor"] {
        fs::copy(binary(name), folder.join(format!("debug-{name}"))).unwrap();
    }
    let ui = root.join("ui/dist");
    assert!(ui.join("index.html").is_file(), "the UI is not built: npm run build in ui/");
    let copied = Command::new("cp").arg("-r").arg(ui).arg(folder.join("dist")).status();
    assert!(copied.unwrap().success(), "cp");
    let build = "build --release --bin rackhand --bin rackhand-server --bin rackhand-executor";
    let copy =
        "for built in \"${0%/*}\"/debug-*; do cp \"$built\" \"target/release/${built##*/debug-}\"; done";
    program(&folder.join("cargo"), &[("tree", build, copy)]);
    program(
        &folder.join("npm"),
        &[("ui", "ci", ":"), ("ui", "run build", "rm -rf dist; cp -r \"${0%/*}/dist\" dist")],
    );
}

/// A program that knows only these calls: folder, arguments, what is done then.
fn program(path: &Path, calls: &[(&str, &str, &str)]) {
    let cases: String = calls
        .iter()
        .map(|(folder, arguments, action)| format!("'{folder}: {arguments}') {action} ;;\n"))
        .collect();
    let text = format!(
        "#!/bin/sh\ncase \"${{PWD##*/}}: $*\" in\n{cases}*) echo \"not expected: ${{0##*/}} $*\" >&2; exit 1 ;;\nesac\n"
    );
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
