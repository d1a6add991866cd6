//! Child processes that do not outlive their test.

use std::{
    ffi::OsStr,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Output, Stdio},
};

/// A running program; killed on drop, and by the kernel if the thread that started it dies.
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts `program` with its output in the file `log`.
    pub fn start<S: AsRef<OsStr>>(program: &Path, arguments: &[S], directory: &Path, log: &Path) -> Self {
        Self::start_with_input(program, arguments, directory, log, Stdio::null()).0
    }

    /// The same, with something to read.
    pub fn start_with_input<S: AsRef<OsStr>>(
        program: &Path,
        arguments: &[S],
        directory: &Path,
        log: &Path,
        input: Stdio,
    ) -> (Self, Option<ChildStdin>) {
        let output = File::options().create(true).append(true).open(log).unwrap();
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig=KILL", "--"])
            .arg(program)
            .args(arguments)
            .current_dir(directory)
            .stdin(input)
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .expect("setpriv (Debian: util-linux) starts a peer");
        let stdin = child.stdin.take();
        (Self { child, log: log.to_owned() }, stdin)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended by itself.
    pub fn ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// As a power cut does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A program of the system, also one that only root has on its path.
pub fn installed(name: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")])
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} is missing: apt-get install {package}"))
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Output {
    command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", command.get_program().display()))
}

/// Runs a command; what it printed, if it succeeded.
pub fn succeed(command: &mut Command) -> String {
    let output = run(command);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
