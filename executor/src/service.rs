//! The service: leases runs, carries them out as tasks, delivers reports, drains.
//!
//! [`Executor::start`] takes everything from outside as [`Parts`], so that tests run several in one process.
//! Dropping the [`Handle`] stops everything at once and cleans nothing up: what a crash leaves. [`Handle::drain`]
//! takes no more runs, gives those under way back at their next safe point, delivers the outbox and deletes the
//! sessions at the BMCs.
//!
//! The lease loop keeps the leases of every run alive, so it waits for nothing but the control plane: BMCs are said
//! goodbye to by [`Broker::tend`], the site key is shared by a task beside it. A journal that fails ends the service. A
//! lease whose task has ended here, whatever the reason, is never worked on a second time: when it is granted again
//! it is given back, each time for longer.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use garde::Validate as _;
use rackhand_schema::{
    ErrorCode,
    event::Level,
    id::RunId,
    job::JobSpec,
    protocol::{Finish, HeldRun, LeaseRequest, LeaseResponse, ReportBody, RunGrant},
};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinError, JoinSet},
};
use tracing::Instrument as _;

use crate::{
    broker::{Broker, Connector, Endpoint, Priority, Proven},
    clock::{Clock, Moment},
    cloud::{Cloud, CloudError},
    credential::{self, CredentialRefused, Use, Versions},
    engine::{
        Context, Stop,
        context::{Shared, Signals},
        decide::millis,
        fault,
    },
    handlers::{self, settle},
    identity::Identity,
    journal::{Journal, JournalError, Write},
    lease::LeaseTable,
    outbox::{DRAIN_POLL, Outbox},
    package::Packages,
    policy::Policy,
    site_key::{Confirmed, SiteKeys},
    timing::Timing,
};

/// How long a process that ends waits to be heard.
const FAREWELL: Duration = Duration::from_secs(2);

/// A refused run with work of somebody else in it is left to others for so long.
const REFUSAL_PAUSE: Duration = Duration::from_secs(60);

/// The longest that a run which this process has failed at or refused again and again is left alone.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// How long a run is left alone that was given back `times` times before: each time twice as long. Every time is an
/// entry in the audit trail, which is kept.
fn longer_pause(times: u32) -> Duration {
    (REFUSAL_PAUSE * 2_u32.saturating_pow(times.min(8))).min(LONGEST_PAUSE)
}

/// After an answer that was too large, no further runs are taken for so long.
const FULL_PAUSE: Duration = Duration::from_secs(60);

/// How long the tasks of lost runs may take to end by themselves.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Limit of a lease request, on top of the time for which it is held open, before the length of a lease is known.
const FIRST_LEASE: Duration = Duration::from_secs(20);

/// Runs whose last lease here is remembered.
const MAX_SPENT: usize = 10_000;

/// How an executor behaves.
#[derive(Clone)]
pub struct Settings {
    pub timing: Timing,
    pub policy: Policy,
    /// Runs at once.
    pub capacity: u32,
}

/// Everything an executor needs from outside.
pub struct Parts {
    pub clock: Arc<dyn Clock>,
    pub cloud: Arc<dyn Cloud>,
    pub journal: Arc<dyn Journal>,
    pub connector: Arc<dyn Connector>,
    pub packages: Packages,
    pub identity: Arc<Identity>,
    pub confirmed: Arc<dyn Confirmed>,
}

/// How an executor ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    #[error("drained")]
    Drained,
    #[error("a newer process of this executor has signed in")]
    Superseded,
    #[error("this executor may not sign in any more: {0}")]
    Revoked(String),
    #[error("{0}")]
    Failed(String),
}

pub struct Executor;

/// A running executor.
pub struct Handle {
    drain: watch::Sender<bool>,
    ended: watch::Receiver<Option<Ended>>,
    task: AbortHandle,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Handle {
    /// Asks it to finish up; see [`Handle::ended`].
    pub fn drain(&self) {
        self.drain.send_replace(true);
    }

    /// Waits for its end.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone().unwrap_or(Ended::Drained),
            Err(_) => Ended::Failed("stopped".into()),
        }
    }
}

impl Executor {
    /// Starts in the background. Call it within a tokio runtime.
    pub fn start(settings: Settings, parts: Parts) -> Handle {
        let (drain, draining) = watch::channel(false);
        let (done, ended) = watch::channel(None);
        let service = Service::new(settings, parts, draining);
        let task = tokio::spawn(async move {
            let end = service.run().await;
            done.send_replace(Some(end));
        });
        Handle { drain, ended, task: task.abort_handle() }
    }
}

struct Held {
    epoch: u64,
    mutates: bool,
    signals: watch::Sender<Signals>,
    task: AbortHandle,
}

/// The last lease of a run whose task has ended here.
#[derive(Default)]
struct Spent {
    epoch: u64,
    /// How often it was granted again afterwards.
    returned: u32,
    /// How often in a row it was given back.
    given_back: u32,
}

/// How the task of a run ended.
struct TaskEnd {
    run: RunId,
    epoch: u64,
    result: Result<(), Stop>,
}

/// A reason to ask for a lease again at once.
enum Interruption {
    Drain,
    RunEnded(Result<TaskEnd, JoinError>),
}

struct Service {
    shared: Shared,
    cloud: Arc<dyn Cloud>,
    broker: Arc<Broker>,
    keys: Arc<SiteKeys>,
    versions: Arc<Versions>,
    capacity: u32,
    draining: watch::Receiver<bool>,
    held: BTreeMap<RunId, Held>,
    spent: BTreeMap<RunId, Spent>,
    tasks: JoinSet<TaskEnd>,
    /// At most one: gives the site key to executors that have joined.
    sharing: JoinSet<()>,
}

impl Service {
    fn new(settings: Settings, parts: Parts, draining: watch::Receiver<bool>) -> Self {
        let timing = Arc::new(settings.timing);
        let shared = Shared {
            leases: LeaseTable::new(Arc::clone(&parts.clock)),
            outbox: Outbox::new(Arc::clone(&parts.journal)),
            clock: Arc::clone(&parts.clock),
            timing: Arc::clone(&timing),
            policy: Arc::new(settings.policy),
            packages: Arc::new(parts.packages),
            journal: Arc::clone(&parts.journal),
        };
        Self {
            broker: Broker::new(parts.connector, parts.clock, timing),
            versions: Arc::new(Versions::new(Arc::clone(&parts.journal))),
            keys: Arc::new(SiteKeys::new(parts.identity, parts.journal, parts.confirmed)),
            cloud: parts.cloud,
            shared,
            capacity: settings.capacity,
            draining,
            held: BTreeMap::new(),
            spent: BTreeMap::new(),
            tasks: JoinSet::new(),
            sharing: JoinSet::new(),
        }
    }

    async fn run(mut self) -> Ended {
        if let Err(error) = self.shared.outbox.restore().await {
            return Ended::Failed(error.to_string());
        }
        let shared = self.shared.clone();
        let cloud = Arc::clone(&self.cloud);
        let broker = Arc::clone(&self.broker);
        let end = tokio::select! {
            error = shared.outbox.deliver(&*cloud, &*shared.clock, &shared.timing, || shared.leases.session_alive()) => ended(error),
            never = broker.tend(|| shared.leases.session_alive()) => match never {},
            end = self.lease() => end,
        };
        self.tasks.shutdown().await;
        self.sharing.shutdown().await;
        broker.close().await;
        if let Ended::Revoked(_) = end
            && let Err(error) = self.keys.forget().await
        {
            tracing::error!(%error, "what is kept of the site key could not be deleted: delete the data directory");
        }
        end
    }

    /// The lease loop; also the drain's, until nothing is held any more.
    async fn lease(&mut self) -> Ended {
        let cloud = Arc::clone(&self.cloud);
        let mut pause = self.shared.timing.retry;
        let mut drain_until: Option<Duration> = None;
        // The next answer is wanted at once: a request has failed, or what this process could take has changed. It is
        // not broken off for anything that may come often, so that there is an answer in the end.
        let mut hurry = false;
        let mut failures = 0_u32;
        // An answer was too large to be taken: until then they have no further runs in them.
        let mut full_until = Duration::ZERO;
        loop {
            if let Err(error) = self.reap() {
                return Ended::Failed(error.to_string());
            }
            let draining = *self.draining.borrow();
            if draining {
                let now = self.shared.clock.now();
                let until = *drain_until.get_or_insert(now + self.shared.timing.drain);
                self.start_draining();
                if self.held.is_empty() && self.shared.outbox.is_empty() {
                    // Shown as offline at once, and others may speak to its BMCs. If it is not heard, the session
                    // expires.
                    let leaving = LeaseRequest { leaving: true, ..self.request(true, true) };
                    tokio::select! {
                        told = cloud.lease(&leaving, FAREWELL) => if let Err(error) = told {
                            tracing::info!(%error, "the control plane could not be notified that this executor stops");
                        },
                        () = self.shared.clock.sleep(FAREWELL) => {}
                    }
                    return Ended::Drained;
                }
                if now >= until {
                    return Ended::Drained;
                }
            }
            let request = self.request(draining || hurry, draining || self.shared.clock.now() < full_until);
            let limit = self.limit(&request);
            let sent = self.shared.clock.moment();
            let answer = tokio::select! {
                answer = cloud.lease(&request, limit) => answer,
                why = interrupted(&mut self.draining, draining, &mut self.tasks, hurry) => {
                    if let Interruption::RunEnded(end) = why {
                        hurry = true;
                        if let Err(error) = self.note_end(end) {
                            return Ended::Failed(error.to_string());
                        }
                    }
                    continue;
                }
            };
            match answer {
                Ok(answer) => {
                    (pause, failures, hurry) = (self.shared.timing.retry, 0, false);
                    if let Err(error) = self.take_in(&request, answer, sent).await {
                        return Ended::Failed(error.to_string());
                    }
                }
                Err(error @ (CloudError::Superseded | CloudError::Revoked(_))) => return ended(error),
                Err(error) => {
                    (hurry, failures) = (true, failures.saturating_add(1));
                    if error == CloudError::TooLarge {
                        full_until = self.shared.clock.now() + FULL_PAUSE;
                    }
                    // The first time it may have been the connection, and there is just time for a second one.
                    if failures == 1 {
                        tracing::info!(%error, "no lease; asking once more");
                    } else {
                        tracing::warn!(%error, "no lease; work inside BMCs goes on and is observed");
                        self.shared.clock.sleep(pause).await;
                        pause = (pause * 2).min(self.shared.timing.retry_max);
                    }
                }
            }
            if draining {
                self.shared.clock.sleep(DRAIN_POLL).await;
            }
        }
    }

    /// A lease is renewed each third of it, or earlier, and ends a tenth early; an answer that is late by a sixth
    /// leaves time for another request.
    fn limit(&self, request: &LeaseRequest) -> Duration {
        let ttl = self.shared.leases.ttl();
        let late = if ttl.is_zero() { FIRST_LEASE } else { ttl / 6 };
        Duration::from_millis(request.wait_ms.into()) + late
    }

    /// `full`: no further runs are taken.
    fn request(&self, at_once: bool, full: bool) -> LeaseRequest {
        let held = self.held.iter().map(|(run, held)| HeldRun { run_id: *run, epoch: held.epoch }).collect();
        let policy = &self.shared.policy;
        let ready = !full && self.keys.secret().is_some();
        let busy = u32::try_from(self.held.len()).unwrap_or(u32::MAX);
        let ttl = self.shared.leases.ttl();
        // A short mutation needs a third of the lease: it is renewed early enough that so much is always left.
        let share = if self.changing() > 0 { ttl / 4 } else { ttl / 3 };
        let wait = if at_once { Duration::ZERO } else { self.shared.timing.lease_wait.min(share) };
        LeaseRequest {
            held,
            capacity: if ready { self.capacity.saturating_sub(busy) } else { 0 },
            kinds: policy.kinds.clone(),
            changes: Some(policy.max_mutating_runs.saturating_sub(self.changing())),
            wait_ms: u32::try_from(millis(wait)).unwrap_or(0),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            leaving: false,
        }
    }

    /// Runs under way that change something.
    fn changing(&self) -> u32 {
        u32::try_from(self.held.values().filter(|held| held.mutates).count()).unwrap_or(u32::MAX)
    }

    fn start_draining(&self) {
        self.shared.leases.set_draining();
        for held in self.held.values() {
            held.signals.send_if_modified(|signals| !std::mem::replace(&mut signals.drain, true));
        }
    }

    fn reap(&mut self) -> Result<(), JournalError> {
        while let Some(ended) = self.tasks.try_join_next() {
            self.note_end(ended)?;
        }
        Ok(())
    }

    /// # Errors
    /// When the run's journal writes have failed.
    fn note_end(&mut self, ended: Result<TaskEnd, JoinError>) -> Result<(), JournalError> {
        let (run, epoch, result) = match ended {
            Ok(TaskEnd { run, epoch, result }) => (run, epoch, result),
            Err(error) => {
                // Aborted tasks have been taken out already.
                let broken = self.held.iter().find(|(_, held)| held.task.id() == error.id());
                let Some((run, epoch)) = broken.map(|(run, held)| (*run, held.epoch)) else { return Ok(()) };
                tracing::error!(%run, epoch, "the task of a run has failed; the run is given back");
                self.shared.leases.release(run, epoch);
                self.shared.outbox.close(run, epoch);
                (run, epoch, Ok(()))
            }
        };
        if self.held.get(&run).is_some_and(|held| held.epoch == epoch) {
            self.held.remove(&run);
        }
        let spent = self.spent.entry(run).or_default();
        spent.epoch = epoch;
        spent.given_back =
            if matches!(result, Err(Stop::Yielded)) { spent.given_back.saturating_add(1) } else { 0 };
        if self.spent.len() > MAX_SPENT {
            // Run ids are ordered by time: the oldest goes.
            self.spent.pop_first();
        }
        match result {
            Err(Stop::Journal(error)) => Err(error),
            Err(Stop::TooLarge(unkept)) => {
                tracing::error!(%run, epoch, %unkept, "the run cannot be reported; it is left to its next lease");
                Ok(())
            }
            Ok(()) | Err(Stop::Lost | Stop::Yielded) => Ok(()),
        }
    }

    async fn take_in(
        &mut self,
        request: &LeaseRequest,
        answer: LeaseResponse,
        sent: Moment,
    ) -> Result<(), JournalError> {
        // A run that ended while this request was held open is not lost.
        self.reap()?;
        let ttl = Duration::from_millis(answer.ttl_ms.into());
        let leases = Arc::clone(&self.shared.leases);
        leases.renewed(&request.held, &answer.lost, sent, ttl);
        leases.set_paused(answer.hardware_paused);
        self.broker.suspend(&answer.suspended);
        let is_held = |run: &RunId, epoch: u64| self.held.get(run).is_some_and(|held| held.epoch == epoch);
        let lost: Vec<RunId> = answer
            .lost
            .iter()
            .filter(|lost| is_held(&lost.run_id, lost.epoch))
            .map(|lost| lost.run_id)
            .collect();
        let newer =
            |grant: &&RunGrant| self.held.get(&grant.run_id).is_some_and(|held| held.epoch < grant.epoch);
        let replaced: Vec<RunId> = answer.grants.iter().filter(newer).map(|grant| grant.run_id).collect();
        self.stop(lost.into_iter().chain(replaced).collect()).await;
        for run in &answer.cancel {
            if let Some(held) = self.held.get(run) {
                held.signals.send_if_modified(|signals| !std::mem::replace(&mut signals.cancel, true));
            }
        }
        self.attend_to_keys(&answer).await?;
        for grant in answer.grants {
            self.take(grant, sent, ttl);
        }
        Ok(())
    }

    /// Waits for the control plane only as long as this process has no key, and therefore no runs.
    async fn attend_to_keys(&mut self, answer: &LeaseResponse) -> Result<(), JournalError> {
        self.keys.compare(answer.site_public_key.as_deref());
        if self.keys.secret().is_none() {
            return self.keys.attend(&*self.cloud, answer).await;
        }
        while self.sharing.try_join_next().is_some() {}
        if self.sharing.is_empty() && !answer.joining.is_empty() {
            let (keys, cloud) = (Arc::clone(&self.keys), Arc::clone(&self.cloud));
            let joining = answer.joining.clone();
            self.sharing.spawn(async move { keys.share(&*cloud, &joining).await });
        }
        Ok(())
    }

    /// Ends the tasks of runs that are not ours any more, all at the same time.
    async fn stop(&mut self, runs: Vec<RunId>) {
        let stopping: Vec<(RunId, Held)> =
            runs.into_iter().filter_map(|run| self.held.remove(&run).map(|held| (run, held))).collect();
        for (run, held) in &stopping {
            // A run that ends is not leased any more before the answer to its report is here.
            if !self.shared.outbox.is_ended(*run, held.epoch) {
                tracing::warn!(%run, epoch = held.epoch, "the lease has passed on");
            }
            held.signals.send_modify(|signals| signals.lost = true);
        }
        // They end by themselves at their next step, and what they are just writing down is not lost; mutations are
        // refused to them already. Nothing of them may run beside a successor in this very process.
        let end = self.shared.clock.now() + LAST_WORDS;
        while stopping.iter().any(|(_, held)| !held.task.is_finished()) {
            if self.shared.clock.now() >= end {
                for (_, held) in &stopping {
                    held.task.abort();
                }
            }
            tokio::task::yield_now().await;
            self.shared.clock.sleep(Duration::from_millis(1)).await;
        }
        for (run, held) in stopping {
            self.shared.leases.release(run, held.epoch);
            self.shared.outbox.close(run, held.epoch);
        }
    }

    fn take(&mut self, grant: RunGrant, sent: Moment, ttl: Duration) {
        let (run, epoch) = (grant.run_id, grant.epoch);
        if self.held.get(&run).is_some_and(|held| held.epoch >= epoch) {
            return;
        }
        let mutates = grant.spec.mutates() || settle::has_past(&grant);
        let mut give_back =
            (mutates && self.changing() >= self.shared.policy.max_mutating_runs).then(|| GiveBack {
                reason: "policy",
                detail: "`max_mutating_runs` of this executor is reached".to_owned(),
                pause: REFUSAL_PAUSE,
            });
        let opening = match self.spent.get_mut(&run).filter(|spent| spent.epoch == epoch) {
            // How it ended is still on its way to the control plane.
            Some(_) if self.shared.outbox.is_delivering(run, epoch) => return,
            Some(spent) => {
                let pause = longer_pause(spent.returned);
                spent.returned = spent.returned.saturating_add(1);
                give_back = Some(GiveBack {
                    reason: "executor_failed",
                    detail: format!(
                        "The executor's work on this run broke off; its log says why. It is taken up again in {} s.",
                        pause.as_secs()
                    ),
                    pause,
                });
                None
            }
            None => {
                let mut noted = grant.clone();
                noted.target.credential = None;
                Some(Write::Granted { run, epoch, grant: json!(noted) })
            }
        };
        self.shared.leases.granted(run, epoch, sent, ttl);
        self.shared.outbox.open(run, epoch, opening);
        let (signals, receiver) =
            watch::channel(Signals { cancel: grant.cancel_requested, ..Signals::default() });
        let span = tracing::info_span!(
            "run",
            run = %run, epoch, server = %crate::text::clean(&grant.target.name), trace = grant.trace_id.to_hex()
        );
        let task = RunTask {
            shared: self.shared.clone(),
            broker: Arc::clone(&self.broker),
            keys: Arc::clone(&self.keys),
            versions: Arc::clone(&self.versions),
            grant: Arc::new(grant),
            granted_at: self.shared.clock.now(),
            give_back,
            refusal_pause: longer_pause(self.spent.get(&run).map_or(0, |spent| spent.given_back)),
        };
        let task = async move { TaskEnd { run, epoch, result: task.run(receiver).await } };
        let task = self.tasks.spawn(task.instrument(span));
        self.held.insert(run, Held { epoch, mutates, signals, task });
    }
}

/// Waits for a reason to ask again at once; while the answer is wanted anyway (`hurry`), for a drain alone.
async fn interrupted(
    draining: &mut watch::Receiver<bool>,
    was: bool,
    tasks: &mut JoinSet<TaskEnd>,
    hurry: bool,
) -> Interruption {
    let drain = async {
        if was || draining.wait_for(|draining| *draining).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let run_ended = async {
        match (hurry, tasks.is_empty()) {
            (false, false) => {}
            _ => std::future::pending().await,
        }
        match tasks.join_next().await {
            Some(ended) => ended,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = drain => Interruption::Drain,
        ended = run_ended => Interruption::RunEnded(ended),
    }
}

fn ended(error: CloudError) -> Ended {
    match error {
        CloudError::Superseded => Ended::Superseded,
        CloudError::Revoked(why) => Ended::Revoked(why),
        other => Ended::Failed(other.to_string()),
    }
}

/// One run under one lease.
struct RunTask {
    shared: Shared,
    broker: Arc<Broker>,
    keys: Arc<SiteKeys>,
    versions: Arc<Versions>,
    grant: Arc<RunGrant>,
    granted_at: Duration,
    /// Instead of any work.
    give_back: Option<GiveBack>,
    /// How long it is left alone if it is refused here.
    refusal_pause: Duration,
}

/// Leaves a run to a later time, or to others.
struct GiveBack {
    reason: &'static str,
    detail: String,
    pause: Duration,
}

impl RunTask {
    async fn run(self, signals: watch::Receiver<Signals>) -> Result<(), Stop> {
        let (run, epoch) = (self.grant.run_id, self.grant.epoch);
        let result = self.carry_out(signals).await;
        let opening = self.shared.outbox.take_opening(run, epoch);
        let writes = opening.into_iter().chain([Write::Closed { run, epoch }]).collect();
        let written = self.shared.journal.commit(writes).await;
        self.shared.leases.release(run, epoch);
        self.shared.outbox.close(run, epoch);
        written?;
        result
    }

    /// Says that a person on this machine made older versions of a credential valid again.
    async fn report_forgotten(&self, name: &str, version: u32, forgotten: u32) -> Result<(), Stop> {
        let message = format!(
            "On this executor's machine it was ordered to forget that version {forgotten} of the credential {} was used. \
             Version {version} is used now.",
            crate::text::clean(name)
        );
        let data = serde_json::json!({"forgotten": forgotten, "version": version});
        let event = ReportBody::Event { level: Level::Warn, message, data };
        self.shared.outbox.push(self.grant.run_id, self.grant.epoch, event).await?;
        Ok(credential::forgetting_reported(&*self.shared.journal, name).await?)
    }

    async fn carry_out(&self, signals: watch::Receiver<Signals>) -> Result<(), Stop> {
        if let Some(GiveBack { reason, detail, pause }) = &self.give_back {
            return self.give_back(reason, detail, *pause).await;
        }
        if let Some(warning) = self.keys.warning() {
            let (run, epoch) = (self.grant.run_id, self.grant.epoch);
            let event = ReportBody::Event { level: Level::Error, message: warning, data: Value::Null };
            self.shared.outbox.push(run, epoch, event).await?;
        }
        let name = crate::text::clean(&self.grant.target.name);
        let invalid = self.grant.validate().err().map(|report| report.to_string());
        if let Some(why) = invalid.or_else(|| settle::refusal(&self.grant)) {
            let why = crate::text::clean(why.trim_end());
            let detail =
                format!("What the control plane requests for {name} is not valid: {why}. Nothing was done.");
            return self.refuse(fault(ErrorCode::PolicyRefused, detail, Value::Null)).await;
        }
        if let Some(why) = self.shared.policy.refusal(&self.grant) {
            let detail =
                format!("The executor's policy.toml forbids this for {name}: {why}. Nothing was done.");
            return self.refuse(fault(ErrorCode::PolicyRefused, detail, Value::Null)).await;
        }
        let Some(secret) = self.keys.secret() else {
            let detail = "this executor does not hold the site key";
            return self.give_back("site_key", detail, self.refusal_pause).await;
        };
        let target = &self.grant.target;
        let opened = match credential::open(&secret, self.grant.site_id, target) {
            Ok(opened) => opened,
            Err(why) => return self.refuse_credential(&why).await,
        };
        let (granted, version) = (opened.granted, opened.credential.version);
        match self.versions.check(&granted.name, &opened.places(), version).await? {
            Ok(None) => {}
            Ok(Some(forgotten)) => self.report_forgotten(&granted.name, version, forgotten).await?,
            Err(why) => return self.refuse_credential(&why).await,
        }
        let endpoint = Endpoint {
            bmc_id: target.bmc_id,
            redfish: opened.redfish,
            ipmi: opened.ipmi.filter(|address| self.shared.policy.allows_url(&format!("ipmi://{address}"))),
            credential_id: granted.id,
            credential: opened.credential,
            credential_use: Use { versions: Arc::clone(&self.versions), name: granted.name.clone(), version },
            proven: Proven::new(granted.proven),
        };
        let priority = match self.grant.spec {
            JobSpec::Inventory(_) => Priority::Observe,
            JobSpec::Power(_) | JobSpec::BootOverride(_) | JobSpec::FirmwareUpdate(_) => Priority::Change,
        };
        let line = match self.broker.line(endpoint, priority) {
            Ok(line) if self.grant.spec.mutates() || settle::has_past(&self.grant) => {
                line.expecting(&self.grant.plan, target)
            }
            Ok(line) => line,
            Err(error) => {
                let detail = format!("The BMC of {name} cannot be spoken to: {error}. Nothing was sent.");
                return self.refuse(fault(ErrorCode::DeviceUnsupported, detail, Value::Null)).await;
            }
        };
        let mut context =
            Context::new(self.shared.clone(), Arc::clone(&self.grant), line, signals, self.granted_at);
        handlers::run(&mut context).await
    }

    async fn refuse_credential(&self, why: &CredentialRefused) -> Result<(), Stop> {
        let name = crate::text::clean(&self.grant.target.name);
        let detail = format!("The credential for {name} is not used: {why}. Nothing was sent to the BMC.");
        self.refuse(fault(ErrorCode::CredentialRefused, detail, Value::Null)).await
    }

    /// Ends a run that nothing was done for here; one with a past is left to executors that may.
    async fn refuse(&self, finish: Finish) -> Result<(), Stop> {
        if settle::has_past(&self.grant) {
            return self.give_back(&finish.code, &finish.detail, self.refusal_pause).await;
        }
        tracing::warn!(code = finish.code, "{}", finish.detail);
        let (run, epoch) = (self.grant.run_id, self.grant.epoch);
        let seq = self.shared.outbox.push(run, epoch, ReportBody::Finish(finish)).await?;
        self.shared.outbox.answer(run, epoch, seq).await;
        Ok(())
    }

    /// # Errors
    /// Always: [`Stop::Yielded`] when it went well.
    async fn give_back(&self, reason: &str, detail: &str, pause: Duration) -> Result<(), Stop> {
        let (run, epoch) = (self.grant.run_id, self.grant.epoch);
        let body = ReportBody::Yield {
            reason: reason.to_owned(),
            detail: detail.to_owned(),
            resume_after_ms: millis(pause),
        };
        let seq = self.shared.outbox.push(run, epoch, body).await?;
        self.shared.outbox.answer(run, epoch, seq).await;
        Err(Stop::Yielded)
    }
}
