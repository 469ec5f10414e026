//! Why nothing could be measured. A bar that is not reached is no error: it is a result.

use std::io;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The system refused something.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// What it answered.
        source: io::Error,
    },
    /// Privileges, or parts of the kernel, are missing.
    #[error("{0}")]
    NotPossible(String),
    /// What is measured did not do what it must, so that its figures would mean nothing.
    #[error("{0}")]
    Wrong(String),
    /// By Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

impl BenchError {
    /// An I/O error with what was being done: `cannot {what}: {error}`.
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
