//! The cache of packages on disk, filled over HTTP.
//!
//! A package is streamed to a temporary file while its size and digest are counted, and takes its name (its SHA-256)
//! only when both are right. Redirects are not followed: the policy names hosts, and a redirect would lead elsewhere.
//! Each package is fetched once from each address, by a task of its own; whoever wants it looks again from time to
//! time ([`PackageError::Coming`]), so a slow repository keeps nobody from a package that is here or from a
//! cancellation. How a fetch has failed is told to those who wait for it or, when nobody does just then, once to
//! whoever asks next within [`KEPT`]; after that the repository is asked again. Each [`LOOK`] it is asked whether
//! somebody still wants what is being fetched and whether it comes fast enough; otherwise the fetch ends.
//!
//! Nobody gets all there is to share: of [`FETCHES`] at once, one host has [`PER_HOST`]; of the room on disk that is
//! left, a package is given half, unless it is the only one. What the directory holds is bounded, together with what
//! is being fetched into it: what was used longest ago goes first, and a package for which there is no room yet is
//! fetched later.
//!
//! What a repository answers is told in the log alone. An address in a job may lead anywhere this machine reaches, and
//! a status or a digest in the run's report would tell its author what stands there.
//!
//! In memory a package stands once, however many runs push it at the same time, and only while one of them does.
//! All packages together get [`ROOM`]; a run whose package does not fit comes back when another one's is done.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::{StreamExt as _, future::BoxFuture};
use rackhand_schema::{digest::sha256_hex, job::FirmwarePackage};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use sha2::{Digest as _, Sha256};
use tokio::{
    io::AsyncWriteExt as _,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{PackageError, Repository};
use crate::{cause, policy::Policy};

/// A repository that sends nothing for so long has failed.
const STALL: Duration = Duration::from_secs(60);
/// One that is slower from one look to the next, in bytes a second, has failed, too.
pub const SLOWEST: u64 = 64 * 1024;
/// Between two looks at a fetch. A run asks each half minute, and before a hand-over that was put off several times
/// each two minutes.
const LOOK: Duration = Duration::from_secs(190);
/// So long it can be asked how a fetch has failed.
const KEPT: Duration = LOOK;
/// Packages that are fetched at once.
const FETCHES: usize = 4;
/// Of those, from one host.
const PER_HOST: usize = 2;
/// How long a caller is kept.
const PATIENCE: Duration = Duration::from_secs(15);
const MIB: u64 = 1024 * 1024;
/// Room for the different packages that are in use at once, in MiB; the largest of a site's packages are about a
/// tenth of it. A package that is larger still has all of it to itself.
const ROOM: u32 = 1024;

type Fetched = Result<(), PackageError>;

/// Fetches under way.
type Fetching = Arc<Mutex<BTreeMap<Wanted, Fetch>>>;

/// How fetches have failed, which nobody has been told yet, and since when.
type Failed = Arc<Mutex<BTreeMap<Wanted, (Instant, PackageError)>>>;

struct Fetch {
    host: String,
    progress: Arc<Progress>,
    done: watch::Receiver<Option<Fetched>>,
}

/// What a look at a fetch goes by.
#[derive(Default)]
struct Progress {
    /// Somebody has asked for the package since the last look.
    asked: AtomicBool,
    /// Bytes so far.
    received: AtomicU64,
}

impl Progress {
    /// Returns when the fetch should not go on, and why.
    async fn ends(&self, host: &str, look: Duration) -> PackageError {
        let mut before = 0;
        loop {
            sleep(look).await;
            if !self.asked.swap(false, Relaxed) {
                return PackageError::Coming("no run waits for it any more".into());
            }
            let received = self.received.load(Relaxed);
            let rate = u128::from(received - before) * 1000 / look.as_millis().max(1);
            if rate < u128::from(SLOWEST) {
                return PackageError::Unreachable(format!(
                    "{host} is too slow: it sends {} KiB a second, and {} are the least",
                    rate / 1024,
                    SLOWEST / 1024
                ));
            }
            before = received;
        }
    }
}

/// An address that the policy allows.
struct Source {
    url: reqwest::Url,
    name: String,
    /// Name and port.
    host: String,
}

pub struct DiskCache {
    store: Arc<Store>,
    fetching: Fetching,
    failed: Failed,
    fetches: Mutex<JoinSet<()>>,
    /// Packages in memory.
    held: Mutex<BTreeMap<Digest, Weak<Held>>>,
    room: Arc<Semaphore>,
    /// All permits of `room`.
    size: u32,
    patience: Duration,
    look: Duration,
    kept: Duration,
}

/// The SHA-256 of a package, which names its file: 64 hex digits, so no path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Digest(String);

impl Digest {
    fn of(package: &FirmwarePackage) -> Result<Self, PackageError> {
        let text = &package.sha256;
        let sound = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if sound { Ok(Self(text.clone())) } else { Err(PackageError::Refused("its SHA-256 is none".into())) }
    }
}

/// What one fetch is for. Jobs may name the same package at another address: one that is slow holds up its own jobs
/// only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Wanted {
    digest: Digest,
    url: String,
    size: u64,
}

impl Wanted {
    fn of(digest: &Digest, package: &FirmwarePackage) -> Self {
        Self { digest: digest.clone(), url: package.url.clone(), size: package.size }
    }

    /// Of the file that grows meanwhile.
    fn file_name(&self) -> String {
        let address = sha256_hex(format!("{} {}", self.size, self.url).as_bytes());
        format!("{}.{address}.part", self.digest.0)
    }
}

/// The directory, and the way to fill it.
struct Store {
    directory: PathBuf,
    /// Most bytes of packages.
    limit: u64,
    /// Bytes of the packages that are being fetched.
    coming: Mutex<u64>,
    client: reqwest::Client,
    policy: Policy,
}

/// Room on disk for a package that is being fetched.
struct Reserved<'a> {
    store: &'a Store,
    size: u64,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut coming = lock(&self.store.coming);
        *coming = coming.saturating_sub(self.size);
    }
}

/// Takes a fetch out of those under way, however it ends.
struct UnderWay {
    fetching: Fetching,
    wanted: Wanted,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        lock(&self.fetching).remove(&self.wanted);
    }
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

/// Looks names up, and leaves out the addresses that the policy does not allow.
struct Guarded(Policy);

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = self.0.clone();
        Box::pin(async move {
            let host = name.as_str();
            let found = tokio::net::lookup_host((host, 0)).await?;
            let allowed: Vec<SocketAddr> =
                found.filter(|address| policy.allows_package_address(host, address.ip())).collect();
            if allowed.is_empty() {
                return Err(format!("{host} has no address that packages may be fetched from").into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DiskCache {
    /// Keeps packages in `directory`, which is made if need be, up to `limit` bytes of them.
    ///
    /// # Errors
    /// When the directory cannot be made or TLS cannot be set up.
    pub fn open(
        directory: &Path,
        limit: u64,
        policy: Policy,
        tls: rustls::ClientConfig,
    ) -> Result<Self, PackageError> {
        std::fs::create_dir_all(directory).map_err(unreachable)?;
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .dns_resolver(Arc::new(Guarded(policy.clone())))
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(STALL)
            .tls_backend_preconfigured(tls)
            .build()
            .map_err(unreachable)?;
        let store =
            Store { directory: directory.to_owned(), limit, coming: Mutex::default(), client, policy };
        store.remove_parts();
        Ok(Self {
            store: Arc::new(store),
            fetching: Fetching::default(),
            failed: Failed::default(),
            fetches: Mutex::default(),
            held: Mutex::default(),
            room: Arc::new(Semaphore::new(ROOM as usize)),
            size: ROOM,
            patience: PATIENCE,
            look: LOOK,
            kept: KEPT,
        })
    }

    fn held(&self, digest: &Digest) -> Option<Bytes> {
        let held = lock(&self.held).get(digest).and_then(Weak::upgrade)?;
        Some(Bytes::from_owner(Reader(held)))
    }

    /// Waits for room and reads the package into it; none when it is not there, or damaged.
    async fn read(&self, digest: &Digest, package: &FirmwarePackage) -> Result<Option<Bytes>, PackageError> {
        let needs = u32::try_from(package.size.div_ceil(MIB)).unwrap_or(self.size).clamp(1, self.size);
        let share = timeout(self.patience, Arc::clone(&self.room).acquire_many_owned(needs)).await;
        let share = share.map_err(|_| {
            PackageError::Coming("it waits for room in memory that other packages take up".into())
        })?;
        let share = share.map_err(unreachable)?;
        // Somebody else may have read it meanwhile.
        if let Some(bytes) = self.held(digest) {
            return Ok(Some(bytes));
        }
        let Some(bytes) = self.store.cached(digest, package).await else { return Ok(None) };
        let held = Arc::new(Held { bytes, _share: share });
        let mut all = lock(&self.held);
        all.retain(|_, held| held.strong_count() > 0);
        all.insert(digest.clone(), Arc::downgrade(&held));
        Ok(Some(Bytes::from_owner(Reader(held))))
    }

    /// Waits a while for the one fetch of this package, which it begins if need be.
    async fn fetch(&self, digest: &Digest, package: &FirmwarePackage) -> Fetched {
        let source = self.store.source(package)?;
        let wanted = Wanted::of(digest, package);
        if let Some(error) = self.failed(&wanted) {
            return Err(error);
        }
        let mut done = self.under_way(wanted.clone(), source, package)?;
        let Ok(ended) = timeout(self.patience, done.wait_for(Option::is_some)).await else {
            return Err(PackageError::Coming(format!(
                "{} MiB are being fetched",
                package.size.div_ceil(MIB)
            )));
        };
        let result = ended.map(|result| (*result).clone());
        // Told now.
        lock(&self.failed).remove(&wanted);
        result.map_err(unreachable)?.unwrap_or_else(|| Err(unreachable("the fetch broke off")))
    }

    /// How the last fetch has failed, if nobody was told.
    fn failed(&self, wanted: &Wanted) -> Option<PackageError> {
        let mut failed = lock(&self.failed);
        failed.retain(|_, (since, _)| since.elapsed() < self.kept);
        failed.remove(wanted).map(|(_, error)| error)
    }

    fn under_way(
        &self,
        wanted: Wanted,
        source: Source,
        package: &FirmwarePackage,
    ) -> Result<watch::Receiver<Option<Fetched>>, PackageError> {
        let mut fetching = lock(&self.fetching);
        if let Some(fetch) = fetching.get(&wanted) {
            fetch.progress.asked.store(true, Relaxed);
            return Ok(fetch.done.clone());
        }
        if fetching.values().filter(|fetch| fetch.host == source.name).count() >= PER_HOST {
            let why = format!("{PER_HOST} other packages are being fetched from {}", source.name);
            return Err(PackageError::Coming(why));
        }
        if fetching.len() >= FETCHES {
            return Err(PackageError::Coming(format!("{FETCHES} other packages are being fetched")));
        }
        let (host, progress) = (source.name.clone(), Arc::new(Progress::default()));
        progress.asked.store(true, Relaxed);
        let done = self.begin(&wanted, source, package, Arc::clone(&progress));
        fetching.insert(wanted, Fetch { host, progress, done: done.clone() });
        Ok(done)
    }

    fn begin(
        &self,
        wanted: &Wanted,
        source: Source,
        package: &FirmwarePackage,
        progress: Arc<Progress>,
    ) -> watch::Receiver<Option<Fetched>> {
        let (tell, done) = watch::channel(None);
        let (store, package, look) = (Arc::clone(&self.store), package.clone(), self.look);
        let under_way = UnderWay { fetching: Arc::clone(&self.fetching), wanted: wanted.clone() };
        let failed = Arc::clone(&self.failed);
        let mut fetches = lock(&self.fetches);
        while fetches.try_join_next().is_some() {}
        fetches.spawn(async move {
            let digest = &under_way.wanted.digest;
            let result = store.fetch_as_long_as_wanted(digest, &source, &package, &progress, look).await;
            if let Err(error) = &result
                && !matches!(error, PackageError::Coming(_))
            {
                lock(&failed).insert(under_way.wanted.clone(), (Instant::now(), error.clone()));
            }
            drop(under_way);
            tell.send_replace(Some(result));
        });
        done
    }
}

impl Store {
    fn part(&self, digest: &Digest, package: &FirmwarePackage) -> PathBuf {
        self.directory.join(Wanted::of(digest, package).file_name())
    }

    fn whole(&self, digest: &Digest) -> PathBuf {
        self.directory.join(&digest.0)
    }

    /// What a former process was fetching when it ended.
    fn remove_parts(&self) {
        let Ok(entries) = std::fs::read_dir(&self.directory) else { return };
        for entry in entries.flatten().filter(|entry| entry.path().extension().is_some_and(|it| it == "part"))
        {
            // It is overwritten by the next fetch of the same package anyway.
            let _ = std::fs::remove_file(entry.path());
        }
    }

    async fn cached(&self, digest: &Digest, package: &FirmwarePackage) -> Option<Vec<u8>> {
        let path = self.whole(digest);
        let on_disk = tokio::fs::metadata(&path).await.ok()?.len();
        if on_disk != package.size {
            tracing::warn!(package = package.name, "a cached package was damaged; it is fetched again");
            return None;
        }
        let bytes = tokio::fs::read(&path).await.ok()?;
        let right = bytes.len() as u64 == package.size && sha256_hex(&bytes) == digest.0;
        if !right {
            tracing::warn!(package = package.name, "a cached package was damaged; it is fetched again");
            return None;
        }
        touch(&path);
        Some(bytes)
    }

    /// Sets room aside for a package, beside the others that are being fetched, and leaves as much for another one.
    /// What is in the directory by then may still have to go.
    fn reserve(&self, size: u64) -> Result<Reserved<'_>, PackageError> {
        if size > self.limit {
            let why = format!("it is larger than `cache_gib` ({} MiB)", self.limit / MIB);
            return Err(PackageError::Refused(why));
        }
        let mut coming = lock(&self.coming);
        let left = self.limit.saturating_sub(*coming);
        if *coming > 0 && size > left / 2 {
            let why = "other packages that are being fetched leave too little of the cache".to_owned();
            return Err(PackageError::Coming(why));
        }
        *coming = coming.saturating_add(size);
        Ok(Reserved { store: self, size })
    }

    /// Makes room on disk for all that is being fetched: packages that were used longest ago go, whoever reads one now
    /// has it.
    fn make_room(&self) -> std::io::Result<()> {
        // Held, so that nobody else looks at the directory meanwhile.
        let coming = lock(&self.coming);
        let mut packages: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            let is_package = entry.file_name().to_str().is_some_and(|name| name.len() == 64);
            if is_package && let Ok(about) = entry.metadata() {
                packages.push((about.modified()?, about.len(), entry.path()));
            }
        }
        packages.sort();
        let mut total: u64 = packages.iter().map(|(_, size, _)| size).sum();
        for (_, its_size, path) in packages {
            if total.saturating_add(*coming) <= self.limit {
                break;
            }
            tracing::info!(path = %path.display(), "a package that was not used lately leaves the cache");
            std::fs::remove_file(path)?;
            total = total.saturating_sub(its_size);
        }
        Ok(())
    }

    fn source(&self, package: &FirmwarePackage) -> Result<Source, PackageError> {
        let url = reqwest::Url::parse(&package.url).map_err(unreachable)?;
        let (Some(name), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(PackageError::Unreachable("the address names no host".into()));
        };
        let host = format!("{name}:{port}");
        if !self.policy.allows_package_host(&host) {
            return Err(PackageError::Refused(format!("`package_hosts` does not list {host}")));
        }
        let literal = name.trim_matches(['[', ']']).parse().ok();
        if literal.is_some_and(|address| !self.policy.allows_package_address(name, address)) {
            return Err(PackageError::Refused(format!("`package_hosts` does not name {name} in full")));
        }
        Ok(Source { name: name.to_owned(), host, url })
    }

    async fn fetch_as_long_as_wanted(
        &self,
        digest: &Digest,
        source: &Source,
        package: &FirmwarePackage,
        progress: &Progress,
        look: Duration,
    ) -> Fetched {
        let _reserved = self.reserve(package.size)?;
        let result = tokio::select! {
            result = self.fetch(digest, source, package, &progress.received) => result,
            error = progress.ends(&source.host, look) => {
                tracing::warn!(package = package.name, host = source.host, %error, "a fetch ends early");
                Err(error)
            }
        };
        if result.is_err() {
            // There may be none.
            let _ = tokio::fs::remove_file(self.part(digest, package)).await;
        }
        result
    }

    async fn fetch(
        &self,
        digest: &Digest,
        source: &Source,
        package: &FirmwarePackage,
        received: &AtomicU64,
    ) -> Fetched {
        let host = &source.host;
        let kept_back = |what: &str, why: &dyn std::fmt::Display| {
            tracing::warn!(package = package.name, host, %why, "{what}");
        };
        let no_answer = |error: reqwest::Error| {
            kept_back("a package cannot be fetched", &cause::last(&error.without_url()));
            PackageError::Unreachable(format!("{host} does not deliver it; the executor's log says why"))
        };
        let another = |why: String| {
            let approved = format!("{why}; approved: {} bytes, SHA-256 {}", package.size, digest.0);
            kept_back("a package is not the approved one", &approved);
            PackageError::Mismatch("the executor's log has both values".into())
        };
        let response = self.client.get(source.url.clone()).send().await.map_err(no_answer)?;
        let response = response.error_for_status().map_err(no_answer)?;
        if !response.status().is_success() {
            return Err(another(format!("status {}", response.status())));
        }
        self.make_room().map_err(unreachable)?;
        let part = self.part(digest, package);
        let mut file = tokio::fs::File::create(&part).await.map_err(unreachable)?;
        let (mut sum, mut size) = (Sha256::new(), 0_u64);
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(no_answer)?;
            size += chunk.len() as u64;
            received.store(size, Relaxed);
            if size > package.size {
                return Err(another(format!("larger than {} bytes", package.size)));
            }
            sum.update(&chunk);
            file.write_all(&chunk).await.map_err(unreachable)?;
        }
        file.sync_all().await.map_err(unreachable)?;
        let found = hex::encode(sum.finalize());
        if size != package.size || found != digest.0 {
            return Err(another(format!("{size} bytes, SHA-256 {found}")));
        }
        tokio::fs::rename(&part, self.whole(digest)).await.map_err(unreachable)
    }
}

/// Notes that the file was used now. A cache that cannot note it forgets the wrong package first, no more.
fn touch(path: &Path) {
    let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
    let _ = rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::empty());
}

fn unreachable(error: impl std::fmt::Display) -> PackageError {
    PackageError::Unreachable(error.to_string())
}

impl Repository for DiskCache {
    fn get<'a>(&'a self, package: &'a FirmwarePackage) -> BoxFuture<'a, Result<Bytes, PackageError>> {
        Box::pin(async move {
            let digest = &Digest::of(package)?;
            if let Some(bytes) = self.held(digest) {
                return Ok(bytes);
            }
            if let Some(bytes) = self.read(digest, package).await? {
                return Ok(bytes);
            }
            self.fetch(digest, package).await?;
            match self.read(digest, package).await? {
                Some(bytes) => Ok(bytes),
                None if self.store.whole(digest).exists() => {
                    Err(unreachable("the cache cannot be read back"))
                }
                None => Err(PackageError::Coming("it gave way to another package in the cache".to_owned())),
            }
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
        let mut cache = DiskCache::open(directory.path(), u64::MAX, Policy::default(), tls).unwrap();
        (cache.room, cache.size) = (Arc::new(Semaphore::new(2)), 2);
        cache.patience = Duration::from_millis(100);
        let one = package(directory.path(), &vec![1; 2 * 1024 * 1024]);
        let other = package(directory.path(), b"small");
        let (first, second) = (cache.get(&one).await.unwrap(), cache.get(&one).await.unwrap());
        assert_eq!(first.as_ptr(), second.as_ptr());
        let waits = async || matches!(cache.get(&other).await, Err(PackageError::Coming(_)));
        assert!(waits().await, "no room");
        drop(first);
        assert!(waits().await, "still in use");
        drop(second);
        assert_eq!(cache.get(&other).await.unwrap(), "small");
        // Larger than all the room: alone, but not never.
        let large = package(directory.path(), &vec![2; 3 * 1024 * 1024]);
        assert_eq!(cache.get(&large).await.unwrap().len(), 3 * 1024 * 1024);
    }

    /// At 64 KiB a second: 36 hours.
    const LARGE: u64 = 8 << 30;

    /// A repository on loopback that answers each path as `answer` says, `/late` a while later, with the number of
    /// requests. Where it has no answer, it sends a byte now and then.
    async fn repository(
        answer: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> (SocketAddr, Arc<std::sync::atomic::AtomicU32>) {
        use tokio::io::AsyncReadExt as _;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (count, answer) = (Arc::new(std::sync::atomic::AtomicU32::new(0)), Arc::new(answer));
        let counted = Arc::clone(&count);
        tokio::spawn(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                let (counted, answer) = (Arc::clone(&counted), Arc::clone(&answer));
                tokio::spawn(async move {
                    let mut request = vec![0; 4096];
                    let read = tcp.read(&mut request).await.unwrap();
                    counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let line = String::from_utf8_lossy(&request[..read]).into_owned();
                    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
                    if path == "/late" {
                        tokio::time::sleep(Duration::from_millis(300)).await;
                    }
                    match answer(&path) {
                        Some(body) => {
                            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                            tcp.write_all(head.as_bytes()).await.unwrap();
                            tcp.write_all(&body).await.unwrap();
                        }
                        None => {
                            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n");
                            let mut sent = tcp.write_all(head.as_bytes()).await;
                            while sent.is_ok() {
                                tokio::time::sleep(Duration::from_millis(20)).await;
                                sent = tcp.write_all(b"x").await;
                            }
                        }
                    }
                });
            }
        });
        (address, count)
    }

    fn offered(address: SocketAddr, path: &str, content: &[u8]) -> FirmwarePackage {
        FirmwarePackage {
            name: path.into(),
            file_name: path.into(),
            url: format!("http://{address}/{path}"),
            sha256: sha256_hex(content),
            size: content.len() as u64,
            software_id: "159".into(),
            version: "1".into(),
        }
    }

    fn local(directory: &Path, limit: u64) -> DiskCache {
        let package_hosts = ["127.0.0.1", "localhost", "127.0.0.2"].map(Into::into).into();
        let policy = Policy { package_hosts, ..Policy::default() };
        let mut cache =
            DiskCache::open(directory, limit, policy, crate::cloud::http::tls().unwrap()).unwrap();
        cache.patience = Duration::from_millis(300);
        cache
    }

    #[tokio::test]
    async fn a_slow_package_keeps_nobody_from_another_one_and_is_fetched_once() {
        let (address, count) = repository(|path| (path != "/slow").then(|| b"quick".to_vec())).await;
        let directory = tempfile::tempdir().unwrap();
        let cache = local(directory.path(), u64::MAX);
        let slow = FirmwarePackage { size: LARGE, ..offered(address, "slow", b"slow") };
        let quick = offered(address, "quick", b"quick");
        let (one, two, other) = tokio::join!(cache.get(&slow), cache.get(&slow), cache.get(&quick));
        assert_eq!(other.unwrap(), "quick");
        for waits in [one, two, cache.get(&slow).await] {
            assert!(matches!(waits, Err(PackageError::Coming(_))), "{waits:?}");
        }
        assert_eq!(count.load(std::sync::atomic::Ordering::Relaxed), 2, "one fetch each");
    }

    #[tokio::test]
    async fn a_package_is_fetched_from_the_address_of_its_own_job() {
        let (address, _) = repository(|path| (path != "/slow").then(|| b"firmware".to_vec())).await;
        let directory = tempfile::tempdir().unwrap();
        let cache = local(directory.path(), u64::MAX);
        let slow = FirmwarePackage { size: LARGE, ..offered(address, "slow", b"firmware") };
        let good = offered(address, "good", b"firmware");
        assert!(matches!(cache.get(&slow).await, Err(PackageError::Coming(_))));
        assert_eq!(cache.get(&good).await.unwrap(), "firmware");
    }

    #[tokio::test]
    async fn what_was_used_longest_ago_leaves_a_full_cache() {
        let (address, _) = repository(|path| Some(path.repeat(100).into_bytes())).await;
        let directory = tempfile::tempdir().unwrap();
        let cache = local(directory.path(), 700);
        let packages =
            ["a", "b", "c"].map(|name| offered(address, name, format!("/{name}").repeat(100).as_bytes()));
        let there = |package: &FirmwarePackage| directory.path().join(&package.sha256).exists();
        for package in &packages[..2] {
            cache.get(package).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        cache.get(&packages[0]).await.unwrap();
        cache.get(&packages[2]).await.unwrap();
        cache.get(&packages[2]).await.unwrap();
        assert_eq!(packages.each_ref().map(there), [true, true, true]);
        let small = local(directory.path(), 500);
        let fourth = offered(address, "d", "/d".repeat(100).as_bytes());
        small.get(&fourth).await.unwrap();
        assert_eq!(
            packages.each_ref().map(there),
            [false, false, true],
            "two of 200 bytes fit, and the fourth"
        );
        assert!(there(&fourth));
    }

    /// A run waits, and pauses for as long, over and over: 15 s each in the field. The package is not the approved
    /// one, and takes one and a half of that.
    #[tokio::test]
    async fn a_fetch_that_fails_between_two_looks_is_told() {
        let (address, count) = repository(|_| Some(b"baad".to_vec())).await;
        let directory = tempfile::tempdir().unwrap();
        let mut cache = local(directory.path(), u64::MAX);
        cache.patience = Duration::from_millis(200);
        let package = offered(address, "late", b"good");
        let mut told = 0;
        for _ in 0..8 {
            match cache.get(&package).await {
                Err(PackageError::Coming(_)) => tokio::time::sleep(cache.patience).await,
                Err(PackageError::Mismatch(_)) => told += 1,
                other => panic!("{other:?}"),
            }
        }
        let fetched = count.load(Relaxed);
        assert!(
            told > 0 && told <= fetched && fetched <= told + 1,
            "fetched {fetched} times, told {told} times"
        );
        assert!(lock(&cache.failed).len() <= 1);
    }

    /// Those who wait are told at once, and then nobody else.
    #[tokio::test]
    async fn a_failure_that_was_told_is_not_told_again() {
        let (address, count) = repository(|_| Some(b"baad".to_vec())).await;
        let directory = tempfile::tempdir().unwrap();
        let mut cache = local(directory.path(), u64::MAX);
        cache.patience = Duration::from_secs(60);
        let package = offered(address, "late", b"good");
        let both = tokio::join!(cache.get(&package), cache.get(&package));
        assert!(matches!(both, (Err(PackageError::Mismatch(_)), Err(PackageError::Mismatch(_)))), "{both:?}");
        assert_eq!((count.load(Relaxed), lock(&cache.failed).len()), (1, 0));
        cache.get(&package).await.unwrap_err();
        assert_eq!(count.load(Relaxed), 2);
    }

    /// Nobody waits when a fetch ends. Whoever comes much later is not told its result: the repository is asked.
    #[tokio::test]
    async fn a_fetch_that_has_ended_is_no_later_answer() {
        let right = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let mended = Arc::clone(&right);
        let (address, count) = repository(move |_| {
            let good = mended.load(std::sync::atomic::Ordering::Relaxed);
            Some(if good { b"good".to_vec() } else { b"baad".to_vec() })
        })
        .await;
        let directory = tempfile::tempdir().unwrap();
        let mut cache = local(directory.path(), u64::MAX);
        (cache.patience, cache.kept) = (Duration::from_millis(50), Duration::ZERO);
        let package = offered(address, "late", b"good");
        let first = cache.get(&package).await;
        assert!(matches!(first, Err(PackageError::Coming(_))), "{first:?}");
        while !lock(&cache.fetching).is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        right.store(true, std::sync::atomic::Ordering::Relaxed);
        cache.patience = Duration::from_secs(60);
        assert_eq!(cache.get(&package).await.unwrap(), "good");
        assert_eq!(count.load(std::sync::atomic::Ordering::Relaxed), 2);
        assert!(lock(&cache.fetching).is_empty());
    }

    #[tokio::test]
    async fn what_is_being_fetched_counts_as_well() {
        let (address, count) = repository(|path| Some(path.repeat(300).into_bytes())).await;
        let directory = tempfile::tempdir().unwrap();
        let cache = local(directory.path(), 700);
        let packages = ["a", "b", "c", "d"]
            .map(|name| offered(address, name, format!("/{name}").repeat(300).as_bytes()));
        let got = futures::future::join_all(packages.iter().map(|package| cache.get(package))).await;
        for got in got {
            assert!(matches!(got, Ok(_) | Err(PackageError::Coming(_))), "{got:?}");
        }
        let on_disk = || -> u64 {
            let entries = std::fs::read_dir(directory.path()).unwrap();
            entries.map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
        };
        assert!(on_disk() <= 700, "{} bytes", on_disk());
        // One after the other they come, each in the place of the one before.
        for package in &packages {
            cache.get(package).await.unwrap();
            assert_eq!((on_disk(), *lock(&cache.store.coming)), (600, 0));
        }
        let asked = count.load(std::sync::atomic::Ordering::Relaxed);
        let large = offered(address, "large", &[0; 701]);
        let refused = cache.get(&large).await;
        assert!(matches!(refused, Err(PackageError::Refused(_))), "{refused:?}");
        assert_eq!(count.load(std::sync::atomic::Ordering::Relaxed), asked, "nobody was asked");
    }

    /// Of a size that takes hours, from a repository that sends next to nothing.
    fn slow(address: SocketAddr, host: &str, n: usize) -> FirmwarePackage {
        let path = format!("slow{n}");
        let url = format!("http://{host}:{}/{path}", address.port());
        FirmwarePackage { url, size: LARGE, ..offered(address, &path, path.as_bytes()) }
    }

    async fn waits_for(cache: &DiskCache, package: &FirmwarePackage) -> String {
        match cache.get(package).await {
            Err(PackageError::Coming(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    async fn quick_or_slow() -> SocketAddr {
        repository(|path| (path == "/quick").then(|| b"quick".to_vec())).await.0
    }

    #[tokio::test]
    async fn four_packages_are_fetched_at_once_and_two_of_one_host() {
        let address = quick_or_slow().await;
        let directory = tempfile::tempdir().unwrap();
        let mut cache = local(directory.path(), u64::MAX);
        cache.patience = Duration::from_millis(50);
        for n in 0..PER_HOST {
            waits_for(&cache, &slow(address, "127.0.0.1", n)).await;
        }
        let why = waits_for(&cache, &slow(address, "127.0.0.1", 9)).await;
        assert_eq!(why, "2 other packages are being fetched from 127.0.0.1");
        assert_eq!(lock(&cache.fetching).len(), PER_HOST);
        for n in 0..10 {
            waits_for(&cache, &slow(address, "localhost", n)).await;
        }
        let why = waits_for(&cache, &slow(address, "127.0.0.2", 0)).await;
        assert_eq!(why, "4 other packages are being fetched");
        assert_eq!(lock(&cache.fetching).len(), FETCHES);
    }

    #[tokio::test]
    async fn slow_packages_of_one_host_keep_nobody_from_another_host() {
        let address = quick_or_slow().await;
        let directory = tempfile::tempdir().unwrap();
        let cache = local(directory.path(), 16 << 30);
        for n in 0..FETCHES {
            waits_for(&cache, &slow(address, "localhost", n)).await;
        }
        assert_eq!(cache.get(&offered(address, "quick", b"quick")).await.unwrap(), "quick");
    }

    /// The default of `cache_gib` and two packages of the largest size.
    #[tokio::test]
    async fn two_large_packages_leave_room_for_another_one() {
        let address = quick_or_slow().await;
        let directory = tempfile::tempdir().unwrap();
        let cache = local(directory.path(), 16 << 30);
        for n in 0..2 {
            waits_for(&cache, &slow(address, "127.0.0.1", n)).await;
        }
        assert_eq!(cache.get(&offered(address, "quick", b"quick")).await.unwrap(), "quick");
    }

    /// Their job was cancelled. Whoever goes on asking keeps a fetch.
    #[tokio::test]
    async fn a_fetch_that_nobody_asks_for_any_more_ends() {
        let (address, count) = repository(|path| (path == "/quick").then(|| b"quick".to_vec())).await;
        let directory = tempfile::tempdir().unwrap();
        let mut cache = local(directory.path(), u64::MAX);
        (cache.patience, cache.look) = (Duration::from_millis(50), Duration::from_secs(1));
        for n in 0..PER_HOST {
            waits_for(&cache, &slow(address, "127.0.0.1", n)).await;
        }
        let fetching = lock(&cache.fetching).values().map(|it| Arc::clone(&it.progress)).collect::<Vec<_>>();
        let quick = offered(address, "quick", b"quick");
        let ended = timeout(Duration::from_secs(20), async {
            while matches!(cache.get(&quick).await, Err(PackageError::Coming(_))) {
                // Fast enough, so that only who asks matters.
                for progress in &fetching {
                    progress.received.fetch_max(u64::MAX / 2, Relaxed);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        ended.await.unwrap();
        assert_eq!(cache.get(&quick).await.unwrap(), "quick");
        assert_eq!(count.load(Relaxed), 3);
    }

    #[tokio::test]
    async fn a_repository_that_is_too_slow_is_given_up_and_named() {
        let address = quick_or_slow().await;
        let directory = tempfile::tempdir().unwrap();
        let mut cache = local(directory.path(), 16 << 30);
        (cache.patience, cache.look) = (Duration::from_secs(20), Duration::from_millis(500));
        let error = cache.get(&slow(address, "127.0.0.1", 0)).await.unwrap_err();
        let told = format!(
            "cannot be fetched: {address} is too slow: it sends 0 KiB a second, and 64 are the least"
        );
        assert_eq!(error.to_string(), told);
        assert_eq!((lock(&cache.fetching).len(), *lock(&cache.store.coming)), (0, 0));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left of it");
    }

    /// As a run does that waits for a hand-over, at the longest.
    #[tokio::test(start_paused = true)]
    async fn a_fetch_goes_on_while_it_is_asked_for_and_fast_enough() {
        let progress = Arc::new(Progress::default());
        let mut ends = tokio::spawn({
            let progress = Arc::clone(&progress);
            async move { progress.ends("repo.example:443", LOOK).await }
        });
        let step = Duration::from_secs(2 * 60);
        for _ in 0..100 {
            progress.asked.store(true, Relaxed);
            progress.received.fetch_add(SLOWEST * 2 * step.as_secs(), Relaxed);
            assert!(timeout(step, &mut ends).await.is_err(), "it ended");
        }
        progress.received.fetch_add(SLOWEST * 2 * LOOK.as_secs(), Relaxed);
        let error = timeout(LOOK * 2, ends).await.unwrap().unwrap();
        assert!(matches!(error, PackageError::Coming(_)), "{error}");
    }

    /// The control plane names a package whose digest is a path.
    #[tokio::test]
    async fn a_digest_that_is_a_path_leads_nowhere() {
        let (address, count) = repository(|_| Some(b"* * * * * root id".to_vec())).await;
        let root = tempfile::tempdir().unwrap();
        let cache = local(&root.path().join("packages"), u64::MAX);
        let elsewhere = root.path().join("precious");
        for file in [elsewhere.clone(), elsewhere.with_extension("part")] {
            std::fs::write(file, "precious").unwrap();
        }
        let upper = "AB".repeat(32);
        for sha256 in [elsewhere.to_str().unwrap(), "../precious", "/dev/zero", "", &upper] {
            let package = FirmwarePackage { sha256: sha256.into(), ..offered(address, "x", b"precious") };
            let refused = cache.get(&package).await;
            assert!(matches!(refused, Err(PackageError::Refused(_))), "{sha256}: {refused:?}");
        }
        assert_eq!(std::fs::read(elsewhere.with_extension("part")).unwrap(), b"precious");
        assert_eq!(count.load(std::sync::atomic::Ordering::Relaxed), 0, "nobody was asked");
    }

    /// Who writes a job learns nothing of what stands at an address: neither a status nor a digest, nor whether this
    /// machine itself answers there.
    #[tokio::test]
    async fn an_address_that_was_not_meant_tells_nothing() {
        let (address, count) = repository(|_| Some(b"secret".to_vec())).await;
        let directory = tempfile::tempdir().unwrap();
        let told = async |policy: Policy, url: String| {
            let tls = crate::cloud::http::tls().unwrap();
            let cache = DiskCache::open(directory.path(), u64::MAX, policy, tls).unwrap();
            cache
                .get(&FirmwarePackage { url, ..offered(address, "x", b"wanted") })
                .await
                .unwrap_err()
                .to_string()
        };
        for host in ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "[::ffff:127.0.0.1]", "0.0.0.0"] {
            let why = told(Policy::default(), format!("http://{host}:{}/", address.port())).await;
            assert!(why.contains("policy") || why.contains("does not deliver it"), "{host}: {why}");
        }
        assert_eq!(count.load(std::sync::atomic::Ordering::Relaxed), 0, "nobody was asked");
        let named = Policy { package_hosts: vec!["127.0.0.1".into()], ..Policy::default() };
        let why = told(named, format!("http://{address}/")).await;
        assert!(
            !why.contains(&sha256_hex(b"secret")) && !why.contains("200") && !why.contains(" 6 "),
            "{why}"
        );
    }
}
