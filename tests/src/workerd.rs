//! workerd without anything around it: the Worker's modules and a configuration (workerd.capnp).

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command},
};

use xtask::edge;

/// MiB of JavaScript heap; the platform gives an isolate 128 with everything.
const HEAP_MIB: u32 = 64;
const MODULES: &str = "(name = \"index.js\", esModule = embed \"index.js\"), \
    (name = \"index_bg.wasm\", wasm = embed \"index_bg.wasm\")";

/// workerd over `folder`, where its modules are. It prints `{"port": …}` on standard output once it listens.
///
/// `settings` goes into the configuration, `worker` into the description of the Worker there.
///
/// `tls` is what its connections believe beside public authorities: a part of workerd's `TlsOptions`, or
/// empty.
fn command(folder: &Path, port: u16, settings: &str, modules: &str, worker: &str, tls: &str) -> Command {
    let config = format!(
        "using Workerd = import \"/workerd/workerd.capnp\";
        const config :Workerd.Config = ({settings}
            services = [
                (name = \"main\", worker = (modules = [{modules}], compatibilityDate = \"2026-04-26\", {worker})),
                (name = \"net\", network = (allow = [\"public\", \"private\"], tlsOptions = ({tls})))],
            sockets = [(name = \"http\", address = \"127.0.0.1:{port}\", http = (), service = \"main\")]);"
    );
    std::fs::write(folder.join("config.capnp"), config).unwrap();
    let program = edge::worker_folder().join("node_modules/@cloudflare/workerd-linux-64/bin/workerd");
    let mut command = Command::new(program);
    command.args(["serve", "config.capnp", "--experimental", "--control-fd=1"]).current_dir(folder);
    command
}

/// The Worker as it is deployed, with these bindings.
pub fn worker(folder: &Path, port: u16, bindings: &[(&str, &str)]) -> Command {
    with_bindings(folder, port, bindings, "")
}

/// The same where a private authority is believed: PEM.
pub fn worker_that_believes(folder: &Path, port: u16, bindings: &[(&str, &str)], authority: &str) -> Command {
    std::fs::write(folder.join("authority.pem"), authority).unwrap();
    with_bindings(folder, port, bindings, "trustedCertificates = [embed \"authority.pem\"]")
}

/// The port that workerd says it listens on.
pub fn port(child: &mut Child) -> u64 {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready: serde_json::Value = serde_json::from_str(&line).expect("workerd (cargo xtask edge build)");
    ready["port"].as_u64().expect("a port")
}

fn with_bindings(folder: &Path, port: u16, bindings: &[(&str, &str)], tls: &str) -> Command {
    built(folder);
    let texts: Vec<_> =
        bindings.iter().map(|(name, text)| format!("(name = \"{name}\", text = \"{text}\")")).collect();
    let worker = format!(
        "globalOutbound = \"net\",
        bindings = [{}, (name = \"POOL\", durableObjectNamespace = \"Pool\"),
            (name = \"TOPIC\", durableObjectNamespace = \"Topic\")],
        durableObjectNamespaces = [(className = \"Pool\", uniqueKey = \"pool\"),
            (className = \"Topic\", uniqueKey = \"topic\")],
        durableObjectStorage = (inMemory = void)",
        texts.join(", ")
    );
    command(folder, port, &format!("v8Flags = [\"--max-heap-size={HEAP_MIB}\"],"), MODULES, &worker, tls)
}

/// The Worker's modules with nothing bound: it answers only what needs no setting.
pub fn unbound(folder: &Path) -> Command {
    built(folder);
    command(folder, 0, "", MODULES, "", "")
}

/// A Worker that does nothing.
pub fn empty(folder: &Path) -> Command {
    let module = "export default { fetch: () => new Response() };";
    std::fs::write(folder.join("empty.js"), module).unwrap();
    command(folder, 0, "", "(name = \"empty.js\", esModule = embed \"empty.js\")", "", "")
}

fn built(folder: &Path) {
    let built = edge::worker_folder().join("build");
    for file in ["index.js", "index_bg.wasm"] {
        std::fs::copy(built.join(file), folder.join(file)).unwrap();
    }
}
