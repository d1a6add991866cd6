//! A database URL, with what it leaves open settled: the same for the API's pool, the listening connection and
//! the owner's commands.
//!
//! Beyond this machine TLS is required and the certificate verified, whatever `sslmode` says short of `disable`:
//! "prefer" would fall back to plain text when somebody in between refuses TLS.

use std::{fs, iter, net::IpAddr, path::PathBuf, time::Duration};

use rackhand_functions::database_url::{UNENCODED, after_scheme, is_encoded};
use tokio_postgres::{
    Client, Config, Connection, Socket,
    config::{Host, SslMode},
};

use crate::{
    chain,
    pg_tls::{PgStream, PgTls, PgTlsError},
};

/// How long a server may take to accept a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// None of these repeats the URL, which may hold a password; nor does what tokio-postgres says of it pass.
    #[error("the database URL is not valid: it must be like postgres://USER:PASSWORD@HOST:PORT/DATABASE")]
    Url,
    #[error("the database URL is not valid: it must begin with postgres:// or postgresql://")]
    Scheme,
    #[error("the database URL is not valid: {UNENCODED}")]
    Unencoded,
    #[error("the database URL is not valid: {0} is not supported, or the value of it is not")]
    Parameter(String),
    #[error("the database URL names sslrootcert={0}, which cannot be read")]
    RootCertificate(PathBuf, #[source] std::io::Error),
    #[error("TLS to the database")]
    Tls(#[from] PgTlsError),
}

/// There is no connection: where, as whom, why, and what can be done. Never the password.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoConnection(String);

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
        let url = url.trim();
        // tokio-postgres would read anything else as `key=value`.
        if !is_encoded(after_scheme(url).ok_or(AddressError::Scheme)?) {
            return Err(AddressError::Unencoded);
        }
        let (url, root) = take_libpq_parameters(url);
        let mut config: Config = url.parse().map_err(|_| refusal(&url))?;
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
    pub async fn connect(&self) -> Result<(Client, Connection<Socket, PgStream<Socket>>), NoConnection> {
        self.config.connect(self.tls.clone()).await.map_err(|error| self.unconnected(&error))
    }

    /// Says where there is no connection and why.
    pub fn unconnected(&self, error: &(dyn std::error::Error + 'static)) -> NoConnection {
        let user = self.config.get_user().map(|user| format!(" as {user}")).unwrap_or_default();
        let what = format!("no connection to the database at {}{user}: {}", self.place(), chain(error));
        NoConnection(match advice(error) {
            Some(advice) => format!("{what}. {advice}"),
            None => what,
        })
    }
}

/// What tokio-postgres says of a server that answers with `N` to a request for TLS. It has no other mark.
const NO_TLS: &str = "server does not support TLS";

/// What a person can do about it, where the error itself does not say that.
fn advice(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let mut causes = iter::successors(Some(error), |error| error.source().or_else(|| inside(*error)));
    causes.find_map(|cause| {
        let distrusts = matches!(cause.downcast_ref(), Some(rustls::Error::InvalidCertificate(_)));
        match cause.to_string() {
            _ if distrusts => Some(
                "The certificate of the database must be one that this machine trusts, for the host in the URL; \
                 `?sslrootcert=FILE` in the URL names the authority of a private one",
            ),
            words if words == NO_TLS => {
                Some(
                    "The database has no TLS, or someone in between refuses it. It is required beyond this machine; \
                     `?sslmode=disable` in the URL goes without: only in a network that you trust, the data and perhaps \
                     the password can be read there",
                )
            }
            _ => None,
        }
    })
}

/// The error that an I/O error carries: its `source` is that one's source.
fn inside<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a (dyn std::error::Error + 'static)> {
    let inside = error.downcast_ref::<std::io::Error>()?.get_ref()?;
    Some(inside)
}

fn host_name(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    }
}

/// Parameters that other clients know, and hosted databases print. What is not among them may be a part of a password.
const KNOWN: [&str; 12] = [
    "application_name",
    "channel_binding",
    "connect_timeout",
    "connection_limit",
    "options",
    "pgbouncer",
    "pool_timeout",
    "schema",
    "sslcert",
    "sslkey",
    "sslmode",
    "target_session_attrs",
];

/// What is wrong with a URL that tokio-postgres refuses.
fn refusal(url: &str) -> AddressError {
    let mut pairs = url.split_once('?').map_or("", |(_, query)| query).split('&');
    let Some(refused) = pairs.find(|pair| format!("postgres://host?{pair}").parse::<Config>().is_err())
    else {
        return AddressError::Url;
    };
    let name = refused.split('=').next().filter(|name| KNOWN.contains(name));
    AddressError::Parameter(
        name.map_or("one of its parameters".to_owned(), |name| format!("its parameter `{name}`")),
    )
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
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

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
        let place = "ada:hunter2@db.example/fleet?sslmode=require";
        for (url, why) in [
            (
                "postgres://user:hunter2@[".to_owned(),
                "it must be like postgres://USER:PASSWORD@HOST:PORT/DATABASE",
            ),
            (
                "postgres://ada:hunter2".to_owned(),
                "it must be like postgres://USER:PASSWORD@HOST:PORT/DATABASE",
            ),
            (format!("postgresql+psycopg://{place}"), "it must begin with postgres:// or postgresql://"),
            (format!("postgre://{place}"), "it must begin with postgres:// or postgresql://"),
            (format!("\"postgres://{place}\""), "it must begin with postgres:// or postgresql://"),
            (format!("\u{feff}postgres://{place}"), "it must begin with postgres:// or postgresql://"),
            (place.to_owned(), "it must begin with postgres:// or postgresql://"),
            (
                "host=db.example password=hunter2 =".to_owned(),
                "it must begin with postgres:// or postgresql://",
            ),
            (format!("postgres://ada:pa@{place}"), UNENCODED),
            (format!("postgres://ada:pa@%2Fhunter2@{place}"), UNENCODED),
            ("postgres://ada:pa@hunter2?secret=x@db.example/fleet".to_owned(), UNENCODED),
            (
                format!("postgres://{place}&pgbouncer=hunter2"),
                "its parameter `pgbouncer` is not supported, or the value of it is not",
            ),
            ("postgres://db.example:5432/fleet?user=ada&password=x@hunter2".to_owned(), UNENCODED),
            ("postgres://db.example/fleet?user=ada&password=hunter@2".to_owned(), UNENCODED),
            ("postgres://ada@db.example/fleet?application_name=at@one".to_owned(), UNENCODED),
            (
                "postgres://ada@db.example/fleet?password=s3&hunter2".to_owned(),
                "one of its parameters is not supported, or the value of it is not",
            ),
            (
                "postgres://ada@db.example/fleet?password=s3&hunt=er2".to_owned(),
                "one of its parameters is not supported, or the value of it is not",
            ),
            (
                "postgres://ada@db.example?sslmode=hunter2".to_owned(),
                "its parameter `sslmode` is not supported, or the value of it is not",
            ),
        ] {
            let refused = chain(&Address::parse(&url).err().unwrap());
            assert_eq!(refused, format!("the database URL is not valid: {why}"), "{url}");
        }
    }

    /// What is said of a server that answers `reply` to the request for TLS, and its port.
    async fn refusal(query: &str, reply: &'static [u8]) -> (String, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 8];
            stream.read_exact(&mut request).await.unwrap();
            stream.write_all(reply).await.unwrap();
            stream.read_to_end(&mut Vec::new()).await
        });
        let url = format!("postgres://ada:hunter2@127.0.0.1:{port}/fleet?{query}");
        let address = Address::parse(&url).map_err(|error| chain(&error)).unwrap();
        let said = chain(&address.connect().await.err().unwrap());
        server.abort();
        (said, port)
    }

    #[tokio::test]
    async fn a_database_without_tls_is_named_with_the_way_out() {
        let (said, port) = refusal("sslmode=require", b"N").await;
        let expected = format!(
            "no connection to the database at 127.0.0.1:{port} as ada: error performing TLS handshake: server does \
             not support TLS. The database has no TLS, or someone in between refuses it. It is required beyond this \
             machine; `?sslmode=disable` in the URL goes without: only in a network that you trust, the data and \
             perhaps the password can be read there"
        );
        assert_eq!(said, expected);
    }

    #[tokio::test]
    async fn a_database_that_is_not_there_is_named() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let address = Address::parse(&format!("postgres://ada:hunter2@127.0.0.1:{port}/fleet"));
        let said = chain(&address.map_err(|error| chain(&error)).unwrap().connect().await.err().unwrap());
        let expected =
            format!("no connection to the database at 127.0.0.1:{port} as ada: error connecting to server");
        assert!(said.starts_with(&expected) && !said.contains("hunter2"), "{said}");
    }

    #[test]
    fn a_certificate_that_is_not_trusted_names_sslrootcert() {
        #[derive(Debug, thiserror::Error)]
        #[error("error performing TLS handshake")]
        struct Handshake(#[source] std::io::Error);
        let address =
            Address::parse("postgres://ada:hunter2@db.example/fleet").map_err(|error| chain(&error)).unwrap();
        let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let cause = Handshake(std::io::Error::new(std::io::ErrorKind::InvalidData, unknown));
        let said = address.unconnected(&cause).to_string();
        assert_eq!(
            said,
            "no connection to the database at db.example:5432 as ada: error performing TLS handshake: invalid peer \
             certificate: UnknownIssuer. The certificate of the database must be one that this machine trusts, for the \
             host in the URL; `?sslrootcert=FILE` in the URL names the authority of a private one"
        );
    }
}
