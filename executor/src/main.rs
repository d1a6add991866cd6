//! `rackhand-executor`: enrols, runs, confirms a joining executor, prints the journal.

use std::{
    io::{BufRead, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::{Parser, Subcommand};
use rackhand_executor::{
    broker::{
        connect::Transports,
        ipmi::{IpmiConnector, link::Udp},
        redfish::{Https, Leftovers, RedfishConnector},
    },
    clock::BootClock,
    cloud::http::{Http, HttpCloud},
    config::Config,
    credential::forget_version,
    enrol,
    identity::Identity,
    journal::{Journal, sqlite},
    package::{Packages, Publisher, cache::DiskCache, listener::Listener},
    pins,
    policy::Policy,
    service::{Ended, Executor, Parts, Settings},
    sessions::Sessions,
    site_key::{ConfirmedFile, PINNED, site_fingerprint},
    text,
};
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

/// Takes work for one site from a Rackhand control plane and carries it out on its BMCs.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Join a site with a one-time token. Makes the keys and a commented policy.toml in the data directory.
    Enrol {
        /// Address of the control plane, https://…
        #[arg(long)]
        server: String,
        /// Data directory; created if it does not exist.
        #[arg(long)]
        data: PathBuf,
        /// Display name of this executor.
        #[arg(long)]
        name: String,
        /// Certificates (PEM) to trust for the control plane instead of the operating system's, for a private CA.
        /// `run` takes the same, and so does `ca_file` in executor.toml.
        #[arg(long, value_name = "FILE")]
        ca_file: Option<PathBuf>,
        /// Read the token from the first line of standard input, or from a prompt on a terminal: it does not belong
        /// on a command line.
        #[arg(long, required = true)]
        token_stdin: bool,
    },
    /// Run until SIGTERM or SIGINT; runs are then given back at their next safe point.
    Run {
        /// Data directory, as given to `enrol`.
        #[arg(long)]
        data: PathBuf,
        /// Another address of the control plane than at enrolment.
        #[arg(long)]
        server: Option<String>,
        /// As for `enrol`; for the package repository, too.
        #[arg(long, value_name = "FILE")]
        ca_file: Option<PathBuf>,
    },
    /// Admit an executor. Pass the fingerprint shown on that machine.
    Confirm {
        /// Data directory, as given to `enrol`.
        #[arg(long)]
        data: PathBuf,
        /// 64 hex digits, with or without blanks.
        #[arg(num_args = 1.., required = true)]
        fingerprint: Vec<String>,
    },
    /// Print the site's public key and its fingerprint, to compare with what people seal credentials to.
    SiteKey {
        /// Data directory, as given to `enrol`.
        #[arg(long)]
        data: PathBuf,
    },
    /// Print the TLS keys that BMCs show from here, as a servers file; no password is sent.
    ///
    /// The file goes to standard output, the fingerprints to compare to standard error.
    Pins {
        /// `[NAME=]https://host[:port]` or `[NAME=]ipmi://host[:port]`.
        #[arg(value_name = "[NAME=]ADDRESS", num_args = 1.., required = true)]
        bmcs: Vec<String>,
        /// Seconds for each BMC.
        #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
        timeout: u64,
    },
    /// Take older versions of a credential again, after the control plane was restored from a backup. The executor must
    /// be stopped.
    ///
    /// An executor refuses a version of a credential below one that it has used: it may be an old text with a password
    /// that is no longer valid, which someone has kept. This makes it forget what it has used. The next run with the
    /// credential reports it.
    ForgetCredential {
        /// Data directory, as given to `enrol`.
        #[arg(long)]
        data: PathBuf,
        /// Name of the credential.
        credential: String,
        /// Do it. Without this, only what would happen is printed.
        #[arg(long)]
        yes: bool,
    },
    /// Print what this executor meant to do, did, and has still to report.
    Journal {
        /// Data directory, as given to `enrol`.
        #[arg(long)]
        data: PathBuf,
    },
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("RACKHAND_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    close_memory();
    let result = match Arguments::parse().command {
        Command::Enrol { server, data, name, ca_file, token_stdin: _ } => {
            join(&server, &data, &name, ca_file).await
        }
        Command::Run { data, server, ca_file } => run(&data, server, ca_file).await,
        Command::Confirm { data, fingerprint } => {
            enrol::confirm(&data, &fingerprint.concat()).await.map_err(Failure::from).and_then(|()| {
                say("Confirmed. The running executor shares the site key within its next lease request.")
            })
        }
        Command::SiteKey { data } => show_site_key(&data).await,
        Command::Pins { bmcs, timeout } => show_pins(&bmcs, Duration::from_secs(timeout)).await,
        Command::ForgetCredential { data, credential, yes } => {
            forget_credential(&data, &credential, yes).await
        }
        Command::Journal { data } => print(&data).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(next) = source {
                text = format!("{text}: {next}");
                source = next.source();
            }
            let lines: Vec<String> = text.lines().map(text::escaped).collect();
            let _ = writeln!(std::io::stderr(), "rackhand-executor: {}", lines.join("\n"));
            ExitCode::FAILURE
        }
    }
}

/// No other process of this user may read the memory, where passwords and keys are, and no core dump holds it
/// (prctl(2), `PR_SET_DUMPABLE`). A debugger or a profiler has to be run by root.
fn close_memory() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "other processes of this user may read the memory of this one");
    }
}

/// A line; what came from the control plane must not steer the terminal.
fn say(line: &str) -> Result<(), Failure> {
    Ok(writeln!(std::io::stdout(), "{}", text::escaped(line))?)
}

/// The configuration, with what the command line says instead.
fn configured(data: &Path, ca_file: Option<PathBuf>) -> Result<Config, Failure> {
    let config = Config::load(data)?;
    Ok(Config { ca_file: ca_file.or(config.ca_file), ..config })
}

/// The enrolment token: from a prompt that does not show it, or the first line of standard input.
fn token() -> Result<Zeroizing<String>, Failure> {
    if !std::io::stdin().is_terminal() {
        return Ok(first_line(std::io::stdin().lock())?);
    }
    let mut stderr = std::io::stderr().lock();
    write!(stderr, "Enrolment token: ").and_then(|()| stderr.flush())?;
    Ok(Zeroizing::new(rpassword::read_password()?))
}

/// At most 1024 bytes; what follows the line is not waited for.
fn first_line(input: impl BufRead) -> std::io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::new());
    input.take(1024).read_line(&mut line)?;
    Ok(line)
}

async fn join(server: &str, data: &Path, name: &str, ca_file: Option<PathBuf>) -> Result<(), Failure> {
    let token = token()?;
    let http = Http::new(server, configured(data, ca_file)?.tls()?)?;
    let identity = enrol::enrol(&http, server, data, name, &token).await?;
    let membership = &identity.membership;
    // Nothing of the control plane's stands before it.
    say(&format!("Fingerprint: {}", identity.fingerprint()))?;
    say(&format!("Enrolled as {} in {}.", membership.name, text::clean(&membership.site)))?;
    if let Some(key) = &membership.site_public_key {
        say(&format!("Site key fingerprint: {}", site_fingerprint(key)))?;
    }
    say(membership.next_step())
}

async fn run(data: &Path, server: Option<String>, ca_file: Option<PathBuf>) -> Result<(), Failure> {
    let (config, policy) = (configured(data, ca_file)?, Policy::load(data)?);
    let identity = Arc::new(Identity::load(data)?);
    // The lock: from here on the former process of this directory is known to be dead.
    let journal: Arc<dyn Journal> = Arc::new(sqlite::SqliteJournal::open(data).await?);
    let sessions = Sessions::begin(Arc::clone(&journal)).await?;
    let session = sessions.own;
    let server = server.unwrap_or_else(|| identity.membership.server.clone());
    let http = Http::new(&server, config.tls()?)?;
    let cloud = Arc::new(HttpCloud::new(http, Arc::clone(&identity), sessions));
    let redfish = Arc::new(RedfishConnector {
        journal: Arc::clone(&journal),
        identity: Arc::clone(&identity),
        transports: Arc::new(Https),
    });
    let leftovers = tokio::spawn(Leftovers::read(Arc::clone(&redfish)).await?.delete());
    let connector = Arc::new(Transports {
        cloud: Arc::clone(&cloud) as Arc<_>,
        redfish,
        ipmi: IpmiConnector { journal: Arc::clone(&journal), links: Arc::new(Udp::new()?) },
    });
    let cache = config.cache_dir.clone().unwrap_or_else(|| data.join("packages"));
    let limit = u64::from(config.cache_gib) * 1024 * 1024 * 1024;
    let publisher: Option<Arc<dyn Publisher>> = match policy.package_listen {
        Some(address) => Some(Arc::new(Listener::bind(address, policy.package_url.as_deref()).await?)),
        None => None,
    };
    let packages = Packages {
        repository: Arc::new(DiskCache::open(&cache, limit, policy.clone(), config.tls()?)?),
        publisher,
    };
    let settings = Settings { timing: config.timing(), policy, capacity: config.capacity };
    let name = identity.membership.name.clone();
    let handle = Executor::start(
        settings,
        Parts {
            clock: Arc::new(BootClock),
            cloud,
            journal,
            connector,
            packages,
            identity,
            confirmed: Arc::new(ConfirmedFile(data.join("confirmed"))),
        },
    );
    tracing::info!(executor = name, server, session = %session, "started");
    say(&serde_json::json!({ "ready": true, "executor": name }).to_string())?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let ended = tokio::select! {
        ended = handle.ended() => ended,
        _ = terminate.recv() => drained(&handle).await,
        _ = interrupt.recv() => drained(&handle).await,
    };
    leftovers.abort();
    match ended {
        Ended::Drained => Ok(()),
        other => Err(other.into()),
    }
}

async fn drained(handle: &rackhand_executor::service::Handle) -> Ended {
    tracing::info!("draining: runs are given back at their next safe point");
    handle.drain();
    handle.ended().await
}

async fn show_site_key(data: &Path) -> Result<(), Failure> {
    let enrolled = Identity::load(data)?.membership;
    // Not before the first run is there a journal.
    let Some(key) = sqlite::read_meta(data, PINNED).await? else {
        let why = match enrolled.site_public_key {
            None => format!(
                "{} has no key yet: its first executor makes it when it runs",
                text::escaped(&enrolled.site)
            ),
            // It proves nothing to whoever compares it with what the control plane shows.
            Some(_) => format!(
                "{} does not hold the key of {} yet, and what the control plane says of it is no proof: run this on an \
                 executor that is active, `rackhand executors list` shows which",
                enrolled.name,
                text::escaped(&enrolled.site)
            ),
        };
        return Err(why.into());
    };
    // The control plane gave the site its name: nothing of that stands before what people compare with its key.
    say(&format!("Key: {key}"))?;
    say(&format!("Fingerprint: {}", site_fingerprint(&key)))?;
    say(&format!("Site: {}", enrolled.site))
}

async fn forget_credential(data: &Path, name: &str, yes: bool) -> Result<(), Failure> {
    Identity::load(data)?;
    if !yes {
        return Err(format!(
            "Warning: after this, whoever controls the control plane can give this executor any earlier text of the \
             credential {name} that was sealed for this site. Seal the credential anew instead, if you can: `rackhand \
             credentials set`, until its version is higher. Nothing was changed; add --yes to go on"
        )
        .into());
    }
    let journal = sqlite::SqliteJournal::open(data).await?;
    match forget_version(&journal, name).await? {
        Some(version) => say(&format!(
            "Forgot that version {version} of {name} was used. The next run with it reports this to the control plane."
        )),
        None => Err(format!("no credential {name} was used here; nothing was changed").into()),
    }
}

async fn show_pins(bmcs: &[String], patience: Duration) -> Result<(), Failure> {
    let bmcs = pins::parse_all(bmcs)?;
    let found = pins::collect(&bmcs, patience).await;
    write!(std::io::stderr(), "{}", pins::summary(&bmcs, &found))?;
    write!(std::io::stdout(), "{}", pins::servers_file(&bmcs, &found))?;
    let failed = found.iter().filter(|found| matches!(found, pins::Found::Failed(_))).count();
    if failed > 0 {
        let rest = if failed == bmcs.len() { "there is no list" } else { "they are not in the list" };
        return Err(format!("{failed} of {} BMCs showed no key; {rest}", bmcs.len()).into());
    }
    Ok(())
}

async fn print(data: &Path) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    for line in sqlite::print(data).await? {
        let body = text::escaped(&line.body);
        match writeln!(out, "{:24} {} epoch {:<4} {:10} {body}", line.at, line.run, line.epoch, line.kind) {
            // Whoever reads it has read enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Error, Read};

    use super::*;

    /// The input of someone who pastes a line and does not end the input.
    struct Open;

    impl Read for Open {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(Error::other("waits for ever"))
        }
    }

    #[test]
    fn a_token_is_one_line() {
        let input = std::io::BufReader::new((&b"token-of-one\n"[..]).chain(Open));
        assert_eq!(first_line(input).unwrap().trim(), "token-of-one");
        assert_eq!(first_line(&b"token-of-one"[..]).unwrap().trim(), "token-of-one");
        assert_eq!(first_line(std::io::BufReader::new(std::io::repeat(b'x'))).unwrap().len(), 1024);
    }
}
