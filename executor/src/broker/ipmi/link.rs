//! The seam to the network: sessions with BMCs, as objects. [`Udp`] opens real ones; simulations bring a model.

use std::sync::Arc;

use futures::future::BoxFuture;
use rackhand_ipmi::{
    Carrier, Client, CompletionCode, Error, Request, Sockets, Target,
    session::{Config, Key, Lookup, Privilege, SuitePolicy, Timing},
    sol::{SolError, SolOptions},
    wire::suite::Suite,
};
use zeroize::Zeroizing;

use crate::bmc::Stream;

/// The port of IPMI over LAN (section 13.1.2).
const PORT: u16 = 623;
/// Least time between two commands: some BMCs freeze after a quick series.
const GAP: std::time::Duration = std::time::Duration::from_millis(5);

/// Whom to log in as, and where.
pub struct Login {
    /// `host[:port]`.
    pub address: String,
    pub user: String,
    pub password: Zeroizing<String>,
    /// The cipher suite that worked with this BMC before.
    pub pin: Option<Suite>,
}

pub type Answer = Result<(CompletionCode, Vec<u8>), Error>;

/// An open session.
pub trait Link: Send + Sync {
    fn carry(&self, request: Request) -> BoxFuture<'_, Answer>;
    fn suite(&self) -> Suite;
    /// Names the BMC to caches: its GUID as it came.
    fn identity(&self) -> String;
    fn console(&self) -> BoxFuture<'_, Result<Box<dyn Stream>, SolError>>;
    /// Tells the BMC goodbye.
    fn close(&self) -> BoxFuture<'_, ()>;
}

pub trait Links: Send + Sync + 'static {
    /// Makes one attempt to log in.
    fn open(&self, login: Login) -> BoxFuture<'_, Result<Arc<dyn Link>, Error>>;
}

/// A session to run typed commands through.
#[derive(Clone)]
pub struct Session(pub Arc<dyn Link>);

impl Carrier for Session {
    async fn carry(&self, request: Request) -> Answer {
        self.0.carry(request).await
    }
}

/// RMCP+ over UDP; all sessions share a few sockets.
pub struct Udp {
    sockets: Arc<Sockets>,
}

impl Udp {
    /// Call it within a tokio runtime.
    ///
    /// # Errors
    /// Outside a runtime.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { sockets: Sockets::new()? })
    }
}

impl Links for Udp {
    fn open(&self, login: Login) -> BoxFuture<'_, Result<Arc<dyn Link>, Error>> {
        Box::pin(async move {
            let password = Key::new(Zeroizing::new(login.password.as_bytes().to_vec()))?;
            let config = Config {
                user: login.user,
                password,
                privilege: Privilege::Administrator,
                lookup: Lookup::Name,
                suites: SuitePolicy::Standard,
                pin: login.pin,
                bmc_key: None,
                timing: Timing { gap: GAP, ..Timing::default() },
            };
            config.check()?;
            let address = resolve(&login.address).await?;
            let client = Client::connect(&self.sockets, Target { address, config }).await?;
            Ok(Arc::new(Open(client)) as Arc<dyn Link>)
        })
    }
}

async fn resolve(address: &str) -> Result<std::net::SocketAddr, Error> {
    let has_port = address.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    let named = if has_port { address.to_owned() } else { format!("{address}:{PORT}") };
    let failed = |kind| Error::System { what: "looking up the address", kind };
    let mut found = tokio::net::lookup_host(named).await.map_err(|error| failed(error.kind()))?;
    found.next().ok_or_else(|| failed(std::io::ErrorKind::NotFound))
}

struct Open(Client);

impl Link for Open {
    fn carry(&self, request: Request) -> BoxFuture<'_, Answer> {
        Box::pin(self.0.carry(request))
    }

    fn suite(&self) -> Suite {
        self.0.suite()
    }

    fn identity(&self) -> String {
        hex::encode(self.0.opened().guid)
    }

    fn console(&self) -> BoxFuture<'_, Result<Box<dyn Stream>, SolError>> {
        Box::pin(async move {
            let stream = self.0.sol(SolOptions::default()).await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.close())
    }
}
