//! The clock that leases and deadlines are counted on.
//!
//! A lease goes on while a machine sleeps or a process is stopped, so production counts `CLOCK_BOOTTIME`
//! (clock_gettime(2): monotonic, includes suspend). Simulations count tokio's paused time. Nothing here knows
//! the time of day; nothing in the executor decides by it.

use std::time::Duration;

use futures::future::BoxFuture;

/// Time since an arbitrary start, never going back.
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Duration;

    /// Ends once `now()` has advanced by `duration`.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// `CLOCK_BOOTTIME`.
#[derive(Debug, Clone, Copy, Default)]
pub struct BootClock;

/// Timers count `CLOCK_MONOTONIC`, which stands still in suspend: sleeping in slices bounds how late one ends.
const SLICE: Duration = Duration::from_secs(1);

impl Clock for BootClock {
    fn now(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let end = self.now() + duration;
        Box::pin(async move {
            loop {
                let left = end.saturating_sub(Self.now());
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep(left.min(SLICE)).await;
            }
        })
    }
}

/// Tokio's clock; follows `tokio::time::pause`.
#[derive(Debug, Clone, Copy)]
pub struct TokioClock {
    start: tokio::time::Instant,
}

impl TokioClock {
    pub fn start() -> Self {
        Self { start: tokio::time::Instant::now() }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}
