//! Few requests at once to a BMC, the most important ones first; first come, first served among equals.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::oneshot;

/// Lower goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Runs that change something.
    Change,
    /// Runs that only read.
    Observe,
}

pub struct Slots(Arc<Mutex<State>>);

struct State {
    free: usize,
    arrivals: u64,
    waiting: BTreeMap<(Priority, u64), oneshot::Sender<Slot>>,
}

/// Hands its place on when dropped, wherever that happens: also on its way to a task that is gone.
pub struct Slot(Arc<Mutex<State>>);

impl Slots {
    pub fn new(free: usize) -> Self {
        Self(Arc::new(Mutex::new(State { free, arrivals: 0, waiting: BTreeMap::new() })))
    }

    pub async fn take(&self, priority: Priority) -> Slot {
        loop {
            let turn = {
                let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                if state.free > 0 {
                    state.free -= 1;
                    return Slot(Arc::clone(&self.0));
                }
                state.arrivals += 1;
                let key = (priority, state.arrivals);
                let (sender, turn) = oneshot::channel();
                state.waiting.insert(key, sender);
                turn
            };
            if let Ok(slot) = turn.await {
                return slot;
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let next = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let next = state.waiting.pop_first();
            if next.is_none() {
                state.free += 1;
            }
            next
        };
        if let Some((_, sender)) = next {
            // Comes back, and is dropped in turn, when nobody waits there any more.
            drop(sender.send(Slot(Arc::clone(&self.0))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_go_before_observations() {
        let slots = Arc::new(Slots::new(1));
        let held = slots.take(Priority::Observe).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for priority in [Priority::Observe, Priority::Change] {
            let (slots, order) = (Arc::clone(&slots), Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                let _slot = slots.take(priority).await;
                order.lock().unwrap().push(priority);
            }));
            tokio::task::yield_now().await;
        }
        drop(held);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), [Priority::Change, Priority::Observe]);
    }
}
