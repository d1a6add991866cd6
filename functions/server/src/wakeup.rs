//! Wake-ups: one direct connection that listens, and [`Notifier`] over what it hears.
//!
//! NOTIFY on channel `rackhand` carries what [`Topic::woken_by`] reads. While the connection is away nobody can be
//! woken: waits end after a second then, and everybody looks again when it is back.
//!
//! A pooler in transaction mode accepts LISTEN and delivers nothing, so a connection counts only once it has heard a
//! word of our own, sent over one of the pool's connections. (Sent over the listening one, it would be heard even
//! there: the pooler passes on what arrives while that statement has the server.)

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use deadpool_postgres::Pool;
use futures::{StreamExt as _, future::BoxFuture, stream};
use rackhand_functions::host::{Notifier, Subscription, Topic, Wake};
use tokio::sync::{Notify, watch};
use tokio_postgres::{AsyncMessage, types::Type};
use tokio_util::sync::CancellationToken;

use crate::{address::Address, postgres::chain};

const CHANNEL: &str = "rackhand";
/// The longest wait while nothing can be heard.
const DEAF_WAIT: Duration = Duration::from_secs(1);
const RECONNECT_FIRST: Duration = Duration::from_millis(100);
const RECONNECT_LONGEST: Duration = Duration::from_secs(5);
/// A cause that stays the same is repeated in the log this often.
const SAY_EVERY: Duration = Duration::from_mins(1);
/// A connection that died without a word is found out so soon.
const PROBE_EVERY: Duration = Duration::from_secs(20);
/// How long a word of our own may take to be heard.
const PROOF_WAIT: Duration = Duration::from_secs(3);
/// Before a connection that hears nothing is tried again: each try leaves a LISTEN on some connection of a pooler.
const DEAF_PAUSE: Duration = Duration::from_mins(1);

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

    /// Listens at `address` until closing, however often the connection breaks. `pool` goes to the same database.
    pub async fn listen(self, address: Address, pool: Pool) {
        let closing = self.closing.clone();
        let work = async {
            let mut pause = RECONNECT_FIRST;
            let mut said = Said::default();
            loop {
                let ended = self.hear(&address, &pool).await;
                if self.hearing.swap(false, Ordering::Relaxed) {
                    pause = RECONNECT_FIRST;
                    said = Said::default();
                }
                match ended {
                    Ended::Broken(cause) => {
                        if said.is_news(&cause, Instant::now()) {
                            tracing::warn!(
                                database = address.place(),
                                cause,
                                "the connection that listens to the database is down; it is tried again every few \
                                 seconds"
                            );
                        }
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(RECONNECT_LONGEST);
                    }
                    Ended::Deaf => {
                        tracing::warn!(
                            "notifications do not arrive, so whoever waits looks every second: there is a pooler in \
                             transaction mode in between, or it is another database. Give --listen-url-file with a \
                             URL that leads straight to Postgres"
                        );
                        tokio::time::sleep(DEAF_PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = closing.cancelled() => {}
            () = work => {}
        }
    }

    /// One connection's life; says why it ended.
    async fn hear(&self, address: &Address, pool: &Pool) -> Ended {
        let (client, mut connection) = match address.connect().await {
            Ok(pair) => pair,
            Err(error) => return Ended::Broken(chain(&error)),
        };
        let mut own = [0; 8];
        if getrandom::fill(&mut own).is_err() {
            return Ended::Broken("no random numbers".to_owned());
        }
        let (own, heard_own) = (hex::encode(own), Notify::new());
        let mut messages = stream::poll_fn(move |cx| connection.poll_message(cx));
        let driven = async {
            while let Some(message) = messages.next().await {
                match message {
                    Ok(AsyncMessage::Notification(heard)) if heard.payload() == own => heard_own.notify_one(),
                    Ok(AsyncMessage::Notification(heard)) => self.wake(heard.payload()),
                    Ok(_) => {}
                    Err(error) => return Ended::Broken(chain(&error)),
                }
            }
            Ended::Broken("closed".to_owned())
        };
        let asked = async {
            if let Err(error) = client.batch_execute(&format!("listen {CHANNEL}")).await {
                return Ended::Broken(chain(&error));
            }
            if let Err(cause) = notify(pool, &own).await {
                return Ended::Broken(cause);
            }
            if tokio::time::timeout(PROOF_WAIT, heard_own.notified()).await.is_err() {
                return Ended::Deaf;
            }
            self.hearing.store(true, Ordering::Relaxed);
            tracing::info!("listening for wake-ups");
            // What was missed meanwhile: everybody looks.
            self.wake_all();
            loop {
                tokio::time::sleep(PROBE_EVERY).await;
                match tokio::time::timeout(PROBE_EVERY, client.batch_execute("")).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return Ended::Broken(chain(&error)),
                    Err(_) => return Ended::Broken("no answer".to_owned()),
                }
            }
        };
        tokio::select! {
            ended = driven => ended,
            ended = asked => ended,
        }
    }

    fn wake(&self, payload: &str) {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        for topic in Topic::woken_by(payload) {
            if let Some(sender) = topics.get(&topic) {
                sender.send_modify(|count| *count = count.wrapping_add(1));
            }
        }
    }

    fn wake_all(&self) {
        for sender in self.topics.lock().unwrap_or_else(PoisonError::into_inner).values() {
            sender.send_modify(|count| *count = count.wrapping_add(1));
        }
    }
}

/// The cause that was written to the log last, and when.
#[derive(Default)]
struct Said(Option<(String, Instant)>);

impl Said {
    /// Whether to write this one: another cause, or the same after a while.
    fn is_news(&mut self, cause: &str, now: Instant) -> bool {
        let known = |(last, at): &(String, Instant)| last == cause && now.duration_since(*at) < SAY_EVERY;
        let news = !self.0.as_ref().is_some_and(known);
        if news {
            self.0 = Some((cause.to_owned(), now));
        }
        news
    }
}

/// Why a listening connection ended.
enum Ended {
    Broken(String),
    /// It stands, and nothing is heard over it.
    Deaf,
}

/// Sends a word over the channel, as the functions of the schema do.
async fn notify(pool: &Pool, word: &str) -> Result<(), String> {
    let client = pool.get().await.map_err(|error| chain(&error))?;
    let parameters = [(&CHANNEL as _, Type::TEXT), (&word as _, Type::TEXT)];
    let sent = client.query_typed("select pg_notify($1, $2)", &parameters).await;
    sent.map(drop).map_err(|error| chain(&error))
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
    const OTHER: &str = "01920000-0000-7000-8000-000000000002";

    #[tokio::test]
    async fn a_wakeup_between_subscribing_and_waiting_is_not_lost() {
        let closing = CancellationToken::new();
        let wakeups = Wakeups::new(closing.clone());
        wakeups.hearing.store(true, Ordering::Relaxed);
        let mut site = wakeups.subscribe(Topic::Site(SITE.parse().unwrap()));
        let mut events = wakeups.subscribe(Topic::Events);
        let mut of_another = wakeups.subscribe(Topic::EventsOf(OTHER.parse().unwrap()));
        wakeups.wake(SITE);
        wakeups.wake("nonsense");
        assert_eq!(site.wait(Duration::from_secs(5)).await, Wake::Changed);
        assert_eq!(site.wait(Duration::from_millis(1)).await, Wake::TimedOut);
        assert_eq!(events.wait(Duration::from_millis(1)).await, Wake::TimedOut);
        wakeups.wake(&format!("events:{SITE}"));
        assert_eq!(events.wait(Duration::from_secs(5)).await, Wake::Changed);
        assert_eq!(of_another.wait(Duration::from_millis(1)).await, Wake::TimedOut);
        closing.cancel();
        assert_eq!(events.wait(Duration::from_secs(5)).await, Wake::Closing);
    }

    #[test]
    fn a_cause_that_stays_is_written_once_a_minute() {
        let (mut said, start) = (Said::default(), Instant::now());
        let mut written = |cause, second| said.is_news(cause, start + Duration::from_secs(second));
        assert!(written("refused", 0));
        assert!((1..60).all(|second| !written("refused", second)));
        assert!(written("refused", 60) && !written("refused", 61));
        assert!(written("no answer", 62));
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
