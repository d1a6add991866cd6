//! The cache of packages on disk, filled over HTTP.
//!
//! A package is streamed to a temporary file while its size and digest are counted, and takes its name (its
//! SHA-256) only when both are right. Redirects are not followed: the policy names hosts, and a redirect would
//! lead elsewhere.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt as _, future::BoxFuture};
use rackhand_schema::{digest::sha256_hex, job::FirmwarePackage};
use sha2::{Digest as _, Sha256};
use tokio::{io::AsyncWriteExt as _, sync::Mutex};

use super::{PackageError, Repository};
use crate::policy::Policy;

/// A repository that sends nothing for so long has failed.
const STALL: Duration = Duration::from_secs(60);

pub struct DiskCache {
    directory: PathBuf,
    client: reqwest::Client,
    policy: Policy,
    /// One fetch at a time: many runs want the same package.
    fetching: Mutex<()>,
}

impl DiskCache {
    /// Keeps packages in `directory`, which is made if need be.
    ///
    /// # Errors
    /// When the directory cannot be made or TLS cannot be set up.
    pub fn open(directory: &Path, policy: Policy, tls: rustls::ClientConfig) -> Result<Self, PackageError> {
        std::fs::create_dir_all(directory).map_err(unreachable)?;
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(STALL)
            .tls_backend_preconfigured(tls)
            .build()
            .map_err(unreachable)?;
        Ok(Self { directory: directory.to_owned(), client, policy, fetching: Mutex::new(()) })
    }

    async fn cached(&self, package: &FirmwarePackage) -> Option<Bytes> {
        let bytes = tokio::fs::read(self.directory.join(&package.sha256)).await.ok()?;
        let right = bytes.len() as u64 == package.size && sha256_hex(&bytes) == package.sha256;
        if !right {
            tracing::warn!(package = package.name, "a cached package was damaged; it is fetched again");
        }
        right.then(|| Bytes::from(bytes))
    }

    async fn fetch(&self, package: &FirmwarePackage) -> Result<(), PackageError> {
        let url = reqwest::Url::parse(&package.url).map_err(unreachable)?;
        let host = match (url.host_str(), url.port_or_known_default()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            _ => return Err(PackageError::Unreachable("the address names no host".into())),
        };
        if !self.policy.allows_package_host(&host) {
            return Err(PackageError::Refused(format!("`package_hosts` does not list {host}")));
        }
        let response = self.client.get(url).send().await.map_err(unreachable)?;
        if !response.status().is_success() {
            return Err(PackageError::Unreachable(format!("{host} answers {}", response.status())));
        }
        let part = self.directory.join(format!("{}.part", package.sha256));
        let mut file = tokio::fs::File::create(&part).await.map_err(unreachable)?;
        let (mut digest, mut size) = (Sha256::new(), 0_u64);
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(unreachable)?;
            size += chunk.len() as u64;
            if size > package.size {
                return Err(PackageError::Mismatch(format!("it is larger than {} bytes", package.size)));
            }
            digest.update(&chunk);
            file.write_all(&chunk).await.map_err(unreachable)?;
        }
        file.sync_all().await.map_err(unreachable)?;
        if size != package.size {
            return Err(PackageError::Mismatch(format!("it has {size} bytes instead of {}", package.size)));
        }
        let found = hex::encode(digest.finalize());
        if found != package.sha256 {
            return Err(PackageError::Mismatch(format!("its SHA-256 is {found}")));
        }
        tokio::fs::rename(&part, self.directory.join(&package.sha256)).await.map_err(unreachable)
    }
}

fn unreachable(error: impl std::fmt::Display) -> PackageError {
    PackageError::Unreachable(error.to_string())
}

impl Repository for DiskCache {
    fn get<'a>(&'a self, package: &'a FirmwarePackage) -> BoxFuture<'a, Result<Bytes, PackageError>> {
        Box::pin(async move {
            let _one = self.fetching.lock().await;
            if let Some(bytes) = self.cached(package).await {
                return Ok(bytes);
            }
            self.fetch(package).await?;
            self.cached(package)
                .await
                .ok_or_else(|| PackageError::Unreachable("the cache cannot be read back".into()))
        })
    }
}
