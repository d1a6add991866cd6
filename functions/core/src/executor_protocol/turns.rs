//! One lease statement of an executor at a time, in a host whose requests share a process.
//!
//! Each waits for the row of its session, and all executors share the connections. An executor has one request under
//! way, or breaks it off for a newer one: so the newest waits, and one that waited before is refused.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::channel::oneshot;
use rackhand_schema::id::ExecutorId;

/// Who waits for the turn of each executor that has one.
type Waiting = Mutex<BTreeMap<ExecutorId, Option<oneshot::Sender<Turn>>>>;

#[derive(Debug, Default)]
pub struct Turns(Arc<Waiting>);

/// Until it is dropped, the executor has no other one.
#[derive(Debug)]
pub struct Turn {
    waiting: Arc<Waiting>,
    executor: ExecutorId,
}

fn lock(waiting: &Waiting) -> MutexGuard<'_, BTreeMap<ExecutorId, Option<oneshot::Sender<Turn>>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Turns {
    /// `None`: a newer request waits instead.
    pub async fn take(&self, executor: ExecutorId) -> Option<Turn> {
        let next = {
            let mut waiting = lock(&self.0);
            match waiting.get_mut(&executor) {
                None => {
                    waiting.insert(executor, None);
                    return Some(Turn { waiting: Arc::clone(&self.0), executor });
                }
                Some(seat) => {
                    let (sender, next) = oneshot::channel();
                    *seat = Some(sender);
                    next
                }
            }
        };
        next.await.ok()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut waiting = lock(&self.waiting);
        let next = waiting.get_mut(&self.executor).and_then(Option::take);
        let Some(next) = next else {
            waiting.remove(&self.executor);
            return;
        };
        drop(waiting);
        // One that was given up meanwhile drops it, and so passes it on.
        drop(next.send(Self { waiting: Arc::clone(&self.waiting), executor: self.executor }));
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_newest_waits_and_whoever_goes_passes_the_turn_on() {
        let turns = Turns::default();
        let [one, other] = [1, 2].map(|id| ExecutorId::from_uuid(Uuid::from_u128(id)));
        let now = |executor| turns.take(executor).now_or_never().flatten();
        let first = now(one).unwrap();
        drop(now(other).unwrap());
        let mut second = Box::pin(turns.take(one));
        assert!(second.as_mut().now_or_never().is_none());
        let mut third = Box::pin(turns.take(one));
        assert!(third.as_mut().now_or_never().is_none());
        assert!(second.now_or_never().unwrap().is_none(), "a newer one waits");
        drop(first);
        let turn = third.now_or_never().unwrap().unwrap();
        let mut given_up = Box::pin(turns.take(one));
        assert!(given_up.as_mut().now_or_never().is_none());
        drop(turn);
        drop(given_up);
        drop(now(one).unwrap());
        assert!(turns.0.lock().unwrap().is_empty());
    }
}
