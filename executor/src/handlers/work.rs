//! Is the device at work, or about to be? Whatever changes the host's power asks this first: without power, or on its
//! way through a boot, a component that is being written is destroyed.

use rackhand_schema::server::PowerState;

use crate::{
    bmc::{BmcError, BmcErrorKind, DeviceJob, HostWork},
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
        host => Ok(waited_for(&work.jobs, host?)),
    }
}

/// The boot that device jobs wait for, in words. What an ended job has left to a boot, its record may say for ever:
/// that counts while the host carries out tasks alone.
fn waited_for(jobs: &[DeviceJob], host: Option<HostWork>) -> Option<String> {
    let host = host.filter(|host| host.tasks || jobs.iter().any(|job| job.phase.waits()))?;
    Some(format!("{}, and device jobs wait for this boot", host.words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bmc::JobPhase;

    /// A host hangs in its boot, at a prompt: it can be switched off, unless a job waits for that very boot.
    #[test]
    fn what_an_ended_job_left_to_a_boot_holds_nobody_up_but_in_tasks() {
        let said = |phase, tasks| {
            let (id, name) = ("JID_1".to_owned(), "Firmware Update: BIOS".to_owned());
            let job = DeviceJob { id, other_id: None, name, phase, firmware: None, targets: vec![] };
            waited_for(&[job], Some(HostWork { words: "the host is at work".to_owned(), tasks })).is_some()
        };
        assert_eq!([false, true].map(|tasks| said(JobPhase::RebootPending, tasks)), [false, true]);
        assert_eq!([false, true].map(|tasks| said(JobPhase::Scheduled, tasks)), [true, true]);
        assert_eq!(waited_for(&[], None), None);
    }
}
