//! The look that a mutation is based on, and how old it may be when the request leaves.
//!
//! What a read told is as old as its *beginning*: a BMC may take half a minute to list a long queue. So a mutation
//! that could hit a device job leaves within [`LOOK_AGE`] of the beginning of the last look at the jobs; what is read
//! in between, by the handler or by the client, makes the look older. Where the listing itself takes long, a second
//! look asks for the names of the jobs and for those alone that were not seen to be over. A BMC that is too slow for
//! that as well is told so, and is not tried without end: the engine counts the tries. Ages are counted by the boot
//! clock and by the time of day: a hypervisor that holds the machine stops the former.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use rackhand_redfish::Fence;

use super::{Line, Pick, lock, slots::Slot};
use crate::{
    bmc::{BmcError, BmcErrorKind, DeviceJob, HostWork},
    clock::{Clock, Moment},
    lease::Hold,
};

/// A mutation leaves so long after the beginning of the last look at its BMC, at most. A device that takes almost ten
/// seconds for each answer lists its jobs and is asked where to send the request within that.
pub const LOOK_AGE: Duration = Duration::from_secs(20);
/// A listing of the jobs that takes longer is followed by a second, shorter look before a mutation.
const QUICK: Duration = Duration::from_secs(10);
/// A host that is not on its way into a boot needs longer until a job runs in one. Whether it is may have been looked
/// at so much earlier than the jobs.
const HOST_LEAD: Duration = Duration::from_secs(30);

/// A slot that a line keeps for all that it asks, and when the look that a mutation over it is based on began.
pub(super) struct Seat {
    _slot: Slot,
    looked: Option<Moment>,
}

/// As long as it lives, its line keeps one slot: see [`Line::keep`].
pub struct Kept(Arc<Mutex<Option<Seat>>>);

impl Drop for Kept {
    fn drop(&mut self) {
        *lock(&self.0) = None;
    }
}

/// What a device has to do.
#[derive(Debug)]
pub struct Work {
    pub jobs: Vec<DeviceJob>,
    /// Why the host is on its way into jobs or in them, where that was asked and the device tells.
    pub host: Result<Option<HostWork>, BmcError>,
}

impl Line {
    /// Takes a slot for everything that this line asks from now on, one call after the other: looks, and the mutation
    /// that is based on them. Given back when the returned value is dropped.
    pub async fn keep(&self) -> Kept {
        let slot = self.actor.slots.take(self.priority).await;
        *lock(&self.seat) = Some(Seat { _slot: slot, looked: None });
        Kept(Arc::clone(&self.seat))
    }

    /// What a mutation may be based on was looked at from `began` on.
    pub(super) fn looked(&self, began: Moment) {
        if let Some(seat) = lock(&self.seat).as_mut() {
            seat.looked = Some(began);
        }
    }

    /// The look that a mutation is based on.
    ///
    /// # Errors
    /// It is too old, or there was none.
    pub(super) fn look(&self) -> Result<Look, BmcError> {
        let clock = Arc::clone(&self.actor.clock);
        let began = match &*lock(&self.seat) {
            Some(seat) => seat.looked.unwrap_or_default(),
            None => clock.moment(),
        };
        let look = Look { clock, began, left: Arc::default(), refused: Arc::default() };
        if look.is_too_old() { Err(look.too_old()) } else { Ok(look) }
    }

    /// # Errors
    /// [`BmcErrorKind::NoQueue`]: the BMC declares none, or is reached over no transport that shows one.
    pub async fn jobs(&self) -> Result<Vec<DeviceJob>, BmcError> {
        Ok(self.work(|_| false).await?.jobs)
    }

    /// The jobs and, if `asks` says so of them, what the host is at. The host is asked before the last look at the
    /// jobs: its answer may take its time, in which one begins.
    ///
    /// # Errors
    /// As [`Line::jobs`].
    pub async fn work(&self, asks: impl FnOnce(&[DeviceJob]) -> bool + Send) -> Result<Work, BmcError> {
        let looked = self.work_since(asks).await;
        // Also a look in vain: whoever goes on all the same knows it.
        self.looked(looked.as_ref().map_or_else(|_| self.actor.clock.moment(), |(_, began)| *began));
        looked.map(|(work, _)| work)
    }

    async fn work_since(
        &self,
        asks: impl FnOnce(&[DeviceJob]) -> bool + Send,
    ) -> Result<(Work, Moment), BmcError> {
        let now = || self.actor.clock.moment();
        let began = now();
        let mut jobs = self.queue(None).await?;
        let asks = asks(&jobs);
        let is_quick = began.age(now()) <= QUICK;
        let is_enough = is_quick || lock(&self.seat).is_none();
        if is_enough && !asks {
            return Ok((Work { jobs, host: Ok(None) }, began));
        }
        let host_began = now();
        let host = if asks { self.readiness().await.map(|said| said.host_at_work) } else { Ok(None) };
        let began = now();
        if is_quick {
            jobs = self.queue(None).await?;
        } else {
            jobs.retain(|job| !job.phase.is_live());
            let ids = jobs.iter().flat_map(|job| std::iter::once(&job.id).chain(&job.other_id));
            let ended: Vec<String> = ids.cloned().collect();
            jobs.extend(self.queue(Some(&ended)).await?);
        }
        Ok((Work { jobs, host }, began.or_earlier(host_began.after(HOST_LEAD))))
    }

    async fn queue(&self, ended: Option<&[String]>) -> Result<Vec<DeviceJob>, BmcError> {
        if self.actor.clients().ways.iter().all(|way| way.bmc.firmware().is_none()) {
            return Err(BmcError::new(BmcErrorKind::NoQueue, "no transport of this BMC shows device jobs"));
        }
        Ok(self
            .read(Pick::Best, |bmc| {
                bmc.firmware().map(|device| match ended {
                    None => device.jobs(),
                    Some(ended) => device.jobs_beside(ended.to_vec()),
                })
            })
            .await?
            .1)
    }
}

tokio::task_local! {
    static LOOK: Look;
}

#[derive(Clone)]
pub(super) struct Look {
    clock: Arc<dyn Clock>,
    began: Moment,
    /// Requests that have left.
    left: Arc<AtomicU32>,
    /// One was kept from leaving.
    refused: Arc<AtomicBool>,
}

impl Look {
    /// The look that the mutation of the caller's future is based on.
    pub(super) fn of_this_mutation() -> Option<Self> {
        LOOK.try_with(Self::clone).ok()
    }

    /// For one request that changes something.
    pub(super) fn leaving(&self) -> Leaving {
        Leaving { look: self.clone(), counted: Arc::default() }
    }

    fn age(&self) -> Duration {
        self.began.age(self.clock.moment())
    }

    fn is_too_old(&self) -> bool {
        self.age() > LOOK_AGE
    }

    fn too_old(&self) -> BmcError {
        let detail = format!(
            "nothing was sent: what the BMC had shown was {} s old when the request could leave, and may be {} s old; the \
             BMC answers slowly, as with many old jobs in its queue, or this executor's machine is overloaded",
            self.age().as_secs(),
            LOOK_AGE.as_secs()
        );
        BmcError::new(BmcErrorKind::Held(Hold::OldLook), detail)
    }

    /// Drives a mutation whose requests leave while the look is recent.
    ///
    /// # Errors
    /// The look became too old before the request left.
    pub(super) async fn before<T>(self, mutation: impl Future<Output = T> + Send) -> Result<T, BmcError> {
        let answer = LOOK.scope(self.clone(), mutation).await;
        if self.refused.load(Ordering::Relaxed) { Err(self.too_old()) } else { Ok(answer) }
    }
}

/// One request of a mutation.
pub(super) struct Leaving {
    look: Look,
    /// Among those that have left.
    counted: Arc<AtomicBool>,
}

impl Leaving {
    /// Whether the request may leave: not if so much was read before it that the look has become too old. Once one has
    /// left, what belongs to it follows.
    pub(super) fn fence(&self) -> Fence {
        let (look, counted) = (self.look.clone(), Arc::clone(&self.counted));
        Arc::new(move || {
            if counted.load(Ordering::Relaxed) {
                return true;
            }
            let may = look.left.load(Ordering::Relaxed) > 0 || !look.is_too_old();
            if may {
                counted.store(true, Ordering::Relaxed);
                look.left.fetch_add(1, Ordering::Relaxed);
            } else {
                look.refused.store(true, Ordering::Relaxed);
            }
            may
        })
    }

    /// It was not taken, as its session had ended or what it asks for is elsewhere, or has not left after all: whatever
    /// is sent instead is asked anew.
    pub(super) fn returned(&self) {
        if self.counted.swap(false, Ordering::Relaxed) {
            self.look.left.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A machine whose hypervisor may hold it: then the time of day alone goes on.
    #[derive(Default)]
    pub struct Held(Mutex<Moment>);

    impl Held {
        pub fn pass(&self, now: u64, wall: u64) {
            let mut moment = self.0.lock().unwrap();
            moment.now += Duration::from_secs(now);
            moment.wall += Duration::from_secs(wall);
        }
    }

    impl Clock for Held {
        fn now(&self) -> Duration {
            self.0.lock().unwrap().now
        }

        fn wall(&self) -> Duration {
            self.0.lock().unwrap().wall
        }

        fn sleep(&self, _: Duration) -> futures::future::BoxFuture<'static, ()> {
            Box::pin(std::future::pending())
        }
    }

    pub fn look() -> (Arc<Held>, Look) {
        let clock = Arc::new(Held::default());
        let began = clock.moment();
        (Arc::clone(&clock), Look { clock, began, left: Arc::default(), refused: Arc::default() })
    }

    #[tokio::test]
    async fn a_request_leaves_within_the_age_and_what_belongs_to_it_follows() {
        for (now, wall, leaves) in [(20, 20, true), (21, 21, false), (5, 21, false)] {
            let (clock, look) = look();
            clock.pass(now, wall);
            let fence = look.leaving().fence();
            assert_eq!((fence(), fence()), (leaves, leaves), "{now} {wall}");
            clock.pass(600, 600);
            assert_eq!((fence(), look.leaving().fence()()), (leaves, leaves));
            let outcome = look.before(std::future::ready(())).await;
            assert_eq!(outcome.is_ok(), leaves);
        }
    }

    /// Its session had ended, and the login took its time.
    #[test]
    fn a_request_that_was_not_taken_is_looked_at_again() {
        let (clock, look) = look();
        let first = look.leaving();
        assert!(first.fence()());
        let second = look.leaving();
        second.returned();
        clock.pass(21, 21);
        assert!(look.leaving().fence()(), "one has left, and the other one never had");
        first.returned();
        look.left.store(0, Ordering::Relaxed);
        assert!(!look.leaving().fence()());
    }
}
