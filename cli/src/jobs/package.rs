//! The file that names the packages of a firmware job.

use std::collections::BTreeMap;

use rackhand_schema::job::FirmwarePackage;
use serde_json::{Map, Value};

/// What a package says, and whether as a number.
const FIELDS: [(&str, bool); 7] = [
    ("name", false),
    ("file_name", false),
    ("url", false),
    ("sha256", false),
    ("size", true),
    ("software_id", false),
    ("version", false),
];

const EXAMPLE: &str = "A package file looks like this: {\"name\": \"BIOS 1.15.2\", \"file_name\": \"BIOS_1.15.2.EXE\", \
    \"url\": \"https://repo.example/BIOS_1.15.2.EXE\", \"sha256\": \"64 hex digits\", \"size\": 31457280, \"software_id\": \
    \"159\", \"version\": \"1.15.2\"}; several stand in an object, under the model or the BMC generation of each";

/// One package is meant for every generation. What is wrong is said in words, without a full stop.
pub fn parse(text: &str) -> Result<BTreeMap<String, FirmwarePackage>, String> {
    let value: Value = serde_json::from_str(text)
        .map_err(|error| format!("not JSON (line {}, column {}). {EXAMPLE}", error.line(), error.column()))?;
    let Value::Object(object) = value else {
        return Err(format!("not a JSON object. {EXAMPLE}"));
    };
    if object.is_empty() {
        return Err(format!("it names no package. {EXAMPLE}"));
    }
    if FIELDS.iter().any(|(field, _)| object.get(*field).is_some_and(|value| !value.is_object())) {
        return Ok([("any".to_owned(), package("the package", object)?)].into());
    }
    object
        .into_iter()
        .map(|(key, value)| match value {
            Value::Object(fields) => Ok((key.clone(), package(&format!("the package for `{key}`"), fields)?)),
            _ => Err(format!("what stands under `{key}` is not a package. {EXAMPLE}")),
        })
        .collect()
}

fn package(what: &str, fields: Map<String, Value>) -> Result<FirmwarePackage, String> {
    let missing: Vec<&str> =
        FIELDS.iter().map(|(field, _)| *field).filter(|field| !fields.contains_key(*field)).collect();
    if !missing.is_empty() {
        return Err(format!("{what} does not name {}. {EXAMPLE}", missing.join(", ")));
    }
    let is_right = |value: &Value, number: bool| if number { value.is_u64() } else { value.is_string() };
    for (field, number) in FIELDS {
        if !fields.get(field).is_some_and(|value| is_right(value, number)) {
            let form = if number { "a whole number of bytes, without quotes" } else { "text in quotes" };
            return Err(format!("{what}: {field} must be {form}"));
        }
    }
    if let Some(other) = fields.keys().find(|key| !FIELDS.iter().any(|(field, _)| field == key)) {
        return Err(format!("{what} has a field that no package has: `{other}`"));
    }
    serde_json::from_value(Value::Object(fields)).map_err(|error| format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one() -> Value {
        json!({
            "name": "BIOS 1.13.2", "file_name": "BIOS.EXE", "url": "http://127.0.0.1:1/BIOS.EXE",
            "sha256": "0".repeat(64), "size": 1, "software_id": "159", "version": "1.13.2",
        })
    }

    #[test]
    fn a_package_file_holds_one_or_several() {
        let keys = |value: Value| -> Vec<String> { parse(&value.to_string()).unwrap().into_keys().collect() };
        assert_eq!(keys(one()), ["any"]);
        assert_eq!(keys(json!({"idrac8": one(), "idrac9": one()})), ["idrac8", "idrac9"]);
    }

    #[test]
    fn a_wrong_package_file_is_answered_in_plain_words() {
        let with = |field: &str, value: Value| {
            let mut package = one();
            package[field] = value;
            package.to_string()
        };
        for (text, said) in [
            ("# Rackhand", "not JSON (line 1, column 1). A package file looks like this: {"),
            ("[]", "not a JSON object. A package file"),
            ("{}", "it names no package. A package file"),
            (
                r#"{"name": "x"}"#,
                "the package does not name file_name, url, sha256, size, software_id, version. A package file",
            ),
            (r#"{"idrac8": 1}"#, "what stands under `idrac8` is not a package. A package file"),
            (
                r#"{"idrac8": {"name": "x", "url": "y", "size": 1, "sha256": ""}}"#,
                "the package for `idrac8` does not name file_name, software_id, version. ",
            ),
            (&with("size", json!("1")), "the package: size must be a whole number of bytes, without quotes"),
            (&with("version", json!(2)), "the package: version must be text in quotes"),
            (&with("sha1", json!("")), "the package has a field that no package has: `sha1`"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(said), "{error}");
        }
    }
}
