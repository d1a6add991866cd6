//! Logins: sessions with a limited table, Basic credentials, and blocking of addresses that guess.
//!
//! Blocking is per client address, not per account: three failures within 60 s lock the address out for 60 s
//! (`IPBlocking.1.*` of the recorded R750; a success clears the count, iDRAC9 User's Guide "IP Blocking").
//! Sessions end after 30 idle minutes (`SessionService.SessionTimeout` of the same tree); the table holds
//! eight (gofish issue 75, check_redfish pull request 198).

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

const FAIL_COUNT: usize = 3;
const FAIL_WINDOW: Duration = Duration::from_secs(60);
const PENALTY: Duration = Duration::from_secs(60);
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_secs(1_800);
const SESSION_LIMIT: usize = 8;

#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) id: u64,
    pub(crate) token: String,
    pub(crate) client: IpAddr,
    pub(crate) used: Duration,
}

/// The session table and what the BMC remembers of failed logins.
#[derive(Clone, Debug)]
pub(crate) struct Auth {
    first: u64,
    next: u64,
    sessions: Vec<Session>,
    failures: BTreeMap<IpAddr, VecDeque<Duration>>,
    blocked: BTreeMap<IpAddr, Duration>,
}

/// What a failed login led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Counted,
    /// The address is blocked from now on.
    Blocked,
}

impl Auth {
    pub(crate) fn new(first_session: u64) -> Self {
        Self {
            first: first_session,
            next: first_session,
            sessions: Vec::new(),
            failures: BTreeMap::new(),
            blocked: BTreeMap::new(),
        }
    }

    pub(crate) fn is_blocked(&mut self, client: IpAddr, now: Duration) -> bool {
        self.blocked.retain(|_, until| *until > now);
        self.blocked.contains_key(&client)
    }

    pub(crate) fn failed(&mut self, client: IpAddr, now: Duration) -> Failure {
        let times = self.failures.entry(client).or_default();
        times.push_back(now);
        while times.front().is_some_and(|time| *time + FAIL_WINDOW <= now) {
            times.pop_front();
        }
        if times.len() < FAIL_COUNT {
            return Failure::Counted;
        }
        times.clear();
        self.blocked.insert(client, now + PENALTY);
        Failure::Blocked
    }

    pub(crate) fn succeeded(&mut self, client: IpAddr) {
        self.failures.remove(&client);
    }

    /// Opens a session, or `None` when the table is full.
    pub(crate) fn open(&mut self, client: IpAddr, now: Duration, token: String) -> Option<&Session> {
        if self.sessions.len() >= SESSION_LIMIT {
            return None;
        }
        let id = self.next;
        self.next += 1;
        self.sessions.push(Session { id, token, client, used: now });
        self.sessions.last()
    }

    /// The session of a token, used now.
    pub(crate) fn touch(&mut self, token: &str, now: Duration) -> Option<u64> {
        let session = self.sessions.iter_mut().find(|session| session.token == token)?;
        session.used = now;
        Some(session.id)
    }

    pub(crate) fn id_of(&self, token: &str) -> Option<u64> {
        self.sessions.iter().find(|session| session.token == token).map(|session| session.id)
    }

    pub(crate) fn close(&mut self, id: u64) -> bool {
        let before = self.sessions.len();
        self.sessions.retain(|session| session.id != id);
        self.sessions.len() < before
    }

    pub(crate) fn expire(&mut self, now: Duration) {
        self.sessions.retain(|session| session.used + SESSION_TIMEOUT > now);
    }

    /// At a restart. The next ones are numbered anew, which is the worst for clients that go by numbers.
    pub(crate) fn close_all(&mut self) {
        self.sessions.clear();
        self.next = self.first;
    }

    pub(crate) fn sessions(&self) -> &[Session] {
        &self.sessions
    }
}
