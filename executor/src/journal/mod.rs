//! The journal: what this executor meant to do, did, and still has to report, on disk before it acts.
//!
//! One process holds a data directory's journal at a time; its lock proves that the former process is dead, so the
//! former session may be named as resumed. On another machine, with a copy of the directory, it proves nothing: there
//! the control plane keeps two processes apart, by taking no intent of the former session. Every write is durable
//! when its call returns. A failed write of a run ends the service: without a journal nothing may be done to
//! hardware.
//!
//! Durable means a wait for the disk, several milliseconds long, so what belongs together is one [`Journal::commit`],
//! and commits that come while one is under way share the next wait.

pub mod memory;
pub mod sqlite;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures::future::BoxFuture;
use rackhand_schema::{
    id::RunId,
    protocol::{Intent, Resolution},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, Clone, thiserror::Error)]
#[error("journal: {0}")]
pub struct JournalError(pub String);

/// One durable write.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "write", rename_all = "snake_case")]
pub enum Write {
    /// A run was taken over with this grant (without its credential). Written with the first thing said about it.
    Granted {
        run: RunId,
        epoch: u64,
        grant: Value,
    },
    /// The next item to report; `Replace` of an unsent one keeps its number.
    Outbox {
        run: RunId,
        epoch: u64,
        seq: u64,
        item: String,
    },
    /// The control plane has taken (or finally refused) the item.
    Acknowledged {
        run: RunId,
        epoch: u64,
        seq: u64,
    },
    Intent {
        run: RunId,
        epoch: u64,
        intent: Intent,
    },
    /// What became of the announced mutation, as far as this process saw it.
    Outcome {
        run: RunId,
        epoch: u64,
        resolution: Resolution,
        evidence: Value,
    },
    /// The run is over for this process.
    Closed {
        run: RunId,
        epoch: u64,
    },
    /// A small named value: former session, sealed BMC sessions, …
    Meta {
        key: String,
        value: Option<String>,
    },
}

/// An item that was not acknowledged before a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    pub run: RunId,
    pub epoch: u64,
    pub seq: u64,
    pub item: String,
}

pub trait Journal: Send + Sync + 'static {
    /// All of `writes` or none, in their order. Commits are in the order of the calls.
    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<(), JournalError>>;

    fn write(&self, write: Write) -> BoxFuture<'_, Result<(), JournalError>> {
        self.commit(vec![write])
    }

    /// Unacknowledged items in the order of `(run, epoch, seq)`.
    fn pending(&self) -> BoxFuture<'_, Result<Vec<Pending>, JournalError>>;
    fn meta<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<String>, JournalError>>;
    /// Meta values whose key starts with `prefix`.
    fn metas<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<(String, String)>, JournalError>>;
}

/// Sees every finished write, those of one commit after all of it. A crash test stops the process there by never
/// returning.
pub trait JournalObserver: Send + Sync + 'static {
    /// `number` counts from 1 over the life of the process.
    fn written<'a>(&'a self, number: u64, write: &'a Write) -> BoxFuture<'a, ()>;
}

/// A journal somebody watches.
pub struct Observed {
    inner: Arc<dyn Journal>,
    observer: Arc<dyn JournalObserver>,
    count: AtomicU64,
}

impl Observed {
    pub fn new(inner: Arc<dyn Journal>, observer: Arc<dyn JournalObserver>) -> Self {
        Self { inner, observer, count: AtomicU64::new(0) }
    }
}

impl Journal for Observed {
    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<(), JournalError>> {
        Box::pin(async move {
            self.inner.commit(writes.clone()).await?;
            for write in &writes {
                let number = self.count.fetch_add(1, Ordering::Relaxed) + 1;
                self.observer.written(number, write).await;
            }
            Ok(())
        })
    }

    fn pending(&self) -> BoxFuture<'_, Result<Vec<Pending>, JournalError>> {
        self.inner.pending()
    }

    fn meta<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<String>, JournalError>> {
        self.inner.meta(key)
    }

    fn metas<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<(String, String)>, JournalError>> {
        self.inner.metas(prefix)
    }
}
