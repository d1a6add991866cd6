//! TLS to BMCs: trust by the fingerprint of the public key.
//!
//! BMC certificates are self-signed, expired, issued for another name, X.509 v1, or a CA used as a leaf; a normal
//! verifier refuses them all, and "insecure" flags accept anybody. Here nothing about the certificate counts except
//! its `SubjectPublicKeyInfo`: its SHA-256 is the pin, and the handshake signature proves that the peer holds the
//! key. The key is found by a bounded DER walk of our own, because certificate parsers refuse v1.
//!
//! Fails with [`PinMismatch`] when the key is another one than the pinned one: a replaced certificate or a man in
//! the middle, which only a person can tell apart. RSA keys under 2048 bits, TLS 1.0 and 1.1 are not supported.

use std::{
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    CertificateError, DigitallySignedStruct, OtherError, PeerMisbehaved, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, ring},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// SHA-256 of a `SubjectPublicKeyInfo` in DER; shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// As BMCs and browsers show that of a certificate: `AB:CD:…`.
    pub fn in_pairs(&self) -> String {
        self.0.map(|byte| format!("{byte:02X}")).join(":")
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = hex::FromHexError;

    /// Reads 64 hexadecimal digits of any case; colons between bytes are ignored.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text.trim().replace(':', ""), &mut bytes)?;
        Ok(Self(bytes))
    }
}

/// Whom to trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsTrust {
    /// Only the holder of this key.
    Pinned([u8; 32]),
    /// Whoever answers first; from then on, for the life of the transport, only the holder of that key.
    FirstUse,
}

/// The peer proved another key than the expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected the TLS key {expected}, found {found}")]
pub struct PinMismatch {
    /// The pinned fingerprint.
    pub expected: Fingerprint,
    /// The fingerprint that was shown.
    pub found: Fingerprint,
}

/// The certificate holds no public key where X.509 has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate holds no readable public key")]
struct NoPublicKey;

/// Accepts the holder of the pinned key and nobody else.
#[derive(Debug)]
pub(crate) struct SpkiPin {
    /// `None`: first use, not yet used.
    pin: Mutex<Option<Fingerprint>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl SpkiPin {
    pub fn new(trust: TlsTrust) -> Arc<Self> {
        let pin = match trust {
            TlsTrust::Pinned(pin) => Some(Fingerprint(pin)),
            TlsTrust::FirstUse => None,
        };
        let algorithms = ring::default_provider().signature_verification_algorithms;
        Arc::new(Self { pin: Mutex::new(pin), algorithms })
    }

    pub fn pin(&self) -> Option<Fingerprint> {
        *self.pin.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the pin of a finished handshake when there is none yet; otherwise compares.
    fn settle(&self, found: Fingerprint) -> Result<(), PinMismatch> {
        let mut pin = self.pin.lock().unwrap_or_else(PoisonError::into_inner);
        match *pin {
            Some(expected) if bool::from(expected.0.ct_eq(&found.0)) => Ok(()),
            Some(expected) => Err(PinMismatch { expected, found }),
            None => {
                *pin = Some(found);
                Ok(())
            }
        }
    }

    /// Verifies `signature` over `message` with the certificate's key. First use settles only here: a key counts
    /// as seen when its holder has signed this handshake.
    fn verify(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
        tls13: bool,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let spki = subject_public_key_info(certificate).ok_or_else(no_public_key)?;
        let (algorithm, key) = algorithm_and_key(spki).ok_or_else(no_public_key)?;
        let candidates = self.algorithms.mapping.iter().find(|(scheme, _)| *scheme == signed.scheme);
        let (_, candidates) = candidates.ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        // TLS 1.3 binds a curve to its scheme, which the first candidate has; 1.2 does not.
        let candidates = if tls13 { candidates.get(..1).unwrap_or_default() } else { candidates };
        let valid = candidates.iter().any(|candidate| {
            candidate.public_key_alg_id().as_ref() == algorithm
                && candidate.verify_signature(key, message, signed.signature()).is_ok()
        });
        if !valid {
            return Err(CertificateError::BadSignature.into());
        }
        self.settle(fingerprint(spki)).map_err(|mismatch| other(Arc::new(mismatch)))?;
        Ok(HandshakeSignatureValid::assertion())
    }
}

impl ServerCertVerifier for SpkiPin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = fingerprint(subject_public_key_info(end_entity).ok_or_else(no_public_key)?);
        match self.pin() {
            Some(expected) if !bool::from(expected.0.ct_eq(&found.0)) => {
                Err(other(Arc::new(PinMismatch { expected, found })))
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify(message, certificate, signed, false)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // PKCS#1 v1.5 and SHA-1 are not allowed for TLS 1.3 handshakes (RFC 8446 §4.2.3).
        let allowed = matches!(
            signed.scheme,
            SignatureScheme::ECDSA_NISTP256_SHA256
                | SignatureScheme::ECDSA_NISTP384_SHA384
                | SignatureScheme::ECDSA_NISTP521_SHA512
                | SignatureScheme::RSA_PSS_SHA256
                | SignatureScheme::RSA_PSS_SHA384
                | SignatureScheme::RSA_PSS_SHA512
                | SignatureScheme::ED25519
        );
        if !allowed {
            return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        self.verify(message, certificate, signed, true)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn other(error: Arc<dyn std::error::Error + Send + Sync>) -> rustls::Error {
    CertificateError::Other(OtherError(error)).into()
}

fn no_public_key() -> rustls::Error {
    other(Arc::new(NoPublicKey))
}

/// The mismatch behind a TLS error, if that is what it is.
pub(crate) fn mismatch_in(error: &rustls::Error) -> Option<PinMismatch> {
    let rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(error))) = error else {
        return None;
    };
    error.downcast_ref::<PinMismatch>().copied()
}

/// Why TLS failed. Whoever shows it says what can be done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFailure {
    /// In plain words.
    pub why: String,
    /// Its certificate may be from a CA that is not trusted: then trusting another one may help.
    pub trust: bool,
}

/// Why TLS failed, when an error comes from TLS.
#[must_use]
pub fn tls_failure(error: &(dyn std::error::Error + 'static)) -> Option<TlsFailure> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(TlsFailure { why: in_words(tls), trust: is_about_trust(tls) });
        }
        // An I/O error does not name what it wraps as its source.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(failure) = wrapped.and_then(|wrapped| tls_failure(wrapped)) {
            return Some(failure);
        }
        next = error.source();
    }
    None
}

/// No CA makes another name, another day or another protocol of it.
fn is_about_trust(error: &rustls::Error) -> bool {
    use CertificateError as Of;
    let rustls::Error::InvalidCertificate(certificate) = error else { return false };
    !matches!(
        certificate,
        Of::Expired
            | Of::ExpiredContext { .. }
            | Of::NotValidYet
            | Of::NotValidYetContext { .. }
            | Of::NotValidForName
            | Of::NotValidForNameContext { .. }
    )
}

pub(crate) fn in_words(error: &rustls::Error) -> String {
    let certificate = match error {
        rustls::Error::InvalidCertificate(certificate) => certificate,
        // What a server without TLS answers is not a TLS record.
        rustls::Error::InvalidMessage(_) => {
            return format!("no TLS is spoken there: {error}; compare the port");
        }
        _ => return format!("TLS failed: {error}"),
    };
    let words = match certificate {
        CertificateError::UnknownIssuer => "its certificate is from a CA that is not trusted here",
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "its certificate has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet; compare the clocks"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for another name than the one in the address"
        }
        // webpki's error, which rustls does not have as its own.
        other if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "its certificate is marked as a CA's own, which a server cannot use: make one with basicConstraints CA:FALSE"
        }
        other => return format!("its certificate is not accepted: {other}"),
    };
    words.to_owned()
}

/// TLS 1.2 and 1.3 with the given trust. Sessions are not resumed: every connection proves the key.
pub(crate) fn client_config(pin: Arc<SpkiPin>) -> Result<rustls::ClientConfig, rustls::Error> {
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(pin)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn fingerprint(spki: &[u8]) -> Fingerprint {
    Fingerprint(Sha256::digest(spki).into())
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;
/// `[0] EXPLICIT Version`, absent in version 1 certificates.
const VERSION: u8 = 0xa0;

/// The whole `SubjectPublicKeyInfo` of a certificate of any version (RFC 5280 §4.1).
fn subject_public_key_info(certificate: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (to_be_signed, _) = element(certificate.content, SEQUENCE)?;
    let mut rest = to_be_signed.content;
    if rest.first() == Some(&VERSION) {
        rest = element(rest, VERSION)?.1;
    }
    // serial number, signature algorithm, issuer, validity, subject
    for tag in [INTEGER, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE] {
        rest = element(rest, tag)?.1;
    }
    Some(element(rest, SEQUENCE)?.0.whole)
}

/// The content of the `AlgorithmIdentifier` and the bits of the key.
fn algorithm_and_key(spki: &[u8]) -> Option<(&[u8], &[u8])> {
    let (spki, _) = element(spki, SEQUENCE)?;
    let (algorithm, rest) = element(spki.content, SEQUENCE)?;
    let (bits, _) = element(rest, BIT_STRING)?;
    let (unused_bits, key) = bits.content.split_first()?;
    (*unused_bits == 0).then_some((algorithm.content, key))
}

struct Element<'a> {
    whole: &'a [u8],
    content: &'a [u8],
}

/// Splits one DER element with this tag off `input`. Lengths of up to three bytes; no recursion, no allocation.
fn element(input: &[u8], tag: u8) -> Option<(Element<'_>, &[u8])> {
    let (&first, after_tag) = input.split_first()?;
    if first != tag {
        return None;
    }
    let (&short, after_length) = after_tag.split_first()?;
    let (length, content) = match short {
        0..=0x7f => (usize::from(short), after_length),
        0x81..=0x83 => {
            let (bytes, content) = after_length.split_at_checked(usize::from(short & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), content)
        }
        _ => return None,
    };
    let (content, rest) = content.split_at_checked(length)?;
    let (whole, _) = input.split_at_checked(input.len() - rest.len())?;
    Some((Element { whole, content }, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Who typed the wrong port is not sent to look for a CA.
    #[test]
    fn trust_is_only_spoken_of_where_it_helps() {
        let failure = |error: rustls::Error| tls_failure(&error).unwrap();
        let plain = failure(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType));
        assert!(plain.why.starts_with("no TLS is spoken there") && !plain.trust, "{plain:?}");
        assert!(failure(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)).trust);
        assert!(!failure(rustls::Error::InvalidCertificate(CertificateError::Expired)).trust);
    }

    #[test]
    fn fingerprints_read_what_they_print() {
        let pin = Fingerprint([0xab; 32]);
        assert_eq!(pin.to_string().parse(), Ok(pin));
        assert_eq!(["AB"; 32].join(":").parse(), Ok(pin));
        assert!("abcd".parse::<Fingerprint>().is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Some(spki) = subject_public_key_info(&bytes) {
                let _ = algorithm_and_key(spki);
            }
        }

        #[test]
        fn damaged_certificates_are_walked_without_panic(at in 0usize..300, to in any::<u8>(), cut in 0usize..400) {
            let key = rcgen::KeyPair::generate().unwrap();
            let made = rcgen::CertificateParams::new(vec!["a".into()]).unwrap().self_signed(&key).unwrap();
            let mut der = made.der().to_vec();
            if let Some(byte) = der.get_mut(at) {
                *byte = to;
            }
            der.truncate(cut);
            if let Some(spki) = subject_public_key_info(&der) {
                let _ = algorithm_and_key(spki);
            }
        }
    }
}
