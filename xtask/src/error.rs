//! Failures of a task, in words for the person who typed it.

use std::{io, path::Path};

use thiserror::Error;

pub type Result<T, E = Failure> = std::result::Result<T, E>;

#[derive(Debug, Error)]
pub enum Failure {
    #[error("{context}: {source}")]
    Io { context: String, source: io::Error },
    /// Something on the machine is missing; the text says which command adds it.
    #[error("{0}")]
    Missing(String),
    #[error("{0}")]
    Other(String),
    /// Ctrl-C or another signal that ends us, by its number.
    #[error("interrupted")]
    Interrupted(u8),
}

impl Failure {
    pub fn io(context: impl Into<String>, source: io::Error) -> Self {
        Self::Io { context: context.into(), source }
    }

    pub fn at(verb: &str, path: &Path, source: io::Error) -> Self {
        Self::io(format!("cannot {verb} {}", path.display()), source)
    }

    /// What a shell expects: 128 and the signal's number when a signal ended us.
    pub fn exit_code(&self) -> u8 {
        if let Self::Interrupted(signal) = self { signal.saturating_add(128) } else { 1 }
    }
}
