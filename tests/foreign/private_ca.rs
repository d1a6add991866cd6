//! A control plane behind a private CA, or behind a certificate that no server can have: the command line and the
//! executor say what is wrong in plain words, and `--ca-file` helps.

use std::{path::Path, process::Stdio, sync::Arc};

use rackhand_tests::{cli::CommandLine, stack::binary};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    process::Command,
};
use tokio_rustls::TlsAcceptor;

/// Answers everything with 404; its address.
async fn server(certificate: CertificateDer<'static>, key: &KeyPair) -> String {
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate], private))
        .unwrap();
    let (acceptor, listener) =
        (TlsAcceptor::from(Arc::new(config)), TcpListener::bind(("127.0.0.1", 0)).await.unwrap());
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        loop {
            let Ok((tcp, _)) = listener.accept().await else { continue };
            let Ok(mut stream) = acceptor.accept(tcp).await else { continue };
            let mut request = [0; 4096];
            if stream.read(&mut request).await.is_ok() {
                let _ = stream
                    .write_all(b"HTTP/1.1 404 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    .await;
                let _ = stream.shutdown().await;
            }
        }
    });
    url
}

fn authority() -> (CertificateParams, KeyPair) {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (params, KeyPair::generate().unwrap())
}

/// What the command line complains of.
async fn command_line(url: &str, ca_file: Option<&Path>) -> String {
    let mut arguments = vec!["login", url, "--email", "a@example.test", "--password-stdin"];
    arguments.extend(ca_file.map(|file| ["--ca-file", file.to_str().unwrap()]).into_iter().flatten());
    let output = CommandLine::new().run(&arguments, "a password").await;
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

async fn executor(url: &str, ca_file: Option<&Path>) -> String {
    let data = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary("rackhand-executor"));
    command.args(["enrol", "--server", url, "--name", "one", "--token-stdin", "--data"]).arg(data.path());
    if let Some(file) = ca_file {
        command.arg("--ca-file").arg(file);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"a token that is long enough").await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_ca_is_named_and_trusted_when_given() {
    let (params, ca_key) = authority();
    let ca = params.self_signed(&ca_key).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, ca.pem()).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let url = server(certificate.der().clone(), &key).await;
    for (told, trusted) in [
        (command_line(&url, None).await, command_line(&url, Some(&file)).await),
        (executor(&url, None).await, executor(&url, Some(&file)).await),
    ] {
        assert!(told.contains("its certificate is from a CA that is not trusted here"), "{told}");
        assert!(told.contains("--ca-file FILE"), "{told}");
        assert!(trusted.contains("404") && !trusted.contains("certificate"), "{trusted}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_certificate_of_a_ca_is_said_to_be_one() {
    let (params, key) = authority();
    let certificate = params.self_signed(&key).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, certificate.pem()).unwrap();
    let url = server(certificate.der().clone(), &key).await;
    for told in [command_line(&url, Some(&file)).await, executor(&url, Some(&file)).await] {
        assert!(told.contains("marked as a CA's own"), "{told}");
        assert!(told.contains("basicConstraints CA:FALSE"), "{told}");
    }
}
