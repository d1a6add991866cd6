//! What every host must know about the UI's files, whoever serves them: which addresses are the API's, and which
//! headers a file gets. On Workers the platform serves them, with `ui/public/_headers`.

use http::{HeaderName, HeaderValue, header};

/// Scripts, styles and connections of our own origin only.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; \
    frame-ancestors 'none'";

/// For names that change with every build.
const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// Whether an address is the Router's; everything else is the UI's.
pub fn is_api(path: &str) -> bool {
    path == "/v1"
        || path.starts_with("/v1/")
        || path.starts_with("/errors/")
        || matches!(path, "/openapi.json" | "/docs")
}

/// The file for an address of the UI: an address of the app itself gets the app, which knows its own pages.
pub fn file(path: &str) -> &str {
    let is_page = !path.rsplit('/').next().unwrap_or_default().contains('.');
    if is_page { "/index.html" } else { path }
}

/// The headers of a file's answer; `found`: whether it is there.
pub fn headers(path: &str, found: bool) -> [(HeaderName, HeaderValue); 5] {
    // Built files carry their hash in the name.
    let cache = if found && path.starts_with("/assets/") { FOR_EVER } else { "no-cache" };
    [
        (header::CACHE_CONTROL, HeaderValue::from_static(cache)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("same-origin")),
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_keeps_its_addresses() {
        for path in ["/v1/jobs", "/openapi.json", "/docs", "/errors/internal", "/v1"] {
            assert!(is_api(path), "{path}");
        }
        for path in ["/", "/v1x", "/servers", "/assets/docs"] {
            assert!(!is_api(path), "{path}");
        }
    }

    #[test]
    fn pages_are_the_app_and_files_themselves() {
        for page in ["/", "/servers", "/jobs/01a1?x"] {
            assert_eq!(file(page), "/index.html", "{page}");
        }
        assert_eq!(file("/assets/a-1.js"), "/assets/a-1.js");
    }

    /// Cloudflare's format: a path, its headers indented below; `! name` takes one of an earlier rule away.
    #[test]
    fn on_workers_files_get_the_same_headers() {
        let mut expected = String::from("/*\n");
        for (name, value) in headers("/", true) {
            expected += &format!("  {name}: {}\n", value.to_str().unwrap());
        }
        expected += &format!("/assets/*\n  ! cache-control\n  cache-control: {FOR_EVER}\n");
        assert_eq!(include_str!("../../../ui/public/_headers"), expected);
    }
}
