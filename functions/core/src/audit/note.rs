//! Signed notes and verifier keys as C2SP signed-note describes them, with Ed25519 keys (signature type
//! 0x01).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};

const ED25519: u8 = 1;

/// The key named `name` as those who verify write it: `<name>+<key id>+<type and public key>`.
pub fn verifier_key(name: &str, key: &VerifyingKey) -> String {
    let id = hex::encode(key_id(name, key));
    format!("{name}+{id}+{}", STANDARD.encode(typed(key)))
}

/// `text`, which ends with a line break, with the signature of the key named `name`.
pub fn sign(text: &str, name: &str, key: &SigningKey) -> String {
    let signature = key.sign(text.as_bytes()).to_bytes();
    let line = STANDARD.encode([key_id(name, &key.verifying_key()).as_slice(), &signature].concat());
    format!("{text}\n\u{2014} {name} {line}\n")
}

/// The public key in what [`verifier_key`] gave, under whatever name.
pub fn public_key(vkey: &str) -> Option<VerifyingKey> {
    let (name, rest) = vkey.split_once('+')?;
    let (_, typed) = rest.split_once('+')?;
    let typed = STANDARD.decode(typed).ok()?;
    let key = VerifyingKey::from_bytes(typed.strip_prefix(&[ED25519])?.try_into().ok()?).ok()?;
    (verifier_key(name, &key) == vkey).then_some(key)
}

/// Whether the note is `text` and one signature, that of the key named `name`.
pub fn is_signed(note: &str, text: &str, name: &str, key: &VerifyingKey) -> bool {
    let signature = || {
        let line =
            note.strip_prefix(text)?.strip_prefix("\n\u{2014} ")?.strip_prefix(name)?.strip_prefix(' ')?;
        let bytes = STANDARD.decode(line.strip_suffix('\n')?).ok()?;
        Signature::from_slice(bytes.strip_prefix(&key_id(name, key))?).ok()
    };
    signature().is_some_and(|signature| key.verify_strict(text.as_bytes(), &signature).is_ok())
}

/// The first four bytes of SHA-256 over name, line break, type and public key.
fn key_id(name: &str, key: &VerifyingKey) -> [u8; 4] {
    let hash = Sha256::new().chain_update(name).chain_update(b"\n").chain_update(typed(key)).finalize();
    let mut id = [0; 4];
    id.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    id
}

fn typed(key: &VerifyingKey) -> Vec<u8> {
    [&[ED25519], key.as_bytes().as_slice()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example in the documentation of Go's golang.org/x/mod/sumdb/note.
    #[test]
    fn notes_and_keys_are_those_of_go() {
        let secret = STANDARD.decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz").unwrap();
        let key = SigningKey::from_bytes(secret[1..].try_into().unwrap());
        let public = key.verifying_key();
        let vkey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        assert_eq!(verifier_key("PeterNeumann", &public), vkey);
        assert_eq!(public_key(vkey), Some(public));
        assert_eq!(public_key(&vkey.replace("c74f", "c74e")), None);
        let text = "If you think cryptography is the answer to your problem,\n\
            then you don't know what your problem is.\n";
        let signature =
            "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=";
        let note = format!("{text}\n\u{2014} PeterNeumann {signature}\n");
        assert_eq!(sign(text, "PeterNeumann", &key), note);
        assert!(is_signed(&note, text, "PeterNeumann", &public));
        for other in [
            "",
            "nobody",
            text,
            &note.replace("problem", "answer"),
            &format!("{note}\n"),
            &note.replace("x08go", "x08gp"),
            &note.replace("x08go/", "x08go+"),
        ] {
            assert!(!is_signed(other, text, "PeterNeumann", &public), "{other}");
        }
        assert!(!is_signed(&note, text, "PeterNeuman", &public));
        assert!(!is_signed(&note, text, "PeterNeumann", &SigningKey::from_bytes(&[1; 32]).verifying_key()));
    }
}
