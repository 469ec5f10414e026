//! Why the lab could not be built or run. A check that fails is no error: it is a result.

use std::io;
use std::process::ExitStatus;

use netio::link::LinkError;
use netio::netns::NetnsError;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LabError {
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("cannot {what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("{name} ended ({status}) while it was needed; its last words:\n{log}")]
    Ended { name: String, status: ExitStatus, log: String },
    #[error("{name} is not ready after {seconds} s: {why}; its last words:\n{log}")]
    NotReady { name: String, seconds: u64, why: String, log: String },
    #[error("{whom} gave no statistics: {why}")]
    Statistics { whom: String, why: String },
    #[error("interrupted")]
    Interrupted,
}

impl LabError {
    /// An I/O error with what was being done: `cannot {what}: {error}`.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
