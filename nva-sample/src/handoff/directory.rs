//! Who gets a packet that comes back from the device: which endpoint's flow, at which worker.

use std::collections::HashMap;
use std::sync::Arc;

use appliance_sdk::{Emitter, flows_of};
use geneve::flow::CanonicalKey;
use geneve::inner::Inner;
use parking_lot::Mutex;

/// The flows that packets were handed over of, of all workers.
pub(super) struct Directory {
    owners: Mutex<HashMap<CanonicalKey, Owner>>,
    limit: usize,
}

/// Whose a flow is.
#[derive(Clone)]
pub(super) struct Owner {
    pub(super) endpoint: u64,
    pub(super) emitter: Arc<Emitter>,
}

/// A flow's place in the directory, which is given up when this is dropped.
pub(super) struct Listed {
    directory: Arc<Directory>,
    key: CanonicalKey,
    owner: Owner,
}

impl Directory {
    /// A directory of at most so many flows.
    pub(super) fn new(limit: usize) -> Self {
        Self { owners: Mutex::new(HashMap::new()), limit }
    }

    /// A place for a flow; it takes effect with the first packet that is [noted](Self::note).
    pub(super) fn place(self: &Arc<Self>, key: CanonicalKey, owner: Owner) -> Listed {
        Listed { directory: Arc::clone(self), key, owner }
    }

    /// Whose a packet is that came back.
    pub(super) fn owner(&self, packet: &[u8]) -> Option<Owner> {
        let inner = Inner::parse(packet).ok()?;
        let owners = self.owners.lock();
        flows_of(&inner).find_map(|key| owners.get(&key).cloned())
    }
}

impl Listed {
    /// Notes that the flow was active: among flows with the same key, the latest counts. A full
    /// directory takes no new ones.
    pub(super) fn note(&self) {
        let mut owners = self.directory.owners.lock();
        let full = owners.len() >= self.directory.limit;
        match owners.get_mut(&self.key) {
            Some(owner) if owner.is(&self.owner) => {}
            Some(owner) => *owner = self.owner.clone(),
            None if full => {}
            None => {
                owners.insert(self.key, self.owner.clone());
            }
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut owners = self.directory.owners.lock();
        if owners.get(&self.key).is_some_and(|owner| owner.is(&self.owner)) {
            owners.remove(&self.key);
        }
    }
}

impl Owner {
    fn is(&self, other: &Self) -> bool {
        self.endpoint == other.endpoint && Arc::ptr_eq(&self.emitter, &other.emitter)
    }
}
