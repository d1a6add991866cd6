//! The sessions under which the processes of one data directory sign in: a new one for each start.
//!
//! A process names those of its predecessors, which the journal's lock proves dead: their leases then end at once.
//! Whoever does not name the session that signed in last goes on from a copy of the directory, and is refused while
//! the other one lives. So the journal must never forget the session that signed in last, and must know each other
//! one that may have signed in since: one that has written nothing after it was killed, or whose answer was lost. It
//! names the one that was seen to sign in, first, and behind it those that were about to. A process that is refused
//! stays one of these.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use rackhand_schema::{executor::SESSIONS_NAMED, id::ExecutorSessionId};

use crate::journal::{Journal, JournalError, Write};

/// Their ids in the journal's meta values, with blanks between them.
const KEY: &str = "session";

pub struct Sessions {
    journal: Arc<dyn Journal>,
    /// Of this process.
    pub own: ExecutorSessionId,
    /// Of its predecessors, at most [`SESSIONS_NAMED`]. Older attempts give way, the first one never.
    pub former: Vec<ExecutorSessionId>,
    announced: AtomicBool,
    confirmed: AtomicBool,
}

impl Sessions {
    /// Writes nothing: a process that never gets to sign in leaves no trace.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn begin(journal: Arc<dyn Journal>) -> Result<Self, JournalError> {
        let named = journal.meta(KEY).await?.unwrap_or_default();
        let mut former: Vec<_> = named.split_whitespace().filter_map(|id| id.parse().ok()).collect();
        if former.len() > SESSIONS_NAMED {
            former.drain(1..=former.len() - SESSIONS_NAMED);
        }
        let own = ExecutorSessionId::generate();
        Ok(Self {
            journal,
            own,
            former,
            announced: AtomicBool::new(false),
            confirmed: AtomicBool::new(false),
        })
    }

    /// To be called before each request to sign in, which may come through without an answer.
    ///
    /// # Errors
    /// When the journal cannot be written: then nothing may be requested.
    pub async fn announce(&self) -> Result<(), JournalError> {
        if self.announced.load(Ordering::Acquire) {
            return Ok(());
        }
        self.name(self.former.iter().chain([&self.own])).await?;
        self.announced.store(true, Ordering::Release);
        Ok(())
    }

    /// To be called when it has signed in, before anything else is requested.
    ///
    /// # Errors
    /// When the journal cannot be written: then nothing may be requested.
    pub async fn confirm(&self) -> Result<(), JournalError> {
        if self.confirmed.load(Ordering::Acquire) {
            return Ok(());
        }
        self.name([&self.own]).await?;
        self.confirmed.store(true, Ordering::Release);
        Ok(())
    }

    async fn name(&self, sessions: impl IntoIterator<Item = &ExecutorSessionId>) -> Result<(), JournalError> {
        let ids: Vec<_> = sessions.into_iter().map(ToString::to_string).collect();
        self.journal.write(Write::Meta { key: KEY.to_owned(), value: Some(ids.join(" ")) }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::memory::MemoryJournal;

    /// Whatever happens to those that only tried, the one that had signed in is named.
    #[tokio::test]
    async fn the_session_that_signed_in_last_is_named_whatever_is_tried_after_it() {
        let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::default());
        let start = || Sessions::begin(Arc::clone(&journal));
        let first = start().await.unwrap();
        assert_eq!(first.former, []);
        first.announce().await.unwrap();
        first.confirm().await.unwrap();
        assert_eq!(start().await.unwrap().former, [first.own]);
        let mut tried = vec![];
        for _ in 0..40 {
            let next = start().await.unwrap();
            let recent = tried.len().saturating_sub(SESSIONS_NAMED - 1);
            assert_eq!(next.former, [&[first.own], &tried[recent..]].concat());
            next.announce().await.unwrap();
            tried.push(next.own);
        }
        let last = start().await.unwrap();
        last.announce().await.unwrap();
        last.confirm().await.unwrap();
        // A token has ended, and another one is requested.
        last.announce().await.unwrap();
        assert_eq!(start().await.unwrap().former, [last.own]);
    }
}
