//! `rackhand-server`: serves the control plane; `migrate` and `admin create` prepare its database.

use std::{
    io::{BufRead, IsTerminal as _, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use rackhand_functions::{auth::token::SigningKeys, forwarded::Network};
use rackhand_server::{
    BODY_LIMIT, Config, Most, Quiet, Server, StartError, TlsFiles, chain,
    setup::{self, Existing, SetupError},
};
use tracing_subscriber::{EnvFilter, fmt};
use zeroize::Zeroizing;

/// Rackhand's control plane on this machine.
#[derive(Parser)]
#[command(version, subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Option<Serve>,
    /// Log format, on stderr; RUST_LOG filters (default `info`).
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Pretty)]
    log: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Pretty,
    Json,
}

#[derive(Args)]
struct Serve {
    /// Address and port; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8420")]
    listen: SocketAddr,
    /// File with the database URL of the role `rackhand_api`. TLS is required beyond this machine; `sslrootcert=FILE`
    /// in the URL names the authority of the database's certificate, if it is a private one.
    #[arg(long, required = true)]
    database_url_file: PathBuf,
    /// File with a URL that leads straight to Postgres, for notifications; needed if the other one leads through a
    /// pooler in transaction mode.
    #[arg(long)]
    listen_url_file: Option<PathBuf>,
    /// File with the key that signs access tokens: 64 hex digits, or a PKCS#8 PEM of an Ed25519 key.
    #[arg(long, required = true)]
    signing_key_file: PathBuf,
    /// Directory of the built UI.
    #[arg(long)]
    ui_dir: Option<PathBuf>,
    /// Address under which browsers and executors reach the control plane: `https://rackhand.example:8420`. Required
    /// unless it listens on this machine alone.
    #[arg(long)]
    public_url: Option<String>,
    /// Address of a proxy in front; several with commas between: only their X-Forwarded-For says whose sign-in attempts
    /// are counted together. A network (10.0.0.0/28) is for proxies alone: whoever sends requests from it chooses the
    /// address that they count for.
    #[arg(long, value_name = "ADDRESS", env = "RACKHAND_TRUSTED_PROXY", value_delimiter = ',')]
    trusted_proxy: Vec<Network>,
    /// File with the token that lets others trigger scheduled work (`POST /v1/tick`).
    #[arg(long)]
    tick_token_file: Option<PathBuf>,
    /// PEM file with the certificate chain.
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM file with its private key.
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Serve plain HTTP beyond this machine: only behind a proxy that speaks TLS.
    #[arg(long)]
    allow_plain_http: bool,
    /// Address and port for metrics (`/metrics`, plain HTTP, shown to whoever asks); without it there are none.
    #[arg(long, value_name = "ADDRESS")]
    metrics_listen: Option<SocketAddr>,
    /// Maximum number of client connections; fewer where fewer files may be open.
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: u32,
    /// Maximum number of them from one address (IPv6: from one /64); this machine and trusted proxies have no such
    /// limit.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections_per_address: u32,
    /// Longest time a request is held open, milliseconds.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    max_wait_ms: u64,
    /// Maximum number of connections to the database, besides the one that listens.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1000))]
    database_connections: u16,
}

#[derive(Subcommand)]
enum Command {
    /// Make the roles if missing and bring the database up to date.
    Migrate {
        #[command(flatten)]
        owner: Owner,
        /// Make the roles and nothing else: before a dump is restored into another cluster.
        #[arg(long)]
        roles_only: bool,
    },
    /// People who administer the fleet.
    Admin {
        #[command(subcommand)]
        command: Admin,
    },
}

#[derive(Subcommand)]
enum Admin {
    /// Make a fleet admin. An e-mail address that has an account already is refused.
    Create(NewAdmin),
}

#[derive(Args)]
struct NewAdmin {
    #[command(flatten)]
    owner: Owner,
    /// E-mail address to sign in with.
    #[arg(long)]
    email: String,
    /// Name that others see.
    #[arg(long)]
    name: String,
    /// Read the password from the first line of stdin; on a terminal, from a prompt.
    #[arg(long, required = true)]
    password_stdin: bool,
    /// The account is there already: set its name and password, enable it, make it a fleet admin, end its sessions.
    #[arg(long)]
    reset_password: bool,
}

#[derive(Args)]
struct Owner {
    /// File with the database URL of a role that may create roles and owns the database.
    #[arg(long)]
    owner_url_file: PathBuf,
}

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    let logs = fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    match cli.log {
        LogFormat::Pretty => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
    close_memory();
    let outcome = match (cli.command, cli.serve) {
        (Some(Command::Migrate { owner, roles_only }), _) => migrate(&owner, roles_only).await,
        (Some(Command::Admin { command: Admin::Create(new) }), _) => create_admin(&new).await,
        (None, Some(options)) => serve(options).await,
        (None, None) => Err("nothing to do: see --help".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "rackhand-server: {}", chain(error.as_ref()));
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

async fn migrate(owner: &Owner, roles_only: bool) -> Result<(), Failure> {
    let url = read_secret("--owner-url-file", &owner.owner_url_file)?;
    if roles_only {
        setup::make_roles(&url).await.map_err(|error| of_owner(owner, error))?;
        tracing::info!("the roles are there");
    } else {
        setup::migrate(&url).await.map_err(|error| of_owner(owner, error))?;
        tracing::info!("the database is up to date");
    }
    Ok(())
}

/// From a prompt that does not show it, or the first line of standard input.
fn password() -> Result<Zeroizing<String>, Failure> {
    if !std::io::stdin().is_terminal() {
        return Ok(first_line(std::io::stdin().lock())?);
    }
    let mut stderr = std::io::stderr().lock();
    write!(stderr, "Password: ").and_then(|()| stderr.flush())?;
    Ok(Zeroizing::new(rpassword::read_password()?))
}

/// At most 8192 bytes; what follows the line is not waited for.
fn first_line(input: impl BufRead) -> std::io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::new());
    input.take(8192).read_line(&mut line)?;
    Ok(line)
}

async fn create_admin(new: &NewAdmin) -> Result<(), Failure> {
    let input = password()?;
    let password = input.lines().next().unwrap_or_default();
    let existing = if new.reset_password { Existing::Reset } else { Existing::Refuse };
    let owner = read_secret("--owner-url-file", &new.owner.owner_url_file)?;
    setup::create_admin(&owner, &new.email, &new.name, password, existing)
        .await
        .map_err(|error| of_owner(&new.owner, error))?;
    tracing::info!(email = new.email, "fleet admin ready");
    Ok(())
}

/// Names the file, where it says what cannot be reached.
fn of_owner(Owner { owner_url_file }: &Owner, error: SetupError) -> Failure {
    match error {
        SetupError::Address(_) | SetupError::Connect(_) => {
            format!("--owner-url-file {}: {}", owner_url_file.display(), chain(&error)).into()
        }
        other => other.into(),
    }
}

async fn serve(options: Serve) -> Result<(), Failure> {
    let tls = match (&options.tls_cert, &options.tls_key) {
        (Some(cert), Some(key)) => {
            Some(TlsFiles { cert: read("--tls-cert", cert)?, key: read("--tls-key", key)? })
        }
        _ => None,
    };
    let most = Most {
        all: usize::try_from(fitting_connections(options.connections, options.database_connections))?,
        per_address: usize::try_from(options.connections_per_address)?,
    };
    let optional =
        |option, path: &Option<PathBuf>| path.as_deref().map(|path| read_secret(option, path)).transpose();
    let listen_url = optional("--listen-url-file", &options.listen_url_file)?;
    let tick_token = optional("--tick-token-file", &options.tick_token_file)?;
    let running = Server::start(Config {
        listen: options.listen,
        database_url: read_secret("--database-url-file", &options.database_url_file)?.to_string(),
        database_connections: usize::from(options.database_connections),
        listen_url: listen_url.map(|url| url.to_string()),
        signing_keys: SigningKeys::from_text(&read_secret("--signing-key-file", &options.signing_key_file)?)?,
        ui_dir: options.ui_dir,
        public_url: options.public_url,
        trusted_proxies: options.trusted_proxy,
        tls,
        allow_plain_http: options.allow_plain_http,
        metrics_listen: options.metrics_listen,
        connections: most,
        body_limit: BODY_LIMIT,
        quiet: Quiet::default(),
        max_wait: Duration::from_millis(options.max_wait_ms),
        tick_token: tick_token.map(|token| token.to_string()),
    })
    .await
    .map_err(|error| match error {
        StartError::Refused(why) => {
            format!("--database-url-file {}: {why}", options.database_url_file.display()).into()
        }
        other => Failure::from(other),
    })?;
    tracing::info!(url = running.url, metrics = running.metrics_url, "ready");
    let ready = serde_json::json!({"ready": true, "url": running.url, "metrics_url": running.metrics_url});
    let mut out = std::io::stdout();
    // Nobody may be reading; the server serves all the same.
    let _ = writeln!(out, "{ready}").and_then(|()| out.flush());
    stop_signal().await?;
    tracing::info!("shutting down");
    running.shutdown().await;
    Ok(())
}

/// Listeners, logs, connections for metrics, and what the libraries open.
const OTHER_FILES: u64 = 128;

/// Raises the limit of open files to what these connections need, as far as the machine lets us; how many connections
/// of clients there may be then. One that is accepted and has no file left would hold up all others.
fn fitting_connections(clients: u32, database: u16) -> u32 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    // The listening one, and for each a cancel request.
    let others = 2 * u64::from(database) + 1 + OTHER_FILES;
    let needed = u64::from(clients) + others;
    let Rlimit { current: Some(soft), maximum } = getrlimit(Resource::Nofile) else { return clients };
    let wanted = maximum.map_or(needed, |hard| hard.min(needed));
    let raised = Rlimit { current: Some(wanted), maximum };
    let files = if soft < wanted && setrlimit(Resource::Nofile, raised).is_ok() { wanted } else { soft };
    let fitting =
        u32::try_from(files.saturating_sub(others)).map_or(clients, |fitting| clients.min(fitting)).max(1);
    if fitting < clients {
        tracing::info!(
            connections = fitting,
            files,
            "fewer connections than --connections says: no more files may be open (LimitNOFILE, ulimit -n)"
        );
    }
    fitting
}

/// Ctrl-C, or what a service manager sends.
async fn stop_signal() -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

fn read(option: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| unreadable(option, path, &error))
}

fn read_secret(option: &str, path: &Path) -> Result<Zeroizing<String>, Failure> {
    std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| unreadable(option, path, &error))
}

fn unreadable(option: &str, path: &Path, error: &std::io::Error) -> Failure {
    let path = path.display();
    match error.kind() {
        std::io::ErrorKind::NotFound => format!("{option} {path}: there is no such file").into(),
        _ => format!("{option} {path}: {error}").into(),
    }
}
