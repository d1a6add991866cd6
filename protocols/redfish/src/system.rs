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
    document::{
        self, Document, action, at, bool_at, field, link, link_at, number_at, property, str_at, text_at,
        texts_at,
    },
    error::{Error, Problem},
    model::{
        ApplyTime, Capabilities, Health, HealthReport, Identity, PartHealth, PowerState, Readiness,
        ResetKind, SimpleUpdateSupport, System, Unreadable,
    },
    version::Generation,
};

/// Reasons for one part's health that are kept.
const MAX_CONDITIONS: usize = 16;

impl Client {
    /// Who the server is. Parts that cannot be read leave their values empty and are listed. What a system does not
    /// tell, or tells by its board maker's placeholder, its chassis may; a service without systems (an enclosure, a
    /// switch) is its chassis.
    ///
    /// # Errors
    /// The service root cannot be read, or neither system nor manager can; the service holds several systems and none
    /// was selected.
    pub async fn identity(&self) -> Result<Identity, Error> {
        let root = self.root().await?;
        let (mut unreadable, mut evidence) = (Vec::new(), Vec::new());
        note(&root, &mut evidence);
        let system = self.system_document().await;
        if let Err(error) = &system
            && matches!(error.problem(), Problem::SystemNotSelected { .. })
        {
            return Err(error.clone());
        }
        // A system that is there and cannot be read now is not replaced by its chassis: they have other serial numbers.
        let no_systems = system.as_ref().is_err_and(|error| error.class() == Class::Unsupported);
        let system = keep(system, "system", &mut unreadable);
        let manager = keep(self.manager().await, "manager", &mut unreadable).map(|(_, document)| document);
        if system.is_none() && manager.is_none() {
            return Err(unreadable.swap_remove(0).error);
        }
        let untold = |document: &Document| {
            ["Model", "SerialNumber"].iter().any(|name| identifier_at(&document.value, name).is_none())
        };
        let chassis = match &system {
            None if !no_systems => None,
            Some(document) if !untold(document) => None,
            system => self.identifying_chassis(system.as_ref(), &mut unreadable).await,
        };
        system.iter().chain(&manager).chain(&chassis).for_each(|document| note(document, &mut evidence));
        let (root, nothing) = (&root.value, Value::Null);
        let system = system.as_ref().map_or(&nothing, |document| &document.value);
        let manager = manager.as_ref().map_or(&nothing, |document| &document.value);
        let chassis = chassis.as_ref().map_or(&nothing, |document| &document.value);
        let told = |name| identifier_at(system, name).or_else(|| identifier_at(chassis, name));

        // The root's vendor may be the maker of the BMC's software.
        let (maker, of_root) = (told("Manufacturer"), identifier_at(root, "Vendor"));
        let dell_root = at(root, &["Oem", "Dell"]);
        let is_dell = dell_root.is_some()
            || [&maker, &of_root]
                .into_iter()
                .flatten()
                .any(|name| name.to_ascii_lowercase().contains("dell"));
        let vendor = maker.or(of_root).map(|vendor| vendor.trim_end_matches(" Inc.").to_owned());
        let tag_of_root = || dell_root.and_then(|dell| text_at(dell, "ServiceTag"));
        let tag = || identifier_at(system, "SKU").or_else(tag_of_root);
        let model = told("Model");
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
            serial: told("SerialNumber"),
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
        let chassis = match self.chassis_paths(system.as_ref()).await {
            Err(error) if error.class() == Class::Unsupported => Vec::new(),
            paths => keep(paths, "chassis", &mut report.unreadable).unwrap_or_default(),
        };
        let mut documents: Vec<Document> = system.into_iter().collect();
        documents.extend(manager.map(|(_, document)| document));
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
            let conditions = at(&value, &["Status", "Conditions"]).into_iter().flat_map(document::items);
            let conditions = conditions.filter_map(document::message).take(MAX_CONDITIONS).collect();
            report.worst = report.worst.max(health);
            let path = evidence.path.to_string();
            report.parts.push(PartHealth { path, name, health, state, conditions });
        }
        Ok(report)
    }

    /// The first chassis that tells more than its path: not the rack around it.
    async fn identifying_chassis(
        &self,
        system: Option<&Document>,
        unreadable: &mut Vec<Unreadable>,
    ) -> Option<Document> {
        let paths = match self.chassis_paths(system).await {
            Err(error) if error.class() == Class::Unsupported => return None,
            paths => keep(paths, "chassis", unreadable)?,
        };
        for path in paths {
            let Some(chassis) = keep(self.get(&path).await, &path, unreadable) else { continue };
            // An enclosure around a server has a serial number of its own.
            let around = ["Enclosure", "Rack", "Pod", "Row", "Zone", "Shelf"];
            let is_around = str_at(&chassis.value, "ChassisType").is_some_and(|kind| around.contains(&kind));
            let tells =
                ["Model", "SerialNumber"].iter().any(|name| identifier_at(&chassis.value, name).is_some());
            if tells && !(is_around && system.is_some()) {
                return Some(chassis);
            }
        }
        None
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
                .and_then(|action| property(action, "ResetType@Redfish.AllowableValues"))
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
    /// The service or the action fails, or the service that is declared is not found: a BMC that is starting shows its
    /// resources one by one.
    pub async fn readiness(&self) -> Result<Option<Readiness>, Error> {
        let links = self.manager_links().await?;
        let Some(service) = &links.lc_service else { return Ok(None) };
        let service = self.get(service).await?;
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
        let document = self.get(&path).await?;
        let kinds = inline_reset_kinds(&document.value);
        let reset = reset_link(&document.value).filter(|_| !kinds.is_empty()).map(|target| (target, kinds));
        self.with_links(|links| links.reset = reset);
        Ok(document)
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

    /// Resets that are described in a resource of their own (`@Redfish.ActionInfo`, DSP0266).
    async fn reset_kinds_by_action_info(&self, system: &Value) -> Vec<ResetKind> {
        let reset = action(system, "ComputerSystem.Reset");
        let info = reset.and_then(|reset| property(reset, "@Redfish.ActionInfo")).and_then(link);
        let Some(info) = info else { return Vec::new() };
        let Ok(info) = self.get(info).await else { return Vec::new() };
        let parameters = field(&info.value, "Parameters").into_iter().flat_map(document::items);
        let reset_type =
            parameters.into_iter().find(|parameter| str_at(parameter, "Name") == Some("ResetType"));
        let values = reset_type.map(|parameter| texts_at(parameter, "AllowableValues")).unwrap_or_default();
        values.iter().filter_map(|value| ResetKind::parse(value)).collect()
    }
}

/// What board makers leave in fields that nobody filled in, in lower case.
const PLACEHOLDERS: [&str; 22] = [
    "to be filled by o.e.m.",
    "to be filled by oem",
    "default string",
    "default",
    "system manufacturer",
    "system product name",
    "system serial number",
    "chassis serial number",
    "base board serial number",
    "not specified",
    "not available",
    "not applicable",
    "unspecified",
    "unknown",
    "undefined",
    "none",
    "null",
    "n/a",
    "na",
    "oem",
    "o.e.m.",
    "empty",
];

/// A property that identifies a thing; `None` when it is a placeholder: one of the words above, digits in a row from
/// the first on, or one character throughout.
fn identifier_at(value: &Value, name: &str) -> Option<String> {
    let text = text_at(value, name)?;
    let lower = text.to_ascii_lowercase();
    let bare = lower.trim_matches(|c| matches!(c, '<' | '>' | '(' | ')' | '[' | ']'));
    let in_a_row =
        bare.len() >= 6 && ["0123456789", "1234567890"].iter().any(|digits| digits.starts_with(bare));
    let one_character = bare.len() >= 4 && bare.chars().all(|c| bare.starts_with(c));
    let is_placeholder = PLACEHOLDERS.contains(&bare) || in_a_row || one_character;
    (!is_placeholder).then_some(text)
}

fn reset_link(system: &Value) -> Option<String> {
    link_in(action(system, "ComputerSystem.Reset")?, "target").map(str::to_owned)
}

fn inline_reset_kinds(system: &Value) -> Vec<ResetKind> {
    let reset = action(system, "ComputerSystem.Reset");
    let values = reset.and_then(|reset| property(reset, "ResetType@Redfish.AllowableValues"));
    let values = values.into_iter().flat_map(document::items).filter_map(Value::as_str);
    values.filter_map(ResetKind::parse).collect()
}

fn power_state(system: &Value) -> PowerState {
    match str_at(system, "PowerState").map(str::to_ascii_lowercase).as_deref() {
        Some("on") => PowerState::On,
        Some("off") => PowerState::Off,
        Some("poweringon") => PowerState::PoweringOn,
        Some("poweringoff") => PowerState::PoweringOff,
        _ => PowerState::Unknown,
    }
}

pub(crate) fn health_at(value: &Value, name: &str) -> Health {
    let status = at(value, &["Status"]);
    match status.and_then(|status| str_at(status, name)).map(str::to_ascii_lowercase).as_deref() {
        Some("ok") => Health::Ok,
        Some("warning") => Health::Warning,
        Some("critical") => Health::Critical,
        _ => Health::Unknown,
    }
}

fn readiness_target(lc_service: &Value) -> Option<&str> {
    action(lc_service, "DellLCService.GetRemoteServicesAPIStatus")
        .and_then(|action| link_in(action, "target"))
}

/// A path in an action's object.
pub(crate) fn link_in<'a>(action: &'a serde_json::Map<String, Value>, name: &str) -> Option<&'a str> {
    property(action, name).and_then(link)
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
        let protocols = property(simple, "TransferProtocol@Redfish.AllowableValues");
        let protocols = protocols.into_iter().flat_map(document::items).filter_map(document::text);
        found.simple_update = Some(SimpleUpdateSupport {
            target: target.to_owned(),
            protocols: protocols.map(|protocol| protocol.to_ascii_uppercase()).collect(),
            apply_times: supported(property(simple, APPLY_TIME)),
        });
    }
    found.multipart_push = link_at(service, &["MultipartHttpPushUri"]).map(str::to_owned);
    found.http_push = link_at(service, &["HttpPushUri"]).map(str::to_owned);
    found.max_image_bytes = number_at(service, "MaxImageSizeBytes").filter(|bytes| *bytes > 0);
    let of_multipart = supported(field(service, "MultipartHttpPushUri@Redfish.OperationApplyTimeSupport"));
    let options = at(service, &["HttpPushUriOptions", "HttpPushUriApplyTime"]);
    let of_push = options.and_then(|options| field(options, "ApplyTime@Redfish.AllowableValues"));
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

    /// Where the system is reset, as it was last seen: whoever resets has looked at the system right before.
    pub(crate) async fn reset_target(&self) -> Result<(String, Vec<ResetKind>), Error> {
        if let Some(known) = self.with_links(|links| links.reset.clone()) {
            return Ok(known);
        }
        let system = self.system_document().await?;
        let target =
            reset_link(&system.value).ok_or_else(|| self.not_declared(ROOT, "ComputerSystem.Reset"))?;
        let inline = inline_reset_kinds(&system.value);
        let kinds =
            if inline.is_empty() { self.reset_kinds_by_action_info(&system.value).await } else { inline };
        Ok((target, kinds))
    }
}
