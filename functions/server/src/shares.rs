//! How much of this process one caller has at once: statements, and bytes of answers that are not taken yet.
//!
//! Callers are people, and networks that ask without a token, apart from executors of theirs that sign in. Whatever
//! one of them sends, the others' statements wait behind a few of theirs at most. Executors that have signed in take
//! turns of their own, on connections of their own. The looks that event streams of several people share are
//! nobody's.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rackhand_functions::{
    forwarded::networks,
    host::{Scope, Statement},
};
use rackhand_schema::id::{ExecutorId, UserId};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// How long a statement waits for those before it.
const WAIT: Duration = Duration::from_secs(5);
/// Statements of one caller at most, under way and waiting. A person's 128 event streams look one after the other.
const IN_LINE: usize = 128;
/// Bytes of one caller's answers that are not taken yet; then there are no more answers. A few of the largest there
/// are: a lease's has 4 MiB, a page 1 MiB.
const UNTAKEN: usize = 16 << 20;

/// One stream looks for all that would see the same, who wait for it: it does not stand in the line of its own
/// caller, whom the others know nothing of. How often is bounded by `functions/core/src/events/streams.rs`.
const SHARED_LOOK: &str = "events/look";

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    Person(UserId),
    Executor(ExecutorId),
    /// Without a token, from this network (see [`networks`]).
    Stranger(IpAddr),
    /// The same, for an executor's token.
    SigningIn(IpAddr),
}

impl Who {
    /// `None`: this process itself.
    pub fn of(scope: &Scope) -> Option<Self> {
        match scope {
            Scope::User { user, .. } => Some(Self::Person(*user)),
            Scope::Executor { executor, .. } => Some(Self::Executor(*executor)),
            Scope::Anonymous { address, .. } => address.parse().ok().map(Self::stranger),
        }
    }

    pub fn stranger(address: IpAddr) -> Self {
        Self::Stranger(networks(address.to_canonical())[1].0)
    }

    fn asking(scope: &Scope, statement: &Statement) -> Option<Self> {
        match Self::of(scope)? {
            Self::Stranger(network) if statement.name.starts_with("executor_protocol/") => {
                Some(Self::SigningIn(network))
            }
            who => Some(who),
        }
    }
}

#[derive(Debug)]
pub struct Shares {
    /// Statements of one caller.
    each: usize,
    /// Statements of all strangers, so that they leave connections to people.
    strangers: Arc<Semaphore>,
    /// Statements of all executors that sign in, whatever other strangers send.
    signing_in: Arc<Semaphore>,
    /// Statements that look for all event streams that would see the same.
    looks: Arc<Semaphore>,
    callers: Mutex<BTreeMap<Who, Theirs>>,
}

#[derive(Debug)]
struct Theirs {
    statements: Arc<Semaphore>,
    /// Under way and waiting.
    in_line: usize,
    untaken: usize,
}

impl Shares {
    /// Of so many connections to the database.
    pub fn of(connections: usize) -> Arc<Self> {
        let part = |of: usize| connections.div_ceil(of);
        Arc::new(Self {
            each: part(4),
            strangers: Arc::new(Semaphore::new(part(3))),
            signing_in: Arc::new(Semaphore::new(part(6))),
            looks: Arc::new(Semaphore::new(part(4))),
            callers: Mutex::default(),
        })
    }

    /// The turn of a statement, once it has come; `None`: too many others of this caller are under way.
    pub async fn take(self: &Arc<Self>, scope: &Scope, statement: &Statement) -> Option<Turn> {
        if statement.name == SHARED_LOOK {
            let turn = timeout(WAIT, Arc::clone(&self.looks).acquire_owned()).await.ok()?.ok()?;
            return Some(Turn { _permits: [Some(turn), None], _place: None });
        }
        let Some(who) = Who::asking(scope, statement) else { return Some(Turn::default()) };
        if self.takes_nothing(who) {
            return None;
        }
        let all = match who {
            Who::Executor(_) => return Some(Turn::default()),
            Who::Person(_) => None,
            Who::Stranger(_) => Some(&self.strangers),
            Who::SigningIn(_) => Some(&self.signing_in),
        };
        let place = Place::take(self, who)?;
        let own = Arc::clone(&self.theirs(who, &mut self.lock()).statements);
        let turns = async {
            let own = own.acquire_owned().await.ok()?;
            let all = match all {
                Some(all) => Some(Arc::clone(all).acquire_owned().await.ok()?),
                None => None,
            };
            Some((own, all))
        };
        let (own, all) = timeout(WAIT, turns).await.ok()??;
        // Others were answered meanwhile.
        if self.takes_nothing(who) {
            return None;
        }
        Some(Turn { _permits: [Some(own), all], _place: Some(place) })
    }

    /// Counts an answer, until it is dropped: its bytes or, where nobody knows how many it will have, a chunk at a
    /// time.
    pub fn answer(self: &Arc<Self>, who: Who, bytes: Option<usize>) -> Untaken {
        let (streams, bytes) = (bytes.is_none(), bytes.unwrap_or_default());
        self.theirs(who, &mut self.lock()).untaken += bytes;
        Untaken { shares: Arc::clone(self), who, bytes, streams }
    }

    fn takes_nothing(&self, who: Who) -> bool {
        self.lock().get(&who).is_some_and(|theirs| theirs.untaken >= UNTAKEN)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Who, Theirs>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn theirs<'a>(&self, who: Who, callers: &'a mut BTreeMap<Who, Theirs>) -> &'a mut Theirs {
        callers.entry(who).or_insert_with(|| Theirs {
            statements: Arc::new(Semaphore::new(self.each)),
            in_line: 0,
            untaken: 0,
        })
    }

    fn give_back(&self, who: Who, places: usize, bytes: usize) {
        let mut callers = self.lock();
        let Some(theirs) = callers.get_mut(&who) else { return };
        theirs.in_line -= places;
        theirs.untaken -= bytes;
        if theirs.in_line == 0 && theirs.untaken == 0 {
            callers.remove(&who);
        }
    }
}

/// Until it is dropped, the statement counts as under way.
#[derive(Debug, Default)]
pub struct Turn {
    _permits: [Option<OwnedSemaphorePermit>; 2],
    _place: Option<Place>,
}

#[derive(Debug)]
struct Place {
    shares: Arc<Shares>,
    who: Who,
}

impl Place {
    fn take(shares: &Arc<Shares>, who: Who) -> Option<Self> {
        let mut callers = shares.lock();
        let theirs = shares.theirs(who, &mut callers);
        if theirs.in_line >= IN_LINE {
            return None;
        }
        theirs.in_line += 1;
        Some(Self { shares: Arc::clone(shares), who })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shares.give_back(self.who, 1, 0);
    }
}

#[derive(Debug)]
pub struct Untaken {
    shares: Arc<Shares>,
    who: Who,
    bytes: usize,
    /// Of a stream, whose chunks are counted one after the other.
    streams: bool,
}

impl Untaken {
    /// Of a stream: what was handed on of it has been taken.
    pub fn is_taken(&mut self) {
        if self.streams && self.bytes > 0 {
            self.shares.give_back(self.who, 0, self.bytes);
            self.bytes = 0;
        }
    }

    /// The next chunk of the answer is handed on. `false`: it must not be, as its caller takes too little.
    pub fn next_chunk(&mut self, bytes: usize) -> bool {
        if !self.streams {
            return true;
        }
        if self.shares.takes_nothing(self.who) {
            return false;
        }
        self.bytes = bytes;
        let mut callers = self.shares.lock();
        self.shares.theirs(self.who, &mut callers).untaken += bytes;
        true
    }
}

impl Drop for Untaken {
    fn drop(&mut self) {
        self.shares.give_back(self.who, 0, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use futures::future::{FutureExt as _, join_all};

    use super::*;

    static SITES: Statement = Statement { name: "sites/list", sql: "" };
    static TOKEN: Statement = Statement { name: "executor_protocol/session", sql: "" };
    const ID: &str = "01920000-0000-7000-8000-000000000001";

    fn stranger(address: &str) -> Scope {
        Scope::Anonymous { trace: ID.parse().unwrap(), address: address.to_owned() }
    }

    async fn now(shares: &Arc<Shares>, scope: &Scope, statement: &Statement) -> Option<Turn> {
        shares.take(scope, statement).now_or_never().flatten()
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_of_one_network_waits_for_itself_and_leaves_turns_to_others() {
        let shares = Shares::of(11);
        let crowd = stranger("192.0.2.1");
        let turns: Vec<_> = join_all((0..3).map(|_| now(&shares, &crowd, &SITES))).await;
        assert!(turns.iter().all(Option::is_some));
        let waiting = join_all((0..200).map(|_| shares.take(&crowd, &SITES)));
        let others = async {
            assert!(now(&shares, &stranger("198.51.100.1"), &SITES).await.is_some());
            assert!(now(&shares, &crowd, &TOKEN).await.is_some(), "executors sign in");
            assert!(now(&shares, &stranger(""), &SITES).await.is_some(), "upkeep");
        };
        let (waited, ()) = tokio::join!(waiting, others);
        assert!(waited.iter().all(Option::is_none), "the line is short, and so is the wait");
        drop((turns, waited));
        assert!(shares.lock().is_empty(), "nothing is kept of who has gone");
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_no_answers_gets_no_more_of_them() {
        let shares = Shares::of(11);
        let crowd = stranger("192.0.2.1");
        let held = [UNTAKEN - 1, 1].map(|bytes| shares.answer(Who::of(&crowd).unwrap(), Some(bytes)));
        assert!(now(&shares, &crowd, &SITES).await.is_none());
        assert!(now(&shares, &stranger("198.51.100.1"), &SITES).await.is_some());
        drop(held);
        assert!(now(&shares, &crowd, &SITES).await.is_some());
        assert!(shares.lock().is_empty());
    }
    /// All have asked before anything was answered.
    #[tokio::test(start_paused = true)]
    async fn who_waits_in_line_is_looked_at_again() {
        let shares = Shares::of(11);
        let crowd = stranger("192.0.2.1");
        let first = join_all((0..3).map(|_| now(&shares, &crowd, &SITES))).await;
        let waiting = join_all((0..10).map(|_| shares.take(&crowd, &SITES)));
        let answers = async {
            let answers = shares.answer(Who::of(&crowd).unwrap(), Some(UNTAKEN));
            drop(first);
            tokio::time::sleep(Duration::from_secs(1)).await;
            answers
        };
        let (waited, _answers) = tokio::join!(waiting, answers);
        assert!(waited.iter().all(Option::is_none));
    }

    #[tokio::test]
    async fn what_has_been_taken_of_a_stream_counts_no_more_and_the_rest_ends_it() {
        let shares = Shares::of(11);
        let who = Who::of(&stranger("192.0.2.1")).unwrap();
        let mut streams: Vec<_> = (0..32).map(|_| shares.answer(who, None)).collect();
        for _ in 0..2 {
            for stream in &mut streams {
                assert!(stream.next_chunk(1 << 20));
                stream.is_taken();
            }
        }
        let handed_on =
            streams.iter_mut().filter_map(|stream| stream.next_chunk(1 << 20).then_some(())).count();
        assert_eq!(handed_on, UNTAKEN >> 20, "nothing was taken of these");
        drop(streams);
        assert!(shares.lock().is_empty());
    }

    /// Whoever holds the lock for all streams that see the same waits in no line of its own.
    #[tokio::test(start_paused = true)]
    async fn a_look_for_many_streams_is_in_nobodys_line() {
        let shares = Shares::of(11);
        let crowd = stranger("192.0.2.1");
        let _answers = shares.answer(Who::of(&crowd).unwrap(), Some(UNTAKEN));
        assert!(now(&shares, &crowd, &SITES).await.is_none());
        let look = Statement { name: SHARED_LOOK, sql: "" };
        assert!(now(&shares, &crowd, &look).await.is_some());
    }
}
