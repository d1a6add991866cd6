//! The simulated site as `up` sees it: the BMCs and packages it offers, and what it counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::error::{Failure, Result};

/// The control API is on this machine; it answers at once or not at all.
const LIMIT: Duration = Duration::from_secs(10);

/// A running lab.
pub struct Lab {
    /// `host:port` of the control API.
    address: String,
    /// Its BMCs: `name`, `url`, `product`, `generation`, `spki_sha256`, `ipmi`.
    pub bmcs: Vec<Value>,
    packages: Vec<Value>,
}

impl Lab {
    /// Reads what the lab at `control_url` offers.
    pub async fn open(control_url: &str) -> Result<Self> {
        let address = control_url
            .strip_prefix("http://")
            .ok_or_else(|| Failure::Other(format!("the lab's control address is odd: {control_url}")))?
            .trim_end_matches('/')
            .to_owned();
        let offer = get(&address, "/lab").await?;
        let list = |name: &str| offer.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
        Ok(Self { bmcs: list("bmcs"), packages: list("packages"), address })
    }

    /// The counters of the whole site.
    pub async fn counters(&self) -> Result<Value> {
        get(&self.address, "/lab/counters").await
    }

    /// Servers that are being flashed right now.
    pub async fn flashing(&self) -> Result<Vec<String>> {
        let counters = self.counters().await?;
        let flashes = counters.get("flashes").and_then(Value::as_array).cloned().unwrap_or_default();
        let running = flashes.iter().filter(|flash| text(flash, "outcome") == "running");
        Ok(running.map(|flash| text(flash, "bmc").to_owned()).collect())
    }

    /// The newest BIOS for each model of the site, as a firmware job takes them.
    pub fn bios_packages(&self) -> Result<BTreeMap<String, Value>> {
        let models: BTreeSet<&str> = self.bmcs.iter().map(|bmc| text(bmc, "product")).collect();
        let package = |model: &str| {
            // The repository lists older ones first.
            let newest = self
                .packages
                .iter()
                .rfind(|package| text(package, "software_id") == BIOS && fits(package, model));
            newest
                .map(|package| (model.to_owned(), parameters(package)))
                .ok_or_else(|| Failure::Other(format!("the lab offers no BIOS for {model}")))
        };
        models.into_iter().map(package).collect()
    }
}

/// Dell's component id of every BIOS.
const BIOS: &str = "159";

fn fits(package: &Value, model: &str) -> bool {
    let models = package.get("models").and_then(Value::as_array);
    models.is_some_and(|models| models.iter().any(|other| other.as_str() == Some(model)))
}

/// A package as a job names it.
fn parameters(package: &Value) -> Value {
    let name = format!("{} {}", text(package, "component"), text(package, "version"));
    let mut parameters = json!({ "name": name });
    for member in ["file_name", "url", "sha256", "size", "software_id", "version"] {
        if let (Some(target), Some(value)) = (parameters.as_object_mut(), package.get(member)) {
            target.insert(member.to_owned(), value.clone());
        }
    }
    parameters
}

/// A text member; empty when it is missing.
pub fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value.get(member).and_then(Value::as_str).unwrap_or_default()
}

/// One GET of JSON over loopback. HTTP/1.0, so that the answer ends with the connection.
async fn get(address: &str, path: &str) -> Result<Value> {
    let failed = |what: &str| Failure::Other(format!("the lab at {address}{path}: {what}"));
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = timeout(LIMIT, exchange)
        .await
        .map_err(|_| failed("no answer"))?
        .map_err(|source| Failure::io(format!("the lab at {address}"), source))?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| failed("not HTTP"))?;
    if !head.lines().next().is_some_and(|line| line.contains(" 200")) {
        return Err(failed(head.lines().next().unwrap_or_default()));
    }
    serde_json::from_str(body).map_err(|error| failed(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(version: &str, generation: &str, models: &[&str]) -> Value {
        json!({"software_id": "159", "generation": generation, "version": version, "models": models,
               "component": "BIOS", "file_name": "x", "url": "u", "sha256": "s", "size": 1})
    }

    #[test]
    fn each_model_gets_the_newest_bios_made_for_it() {
        let lab = |packages: &[Value]| Lab {
            address: String::new(),
            bmcs: vec![json!({"name": "a", "product": "R730"}), json!({"name": "b", "product": "R750"})],
            packages: packages.to_vec(),
        };
        let old = package("1.1", "idrac9", &["R750"]);
        let both = package("2.1", "idrac9", &["R730", "R750"]);
        let packages = lab(&[old.clone(), both]).bios_packages().unwrap();
        assert_eq!(packages["R730"]["version"], "2.1");
        assert_eq!(packages["R750"]["name"], "BIOS 2.1");
        assert!(lab(&[old]).bios_packages().is_err(), "nothing for the R730");
    }
}
