//! The broker's clients over Redfish: [`Bmc`] and its capabilities on top of `rackhand-redfish`. Redfish has no stream
//! for a serial console, so there is none here.
//!
//! The login budget ([`super::budget`]) is asked before a password is presented. The session is written to the
//! journal, sealed to this executor's own key, so that a successor of this process can delete it ([`Leftovers`]): an
//! iDRAC has few of them. Every request pays the BMC's rate, and one of a mutation carries the fence of its lease.

mod inventory;

use std::{collections::BTreeSet, str::FromStr as _, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, future::BoxFuture};
use rackhand_redfish::{
    AuthAttempt, AuthGate, AuthOutcome, Body, Boot, BootChange, Class, Client, Credentials,
    Endpoint as Address, Error, Fence, Fingerprint, GateDenied, HttpsTransport, MultipartUpdate, Mutates,
    NotSent, Options, Problem, ResetKind, SessionHandle, SimpleUpdate, TaskRef, TaskState, TlsTrust,
    Transport, TransportError, Unobserved, UpdateSemantics, update_semantics,
};
use rackhand_schema::{
    id::BmcId,
    job::{BootMode, BootOverrideParams, BootTarget, BootTimes, PowerAction},
    server::{Health, Inventory, PowerState},
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{
    Endpoint, Pace, Service,
    budget::{Budget, Gate},
    look::{Leaving, Look},
};
use crate::{
    bmc::{
        Bmc, BmcError, BmcErrorKind, BootControl, BootSetting, DeviceJob, EventLog, Firmware, Handover,
        HostWork, JobPhase, JobProgress, JobRef, LogSince, Power, PowerTrace, Readiness, SensorReading,
        SensorReport, Sensors, Shown, StageRequest, Staged, UpdateSupport, Via,
    },
    credential::{OpenCredential, Place},
    identity::Identity,
    journal::{Journal, JournalError, Write},
    lease, text,
};

/// Begins the key of a session in the journal's meta values; each session has a key of its own.
const SESSION: &str = "bmc_session:";
/// Leftover sessions that are deleted at once.
const LEFTOVERS: usize = 8;

/// How connections to a BMC are made; the seam for simulated sites.
pub trait Transports: Send + Sync + 'static {
    fn open(&self, url: &str, pin: [u8; 32]) -> Arc<dyn Transport>;
}

/// HTTPS with the pinned key.
pub struct Https;

impl Transports for Https {
    fn open(&self, _url: &str, pin: [u8; 32]) -> Arc<dyn Transport> {
        Arc::new(HttpsTransport::new(TlsTrust::Pinned(pin)))
    }
}

pub struct RedfishConnector {
    pub journal: Arc<dyn Journal>,
    pub identity: Arc<Identity>,
    pub transports: Arc<dyn Transports>,
}

/// A session as it stands in the journal, sealed.
#[derive(Serialize, Deserialize)]
struct Stored {
    url: String,
    pin: String,
    uri: String,
    token: String,
}

fn address(url: &str, pin: &str) -> Result<(Address, [u8; 32]), BmcError> {
    let refused = |why: String| BmcError::new(BmcErrorKind::Refused, why);
    let endpoint = Address::parse(url).map_err(|error| refused(format!("{url}: {error}")))?;
    let pin = Fingerprint::from_str(pin).map_err(|error| refused(format!("TLS key: {error}")))?;
    Ok((endpoint, pin.0))
}

/// All parts of one look share the refusal of the first one. When the next look may log in, the broker says.
const REFUSED: Duration = Duration::from_secs(5);

impl RedfishConnector {
    /// Builds a client for `service`; sends nothing yet.
    ///
    /// # Errors
    /// When its address or its TLS key is none.
    pub fn connect(
        &self,
        endpoint: &Endpoint,
        service: &Service,
        budget: Arc<Budget>,
        pace: Arc<Pace>,
    ) -> Result<Arc<dyn Bmc>, BmcError> {
        let Service { url, spki_sha256: pin } = service;
        let (parsed, key) = address(url, pin)?;
        let OpenCredential { username, password, .. } = &endpoint.credential;
        let credentials = Credentials::new(username.clone(), password.clone());
        let transport = Arc::new(Paced { inner: self.transports.open(url, key), pace });
        let gate = Arc::new(Gate { budget, place: Place::redfish(service) });
        let observer = Arc::new(Unobserved);
        let options = Options { refused_period: REFUSED, ..Options::default() };
        let client = Client::with_options(transport, parsed, credentials, gate, observer, options);
        Ok(Arc::new(RedfishBmc {
            client,
            url: url.to_owned(),
            pin: pin.to_owned(),
            bmc_id: endpoint.bmc_id,
            journal: Arc::clone(&self.journal),
            identity: Arc::clone(&self.identity),
            kept: tokio::sync::Mutex::default(),
        }))
    }
}

/// Pays the BMC's rate for each request, and puts the fences of the mutation it belongs to into its body.
struct Paced {
    inner: Arc<dyn Transport>,
    pace: Arc<Pace>,
}

impl Transport for Paced {
    fn send<'a>(
        &'a self,
        request: http::Request<Body>,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<http::Response<Bytes>, TransportError>> {
        Box::pin(async move {
            if tokio::time::timeout_at(deadline, self.pace.turn()).await.is_err() {
                return Err(TransportError::NotSent { why: NotSent::ConnectTimeout });
            }
            let mutates = request.extensions().get::<Mutates>().is_some();
            let leaving = Look::of_this_mutation().filter(|_| mutates).map(|look| look.leaving());
            // Asked by whoever writes the request, once it is connected.
            let fences: Vec<Fence> =
                lease::fence().into_iter().chain(leaving.as_ref().map(Leaving::fence)).collect();
            let request = match fences.is_empty() {
                true => request,
                false => request.map(|body| body.fenced(Arc::new(move || fences.iter().all(|may| may())))),
            };
            let answer = self.inner.send(request, deadline).await;
            let returned = match &answer {
                Ok(answer) => matches!(answer.status().as_u16(), 401 | 307 | 308),
                Err(failure) => failure.is_not_sent(),
            };
            if let Some(leaving) = leaving.filter(|_| returned) {
                leaving.returned();
            }
            answer
        })
    }
}

/// The sessions that a former process of this executor has left at BMCs.
pub struct Leftovers {
    connector: Arc<RedfishConnector>,
    /// Key in the journal, and what stands there.
    sessions: Vec<(String, String)>,
}

impl Leftovers {
    /// Reads the journal, which holds no session of this process yet.
    ///
    /// # Errors
    /// When the journal fails.
    pub async fn read(connector: Arc<RedfishConnector>) -> Result<Self, JournalError> {
        let sessions = connector.journal.metas(SESSION).await?;
        Ok(Self { connector, sessions })
    }

    /// Deletes them, a few at once: a BMC that is gone keeps nobody waiting for the others. The password is not needed:
    /// a session's token suffices to end it.
    pub async fn delete(self) {
        let Self { connector, sessions } = self;
        let deletions = sessions.into_iter().map(|(key, sealed)| connector.delete_session(key, sealed));
        futures::stream::iter(deletions).buffer_unordered(LEFTOVERS).collect::<()>().await;
    }
}

impl RedfishConnector {
    async fn delete_session(&self, key: String, sealed: String) {
        let stored =
            self.identity.unseal(&sealed).and_then(|plain| serde_json::from_slice::<Stored>(&plain).ok());
        if let Some(stored) = stored
            && let Ok((endpoint, pin)) = address(&stored.url, &stored.pin)
        {
            let transport = self.transports.open(&stored.url, pin);
            let nobody = Credentials::new("", Zeroizing::new(String::new()));
            let client = Client::new(transport, endpoint, nobody, Arc::new(Closed), Arc::new(Unobserved));
            let handle = SessionHandle::new(stored.uri, Zeroizing::new(stored.token));
            if let Err(error) = client.delete_session(&handle).await {
                tracing::info!(%error, "a session of the former process could not be deleted; it times out automatically");
            }
        }
        // A journal that fails is noticed by the runs, which depend on it.
        let _ = self.journal.write(Write::Meta { key, value: None }).await;
    }
}

/// Never lets a password out.
struct Closed;

impl AuthGate for Closed {
    fn ask<'a>(&'a self, _attempt: &'a AuthAttempt) -> BoxFuture<'a, Result<(), GateDenied>> {
        let denied = GateDenied { reason: "only a session is ended here".into(), retry_after: None };
        Box::pin(std::future::ready(Err(denied)))
    }

    fn settle<'a>(&'a self, _attempt: &'a AuthAttempt, _outcome: AuthOutcome) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }
}

struct RedfishBmc {
    client: Client,
    url: String,
    pin: String,
    bmc_id: BmcId,
    journal: Arc<dyn Journal>,
    identity: Arc<Identity>,
    /// The sessions that stand in the journal.
    kept: tokio::sync::Mutex<Vec<Kept>>,
}

#[derive(Clone)]
struct Kept {
    key: String,
    handle: SessionHandle,
}

impl RedfishBmc {
    /// Writes down which sessions there are. A journal that fails is noticed by the runs, which depend on it.
    async fn keep_sessions(&self) {
        let mut kept = self.kept.lock().await;
        let current = self.client.session_handles().await;
        let (still, gone): (Vec<_>, Vec<_>) =
            kept.iter().cloned().partition(|kept| current.iter().any(|handle| handle.is(&kept.handle)));
        let new = current.into_iter().filter(|handle| !still.iter().any(|kept| kept.handle.is(handle)));
        let (written, new): (Vec<_>, Vec<_>) = new.filter_map(|handle| self.sealed(handle)).unzip();
        let erased = gone.iter().map(|kept| Write::Meta { key: kept.key.clone(), value: None });
        let writes: Vec<Write> = erased.chain(written).collect();
        if !writes.is_empty() && self.journal.commit(writes).await.is_ok() {
            *kept = still.into_iter().chain(new).collect();
        }
    }

    /// A session as it is written down.
    fn sealed(&self, handle: SessionHandle) -> Option<(Write, Kept)> {
        let plain = Stored {
            url: self.url.clone(),
            pin: self.pin.clone(),
            uri: handle.uri.clone(),
            token: handle.token().to_string(),
        };
        let plain = Zeroizing::new(serde_json::to_vec(&plain).ok()?);
        let value = Some(self.identity.seal_to_self(&plain)?);
        let key = format!("{SESSION}{}:{}", self.bmc_id, crate::package::random_token().ok()?);
        Some((Write::Meta { key: key.clone(), value }, Kept { key, handle }))
    }

    async fn queue(&self, result: Result<rackhand_redfish::Jobs, Error>) -> Result<Vec<DeviceJob>, BmcError> {
        let found = self.done(result).await.map_err(coming)?;
        if !found.complete {
            // A queue that was read in part proves nothing about what is missing.
            return Err(BmcError::new(
                BmcErrorKind::NotReady { retry_after: None },
                "the job queue could not be read completely",
            ));
        }
        Ok(found
            .jobs
            .into_iter()
            .map(|job| DeviceJob {
                id: text::clean(&job.id),
                other_id: job.task_id.as_deref().map(text::clean),
                name: text::clean(&job.name),
                phase: listed(&job),
                firmware: job.kind.map(|kind| kind == "FirmwareUpdate" || kind == "RepositoryUpdate"),
                targets: job.targets.iter().map(|target| text::clean(target)).collect(),
            })
            .collect())
    }

    async fn done<T>(&self, result: Result<T, Error>) -> Result<T, BmcError> {
        self.keep_sessions().await;
        result.map_err(|error| bmc_error(&error))
    }
}

/// What a handler can do about an error of the client.
fn bmc_error(error: &Error) -> BmcError {
    let kind = match error.class() {
        Class::Transient { .. } if error.status().is_none() => BmcErrorKind::Unreachable,
        Class::Transient { retry_after } | Class::Busy { retry_after } => {
            BmcErrorKind::NotReady { retry_after }
        }
        Class::SessionLimit => BmcErrorKind::NotReady { retry_after: None },
        Class::Auth => BmcErrorKind::Auth,
        Class::AuthWithheld { retry_after } => {
            BmcErrorKind::AuthWithheld { final_word: retry_after.is_none() }
        }
        Class::Untrusted => BmcErrorKind::KeyChanged,
        Class::Unsupported if matches!(error.problem(), Problem::NoQueue) => BmcErrorKind::NoQueue,
        Class::Unsupported => BmcErrorKind::Unsupported,
        Class::GoneForReset | Class::NotSent => BmcErrorKind::Unreachable,
        Class::NotFound => BmcErrorKind::NotFound,
        Class::Ambiguous => BmcErrorKind::Ambiguous,
        _ => BmcErrorKind::Refused,
    };
    BmcError { kind, message_id: error.message_id().map(text::clean), detail: text::clean(&told(error)) }
}

/// What the device declares and does not find comes later: a BMC that is starting shows its resources one by one.
fn coming(error: BmcError) -> BmcError {
    match error.kind {
        BmcErrorKind::NotFound => BmcError { kind: BmcErrorKind::NotReady { retry_after: None }, ..error },
        _ => error,
    }
}

/// An error with everything that caused it; of a password that was not presented, only why: no request was made.
fn told(error: &Error) -> String {
    let mut told = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(next) = source {
        if next.is::<GateDenied>() {
            return next.to_string();
        }
        told = format!("{told}: {next}");
        source = next.source();
    }
    told
}

fn power(state: &rackhand_redfish::PowerState) -> PowerState {
    use rackhand_redfish::PowerState as Redfish;
    match state {
        Redfish::On => PowerState::On,
        Redfish::Off => PowerState::Off,
        Redfish::PoweringOn => PowerState::PoweringOn,
        Redfish::PoweringOff => PowerState::PoweringOff,
        Redfish::Unknown => PowerState::Unknown,
    }
}

fn health(health: rackhand_redfish::Health) -> Health {
    match health {
        rackhand_redfish::Health::Ok => Health::Ok,
        rackhand_redfish::Health::Warning => Health::Warning,
        rackhand_redfish::Health::Critical => Health::Critical,
        rackhand_redfish::Health::Unknown => Health::Unknown,
    }
}

fn job_phase(state: &TaskState) -> JobPhase {
    match state {
        TaskState::New => JobPhase::New,
        TaskState::Downloading => JobPhase::Downloading,
        TaskState::Scheduled => JobPhase::Scheduled,
        TaskState::Running => JobPhase::Running,
        TaskState::Waiting => JobPhase::Waiting,
        TaskState::Completed => JobPhase::Completed,
        TaskState::CompletedRebootPending => JobPhase::RebootPending,
        TaskState::CompletedWithErrors | TaskState::Failed => JobPhase::Failed,
        TaskState::Cancelled => JobPhase::Cancelled,
        TaskState::Vanished => JobPhase::Vanished,
        TaskState::Other(word) => JobPhase::Other(text::clean(word)),
    }
}

fn boot_change(wanted: &BootOverrideParams) -> BootChange {
    let target = match wanted.target {
        BootTarget::None => "None",
        BootTarget::Pxe => "Pxe",
        BootTarget::Disk => "Hdd",
        BootTarget::Cd => "Cd",
        BootTarget::BiosSetup => "BiosSetup",
    };
    let enabled = match (wanted.target, wanted.times) {
        (BootTarget::None, _) => "Disabled",
        (_, BootTimes::Once) => "Once",
        (_, BootTimes::Continuous) => "Continuous",
    };
    let mode = wanted.mode.map(|mode| match mode {
        BootMode::Uefi => "UEFI".to_owned(),
        BootMode::Legacy => "Legacy".to_owned(),
    });
    BootChange { target: target.to_owned(), enabled: enabled.to_owned(), mode }
}

fn boot_setting(boot: &Boot) -> BootSetting {
    let word = |word: &Option<String>| text::clean(word.as_deref().unwrap_or("?"));
    BootSetting {
        target: match boot.target.as_deref() {
            None | Some("None") => Some(BootTarget::None),
            Some("Pxe") => Some(BootTarget::Pxe),
            Some("Hdd") => Some(BootTarget::Disk),
            Some("Cd") => Some(BootTarget::Cd),
            Some("BiosSetup") => Some(BootTarget::BiosSetup),
            Some(_) => None,
        },
        times: match boot.enabled.as_deref() {
            Some("Once") => Some(BootTimes::Once),
            Some("Continuous") => Some(BootTimes::Continuous),
            _ => None,
        },
        mode: match boot.mode.as_deref() {
            Some("UEFI") => Some(BootMode::Uefi),
            Some("Legacy") => Some(BootMode::Legacy),
            _ => None,
        },
        shown: format!("{}, {}, {}", word(&boot.target), word(&boot.enabled), word(&boot.mode)),
    }
}

fn reset_kind(action: PowerAction) -> ResetKind {
    match action {
        PowerAction::On => ResetKind::On,
        PowerAction::ForceOff => ResetKind::ForceOff,
        PowerAction::GracefulShutdown => ResetKind::GracefulShutdown,
        PowerAction::GracefulRestart => ResetKind::GracefulRestart,
        PowerAction::ForceRestart => ResetKind::ForceRestart,
        PowerAction::PowerCycle => ResetKind::PowerCycle,
    }
}

impl Bmc for RedfishBmc {
    fn via(&self) -> Via {
        Via::Redfish
    }

    fn machine(&self) -> BoxFuture<'_, Result<Shown, BmcError>> {
        Box::pin(async move {
            let result = self.client.identity().await;
            let mut found = self.done(result).await?;
            // What identifies it stands in the system; without that nothing was read.
            if let Some(part) = found.unreadable.iter().position(|part| part.what == "system") {
                return Err(bmc_error(&found.unreadable.swap_remove(part).error));
            }
            Ok(Shown {
                tag: found.service_tag,
                serials: found.serial.into_iter().collect(),
                uuid: found.uuid,
            })
        })
    }

    fn inventory(&self) -> BoxFuture<'_, Result<Inventory, BmcError>> {
        Box::pin(async move {
            let result = self.read_inventory().await;
            self.done(result).await
        })
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

    fn firmware(&self) -> Option<&dyn Firmware> {
        Some(self)
    }

    fn paces_itself(&self) -> bool {
        true
    }

    fn forget(&self) {
        self.client.forget_links();
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.client.close().await;
            self.keep_sessions().await;
        })
    }
}

impl Power for RedfishBmc {
    fn state(&self) -> BoxFuture<'_, Result<PowerState, BmcError>> {
        Box::pin(async move {
            let result = self.client.system().await;
            Ok(power(&self.done(result).await?.power))
        })
    }

    fn supports(&self, action: PowerAction) -> BoxFuture<'_, Result<bool, BmcError>> {
        Box::pin(async move {
            let result = self.client.system().await;
            let declared = self.done(result).await?.reset_kinds;
            Ok(declared.is_empty() || declared.contains(&reset_kind(action)))
        })
    }

    fn last_reset(&self) -> BoxFuture<'_, Result<Option<String>, BmcError>> {
        Box::pin(async move {
            let result = self.client.system().await;
            Ok(self.done(result).await?.last_reset.map(|time| text::clean(&time)))
        })
    }

    fn switch(&self, action: PowerAction, limit: Duration) -> BoxFuture<'_, Result<(), BmcError>> {
        Box::pin(async move {
            let result = self.client.reset(reset_kind(action), Instant::now() + limit).await;
            self.done(result).await.map(|_| ())
        })
    }
}

impl BootControl for RedfishBmc {
    fn setting(&self) -> BoxFuture<'_, Result<BootSetting, BmcError>> {
        Box::pin(async move {
            let result = self.client.boot().await;
            Ok(boot_setting(&self.done(result).await?))
        })
    }

    fn supports(&self, wanted: BootOverrideParams) -> BoxFuture<'_, Result<bool, BmcError>> {
        Box::pin(async move {
            let result = self.client.boot().await;
            let declared = self.done(result).await?;
            let change = boot_change(&wanted);
            let has = |values: &[String], value: &str| values.is_empty() || values.iter().any(|v| v == value);
            Ok(has(&declared.targets, &change.target)
                && change.mode.as_deref().is_none_or(|mode| has(&declared.modes, mode)))
        })
    }

    fn set(&self, wanted: BootOverrideParams, limit: Duration) -> BoxFuture<'_, Result<(), BmcError>> {
        Box::pin(async move {
            let result = self.client.set_boot(&boot_change(&wanted), Instant::now() + limit).await;
            self.done(result).await
        })
    }
}

/// Records of Dell's lifecycle log about the host's power: turning on, off, CPU reset (Dell EMC Event and Error
/// Message Reference, SYS1000–SYS1003).
const POWER_RECORDS: [&str; 4] = ["SYS1000", "SYS1001", "SYS1002", "SYS1003"];

impl EventLog for RedfishBmc {
    fn mark(&self) -> BoxFuture<'_, Result<Option<u64>, BmcError>> {
        Firmware::log_mark(self)
    }

    fn power_since(&self, mark: u64) -> BoxFuture<'_, Result<PowerTrace, BmcError>> {
        Box::pin(async move {
            let log = self.log_since(mark).await?;
            let seen = log.records.iter().any(|(id, _)| POWER_RECORDS.contains(&id.as_str()));
            Ok(match (seen, log.whole) {
                (true, _) => PowerTrace::Seen,
                (false, true) => PowerTrace::Nothing,
                (false, false) => PowerTrace::Untold,
            })
        })
    }
}

impl Sensors for RedfishBmc {
    fn sensors(&self) -> BoxFuture<'_, Result<SensorReport, BmcError>> {
        Box::pin(async move {
            let result = self.client.sensors().await;
            let report = self.done(result).await?;
            let reading = |found: rackhand_redfish::SensorReading| SensorReading {
                name: text::clean(&found.name),
                value: found.value,
                unit: text::clean(&found.unit),
                health: health(found.health),
            };
            let missing = report.unreadable.iter();
            Ok(SensorReport {
                readings: report.readings.into_iter().map(reading).collect(),
                unreadable: missing
                    .map(|part| (text::clean(&part.what), text::clean(&told(&part.error))))
                    .collect(),
            })
        })
    }
}

/// Values of `ServerStatus` of a host on its way into staged updates (schema `DellLCService`, action
/// `GetRemoteServicesAPIStatus`).
const IN_A_BOOT: [&str; 2] = ["InPOST", "CollectingSystemInventory"];
/// And in them.
const IN_TASKS: &str = "AutomatedTaskExecution";

/// Where a listed job stands. An iDRAC's that nobody has scheduled stays `New` until someone does, with this in place
/// of a time; one that begins at once has `TIME_NOW` (DCIM Job Control profile).
fn listed(job: &rackhand_redfish::Job) -> JobPhase {
    match job_phase(&job.state) {
        JobPhase::New if job.started.as_deref() == Some("TIME_NA") => JobPhase::Waiting,
        phase => phase,
    }
}

impl Firmware for RedfishBmc {
    fn jobs(&self) -> BoxFuture<'_, Result<Vec<DeviceJob>, BmcError>> {
        Box::pin(async move { self.queue(self.client.jobs().await).await })
    }

    fn jobs_beside(&self, ended: Vec<String>) -> BoxFuture<'_, Result<Vec<DeviceJob>, BmcError>> {
        Box::pin(async move { self.queue(self.client.jobs_beside(&ended).await).await })
    }

    fn log_mark(&self) -> BoxFuture<'_, Result<Option<u64>, BmcError>> {
        Box::pin(async move {
            let result = self.client.last_lifecycle_record().await;
            Ok(self.done(result).await.map_err(coming)?.and_then(|record| record.number))
        })
    }

    fn log_since(&self, mark: u64) -> BoxFuture<'_, Result<LogSince, BmcError>> {
        Box::pin(async move {
            // The record at the mark is read along: a log without it was cleared, or has lost its older part.
            let result = self.client.lifecycle_log(Some(mark.saturating_sub(1))).await;
            let log = self.done(result).await?;
            let whole = log.complete && log.records.iter().any(|record| record.number == Some(mark));
            let newer = log.records.into_iter().filter(|record| record.number != Some(mark));
            let records = newer.map(|record| {
                let id = record.message.short_id().unwrap_or_default();
                (text::clean(id), text::clean(&record.message.text))
            });
            Ok(LogSince { records: records.collect(), whole })
        })
    }

    fn readiness(&self) -> BoxFuture<'_, Result<Readiness, BmcError>> {
        Box::pin(async move {
            let result = self.client.readiness().await;
            Ok(match self.done(result).await.map_err(coming)? {
                None => Readiness { ready: true, host_at_work: None, detail: "does not say".into() },
                Some(said) => Readiness {
                    ready: said.lc_ready(),
                    host_at_work: said
                        .server
                        .as_deref()
                        .filter(|host| IN_A_BOOT.contains(host) || *host == IN_TASKS)
                        .map(|host| HostWork {
                            words: format!("the host is at work: {host}"),
                            tasks: host == IN_TASKS,
                        }),
                    detail: text::clean(&format!(
                        "Lifecycle Controller {}, real-time monitoring {}, host {}",
                        said.lc.as_deref().unwrap_or("?"),
                        said.rt.as_deref().unwrap_or("?"),
                        said.server.as_deref().unwrap_or("?")
                    )),
                },
            })
        })
    }

    fn update_support(&self) -> BoxFuture<'_, Result<UpdateSupport, BmcError>> {
        Box::pin(async move {
            let result =
                async { Ok::<_, Error>((self.client.identity().await?, self.client.capabilities().await?)) }
                    .await;
            let (identity, declared) = self.done(result).await?;
            let on_reset = &rackhand_redfish::ApplyTime::OnReset;
            let simple = declared.simple_update.as_ref();
            let times = match (&declared.multipart_push, simple) {
                (None, Some(simple)) => simple.apply_times.contains(on_reset),
                _ => declared.push_apply_times.contains(on_reset),
            };
            Ok(UpdateSupport {
                multipart_push: declared.multipart_push.is_some(),
                simple_update: simple.is_some(),
                protocols: simple
                    .map_or_else(BTreeSet::new, |simple| simple.protocols.iter().cloned().collect()),
                on_reset: times,
                reboots_by_itself: update_semantics(&identity, &declared) == UpdateSemantics::RebootsByItself,
                resets: declared.reset_kinds.iter().map(|kind| kind.as_str().to_owned()).collect(),
            })
        })
    }

    fn follow<'a>(&'a self, job: &'a JobRef) -> BoxFuture<'a, Result<JobProgress, BmcError>> {
        Box::pin(async move {
            let task = TaskRef { path: job.path.clone(), id: job.id.clone(), log_mark: job.log_mark };
            let result = self.client.follow(&task).await;
            let progress = self.done(result).await?;
            let phase = job_phase(&progress.state);
            if !phase.is_live() {
                // It may have replaced the firmware of the BMC itself.
                self.client.forget_links();
            }
            Ok(JobProgress {
                phase,
                percent: progress.percent,
                message_id: progress.message_id.map(|id| text::clean(&id)),
                message: text::clean(&progress.message),
            })
        })
    }

    fn stage(&self, request: StageRequest, limit: Duration) -> BoxFuture<'_, Result<Staged, BmcError>> {
        Box::pin(async move {
            let deadline = Instant::now() + limit;
            let apply_time = request.on_reset.then_some(rackhand_redfish::ApplyTime::OnReset);
            let result = match request.handover {
                Handover::Push { file_name, bytes } => {
                    let update =
                        MultipartUpdate { package: bytes, file_name, apply_time, targets: Vec::new() };
                    self.client.multipart_update(&update, deadline).await
                }
                Handover::Pull { url } => {
                    let update = SimpleUpdate {
                        image_uri: url,
                        transfer_protocol: None,
                        apply_time,
                        targets: Vec::new(),
                    };
                    self.client.simple_update(&update, deadline).await
                }
            };
            let accepted = self.done(result).await?;
            if accepted.up_to_date {
                let words = accepted.message.map(|message| text::clean(&message.text));
                return Ok(Staged::UpToDate(words.unwrap_or_default()));
            }
            let Some(task) = accepted.task else { return Ok(Staged::Unnamed) };
            Ok(Staged::Started(JobRef {
                id: task.id,
                path: task.path,
                log_mark: task.log_mark.or(request.log_mark),
            }))
        })
    }

    fn delete_job<'a>(&'a self, id: &'a str, limit: Duration) -> BoxFuture<'a, Result<(), BmcError>> {
        Box::pin(async move {
            let result = self.client.delete_job(id, Instant::now() + limit).await;
            self.done(result).await
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::{broker::look, clock::Clock, timing::Timing};

    /// Lets each request leave if it may, and answers from a script.
    struct Scripted {
        answers: Mutex<Vec<Result<u16, NotSent>>>,
        left: Mutex<Vec<bool>>,
    }

    impl Transport for Scripted {
        fn send<'a>(
            &'a self,
            request: http::Request<Body>,
            _: Instant,
        ) -> BoxFuture<'a, Result<http::Response<Bytes>, TransportError>> {
            self.left.lock().unwrap().push(request.body().fence().unwrap()());
            let answer = self.answers.lock().unwrap().remove(0);
            Box::pin(async move {
                let status = answer.map_err(|why| TransportError::NotSent { why })?;
                Ok(http::Response::builder().status(status).body(Bytes::new()).unwrap())
            })
        }
    }

    /// What was not taken has not left: whatever is sent instead is asked anew.
    #[tokio::test]
    async fn a_request_that_was_sent_elsewhere_or_not_at_all_has_not_left() {
        for (answer, follows) in [
            (Ok(401), false),
            (Ok(307), false),
            (Ok(308), false),
            (Err(NotSent::ConnectTimeout), false),
            (Ok(202), true),
            (Ok(303), true),
            (Ok(503), true),
        ] {
            let (clock, look) = look::tests::look();
            let script =
                Arc::new(Scripted { answers: vec![answer.clone(), Ok(202)].into(), left: Mutex::default() });
            let timed: Arc<dyn Clock> = clock.clone();
            let paced = Paced { inner: script.clone(), pace: Pace::new(&timed, &Timing::default()) };
            let mutation = async {
                for _ in 0..2 {
                    let mut request = http::Request::post("https://bmc/reset").body(Body::empty()).unwrap();
                    request.extensions_mut().insert(Mutates { began: Instant::now() });
                    drop(paced.send(request, Instant::now() + Duration::from_secs(60)).await);
                    clock.pass(21, 21);
                }
            };
            drop(look.before(mutation).await);
            assert_eq!(*script.left.lock().unwrap(), [true, follows], "{answer:?}");
        }
    }
}
