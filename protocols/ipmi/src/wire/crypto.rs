//! Key exchange codes, session keys, integrity codes and AES-CBC (sections 13.28 to 13.33).
//!
//! Everything here serves both sides. Codes are compared in constant time; keys are wiped when dropped. What a session
//! uses for each packet (HMAC state, AES key schedules) is prepared once in [`Keys`].

use aes::{
    Aes128Dec, Aes128Enc,
    cipher::{Block, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit},
};
use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::{Malformed, wire::suite::Suite};

/// Initialisation vector of one encrypted payload.
pub type Iv = [u8; BLOCK];

/// Longest password and K_g, bytes (sections 22.30 and 22.25).
pub const KEY_MAX: usize = 20;

const BLOCK: usize = 16;
/// Additional keying material hashes 20 bytes of the same number, whatever the algorithm (section 13.32).
const CONSTANT: usize = 20;

/// Why a packet was not opened.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the integrity code is wrong")]
    Forged,
    #[error("protected, but there are no keys")]
    NoKeys,
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl OpenError {
    /// What the packet's own side got wrong; none for a packet that may come from anybody.
    pub fn into_malformed(self) -> Option<Malformed> {
        match self {
            Self::Malformed(malformed) => Some(malformed),
            Self::Forged | Self::NoKeys => None,
        }
    }
}

/// An HMAC result, possibly cut short; wiped when dropped.
#[derive(Clone)]
pub struct Code {
    bytes: [u8; 32],
    length: usize,
}

impl Code {
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// Compares in constant time; a different length is unequal.
    pub fn matches(&self, other: &[u8]) -> bool {
        bool::from(self.as_slice().ct_eq(other))
    }

    /// Whether `other` begins with this code, in constant time. Key exchange codes stand at the end of their messages,
    /// and some BMCs send RAKP 4's uncut, or fill up behind one: what proves something are the bytes that the
    /// specification counts (section 13.28.4), whatever follows them.
    pub fn leads(&self, other: &[u8]) -> bool {
        other.get(..self.as_slice().len()).is_some_and(|start| self.matches(start))
    }

    fn cut(mut self, length: usize) -> Self {
        self.length = self.length.min(length);
        self
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

/// HMAC state with its key already absorbed.
#[derive(Clone)]
enum Prepared {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
}

impl Prepared {
    /// For the authentication algorithm of `suite`; none for suite 0.
    fn new(suite: Suite, key: &[u8]) -> Option<Self> {
        // A key of any length is accepted, so that the error below does not happen.
        match suite {
            Suite::S0 => None,
            Suite::S1 | Suite::S2 | Suite::S3 => Hmac::new_from_slice(key).ok().map(Self::Sha1),
            Suite::S17 => Hmac::new_from_slice(key).ok().map(Self::Sha256),
        }
    }

    fn over(&self, parts: &[&[u8]]) -> Code {
        let mut bytes = [0; 32];
        let length = match self {
            Self::Sha1(hmac) => finish(hmac.clone(), parts, &mut bytes),
            Self::Sha256(hmac) => finish(hmac.clone(), parts, &mut bytes),
        };
        Code { bytes, length }
    }
}

fn finish<M: Mac>(mut mac: M, parts: &[&[u8]], out: &mut [u8; 32]) -> usize {
    for part in parts {
        mac.update(part);
    }
    let mut result = mac.finalize().into_bytes();
    for (place, byte) in out.iter_mut().zip(&result) {
        *place = *byte;
    }
    let length = result.len();
    result.zeroize();
    length
}

/// HMAC with the authentication algorithm of `suite`; empty for suite 0.
fn hmac(suite: Suite, key: &[u8], parts: &[&[u8]]) -> Code {
    Prepared::new(suite, key).map_or(Code { bytes: [0; 32], length: 0 }, |prepared| prepared.over(parts))
}

/// Bytes of the integrity check value in RAKP 4 (section 13.28.1).
fn check_length(suite: Suite) -> usize {
    match suite {
        Suite::S0 => 0,
        Suite::S1 | Suite::S2 | Suite::S3 => 12,
        Suite::S17 => 16,
    }
}

/// What both sides have said when a session opens: the input of every key exchange code.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    pub suite: Suite,
    pub console_session: u32,
    pub managed_session: u32,
    pub console_random: &'a [u8; 16],
    pub managed_random: &'a [u8; 16],
    pub guid: &'a [u8; 16],
    /// The role byte of RAKP 1, bit 4 included.
    pub role: u8,
    pub user: &'a [u8],
}

impl Exchange<'_> {
    /// The code of RAKP 2, by which the BMC proves that it knows the user's password (section 13.31).
    pub fn rakp2(&self, password: &[u8]) -> Code {
        let [role, length] = self.tail();
        hmac(
            self.suite,
            password,
            &[
                &self.console_session.to_le_bytes(),
                &self.managed_session.to_le_bytes(),
                self.console_random,
                self.managed_random,
                self.guid,
                &[role, length],
                self.user,
            ],
        )
    }

    /// The code of RAKP 3, by which the console proves the same.
    pub fn rakp3(&self, password: &[u8]) -> Code {
        let [role, length] = self.tail();
        let session = self.console_session.to_le_bytes();
        hmac(self.suite, password, &[self.managed_random, &session, &[role, length], self.user])
    }

    /// The session integrity key. It is made from the BMC's key `kg` where one is set, else from the password.
    pub fn session_key(&self, password: &[u8], kg: Option<&[u8]>) -> SessionKey {
        let key = kg.unwrap_or(password);
        let [role, length] = self.tail();
        let parts = [&self.console_random[..], self.managed_random, &[role, length], self.user];
        SessionKey { suite: self.suite, code: hmac(self.suite, key, &parts) }
    }

    /// The integrity check value of RAKP 4.
    pub fn rakp4(&self, key: &SessionKey) -> Code {
        let session = self.managed_session.to_le_bytes();
        let parts = [&self.console_random[..], &session, self.guid];
        hmac(self.suite, key.code.as_slice(), &parts).cut(check_length(self.suite))
    }

    fn tail(&self) -> [u8; 2] {
        [self.role, u8::try_from(self.user.len()).unwrap_or(u8::MAX)]
    }
}

/// The session integrity key (SIK), root of a session's keys.
#[derive(Clone)]
pub struct SessionKey {
    suite: Suite,
    code: Code,
}

impl SessionKey {
    #[cfg(test)]
    pub(super) fn bytes(&self) -> &[u8] {
        self.code.as_slice()
    }

    /// Additional keying material: K1 for `number` 1, K2 for 2 (section 13.32).
    pub(super) fn derive(&self, number: u8) -> Code {
        hmac(self.suite, self.code.as_slice(), &[&[number; CONSTANT]])
    }
}

/// A session's working keys. Cheap to use for each packet: nothing is scheduled again.
pub struct Keys {
    suite: Suite,
    integrity: Option<Prepared>,
    aes: Option<(Aes128Enc, Aes128Dec)>,
}

impl Keys {
    pub fn new(key: &SessionKey) -> Self {
        let suite = key.suite;
        let integrity =
            suite.authenticates().then(|| Prepared::new(suite, key.derive(1).as_slice())).flatten();
        let k2 = key.derive(2);
        // AES uses the first sixteen bytes of K2 (section 13.29).
        let schedule = || {
            let short = Zeroizing::new(*k2.as_slice().first_chunk::<BLOCK>()?);
            Some((Aes128Enc::new((&*short).into()), Aes128Dec::new((&*short).into())))
        };
        let aes = if suite.encrypts() { schedule() } else { None };
        Self { suite, integrity, aes }
    }

    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Bytes of an integrity code: 12 for HMAC-SHA1-96, 16 for HMAC-SHA256-128 (section 13.28.4).
    pub fn integrity_length(&self) -> usize {
        match self.integrity {
            None => 0,
            Some(Prepared::Sha1(_)) => 12,
            Some(Prepared::Sha256(_)) => 16,
        }
    }

    /// The integrity code over `signed`: the packet from authentication type to next header.
    pub fn integrity(&self, signed: &[u8]) -> Code {
        let code = self.integrity.as_ref().map(|prepared| prepared.over(&[signed]));
        code.unwrap_or(Code { bytes: [0; 32], length: 0 }).cut(self.integrity_length())
    }

    /// Checks in constant time. A suite without integrity verifies nothing and so refuses.
    pub fn verify(&self, signed: &[u8], code: &[u8]) -> bool {
        self.integrity.is_some() && self.integrity(signed).matches(code)
    }

    /// Splits a packet into what is signed and its code; none when it is too short.
    pub(crate) fn split_integrity<'a>(&self, packet: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        packet.split_at_checked(packet.len().checked_sub(self.integrity_length())?)
    }

    /// Appends IV, encrypted payload and padding of 1, 2, 3 … with its length (table 13-20). A suite without
    /// encryption appends the payload as it is.
    pub fn encrypt(&self, payload: &[u8], iv: &Iv, out: &mut Vec<u8>) {
        let Some((encrypt, _)) = &self.aes else {
            out.extend_from_slice(payload);
            return;
        };
        out.extend_from_slice(iv);
        let start = out.len();
        out.extend_from_slice(payload);
        let padding = (payload.len() + 1).wrapping_neg() % BLOCK;
        out.extend((1_u8..).take(padding));
        out.push(u8::try_from(padding).unwrap_or_default());
        let (blocks, _) = Block::<Aes128Enc>::slice_as_chunks_mut(out.get_mut(start..).unwrap_or_default());
        cbc::Encryptor::<&Aes128Enc>::inner_iv_init(encrypt, iv.into()).encrypt_blocks(blocks);
    }

    /// Decrypts in place what [`encrypt`](Self::encrypt) makes. The padding is checked strictly; call this only
    /// after the integrity code was verified, so that no oracle opens.
    pub fn decrypt<'a>(&self, payload: &'a mut [u8]) -> Result<&'a [u8], Malformed> {
        let malformed = |why| Malformed { what: "encrypted payload", why };
        let Some((_, decrypt)) = &self.aes else {
            return Err(malformed("the suite does not encrypt"));
        };
        let Some((iv, body)) = payload.split_first_chunk_mut::<BLOCK>() else {
            return Err(malformed("too short"));
        };
        let (blocks, rest) = Block::<Aes128Dec>::slice_as_chunks_mut(body);
        if blocks.is_empty() || !rest.is_empty() {
            return Err(malformed("not whole blocks"));
        }
        cbc::Decryptor::<&Aes128Dec>::inner_iv_init(decrypt, (&*iv).into()).decrypt_blocks(blocks);
        let body: &'a [u8] = body;
        let Some((&length, body)) = body.split_last() else {
            return Err(malformed("too short"));
        };
        let split = body.len().checked_sub(usize::from(length)).ok_or(malformed("wrong padding"))?;
        let Some((plain, padding)) = body.split_at_checked(split) else {
            return Err(malformed("wrong padding"));
        };
        // Some BMCs pad up to a whole block more than they must; the pattern has to be right all the same.
        if padding.len() > BLOCK || !padding.iter().copied().eq((1_u8..).take(padding.len())) {
            return Err(malformed("wrong padding"));
        }
        Ok(plain)
    }
}
