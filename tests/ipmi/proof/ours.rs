//! Our client, as every test here uses it.

use std::{net::SocketAddr, sync::Arc};

use rackhand_ipmi::{
    Error,
    client::{Client, Target},
    session::{Config, Key, Lookup, Privilege, SuitePolicy, Timing},
    sockets::Sockets,
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
