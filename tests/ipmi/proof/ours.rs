//! Our client, as every test here uses it.

use std::{net::SocketAddr, sync::Arc};

use rackhand_ipmi::{
    Error,
    client::{Client, PayloadChannel, Target},
    session::{Config, Key, Lookup, Privilege, SuitePolicy, Timing},
    sockets::Sockets,
    sol::{SolChannel, SolError, SolOptions, SolStream, activate},
    wire::packet::PayloadKind,
};

pub fn config(user: &str, password: &str) -> Config {
    Config {
        user: user.to_owned(),
        password: Key::new(password.as_bytes().to_vec().into()).unwrap(),
        privilege: Privilege::Administrator,
        lookup: Lookup::default(),
        suites: SuitePolicy::default(),
        pin: None,
        bmc_key: None,
        timing: Timing::default(),
    }
}

/// A client with sockets of its own.
pub async fn connect(address: SocketAddr, config: Config) -> Result<Client, Error> {
    let sockets = Sockets::new().unwrap();
    connect_on(&sockets, address, config).await
}

/// A client that shares its sockets.
pub async fn connect_on(
    sockets: &Arc<Sockets>,
    address: SocketAddr,
    config: Config,
) -> Result<Client, Error> {
    Client::connect(sockets, Target { address, config }).await
}

/// The console through this session.
pub async fn console(client: &Client, options: SolOptions) -> Result<SolStream, SolError> {
    let channel = Console(client.payloads(PayloadKind::SOL)?);
    let session_id = Some(client.opened().session);
    let activated = activate(client, &SolOptions { session_id, ..options }).await?;
    Ok(SolStream::start(client.clone(), channel, activated))
}

struct Console(PayloadChannel);

impl SolChannel for Console {
    async fn send(&mut self, payload: Vec<u8>) -> Result<(), Error> {
        self.0.send(&payload)
    }

    async fn recv(&mut self) -> Result<Vec<u8>, Error> {
        match self.0.recv().await {
            Some(payload) => Ok(payload),
            None => Err(self.0.closed().await.err().unwrap_or(Error::Closed)),
        }
    }
}
