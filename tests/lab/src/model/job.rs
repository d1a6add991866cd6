//! One job of the queue: its states and how the three kinds of documents call them.

use std::time::Duration;

use super::FetchFailure;
use super::messages::Message;
use crate::package::{PackageFault, PackageHeader};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    New,
    Downloading,
    /// On the BMC, waiting for `StartUpdate`.
    Downloaded,
    Scheduled,
    Running,
    Completed,
    CompletedWithErrors,
    RebootPending,
    Failed,
}

impl State {
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Completed | Self::CompletedWithErrors | Self::Failed)
    }

    /// `DellJob.JobState`.
    pub(crate) fn dell(self) -> &'static str {
        match self {
            Self::New => "New",
            Self::Downloading => "Downloading",
            Self::Downloaded => "Downloaded",
            Self::Scheduled => "Scheduled",
            Self::Running => "Running",
            Self::Completed => "Completed",
            Self::CompletedWithErrors => "CompletedWithErrors",
            Self::RebootPending => "RebootPending",
            Self::Failed => "Failed",
        }
    }

    /// `Job.JobState` of the DMTF schema.
    pub(crate) fn dmtf(self) -> &'static str {
        match self {
            Self::New => "New",
            Self::Downloading | Self::Running => "Running",
            Self::Downloaded | Self::Scheduled | Self::RebootPending => "Pending",
            Self::Completed | Self::CompletedWithErrors => "Completed",
            Self::Failed => "Exception",
        }
    }

    /// `Task.TaskState` of the DMTF schema.
    pub(crate) fn task(self) -> &'static str {
        match self {
            Self::New => "New",
            Self::Downloading | Self::Running => "Running",
            Self::Downloaded | Self::RebootPending => "Pending",
            Self::Scheduled => "Starting",
            Self::Completed | Self::CompletedWithErrors => "Completed",
            Self::Failed => "Exception",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Apply {
    /// At once; a staged package reboots the host.
    Immediate,
    /// At the next boot, whoever causes it.
    OnReset,
    /// When `StartUpdate` is called.
    OnStart,
}

/// What a job works with.
#[derive(Clone, Debug)]
pub(crate) enum Image {
    /// The shell is fetching it.
    Pending,
    Ready {
        at: Duration,
        result: Result<PackageHeader, ImageFault>,
    },
    /// A configuration job: nothing to flash.
    None,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ImageFault {
    Fetch(FetchFailure),
    Package(PackageFault),
}

#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) job_type: &'static str,
    pub(crate) state: State,
    pub(crate) message: Message,
    pub(crate) created: Duration,
    pub(crate) visible_at: Duration,
    pub(crate) started: Option<Duration>,
    /// End of the download or flash in progress.
    pub(crate) until: Option<Duration>,
    pub(crate) ended: Option<Duration>,
    pub(crate) image: Image,
    pub(crate) file: String,
    /// Indices of the components it writes.
    pub(crate) targets: Vec<usize>,
    pub(crate) apply: Apply,
    /// Who asked: session and client.
    pub(crate) origin: String,
    /// Ended "successfully" with a critical status.
    pub(crate) critical: bool,
    pub(crate) task_gone_at: Option<Duration>,
    pub(crate) job_gone_at: Option<Duration>,
    /// Index into the flash records.
    pub(crate) flash: Option<usize>,
}

impl Job {
    pub(crate) fn is_visible(&self, now: Duration) -> bool {
        self.visible_at <= now && self.job_gone_at.is_none_or(|at| now < at)
    }

    pub(crate) fn has_task(&self, now: Duration, retention: Duration) -> bool {
        self.visible_at <= now
            && self.task_gone_at.is_none_or(|at| now < at)
            && self.ended.is_none_or(|at| now < at + retention)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.state.is_over()
    }

    /// Whether the Lifecycle Controller is busy with it.
    pub(crate) fn is_working(&self) -> bool {
        matches!(self.state, State::Downloading | State::Running)
    }

    pub(crate) fn percent(&self, now: Duration) -> u8 {
        match self.state {
            State::Completed | State::CompletedWithErrors | State::RebootPending => 100,
            State::Running => {
                let (Some(start), Some(until)) = (self.started, self.until) else { return 1 };
                let whole = until.saturating_sub(start).as_secs_f64().max(1.0);
                let done = now.saturating_sub(start).as_secs_f64() / whole * 100.0;
                done.clamp(1.0, 99.0) as u8
            }
            _ => 0,
        }
    }

    pub(crate) fn header(&self) -> Option<&PackageHeader> {
        match &self.image {
            Image::Ready { result: Ok(header), .. } => Some(header),
            _ => None,
        }
    }
}

/// What a request for an update asks for.
#[derive(Debug)]
pub(crate) struct UpdateRequest {
    pub(crate) file: String,
    /// Where to fetch the image; absent when it is already here.
    pub(crate) url: Option<String>,
    pub(crate) content: Option<Result<PackageHeader, PackageFault>>,
    pub(crate) apply: Apply,
    pub(crate) origin: String,
}
