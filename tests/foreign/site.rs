//! An executor's broker without a control plane: the password counts as proven.

use std::{sync::Arc, time::Duration};

use futures::future::{BoxFuture, ready};
use rackhand_executor::{
    broker::{
        Broker, Endpoint, Line, Priority, Proven, Service,
        connect::Transports,
        ipmi::{IpmiConnector, link::Udp},
        redfish::{Https, RedfishConnector},
    },
    clock::TokioClock,
    cloud::{Cloud, CloudError},
    credential::{OpenCredential, Use, Versions},
    identity::{Identity, Keys, Membership},
    journal::memory::MemoryJournal,
    timing::Timing,
};
use rackhand_schema::{
    executor::SiteKey,
    id::{BmcId, CredentialId, ExecutorId, SiteId},
    protocol::{AttemptAnswer, CredentialAttempt, LeaseRequest, LeaseResponse, Report, ReportResponse},
};

use crate::device::{Device, PASSWORD, USER};

struct Nobody;

fn away<'a, T: Send + 'a>() -> BoxFuture<'a, Result<T, CloudError>> {
    Box::pin(ready(Err(CloudError::Unreachable("there is no control plane here".into()))))
}

impl Cloud for Nobody {
    fn lease<'a>(
        &'a self,
        _: &'a LeaseRequest,
        _: Duration,
    ) -> BoxFuture<'a, Result<LeaseResponse, CloudError>> {
        away()
    }
    fn report<'a>(&'a self, _: &'a Report) -> BoxFuture<'a, Result<ReportResponse, CloudError>> {
        away()
    }
    fn credential_attempt<'a>(
        &'a self,
        _: &'a CredentialAttempt,
    ) -> BoxFuture<'a, Result<AttemptAnswer, CloudError>> {
        away()
    }
    fn site_key<'a>(&'a self, _: &'a SiteKey) -> BoxFuture<'a, Result<(), CloudError>> {
        away()
    }
}

/// The only way for a handler to a BMC, as a handler gets it; closing the broker ends its session.
pub async fn line(device: &Device) -> (Arc<Broker>, Line) {
    let journal = Arc::new(MemoryJournal::default());
    let membership = Membership {
        server: "https://rackhand.invalid".into(),
        name: "foreign".into(),
        executor_id: ExecutorId::generate(),
        site_id: SiteId::generate(),
        site: "foreign".into(),
        site_public_key: None,
    };
    let identity = Arc::new(Identity::new(membership, Keys::generate().unwrap()));
    let transports = Transports {
        cloud: Arc::new(Nobody),
        redfish: Arc::new(RedfishConnector {
            journal: Arc::clone(&journal) as Arc<_>,
            identity,
            transports: Arc::new(Https),
        }),
        ipmi: IpmiConnector { journal, links: Arc::new(Udp::new().unwrap()) },
    };
    let endpoint = Endpoint {
        bmc_id: BmcId::generate(),
        redfish: Some(Service { url: device.url.clone(), spki_sha256: device.spki_sha256.clone() }),
        ipmi: None,
        credential_id: CredentialId::generate(),
        credential: OpenCredential {
            version: 1,
            username: USER.into(),
            password: PASSWORD.to_owned().into(),
        },
        credential_use: Use {
            versions: Arc::new(Versions::new(Arc::new(MemoryJournal::default()))),
            name: "bmc".into(),
            version: 1,
        },
        proven: Proven::new(true),
    };
    let broker =
        Broker::new(Arc::new(transports), Arc::new(TokioClock::start()), Arc::new(Timing::default()));
    let line = broker.line(endpoint, Priority::Observe).unwrap();
    (broker, line)
}
