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
        // The handler is in place before anything is shown. Without one Ctrl-C ends the program as
        // it always does.
        biased;
        Ok(()) = tokio::signal::ctrl_c() => Err(Interrupted),
        given = future => Ok(given),
    }
}
