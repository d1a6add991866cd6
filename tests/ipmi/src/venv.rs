//! A Python virtual environment with packages of the registry, made once in the target directory, under a
//! lock: several test processes may ask. Without `python3 -m venv` or the registry the test fails and says
//! what is missing.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Command,
};

use crate::process::succeed;

/// `bin` of an environment `name` that holds these packages.
pub fn environment(name: &str, packages: &[&str]) -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    // target/debug/deps/<test>, or target/release/<bench>.
    let target = exe.ancestors().find(|path| path.join("CACHEDIR.TAG").exists()).expect("cargo's target");
    let folder = target.join("peers");
    fs::create_dir_all(&folder).unwrap();
    let lock = File::create(folder.join(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    let environment = folder.join(name);
    let bin = environment.join("bin");
    let stamp = environment.join("rackhand-packages");
    let wanted = packages.join("\n");
    if fs::read_to_string(&stamp).ok().as_ref() != Some(&wanted) {
        let _ = fs::remove_dir_all(&environment);
        // Debian: python3-venv.
        succeed(Command::new("python3").args(["-m", "venv"]).arg(&environment));
        let pip = ["install", "--quiet", "--disable-pip-version-check"];
        succeed(Command::new(bin.join("pip")).args(pip).args(packages));
        fs::write(stamp, wanted).unwrap();
    }
    bin
}
