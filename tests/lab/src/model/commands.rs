//! The actions: power, BMC reset, updates, and deleting jobs.

use bytes::Bytes;
use futures::FutureExt as _;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::bmc::Bmc;
use super::door::Call;
use super::job::{Apply, State, UpdateRequest};
use super::jobs::JOB_LIMIT;
use super::messages::{self, Message};
use super::resources::{INVENTORY, TASKS};
use crate::package::{PackageFault, identify};

/// A refused request.
pub(crate) type Refusal = Box<Response<Bytes>>;

impl Bmc {
    pub(crate) fn reset_host(&mut self, call: &Call, allowed: &[&str]) -> Response<Bytes> {
        let Some(body) = self.object(&call.body) else { return self.bad_json() };
        let Some(reset) = body.get("ResetType").and_then(Value::as_str) else {
            return *self.missing("ResetType");
        };
        if !allowed.contains(&reset) {
            return *self.not_acceptable(reset, "ResetType");
        }
        let on = self.host.is_on();
        // The BMC compares with the present state only (dellemc-openmanage-ansible-modules issue 132: 409
        // PSU501).
        let conflict = match (reset, on) {
            ("On", true) => Some(Message::info("PSU501", "The server is on already.")),
            (
                "ForceOff" | "GracefulShutdown" | "ForceRestart" | "GracefulRestart" | "PowerCycle" | "Nmi",
                false,
            ) => Some(Message::info("PSU502", "The server is off already.")),
            _ => None,
        };
        if let Some(message) = conflict {
            return self.error(StatusCode::CONFLICT, &message);
        }
        let reset = reset.to_owned();
        self.request_power(&reset);
        messages::no_content()
    }

    pub(crate) fn reset_manager(&mut self) -> Response<Bytes> {
        let updating_itself = self.jobs.iter().any(|job| {
            job.state == State::Running && job.header().is_some_and(|header| header.software_id == "25227")
        });
        if updating_itself {
            let message = Message::info("RAC964", "The operation cannot be done now.");
            return self.error(StatusCode::SERVICE_UNAVAILABLE, &message);
        }
        self.reset_bmc(self.timings.bmc_reset, false);
        messages::no_content()
    }

    pub(crate) fn simple_update(&mut self, call: &Call) -> Response<Bytes> {
        if let Some(refusal) = self.refuse_update() {
            return refusal;
        }
        let Some(body) = self.object(&call.body) else { return self.bad_json() };
        let Some(image) = body.get("ImageURI").and_then(Value::as_str) else {
            return *self.missing("ImageURI");
        };
        let apply = match self.options(&body) {
            Ok(apply) => apply,
            Err(refusal) => return *refusal,
        };
        let origin = origin(call);
        let request = if let Some(id) = image.strip_prefix(INVENTORY).and_then(|rest| rest.strip_prefix('/'))
        {
            let Some(header) = self.pushed.remove(id) else {
                return *self.not_acceptable(image, "ImageURI");
            };
            UpdateRequest { file: id.to_owned(), url: None, content: Some(Ok(header)), apply, origin }
        } else {
            let protocol = body.get("TransferProtocol").and_then(Value::as_str);
            let url = match (image.contains("://"), protocol) {
                (true, _) => image.to_owned(),
                (false, Some(protocol)) => format!("{}://{image}", protocol.to_lowercase()),
                (false, None) => return *self.missing("TransferProtocol"),
            };
            let scheme = url.split("://").next().unwrap_or_default().to_uppercase();
            let supported = self.traits().protocols;
            if !supported.contains(&scheme.as_str()) {
                return *self.not_acceptable(&scheme, "TransferProtocol");
            }
            let file = url.rsplit('/').next().unwrap_or_default().to_owned();
            UpdateRequest { file, url: Some(url), content: None, apply, origin }
        };
        let job = self.create_update(request);
        self.accepted(&job)
    }

    /// `MultipartHttpPushUri` (DSP2062): the part `UpdateParameters` is JSON, `UpdateFile` the package.
    pub(crate) fn multipart_update(&mut self, call: &Call) -> Response<Bytes> {
        if let Some(refusal) = self.refuse_update() {
            return refusal;
        }
        let Some(parts) = parts(call) else { return *self.missing("UpdateFile") };
        let parameters = parts
            .iter()
            .find(|part| part.name == "UpdateParameters")
            .map_or(Some(json!({})), |part| serde_json::from_slice(&part.content).ok());
        let Some(parameters) = parameters else { return self.bad_json() };
        let apply = match self.options(&parameters) {
            Ok(apply) => apply,
            Err(refusal) => return *refusal,
        };
        let Some(file) = parts.into_iter().find(|part| part.name == "UpdateFile") else {
            return *self.missing("UpdateFile");
        };
        let job = self.create_update(UpdateRequest {
            file: file.file_name,
            url: None,
            content: Some(identify(&file.content)),
            apply,
            origin: origin(call),
        });
        self.accepted(&job)
    }

    /// `HttpPushUri`: keeps the package as an `Available-…` row that `SimpleUpdate` can then install
    /// (iDRAC-Redfish-Scripting issues 32 and 118).
    pub(crate) fn push(&mut self, call: &Call) -> Response<Bytes> {
        if let Some(refusal) = self.unlicensed() {
            return refusal;
        }
        let content = match parts(call) {
            Some(parts) => parts.into_iter().next().map(|part| part.content),
            None => Some(call.body.clone()),
        };
        match identify(&content.unwrap_or_default()) {
            Ok(header) => {
                let id = format!("Available-{}-{}", header.software_id, header.version);
                self.pushed.insert(id.clone(), header);
                let path = format!("{INVENTORY}/{id}");
                let document = self.document(&path).unwrap_or_default();
                let mut response = messages::document(StatusCode::CREATED, &document);
                messages::locate(&mut response, &path);
                response
            }
            Err(PackageFault::Corrupt) => {
                let message = Message::new("RED007", "The package's signature is not valid.");
                self.error(StatusCode::BAD_REQUEST, &message)
            }
            Err(PackageFault::NotAPackage) => {
                let message = Message::new("RED008", "The package holds no payload.");
                self.error(StatusCode::BAD_REQUEST, &message)
            }
        }
    }

    /// Lets the updates that wait for it go on.
    pub(crate) fn start_update(&mut self) -> Response<Bytes> {
        let held: Vec<usize> = (0..self.jobs.len())
            .filter(|at| self.jobs.get(*at).is_some_and(|job| job.state == State::Downloaded))
            .collect();
        for index in held {
            if let Some(job) = self.jobs.get_mut(index) {
                job.apply = Apply::Immediate;
            }
            self.schedule(index);
        }
        messages::no_content()
    }

    pub(crate) fn delete_job(&mut self, id: &str) -> Response<Bytes> {
        let now = self.now;
        let Some(index) = self.jobs.iter().position(|job| job.id == id && job.is_visible(now)) else {
            return self.not_found();
        };
        if let Some(message) = self.jobs.get(index).and_then(|job| undeletable(job.state)) {
            return self.error(StatusCode::BAD_REQUEST, &message);
        }
        self.jobs.remove(index);
        self.counters.jobs_deleted += 1;
        self.log_lc("Audit", Message::info("SUP020", "The job was deleted.").with_args([id.to_owned()]));
        let done = Message::info("SUP020", "The job was deleted.");
        let registry = self.traits().registry;
        messages::document(StatusCode::OK, &json!({ "@Message.ExtendedInfo": [done.json(registry)] }))
    }

    /// `JID_CLEARALL` deletes what can be; the force variant also restarts the BMC's services and loses what
    /// is downloading (badfish issues 30 and 45, jetlag pull request 778).
    pub(crate) fn delete_queue(&mut self, call: &Call) -> Response<Bytes> {
        let Some(body) = self.object(&call.body) else { return self.bad_json() };
        let Some(id) = body.get("JobID").and_then(Value::as_str) else { return *self.missing("JobID") };
        let before = self.jobs.len();
        match id {
            "JID_CLEARALL" | "JID_CLEARALL_FORCE" => {
                self.jobs.retain(|job| undeletable(job.state).is_some());
                self.counters.jobs_deleted += (before - self.jobs.len()) as u64;
                self.log_lc("Audit", Message::info("JCP045", "The job queue was cleared."));
                if id.ends_with("FORCE") {
                    self.reset_bmc(self.timings.bmc_reset, false);
                }
            }
            id => return self.delete_job(id),
        }
        let done = Message::info("SUP020", "The jobs were deleted.");
        let registry = self.traits().registry;
        messages::document(StatusCode::OK, &json!({ "@Message.ExtendedInfo": [done.json(registry)] }))
    }

    /// Why no update can be accepted now.
    fn refuse_update(&mut self) -> Option<Response<Bytes>> {
        if let Some(refusal) = self.unlicensed() {
            return Some(refusal);
        }
        if self.faults.take("up_to_date_sup029").is_some() {
            let text = "Versions on the server match, or the packages are not supported.";
            return Some(self.error(StatusCode::BAD_REQUEST, &Message::new("SUP029", text)));
        }
        if self.open_jobs() >= JOB_LIMIT {
            let message = Message::new("JCP017", "The job queue holds as many jobs as it can.");
            return Some(self.error(StatusCode::BAD_REQUEST, &message));
        }
        None
    }

    /// Apply time and targets, common to both kinds of update.
    fn options(&self, body: &Value) -> Result<Apply, Refusal> {
        if body.get("Targets").and_then(Value::as_array).is_some_and(|targets| targets.len() > 1) {
            let message = Message::new("SYS442", "Only one component can be updated at once.");
            return Err(Box::new(self.error(StatusCode::BAD_REQUEST, &message)));
        }
        let known = self.traits().apply_times;
        match body.get("@Redfish.OperationApplyTime").map(|value| value.as_str().unwrap_or_default()) {
            None if known.is_empty() => Ok(Apply::OnReset),
            None => Ok(Apply::Immediate),
            Some(value) if !known.contains(&value) => {
                Err(self.not_acceptable(value, "@Redfish.OperationApplyTime"))
            }
            Some("OnReset") => Ok(Apply::OnReset),
            Some("OnStartUpdateRequest") => Ok(Apply::OnStart),
            Some(_) => Ok(Apply::Immediate),
        }
    }

    fn accepted(&self, job: &str) -> Response<Bytes> {
        let traits = self.traits();
        messages::accepted(&format!("{TASKS}/{job}"), traits.registry, !traits.apply_times.is_empty())
    }

    pub(crate) fn missing(&self, property: &str) -> Refusal {
        let text = format!("The property {property} is required.");
        Box::new(self.error(StatusCode::BAD_REQUEST, &Message::new("SYS428", text).with_args([property])))
    }

    pub(crate) fn not_acceptable(&self, value: &str, property: &str) -> Refusal {
        let text =
            format!("The value {value} of the property {property} is not in the list of acceptable values.");
        let message = Message::new("SYS426", text).with_args([value, property]);
        Box::new(self.error(StatusCode::BAD_REQUEST, &message))
    }
}

/// Why a job cannot be deleted: what runs, or downloads, stays.
fn undeletable(state: State) -> Option<Message> {
    match state {
        State::Running => Some(Message::new("SUP013", "An update is in progress.")),
        State::Downloading => Some(Message::new("SUP006", "The package is being downloaded.")),
        _ => None,
    }
}

fn origin(call: &Call) -> String {
    format!("{}@{}", call.session, call.client)
}

struct Part {
    name: String,
    file_name: String,
    content: Bytes,
}

/// The parts of a multipart body; `None` when it is none or is broken. The body is in memory, so the parser
/// never waits.
fn parts(call: &Call) -> Option<Vec<Part>> {
    let kind = call.headers.get(http::header::CONTENT_TYPE)?.to_str().ok()?;
    let boundary = multer::parse_boundary(kind).ok()?;
    let body = call.body.clone();
    let stream = futures::stream::once(async move { Ok::<_, std::io::Error>(body) });
    let mut multipart = multer::Multipart::new(stream, boundary);
    async move {
        let mut parts = Vec::new();
        while let Some(field) = multipart.next_field().await.ok()? {
            let name = field.name().unwrap_or_default().to_owned();
            let file_name = field.file_name().unwrap_or_default().to_owned();
            parts.push(Part { name, file_name, content: field.bytes().await.ok()? });
        }
        Some(parts)
    }
    .now_or_never()?
}
