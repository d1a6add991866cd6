//! Mutations.
use bytes::Bytes;
use tokio::time::Instant;
use crate::{client::Client, error::Error, model::{Accepted, ApplyTime, Capabilities, Identity, ResetKind, UpdateSemantics}};

/// An update that the BMC fetches itself.
#[derive(Clone, Debug, Default)]
pub struct SimpleUpdate {
    /// Where the package is, such as `http://10.0.0.5:8080/BIOS_1.10.2.EXE`.
    pub image_uri: String,
    /// `TransferProtocol`; `None`: the scheme of `image_uri` in upper case.
    pub transfer_protocol: Option<String>,
    /// When to apply; `None` sends no wish. A time that is not declared is refused before anything is sent.
    pub apply_time: Option<ApplyTime>,
    /// Paths of the inventory rows to update; empty leaves it to the package.
    pub targets: Vec<String>,
}

/// An update whose package is sent along.
#[derive(Clone, Debug, Default)]
pub struct MultipartUpdate {
    /// The package. Not copied.
    pub package: Bytes,
    /// Its file name; BMCs look at its extension.
    pub file_name: String,
    /// See [`SimpleUpdate::apply_time`].
    pub apply_time: Option<ApplyTime>,
    /// See [`SimpleUpdate::targets`].
    pub targets: Vec<String>,
}

impl Client {
    /// Asks the BMC to fetch a package and install it.
    pub async fn simple_update(&self, _update: &SimpleUpdate, _deadline: Instant) -> Result<Accepted, Error> { todo!() }
    /// Sends a package.
    pub async fn multipart_update(&self, _update: &MultipartUpdate, _deadline: Instant) -> Result<Accepted, Error> { todo!() }
    /// Resets the system.
    pub async fn reset(&self, _kind: ResetKind, _deadline: Instant) -> Result<Accepted, Error> { todo!() }
    /// Deletes one job from the queue.
    pub async fn delete_job(&self, _id: &str, _deadline: Instant) -> Result<(), Error> { todo!() }
}
/// What an update request sets in motion.
#[must_use]
pub fn update_semantics(_identity: &Identity, _capabilities: &Capabilities) -> UpdateSemantics { UpdateSemantics::Unknown }
