//! How many event streams and long polls a process holds open, and when each of them looks.
//!
//! Each open one has a seat. A session that takes one too many loses its oldest, and so does a person, who may sign in
//! as often as they like: whether the callers of the others are still there cannot be told on every host, and who is
//! and wants to go on comes again by itself.
//!
//! Streams that would all see the same share their looks ([`super::share`]), the others look for themselves.
//! They take turns by seat, so however many are woken at once, there are about [`LOOKS_PER_SECOND`] at most,
//! and about [`ANSWERS_PER_SECOND`] at most are busy with what was found; with few open nobody waits
//! noticeably. On Workers the count is that of an isolate; an instance on Spin serves few requests, so there its own
//! limits hold.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rackhand_schema::{
    ErrorCode,
    id::{SessionId, UserId},
};
use uuid::Uuid;

use crate::{
    events::share::{Question, Share},
    host::{Process, Scope},
    problem::{Answer, Refusal},
};

/// A person has a few tabs and terminals.
const PER_SESSION: usize = 32;
/// A person has a few sessions that are busy.
const PER_PERSON: usize = 128;
const PER_PROCESS: u64 = 2048;
const LOOKS_PER_SECOND: u64 = 100;
const ANSWERS_PER_SECOND: u64 = 5000;
/// After so long a stream asks for itself whether its session still may see what the others found.
const CHECK_EVERY_MS: u64 = 15_000;

#[derive(Debug, Default)]
pub struct Streams(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    sessions: BTreeMap<Owner, Session>,
    shares: BTreeMap<Question, Shared>,
    /// Seats that take part in a share.
    sharing: u64,
    /// The last seat's number.
    seated: u64,
    counts: StreamCounts,
}

/// The sessions of a person stand beside each other.
type Owner = (UserId, SessionId);

#[derive(Debug, Default)]
struct Session {
    /// The oldest first.
    seats: VecDeque<u64>,
    /// When a look of its own was last answered, Unix milliseconds.
    checked_ms: u64,
}

#[derive(Debug)]
struct Shared {
    share: Arc<Share>,
    /// How many each person has.
    seats: BTreeMap<UserId, u64>,
}

/// For metrics.
#[derive(Debug, Default, Clone, Copy)]
pub struct StreamCounts {
    /// Streams and long polls, open now.
    pub open: u64,
    /// Ended in favour of a newer one of the same person, since the start.
    pub ended_for_newer: u64,
    /// Refused because the process was full, since the start.
    pub refused: u64,
    /// Looks into the database, since the start.
    pub looks: u64,
    pub look_ms: u64,
    /// Answers to streams from a look of another one, since the start.
    pub shared: u64,
}

/// An open stream or long poll; frees its place when dropped.
pub struct Seat {
    process: Arc<Process>,
    owner: Owner,
    number: u64,
    /// The share that it takes part in, if any.
    question: Option<Question>,
}

impl Seat {
    /// # Errors
    /// [`ErrorCode::TooManyStreams`].
    pub fn take(process: &Arc<Process>, scope: &Scope) -> Answer<Self> {
        let Scope::User { user, session, .. } = scope else {
            return Err(Refusal::internal("an event stream without a user"));
        };
        let owner = (*user, *session);
        let mut open = process.streams.lock();
        let full = open.full(owner);
        if let Some(full) = full {
            let oldest = open.sessions.get_mut(&full).and_then(|own| own.seats.pop_front());
            open.counts.ended_for_newer += u64::from(oldest.is_some());
            open.counts.open -= u64::from(oldest.is_some());
        } else if open.counts.open >= PER_PROCESS {
            open.counts.refused += 1;
            return Err(Refusal::new(
                ErrorCode::TooManyStreams,
                format!("This process of the control plane has {PER_PROCESS} event streams open already."),
            ));
        }
        open.counts.open += 1;
        open.seated += 1;
        let number = open.seated;
        open.sessions.entry(owner).or_default().seats.push_back(number);
        Ok(Self { process: Arc::clone(process), owner, number, question: None })
    }

    /// Whether a newer one of the same person has its place.
    pub fn is_lost(&self) -> bool {
        let open = self.process.streams.lock();
        !open.sessions.get(&self.owner).is_some_and(|own| own.seats.contains(&self.number))
    }

    /// How long until it is this one's turn to look; `now_ms` is the time, Unix milliseconds.
    pub fn turn(&self, now_ms: u64) -> Duration {
        let open = self.process.streams.lock();
        let alone = open.counts.open.saturating_sub(open.sharing);
        let looking = alone + u64::try_from(open.shares.len()).unwrap_or(u64::MAX);
        let seats = open.counts.open.max(1);
        drop(open);
        let round = (looking.max(1) * 1000 / LOOKS_PER_SECOND).max(seats * 1000 / ANSWERS_PER_SECOND);
        let own = round * (self.number % seats) / seats;
        Duration::from_millis((own + round - now_ms % round) % round)
    }

    /// From now on it sees what all see who ask this, where a process shares looks.
    pub fn join(&mut self, question: Question) {
        if !self.process.shares_looks || self.question.as_ref() == Some(&question) {
            return;
        }
        let process = Arc::clone(&self.process);
        let mut open = process.streams.lock();
        self.part(&mut open);
        open.sharing += 1;
        let none = || Shared { share: Arc::default(), seats: BTreeMap::new() };
        let shared = open.shares.entry(question.clone()).or_insert_with(none);
        *shared.seats.entry(self.owner.0).or_default() += 1;
        self.question = Some(question);
    }

    /// Its share, if it has one, with the question.
    pub fn share(&self) -> Option<(Question, Arc<Share>)> {
        let question = self.question.clone()?;
        let open = self.process.streams.lock();
        let share = Arc::clone(&open.shares.get(&question)?.share);
        Some((question, share))
    }

    /// Whether others wait for a look of its share than its own person.
    pub fn looks_for_others(&self) -> bool {
        let open = self.process.streams.lock();
        let shared = self.question.as_ref().and_then(|question| open.shares.get(question));
        shared.is_some_and(|shared| shared.seats.len() > 1)
    }

    /// Whether the session's own look was answered lately.
    pub fn is_checked(&self, now_ms: u64) -> bool {
        let open = self.process.streams.lock();
        let checked = open.sessions.get(&self.owner).map_or(0, |own| own.checked_ms);
        now_ms < checked.saturating_add(CHECK_EVERY_MS)
    }

    /// A look of its own was asked at `began_ms`, and answered if `answered`.
    pub fn looked(&self, began_ms: u64, now_ms: u64, answered: bool) {
        let mut open = self.process.streams.lock();
        open.counts.looks += 1;
        open.counts.look_ms += now_ms.saturating_sub(began_ms);
        if answered && let Some(own) = open.sessions.get_mut(&self.owner) {
            own.checked_ms = own.checked_ms.max(began_ms);
        }
    }

    /// It was served from a look of another one.
    pub fn served(&self) {
        self.process.streams.lock().counts.shared += 1;
    }

    /// Leaves its share, and looks for itself.
    fn part(&mut self, open: &mut Open) {
        let Some(question) = self.question.take() else { return };
        open.sharing -= 1;
        if let Some(shared) = open.shares.get_mut(&question) {
            if let Some(seats) = shared.seats.get_mut(&self.owner.0) {
                *seats -= 1;
                if *seats == 0 {
                    shared.seats.remove(&self.owner.0);
                }
            }
            if shared.seats.is_empty() {
                open.shares.remove(&question);
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let process = Arc::clone(&self.process);
        let mut open = process.streams.lock();
        self.part(&mut open);
        let Some(own) = open.sessions.get_mut(&self.owner) else { return };
        let before = own.seats.len();
        own.seats.retain(|number| *number != self.number);
        let left = own.seats.len();
        if left == 0 {
            open.sessions.remove(&self.owner);
        }
        open.counts.open -= u64::from(left < before);
    }
}

impl Open {
    /// The session that has to give a seat before `owner` may take one, if any: its own, or that with the oldest of its
    /// person.
    fn full(&self, owner: Owner) -> Option<Owner> {
        if self.sessions.get(&owner).is_some_and(|own| own.seats.len() >= PER_SESSION) {
            return Some(owner);
        }
        let first = (owner.0, SessionId::from_uuid(Uuid::nil()));
        let theirs = || self.sessions.range(first..).take_while(|((user, _), _)| *user == owner.0);
        if theirs().map(|(_, session)| session.seats.len()).sum::<usize>() < PER_PERSON {
            return None;
        }
        let oldest = theirs().filter_map(|(owner, session)| Some((*session.seats.front()?, *owner))).min();
        oldest.map(|(_, owner)| owner)
    }
}

impl Streams {
    pub fn counts(&self) -> StreamCounts {
        self.lock().counts
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use rackhand_schema::Role;

    use super::*;

    fn of(number: u128) -> Scope {
        let id = uuid::Uuid::from_u128(number).to_string();
        Scope::User {
            user: id.parse().unwrap(),
            session: id.parse().unwrap(),
            need: Role::Viewer,
            fleet: false,
            trace: id.parse().unwrap(),
        }
    }

    #[test]
    fn one_too_many_of_a_session_ends_its_oldest_and_a_full_process_refuses() {
        let process = Arc::new(Process::default());
        let take = |session| Seat::take(&process, &of(session));
        let own: Vec<_> = (0..PER_SESSION).map(|_| take(1).unwrap()).collect();
        assert!(own.iter().all(|seat| !seat.is_lost()));
        let round = own[0].turn(0);
        let newer = [take(1).unwrap(), take(1).unwrap()];
        assert_eq!(own[0].turn(0), round, "who has lost its place takes no turn of the others");
        let lost: Vec<_> = own.iter().map(Seat::is_lost).collect();
        assert_eq!(lost[..3], [true, true, false], "the oldest, one for one");
        assert!(newer.iter().all(|seat| !seat.is_lost()));
        let session = u64::try_from(PER_SESSION).unwrap();
        let others: Vec<_> = (0..PER_PROCESS - session).map(|n| take(u128::from(n) + 2).unwrap()).collect();
        assert_eq!(take(9999).err().unwrap().code, ErrorCode::TooManyStreams);
        let instead = take(1).unwrap();
        let counts = process.streams.counts();
        assert_eq!((counts.open, counts.ended_for_newer, counts.refused), (PER_PROCESS, 3, 1));
        drop((own, newer, others, instead));
        assert!(take(9999).is_ok());
        let open = process.streams.lock();
        assert!(open.sessions.is_empty() && open.counts.open == 0, "nobody is remembered");
    }

    #[test]
    fn one_person_does_not_take_every_stream() {
        let process = Arc::new(Process::default());
        let take = |session: u128| {
            let id = |number| Uuid::from_u128(number).to_string().parse().unwrap();
            let (user, session) =
                (UserId::from_uuid(Uuid::from_u128(1)), SessionId::from_uuid(Uuid::from_u128(session)));
            Seat::take(
                &process,
                &Scope::User { user, session, need: Role::Viewer, fleet: false, trace: id(1) },
            )
            .unwrap()
        };
        let other = Seat::take(&process, &of(2)).unwrap();
        let mut seats: Vec<_> = (0..2048).map(|n| take(1000 + n / 32)).collect();
        let (gone, kept) = seats.split_at(2048 - PER_PERSON);
        assert!(gone.iter().all(Seat::is_lost) && !kept.iter().any(Seat::is_lost), "the oldest, one for one");
        assert!(!other.is_lost(), "others are not harmed");
        assert_eq!(process.streams.counts().open, PER_PERSON as u64 + 1);
        seats.clear();
        drop(other);
        let open = process.streams.lock();
        assert!(open.sessions.is_empty() && open.counts.open == 0, "nobody is remembered");
    }

    #[test]
    fn however_many_are_open_they_look_one_after_the_other() {
        let process = Arc::new(Process::default());
        let seats: Vec<_> =
            (0..1000_u128).map(|session| Seat::take(&process, &of(session)).unwrap()).collect();
        let mut due: Vec<_> = seats.iter().map(|seat| seat.turn(1_800_000_000_123).as_millis()).collect();
        due.sort_unstable();
        assert!(due.windows(2).all(|pair| pair[1] - pair[0] == 10), "ten milliseconds apart: {due:?}");
        drop(seats);
        let alone = Seat::take(&process, &of(1)).unwrap();
        assert!(alone.turn(1_800_000_000_123) < Duration::from_millis(10));
    }

    #[test]
    fn those_who_ask_the_same_take_part_in_one_share_until_they_go() {
        let process = Arc::new(Process::of_all_requests());
        let question = |people| Question { about: String::new(), sites: None, people };
        let mut seats: Vec<_> =
            (0..2000_u128).map(|session| Seat::take(&process, &of(session)).unwrap()).collect();
        for seat in &mut seats {
            seat.join(question(false));
        }
        let share = |seat: &Seat| seat.share().unwrap().1;
        assert!(seats.windows(2).all(|pair| Arc::ptr_eq(&share(&pair[0]), &share(&pair[1]))));
        let latest = seats.iter().map(|seat| seat.turn(1_800_000_000_123)).max().unwrap();
        assert!(latest < Duration::from_millis(400), "all of them in a round: {latest:?}");
        seats[0].join(question(true));
        assert!(!Arc::ptr_eq(&share(&seats[0]), &share(&seats[1])));
        drop(seats);
        let open = process.streams.lock();
        assert!(open.shares.is_empty() && open.sharing == 0, "nothing is kept of who has gone");
    }

    #[test]
    fn a_session_is_checked_by_a_look_of_its_own() {
        let process = Arc::new(Process::of_all_requests());
        let [one, other] = [1, 2].map(|session| Seat::take(&process, &of(session)).unwrap());
        one.looked(1_000_000, 1_000_005, false);
        assert!(!one.is_checked(1_000_005));
        one.looked(1_000_000, 1_000_005, true);
        assert!(one.is_checked(1_014_999) && !one.is_checked(1_015_000) && !other.is_checked(1_000_005));
    }
}
