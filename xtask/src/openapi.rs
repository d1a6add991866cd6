//! `cargo xtask openapi`: `schema/openapi.json` is what the code says, byte for byte.

use std::fs;

use crate::{
    error::{Failure, Result},
    paths, terminal,
    up::stack,
};

/// Writes the document, or with `check` fails when it differs from the code.
///
/// # Errors
/// The control plane does not compile, or the document is out of date.
pub fn run(check: bool) -> Result<()> {
    let root = paths::root();
    let output = stack::example("openapi")?
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|source| Failure::io("cannot run the example openapi", source))?;
    if !output.status.success() {
        return Err(Failure::Other("the API document could not be made".to_owned()));
    }
    let path = root.join("schema/openapi.json");
    let current = fs::read(&path).unwrap_or_default();
    if current == output.stdout {
        terminal::say("schema/openapi.json is up to date");
        return Ok(());
    }
    if check {
        return Err(Failure::Other(
            "schema/openapi.json differs from the code; run `cargo xtask openapi`".to_owned(),
        ));
    }
    fs::write(&path, &output.stdout).map_err(|source| Failure::at("write", &path, source))?;
    terminal::say("schema/openapi.json written");
    Ok(())
}
