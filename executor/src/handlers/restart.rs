//! Has the host restarted? A restart leaves the power state as it was, so something else must tell: the device's log,
//! or the time of the last reset. [`Mark`] is what both said before.

use std::collections::BTreeMap;

use rackhand_schema::protocol::Intent;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    bmc::{BmcError, BmcErrorKind, PowerTrace, Via},
    engine::Context,
};

/// Newest log record and last reset before a restart; absent where the device does not tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mark {
    pub log_mark: Option<u64>,
    pub last_reset: Option<String>,
}

/// Which of the questions for a mark a transport has left without an answer, and how often. They are optional: one that
/// is never answered is not asked for ever.
#[derive(Debug, Default)]
pub struct Mute(BTreeMap<(Via, Question), u8>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Question {
    Log,
    Reset,
}

impl Mute {
    /// So often is one asked that is not answered.
    const MOST: u8 = 2;

    async fn ask<T: Default>(
        &mut self,
        asked: (Via, Question),
        answer: impl Future<Output = Result<T, BmcError>>,
    ) -> T {
        let misses = self.0.entry(asked).or_default();
        if *misses >= Self::MOST {
            return T::default();
        }
        let answer = answer.await;
        if answer.as_ref().is_err_and(|error| error.kind == BmcErrorKind::Unreachable) {
            *misses += 1;
        }
        answer.unwrap_or_default()
    }
}

impl Mark {
    /// A device that tells neither is no reason not to restart the host; the outcome is then less certain.
    pub async fn take(context: &Context, via: Via, mute: &mut Mute) -> Self {
        Self {
            log_mark: mute.ask((via, Question::Log), context.line.event_mark(via)).await,
            last_reset: mute.ask((via, Question::Reset), context.line.last_reset(via)).await,
        }
    }

    /// The mark that an intent stored.
    pub fn of(intent: &Intent) -> Self {
        let before = |name: &str| intent.before.get(name);
        Self {
            log_mark: before("log_mark").and_then(Value::as_u64),
            last_reset: before("last_reset").and_then(Value::as_str).map(str::to_owned),
        }
    }

    /// What has happened since, as far as `via` tells.
    ///
    /// # Errors
    /// When the device cannot be read.
    pub async fn trace(&self, context: &Context, via: Via) -> Result<PowerTrace, BmcError> {
        let logged = match context.line.power_trace(via, self.log_mark).await {
            Err(error) if matches!(error.kind, BmcErrorKind::Unsupported | BmcErrorKind::NotFound) => {
                PowerTrace::Untold
            }
            other => other?,
        };
        if logged == PowerTrace::Seen || self.last_reset.is_none() {
            return Ok(logged);
        }
        let now = context.line.last_reset(via).await?;
        Ok(combined(logged, self.last_reset.as_deref(), now.as_deref()))
    }
}

/// A time of the last reset that has changed tells; one that has not proves nothing, as not every BMC keeps it.
fn combined(logged: PowerTrace, before: Option<&str>, now: Option<&str>) -> PowerTrace {
    match (before, now) {
        (Some(before), Some(now)) if before != now => PowerTrace::Seen,
        _ => logged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_change_tells() {
        let (seen, nothing, untold) = (PowerTrace::Seen, PowerTrace::Nothing, PowerTrace::Untold);
        for (logged, before, now, told) in [
            (seen, None, None, seen),
            (nothing, Some("1"), Some("2"), seen),
            (untold, Some("1"), Some("2"), seen),
            (nothing, Some("1"), Some("1"), nothing),
            (untold, Some("1"), Some("1"), untold),
            (untold, None, Some("2"), untold),
            (untold, Some("1"), None, untold),
        ] {
            assert_eq!(combined(logged, before, now), told, "{logged:?} {before:?} {now:?}");
        }
    }
}
