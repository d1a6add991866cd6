//! `rackhand version`: client, server, and the skew between them.

use serde::{Deserialize, Serialize};

use crate::{
    client::Client,
    error::{Failure, Result},
    output::Output,
};

#[derive(Debug, Deserialize)]
pub struct ServerVersion {
    pub version: String,
}

#[derive(Debug, Serialize)]
struct Versions {
    client: &'static str,
    /// Absent when no control plane is known.
    server: Option<String>,
    skew: &'static str,
}

pub const CLIENT: &str = env!("CARGO_PKG_VERSION");

pub async fn run(client: Result<Client>, out: Output) -> Result<()> {
    let server = match client {
        Ok(client) => Some(fetch(&client).await?),
        Err(Failure::NotSignedIn(_)) => None,
        Err(other) => return Err(other),
    };
    let skew = server.as_deref().map_or("unknown", |server| skew(CLIENT, server));
    let versions = Versions { client: CLIENT, server, skew };
    out.one(&versions, CLIENT, || {
        let server = versions.server.as_deref().unwrap_or("none known; sign in first");
        format!(
            "this command   {CLIENT}\ncontrol plane  {server}\ncompatible     {}\n",
            compatible(versions.skew)
        )
    })
}

pub async fn fetch(client: &Client) -> Result<String> {
    let answer: ServerVersion = client.get(&["v1", "version"]).anonymous().await?;
    Ok(answer.version)
}

/// What a skew means for whoever types commands.
fn compatible(skew: &str) -> String {
    match skew {
        "none" | "patch" => "yes".to_owned(),
        "unknown" => "not known".to_owned(),
        skew => format!("perhaps not: another {skew} version"),
    }
}

/// How far apart two versions are: `none`, `patch`, `minor` or `major`.
pub fn skew(client: &str, server: &str) -> &'static str {
    let parts = |text: &str| -> Vec<String> { text.splitn(3, '.').map(str::to_owned).collect() };
    let (client, server) = (parts(client), parts(server));
    match client.iter().zip(&server).position(|(ours, theirs)| ours != theirs) {
        None if client.len() == server.len() => "none",
        Some(0) => "major",
        Some(1) => "minor",
        _ => "patch",
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn skew_names_the_first_part_that_differs() {
        assert_eq!(super::skew("0.1.0", "0.1.0"), "none");
        assert_eq!(super::skew("0.1.0", "0.1.2"), "patch");
        assert_eq!(super::skew("0.1.0", "0.2.0"), "minor");
        assert_eq!(super::skew("0.1.0", "1.1.0"), "major");
    }
}
