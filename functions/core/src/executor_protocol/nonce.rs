//! Nonces that need no storage: time and randomness under our own signature. That one was used is only written down
//! once somebody has signed it with the executor's key.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rackhand_schema::id::ExecutorId;

use super::NONCE_TTL;
use crate::auth::token::SigningKeys;

/// Unix seconds, big-endian; randomness; Ed25519.
const LENGTHS: (usize, usize, usize) = (8, 16, 64);

/// `now` in Unix seconds.
pub fn issue(keys: &SigningKeys, executor: ExecutorId, now: u64, random: [u8; LENGTHS.1]) -> String {
    let time = now.to_be_bytes();
    let signature = keys.sign_bytes(&message(executor, &time, &random));
    URL_SAFE_NO_PAD.encode([time.as_slice(), &random, &signature].concat())
}

/// Whether `nonce` was issued for `executor` within [`NONCE_TTL`] of `now`.
pub fn is_ours(keys: &SigningKeys, executor: ExecutorId, now: u64, nonce: &str) -> bool {
    let fits = || {
        let bytes = URL_SAFE_NO_PAD.decode(nonce).ok()?;
        let (time, rest) = bytes.split_first_chunk::<{ LENGTHS.0 }>()?;
        let (random, signature) = rest.split_first_chunk::<{ LENGTHS.1 }>()?;
        let signature = <&[u8; LENGTHS.2]>::try_from(signature).ok()?;
        let age = now.abs_diff(u64::from_be_bytes(*time));
        Some(age <= NONCE_TTL && keys.signed(&message(executor, time, random), signature))
    };
    fits().unwrap_or(false)
}

fn message(executor: ExecutorId, time: &[u8; LENGTHS.0], random: &[u8; LENGTHS.1]) -> Vec<u8> {
    [format!("rackhand executor nonce v1\n{executor}\n").as_bytes(), time, random].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_for_one_executor_one_minute_and_under_our_key() {
        let keys = SigningKeys::from_seed(&[1; 32]);
        let one: ExecutorId = "01920000-0000-7000-8000-000000000001".parse().unwrap();
        let two: ExecutorId = "01920000-0000-7000-8000-000000000002".parse().unwrap();
        let nonce = issue(&keys, one, 1000, [7; 16]);
        for now in [940, 1000, 1060] {
            assert!(is_ours(&keys, one, now, &nonce), "at {now}");
        }
        assert!(!is_ours(&keys, one, 1061, &nonce) && !is_ours(&keys, one, 939, &nonce));
        assert!(!is_ours(&keys, two, 1000, &nonce));
        assert!(!is_ours(&SigningKeys::from_seed(&[2; 32]), one, 1000, &nonce));
        for broken in ["", "!", "AAAA", &nonce[1..], &format!("{nonce}AAAA")] {
            assert!(!is_ours(&keys, one, 1000, broken), "{broken}");
        }
    }
}
