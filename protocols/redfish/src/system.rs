//! Who a server is, how it is, and what its BMC declares to be able to do.
//!
//! Each reads several subsystems; one that fails is listed as unreadable and the others go on. Only when nothing
//! at all can be read is it an error: a powered-off host, a missing licence or a restarting service must not hide
//! the rest.

use http::Method;
use serde_json::{Value, json};

use crate::{
    classify::Class,
    client::{Call, Client},
    discovery::{ROOT, keep, note},
    document::{self, Document, action, at, bool_at, link, link_at, number_at, str_at, text_at, texts_at},
    error::Error,
    model::{
        ApplyTime, Capabilities, Health, HealthReport, Identity, PartHealth, PowerState, Readiness,
        ResetKind, SimpleUpdateSupport, System,
    },
    version::Generation,
};

impl Client {
    /// Who the server is. Parts that cannot be read leave their values empty and are listed.
    ///
    /// # Errors
    /// The service root cannot be read, or neither system nor manager can.
    pub async fn identity(&self) -> Result<Identity, Error> {
        let root = self.root().await?;
        let (mut unreadable, mut evidence) = (Vec::new(), Vec::new());
        note(&root, &mut evidence);
        let system = keep(self.system_document().await, "system", &mut unreadable);
        let manager = keep(self.manager().await, "manager", &mut unreadable).map(|(_, document)| document);
        if system.is_none() && manager.is_none() {
            return Err(unreadable.swap_remove(0).error);
        }
        system.iter().chain(&manager).for_each(|document| note(document, &mut evidence));
        let (root, nothing) = (&root.value, Value::Null);
        let system = system.as_ref().map_or(&nothing, |document| &document.value);
        let manager = manager.as_ref().map_or(&nothing, |document| &document.value);

        let vendor = text_at(root, "Vendor").or_else(|| text_at(system, "Manufacturer"));
        let vendor = vendor.map(|vendor| vendor.trim_end_matches(" Inc.").to_owned());
        let dell_root = at(root, &["Oem", "Dell"]);
        let is_dell = dell_root.is_some()
            || vendor.as_deref().is_some_and(|vendor| vendor.to_ascii_lowercase().contains("dell"));
        let tag_of_root = || dell_root.and_then(|dell| text_at(dell, "ServiceTag"));
        let tag = || text_at(system, "SKU").or_else(tag_of_root);
        let model = text_at(system, "Model");
        let bmc_model = text_at(manager, "Model");
        let generation = match (is_dell, &bmc_model, &model) {
            (false, _, _) => Generation::Other,
            (true, bmc_model, model) => {
                let by_bmc = bmc_model.as_deref().map_or(Generation::Other, Generation::from_manager_model);
                let by_model = || model.as_deref().map_or(Generation::Other, Generation::from_system_model);
                if by_bmc == Generation::Other { by_model() } else { by_bmc }
            }
        };
        Ok(Identity {
            vendor,
            service_tag: if is_dell { tag() } else { None },
            serial: text_at(system, "SerialNumber"),
            uuid: text_at(system, "UUID"),
            generation,
            bmc_version: text_at(manager, "FirmwareVersion"),
            bios_version: text_at(system, "BiosVersion"),
            redfish_version: text_at(root, "RedfishVersion"),
            model,
            bmc_model,
            unreadable,
            evidence,
        })
    }

    /// The system now.
    ///
    /// # Errors
    /// It cannot be read, or the service holds several and none was selected.
    pub async fn system(&self) -> Result<System, Error> {
        let Document { value, evidence } = self.system_document().await?;
        let inline = inline_reset_kinds(&value);
        let reset_kinds =
            if inline.is_empty() { self.reset_kinds_by_action_info(&value).await } else { inline };
        Ok(System {
            path: self.system_path().await?,
            id: text_at(&value, "Id"),
            host_name: text_at(&value, "HostName"),
            power: power_state(&value),
            health: health_at(&value, "Health"),
            health_rollup: health_at(&value, "HealthRollup"),
            boot_progress: at(&value, &["BootProgress", "LastState"]).and_then(document::text),
            reset_kinds,
            last_reset: text_at(&value, "LastResetTime"),
            evidence,
        })
    }

    /// Health of the system, its chassis and its manager.
    ///
    /// # Errors
    /// None of them can be read.
    pub async fn health(&self) -> Result<HealthReport, Error> {
        let mut report = HealthReport { worst: Health::Unknown, parts: Vec::new(), unreadable: Vec::new() };
        let system = keep(self.system_document().await, "system", &mut report.unreadable);
        let manager = keep(self.manager().await, "manager", &mut report.unreadable);
        let mut documents: Vec<Document> = system.into_iter().collect();
        documents.extend(manager.map(|(_, document)| document));
        let chassis: Vec<String> = documents.first().map(chassis_of).unwrap_or_default();
        for path in chassis {
            documents.extend(keep(self.get(&path).await, &path, &mut report.unreadable));
        }
        if documents.is_empty() {
            return Err(report.unreadable.swap_remove(0).error);
        }
        for Document { value, evidence } in documents {
            let health = health_at(&value, "Health").max(health_at(&value, "HealthRollup"));
            let name = text_at(&value, "Name").unwrap_or_default();
            let state = at(&value, &["Status", "State"]).and_then(document::text);
            report.worst = report.worst.max(health);
            report.parts.push(PartHealth { path: evidence.path.to_string(), name, health, state });
        }
        Ok(report)
    }

    /// What the service declares. Subsystems that cannot be read are listed: what they would have declared is
    /// unknown, not absent.
    ///
    /// # Errors
    /// The service root cannot be read.
    pub async fn capabilities(&self) -> Result<Capabilities, Error> {
        let root = self.root().await?;
        let mut found = Capabilities::default();
        let mut unreadable = Vec::new();
        found.sessions = link_at(&root.value, &["Links", "Sessions"]).map(str::to_owned);
        if let Some(path) = link_at(&root.value, &["UpdateService"])
            && let Some(service) = keep(self.get(path).await, "update service", &mut unreadable)
        {
            read_update_service(&service.value, &mut found);
        }
        found.tasks = keep(self.task_service_tasks().await, "task service", &mut unreadable).flatten();
        found.jobs = keep(self.job_service_jobs().await, "job service", &mut unreadable).flatten();
        if let Some((links, manager)) = keep(self.manager().await, "manager", &mut unreadable) {
            found.oem_jobs = links.oem_jobs.clone();
            found.manager_reset_kinds = action(&manager.value, "Manager.Reset")
                .and_then(|action| action.get("ResetType@Redfish.AllowableValues"))
                .into_iter()
                .flat_map(document::items)
                .filter_map(document::text)
                .collect();
            if let Some(path) = &links.oem_job_service
                && let Some(service) = keep(self.get(path).await, "Dell job service", &mut unreadable)
            {
                found.max_jobs = number_at(&service.value, "MaximumNumberOfJobs");
            }
            if let Some(path) = &links.lc_service
                && let Some(service) = keep(self.get(path).await, "Dell LC service", &mut unreadable)
            {
                found.readiness = readiness_target(&service.value).map(str::to_owned);
            }
            found.lifecycle_log = keep(self.log_entries().await, "log services", &mut unreadable).flatten();
        }
        if let Some(system) = keep(self.system().await, "system", &mut unreadable) {
            found.reset_kinds = system.reset_kinds;
        }
        found.unreadable = unreadable;
        Ok(found)
    }

    /// Whether the BMC takes work (`DellLCService.GetRemoteServicesAPIStatus`, a POST that changes nothing). `None`
    /// when it does not declare the action: iDRAC8 below 2.70 and every other vendor.
    ///
    /// # Errors
    /// The service or the action fails.
    pub async fn readiness(&self) -> Result<Option<Readiness>, Error> {
        let links = self.manager_links().await?;
        let Some(service) = &links.lc_service else { return Ok(None) };
        let service = match self.get(service).await {
            Ok(service) => service,
            Err(error) if matches!(error.class(), Class::NotFound | Class::Unsupported) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(target) = readiness_target(&service.value) else { return Ok(None) };
        let call = Call { mutates: false, ..Call::post(target, &json!({}), self.read_deadline()) };
        let response = self.exchange(call).await?;
        let Document { value, evidence } = self.document(&Method::POST, target, response)?;
        Ok(Some(Readiness {
            lc: text_at(&value, "LCStatus"),
            rt: text_at(&value, "RTStatus"),
            server: text_at(&value, "ServerStatus"),
            status: text_at(&value, "Status"),
            evidence,
        }))
    }

    pub(crate) async fn system_document(&self) -> Result<Document, Error> {
        let path = self.system_path().await?;
        self.get(&path).await
    }

    /// `JobService.Jobs`; `None` when the root declares no job service.
    pub(crate) async fn job_service_jobs(&self) -> Result<Option<String>, Error> {
        let root = self.root().await?;
        let Some(path) = link_at(&root.value, &["JobService"]) else { return Ok(None) };
        let service = self.get(path).await?;
        Ok(link_at(&service.value, &["Jobs"]).map(str::to_owned))
    }

    /// `TaskService.Tasks`; `None` when the root declares no task service.
    pub(crate) async fn task_service_tasks(&self) -> Result<Option<String>, Error> {
        let root = self.root().await?;
        let Some(path) = link_at(&root.value, &["Tasks"]) else { return Ok(None) };
        let service = self.get(path).await?;
        Ok(link_at(&service.value, &["Tasks"]).map(str::to_owned))
    }

    /// Resets that are described in a resource of their own (`@Redfish.ActionInfo`, DSP0266, "Action info").
    async fn reset_kinds_by_action_info(&self, system: &Value) -> Vec<ResetKind> {
        let reset = action(system, "ComputerSystem.Reset");
        let info = reset.and_then(|reset| reset.get("@Redfish.ActionInfo")).and_then(link);
        let Some(info) = info else { return Vec::new() };
        let Ok(info) = self.get(info).await else { return Vec::new() };
        let parameters = info.value.get("Parameters").into_iter().flat_map(document::items);
        let reset_type =
            parameters.into_iter().find(|parameter| str_at(parameter, "Name") == Some("ResetType"));
        let values = reset_type.map(|parameter| texts_at(parameter, "AllowableValues")).unwrap_or_default();
        values.iter().filter_map(|value| ResetKind::parse(value)).collect()
    }
}

pub(crate) fn chassis_of(system: &Document) -> Vec<String> {
    let chassis = at(&system.value, &["Links", "Chassis"]).into_iter().flat_map(document::items);
    chassis.filter_map(link).map(str::to_owned).take(8).collect()
}

fn inline_reset_kinds(system: &Value) -> Vec<ResetKind> {
    let reset = action(system, "ComputerSystem.Reset");
    let values = reset.and_then(|reset| reset.get("ResetType@Redfish.AllowableValues"));
    let values = values.into_iter().flat_map(document::items).filter_map(Value::as_str);
    values.filter_map(ResetKind::parse).collect()
}

fn power_state(system: &Value) -> PowerState {
    match str_at(system, "PowerState") {
        Some("On") => PowerState::On,
        Some("Off") => PowerState::Off,
        Some("PoweringOn") => PowerState::PoweringOn,
        Some("PoweringOff") => PowerState::PoweringOff,
        _ => PowerState::Unknown,
    }
}

pub(crate) fn health_at(value: &Value, name: &str) -> Health {
    match at(value, &["Status", name]).and_then(Value::as_str) {
        Some("OK") => Health::Ok,
        Some("Warning") => Health::Warning,
        Some("Critical") => Health::Critical,
        _ => Health::Unknown,
    }
}

fn readiness_target(lc_service: &Value) -> Option<&str> {
    action(lc_service, "DellLCService.GetRemoteServicesAPIStatus")
        .and_then(|action| link_in(action, "target"))
}

/// A path in an action's object.
pub(crate) fn link_in<'a>(action: &'a serde_json::Map<String, Value>, name: &str) -> Option<&'a str> {
    action.get(name).and_then(link)
}

fn read_update_service(service: &Value, found: &mut Capabilities) {
    if bool_at(service, "ServiceEnabled") == Some(false) {
        return;
    }
    let supported = |holder: Option<&Value>| -> Vec<ApplyTime> {
        let values = holder.map(|holder| texts_at(holder, "SupportedValues")).unwrap_or_default();
        values.iter().filter_map(|value| ApplyTime::parse(value)).collect()
    };
    const APPLY_TIME: &str = "@Redfish.OperationApplyTimeSupport";
    if let Some(simple) = action(service, "UpdateService.SimpleUpdate")
        && let Some(target) = link_in(simple, "target")
    {
        let protocols = simple.get("TransferProtocol@Redfish.AllowableValues");
        let protocols = protocols.into_iter().flat_map(document::items).filter_map(document::text);
        found.simple_update = Some(SimpleUpdateSupport {
            target: target.to_owned(),
            protocols: protocols.map(|protocol| protocol.to_ascii_uppercase()).collect(),
            apply_times: supported(simple.get(APPLY_TIME)),
        });
    }
    found.multipart_push = link_at(service, &["MultipartHttpPushUri"]).map(str::to_owned);
    found.http_push = link_at(service, &["HttpPushUri"]).map(str::to_owned);
    found.max_image_bytes = number_at(service, "MaxImageSizeBytes").filter(|bytes| *bytes > 0);
    let of_multipart = supported(service.get("MultipartHttpPushUri@Redfish.OperationApplyTimeSupport"));
    let options = at(service, &["HttpPushUriOptions", "HttpPushUriApplyTime"]);
    let of_push = options.and_then(|options| options.get("ApplyTime@Redfish.AllowableValues"));
    let of_push = of_push.into_iter().flat_map(document::items).filter_map(Value::as_str);
    found.push_apply_times = of_multipart;
    if found.push_apply_times.is_empty() {
        found.push_apply_times = of_push.filter_map(ApplyTime::parse).collect();
    }
    if found.push_apply_times.is_empty()
        && let Some(simple) = &found.simple_update
    {
        found.push_apply_times = simple.apply_times.clone();
    }
}

/// The update service as it is now.
impl Client {
    pub(crate) async fn update_capabilities(&self) -> Result<Capabilities, Error> {
        let service = self.get(&self.service("UpdateService").await?).await?;
        let mut found = Capabilities::default();
        read_update_service(&service.value, &mut found);
        Ok(found)
    }

    pub(crate) async fn reset_target(&self) -> Result<(String, Vec<ResetKind>), Error> {
        let system = self.system_document().await?;
        let target =
            action(&system.value, "ComputerSystem.Reset").and_then(|action| link_in(action, "target"));
        let target = target.ok_or_else(|| self.not_declared(ROOT, "ComputerSystem.Reset"))?.to_owned();
        let inline = inline_reset_kinds(&system.value);
        let kinds =
            if inline.is_empty() { self.reset_kinds_by_action_info(&system.value).await } else { inline };
        Ok((target, kinds))
    }
}
