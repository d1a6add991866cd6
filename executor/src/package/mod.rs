//! Firmware packages: fetched from the site's repository, checked, kept, and handed to BMCs.
//!
//! Nothing reaches a BMC that has not the approved size and SHA-256: they are checked while a package is fetched
//! and again when it is read from the cache. [`Packages`] is what handlers use; [`Repository`] is where bytes
//! come from, [`listener`] serves them to BMCs that fetch by themselves.

pub mod cache;
pub mod listener;

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use rackhand_schema::job::FirmwarePackage;

/// Why a package cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackageError {
    /// Not yet: ask again.
    #[error("is not here yet: {0}")]
    Coming(String),
    #[error("cannot be fetched: {0}")]
    Unreachable(String),
    #[error("differs from the approved one in size or SHA-256: {0}")]
    Mismatch(String),
    #[error("is forbidden by the executor's policy: {0}")]
    Refused(String),
}

/// Where packages come from. The bytes it returns have the approved size and SHA-256. Nobody is kept for long.
pub trait Repository: Send + Sync + 'static {
    fn get<'a>(&'a self, package: &'a FirmwarePackage) -> BoxFuture<'a, Result<Bytes, PackageError>>;
}

/// Offers a package to a BMC under an address nobody can guess, as long as the value lives.
pub trait Offer: Send + Sync {
    fn url(&self) -> &str;
}

/// Serves packages to BMCs.
pub trait Publisher: Send + Sync + 'static {
    fn offer(&self, file_name: &str, bytes: Bytes) -> Result<Box<dyn Offer>, PackageError>;
}

pub struct Packages {
    pub repository: Arc<dyn Repository>,
    /// None: this executor has no package listener.
    pub publisher: Option<Arc<dyn Publisher>>,
}

/// 32 random hex digits.
///
/// # Errors
/// When the machine has no randomness.
pub(crate) fn random_token() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(hex::encode(bytes))
}
