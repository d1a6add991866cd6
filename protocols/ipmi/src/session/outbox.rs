//! Datagrams on their way out, and the random bytes they need.

use std::collections::VecDeque;

use crate::{Error, Malformed};

/// Where random bytes come from: the operating system, or a script in a test.
pub trait Entropy: Send {
    /// Fills `bytes` unpredictably. A failure ends the session rather than weakening it.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Error>;
}

impl<F: FnMut(&mut [u8]) + Send> Entropy for F {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self(bytes);
        Ok(())
    }
}

/// How many used buffers are kept for reuse.
const SPARE: usize = 4;

/// A queue of datagrams that reuses its buffers.
#[derive(Default)]
pub(super) struct Outbox {
    queue: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
}

impl Outbox {
    /// Queues what `write` appends.
    pub fn put(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        write(&mut buffer)?;
        self.queue.push_back(buffer);
        Ok(())
    }

    pub fn put_copy(&mut self, datagram: &[u8]) {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(datagram);
        self.queue.push_back(buffer);
    }

    /// Swaps the oldest datagram into `out`; false when there is none.
    pub fn take(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(mut datagram) = self.queue.pop_front() else { return false };
        std::mem::swap(out, &mut datagram);
        if self.spare.len() < SPARE {
            self.spare.push(datagram);
        }
        true
    }
}
