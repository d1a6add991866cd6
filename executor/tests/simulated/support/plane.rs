//! The control plane's queue, as `schema/migrations/0005_queue.sql` keeps it, without a database: sessions
//! that expire, leases with epochs, items in sequence, intents, effects, settling.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use rackhand_executor::{
    clock::Clock,
    cloud::{Cloud, CloudError},
};
use rackhand_schema::{
    executor::SiteKey,
    id::{BmcId, ExecutorId, ExecutorSessionId, RunId},
    protocol::{
        AttemptAnswer, AttemptStep, CredentialAttempt, Finish, HeldRun, ItemResult, ItemStatus, LeaseRequest,
        LeaseResponse, Report, ReportBody, ReportItem, ReportResponse, RunGrant, SuspendedCredential,
    },
    run::{Effect, Outcome},
    server::Inventory,
};

pub const TTL: Duration = Duration::from_secs(30);

/// The way between one executor and the control plane.
#[derive(Default)]
pub struct Link {
    pub partitioned: AtomicBool,
    /// The next lease request vanishes, as in a connection that a network device has forgotten.
    pub swallows: AtomicBool,
    /// Answers with room for further runs are too large.
    pub too_large: AtomicBool,
    pub revoked: AtomicBool,
    /// So many answers get lost after the request was carried out.
    pub lose_answers: AtomicU32,
    /// Answers to reports are on their way for so long, ms.
    pub slow_reports: AtomicU32,
}

#[derive(Debug, Clone)]
pub struct RunRow {
    pub grant: RunGrant,
    lease: Option<ExecutorSessionId>,
    last_seq: u64,
    lease_ended: Option<Duration>,
    ready_at: Duration,
    pub effects: Vec<Effect>,
    pub finish: Option<Finish>,
    pub inventory: Option<Inventory>,
    /// Accepted items.
    pub items: Vec<ReportItem>,
    pub late: Vec<ReportItem>,
    /// State items that a stale epoch sent.
    pub stale: u32,
}

impl RunRow {
    /// What counts for an open intent is the end of the lease under which it was announced.
    fn end_lease(&mut self, at: Duration) {
        self.lease = None;
        if self.grant.intent.is_none() || self.lease_ended.is_none() {
            self.lease_ended = Some(at);
        }
    }

    /// What happened, a line for each item.
    pub fn story(&self) -> String {
        let lines = self.items.iter().map(|item| {
            let line: String = serde_json::to_string(&item.body).unwrap().chars().take(1000).collect();
            format!("{}/{} {line}\n", item.epoch, item.seq)
        });
        format!("{}{:#?}", lines.collect::<String>(), self.finish)
    }
}

struct Session {
    executor: ExecutorId,
    expires: Duration,
    superseded: bool,
}

#[derive(Default)]
struct Inner {
    runs: BTreeMap<RunId, RunRow>,
    sessions: BTreeMap<ExecutorSessionId, Session>,
    owners: BTreeMap<BmcId, ExecutorId>,
    keys: BTreeMap<ExecutorId, String>,
    cancelled: BTreeSet<RunId>,
    proven: BTreeSet<BmcId>,
    kinds_told: BTreeSet<Vec<String>>,
    failures: BTreeMap<BmcId, u32>,
    paused: bool,
    refuses_intents: bool,
    /// Runs have reported all that is kept: new effects are refused.
    spent: bool,
    /// Effects are not understood.
    quarantines_effects: bool,
    suspended: Vec<SuspendedCredential>,
    password: Option<String>,
}

pub struct Plane {
    clock: Arc<dyn Clock>,
    public_key: String,
    inner: Mutex<Inner>,
}

impl Plane {
    pub fn new(clock: Arc<dyn Clock>, public_key: String) -> Arc<Self> {
        Arc::new(Self { clock, public_key, inner: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub fn add(&self, grant: RunGrant) {
        let row = RunRow {
            lease: None,
            last_seq: 0,
            lease_ended: None,
            ready_at: Duration::ZERO,
            effects: vec![],
            finish: None,
            inventory: None,
            items: vec![],
            late: vec![],
            stale: 0,
            grant: grant.clone(),
        };
        self.lock().runs.insert(grant.run_id, row);
    }

    pub fn run(&self, run: RunId) -> RunRow {
        self.lock().runs[&run].clone()
    }

    /// The run with its items since the last call. They are taken out, and so is a run that has ended: a simulation
    /// of days does not keep them all.
    pub fn take(&self, run: RunId) -> RunRow {
        let mut inner = self.lock();
        let row = inner.runs.get_mut(&run).unwrap();
        let items = std::mem::take(&mut row.items);
        let row = RunRow { items, ..row.clone() };
        if row.finish.is_some() {
            inner.runs.remove(&run);
        }
        row
    }

    pub fn cancel(&self, run: RunId) {
        self.lock().cancelled.insert(run);
    }

    /// The control plane's row changes under the run.
    pub fn edit(&self, run: RunId, change: impl FnOnce(&mut RunGrant)) {
        change(&mut self.lock().runs.get_mut(&run).unwrap().grant);
    }

    /// What a former executor has left open.
    pub fn leave(&self, run: RunId, effect: Effect) {
        self.lock().runs.get_mut(&run).unwrap().effects.push(effect);
    }

    /// Another executor, which does nothing, has the run from now on.
    pub fn take_away(&self, run: RunId) {
        let mut inner = self.lock();
        let row = inner.runs.get_mut(&run).unwrap();
        row.grant.epoch += 1;
        row.lease = Some(ExecutorSessionId::generate());
    }

    /// Nobody gets the run until it is released.
    pub fn hold(&self, run: RunId) {
        self.lock().runs.get_mut(&run).unwrap().ready_at = Duration::MAX;
    }

    pub fn release(&self, run: RunId) {
        self.lock().runs.get_mut(&run).unwrap().ready_at = Duration::ZERO;
    }

    /// What executors have said that they can do.
    pub fn kinds_told(&self) -> BTreeSet<Vec<String>> {
        self.lock().kinds_told.clone()
    }

    pub fn pause(&self, paused: bool) {
        self.lock().paused = paused;
    }

    /// Whether intents are refused, as by a control plane that holds an older one.
    pub fn refuse_intents(&self, refuse: bool) {
        self.lock().refuses_intents = refuse;
    }

    /// Whether runs have reported all that is kept.
    pub fn spend(&self, spent: bool) {
        self.lock().spent = spent;
    }

    /// Whether effects are not understood.
    pub fn quarantine_effects(&self, quarantine: bool) {
        self.lock().quarantines_effects = quarantine;
    }

    /// No BMC is to be shown this version any more. Grants go on to say that a BMC has accepted it.
    pub fn suspend(&self, suspended: SuspendedCredential) {
        self.lock().suspended.push(suspended);
    }

    pub fn share_key(&self, executor: ExecutorId, sealed: String) {
        self.lock().keys.insert(executor, sealed);
    }

    pub fn use_password(&self, password: &str) {
        self.lock().password = Some(password.to_owned());
    }

    pub fn password(&self) -> String {
        self.lock().password.clone().unwrap_or_else(|| super::PASSWORD.to_owned())
    }

    pub fn sign_in(&self, executor: ExecutorId, session: ExecutorSessionId, resumes: &[ExecutorSessionId]) {
        let now = self.clock.now();
        let mut inner = self.lock();
        for other in inner.sessions.values_mut().filter(|other| other.executor == executor) {
            other.superseded = true;
        }
        for (_, former) in inner.sessions.iter_mut().filter(|(id, _)| resumes.contains(id)) {
            former.expires = now;
        }
        inner.sessions.insert(session, Session { executor, expires: now + TTL, superseded: false });
    }

    fn expire(inner: &mut Inner, now: Duration) {
        let dead: BTreeMap<ExecutorSessionId, Duration> = inner
            .sessions
            .iter()
            .filter(|(_, session)| session.expires <= now)
            .map(|(id, session)| (*id, session.expires))
            .collect();
        for row in inner.runs.values_mut() {
            if let Some(ended) = row.lease.and_then(|session| dead.get(&session)) {
                row.end_lease(*ended);
            }
        }
    }

    fn lease(&self, session: ExecutorSessionId, request: &LeaseRequest) -> Result<LeaseResponse, CloudError> {
        let now = self.clock.now();
        let mut guard = self.lock();
        let inner = &mut *guard;
        let me = {
            let mine = inner.sessions.get_mut(&session).unwrap();
            if mine.superseded {
                return Err(CloudError::Superseded);
            }
            mine.expires = now + TTL;
            mine.executor
        };
        Self::expire(inner, now);
        let living: BTreeSet<ExecutorId> = inner
            .sessions
            .values()
            .filter(|session| !session.superseded && session.expires > now)
            .map(|session| session.executor)
            .collect();
        inner.kinds_told.insert(request.kinds.clone());
        let claim = request.claim();
        let mut room = claim.most;
        for row in inner.runs.values_mut() {
            let bmc = row.grant.target.bmc_id;
            let owner = inner.owners.get(&bmc).copied();
            let may = owner.is_none_or(|owner| owner == me || !living.contains(&owner));
            let free = row.lease.is_none() && row.finish.is_none() && row.ready_at <= now;
            if room > 0 && free && may && claim.kinds.contains(&row.grant.spec.kind()) {
                room -= 1;
                inner.owners.insert(bmc, me);
                row.lease = Some(session);
                row.grant.epoch += 1;
                row.last_seq = 0;
            }
        }
        let holds = |held: &HeldRun| {
            inner.runs.get(&held.run_id).is_some_and(|row| {
                row.lease == Some(session) && row.grant.epoch == held.epoch && row.finish.is_none()
            })
        };
        let lost = request.held.iter().filter(|held| !holds(held)).cloned().collect();
        let mine = |row: &&RunRow| row.lease == Some(session) && row.finish.is_none();
        let grants = inner
            .runs
            .values()
            .filter(mine)
            .filter(|row| {
                !request.held.contains(&HeldRun { run_id: row.grant.run_id, epoch: row.grant.epoch })
            })
            .map(|row| {
                let mut grant = row.grant.clone();
                grant.effects = row.effects.iter().filter(|effect| effect.state.is_open()).cloned().collect();
                grant.cancel_requested = inner.cancelled.contains(&grant.run_id);
                let ended = row.lease_ended.map_or(Duration::ZERO, |ended| now.saturating_sub(ended));
                grant.predecessor_ended_ms = u64::try_from(ended.as_millis()).unwrap();
                if let Some(credential) = &mut grant.target.credential {
                    credential.proven = inner.proven.contains(&grant.target.bmc_id);
                }
                grant
            })
            .collect();
        let cancel = inner
            .runs
            .values()
            .filter(mine)
            .map(|row| row.grant.run_id)
            .filter(|run| inner.cancelled.contains(run))
            .collect();
        Ok(LeaseResponse {
            ttl_ms: u32::try_from(TTL.as_millis()).unwrap(),
            server_time: String::new(),
            grants,
            lost,
            cancel,
            suspended: inner.suspended.clone(),
            hardware_paused: inner.paused,
            joining: vec![],
            site_key: inner.keys.get(&me).cloned(),
            site_public_key: Some(self.public_key.clone()),
        })
    }

    fn report(&self, session: ExecutorSessionId, report: &Report) -> ReportResponse {
        let now = self.clock.now();
        let mut inner = self.lock();
        let live = inner.sessions.get(&session).is_some_and(|mine| mine.expires > now && !mine.superseded);
        let results = report.items.iter().enumerate().map(|(index, raw)| {
            let item: ReportItem = serde_json::from_str(raw.get()).unwrap();
            assert!(!raw.get().contains("\\u0000"), "a NUL left the executor");
            let (status, code, expected_seq) = take(&mut inner, session, live, now, item);
            ItemResult { index, status, code: code.map(str::to_owned), expected_seq }
        });
        ReportResponse { results: results.collect() }
    }
}

fn take(
    inner: &mut Inner,
    session: ExecutorSessionId,
    live: bool,
    now: Duration,
    item: ReportItem,
) -> (ItemStatus, Option<&'static str>, Option<u64>) {
    let row = inner.runs.get_mut(&item.run_id).unwrap();
    if item.epoch == row.grant.epoch && item.seq <= row.last_seq {
        return (ItemStatus::Duplicate, None, None);
    }
    if !live || row.lease != Some(session) || item.epoch != row.grant.epoch {
        if !matches!(item.body, ReportBody::Event { .. }) {
            row.stale += 1;
            return (ItemStatus::Refused, Some("stale-epoch"), None);
        }
        if row.late.iter().any(|late| late.epoch == item.epoch && late.seq == item.seq) {
            return (ItemStatus::Duplicate, None, None);
        }
        row.late.push(item);
        return (ItemStatus::Late, None, None);
    }
    if item.seq != row.last_seq + 1 {
        return (ItemStatus::Refused, Some("sequence-gap"), Some(row.last_seq + 1));
    }
    let open = row.effects.iter().any(|effect| effect.state.is_open());
    match &item.body {
        ReportBody::Phase { phase, .. } => row.grant.phase.clone_from(phase),
        ReportBody::Checkpoint { phase, state, .. } => {
            row.grant.phase.clone_from(phase);
            row.grant.checkpoint = state.clone();
        }
        ReportBody::Intent(intent) => {
            if row.grant.intent.is_some() || inner.refuses_intents {
                return (ItemStatus::Refused, Some("invalid-request"), None);
            }
            row.grant.intent = Some(intent.clone());
            row.lease_ended = None;
        }
        ReportBody::IntentResolved { .. } => row.grant.intent = None,
        ReportBody::Effect(effect)
            if inner.spent && row.effects.iter().all(|known| known.id != effect.id) =>
        {
            return (ItemStatus::Refused, Some("run-spent"), None);
        }
        ReportBody::Effect(_) if inner.quarantines_effects => {
            row.last_seq = item.seq;
            return (ItemStatus::Quarantined, None, None);
        }
        ReportBody::Effect(effect) => match row.effects.iter_mut().find(|known| known.id == effect.id) {
            Some(known) => *known = effect.clone(),
            None => row.effects.push(effect.clone()),
        },
        ReportBody::Inventory(inventory) => row.inventory = Some(inventory.clone()),
        ReportBody::Finish(finish) => {
            let known = finish.outcome != Outcome::Unknown;
            if known && row.grant.intent.is_some() {
                return (ItemStatus::Refused, Some("intent-open"), None);
            }
            if known && open && row.grant.settle.is_some() {
                return (ItemStatus::Refused, Some("effects-open"), None);
            }
            row.end_lease(now);
            if known && open {
                row.grant.settle = Some(finish.clone());
            } else {
                row.finish = Some(finish.clone());
            }
        }
        ReportBody::Yield { resume_after_ms, .. } => {
            row.end_lease(now);
            row.ready_at = now + Duration::from_millis(*resume_after_ms);
        }
        ReportBody::Event { .. } => {}
    }
    row.last_seq = item.seq;
    row.items.push(item);
    (ItemStatus::Accepted, None, None)
}

pub struct ModelCloud {
    pub plane: Arc<Plane>,
    pub session: ExecutorSessionId,
    pub link: Arc<Link>,
}

impl ModelCloud {
    async fn way_there(&self) -> Result<(), CloudError> {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if self.link.partitioned.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_secs(5)).await;
            return Err(CloudError::Unreachable("partitioned".into()));
        }
        Ok(())
    }

    fn way_back<T>(&self, answer: T) -> Result<T, CloudError> {
        let lost =
            self.link.lose_answers.try_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        if lost.is_ok() || self.link.partitioned.load(Ordering::Relaxed) {
            return Err(CloudError::Unreachable("the answer got lost".into()));
        }
        Ok(answer)
    }
}

impl Cloud for ModelCloud {
    fn lease<'a>(
        &'a self,
        request: &'a LeaseRequest,
        limit: Duration,
    ) -> BoxFuture<'a, Result<LeaseResponse, CloudError>> {
        Box::pin(async move {
            if self.link.swallows.swap(false, Ordering::Relaxed) {
                tokio::time::sleep(limit).await;
                return Err(CloudError::Unreachable("no answer in time".into()));
            }
            self.way_there().await?;
            let mut left = Duration::from_millis(request.wait_ms.into());
            loop {
                if self.link.revoked.load(Ordering::Relaxed) {
                    return Err(CloudError::Revoked("a test".into()));
                }
                let answer = self.plane.lease(self.session, request)?;
                if self.link.too_large.load(Ordering::Relaxed) && request.capacity > 0 {
                    return Err(CloudError::TooLarge);
                }
                let news = !answer.grants.is_empty() || !answer.lost.is_empty() || !answer.cancel.is_empty();
                if news || left.is_zero() {
                    return self.way_back(answer);
                }
                let step = left.min(Duration::from_secs(1));
                tokio::time::sleep(step).await;
                left -= step;
            }
        })
    }

    fn report<'a>(&'a self, report: &'a Report) -> BoxFuture<'a, Result<ReportResponse, CloudError>> {
        Box::pin(async move {
            self.way_there().await?;
            let answer = self.plane.report(self.session, report);
            let slow = self.link.slow_reports.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(slow.into())).await;
            self.way_back(answer)
        })
    }

    fn credential_attempt<'a>(
        &'a self,
        attempt: &'a CredentialAttempt,
    ) -> BoxFuture<'a, Result<AttemptAnswer, CloudError>> {
        Box::pin(async move {
            self.way_there().await?;
            let mut inner = self.plane.lock();
            let failed: u32 = inner.failures.values().sum();
            let mut allowed = true;
            let version = SuspendedCredential { id: attempt.credential_id, version: attempt.version };
            match attempt.step {
                AttemptStep::Reserve if inner.suspended.contains(&version) => allowed = false,
                // One rejection stops the credential everywhere in this model: stricter than the real one.
                AttemptStep::Reserve if failed >= 1 && !inner.proven.contains(&attempt.bmc_id) => {
                    allowed = false
                }
                AttemptStep::Reserve | AttemptStep::NotSent => {}
                AttemptStep::Accepted => {
                    inner.proven.insert(attempt.bmc_id);
                }
                AttemptStep::Rejected => *inner.failures.entry(attempt.bmc_id).or_default() += 1,
            }
            drop(inner);
            let detail = if allowed { String::new() } else { "suspended after a rejection".to_owned() };
            self.way_back(AttemptAnswer { allowed, detail, retry_after_ms: None })
        })
    }

    fn site_key<'a>(&'a self, _key: &'a SiteKey) -> BoxFuture<'a, Result<(), CloudError>> {
        Box::pin(async move { self.way_there().await })
    }
}
