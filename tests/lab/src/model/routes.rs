//! Which request is what: reading documents, logging in and out, and telling apart the actions.

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use serde_json::Value;

use super::bmc::Bmc;
use super::door::Call;
use super::hostile;
use super::messages::{self, Message};
use super::resources::{CHASSIS, INVENTORY, JOBS, MANAGER, SYSTEM, TASKS, job_service_path};
use super::traits::Traits;
use crate::fault::Fault;

/// What may be asked without credentials: the service root (DSP0266) and logging in.
pub(crate) fn is_public(call: &Call, traits: &Traits) -> bool {
    match call.method {
        Method::GET | Method::HEAD => {
            matches!(
                call.path.as_str(),
                "/redfish" | "/redfish/v1" | "/redfish/v1/odata" | "/redfish/v1/$metadata"
            )
        }
        Method::POST => call.path == traits.sessions,
        _ => false,
    }
}

impl Bmc {
    pub(crate) fn route(&mut self, call: &Call) -> Response<Bytes> {
        match call.method {
            Method::GET | Method::HEAD => self.read(call),
            Method::POST => self.post(call),
            Method::DELETE => self.delete(call),
            Method::PATCH if call.path == SYSTEM => self.patch_system(call),
            _ => self.not_allowed(),
        }
    }

    fn read(&mut self, call: &Call) -> Response<Bytes> {
        let path = call.path.as_str();
        if path == "/redfish/v1/$metadata" {
            let mut response = messages::raw(Bytes::from_static(METADATA.as_bytes()));
            let xml = http::HeaderValue::from_static("application/xml");
            response.headers_mut().insert(http::header::CONTENT_TYPE, xml);
            return response;
        }
        if path.starts_with(INVENTORY) && self.now < self.inventory_unreadable_until {
            let message = Message::info("SYS518", "Data sources are unavailable. Retry in 30 seconds.");
            return messages::retry_after(self.error(StatusCode::SERVICE_UNAVAILABLE, &message), 30);
        }
        let Some(document) = self.document(path) else { return self.not_found() };
        let document = self.with_query(document, &call.query);
        let document = self.paged(path, document, &call.query);
        if let Some(Fault::HostileBody { shape }) = self.faults.take("hostile_body") {
            return messages::raw(hostile::body(shape, document));
        }
        if self.faults.take("malformed_error_json").is_some() {
            return messages::raw(hostile::licence_then_document(&document));
        }
        messages::document(StatusCode::OK, &document)
    }

    fn post(&mut self, call: &Call) -> Response<Bytes> {
        let traits = self.traits();
        let path = call.path.as_str();
        if path == traits.sessions {
            return self.log_in(call);
        }
        if let Some(service) = traits.lc_service
            && path == format!("{service}/Actions/DellLCService.GetRemoteServicesAPIStatus")
        {
            if let Some(refusal) = self.unlicensed() {
                return refusal;
            }
            return messages::document(StatusCode::OK, &self.remote_services_status());
        }
        if let Some(service) = job_service_path(&traits)
            && path == format!("{service}/Actions/DellJobService.DeleteJobQueue")
        {
            return self.delete_queue(call);
        }
        if path == format!("{SYSTEM}/Actions/ComputerSystem.Reset") {
            return self.reset_host(call, traits.reset_types);
        }
        if path == format!("{CHASSIS}/Actions/Chassis.Reset") {
            return self.reset_host(call, &["On", "ForceOff"]);
        }
        if path == format!("{MANAGER}/Actions/Manager.Reset") {
            return self.reset_manager();
        }
        if path == format!("{}/Actions/LogService.ClearLog", Traits::log("Sel")) {
            self.clear_log();
            return messages::no_content();
        }
        match path {
            "/redfish/v1/UpdateService/Actions/UpdateService.SimpleUpdate" => self.simple_update(call),
            "/redfish/v1/UpdateService/Actions/UpdateService.StartUpdate"
                if !traits.apply_times.is_empty() =>
            {
                self.start_update()
            }
            "/redfish/v1/UpdateService/MultipartUpload" if traits.multipart => self.multipart_update(call),
            INVENTORY if traits.push => self.push(call),
            _ if self.document(path).is_some() => self.not_allowed(),
            _ => self.not_found(),
        }
    }

    fn delete(&mut self, call: &Call) -> Response<Bytes> {
        let traits = self.traits();
        let Some((parent, id)) = call.path.rsplit_once('/') else { return self.not_found() };
        if parent == traits.sessions {
            return match id.parse() {
                Ok(id) if self.auth.close(id) => {
                    self.counters.logouts += 1;
                    let text = format!("The session from {} is logged off.", call.client);
                    self.log_lc("Audit", Message::info("USR0032", text));
                    messages::no_content()
                }
                _ => self.not_found(),
            };
        }
        if Some(parent) == traits.dell_jobs || traits.job_service && parent == JOBS || parent == TASKS {
            return self.delete_job(id);
        }
        if self.document(&call.path).is_some() { self.not_allowed() } else { self.not_found() }
    }

    fn log_in(&mut self, call: &Call) -> Response<Bytes> {
        let Some(body) = self.object(&call.body) else { return self.bad_json() };
        let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default();
        if text("UserName") != self.username || !self.password.matches(text("Password")) {
            return self.login_failed(call.client);
        }
        self.auth.succeeded(call.client);
        let refused = self.faults.take("session_table_full").is_some();
        let token = self.new_token();
        let session = if refused { None } else { self.auth.open(call.client, self.now, token).cloned() };
        let Some(session) = session else {
            self.counters.sessions_refused += 1;
            let message = Message::info("RAC0218", "The number of user sessions has reached its maximum.");
            return self.error(StatusCode::SERVICE_UNAVAILABLE, &message);
        };
        self.counters.logins += 1;
        self.counters.sessions_peak = self.counters.sessions_peak.max(self.auth.sessions().len() as u64);
        let text = format!("{} logged in from {} by REDFISH.", self.username, call.client);
        let args = [self.username.clone(), call.client.to_string(), "REDFISH".to_owned()];
        self.log_lc("Audit", Message::info("USR0030", text).with_args(args));
        let mut response = messages::document(StatusCode::CREATED, &self.session_document(&session));
        messages::locate(&mut response, &format!("{}/{}", self.traits().sessions, session.id));
        if let Ok(token) = session.token.parse() {
            response.headers_mut().insert("x-auth-token", token);
        }
        response
    }

    /// The body as a JSON object; an absent body is an empty one.
    pub(crate) fn object(&self, body: &[u8]) -> Option<Value> {
        let body = if body.is_empty() { b"{}" } else { body };
        serde_json::from_slice::<Value>(body).ok().filter(Value::is_object)
    }

    /// The refusal of the `no_licence` fault.
    pub(crate) fn unlicensed(&mut self) -> Option<Response<Bytes>> {
        self.faults.take("no_licence")?;
        let message = Message::new("LIC501", "A licence that this needs is missing or expired.");
        Some(self.error(StatusCode::BAD_REQUEST, &message))
    }

    pub(crate) fn bad_json(&self) -> Response<Bytes> {
        let message = Message::critical("Base.1.12.MalformedJSON", "The body is no valid JSON.");
        self.error(StatusCode::BAD_REQUEST, &message)
    }

    pub(crate) fn not_found(&self) -> Response<Bytes> {
        self.error(StatusCode::NOT_FOUND, &Message::critical("SYS403", "There is no such resource."))
    }

    fn not_allowed(&self) -> Response<Bytes> {
        let message = Message::info("SYS402", "The HTTP method is not allowed here.");
        self.error(StatusCode::METHOD_NOT_ALLOWED, &message)
    }
}

/// An OData metadata document that names no schema: clients of this lab use none.
const METADATA: &str = concat!(
    r#"<?xml version="1.0" encoding="UTF-8"?>"#,
    r#"<edmx:Edmx xmlns:edmx="http://docs.oasis-open.org/odata/ns/edmx" Version="4.0">"#,
    r#"<edmx:DataServices/></edmx:Edmx>"#
);
