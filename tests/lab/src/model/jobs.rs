//! The job queue and the update engine: download, verify, stage or flash, finish.
//!
//! One job works at a time, as the Lifecycle Controller does it; the others wait as `New`. Staged jobs end
//! their first half as `Scheduled` and are flashed by the boot that follows (see `host`).

use std::time::Duration;

use bytes::Bytes;

use super::FetchFailure;
use super::bmc::Bmc;
use super::job::{Apply, Image, ImageFault, Job, State, UpdateRequest};
use super::messages::Message;
use crate::counters::{FlashOutcome, FlashRecord};
use crate::fault::Fault;
use crate::package::{PackageFault, PackageHeader, identify};
use crate::spec::Kind;

/// Jobs that may wait or run at once (`DellJobService.MaximumNumberOfJobs` of the recorded tree).
pub(crate) const JOB_LIMIT: usize = 256;
/// From this many on the oldest finished jobs are dropped (`StartAutoDeleteAtThreshold`, ibid.).
const AUTO_DELETE_AT: usize = 128;
/// From acceptance to the job being looked at.
const PICK_UP: Duration = Duration::from_secs(1);

impl Bmc {
    /// Puts an update into the queue; the caller has checked the limit. Answers the job's id.
    pub(crate) fn create_update(&mut self, request: UpdateRequest) -> String {
        let id = self.next_job_id();
        if self.jobs.iter().any(|job| job.state == State::Running && job.flash.is_some()) {
            self.counters.flash_attempts_while_flashing += 1;
        }
        let image = match request.content {
            Some(result) => Image::Ready { at: self.now, result: result.map_err(ImageFault::Package) },
            None => Image::Pending,
        };
        if let Some(url) = request.url {
            self.counters.image_fetches += 1;
            self.fetches.push(super::Fetch { bmc: self.index, job: id.clone(), url });
        }
        self.enqueue(Job {
            id: id.clone(),
            name: "Firmware Update".to_owned(),
            job_type: "FirmwareUpdate",
            state: State::New,
            message: Message::info("JCP000", "A new job was created."),
            created: self.now,
            visible_at: self.now,
            started: None,
            until: None,
            ended: None,
            image,
            file: request.file,
            targets: Vec::new(),
            apply: request.apply,
            origin: request.origin,
            critical: false,
            task_gone_at: None,
            job_gone_at: None,
            flash: None,
        });
        id
    }

    /// A configuration job of another console, which waits for a reboot.
    pub(crate) fn create_configuration(&mut self, origin: &str) -> String {
        let id = self.next_job_id();
        self.enqueue(Job {
            id: id.clone(),
            name: "Configure: BIOS.Setup.1-1".to_owned(),
            job_type: "BIOSConfiguration",
            state: State::Scheduled,
            message: Message::info("JCP001", "The task is scheduled."),
            created: self.now,
            visible_at: self.now,
            started: None,
            until: None,
            ended: None,
            image: Image::None,
            file: String::new(),
            targets: Vec::new(),
            apply: Apply::OnReset,
            origin: origin.to_owned(),
            critical: false,
            task_gone_at: None,
            job_gone_at: None,
            flash: None,
        });
        id
    }

    fn enqueue(&mut self, mut job: Job) {
        job.visible_at = self.now
            + match self.faults.take("job_visibility_delay") {
                Some(Fault::JobVisibilityDelay { seconds }) => Duration::from_secs(seconds),
                _ => self.timings.job_visibility,
            };
        self.counters.jobs_created += 1;
        self.log_lc("Audit", Message::info("JCP027", "A job was created.").with_args([job.id.clone()]));
        while self.jobs.len() >= AUTO_DELETE_AT {
            let Some(oldest) = self.jobs.iter().position(Job::is_over) else { break };
            self.jobs.remove(oldest);
        }
        self.jobs.push(job);
    }

    pub(crate) fn open_jobs(&self) -> usize {
        self.jobs.iter().filter(|job| !job.is_over()).count()
    }

    /// `JID_` and twelve digits made of the BMC's clock, as real ones are: with a lying clock they do not
    /// sort.
    fn next_job_id(&mut self) -> String {
        let mut number = self.clock().centiseconds(self.now) % 1_000_000_000_000;
        while self.job_numbers.contains(&number) {
            number += 1;
        }
        self.job_numbers.insert(number);
        format!("JID_{number:012}")
    }

    pub(crate) fn deliver(&mut self, id: &str, now: Duration, result: Result<Bytes, FetchFailure>) {
        let result = match result {
            Ok(content) => identify(&content).map_err(ImageFault::Package),
            Err(failure) => Err(ImageFault::Fetch(failure)),
        };
        if let Some(job) = self.jobs.iter_mut().find(|job| job.id == id)
            && matches!(job.image, Image::Pending)
        {
            job.image = Image::Ready { at: now, result };
        }
    }

    /// When the job has something to do next, if time alone makes it happen.
    pub(crate) fn job_due(&self, job: &Job) -> Option<Duration> {
        match job.state {
            State::New => self.lc_is_free().then(|| (job.created + PICK_UP).max(self.lc_ready_at)),
            State::Downloading => match &job.image {
                Image::Ready { at, .. } => job.until.map(|until| until.max(*at)),
                _ => None,
            },
            State::Running => job.until,
            _ => None,
        }
    }

    /// Nothing occupies the Lifecycle Controller.
    pub(crate) fn lc_is_free(&self) -> bool {
        self.is_up()
            && !self.faults.is_on("lc_busy")
            && !self.host.is_updating()
            && !self.jobs.iter().any(Job::is_working)
    }

    pub(crate) fn step_job(&mut self, index: usize) {
        let now = self.now;
        let download = self.timings.download;
        let Some(job) = self.jobs.get_mut(index) else { return };
        match job.state {
            State::New => {
                job.state = State::Downloading;
                job.until = Some(now + download);
                job.message = Message::info("RED003", format!("Downloading {}.", job.file));
            }
            State::Downloading => self.verify_image(index),
            State::Running => self.finish_flash(index),
            _ => {}
        }
    }

    fn verify_image(&mut self, index: usize) {
        let product = self.spec.model.product();
        let generation = self.spec.model.generation();
        let Some(job) = self.jobs.get(index) else { return };
        let Image::Ready { result, .. } = &job.image else { return };
        let header = match result {
            Ok(header) => header.clone(),
            Err(ImageFault::Fetch(failure)) => {
                let text = format!("The update package could not be downloaded: {failure}.");
                return self.fail(index, Message::new("RED006", text));
            }
            Err(ImageFault::Package(PackageFault::Corrupt)) => {
                return self.fail(index, Message::new("RED007", "The package's signature is not valid."));
            }
            Err(ImageFault::Package(PackageFault::NotAPackage)) => {
                return self.fail(index, Message::new("RED008", "The package holds no payload."));
            }
        };
        let fits = header.generation == generation && header.models.iter().any(|model| model == product);
        let targets: Vec<usize> = (0..self.components.len())
            .filter(|at| fits && self.components.get(*at).is_some_and(|component| component.takes(&header)))
            .collect();
        let Some(kind) = targets.first().and_then(|at| self.components.get(*at)).map(|at| at.spec.kind)
        else {
            return self
                .fail(index, Message::new("SUP024", "The package is for nothing that this server has."));
        };
        let apply = job.apply;
        if let Some(job) = self.jobs.get_mut(index) {
            job.name = format!("Firmware Update: {}", header.component);
            job.targets = targets;
            job.until = None;
        }
        if kind.is_direct() {
            self.start_flash(index);
        } else if apply == Apply::OnStart {
            self.set(index, State::Downloaded, Message::info("RED002", "The package is downloaded."));
        } else {
            self.schedule(index);
        }
    }

    /// Stages a job, and reboots the host where that is what was asked or what this firmware does.
    pub(crate) fn schedule(&mut self, index: usize) {
        let traits = self.traits();
        let Some(job) = self.jobs.get(index) else { return };
        let reboot = traits.self_reboots || job.apply == Apply::Immediate && !traits.apply_times.is_empty();
        self.set(index, State::Scheduled, Message::info("JCP001", "The task is scheduled."));
        if reboot {
            self.self_reboot();
        }
    }

    pub(crate) fn next_scheduled(&self) -> Option<usize> {
        self.jobs.iter().position(|job| job.state == State::Scheduled)
    }

    pub(crate) fn start_flash(&mut self, index: usize) {
        let now = self.now;
        let Some(job) = self.jobs.get(index) else { return };
        let Some(header) = job.header().cloned() else {
            // A configuration job: the boot applies it.
            let until = now + Duration::from_secs(30);
            if let Some(job) = self.jobs.get_mut(index) {
                job.started = Some(now);
                job.until = Some(until);
            }
            return self.set(index, State::Running, Message::info("PR20", "The job is in progress."));
        };
        let kind = job.targets.first().and_then(|at| self.components.get(*at)).map(|at| at.spec.kind);
        let until = now + kind.map_or(self.timings.flash_other, |kind| self.timings.flash(kind));
        let record = FlashRecord {
            bmc: self.spec.name.clone(),
            job: job.id.clone(),
            software_id: header.software_id.clone(),
            version: header.version.clone(),
            targets: job
                .targets
                .iter()
                .filter_map(|at| self.components.get(*at).map(|component| component.spec.fqdd.clone()))
                .collect(),
            started: now.as_secs_f64(),
            ended: None,
            outcome: FlashOutcome::Running,
        };
        let key = format!("{}@{}", header.software_id, header.version);
        *self.counters.flashes_started.entry(key).or_default() += 1;
        let flash = self.counters.flashes.len();
        self.counters.flashes.push(record);
        if let Some(job) = self.jobs.get_mut(index) {
            job.started = Some(now);
            job.until = Some(until);
            job.flash = Some(flash);
        }
        self.log_lc(
            "Updates",
            Message::info("SUP0516", format!("Updating {} to {}.", header.component, header.version))
                .with_args([header.component.clone(), header.version.clone()]),
        );
        self.set(index, State::Running, Message::info("PR20", "The job is in progress."));
    }

    fn finish_flash(&mut self, index: usize) {
        let Some(job) = self.jobs.get(index) else { return };
        let Some(header) = job.header().cloned() else {
            self.set(index, State::Completed, Message::info("PR19", "The job is done."));
            return self.boot_continues();
        };
        let targets = job.targets.clone();
        let kind = targets.first().and_then(|at| self.components.get(*at)).map(|at| at.spec.kind);
        let staged = kind.is_some_and(|kind| !kind.is_direct());
        if self.faults.take("flash_fails_pr21").is_some() {
            self.end_flash(index, FlashOutcome::Failed);
            self.fail(index, Message::new("PR21", "The job failed."));
        } else if self.faults.take("completed_critical").is_some() {
            self.end_flash(index, FlashOutcome::Failed);
            if let Some(job) = self.jobs.get_mut(index) {
                job.critical = true;
            }
            let message = Message::critical("JCP052", "The job ran and made no progress in its time.");
            self.set(index, State::Completed, message);
        } else if self.faults.take("completed_with_errors").is_some() {
            self.end_flash(index, FlashOutcome::Failed);
            let message = Message::new("JCP007", "The job ended with errors.");
            self.set(index, State::CompletedWithErrors, message);
        } else if !staged && kind != Some(Kind::Idrac) && self.faults.take("reboot_pending").is_some() {
            self.set(index, State::RebootPending, Message::info("RED029", "A reboot is pending."));
        } else if kind == Some(Kind::Idrac) {
            // The new firmware starts with a reset; job and version change when the BMC is back.
            if let Some(job) = self.jobs.get_mut(index) {
                job.until = None;
            }
            return self.reset_bmc(self.timings.bmc_update_reset, true);
        } else {
            self.install(index, &header, &targets);
        }
        if let Some(Fault::InventoryUnreadable { seconds }) = self.faults.take("inventory_unreadable") {
            self.inventory_unreadable_until = self.now + Duration::from_secs(seconds);
        }
        if staged {
            self.boot_continues();
        }
    }

    /// The flash wrote what it should: versions change and the job is done.
    pub(crate) fn install(&mut self, index: usize, header: &PackageHeader, targets: &[usize]) {
        let now = self.now;
        if self.faults.take("version_unchanged").is_none() {
            let updating = match self.faults.take("row_updating") {
                Some(Fault::RowUpdating { seconds }) => Duration::from_secs(seconds),
                _ => Duration::ZERO,
            };
            for at in targets {
                if let Some(component) = self.components.get_mut(*at) {
                    component.install(&header.version, now);
                    component.updating_until = now + updating;
                }
            }
            if header.software_id == "25227" {
                if let Some(Fault::ManagerStale { seconds }) = self.faults.take("manager_stale") {
                    self.manager_stale_until = now + Duration::from_secs(seconds);
                }
                // The Lifecycle Controller is part of the BMC's package.
                for component in &mut self.components {
                    if component.spec.software_id == "28897" {
                        component.spec.version.clone_from(&header.version);
                    }
                }
            }
        }
        self.end_flash(index, FlashOutcome::Completed);
        self.set(index, State::Completed, Message::info("PR19", "The job is done."));
        self.log_lc(
            "Updates",
            Message::info("SUP0518", format!("{} is updated to {}.", header.component, header.version))
                .with_args([header.component.clone(), header.version.clone()]),
        );
    }

    pub(crate) fn end_flash(&mut self, index: usize, outcome: FlashOutcome) {
        let now = self.now.as_secs_f64();
        let Some(record) = self
            .jobs
            .get(index)
            .and_then(|job| job.flash)
            .and_then(|flash| self.counters.flashes.get_mut(flash))
        else {
            return;
        };
        record.ended = Some(now);
        record.outcome = outcome;
        if outcome == FlashOutcome::Completed {
            let key = format!("{}@{}", record.software_id, record.version);
            *self.counters.flashes_completed.entry(key).or_default() += 1;
        }
    }

    pub(crate) fn fail(&mut self, index: usize, message: Message) {
        self.set(index, State::Failed, message);
    }

    fn set(&mut self, index: usize, state: State, message: Message) {
        let now = self.now;
        let over = state.is_over();
        let vanishes = if over { self.faults.take("task_vanishes") } else { None };
        let Some(job) = self.jobs.get_mut(index) else { return };
        job.state = state;
        job.message = message;
        if over {
            job.ended = Some(now);
            job.until = None;
            if let Some(Fault::TaskVanishes { seconds, everywhere }) = vanishes {
                let at = now + Duration::from_secs(seconds);
                job.task_gone_at = Some(at);
                job.job_gone_at = everywhere.then_some(at);
            }
            let done = Message::info("JCP037", "A job ended.").with_args([job.id.clone()]);
            let done = if state == State::Failed { job.message.clone() } else { done };
            self.log_lc("Audit", done);
        }
    }

    /// Power went away: whatever is being written and needs it is destroyed.
    pub(crate) fn brick_what_flashes(&mut self) {
        let now = self.now;
        for index in 0..self.jobs.len() {
            let Some(job) = self.jobs.get(index) else { continue };
            if job.state != State::Running || job.flash.is_none() {
                if job.state == State::Running {
                    self.fail(index, Message::new("PR21", "The job failed."));
                }
                continue;
            }
            let targets = job.targets.clone();
            let mortal = targets
                .iter()
                .any(|at| self.components.get(*at).is_some_and(|at| at.spec.kind.dies_without_power()));
            if !mortal {
                continue;
            }
            self.counters.power_losses_while_flashing += 1;
            for at in &targets {
                if let Some(component) = self.components.get_mut(*at) {
                    component.dead = true;
                    self.counters.bricked += 1;
                    let text = format!("Power was lost while {} was written.", component.spec.fqdd);
                    self.sel.add(now, "System Health", Message::critical("PR21", text));
                }
            }
            self.end_flash(index, FlashOutcome::Bricked);
            self.fail(index, Message::critical("PR21", "The job failed."));
        }
    }
}
