//! The address of a Redfish service.

use std::fmt;

use http::{
    Uri,
    uri::{Authority, Scheme},
};

/// Address of a Redfish service: scheme, host and port, and which of its systems is meant. Its `Display` is
/// `https://host:port`, with the system's path when one was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    scheme: Scheme,
    authority: Authority,
    system: Option<String>,
}

/// Where a system's path begins (DSP0266, "Resource URI patterns": members of `Systems` below the root).
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
    /// User information in the URL.
    #[error("the URL must not hold a user or password")]
    UserInfo,
}

impl Endpoint {
    /// Reads `https://host[:port]` or `host[:port]`. An IPv6 address stands in brackets. A path
    /// `/redfish/v1/Systems/{id}` names one system of a service that holds several; any other is ignored.
    ///
    /// # Errors
    /// Not a URL, a password in it, or plain `http` to another host than loopback: a password would go there
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
        let path = match link.split_once("://") {
            Some((_, rest)) => {
                let at = rest.find('/')?;
                let (authority, path) = rest.split_at_checked(at)?;
                let host = |text: &str| text.parse::<Authority>().ok().map(|a| a.host().to_ascii_lowercase());
                (host(authority)? == self.authority.host().to_ascii_lowercase()).then_some(path)?
            }
            None => link,
        };
        crate::document::is_safe_path(path).then_some(path)
    }
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
}
