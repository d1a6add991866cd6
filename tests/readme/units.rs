//! The systemd units start what the chapter starts by hand, are sound, and give the services little.
//!
//! They are looked at by `systemd-analyze`, not started: a test has no systemd of its own.

use std::{collections::BTreeSet, fs, process::Command};

use rackhand_tests::skip::skip;
use xtask::{install, paths};

/// Of 100; an unhardened service has 96, these have 12.
const EXPOSURE: &str = "20";
const UNITS: [(&str, &str); 2] =
    [("rackhand-server", "rackhand-server --listen"), ("rackhand-executor", "rackhand-executor run")];

fn unit(name: &str) -> String {
    fs::read_to_string(paths::root().join(format!("deploy/{name}.service"))).unwrap()
}

/// Names of the options of a command, its line breaks removed.
fn options(command: &str) -> BTreeSet<String> {
    command.split_whitespace().filter(|word| word.starts_with("--")).map(str::to_owned).collect()
}

#[test]
fn a_unit_starts_what_the_chapter_starts() {
    let readme = fs::read_to_string(paths::root().join("README.md")).unwrap();
    for (name, start) in UNITS {
        let typed = readme.split(&format!("\n{start}")).nth(1).unwrap().split(" &\n").next().unwrap();
        let unit = unit(name);
        let started = unit.split("ExecStart=").nth(1).unwrap().replace("\\\n", " ");
        let started = started.lines().next().unwrap();
        assert!(started.starts_with(&format!("/usr/local/bin/{name} ")), "{started}");
        assert_eq!(options(started), options(&format!("{start}{typed}")), "{name}");
    }
}

#[test]
fn the_units_are_sound_and_hardened() {
    if install::on_path("systemd-analyze").is_none() {
        skip("units::the_units_are_sound_and_hardened", "systemd-analyze is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (name, _) in UNITS {
        // The program and its user are not on this machine.
        let here = unit(name).replace(&format!("/usr/local/bin/{name}"), "/bin/true");
        let here =
            here.replace("User=rackhand-executor\nGroup=rackhand-executor", "User=daemon\nGroup=daemon");
        let path = folder.path().join(format!("{name}.service"));
        fs::write(&path, here).unwrap();
        for arguments in [
            &["verify", "--man=no", "--recursive-errors=no"][..],
            &["security", "--offline=true", "--no-pager", "--threshold", EXPOSURE],
        ] {
            let looked = Command::new("systemd-analyze").args(arguments).arg(&path).output().unwrap();
            assert!(looked.status.success(), "{name}: {arguments:?}: {looked:?}");
            assert!(arguments[0] != "verify" || looked.stderr.is_empty(), "{name}: {looked:?}");
        }
    }
}
