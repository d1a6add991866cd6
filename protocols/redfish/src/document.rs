//! Bodies as BMCs really send them, and the evidence that is kept of them.
//!
//! A Redfish answer should be one JSON object. In the field it is also two of them glued together (a licence
//! error before the document that was asked for), a property that is `null`, absent, of another type, in another
//! case or in a list of its own, text out of an erased EEPROM, or no JSON at all. Reading is therefore by path with a
//! default, never by a schema that fails as a whole, and every look at a property goes through [`field`].

use std::{borrow::Cow, fmt, sync::Arc};

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
/// Shape: DSP0266 (`error`, `@Message.ExtendedInfo`).
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

/// A path as it is named: queries say how something is read.
pub(crate) fn without_query(path: &str) -> &str {
    path.split('?').next().unwrap_or(path)
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
    match meant(body) {
        Some(value) if !is_error(&value) => Some(value),
        error => meant(legible(body).as_bytes()).or(error),
    }
}

fn meant(body: &[u8]) -> Option<Value> {
    let mut first = None;
    for value in serde_json::Deserializer::from_slice(body).into_iter::<Value>().take(MAX_DOCUMENTS) {
        let Ok(value) = value else { break };
        let value = match value {
            Value::Array(mut items) if items.len() == 1 => items.pop().unwrap_or_default(),
            value => value,
        };
        if !value.is_object() {
            continue;
        }
        if !is_error(&value) {
            return Some(value);
        }
        first = first.or(Some(value));
    }
    first
}

/// Whether an answer is nothing but an error (DSP0266).
pub(crate) fn is_error(value: &Value) -> bool {
    field(value, "error").is_some()
        && field(value, "@odata.id").is_none()
        && field(value, "Members").is_none()
}

/// The body with what JSON does not allow put out of the way: bytes that are no UTF-8 become U+FFFD, control
/// characters (RFC 8259, section 7) blanks.
fn legible(body: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(body);
    match text.chars().any(|c| c.is_ascii_control()) {
        true => Cow::Owned(text.chars().map(|c| if c.is_ascii_control() { ' ' } else { c }).collect()),
        false => text,
    }
}

/// The messages of an answer: `error.@Message.ExtendedInfo`, a top-level one, or `error.code/message`.
pub(crate) fn messages(value: &Value) -> Vec<Message> {
    let error = field(value, "error");
    let mut listed = [error, Some(value)]
        .into_iter()
        .flatten()
        .filter_map(|holder| field(holder, "@Message.ExtendedInfo"))
        .flat_map(items)
        .filter_map(message)
        .collect::<Vec<_>>();
    // Some services say what happened beside the list (sushy-tools' emulator does).
    if let Some(first) = listed.first_mut()
        && first.text.is_empty()
    {
        first.text = error.and_then(|error| words_at(error, "message")).unwrap_or_default();
    }
    if !listed.is_empty() {
        return listed;
    }
    let Some(error) = error else { return Vec::new() };
    match error {
        Value::String(text) => vec![Message { text: text.clone(), ..Message::default() }],
        _ => {
            let (id, text) = (text_at(error, "code"), words_at(error, "message").unwrap_or_default());
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
    let text = words_at(value, "Message").unwrap_or_default();
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

/// A property of an object that may stand alone in a list. Names differ in case only by mistake (`HealthRollUp`),
/// so the exact name is preferred and any case taken.
pub(crate) fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    property(sole(value).as_object()?, name)
}

/// See [`field`]. `null` says as much as nothing.
pub(crate) fn property<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(exact) = object.get(name).filter(|exact| !exact.is_null()) {
        return Some(exact);
    }
    let other = object.iter().find(|(key, value)| key.eq_ignore_ascii_case(name) && !value.is_null());
    other.map(|(_, value)| value)
}

/// The one item of a list, where no list is meant.
fn sole(value: &Value) -> &Value {
    match value {
        Value::Array(items) => match items.as_slice() {
            [only] => only,
            _ => value,
        },
        _ => value,
    }
}

/// The value below a path of property names.
pub(crate) fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, name| field(value, name))
}

/// A value as text: strings [`trimmed`] (`None` when nothing is left), numbers and booleans printed.
pub(crate) fn text(value: &Value) -> Option<String> {
    match sole(value) {
        Value::String(text) => trimmed(text).map(str::to_owned),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// Text without what fills up a field of fixed width or an erased EEPROM: blanks, NULs, bytes that were no text.
pub(crate) fn trimmed(text: &str) -> Option<&str> {
    let fills = |c: char| c.is_whitespace() || c.is_control() || c == char::REPLACEMENT_CHARACTER;
    Some(text.trim_matches(fills)).filter(|text| !text.is_empty())
}

pub(crate) fn text_at(value: &Value, name: &str) -> Option<String> {
    field(value, name).and_then(text)
}

/// Text for people; some services send it as `{"lang": …, "value": …}` (OData 3.0).
fn words_at(value: &Value, name: &str) -> Option<String> {
    let words = field(value, name)?;
    text(words).or_else(|| text_at(words, "value"))
}

pub(crate) fn str_at<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    field(value, name).map(sole).and_then(Value::as_str).and_then(trimmed)
}

/// A boolean, also when it was sent as text.
pub(crate) fn bool_at(value: &Value, name: &str) -> Option<bool> {
    match sole(field(value, name)?) {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// A whole number of at least zero, also when it was sent as text or as `1.0`.
pub(crate) fn number_at(value: &Value, name: &str) -> Option<u64> {
    match sole(field(value, name)?) {
        Value::Number(number) => number.as_u64().or_else(|| {
            let float = number.as_f64().filter(|float| (0.0..=9.0e15).contains(float))?;
            format!("{float:.0}").parse().ok()
        }),
        Value::String(text) => trimmed(text)?.parse().ok(),
        _ => None,
    }
}

/// A reading, also when it was sent as text.
pub(crate) fn reading_at(value: &Value, name: &str) -> Option<f64> {
    match sole(field(value, name)?) {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => trimmed(text)?.parse().ok().filter(|reading: &f64| reading.is_finite()),
        _ => None,
    }
}

/// A list of texts; a lone text counts as a list of one.
pub(crate) fn texts_at(value: &Value, name: &str) -> Vec<String> {
    field(value, name).into_iter().flat_map(items).filter_map(text).collect()
}

/// The `@odata.id` below a property, or of the value itself when it is a link. A bare string is a link too.
pub(crate) fn link_at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    link(at(value, path)?)
}

pub(crate) fn link(value: &Value) -> Option<&str> {
    let path = match sole(value) {
        Value::String(path) => path.trim(),
        value => str_at(value, "@odata.id")?,
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
    let actions = field(resource, "Actions")?;
    [Some(actions), field(actions, "Oem")]
        .into_iter()
        .flatten()
        .map(sole)
        .filter_map(Value::as_object)
        .find_map(|actions| {
            let is_it = |key: &str| key.rsplit('#').next().is_some_and(|key| key.eq_ignore_ascii_case(name));
            let (_, action) = actions.iter().find(|(key, _)| is_it(key))?;
            sole(action).as_object()
        })
}
