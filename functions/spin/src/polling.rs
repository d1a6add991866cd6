//! [`Notifier`] without notifications: Spin has none, so whoever waits looks into the database now and then.

use std::time::Duration;

use futures::future::BoxFuture;
use rackhand_functions::host::{Notifier, Subscription, Topic, Wake};

/// The longest pause between two looks; a stream with nothing to tell comes to it. Nothing tells that the caller of a
/// long poll has gone, and each look costs Spin three round trips (prepare, ask, clean), so it is no shorter.
const LONGEST: Duration = Duration::from_secs(2);

pub struct Polling {
    /// Until the second look; the pauses double from then on.
    pub first: Duration,
}

impl Notifier for Polling {
    fn subscribe(&self, _: Topic) -> Box<dyn Subscription> {
        Box::new(Pause { next: self.first })
    }
}

struct Pause {
    next: Duration,
}

impl Subscription for Pause {
    fn wait(&mut self, at_most: Duration) -> BoxFuture<'_, Wake> {
        let pause = self.next.min(at_most);
        self.next = (self.next * 2).min(LONGEST.max(self.next));
        Box::pin(async move {
            spin_sdk::time::sleep(pause).await;
            Wake::TimedOut
        })
    }
}
