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

#[cfg(test)]
mod tests {
    use appliance_sdk::testing::{self, FakeGateway, Segment};

    use super::*;
    use crate::passthrough::Passthrough;

    const CLIENT: &str = "203.0.113.9:40000";
    const SERVER: &str = "10.0.1.11:80";

    fn packet() -> Vec<u8> {
        testing::tcp(CLIENT, SERVER, Segment::data(1, 1), b"x")
    }

    fn key() -> CanonicalKey {
        Inner::parse(&packet()).unwrap().flow_key().canonical()
    }

    fn owner(endpoint: u64) -> Owner {
        let mut emitter = None;
        FakeGateway::with_worker(|worker| {
            emitter = Some(Arc::new(worker.emitter()));
            Passthrough::default()
        });
        Owner { endpoint, emitter: emitter.unwrap() }
    }

    fn found(directory: &Directory, packet: &[u8]) -> Option<u64> {
        directory.owner(packet).map(|owner| owner.endpoint)
    }

    #[test]
    fn a_flow_is_found_by_both_directions_and_by_errors_about_it() {
        let directory = Arc::new(Directory::new(10));
        let place = directory.place(key(), owner(7));
        assert_eq!(found(&directory, &packet()), None);
        place.note();
        let answer = testing::tcp(SERVER, CLIENT, Segment::data(1, 1), b"y");
        let mut quoted = packet();
        quoted.truncate(28);
        let icmp = [&[11, 0, 0, 0, 0, 0, 0, 0][..], &quoted].concat();
        let error = testing::other("192.0.2.1", "203.0.113.9", 1, &icmp);
        let other = testing::tcp(CLIENT, "10.0.1.11:81", Segment::data(1, 1), b"x");
        assert_eq!(found(&directory, &packet()), Some(7));
        assert_eq!(found(&directory, &answer), Some(7));
        assert_eq!(found(&directory, &error), Some(7));
        assert_eq!(found(&directory, &other), None);
        assert_eq!(found(&directory, b"nonsense"), None);
    }

    #[test]
    fn the_latest_of_two_counts_and_takes_only_its_own_place_away() {
        let directory = Arc::new(Directory::new(10));
        let (first, second) = (directory.place(key(), owner(1)), directory.place(key(), owner(2)));
        first.note();
        second.note();
        assert_eq!(found(&directory, &packet()), Some(2));
        first.note();
        assert_eq!(found(&directory, &packet()), Some(1));
        drop(second);
        assert_eq!(found(&directory, &packet()), Some(1));
        drop(first);
        assert_eq!(found(&directory, &packet()), None);
    }

    #[test]
    fn a_full_directory_takes_no_more() {
        let directory = Arc::new(Directory::new(0));
        let place = directory.place(key(), owner(1));
        place.note();
        assert_eq!(found(&directory, &packet()), None);
    }
}
