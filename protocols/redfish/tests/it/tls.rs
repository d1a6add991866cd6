//! The real transport against real TLS servers with the certificates BMCs have, and against bad HTTP.

use std::{
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use rackhand_redfish::{
    Body, Endpoint, Fingerprint, HttpsOptions, HttpsTransport, Mutates, NotSent, TlsTrust, Transport,
    TransportError, probe_pin,
};
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    crypto::ring,
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::Instant,
};

/// A running server; it stops when dropped.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Serves `{}` to every request.
    async fn tls(
        certificate: Vec<u8>,
        key: PrivateKeyDer<'static>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        Self::tls_after(Duration::ZERO, certificate, key, versions).await
    }

    /// The same, with a handshake that begins only after a wait.
    async fn tls_after(
        wait: Duration,
        certificate: Vec<u8>,
        key: PrivateKeyDer<'static>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let key = ring::sign::any_supported_type(&key).unwrap();
        let chain = vec![CertificateDer::from(certificate)];
        let certified = SingleCertAndKey::from(CertifiedKey::new(chain, key));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(certified));
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        Self::listen(move |tcp, requests| {
            let acceptor = acceptor.clone();
            async move {
                tokio::time::sleep(wait).await;
                let Ok(stream) = acceptor.accept(tcp).await else { return };
                let answer = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                    requests.fetch_add(1, Ordering::SeqCst);
                    async move {
                        let sent = request.into_body().collect().await?.to_bytes();
                        let body = Full::new(Bytes::from(format!("{{\"received\":{}}}", sent.len())));
                        Ok::<_, hyper::Error>(Response::new(body))
                    }
                });
                let io = hyper_util::rt::TokioIo::new(stream);
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, answer).await;
            }
        })
        .await
    }

    /// Reads a request's head from every connection and answers with the given bytes, then closes or keeps
    /// silent.
    async fn raw(answer: Vec<u8>, stay: bool) -> Self {
        Self::listen(move |mut tcp, requests| {
            let answer = answer.clone();
            async move {
                let mut head = [0; 4096];
                if tcp.read(&mut head).await.unwrap_or(0) == 0 {
                    return;
                }
                requests.fetch_add(1, Ordering::SeqCst);
                let _ = tcp.write_all(&answer).await;
                if stay {
                    tokio::time::sleep(Duration::from_secs(30)).await;
                }
            }
        })
        .await
    }

    /// Counts connections and hands each to `serve`, which counts requests.
    async fn listen<F>(mut serve: impl FnMut(TcpStream, Arc<AtomicUsize>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counters = (connections.clone(), requests.clone());
        let task = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                counters.0.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(tcp, counters.1.clone()));
            }
        });
        Self { address, connections, requests, task }
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::parse(&format!("https://{}", self.address)).unwrap()
    }

    fn request(&self, scheme: &str, method: Method, body: Body) -> Request<Body> {
        Request::builder()
            .method(method)
            .uri(format!("{scheme}://{}/redfish/v1/", self.address))
            .body(body)
            .unwrap()
    }

    async fn get(&self, transport: &HttpsTransport) -> Result<Response<Bytes>, TransportError> {
        transport.send(self.request("https", Method::GET, Body::empty()), soon()).await
    }

    async fn plain(&self, transport: &HttpsTransport) -> Result<Response<Bytes>, TransportError> {
        transport.send(self.request("http", Method::GET, Body::empty()), soon()).await
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn first_use() -> HttpsTransport {
    HttpsTransport::new(TlsTrust::FirstUse)
}

/// Key and certificate, changed by `change` before signing.
fn certificate(change: impl FnOnce(&mut rcgen::CertificateParams)) -> (Vec<u8>, PrivateKeyDer<'static>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["idrac.invalid".to_owned()]).unwrap();
    change(&mut params);
    let der = params.self_signed(&key).unwrap().der().to_vec();
    (der, PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())))
}

/// Accepted on first use, its pin recorded, then accepted when pinned: by both TLS versions.
async fn is_accepted(certificate: Vec<u8>, key: PrivateKeyDer<'static>) {
    for versions in [&[&TLS12][..], &[&TLS13][..]] {
        let server = Server::tls(certificate.clone(), key.clone_key(), versions).await;
        let transport = first_use();
        assert_eq!(transport.observed_pin(), None);
        assert_eq!(server.get(&transport).await.unwrap().status(), 200);
        let pin = transport.observed_pin().unwrap();
        let pinned = HttpsTransport::new(TlsTrust::Pinned(pin.0));
        assert_eq!(server.get(&pinned).await.unwrap().status(), 200);
        let requests = server.requests.load(Ordering::SeqCst);
        assert_eq!(probe_pin(&server.endpoint(), soon()).await.unwrap(), pin);
        assert_eq!(server.requests.load(Ordering::SeqCst), requests, "a probe sends no request");
    }
}

#[tokio::test]
async fn d07_self_signed_and_another_name() {
    let (der, key) = certificate(|_| {});
    is_accepted(der, key).await;
}

#[tokio::test]
async fn d07_expired() {
    let (der, key) = certificate(|params| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2011, 1, 1);
    });
    is_accepted(der, key).await;
}

#[tokio::test]
async fn d07_ca_as_leaf() {
    let (der, key) = certificate(|params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    });
    is_accepted(der, key).await;
}

#[tokio::test]
async fn d07_x509_version_1() {
    let (der, key) = certificate(|_| {});
    let v1 = without_version_and_extensions(&der);
    assert!(v1.len() < der.len());
    is_accepted(v1, key).await;
}

#[tokio::test]
async fn d07_x509_version_1_with_rsa_made_by_openssl() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &str| {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        Command::new("openssl")
            .args(arguments)
            .current_dir(folder.path())
            .output()
            .is_ok_and(|out| out.status.success())
    };
    let made = run("req -newkey rsa:2048 -nodes -keyout key.pem -out request.pem -subj /CN=idrac")
        && run("x509 -req -in request.pem -signkey key.pem -days 1 -outform DER -out certificate.der")
        && run("pkcs8 -topk8 -nocrypt -in key.pem -outform DER -out key.der");
    if !made {
        println!("SKIPPED: openssl is not installed");
        return;
    }
    let read = |name: &str| std::fs::read(Path::new(folder.path()).join(name)).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(read("key.der")));
    is_accepted(read("certificate.der"), key).await;
}

#[tokio::test]
async fn d07_a_changed_key_is_refused_with_both_fingerprints_and_nothing_is_sent() {
    let (der, key) = certificate(|_| {});
    let (other_der, other_key) = certificate(|_| {});
    let old = Server::tls(der, key, &[&TLS13]).await;
    let expected = probe_pin(&old.endpoint(), soon()).await.unwrap();
    let new = Server::tls(other_der, other_key, &[&TLS13, &TLS12]).await;
    let found = probe_pin(&new.endpoint(), soon()).await.unwrap();

    let pinned = HttpsTransport::new(TlsTrust::Pinned(expected.0));
    let Err(TransportError::PinMismatch(mismatch)) = new.get(&pinned).await else { panic!("accepted") };
    assert_eq!((mismatch.expected, mismatch.found), (expected, found));
    assert!(
        mismatch.to_string().contains(&expected.to_string())
            && mismatch.to_string().contains(&found.to_string())
    );
    assert_eq!(new.requests.load(Ordering::SeqCst), 0);

    // First use sticks, too.
    let transport = first_use();
    old.get(&transport).await.unwrap();
    assert!(matches!(new.get(&transport).await, Err(TransportError::PinMismatch(_))));
}

#[tokio::test]
async fn a_certificate_without_its_key_is_refused_even_on_first_use() {
    let (der, _) = certificate(|_| {});
    let (_, other_key) = certificate(|_| {});
    for versions in [&[&TLS12][..], &[&TLS13][..]] {
        let server = Server::tls(der.clone(), other_key.clone_key(), versions).await;
        let transport = first_use();
        let failed = server.get(&transport).await.unwrap_err();
        assert!(matches!(failed, TransportError::NotSent { why: NotSent::Tls(_) }), "{failed:?}");
        assert_eq!(transport.observed_pin(), None);
    }
    let (_, key) = certificate(|_| {});
    let garbage = Server::tls(vec![0x30, 0x03, 0x02, 0x01, 0x00], key, &[&TLS13]).await;
    assert!(garbage.get(&first_use()).await.unwrap_err().is_not_sent());
}

#[tokio::test]
async fn connections_are_kept_and_uploads_arrive() {
    let (der, key) = certificate(|_| {});
    let server = Server::tls(der, key, &[&TLS13]).await;
    let transport = first_use();
    for _ in 0..5 {
        server.get(&transport).await.unwrap();
    }
    let parts =
        vec![Bytes::from_static(b"head"), Bytes::from(vec![1; 3_000_000]), Bytes::from_static(b"tail")];
    let upload = server.request("https", Method::POST, Body::from_parts(parts));
    let answer = transport.send(upload, soon()).await.unwrap();
    assert_eq!(answer.body(), "{\"received\":3000008}");
    server.get(&transport).await.unwrap();
    assert_eq!(server.connections.load(Ordering::SeqCst), 2, "one for reads, one for the upload");
}

#[tokio::test]
async fn not_sent_is_told_apart() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let request = || Request::builder().uri(format!("https://{free}/")).body(Body::empty()).unwrap();
    let refused = first_use().send(request(), soon()).await.unwrap_err();
    assert!(matches!(refused, TransportError::NotSent { why: NotSent::Refused }), "{refused:?}");

    // Something that never answers the TLS greeting.
    let silent = Server::raw(Vec::new(), true).await;
    let options = HttpsOptions { connect_timeout: Duration::from_millis(200), ..HttpsOptions::default() };
    let late = silent.get(&HttpsTransport::with_options(TlsTrust::FirstUse, options)).await.unwrap_err();
    assert!(matches!(late, TransportError::NotSent { why: NotSent::ConnectTimeout }), "{late:?}");

    // Something that is not TLS.
    let web = Server::raw(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), false).await;
    let failed = web.get(&first_use()).await.unwrap_err();
    assert!(matches!(failed, TransportError::NotSent { why: NotSent::Tls(_) }), "{failed:?}");

    let relative = Request::builder().uri("/redfish/v1/").body(Body::empty()).unwrap();
    let failed = first_use().send(relative, soon()).await.unwrap_err();
    assert!(matches!(failed, TransportError::NotSent { why: NotSent::Invalid(_) }));
    assert!(probe_pin(&Endpoint::parse(&format!("http://{free}")).unwrap(), soon()).await.is_err());
}

#[tokio::test]
async fn after_sending_everything_is_ambiguous() {
    let silent = Server::raw(Vec::new(), true).await;
    let deadline = Instant::now() + Duration::from_millis(300);
    let request = silent.request("http", Method::POST, Body::from(Bytes::from_static(b"{}")));
    let failed = first_use().send(request, deadline).await.unwrap_err();
    assert!(matches!(failed, TransportError::NoAnswer { .. }), "{failed:?}");
    assert_eq!(silent.requests.load(Ordering::SeqCst), 1);
    for answer in [
        &b""[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort",
        b"\x00\x01\x02\x03 nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ] {
        let server = Server::raw(answer.to_vec(), false).await;
        let failed = server.plain(&first_use()).await.unwrap_err();
        assert!(matches!(failed, TransportError::NoAnswer { .. }), "{failed:?}");
    }
}

#[tokio::test]
async fn answers_are_bounded_whatever_their_header_says() {
    let options = HttpsOptions { answer_limit: 1000, ..HttpsOptions::default() };
    let transport = || HttpsTransport::with_options(TlsTrust::FirstUse, options);
    let chunks = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        "190\r\n".to_owned() + &"x".repeat(400) + "\r\n"
    );
    let endless = chunks.clone() + &("190\r\n".to_owned() + &"x".repeat(400) + "\r\n").repeat(20);
    let huge = "HTTP/1.1 202 Accepted\r\nContent-Length: 99999999999\r\n\r\n".to_owned() + &"x".repeat(5000);
    for (answer, expected) in [(endless, 200), (huge, 202)] {
        let server = Server::raw(answer.into_bytes(), true).await;
        let failed = server.plain(&transport()).await.unwrap_err();
        assert!(
            matches!(failed, TransportError::TooLarge { status, limit: 1000 } if status == expected),
            "{failed:?}"
        );
    }
    let fits = Server::raw((chunks + "0\r\n\r\n").into_bytes(), true).await;
    assert_eq!(fits.plain(&transport()).await.unwrap().body().len(), 400);
}

#[tokio::test]
async fn a_deadline_in_mid_upload_cuts_the_connection() {
    // Takes a little of the upload and no more: the deadline strikes while the rest waits to be written.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/upload", listener.local_addr().unwrap());
    let reader = tokio::spawn(async move {
        let (mut tcp, _): (TcpStream, _) = listener.accept().await.unwrap();
        let mut buffer = vec![0; 64 * 1024];
        let _ = tcp.read(&mut buffer).await.unwrap();
        tokio::time::sleep(Duration::from_millis(600)).await;
        let mut total = 0;
        loop {
            match tcp.read(&mut buffer).await {
                Ok(0) | Err(_) => return total,
                Ok(read) => total += read,
            }
        }
    });
    let size = 64 * 1024 * 1024;
    let body = Body::from(Bytes::from(vec![0; size]));
    let request = Request::builder().method(Method::POST).uri(uri).body(body).unwrap();
    let deadline = Instant::now() + Duration::from_millis(300);
    let failed = first_use().send(request, deadline).await.unwrap_err();
    assert!(matches!(failed, TransportError::NoAnswer { .. }));
    let received = tokio::time::timeout(Duration::from_secs(5), reader).await.unwrap().unwrap();
    assert!(received < size, "the upload went on behind the caller's back");
}

/// The task that writes goes on while the caller does not run, as after the machine has slept: the fence is
/// asked there.
#[tokio::test]
async fn a_fence_breaks_an_upload_off_whoever_sleeps() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/upload", listener.local_addr().unwrap());
    let reader = tokio::spawn(async move {
        let (mut tcp, _): (TcpStream, _) = listener.accept().await.unwrap();
        let (mut buffer, mut total) = (vec![0; 64 * 1024], 0);
        while let Ok(read @ 1..) = tcp.read(&mut buffer).await {
            total += read;
        }
        total
    });
    let size = 64 * 1024 * 1024;
    let asked = Arc::new(AtomicUsize::new(0));
    let fence = {
        let asked = Arc::clone(&asked);
        Arc::new(move || asked.fetch_add(1, Ordering::Relaxed) < 100)
    };
    let body = Body::from(Bytes::from(vec![0; size])).fenced(fence);
    let request = Request::builder().method(Method::POST).uri(&uri).body(body).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let failed = first_use().send(request, deadline).await.unwrap_err();
    assert!(matches!(failed, TransportError::NoAnswer { .. }), "{failed:?}");
    let received = tokio::time::timeout(Duration::from_secs(10), reader).await.unwrap().unwrap();
    assert!(received < size / 2, "{received} bytes arrived");
}

/// The whole request fits into the kernel's buffers: closing must throw it away, not deliver it later.
#[tokio::test]
async fn a_small_upload_that_is_cut_off_leaves_nothing_in_the_kernel() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let uri = format!("http://{}/upload", listener.local_addr().unwrap());
    let (cut, was_cut) = tokio::sync::oneshot::channel();
    let reader = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        was_cut.await.unwrap();
        let (mut buffer, mut total) = (vec![0; 64 * 1024], 0);
        while let Ok(read @ 1..) = tcp.read(&mut buffer).await {
            total += read;
        }
        total
    });
    let size = 200 * 1024;
    let body = Body::from(Bytes::from(vec![0; size]));
    let request = Request::builder().method(Method::POST).uri(uri).body(body).unwrap();
    let deadline = Instant::now() + Duration::from_millis(300);
    let failed = first_use().send(request, deadline).await.unwrap_err();
    assert!(matches!(failed, TransportError::NoAnswer { .. }), "{failed:?}");
    cut.send(()).unwrap();
    let received = tokio::time::timeout(Duration::from_secs(10), reader).await.unwrap().unwrap();
    assert!(received < size, "the kernel delivered all of it after the deadline");
}

#[tokio::test]
async fn a_mutation_trusts_no_kept_connection() {
    // Answers once per connection without saying that it will close: the classic keep-alive race.
    let server = Server::raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".to_vec(), false).await;
    let transport = first_use();
    for _ in 0..50 {
        // Whether it finds one that is closed is another matter: a read may be repeated.
        let _ = server.plain(&transport).await;
        let body = Body::from(Bytes::from_static(b"{}"));
        transport.send(server.request("http", Method::POST, body), soon()).await.unwrap();
    }
}

/// Connecting has taken most of its time: nobody would know its outcome. A read may try.
#[tokio::test]
async fn a_mutation_that_is_connected_too_late_is_not_sent() {
    let (certificate, key) = certificate(|_| {});
    let server = Server::tls_after(Duration::from_millis(700), certificate, key, &[&TLS12, &TLS13]).await;
    for (mutates, limit, sent) in [(true, 1200, false), (false, 1200, true), (true, 5000, true)] {
        let before = server.requests.load(Ordering::SeqCst);
        let mut request = server.request("https", Method::POST, Body::from(Bytes::from_static(b"{}")));
        if mutates {
            request.extensions_mut().insert(Mutates { began: Instant::now() });
        }
        let answer = first_use().send(request, Instant::now() + Duration::from_millis(limit)).await;
        let not_sent = matches!(answer, Err(TransportError::NotSent { why: NotSent::ConnectTimeout }));
        assert_eq!((answer.is_ok(), not_sent), (sent, !sent), "{answer:?}");
        assert_eq!(server.requests.load(Ordering::SeqCst) - before, usize::from(sent));
    }
}

#[test]
fn pins_are_shown_in_hexadecimal() {
    assert_eq!(Fingerprint([1; 32]).to_string(), "01".repeat(32));
}

/// Takes `version` and `extensions` out of a certificate, which makes it version 1. Its own signature is
/// wrong then, and nobody looks at it: what counts is who signs the handshake.
fn without_version_and_extensions(der: &[u8]) -> Vec<u8> {
    fn split(der: &[u8]) -> (u8, &[u8], &[u8]) {
        let (length, header) = match der[1] {
            short @ 0..=0x7f => (usize::from(short), 2),
            0x81 => (usize::from(der[2]), 3),
            0x82 => (usize::from(der[2]) << 8 | usize::from(der[3]), 4),
            _ => panic!("longer than these tests make them"),
        };
        (der[0], &der[header..header + length], &der[header + length..])
    }
    fn join(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82, length[0], length[1]], content].concat()
    }
    let (_, certificate, _) = split(der);
    let (_, mut to_be_signed, signature) = split(certificate);
    let mut kept = Vec::new();
    while !to_be_signed.is_empty() {
        let (tag, content, rest) = split(to_be_signed);
        if tag != 0xa0 && tag != 0xa3 {
            kept.extend(join(tag, content));
        }
        to_be_signed = rest;
    }
    join(0x30, &[join(0x30, &kept), signature.to_vec()].concat())
}
