//! Threads beside the appliance's own: writers and readers that no packet waits for, and that need
//! no privilege for what they do.

use std::io;
use std::thread::{Builder, JoinHandle};

use netio::process::privileges;

/// Starts a thread that gives up its privileges before anything else. If it cannot, it says so and
/// ends.
///
/// # Errors
/// If the system refuses a thread.
pub(crate) fn spawn(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).spawn(|| match privileges::give_up() {
        Ok(_) => work(),
        Err(error) => tracing::error!(%error, "a thread keeps its privileges, and so it ends"),
    })
}
