//! Refusals: everything that is not a success, as RFC 9457 problem+json.
//!
//! A handler returns a [`Refusal`]; the outermost layer ([`crate::request::frame`]) writes the body, because
//! only it knows the trace id. What went wrong inside (SQL, signing) is logged there and never answered.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use rackhand_schema::{ErrorCode, Problem, error::FieldProblem, id::TraceId};

use crate::host::{DatabaseError, NoEntropy, Overloaded};

pub type Answer<T> = Result<T, Refusal>;

/// The longest window of the sign-in limit, seconds.
const LOGIN_WAIT: u32 = 900;

/// Why a request is not carried out.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub code: ErrorCode,
    pub detail: String,
    pub needs_role: Option<String>,
    pub fields: Vec<FieldProblem>,
    /// For the log only.
    pub cause: Option<String>,
    /// Happens to everybody now and then, and is no attempt at anything: not for the audit.
    pub routine: bool,
}

impl Refusal {
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            needs_role: None,
            fields: Vec::new(),
            cause: None,
            routine: false,
        }
    }

    pub fn not_found() -> Self {
        Self::new(
            ErrorCode::NotFound,
            "It does not exist, was removed, or is in a site where you have no role.",
        )
    }

    pub fn invalid(field: &str, detail: impl Into<String>) -> Self {
        Self::of_fields(vec![FieldProblem { field: field.to_owned(), detail: detail.into() }])
    }

    /// What is wrong stands in the fields alone: whoever shows them shows it once.
    pub fn of_fields(fields: Vec<FieldProblem>) -> Self {
        Self { fields, ..Self::new(ErrorCode::InvalidRequest, "Nothing was done.") }
    }

    /// Our fault; `cause` goes to the log, not to the caller.
    pub fn internal(cause: impl Into<String>) -> Self {
        Self {
            cause: Some(cause.into()),
            ..Self::new(ErrorCode::Internal, "Rackhand could not do this. The log has the trace id.")
        }
    }

    /// The finished answer.
    pub fn respond(self, trace: TraceId) -> Response {
        match (&self.cause, self.code) {
            (Some(cause), ErrorCode::Internal) => {
                tracing::error!(trace_id = %trace.to_hex(), code = %self.code, cause, "request failed");
            }
            (Some(cause), _) => {
                tracing::warn!(trace_id = %trace.to_hex(), code = %self.code, cause, "request refused");
            }
            (None, _) => tracing::debug!(trace_id = %trace.to_hex(), code = %self.code, "request refused"),
        }
        let retry_after = self.retry_after();
        let problem = Problem {
            trace_id: Some(trace.to_hex()),
            needs_role: self.needs_role,
            fields: self.fields,
            ..Problem::new(self.code, self.detail)
        };
        let body = serde_json::to_string(&problem).unwrap_or_default();
        let mut response = Response::new(body.into());
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // RFC 9110 §11.6.1: a 401 says how one proves who one is.
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"rackhand\""));
        }
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    /// When to come again, seconds. `rackhand.login_count` names the time for people, in its text; there it is the
    /// only number.
    fn retry_after(&self) -> Option<u32> {
        match self.code {
            ErrorCode::DatabaseUnavailable
            | ErrorCode::LeaseBusy
            | ErrorCode::ReportBusy
            | ErrorCode::TooManyRequests => Some(1),
            ErrorCode::LoginBusy | ErrorCode::ServerBusy => Some(3),
            ErrorCode::LoginLimited => {
                let named = self.detail.split(' ').find_map(|word| word.parse().ok());
                Some(named.unwrap_or(LOGIN_WAIT))
            }
            _ => None,
        }
    }
}

/// Carries the refusal in the response's extensions to the layer that writes it.
impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response.extensions_mut().insert(self);
        response
    }
}

impl From<DatabaseError> for Refusal {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Rejected { code, detail, needs_role } => {
                Self { needs_role, ..Self::new(code, detail) }
            }
            DatabaseError::Unavailable(cause) => Self {
                cause: Some(cause),
                ..Self::new(
                    ErrorCode::DatabaseUnavailable,
                    "The database is not responding. Nothing is lost; try again in a moment.",
                )
            },
            DatabaseError::TooMany => Self::new(
                ErrorCode::TooManyRequests,
                "Too many of your requests are under way; nothing was done. Send fewer at once, and this one again in a \
                 moment.",
            ),
            DatabaseError::Fault(cause) => Self::internal(cause),
        }
    }
}

impl From<Overloaded> for Refusal {
    fn from(_: Overloaded) -> Self {
        Self::new(ErrorCode::LoginBusy, "Too many people sign in at this moment. Try again in a few seconds.")
    }
}

impl From<NoEntropy> for Refusal {
    fn from(error: NoEntropy) -> Self {
        Self::internal(error.to_string())
    }
}

impl From<serde_json::Error> for Refusal {
    fn from(error: serde_json::Error) -> Self {
        Self::internal(format!("JSON from the database or for it: {error}"))
    }
}
