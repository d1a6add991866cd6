//! Answers in the shape Dell gives them: extended info with registry message ids.
//!
//! Ids and their meaning are those of the message registry in the recorded R750 tree
//! (`Registries/Messages/EEMIRegistry`); the wording is ours.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER};
use http::{Response, StatusCode};
use serde_json::{Value, json};

/// One message of Dell's registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// Without registry prefix: `RAC0218`. Ids with a dot (`Base.1.12.AccessDenied`) are taken as they are.
    pub(crate) id: &'static str,
    pub(crate) text: String,
    pub(crate) args: Vec<String>,
    pub(crate) severity: &'static str,
}

impl Message {
    pub(crate) fn new(id: &'static str, text: impl Into<String>) -> Self {
        Self { id, text: text.into(), args: Vec::new(), severity: "Warning" }
    }

    pub(crate) fn critical(id: &'static str, text: impl Into<String>) -> Self {
        Self { severity: "Critical", ..Self::new(id, text) }
    }

    pub(crate) fn info(id: &'static str, text: impl Into<String>) -> Self {
        Self { severity: "Informational", ..Self::new(id, text) }
    }

    pub(crate) fn with_args<I: IntoIterator<Item = S>, S: Into<String>>(mut self, args: I) -> Self {
        self.args = args.into_iter().map(Into::into).collect();
        self
    }

    /// The full id under a registry prefix.
    pub(crate) fn full_id(&self, registry: &str) -> String {
        if self.id.contains('.') { self.id.to_owned() } else { format!("{registry}.{}", self.id) }
    }

    pub(crate) fn json(&self, registry: &str) -> Value {
        json!({
            "Message": self.text,
            "MessageArgs": self.args,
            "MessageArgs@odata.count": self.args.len(),
            "MessageId": self.full_id(registry),
            "RelatedProperties": [],
            "RelatedProperties@odata.count": 0,
            "Resolution": "See the message registry for what to do.",
            "Severity": self.severity,
        })
    }
}

fn build(status: StatusCode, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert("odata-version", HeaderValue::from_static("4.0"));
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/json;odata.metadata=minimal;charset=utf-8"),
    );
    response
}

pub(crate) fn document(status: StatusCode, body: &Value) -> Response<Bytes> {
    build(status, Bytes::from(body.to_string()))
}

pub(crate) fn raw(body: Bytes) -> Response<Bytes> {
    build(StatusCode::OK, body)
}

pub(crate) fn no_content() -> Response<Bytes> {
    build(StatusCode::NO_CONTENT, Bytes::new())
}

/// An error with one message. `single` puts an object where the standard wants an array, as iDRAC8 does
/// (iDRAC-Redfish-Scripting issue 62).
pub(crate) fn error(status: StatusCode, registry: &str, single: bool, message: &Message) -> Response<Bytes> {
    let info = message.json(registry);
    let info = if single { info } else { json!([info]) };
    document(
        status,
        &json!({"error": {
            "@Message.ExtendedInfo": info,
            "code": "Base.1.12.GeneralError",
            "message": "A general error has occurred. See ExtendedInfo for more information.",
        }}),
    )
}

/// 202 with the new task in `Location` and, on firmware that has one, a body.
pub(crate) fn accepted(location: &str, registry: &str, with_body: bool) -> Response<Bytes> {
    let mut response = if with_body {
        let done = Message::info("SYS413", "The operation was carried out.");
        document(StatusCode::ACCEPTED, &json!({"@Message.ExtendedInfo": [done.json(registry)]}))
    } else {
        build(StatusCode::ACCEPTED, Bytes::new())
    };
    locate(&mut response, location);
    response
}

pub(crate) fn locate(response: &mut Response<Bytes>, location: &str) {
    if let Ok(value) = HeaderValue::from_str(location) {
        response.headers_mut().insert(LOCATION, value);
    }
}

pub(crate) fn retry_after(mut response: Response<Bytes>, seconds: u32) -> Response<Bytes> {
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}
