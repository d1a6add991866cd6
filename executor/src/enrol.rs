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
    policy,
    site_key::encode_key,
};

#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    #[error("{0} is enrolled already (identity.json is there); use another directory")]
    Already(String),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Cloud(#[from] CloudError),
    #[error("the control plane shows the fingerprint {theirs}, but these keys have {ours}")]
    Fingerprint { theirs: String, ours: String },
    #[error("a fingerprint is 64 hex digits, with or without blanks")]
    NotAFingerprint,
    #[error("{0}")]
    File(#[from] std::io::Error),
}

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
        .await?;
    let ours = identity::fingerprint(&keys.signing_public(), &keys.sealing_public());
    if plain_fingerprint(&enrolled.fingerprint) != plain_fingerprint(&ours) {
        return Err(EnrolError::Fingerprint { theirs: enrolled.fingerprint, ours });
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
/// When it is not a fingerprint or cannot be written.
pub fn confirm(directory: &Path, fingerprint: &str) -> Result<(), EnrolError> {
    let plain = plain_fingerprint(fingerprint);
    if plain.len() != 64 {
        return Err(EnrolError::NotAFingerprint);
    }
    let path = directory.join("confirmed");
    let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    writeln!(file, "{plain}")?;
    file.sync_all()?;
    Ok(())
}
