//! Joining a site, and letting another executor join.

use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use rackhand_schema::executor::Enrol;

use crate::{
    cloud::{CloudError, http::Http},
    identity::{self, Identity, IdentityError, Keys, Membership, plain_fingerprint},
    journal::JournalError,
    policy,
    site_key::{self, encode_key},
    text,
};

#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    #[error(
        "the token on standard input is empty or cut off, so nothing was sent: `rackhand executors enrol-token --site \
         SITE` prints one"
    )]
    NoToken,
    #[error("{0} is enrolled already (identity.json is there); use another directory")]
    Already(String),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Cloud(#[from] CloudError),
    #[error(
        "{server} refused it [{code}]: {detail} This try enrolled nothing; the keys in {directory} are used at the next one"
    )]
    Refused { server: String, code: String, detail: String, directory: String },
    #[error(
        "{server} shows {theirs} for this executor, but the keys in {directory} have the fingerprint {ours}: someone may \
         be changing the connection. This directory was not enrolled. Do not confirm the other fingerprint: find out why, \
         revoke executor {name}, then enrol under another name with a new token"
    )]
    Fingerprint { server: String, name: String, theirs: String, ours: String, directory: String },
    #[error("a fingerprint is 64 hex digits, with or without blanks")]
    NotAFingerprint,
    #[error(
        "executor {0} does not hold the site key, so it cannot share it; nothing was confirmed: do it on an executor \
         that is active, `rackhand executors list` shows which"
    )]
    NoSiteKey(String),
    #[error(
        "this is the fingerprint of executor {0} itself, which holds the site key already; nothing was confirmed: give \
         the one that the joining machine shows"
    )]
    Own(String),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("{0}")]
    File(#[from] std::io::Error),
}

/// The API takes no shorter one.
const SHORTEST_TOKEN: usize = 16;

/// Makes keys in `directory`, exchanges `token` for a membership and leaves a commented policy behind.
///
/// # Errors
/// [`EnrolError`]. Keys that were made stay for the next try.
pub async fn enrol(
    http: &Http,
    server: &str,
    directory: &Path,
    name: &str,
    token: &str,
) -> Result<Identity, EnrolError> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    if directory.join("identity.json").exists() {
        return Err(EnrolError::Already(directory.display().to_string()));
    }
    if token.trim().len() < SHORTEST_TOKEN {
        return Err(EnrolError::NoToken);
    }
    let keys = if directory.join("signing.key").exists() {
        Keys::load(directory)?
    } else {
        let keys = Keys::generate()?;
        keys.save(directory)?;
        keys
    };
    let enrolled = http
        .enrol(&Enrol {
            token: token.trim().to_owned(),
            name: name.to_owned(),
            signing_key: encode_key(&keys.signing_public()),
            sealing_key: encode_key(&keys.sealing_public()),
        })
        .await
        .map_err(|error| match error {
            CloudError::Refused { code, detail } => EnrolError::Refused {
                server: server.to_owned(),
                code,
                // It stands where a fingerprint is looked for.
                detail: text::within(&detail, 300),
                directory: directory.display().to_string(),
            },
            other => other.into(),
        })?;
    let ours = identity::fingerprint(&keys.signing_public(), &keys.sealing_public());
    let theirs = plain_fingerprint(&enrolled.fingerprint);
    if theirs != plain_fingerprint(&ours) {
        // Beside ours it is compared by a person: nothing of it is shown but digits, and only as many as there are.
        let theirs = match theirs.len() {
            64 => format!("the fingerprint {}", identity::grouped(&theirs)),
            _ => "no valid fingerprint".to_owned(),
        };
        return Err(EnrolError::Fingerprint {
            server: server.to_owned(),
            name: name.to_owned(),
            theirs,
            ours,
            directory: directory.display().to_string(),
        });
    }
    let membership = Membership {
        server: server.to_owned(),
        name: name.to_owned(),
        executor_id: enrolled.executor_id,
        site_id: enrolled.site_id,
        site: enrolled.site,
        site_public_key: enrolled.site_public_key,
    };
    let identity = Identity::new(membership, keys);
    identity.save(directory)?;
    let policy = directory.join("policy.toml");
    if !policy.exists() {
        std::fs::write(policy, policy::TEMPLATE)?;
    }
    Ok(identity)
}

/// Notes that a person has compared `fingerprint` with the one the joining executor shows.
///
/// # Errors
/// When it is not a fingerprint or is this executor's own, when this executor holds no key to share, and when the
/// directory cannot be read or written.
pub async fn confirm(directory: &Path, fingerprint: &str) -> Result<(), EnrolError> {
    let plain = plain_fingerprint(fingerprint);
    if plain.len() != 64 {
        return Err(EnrolError::NotAFingerprint);
    }
    let identity = Identity::load(directory)?;
    let name = || identity.membership.name.clone();
    if !site_key::was_held(directory).await? {
        return Err(EnrolError::NoSiteKey(name()));
    }
    if plain == plain_fingerprint(&identity.fingerprint()) {
        return Err(EnrolError::Own(name()));
    }
    let path = directory.join("confirmed");
    let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    writeln!(file, "{plain}")?;
    file.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use rackhand_schema::{
        executor::Enrolled,
        id::{ExecutorId, SiteId},
    };

    use super::*;
    use crate::journal::{Journal as _, Write as Note, sqlite::SqliteJournal};

    /// No keys are made for it, and nothing listens at this address.
    #[tokio::test]
    async fn a_token_that_was_cut_off_is_not_sent() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("one");
        let http = Http::new("http://127.0.0.1:1", crate::cloud::http::tls().unwrap()).unwrap();
        let error = enrol(&http, "http://127.0.0.1:1", &data, "one", " short\n").await.err().unwrap();
        assert!(matches!(error, EnrolError::NoToken), "{error}");
        assert!(!data.join("signing.key").exists());
        let long = "x".repeat(SHORTEST_TOKEN);
        let error = enrol(&http, "http://127.0.0.1:1", &data, "one", &long).await.err().unwrap().to_string();
        assert!(error.contains("no usable answer from the control plane: http://127.0.0.1:1: "), "{error}");
    }

    /// Address of a control plane that gives one answer, and what comes of enrolling there with the keys of `directory`.
    async fn answered(status: u16, body: String, directory: &Path) -> (String, String) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
            let mut sink = [0; 4096];
            while stream.read(&mut sink).is_ok_and(|count| count > 0) {}
            let _ = write!(
                stream,
                "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
        });
        let http = Http::new(&server, crate::cloud::http::tls().unwrap()).unwrap();
        let token = "x".repeat(SHORTEST_TOKEN);
        let said = enrol(&http, &server, directory, "one", &token).await.err().unwrap().to_string();
        (server, said)
    }

    #[tokio::test]
    async fn a_fingerprint_of_the_control_plane_is_one_line() {
        let directory = tempfile::tempdir().unwrap();
        for (fingerprint, shown) in [
            ("AB".repeat(32), "shows the fingerprint abab abab abab"),
            ("ab\nFingerprint: cd".repeat(100), "shows no valid fingerprint for this executor"),
            (String::new(), "shows no valid fingerprint for this executor"),
        ] {
            let enrolled = Enrolled {
                executor_id: ExecutorId::generate(),
                site_id: SiteId::generate(),
                site: "dc-1".into(),
                fingerprint,
                site_public_key: None,
            };
            let body = serde_json::to_string(&enrolled).unwrap();
            let (_, said) = answered(200, body, directory.path()).await;
            assert!(said.contains(shown) && said.lines().count() == 1 && said.len() < 700, "{said}");
        }
        let strange = r#"{"executor_id": "\nFingerprint: cd"}"#.to_owned();
        let (_, said) = answered(200, strange, directory.path()).await;
        assert!(said.contains("is not valid") && said.lines().count() == 1, "{said}");
    }

    #[tokio::test]
    async fn a_refused_token_names_who_refused_it_and_what_stays() {
        let directory = tempfile::tempdir().unwrap();
        let code = rackhand_schema::ErrorCode::EnrolmentRefused;
        let problem = rackhand_schema::Problem::new(code, "It is used. Make one.");
        let body = serde_json::to_string(&problem).unwrap();
        let (server, said) = answered(401, body, directory.path()).await;
        let expected = format!(
            "{server} refused it [enrolment-refused]: It is used. Make one. This try enrolled nothing; the keys in {} \
             are used at the next one",
            directory.path().display()
        );
        assert_eq!(said, expected);
        assert!(directory.path().join("signing.key").exists());
    }

    /// Two that enrol before either runs are told the same, and both can be true.
    #[test]
    fn nobody_is_told_to_be_the_first() {
        let mut membership = membership();
        let said = membership.next_step();
        assert!(said.contains("The first of its executors to run makes it; every other one waits"), "{said}");
        membership.site_public_key = Some("key".into());
        assert!(membership.next_step().contains("rackhand-executor confirm"));
    }

    fn membership() -> Membership {
        Membership {
            server: "https://rackhand.example".into(),
            name: "executor-2".into(),
            executor_id: ExecutorId::generate(),
            site_id: SiteId::generate(),
            site: "lab".into(),
            site_public_key: None,
        }
    }

    #[tokio::test]
    async fn only_who_holds_the_site_key_confirms_and_not_itself() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::generate().unwrap();
        keys.save(folder.path()).unwrap();
        let identity = Identity::new(membership(), keys);
        identity.save(folder.path()).unwrap();
        let (own, other) = (identity.fingerprint(), "ab".repeat(32));
        let refused = async |fingerprint: &str| confirm(folder.path(), fingerprint).await.unwrap_err();
        assert!(matches!(refused(&other).await, EnrolError::NoSiteKey(name) if name == "executor-2"));
        let journal = SqliteJournal::open(folder.path()).await.unwrap();
        assert!(matches!(refused(&other).await, EnrolError::NoSiteKey(_)), "it runs, and waits");
        journal
            .write(Note::Meta { key: site_key::PINNED.to_owned(), value: Some("key".to_owned()) })
            .await
            .unwrap();
        assert!(matches!(refused(&own).await, EnrolError::Own(_)));
        assert!(matches!(refused("abcd").await, EnrolError::NotAFingerprint));
        assert!(!folder.path().join("confirmed").exists());
        confirm(folder.path(), &other).await.unwrap();
        assert_eq!(std::fs::read_to_string(folder.path().join("confirmed")).unwrap(), format!("{other}\n"));
    }
}
