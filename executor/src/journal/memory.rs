//! A journal in memory, for simulations: it outlives an executor that is dropped, as a disk would.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use futures::future::BoxFuture;
use rackhand_schema::id::RunId;

use super::{Journal, JournalError, Pending, Write};

#[derive(Default)]
pub struct MemoryJournal {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    log: Vec<Write>,
    outbox: BTreeMap<(RunId, u64, u64), String>,
    meta: BTreeMap<String, String>,
}

impl MemoryJournal {
    /// Every write so far.
    pub fn log(&self) -> Vec<Write> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).log.clone()
    }

    /// Takes the writes since the last call out, so that a simulation of days does not keep them all.
    pub fn take_log(&self) -> Vec<Write> {
        std::mem::take(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner).log)
    }
}

impl Inner {
    fn apply(&mut self, write: Write) {
        match &write {
            Write::Outbox { run, epoch, seq, item } => {
                self.outbox.insert((*run, *epoch, *seq), item.clone());
            }
            Write::Acknowledged { run, epoch, seq } => {
                self.outbox.remove(&(*run, *epoch, *seq));
            }
            Write::Meta { key, value: Some(value) } => {
                self.meta.insert(key.clone(), value.clone());
            }
            Write::Meta { key, value: None } => {
                self.meta.remove(key);
            }
            Write::Granted { .. } | Write::Intent { .. } | Write::Outcome { .. } | Write::Closed { .. } => {}
        }
        self.log.push(write);
    }
}

impl Journal for MemoryJournal {
    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<(), JournalError>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for write in writes {
            inner.apply(write);
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn pending(&self) -> BoxFuture<'_, Result<Vec<Pending>, JournalError>> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let items = inner.outbox.iter().map(|((run, epoch, seq), item)| Pending {
            run: *run,
            epoch: *epoch,
            seq: *seq,
            item: item.clone(),
        });
        Box::pin(std::future::ready(Ok(items.collect())))
    }

    fn meta<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<String>, JournalError>> {
        let value = self.inner.lock().unwrap_or_else(PoisonError::into_inner).meta.get(key).cloned();
        Box::pin(std::future::ready(Ok(value)))
    }

    fn metas<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<(String, String)>, JournalError>> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let found = inner.meta.iter().filter(|(key, _)| key.starts_with(prefix));
        Box::pin(std::future::ready(Ok(found.map(|(k, v)| (k.clone(), v.clone())).collect())))
    }
}
