//! The broker's clients over IPMI: [`Bmc`] and its capabilities on top of `rackhand-ipmi`.
//!
//! One session per BMC, opened when it is needed and kept until the broker closes it; a BMC that hears nothing ends it
//! by itself after a minute (section 6.12.15). Logging in asks the same budget as Redfish does and makes one attempt,
//! whichever suites it takes. The suite that worked is kept in the journal, so that nobody in
//! between can talk a later process into a weaker one.
//!
//! A read whose session turns out to have ended is made once more in a new one. A mutation never is: before it the
//! session is proved by a read, and a lost answer is [`BmcErrorKind::Ambiguous`].

mod boot;
mod error;
mod inventory;
pub mod link;
mod power;
mod sensors;

use std::sync::Arc;

use futures::future::BoxFuture;
use rackhand_ipmi::{
    Carrier as _, Command, Error, commands::chassis::GetChassisStatus, commands::sdr::SdrCache,
    wire::suite::Suite,
};
use rackhand_redfish::AuthOutcome;
use rackhand_schema::{id::BmcId, server::Inventory};
use zeroize::Zeroizing;

use self::link::{Link, Links, Login, Session};
use super::{Endpoint, budget::Budget};
use crate::{
    bmc::{Bmc, BmcError, BmcErrorKind, BootControl, Console, EventLog, Power, Sensors, Shown, Stream, Via},
    credential::Place,
    journal::{Journal, Write},
};

/// Key of the cipher suite that worked with a BMC, in the journal's meta values.
const SUITE: &str = "ipmi_suite:";

pub struct IpmiConnector {
    pub journal: Arc<dyn Journal>,
    pub links: Arc<dyn Links>,
}

impl IpmiConnector {
    /// A client for `address`, `host[:port]`; sends nothing yet.
    pub fn connect(&self, endpoint: &Endpoint, address: &str, budget: Arc<Budget>) -> Arc<dyn Bmc> {
        Arc::new(IpmiBmc {
            links: Arc::clone(&self.links),
            journal: Arc::clone(&self.journal),
            bmc_id: endpoint.bmc_id,
            address: address.to_owned(),
            user: endpoint.credential.username.clone(),
            password: endpoint.credential.password.clone(),
            budget,
            open: tokio::sync::Mutex::default(),
            records: tokio::sync::Mutex::default(),
        })
    }
}

struct IpmiBmc {
    links: Arc<dyn Links>,
    journal: Arc<dyn Journal>,
    bmc_id: BmcId,
    address: String,
    user: String,
    password: Zeroizing<String>,
    budget: Arc<Budget>,
    open: tokio::sync::Mutex<Option<Arc<dyn Link>>>,
    /// The sensors' records; checked by their time before each use.
    records: tokio::sync::Mutex<Option<SdrCache>>,
}

impl IpmiBmc {
    fn place(&self) -> Place {
        Place::ipmi(&self.address)
    }

    fn pin_key(&self) -> String {
        format!("{SUITE}{}:{}", self.bmc_id, self.address)
    }

    /// The suite that worked before. A journal that cannot be read says nothing about it, so nothing is sent then.
    async fn pin(&self) -> Result<Option<Suite>, BmcError> {
        let noted = self.journal.meta(&self.pin_key()).await;
        let noted = noted.map_err(|error| BmcError::new(BmcErrorKind::Unreachable, error.to_string()))?;
        Ok(noted.and_then(|text| text.parse().ok()).and_then(Suite::from_id))
    }

    /// The session, opened if there is none.
    async fn session(&self) -> Result<Session, BmcError> {
        let mut open = self.open.lock().await;
        if let Some(link) = &*open {
            return Ok(Session(Arc::clone(link)));
        }
        let pin = self.pin().await?;
        self.budget.reserve().await.map_err(|denied| {
            let kind = BmcErrorKind::AuthWithheld { final_word: denied.retry_after.is_none() };
            BmcError::new(kind, denied.reason)
        })?;
        let login = Login {
            address: self.address.clone(),
            user: self.user.clone(),
            password: self.password.clone(),
            pin,
        };
        let link = match self.links.open(login).await {
            Ok(link) => link,
            Err(error) => {
                self.budget.settle_as(error::judged(&error), &self.place()).await;
                return Err(error::opening(&error));
            }
        };
        self.budget.settle_as(AuthOutcome::Accepted, &self.place()).await;
        if pin != Some(link.suite()) {
            let value = Some(link.suite().id().to_string());
            // A journal that fails is noticed by the runs, which depend on it.
            let _ = self.journal.write(Write::Meta { key: self.pin_key(), value }).await;
        }
        *open = Some(Arc::clone(&link));
        Ok(Session(link))
    }

    /// Forgets a session that has ended, unless somebody has replaced it already.
    async fn forget(&self, ended: &Session) {
        let mut open = self.open.lock().await;
        if open.as_ref().is_some_and(|link| Arc::ptr_eq(link, &ended.0)) {
            *open = None;
        }
    }

    /// Reads in the session; once more in a new one when it has ended meanwhile.
    async fn read<'s, T>(
        &'s self,
        work: impl Fn(Session) -> BoxFuture<'s, Result<T, Error>> + Send + Sync,
    ) -> Result<T, BmcError> {
        let session = self.session().await?;
        match work(session.clone()).await {
            Ok(answer) => return Ok(answer),
            Err(error) if !has_ended(&error) => return Err(error::command(&error, false)),
            Err(_) => self.forget(&session).await,
        }
        let session = self.session().await?;
        match work(session.clone()).await {
            Ok(answer) => Ok(answer),
            Err(error) => {
                if has_ended(&error) {
                    self.forget(&session).await;
                }
                Err(error::command(&error, false))
            }
        }
    }

    async fn ask<C>(&self, command: C) -> Result<C::Answer, BmcError>
    where
        C: Command + Copy + Send + Sync + 'static,
    {
        self.read(move |session| Box::pin(async move { session.run(&command).await })).await
    }

    /// A session that has just answered: what is sent next is not sent into one that ended long ago.
    async fn proved(&self) -> Result<Session, BmcError> {
        self.ask(GetChassisStatus).await?;
        self.session().await
    }

    /// Sends a mutation once.
    async fn change<C: Command + Sync>(&self, session: &Session, command: &C) -> Result<C::Answer, BmcError> {
        match session.run(command).await {
            Ok(answer) => Ok(answer),
            Err(error) => {
                if has_ended(&error) {
                    self.forget(session).await;
                }
                Err(error::command(&error, true))
            }
        }
    }
}

/// Whether nothing more goes through this session.
fn has_ended(error: &Error) -> bool {
    matches!(error, Error::Closed | Error::ClosedByBmc | Error::NoAnswer { .. })
}

impl Bmc for IpmiBmc {
    fn via(&self) -> Via {
        Via::Ipmi
    }

    fn machine(&self) -> BoxFuture<'_, Result<Shown, BmcError>> {
        Box::pin(self.read_machine())
    }

    fn inventory(&self) -> BoxFuture<'_, Result<Inventory, BmcError>> {
        Box::pin(self.read_inventory())
    }

    fn power(&self) -> Option<&dyn Power> {
        Some(self)
    }

    fn boot_control(&self) -> Option<&dyn BootControl> {
        Some(self)
    }

    fn event_log(&self) -> Option<&dyn EventLog> {
        Some(self)
    }

    fn sensors(&self) -> Option<&dyn Sensors> {
        Some(self)
    }

    fn console(&self) -> Option<&dyn Console> {
        Some(self)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let open = self.open.lock().await.take();
            if let Some(link) = open {
                link.close().await;
            }
        })
    }
}

impl Console for IpmiBmc {
    fn open(&self) -> BoxFuture<'_, Result<Box<dyn Stream>, BmcError>> {
        Box::pin(async move {
            let session = self.session().await?;
            session.0.console().await.map_err(|error| error::console(&error))
        })
    }
}
