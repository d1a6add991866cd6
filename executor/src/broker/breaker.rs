//! Stops asking a BMC that does not answer, for a while that grows; pure.

use std::time::Duration;

/// Failures in a row after which it opens.
const PATIENCE: u32 = 3;
/// Longest pause, in steps.
const MAX_STEPS: u32 = 4;

#[derive(Debug, Default)]
pub struct Breaker {
    failures: u32,
    open_until: Duration,
}

impl Breaker {
    /// How long it stays open; none: ask.
    pub fn open_for(&self, now: Duration) -> Option<Duration> {
        let left = self.open_until.saturating_sub(now);
        (self.failures >= PATIENCE && !left.is_zero()).then_some(left)
    }

    /// No connection. `step` is the unit of the pause.
    pub fn failed(&mut self, now: Duration, step: Duration) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= PATIENCE {
            self.open_until = now + step * (self.failures - PATIENCE + 1).min(MAX_STEPS);
        }
    }

    /// It answered. Whether that ends an outage.
    pub fn answered(&mut self) -> bool {
        std::mem::take(&mut self.failures) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_three_failures_and_one_answer_closes_it() {
        let (mut breaker, step) = (Breaker::default(), Duration::from_secs(10));
        let at = Duration::from_secs;
        breaker.failed(at(0), step);
        breaker.failed(at(1), step);
        assert_eq!(breaker.open_for(at(1)), None);
        breaker.failed(at(2), step);
        assert_eq!(breaker.open_for(at(2)), Some(step));
        assert_eq!(breaker.open_for(at(12)), None, "half open: one more try");
        breaker.failed(at(12), step);
        assert_eq!(breaker.open_for(at(12)), Some(step * 2));
        assert!(breaker.answered() && !breaker.answered(), "an outage ends once");
        assert_eq!(breaker.open_for(at(13)), None);
    }
}
