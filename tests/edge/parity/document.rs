//! The operations of the OpenAPI document, as the suite needs them.

use serde_json::Value;

pub struct Operation {
    /// `POST /v1/jobs/{id}/approve`.
    pub name: String,
    pub method: &'static str,
    pub path: String,
    pub role: String,
    pub errors: Vec<String>,
    /// Query parameters that take no arbitrary text: name and a value that does not fit.
    pub wrong_queries: Vec<(String, &'static str)>,
    /// The schema of the body, if it takes one.
    pub body: Option<Value>,
    /// Whether it needs it.
    pub needs_body: bool,
}

const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

pub fn operations() -> Vec<Operation> {
    let document = rackhand_functions::document().unwrap();
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let method = METHODS.into_iter().find(|known| known.eq_ignore_ascii_case(method)).expect(method);
            let errors = operation["x-rackhand-errors"].as_array().unwrap();
            let body = operation.pointer("/requestBody/content/application~1json/schema");
            found.push(Operation {
                name: format!("{method} {path}"),
                method,
                path: path.clone(),
                role: operation["x-rackhand-role"].as_str().unwrap().to_owned(),
                errors: errors.iter().map(|code| code.as_str().unwrap().to_owned()).collect(),
                wrong_queries: wrong_queries(&document, operation),
                body: body.map(|schema| resolve(&document, schema).clone()),
                needs_body: operation.pointer("/requestBody/required") == Some(&Value::Bool(true)),
            });
        }
    }
    found
}

impl Operation {
    pub fn takes_id(&self) -> bool {
        self.path.contains('{')
    }

    /// Whether a request of this method and path is one of this operation, and how exactly.
    fn fits(&self, method: &str, path: &str) -> Option<usize> {
        let (pattern, given): (Vec<_>, Vec<_>) = (self.path.split('/').collect(), path.split('/').collect());
        let parameter = |part: &str| part.starts_with('{');
        let fits = self.method == method
            && pattern.len() == given.len()
            && pattern.iter().zip(&given).all(|(wanted, part)| wanted == part || parameter(wanted));
        fits.then(|| pattern.iter().filter(|part| !parameter(part)).count())
    }
}

/// The operation that a request is of, if any.
pub fn operation_of<'a>(operations: &'a [Operation], method: &str, path: &str) -> Option<&'a Operation> {
    let path = path.split('?').next().unwrap_or_default();
    let fitting = operations.iter().filter_map(|one| Some((one.fits(method, path)?, one)));
    fitting.max_by_key(|(exactness, _)| *exactness).map(|(_, one)| one)
}

fn wrong_queries(document: &Value, operation: &Value) -> Vec<(String, &'static str)> {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    parameters
        .filter(|parameter| parameter["in"] == "query")
        .filter_map(|parameter| {
            let name = parameter["name"].as_str().unwrap();
            let schema = resolve(document, &parameter["schema"]);
            let text =
                schema["type"] == "string" && schema.get("enum").is_none() && schema.get("format").is_none();
            (!text).then(|| (name.to_owned(), "x"))
        })
        .collect()
}

fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => &document[&"components"]["schemas"][reference.rsplit('/').next().unwrap()],
        None => schema,
    }
}
