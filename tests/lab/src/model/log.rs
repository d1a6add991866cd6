//! The Lifecycle log and the system event log: bounded, newest first when read.

use std::collections::VecDeque;
use std::time::Duration;

use super::messages::Message;

/// Entries kept of each log.
const KEPT: usize = 1_000;

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) at: Duration,
    pub(crate) category: &'static str,
    pub(crate) message: Message,
}

#[derive(Clone, Debug)]
pub(crate) struct Log {
    next: u64,
    entries: VecDeque<Entry>,
}

impl Log {
    pub(crate) fn starting_at(first: u64) -> Self {
        Self { next: first, entries: VecDeque::new() }
    }

    pub(crate) fn add(&mut self, at: Duration, category: &'static str, message: Message) {
        if self.entries.len() == KEPT {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry { id: self.next, at, category, message });
        self.next += 1;
    }

    /// Newest first.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().rev()
    }

    pub(crate) fn find(&self, id: u64) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.id == id)
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }
}
