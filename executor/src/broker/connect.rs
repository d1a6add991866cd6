//! Clients for one BMC over every transport that its registration and its credential allow.

use std::sync::Arc;

use super::{Connector, Endpoint, Pace, budget::Budget, ipmi::IpmiConnector, redfish::RedfishConnector};
use crate::{
    bmc::{Bmc, BmcError, BmcErrorKind},
    cloud::Cloud,
};

pub struct Transports {
    pub cloud: Arc<dyn Cloud>,
    pub redfish: Arc<RedfishConnector>,
    pub ipmi: IpmiConnector,
}

impl Connector for Transports {
    fn connect(&self, endpoint: Endpoint, pace: Arc<Pace>) -> Result<Vec<Arc<dyn Bmc>>, BmcError> {
        let endpoint = &endpoint;
        // One budget: a password refused over one transport is not presented over the other.
        let budget = Budget::new(Arc::clone(&self.cloud), endpoint);
        let mut clients = Vec::new();
        if let Some(service) = &endpoint.redfish {
            let budget = Arc::clone(&budget);
            clients.push(self.redfish.connect(endpoint, service, budget, pace)?);
        }
        if let Some(address) = &endpoint.ipmi {
            clients.push(self.ipmi.connect(endpoint, address, budget));
        }
        if clients.is_empty() {
            return Err(BmcError::new(BmcErrorKind::Refused, "the BMC has no address"));
        }
        Ok(clients)
    }
}
