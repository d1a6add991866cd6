//! Sealing: the events of a tree that no transaction can precede any more become its next leaves, and the new
//! head is signed.
//!
//! Whoever has the password of the API's database role can store checkpoints too, so each one is built on the newest
//! that our keys have signed; what was stored after that is passed over, and the trail and the log say so.

use rackhand_schema::{
    audit::Tree as Which,
    merkle::{Hash, Tree},
};
use serde::Deserialize;
use serde_json::json;

use super::{note, origin};
use crate::{
    auth::token::SigningKeys,
    problem::{Answer, Refusal},
    request::Call,
    statement,
};

statement!(DUE, "audit", "seal_due");
statement!(STORE, "audit", "seal_store");

/// Events under one checkpoint, at most.
const EVENTS: u32 = 10_000;

#[derive(Deserialize)]
struct Due {
    log: String,
    /// The number of the newest checkpoint; 0 if there is none.
    newest: u64,
    head: Option<Head>,
    cursor: Option<String>,
    leaves: Vec<String>,
}

/// A checkpoint as it was stored, by whomever.
#[derive(Deserialize)]
struct Head {
    number: u64,
    size: u64,
    frontier: Vec<String>,
    note: String,
}

impl Head {
    /// Its tree, if one of our keys has signed its size and root.
    fn tree(&self, origin: &str, keys: &SigningKeys) -> Option<Tree> {
        let frontier = self.frontier.iter().map(|text| hash(text)).collect::<Answer<_>>().ok()?;
        let tree = Tree::new(self.size, frontier)?;
        let text = checkpoint_text(origin, tree.size(), &tree.root());
        keys.checkpoint_keys().any(|key| note::is_signed(&self.note, &text, origin, key)).then_some(tree)
    }
}

/// What was found of a tree, and done.
pub struct Sealed {
    /// A checkpoint was signed. Not when there was nothing to seal, or somebody else was faster.
    pub made: bool,
    /// The number of the newest one that a key of ours has signed; 0 if there is none.
    pub verified: u64,
}

/// Signs the next checkpoint of a tree.
pub async fn next(call: &Call, which: Which) -> Answer<Sealed> {
    let keys = &call.host.keys;
    let mut below = None;
    let (due, after, mut tree) = loop {
        let due: Due = call.run(&DUE, &json!({"tree": which, "limit": EVENTS, "below": below})).await?;
        let Some(head) = &due.head else {
            if due.newest > 0 {
                return Err(Refusal::internal(format!(
                    "no checkpoint of the tree {which} is signed by a key of this control plane, so it is sealed no \
                     further. Name the former key in the key file: docs/deploy/database.md, Signing keys"
                )));
            }
            break (due, 0, Tree::default());
        };
        if let Some(tree) = head.tree(&origin(&due.log, which), keys) {
            let after = head.number;
            break (due, after, tree);
        }
        tracing::error!(
            tree = %which, number = head.number,
            "a checkpoint was stored that this control plane has not signed: change the database password"
        );
        below = Some(head.number);
    };
    let Some(cursor) = due.cursor else { return Ok(Sealed { made: false, verified: after }) };
    for leaf in &due.leaves {
        tree.push(hash(leaf)?);
    }
    let origin = origin(&due.log, which);
    let key = keys.checkpoints();
    let text = checkpoint_text(&origin, tree.size(), &tree.root());
    let frontier: Vec<_> = tree.frontier().iter().map(hex::encode).collect();
    let number = due.newest + 1;
    let args = json!({"tree": which, "number": number, "after": after, "cursor": cursor, "size": tree.size(),
        "root": hex::encode(tree.root()), "frontier": frontier, "note": note::sign(&text, &origin, key),
        "vkey": note::verifier_key(&origin, &key.verifying_key())});
    let made = call.run(&STORE, &args).await?;
    Ok(Sealed { made, verified: if made { number } else { after } })
}

/// C2SP tlog-checkpoint: origin, size and root, a line each.
fn checkpoint_text(origin: &str, size: u64, root: &Hash) -> String {
    format!("{origin}\n{size}\n{}\n", crate::auth::base64_encode(root))
}

fn hash(text: &str) -> Answer<Hash> {
    let mut hash = [0; 32];
    hex::decode_to_slice(text, &mut hash).map_err(|_| Refusal::internal("a hash that is not one"))?;
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_our_keys_have_signed_is_built_on() {
        let ours = SigningKeys::from_seed(&[7; 32]);
        let origin = origin("log", Which::Audit);
        let mut tree = Tree::default();
        (1..=3).for_each(|leaf| tree.push([leaf; 32]));
        let text = checkpoint_text(&origin, tree.size(), &tree.root());
        let signed = |name: &str, keys: &SigningKeys| note::sign(&text, name, keys.checkpoints());
        let head = |size, leaf: u8, note| {
            let mut frontier: Vec<_> = tree.frontier().iter().map(hex::encode).collect();
            if let Some(last) = frontier.last_mut() {
                *last = hex::encode([leaf; 32]);
            }
            Head { number: 1, size, frontier, note }
        };
        let known = |head: Head| head.tree(&origin, &ours).is_some();
        assert!(known(head(3, 3, signed(&origin, &ours))));
        assert!(!known(head(3, 3, text.clone())), "signed by no one");
        assert!(!known(head(3, 3, signed(&origin, &SigningKeys::from_seed(&[8; 32])))), "by someone else");
        assert!(!known(head(3, 4, signed(&origin, &ours))), "another root");
        assert!(!known(head(5, 3, signed(&origin, &ours))), "another size");
        assert!(!known(head(4, 3, signed(&origin, &ours))), "a frontier of another size");
        let other = super::origin("log", Which::Lines);
        assert!(!known(head(3, 3, signed(&other, &ours))), "the name of another tree");
        let replaced = SigningKeys::from_text(&format!("{}\n{}", "08".repeat(32), "07".repeat(32))).unwrap();
        assert!(head(3, 3, signed(&origin, &ours)).tree(&origin, &replaced).is_some(), "by a former key");
    }
}
