//! The control plane of `up`, on the host that was chosen: the same functions behind the same address.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{
    Args,
    lab::text,
    stack::{READY, utf8},
};
use crate::{
    children::{Children, first_line},
    edge::{self, Host},
    error::{Failure, Result},
    install,
    login::Login,
    paths,
    postgres::free_port,
    terminal::say,
};

/// Starts the control plane on the wanted port, or on another one when that is taken, also in the last moment. Its
/// URL. `api_file` holds the database's URL for `rackhand_api`.
pub async fn start(args: &Args, folder: &Path, api_file: &Path, children: &mut Children) -> Result<String> {
    let wanted = args.port;
    let log = children.log("server");
    let is_free = |port: u16| port != 0 && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let mut port = if is_free(wanted) { wanted } else { free_port()? };
    let secrets = Secrets { signing_key: paths::random_secret()?, tick_token: paths::random_secret()? };
    for attempt in 1.. {
        if port != wanted && wanted != 0 {
            say(format!("port {wanted} is taken; using {port}"));
        }
        let (program, arguments) = match args.host {
            Host::Server => server(port, folder, api_file, &secrets)?,
            Host::Worker => worker(port, folder, api_file, &secrets)?,
            Host::Spin => spin(port, folder, api_file, &secrets)?,
        };
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let stdout = children.start("server", &program, &arguments, None).await?;
        let line = match first_line(stdout, READY, "the control plane", &log).await {
            Ok(line) => line,
            Err(failure) => {
                let words = fs::read_to_string(&log).unwrap_or_default();
                let taken = ["Address already in use", "EADDRINUSE"].iter().any(|sign| words.contains(sign));
                if attempt == 3 || !taken {
                    return Err(failure);
                }
                children.kill("server").await?;
                port = free_port()?;
                continue;
            }
        };
        let ready: Value = serde_json::from_str(&line)
            .map_err(|error| Failure::Other(format!("the control plane said `{line}`: {error}")))?;
        let url = text(&ready, "url").trim_end_matches('/').to_owned();
        say(format!("control plane on {url} ({})", args.host.what()));
        return Ok(url);
    }
    Err(Failure::Other("no port for the control plane".to_owned()))
}

struct Secrets {
    signing_key: String,
    tick_token: String,
}

type Program = (PathBuf, Vec<String>);

fn server(port: u16, folder: &Path, api_file: &Path, secrets: &Secrets) -> Result<Program> {
    let key = folder.join("signing-key");
    paths::write_secret(&key, &secrets.signing_key)?;
    let ui = paths::root().join("ui/dist");
    let arguments = [
        "--listen",
        &format!("127.0.0.1:{port}"),
        "--database-url-file",
        utf8(api_file)?,
        "--signing-key-file",
        utf8(&key)?,
        "--ui-dir",
        utf8(&ui)?,
    ];
    Ok((paths::binaries().join("rackhand-server"), arguments.map(str::to_owned).to_vec()))
}

fn worker(port: u16, folder: &Path, api_file: &Path, secrets: &Secrets) -> Result<Program> {
    let settings = folder.join("worker.json");
    let bindings = json!({"SIGNING_KEY": secrets.signing_key, "TICK_TOKEN": secrets.tick_token,
        "DATABASE_URL": read(api_file)?});
    paths::write_secret(&settings, &json!({"port": port, "bindings": bindings}).to_string())?;
    let script = edge::worker_folder().join("serve.mjs");
    Ok((node()?, vec![utf8(&script)?.to_owned(), utf8(&settings)?.to_owned()]))
}

fn spin(port: u16, folder: &Path, api_file: &Path, secrets: &Secrets) -> Result<Program> {
    let variables = folder.join("spin.json");
    // A host without notifications looks again and again, so waits are short.
    let url = read(api_file)?;
    let Login { host, port: database_port, .. } = Login::parse(&url)?;
    let values = json!({"signing_key": secrets.signing_key, "tick_token": secrets.tick_token,
        "database_url": url, "database_host": format!("{host}:{database_port}"), "database_ca": "",
        "public_url": "", "trusted_proxies": "", "max_wait_ms": "5000", "poll_ms": "100"});
    paths::write_secret(&variables, &values.to_string())?;
    let script = edge::spin_runner().join("serve.mjs");
    let (component, out) = (edge::spin_component(), paths::target().join("edge/spin"));
    let (ui, port) = (paths::root().join("ui/dist"), port.to_string());
    let arguments = [
        utf8(&script)?,
        "--component",
        utf8(&component)?,
        "--variables",
        utf8(&variables)?,
        "--out",
        utf8(&out)?,
        "--ui",
        utf8(&ui)?,
        "--port",
        &port,
    ];
    Ok((node()?, arguments.map(str::to_owned).to_vec()))
}

fn read(file: &Path) -> Result<String> {
    let text = fs::read_to_string(file).map_err(|source| Failure::at("read", file, source))?;
    Ok(text.trim().to_owned())
}

fn node() -> Result<PathBuf> {
    install::on_path("node").ok_or_else(|| Failure::Missing("node is not on the search path".to_owned()))
}
