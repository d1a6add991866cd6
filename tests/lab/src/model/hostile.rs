//! Bodies no client should survive by luck, and a malformed error.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::fault::HostileShape;

const DEPTH: usize = 100_000;
const HUGE: usize = 64 * 1024 * 1024;

pub(super) fn body(shape: HostileShape, document: Value) -> Bytes {
    match shape {
        HostileShape::Deep => Bytes::from(format!("{}{}", "[".repeat(DEPTH), "]".repeat(DEPTH))),
        HostileShape::Huge => Bytes::from(format!(r#"{{"Name":"{}"}}"#, "x".repeat(HUGE))),
        HostileShape::WrongTypes => Bytes::from(twist(document).to_string()),
        HostileShape::Garbage => Bytes::from_static(b"\xff\xfe\x00{\"@odata.id\": \x80"),
    }
}

/// The same keys, every value of another type.
fn twist(value: Value) -> Value {
    match value {
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, twist_member(value))).collect(),
        other => twist_member(other),
    }
}

fn twist_member(value: Value) -> Value {
    match value {
        Value::Null => json!({ "null": [] }),
        Value::Bool(_) => json!("perhaps"),
        Value::Number(number) => json!([number.to_string()]),
        Value::String(_) => json!(-1.5e300),
        Value::Array(_) => json!({ "0": null }),
        Value::Object(_) => json!(["", null, 7]),
    }
}

/// A licence error and then the true document in one body (check_redfish issue 151).
pub(super) fn licence_then_document(document: &Value) -> Bytes {
    let error = json!({ "error": {
        "code": "Base.1.0.GeneralError",
        "message": "A general error has occurred. See ExtendedInfo for more information.",
        "@Message.ExtendedInfo": [{
            "@odata.type": "#Message.v1_0_0.Message",
            "MessageId": "Base.1.0.InternalError",
            "Message": "There is no sufficient licence for this operation.",
        }],
    }});
    Bytes::from(format!("{error}\n{document}"))
}
