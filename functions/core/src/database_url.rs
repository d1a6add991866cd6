//! A database URL as text, for hosts whose driver takes it as text: what it names, and what it leaves open. Pure.

use std::net::IpAddr;

/// Why a password is taken for something else: tokio-postgres takes the first `@`, wherever it stands, for its end, and
/// what follows for the host.
pub const UNENCODED: &str = "a `@` in the user, the password or a parameter must be written as %40, a `/` or `?` in \
                             user or password as %2F or %3F";

/// What is required of one.
pub const LIKE: &str =
    "a URL `postgres://user:password@host:port/database`, with each other `@` written as %40";

/// What follows the scheme of a database URL.
pub fn after_scheme(url: &str) -> Option<&str> {
    ["postgres://", "postgresql://"].iter().find_map(|scheme| url.strip_prefix(scheme))
}

/// Whether what follows the scheme has its only `@` before the host.
pub fn is_encoded(after_scheme: &str) -> bool {
    let authority = after_scheme.find(['/', '?']).unwrap_or(after_scheme.len());
    let (authority, rest) = after_scheme.split_at(authority);
    authority.matches('@').count() <= 1 && !rest.contains('@')
}

/// `host[:port]` of a database URL, with commas between where it names several.
pub fn hosts(url: &str) -> Option<&str> {
    let rest = after_scheme(url)?;
    let place = rest.split(['?', '/']).next()?;
    place.rsplit('@').next().filter(|hosts| !hosts.is_empty())
}

/// Whether `spin.toml`'s `allowed_outbound_hosts` lets us connect there. A pattern (`*.example`, a range of ports) is
/// left to Spin to judge.
pub fn allows(allowed: &str, host: &str) -> bool {
    let with_port = |place: &str| match place.rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') => place.to_owned(),
        _ => format!("{place}:5432"),
    };
    allowed.contains(['*', '{']) || allowed.contains("..") || with_port(allowed) == with_port(host)
}

/// Settles what a database URL leaves open: patience, name, and TLS beyond this machine. "Prefer", the
/// driver's default, would fall back to plain text when somebody in between refuses TLS: it is not heeded where
/// the URL says it, either. None for what is no database URL, is not [encoded](is_encoded), or names a host in its
/// query, which would be another one than the URL shows.
pub fn settled(url: &str, application: &str) -> Option<String> {
    let rest = after_scheme(url).filter(|rest| is_encoded(rest))?;
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let local = hosts(url)?.split(',').all(|host| {
        let name = match host.strip_prefix('[') {
            Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
            None => host.split(':').next().unwrap_or_default(),
        };
        name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    });
    let pairs: Vec<(&str, &str)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .collect();
    // The driver decodes names, too.
    if pairs.iter().any(|(name, _)| ["host", "hostaddr"].contains(name) || name.contains('%')) {
        return None;
    }
    let mode = pairs.iter().rev().find(|(name, _)| *name == "sslmode").map(|(_, mode)| *mode);
    let stands = mode.filter(|mode| ["disable", "require", "verify-ca", "verify-full"].contains(mode));
    let tls = stands.unwrap_or(if local { "disable" } else { "require" });
    let mut settled: Vec<String> = pairs
        .iter()
        .filter(|(name, _)| *name != "sslmode")
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    settled.push(format!("sslmode={tls}"));
    for (name, value) in [("connect_timeout", "5"), ("application_name", application)] {
        if !pairs.iter().any(|(other, _)| *other == name) {
            settled.push(format!("{name}={value}"));
        }
    }
    Some(format!("postgres://{place}?{}", settled.join("&")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_required_beyond_this_machine() {
        let mode = |url: &str| {
            let url = settled(url, "test").unwrap();
            url.split("sslmode=").nth(1).unwrap().split('&').next().unwrap().to_owned()
        };
        assert_eq!(mode("postgres://u:p@localhost:5432/db"), "disable");
        assert_eq!(mode("postgres://u:p@[::1]:5432/db"), "disable");
        assert_eq!(mode("postgres://u:p@db.example/db"), "require");
        assert_eq!(mode("postgres://u:p@localhost,db.example/db"), "require");
        assert_eq!(mode("postgres://u:p@db.example/db?sslmode=verify-full"), "verify-full");
        for falls_back in ["prefer", "allow", "", "require&sslmode=prefer"] {
            assert_eq!(mode(&format!("postgres://u:p@db.example/db?sslmode={falls_back}")), "require");
        }
        assert_eq!(mode("postgres://u:p@db.example/db?sslmode=disable"), "disable", "nothing less was said");
        for elsewhere in ["host=db.example", "hostaddr=192.0.2.1", "x=y&host=a", "ssl%6dode=prefer"] {
            assert_eq!(settled(&format!("postgres://u:p@localhost/db?{elsewhere}"), "test"), None);
        }
        assert_eq!(settled("mysql://u:p@db.example/db", "test"), None);
        for ambiguous in ["u:p@ss@db.example/db", "u:p/@db.example/db", "u@db.example/db?password=p@ss"] {
            assert_eq!(settled(&format!("postgres://{ambiguous}"), "test"), None);
        }
    }

    #[test]
    fn the_allowed_host_is_that_of_the_url() {
        assert_eq!(hosts("postgres://u:p@db.example:6432/db?x=y"), Some("db.example:6432"));
        assert!(allows("db.example:5432", "db.example"));
        assert!(!allows("db.example:5432", "db.example:6432"));
        assert!(!allows("db.example:5432", "other.example:5432"));
        assert!(allows("*.example:5432", "db.example:5432"));
    }
}
