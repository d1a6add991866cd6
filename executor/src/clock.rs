//! The clock that leases and deadlines are counted on.
//!
//! A lease goes on while a machine sleeps or a process is stopped, so production counts `CLOCK_BOOTTIME`
//! (clock_gettime(2): monotonic, includes suspend). It does not count while a hypervisor holds the machine; the time
//! of day, which most guests set right afterwards, shows that. So a lease ends by whichever of the two comes first
//! ([`Moment`]), and what was seen of a device is as old as the one that says more; nothing else in the executor
//! decides by the time of day, which may jump at any time. Simulations count tokio's paused time.

use std::time::Duration;

use futures::future::BoxFuture;

/// One moment on both clocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moment {
    pub now: Duration,
    pub wall: Duration,
}

impl Moment {
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self { now: self.now + time, wall: self.wall + time }
    }

    /// How long it is until this moment comes, by the clock that says so first.
    pub fn left(self, present: Self) -> Duration {
        self.now.saturating_sub(present.now).min(self.wall.saturating_sub(present.wall))
    }

    /// How long ago this moment was, by the clock that says more.
    pub fn age(self, present: Self) -> Duration {
        present.now.saturating_sub(self.now).max(present.wall.saturating_sub(self.wall))
    }

    /// The earlier one, by each clock.
    #[must_use]
    pub fn or_earlier(self, other: Self) -> Self {
        Self { now: self.now.min(other.now), wall: self.wall.min(other.wall) }
    }
}

/// Time since an arbitrary start, never going back.
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Duration;

    /// The time of day, since 1970. It jumps.
    fn wall(&self) -> Duration;

    fn moment(&self) -> Moment {
        Moment { now: self.now(), wall: self.wall() }
    }

    /// Ends once `now()` has advanced by `duration`.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// `CLOCK_BOOTTIME`.
#[derive(Debug, Clone, Copy, Default)]
pub struct BootClock;

/// Timers count `CLOCK_MONOTONIC`, which stands still in suspend: sleeping in slices bounds how late one ends.
const SLICE: Duration = Duration::from_secs(1);

fn read(clock: rustix::time::ClockId) -> Duration {
    let time = rustix::time::clock_gettime(clock);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

impl Clock for BootClock {
    fn now(&self) -> Duration {
        read(rustix::time::ClockId::Boottime)
    }

    fn wall(&self) -> Duration {
        read(rustix::time::ClockId::Realtime)
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

    fn wall(&self) -> Duration {
        self.now()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}
