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

/// Refuses a request that does not come from our own page: a page of `public_url`, or of this machine where that is not
/// set.
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
    let ours = match (public_url, called_locally(headers, uri)) {
        (Some(url), _) => origin.eq_ignore_ascii_case(url.trim_end_matches('/')),
        (None, Some(host)) => {
            origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host))
        }
        (None, None) => return refuse("This control plane's settings do not name its public URL."),
    };
    if ours { Ok(()) } else { refuse("The request comes from a page of another origin.") }
}

/// `host[:port]` of the `Host` header, if that is this machine. Any other name in it is what the caller says, and
/// proves nothing: whoever relays requests for others writes ours or theirs there, as they like.
pub fn called_locally<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Option<&'a str> {
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    host.or_else(|| uri.authority().map(http::uri::Authority::as_str)).filter(|host| is_this_machine(host))
}

/// Whether browsers hold `host[:port]` to be this machine, and so take our cookies without TLS.
fn is_this_machine(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<http::uri::Authority>() else { return false };
    let host = authority.host().trim_matches(['[', ']']);
    let named = host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost");
    named || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
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
        assert!(check(
            &[browser, ("host", "inner"), ("origin", "https://rack.example")],
            Some("https://rack.example/")
        ));
        for this_machine in ["127.0.0.1:8420", "localhost:8420", "[::1]:8420"] {
            let origin = format!("http://{this_machine}");
            assert!(check(&[browser, ("host", this_machine), ("origin", &origin)], None), "{origin}");
        }
        // A name that only the request says.
        assert!(!check(&[browser, host, ("origin", "https://rack.example:8420")], None));
        let here = ("host", "127.0.0.1:8420");
        let inner = [browser, ("host", "inner"), ("origin", "https://inner")];
        assert!(!check(&inner, Some("https://rack.example")), "where we are reached is known");
        assert!(!check(
            &[browser, ("host", "rack.example"), ("origin", "http://rack.example")],
            Some("https://rack.example")
        ));
        assert!(!check(&[here, ("origin", "http://127.0.0.1:8420")], None), "no client header");
        assert!(!check(&[browser, here], None), "no origin");
        assert!(!check(&[browser, here, ("origin", "http://127.0.0.1:8421")], None));
        assert!(!check(&[browser, here, ("origin", "https://evil.example")], None));
        assert!(!check(&[browser, here, ("origin", "null")], None));
        assert!(!check(&[browser, ("origin", "null")], None));
    }
}
