//! `rackhand credentials …`: the password is sealed on this machine, for the site's executors only.
//!
//! The control plane stores ciphertext. Inside stand the site, the version and the BMCs (address and TLS key) the
//! credential is for, so that nobody on the way can redirect it. The one thing a malicious control plane could do
//! is to hand out a site key of its own: `--site-key` compares it with the key as an executor of the site prints
//! it, and a key once used is remembered and may not change silently.

use std::{fs, path::PathBuf};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use clap::{Args, Subcommand};
use crypto_box::{PublicKey, aead::OsRng};
use rackhand_schema::{
    digest::sha256_hex,
    may_hold_password,
    server::{Credential, CredentialTarget, NewCredential, SealedCredential},
    site::Site,
};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    client::Client,
    doctor::quoted,
    error::{Failure, Result, help, json_trouble},
    output::{Column, Output, dash, moment, printable, printable_lines, say},
    resolve,
    secret::{PasswordSource, confirm},
};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Credentials by name; no one can read the passwords.
    #[command(after_help = help!("credentials list --site lab"))]
    List {
        /// Only credentials of this site, by name or id. Without it those of all sites.
        #[arg(long)]
        site: Option<String>,
    },
    /// One credential, with the BMCs it is sealed for.
    #[command(after_help = help!("credentials show root --site lab"))]
    Show {
        /// Name of the credential.
        name: String,
        /// Name or id of the site; not needed where there is only one.
        #[arg(long)]
        site: Option<String>,
    },
    /// Store or replace a credential. What replaces one works only for the BMCs that are named now: name all of them.
    #[command(after_help = help!("credentials set root --user root --targets-file servers.json", "credentials set ipmi --user admin --target ipmi://10.0.0.7 --password-file secret"))]
    Set(Set),
}

#[derive(Debug, Args)]
pub struct Set {
    /// Name of the credential.
    name: String,
    /// Name or id of the site; not needed where there is only one.
    #[arg(long)]
    site: Option<String>,
    /// Account on the BMCs.
    #[arg(long)]
    user: String,
    #[command(flatten)]
    password: PasswordSource,
    /// A BMC it may be used for, with the TLS key it must show: `https://host[:port]=HEX`; repeat for more.
    /// `rackhand bmc inspect` prints the key. For IPMI, which has no such key: `ipmi://host[:port]`, right after the
    /// https address of the same BMC.
    #[arg(long = "target", value_name = "URL[=HEX]")]
    targets: Vec<String>,
    /// BMCs it may be used for: a JSON list of objects with `bmc_url` (or `url`), `spki_sha256` and `ipmi`. The file
    /// of `servers import` can be used.
    #[arg(long, value_name = "FILE")]
    targets_file: Option<PathBuf>,
    /// The site's public key as its first executor printed it; refuses to seal to another.
    #[arg(long, value_name = "KEY")]
    site_key: Option<String>,
    /// Do not ask before the credential is sealed for fewer BMC addresses than the version it replaces.
    #[arg(long)]
    yes: bool,
}

/// A credential, and the name of its site.
#[derive(Serialize)]
struct Listed {
    #[serde(flatten)]
    credential: Credential,
    #[serde(skip)]
    site: String,
}

const COLUMNS: [Column<Listed>; 7] = [
    Column::new("NAME", |row: &Listed| row.credential.name.clone()),
    Column::new("VERSION", |row| row.credential.version.to_string()),
    Column::new("STATE", |row| state(&row.credential).to_owned()),
    Column::new("ADDRESSES", |row| dash(row.credential.address_count)),
    Column::new("CREATED", |row| moment(&row.credential.created_at)),
    Column::varied("SITE", |row| row.site.clone()),
    Column::wide("ID", |row| row.credential.id.to_string()),
];

/// What is said where there is no credential.
fn none(site: Option<&str>) -> String {
    match site {
        Some(site) => format!(
            "site {site} has no credentials; `rackhand credentials set NAME --site {}` seals one",
            quoted(site)
        ),
        None => "there are no credentials; `rackhand credentials set NAME` seals one".to_owned(),
    }
}

const fn state(credential: &Credential) -> &'static str {
    if credential.suspended { "suspended" } else { "active" }
}

pub async fn run(verb: Verb, client: &Client, out: Output) -> Result<()> {
    match verb {
        Verb::List { site: named } => {
            let site = resolve::site_id(client, named.as_deref()).await?;
            let query: Vec<(&str, String)> =
                site.map(|site| ("site", site.to_string())).into_iter().collect();
            let credentials = list(client, &query).await?;
            let names = resolve::site_names(client, credentials.iter().map(|one| one.site_id), out).await;
            let row = |credential: Credential| Listed { site: names.of(credential.site_id), credential };
            let rows: Vec<_> = credentials.into_iter().map(row).collect();
            out.list_or(&none(named.as_deref()), &rows, &COLUMNS, |row| row.credential.name.clone())
        }
        Verb::Show { name, site } => {
            let site = resolve::site(client, site.as_deref()).await?;
            let known = list(client, &[("site", site.id.to_string())]).await?;
            let Some(credential) = known.iter().find(|credential| credential.name == name) else {
                return Err(Failure::NotFound { what: "credential", name });
            };
            out.one(credential, &credential.name, || render(credential, &site))
        }
        Verb::Set(args) => set(args, client, out).await,
    }
}

fn render(credential: &Credential, site: &Site) -> String {
    let addresses = credential.addresses.as_ref().map_or_else(
        || "not stored; the executors know".to_owned(),
        |addresses| {
            let all = credential.address_count.map_or(0, |count| count as usize);
            let more = all.saturating_sub(addresses.len());
            let more = (more > 0).then(|| format!("… and {more} more"));
            addresses.iter().cloned().chain(more).collect::<Vec<_>>().join("\n              ")
        },
    );
    printable_lines(&format!(
        "credential    {}\nid            {}\nsite          {}\nversion       {}\nstate         {}\n\
         last refused  {}\ncreated       {}\nsealed for    {addresses}\n",
        credential.name,
        credential.id,
        site.name,
        credential.version,
        state(credential),
        dash(credential.refused_at.as_deref().map(moment)),
        moment(&credential.created_at),
    ))
}

pub async fn list(client: &Client, query: &[(&str, String)]) -> Result<Vec<Credential>> {
    client.all(&["v1", "credentials"], query, None).await
}

async fn set(args: Set, client: &Client, out: Output) -> Result<()> {
    let targets = targets(&args)?;
    let site = resolve::site(client, args.site.as_deref()).await?;
    let key = trusted_key(client, &site, args.site_key.as_deref())?;
    let existing = list(client, &[("site", site.id.to_string())]).await?;
    let former = existing.iter().find(|credential| credential.name == args.name);
    confirm_fewer(&args, former, targets.len())?;
    let password = args.password.read(&format!("Password of {} on the BMCs", args.user))?;
    fits_ipmi(&targets, &args.user, &password)?;
    let version = former.map_or(0, |old| old.version) + 1;
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
    let sealed_for = Some(plain.targets);
    let body = NewCredential { site_id: site.id, name: args.name, version, sealed: sealed?, sealed_for };
    let stored: Credential = client.post(&["v1", "credentials"]).idempotent().body(&body)?.send().await?;
    let count = body.sealed_for.as_ref().map_or(0, Vec::len);
    out.one(&stored, &stored.name, || sealed_text(&stored, count, &site.name, former))
}

/// Asks before BMCs lose the credential.
fn confirm_fewer(args: &Set, former: Option<&Credential>, count: usize) -> Result<()> {
    let Some((old, before)) = former.and_then(|old| Some((old, old.address_count? as usize))) else {
        return Ok(());
    };
    if before <= count {
        return Ok(());
    }
    confirm(
        args.yes,
        &format!(
            "Credential {} would be for fewer BMC addresses than version {} ({count}, not {before}). BMCs that are not \
             named can no longer be reached with it: to keep them, give a file that names all of them.",
            args.name, old.version
        ),
    )
}

/// What was stored, and for how many BMC addresses the version was that it replaces.
fn sealed_text(stored: &Credential, count: usize, site: &str, former: Option<&Credential>) -> String {
    let addresses = |count: usize| match count {
        1 => "1 BMC address".to_owned(),
        _ => format!("{count} BMC addresses"),
    };
    let before = former
        .and_then(|old| {
            Some(format!("; version {} was for {}", old.version, addresses(old.address_count? as usize)))
        })
        .unwrap_or_default();
    format!(
        "{} version {} is sealed for {} of {site}{before}\n",
        stored.name,
        stored.version,
        addresses(count)
    )
}

/// Seals a credential to a site's key: base64 of an X25519-XSalsa20-Poly1305 sealed box.
fn seal(plain: &SealedCredential, key: &PublicKey) -> Result<String> {
    let text = Zeroizing::new(serde_json::to_vec(plain).map_err(|error| Failure::Other(error.to_string()))?);
    let sealed =
        key.seal(&mut OsRng, &text).map_err(|_| Failure::Other("cannot seal the credential".to_owned()))?;
    Ok(BASE64_STANDARD.encode(sealed))
}

/// 32 bytes in Base64.
fn is_key(text: &str) -> bool {
    BASE64_STANDARD.decode(text).is_ok_and(|bytes| bytes.len() == 32)
}

/// The site's key, after comparing it with what is known of it from elsewhere.
fn trusted_key(client: &Client, site: &Site, expected: Option<&str>) -> Result<PublicKey> {
    let offered = site.public_key.as_deref().ok_or_else(|| {
        Failure::Conflict(format!(
            "site {} has no key yet: enrol and start its first executor",
            printable(&site.name)
        ))
    })?;
    if expected.is_some_and(|expected| !is_key(expected)) {
        return Err(Failure::Usage(
            "--site-key is 44 characters: `rackhand-executor site-key --data DIR` prints it on an executor of the site. \
             Nothing was sealed."
                .to_owned(),
        ));
    }
    if let Some(expected) = expected.filter(|expected| *expected != offered) {
        return Err(Failure::Conflict(format!(
            "the control plane offers another key for site {} than the one given:\n  offered {offered}\n  \
             given   {expected}\nNothing was sealed. Someone may be trying to read this password.",
            printable(&site.name)
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
                printable(&site.name)
            )));
        }
        _ => {
            if expected.is_none() {
                say(format!(
                    "fingerprint {} of the key that is used for the first time for site {}: compare it with the one on \
                     an executor, or give --site-key",
                    key_fingerprint(offered),
                    printable(&site.name)
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

/// Targets in the order of a sealed text: an `ipmi://` address belongs to the BMC of the `https://` address right
/// before it. What stands alone therefore goes first.
#[derive(Default)]
struct InOrder {
    alone: Vec<CredentialTarget>,
    others: Vec<CredentialTarget>,
}

impl InOrder {
    /// One BMC, with its other address for IPMI where it has one.
    fn push(&mut self, url: String, spki_sha256: Option<String>, ipmi: Option<String>) {
        let list = if url.starts_with("ipmi://") { &mut self.alone } else { &mut self.others };
        list.push(CredentialTarget { url, spki_sha256 });
        list.extend(ipmi.map(|url| CredentialTarget { url, spki_sha256: None }));
    }

    fn list(mut self) -> Vec<CredentialTarget> {
        self.alone.append(&mut self.others);
        self.alone
    }
}

const NO_PASSWORD: &str =
    "the address of a target has no `@` or `%40`: the account is given by --user and the password";

fn targets(args: &Set) -> Result<Vec<CredentialTarget>> {
    let mut targets = InOrder::default();
    let is_ipmi = |text: &&String| text.starts_with("ipmi://");
    let mut given = args.targets.iter().peekable();
    while let Some(text) = given.next() {
        if may_hold_password(text) {
            return Err(Failure::address(text, NO_PASSWORD));
        }
        let (url, pin) = text.rsplit_once('=').map_or((text.as_str(), None), |(url, pin)| (url, Some(pin)));
        let ipmi = if is_ipmi(&text) { None } else { given.next_if(is_ipmi).cloned() };
        targets.push(url.to_owned(), pin.map(str::to_owned), ipmi);
    }
    if let Some(path) = &args.targets_file {
        let text =
            fs::read_to_string(path).map_err(|source| Failure::input("--targets-file", path, source))?;
        let rows: Vec<TargetRow> = serde_json::from_str(&text).map_err(|error| {
            let path = path.display();
            Failure::Usage(match error.is_data() {
                true if may_hold_password(&error.to_string()) => {
                    format!("{path}: line {}, column {}: {NO_PASSWORD}", error.line(), error.column())
                }
                true => format!("{path}: {error}"),
                false => format!("{path} is not valid JSON: {}", json_trouble(&error)),
            })
        })?;
        for row in rows {
            let ipmi = row.ipmi.map(|address| format!("ipmi://{address}"));
            targets.push(row.bmc_url, row.spki_sha256, ipmi);
        }
    }
    let targets = targets.list();
    if targets.is_empty() {
        return Err(Failure::Usage("for which BMCs? give --target or --targets-file".to_owned()));
    }
    for target in &targets {
        if !target.is_valid() {
            return Err(Failure::address(
                &target.url,
                "a target is https://host[:port]=HEX with the TLS key of the BMC, 64 lower-case hex digits, or ipmi://host[:port]",
            ));
        }
    }
    Ok(targets)
}

/// What IPMI cannot carry is found here, and not by the first job (IPMI 2.0, sections 22.28 and 22.30).
fn fits_ipmi(targets: &[CredentialTarget], user: &str, password: &str) -> Result<()> {
    let Some(target) = targets.iter().find(|target| target.url.starts_with("ipmi://")) else { return Ok(()) };
    let too_long = [("a password", password, 20), ("a user name", user, 16)];
    match too_long.into_iter().find(|(_, text, most)| text.len() > *most) {
        None => Ok(()),
        Some((what, text, most)) => Err(Failure::Usage(format!(
            "{}: {what} has at most {most} bytes over IPMI, this one has {}; nothing was sealed",
            target.url,
            text.len()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use crypto_box::SecretKey;
    use rackhand_schema::{id::SiteId, server::Coverage};

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

    /// As `rackhand-executor pins` writes the file: a BMC without Redfish after one with it.
    #[test]
    fn a_bmc_of_its_own_is_not_sealed_as_the_ipmi_of_the_one_before_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("servers.json");
        let pin = "0".repeat(64);
        let rows = serde_json::json!([
            {"bmc_url": "https://10.0.0.1", "spki_sha256": pin},
            {"bmc_url": "ipmi://10.0.0.2"},
            {"bmc_url": "https://10.0.0.3", "spki_sha256": pin, "ipmi": "10.0.0.4"},
            {"bmc_url": "ipmi://10.0.0.5"},
        ]);
        fs::write(&file, rows.to_string()).unwrap();
        let targets = targets(&Set {
            name: "bmc".into(),
            site: None,
            user: "root".into(),
            password: PasswordSource::default(),
            targets: [format!("https://10.0.0.6={pin}"), "ipmi://10.0.0.7".into(), "ipmi://10.0.0.8".into()]
                .into(),
            targets_file: Some(file),
            site_key: None,
            yes: false,
        })
        .unwrap();
        let coverage = Coverage::of(&targets);
        let beside = |url: &str, ipmi: &str| coverage.at(url, None, Some(ipmi)).unwrap().ipmi;
        assert!(beside("https://10.0.0.3", "10.0.0.4") && beside("https://10.0.0.6", "10.0.0.7"));
        for https in ["https://10.0.0.1", "https://10.0.0.3", "https://10.0.0.6"] {
            for alone in ["10.0.0.2", "10.0.0.5", "10.0.0.8"] {
                assert!(!beside(https, alone), "{https} {alone}");
                assert!(coverage.at(&format!("ipmi://{alone}"), None, None).is_ok());
            }
        }
    }

    #[test]
    fn what_ipmi_cannot_carry_is_not_sealed() {
        let over = |url: &str, user: &str, password: &str| {
            let target = CredentialTarget { url: url.into(), spki_sha256: None };
            fits_ipmi(&[target], user, password).map_err(|error| error.to_string())
        };
        assert!(over("ipmi://10.0.0.1", "root", &"x".repeat(20)).is_ok());
        assert!(over("https://10.0.0.1", "root", &"x".repeat(64)).is_ok());
        let error = over("ipmi://10.0.0.1", "root", &"x".repeat(21)).unwrap_err();
        assert!(error.contains("a password has at most 20 bytes over IPMI, this one has 21"), "{error}");
        assert!(!error.contains("xxx"), "{error}");
        assert!(over("ipmi://10.0.0.1", &"u".repeat(17), "x").is_err());
    }

    #[test]
    fn keys_are_32_bytes_and_fingerprints_are_readable() {
        assert!(parse_key("AAAA").is_err());
        let key = BASE64_STANDARD.encode([7_u8; 32]);
        assert!(parse_key(&key).is_ok());
        assert_eq!(key_fingerprint(&key).len(), 39);
    }
}
