//! What this executor does for the control plane, and what it refuses whatever the control plane says.
//!
//! `policy.toml` in the data directory, written by the person who runs the machine. Every key may be left out;
//! without a file everything this version can do is allowed, for every server of the site, and packages are
//! fetched from any host (they are used only if their size and SHA-256 are the approved ones). `enrol` writes
//! a commented file to start from. A refusal ends the run with `policy-refused` and names the key.

use std::path::Path;

use rackhand_schema::{job::JobSpec, protocol::RunGrant};
use serde::Deserialize;

/// The file `enrol` leaves behind.
pub const TEMPLATE: &str = r#"# What this executor may do, whatever the control plane asks for.
# A key that is left out allows everything, as shown.

# Job kinds: "inventory", "power", "boot_override", "firmware_update".
#kinds = ["inventory", "power", "boot_override", "firmware_update"]

# Names of servers and addresses of BMCs it may touch; * stands for any text.
#servers = ["*"]
#urls = ["https://*", "ipmi://*"]

# Most runs at once that change something.
#max_mutating_runs = 16

# Hosts (host or host:port) from which packages are fetched; * stands for any text.
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
        let policy: Self = toml::from_str(&text).map_err(|why| error(why.to_string()))?;
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
        matches_any(&self.urls, url)
    }

    /// Whether packages may be fetched from `host` (`host:port` where the address names a port).
    pub fn allows_package_host(&self, host: &str) -> bool {
        let bare = host.rsplit_once(':').map_or(host, |(bare, _)| bare);
        matches_any(&self.package_hosts, host) || matches_any(&self.package_hosts, bare)
    }
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
