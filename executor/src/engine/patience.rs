//! How long an activity has waited in vain, over all executors that had it.
//!
//! It stands in the checkpoint beside the activity's own state, so that a successor goes on counting: executors that
//! are restarted every few minutes would otherwise begin each wait anew, and none would end. A checkpoint is sent for
//! each change, so what grows all the time is kept in whole minutes, rounded down. Time in which nobody had the run
//! counts for nothing. The control plane takes a checkpoint that differs in this alone for no step forward
//! (`rackhand.progress` in schema/migrations/0005_queue.sql).

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::decide::millis;

/// Begins the names of waits for what only this process has seen without a break: they are not handed on.
pub const PASSING: char = '~';

/// Its name in the checkpoint.
const NAME: &str = "patience";

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Patience {
    action: String,
    /// Tries at the mutation that were not taken.
    pub tries: u32,
    /// From the first of them to the last one.
    tries_ms: u64,
    /// Times that the executor itself held the mutation back.
    pub held: u32,
    /// As `tries_ms`.
    held_ms: u64,
    /// Since a look has shown the work itself.
    blind_minutes: u64,
    /// What the activity itself waits for.
    waits: BTreeMap<String, Kept>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    minutes: u64,
    times: u32,
}

impl Patience {
    pub fn new(
        action: &str,
        (tries, tried): (u32, Duration),
        (held, held_for): (u32, Duration),
        blind: Duration,
        waits: &Waits,
        now: Duration,
    ) -> Self {
        let kept = |wait: &Wait| Kept { minutes: whole_minutes(wait.lasts(now)), times: wait.times };
        Self {
            action: action.to_owned(),
            tries,
            tries_ms: millis(tried),
            held,
            held_ms: millis(held_for),
            blind_minutes: whole_minutes(blind),
            waits: waits
                .lock()
                .iter()
                .filter(|(name, _)| !name.starts_with(PASSING))
                .map(|(name, wait)| (name.clone(), kept(wait)))
                .collect(),
        }
    }

    /// What a checkpoint says of `action`; nothing yet if it is about another one.
    pub fn of(checkpoint: &Value, action: &str) -> Option<Self> {
        let found: Self = serde_json::from_value(checkpoint.get(NAME)?.clone()).ok()?;
        (found.action == action).then_some(found)
    }

    pub fn tried(&self) -> Duration {
        Duration::from_millis(self.tries_ms)
    }

    pub fn held_for(&self) -> Duration {
        Duration::from_millis(self.held_ms)
    }

    pub fn blind(&self) -> Duration {
        Duration::from_secs(self.blind_minutes.saturating_mul(60))
    }

    /// `state` with this beside it, if there is anything to tell.
    pub fn beside(&self, mut state: Value) -> Value {
        if self.tries == 0 && self.held == 0 && self.blind_minutes == 0 && self.waits.is_empty() {
            return state;
        }
        match &mut state {
            Value::Object(members) => {
                members.insert(NAME.to_owned(), json!(self));
                state
            }
            _ => json!({ NAME: self }),
        }
    }
}

fn whole_minutes(duration: Duration) -> u64 {
    duration.as_secs() / 60
}

/// The waits of the activity that is carried out, by name.
#[derive(Debug, Default)]
pub struct Waits(Mutex<BTreeMap<String, Wait>>);

#[derive(Debug)]
struct Wait {
    /// Of former executors.
    before: Duration,
    since: Duration,
    /// How often it was begun.
    times: u32,
}

impl Wait {
    fn lasts(&self, now: Duration) -> Duration {
        self.before.saturating_add(now.saturating_sub(self.since))
    }
}

impl Waits {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Wait>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another activity begins, with what predecessors had waited for it.
    pub fn take_over(&self, kept: &Patience, now: Duration) {
        let wait = |kept: &Kept| Wait {
            before: Duration::from_secs(kept.minutes.saturating_mul(60)),
            since: now,
            times: kept.times,
        };
        *self.lock() = kept.waits.iter().map(|(name, kept)| (name.clone(), wait(kept))).collect();
    }

    /// Begins `name` anew.
    pub fn begin(&self, name: &str, now: Duration) {
        let mut waits = self.lock();
        let times = waits.get(name).map_or(0, |wait| wait.times);
        let wait = Wait { before: Duration::ZERO, since: now, times: times.saturating_add(1) };
        waits.insert(name.to_owned(), wait);
    }

    /// How long `name` has lasted, if it was begun.
    pub fn since(&self, name: &str, now: Duration) -> Option<Duration> {
        self.lock().get(name).map(|wait| wait.lasts(now))
    }

    /// How often `name` was begun.
    pub fn times(&self, name: &str) -> u32 {
        self.lock().get(name).map_or(0, |wait| wait.times)
    }

    pub fn end(&self, name: &str) {
        self.lock().remove(name);
    }

    /// A look or a request has failed: what was to be seen without a break was not.
    pub fn end_passing(&self) {
        self.lock().retain(|name, _| !name.starts_with(PASSING));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_to_be_seen_without_a_break_is_not_handed_on() {
        let waits = Waits::default();
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        waits.begin("taken", minutes(1));
        waits.begin("~boot", minutes(1));
        let none = (0, Duration::ZERO);
        let kept = Patience::new("reset_host", none, none, Duration::ZERO, &waits, minutes(6));
        assert_eq!(
            Patience::of(&kept.beside(json!({})), "reset_host").unwrap().waits.keys().collect::<Vec<_>>(),
            ["taken"]
        );
        waits.end_passing();
        assert_eq!(
            [waits.since("taken", minutes(6)), waits.since("~boot", minutes(6))],
            [Some(minutes(5)), None]
        );
    }
}
