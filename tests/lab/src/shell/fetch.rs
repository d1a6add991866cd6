//! Downloads on behalf of a BMC: the images of `SimpleUpdate`.
//!
//! As an iDRAC does by default, it does not check the certificate of an HTTPS image server.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_util::sync::CancellationToken;

use super::{LabError, Shared};
use crate::model::{Fetch, FetchFailure};

/// Real time after which a download is given up.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn client() -> Result<reqwest::Client, LabError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| LabError::Tls(Box::new(error)))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .timeout(TIMEOUT)
        .no_proxy()
        .build()
        .map_err(|error| LabError::Tls(Box::new(error)))
}

pub(super) async fn run(shared: Arc<Shared>, client: reqwest::Client, fetch: Fetch, stop: CancellationToken) {
    let download = async {
        let unreachable = |error: reqwest::Error| FetchFailure::Unreachable(error.without_url().to_string());
        let response = client.get(&fetch.url).send().await.map_err(unreachable)?;
        if !response.status().is_success() {
            return Err(FetchFailure::Status(response.status().as_u16()));
        }
        response.bytes().await.map_err(unreachable)
    };
    let result = tokio::select! {
        () = stop.cancelled() => return,
        result = download => result,
    };
    let now = shared.now();
    shared.site().fetched(&fetch, now, result);
}

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
