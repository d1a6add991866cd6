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
    /// What it is to IPMI.
    pub(crate) event: Option<Event>,
    /// A whole record that somebody added by IPMI.
    pub(crate) raw: Option<[u8; 16]>,
}

/// An event of a sensor (IPMI specification, section 32.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) sensor_type: u8,
    pub(crate) sensor: u8,
    /// Event type, and in bit 7 that it went away.
    pub(crate) event_type: u8,
    pub(crate) data: [u8; 3],
}

impl Entry {
    /// The id of its record in the event log: sixteen bits, neither 0 nor FFFFh.
    pub(crate) fn record_id(&self) -> u16 {
        u16::try_from(self.id.saturating_sub(1) % 0xfffe + 1).unwrap_or(1)
    }
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
        self.push(Entry { id: 0, at, category, message, event: None, raw: None });
    }

    pub(crate) fn add_event(&mut self, at: Duration, category: &'static str, message: Message, event: Event) {
        self.push(Entry { id: 0, at, category, message, event: Some(event), raw: None });
    }

    /// Adds a record as it is, but for its id, which is returned.
    pub(crate) fn add_raw(
        &mut self,
        at: Duration,
        category: &'static str,
        message: Message,
        raw: [u8; 16],
    ) -> u16 {
        self.push(Entry { id: 0, at, category, message, event: None, raw: Some(raw) });
        self.entries.back().map_or(0, Entry::record_id)
    }

    fn push(&mut self, entry: Entry) {
        if self.entries.len() == KEPT {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry { id: self.next, ..entry });
        self.next += 1;
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn oldest_first(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Where the entry with this record id is, counted from the oldest.
    pub(crate) fn position(&self, record_id: u64) -> Option<usize> {
        self.entries.iter().position(|entry| u64::from(entry.record_id()) == record_id)
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
