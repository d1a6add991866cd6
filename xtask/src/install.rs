//! What the machine needs, and how it gets it.
//!
//! Debian packages are installed with apt-get by root; anybody else is told the exact command, because asking for a
//! password in the middle of a build helps nobody.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    error::{Failure, Result},
    postgres, terminal,
};

/// Debian packages by what they are needed for.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    pub package: &'static str,
    pub what: &'static str,
    present: fn() -> bool,
}

const POSTGRES: Need =
    Need { package: "postgresql", what: "the database", present: || postgres::installed().is_some() };
const CLIENT: Need =
    Need { package: "postgresql-client", what: "psql", present: || on_path("psql").is_some() };
const NODE: Need = Need {
    package: "nodejs",
    what: "building the UI: 20.19, 22.12 or later, also from https://nodejs.org/en/download",
    present: || {
        let version = Command::new("node").arg("--version").output();
        version.is_ok_and(|version| node_is_new(&String::from_utf8_lossy(&version.stdout)))
    },
};
const NPM: Need = Need { package: "npm", what: "building the UI", present: || on_path("npm").is_some() };
const CHROMIUM: Need =
    Need { package: "chromium", what: "the browser test", present: || on_path("chromium").is_some() };
const SETPRIV: Need =
    Need { package: "util-linux", what: "ending child processes", present: || on_path("setpriv").is_some() };

const PYTHON: Need = Need {
    package: "python3-venv",
    what: "foreign Redfish services and clients",
    present: || {
        let imports = ["-c", "import ensurepip, venv"];
        Command::new("python3").args(imports).output().is_ok_and(|output| output.status.success())
    },
};

const IPMI_SIM: Need = Need {
    package: "openipmi",
    what: "simulated BMCs that nobody here wrote",
    present: || on_path("ipmi_sim").is_some() && on_path("sdrcomp").is_some(),
};
const IPMITOOL: Need = Need {
    package: "ipmitool",
    what: "a reference client of IPMI",
    present: || on_path("ipmitool").is_some(),
};
const FREEIPMI: Need = Need {
    package: "freeipmi-tools",
    what: "a reference client of IPMI",
    present: || on_path("ipmi-sensors").is_some() || Path::new("/usr/sbin/ipmi-sensors").is_file(),
};

const PGBOUNCER: Need = Need {
    package: "pgbouncer",
    what: "a pooler in front of the database",
    present: || pgbouncer().is_file(),
};

/// For `up` without a database of one's own.
pub const FOR_UP: &[Need] = &[SETPRIV, POSTGRES, CLIENT, NODE, NPM];
/// For `up` with a database of the user's own.
pub const FOR_UP_ELSEWHERE: &[Need] = &[SETPRIV, CLIENT, NODE, NPM];
/// For `test`.
pub const FOR_TEST: &[Need] =
    &[SETPRIV, POSTGRES, PGBOUNCER, CLIENT, NODE, NPM, CHROMIUM, PYTHON, IPMI_SIM, IPMITOOL, FREEIPMI];
/// For `edge`.
pub const FOR_EDGE: &[Need] = &[SETPRIV, NODE, NPM];
/// For `bench`.
pub const FOR_BENCH: &[Need] = &[SETPRIV, POSTGRES, CLIENT, NODE, NPM, PYTHON, IPMI_SIM, IPMITOOL, FREEIPMI];

/// The program of that name on the search path.
pub fn on_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// PgBouncer's program; Debian puts it where only root's search path leads.
pub fn pgbouncer() -> PathBuf {
    on_path("pgbouncer").unwrap_or_else(|| PathBuf::from("/usr/sbin/pgbouncer"))
}

/// Installs what is missing, or says how.
///
/// # Errors
/// Not root, no apt-get, or apt-get failed.
pub fn ensure(needs: &[Need]) -> Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|need| !(need.present)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for need in &missing {
        terminal::say(format!("missing: {} (for {})", need.package, need.what));
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    let may_install = rustix::process::geteuid().is_root();
    if let Some(advice) = advice(&packages, may_install, on_path("apt-get").is_some()) {
        return Err(Failure::Missing(advice));
    }
    terminal::say(format!("installing: {INSTALL} {}", packages.join(" ")));
    apt(&["update"])?;
    apt(&[&["install", "-y", "--no-install-recommends"], packages.as_slice()].concat())?;
    match missing.iter().find(|need| !(need.present)()) {
        None => Ok(()),
        Some(need) => {
            Err(Failure::Missing(format!("apt-get's {} is not enough (for {})", need.package, need.what)))
        }
    }
}

const INSTALL: &str = "apt-get install -y --no-install-recommends";

/// What to do by hand; nothing if we can do it ourselves.
fn advice(packages: &[&str], may_install: bool, has_apt: bool) -> Option<String> {
    let packages = packages.join(" ");
    match (has_apt, may_install) {
        (false, _) => Some(format!("no apt-get here; install these, then try again: {packages}")),
        (true, false) => {
            Some(format!("install it, then try again:\n  sudo apt-get update && sudo {INSTALL} {packages}"))
        }
        (true, true) => None,
    }
}

/// Whether Vite runs on the Node.js that says this of itself (its `engines`: `^20.19.0 || >=22.12.0`). Debian 12
/// has 18.
fn node_is_new(version: &str) -> bool {
    let mut parts = version.trim().trim_start_matches('v').split('.').map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (parts.next(), parts.next()) else { return false };
    matches!((major, minor), (20, 19..) | (22, 12..) | (23.., _))
}

fn apt(arguments: &[&str]) -> Result<()> {
    let status = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdout(std::process::Stdio::null())
        .status()
        .map_err(|source| Failure::io("cannot run apt-get", source))?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::Missing(format!("apt-get {} failed", arguments.join(" "))))
    }
}

/// Adds compilation targets that are missing.
///
/// # Errors
/// There is no rustup, or it cannot download.
pub fn rust_targets(root: &Path, targets: &[&str]) -> Result<()> {
    let listed = Command::new("rustup")
        .args(["target", "list", "--installed"])
        .current_dir(root)
        .output()
        .map_err(|source| Failure::io("cannot run rustup", source))?;
    let installed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for target in targets.iter().filter(|target| !installed.lines().any(|line| line == **target)) {
        terminal::say(format!("installing: rustup target add {target}"));
        let added = Command::new("rustup")
            .args(["target", "add", target])
            .current_dir(root)
            .status()
            .map_err(|source| Failure::io("cannot run rustup", source))?;
        if !added.success() {
            return Err(Failure::Missing(format!("rustup target add {target} failed")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_missing_needs_nothing() {
        ensure(&[Need { package: "x", what: "y", present: || true }]).unwrap();
    }

    #[test]
    fn what_cannot_be_installed_is_named_with_its_command() {
        let told = advice(&["postgresql", "npm"], false, true).unwrap();
        let command = "sudo apt-get update && sudo apt-get install -y --no-install-recommends postgresql npm";
        assert!(told.lines().any(|line| line.trim() == command), "{told}");
        let told = advice(&["postgresql"], true, false).unwrap();
        assert!(told.contains("postgresql") && !told.contains("sudo"), "{told}");
        assert_eq!(advice(&["npm"], true, true), None);
    }

    #[test]
    fn node_as_old_as_debians_is_not_enough() {
        for new in ["v20.19.0", "v20.20.2\n", "v22.12.0", "v23.0.0", "v24.1.0"] {
            assert!(node_is_new(new), "{new}");
        }
        for old in ["v18.20.4", "v20.18.9", "v21.7.3", "v22.11.0", "", "node"] {
            assert!(!node_is_new(old), "{old}");
        }
    }
}
