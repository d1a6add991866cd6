//! Operations of the OpenAPI document with a sound request for each, and what can be put in place of its
//! fields.

use serde_json::{Map, Value, json};

pub struct Ids {
    pub site: String,
    pub server: String,
    pub job: String,
    pub run: String,
    pub executor: String,
    pub credential: String,
    pub user: String,
}

pub struct Operation {
    pub method: String,
    /// As in the document, `{id}` and all.
    pub template: String,
    pub path: String,
    /// A sound body; absent where the operation takes none.
    pub body: Option<Value>,
    pub path_parameters: Vec<String>,
    pub query_parameters: Vec<String>,
    pub role: String,
}

pub fn operations(ids: &Ids) -> Vec<Operation> {
    let document = rackhand_functions::document().unwrap();
    let mut all = vec![];
    for (template, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let parameters = |place: &str| -> Vec<String> {
                let empty = vec![];
                let all = operation["parameters"].as_array().unwrap_or(&empty);
                let of_place = all.iter().filter(|parameter| parameter["in"] == place);
                of_place.map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect()
            };
            let content = operation["requestBody"]["content"].as_object();
            let schema = content.and_then(|content| content.values().next()).map(|body| &body["schema"]);
            all.push(Operation {
                method: method.clone(),
                template: template.clone(),
                path: fill(template, ids),
                body: schema.map(|schema| sample(&document, schema, "", ids)),
                path_parameters: parameters("path"),
                query_parameters: parameters("query"),
                role: operation["x-rackhand-role"].as_str().unwrap().to_owned(),
            });
        }
    }
    assert!(all.len() > 35, "only {} operations", all.len());
    all
}

/// The path with an object that exists in place of each parameter that is left.
pub fn fill(template: &str, ids: &Ids) -> String {
    let id = match template.split('/').nth(2) {
        Some("sites") => &ids.site,
        Some("servers") => &ids.server,
        Some("jobs") => &ids.job,
        Some("runs") => &ids.run,
        Some("executors") => &ids.executor,
        Some("users") => &ids.user,
        _ => &ids.credential,
    };
    let mut path = template.to_owned();
    while let (Some(start), Some(end)) = (path.find('{'), path.find('}')) {
        if end < start {
            break;
        }
        path.replace_range(start..=end, id);
    }
    path
}

/// A sound value of a schema; what rules beyond types ask for goes by the name of the field.
fn sample(document: &Value, schema: &Value, name: &str, ids: &Ids) -> Value {
    let known = match name {
        "site_id" => Some(json!(ids.site)),
        "executor_id" => Some(json!(ids.executor)),
        "credential_id" => Some(json!(ids.credential)),
        "run_id" => Some(json!(ids.run)),
        "targets" => Some(json!([ids.server])),
        "servers" => Some(json!([{"name": "n", "bmc_url": "https://10.1.1.1", "spki_sha256": null,
            "credential_id": ids.credential, "tags": ["a"]}])),
        "sealed_for" => Some(json!([{"url": "https://10.1.1.1", "spki_sha256": "a".repeat(64)}])),
        "items" => Some(json!([{"run_id": ids.run, "epoch": 1, "seq": 1, "type": "event", "level": "info",
            "message": "m", "data": null}])),
        "email" => Some(json!("new@example.test")),
        "password" => Some(json!("long enough for this")),
        "digest" => Some(json!("0".repeat(64))),
        "lease_ttl_ms" => Some(json!(60_000)),
        "wait_ms" => Some(json!(0)),
        "token" => Some(json!("c2VhbGVk".repeat(12))),
        "sealed" => Some(json!("c2VhbGVk".repeat(24))),
        "signing_key" | "sealing_key" | "public_key" => Some(json!("A".repeat(43) + "=")),
        _ => None,
    };
    if let Some(known) = known {
        return known;
    }
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#')).unwrap();
        return sample(document, target, name, ids);
    }
    if let Some(all) = schema["allOf"].as_array() {
        let mut whole = Map::new();
        for part in all {
            if let Value::Object(fields) = sample(document, part, name, ids) {
                whole.extend(fields);
            }
        }
        return Value::Object(whole);
    }
    for choice in ["oneOf", "anyOf"] {
        if let Some(choices) = schema[choice].as_array() {
            let first = choices.iter().find(|one| one["type"] != "null").unwrap();
            return sample(document, first, name, ids);
        }
    }
    if let Some(value) = schema["enum"].as_array().and_then(|values| values.first()) {
        return value.clone();
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().find(|kind| *kind != "null").unwrap().as_str().unwrap(),
        kind => kind.as_str().unwrap_or("object"),
    };
    match kind {
        "string" if schema["format"] == "uuid" => json!(ids.run),
        "string" => json!("a text"),
        "integer" | "number" => json!(1),
        "boolean" => json!(false),
        "array" => json!([sample(document, &schema["items"], "", ids)]),
        _ => {
            let fields = schema["properties"].as_object().cloned().unwrap_or_default();
            let each = fields.iter().map(|(name, field)| (name.clone(), sample(document, field, name, ids)));
            Value::Object(each.collect())
        }
    }
}

/// The sample with each of its values, and each of its fields' names, replaced by something hostile.
pub fn mutations(sample: &Value) -> Vec<(String, String)> {
    let mut found = vec![("as it is".to_owned(), sample.to_string())];
    let mut places = vec![];
    pointers(sample, String::new(), &mut places);
    for place in places {
        for (name, raw) in hostile() {
            let mut changed = sample.clone();
            *changed.pointer_mut(&place).unwrap() = json!("@@@");
            found.push((format!("{place} {name}"), changed.to_string().replacen("\"@@@\"", &raw, 1)));
        }
    }
    if let Value::Object(fields) = sample {
        for gone in fields.keys() {
            let mut fields = fields.clone();
            fields.remove(gone);
            found.push((format!("without {gone}"), Value::Object(fields).to_string()));
        }
        let twice = sample.to_string();
        found
            .push(("every field twice".to_owned(), format!("{},{}", &twice[..twice.len() - 1], &twice[1..])));
        for key in ["", "\\u0000", "__proto__", "\\ud83d\\ude00"] {
            found.push((format!("a field {key:?}"), format!("{{\"{key}\":1,{}", &twice[1..])));
        }
    }
    found
}

fn pointers(value: &Value, at: String, into: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                pointers(field, format!("{at}/{name}"), into);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                pointers(item, format!("{at}/{index}"), into);
            }
        }
        _ => {}
    }
    if !at.is_empty() {
        into.push(at);
    }
}

/// Raw JSON.
fn hostile() -> Vec<(&'static str, String)> {
    vec![
        ("NUL", r#""a\u0000b""#.to_owned()),
        ("only a NUL", r#""\u0000""#.to_owned()),
        ("half a pair", r#""\ud800""#.to_owned()),
        ("empty", r#""""#.to_owned()),
        ("quotes", r#""'; drop table rackhand.site; --""#.to_owned()),
        ("long", format!("\"{}\"", "x".repeat(100_000))),
        ("directions", "\"\u{202e}\u{200b}\u{feff}\u{10ffff}\"".to_owned()),
        ("backslashes", r#""\\\\%s%n{}${}""#.to_owned()),
        ("null", "null".to_owned()),
        ("false", "false".to_owned()),
        ("negative", "-1".to_owned()),
        ("fraction", "0.5".to_owned()),
        ("huge", "99999999999999999999999999".to_owned()),
        ("i64 max", "9223372036854775807".to_owned()),
        ("u64 max", "18446744073709551615".to_owned()),
        ("u32 max", "4294967295".to_owned()),
        ("object", r#"{"a":{"b":[1]}}"#.to_owned()),
        ("list", "[]".to_owned()),
        ("long list", format!("[{}1]", "1,".repeat(20_000))),
        ("deep", "[".repeat(200) + &"]".repeat(200)),
        ("nil", r#""00000000-0000-0000-0000-000000000000""#.to_owned()),
    ]
}
