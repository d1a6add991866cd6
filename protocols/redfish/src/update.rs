//! Mutations: updates, resets, deleting a job.
//!
//! Each checks what the service declares before it sends anything, sends exactly one changing request, and ends by
//! its deadline. None is ever repeated here: a lost answer is [`crate::Class::Ambiguous`].

use bytes::Bytes;
use http::{HeaderValue, Method, Response, header};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::{
    classify::Class,
    client::{Call, Client, evidence},
    discovery::ROOT,
    document::{self, Message, action, is_safe_path, link, text_at},
    error::Error,
    jobs::own_id,
    model::{Accepted, ApplyTime, Capabilities, Identity, ResetKind, TaskRef, UpdateSemantics},
    system::link_in,
    transport::Body,
    version::{Generation, compare_versions},
};

/// An update that the BMC fetches itself.
#[derive(Clone, Debug, Default)]
pub struct SimpleUpdate {
    /// Where the package is, such as `http://10.0.0.5:8080/BIOS_1.10.2.EXE`.
    pub image_uri: String,
    /// `TransferProtocol`; `None`: the scheme of `image_uri` in upper case.
    pub transfer_protocol: Option<String>,
    /// When to apply; `None` sends no wish. A time that is not declared is refused before anything is sent.
    pub apply_time: Option<ApplyTime>,
    /// Paths of the inventory rows to update; empty leaves it to the package.
    pub targets: Vec<String>,
}

/// An update whose package is sent along.
#[derive(Clone, Debug, Default)]
pub struct MultipartUpdate {
    /// The package. Not copied.
    pub package: Bytes,
    /// Its file name; BMCs look at its extension.
    pub file_name: String,
    /// See [`SimpleUpdate::apply_time`].
    pub apply_time: Option<ApplyTime>,
    /// See [`SimpleUpdate::targets`].
    pub targets: Vec<String>,
}

/// How one job is deleted.
enum Deletion {
    /// POST to this target.
    ByAction(String),
    /// DELETE of this path.
    OfMember(String),
}

const APPLY_TIME: &str = "@Redfish.OperationApplyTime";

impl Client {
    /// Asks the BMC to fetch a package and install it (`UpdateService.SimpleUpdate`, DSP2046). By `deadline` the
    /// request has ended.
    ///
    /// # Errors
    /// `Unsupported` when action, protocol or apply time are not declared: nothing was sent. `Ambiguous` when the
    /// answer was lost. That the package is installed already is no error: [`Accepted::up_to_date`].
    pub async fn simple_update(&self, update: &SimpleUpdate, deadline: Instant) -> Result<Accepted, Error> {
        let began = Instant::now();
        let declared = self.before(deadline, self.update_capabilities()).await?.simple_update;
        let declared = declared.ok_or_else(|| self.not_declared(ROOT, "SimpleUpdate"))?;
        let scheme = update.image_uri.split_once("://").map(|(scheme, _)| scheme).unwrap_or_default();
        let wanted = update.transfer_protocol.as_deref().unwrap_or(scheme).to_ascii_uppercase();
        if !declared.protocols.is_empty() && !declared.protocols.contains(&wanted) {
            return Err(self.not_declared(&declared.target, &format!("the transfer protocol {wanted:?}")));
        }
        let mut body = Map::new();
        body.insert("ImageURI".to_owned(), json!(update.image_uri));
        if !wanted.is_empty() {
            body.insert("TransferProtocol".to_owned(), json!(wanted));
        }
        if !update.targets.is_empty() {
            body.insert("Targets".to_owned(), json!(update.targets));
        }
        self.insert_apply_time(&mut body, update.apply_time, &declared.apply_times, &declared.target)?;
        self.mutate(Call { began, ..Call::post(&declared.target, &Value::Object(body), deadline) }).await
    }

    /// Sends a package to the service's `MultipartHttpPushUri` (DSP0266, parts `UpdateParameters` and
    /// `UpdateFile`). At `deadline` an unfinished upload is cut off.
    ///
    /// # Errors
    /// As [`Client::simple_update`]; also `Unsupported` for a package larger than the declared maximum.
    pub async fn multipart_update(
        &self,
        update: &MultipartUpdate,
        deadline: Instant,
    ) -> Result<Accepted, Error> {
        let began = Instant::now();
        let declared = self.before(deadline, self.update_capabilities()).await?;
        let path = declared.multipart_push.as_deref();
        let path = path.ok_or_else(|| self.not_declared(ROOT, "MultipartHttpPushUri"))?;
        if declared.max_image_bytes.is_some_and(|max| update.package.len() as u64 > max) {
            return Err(self.not_declared(path, "room for a package of this size"));
        }
        let name_is_plain = update
            .file_name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'/') || byte == b' ');
        if update.file_name.is_empty() || !name_is_plain {
            return Err(self.bad_request(path, "not a plain file name"));
        }
        let mut parameters = Map::new();
        parameters.insert("Targets".to_owned(), json!(update.targets));
        self.insert_apply_time(&mut parameters, update.apply_time, &declared.push_apply_times, path)?;
        let framed = multipart(&Value::Object(parameters), &update.file_name, &update.package);
        let (content_type, body) =
            framed.ok_or_else(|| self.bad_request(path, "no randomness for a boundary"))?;
        let content_type = Some(content_type);
        let call = Call { method: Method::POST, path, body, content_type, deadline, began, mutates: true };
        self.mutate(call).await
    }

    /// Resets the system (`ComputerSystem.Reset`). The state changes seconds later at best: read it back.
    ///
    /// # Errors
    /// `Unsupported` when the kind is not among the declared ones: nothing was sent. `Ambiguous` when the answer was
    /// lost.
    pub async fn reset(&self, kind: ResetKind, deadline: Instant) -> Result<Accepted, Error> {
        let began = Instant::now();
        let (target, declared) = self.before(deadline, self.reset_target()).await?;
        if !declared.is_empty() && !declared.contains(&kind) {
            self.with_links(|links| links.reset = None);
            return Err(self.not_declared(&target, &format!("the reset type {}", kind.as_str())));
        }
        let call = Call { began, ..Call::post(&target, &json!({ "ResetType": kind.as_str() }), deadline) };
        let outcome = self.mutate(call).await;
        if outcome.is_err() {
            // The service may have another target by now.
            self.with_links(|links| links.reset = None);
        }
        outcome
    }

    /// Deletes one job from the queue, never the queue: by Dell's `DeleteJobQueue` with this very id where it is
    /// declared, otherwise by DELETE on the job in the queue that shows it. A job that does not exist (any more) is a
    /// success.
    ///
    /// # Errors
    /// `Busy` for a running job; `Ambiguous` when the answer was lost.
    pub async fn delete_job(&self, id: &str, deadline: Instant) -> Result<(), Error> {
        self.check_job_id(id)?;
        let began = Instant::now();
        let outcome = match self.before(deadline, self.deletion(id)).await? {
            Some(Deletion::ByAction(target)) => {
                let call = Call { began, ..Call::post(&target, &json!({ "JobID": id }), deadline) };
                self.exchange(call).await
            }
            Some(Deletion::OfMember(path)) => {
                self.exchange(Call { began, ..Call::delete(&path, deadline) }).await
            }
            None => return Ok(()),
        };
        match outcome {
            Err(error) if error.class() == Class::NotFound => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// `None`: no queue shows the job.
    async fn deletion(&self, id: &str) -> Result<Option<Deletion>, Error> {
        let manager = self.manager_if_declared().await?;
        if let Some(service) = manager.as_ref().and_then(|links| links.oem_job_service.as_ref())
            && let Some(service) = self.find(service).await?
            && let Some(delete) = action(&service.value, "DellJobService.DeleteJobQueue")
            && let Some(target) = link_in(delete, "target")
        {
            return Ok(Some(Deletion::ByAction(target.to_owned())));
        }
        Ok(self.place_of(id).await?.map(Deletion::OfMember))
    }

    fn insert_apply_time(
        &self,
        body: &mut Map<String, Value>,
        wanted: Option<ApplyTime>,
        declared: &[ApplyTime],
        path: &str,
    ) -> Result<(), Error> {
        let Some(wanted) = wanted else { return Ok(()) };
        if !declared.contains(&wanted) {
            return Err(self.not_declared(path, &format!("the apply time {}", wanted.as_str())));
        }
        body.insert(APPLY_TIME.to_owned(), json!(wanted.as_str()));
        Ok(())
    }

    /// Sends a changing request once and reads what it started.
    async fn mutate(&self, call: Call<'_>) -> Result<Accepted, Error> {
        let path = call.path;
        match self.exchange(call).await {
            Ok(response) => Ok(self.accepted(path, &response)),
            Err(error) if error.class() == Class::UpToDate => {
                let Some(evidence) = error.evidence().cloned() else { return Err(error) };
                let messages = document::parse(&evidence.body).as_ref().map(document::messages);
                let told = |message: &Message| message.short_id() == error.message_id();
                let message = messages.unwrap_or_default().into_iter().find(told);
                let status = evidence.status;
                Ok(Accepted { status, task: None, up_to_date: true, message, evidence })
            }
            Err(error) => Err(error),
        }
    }

    fn accepted(&self, path: &str, response: &Response<Bytes>) -> Accepted {
        let status = response.status().as_u16();
        let body = self.parse(response.body());
        let message = body.as_ref().and_then(|body| document::messages(body).into_iter().next());
        let up_to_date =
            message.as_ref().is_some_and(|message| crate::classify_message(message) == Some(Class::UpToDate));
        let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let location = location.and_then(|link| self.endpoint.path_of(link));
        let task = task_of(location, body.as_ref());
        Accepted { status, task, up_to_date, message, evidence: evidence(path, status, response.body()) }
    }
}

/// The work an answer names: by its `Location`; by a body that is a task; or by any path or job id in the body, as
/// Supermicro moved it between versions (bmclib pull request 399, gofish issue 494).
pub(crate) fn task_of(location: Option<&str>, body: Option<&Value>) -> Option<TaskRef> {
    if let Some(path) = location {
        return Some(by_path(path));
    }
    let body = body?;
    let is_work =
        ["TaskState", "JobState", "TaskMonitor"].iter().any(|name| document::field(body, name).is_some());
    if is_work && let Some(path) = link(body) {
        let id = text_at(body, "Id").map(|id| own_id(path, id));
        return Some(TaskRef { id: id.or_else(|| by_path(path).id), ..by_path(path) });
    }
    let mut budget = 2000;
    named_in(body, &mut budget)
}

fn by_path(path: &str) -> TaskRef {
    let without_query = path.split(['?', '#']).next().unwrap_or(path);
    let segments: Vec<&str> = without_query.trim_end_matches('/').split('/').collect();
    // A task monitor's path may end with a word: `…/TaskMonitors/7`, but also `…/Tasks/7/Monitor`.
    let id = match segments.as_slice() {
        [.., id, "Monitor" | "monitor"] => Some(*id),
        [.., id] if !id.is_empty() => Some(*id),
        _ => None,
    };
    let id = id.map(|id| own_id(path, id.to_owned()));
    TaskRef { path: Some(path.to_owned()), id, log_mark: None }
}

/// Looks through a body for a path below a task or job collection, or for a Dell job id.
fn named_in(value: &Value, budget: &mut usize) -> Option<TaskRef> {
    *budget = budget.checked_sub(1)?;
    match value {
        Value::String(text) => {
            let below = |name: &str| text.split_once(name).is_some_and(|(_, id)| !id.is_empty());
            if is_safe_path(text) && ["/Tasks/", "/TaskMonitors/", "/Jobs/"].into_iter().any(below) {
                return Some(by_path(text));
            }
            let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            let is_job = |word: &&str| {
                let digits = word.strip_prefix("JID_").unwrap_or_default();
                !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
            };
            let id = words.into_iter().find(is_job)?.to_owned();
            Some(TaskRef { path: None, id: Some(id), log_mark: None })
        }
        Value::Array(items) => items.iter().find_map(|item| named_in(item, budget)),
        Value::Object(members) => members.values().find_map(|item| named_in(item, budget)),
        _ => None,
    }
}

/// A `multipart/form-data` body around the package, which is not copied. The boundary is random, so that no package
/// can contain it; `None` without randomness.
fn multipart(parameters: &Value, file_name: &str, package: &Bytes) -> Option<(HeaderValue, Body)> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).ok()?;
    let boundary = format!("rackhand-{}", hex::encode(random));
    let head = format!(
        "--{boundary}\r\n\
         Content-Disposition: form-data; name=\"UpdateParameters\"\r\n\
         Content-Type: application/json\r\n\r\n\
         {parameters}\r\n\
         --{boundary}\r\n\
         Content-Disposition: form-data; name=\"UpdateFile\"; filename=\"{file_name}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    let tail = format!("\r\n--{boundary}--\r\n");
    let content_type = HeaderValue::from_str(&format!("multipart/form-data; boundary={boundary}")).ok()?;
    Some((content_type, Body::from_parts(vec![head.into(), package.clone(), tail.into()])))
}

/// What an update request sets in motion, by generation, firmware and declarations.
///
/// Old Dell firmware (iDRAC 7 and 8 before 2.75, iDRAC9 before 5.00) reboots the host by itself as part of
/// SimpleUpdate (iDRAC-Redfish-Scripting issues 136 and 166: known to its authors as a fault, corrected in 5.00).
/// Later firmware stages what needs a reboot, unless `Immediate` is asked for. Of other vendors only a declared
/// `OnReset` is a promise.
#[must_use]
pub fn update_semantics(identity: &Identity, capabilities: &Capabilities) -> UpdateSemantics {
    let simple = capabilities.simple_update.as_ref();
    let on_reset = simple.is_some_and(|simple| simple.apply_times.contains(&ApplyTime::OnReset))
        || capabilities.push_apply_times.contains(&ApplyTime::OnReset);
    let staged_since = match identity.generation {
        Generation::Idrac7 | Generation::Idrac8 => "2.75",
        Generation::Idrac9 => "5.00",
        Generation::Idrac10 => return UpdateSemantics::Staged,
        Generation::Other if on_reset => return UpdateSemantics::Staged,
        Generation::Other => return UpdateSemantics::Unknown,
    };
    match &identity.bmc_version {
        Some(version) if compare_versions(version, staged_since).is_lt() => UpdateSemantics::RebootsByItself,
        Some(_) => UpdateSemantics::Staged,
        None => UpdateSemantics::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_firmware_reboots_by_itself() {
        let semantics = |generation, version: &str| {
            let identity = Identity {
                vendor: None,
                model: None,
                service_tag: None,
                serial: None,
                uuid: None,
                generation,
                bmc_model: None,
                bmc_version: (!version.is_empty()).then(|| version.to_owned()),
                bios_version: None,
                redfish_version: None,
                unreadable: Vec::new(),
                evidence: Vec::new(),
            };
            update_semantics(&identity, &Capabilities::default())
        };
        assert_eq!(semantics(Generation::Idrac8, "2.70.70.70"), UpdateSemantics::RebootsByItself);
        assert_eq!(semantics(Generation::Idrac8, "2.75.75.75"), UpdateSemantics::Staged);
        assert_eq!(semantics(Generation::Idrac9, "4.40.29.00"), UpdateSemantics::RebootsByItself);
        assert_eq!(semantics(Generation::Idrac9, "5.00.00.00"), UpdateSemantics::Staged);
        assert_eq!(semantics(Generation::Idrac9, ""), UpdateSemantics::Unknown);
        assert_eq!(semantics(Generation::Idrac10, "1.20.25.00"), UpdateSemantics::Staged);
        assert_eq!(semantics(Generation::Other, "9.9"), UpdateSemantics::Unknown);
    }
}
