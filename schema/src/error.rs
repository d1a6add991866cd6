//! Error codes: every error a person can meet has a code, a status and a page that says what to do.
//!
//! The page is `docs/errors/<code>.md`; a code without one does not compile.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

macro_rules! codes {
    ($($name:ident = $code:literal, $status:literal, $title:literal;)*) => {
        /// What went wrong, stable across versions.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum ErrorCode { $(#[doc = $title] $name,)* }

        impl ErrorCode {
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The HTTP status it is answered with. Codes of runs (status 200) never stand in an answer of
            /// their own: they say why a run ended.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// The page, Markdown.
            pub const fn page(self) -> &'static str {
                match self { $(Self::$name => include_str!(concat!("../../docs/errors/", $code, ".md")),)* }
            }

            pub fn parse(code: &str) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }
        }
    };
}

codes! {
    // Requests.
    MalformedJson = "malformed-json", 400, "The body is not valid JSON";
    InvalidRequest = "invalid-request", 422, "The request is not valid";
    BodyTooLarge = "body-too-large", 413, "The body is too large";
    RequestTimeout = "request-timeout", 408, "The request took too long to arrive";
    UnsupportedMediaType = "unsupported-media-type", 415, "The body is not JSON";
    NotFound = "not-found", 404, "Not found, or not visible to you";
    MethodNotAllowed = "method-not-allowed", 405, "Method not supported at this address";
    IdempotencyMismatch = "idempotency-mismatch", 409, "The idempotency key was used for another request";
    VersionConflict = "version-conflict", 412, "It has changed since you read it";
    NameTaken = "name-taken", 409, "The name is taken";
    SiteInUse = "site-in-use", 409, "The site is in use";
    // People.
    InvalidCredentials = "invalid-credentials", 401, "E-mail or password is wrong";
    LoginLimited = "login-limited", 429, "Too many sign-in attempts";
    LoginBusy = "login-busy", 503, "Too many people sign in at once";
    ResetRefused = "reset-refused", 401, "The link for a new password is not valid";
    PasswordWrong = "password-wrong", 403, "The present password is wrong";
    NotSignedIn = "not-signed-in", 401, "Sign in first";
    SessionEnded = "session-ended", 401, "The session has ended";
    RefreshReused = "refresh-reused", 401, "A refresh token was used twice";
    OriginRefused = "origin-refused", 403, "The request came from another site";
    ForbiddenRole = "forbidden-role", 403, "This needs another role";
    TooManyStreams = "too-many-streams", 429, "Too many event streams are open";
    SecondPersonRequired = "second-person-required", 403, "A second person must approve";
    // Jobs.
    PlanStale = "plan-stale", 409, "The digest does not match this plan";
    PlanEmpty = "plan-empty", 409, "Every target of the plan is blocked";
    JobState = "job-state", 409, "The job's state does not allow this";
    RunState = "run-state", 409, "The run's state does not allow this";
    // Executors.
    EnrolmentRefused = "enrolment-refused", 401, "The enrolment token is not valid";
    ExecutorRevoked = "executor-revoked", 401, "This executor may not sign in";
    ExecutorJoining = "executor-joining", 403, "This executor is not confirmed yet";
    NonceInvalid = "nonce-invalid", 401, "The sign-in nonce is used or expired";
    SignatureInvalid = "signature-invalid", 401, "The signature does not match the executor's key";
    SessionSuperseded = "session-superseded", 409, "A newer process of this executor has signed in";
    SiteKeyConflict = "site-key-conflict", 409, "The site has another key";
    CredentialVersion = "credential-version", 409, "The credential has a newer version";
    StaleEpoch = "stale-epoch", 409, "The lease has passed to another executor";
    SequenceGap = "sequence-gap", 409, "Report items are missing";
    LeaseBusy = "lease-busy", 429, "Another request of this executor for leases is being answered";
    ReportBusy = "report-busy", 429, "Earlier reports of this executor are being taken";
    RunFinished = "run-finished", 409, "The run has ended";
    EffectsOpen = "effects-open", 409, "Changes are not undone yet";
    IntentOpen = "intent-open", 409, "It is not known yet whether a change was made";
    // The service.
    DatabaseUnavailable = "database-unavailable", 503, "The database is not responding";
    TooManyRequests = "too-many-requests", 429, "Too many requests of one caller are under way";
    ServerBusy = "server-busy", 503, "Too many requests are arriving at once";
    Internal = "internal", 500, "Internal error";
    // Why a run ended.
    BmcUnreachable = "bmc-unreachable", 200, "The BMC is not responding";
    BmcKeyChanged = "bmc-key-changed", 200, "The BMC shows another TLS key than approved";
    BmcAuthFailed = "bmc-auth-failed", 200, "The BMC refuses the credential";
    CredentialSuspended = "credential-suspended", 200, "The credential is suspended";
    CredentialRefused = "credential-refused", 200, "The credential is not meant for this BMC";
    PolicyRefused = "policy-refused", 200, "The executor's policy forbids it";
    PackageUnreachable = "package-unreachable", 200, "The package cannot be fetched";
    PackageMismatch = "package-mismatch", 200, "The package is not the approved one";
    RunSpent = "run-spent", 200, "The run has reported too much to begin anything else";
    AnotherMachine = "another-machine", 200, "The BMC is not that of the planned machine";
    VersionDrift = "version-drift", 200, "The installed version is not the one in the plan";
    ComponentMissing = "component-missing", 200, "The server has no such component";
    ForeignDeviceJob = "foreign-device-job", 200, "The device has work that is not ours";
    DeviceBusy = "device-busy", 200, "The device stayed busy";
    HeldBack = "held-back", 200, "The executor held the request back";
    DeviceRefused = "device-refused", 200, "The device refused";
    DeviceFailed = "device-failed", 200, "The device reports a failure";
    DeviceStalled = "device-stalled", 200, "The device's job has stalled";
    DeviceUnsupported = "device-unsupported", 200, "Not supported by the device";
    VersionNotReached = "version-not-reached", 200, "Another version was read back";
    PowerNotReached = "power-not-reached", 200, "Another power state was read back";
    SettingNotReached = "setting-not-reached", 200, "Another setting was read back";
    ReportTooLarge = "report-too-large", 200, "The run is too large to report";
    OutcomeUnknown = "outcome-unknown", 200, "The outcome is unknown";
    CancelledByPerson = "cancelled", 200, "Cancelled";
}

impl Serialize for ErrorCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The body of every error answer (RFC 9457, `application/problem+json`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Path of the page about this code, `/errors/<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub code: String,
    /// What happened here, and what to do.
    pub detail: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// With `forbidden-role`: the role that would allow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs_role: Option<String>,
    /// With `invalid-request`: field → what is wrong. `detail` does not repeat it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldProblem>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldProblem {
    pub field: String,
    pub detail: String,
}

impl Problem {
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("/errors/{code}"),
            title: code.title().to_owned(),
            status: code.status(),
            code: code.as_str().to_owned(),
            detail: detail.into(),
            trace_id: None,
            needs_role: None,
            fields: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_names_its_code_and_says_what_to_do() {
        for code in ErrorCode::ALL {
            let page = code.page();
            assert!(page.starts_with(&format!("# `{code}`: {}\n", code.title())), "{code}: first line");
            assert!(page.contains("## What to do"), "{code}: what to do");
            assert_eq!(ErrorCode::parse(code.as_str()), Some(*code));
        }
    }
}
