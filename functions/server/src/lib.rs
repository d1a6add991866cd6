//! The native host of the control plane: one process on tokio that serves the Router of
//! `rackhand-functions` over pooled Postgres connections, and the UI's files.
//!
//! It holds nothing that matters: any number may run beside each other, and one may be killed at any time.
//! Without its database it keeps running and answers 503. It refuses to speak plain HTTP beyond this
//! machine unless told so.

mod forwarded;
mod http;
mod metrics;
mod pg_tls;
mod postgres;
mod serve;
pub mod setup;
mod wakeup;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use rackhand_functions::{
    Host,
    auth::token::SigningKeys,
    host::{NoEntropy, Settings},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub use crate::{forwarded::Network, postgres::chain};
use crate::{
    http::{App, Around},
    pg_tls::PgTls,
    postgres::Pooled,
    wakeup::Wakeups,
};

/// How a server runs. There is no `Debug`: the URL may hold a password.
#[derive(Clone)]
pub struct Config {
    pub listen: SocketAddr,
    /// Of the role `rackhand_api`.
    pub database_url: String,
    pub database_connections: usize,
    pub signing_keys: SigningKeys,
    /// Directory of the built UI.
    pub ui_dir: Option<PathBuf>,
    /// Under which browsers reach us, where a proxy stands in front.
    pub public_url: Option<String>,
    /// Proxies whose `X-Forwarded-For` says who the client is.
    pub trusted_proxies: Vec<Network>,
    pub tls: Option<TlsFiles>,
    pub allow_plain_http: bool,
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
            signing_keys,
            ui_dir: None,
            public_url: None,
            trusted_proxies: Vec::new(),
            tls: None,
            allow_plain_http: false,
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
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
    #[error("the database settings")]
    Database(#[from] postgres::PoolSetupError),
    #[error("TLS to the database")]
    DatabaseTls(#[from] pg_tls::PgTlsError),
    #[error("TLS")]
    Tls(#[from] serve::TlsSetupError),
    #[error("the UI directory {0} has no index.html")]
    NoUi(PathBuf),
}

/// Between two rounds of scheduled work.
const UPKEEP: Duration = Duration::from_mins(1);

pub struct Server;

/// A server that listens. Dropping it ends it without waiting.
pub struct Running {
    /// Scheme, host and port.
    pub url: String,
    pub address: SocketAddr,
    closing: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Server {
    /// Listens and serves in the background. The database need not answer yet.
    ///
    /// # Errors
    /// When the configuration does not work or the address is taken.
    pub async fn start(config: Config) -> Result<Running, StartError> {
        if config.tls.is_none() && !config.listen.ip().is_loopback() && !config.allow_plain_http {
            return Err(StartError::PlainHttp(config.listen));
        }
        if let Some(ui) = config.ui_dir.as_ref().filter(|ui| !ui.join("index.html").is_file()) {
            return Err(StartError::NoUi(ui.clone()));
        }
        let tls = config.tls.as_ref().map(|files| serve::acceptor(&files.cert, &files.key)).transpose()?;
        let database = postgres::parse_url(&config.database_url)?;
        let pool = postgres::pool(&database, config.database_connections)?;
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(|error| StartError::Listen(config.listen, error))?;
        let address = listener.local_addr().map_err(|error| StartError::Listen(config.listen, error))?;

        let closing = CancellationToken::new();
        let wakeups = Wakeups::new(closing.clone());
        let host = Host {
            database: Box::new(Pooled { pool: pool.clone() }),
            notifier: Box::new(wakeups.clone()),
            now_unix_ms,
            entropy: |bytes| getrandom::fill(bytes).map_err(|_| NoEntropy),
            settings: Settings {
                version: env!("CARGO_PKG_VERSION"),
                public_url: config.public_url,
                max_wait: config.max_wait,
                tick_token: config.tick_token,
            },
            keys: config.signing_keys,
        };
        let host = Arc::new(host);
        let around =
            Around { host: Arc::clone(&host), metrics: Arc::default(), pool, wakeups: wakeups.clone() };
        let app = App::new(around, config.ui_dir, tls.is_some(), config.trusted_proxies);
        let url = format!("{}://{address}", if tls.is_some() { "https" } else { "http" });
        let tasks = vec![
            tokio::spawn(wakeups.listen(database, PgTls::new()?)),
            tokio::spawn(serve::run(listener, tls, app, closing.clone())),
            tokio::spawn(upkeep(host, closing.clone())),
        ];
        Ok(Running { url, address, closing, tasks })
    }
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
    async fn plain_http_stays_on_this_machine_unless_told() {
        let keys = SigningKeys::from_seed(&[1; 32]);
        let mut config = Config::local("postgres://nobody@127.0.0.1:1/none", keys);
        config.listen = SocketAddr::from(([0, 0, 0, 0], 0));
        assert!(matches!(Server::start(config.clone()).await, Err(StartError::PlainHttp(_))));
        config.allow_plain_http = true;
        Server::start(config).await.unwrap().shutdown().await;
    }
}
