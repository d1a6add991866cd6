//! `rackhand-executor pins`: the TLS keys that the BMCs of this network show, as entries of a servers file.
//!
//! An operator's machine usually does not reach a BMC; the executor's does. It opens TLS to each, sends no request and
//! no password, and prints what was shown. Whether these are the BMCs' own keys only a person can tell, who compares
//! fingerprints with those that a BMC shows on its own page or console; nothing here is trusted by being collected.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use futures::{StreamExt as _, stream};
use garde::Validate as _;
use rackhand_redfish::{Endpoint, Shown, probe};
use rackhand_schema::{has_password, may_hold_password, server::ServerUpsert};
use tokio::time::Instant;

/// BMCs that are asked at once: a handshake costs a slow BMC a second of its own.
const AT_ONCE: usize = 16;

/// A BMC as a person names it: `[NAME=]ADDRESS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    name: String,
    address: String,
}

/// What became of one BMC.
#[derive(Debug)]
pub enum Found {
    Key(Shown),
    /// Over IPMI there is no key.
    NoKey,
    /// The reason, in words.
    Failed(String),
}

impl Named {
    /// Reads `[NAME=]https://host[:port][/redfish/v1/Systems/<id>]` or `[NAME=]ipmi://host[:port]`. Without a name the
    /// host is the name.
    ///
    /// # Errors
    /// What is wrong with it, in words. The rules are those of registration.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, address) = text.split_once('=').map_or((None, text), |(name, rest)| (Some(name), rest));
        let shown = if may_hold_password(text) { "a BMC is not named right" } else { text };
        if may_hold_password(address) || name.is_some_and(has_password) {
            return Err(
                "the address of a BMC has no `@` or `%40`: write [NAME=]https://HOST, without user and password"
                    .to_owned(),
            );
        }
        let Some((_, rest)) = address.split_once("://") else {
            return Err(format!(
                "{shown}: write https:// before the address, or ipmi:// where the BMC has no Redfish"
            ));
        };
        let authority = rest.split('/').next().unwrap_or_default();
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => host,
            _ => authority,
        };
        let name = name.map_or_else(|| host.trim_matches(['[', ']']).to_owned(), str::to_owned);
        let entry = ServerUpsert {
            name,
            bmc_url: address.to_owned(),
            ipmi: None,
            credential_id: None,
            spki_sha256: None,
            tags: None,
        };
        entry
            .validate()
            .map_err(|report| format!("{shown}: {}", report.to_string().trim().replace('\n', "; ")))?;
        Ok(Self { name: entry.name, address: entry.bmc_url })
    }
}

/// The BMCs of a command line: what is named twice with one address is collected once.
///
/// # Errors
/// Which is wrong, or which name is that of two addresses, in words.
pub fn parse_all(texts: &[String]) -> Result<Vec<Named>, String> {
    let mut bmcs: Vec<Named> = Vec::new();
    for text in texts {
        let bmc = Named::parse(text)?;
        match bmcs.iter().find(|earlier| earlier.name == bmc.name) {
            Some(earlier) if earlier.address != bmc.address => {
                return Err(format!(
                    "the name {} is given twice, for {} and for {}. Each server requires a name of its own; nothing \
                     was collected",
                    bmc.name, earlier.address, bmc.address
                ));
            }
            Some(_) => {}
            None => bmcs.push(bmc),
        }
    }
    Ok(bmcs)
}

/// Asks each BMC for its key; answers come in the order of `bmcs`.
pub async fn collect(bmcs: &[Named], patience: Duration) -> Vec<Found> {
    stream::iter(bmcs).map(|bmc| look(&bmc.address, patience)).buffered(AT_ONCE).collect().await
}

async fn look(address: &str, patience: Duration) -> Found {
    if address.starts_with("ipmi://") {
        return Found::NoKey;
    }
    let endpoint = match Endpoint::parse(address) {
        Ok(endpoint) => endpoint,
        Err(error) => return Found::Failed(error.to_string()),
    };
    match probe(&endpoint, Instant::now() + patience).await {
        Ok(shown) => Found::Key(shown),
        Err(error) => Found::Failed(error.to_string()),
    }
}

/// The servers file: a JSON list with one line for each BMC that showed a key or needs none. Nothing if there is none.
pub fn servers_file(bmcs: &[Named], found: &[Found]) -> String {
    let lines: Vec<String> = bmcs
        .iter()
        .zip(found)
        .filter_map(|(bmc, found)| {
            let (name, address) = (&bmc.name, &bmc.address);
            let entry = match found {
                Found::Key(shown) => {
                    serde_json::json!({ "name": name, "bmc_url": address, "spki_sha256": shown.key.to_string() })
                }
                Found::NoKey => serde_json::json!({ "name": name, "bmc_url": address }),
                Found::Failed(_) => return None,
            };
            Some(format!("  {entry}"))
        })
        .collect();
    if lines.is_empty() { String::new() } else { format!("[\n{}\n]\n", lines.join(",\n")) }
}

/// For the person who compares: the fingerprints of each BMC, what failed, and keys that several show.
pub fn summary(bmcs: &[Named], found: &[Found]) -> String {
    let mut text = String::new();
    let mut holders: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for (bmc, found) in bmcs.iter().zip(found) {
        let _ = writeln!(text, "{}  {}", bmc.name, bmc.address);
        let _ = match found {
            Found::Key(shown) => {
                holders.entry(shown.key).or_default().push(&bmc.name);
                writeln!(
                    text,
                    "  TLS key      {}\n  certificate  {}",
                    shown.key,
                    shown.certificate.in_pairs()
                )
            }
            Found::NoKey => writeln!(text, "  IPMI has no TLS key; nothing to compare"),
            Found::Failed(why) => writeln!(text, "  FAILED, not in the list: {why}"),
        };
    }
    for names in holders.values().filter(|names| names.len() > 1) {
        let names = names.join(", ");
        let _ = writeln!(text, "{names} show the same key: whoever has one of them can pass for the others.");
    }
    if !holders.is_empty() {
        text.push_str(
            "These keys are not verified. Compare each certificate (SHA-256) with the one on the BMC's own page or \
             console, then use the list.\n",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use rackhand_redfish::Fingerprint;

    use super::*;

    fn named(name: &str, address: &str) -> Named {
        Named { name: name.to_owned(), address: address.to_owned() }
    }

    #[test]
    fn a_bmc_is_named_by_a_person_or_by_its_host() {
        for (text, expected) in [
            ("https://10.0.0.17", named("10.0.0.17", "https://10.0.0.17")),
            ("web-1=https://10.0.0.17:8443", named("web-1", "https://10.0.0.17:8443")),
            ("https://bmc-7.example", named("bmc-7.example", "https://bmc-7.example")),
            ("a b=ipmi://10.0.0.18", named("a b", "ipmi://10.0.0.18")),
            ("https://[fd00::7]", named("fd00::7", "https://[fd00::7]")),
            (
                "n1=https://10.0.0.9/redfish/v1/Systems/1",
                named("n1", "https://10.0.0.9/redfish/v1/Systems/1"),
            ),
        ] {
            assert_eq!(Named::parse(text), Ok(expected));
        }
        for wrong in ["", "=https://10.0.0.17", "http://10.0.0.17", "https://10.0.0.17/"] {
            assert!(Named::parse(wrong).is_err_and(|why| why.starts_with(wrong)), "{wrong}");
        }
        for named in [
            "root:calvin@10.0.0.17",
            "https://root:calvin@10.0.0.17",
            "a=https://root:calvin@10.0.0.17",
            "https://root:calvin%4010.0.0.17",
            "root:calvin%4010.0.0.17=https://10.0.0.17",
        ] {
            assert!(Named::parse(named).is_err_and(|why| !why.contains("calvin")), "{named}");
        }
        for bare in ["10.0.0.17", "web-1=10.0.0.17"] {
            assert!(Named::parse(bare).is_err_and(|why| why.contains(": write https:// before")), "{bare}");
        }
    }

    #[test]
    fn a_name_is_that_of_one_bmc() {
        let all = |texts: &[&str]| parse_all(&texts.iter().map(ToString::to_string).collect::<Vec<_>>());
        let twice = all(&["web-1=https://10.0.0.17", "web-2=https://10.0.0.18", "web-1=https://10.0.0.19"])
            .unwrap_err();
        assert_eq!(
            twice,
            "the name web-1 is given twice, for https://10.0.0.17 and for https://10.0.0.19. Each server requires a \
             name of its own; nothing was collected"
        );
        assert!(all(&["https://10.0.0.17", "https://10.0.0.17:8443"]).is_err(), "the host is the name");
        let same =
            all(&["web-1=https://10.0.0.17", "web-1=https://10.0.0.17", "web-2=https://10.0.0.18"]).unwrap();
        assert_eq!(same, [named("web-1", "https://10.0.0.17"), named("web-2", "https://10.0.0.18")]);
    }

    #[test]
    fn what_failed_is_not_in_the_file_and_shared_keys_are_named() {
        let key = Shown { key: Fingerprint([0xab; 32]), certificate: Fingerprint([0x0c; 32]) };
        let other = Shown { key: Fingerprint([0xcd; 32]), ..key };
        let bmcs = [
            named("a", "https://10.0.0.1"),
            named("b", "https://10.0.0.2"),
            named("c", "https://10.0.0.3"),
            named("d", "https://10.0.0.4"),
            named("e", "ipmi://10.0.0.5"),
        ];
        let found = [
            Found::Key(key),
            Found::Key(key),
            Found::Key(other),
            Found::Failed("connection refused".to_owned()),
            Found::NoKey,
        ];
        let file: Vec<serde_json::Value> = serde_json::from_str(&servers_file(&bmcs, &found)).unwrap();
        let names: Vec<_> = file.iter().filter_map(|entry| entry["name"].as_str()).collect();
        assert_eq!(names, ["a", "b", "c", "e"]);
        assert_eq!(file[0]["spki_sha256"], "ab".repeat(32));
        assert!(file[3].get("spki_sha256").is_none());
        let failed = [Found::Failed("connection refused".to_owned())];
        assert_eq!(servers_file(&bmcs[..1], &failed), "");
        assert!(!summary(&bmcs[..1], &failed).contains("Compare"));
        let text = summary(&bmcs, &found);
        assert!(text.contains("Compare each certificate"), "{text}");
        assert!(text.contains("a, b show the same key") && !text.contains("c show"), "{text}");
        assert!(text.contains("certificate  0C:0C:0C") && text.contains("FAILED"), "{text}");
    }
}
