//! Pages without scripts or anything from elsewhere: the list of operations, and the pages of error codes.

use std::fmt::Write as _;

use serde_json::Value;

/// Nothing but their own style element.
pub const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;\
    color:#1a1d21;background:#fff}code{font:0.9em ui-monospace,monospace}h2{margin-top:2rem}\
    article{border-top:1px solid #c5cad0;padding:.5rem 0}.codes{color:#4a5058}\
    @media(prefers-color-scheme:dark){body{color:#e8eaed;background:#15181b}a{color:#8ab4f8}\
    .codes{color:#aab0b8}article{border-color:#3a4047}}";

fn page(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title} · Rackhand</title><style>{STYLE}</style></head><body><main>\n{body}</main></body></html>\n"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The operations of an OpenAPI document, by path.
pub fn operations(document: &Value) -> String {
    let mut body = String::from(
        "<h1>Rackhand API</h1>\n<p>Machine-readable: <a href=\"/openapi.json\"><code>/openapi.json</code></a>, \
         OpenAPI 3.1. Errors are problem+json; each code links to its page.</p>\n",
    );
    let text =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    for (path, methods) in document.get("paths").and_then(Value::as_object).into_iter().flatten() {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            let _ = write!(
                body,
                "<article><h2><code>{} {}</code></h2><p>{} {}</p><p>Role: {}</p>",
                method.to_uppercase(),
                escape(path),
                escape(&text(operation, "summary")),
                escape(&text(operation, "description")),
                escape(&text(operation, "x-rackhand-role"))
            );
            let names = ["requestBody", "responses"].map(|part| operation.get(part).map(references));
            let [request, answer] = names.map(Option::unwrap_or_default);
            let _ = write!(body, "<p>{} → {}</p>", escape(&request.join(", ")), escape(&answer.join(", ")));
            let codes = operation.get("x-rackhand-errors").and_then(Value::as_array).into_iter().flatten();
            body.push_str("<p class=\"codes\">");
            for code in codes.filter_map(Value::as_str).map(escape) {
                let _ = write!(body, "<a href=\"/errors/{code}\"><code>{code}</code></a> ");
            }
            body.push_str("</p></article>\n");
        }
    }
    page("API", &body)
}

/// Names of the schemas that a part of an operation refers to, but for `Problem`.
fn references(part: &Value) -> Vec<String> {
    let mut found = Vec::new();
    match part {
        Value::Object(members) => {
            for (key, value) in members {
                match value.as_str().and_then(|text| text.strip_prefix("#/components/schemas/")) {
                    Some(name) if key == "$ref" && name != "Problem" => found.push(name.to_owned()),
                    _ => found.extend(references(value)),
                }
            }
        }
        Value::Array(items) => found.extend(items.iter().flat_map(references)),
        _ => {}
    }
    found
}

/// The subset of Markdown that the error pages use: headings, paragraphs, lists, code.
pub fn markdown(title: &str, source: &str) -> String {
    let mut body = String::new();
    let mut open: Option<&str> = None;
    for line in source.lines() {
        let trimmed = line.trim();
        let numbered =
            trimmed.split_once(". ").filter(|(n, _)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
        let (tag, inner, content) = if let Some(rest) = trimmed.strip_prefix("# ") {
            ("", "h1", rest)
        } else if let Some(rest) = trimmed.strip_prefix("## ") {
            ("", "h2", rest)
        } else if let Some(rest) = trimmed.strip_prefix("- ").or_else(|| trimmed.strip_prefix("* ")) {
            ("ul", "li", rest)
        } else if let Some((_, rest)) = numbered {
            ("ol", "li", rest)
        } else {
            (if trimmed.is_empty() { "" } else { "p" }, "", trimmed)
        };
        // A plain line goes on with the list item or paragraph above it.
        let goes_on = open.is_some() && inner.is_empty() && !trimmed.is_empty();
        if !goes_on && open != Some(tag) {
            if let Some(tag) = open.take() {
                let _ = writeln!(body, "</{tag}>");
            }
            if !tag.is_empty() {
                let _ = write!(body, "<{tag}>");
                open = Some(tag);
            }
        }
        match inner {
            "" => body.push_str(&inline(content)),
            inner => {
                let _ = write!(body, "<{inner}>{}</{inner}>", inline(content));
            }
        }
        body.push('\n');
    }
    if let Some(tag) = open {
        let _ = writeln!(body, "</{tag}>");
    }
    page(title, &body)
}

fn inline(text: &str) -> String {
    let mut out = String::new();
    for (index, part) in text.split('`').enumerate() {
        let part = escape(part);
        if index % 2 == 1 {
            let _ = write!(out, "<code>{part}</code>");
        } else {
            out.push_str(&part);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use rackhand_schema::ErrorCode;

    use super::*;

    #[test]
    fn markdown_becomes_html_and_nothing_of_it_runs() {
        let html = markdown("T", "# A `b`\n\nOne\ntwo <script>.\n\n## C\n\n- x\n- y\n\n1. z\n");
        assert!(html.contains("<h1>A <code>b</code></h1>"), "{html}");
        assert!(html.contains("<p>One\ntwo &lt;script&gt;.\n</p>"), "{html}");
        assert!(html.contains("<ul><li>x</li>\n<li>y</li>\n</ul>"), "{html}");
        assert!(html.contains("<ol><li>z</li>"), "{html}");
        for code in ErrorCode::ALL {
            let page = markdown(code.title(), code.page());
            assert_eq!(page.matches("<ul>").count(), page.matches("</ul>").count(), "{code}");
            assert_eq!(page.matches("<p>").count(), page.matches("</p>").count(), "{code}");
        }
    }
}
