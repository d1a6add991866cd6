//! TLS to Postgres by rustls: the certificate and its name are verified, by the authorities of this machine or of
//! a file. The login is bound to that certificate where the server offers it (SCRAM-SHA-256-PLUS).

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier, client::WantsClientCert};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::{TlsConnector, client};

#[derive(Debug, thiserror::Error)]
pub enum PgTlsError {
    #[error("the certificate authorities")]
    Rustls(#[from] rustls::Error),
    #[error("the file of certificate authorities is not PEM")]
    Pem(#[from] rustls_pki_types::pem::Error),
    #[error("the file of certificate authorities has none in it")]
    NoAuthority,
}

/// Makes TLS connections to Postgres.
#[derive(Clone)]
pub struct PgTls {
    config: Arc<ClientConfig>,
}

impl PgTls {
    /// By the authorities that this machine believes.
    pub fn of_this_machine() -> Result<Self, PgTlsError> {
        Self::by(|builder| Ok(builder.with_platform_verifier()?))
    }

    /// By these authorities alone, PEM.
    pub fn signed_by(pem: &[u8]) -> Result<Self, PgTlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            roots.add(certificate?)?;
        }
        if roots.is_empty() {
            return Err(PgTlsError::NoAuthority);
        }
        Self::by(|builder| Ok(builder.with_root_certificates(roots)))
    }

    fn by(
        verifier: impl FnOnce(
            ConfigBuilder<ClientConfig, WantsVerifier>,
        ) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, PgTlsError>,
    ) -> Result<Self, PgTlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        Ok(Self { config: Arc::new(verifier(builder)?.with_no_client_auth()) })
    }
}

impl<S> MakeTlsConnect<S> for PgTls
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = PgStream<S>;
    type TlsConnect = PgConnect;
    type Error = io::Error;

    fn make_tls_connect(&mut self, domain: &str) -> Result<PgConnect, io::Error> {
        // With a Unix socket there is no name, and TLS is never asked for.
        let name = ServerName::try_from(domain.to_owned()).ok();
        Ok(PgConnect { connector: TlsConnector::from(Arc::clone(&self.config)), name })
    }
}

pub struct PgConnect {
    connector: TlsConnector,
    name: Option<ServerName<'static>>,
}

impl<S> TlsConnect<S> for PgConnect
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = PgStream<S>;
    type Error = io::Error;
    type Future = BoxFuture<'static, Result<PgStream<S>, io::Error>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let name = self.name.ok_or_else(|| io::Error::other("no host name to verify the database by"))?;
            Ok(PgStream(self.connector.connect(name, stream).await?))
        })
    }
}

pub struct PgStream<S>(client::TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for PgStream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        let (_, session) = self.0.get_ref();
        let end_point = session.peer_certificates().and_then(<[_]>::first).and_then(|own| end_point(own));
        end_point.map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for PgStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for PgStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// `tls-server-end-point` (RFC 5929 §4.1): the hash of the certificate, by the hash function of its signature, but
/// SHA-256 for MD5 and SHA-1. None where the signature names no single one (Ed25519, RSASSA-PSS).
fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    use sha2::{Digest as _, Sha256, Sha384, Sha512};
    // The last byte of 1.2.840.113549.1.1.* (RFC 8017 appendix A.2.4) and 1.2.840.10045.4.3.* (RFC 5758 §3.2).
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
    const ECDSA_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01];
    let algorithm = signature_algorithm(certificate)?;
    let hash = |bits: u16| match bits {
        256 => Sha256::digest(certificate).to_vec(),
        384 => Sha384::digest(certificate).to_vec(),
        _ => Sha512::digest(certificate).to_vec(),
    };
    if algorithm == ECDSA_SHA1 {
        return Some(hash(256));
    }
    let (which, family) = algorithm.split_last()?;
    match (family, which) {
        (RSA, 4 | 5 | 11) | (ECDSA, 2) => Some(hash(256)),
        (RSA, 12) | (ECDSA, 3) => Some(hash(384)),
        (RSA, 13) | (ECDSA, 4) => Some(hash(512)),
        _ => None,
    }
}

/// The object identifier in `Certificate.signatureAlgorithm` (RFC 5280 §4.1), DER without tag and length.
fn signature_algorithm(certificate: &[u8]) -> Option<&[u8]> {
    const SEQUENCE: u8 = 0x30;
    const OBJECT_IDENTIFIER: u8 = 0x06;
    let (certificate, _) = element(SEQUENCE, certificate)?;
    let (_, rest) = element(SEQUENCE, certificate)?;
    let (algorithm, _) = element(SEQUENCE, rest)?;
    Some(element(OBJECT_IDENTIFIER, algorithm)?.0)
}

/// The content of a DER element of this tag at the beginning, and what follows it (X.690 §8.1.3).
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = der.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        let length =
            length.iter().try_fold(0_usize, |sum, byte| sum.checked_mul(256)?.checked_add((*byte).into()));
        (length?, rest)
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_is_none_has_no_end_point() {
        for bad in
            [&b""[..], &[0x30], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], &[0x30, 0xff], &[0x30, 2, 0x30, 0]]
        {
            assert_eq!(end_point(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_signature_says_which_hash() {
        let certificate = |oid: &[u8]| {
            let algorithm = [&[0x06, u8::try_from(oid.len()).unwrap()], oid].concat();
            let algorithm = [&[0x30, u8::try_from(algorithm.len()).unwrap()], algorithm.as_slice()].concat();
            let inside = [&[0x30, 0x81, 0x01, 0x00], algorithm.as_slice()].concat();
            [&[0x30, u8::try_from(inside.len()).unwrap()], inside.as_slice()].concat()
        };
        for (oid, length) in [
            (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b][..], Some(32)),
            (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d], Some(64)),
            (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03], Some(48)),
            (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01], Some(32)),
            // Ed25519.
            (&[0x2b, 0x65, 0x70], None),
        ] {
            assert_eq!(end_point(&certificate(oid)).map(|hash| hash.len()), length, "{oid:x?}");
        }
    }
}
