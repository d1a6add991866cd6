//! Every duration the executor waits or gives up after, in one place.
//!
//! The defaults are for real servers. A simulated site whose devices run faster than the wall clock sets
//! `device_time_scale` in `executor.toml`; [`Timing::scaled`] then shortens what depends on devices and leaves
//! network limits alone.

use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// Between two looks at a device job.
    pub poll: Duration,
    /// Between two looks at a power state.
    pub power_poll: Duration,
    /// A read from a BMC ends by then.
    pub read: Duration,
    /// A short mutation (reset, SimpleUpdate, delete) ends by then; a third of the lease at most.
    pub mutation: Duration,
    /// A package upload ends by then.
    pub upload: Duration,
    /// After a mutation, how long a device may take until its evidence can be trusted.
    pub settle: Duration,
    /// How long an accepted job may stay invisible in every queue.
    pub job_visibility: Duration,
    /// How long a job may stay invisible after its package was handed over: large ones are unpacked first.
    pub upload_visibility: Duration,
    /// A BMC may stay away for so long before the run gives up on it.
    pub bmc_outage: Duration,
    /// From a reset to the staged job's start.
    pub host_boot: Duration,
    /// Without any progress of a device job it counts as stalled.
    pub stall: Duration,
    /// A Lifecycle Controller may stay busy for so long.
    pub ready_wait: Duration,
    /// Somebody else's device job may stay in the queue for so long.
    pub foreign_wait: Duration,
    /// An operating system that was asked to shut down or restart gets so long.
    pub graceful: Duration,
    /// A power change that needs no operating system is read back within.
    pub power_change: Duration,
    /// A new version is read back within.
    pub verify: Duration,
    /// A run that waits repeats its checkpoint at least so often.
    pub heartbeat: Duration,
    /// First pause after a failed request to the control plane; doubles up to `retry_max`.
    pub retry: Duration,
    pub retry_max: Duration,
    /// Longest lease request, held open by the control plane.
    pub lease_wait: Duration,
    /// Requests to one BMC: so many at once in a burst, then one in each `bmc_interval`.
    pub bmc_burst: u32,
    pub bmc_interval: Duration,
    /// After a refused login a BMC is not tried again for so long. Longer than the minute within which BMCs count
    /// failures.
    pub auth_pause: Duration,
    /// Runs under way at a drain get so long to reach a safe point.
    pub drain: Duration,
}

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            poll: seconds(15),
            power_poll: seconds(5),
            read: seconds(60),
            mutation: seconds(10),
            upload: seconds(600),
            settle: seconds(60),
            job_visibility: seconds(60),
            upload_visibility: seconds(5 * 60),
            bmc_outage: seconds(15 * 60),
            host_boot: seconds(20 * 60),
            stall: seconds(45 * 60),
            ready_wait: seconds(30 * 60),
            foreign_wait: seconds(10 * 60),
            graceful: seconds(10 * 60),
            power_change: seconds(3 * 60),
            verify: seconds(15 * 60),
            heartbeat: seconds(60),
            retry: seconds(1),
            retry_max: seconds(30),
            lease_wait: seconds(20),
            bmc_burst: 20,
            bmc_interval: Duration::from_millis(250),
            auth_pause: seconds(5 * 60),
            drain: seconds(60),
        }
    }
}

impl Timing {
    /// For devices that live `factor` times as fast as the wall clock; 1 or less changes nothing.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        if !factor.is_finite() || factor <= 1.0 {
            return self.clone();
        }
        let scale = |duration: Duration, floor_ms: u64| {
            Duration::from_secs_f64(duration.as_secs_f64() / factor).max(Duration::from_millis(floor_ms))
        };
        Self {
            poll: scale(self.poll, 100),
            power_poll: scale(self.power_poll, 100),
            // Network work is not faster in a simulation: floors that a loaded test machine still meets.
            upload: scale(self.upload, 10_000),
            settle: scale(self.settle, 500),
            job_visibility: scale(self.job_visibility, 500),
            upload_visibility: scale(self.upload_visibility, 2_000),
            bmc_outage: scale(self.bmc_outage, 10_000),
            host_boot: scale(self.host_boot, 5_000),
            stall: scale(self.stall, 10_000),
            ready_wait: scale(self.ready_wait, 10_000),
            foreign_wait: scale(self.foreign_wait, 5_000),
            graceful: scale(self.graceful, 3_000),
            power_change: scale(self.power_change, 5_000),
            verify: scale(self.verify, 10_000),
            heartbeat: scale(self.heartbeat, 1_000),
            bmc_interval: scale(self.bmc_interval, 5),
            auth_pause: scale(self.auth_pause, 5_000),
            ..self.clone()
        }
    }

    /// The longest a mutation of ours may last: what a successor waits out, with `settle` on top.
    pub fn longest_mutation(&self) -> Duration {
        self.mutation.max(self.upload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaling_shortens_devices_and_keeps_the_network() {
        let real = Timing::default();
        let fast = real.scaled(60.0);
        assert_eq!(fast.settle, Duration::from_secs(1));
        assert_eq!(fast.read, real.read);
        assert_eq!(fast.upload, Duration::from_secs(10));
        assert_eq!(real.scaled(0.5), real);
        assert_eq!(real.scaled(f64::NAN), real);
    }
}
