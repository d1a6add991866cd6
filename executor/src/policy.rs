//! What this executor does for the control plane, and what it refuses whatever the control plane says.
//!
//! `policy.toml` in the data directory, written by the person who runs the machine. Every key may be left out;
//! without a file everything this version can do is allowed, for every server of the site, and packages are
//! fetched from any host (they are used only if their size and SHA-256 are the approved ones). `enrol` writes
//! a commented file to start from. A refusal ends the run with `policy-refused` and names the key.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use rackhand_schema::{job::JobSpec, protocol::RunGrant};
use serde::Deserialize;

/// The file `enrol` leaves behind.
pub const TEMPLATE: &str = r#"# What this executor may do, whatever the control plane requests.
# A key that is not set allows everything, as shown.

# Job kinds: "inventory", "power", "boot_override", "firmware_update".
#kinds = ["inventory", "power", "boot_override", "firmware_update"]

# Names of servers and addresses of BMCs it may touch; * stands for any text, but https://10.0.0.* for IP addresses
# only. Names are given by the control plane, and an operator there may register any machine under any name: what
# must not be touched is kept out by its address. List the networks of your BMCs: a control plane that was taken over
# can seal credentials of its own, and have any address probed that this machine reaches and `urls` does not exclude.
#servers = ["*"]
#urls = ["https://*", "ipmi://*"]

# Most runs at once that change something.
#max_mutating_runs = 16

# Hosts (host or host:port) from which packages are fetched; * as in `urls`. List your repository here and nothing
# else, such as ["firmware.example.net"]: with "*", whoever writes a firmware job can make this machine send a
# request to any host that it reaches, itself at its own address included. Loopback and link-local addresses and those
# at which clouds tell machines their secrets are asked only if they are named here in full.
#package_hosts = ["*"]

# Restart a host that does not react to a polite request while a staged update waits. Without it such a run fails.
#allow_forced_restart = true

# BMCs that fetch packages themselves (old firmware) fetch them from here: an address of this machine in their
# network. Without it such updates are refused. `package_url` is what BMCs are told, when it differs.
#package_listen = "10.0.0.5:8640"
#package_url = "http://10.0.0.5:8640"
"#;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    pub kinds: Vec<String>,
    pub servers: Vec<String>,
    pub urls: Vec<String>,
    pub max_mutating_runs: u32,
    pub package_hosts: Vec<String>,
    pub allow_forced_restart: bool,
    pub package_listen: Option<std::net::SocketAddr>,
    pub package_url: Option<String>,
}

impl Default for Policy {
    fn default() -> Self {
        let any = || vec!["*".to_owned()];
        Self {
            kinds: JobSpec::KINDS.map(str::to_owned).to_vec(),
            servers: any(),
            urls: any(),
            max_mutating_runs: 16,
            package_hosts: any(),
            allow_forced_restart: true,
            package_listen: None,
            package_url: None,
        }
    }
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("{file}: {why}")]
pub struct PolicyError {
    file: String,
    why: String,
}

impl Policy {
    /// Reads `policy.toml` of `directory`; the default when there is none.
    ///
    /// # Errors
    /// When the file cannot be read or says something this version does not know.
    pub fn load(directory: &Path) -> Result<Self, PolicyError> {
        let path = directory.join("policy.toml");
        let error = |why: String| PolicyError { file: path.display().to_string(), why };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(other) => return Err(error(other.to_string())),
        };
        let policy: Self = toml::from_str(&text).map_err(|why| error(crate::config::trouble(&text, &why)))?;
        for kind in &policy.kinds {
            if !JobSpec::KINDS.contains(&kind.as_str()) {
                return Err(error(format!("`{kind}` is not a job kind this version knows")));
            }
        }
        Ok(policy)
    }

    /// Why `grant` is refused, naming the key; none when it is allowed.
    pub fn refusal(&self, grant: &RunGrant) -> Option<String> {
        let kind = grant.spec.kind();
        if !self.kinds.iter().any(|allowed| allowed == kind) {
            return Some(format!("`kinds` does not list {kind}"));
        }
        if !matches_any(&self.servers, &grant.target.name) {
            return Some(format!("`servers` matches no {}", grant.target.name));
        }
        if !self.allows_url(&grant.target.url) {
            return Some(format!("`urls` matches no {}", grant.target.url));
        }
        None
    }

    /// Whether a BMC at this address may be spoken to.
    pub fn allows_url(&self, url: &str) -> bool {
        self.urls.iter().any(|pattern| matches_address(pattern, url))
    }

    /// Whether packages may be fetched from `host` (`host:port` where the address names a port).
    pub fn allows_package_host(&self, host: &str) -> bool {
        let bare = host.rsplit_once(':').map_or(host, |(bare, _)| bare);
        let matches = |pattern: &String| matches_address(pattern, host) || matches_address(pattern, bare);
        self.package_hosts.iter().any(matches)
    }

    /// Whether packages may be fetched from `ip`, an address of the host `host` that is allowed otherwise.
    pub fn allows_package_address(&self, host: &str, ip: IpAddr) -> bool {
        let named = |pattern: &String| {
            pattern == host
                || pattern.rsplit_once(':').is_some_and(|(bare, _)| bare == host && !bare.is_empty())
        };
        !is_own_or_metadata(ip) || self.package_hosts.iter().any(named)
    }
}

/// Addresses at which clouds tell machines their secrets and which are not link-local, as that of most clouds is
/// (169.254.169.254): Alibaba's, Azure's, Oracle's; and over IPv6 Amazon's, for machines and for pods, and Google's.
const METADATA: [IpAddr; 6] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// Loopback, unspecified and link-local addresses, and [`METADATA`].
fn is_own_or_metadata(ip: IpAddr) -> bool {
    let ip = canonical(ip);
    METADATA.contains(&ip)
        || match ip {
            IpAddr::V4(ip) => {
                ip.is_loopback() || ip.is_unspecified() || ip.is_link_local() || ip.is_broadcast()
            }
            IpAddr::V6(ip) => ip.is_loopback() || ip.is_unspecified() || ip.is_unicast_link_local(),
        }
}

/// The IPv4 address that an IPv6 one leads to, mapped or through NAT64 (RFC 6052, section 2.1).
fn canonical(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) if v6.to_bits() >> 32 == 0x0064_ff9b << 64 => {
            let [.., a, b, c, d] = v6.octets();
            Ipv4Addr::new(a, b, c, d).into()
        }
        other => other,
    }
}

/// `matches`, for where a request goes. What follows the host is compared apart from it, so that a path cannot end like
/// an allowed host; a pattern without a path allows them all. A pattern of numbers is for IP addresses only, whatever
/// names begin like them.
fn matches_address(pattern: &str, address: &str) -> bool {
    let (origin_pattern, path_pattern) = cut_path(pattern);
    let (origin, path) = cut_path(address);
    let of_numbers = |host: &str| {
        host.bytes().all(|byte| byte.is_ascii_digit() || b".*".contains(&byte))
            && host.bytes().any(|byte| byte.is_ascii_digit())
    };
    matches(origin_pattern, origin)
        && (path_pattern.is_empty() || matches(path_pattern, path))
        && (!of_numbers(host_of(origin_pattern)) || host_of(origin).parse::<Ipv4Addr>().is_ok())
}

/// `[scheme://]host[:port]` and what follows it.
fn cut_path(address: &str) -> (&str, &str) {
    let host = address.find("://").map_or(0, |at| at + "://".len());
    let path = address.get(host..).and_then(|rest| rest.find(['/', '?', '#'])).map(|at| host + at);
    address.split_at_checked(path.unwrap_or(address.len())).unwrap_or((address, ""))
}

fn host_of(origin: &str) -> &str {
    let authority = origin.split_once("://").map_or(origin, |(_, authority)| authority);
    authority.split_once(':').map_or(authority, |(host, _)| host)
}

fn matches_any(patterns: &[String], text: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, text))
}

/// `*` stands for any text, everything else for itself.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("r750-*", "r750-12", true),
            ("r750-*", "r650-12", false),
            ("*-lab", "a-lab", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abde", false),
            ("same", "same", true),
            ("same", "same2", false),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_name_is_not_taken_for_an_address_of_an_allowed_network() {
        for (pattern, address, allowed) in [
            ("https://10.20.*", "https://10.20.0.1", true),
            ("https://10.20.*", "https://10.20.0.1:8443", true),
            ("https://10.20.*", "https://10.20.0.1/redfish/v1/Systems/1", true),
            ("https://10.20.*", "https://10.20.prod-bmc.attacker.example", false),
            ("https://10.20.*", "https://10.20.0.1.attacker.example", false),
            ("https://10.20.*", "https://10.20.0.1@attacker.example", false),
            ("https://10.20.*", "https://10.20.1", false),
            ("https://10*", "https://10gbe.attacker.example", false),
            ("https://10.20.*:443", "https://10.20.prod-bmc.attacker.example:443", false),
            ("ipmi://10.20.*", "ipmi://10.20.0.1:6230", true),
            ("ipmi://10.20.*", "ipmi://10.20.prod-bmc.attacker.example", false),
            ("10.20.*", "10.20.0.1:443", true),
            ("10.20.*", "10.20.attacker.example:443", false),
            ("https://[fd00:*", "https://[fd00::7]", true),
            ("https://[fd00:*", "https://fd00.attacker.example", false),
            ("https://10.*.lab.example", "https://10.bmc.lab.example", true),
            ("https://*.lab.example", "https://bmc-7.lab.example/redfish/v1/Systems/1", true),
            ("https://*.lab.example", "https://attacker.example/redfish/v1/Systems/.lab.example", false),
            ("https://*.lab.example", "https://attacker.example?.lab.example", false),
            ("https://a/redfish/v1/Systems/1", "https://a/redfish/v1/Systems/1", true),
            ("https://a/redfish/v1/Systems/1", "https://a/redfish/v1/Systems/2", false),
            ("https://a/redfish/v1/Systems/1", "https://a", false),
            ("https://*", "https://bmc.example", true),
            ("*", "ipmi://bmc.example", true),
        ] {
            let policy = Policy {
                urls: vec![pattern.to_owned()],
                package_hosts: vec![pattern.to_owned()],
                ..Policy::default()
            };
            assert_eq!(policy.allows_url(address), allowed, "{pattern} {address}");
            if !address.contains("://") {
                assert_eq!(policy.allows_package_host(address), allowed, "{pattern} {address}");
            }
        }
    }

    #[test]
    fn addresses_at_which_clouds_tell_secrets_are_asked_only_if_they_are_named() {
        let policy = Policy::default();
        for ip in [
            "127.0.0.1",
            "169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "::ffff:168.63.129.16",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b::7f00:1",
        ] {
            assert!(!policy.allows_package_address("evil.example", ip.parse().unwrap()), "{ip}");
            let named = Policy { package_hosts: vec![ip.to_owned()], ..Policy::default() };
            assert!(named.allows_package_address(ip, ip.parse().unwrap()), "{ip}");
        }
        for ip in ["10.0.0.5", "168.63.129.17", "fd00:ec2::1", "64:ff9b::808:808", "2001:db8::1"] {
            assert!(policy.allows_package_address("repository.example", ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn the_template_says_what_the_default_is() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Policy::load(directory.path()).unwrap(), Policy::default());
        let uncommented: String = TEMPLATE
            .lines()
            .filter_map(|line| line.strip_prefix('#').filter(|line| !line.starts_with(' ')))
            .filter(|line| !line.starts_with("package_listen") && !line.starts_with("package_url"))
            .flat_map(|line| [line, "\n"])
            .collect();
        let mut parsed: Policy = toml::from_str(&uncommented).unwrap();
        assert_eq!(parsed.urls, ["https://*", "ipmi://*"]);
        parsed.urls = vec!["*".into()];
        assert_eq!(parsed, Policy::default());
    }

    #[test]
    fn unknown_keys_and_kinds_are_errors() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy.toml");
        std::fs::write(&path, "kind = []").unwrap();
        assert!(Policy::load(directory.path()).is_err());
        std::fs::write(&path, "kinds = [\"raw\"]").unwrap();
        assert!(Policy::load(directory.path()).unwrap_err().to_string().contains("raw"));
        std::fs::write(&path, "package_hosts = [\"repo\", \"other:8080\"]").unwrap();
        let policy = Policy::load(directory.path()).unwrap();
        assert!(policy.allows_package_host("repo:80") && policy.allows_package_host("other:8080"));
        assert!(!policy.allows_package_host("other:9") && !policy.allows_package_host("evil"));
    }
}
