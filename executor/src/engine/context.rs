//! A run as its handler sees it: the server's line, the report, the lease, and when to stop.

use std::{sync::Arc, time::Duration};

use rackhand_schema::{
    ErrorCode,
    event::Level,
    id::{EffectId, RunId},
    protocol::{Finish, Intent, ReportBody, Resolution, RunGrant, Waiting},
    run::{Effect, EffectState, Outcome, PhaseState},
    server::Inventory,
};
use serde_json::Value;
use tokio::sync::watch;

use super::{
    decide::{IntentAge, millis},
    patience::{Patience, Waits},
};
use crate::{
    broker::Line,
    clock::Clock,
    journal::{Journal, JournalError, Write},
    lease::{AcknowledgedIntent, Hold, LeaseTable},
    outbox::{Answer, Outbox, Unkept},
    package::Packages,
    policy::Policy,
    text,
    timing::Timing,
};

/// Why a run's task ends without finishing the run.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Stop {
    /// Another lease has taken over.
    #[error("the lease has passed to another executor")]
    Lost,
    /// Given back at a safe point.
    #[error("given back")]
    Yielded,
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// What has to be kept of the run is larger than the control plane takes.
    #[error("{0}")]
    TooLarge(Unkept),
}

impl From<Unkept> for Stop {
    fn from(unkept: Unkept) -> Self {
        match unkept {
            Unkept::Journal(error) => Self::Journal(error),
            large @ Unkept::TooLarge { .. } => Self::TooLarge(large),
        }
    }
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

/// What became of an announcement.
pub enum Announced {
    Acknowledged(AcknowledgedIntent),
    /// The run has reported too much: nothing of it was taken.
    Spent,
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
    /// Transports that were named as unable to identify the machine.
    unidentified_told: usize,
    /// Whether what the predecessor had waited has been taken over.
    patience_taken: bool,
    waits: Waits,
    /// Since when the device has answered the looks of the activity at hand without a break.
    answers_since: Option<Duration>,
    /// When it did last.
    last_answer: Option<Duration>,
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
        Self {
            shared,
            grant,
            line,
            effects,
            signals,
            unresolved,
            last_checkpoint: None,
            unidentified_told: 0,
            patience_taken: false,
            waits: Waits::default(),
            answers_since: None,
            last_answer: None,
        }
    }

    /// An activity begins, with what predecessors had waited in vain at `action` in `phase`; once, for the activity
    /// that they were at.
    pub fn take_patience(&mut self, phase: &str, action: &str) -> Patience {
        let mut kept = None;
        if !self.patience_taken && self.grant.phase == phase {
            kept = Patience::of(&self.grant.checkpoint, action);
            self.patience_taken = kept.is_some();
        }
        let kept = kept.unwrap_or_default();
        self.waits.take_over(&kept, self.now());
        (self.answers_since, self.last_answer) = (None, None);
        kept
    }

    /// A look at the device begins. Since it last answered it may have restarted unseen, if that is long ago.
    pub fn looks(&mut self) {
        let timing = self.timing();
        let unseen = timing.settle.max(timing.poll * 2);
        if self.last_answer.is_some_and(|last| self.now().saturating_sub(last) > unseen) {
            self.breaks();
        }
    }

    /// A look of the activity at hand has ended without an error. One that may not begin may have asked for less.
    pub fn answered(&mut self) {
        let now = self.now();
        self.answers_since.get_or_insert(now);
        self.last_answer = Some(now);
    }

    /// A look or a request has failed, or no look was made for long: the device may have restarted, and what was seen of it without a break
    /// until now counts no more.
    pub fn breaks(&mut self) {
        self.answers_since = None;
        self.waits.end_passing();
    }

    /// How long the device has answered without a break, as far as this executor has seen it: what was away may have
    /// restarted, and shows its work later than it answers.
    pub fn answered_for(&self) -> Duration {
        self.answers_since.map_or(Duration::ZERO, |since| self.now().saturating_sub(since))
    }

    /// Whether it has answered for so long that its queue would show all that it was given before.
    pub fn has_shown_all(&self) -> bool {
        self.answered_for() >= self.timing().upload_visibility
    }

    /// What the activity at hand has waited so far, for the checkpoint. `tries`: those in vain at its mutation, and
    /// how long they have lasted; `held`: the same of those that were held back.
    pub fn patience(
        &self,
        action: &str,
        tries: (u32, Duration),
        held: (u32, Duration),
        blind: Duration,
    ) -> Patience {
        Patience::new(action, tries, held, blind, &self.waits, self.now())
    }

    /// How long the activity at hand has waited for `name`, over all executors that had it; begins with the first
    /// question.
    pub fn waited(&self, name: &str) -> Duration {
        let now = self.now();
        self.waits.since(name, now).unwrap_or_else(|| {
            self.waits.begin(name, now);
            Duration::ZERO
        })
    }

    pub fn begin_wait(&self, name: &str) {
        self.waits.begin(name, self.now());
    }

    pub fn end_wait(&self, name: &str) {
        self.waits.end(name);
    }

    /// How often the wait was begun.
    pub fn waits_begun(&self, name: &str) -> u32 {
        self.waits.times(name)
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
        let detail = format!("{}: waits until what a former executor sent has ended", self.server());
        while self.now() < until {
            self.check()?;
            if self.signals().drain {
                return Err(self.drained().await?);
            }
            let left = until.saturating_sub(self.now());
            let waiting =
                Waiting { reason: "settling".to_owned(), detail: detail.clone(), within_ms: millis(left) };
            let (phase, state) = (self.grant.phase.clone(), self.grant.checkpoint.clone());
            self.checkpoint(&phase, state, Some(waiting), None).await?;
            self.pause(left).await;
        }
        self.check()
    }

    /// Journals and reports the intent and its effect, in one commit, and waits until both are accepted. An effect
    /// without its intent would look like something that a run has done, and what has no effect is not undone.
    pub async fn announce(&mut self, intent: Intent, effect: Option<Effect>) -> Result<Announced, Stop> {
        let (run, epoch) = (self.run(), self.epoch());
        let note = Write::Intent { run, epoch, intent: intent.clone() };
        let bodies = effect.iter().cloned().map(ReportBody::Effect);
        let bodies: Vec<_> = bodies.chain([ReportBody::Intent(intent.clone())]).collect();
        let count = bodies.len() as u64;
        let last = self.push_all(vec![note], bodies).await?;
        let before = self.effects.clone();
        self.remember(effect);
        self.unresolved = Some(Unresolved { intent, since: self.now() });
        let answer = {
            let mut signals = self.signals.clone();
            let lost = async move {
                while signals.wait_for(|signals| signals.lost).await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                answer = self.shared.outbox.answer_all(run, epoch, last, count) => answer,
                () = lost => (last, Answer::PassedOn),
            }
        };
        match answer {
            (_, Answer::Accepted) => Ok(Announced::Acknowledged(AcknowledgedIntent::new(run, epoch))),
            (_, Answer::PassedOn) => Err(Stop::Lost),
            (_, Answer::Refused(code)) if code == ErrorCode::RunSpent.as_str() => {
                let evidence = Value::Null;
                let note = Write::Outcome { run, epoch, resolution: Resolution::NotApplied, evidence };
                self.shared.journal.write(note).await?;
                (self.effects, self.unresolved) = (before, None);
                Ok(Announced::Spent)
            }
            (seq, Answer::Refused(code)) => {
                tracing::error!(%run, code, "the control plane refused an intent or its effect; nothing was done");
                if seq < last && self.shared.outbox.answer(run, epoch, last).await == Answer::Accepted {
                    self.effects = before;
                    self.resolve(Resolution::NotApplied, None, Value::Null).await?;
                }
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

    /// What became of the announced mutation and of its effect on `object`, in one commit.
    pub async fn resolve(
        &mut self,
        resolution: Resolution,
        object: Option<&str>,
        evidence: Value,
    ) -> Result<(), Stop> {
        let (run, epoch) = (self.run(), self.epoch());
        let evidence = text::clean_value(&evidence);
        let state = match resolution {
            Resolution::Applied => Some(EffectState::Applied),
            Resolution::NotApplied => Some(EffectState::NotApplied),
            Resolution::Unknown => None,
        };
        let intended = |effect: &&Effect| {
            Some(effect.object.as_str()) == object && effect.state == EffectState::Intended
        };
        let moved: Vec<Effect> = match state {
            Some(state) => self
                .effects
                .iter()
                .filter(intended)
                .cloned()
                .map(|effect| Effect { state, ..effect })
                .collect(),
            None => Vec::new(),
        };
        let note = Write::Outcome { run, epoch, resolution, evidence: evidence.clone() };
        let bodies = moved.iter().cloned().map(ReportBody::Effect);
        let bodies = bodies.chain([ReportBody::IntentResolved { resolution, evidence }]).collect();
        self.push_all(vec![note], bodies).await?;
        self.remember(moved);
        self.unresolved = None;
        Ok(())
    }

    pub async fn report_effect(&mut self, effect: Effect) -> Result<(), Stop> {
        self.push(ReportBody::Effect(effect.clone())).await?;
        self.remember([effect]);
        Ok(())
    }

    fn remember(&mut self, effects: impl IntoIterator<Item = Effect>) {
        for effect in effects {
            match self.effects.iter_mut().find(|known| known.id == effect.id) {
                Some(known) => *known = effect,
                None => self.effects.push(effect),
            }
        }
    }

    /// An effect that was announced while its intent was not belongs to nothing that was sent: whatever the device
    /// shows, others did it, and it is not undone.
    pub async fn drop_unannounced(&mut self) -> Result<(), Stop> {
        if self.unresolved.is_some() {
            return Ok(());
        }
        let intended = |effect: &Effect| effect.state == EffectState::Intended;
        for effect in self.effects.clone().into_iter().filter(intended) {
            self.report_effect(Effect { state: EffectState::NotApplied, ..effect }).await?;
        }
        Ok(())
    }

    /// `effect` under the id of an earlier try at the same, so that tries do not pile up rows.
    pub fn same_effect(&self, effect: Effect) -> Effect {
        let tried = |known: &&Effect| {
            known.object == effect.object
                && known.property == effect.property
                && matches!(known.state, EffectState::NotApplied | EffectState::Intended)
        };
        match self.effects.iter().find(tried) {
            Some(known) => Effect { id: known.id, ..effect },
            None => effect,
        }
    }

    /// Says once over which transports the machine could not be identified.
    pub async fn tell_unidentified(&mut self) -> Result<(), Stop> {
        let untold = self.line.unidentified();
        if untold.len() <= self.unidentified_told {
            return Ok(());
        }
        self.unidentified_told = untold.len();
        let text = format!(
            "{}: whether this is the machine of the plan could not be checked ({}); it goes on",
            self.server(),
            untold.join("; ")
        );
        self.event(Level::Warn, text, Value::Null).await
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

    /// How a run ends of which `unkept` cannot be reported. What was not reported was not begun; what was reported
    /// before may be under way, and is handed to a person.
    ///
    /// # Errors
    /// As of any report.
    pub async fn cannot_report(&mut self, unkept: &Unkept) -> Result<Finish, Stop> {
        let open = self.unresolved.is_some() || !self.effects.is_empty();
        if self.unresolved.is_some() {
            self.resolve(Resolution::Unknown, None, Value::Null).await?;
        }
        let detail = match open {
            true => "What was begun before may be under way: look at the server.",
            false => "Nothing is under way.",
        };
        let detail = format!("{}: {unkept}. {detail}", self.server());
        let finish = super::fault(ErrorCode::ReportTooLarge, detail, Value::Null);
        Ok(if open { Finish { outcome: Outcome::Unknown, ..finish } } else { finish })
    }

    /// Gives the lease back because this executor goes away.
    pub async fn drained(&mut self) -> Result<Stop, Stop> {
        self.give_back("draining", "the executor is shutting down", Duration::ZERO).await
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
