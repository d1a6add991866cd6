//! `rackhand credentials …`: the password is sealed on this machine, for the site's executors only.
//!
//! The control plane stores ciphertext. Inside stand the site, the version and the BMCs (address and key pin) the
//! credential is for, so that nobody on the way can redirect it. The one thing a malicious control plane could do
//! is to hand out a site key of its own: `--site-key` compares it with the key as an executor of the site prints
//! it, and a key once used is remembered and may not change silently.

use std::{fs, path::PathBuf};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use clap::{Args, Subcommand};
use crypto_box::{PublicKey, aead::OsRng};
use rackhand_schema::{
    digest::sha256_hex,
    server::{Credential, CredentialTarget, NewCredential, SealedCredential},
    site::Site,
};
use serde::Deserialize;
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    client::Client,
    error::{EXIT_CODES, Failure, Result},
    output::{Column, Output, moment, say},
    resolve,
    secret::PasswordSource,
};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Credentials by name; nobody can read the passwords.
    #[command(after_help = EXIT_CODES)]
    List {
        #[arg(long)]
        site: Option<String>,
    },
    /// Store or replace a credential.
    #[command(after_help = EXIT_CODES)]
    Set(Set),
}

#[derive(Debug, Args)]
pub struct Set {
    name: String,
    #[arg(long)]
    site: Option<String>,
    /// Account on the BMCs.
    #[arg(long)]
    user: String,
    #[command(flatten)]
    password: PasswordSource,
    /// A BMC it may be used for, with the key it must show: `https://host[:port]=HEX`; repeat for more.
    /// `rackhand bmc inspect` prints the key. For IPMI, which has no such key: `ipmi://host[:port]`.
    #[arg(long = "target", value_name = "URL[=PIN]")]
    targets: Vec<String>,
    /// BMCs it may be used for: a JSON list of objects with `bmc_url` (or `url`), `spki_sha256` and `ipmi`. The file
    /// for `servers import` fits.
    #[arg(long, value_name = "FILE")]
    targets_file: Option<PathBuf>,
    /// The site's public key as its first executor printed it; refuses to seal to another.
    #[arg(long, value_name = "KEY")]
    site_key: Option<String>,
}

const COLUMNS: [Column<Credential>; 6] = [
    Column::new("NAME", |credential: &Credential| credential.name.clone()),
    Column::new("VERSION", |credential| credential.version.to_string()),
    Column::new("STATE", |credential| if credential.suspended { "suspended" } else { "active" }.to_owned()),
    Column::new("CREATED", |credential| moment(&credential.created_at)),
    Column::wide("SITE", |credential| credential.site_id.to_string()),
    Column::wide("ID", |credential| credential.id.to_string()),
];

pub async fn run(verb: Verb, client: &Client, out: Output) -> Result<()> {
    match verb {
        Verb::List { site } => {
            let site = resolve::site_id(client, site.as_deref()).await?;
            let query: Vec<(&str, String)> =
                site.map(|site| ("site", site.to_string())).into_iter().collect();
            let credentials = list(client, &query).await?;
            out.list(&credentials, &COLUMNS, |credential| credential.name.clone())
        }
        Verb::Set(args) => set(args, client, out).await,
    }
}

pub async fn list(client: &Client, query: &[(&str, String)]) -> Result<Vec<Credential>> {
    client.all(&["v1", "credentials"], query, None).await
}

async fn set(args: Set, client: &Client, out: Output) -> Result<()> {
    let targets = targets(&args)?;
    let password = args.password.read(&format!("Password of {} on the BMCs", args.user))?;
    let site = resolve::site(client, args.site.as_deref()).await?;
    let key = trusted_key(client, &site, args.site_key.as_deref())?;
    let existing = list(client, &[("site", site.id.to_string())]).await?;
    let version =
        existing.iter().find(|credential| credential.name == args.name).map_or(0, |old| old.version) + 1;
    let mut plain = SealedCredential {
        site_id: site.id,
        name: args.name.clone(),
        version,
        username: args.user,
        password: password.to_string(),
        targets,
    };
    let sealed = seal(&plain, &key);
    plain.password.zeroize();
    let body = NewCredential { site_id: site.id, name: args.name, version, sealed: sealed? };
    let stored: Credential = client.post(&["v1", "credentials"]).idempotent().body(&body)?.send().await?;
    out.one(&stored, &stored.name, || {
        format!(
            "{} version {} sealed for {} BMCs of {}\n",
            stored.name,
            stored.version,
            plain.targets.len(),
            site.name
        )
    })
}

/// Seals a credential to a site's key: base64 of an X25519-XSalsa20-Poly1305 sealed box.
fn seal(plain: &SealedCredential, key: &PublicKey) -> Result<String> {
    let text = Zeroizing::new(serde_json::to_vec(plain).map_err(|error| Failure::Other(error.to_string()))?);
    let sealed =
        key.seal(&mut OsRng, &text).map_err(|_| Failure::Other("cannot seal the credential".to_owned()))?;
    Ok(BASE64_STANDARD.encode(sealed))
}

/// The site's key, after comparing it with what is known of it from elsewhere.
fn trusted_key(client: &Client, site: &Site, expected: Option<&str>) -> Result<PublicKey> {
    let offered = site.public_key.as_deref().ok_or_else(|| {
        Failure::Conflict(format!("site {} has no key yet: enrol and start its first executor", site.name))
    })?;
    if let Some(expected) = expected.filter(|expected| *expected != offered) {
        return Err(Failure::Conflict(format!(
            "the control plane offers another key for site {} than the one given:\n  offered {offered}\n  \
             given   {expected}\nNothing was sealed. Somebody may be trying to read this password.",
            site.name
        )));
    }
    let mut known = client.config().site_keys()?;
    let id = site.id.to_string();
    match known.get(&id) {
        Some(before) if before == offered => {}
        Some(before) if expected.is_none() => {
            return Err(Failure::Conflict(format!(
                "the key of site {} is not the one used before:\n  offered {offered}\n  before  {before}\n\
                 Nothing was sealed. Read the key on an executor of the site and give it as --site-key.",
                site.name
            )));
        }
        _ => {
            if expected.is_none() {
                say(format!(
                    "first use of the key of site {}, fingerprint {}; compare it with the one on an executor, \
                     or give --site-key",
                    site.name,
                    key_fingerprint(offered)
                ));
            }
            known.insert(id, offered.to_owned());
            client.config().save_site_keys(&known)?;
        }
    }
    parse_key(offered)
}

fn parse_key(text: &str) -> Result<PublicKey> {
    BASE64_STANDARD
        .decode(text)
        .ok()
        .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
        .map(PublicKey::from)
        .ok_or_else(|| Failure::Other(format!("`{text}` is not a site key (base64 of 32 bytes)")))
}

/// SHA-256 of a public key in groups of four hex digits, the first 16 bytes: for people to compare.
pub fn key_fingerprint(base64: &str) -> String {
    let hex = sha256_hex(&BASE64_STANDARD.decode(base64).unwrap_or_default());
    let groups: Vec<&str> = (0..32).step_by(4).filter_map(|start| hex.get(start..start + 4)).collect();
    groups.join(" ")
}

#[derive(Deserialize)]
struct TargetRow {
    #[serde(alias = "url")]
    bmc_url: String,
    spki_sha256: Option<String>,
    ipmi: Option<String>,
}

fn targets(args: &Set) -> Result<Vec<CredentialTarget>> {
    let mut targets = Vec::new();
    for text in &args.targets {
        let (url, pin) = text.rsplit_once('=').map_or((text.as_str(), None), |(url, pin)| (url, Some(pin)));
        targets.push(CredentialTarget { url: url.to_owned(), spki_sha256: pin.map(str::to_owned) });
    }
    if let Some(path) = &args.targets_file {
        let text = fs::read_to_string(path)
            .map_err(|source| Failure::file(format!("cannot read {}", path.display()), source))?;
        let rows: Vec<TargetRow> = serde_json::from_str(&text)
            .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
        for row in rows {
            targets.push(CredentialTarget { url: row.bmc_url, spki_sha256: row.spki_sha256 });
            let ipmi = row.ipmi.map(|address| format!("ipmi://{address}"));
            targets.extend(ipmi.map(|url| CredentialTarget { url, spki_sha256: None }));
        }
    }
    if targets.is_empty() {
        return Err(Failure::Usage("for which BMCs? give --target or --targets-file".to_owned()));
    }
    for target in &targets {
        if !is_target(target) {
            return Err(Failure::Usage(format!(
                "{}: a target is https://host[:port]=PIN with a pin of 64 lower-case hex digits, or ipmi://host[:port]",
                target.url
            )));
        }
    }
    Ok(targets)
}

fn is_target(target: &CredentialTarget) -> bool {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    match &target.spki_sha256 {
        Some(pin) => target.url.starts_with("https://") && pin.len() == 64 && pin.bytes().all(is_hex),
        None => target.url.starts_with("ipmi://"),
    }
}

#[cfg(test)]
mod tests {
    use crypto_box::SecretKey;
    use rackhand_schema::id::SiteId;

    use super::*;

    #[test]
    fn what_is_sealed_opens_only_with_the_sites_key() {
        let secret = SecretKey::generate(&mut OsRng);
        let plain = SealedCredential {
            site_id: "01920000-0000-7000-8000-000000000001".parse::<SiteId>().unwrap(),
            name: "root".into(),
            version: 2,
            username: "root".into(),
            password: "planted-password".into(),
            targets: vec![CredentialTarget {
                url: "https://10.0.0.1".into(),
                spki_sha256: Some("0".repeat(64)),
            }],
        };
        let sealed = seal(&plain, &secret.public_key()).unwrap();
        assert!(!sealed.contains("planted"));
        let opened = secret.unseal(&BASE64_STANDARD.decode(&sealed).unwrap()).unwrap();
        let opened: SealedCredential = serde_json::from_slice(&opened).unwrap();
        assert_eq!((opened.version, opened.password.as_str()), (2, "planted-password"));
        let other = SecretKey::generate(&mut OsRng);
        assert!(other.unseal(&BASE64_STANDARD.decode(&sealed).unwrap()).is_err());
    }

    #[test]
    fn a_target_has_a_pin_unless_it_is_spoken_to_over_ipmi() {
        let fits = |url: &str, pin: Option<&str>| {
            is_target(&CredentialTarget { url: url.into(), spki_sha256: pin.map(str::to_owned) })
        };
        let pin = "0".repeat(64);
        assert!(fits("https://10.0.0.1", Some(&pin)) && fits("ipmi://10.0.0.1", None));
        assert!(!fits("https://10.0.0.1", None) && !fits("https://10.0.0.1", Some("0")));
        assert!(!fits("ipmi://10.0.0.1", Some(&pin)) && !fits("10.0.0.1", None));
    }

    #[test]
    fn keys_are_32_bytes_and_fingerprints_are_readable() {
        assert!(parse_key("AAAA").is_err());
        let key = BASE64_STANDARD.encode([7_u8; 32]);
        assert!(parse_key(&key).is_ok());
        assert_eq!(key_fingerprint(&key).len(), 39);
    }
}
