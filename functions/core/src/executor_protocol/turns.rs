//! One statement for leases and one other statement of an executor at a time, in a host whose requests share a process.
//!
//! All executors share the connections, and a statement may wait for a row that another one of the same executor has.
//! An executor asks for leases once at a time, or breaks it off for a newer request: so the newest waits, for its
//! turn as for news, and one that waited before is answered. What it tells or asks besides comes in order. A lease
//! never waits for these.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::channel::oneshot;
use rackhand_schema::id::ExecutorId;

/// More than an executor has under way over one connection of HTTP/2.
const MOST_IN_ORDER: usize = 128;

#[derive(Debug, Default)]
pub struct Turns {
    leases: Lane,
    others: Lane,
    polls: Arc<Polls>,
}

/// Who waits for the turn of each executor that has one, in order.
type Waiting = BTreeMap<ExecutorId, VecDeque<oneshot::Sender<Turn>>>;

#[derive(Debug, Clone, Default)]
struct Lane(Arc<Mutex<Waiting>>);

/// Until it is dropped, the executor has no other one of its kind.
#[derive(Debug)]
pub struct Turn {
    lane: Lane,
    executor: ExecutorId,
}

impl Turns {
    /// For leases. `None`: a newer request waits instead.
    pub async fn lease(&self, executor: ExecutorId) -> Option<Turn> {
        self.leases.take(executor, VecDeque::clear).await
    }

    /// For anything else. `None`: too many wait already.
    pub async fn other(&self, executor: ExecutorId) -> Option<Turn> {
        let keep = |waiting: &mut VecDeque<oneshot::Sender<Turn>>| waiting.retain(|one| !one.is_canceled());
        self.others.take(executor, keep).await
    }

    /// From now on this request waits for news, and no former one.
    pub fn poll(&self, executor: ExecutorId) -> Poll {
        let (keep, ended) = oneshot::channel();
        let mut polls = self.polls.lock();
        polls.count += 1;
        let number = polls.count;
        polls.newest.insert(executor, (number, keep));
        drop(polls);
        Poll { polls: Arc::clone(&self.polls), executor, number, ended }
    }
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `leave` takes out who waits no longer.
    async fn take(
        &self,
        executor: ExecutorId,
        leave: impl FnOnce(&mut VecDeque<oneshot::Sender<Turn>>),
    ) -> Option<Turn> {
        let next = {
            let mut all = self.lock();
            let Some(waiting) = all.get_mut(&executor) else {
                all.insert(executor, VecDeque::new());
                return Some(Turn { lane: self.clone(), executor });
            };
            leave(waiting);
            if waiting.len() >= MOST_IN_ORDER {
                return None;
            }
            let (sender, next) = oneshot::channel();
            waiting.push_back(sender);
            next
        };
        next.await.ok()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut all = self.lane.lock();
            let mut waiting = all.get_mut(&self.executor);
            let next = waiting.as_mut().and_then(|waiting| {
                std::iter::from_fn(|| waiting.pop_front()).find(|one| !one.is_canceled())
            });
            let Some(next) = next else {
                all.remove(&self.executor);
                return;
            };
            next
        };
        // One that was given up meanwhile drops it, and so passes it on.
        drop(next.send(Self { lane: self.lane.clone(), executor: self.executor }));
    }
}

#[derive(Debug, Default)]
struct Polls(Mutex<Newest>);

#[derive(Debug, Default)]
struct Newest {
    count: u64,
    /// To drop the sender is to end the request's wait.
    newest: BTreeMap<ExecutorId, (u64, oneshot::Sender<()>)>,
}

impl Polls {
    fn lock(&self) -> MutexGuard<'_, Newest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request for leases that waits for news.
#[derive(Debug)]
pub struct Poll {
    polls: Arc<Polls>,
    executor: ExecutorId,
    number: u64,
    /// Ready once a newer one waits.
    pub ended: oneshot::Receiver<()>,
}

impl Drop for Poll {
    fn drop(&mut self) {
        let mut polls = self.polls.lock();
        if polls.newest.get(&self.executor).is_some_and(|(number, _)| *number == self.number) {
            polls.newest.remove(&self.executor);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use uuid::Uuid;

    use super::*;

    fn executors() -> [ExecutorId; 2] {
        [1, 2].map(|id| ExecutorId::from_uuid(Uuid::from_u128(id)))
    }

    #[test]
    fn the_newest_waits_and_whoever_goes_passes_the_turn_on() {
        let turns = Turns::default();
        let [one, other] = executors();
        let now = |executor| turns.lease(executor).now_or_never().flatten();
        let first = now(one).unwrap();
        drop(now(other).unwrap());
        let mut second = Box::pin(turns.lease(one));
        assert!(second.as_mut().now_or_never().is_none());
        let mut third = Box::pin(turns.lease(one));
        assert!(third.as_mut().now_or_never().is_none());
        assert!(second.now_or_never().unwrap().is_none(), "a newer one waits");
        drop(first);
        let turn = third.now_or_never().unwrap().unwrap();
        let mut given_up = Box::pin(turns.lease(one));
        assert!(given_up.as_mut().now_or_never().is_none());
        drop(turn);
        drop(given_up);
        drop(now(one).unwrap());
        assert!(turns.leases.lock().is_empty());
    }

    #[test]
    fn all_else_comes_in_order_and_keeps_no_lease_waiting() {
        let turns = Turns::default();
        let [one, other] = executors();
        let now = |executor| turns.other(executor).now_or_never();
        let first = now(one).unwrap().unwrap();
        let mut waiting: VecDeque<_> = (0..MOST_IN_ORDER).map(|_| Box::pin(turns.other(one))).collect();
        assert!(waiting.iter_mut().all(|one| one.as_mut().now_or_never().is_none()));
        assert!(now(one).unwrap().is_none(), "there are enough");
        assert!(now(other).unwrap().is_some(), "of that executor");
        assert!(turns.lease(one).now_or_never().flatten().is_some());

        drop(waiting.pop_front());
        let mut last = Box::pin(turns.other(one));
        assert!(last.as_mut().now_or_never().is_none(), "one was given up");
        drop(first);
        for next in waiting {
            assert!(last.as_mut().now_or_never().is_none());
            drop(next.now_or_never().unwrap().unwrap());
        }
        drop(last.now_or_never().unwrap().unwrap());
        assert!(turns.others.lock().is_empty());
    }

    #[test]
    fn the_newest_request_of_an_executor_waits_for_news() {
        let turns = Turns::default();
        let [one, other] = executors();
        let (mut first, mut others) = (turns.poll(one), turns.poll(other));
        assert!((&mut first.ended).now_or_never().is_none());
        let mut second = turns.poll(one);
        assert!((&mut first.ended).now_or_never().is_some());
        drop(first);
        assert!((&mut second.ended).now_or_never().is_none() && (&mut others.ended).now_or_never().is_none());
        drop((second, others));
        assert!(turns.polls.lock().newest.is_empty());
    }
}
