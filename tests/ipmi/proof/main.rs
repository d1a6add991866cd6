//! The proof of the IPMI client: each module against peers that nobody here wrote.

mod harness;
