//! Bodies as BMCs really send them, and the evidence that is kept of them.
//!
//! A Redfish answer should be one JSON object. In the field it is also two of them glued together (a licence
//! error before the document that was asked for), a property that is `null`, absent or of another type, or no
//! JSON at all. Reading is therefore by path with a default, never by a schema that fails as a whole.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// An answer as it came: enough to prove later what was read. Cloning is cheap.
#[derive(Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The path that was asked, without query.
    pub path: Arc<str>,
    /// HTTP status.
    pub status: u16,
    /// The body, byte for byte.
    pub body: Bytes,
}

impl Evidence {
    /// At most `limit` bytes of the body as text, for events and logs; invalid UTF-8 is replaced.
    #[must_use]
    pub fn text(&self, limit: usize) -> String {
        let end = self.body.len().min(limit);
        String::from_utf8_lossy(self.body.get(..end).unwrap_or_default()).into_owned()
    }
}

impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Evidence({} {}, {} bytes)", self.status, self.path, self.body.len())
    }
}

/// A message of a Redfish error, job, task or log record.
///
/// Shape: DSP0266, clause "Error responses" (`error`, `@Message.ExtendedInfo`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The full id, such as `IDRAC.2.7.SUP029`.
    pub id: Option<String>,
    /// The text for people.
    pub text: String,
    /// Its arguments, as text.
    pub args: Vec<String>,
    /// `OK`, `Warning`, `Critical`, `Informational` …, when sent.
    pub severity: Option<String>,
}

impl Message {
    /// The id without registry and version: `SUP029`.
    #[must_use]
    pub fn short_id(&self) -> Option<&str> {
        self.id.as_deref().map(short_id)
    }
}

/// The last segment of a message id: `IDRAC.2.7.SUP029` → `SUP029`.
#[must_use]
pub fn short_id(id: &str) -> &str {
    id.rsplit('.').next().unwrap_or(id)
}

/// The most documents that are looked for in one body.
const MAX_DOCUMENTS: usize = 4;

/// A parsed answer together with its evidence.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub value: Value,
    pub evidence: Evidence,
}

/// Parses a body that may hold several JSON documents, and returns the one that was meant.
///
/// Of several objects the first one that is not merely an `error` is taken; if all are errors, the first.
/// `None`: no JSON object in the body.
pub(crate) fn parse(body: &[u8]) -> Option<Value> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let mut first = None;
    for value in serde_json::Deserializer::from_slice(body).into_iter::<Value>().take(MAX_DOCUMENTS) {
        let Ok(value) = value else { break };
        let Value::Object(object) = &value else { continue };
        if !object.contains_key("error") || object.contains_key("@odata.id") {
            return Some(value);
        }
        first = first.or(Some(value));
    }
    first
}

/// The messages of an answer: `error.@Message.ExtendedInfo`, a top-level one, or `error.code/message`.
pub(crate) fn messages(value: &Value) -> Vec<Message> {
    let error = value.get("error");
    let mut listed = [error, Some(value)]
        .into_iter()
        .flatten()
        .filter_map(|holder| holder.get("@Message.ExtendedInfo"))
        .flat_map(items)
        .filter_map(message)
        .collect::<Vec<_>>();
    // Some services say what happened beside the list (sushy-tools' emulator does).
    if let Some(first) = listed.first_mut()
        && first.text.is_empty()
    {
        first.text = error.and_then(|error| text_at(error, "message")).unwrap_or_default();
    }
    if !listed.is_empty() {
        return listed;
    }
    let Some(error) = error else { return Vec::new() };
    match error {
        Value::String(text) => vec![Message { text: text.clone(), ..Message::default() }],
        _ => {
            let (id, text) = (text_at(error, "code"), text_at(error, "message").unwrap_or_default());
            if id.is_none() && text.is_empty() {
                return Vec::new();
            }
            vec![Message { id, text, ..Message::default() }]
        }
    }
}

/// Reads one message object: `MessageId`, `Message`, `MessageArgs`, `Severity` or `MessageSeverity`.
pub(crate) fn message(value: &Value) -> Option<Message> {
    let id = text_at(value, "MessageId");
    let text = text_at(value, "Message").unwrap_or_default();
    if id.is_none() && text.is_empty() {
        return None;
    }
    let args = texts_at(value, "MessageArgs");
    let severity = text_at(value, "Severity").or_else(|| text_at(value, "MessageSeverity"));
    Some(Message { id, text, args, severity })
}

/// The members of an array; a lone object counts as an array of one, anything else as empty.
pub(crate) fn items(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) => items,
        Value::Object(_) | Value::String(_) => std::slice::from_ref(value),
        _ => &[],
    }
}

/// The value below a path of property names.
pub(crate) fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, name| value.get(*name))
}

/// A value as text: strings as they are (trimmed, `None` when empty), numbers and booleans printed.
pub(crate) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.trim().is_empty() => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

pub(crate) fn text_at(value: &Value, name: &str) -> Option<String> {
    value.get(name).and_then(text)
}

pub(crate) fn str_at<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty())
}

/// A boolean, also when it was sent as text.
pub(crate) fn bool_at(value: &Value, name: &str) -> Option<bool> {
    match value.get(name)? {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// A whole number of at least zero, also when it was sent as text or as `1.0`.
pub(crate) fn number_at(value: &Value, name: &str) -> Option<u64> {
    match value.get(name)? {
        Value::Number(number) => number.as_u64().or_else(|| {
            let float = number.as_f64().filter(|float| (0.0..=9.0e15).contains(float))?;
            format!("{float:.0}").parse().ok()
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// A list of texts; a lone text counts as a list of one.
pub(crate) fn texts_at(value: &Value, name: &str) -> Vec<String> {
    value.get(name).into_iter().flat_map(items).filter_map(text).collect()
}

/// The `@odata.id` below a property, or of the value itself when it is a link. A bare string is a link too.
pub(crate) fn link_at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    link(at(value, path)?)
}

pub(crate) fn link(value: &Value) -> Option<&str> {
    let path = match value {
        Value::String(path) => path.as_str(),
        _ => str_at(value, "@odata.id")?,
    };
    is_safe_path(path).then_some(path)
}

/// Whether a link from an answer may be followed: a path on the same service, never another host.
pub(crate) fn is_safe_path(path: &str) -> bool {
    path.starts_with('/')
        && !path.starts_with("//")
        && path.len() <= 2048
        && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
}

/// The object of an action, found by the end of its name: iDRAC8 calls an action
/// `#UpdateService.SimpleUpdate` like everybody, but OEM names carry versions.
pub(crate) fn action<'a>(resource: &'a Value, name: &str) -> Option<&'a Map<String, Value>> {
    let actions = resource.get("Actions")?;
    [Some(actions), actions.get("Oem")].into_iter().flatten().filter_map(Value::as_object).find_map(
        |actions| {
            let (_, action) = actions.iter().find(|(key, _)| key.rsplit('#').next() == Some(name))?;
            action.as_object()
        },
    )
}
