//! Client CPU per Redfish request, over real TLS with one kept connection.
//!
//! A server on a thread of its own answers from a small tree; the client's thread reads its own CPU clock.
//! Run it with `cargo run --release -p rackhand-redfish --example cpu_per_request [SYSTEM.json] [REQUESTS]`, under
//! `valgrind --tool=callgrind --separate-threads=yes` for instructions; the target is 0.12 ms for the
//! `ComputerSystem` of an R750 (16 KB).

#![expect(clippy::print_stdout, reason = "an example prints its result")]

use std::{convert::Infallible, error::Error, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use rackhand_redfish::{
    Client, Credentials, Endpoint, FirstRejectionCloses, HttpsTransport, TlsTrust, Unobserved,
};
use rustix::time::{ClockId, clock_gettime};
use rustls::crypto::ring;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{net::TcpListener, runtime::Builder};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let system = Bytes::from(match arguments.next() {
        Some(file) => std::fs::read(file)?,
        None => small_system().into_bytes(),
    });
    let requests = arguments.next().map_or(Ok(5000), |number| number.parse())?;
    let bytes = system.len();
    let (started, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || serve(&started, &system));
    let address = address.recv()?;
    // Not the main thread: its allocator differs from that of the threads an executor works on.
    let client = std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().ok()?;
        runtime.block_on(measure(address, requests)).ok()
    });
    let per_request = client.join().ok().flatten().ok_or("the client failed")?;
    println!("{per_request:.4} ms of client CPU per request ({requests} requests, {bytes} bytes each)");
    Ok(())
}

/// Milliseconds for one request.
async fn measure(address: SocketAddr, requests: u32) -> Result<f64, Box<dyn Error>> {
    let client = Client::new(
        Arc::new(HttpsTransport::new(TlsTrust::FirstUse)),
        Endpoint::parse(&address.to_string())?,
        Credentials::new("root", "password".to_owned().into()),
        Arc::new(FirstRejectionCloses::default()),
        Arc::new(Unobserved),
    );
    for _ in 0..50 {
        client.system().await?;
    }
    let before = cpu_seconds();
    for _ in 0..requests {
        client.system().await?;
    }
    let per_request = (cpu_seconds() - before) * 1000.0 / f64::from(requests);
    client.close().await;
    Ok(per_request)
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
    f64::from(u32::try_from(time.tv_sec).unwrap_or_default()) + f64::from(nanoseconds) / 1e9
}

fn serve(started: &std::sync::mpsc::Sender<SocketAddr>, system: &Bytes) -> Option<()> {
    let key = rcgen::KeyPair::generate().ok()?;
    let certificate = rcgen::CertificateParams::new(vec!["bmc".to_owned()]).ok()?.self_signed(&key).ok()?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .ok()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .ok()?;
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let runtime = Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.ok()?;
        started.send(listener.local_addr().ok()?).ok()?;
        loop {
            let (tcp, _) = listener.accept().await.ok()?;
            let stream = acceptor.accept(tcp).await.ok()?;
            let io = hyper_util::rt::TokioIo::new(stream);
            let system = system.clone();
            let service = hyper::service::service_fn(move |request| {
                std::future::ready(answer(&request, system.clone()))
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
        }
    })
}

fn answer(
    request: &Request<hyper::body::Incoming>,
    system: Bytes,
) -> Result<Response<Full<Bytes>>, Infallible> {
    const ROOT: &str =
        r#"{"Systems":{"@odata.id":"/redfish/v1/Systems"},"Links":{"Sessions":{"@odata.id":"/s"}}}"#;
    let body = match (request.method().as_str(), request.uri().path()) {
        ("GET", "/redfish/v1/") => Bytes::from_static(ROOT.as_bytes()),
        ("GET", "/redfish/v1/Systems") => {
            Bytes::from_static(br#"{"Members":[{"@odata.id":"/redfish/v1/Systems/1"}]}"#)
        }
        ("GET", _) => system,
        _ => Bytes::from_static(b"{}"),
    };
    let mut response = Response::new(Full::new(body));
    if request.method() == http::Method::POST {
        response.headers_mut().insert("x-auth-token", http::HeaderValue::from_static("token"));
        response.headers_mut().insert("location", http::HeaderValue::from_static("/s/1"));
    }
    Ok(response)
}

/// About as large as a `ComputerSystem` without Dell's own parts.
fn small_system() -> String {
    let links: Vec<String> = (0..30)
        .map(|at| format!(r#"{{"@odata.id":"/redfish/v1/Chassis/System.Embedded.1/Thermal#/Fans/{at}"}}"#))
        .collect();
    format!(
        r##"{{"Id":"1","PowerState":"On","Status":{{"Health":"OK","HealthRollup":"OK","State":"Enabled"}},
        "Actions":{{"#ComputerSystem.Reset":{{"target":"/r","ResetType@Redfish.AllowableValues":["On","ForceOff"]}}}},
        "Links":{{"CooledBy":[{}]}}}}"##,
        links.join(",")
    )
}
