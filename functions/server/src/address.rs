//! A database URL, with what it leaves open settled: the same for the API's pool, the listening connection and
//! the owner's commands.
//!
//! Beyond this machine TLS is required and the certificate verified, whatever `sslmode` says short of `disable`:
//! "prefer" would fall back to plain text when somebody in between refuses TLS.

use std::{fs, net::IpAddr, path::PathBuf, time::Duration};

use tokio_postgres::{
    Client, Config, Connection, Socket,
    config::{Host, SslMode},
};

use crate::pg_tls::{PgStream, PgTls, PgTlsError};

/// How long a server may take to accept a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Never repeats the URL: it may hold a password.
    #[error("the database URL is not valid")]
    Url(#[source] tokio_postgres::Error),
    #[error("the database URL names sslrootcert={0}, which cannot be read")]
    RootCertificate(PathBuf, #[source] std::io::Error),
    #[error("TLS to the database")]
    Tls(#[from] PgTlsError),
}

/// Where a database is and how to speak to it. There is no `Debug`: it may hold a password.
#[derive(Clone)]
pub struct Address {
    pub config: Config,
    pub tls: PgTls,
}

impl Address {
    /// Reads `postgres://user:password@host:port/database?…` with the parameters of tokio-postgres, and two as
    /// libpq has them (PostgreSQL documentation, "Database Connection Control Functions"): `sslrootcert`, a PEM
    /// file with the only authorities to believe (`system`: those of this machine, which is also what counts
    /// without it), and `sslmode=verify-ca` or `verify-full`, which ask for what `require` does here anyway.
    ///
    /// # Errors
    /// The URL is not one, or its file of authorities does not work.
    pub fn parse(url: &str) -> Result<Self, AddressError> {
        let (url, root) = take_libpq_parameters(url.trim());
        let mut config: Config = url.parse().map_err(AddressError::Url)?;
        if config.get_ssl_mode() == SslMode::Prefer {
            config.ssl_mode(if is_local(&config) { SslMode::Disable } else { SslMode::Require });
        }
        if config.get_application_name().is_none() {
            config.application_name("rackhand-server");
        }
        config.connect_timeout(CONNECT_TIMEOUT);
        let tls = match root {
            None => PgTls::of_this_machine()?,
            Some(path) => {
                let pem = fs::read(&path).map_err(|error| AddressError::RootCertificate(path, error))?;
                PgTls::signed_by(&pem)?
            }
        };
        Ok(Self { config, tls })
    }

    /// Host and port of each server that is tried, for people.
    pub fn place(&self) -> String {
        let config = &self.config;
        let hosts: Vec<String> = match config.get_hosts() {
            [] => config.get_hostaddrs().iter().map(IpAddr::to_string).collect(),
            named => named.iter().map(host_name).collect(),
        };
        // One port counts for all hosts (PostgreSQL documentation, "Specifying Multiple Hosts").
        let ports = config.get_ports();
        let port = |at: usize| ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        let places = hosts.iter().enumerate().map(|(at, host)| match host.contains(':') {
            true => format!("[{host}]:{}", port(at)),
            false => format!("{host}:{}", port(at)),
        });
        places.collect::<Vec<_>>().join(", ")
    }

    /// A connection of its own; somebody has to drive its second half.
    ///
    /// # Errors
    /// Nobody answers, or they refuse.
    pub async fn connect(
        &self,
    ) -> Result<(Client, Connection<Socket, PgStream<Socket>>), tokio_postgres::Error> {
        self.config.connect(self.tls.clone()).await
    }
}

fn host_name(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    }
}

/// Whether all of it stays on this machine.
fn is_local(config: &Config) -> bool {
    let hosts = config.get_hosts().iter().all(|host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()),
    });
    hosts && config.get_hostaddrs().iter().all(IpAddr::is_loopback)
}

/// The URL without what only libpq knows, and the file of authorities.
fn take_libpq_parameters(url: &str) -> (String, Option<PathBuf>) {
    let Some((place, query)) = url.split_once('?') else { return (url.to_owned(), None) };
    let mut root = None;
    let mut rest = Vec::new();
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("sslrootcert", "system")) => {}
            Some(("sslrootcert", path)) => {
                let path = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
                root = Some(PathBuf::from(&*path));
            }
            Some(("sslmode", "verify-ca" | "verify-full")) => rest.push("sslmode=require"),
            _ => rest.push(pair),
        }
    }
    (format!("{place}?{}", rest.join("&")), root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain;

    fn mode(url: &str) -> SslMode {
        Address::parse(url).map_err(|error| chain(&error)).unwrap().config.get_ssl_mode()
    }

    #[test]
    fn tls_is_required_beyond_this_machine_unless_refused() {
        assert_eq!(mode("postgres://u@127.0.0.1/db"), SslMode::Disable);
        assert_eq!(mode("postgres://u@%2Frun%2Fpostgresql/db"), SslMode::Disable);
        assert_eq!(mode("postgres://u@127.0.0.1/db?sslmode=require"), SslMode::Require);
        assert_eq!(mode("postgres://u@db.example/db"), SslMode::Require);
        assert_eq!(mode("postgres://u@db.example/db?sslmode=prefer"), SslMode::Require);
        assert_eq!(mode("postgres://u@localhost/db?hostaddr=192.0.2.1"), SslMode::Require);
        assert_eq!(mode("postgres://u@db.example/db?sslmode=disable"), SslMode::Disable);
    }

    #[test]
    fn what_hosted_databases_print_is_understood() {
        assert_eq!(
            mode("postgres://u@db.example/db?sslmode=verify-full&sslrootcert=system"),
            SslMode::Require
        );
        assert_eq!(
            mode("postgres://u@db.example/db?sslmode=require&channel_binding=require"),
            SslMode::Require
        );
        let missing = Address::parse("postgres://u@db.example/db?sslrootcert=%2Fno%20such").err().unwrap();
        assert!(chain(&missing).contains("/no such"), "{}", chain(&missing));
    }

    #[test]
    fn a_place_has_no_user_and_no_password() {
        let place = |url: &str| Address::parse(url).map_err(|error| chain(&error)).unwrap().place();
        assert_eq!(place("postgres://user:hunter2@db.example/fleet"), "db.example:5432");
        assert_eq!(place("postgres://user:hunter2@[::1]:5433/fleet"), "[::1]:5433");
        assert_eq!(place("postgres://user:hunter2@one:5433,two:5434/fleet"), "one:5433, two:5434");
        assert_eq!(place("postgres://user@%2Frun%2Fpostgresql/fleet"), "/run/postgresql:5432");
    }

    #[test]
    fn a_refused_url_is_not_repeated() {
        let refused = Address::parse("postgres://user:hunter2@[").err().unwrap();
        assert!(!chain(&refused).contains("hunter2"), "{}", chain(&refused));
    }
}
