//! Licences, bans, sources and advisories of every dependency, by the rules of `deny.toml`.
//!
//! cargo-deny does it where it is installed. Compiling it costs minutes, and where RustSec's database on github.com is
//! unreachable it gives nothing more, so without it the first three rules are applied to `cargo metadata` here.
//! Advisories need both: where one of them is missing, they are reported as skipped.

use std::fs;

use serde_json::Value;

use super::runner::{Tally, cargo};
use crate::{
    error::{Failure, Result},
    install, paths,
    terminal::say,
};

struct Rules {
    allowed: Vec<String>,
    /// Crate → licence that is allowed for it alone.
    exceptions: Vec<(String, String)>,
    banned: Vec<String>,
    registries: Vec<String>,
}

pub fn run() -> Result<Tally> {
    if install::on_path("cargo-deny").is_some() {
        let mut tally = cargo(&["deny", "--all-features", "check", "licenses", "bans", "sources"])?;
        tally.add(advisories(cargo)?);
        return Ok(tally);
    }
    let root = paths::root();
    let path = root.join("deny.toml");
    let text = fs::read_to_string(&path).map_err(|source| Failure::at("read", &path, source))?;
    let rules = Rules::parse(&text)?;
    let output = paths::cargo()
        .args(["metadata", "--format-version", "1", "--locked"])
        .output()
        .map_err(|source| Failure::io("cannot run cargo metadata", source))?;
    if !output.status.success() {
        return Err(Failure::Other(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let metadata: Value =
        serde_json::from_slice(&output.stdout).map_err(|error| Failure::Other(error.to_string()))?;
    let packages = metadata.get("packages").and_then(Value::as_array).cloned().unwrap_or_default();
    let faults: Vec<String> = packages.iter().flat_map(|package| rules.faults(package)).collect();
    for fault in &faults {
        say(fault);
    }
    say(format!("{} crates checked against deny.toml", packages.len()));
    let mut tally = Tally::skip("advisories: cargo-deny is not installed: cargo install --locked cargo-deny");
    tally.passed = u64::from(faults.is_empty());
    tally.failed = faults.len() as u64;
    Ok(tally)
}

/// A database that cannot be fetched is no advisory, and cargo-deny ends with the same status for both.
fn advisories(cargo: impl Fn(&[&str]) -> Result<Tally>) -> Result<Tally> {
    if cargo(&["deny", "fetch", "db"])?.failed > 0 {
        return Ok(Tally::skip("advisories: RustSec's database on github.com cannot be fetched"));
    }
    cargo(&["deny", "--offline", "--all-features", "check", "advisories"])
}

impl Rules {
    fn parse(text: &str) -> Result<Self> {
        let rules: toml::Table =
            toml::from_str(text).map_err(|error| Failure::Other(format!("deny.toml: {error}")))?;
        let list = |section: &str, name: &str| -> Vec<toml::Value> {
            let values =
                rules.get(section).and_then(|section| section.get(name)).and_then(toml::Value::as_array);
            values.cloned().unwrap_or_default()
        };
        let words = |values: &[toml::Value]| -> Vec<String> {
            values.iter().filter_map(toml::Value::as_str).map(str::to_owned).collect()
        };
        let name = |value: &toml::Value| {
            value.get("crate").and_then(toml::Value::as_str).unwrap_or_default().to_owned()
        };
        let mut exceptions = Vec::new();
        for exception in list("licenses", "exceptions") {
            let allowed = exception.get("allow").and_then(toml::Value::as_array).cloned().unwrap_or_default();
            exceptions.extend(words(&allowed).into_iter().map(|licence| (name(&exception), licence)));
        }
        let rules = Self {
            allowed: words(&list("licenses", "allow")),
            exceptions,
            banned: list("bans", "deny").iter().map(name).collect(),
            registries: words(&list("sources", "allow-registry")),
        };
        if rules.allowed.is_empty() || rules.registries.is_empty() {
            return Err(Failure::Other("deny.toml allows no licence or no registry".to_owned()));
        }
        Ok(rules)
    }

    fn faults(&self, package: &Value) -> Vec<String> {
        let member = |name: &str| package.get(name).and_then(Value::as_str);
        let name = member("name").unwrap_or_default();
        let mut faults = Vec::new();
        if self.banned.iter().any(|banned| banned == name) {
            faults.push(format!("{name}: banned"));
        }
        // A path dependency has no source: it is ours.
        if let Some(source) = member("source") {
            let known = self.registries.iter().any(|registry| source == format!("registry+{registry}"));
            if !known {
                faults.push(format!("{name}: comes from {source}"));
            }
        }
        match member("license") {
            Some(licence) if self.allows(name, licence) => {}
            Some(licence) => faults.push(format!("{name}: licence {licence}")),
            None => faults.push(format!("{name}: no licence")),
        }
        faults
    }

    /// Evaluates an SPDX expression: `OR` (formerly `/`) needs one side, `AND` both.
    fn allows(&self, name: &str, expression: &str) -> bool {
        let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
        let tokens: Vec<&str> = spaced.split_whitespace().collect();
        let mut rest = tokens.as_slice();
        let fits = self.either(name, &mut rest);
        fits && rest.is_empty()
    }

    fn either(&self, name: &str, rest: &mut &[&str]) -> bool {
        let mut fits = self.both(name, rest);
        while take(rest, "OR") {
            fits |= self.both(name, rest);
        }
        fits
    }

    fn both(&self, name: &str, rest: &mut &[&str]) -> bool {
        let mut fits = self.single(name, rest);
        while take(rest, "AND") {
            fits &= self.single(name, rest);
        }
        fits
    }

    fn single(&self, name: &str, rest: &mut &[&str]) -> bool {
        if take(rest, "(") {
            return self.either(name, rest) & take(rest, ")");
        }
        let Some((first, others)) = rest.split_first() else { return false };
        *rest = others;
        let mut licence = (*first).to_owned();
        if take(rest, "WITH")
            && let Some((exception, others)) = rest.split_first()
        {
            licence = format!("{licence} WITH {exception}");
            *rest = others;
        }
        self.allowed.contains(&licence)
            || self.exceptions.iter().any(|(other, allowed)| other == name && *allowed == licence)
    }
}

fn take(rest: &mut &[&str], word: &str) -> bool {
    match rest.split_first() {
        Some((first, others)) if *first == word => {
            *rest = others;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const RULES: &str = r#"
        [licenses]
        allow = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"]
        exceptions = [{ crate = "odd", allow = ["OpenSSL"] }]
        [bans]
        deny = [{ crate = "native-tls", reason = "rustls" }]
        [sources]
        allow-registry = ["https://github.com/rust-lang/crates.io-index"]
    "#;

    #[test]
    fn expressions_are_evaluated() {
        let rules = Rules::parse(RULES).unwrap();
        for good in
            ["MIT", "MIT/GPL-3.0", "GPL-3.0 OR (MIT AND Apache-2.0)", "Apache-2.0 WITH LLVM-exception OR X"]
        {
            assert!(rules.allows("a", good), "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND GPL-3.0", "", "(MIT", "Apache-2.0 WITH Other"] {
            assert!(!rules.allows("a", bad), "{bad}");
        }
        assert!(rules.allows("odd", "OpenSSL") && !rules.allows("a", "OpenSSL"));
    }

    #[test]
    fn a_database_that_cannot_be_fetched_is_a_skipped_check_and_an_advisory_a_failed_one() {
        let ends = |command: &'static str| {
            advisories(|arguments| {
                Ok(if arguments.contains(&command) { Tally::failure() } else { Tally::one() })
            })
            .unwrap()
        };
        let unreachable = ends("fetch");
        assert_eq!((unreachable.passed, unreachable.failed, unreachable.skipped.len()), (0, 0, 1));
        assert_eq!(ends("check"), Tally::failure());
        assert_eq!(ends("nothing"), Tally::one());
    }

    #[test]
    fn bans_and_sources_are_checked() {
        let rules = Rules::parse(RULES).unwrap();
        let crates_io = "registry+https://github.com/rust-lang/crates.io-index";
        assert!(rules.faults(&json!({"name": "a", "license": "MIT", "source": crates_io})).is_empty());
        assert!(rules.faults(&json!({"name": "ours", "license": "MIT", "source": null})).is_empty());
        assert_eq!(
            rules.faults(&json!({"name": "native-tls", "license": "MIT", "source": crates_io})).len(),
            1
        );
        assert_eq!(rules.faults(&json!({"name": "a", "license": "MIT", "source": "git+https://x"})).len(), 1);
        assert_eq!(rules.faults(&json!({"name": "a", "license": null, "source": crates_io})).len(), 1);
    }
}
