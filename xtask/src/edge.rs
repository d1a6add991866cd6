//! `cargo xtask edge`: the control plane's two Wasm hosts, built and checked with tools from the registries alone.
//!
//! Worker: cargo → bindings (an example of `rackhand-worker`, so of the version that `Cargo.lock` pins) → esbuild;
//! the result is what `wrangler deploy` uploads. Spin: cargo alone makes the component.

use std::{fs, path::PathBuf, process::Command};

use crate::{
    error::{Failure, Result},
    install, paths,
    terminal::{result, say},
    up::{self, Args, stack},
};

/// Where the control plane runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Host {
    /// The native server.
    #[default]
    Server,
    /// Cloudflare Workers, in workerd.
    Worker,
    /// The Spin component, under jco.
    Spin,
}

impl Host {
    /// In words.
    pub const fn what(self) -> &'static str {
        match self {
            Self::Server => "native server",
            Self::Worker => "Worker in workerd",
            Self::Spin => "Spin component under jco",
        }
    }
}

#[derive(Debug, clap::Subcommand)]
pub enum Task {
    /// Build the Worker, the Spin component, or both.
    Build { host: Option<Host> },
    /// Start everything with that host, and leave it at rest: `up --idle --host`.
    Dev {
        host: Host,
        #[arg(long, default_value_t = 8420)]
        port: u16,
    },
    /// Build both and hold them to their limits, as `wrangler deploy` and a small plan would.
    Check,
}

pub const WORKER_TARGET: &str = "wasm32-unknown-unknown";
pub const SPIN_TARGET: &str = "wasm32-wasip2";
/// wasm-bindgen with the promises of js-sys instead of a second implementation; the worker crate is written for them.
pub const JS_SYS: (&str, &str) = ("WASM_BINDGEN_USE_JS_SYS", "1");

/// A Worker larger than this, compressed, misses its target; the platform's limit on a free plan is 3 MB.
const WORKER_LIMIT: u64 = 1_000_000;

/// # Errors
/// Something is missing, does not build, or is over its limit.
pub fn run(task: &Task) -> Result<()> {
    install::ensure(install::FOR_EDGE)?;
    match task {
        Task::Build { host: None } => {
            build(Host::Worker)?;
            build(Host::Spin)
        }
        Task::Build { host: Some(host) } => build(*host),
        Task::Dev { host, port } => up::run(&Args::idle_on(*host, *port)),
        Task::Check => check(),
    }
}

/// Builds what a host runs; for the native server nothing, cargo has.
///
/// # Errors
/// A tool is missing or failed.
pub fn build(host: Host) -> Result<()> {
    match host {
        Host::Server => Ok(()),
        Host::Worker => worker(),
        Host::Spin => spin(),
    }
}

/// The folder of the Worker's crate and tools.
pub fn worker_folder() -> PathBuf {
    paths::root().join("functions/worker")
}

/// The folder of the Spin component's runner.
pub fn spin_runner() -> PathBuf {
    paths::root().join("functions/spin/jco")
}

/// The component that [`build`] made.
pub fn spin_component() -> PathBuf {
    paths::target().join("wasm32-wasip2/edge/rackhand_spin.wasm")
}

fn worker() -> Result<()> {
    install::rust_targets(&paths::root(), &[WORKER_TARGET])?;
    let folder = worker_folder();
    stack::install_packages(&folder)?;
    // It serves the UI, and does not start without it.
    stack::build_ui(&paths::root().join("ui"))?;
    say("building the Worker");
    let mut cargo = paths::cargo();
    cargo.args(["build", "--profile", "edge", "--target", WORKER_TARGET, "--package", "rackhand-worker"]);
    cargo.env(JS_SYS.0, JS_SYS.1);
    stack::succeed(cargo, "cargo build")?;
    let built = folder.join("build");
    let bindings = built.join("bindgen");
    paths::remove_folder(&built)?;
    fs::create_dir_all(&bindings).map_err(|source| Failure::at("create", &bindings, source))?;
    let module = paths::target().join(WORKER_TARGET).join("edge/rackhand_worker.wasm");
    let mut bindgen = stack::example("bindgen")?;
    bindgen.arg(&module).arg(&bindings);
    stack::succeed(bindgen, "the bindings")?;
    let mut bundle = Command::new(folder.join("node_modules/.bin/esbuild"));
    bundle.args(["entry.mjs", "--bundle", "--format=esm", "--target=es2022", "--log-level=warning"]);
    bundle.args(["--external:cloudflare:*", "--external:*.wasm", "--outfile=build/index.js"]);
    bundle.current_dir(&folder);
    stack::succeed(bundle, "esbuild")?;
    let (from, to) = (bindings.join("index_bg.wasm"), built.join("index_bg.wasm"));
    fs::copy(&from, &to).map_err(|source| Failure::at("copy", &from, source))?;
    paths::remove_folder(&bindings)
}

fn spin() -> Result<()> {
    install::rust_targets(&paths::root(), &[SPIN_TARGET])?;
    stack::install_packages(&spin_runner())?;
    say("building the Spin component");
    let mut cargo = paths::cargo();
    cargo.args(["build", "--profile", "edge", "--target", SPIN_TARGET, "--package", "rackhand-spin"]);
    stack::succeed(cargo, "cargo build")
}

fn check() -> Result<()> {
    build(Host::Worker)?;
    build(Host::Spin)?;
    stack::build_ui(&paths::root().join("ui"))?;
    let size = worker_size()?;
    result(format!("Worker: {size} bytes compressed, limit {WORKER_LIMIT}"));
    if size > WORKER_LIMIT {
        return Err(Failure::Other(format!("the Worker is larger than {WORKER_LIMIT} bytes")));
    }
    let component = spin_component();
    let bytes = fs::metadata(&component).map_err(|source| Failure::at("read", &component, source))?.len();
    result(format!("Spin component: {bytes} bytes"));
    say("wrangler deploy --dry-run");
    let wrangler = worker_folder().join("node_modules/.bin/wrangler");
    let mut dry = Command::new(wrangler);
    dry.args(["deploy", "--dry-run", "--outdir"]).arg(paths::target().join("edge/dry-run"));
    // It asks nobody and reports nothing.
    dry.env("WRANGLER_SEND_METRICS", "false").env("CI", "1").current_dir(paths::root());
    stack::succeed(dry, "wrangler deploy --dry-run")
}

/// Bytes of script and module together, as gzip makes them.
pub fn worker_size() -> Result<u64> {
    let built = worker_folder().join("build");
    let mut sum = 0;
    for file in ["index.js", "index_bg.wasm"] {
        let path = built.join(file);
        let output = Command::new("gzip")
            .args(["--stdout", "-9"])
            .arg(&path)
            .output()
            .map_err(|source| Failure::at("compress", &path, source))?;
        sum += u64::try_from(output.stdout.len()).unwrap_or(u64::MAX);
    }
    Ok(sum)
}
