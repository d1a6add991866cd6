//! A self-signed key and certificate per BMC, and a second pair for the "changed key" fault.
//!
//! Like a factory-fresh iDRAC's: the issuer is the subject, names match nothing a client asked for.

use std::sync::Arc;

use rcgen::{CertificateParams, DnType, KeyPair, PublicKeyData as _};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};

use super::LabError;

/// The usual TLS configuration of a BMC, and the one after its key changed.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) usual: Arc<ServerConfig>,
    pub(crate) changed: Arc<ServerConfig>,
    /// Of the usual key: lower-case hex SHA-256 of the SubjectPublicKeyInfo.
    pub(crate) spki_sha256: String,
}

impl Keys {
    pub(crate) fn generate(service_tag: &str) -> Result<Self, LabError> {
        let (usual, spki) = one(service_tag)?;
        let (changed, _) = one(service_tag)?;
        Ok(Self { usual, changed, spki_sha256: hex::encode(Sha256::digest(spki)) })
    }
}

/// A server configuration with a fresh key, and the key's SubjectPublicKeyInfo.
pub(crate) fn one(service_tag: &str) -> Result<(Arc<ServerConfig>, Vec<u8>), LabError> {
    let failed = |error: rcgen::Error| LabError::Tls(Box::new(error));
    let key = KeyPair::generate().map_err(failed)?;
    let mut params =
        CertificateParams::new(vec![format!("idrac-{}", service_tag.to_lowercase())]).map_err(failed)?;
    params.distinguished_name.push(DnType::CommonName, format!("idrac-{service_tag}"));
    params.distinguished_name.push(DnType::OrganizationName, "Dell Inc.");
    let certificate = params.self_signed(&key).map_err(failed)?;
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|error| LabError::Tls(Box::new(error)))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((Arc::new(config), key.subject_public_key_info()))
}
