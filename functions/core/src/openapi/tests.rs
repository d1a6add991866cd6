use serde_json::Value;

use super::*;

fn each() -> Vec<(String, Value)> {
    let document = document().unwrap();
    let paths = document["paths"].as_object().unwrap().clone();
    paths
        .into_iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().clone();
            methods.into_iter().map(move |(method, operation)| (format!("{method} {path}"), operation))
        })
        .collect()
}

#[test]
fn every_operation_tells_role_summary_and_errors() {
    let roles = ["anonymous", "any", "viewer", "operator", "admin", "fleet admin", "executor", "scheduler"];
    let operations = each();
    assert!(operations.len() >= 45, "{}", operations.len());
    for (name, operation) in operations {
        let role = operation["x-rackhand-role"].as_str().unwrap_or_default();
        assert!(roles.contains(&role), "{name}: role `{role}`");
        assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{name}: summary");
        let codes = operation["x-rackhand-errors"].as_array().unwrap();
        assert!(codes.iter().any(|code| code == "internal"), "{name}: errors");
        assert_eq!(operation.get("security").is_none(), role == "anonymous", "{name}: security");
        let success =
            operation["responses"].as_object().unwrap().keys().any(|status| status.starts_with('2'));
        assert!(success, "{name}: no success");
    }
}

#[test]
fn every_reference_resolves() {
    let document = document().unwrap();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let all = document.to_string();
    for reference in all.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name}");
    }
    assert!(schemas.contains_key("Problem"));
    assert_eq!(document["openapi"], "3.1.0");
}

/// What is reachable by whom, to be read in review.
#[test]
fn roles_by_operation() {
    let lines: Vec<_> = each()
        .into_iter()
        .map(|(name, operation)| format!("{name}: {}", operation["x-rackhand-role"].as_str().unwrap()))
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn operation_ids_are_unique() {
    let document = document().unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(seen.insert(id.to_owned()), "{method} {path}: {id} is taken");
        }
    }
}
