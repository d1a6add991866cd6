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
    #[error("interrupted")]
    Interrupted,
}

impl Failure {
    pub fn io(context: impl Into<String>, source: io::Error) -> Self {
        Self::Io { context: context.into(), source }
    }

    pub fn at(verb: &str, path: &Path, source: io::Error) -> Self {
        Self::io(format!("cannot {verb} {}", path.display()), source)
    }

    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::Interrupted) { 130 } else { 1 }
    }
}
