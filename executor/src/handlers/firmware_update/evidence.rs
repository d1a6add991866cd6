//! Was the package taken? The rules for a hand-over whose answer was lost; pure.
//!
//! A BMC's clock proves nothing, so job ids from before are compared with those of now, then names and targets,
//! and the log is asked last. A log that was cleared tells nothing.

use crate::bmc::{DeviceJob, LogSince};

/// What the device's queue and log say after the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trace {
    /// Queue and log show nothing new.
    Nothing,
    /// This job is ours.
    Job(String),
    /// One new job, and it is about something else.
    Foreign(String),
    /// More than one explanation.
    Several(String),
}

/// What the queue held, as [`trace`] takes it: a job under both of its ids, as one of its places may drop it earlier.
pub fn ids(queue: &[DeviceJob]) -> Vec<String> {
    queue.iter().flat_map(|job| std::iter::once(&job.id).chain(&job.other_id)).cloned().collect()
}

/// `before`: job ids from before the first request. `log`: what was recorded after it; none where there is no log.
pub fn trace(
    before: &[String],
    now: &[DeviceJob],
    log: Option<&LogSince>,
    component: &str,
    component_name: &str,
) -> Trace {
    let new: Vec<&DeviceJob> = now.iter().filter(|job| !before.iter().any(|id| job.is(id))).collect();
    match new.as_slice() {
        [] => {
            // A job that came and went: the log knows its name.
            let mut records = log.into_iter().flat_map(|log| &log.records);
            match records.find(|(id, text)| is_job_record(id, text, before)) {
                Some((id, text)) => {
                    Trace::Several(format!("the log tells of a job ({id}: {text}), the queue shows none"))
                }
                None if log.is_some_and(|log| !log.whole) => {
                    Trace::Several("the queue shows no job, and the log was cleared or not read whole".into())
                }
                None => Trace::Nothing,
            }
        }
        [job] if is_ours(job, component, component_name) => Trace::Job(job.id.clone()),
        [job] => {
            Trace::Foreign(format!("job {} ({}) appeared and is about something else", job.id, job.name))
        }
        several => {
            let ids: Vec<&str> = several.iter().map(|job| job.id.as_str()).collect();
            Trace::Several(format!("{} jobs appeared: {}", ids.len(), ids.join(", ")))
        }
    }
}

/// Whether a log record speaks of a job that was not there before.
fn is_job_record(id: &str, text: &str, before: &[String]) -> bool {
    let names_job = text
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .any(|word| word.starts_with("JID_") && !before.iter().any(|known| known == word));
    names_job || id.starts_with("JCP") || id.starts_with("SUP") || id.starts_with("RED")
}

/// Whether `job` can be the update of this component. Silence of the device about it is no evidence against.
fn is_ours(job: &DeviceJob, component: &str, component_name: &str) -> bool {
    if job.firmware == Some(false) {
        return false;
    }
    if !job.targets.is_empty() {
        return job.targets.iter().any(|target| target.contains(component));
    }
    // Dell names them `Firmware Update: BIOS`.
    let Some((_, about)) = job.name.split_once(':') else { return true };
    let about = about.trim().to_ascii_lowercase();
    let names = [component, component_name].map(str::to_ascii_lowercase);
    about.is_empty()
        || names.iter().any(|name| name.contains(&about) || about.contains(name.as_str()))
        || about.ends_with(".exe")
        || names.iter().any(|name| name.split(['.', ' ']).next().is_some_and(|first| about.contains(first)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bmc::JobPhase;

    fn job(id: &str, name: &str) -> DeviceJob {
        DeviceJob {
            id: id.into(),
            other_id: None,
            name: name.into(),
            phase: JobPhase::Scheduled,
            firmware: None,
            targets: vec![],
        }
    }

    fn found(now: &[DeviceJob], records: &[(String, String)]) -> Trace {
        let log = LogSince { records: records.to_vec(), whole: true };
        trace(&["JID_1".into()], now, Some(&log), "BIOS.Setup.1-1", "BIOS")
    }

    /// It was listed in one place before, and is in two now.
    #[test]
    fn a_job_is_known_by_either_of_its_ids() {
        let both = |before: &str| {
            let job = DeviceJob { other_id: Some("7".into()), ..job("Jobs/7", "Firmware Update: BIOS") };
            trace(&[before.into()], &[job], None, "BIOS.Setup.1-1", "BIOS")
        };
        assert_eq!((both("7"), both("Jobs/7")), (Trace::Nothing, Trace::Nothing));
        assert_eq!(both("6"), Trace::Job("Jobs/7".into()));
        let before =
            ids(&[DeviceJob { other_id: Some("7".into()), ..job("Jobs/7", "Firmware Update: BIOS") }]);
        let left = [job("7", "Firmware Update: BIOS")];
        assert_eq!(trace(&before, &left, None, "BIOS.Setup.1-1", "BIOS"), Trace::Nothing, "the task is left");
    }

    #[test]
    fn a_log_with_a_hole_proves_nothing() {
        let cleared = LogSince { records: vec![], whole: false };
        let seen = |now: &[DeviceJob], log| trace(&[], now, log, "BIOS.Setup.1-1", "BIOS");
        assert!(matches!(seen(&[], Some(&cleared)), Trace::Several(_)));
        assert_eq!(seen(&[], None), Trace::Nothing, "a device without a log has its queue");
        let ours = [job("JID_2", "Firmware Update: BIOS")];
        assert_eq!(seen(&ours, Some(&cleared)), Trace::Job("JID_2".into()));
    }

    #[test]
    fn one_new_job_of_the_right_name_is_ours() {
        let old = job("JID_1", "Firmware Update: BIOS");
        assert_eq!(found(std::slice::from_ref(&old), &[]), Trace::Nothing, "jobs from before prove nothing");
        assert_eq!(
            found(&[old.clone(), job("JID_2", "Firmware Update: BIOS")], &[]),
            Trace::Job("JID_2".into())
        );
        assert_eq!(found(&[old, job("JID_2", "update")], &[]), Trace::Job("JID_2".into()));
    }

    #[test]
    fn foreign_and_several_are_told_apart() {
        assert!(matches!(found(&[job("JID_2", "Firmware Update: Network")], &[]), Trace::Foreign(_)));
        let mut configuration = job("JID_2", "Configure: BIOS.Setup.1-1");
        configuration.firmware = Some(false);
        assert!(matches!(found(&[configuration], &[]), Trace::Foreign(_)));
        let mut targeted = job("JID_2", "x");
        targeted.targets = vec!["NIC.Slot.1".into()];
        assert!(matches!(found(&[targeted], &[]), Trace::Foreign(_)));
        let two = [job("JID_2", "Firmware Update: BIOS"), job("JID_3", "Firmware Update: BIOS")];
        assert!(matches!(found(&two, &[]), Trace::Several(_)));
    }

    #[test]
    fn a_job_that_only_the_log_knows_is_not_nothing() {
        let record = |id: &str, text: &str| vec![(id.to_owned(), text.to_owned())];
        assert!(matches!(found(&[], &record("LOG1", "job JID_7 done")), Trace::Several(_)));
        assert!(matches!(found(&[], &record("JCP027", "created")), Trace::Several(_)));
        assert_eq!(found(&[], &record("USR0030", "logged in")), Trace::Nothing);
        assert_eq!(found(&[], &record("LOG1", "job JID_1 done")), Trace::Nothing);
    }
}
