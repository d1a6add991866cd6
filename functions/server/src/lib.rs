//! The native host of the control plane: one process on tokio that serves the Router of
//! `rackhand-functions` over pooled Postgres connections, and the UI's files.
//!
//! It holds nothing that matters: any number may run beside each other, and one may be killed at any time.
//! Without its database it keeps running and answers 503; one that refuses it at the start (password, name, no
//! schema) ends it with the reason. It refuses to speak plain HTTP beyond this machine unless told so.

mod address;
mod files;
mod http;
mod metrics;
mod patience;
mod pg_tls;
mod postgres;
mod quiet;
mod serve;
pub mod setup;
mod shares;
mod slots;
mod wakeup;
mod workers;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use rackhand_functions::{
    Host,
    auth::token::SigningKeys,
    forwarded::Network,
    host::{NoEntropy, Process, Settings, public_address},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    address::Address,
    files::Files,
    http::{App, Around},
    postgres::{FirstLook, Pooled},
    slots::Slots,
    wakeup::Wakeups,
    workers::Workers,
};
pub use crate::{postgres::chain, quiet::Quiet, slots::Most};

/// How a server runs. There is no `Debug`: the URL may hold a password.
#[derive(Clone)]
pub struct Config {
    pub listen: SocketAddr,
    /// Of the role `rackhand_api`.
    pub database_url: String,
    pub database_connections: usize,
    /// The same database without a pooler in between, for notifications; [`Self::database_url`] if absent.
    pub listen_url: Option<String>,
    pub signing_keys: SigningKeys,
    /// Directory of the built UI.
    pub ui_dir: Option<PathBuf>,
    /// Under which browsers reach us, where a proxy stands in front.
    pub public_url: Option<String>,
    /// Proxies whose `X-Forwarded-For` says who the client is.
    pub trusted_proxies: Vec<Network>,
    pub tls: Option<TlsFiles>,
    pub allow_plain_http: bool,
    /// Where metrics are shown, over plain HTTP and to whoever asks; nowhere if absent.
    pub metrics_listen: Option<SocketAddr>,
    /// Connections of clients.
    pub connections: Most,
    /// How long the body of a request may take to arrive.
    pub body_limit: Duration,
    /// How long a connection may be without a request.
    pub quiet: Quiet,
    /// Longest time for which a request is held open.
    pub max_wait: Duration,
    /// Who knows it may ask for scheduled work over HTTP, which this host also does by itself.
    pub tick_token: Option<String>,
}

impl Config {
    /// On a free port of loopback, for tests and `cargo xtask up`.
    pub fn local(database_url: impl Into<String>, signing_keys: SigningKeys) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            database_url: database_url.into(),
            database_connections: 16,
            listen_url: None,
            signing_keys,
            ui_dir: None,
            public_url: None,
            trusted_proxies: Vec::new(),
            tls: None,
            allow_plain_http: false,
            metrics_listen: None,
            connections: Most { all: 4096, per_address: 256 },
            body_limit: BODY_LIMIT,
            quiet: Quiet::default(),
            max_wait: Duration::from_secs(20),
            tick_token: None,
        }
    }
}

/// PEM texts.
#[derive(Clone)]
pub struct TlsFiles {
    pub cert: Vec<u8>,
    pub key: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "{0} is not this machine alone, and plain HTTP would show passwords to the network: \
         give --tls-cert and --tls-key, or --allow-plain-http behind a proxy that speaks TLS"
    )]
    PlainHttp(SocketAddr),
    #[error(
        "{0} is not this machine alone, so executors and browsers need to know who they speak to: give --public-url, \
         the address under which they reach the control plane, such as https://rackhand.example:8420"
    )]
    NoPublicUrl(SocketAddr),
    /// It may hold a password, so it is not repeated.
    #[error(
        "--public-url is scheme, host and port, such as https://rackhand.example:8420: no user, no password and no path"
    )]
    PublicUrl,
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
    #[error("the database settings")]
    Database(#[from] address::AddressError),
    #[error("the pool of connections to the database")]
    Pool(#[from] deadpool_postgres::BuildError),
    #[error("{0}")]
    Refused(String),
    #[error("TLS")]
    Tls(#[from] serve::TlsSetupError),
    #[error("the UI directory {0} has no index.html")]
    NoUi(PathBuf),
    #[error("the UI directory {0} cannot be read")]
    Ui(PathBuf, #[source] std::io::Error),
}

/// Between two rounds of scheduled work.
const UPKEEP: Duration = Duration::from_mins(1);
/// 2 MiB, the largest body there is, over a line of half a megabit a second and more.
pub const BODY_LIMIT: Duration = Duration::from_secs(30);
/// A few collectors, and no more.
const METRICS_CONNECTIONS: Most = Most { all: 16, per_address: 8 };

pub struct Server;

/// A server that listens. Dropping it ends it without waiting.
pub struct Running {
    /// Scheme, host and port.
    pub url: String,
    pub address: SocketAddr,
    /// Of the page of metrics, if there is one.
    pub metrics_url: Option<String>,
    closing: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Server {
    /// Listens and serves in the background. The database need not answer yet.
    ///
    /// # Errors
    /// When the configuration does not work, the database answers and refuses, or an address is taken.
    pub async fn start(config: Config) -> Result<Running, StartError> {
        if config.tls.is_none() && !config.listen.ip().is_loopback() && !config.allow_plain_http {
            return Err(StartError::PlainHttp(config.listen));
        }
        let public_url = config.public_url.as_deref();
        let public_url =
            public_url.map(|url| public_address(url).ok_or(StartError::PublicUrl)).transpose()?;
        if public_url.is_none() && !config.listen.ip().is_loopback() {
            return Err(StartError::NoPublicUrl(config.listen));
        }
        if let Some(ui) = config.ui_dir.as_ref().filter(|ui| !ui.join("index.html").is_file()) {
            return Err(StartError::NoUi(ui.clone()));
        }
        let ui = match config.ui_dir {
            Some(folder) => {
                Some(Arc::new(Files::read(&folder).await.map_err(|error| StartError::Ui(folder, error))?))
            }
            None => None,
        };
        let tls = config.tls.as_ref().map(|files| serve::acceptor(&files.cert, &files.key)).transpose()?;
        let database = Address::parse(&config.database_url)?;
        let direct = config.listen_url.as_deref().map_or_else(|| Ok(database.clone()), Address::parse)?;
        let pools = Pooled::new(&database, config.database_connections)?;
        match postgres::first_look(&pools.people, &database).await {
            FirstLook::Ready => {}
            FirstLook::Refused(cause) => return Err(StartError::Refused(cause)),
            FirstLook::NotYet(cause) => {
                tracing::warn!(cause, "the database does not answer; until it does, every request gets 503");
            }
        }
        let (listener, address) = bind(config.listen).await?;
        let metrics = match config.metrics_listen {
            Some(address) => Some(bind(address).await?),
            None => None,
        };

        let closing = CancellationToken::new();
        let wakeups = Wakeups::new(closing.clone());
        let host = Host {
            database: Box::new(pools.clone()),
            notifier: Box::new(wakeups.clone()),
            now_unix_ms,
            work: Box::new(Workers::new()),
            entropy: |bytes| getrandom::fill(bytes).map_err(|_| NoEntropy),
            settings: Settings {
                version: env!("CARGO_PKG_VERSION"),
                public_url,
                max_wait: config.max_wait,
                tick_token: config.tick_token,
            },
            keys: config.signing_keys,
            process: Arc::new(Process::of_all_requests()),
        };
        let host = Arc::new(host);
        let trusted_proxies: Arc<[Network]> = config.trusted_proxies.into();
        let slots = Slots::new(config.connections, Arc::clone(&trusted_proxies));
        let around = Around {
            host: Arc::clone(&host),
            metrics: Arc::default(),
            pools: pools.clone(),
            wakeups: wakeups.clone(),
            slots: Arc::clone(&slots),
        };
        let app = App {
            core: App::core(around.clone()),
            ui,
            https: tls.is_some() || host.settings.is_https(),
            trusted_proxies,
            body_limit: config.body_limit,
            quiet: config.quiet,
            shares: Arc::clone(&pools.shares),
        };
        let url = format!("{}://{address}", if tls.is_some() { "https" } else { "http" });
        let mut tasks = vec![
            tokio::spawn(wakeups.listen(direct, pools.people.clone())),
            tokio::spawn(serve::run(listener, tls, app, slots, closing.clone())),
            tokio::spawn(upkeep(host, closing.clone())),
        ];
        let mut metrics_url = None;
        if let Some((listener, address)) = metrics {
            let app = App {
                core: App::metrics(around),
                ui: None,
                https: false,
                trusted_proxies: [].into(),
                body_limit: config.body_limit,
                quiet: config.quiet,
                shares: pools.shares,
            };
            let slots = Slots::new(METRICS_CONNECTIONS, [].into());
            tasks.push(tokio::spawn(serve::run(listener, None, app, slots, closing.clone())));
            metrics_url = Some(format!("http://{address}/metrics"));
        }
        Ok(Running { url, address, metrics_url, closing, tasks })
    }
}

async fn bind(wanted: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |error| StartError::Listen(wanted, error);
    let listener = TcpListener::bind(wanted).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

impl Running {
    /// Stops accepting, answers what is held open, and waits (at most about ten seconds) for the rest.
    pub async fn shutdown(mut self) {
        self.closing.cancel();
        for task in self.tasks.drain(..) {
            if let Err(error) = task.await
                && error.is_panic()
            {
                tracing::error!("a task of the server panicked");
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.closing.cancel();
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Scheduled work, as long as the server runs. With several servers on a database one of them does it.
async fn upkeep(host: Arc<Host>, closing: CancellationToken) {
    if let Err(error) = rackhand_functions::upkeep::begin(Arc::clone(&host)).await {
        tracing::warn!(error, "the first round of upkeep looks whether the database was restored");
    }
    while closing.run_until_cancelled(tokio::time::sleep(UPKEEP)).await.is_some() {
        match rackhand_functions::upkeep::run(Arc::clone(&host)).await {
            Ok(done) => tracing::debug!(?done, "upkeep"),
            Err(error) => tracing::warn!(error, "upkeep has to wait"),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place where the host's clock is read, to date tokens")]
fn now_unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn beyond_this_machine_it_needs_tls_and_a_name() {
        let keys = SigningKeys::from_seed(&[1; 32]);
        let mut config = Config::local("postgres://nobody@127.0.0.1:1/none", keys);
        config.listen = SocketAddr::from(([0, 0, 0, 0], 0));
        assert!(matches!(Server::start(config.clone()).await, Err(StartError::PlainHttp(_))));
        config.allow_plain_http = true;
        assert!(matches!(Server::start(config.clone()).await, Err(StartError::NoPublicUrl(_))));
        for wrong in [
            "https://ada:hunter2@x",
            "https://ada:hunter2%40x",
            "https://$(reboot)",
            "https://x;y",
            "https://x#ada:hunter2@x",
            "https://x:99999",
            "x",
            "https://x/y",
        ] {
            config.public_url = Some(wrong.to_owned());
            let error = Server::start(config.clone()).await.err().unwrap();
            assert!(
                matches!(error, StartError::PublicUrl) && !error.to_string().contains("hunter2"),
                "{wrong}"
            );
        }
        config.public_url = Some("https://rackhand.example:8420/".to_owned());
        Server::start(config).await.unwrap().shutdown().await;
    }
}
