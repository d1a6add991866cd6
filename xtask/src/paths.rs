//! Where things are: the work tree, cargo's output and the state of `up`.

use std::{
    env, fs,
    io::{ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
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

/// Everything `up` keeps: logs, keys, the database. Never in git.
pub fn state() -> PathBuf {
    root().join(".rackhand")
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

/// A random secret of 30 hex digits.
pub fn random_secret() -> Result<String> {
    let mut bytes = [0_u8; 15];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes))
        .map_err(|source| Failure::io("no random numbers", source))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
