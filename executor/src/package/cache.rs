//! The cache of packages on disk, filled over HTTP.
//!
//! A package is streamed to a temporary file while its size and digest are counted, and takes its name (its
//! SHA-256) only when both are right. Redirects are not followed: the policy names hosts, and a redirect would
//! lead elsewhere.
//!
//! In memory a package stands once, however many runs push it at the same time, and only while one of them does.
//! All packages together get [`ROOM`]; a run whose package does not fit waits until another one's is done. Nobody
//! waits while holding a package, so the waiting ends.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt as _, future::BoxFuture};
use rackhand_schema::{digest::sha256_hex, job::FirmwarePackage};
use sha2::{Digest as _, Sha256};
use tokio::{
    io::AsyncWriteExt as _,
    sync::{Mutex, OwnedSemaphorePermit, Semaphore},
};

use super::{PackageError, Repository};
use crate::policy::Policy;

/// A repository that sends nothing for so long has failed.
const STALL: Duration = Duration::from_secs(60);
const MIB: u64 = 1024 * 1024;
/// Room for the different packages that are in use at once, in MiB; the largest of a site's packages are about a
/// tenth of it. A package that is larger still has all of it to itself.
const ROOM: u32 = 1024;

pub struct DiskCache {
    directory: PathBuf,
    client: reqwest::Client,
    policy: Policy,
    /// One fetch at a time: many runs want the same package.
    fetching: Mutex<()>,
    /// Packages in memory, by SHA-256.
    held: std::sync::Mutex<BTreeMap<String, Weak<Held>>>,
    room: Arc<Semaphore>,
    /// All permits of `room`.
    size: u32,
}

/// A package in memory, and its share of the room.
struct Held {
    bytes: Vec<u8>,
    _share: OwnedSemaphorePermit,
}

/// What a run gets: the package stays as long as anybody has one.
struct Reader(Arc<Held>);

impl AsRef<[u8]> for Reader {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
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
        Ok(Self {
            directory: directory.to_owned(),
            client,
            policy,
            fetching: Mutex::new(()),
            held: std::sync::Mutex::default(),
            room: Arc::new(Semaphore::new(ROOM as usize)),
            size: ROOM,
        })
    }

    fn held(&self, package: &FirmwarePackage) -> Option<Bytes> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(&package.sha256).and_then(Weak::upgrade).map(|held| Bytes::from_owner(Reader(held)))
    }

    /// Waits for room and reads the package into it.
    async fn read(&self, package: &FirmwarePackage) -> Option<Bytes> {
        let needs = u32::try_from(package.size.div_ceil(MIB)).unwrap_or(self.size).clamp(1, self.size);
        let share = Arc::clone(&self.room).acquire_many_owned(needs).await.ok()?;
        let held = Arc::new(Held { bytes: self.cached(package).await?, _share: share });
        let mut all = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, held| held.strong_count() > 0);
        all.insert(package.sha256.clone(), Arc::downgrade(&held));
        Some(Bytes::from_owner(Reader(held)))
    }

    async fn cached(&self, package: &FirmwarePackage) -> Option<Vec<u8>> {
        let path = self.directory.join(&package.sha256);
        let on_disk = tokio::fs::metadata(&path).await.ok()?.len();
        if on_disk != package.size {
            tracing::warn!(package = package.name, "a cached package was damaged; it is fetched again");
            return None;
        }
        let bytes = tokio::fs::read(path).await.ok()?;
        let right = bytes.len() as u64 == package.size && sha256_hex(&bytes) == package.sha256;
        if !right {
            tracing::warn!(package = package.name, "a cached package was damaged; it is fetched again");
        }
        right.then_some(bytes)
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
            if let Some(bytes) = self.held(package) {
                return Ok(bytes);
            }
            let _one = self.fetching.lock().await;
            if let Some(bytes) = self.held(package) {
                return Ok(bytes);
            }
            if let Some(bytes) = self.read(package).await {
                return Ok(bytes);
            }
            self.fetch(package).await?;
            self.read(package)
                .await
                .ok_or_else(|| PackageError::Unreachable("the cache cannot be read back".into()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(directory: &Path, content: &[u8]) -> FirmwarePackage {
        let sha256 = sha256_hex(content);
        std::fs::write(directory.join(&sha256), content).unwrap();
        FirmwarePackage {
            name: "BIOS".into(),
            file_name: "BIOS.EXE".into(),
            url: "http://127.0.0.1:1/BIOS.EXE".into(),
            sha256,
            size: content.len() as u64,
            software_id: "159".into(),
            version: "1".into(),
        }
    }

    #[tokio::test]
    async fn parallel_pushes_share_one_copy_and_another_package_waits_for_room() {
        let directory = tempfile::tempdir().unwrap();
        let tls = crate::cloud::http::tls().unwrap();
        let mut cache = DiskCache::open(directory.path(), Policy::default(), tls).unwrap();
        (cache.room, cache.size) = (Arc::new(Semaphore::new(2)), 2);
        let one = package(directory.path(), &vec![1; 2 * 1024 * 1024]);
        let other = package(directory.path(), b"small");
        let (first, second) = (cache.get(&one).await.unwrap(), cache.get(&one).await.unwrap());
        assert_eq!(first.as_ptr(), second.as_ptr());
        let soon = Duration::from_millis(200);
        assert!(tokio::time::timeout(soon, cache.get(&other)).await.is_err(), "no room");
        drop(first);
        assert!(tokio::time::timeout(soon, cache.get(&other)).await.is_err(), "still in use");
        drop(second);
        assert_eq!(cache.get(&other).await.unwrap(), "small");
        // Larger than all the room: alone, but not never.
        let large = package(directory.path(), &vec![2; 3 * 1024 * 1024]);
        assert_eq!(cache.get(&large).await.unwrap().len(), 3 * 1024 * 1024);
    }
}
