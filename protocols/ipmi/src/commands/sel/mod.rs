//! The System Event Log (sections 31 and 32): read, followed, cleared, and told in words.

pub mod commands;
pub mod entry;
pub mod follow;
pub mod text;

#[cfg(test)]
mod tests;

pub use commands::{GetSelAllocationInfo, GetSelInfo, SelAllocation, SelInfo};
pub use entry::{ByteUse, Content, Entry, Event};
pub use follow::{Follower, Log, clear, read};
pub use text::Text;
