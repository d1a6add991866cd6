//! `cargo xtask up`: the whole system on this machine, with a firmware rollout that survives a killed executor.
//!
//! Order: what is missing is installed; binaries and UI are built; Postgres, control plane, lab and two executors
//! are started; the servers are inventoried; a BIOS update is planned, approved and carried out, while one executor is
//! killed in the middle of flashing; what the lab counted and what the control plane read back is compared. Then it
//! stays up until Ctrl-C. Every process ends with this one, however it ends.

mod cli;
mod control;
pub mod lab;
pub mod stack;
mod tour;

use std::{
    cell::Cell,
    fs::{File, TryLockError},
    io::Write as _,
    path::Path,
    time::Duration,
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};

use crate::{
    children::Children,
    edge::Host,
    error::{Failure, Result},
    install, paths, terminal,
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// End after the rollout, with its outcome as exit status.
    #[arg(long)]
    exit: bool,
    /// Number of simulated servers.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=200))]
    servers: u16,
    /// Port of the control plane; another one if it is taken.
    #[arg(long, default_value_t = 8420)]
    port: u16,
    /// Do not kill an executor on the way.
    #[arg(long)]
    no_kill: bool,
    /// How many times faster than real hardware the simulated one works.
    #[arg(long, default_value_t = 30.0)]
    speed: f64,
    /// What the control plane runs on.
    #[arg(long, value_enum, default_value_t)]
    host: Host,
    /// Start everything, but do not update anything: the packages for an update of your own are in a file that is
    /// named.
    #[arg(long, conflicts_with_all = ["exit", "no_kill"])]
    idle: bool,
}

impl Args {
    /// A small stack for a test in a browser: fast hardware, nothing done yet but the inventory.
    pub fn for_browser() -> Self {
        Self { exit: true, servers: 4, port: 0, no_kill: true, speed: 60.0, host: Host::Server, idle: true }
    }

    /// The whole rollout on that host, on a free port, with a killed executor.
    pub fn rollout_on(host: Host) -> Self {
        Self { exit: true, servers: 12, port: 0, no_kill: false, speed: 30.0, host, idle: false }
    }

    /// Everything on that host, at rest, until Ctrl-C.
    pub fn idle_on(host: Host, port: u16) -> Self {
        Self { exit: false, servers: 4, port, no_kill: true, speed: 30.0, host, idle: true }
    }
}

/// # Errors
/// Something is missing or does not start, or the rollout did not end as it should.
pub fn run(args: &Args) -> Result<()> {
    let staying_up = Cell::new(false);
    let result = start(args, async |stack, children| work(args, stack, children, &staying_up).await);
    match result {
        // Everything was done; this is how one ends it.
        Err(Failure::Interrupted(_)) if staying_up.get() => Ok(()),
        result => result,
    }
}

/// Starts everything, lets `act` use it, and ends everything. `act` blocks; the processes go on meanwhile.
///
/// # Errors
/// Something is missing or does not start, or `act` failed.
pub fn with_stack<T>(args: Args, act: impl FnOnce(&stack::Stack) -> Result<T>) -> Result<T> {
    start(&args, async |stack, _| {
        tour::inventory(stack).await?;
        act(stack)
    })
}

fn start<T>(args: &Args, act: impl AsyncFnOnce(&stack::Stack, &mut Children) -> Result<T>) -> Result<T> {
    let own_database = std::env::var_os(stack::OWN_DATABASE).is_some_and(|url| !url.is_empty());
    install::ensure(if own_database { install::FOR_UP_ELSEWHERE } else { install::FOR_UP })?;
    let state = paths::state();
    paths::private_folder(&state)?;
    let _lock = lock(&paths::state().join("lock"))?;
    stack::build(args.host)?;
    let logs = state.join("logs");
    paths::remove_folder(&logs)?;
    paths::private_folder(&logs)?;
    // One thread: children are told to die with the thread that starts them.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Failure::io("cannot start", source))?;
    let result = runtime.block_on(async {
        let mut stop = Stop::listen()?;
        let mut children = Children::new(logs.clone());
        let result = tokio::select! {
            biased;
            failure = stop.asked() => Err(failure),
            result = async {
                let stack = stack::Stack::start(args, &mut children).await?;
                act(&stack, &mut children).await
            } => result,
        };
        // Ctrl-C reaches every command on the terminal: its failure may be seen before our own signal.
        let result = match result {
            Err(failure) => Err(timeout(SIGNAL, stop.asked()).await.unwrap_or(failure)),
            done => done,
        };
        terminal::say("stopping");
        children.stop().await;
        result
    });
    if result.as_ref().is_err_and(|failure| !matches!(failure, Failure::Interrupted(_))) {
        terminal::say(format!("logs: {}", logs.display()));
    }
    result
}

async fn work(
    args: &Args,
    stack: &stack::Stack,
    children: &mut Children,
    staying_up: &Cell<bool>,
) -> Result<()> {
    let file = paths::state().join("admin-password");
    paths::write_secret(&file, &format!("{}\n", stack.password))?;
    let login = format!(
        "\nopen      {}\nsign in   {}\npassword  {}   (also in {})\npackages  {}\n          {}",
        stack.url,
        stack.email,
        stack.password,
        file.display(),
        stack.packages.display(),
        match args.idle {
            true => OWN_UPDATE,
            false => UPDATED_ALREADY,
        }
    );
    let outcome = if args.idle {
        Ok(())
    } else {
        // The rollout can be watched in the UI.
        terminal::say(&login);
        tour::run(args, stack, children).await
    };
    terminal::result(&login);
    outcome?;
    if args.exit {
        return Ok(());
    }
    terminal::say("\nCtrl-C ends everything");
    staying_up.set(true);
    loop {
        if let Some((name, status)) = children.ended() {
            let text = format!("{name} has ended ({status}); its log: {}", children.log(&name).display());
            terminal::say(without(&name, text)?);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// An executor may go, so that `rackhand executors revoke` can be tried: the rest goes on. `text` tells its end.
fn without(name: &str, text: String) -> Result<String> {
    match stack::EXECUTORS.contains(&name) {
        true => Ok(format!("{text}. Everything else goes on")),
        false => Err(Failure::Other(text)),
    }
}

/// The way to a firmware update of one's own.
const OWN_UPDATE: &str = "The BIOS packages of these servers. Select servers, choose “Read inventory”, then \
    “Update firmware” > “Paste a list…” with the content of this file.";
const UPDATED_ALREADY: &str = "The BIOS packages that the rollout installs. `cargo xtask up --idle` leaves them to you: \
    “Update firmware” > “Paste a list…”.";

/// Only one `up` at a time in a work tree: they would share logs and keys.
fn lock(path: &Path) -> Result<File> {
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .map_err(|source| Failure::at("open", path, source))?;
    match file.try_lock() {
        // Whoever finds it locked says whose it is.
        Ok(()) => file
            .set_len(0)
            .and_then(|()| write!(file, "{}", std::process::id()))
            .map(|()| file)
            .map_err(|source| Failure::at("write", path, source)),
        Err(TryLockError::WouldBlock) => {
            let holder = std::fs::read_to_string(path).ok().and_then(|text| text.parse::<u32>().ok());
            Err(Failure::Other(taken(holder)))
        }
        Err(TryLockError::Error(source)) => Err(Failure::at("lock", path, source)),
    }
}

fn taken(holder: Option<u32>) -> String {
    let holder = holder.map_or_else(String::new, |pid| format!(" (process {pid})"));
    format!(
        "another `cargo xtask up` is running in this work tree{holder}: stop it with Ctrl-C in its terminal, or use another \
         clone of the repository"
    )
}

/// How long our own signal may come after its effect on a child.
const SIGNAL: Duration = Duration::from_millis(50);

/// Ctrl-C, SIGTERM, or the terminal going away.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Stop {
    /// From here on these signals no longer end the process by themselves.
    fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|source| Failure::io("cannot listen for signals", source));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for one of them.
    async fn asked(&mut self) -> Failure {
        tokio::select! {
            _ = self.hangup.recv() => Failure::Interrupted(1),
            _ = self.interrupt.recv() => Failure::Interrupted(2),
            _ = self.terminate.recv() => Failure::Interrupted(15),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::children::POSTGRES;

    #[test]
    fn a_second_up_names_the_first_and_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        // What an earlier one has left is longer.
        std::fs::write(&path, "9".repeat(20)).unwrap();
        let _first = lock(&path).unwrap();
        let said = lock(&path).unwrap_err().to_string();
        assert!(said.contains(&format!("(process {}): stop it with Ctrl-C", std::process::id())), "{said}");
        assert!(taken(None).contains("in this work tree: stop it"), "{}", taken(None));
    }

    #[tokio::test]
    async fn an_executor_that_ends_does_not_end_the_rest() {
        let logs = tempfile::tempdir().unwrap();
        let mut children = Children::new(logs.path().to_owned());
        for name in ["executor-1", "lab"] {
            children.start(name, Path::new("/bin/true"), &[], None).await.unwrap();
            let (ended, _) = loop {
                match children.ended() {
                    Some(ended) => break ended,
                    None => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            };
            assert_eq!(ended, name, "each is named once");
            assert_eq!(without(&ended, "gone".to_owned()).is_ok(), name == "executor-1");
        }
        assert!(without(POSTGRES, "gone".to_owned()).is_err());
    }
}
