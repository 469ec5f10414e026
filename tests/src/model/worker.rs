//! What the model remembers of one worker: the view that it holds, what is on its way to it and
//! out of it, and how often it may do what it may not do too often.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use gwlb::dataplane::snapshot::{Fate, Pool, TargetSlot};
use gwlb::dataplane::verdict::{Origin, ReplyCause, Side};
use router::{AddressMapping, Attachment};

use super::bucket::Bucket;
use super::view::View;
use super::wire::Numbers;

/// A worker, as far as it makes a difference which one it is.
#[derive(Debug)]
pub(super) struct Worker {
    pub view: Option<Arc<View>>,
    /// New flows; absent: as many as come.
    admission: Option<Bucket>,
    per_second: u32,
    /// By endpoint: until when there may be TCP flows that were not taken in.
    pub overloaded: BTreeMap<u64, Duration>,
    pub errors: Bucket,
    pub resets: Bucket,
    /// Whether flows have lost their target that are to be reset at both ends.
    pub sweeps: bool,
    /// Whether the last words of ends are kept.
    pub keeps_words: bool,
    /// What came in through an attachment that translates addresses, and which.
    pub entered: Option<(Attachment, Vec<u8>)>,
    /// Whether what a device said of the packet that was judged last cannot be.
    pub contradictory: bool,
    /// What others have handed over.
    pub inbox: VecDeque<Handed>,
    /// Fragments whose first one has come, with where they come from by the present view.
    pub released: VecDeque<(Origin, Vec<u8>)>,
    /// What came back from an appliance, on its way to a further endpoint.
    pub onward: Option<(Origin, Vec<u8>)>,
    /// What is to be sent to appliances, in order.
    pub out: VecDeque<Outbound>,
    /// What is to leave through attachments, in whatever order.
    pub leaving: Vec<Leaving>,
    /// What it is to send of its own accord.
    pub replies: Vec<OwnReset>,
}

/// A packet between two workers.
#[derive(Debug)]
pub(super) struct Handed {
    pub from: Origin,
    /// What `from` is to be understood by.
    pub view: Arc<View>,
    pub packet: Vec<u8>,
    pub segments: u64,
}

/// A packet on its way to an appliance.
#[derive(Debug)]
pub(super) struct Outbound {
    pub side: Side,
    pub slot: TargetSlot,
    pub from: IpAddr,
    /// The source port, by its number: what has the same one, and the rest, keeps its order.
    pub port: u16,
    pub to: SocketAddr,
    pub header: Vec<u8>,
    /// The packet; of a super-packet one segment.
    pub packet: Vec<u8>,
    /// Where its transport checksum lies, if that is computed by the gateway: 0 and 0xffff are one.
    pub zero_at: Option<usize>,
    /// Whether it is cut, into pieces of at most so many bytes, and how far that has come.
    pub cut: Option<Cut>,
}

/// How far a packet is cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    pub mtu: u16,
    /// Bytes behind the header that were sent, and in how many pieces.
    pub sent: usize,
    pub pieces: u64,
}

/// A packet that leaves through an attachment.
#[derive(Debug)]
pub(super) struct Leaving {
    pub at: Attachment,
    /// Whether it goes past the appliances.
    pub bypass: bool,
    pub packet: Vec<u8>,
    pub zero_at: Option<usize>,
    /// What is translated on the way out.
    pub addresses: Vec<AddressMapping>,
}

/// A reset that answers no packet.
#[derive(Debug)]
pub(super) struct OwnReset {
    pub at: Attachment,
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub numbers: Numbers,
    pub cause: ReplyCause,
}

impl Worker {
    pub(super) fn new() -> Worker {
        Worker {
            view: None,
            admission: None,
            per_second: 0,
            overloaded: BTreeMap::new(),
            errors: Bucket::for_errors(),
            resets: Bucket::for_resets(),
            sweeps: false,
            keeps_words: false,
            entered: None,
            contradictory: false,
            inbox: VecDeque::new(),
            released: VecDeque::new(),
            onward: None,
            out: VecDeque::new(),
            leaving: Vec::new(),
            replies: Vec::new(),
        }
    }

    /// It works with another view from now on.
    pub(super) fn take_up(&mut self, view: Arc<View>, now: Duration) {
        let snapshot = &view.snapshot;
        if let Some(old) = &self.view {
            let resets = |pool: &Pool, slot: usize| {
                let fate = View::fate(pool, TargetSlot(slot as u32));
                pool.reset_both_ends && matches!(fate, Fate::Reset(_))
            };
            self.sweeps |= snapshot.pools.iter().enumerate().any(|(number, pool)| {
                let before = old.snapshot.pools.get(number);
                (0..pool.fates.len())
                    .any(|slot| resets(pool, slot) && !before.is_some_and(|it| resets(it, slot)))
            });
        }
        self.keeps_words = snapshot.pools.iter().any(|pool| pool.reset_both_ends);
        let per_second = snapshot.max_new_flows_per_second;
        if self.per_second != per_second {
            self.per_second = per_second;
            self.admission = (per_second > 0).then(|| Bucket::for_flows(per_second.into(), now));
        }
        self.view = Some(view);
    }

    /// Whether it takes in one more flow, as far as that depends on how many were new.
    pub(super) fn admits(&mut self, now: Duration) -> bool {
        self.admission.as_mut().is_none_or(|bucket| bucket.take(now))
    }

    /// What it should have done by now.
    pub(super) fn unfinished(&self) -> Option<String> {
        if let Some(out) = self.out.front() {
            return Some(format!(
                "a packet of {} bytes was not sent to {}",
                out.packet.len(),
                out.to
            ));
        }
        if let Some(leaving) = self.leaving.first() {
            let len = leaving.packet.len();
            return Some(format!("a packet of {len} bytes did not leave by {:?}", leaving.at));
        }
        if let Some(reset) = self.replies.first() {
            return Some(format!("{} was not reset in the name of {}", reset.to, reset.from));
        }
        if self.onward.is_some() || !self.released.is_empty() {
            return Some("a packet that is to go on was not judged".to_owned());
        }
        None
    }
}
