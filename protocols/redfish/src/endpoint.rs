//! The address of a Redfish service.

use std::fmt;

use http::{
    Uri,
    uri::{Authority, Scheme},
};
use serde_json::Value;

use crate::document::is_safe_path;

/// Address of a Redfish service: scheme, host and port, and which of its systems is meant. Its `Display` is
/// `https://host:port`, with the system's path when one was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    scheme: Scheme,
    authority: Authority,
    system: Option<String>,
}

/// Where a system's path begins (DSP0266: members of `Systems` below the root).
const SYSTEMS: &str = "/redfish/v1/Systems/";

/// Why a text is not an [`Endpoint`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not a URL.
    #[error("not an https URL with a host")]
    NotAUrl,
    /// A scheme other than https (or http on loopback).
    #[error("only https is accepted (plain http on 127.0.0.1 and [::1] only)")]
    Scheme,
    /// A port that is none.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// User information in the URL.
    #[error("the URL must not hold a user or password")]
    UserInfo,
}

impl Endpoint {
    /// Reads `https://host[:port]` or `host[:port]`. An IPv6 address stands in brackets. A path
    /// `/redfish/v1/Systems/{id}` names one system of a service that holds several; any other is ignored.
    ///
    /// # Errors
    /// Not a URL, a port that is none, a password in it, or plain `http` to another host than loopback: a password would go there
    /// readable.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        let text = text.trim();
        let full = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let parts = full.parse::<Uri>().map_err(|_| EndpointError::NotAUrl)?.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(EndpointError::NotAUrl);
        };
        let path = parts.path_and_query.as_ref().map_or("", |path| path.path()).trim_end_matches('/');
        let names_system = path.strip_prefix(SYSTEMS).is_some_and(|id| !id.is_empty() && !id.contains('/'));
        let system = names_system.then(|| path.to_owned());
        if authority.as_str().contains('@') {
            return Err(EndpointError::UserInfo);
        }
        if authority.host().is_empty() {
            return Err(EndpointError::NotAUrl);
        }
        // `port_u16` is none as well where what stands there is no port.
        if authority.as_str() != authority.host() && authority.port_u16().is_none_or(|port| port == 0) {
            return Err(EndpointError::Port);
        }
        let loopback = matches!(authority.host(), "127.0.0.1" | "[::1]");
        if scheme == Scheme::HTTPS || scheme == Scheme::HTTP && loopback {
            return Ok(Self { scheme, authority, system });
        }
        Err(EndpointError::Scheme)
    }

    /// Host and port, as in errors and observations.
    #[must_use]
    pub fn address(&self) -> &str {
        self.authority.as_str()
    }

    /// Path of the system that the address names.
    #[must_use]
    pub fn system(&self) -> Option<&str> {
        self.system.as_deref()
    }

    /// The absolute URI of a path with or without query.
    pub(crate) fn uri(&self, path: &str) -> Result<Uri, http::Error> {
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()
    }

    /// The path of a link on this service. Absolute URLs of another host yield nothing: credentials do not go there.
    pub(crate) fn path_of<'a>(&self, link: &'a str) -> Option<&'a str> {
        let path = match split(link) {
            Some((_, authority, path)) => {
                let host = |text: &str| text.parse::<Authority>().ok().map(|a| a.host().to_ascii_lowercase());
                (host(authority)? == self.authority.host().to_ascii_lowercase()).then_some(path)?
            }
            None => link,
        };
        is_safe_path(path).then_some(path)
    }

    /// The path of the session that a login has made (`Location`). A BMC calls itself by the name that it believes in,
    /// not by the one it was reached with; the host is not looked at, because a path is asked from this service only.
    pub(crate) fn path_of_session<'a>(&self, location: &'a str) -> Option<&'a str> {
        let path = split(location).map_or(location, |(_, _, path)| path);
        is_safe_path(path).then_some(path)
    }

    /// The path a redirect leads to, when it stays on this very scheme, host and port.
    pub(crate) fn path_of_redirect<'a>(&self, location: &'a str) -> Option<&'a str> {
        let path = match split(location) {
            Some((scheme, authority, path)) => {
                let port = |a: &Authority| a.port_u16().unwrap_or(if scheme == "http" { 80 } else { 443 });
                let other: Authority = authority.parse().ok()?;
                let same = scheme.eq_ignore_ascii_case(self.scheme.as_str())
                    && !authority.contains('@')
                    && other.host().eq_ignore_ascii_case(self.authority.host())
                    && port(&other) == port(&self.authority);
                same.then_some(path)?
            }
            None => location,
        };
        is_safe_path(path).then_some(path)
    }

    /// Writes the links of a document as paths of this service where they are meant as such: as absolute URLs of this
    /// host, without the first slash, or with blanks in them. Other links stay as they are.
    pub(crate) fn own_links(&self, value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.own_links(item)),
            Value::Object(members) => {
                for (name, member) in members {
                    match member {
                        Value::String(link) if is_link_name(name) => {
                            if let Some(path) = self.own_path(link) {
                                *link = path;
                            }
                        }
                        member => self.own_links(member),
                    }
                }
            }
            _ => {}
        }
    }

    /// The path a badly written link means; `None` when it is well written or not understood.
    fn own_path(&self, link: &str) -> Option<String> {
        let link = link.trim();
        if is_safe_path(link) {
            return None;
        }
        let path = match split(link) {
            Some(_) => self.path_of(link)?.to_owned(),
            None if link.starts_with("redfish/") => format!("/{link}"),
            None => link.to_owned(),
        };
        let escaped: String = path.bytes().fold(String::with_capacity(path.len()), |mut escaped, byte| {
            match byte {
                b' ' | 0x80.. => escaped.push_str(&format!("%{byte:02X}")),
                byte => escaped.push(char::from(byte)),
            }
            escaped
        });
        is_safe_path(&escaped).then_some(escaped)
    }
}

/// Scheme, authority and path of an absolute URL.
fn split(link: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = link.split_once("://")?;
    let (authority, path) = rest.split_at_checked(rest.find('/')?)?;
    Some((scheme, authority, path))
}

/// Whether a property's text is a link by its name (DSP0266).
fn is_link_name(name: &str) -> bool {
    let ends = |with: &str| {
        name.len() >= with.len()
            && name
                .as_bytes()
                .iter()
                .rev()
                .zip(with.as_bytes().iter().rev())
                .all(|(a, b)| a.eq_ignore_ascii_case(b))
    };
    ["@odata.id", "@odata.nextLink", "@Redfish.ActionInfo", "Uri"].into_iter().any(ends)
        || name.eq_ignore_ascii_case("target")
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.system().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_or_loopback() {
        let shown = |text| Endpoint::parse(text).map(|endpoint| endpoint.to_string());
        assert_eq!(shown("10.0.0.7").as_deref(), Ok("https://10.0.0.7"));
        assert_eq!(shown("https://bmc.example:8443/redfish/v1").as_deref(), Ok("https://bmc.example:8443"));
        assert_eq!(shown("[fd00::7]:443").as_deref(), Ok("https://[fd00::7]:443"));
        assert_eq!(shown("http://127.0.0.1:8000").as_deref(), Ok("http://127.0.0.1:8000"));
        assert_eq!(shown("http://10.0.0.7"), Err(EndpointError::Scheme));
        assert_eq!(shown("ftp://10.0.0.7"), Err(EndpointError::Scheme));
        assert_eq!(shown("https://root:calvin@10.0.0.7"), Err(EndpointError::UserInfo));
        assert_eq!(shown("https://"), Err(EndpointError::NotAUrl));
        // Not the port of https instead.
        for text in ["https://10.0.0.7:99999", "10.0.0.7:abc", "https://[fd00::7]:0", "https://10.0.0.7:"] {
            assert!(matches!(shown(text), Err(EndpointError::Port | EndpointError::NotAUrl)), "{text}");
        }
    }

    #[test]
    fn a_path_may_name_a_system() {
        let system = |path: &str| {
            let endpoint = Endpoint::parse(&format!("https://10.0.0.7{path}")).unwrap();
            endpoint.system().map(str::to_owned)
        };
        assert_eq!(system("/redfish/v1/Systems/node-2/").as_deref(), Some("/redfish/v1/Systems/node-2"));
        for path in ["", "/", "/redfish/v1", "/redfish/v1/Systems", "/redfish/v1/Systems/a/Bios"] {
            assert_eq!(system(path), None, "{path}");
        }
    }

    #[test]
    fn links_stay_on_the_service() {
        let endpoint = Endpoint::parse("https://10.0.0.7:443").unwrap();
        assert_eq!(endpoint.path_of("/redfish/v1/Systems"), Some("/redfish/v1/Systems"));
        assert_eq!(endpoint.path_of("https://10.0.0.7/redfish/v1/a?b=c"), Some("/redfish/v1/a?b=c"));
        assert_eq!(endpoint.path_of("https://10.0.0.8/redfish/v1/a"), None);
        assert_eq!(endpoint.path_of("//evil/redfish"), None);
        assert_eq!(endpoint.path_of("/a b"), None);
        assert_eq!(endpoint.path_of(""), None);
    }

    #[test]
    fn a_redirect_keeps_scheme_host_and_port() {
        let endpoint = Endpoint::parse("https://10.0.0.7").unwrap();
        for (location, path) in [
            ("/redfish/v1/a/", Some("/redfish/v1/a/")),
            ("https://10.0.0.7/redfish/v1/a/", Some("/redfish/v1/a/")),
            ("https://10.0.0.7:443/redfish/v1/a/", Some("/redfish/v1/a/")),
            ("http://10.0.0.7/redfish/v1/a/", None),
            ("https://10.0.0.7:8443/redfish/v1/a/", None),
            ("https://10.0.0.8/redfish/v1/a/", None),
            ("https://root@10.0.0.7/redfish/v1/a/", None),
            ("//10.0.0.7/redfish/v1/a/", None),
            ("https://10.0.0.7", None),
        ] {
            assert_eq!(endpoint.path_of_redirect(location), path, "{location}");
        }
        assert_eq!(
            endpoint.path_of_session("https://bmc-17.example.net/redfish/v1/a"),
            Some("/redfish/v1/a")
        );
    }

    #[test]
    fn links_of_a_document_are_written_as_paths() {
        let endpoint = Endpoint::parse("https://10.0.0.7").unwrap();
        let mut value = serde_json::json!({
            "a": [{ "@odata.id": "https://10.0.0.7/redfish/v1/a" }, { "@Odata.Id": "redfish/v1/b" }],
            "b": { "@odata.id": "/redfish/v1/PSU Slot é" }, "c": { "@odata.id": "https://10.0.0.8/redfish/v1/c" },
            "target": "https://10.0.0.7/redfish/v1/d", "Text": "redfish/v1/e",
        });
        endpoint.own_links(&mut value);
        let mended = serde_json::json!({
            "a": [{ "@odata.id": "/redfish/v1/a" }, { "@Odata.Id": "/redfish/v1/b" }],
            "b": { "@odata.id": "/redfish/v1/PSU%20Slot%20%C3%A9" },
            "c": { "@odata.id": "https://10.0.0.8/redfish/v1/c" },
            "target": "/redfish/v1/d", "Text": "redfish/v1/e",
        });
        assert_eq!(value, mended);
    }
}
