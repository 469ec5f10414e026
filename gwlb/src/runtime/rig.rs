//! The devices and sockets of the workers, and what each is for in the present configuration.
//!
//! They are numbered for the life of the process. The devices stay as they were at the start; of
//! the sockets, a change of the configuration adds some and lets others go. A [`Rig`] says which
//! node and which attachment each number stands for now, and is published together with the
//! snapshot that it belongs to. Here is the bookkeeping; what is built is built by
//! [`super::rigging`].

use netio::tun::TunQueue;
use router::Attachment;

use super::underlay::Underlay;
use crate::dataplane::snapshot::PoolId;

/// What the numbered devices and sockets are for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rig {
    /// Counts up with every change.
    pub number: u64,
    /// By device: the attachment, as this configuration numbers it.
    pub ports: Vec<Attachment>,
    /// What has no device of its own, with the number of the one that it is reached through.
    pub through: Vec<(Attachment, usize)>,
    /// By pool: the sockets that send for it; `None` for a node that is gone.
    pub pools: Vec<Option<usize>>,
    /// The sockets that are of use, whether they send or only receive.
    pub underlays: Vec<usize>,
}

impl Rig {
    /// The sockets that send for a pool.
    pub fn underlay(&self, pool: PoolId) -> Option<usize> {
        self.pools.get(usize::from(pool.0)).copied().flatten()
    }

    /// Whether anybody needs these sockets.
    pub fn uses_underlay(&self, number: usize) -> bool {
        self.underlays.contains(&number)
    }
}

/// New devices and sockets for one worker.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// The number of the rig that needs them.
    pub rig: u64,
    /// All devices, in the order of their numbers: the first parts that a worker gets bring them.
    pub ports: Vec<TunQueue>,
    /// Each with its number.
    pub underlays: Vec<(usize, Underlay)>,
}
