//! An RFC 6962 Merkle tree that only grows, kept as its frontier: the roots of the perfect trees it consists
//! of. Leaves and nodes are told apart by their first byte (§2.1), so that no inner node passes for a leaf.

use sha2::{Digest as _, Sha256};

pub type Hash = [u8; 32];

/// The first `size` leaves.
#[derive(Default)]
pub struct Tree {
    size: u64,
    /// The largest first: one for each bit that is set in `size`.
    frontier: Vec<Hash>,
}

impl Tree {
    /// `None` if so many leaves have another frontier.
    pub fn new(size: u64, frontier: Vec<Hash>) -> Option<Self> {
        (frontier.len() == size.count_ones() as usize).then_some(Self { size, frontier })
    }

    pub const fn size(&self) -> u64 {
        self.size
    }

    pub fn frontier(&self) -> &[Hash] {
        &self.frontier
    }

    /// Adds a leaf, by its [`leaf`] hash.
    pub fn push(&mut self, leaf: Hash) {
        let mut root = leaf;
        let mut full = self.size;
        // A perfect tree for each trailing one: they grow together, as a carry does.
        while full & 1 == 1 {
            let Some(left) = self.frontier.pop() else { break };
            root = node(&left, &root);
            full >>= 1;
        }
        self.frontier.push(root);
        self.size += 1;
    }

    /// The tree's root; the hash of nothing for no leaves.
    pub fn root(&self) -> Hash {
        let mut smaller = self.frontier.iter().rev();
        match smaller.next() {
            None => Sha256::digest([]).into(),
            Some(smallest) => smaller.fold(*smallest, |right, left| node(left, &right)),
        }
    }
}

/// The hash of a record as a leaf.
pub fn leaf(record: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(record).finalize().into()
}

fn node(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference trees of Certificate Transparency's own tests (google/certificate-transparency,
    /// merkletree/merkle_tree_test.cc): eight leaves, the roots of the first n.
    #[test]
    fn the_roots_are_those_of_certificate_transparency() {
        let leaves = [
            "",
            "00",
            "10",
            "2021",
            "3031",
            "40414243",
            "5051525354555657",
            "606162636465666768696a6b6c6d6e6f",
        ];
        let roots = [
            (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
            (2, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
            (3, "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
            (5, "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"),
            (8, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
        ];
        for (count, expected) in roots {
            let mut tree = Tree::new(0, Vec::new()).unwrap();
            for (index, leaf) in leaves.iter().take(count).enumerate() {
                let bytes = hex::decode(leaf).unwrap();
                tree.push(super::leaf(&bytes));
                // Each head is enough to go on from.
                tree = Tree::new(index as u64 + 1, tree.frontier().to_vec()).unwrap();
            }
            assert_eq!((hex::encode(tree.root()).as_str(), tree.size()), (expected, count as u64));
        }
        assert!(Tree::new(3, vec![[0; 32]]).is_none(), "three leaves are two perfect trees");
    }
}
