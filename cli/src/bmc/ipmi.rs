//! A session with a BMC over IPMI, for the time of one command.
//!
//! One attempt to log in is made. The session is closed on every way out, signals included; a BMC that does not hear
//! it ends it by itself after a minute.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use clap::{Args, ValueEnum};
use rackhand_ipmi::{
    Client, Error, Sockets, Target,
    session::{Config, Key, Lookup, Privilege, SuitePolicy, Timing},
    wire::suite::Suite,
};
use rackhand_schema::may_hold_password;
use tokio::{
    net::lookup_host,
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use zeroize::Zeroizing;

use crate::{
    error::{Failure, Result},
    secret::{PasswordSource, confirm},
};

/// The port of IPMI over LAN (section 13.1.2).
const PORT: u16 = 623;
/// Longest time spent on closing the session.
const CLOSE: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub struct Access {
    /// `ipmi://host[:port]`
    url: String,
    /// Account on the BMC.
    #[arg(long)]
    user: String,
    #[command(flatten)]
    password: PasswordSource,
    /// Privilege level of the session.
    #[arg(long, value_enum, default_value_t = Level::Administrator)]
    privilege: Level,
    /// Accept cipher suite 17 only; without it also 3, where the BMC has no 17.
    #[arg(long)]
    strict: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Level {
    User,
    Operator,
    Administrator,
}

impl Access {
    /// Asks before what cannot be undone, with the address that it is for.
    pub fn confirm(&self, yes: bool, what: &str) -> Result<()> {
        let place = Place::parse(&self.url)?;
        confirm(yes, &format!("{place}: {what}"))
    }

    /// Runs `act` in a session of its own, until a signal.
    pub async fn session<T>(self, act: impl AsyncFnOnce(&Bmc) -> Result<T>) -> Result<T> {
        self.open(async |bmc: &Bmc| until_interrupted(act(bmc)).await).await
    }

    /// The same for an `act` that minds signals itself.
    pub async fn open<T>(self, act: impl AsyncFnOnce(&Bmc) -> Result<T>) -> Result<T> {
        let place = Place::parse(&self.url)?;
        let password = self.password.read(&format!("Password of {}", self.user))?;
        let privilege = match self.privilege {
            Level::User => Privilege::User,
            Level::Operator => Privilege::Operator,
            Level::Administrator => Privilege::Administrator,
        };
        let suites = if self.strict { SuitePolicy::Strict } else { SuitePolicy::Standard };
        let login = Login { user: self.user, password, privilege, suites };
        login.session(place, act).await
    }
}

/// Who logs in, and how.
pub struct Login {
    pub user: String,
    pub password: Zeroizing<String>,
    pub privilege: Privilege,
    pub suites: SuitePolicy,
}

impl Login {
    pub async fn session<T>(self, place: Place, act: impl AsyncFnOnce(&Bmc) -> Result<T>) -> Result<T> {
        let (name, account) = (place.to_string(), self.user.clone());
        let failed = |error: Error| failure(&name, &error);
        let key = Zeroizing::new(self.password.as_bytes().to_vec());
        let config = Config {
            user: self.user,
            password: Key::new(key).map_err(failed)?,
            privilege: self.privilege,
            lookup: Lookup::Name,
            suites: self.suites,
            pin: None,
            bmc_key: None,
            timing: Timing::default(),
        };
        let address = place.resolve().await?;
        let sockets = sockets()?;
        let connecting = Client::connect(&sockets, Target { address, config });
        let client = tokio::select! {
            client = connecting => client.map_err(failed)?,
            () = interrupted() => return Err(Failure::Interrupted),
        };
        let bmc = Bmc { client, name: name.clone(), account };
        let result = act(&bmc).await;
        // A BMC that does not answer any more ends the session by itself.
        let _ = timeout(CLOSE, bmc.client.close()).await;
        result
    }
}

/// An open session.
pub struct Bmc {
    pub client: Client,
    /// The account that this session is for.
    pub account: String,
    name: String,
}

impl Bmc {
    /// The failure of a command in this session.
    pub fn failed(&self, error: &Error) -> Failure {
        failure(&self.name, error)
    }

    /// Its address, as `ipmi://host:port`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Text about this BMC.
    pub fn says(&self, text: impl std::fmt::Display) -> String {
        format!("{}: {text}", self.name)
    }
}

/// Where a BMC is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    host: String,
    port: u16,
}

impl Place {
    pub fn parse(url: &str) -> Result<Self> {
        let wrong = |why: &str| Failure::Usage(format!("`{url}`: {why}; it is ipmi://host[:port]"));
        if may_hold_password(url) {
            return Err(Failure::Usage(
                "an address of IPMI is ipmi://host[:port], without `@` or `%40`: the account goes into --user, the \
                 password to standard input"
                    .to_owned(),
            ));
        }
        let rest = url.strip_prefix("ipmi://").ok_or_else(|| wrong("not an address of IPMI"))?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.is_empty() || rest.contains(['/', '?', '#']) {
            return Err(wrong("no host, or something after it"));
        }
        let port = |text: &str| text.parse().map_err(|_| wrong("the port is no number"));
        if let Some((host, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            let port = match after.strip_prefix(':') {
                Some(number) => port(number)?,
                None if after.is_empty() => PORT,
                None => return Err(wrong("something after the host")),
            };
            return Ok(Self { host: host.to_owned(), port });
        }
        match rest.split_once(':') {
            Some((host, number)) if !host.is_empty() => {
                Ok(Self { host: host.to_owned(), port: port(number)? })
            }
            Some(_) => Err(wrong("no host")),
            None => Ok(Self { host: rest.to_owned(), port: PORT }),
        }
    }

    /// IPMI's own port of the host of an `https://` URL.
    pub fn beside(url: &str) -> Option<Self> {
        let (_, rest) = url.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        let host = match authority.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?.0,
            None => authority.split(':').next()?,
        };
        Some(Self { host: host.to_owned(), port: PORT })
    }

    pub async fn resolve(&self) -> Result<SocketAddr> {
        let unknown = |detail: String| Failure::Unreachable { url: self.to_string(), detail };
        let mut found =
            lookup_host((self.host.as_str(), self.port)).await.map_err(|error| unknown(error.to_string()))?;
        found.next().ok_or_else(|| unknown("the name has no address".to_owned()))
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "ipmi://[{host}]:{port}")
        } else {
            write!(f, "ipmi://{host}:{port}")
        }
    }
}

pub fn sockets() -> Result<Arc<Sockets>> {
    Sockets::new().map_err(|source| Failure::file("cannot open a UDP socket", source))
}

/// `work`, or the failure that a signal is.
pub async fn until_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        result = work => result,
        () = interrupted() => Err(Failure::Interrupted),
    }
}

/// Ends with the first signal to end this process.
pub async fn interrupted() {
    let signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = signals.map(signal) else {
        // Without handlers the signals end the process by themselves.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

/// What happened, to which BMC, what is done already and what to do next.
pub fn failure(name: &str, error: &Error) -> Failure {
    let next = match error {
        Error::Credentials { .. } => "one attempt was made; another one counts towards a lockout",
        Error::Privilege { .. } => "nothing was done; the account may be allowed less: see --privilege",
        Error::SuiteRefused { suite: Suite::S17, .. } | Error::Downgraded { asked: Suite::S17, .. } => {
            "no session was opened, nothing was done; without --strict the BMC may be spoken to in suite 3"
        }
        Error::SuiteRefused { .. } | Error::Downgraded { .. } => {
            "no session was opened, nothing was done; suites 17 and 3 are supported: allow one of them on the BMC"
        }
        Error::BmcKey => {
            "no session was opened, nothing was done; a BMC with a key of its own (K_g) is not supported: clear it there"
        }
        Error::NoRmcpPlus => {
            "no session was opened, nothing was done; allow IPMI 2.0 on the BMC, or use its https:// address"
        }
        Error::NoProof => "no session was opened, nothing was done; the BMC needs newer firmware",
        Error::SessionRefused { .. } => "no session was opened, nothing was done; try again",
        Error::NoFreeSession => "nothing was done; unused sessions end after about a minute",
        Error::ClosedByBmc => "read the state before you repeat anything",
        Error::NoAnswer { to: "command", .. } => {
            "it may have been carried out: read the state before you repeat it"
        }
        Error::NoAnswer { .. } => "is IPMI over LAN enabled there, and UDP open on the way?",
        _ => "",
    };
    let text = if next.is_empty() { format!("{name}: {error}") } else { format!("{name}: {error}; {next}") };
    match error {
        Error::Credentials { .. } | Error::Privilege { .. } => Failure::Refused(text),
        Error::NoFreeSession => Failure::Conflict(text),
        Error::NoAnswer { .. } => Failure::TimedOut(text),
        Error::Request(_) => Failure::Usage(text),
        _ => Failure::Other(text),
    }
}

#[cfg(test)]
mod tests {
    use rackhand_ipmi::error::Rejection;

    use super::*;

    #[test]
    fn places_are_read_and_shown() {
        let shown =
            |url: &str| Place::parse(url).map(|place| place.to_string()).map_err(|error| error.to_string());
        assert_eq!(shown("ipmi://bmc-7").unwrap(), "ipmi://bmc-7:623");
        assert_eq!(shown("ipmi://10.0.0.7:6230/").unwrap(), "ipmi://10.0.0.7:6230");
        assert_eq!(shown("ipmi://[fd00::7]").unwrap(), "ipmi://[fd00::7]:623");
        for wrong in ["https://bmc", "ipmi://", "ipmi://:623", "ipmi://a:b", "ipmi://a/b", "ipmi://[::1]x"] {
            assert!(shown(wrong).is_err(), "{wrong}");
        }
        let error = shown("ipmi://root:secret@bmc").unwrap_err();
        assert!(!error.contains("secret"), "{error}");
        let beside = |url| Place::beside(url).map(|place| place.to_string()).unwrap();
        assert_eq!(beside("https://bmc:8443/redfish/v1"), "ipmi://bmc:623");
        assert_eq!(beside("https://[fd00::7]"), "ipmi://[fd00::7]:623");
    }

    #[test]
    fn failures_say_what_is_done_and_what_is_next() {
        let lost = failure("ipmi://bmc:623", &Error::NoAnswer { to: "command", attempts: 6 });
        insta::assert_snapshot!(lost.to_string(), @"ipmi://bmc:623: no answer to command (6 sent); it may have been carried out: read the state before you repeat it");
        assert_eq!(lost.exit_code(), 8);
        assert_eq!(failure("x", &Error::NoFreeSession).exit_code(), 6);
        let wrong = failure("ipmi://bmc:623", &Error::Credentials { by: Rejection::Code });
        insta::assert_snapshot!(wrong.to_string(), @"ipmi://bmc:623: wrong user name or password (the BMC's RAKP message 2 was made with another password; some BMCs compute it in a way of their own); one attempt was made; another one counts towards a lockout");
    }
}
