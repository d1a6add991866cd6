//! Where things are: the work tree, cargo's output and the state of `up`.

use std::{
    env, fs,
    io::{ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use crate::error::{Failure, Result};

/// The root of the work tree.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Where cargo puts debug binaries.
pub fn binaries() -> PathBuf {
    target().join("debug")
}

/// Cargo's output folder.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Cargo in the work tree, as a person would call it: what `cargo run` told us about ourselves would make build
/// scripts that look at it (ring's does) run anew each time.
pub fn cargo() -> Command {
    let mut command = Command::new("cargo");
    for (name, _) in env::vars_os() {
        let told = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_")
                || name.starts_with("CARGO_MANIFEST_")
                || name == "CARGO_CRATE_NAME"
        });
        if told {
            command.env_remove(name);
        }
    }
    command.current_dir(root());
    command
}

/// Everything `up` keeps: logs, keys, the database. Never in git. `RACKHAND_STATE` names another folder, so that two
/// of them run side by side.
pub fn state() -> PathBuf {
    root().join(env::var_os("RACKHAND_STATE").unwrap_or_else(|| ".rackhand".into()))
}

/// Makes a folder that only its owner may enter.
pub fn private_folder(path: &Path) -> Result<()> {
    match fs::DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Err(source) => Err(Failure::at("create", path, source)),
        Ok(()) => Ok(()),
    }
}

/// Removes a folder and all in it; absent is fine.
pub fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != ErrorKind::NotFound => Err(Failure::at("remove", path, source)),
        _ => Ok(()),
    }
}

/// Writes a file that only its owner can read (mode 0600 from the first byte on).
pub fn write_secret(path: &Path, text: &str) -> Result<()> {
    let _ = fs::remove_file(path);
    fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| Failure::at("write", path, source))
}

/// A random secret of 32 bytes in hex.
pub fn random_secret() -> Result<String> {
    random_hex(32)
}

/// Random hex digits, two for each byte.
pub fn random_hex(count: usize) -> Result<String> {
    let mut bytes = vec![0_u8; count];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes))
        .map_err(|source| Failure::io("no random numbers", source))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
