//! Wake-ups: one direct connection that listens, and [`Notifier`] over what it hears.
//!
//! NOTIFY on channel `rackhand` carries `events` or a site's id. While the connection is away nobody can be
//! woken: waits end after a second then, and everybody looks again when it is back.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, future::BoxFuture, stream};
use rackhand_functions::host::{Notifier, Subscription, Topic, Wake};
use tokio::sync::watch;
use tokio_postgres::{AsyncMessage, Config};
use tokio_util::sync::CancellationToken;

use crate::{pg_tls::PgTls, postgres::chain};

const CHANNEL: &str = "rackhand";
/// The longest wait while nothing can be heard.
const DEAF_WAIT: Duration = Duration::from_secs(1);
const RECONNECT_FIRST: Duration = Duration::from_millis(100);
const RECONNECT_LONGEST: Duration = Duration::from_secs(5);
/// A connection that died without a word is found out so soon.
const PROBE_EVERY: Duration = Duration::from_secs(20);

/// Shared by the listener and all subscriptions.
#[derive(Clone)]
pub struct Wakeups {
    topics: Arc<Mutex<BTreeMap<Topic, watch::Sender<u64>>>>,
    hearing: Arc<AtomicBool>,
    closing: CancellationToken,
}

impl Wakeups {
    pub fn new(closing: CancellationToken) -> Self {
        Self { topics: Arc::default(), hearing: Arc::default(), closing }
    }

    /// Whether the listening connection is up.
    pub fn hearing(&self) -> bool {
        self.hearing.load(Ordering::Relaxed)
    }

    /// Listens until closing, however often the connection breaks.
    pub async fn listen(self, config: Config, tls: PgTls) {
        let closing = self.closing.clone();
        let work = async {
            let mut pause = RECONNECT_FIRST;
            loop {
                let ended = self.hear(&config, &tls).await;
                if self.hearing.swap(false, Ordering::Relaxed) {
                    pause = RECONNECT_FIRST;
                }
                tracing::warn!(cause = ended, "the listening connection is away");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RECONNECT_LONGEST);
            }
        };
        tokio::select! {
            () = closing.cancelled() => {}
            () = work => {}
        }
    }

    /// One connection's life; says why it ended.
    async fn hear(&self, config: &Config, tls: &PgTls) -> String {
        let (client, mut connection) = match config.connect(tls.clone()).await {
            Ok(pair) => pair,
            Err(error) => return chain(&error),
        };
        let mut messages = stream::poll_fn(move |cx| connection.poll_message(cx));
        let driven = async {
            while let Some(message) = messages.next().await {
                match message {
                    Ok(AsyncMessage::Notification(heard)) => self.wake(heard.payload()),
                    Ok(_) => {}
                    Err(error) => return chain(&error),
                }
            }
            "closed".to_owned()
        };
        let asked = async {
            if let Err(error) = client.batch_execute(&format!("listen {CHANNEL}")).await {
                return chain(&error);
            }
            self.hearing.store(true, Ordering::Relaxed);
            tracing::info!("listening for wake-ups");
            // What was missed meanwhile: everybody looks.
            self.wake_all();
            loop {
                tokio::time::sleep(PROBE_EVERY).await;
                match tokio::time::timeout(PROBE_EVERY, client.batch_execute("")).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return chain(&error),
                    Err(_) => return "no answer".to_owned(),
                }
            }
        };
        tokio::select! {
            ended = driven => ended,
            ended = asked => ended,
        }
    }

    fn wake(&self, payload: &str) {
        let topic = match payload {
            "events" => Topic::Events,
            site => match site.parse() {
                Ok(site) => Topic::Site(site),
                Err(_) => return,
            },
        };
        if let Some(sender) = self.topics.lock().unwrap_or_else(PoisonError::into_inner).get(&topic) {
            sender.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    fn wake_all(&self) {
        for sender in self.topics.lock().unwrap_or_else(PoisonError::into_inner).values() {
            sender.send_modify(|count| *count = count.wrapping_add(1));
        }
    }
}

impl Notifier for Wakeups {
    fn subscribe(&self, topic: Topic) -> Box<dyn Subscription> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        topics.retain(|known, sender| sender.receiver_count() > 0 || *known == topic);
        let receiver = topics.entry(topic).or_insert_with(|| watch::Sender::new(0)).subscribe();
        Box::new(Listening { receiver, hearing: Arc::clone(&self.hearing), closing: self.closing.clone() })
    }
}

struct Listening {
    receiver: watch::Receiver<u64>,
    hearing: Arc<AtomicBool>,
    closing: CancellationToken,
}

impl Subscription for Listening {
    fn wait(&mut self, at_most: Duration) -> BoxFuture<'_, Wake> {
        Box::pin(async move {
            let hearing = self.hearing.load(Ordering::Relaxed);
            let wait = if hearing { at_most } else { at_most.min(DEAF_WAIT) };
            tokio::select! {
                () = self.closing.cancelled() => Wake::Closing,
                changed = self.receiver.changed() => match changed {
                    Ok(()) => Wake::Changed,
                    Err(_) => Wake::Closing,
                },
                () = tokio::time::sleep(wait) => Wake::TimedOut,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: &str = "01920000-0000-7000-8000-000000000001";

    #[tokio::test]
    async fn a_wakeup_between_subscribing_and_waiting_is_not_lost() {
        let closing = CancellationToken::new();
        let wakeups = Wakeups::new(closing.clone());
        wakeups.hearing.store(true, Ordering::Relaxed);
        let mut site = wakeups.subscribe(Topic::Site(SITE.parse().unwrap()));
        let mut events = wakeups.subscribe(Topic::Events);
        wakeups.wake(SITE);
        wakeups.wake("nonsense");
        assert_eq!(site.wait(Duration::from_secs(5)).await, Wake::Changed);
        assert_eq!(site.wait(Duration::from_millis(1)).await, Wake::TimedOut);
        assert_eq!(events.wait(Duration::from_millis(1)).await, Wake::TimedOut);
        closing.cancel();
        assert_eq!(events.wait(Duration::from_secs(5)).await, Wake::Closing);
    }

    #[tokio::test]
    async fn waits_are_short_while_nothing_can_be_heard() {
        let wakeups = Wakeups::new(CancellationToken::new());
        let mut events = wakeups.subscribe(Topic::Events);
        let before = tokio::time::Instant::now();
        assert_eq!(events.wait(Duration::from_secs(60)).await, Wake::TimedOut);
        assert!(before.elapsed() < Duration::from_secs(5));
    }
}
