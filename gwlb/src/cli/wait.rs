//! Waiting for what a gateway does by itself.

use std::time::Duration;

/// How often a gateway is asked how far it is.
pub(super) const POLL: Duration = Duration::from_millis(200);

/// Ctrl-C.
#[derive(Debug)]
pub(super) struct Interrupted;

/// What `future` gives, unless there is a Ctrl-C before.
pub(super) async fn interruptible<T>(future: impl Future<Output = T>) -> Result<T, Interrupted> {
    tokio::select! {
        given = future => Ok(given),
        // Without the signal's handler Ctrl-C ends the program as it always does.
        Ok(()) = tokio::signal::ctrl_c() => Err(Interrupted),
    }
}
