//! How many bytes of request bodies a process holds at once.
//!
//! Strangers have a share of their own: whatever they send, the room for people and executors stays.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Bytes that are free; `None`: as many as there may be.
type Room = Option<Arc<AtomicUsize>>;

#[derive(Debug, Default)]
pub struct Bodies {
    strangers: Room,
    signed_in: Room,
}

impl Bodies {
    pub fn within(strangers: usize, signed_in: usize) -> Self {
        let room = |bytes| Some(Arc::new(AtomicUsize::new(bytes)));
        Self { strangers: room(strangers), signed_in: room(signed_in) }
    }

    /// For a body of which nothing has come yet.
    pub fn hold(&self, signed_in: bool) -> Held {
        Held { room: if signed_in { &self.signed_in } else { &self.strangers }.clone(), bytes: 0 }
    }
}

/// What one body takes, until it is dropped.
#[derive(Debug)]
pub struct Held {
    room: Room,
    bytes: usize,
}

impl Held {
    /// Takes `more` bytes, if there is room for them.
    pub fn grow(&mut self, more: usize) -> bool {
        if let Some(room) = &self.room {
            let taken = room
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(more))
                .is_ok();
            if !taken {
                return false;
            }
            self.bytes += more;
        }
        true
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(room) = &self.room {
            room.fetch_add(self.bytes, Ordering::Relaxed);
        }
    }
}
