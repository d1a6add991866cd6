//! The service: leases runs, carries them out as tasks, delivers reports, drains.
//!
//! [`Executor::start`] takes everything from outside as [`Parts`], so that tests run several in one process.
//! Dropping the [`Handle`] stops everything at once and cleans nothing up: what a crash leaves. [`Handle::drain`]
//! takes no more runs, gives those under way back at their next safe point, delivers the outbox and deletes the
//! sessions at the BMCs.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rackhand_schema::{
    ErrorCode,
    id::RunId,
    job::JobSpec,
    protocol::{Finish, HeldRun, LeaseRequest, LeaseResponse, ReportBody, RunGrant},
};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
};
use tracing::Instrument as _;

use crate::{
    broker::{Broker, Connector, Endpoint, Priority},
    clock::Clock,
    cloud::{Cloud, CloudError},
    credential,
    engine::{
        Context, Stop,
        context::{Shared, Signals},
        decide::millis,
        fault,
    },
    handlers,
    identity::Identity,
    journal::{Journal, JournalError, Write},
    lease::LeaseTable,
    outbox::{DRAIN_POLL, Outbox},
    package::Packages,
    policy::Policy,
    site_key::{Confirmed, SiteKeys},
    timing::Timing,
};

/// A refused run with work of somebody else in it is left to others for so long.
const REFUSAL_PAUSE: Duration = Duration::from_secs(60);

/// How long the task of a lost run may take to end by itself.
const LAST_WORDS: Duration = Duration::from_millis(500);

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

struct Service {
    shared: Shared,
    cloud: Arc<dyn Cloud>,
    broker: Arc<Broker>,
    keys: Arc<SiteKeys>,
    capacity: u32,
    draining: watch::Receiver<bool>,
    held: BTreeMap<RunId, Held>,
    tasks: JoinSet<(RunId, u64)>,
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
            keys: Arc::new(SiteKeys::new(parts.identity, parts.journal, parts.confirmed)),
            cloud: parts.cloud,
            shared,
            capacity: settings.capacity,
            draining,
            held: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    async fn run(mut self) -> Ended {
        match self.shared.journal.pending().await {
            Ok(pending) => self.shared.outbox.restore(pending),
            Err(error) => return Ended::Failed(error.to_string()),
        }
        let shared = self.shared.clone();
        let cloud = Arc::clone(&self.cloud);
        let broker = Arc::clone(&self.broker);
        let end = tokio::select! {
            error = shared.outbox.deliver(&*cloud, &*shared.clock, &shared.timing, || shared.leases.session_alive()) => ended(error),
            end = self.lease() => end,
        };
        self.tasks.shutdown().await;
        broker.close().await;
        end
    }

    /// The lease loop; also the drain's, until nothing is held any more.
    async fn lease(&mut self) -> Ended {
        let mut pause = self.shared.timing.retry;
        let mut drain_until: Option<Duration> = None;
        loop {
            self.reap();
            let draining = *self.draining.borrow();
            if draining {
                let now = self.shared.clock.now();
                let until = *drain_until.get_or_insert(now + self.shared.timing.drain);
                self.start_draining();
                if (self.held.is_empty() && self.shared.outbox.is_empty()) || now >= until {
                    return Ended::Drained;
                }
            }
            let request = self.request(draining);
            let sent = self.shared.clock.now();
            let answer = tokio::select! {
                answer = self.cloud.lease(&request) => answer,
                () = interrupted(&mut self.draining, draining, &mut self.tasks, &self.shared, &mut self.held) => continue,
            };
            match answer {
                Ok(answer) => {
                    pause = self.shared.timing.retry;
                    if let Err(error) = self.take_in(&request, answer, sent).await {
                        return Ended::Failed(error.to_string());
                    }
                    self.broker.sweep(true).await;
                }
                Err(error @ (CloudError::Superseded | CloudError::Revoked(_))) => return ended(error),
                Err(error) => {
                    tracing::warn!(%error, "no lease; work inside BMCs goes on and is observed");
                    self.broker.sweep(self.shared.leases.session_alive()).await;
                    self.shared.clock.sleep(pause).await;
                    pause = (pause * 2).min(self.shared.timing.retry_max);
                }
            }
            if draining {
                self.shared.clock.sleep(DRAIN_POLL).await;
            }
        }
    }

    fn request(&self, draining: bool) -> LeaseRequest {
        let held = self.held.iter().map(|(run, held)| HeldRun { run_id: *run, epoch: held.epoch }).collect();
        let ready = !draining && self.keys.secret().is_some();
        let busy = u32::try_from(self.held.len()).unwrap_or(u32::MAX);
        let ttl = self.shared.leases.ttl();
        let wait = if draining { Duration::ZERO } else { self.shared.timing.lease_wait.min(ttl / 3) };
        LeaseRequest {
            held,
            capacity: if ready { self.capacity.saturating_sub(busy) } else { 0 },
            kinds: self.shared.policy.kinds.clone(),
            wait_ms: u32::try_from(millis(wait)).unwrap_or(0),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    fn start_draining(&self) {
        self.shared.leases.set_draining();
        for held in self.held.values() {
            held.signals.send_if_modified(|signals| !std::mem::replace(&mut signals.drain, true));
        }
    }

    fn reap(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            note_end(ended, &self.shared, &mut self.held);
        }
    }

    async fn take_in(
        &mut self,
        request: &LeaseRequest,
        answer: LeaseResponse,
        sent: Duration,
    ) -> Result<(), JournalError> {
        // A run that ended while this request was held open is not lost.
        self.reap();
        let ttl = Duration::from_millis(answer.ttl_ms.into());
        let leases = Arc::clone(&self.shared.leases);
        leases.renewed(&request.held, &answer.lost, sent, ttl);
        leases.set_paused(answer.hardware_paused);
        for lost in &answer.lost {
            if self.held.get(&lost.run_id).is_some_and(|held| held.epoch == lost.epoch) {
                tracing::warn!(run = %lost.run_id, epoch = lost.epoch, "the lease has passed on");
                self.stop(lost.run_id).await;
            }
        }
        for run in &answer.cancel {
            if let Some(held) = self.held.get(run) {
                held.signals.send_if_modified(|signals| !std::mem::replace(&mut signals.cancel, true));
            }
        }
        self.keys.attend(&*self.cloud, &answer).await?;
        for grant in answer.grants {
            self.take(grant, sent, ttl).await;
        }
        Ok(())
    }

    /// Ends the task of a run that is not ours any more.
    async fn stop(&mut self, run: RunId) {
        let Some(held) = self.held.remove(&run) else { return };
        held.signals.send_modify(|signals| signals.lost = true);
        // It ends by itself at its next step, and what it is just writing down is not lost; mutations are refused
        // to it already. Nothing of it may run beside a successor in this very process.
        let end = self.shared.clock.now() + LAST_WORDS;
        while !held.task.is_finished() {
            if self.shared.clock.now() >= end {
                held.task.abort();
            }
            tokio::task::yield_now().await;
            self.shared.clock.sleep(Duration::from_millis(1)).await;
        }
        self.shared.leases.release(run, held.epoch);
        self.shared.outbox.close(run, held.epoch);
    }

    async fn take(&mut self, grant: RunGrant, sent: Duration, ttl: Duration) {
        let (run, epoch) = (grant.run_id, grant.epoch);
        match self.held.get(&run) {
            Some(held) if held.epoch >= epoch => return,
            Some(_) => self.stop(run).await,
            None => {}
        }
        let mut noted = grant.clone();
        noted.target.credential = None;
        self.shared.leases.granted(run, epoch, sent, ttl);
        self.shared.outbox.open(run, epoch, Some(Write::Granted { run, epoch, grant: json!(noted) }));
        let mutates = grant.spec.mutates();
        let changing = self.held.values().filter(|held| held.mutates).count();
        let full = mutates && changing >= self.shared.policy.max_mutating_runs as usize;
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
            grant: Arc::new(grant),
            granted_at: self.shared.clock.now(),
            full,
        };
        let task = async move {
            task.run(receiver).await;
            (run, epoch)
        };
        let task = self.tasks.spawn(task.instrument(span));
        self.held.insert(run, Held { epoch, mutates, signals, task });
    }
}

/// A reason to ask for a lease again at once: a drain began, or a run ended.
async fn interrupted(
    draining: &mut watch::Receiver<bool>,
    was: bool,
    tasks: &mut JoinSet<(RunId, u64)>,
    shared: &Shared,
    held: &mut BTreeMap<RunId, Held>,
) {
    let drain = async {
        if was || draining.wait_for(|draining| *draining).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let run_ended = async {
        match tasks.join_next().await {
            Some(ended) => note_end(ended, shared, held),
            None => std::future::pending().await,
        }
    };
    tokio::select! { () = drain => {}, () = run_ended => {} }
}

fn note_end(
    ended: Result<(RunId, u64), tokio::task::JoinError>,
    shared: &Shared,
    held: &mut BTreeMap<RunId, Held>,
) {
    let Ok((run, epoch)) = ended else {
        // Aborted tasks have been taken out already; a panic leaves its lease to run out.
        let gone: Vec<RunId> =
            held.iter().filter(|(_, held)| held.task.is_finished()).map(|(run, _)| *run).collect();
        for run in gone {
            if let Some(held) = held.remove(&run) {
                tracing::error!(%run, "the task of a run has failed; its lease runs out");
                shared.leases.release(run, held.epoch);
                shared.outbox.close(run, held.epoch);
            }
        }
        return;
    };
    if held.get(&run).is_some_and(|held| held.epoch == epoch) {
        held.remove(&run);
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
    grant: Arc<RunGrant>,
    granted_at: Duration,
    /// The policy's number of changing runs is reached.
    full: bool,
}

impl RunTask {
    async fn run(self, signals: watch::Receiver<Signals>) {
        let (run, epoch) = (self.grant.run_id, self.grant.epoch);
        let result = self.carry_out(signals).await;
        match &result {
            Ok(()) | Err(Stop::Lost | Stop::Yielded) => {}
            Err(Stop::Journal(error)) => {
                tracing::error!(%error, "nothing more is done for this run without a journal");
            }
        }
        let opening = self.shared.outbox.take_opening(run, epoch);
        let writes = opening.into_iter().chain([Write::Closed { run, epoch }]).collect();
        if let Err(error) = self.shared.journal.commit(writes).await {
            tracing::error!(%error, "journal");
        }
        self.shared.leases.release(run, epoch);
        self.shared.outbox.close(run, epoch);
    }

    async fn carry_out(&self, signals: watch::Receiver<Signals>) -> Result<(), Stop> {
        if self.full {
            return self.give_back("policy", "`max_mutating_runs` of this executor is reached").await;
        }
        if let Some(why) = self.shared.policy.refusal(&self.grant) {
            let name = crate::text::clean(&self.grant.target.name);
            let detail =
                format!("The executor's policy.toml forbids this for {name}: {why}. Nothing was done.");
            return self.refuse(fault(ErrorCode::PolicyRefused, detail, Value::Null)).await;
        }
        let Some(secret) = self.keys.secret() else {
            return self.give_back("site_key", "this executor does not hold the site key").await;
        };
        let opened = credential::open(&secret, self.grant.site_id, &self.grant.target);
        let opened = match opened {
            Ok(opened) => opened,
            Err(why) => {
                let name = crate::text::clean(&self.grant.target.name);
                let detail =
                    format!("The credential for {name} is not used: {why}. Nothing was sent to the BMC.");
                return self.refuse(fault(ErrorCode::CredentialRefused, detail, Value::Null)).await;
            }
        };
        let target = &self.grant.target;
        let Some(named) = &target.credential else { return Ok(()) };
        let endpoint = Endpoint {
            bmc_id: target.bmc_id,
            redfish: opened.redfish,
            ipmi: opened.ipmi.filter(|address| self.shared.policy.allows_url(&format!("ipmi://{address}"))),
            credential_id: named.id,
            credential: opened.credential,
            proven: named.proven,
        };
        let priority = match self.grant.spec {
            JobSpec::Inventory(_) => Priority::Observe,
            JobSpec::Power(_) | JobSpec::BootOverride(_) | JobSpec::FirmwareUpdate(_) => Priority::Change,
        };
        let line = match self.broker.line(endpoint, priority).await {
            Ok(line) => line,
            Err(error) => {
                return self.refuse(fault(ErrorCode::CredentialRefused, error.detail, Value::Null)).await;
            }
        };
        let mut context =
            Context::new(self.shared.clone(), Arc::clone(&self.grant), line, signals, self.granted_at);
        handlers::run(&mut context).await
    }

    /// Ends a run that nothing was done for here; one with a past is left to executors that may.
    async fn refuse(&self, finish: Finish) -> Result<(), Stop> {
        if !self.grant.effects.is_empty() || self.grant.intent.is_some() {
            return self.give_back(&finish.code, &finish.detail).await;
        }
        tracing::warn!(code = finish.code, "{}", finish.detail);
        let (run, epoch) = (self.grant.run_id, self.grant.epoch);
        let seq = self.shared.outbox.push(run, epoch, ReportBody::Finish(finish)).await?;
        self.shared.outbox.answer(run, epoch, seq).await;
        Ok(())
    }

    async fn give_back(&self, reason: &str, detail: &str) -> Result<(), Stop> {
        let (run, epoch) = (self.grant.run_id, self.grant.epoch);
        let body = ReportBody::Yield {
            reason: reason.to_owned(),
            detail: detail.to_owned(),
            resume_after_ms: millis(REFUSAL_PAUSE),
        };
        let seq = self.shared.outbox.push(run, epoch, body).await?;
        self.shared.outbox.answer(run, epoch, seq).await;
        Ok(())
    }
}
