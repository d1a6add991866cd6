//! Is the device at work, or about to be? Whatever changes the host's power asks this first: without power, or on its
//! way through a boot, a component that is being written is destroyed.

use rackhand_schema::server::PowerState;

use crate::{
    bmc::{BmcError, BmcErrorKind, DeviceJob},
    engine::Context,
};

/// A device job that is under way, or begins by itself within seconds, in words.
pub fn under_way<'a>(jobs: impl IntoIterator<Item = &'a DeviceJob>) -> Option<String> {
    let job = jobs.into_iter().find(|job| job.phase.is_live() && !job.phase.waits())?;
    Some(format!("device job {} ({}) is under way", job.id, job.name))
}

/// What a change of power would hit now or in the next moment, in words, for a host whose power is `power`. A job
/// that waits is no reason, unless the host is in the boot that carries it out. None also where the device declares
/// no job queue.
///
/// # Errors
/// When a queue that is declared cannot be read, or is not found, or, beside a job that waits, what the host is at.
pub async fn at_work(context: &Context, power: PowerState) -> Result<Option<String>, BmcError> {
    let may_boot =
        |jobs: &[DeviceJob]| power != PowerState::Off && jobs.iter().any(|job| job.phase.awaits_a_boot());
    let work = match context.line.work(may_boot).await {
        Err(error) if error.kind == BmcErrorKind::NoQueue => return Ok(None),
        other => other?,
    };
    if let Some(job) = under_way(&work.jobs) {
        return Ok(Some(job));
    }
    match work.host {
        // It never tells.
        Err(error) if matches!(error.kind, BmcErrorKind::Unsupported | BmcErrorKind::Refused) => Ok(None),
        host => Ok(host?.map(|why| format!("{why}, and device jobs wait for this boot"))),
    }
}
