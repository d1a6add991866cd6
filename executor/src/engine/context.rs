//! A run as its handler sees it: the server's line, the report, the lease, and when to stop.

use std::{sync::Arc, time::Duration};

use rackhand_schema::{
    event::Level,
    id::{EffectId, RunId},
    protocol::{Finish, Intent, ReportBody, Resolution, RunGrant, Waiting},
    run::{Effect, EffectState, PhaseState},
    server::Inventory,
};
use serde_json::Value;
use tokio::sync::watch;

use super::decide::{IntentAge, millis};
use crate::{
    broker::Line,
    clock::Clock,
    journal::{Journal, JournalError, Write},
    lease::{AcknowledgedIntent, Hold, LeaseTable},
    outbox::{Answer, Outbox},
    package::Packages,
    policy::Policy,
    text,
    timing::Timing,
};

/// Why a run's task ends without finishing the run.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Stop {
    /// Another lease has taken over.
    #[error("the lease has passed on")]
    Lost,
    /// Given back at a safe point.
    #[error("given back")]
    Yielded,
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// What the service tells a run's task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Signals {
    pub cancel: bool,
    pub drain: bool,
    pub lost: bool,
}

/// The announced mutation that is not resolved yet.
struct Unresolved {
    intent: Intent,
    /// When it can have touched the device at the latest.
    since: Duration,
}

/// The checkpoint last reported.
struct Checkpoint {
    phase: String,
    state: Value,
    waiting: Option<Waiting>,
    percent: Option<u8>,
    at: Duration,
}

/// What stays the same over the life of the process.
#[derive(Clone)]
pub struct Shared {
    pub clock: Arc<dyn Clock>,
    pub timing: Arc<Timing>,
    pub policy: Arc<Policy>,
    pub packages: Arc<Packages>,
    pub journal: Arc<dyn Journal>,
    pub outbox: Arc<Outbox>,
    pub leases: Arc<LeaseTable>,
}

pub struct Context {
    pub shared: Shared,
    pub grant: Arc<RunGrant>,
    pub line: Line,
    pub effects: Vec<Effect>,
    signals: watch::Receiver<Signals>,
    unresolved: Option<Unresolved>,
    last_checkpoint: Option<Checkpoint>,
}

impl Context {
    /// `granted_at`: when the grant arrived, on the executor's clock.
    pub fn new(
        shared: Shared,
        grant: Arc<RunGrant>,
        line: Line,
        signals: watch::Receiver<Signals>,
        granted_at: Duration,
    ) -> Self {
        let unresolved = grant.intent.clone().map(|intent| {
            let still_out = intent.deadline_ms.saturating_sub(grant.predecessor_ended_ms);
            let since = granted_at + Duration::from_millis(still_out);
            let already =
                Duration::from_millis(grant.predecessor_ended_ms.saturating_sub(intent.deadline_ms));
            Unresolved { intent, since: since.saturating_sub(already) }
        });
        let effects = grant.effects.clone();
        Self { shared, grant, line, effects, signals, unresolved, last_checkpoint: None }
    }

    pub fn run(&self) -> RunId {
        self.grant.run_id
    }

    pub fn epoch(&self) -> u64 {
        self.grant.epoch
    }

    pub fn server(&self) -> &str {
        &self.grant.target.name
    }

    pub fn timing(&self) -> &Timing {
        &self.shared.timing
    }

    pub fn now(&self) -> Duration {
        self.shared.clock.now()
    }

    pub fn signals(&self) -> Signals {
        *self.signals.borrow()
    }

    pub fn cancelled(&self) -> bool {
        self.grant.cancel_requested || self.signals().cancel
    }

    /// # Errors
    /// [`Stop::Lost`] once the control plane has said so.
    pub fn check(&self) -> Result<(), Stop> {
        if self.signals().lost || self.shared.outbox.passed_on(self.run(), self.epoch()) {
            return Err(Stop::Lost);
        }
        Ok(())
    }

    pub fn hold(&self, needs: Duration) -> Option<Hold> {
        self.shared.leases.allows(self.run(), self.epoch(), needs).err()
    }

    /// Limit of a short mutation: within a third of the lease, so that a renewed lease can outlast it.
    pub fn short_limit(&self) -> Duration {
        let ttl = self.shared.leases.ttl();
        if ttl.is_zero() { self.timing().mutation } else { self.timing().mutation.min(ttl / 3) }
    }

    /// Sleeps, but not through a cancellation, a drain or the loss of the lease.
    pub async fn pause(&mut self, duration: Duration) {
        let before = self.signals();
        let sleep = self.shared.clock.sleep(duration);
        let changed = async {
            while self.signals.changed().await.is_ok() {
                if *self.signals.borrow() != before {
                    return;
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! { () = sleep => {}, () = changed => {} }
    }

    async fn push(&self, body: ReportBody) -> Result<u64, Stop> {
        // What was seen is told even when the lease is lost; it is kept as late.
        if !matches!(body, ReportBody::Event { .. }) {
            self.check()?;
        }
        Ok(self.shared.outbox.push(self.run(), self.epoch(), body).await?)
    }

    async fn push_all(&self, notes: Vec<Write>, bodies: Vec<ReportBody>) -> Result<u64, Stop> {
        self.check()?;
        Ok(self.shared.outbox.push_all(self.run(), self.epoch(), notes, bodies).await?)
    }

    pub async fn event(&self, level: Level, message: impl AsRef<str>, data: Value) -> Result<(), Stop> {
        let message = text::clean(message.as_ref());
        match level {
            Level::Error => {
                tracing::error!(server = self.server(), run = %self.run(), trace = %self.grant.trace_id.to_hex(), "{message}")
            }
            Level::Warn => {
                tracing::warn!(server = self.server(), run = %self.run(), trace = %self.grant.trace_id.to_hex(), "{message}")
            }
            Level::Info | Level::Debug => {
                tracing::info!(server = self.server(), run = %self.run(), trace = %self.grant.trace_id.to_hex(), "{message}")
            }
        }
        let left_out = self.shared.outbox.take_left_out(self.run(), self.epoch());
        if left_out > 0 {
            let message = format!("{left_out} log lines were left out while the control plane was away");
            self.push(ReportBody::Event { level: Level::Warn, message, data: Value::Null }).await?;
        }
        self.push(ReportBody::Event { level, message, data: text::clean_value(&data) }).await?;
        Ok(())
    }

    pub async fn phase(&self, phase: &str, state: PhaseState, evidence: Value) -> Result<(), Stop> {
        let evidence = text::clean_value(&evidence);
        self.push(ReportBody::Phase { phase: phase.to_owned(), state, evidence }).await?;
        Ok(())
    }

    /// A phase begins or is over: where a successor would go on, and the phase, in one report.
    pub async fn turn(
        &mut self,
        phase: &str,
        checkpoint: Value,
        state: PhaseState,
        evidence: Value,
    ) -> Result<(), Stop> {
        let checkpoint = self.changed_checkpoint(phase, checkpoint, None, None);
        let evidence = text::clean_value(&evidence);
        let phase = ReportBody::Phase { phase: phase.to_owned(), state, evidence };
        self.push_all(Vec::new(), checkpoint.into_iter().chain([phase]).collect()).await?;
        Ok(())
    }

    /// Where a successor would go on. Repeated only when something changed, or as a sign of life.
    pub async fn checkpoint(
        &mut self,
        phase: &str,
        state: Value,
        waiting: Option<Waiting>,
        percent: Option<u8>,
    ) -> Result<(), Stop> {
        if let Some(checkpoint) = self.changed_checkpoint(phase, state, waiting, percent) {
            self.push(checkpoint).await?;
        }
        Ok(())
    }

    fn changed_checkpoint(
        &mut self,
        phase: &str,
        state: Value,
        waiting: Option<Waiting>,
        percent: Option<u8>,
    ) -> Option<ReportBody> {
        let waiting = waiting.map(|waiting| Waiting { detail: text::clean(&waiting.detail), ..waiting });
        let now = self.now();
        if let Some(last) = &self.last_checkpoint {
            let same = last.phase == phase
                && last.waiting == waiting
                && last.percent == percent
                && last.state == state;
            if same && now.saturating_sub(last.at) < self.timing().heartbeat {
                return None;
            }
        }
        let phase = phase.to_owned();
        self.last_checkpoint = Some(Checkpoint {
            phase: phase.clone(),
            state: state.clone(),
            waiting: waiting.clone(),
            percent,
            at: now,
        });
        Some(ReportBody::Checkpoint { phase, state, waiting, percent })
    }

    pub async fn inventory(&self, inventory: Inventory) -> Result<(), Stop> {
        self.push(ReportBody::Inventory(inventory)).await?;
        Ok(())
    }

    /// The unresolved intent, when it belongs to `(phase, action)`.
    pub fn intent(&self, phase: &str, action: &str) -> Option<&Intent> {
        let intent = &self.unresolved.as_ref()?.intent;
        (intent.phase == phase && intent.action == action).then_some(intent)
    }

    /// The phase whose intent is unresolved.
    pub fn unresolved_phase(&self) -> Option<&str> {
        self.unresolved.as_ref().map(|unresolved| unresolved.intent.phase.as_str())
    }

    /// How old the unresolved intent is against the time in which the device shows traces.
    pub fn intent_age(&self, window: Duration) -> IntentAge {
        match &self.unresolved {
            None => IntentAge::None,
            Some(unresolved) if self.now() < unresolved.since + window => IntentAge::Young,
            Some(_) => IntentAge::Settled,
        }
    }

    /// Waits until a predecessor's mutation cannot be under way any more and the device has settled.
    pub async fn await_predecessor(&mut self) -> Result<(), Stop> {
        let Some(until) = self.unresolved.as_ref().map(|unresolved| unresolved.since + self.timing().settle)
        else {
            return Ok(());
        };
        while self.now() < until {
            self.check()?;
            let left = until.saturating_sub(self.now());
            self.pause(left).await;
        }
        self.check()
    }

    /// Journals and reports the intent (and its effect) and waits until both are accepted.
    pub async fn announce(
        &mut self,
        intent: Intent,
        effect: Option<Effect>,
    ) -> Result<AcknowledgedIntent, Stop> {
        let (run, epoch) = (self.run(), self.epoch());
        if let Some(effect) = effect {
            self.report_effect(effect).await?;
        }
        let note = Write::Intent { run, epoch, intent: intent.clone() };
        let seq = self.push_all(vec![note], vec![ReportBody::Intent(intent.clone())]).await?;
        self.unresolved = Some(Unresolved { intent, since: self.now() });
        let answer = {
            let mut signals = self.signals.clone();
            let lost = async move {
                while signals.wait_for(|signals| signals.lost).await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                answer = self.shared.outbox.answer(run, epoch, seq) => answer,
                () = lost => Answer::PassedOn,
            }
        };
        match answer {
            Answer::Accepted => Ok(AcknowledgedIntent::new(run, epoch)),
            Answer::PassedOn => Err(Stop::Lost),
            Answer::Refused(code) => {
                tracing::error!(%run, code, "the control plane refused an intent; nothing was done");
                Err(Stop::Lost)
            }
        }
    }

    /// The announced request is over as far as this process goes; from now on the device settles.
    pub fn request_ended(&mut self) {
        let now = self.now();
        if let Some(unresolved) = &mut self.unresolved {
            unresolved.since = now;
        }
    }

    pub async fn resolve(&mut self, resolution: Resolution, evidence: Value) -> Result<(), Stop> {
        let (run, epoch) = (self.run(), self.epoch());
        let evidence = text::clean_value(&evidence);
        let note = Write::Outcome { run, epoch, resolution, evidence: evidence.clone() };
        self.push_all(vec![note], vec![ReportBody::IntentResolved { resolution, evidence }]).await?;
        self.unresolved = None;
        Ok(())
    }

    pub async fn report_effect(&mut self, effect: Effect) -> Result<(), Stop> {
        self.push(ReportBody::Effect(effect.clone())).await?;
        match self.effects.iter_mut().find(|known| known.id == effect.id) {
            Some(known) => *known = effect,
            None => self.effects.push(effect),
        }
        Ok(())
    }

    /// Moves the open effects on `object` from one of `from` to `state`.
    pub async fn move_effects(
        &mut self,
        object: &str,
        from: &[EffectState],
        state: EffectState,
    ) -> Result<(), Stop> {
        let matching: Vec<Effect> = self
            .effects
            .iter()
            .filter(|effect| effect.object == object && from.contains(&effect.state))
            .cloned()
            .collect();
        for effect in matching {
            self.report_effect(Effect { state, ..effect }).await?;
        }
        Ok(())
    }

    pub fn open_effect(&self, object: &str) -> Option<&Effect> {
        self.effects.iter().find(|effect| effect.object == object && effect.state.is_open())
    }

    /// Gives the lease back.
    pub async fn give_back(&mut self, reason: &str, detail: &str, after: Duration) -> Result<Stop, Stop> {
        let body = ReportBody::Yield {
            reason: reason.to_owned(),
            detail: text::clean(detail),
            resume_after_ms: millis(after),
        };
        self.push(body).await?;
        Ok(Stop::Yielded)
    }

    /// Ends the run.
    pub async fn finish(&mut self, finish: Finish) -> Result<(), Stop> {
        tracing::info!(server = self.server(), run = %self.run(), outcome = ?finish.outcome, code = finish.code, "{}", finish.detail);
        let seq = self.push(ReportBody::Finish(finish)).await?;
        match self.shared.outbox.answer(self.run(), self.epoch(), seq).await {
            Answer::Accepted => Ok(()),
            Answer::PassedOn | Answer::Refused(_) => Err(Stop::Lost),
        }
    }
}

/// A new effect, announced.
pub fn intended(object: &str, property: &str, prior: Value, wanted: Value) -> Effect {
    Effect {
        id: EffectId::generate(),
        object: object.to_owned(),
        property: property.to_owned(),
        prior,
        wanted,
        state: EffectState::Intended,
    }
}
