//! `rackhand-executor`: enrols, runs, confirms a joining executor, prints the journal.

use std::{
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::{Parser, Subcommand};
use rackhand_executor::{
    broker::{
        connect::Transports,
        ipmi::{IpmiConnector, link::Udp},
        redfish::{Https, RedfishConnector, delete_leftovers},
    },
    clock::BootClock,
    cloud::http::{Http, HttpCloud},
    config::Config,
    enrol,
    identity::Identity,
    journal::{Journal, Write, sqlite},
    package::{Packages, Publisher, cache::DiskCache, listener::Listener},
    policy::Policy,
    service::{Ended, Executor, Parts, Settings},
    site_key::ConfirmedFile,
};
use rackhand_schema::id::ExecutorSessionId;
use tokio::signal::unix::{SignalKind, signal};

/// Leases work for one site from a Rackhand control plane and carries it out on its BMCs.
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
        /// Data directory; made if need be.
        #[arg(long)]
        data: PathBuf,
        /// How people will call this executor.
        #[arg(long)]
        name: String,
        /// Read the token from standard input: it does not belong on a command line.
        #[arg(long, required = true)]
        token_stdin: bool,
    },
    /// Run until SIGTERM or SIGINT, then finish up.
    Run {
        #[arg(long)]
        data: PathBuf,
        /// Another address of the control plane than at enrolment.
        #[arg(long)]
        server: Option<String>,
    },
    /// Let an executor join the site: its fingerprint as that machine shows it.
    Confirm {
        #[arg(long)]
        data: PathBuf,
        /// 64 hex digits, with or without blanks.
        #[arg(num_args = 1.., required = true)]
        fingerprint: Vec<String>,
    },
    /// Print what this executor meant to do, did, and has still to report.
    Journal {
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
    let result = match Arguments::parse().command {
        Command::Enrol { server, data, name, token_stdin: _ } => join(&server, &data, &name).await,
        Command::Run { data, server } => run(&data, server).await,
        Command::Confirm { data, fingerprint } => {
            enrol::confirm(&data, &fingerprint.concat()).map_err(Failure::from).and_then(|()| {
                say("Confirmed. The running executor shares the site key within its next lease request.")
            })
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
            let _ = writeln!(std::io::stderr(), "rackhand-executor: {text}");
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) -> Result<(), Failure> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

async fn join(server: &str, data: &Path, name: &str) -> Result<(), Failure> {
    let mut token = zeroize::Zeroizing::new(String::new());
    std::io::stdin().take(1024).read_to_string(&mut token)?;
    let http = Http::new(server, Config::load(data)?.tls()?)?;
    let identity = enrol::enrol(&http, server, data, name, &token).await?;
    let membership = &identity.membership;
    say(&format!("Enrolled as {} in {}.", membership.name, membership.site))?;
    say(&format!("Fingerprint: {}", identity.fingerprint()))?;
    match membership.site_public_key {
        None => say("This is the site's first executor: it makes the site key when it runs."),
        Some(_) => say("On an executor that runs already: rackhand-executor confirm --data DIR FINGERPRINT"),
    }
}

async fn run(data: &Path, server: Option<String>) -> Result<(), Failure> {
    let (config, policy) = (Config::load(data)?, Policy::load(data)?);
    let identity = Arc::new(Identity::load(data)?);
    // The lock: from here on the former process of this directory is known to be dead.
    let journal: Arc<dyn Journal> = Arc::new(sqlite::SqliteJournal::open(data).await?);
    let resumes = journal.meta("session").await?.and_then(|text| text.parse().ok());
    let session = ExecutorSessionId::generate();
    journal.write(Write::Meta { key: "session".into(), value: Some(session.to_string()) }).await?;
    let server = server.unwrap_or_else(|| identity.membership.server.clone());
    let http = Http::new(&server, config.tls()?)?;
    let cloud = Arc::new(HttpCloud::new(http, Arc::clone(&identity), session, resumes));
    let redfish = Arc::new(RedfishConnector {
        journal: Arc::clone(&journal),
        identity: Arc::clone(&identity),
        transports: Arc::new(Https),
    });
    delete_leftovers(&redfish).await;
    let connector = Arc::new(Transports {
        cloud: Arc::clone(&cloud) as Arc<_>,
        redfish,
        ipmi: IpmiConnector { journal: Arc::clone(&journal), links: Arc::new(Udp::new()?) },
    });
    let cache = config.cache_dir.clone().unwrap_or_else(|| data.join("packages"));
    let publisher: Option<Arc<dyn Publisher>> = match policy.package_listen {
        Some(address) => Some(Arc::new(Listener::bind(address, policy.package_url.as_deref()).await?)),
        None => None,
    };
    let packages =
        Packages { repository: Arc::new(DiskCache::open(&cache, policy.clone(), config.tls()?)?), publisher };
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

async fn print(data: &Path) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    for line in sqlite::print(data).await? {
        writeln!(out, "{:24} {} epoch {:<4} {:10} {}", line.at, line.run, line.epoch, line.kind, line.body)?;
    }
    Ok(())
}
