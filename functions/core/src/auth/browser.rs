//! What browsers need: tokens in cookies that scripts cannot read, and proof that our own page asks.
//!
//! `__Host-` cookies (RFC 6265bis §4.1.3.2) are bound to this host over TLS; SameSite=Lax keeps them from
//! foreign POSTs. On top a changing request must carry `X-Rackhand-Client: browser`, which no foreign page
//! can send without CORS consent, and an `Origin` of ours.

use http::{HeaderMap, HeaderValue, Uri, header};
use rackhand_schema::ErrorCode;

use crate::problem::{Answer, Refusal};

pub const ACCESS_COOKIE: &str = "__Host-rackhand_access";
pub const REFRESH_COOKIE: &str = "__Host-rackhand_refresh";
const CLIENT_HEADER: &str = "x-rackhand-client";

/// Whether the request says that it comes from our page.
pub fn is_browser(headers: &HeaderMap) -> bool {
    headers.get(CLIENT_HEADER).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"browser"))
}

/// The value of a cookie.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(key, value)| (key == name && !value.is_empty()).then_some(value))
}

/// A `Set-Cookie` value; `max_age` in seconds, 0 deletes.
pub fn set_cookie(name: &str, value: &str, max_age: u32) -> Answer<HeaderValue> {
    HeaderValue::from_str(&format!(
        "{name}={value}; Path=/; Max-Age={max_age}; HttpOnly; Secure; SameSite=Lax"
    ))
    .map_err(|error| Refusal::internal(format!("a cookie: {error}")))
}

/// Refuses a request that does not come from our own page.
///
/// # Errors
/// `origin-refused`.
pub fn check_origin(headers: &HeaderMap, uri: &Uri, public_url: Option<&str>) -> Answer<()> {
    let refuse = |detail: &str| Err(Refusal::new(ErrorCode::OriginRefused, detail));
    if !is_browser(headers) {
        return refuse(
            "A browser's request that changes something needs the header X-Rackhand-Client: browser.",
        );
    }
    let Some(origin) = headers.get(header::ORIGIN).and_then(|value| value.to_str().ok()) else {
        return refuse("A browser's request that changes something needs an Origin header.");
    };
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    let host = headers
        .get(header::HOST)
        .and_then(|value| value.to_str().ok())
        .or_else(|| uri.authority().map(http::uri::Authority::as_str));
    let ours = match public_url {
        Some(url) => origin.eq_ignore_ascii_case(url.trim_end_matches('/')),
        None => false,
    };
    if ours || (authority.is_some() && authority.zip(host).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))) {
        return Ok(());
    }
    refuse("The request comes from a page of another origin.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[test]
    fn cookies_are_found_among_others() {
        let map = headers(&[("cookie", "a=b; __Host-rackhand_access=tok.en; c=d")]);
        assert_eq!(cookie(&map, ACCESS_COOKIE), Some("tok.en"));
        assert_eq!(cookie(&map, REFRESH_COOKIE), None);
        assert_eq!(cookie(&headers(&[("cookie", "x__Host-rackhand_access=1")]), ACCESS_COOKIE), None);
    }

    #[test]
    fn only_our_own_page_may_change_things() {
        let uri = Uri::from_static("/v1/jobs");
        let check = |pairs: &[(&'static str, &str)], url| check_origin(&headers(pairs), &uri, url).is_ok();
        let browser = ("x-rackhand-client", "browser");
        let host = ("host", "rack.example:8420");
        assert!(check(&[browser, host, ("origin", "https://rack.example:8420")], None));
        assert!(check(
            &[browser, ("host", "inner"), ("origin", "https://rack.example")],
            Some("https://rack.example/")
        ));
        assert!(!check(&[host, ("origin", "https://rack.example:8420")], None), "no client header");
        assert!(!check(&[browser, host], None), "no origin");
        assert!(!check(&[browser, host, ("origin", "https://evil.example")], None));
        assert!(!check(&[browser, host, ("origin", "null")], None));
        assert!(!check(&[browser, ("origin", "null")], None));
    }
}
