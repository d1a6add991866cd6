//! The browser test: `tests/browser/path.mjs` in Chromium, against a stack like that of `up`.
//!
//! What it is given stands at the top of that file; the password goes through a file of mode 0600.

use std::{path::Path, process::Command};

use super::runner::{Tally, run as run_command};
use crate::{error::Result, install, paths, up};

pub fn run() -> Result<Tally> {
    let folder = paths::root().join("tests/browser");
    if !folder.join("path.mjs").exists() {
        return Ok(Tally::skip("tests/browser/path.mjs is not there"));
    }
    let chromium = ["chromium", "chromium-browser", "google-chrome"].into_iter().find_map(install::on_path);
    let Some(chromium) = chromium else { return Ok(Tally::skip("no Chromium on this machine")) };
    if !folder.join("node_modules/.package-lock.json").exists() {
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund"]).current_dir(&folder);
        let installed = run_command(npm, "npm ci")?;
        if installed.failed > 0 {
            return Ok(installed);
        }
    }
    up::with_stack(up::Args::for_browser(), |stack| {
        let password = stack.file("browser-password");
        paths::write_secret(&password, &format!("{}\n", stack.password))?;
        let mut node = node(&folder);
        node.env("URL", &stack.url)
            .env("EMAIL", &stack.email)
            .env("PASSWORD_FILE", &password)
            .env("PACKAGES_JSON", &stack.packages)
            .env("SITE", &stack.site)
            .env("OUT", paths::state().join("screenshots"))
            .env("CHROMIUM", &chromium);
        run_command(node, "node path.mjs")
    })
}

fn node(folder: &Path) -> Command {
    let mut command = Command::new("node");
    command.arg("path.mjs").current_dir(folder);
    command
}
