//! `rackhand-lab`: the simulated site as a process of its own, or a recorded tree served over HTTPS.
//!
//! It listens on loopback only, prints where, writes the same as JSON to `--ready-file` once everything
//! answers, and ends on SIGTERM, SIGINT or the death of the process that started it. Passwords come from a
//! file or standard input, never from arguments.

use std::io::{self, BufRead as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use rackhand_ipmi::wire::suite::Suite;
use rackhand_lab::replay::{Replay, Tree};
use rackhand_lab::{IpmiConfig, Lab, LabConfig, ServerSpec};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// How often to look whether the parent process still lives.
const PARENT_CHECK: Duration = Duration::from_millis(500);

type Failure = Box<dyn std::error::Error>;

/// A simulated site of Dell BMCs, for tests and for trying Rackhand out.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a mixed site of iDRAC 8, 9 and 10 with a package repository and a control API.
    Serve(Serve),
    /// Serve a recorded Redfish tree (.tar.gz), read-only.
    Replay(ReplayArgs),
}

#[derive(Args)]
struct Serve {
    /// Number of servers.
    #[arg(long, default_value_t = 12)]
    servers: usize,
    /// Simulated seconds per real second.
    #[arg(long, default_value_t = 1.0, value_parser = speed)]
    speed: f64,
    /// Equal seeds give equal sites.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    credentials: Credentials,
    /// Where the control API listens; everything else uses the same address.
    #[arg(long, default_value = "127.0.0.1:0", value_parser = loopback)]
    control: SocketAddr,
    /// First port of the BMCs, which get consecutive ones; 0 lets the system choose.
    #[arg(long, default_value_t = 0)]
    base_port: u16,
    /// First UDP port of the BMCs' IPMI, which get consecutive ones; 0 lets the system choose.
    #[arg(long, default_value_t = 0)]
    ipmi_base_port: u16,
    /// BMCs speak IPMI alone: thousands start within seconds.
    #[arg(long)]
    ipmi_only: bool,
    /// Cipher suites of IPMI; 0 lets anybody in, as neglected BMCs do.
    #[arg(long, value_delimiter = ',', default_values_t = [3, 17], value_parser = suite)]
    ipmi_suites: Vec<u8>,
    /// File to write once everything answers (JSON).
    #[arg(long)]
    ready_file: Option<PathBuf>,
}

#[derive(Args)]
struct ReplayArgs {
    /// The recorded tree.
    tree: PathBuf,
    #[command(flatten)]
    credentials: Credentials,
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:0", value_parser = loopback)]
    listen: SocketAddr,
    /// File to write once it answers (JSON).
    #[arg(long)]
    ready_file: Option<PathBuf>,
}

#[derive(Args)]
struct Credentials {
    /// The account's name.
    #[arg(long, default_value = "root")]
    username: String,
    /// File that holds the password.
    #[arg(long, conflicts_with = "password_stdin")]
    password_file: Option<PathBuf>,
    /// Read the password from standard input, one line.
    #[arg(long)]
    password_stdin: bool,
}

impl Credentials {
    fn password(&self) -> Result<Option<String>, Failure> {
        let text = if let Some(path) = &self.password_file {
            std::fs::read_to_string(path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?
        } else if self.password_stdin {
            let mut line = String::new();
            io::stdin().lock().read_line(&mut line)?;
            line
        } else {
            return Ok(None);
        };
        let password = text.trim_end_matches(['\r', '\n']).to_owned();
        if password.is_empty() { Err("the password is empty".into()) } else { Ok(Some(password)) }
    }
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "an address and a port, like 127.0.0.1:0".to_owned())?;
    if address.ip().is_loopback() { Ok(address) } else { Err("the lab listens on loopback only".to_owned()) }
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if (0.001..=100_000.0).contains(&speed) => Ok(speed),
        _ => Err("a number from 0.001 to 100000".to_owned()),
    }
}

fn suite(text: &str) -> Result<u8, String> {
    let id = text.parse().ok().filter(|id| Suite::from_id(*id).is_some());
    id.ok_or_else(|| "a cipher suite: 0, 1, 2, 3 or 17".to_owned())
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_env_filter(EnvFilter::from_default_env()).with_writer(io::stderr).init();
    let done = match Cli::parse().command {
        Command::Serve(args) => serve(args).await,
        Command::Replay(args) => replay(args).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = format!("rackhand-lab: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                text.push_str(&format!(": {error}"));
                cause = error.source();
            }
            drop(writeln!(io::stderr(), "{text}"));
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: Serve) -> Result<(), Failure> {
    let password = args.credentials.password()?.ok_or("give --password-file or --password-stdin")?;
    let lab = Lab::start(LabConfig {
        speed: args.speed,
        username: args.credentials.username.clone(),
        seed: args.seed,
        address: args.control.ip(),
        control_port: args.control.port(),
        base_port: args.base_port,
        redfish: !args.ipmi_only,
        ipmi_base_port: args.ipmi_base_port,
        ipmi: Some(IpmiConfig {
            suites: args.ipmi_suites.iter().filter_map(|id| Suite::from_id(*id)).collect(),
            ..IpmiConfig::default()
        }),
        ..LabConfig::new(ServerSpec::fleet(args.servers, args.seed), password)
    })
    .await?;
    let mut text = format!("control     {}/lab\nrepository  {}\n", lab.control_url(), lab.repository_url());
    for bmc in lab.bmcs() {
        let ipmi = bmc.ipmi.map(|address| format!("ipmi://{address}")).unwrap_or_default();
        let (name, url, product, version) = (&bmc.name, &bmc.url, &bmc.product, &bmc.idrac_version);
        text.push_str(&format!("{name:<11} {url}  {ipmi}  {product} {version}\n"));
    }
    let ready = json!({
        "pid": std::process::id(),
        "control_url": lab.control_url(),
        "repository_url": lab.repository_url(),
        "bmcs": lab.bmcs(),
    });
    announce(&text, args.ready_file.as_deref(), &ready)?;
    told_to_stop().await?;
    lab.shutdown().await;
    Ok(())
}

async fn replay(args: ReplayArgs) -> Result<(), Failure> {
    let credentials =
        args.credentials.password()?.map(|password| (args.credentials.username.clone(), password));
    let path = args.tree.clone();
    let tree = tokio::task::spawn_blocking(move || Tree::read(&path)).await??;
    let replay = Replay::start(tree, args.listen, credentials).await?;
    let ready = json!({
        "pid": std::process::id(),
        "url": replay.url(),
        "spki_sha256": replay.spki_sha256(),
    });
    announce(&format!("{}\n", replay.url()), args.ready_file.as_deref(), &ready)?;
    told_to_stop().await?;
    replay.shutdown().await;
    Ok(())
}

/// Says where things are; the ready file appears whole or not at all.
fn announce(text: &str, file: Option<&Path>, ready: &Value) -> Result<(), Failure> {
    if let Some(path) = file {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        std::fs::write(&partial, ready.to_string())
            .and_then(|()| std::fs::rename(&partial, path))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Returns on SIGTERM, on SIGINT, and when the process that started this one is gone.
///
/// It compares parent ids instead of asking for a death signal, which would come when the starting *thread*
/// ends.
async fn told_to_stop() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let parent = rustix::process::getppid();
    let mut checks = tokio::time::interval(PARENT_CHECK);
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = checks.tick() => if rustix::process::getppid() != parent { return Ok(()) },
        }
    }
}
