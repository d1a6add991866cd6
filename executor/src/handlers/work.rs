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

/// Why power is not changed now.
pub struct Busy {
    pub words: String,
    pub why: Why,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A device job.
    Job,
    /// The host is in a boot: that ends without anybody.
    Boot,
    /// No work is shown, by a device that has not answered for long enough.
    Unsure,
}

impl Why {
    /// Word of the wait for it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Job => "device_job",
            Self::Boot => "host_booting",
            Self::Unsure => "device_busy",
        }
    }
}

/// Name of the wait for the end of one boot, from look to look ([`PASSING`](crate::engine::PASSING)).
const BOOT: &str = "~boot";

/// What a change of power would hit now or in the next moment, for a host whose power is `power`. A job that waits, or
/// an ended one that has left the rest to a boot, is no reason, unless the host is in a boot that may carry it out. That
/// may hang, at a prompt or with broken memory: it is a reason for as long as a boot takes, counted from the first look
/// and without a break. None also where the device declares no job queue.
///
/// # Errors
/// When a queue that is declared cannot be read, or is not found, or, beside a job that waits, what the host is at.
pub async fn at_work(context: &Context, power: PowerState) -> Result<Option<Busy>, BmcError> {
    match look(context, power).await {
        Err(error) if error.kind == BmcErrorKind::NoQueue => Ok(None),
        other => other,
    }
}

/// The same before power is cut beside work that may be there. A device that was away, or that nobody has looked at yet,
/// shows no queue, or an empty one, before it has read what is in it: that counts once it has answered for a while.
///
/// # Errors
/// As [`at_work`].
pub async fn may_be_at_work(context: &Context, power: PowerState) -> Result<Option<Busy>, BmcError> {
    let work = at_work(context, power).await?;
    let unsure = work.is_none() && !context.has_shown_all();
    Ok(if unsure { Some(shows_none(context)) } else { work })
}

/// That no work is shown yet.
pub fn shows_none(context: &Context) -> Busy {
    let least = context.timing().upload_visibility.as_secs();
    let words = format!(
        "the BMC shows no job; one that has just restarted may show it late, so that counts once it has answered for \
         {least} s without a break"
    );
    Busy { words, why: Why::Unsure }
}

/// As [`at_work`].
///
/// # Errors
/// Also [`BmcErrorKind::NoQueue`].
pub async fn look(context: &Context, power: PowerState) -> Result<Option<Busy>, BmcError> {
    let seen = seen(context, power).await;
    let boots = matches!(&seen, Ok(Some(Busy { why: Why::Boot, .. })));
    if !boots {
        nothing_seen(context);
        return seen;
    }
    Ok(if context.waited(BOOT) < context.timing().host_boot { seen? } else { None })
}

/// Whether the last look has seen a boot, however long it lasts.
pub fn boots(context: &Context) -> bool {
    context.waits_begun(BOOT) > 0
}

/// No boot was seen, or nothing looked at: the next one has its whole time.
pub fn nothing_seen(context: &Context) {
    context.end_wait(BOOT);
}

async fn seen(context: &Context, power: PowerState) -> Result<Option<Busy>, BmcError> {
    let may_boot =
        |jobs: &[DeviceJob]| power != PowerState::Off && jobs.iter().any(|job| job.phase.awaits_a_boot());
    let work = context.line.work(may_boot).await?;
    if let Some(words) = under_way(&work.jobs) {
        return Ok(Some(Busy { words, why: Why::Job }));
    }
    let host = match work.host {
        // It never tells.
        Err(error) if matches!(error.kind, BmcErrorKind::Unsupported | BmcErrorKind::Refused) => None,
        host => host?,
    };
    Ok(host.map(|host| {
        let words = format!("{}, and device jobs wait for this boot", host.words);
        Busy { words, why: if host.tasks { Why::Job } else { Why::Boot } }
    }))
}
