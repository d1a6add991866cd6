//! Whether a checkpoint is signed: C2SP signed-note and tlog-checkpoint, with the keys in the folder.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signature, VerifyingKey};
use rackhand_schema::audit::{Checkpoint, PublicKeys, Tree};

/// The keys of one tree.
pub struct Signers {
    origin: String,
    /// Id and key.
    keys: Vec<([u8; 4], VerifyingKey)>,
}

impl Signers {
    pub fn of(published: &PublicKeys, tree: Tree) -> Self {
        let origin = format!("rackhand/{}/{tree}", published.log);
        let keys = published.checkpoints.iter().filter_map(|key| parse(&key.vkey, &origin)).collect();
        Self { origin, keys }
    }

    /// Whether one of the keys has signed the size and root of this checkpoint.
    pub fn signed(&self, checkpoint: &Checkpoint) -> bool {
        let signature = || {
            let root = STANDARD.encode(hex::decode(&checkpoint.root).ok()?);
            let text = format!("{}\n{}\n{root}\n", self.origin, checkpoint.size);
            let line = checkpoint.note.strip_prefix(&text)?.strip_prefix("\n\u{2014} ")?;
            let line = line.strip_prefix(&self.origin)?.strip_prefix(' ')?.strip_suffix('\n')?;
            Some((text, STANDARD.decode(line).ok()?))
        };
        let Some((text, bytes)) = signature() else { return false };
        self.keys.iter().any(|(id, key)| {
            let signature = bytes.strip_prefix(id).and_then(|bytes| Signature::from_slice(bytes).ok());
            signature.is_some_and(|signature| key.verify_strict(text.as_bytes(), &signature).is_ok())
        })
    }
}

/// `<origin>+<key id>+<1 and the Ed25519 key>`.
fn parse(vkey: &str, origin: &str) -> Option<([u8; 4], VerifyingKey)> {
    let (id, key) = vkey.strip_prefix(origin)?.strip_prefix('+')?.split_once('+')?;
    let id = hex::decode(id).ok()?.try_into().ok()?;
    let key = STANDARD.decode(key).ok()?;
    Some((id, VerifyingKey::from_bytes(key.strip_prefix(&[1])?.try_into().ok()?).ok()?))
}
