//! Packets that an appliance sends at a time of its own choosing.

use std::fmt;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use netio::poll::Waker;

/// Sends packets of one worker's flows at any time, from any thread.
///
/// An appliance that hands packets to somebody else, and gets them back later, gives them back
/// through the emitter of the worker that it got them from
/// ([`Worker::emitter`](crate::Worker::emitter)).
#[derive(Clone)]
pub struct Emitter {
    queue: Arc<ArrayQueue<Emission>>,
    waker: Waker,
}

/// A packet on its way to the worker.
pub(crate) struct Emission {
    pub(crate) endpoint: u64,
    pub(crate) packet: Vec<u8>,
}

/// The worker's side.
pub(crate) type Emissions = Arc<ArrayQueue<Emission>>;

/// The packet was not taken.
#[derive(Debug, thiserror::Error)]
#[error("the worker has {QUEUE_LENGTH} packets waiting, the packet was not taken")]
pub struct EmitError {
    /// The packet.
    pub packet: Vec<u8>,
}

/// How many packets may wait for a worker: some ten super-packets' worth.
const QUEUE_LENGTH: usize = 512;

pub(super) fn channel(waker: Waker) -> (Emitter, Emissions) {
    let queue = Arc::new(ArrayQueue::new(QUEUE_LENGTH));
    (Emitter { queue: Arc::clone(&queue), waker }, queue)
}

impl Emitter {
    /// Gives the worker an inner packet to send, with the latest Geneve header of its flow behind
    /// `endpoint`. Without such a flow the worker drops it by name
    /// ([`EmitUnknownFlow`](crate::DropReason::EmitUnknownFlow)).
    ///
    /// # Errors
    /// [`EmitError`] gives the packet back if too many others wait.
    pub fn emit(&self, endpoint: u64, packet: Vec<u8>) -> Result<(), EmitError> {
        self.queue
            .push(Emission { endpoint, packet })
            .map_err(|Emission { packet, .. }| EmitError { packet })?;
        if let Err(error) = self.waker.wake() {
            // The packet waits for the next datagram to wake the worker.
            tracing::warn!(%error, "cannot wake a worker");
        }
        Ok(())
    }
}

impl fmt::Debug for Emitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emitter").field("waiting", &self.queue.len()).finish_non_exhaustive()
    }
}
