//! What to do about an answer, decided by the vendor's message id first and the HTTP status second.
//!
//! Status codes of BMCs say little: "not ready, try again" comes as 400, 500 and 503. The ids are stable.
//!
//! Sources of the table: the Dell event and error message registry as an R750 serves it
//! (`/redfish/v1/Registries/Messages/EEMIRegistry`, 5500 messages; text and recommended action of every `IDRAC` id
//! below were read there), the DMTF `Base` registry 1.12 (DSP8011) for the others, and field reports where a
//! message behaves unlike its text:
//! SWC0700 sent with 400 and gone minutes later (badfish issue 129), SYS518 with 503 (metal-operator issue 170),
//! RAC0218 with 503 (gofish issue 75), SUP029 with 400 for a package that is installed already
//! (dellemc-openmanage-ansible-modules issue 250), JCP052 on a task that says Completed (metal-operator issue 453).

use std::time::Duration;

use crate::document::Message;

/// What a caller should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Class {
    /// Try again, not before `retry_after` when given.
    Transient {
        /// Earliest useful retry.
        retry_after: Option<Duration>,
    },
    /// Something else is using what this needs (a running job, a full queue, the Lifecycle Controller). Wait.
    Busy {
        /// Earliest useful retry.
        retry_after: Option<Duration>,
    },
    /// The session table is full; log in later or do without a session.
    SessionLimit,
    /// The password was rejected. Do not try again with it.
    Auth,
    /// The service has accepted the password, and this account may not do this, or not without a licence. Nothing is
    /// said about the password.
    Forbidden,
    /// The gate withheld the password; nothing was sent.
    AuthWithheld {
        /// When the gate may be asked again.
        retry_after: Option<Duration>,
    },
    /// The service shows another key than the pinned one. Only a person can decide.
    Untrusted,
    /// This service will never do it: no licence, no such action, no such value.
    Unsupported,
    /// The service understood and declined this request in its present state (lockdown, invalid package).
    Refused,
    /// The service is restarting or shutting down; expect it back.
    GoneForReset,
    /// The resource does not exist, or no longer.
    NotFound,
    /// The wanted state is there already; count it as done after reading back.
    UpToDate,
    /// It failed and will fail again; a person should look.
    Permanent,
    /// The request may have been carried out; probe, never repeat.
    Ambiguous,
    /// Nothing reached the service; repeating is safe.
    NotSent,
}

impl Class {
    /// When to try again, when known.
    #[must_use]
    pub fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Transient { retry_after }
            | Self::Busy { retry_after }
            | Self::AuthWithheld { retry_after } => retry_after,
            _ => None,
        }
    }
}

/// A verdict and the message that led to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What to do.
    pub class: Class,
    /// Index of the deciding message; `None` when the status decided.
    pub message: Option<usize>,
}

/// Classifies an error answer. Among several messages the first one with a rule decides.
#[must_use]
pub fn classify(status: u16, messages: &[Message], retry_after: Option<Duration>) -> Verdict {
    let ruled = messages.iter().enumerate().find_map(|(at, message)| Some((at, rule_for(message)?)));
    if let Some((at, rule)) = ruled {
        let told = messages.get(at).and_then(seconds_in);
        return Verdict { class: with_delay(rule.class(), told.or(retry_after)), message: Some(at) };
    }
    Verdict { class: with_delay(by_status(status), retry_after), message: None }
}

/// The class of one message id, when the table knows it.
#[must_use]
pub fn classify_message(message: &Message) -> Option<Class> {
    let class = rule_for(message)?.class();
    Some(with_delay(class, seconds_in(message)))
}

/// Whether a service broke down over a request rather than declined it: what it had done by then is not known. A
/// status that a message explains counts only when the message tells of an internal error. A bare 503 may come from a
/// web server in front that has lost its backend with the request inside; one with `Retry-After` is the service's own
/// word that it takes nothing now (RFC 9110, 15.6.4).
pub(crate) fn broke_down(status: u16, decided_by: Option<&Message>, retry_after: Option<Duration>) -> bool {
    match decided_by.and_then(Message::short_id) {
        Some(id) => ["SYS446", "JCP012", "JCP021", "InternalError"].contains(&id),
        None => matches!(status, 500 | 502 | 504) || (status == 503 && retry_after.is_none()),
    }
}

/// Whether a message, given by its id, says that the wanted version is installed already.
#[must_use]
pub fn up_to_date(message_id: &str) -> bool {
    let message = Message { id: Some(message_id.to_owned()), ..Message::default() };
    rule_for(&message).is_some_and(|rule| rule.meaning == Meaning::UpToDate)
}

fn with_delay(class: Class, delay: Option<Duration>) -> Class {
    match (class, delay) {
        (Class::Transient { .. }, Some(_)) => Class::Transient { retry_after: delay },
        (Class::Busy { .. }, Some(_)) => Class::Busy { retry_after: delay },
        (class, _) => class,
    }
}

/// A delay said in words or as an argument: SYS518 ends with "retry … 30 seconds" on some firmware, and
/// `Base.ServiceTemporarilyUnavailable` has the seconds as its argument.
fn seconds_in(message: &Message) -> Option<Duration> {
    let from_args = match message.short_id() {
        Some("ServiceTemporarilyUnavailable") => message.args.first().and_then(|arg| arg.trim().parse().ok()),
        _ => None,
    };
    let seconds: u64 = from_args.or_else(|| {
        let words: Vec<&str> = message.text.split_whitespace().collect();
        words.windows(2).find_map(|pair| match pair {
            [number, unit] if unit.to_ascii_lowercase().starts_with("second") => number.parse().ok(),
            _ => None,
        })
    })?;
    (seconds <= 3600).then(|| Duration::from_secs(seconds))
}

fn by_status(status: u16) -> Class {
    match status {
        401 | 403 => Class::Auth,
        404 | 410 => Class::NotFound,
        405 | 406 | 415 | 501 => Class::Unsupported,
        408 | 425 | 429 | 502 | 503 | 504 => Class::Transient { retry_after: None },
        409 | 423 => Class::Busy { retry_after: None },
        400 | 402 | 412 | 413 | 422 | 428 | 431 => Class::Refused,
        500 => Class::Transient { retry_after: None },
        _ => Class::Permanent,
    }
}

/// One row of the table: what a message id means.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Short id, or its beginning when it ends with `*`.
    pub id: &'static str,
    /// What it means.
    pub meaning: Meaning,
    /// Seconds to wait at least; 0: the rule says nothing.
    pub retry_seconds: u64,
}

/// The class of a rule without its delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the variant of `Class` of the same name")]
pub enum Meaning {
    Transient,
    Busy,
    SessionLimit,
    Auth,
    Unsupported,
    Refused,
    GoneForReset,
    NotFound,
    UpToDate,
    Permanent,
}

impl Rule {
    fn class(&self) -> Class {
        let retry_after = (self.retry_seconds > 0).then(|| Duration::from_secs(self.retry_seconds));
        match self.meaning {
            Meaning::Transient => Class::Transient { retry_after },
            Meaning::Busy => Class::Busy { retry_after },
            Meaning::SessionLimit => Class::SessionLimit,
            Meaning::Auth => Class::Auth,
            Meaning::Unsupported => Class::Unsupported,
            Meaning::Refused => Class::Refused,
            Meaning::GoneForReset => Class::GoneForReset,
            Meaning::NotFound => Class::NotFound,
            Meaning::UpToDate => Class::UpToDate,
            Meaning::Permanent => Class::Permanent,
        }
    }
}

fn rule_for(message: &Message) -> Option<&'static Rule> {
    let id = message.short_id()?;
    RULES.iter().find(|rule| match rule.id.strip_suffix('*') {
        Some(beginning) => id.starts_with(beginning),
        None => id == rule.id,
    })
}

const fn rule(id: &'static str, meaning: Meaning, retry_seconds: u64) -> Rule {
    Rule { id, meaning, retry_seconds }
}

/// The table. Earlier rows win.
pub const RULES: &[Rule] = &[
    // The BMC or its data sources are not up yet.
    rule("SWC0700", Meaning::Transient, 30), // "iDRAC is not ready", also with status 400
    rule("SYS518", Meaning::Transient, 30),  // data sources unavailable
    rule("RAC964", Meaning::Transient, 60),  // "wait for some time before retrying"
    rule("SYS446", Meaning::Transient, 120), // internal error, "retry after a few minutes"
    rule("RAC0508", Meaning::Transient, 60), // provider not ready
    rule("LC060", Meaning::Transient, 60),   // Lifecycle Controller not ready for requests
    rule("PR27", Meaning::Transient, 60),    // unable to allocate resources, retry one at a time
    rule("JCP012", Meaning::Transient, 60),  // internal iDRAC error
    rule("JCP021", Meaning::Transient, 60),  // internal iDRAC error
    rule("SYS412", Meaning::Transient, 60),  // upload failed for an internal reason
    rule("RED006", Meaning::Transient, 60),  // package download failed
    rule("RED113", Meaning::Transient, 60),  // iDRAC overloaded
    rule("RED051", Meaning::Transient, 60),  // package transfer failed
    rule("JCP002", Meaning::Transient, 180), // unable to schedule, "wait up to three minutes"
    rule("SUP002", Meaning::Transient, 60),  // job creation failure
    rule("SUP014", Meaning::Transient, 60),  // a job could not be deleted for an unknown reason
    rule("SUP0553", Meaning::Transient, 60), // update jobs could not be scheduled
    rule("RED012", Meaning::Transient, 60),  // update task not created, "after one minute"
    rule("RED059", Meaning::Transient, 60),  // update job not created
    rule("RED016", Meaning::Transient, 60),  // mount of the remote share failed
    // Something else runs; waiting helps.
    rule("RED034", Meaning::Busy, 60), // a firmware update is in progress
    rule("SUP022", Meaning::Busy, 60), // the job store is full
    rule("RED023", Meaning::Busy, 60), // Lifecycle Controller in use
    rule("JCP024", Meaning::Busy, 60), // Lifecycle Controller in use
    rule("BIOS009", Meaning::Busy, 60),
    rule("RAC1243", Meaning::Busy, 60),
    rule("LC062", Meaning::Busy, 120),
    rule("SUP0108", Meaning::Busy, 60), // an update is in progress already
    rule("SUP016", Meaning::Busy, 30),  // wait until the job is Downloaded
    rule("SUP031", Meaning::Busy, 60),  // this update is scheduled or running already
    rule("RED014", Meaning::Busy, 0),   // a job for this device is present
    rule("JCP029", Meaning::Busy, 0),   // a job of this type exists
    rule("JCP014", Meaning::Busy, 60),  // queue full
    rule("JCP017", Meaning::Busy, 60),
    rule("RAC034", Meaning::Busy, 60),
    rule("RAC0524", Meaning::Busy, 60),
    rule("RED149", Meaning::Busy, 60), // CPLD and other updates exclude each other
    rule("SUP006", Meaning::Busy, 30), // downloading, running, busy: the job cannot be deleted now
    rule("SUP007", Meaning::Busy, 30),
    rule("SUP009", Meaning::Busy, 60),
    rule("SUP013", Meaning::Busy, 60),
    rule("JCP015", Meaning::Busy, 30), // a running job cannot be deleted
    rule("JCP018", Meaning::Busy, 60),
    rule("JCP019", Meaning::Busy, 60),
    rule("JCP020", Meaning::Busy, 60),
    rule("JCP030", Meaning::Busy, 60),
    rule("JCP031", Meaning::Busy, 30),
    rule("JCP035", Meaning::Busy, 60),
    rule("JCP043", Meaning::Busy, 60),
    rule("JCP044", Meaning::Busy, 60),
    rule("JCP048", Meaning::Busy, 120), // the iDRAC firmware itself is being updated
    rule("SYS431", Meaning::Busy, 60),  // import or export in progress
    rule("ResourceInUse", Meaning::Busy, 0),
    rule("ResourceInStandby", Meaning::Busy, 30),
    // Sessions and passwords.
    rule("RAC0218", Meaning::SessionLimit, 0),
    rule("SessionLimitExceeded", Meaning::SessionLimit, 0),
    rule("CreateLimitReachedForResource", Meaning::Busy, 60),
    rule("SYS415", Meaning::Auth, 0), // invalid session or credentials
    rule("SYS416", Meaning::Auth, 0), // no credentials
    rule("NoValidSession", Meaning::Auth, 0),
    rule("ResourceAtUriUnauthorized", Meaning::Auth, 0),
    rule("AccessDenied", Meaning::Auth, 0),
    rule("InsufficientPrivilege", Meaning::Auth, 0),
    rule("PasswordChangeRequired", Meaning::Auth, 0),
    rule("AccountForSessionNoLongerExists", Meaning::Auth, 0),
    rule("SYS479", Meaning::Auth, 0),
    rule("SYS012", Meaning::Auth, 0),
    rule("RAC012", Meaning::Auth, 0),
    rule("RAC0506", Meaning::Auth, 0),
    rule("RAC1115", Meaning::Auth, 0),
    rule("RAC1260", Meaning::Auth, 0), // the default password must be changed first
    rule("SWC1908", Meaning::Auth, 0),
    // Never on this server.
    rule("LIC*", Meaning::Unsupported, 0),
    rule("SYS402", Meaning::Unsupported, 0), // method not allowed
    rule("SYS419", Meaning::Unsupported, 0), // Redfish attribute disabled
    rule("SUP019", Meaning::Unsupported, 0), // Lifecycle Controller not enabled
    rule("RED009", Meaning::Unsupported, 0), // Lifecycle Controller not present
    rule("RED015", Meaning::Unsupported, 0), // download protocol
    rule("RED020", Meaning::Unsupported, 0), // feature of a later firmware
    rule("RED101", Meaning::Unsupported, 0), // licence of the installed firmware
    rule("RED144", Meaning::Unsupported, 0), // licence missing
    rule("SUP033", Meaning::Unsupported, 0), // a feature forbids updates
    rule("SUP0517", Meaning::Unsupported, 0),
    rule("SUP0549", Meaning::Unsupported, 0),
    rule("RED041", Meaning::Unsupported, 0), // licence missing
    rule("JCP025", Meaning::Unsupported, 0), // Lifecycle Controller not enabled
    rule("ActionNotSupported", Meaning::Unsupported, 0),
    rule("ServiceDisabled", Meaning::Unsupported, 0),
    rule("QueryNotSupported*", Meaning::Unsupported, 0),
    rule("ActionParameterNotSupported", Meaning::Unsupported, 0),
    rule("ActionParameterUnknown", Meaning::Unsupported, 0),
    rule("SourceDoesNotSupportProtocol", Meaning::Unsupported, 0),
    // Understood and declined.
    rule("JCP041", Meaning::Refused, 0), // System Lockdown
    rule("RAC095", Meaning::Refused, 0),
    rule("RAC1201", Meaning::Refused, 0),
    rule("SYS291", Meaning::Refused, 0),
    rule("SYS406", Meaning::Refused, 0),
    rule("LC087", Meaning::Refused, 0),
    rule("BIOS031", Meaning::Refused, 0),
    rule("SUP028", Meaning::Refused, 0), // the update list asked for was never made
    rule("SUP030", Meaning::Refused, 0), // proxy parameters without proxy support
    rule("SUP017", Meaning::Refused, 0),
    rule("SUP026", Meaning::Refused, 0),
    rule("SYS442", Meaning::Refused, 0), // more than one image in one request
    rule("SYS400", Meaning::Refused, 0),
    rule("SYS401", Meaning::Refused, 0),
    rule("SYS405", Meaning::Refused, 0),
    rule("SYS407", Meaning::Refused, 0),
    rule("SYS409", Meaning::Refused, 0),
    rule("SYS428", Meaning::Refused, 0),
    rule("SYS429", Meaning::Refused, 0),
    rule("RED007", Meaning::Refused, 0), // package signature
    rule("SYS411", Meaning::Refused, 0), // package too large
    rule("RED018", Meaning::Refused, 0), // no reinstallation or rollback on this device
    rule("RED008", Meaning::Refused, 0), // no payload in the package
    rule("RED005", Meaning::Refused, 0), // invalid URI
    rule("RED010", Meaning::Refused, 0), // invalid target
    rule("RED013", Meaning::Refused, 0), // package for another device
    rule("RED017", Meaning::Refused, 0), // package for another system
    rule("RED021", Meaning::Refused, 0), // no such component
    rule("RED022", Meaning::Refused, 0), // version compatibility
    rule("RED027", Meaning::Refused, 0), // no space: install or remove what was uploaded first
    rule("RED050", Meaning::Refused, 0), // password of the package server, not of the BMC
    rule("RED062", Meaning::Refused, 0), // password of the repository
    rule("RED146", Meaning::Refused, 0), // needs another OEM id
    rule("SUP001", Meaning::Refused, 0),
    rule("SUP003", Meaning::Refused, 0), // URI, target or reboot flag
    rule("SUP024", Meaning::Refused, 0), // no such component
    rule("SUP027", Meaning::Refused, 0),
    rule("SUP0522", Meaning::Refused, 0), // the BIOS is write-protected
    rule("SUP0527", Meaning::Refused, 0), // package for another system
    rule("RED097", Meaning::Refused, 0),  // package for another component
    rule("RED098", Meaning::Refused, 0),  // package not compatible
    rule("RED103", Meaning::Refused, 0),  // package out of date
    rule("RED132", Meaning::Refused, 0),  // no such file on the package server
    rule("RED145", Meaning::Refused, 0),  // needs another CPLD first
    rule("RED147", Meaning::Refused, 0),  // needs another BIOS first
    rule("RED148", Meaning::Refused, 0),  // BMC locked
    rule("SUP0515", Meaning::Refused, 0),
    rule("SUP0519", Meaning::Refused, 0),
    rule("SUP0525", Meaning::Refused, 0),
    rule("SUP0540", Meaning::Refused, 0), // no space for packages
    rule("SUP0546", Meaning::Refused, 0), // package type
    rule("SUP0551", Meaning::Refused, 0),
    rule("JCP011", Meaning::Refused, 0),
    rule("JCP013", Meaning::Refused, 0),
    rule("JCP032", Meaning::Refused, 0),
    rule("ActionParameter*", Meaning::Refused, 0),
    rule("PropertyValue*", Meaning::Refused, 0),
    rule("PropertyMissing", Meaning::Refused, 0),
    rule("PropertyUnknown", Meaning::Refused, 0),
    rule("MalformedJSON", Meaning::Refused, 0),
    rule("UnrecognizedRequestBody", Meaning::Refused, 0),
    rule("ChassisPowerState*", Meaning::Refused, 0),
    rule("ResourceAlreadyExists", Meaning::Refused, 0),
    // Restarting, gone, done.
    rule("RAC0608", Meaning::GoneForReset, 0), // restarts when the iDRAC update is complete
    rule("RAC0621", Meaning::GoneForReset, 0), // iDRAC update complete, sessions closed
    rule("ServiceShuttingDown", Meaning::GoneForReset, 0),
    rule("ServiceTemporarilyUnavailable", Meaning::Transient, 30),
    rule("SYS403", Meaning::NotFound, 0),
    rule("JCP022", Meaning::NotFound, 0), // invalid job id
    rule("SUP011", Meaning::NotFound, 0), // invalid job id
    rule("RAC1144", Meaning::NotFound, 0),
    rule("ResourceMissingAtURI", Meaning::NotFound, 0),
    rule("ResourceNotFound", Meaning::NotFound, 0),
    rule("InvalidURI", Meaning::NotFound, 0),
    rule("SUP029", Meaning::UpToDate, 0), // unsupported package or same version: read back decides
    rule("RED064", Meaning::UpToDate, 0), // no applicable update found
    rule("NoOperation", Meaning::UpToDate, 0),
    // Failed for good.
    rule("PR21", Meaning::Permanent, 0), // job failed; the Lifecycle log says why
    rule("JCP052", Meaning::Permanent, 0), // ran without progress until its time was up
    rule("JCP003", Meaning::Permanent, 0),
    rule("JCP004", Meaning::Permanent, 0),
    rule("JCP042", Meaning::Permanent, 0),
    rule("PR26", Meaning::Permanent, 0),
    rule("PR30", Meaning::Permanent, 0),
    rule("SYS045", Meaning::Permanent, 0), // profile import or export failed
    rule("SYS046", Meaning::Permanent, 0),
];
