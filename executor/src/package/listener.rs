//! Serves checked packages to BMCs that fetch them by themselves (SimpleUpdate).
//!
//! The only port an executor opens, towards BMCs and only when the policy names an address. A package stands
//! under 128 random bits, from memory, as long as its run needs it; everything else is 404. GET and HEAD, and
//! no ranges, which RFC 9110 §14 lets a server ignore. One request for each connection, of which a host has few at
//! once and each has an end: one host of that network cannot keep the others out.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use tokio::{net::TcpListener, sync::Semaphore, task::JoinHandle, time::timeout};

use super::{Offer, PackageError, Publisher, random_token};

/// Downloads at once; a further connection waits.
const CONNECTIONS: usize = 64;
/// Connections at once from one host: an IPv4 address, or a /64 of IPv6, in which a host chooses its addresses.
const FROM_ONE: usize = 4;
/// A request's head comes within.
const HEAD: Duration = Duration::from_secs(10);
/// A download ends within: half a GiB at a quarter of a MiB a second.
const DOWNLOAD: Duration = Duration::from_secs(2100);
/// Pause after a connection could not be taken, such as for want of file descriptors.
const RECOVER: Duration = Duration::from_millis(100);

type Shelf = Arc<Mutex<BTreeMap<String, Bytes>>>;

pub struct Listener {
    base: String,
    shelf: Shelf,
    task: JoinHandle<()>,
}

struct Offered {
    path: String,
    url: String,
    shelf: Shelf,
}

impl Listener {
    /// Listens on `address`; `base` is what BMCs are told instead of it.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(address: SocketAddr, base: Option<&str>) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let base = match base {
            Some(base) => base.trim_end_matches('/').to_owned(),
            None => format!("http://{}", listener.local_addr()?),
        };
        let shelf = Shelf::default();
        let task = tokio::spawn(serve(listener, Arc::clone(&shelf)));
        Ok(Self { base, shelf, task })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Publisher for Listener {
    fn offer(&self, file_name: &str, bytes: Bytes) -> Result<Box<dyn Offer>, PackageError> {
        let token = random_token().map_err(|error| PackageError::Unreachable(error.to_string()))?;
        let path = format!("/{token}/{file_name}");
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone(), bytes);
        let url = format!("{}{path}", self.base);
        Ok(Box::new(Offered { path, url, shelf: Arc::clone(&self.shelf) }))
    }
}

impl Offer for Offered {
    fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.path);
    }
}

/// Counts the connections of each host; one ends when its value is dropped.
#[derive(Clone, Default)]
struct Peers(Arc<Mutex<BTreeMap<IpAddr, usize>>>);

struct Peer {
    peers: Peers,
    address: IpAddr,
}

impl Peers {
    fn admit(&self, address: IpAddr) -> Option<Peer> {
        let address = match address.to_canonical() {
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
            v4 @ IpAddr::V4(_) => v4,
        };
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= FROM_ONE {
            return None;
        }
        *count += 1;
        Some(Peer { peers: self.clone(), address })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let mut counts = self.peers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

async fn serve(listener: TcpListener, shelf: Shelf) {
    let peers = Peers::default();
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        let Ok((stream, from)) = listener.accept().await else {
            tokio::time::sleep(RECOVER).await;
            continue;
        };
        let Some(peer) = peers.admit(from.ip()) else { continue };
        let shelf = Arc::clone(&shelf);
        tasks.spawn(async move {
            let _held = (permit, peer);
            let service = service_fn(move |request| {
                let answer = answer(&shelf, &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            // A BMC that hangs up is its own business; the device job tells how it went.
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD).keep_alive(false);
            let _ = timeout(DOWNLOAD, http.serve_connection(TokioIo::new(stream), service)).await;
        });
    }
}

fn answer(shelf: &Shelf, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let found = shelf.lock().unwrap_or_else(PoisonError::into_inner).get(request.uri().path()).cloned();
    let (status, body) = match (request.method(), found) {
        (&Method::GET | &Method::HEAD, Some(bytes)) => (StatusCode::OK, bytes),
        (&Method::GET | &Method::HEAD, None) => (StatusCode::NOT_FOUND, Bytes::new()),
        _ => (StatusCode::METHOD_NOT_ALLOWED, Bytes::new()),
    };
    let length = body.len();
    // hyper leaves the body of an answer to HEAD out and keeps its length.
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, header::HeaderValue::from(length));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_package_is_there_as_long_as_its_offer() {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
        let offer = listener.offer("BIOS.EXE", Bytes::from_static(b"firmware")).unwrap();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(crate::cloud::http::tls().unwrap())
            .build()
            .unwrap();
        let url = offer.url().to_owned();
        assert!(url.ends_with("/BIOS.EXE") && url.len() > 50, "{url}");
        assert_eq!(client.get(&url).send().await.unwrap().bytes().await.unwrap(), "firmware");
        let head = client.head(&url).send().await.unwrap();
        assert_eq!(head.headers()[header::CONTENT_LENGTH], "8");
        assert_eq!(client.post(&url).send().await.unwrap().status(), 405);
        drop(offer);
        assert_eq!(client.get(&url).send().await.unwrap().status(), 404);
    }

    #[tokio::test]
    async fn a_host_that_says_nothing_holds_few_places_and_not_for_long() {
        let peers = Peers::default();
        let [quiet, other] = ["10.0.0.1", "10.0.0.2"].map(|address| address.parse().unwrap());
        let held: Vec<_> = (0..FROM_ONE).map(|_| peers.admit(quiet).unwrap()).collect();
        assert!(peers.admit(quiet).is_none() && peers.admit(other).is_some());
        drop(held);
        assert!(peers.admit(quiet).is_some() && peers.0.lock().unwrap().is_empty());
        // One host has as many addresses of its /64 as it likes; IPv4 is counted as such however it comes.
        let six = |text: &str| peers.admit(text.parse().unwrap());
        let held: Vec<_> = (0..FROM_ONE).map(|n| six(&format!("fd00::{n}:1")).unwrap()).collect();
        assert!(six("fd00::ffff").is_none() && six("fd00:0:0:1::1").is_some());
        let four: Vec<_> = (0..FROM_ONE).map(|n| six(&format!("::ffff:10.0.1.{n}")).unwrap()).collect();
        assert!(six("::ffff:10.0.1.9").is_some());
        drop((held, four));
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
        let address = listener.base.trim_start_matches("http://").to_owned();
        let mut tcp = tokio::net::TcpStream::connect(address).await.unwrap();
        tokio::time::pause();
        let mut answer = Vec::new();
        let ended = tokio::io::AsyncReadExt::read_to_end(&mut tcp, &mut answer);
        timeout(HEAD * 3, ended).await.unwrap().unwrap();
    }
}
