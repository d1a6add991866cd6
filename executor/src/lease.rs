//! Leases, and the permits without which no mutation starts.
//!
//! A BMC cannot check a fencing epoch, so the clock fences hardware: the deadline of a lease is the *send* time of
//! the request that won it + TTL − margin, and a mutation starts only while the lease outlasts what the mutation
//! still needs, hardware is not paused, and its intent has been acknowledged. [`MutationPermit`] is the only key to
//! the mutating calls of [`crate::broker::Line`]; the broker asks it immediately before the request leaves, and
//! [`Guard`] cuts the request off when the deadline comes — also when the process was stopped meanwhile, because it
//! looks at the clock before every step. What a transport writes in a task of its own is broken off there by
//! [`fence`]. Both count the boot clock and the time of day ([`Moment`]): a machine that a hypervisor has held is
//! told by the second one.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use rackhand_redfish::Fence;
use rackhand_schema::{id::RunId, protocol::HeldRun};

use crate::clock::{Clock, Moment};

tokio::task_local! {
    static FENCE: Fence;
}

/// Of the mutation that the caller's future belongs to: whether more of it may leave. None for reads.
pub fn fence() -> Option<Fence> {
    FENCE.try_with(Arc::clone).ok()
}

/// Why no mutation may start now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Hold {
    #[error("not enough time is left on the lease; the executor renews it first")]
    LeaseTooShort,
    #[error("hardware operations are paused")]
    Paused,
    #[error("this executor is draining")]
    Draining,
    #[error("the last look at the BMC is too old to act on; the executor looks again first")]
    OldLook,
}

/// What the control plane has leased to this process.
pub struct LeaseTable {
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    runs: BTreeMap<RunId, Lease>,
    paused: bool,
    draining: bool,
    ttl: Duration,
    /// Until when the last answer keeps this process's session alive.
    session: Duration,
}

#[derive(Clone, Copy)]
struct Lease {
    epoch: u64,
    deadline: Moment,
}

/// Taken off every lease: a tenth of it, for clock rates that differ and for the request's own way.
pub fn margin(ttl: Duration) -> Duration {
    ttl / 10
}

impl LeaseTable {
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { clock, inner: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A grant from the answer to a request sent at `sent`.
    pub fn granted(&self, run: RunId, epoch: u64, sent: Moment, ttl: Duration) {
        let deadline = sent.after(ttl.saturating_sub(margin(ttl)));
        let mut inner = self.lock();
        inner.ttl = ttl;
        inner.runs.insert(run, Lease { epoch, deadline });
    }

    /// The answer to a request, sent at `sent`, that listed `held`: all but `lost` are leased anew.
    pub fn renewed(&self, held: &[HeldRun], lost: &[HeldRun], sent: Moment, ttl: Duration) {
        let deadline = sent.after(ttl.saturating_sub(margin(ttl)));
        let mut inner = self.lock();
        inner.ttl = ttl;
        inner.session = inner.session.max(deadline.now);
        for run in held.iter().filter(|run| !lost.contains(run)) {
            if let Some(lease) = inner.runs.get_mut(&run.run_id).filter(|lease| lease.epoch == run.epoch) {
                // The time of day may have been set back in between: the later request counts.
                if deadline.now >= lease.deadline.now {
                    lease.deadline = deadline;
                }
            }
        }
        for run in lost {
            if inner.runs.get(&run.run_id).is_some_and(|lease| lease.epoch == run.epoch) {
                inner.runs.remove(&run.run_id);
            }
        }
    }

    /// The run is not ours any more, or has ended.
    pub fn release(&self, run: RunId, epoch: u64) {
        let mut inner = self.lock();
        if inner.runs.get(&run).is_some_and(|lease| lease.epoch == epoch) {
            inner.runs.remove(&run);
        }
    }

    /// Whether the control plane has heard of this process within the lease time.
    pub fn session_alive(&self) -> bool {
        self.clock.now() < self.lock().session
    }

    pub fn set_paused(&self, paused: bool) {
        self.lock().paused = paused;
    }

    pub fn set_draining(&self) {
        self.lock().draining = true;
    }

    pub fn draining(&self) -> bool {
        self.lock().draining
    }

    pub fn ttl(&self) -> Duration {
        self.lock().ttl
    }

    /// How long `(run, epoch)` is still leased; zero when it is not.
    pub fn remaining(&self, run: RunId, epoch: u64) -> Duration {
        let deadline =
            self.lock().runs.get(&run).filter(|lease| lease.epoch == epoch).map(|lease| lease.deadline);
        deadline.map_or(Duration::ZERO, |deadline| deadline.left(self.clock.moment()))
    }

    /// Whether a mutation that needs `needs` of lease may start now.
    pub fn allows(&self, run: RunId, epoch: u64, needs: Duration) -> Result<(), Hold> {
        {
            let inner = self.lock();
            if inner.paused {
                return Err(Hold::Paused);
            }
        }
        if self.remaining(run, epoch) <= needs { Err(Hold::LeaseTooShort) } else { Ok(()) }
    }
}

/// Proof that the control plane has accepted an intent of `(run, epoch)`. Made by the outbox alone.
#[derive(Debug)]
pub struct AcknowledgedIntent {
    run: RunId,
    epoch: u64,
}

impl AcknowledgedIntent {
    pub(crate) fn new(run: RunId, epoch: u64) -> Self {
        Self { run, epoch }
    }
}

/// The right to make the one mutation that was announced.
pub struct MutationPermit {
    table: Arc<LeaseTable>,
    intent: AcknowledgedIntent,
    /// Longest duration of the request.
    limit: Duration,
    /// How much lease must be left at its start. Equals `limit` except for uploads, which renewals carry on
    /// and which do nothing before their last byte.
    needs: Duration,
}

impl MutationPermit {
    /// For a short request.
    pub fn short(table: &Arc<LeaseTable>, intent: AcknowledgedIntent, limit: Duration) -> Self {
        Self { table: Arc::clone(table), intent, limit, needs: limit }
    }

    /// For an upload, cut off at `limit` or when the (renewed) lease ends.
    pub fn upload(
        table: &Arc<LeaseTable>,
        intent: AcknowledgedIntent,
        limit: Duration,
        needs: Duration,
    ) -> Self {
        Self { table: Arc::clone(table), intent, limit, needs }
    }

    /// Asked immediately before the first byte leaves.
    ///
    /// # Errors
    /// [`Hold`]: nothing may be sent now.
    pub fn begin(self) -> Result<Guard, Hold> {
        self.table.allows(self.intent.run, self.intent.epoch, self.needs)?;
        let end = self.table.clock.now() + self.limit;
        Ok(Guard { table: self.table, intent: self.intent, end })
    }
}

/// A mutation under way.
pub struct Guard {
    table: Arc<LeaseTable>,
    intent: AcknowledgedIntent,
    end: Duration,
}

/// The request was cut off at its deadline. Whether the device acted on it is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request was cut off at its deadline")]
pub struct CutOff;

impl Guard {
    fn left(&self) -> Duration {
        self.table.remaining(self.intent.run, self.intent.epoch).min(self.limit())
    }

    fn fence(&self) -> Fence {
        let (table, end) = (Arc::clone(&self.table), self.end);
        let (run, epoch) = (self.intent.run, self.intent.epoch);
        Arc::new(move || table.clock.now() < end && !table.remaining(run, epoch).is_zero())
    }

    /// When the request ends at the latest if the lease is renewed in time.
    pub fn limit(&self) -> Duration {
        self.end.saturating_sub(self.table.clock.now())
    }

    /// Drives `request`, looking at the clock before each step of it.
    ///
    /// # Errors
    /// [`CutOff`] when the deadline came first.
    pub async fn run<T>(self, request: impl Future<Output = T> + Send) -> Result<T, CutOff> {
        let mut request = pin!(FENCE.scope(self.fence(), request));
        let mut timer = self.table.clock.sleep(self.left());
        std::future::poll_fn(move |context| {
            loop {
                let left = self.left();
                if left.is_zero() {
                    return Poll::Ready(Err(CutOff));
                }
                if let Poll::Ready(answer) = request.as_mut().poll(context) {
                    return Poll::Ready(Ok(answer));
                }
                if timer.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                timer = self.table.clock.sleep(self.left());
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::TokioClock;

    const RUN: RunId = RunId::from_uuid(uuid::Uuid::from_u128(1));
    const S: fn(u64) -> Duration = Duration::from_secs;

    fn at(seconds: u64) -> Moment {
        Moment { now: S(seconds), wall: S(seconds) }
    }

    /// A machine that a hypervisor holds: the boot clock stands still meanwhile, the time of day is set right
    /// afterwards.
    struct Held {
        clock: TokioClock,
        lost: std::sync::atomic::AtomicU64,
    }

    impl Clock for Held {
        fn now(&self) -> Duration {
            self.clock.now()
        }

        fn wall(&self) -> Duration {
            self.clock.now() + S(self.lost.load(std::sync::atomic::Ordering::Relaxed))
        }

        fn sleep(&self, duration: Duration) -> futures::future::BoxFuture<'static, ()> {
            self.clock.sleep(duration)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_machine_sends_nothing_before_a_lease_request_has_been_answered_again() {
        let clock = Arc::new(Held { clock: TokioClock::start(), lost: 0.into() });
        let table = LeaseTable::new(Arc::clone(&clock) as Arc<dyn Clock>);
        table.granted(RUN, 1, at(0), S(30));
        let upload = permit(&table, S(10)).begin().unwrap();
        let fence = upload.fence();
        assert!(fence());
        clock.lost.store(60, std::sync::atomic::Ordering::Relaxed);
        assert!(!fence(), "the writing task stops by itself");
        assert_eq!(upload.run(tokio::time::sleep(S(1))).await, Err(CutOff));
        assert_eq!(permit(&table, S(10)).begin().err(), Some(Hold::LeaseTooShort));
        let held = [HeldRun { run_id: RUN, epoch: 1 }];
        table.renewed(&held, &[], clock.moment(), S(30));
        assert!(permit(&table, S(10)).begin().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_mutation_carries_its_fence_and_a_read_has_none() {
        let table = table();
        table.granted(RUN, 1, at(0), S(30));
        let guard = permit(&table, S(10)).begin().unwrap();
        let inside = guard.run(async { fence() }).await.unwrap().unwrap();
        assert!(inside() && fence().is_none());
        tokio::time::sleep(S(11)).await;
        assert!(!inside(), "the request's own limit counts, too");
    }

    fn table() -> Arc<LeaseTable> {
        LeaseTable::new(Arc::new(TokioClock::start()))
    }

    fn permit(table: &Arc<LeaseTable>, limit: Duration) -> MutationPermit {
        MutationPermit::short(table, AcknowledgedIntent::new(RUN, 1), limit)
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_counts_from_the_send_time_less_a_margin() {
        let table = table();
        tokio::time::sleep(S(5)).await;
        table.granted(RUN, 1, at(2), S(30));
        assert_eq!(table.remaining(RUN, 1), S(24), "2 + 30 - 3 - 5");
        assert_eq!(table.remaining(RUN, 2), Duration::ZERO, "another epoch is not ours");
    }

    #[tokio::test(start_paused = true)]
    async fn no_mutation_starts_that_the_lease_would_not_outlast() {
        let table = table();
        table.granted(RUN, 1, at(0), S(30));
        tokio::time::sleep(S(17)).await;
        assert_eq!(permit(&table, S(10)).begin().err(), Some(Hold::LeaseTooShort));
        assert!(permit(&table, S(9)).begin().is_ok());
        table.set_paused(true);
        assert_eq!(permit(&table, S(1)).begin().err(), Some(Hold::Paused));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_cut_off_at_the_lease_deadline_and_carried_by_renewals() {
        let table = table();
        table.granted(RUN, 1, at(0), S(30));
        let held = [HeldRun { run_id: RUN, epoch: 1 }];
        let upload = |needs| {
            MutationPermit::upload(&table, AcknowledgedIntent::new(RUN, 1), S(600), needs).begin().unwrap()
        };
        let cut = upload(S(5)).run(tokio::time::sleep(S(40))).await;
        assert_eq!(cut, Err(CutOff));
        assert_eq!(table.clock.now(), S(27));
        table.renewed(&held, &[], at(27), S(30));
        let renewing = Arc::clone(&table);
        tokio::spawn(async move {
            for _ in 0..10 {
                tokio::time::sleep(S(10)).await;
                renewing.renewed(&held, &[], renewing.clock.moment(), S(30));
            }
        });
        assert_eq!(upload(S(5)).run(tokio::time::sleep(S(80))).await, Ok(()));
    }
}
