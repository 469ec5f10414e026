//! An independent witness of which appliance gets which flow: it listens at the door of every
//! appliance, whether that one lives or not, and believes neither the gateway's counters nor the
//! appliances'.

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use geneve::flow::CanonicalKey;
use geneve::header::Header;
use geneve::inner::{Fragment, Inner, Transport, protocol};
use netio::netns::Netns;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeSpec, TimeVal, TimeValLike};
use parking_lot::Mutex;

use crate::lab::error::LabError;
use crate::runtime::clock;

/// Packets that may wait for the witness, in bytes of kernel memory.
const ROOM: usize = 8 << 20;
/// How often it looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);
/// Bytes of a UDP header.
const UDP_HEADER: usize = 8;

/// Listens until it is dropped.
#[derive(Debug)]
pub(super) struct Witness {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
}

/// What was seen so far. Appliances are known by their places in the plan.
#[derive(Debug, Default)]
struct Seen {
    flows: HashMap<CanonicalKey, HashMap<usize, Sighting>>,
    /// The first packet of each flow at each appliance.
    arrivals: Vec<Arrival>,
}

/// A flow at an appliance.
#[derive(Clone, Copy, Debug)]
struct Sighting {
    first: Instant,
    last: Instant,
    /// When a packet of each direction came last: from the lower of the two ends, and from the
    /// higher.
    ways: [Option<Instant>; 2],
}

/// A flow came to an appliance for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    pub at: Instant,
    pub appliance: usize,
    pub flow: CanonicalKey,
}

impl Witness {
    /// Stands at the doors of these namespaces.
    pub(super) fn new<'a>(doors: impl IntoIterator<Item = &'a Netns>) -> Result<Self, LabError> {
        let witness = Self { seen: Arc::default(), stop: Arc::default() };
        for (appliance, netns) in doors.into_iter().enumerate() {
            let door = netns.run(open)?.map_err(LabError::io("listen at an appliance's door"))?;
            let (seen, stop) = (Arc::clone(&witness.seen), Arc::clone(&witness.stop));
            thread::Builder::new()
                .name("witness".to_owned())
                .spawn(move || watch(&door, appliance, &seen, &stop))
                .map_err(LabError::io("start a witness"))?;
        }
        Ok(witness)
    }

    /// Where a flow was seen last.
    pub(super) fn home(&self, flow: CanonicalKey) -> Option<usize> {
        let seen = self.seen.lock();
        let at = seen.flows.get(&flow)?.iter().max_by_key(|(_, sighting)| sighting.last);
        at.map(|(appliance, _)| *appliance)
    }

    /// When this appliance was last sent a packet.
    pub(super) fn last_at(&self, appliance: usize) -> Option<Instant> {
        let seen = self.seen.lock();
        let at = seen.flows.values().filter_map(|homes| homes.get(&appliance));
        at.map(|sighting| sighting.last).max()
    }

    /// Everybody who was sent a packet of the flow at this time or later, and when each got the
    /// first one of it ever.
    pub(super) fn visited_since(
        &self,
        flow: CanonicalKey,
        since: Instant,
    ) -> Vec<(usize, Instant)> {
        let seen = self.seen.lock();
        let all = seen.flows.get(&flow).into_iter().flatten();
        let recent = all.filter(|(_, it)| it.last >= since);
        recent.map(|(appliance, it)| (*appliance, it.first)).collect()
    }

    /// Whether packets of both directions came to this appliance at this time or later.
    pub(super) fn both_ways_since(
        &self,
        flow: CanonicalKey,
        appliance: usize,
        since: Instant,
    ) -> bool {
        let seen = self.seen.lock();
        let at = seen.flows.get(&flow).and_then(|all| all.get(&appliance));
        at.is_some_and(|it| it.ways.iter().all(|way| way.is_some_and(|last| last >= since)))
    }

    /// Flows that came to an appliance for the first time, at this time or later.
    pub(super) fn arrivals_since(&self, since: Instant) -> Vec<Arrival> {
        let seen = self.seen.lock();
        seen.arrivals.iter().filter(|arrival| arrival.at >= since).copied().collect()
    }

    /// Whether a flow had been anywhere before this time.
    pub(super) fn knew(&self, flow: CanonicalKey, before: Instant) -> bool {
        let seen = self.seen.lock();
        seen.arrivals.iter().any(|arrival| arrival.flow == flow && arrival.at < before)
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A socket that is given a copy of every IPv4 packet that comes into the namespace it is made in.
fn open() -> io::Result<OwnedFd> {
    let family = AddressFamily::Packet;
    let flags = SockFlag::SOCK_CLOEXEC;
    let door = socket(family, SockType::Datagram, flags, SockProtocol::EthIp)?;
    setsockopt(&door, sockopt::RcvBufForce, &ROOM)
        .or_else(|_| setsockopt(&door, sockopt::RcvBuf, &ROOM))?;
    setsockopt(&door, sockopt::ReceiveTimestampns, &true)?;
    let patience = TimeVal::milliseconds(LOOK.as_millis() as i64);
    setsockopt(&door, sockopt::ReceiveTimeout, &patience)?;
    Ok(door)
}

fn watch(door: &OwnedFd, appliance: usize, seen: &Mutex<Seen>, stop: &AtomicBool) {
    let mut room = vec![0; 1 << 16];
    let mut control = cmsg_space!(TimeSpec);
    while !stop.load(Ordering::Relaxed) {
        let mut pieces = [IoSliceMut::new(&mut room)];
        let flags = MsgFlags::empty();
        let got = recvmsg::<()>(door.as_raw_fd(), &mut pieces, Some(&mut control), flags);
        let (len, stamp) = match got {
            Ok(message) => (message.bytes, stamp(&message)),
            Err(Errno::EAGAIN | Errno::EINTR) => continue,
            Err(error) => {
                tracing::warn!(%error, "a witness sees no more");
                return;
            }
        };
        let at = stamp.map_or_else(clock::now, monotonic);
        let Some(tunnel) = room.get(..len).and_then(geneve_in) else { continue };
        seen.lock().note(tunnel, appliance, at);
    }
}

/// When the kernel took the packet in, since 1970.
fn stamp(message: &nix::sys::socket::RecvMsg<'_, '_, ()>) -> Option<Duration> {
    message.cmsgs().ok()?.find_map(|control| match control {
        ControlMessageOwned::ScmTimestampns(time) => Some(time.into()),
        _ => None,
    })
}

/// A moment of the wall clock, not long ago, on the monotonic one.
pub(super) fn monotonic(unix: Duration) -> Instant {
    let (now, wall_clock) = (clock::now(), clock::wall_clock());
    now.checked_sub(wall_clock.saturating_sub(unix)).unwrap_or(now)
}

/// What is inside a packet if it is one of the tunnel's.
fn geneve_in(packet: &[u8]) -> Option<&[u8]> {
    let outer = Inner::parse(packet).ok()?;
    let Transport::Udp { dst: geneve::PORT, .. } = outer.transport else { return None };
    packet.get(outer.header_len + UDP_HEADER..outer.total_len)
}

impl Seen {
    /// Takes in the inside of one packet: one datagram of the tunnel, or several that the sender
    /// gave to the kernel at once and that it has not yet cut apart. They follow each other without
    /// a gap, and each says by its inner packet how long it is.
    fn note(&mut self, mut tunnel: &[u8], appliance: usize, at: Instant) {
        while let Ok((_, rest)) = Header::parse(tunnel) {
            let Ok(inner) = Inner::parse(rest) else { return };
            self.note_inner(&inner, appliance, at);
            let Some(next) = rest.get(inner.total_len..) else { return };
            tunnel = next;
        }
    }

    fn note_inner(&mut self, inner: &Inner, appliance: usize, at: Instant) {
        if inner.protocol != protocol::TCP || inner.fragment != Fragment::Whole {
            return;
        }
        let way = inner.flow_key();
        let flow = way.canonical();
        let from_low = usize::from(flow.directed() != way);
        let homes = self.flows.entry(flow).or_default();
        let sighting = homes.entry(appliance).or_insert_with(|| {
            self.arrivals.push(Arrival { at, appliance, flow });
            Sighting { first: at, last: at, ways: [None; 2] }
        });
        sighting.last = sighting.last.max(at);
        sighting.ways[from_low] = Some(at);
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use geneve::header::{HeaderBuilder, ProtocolType};

    use super::*;

    const CLIENT: [u8; 4] = [203, 0, 113, 10];
    const SERVER: [u8; 4] = [10, 0, 1, 11];

    /// A TCP packet in Geneve; `port` is the client's.
    fn tunnelled(port: u16, from_client: bool, payload: &[u8]) -> Vec<u8> {
        let (ends, ports) = if from_client {
            ((CLIENT, SERVER), (port, 7000))
        } else {
            ((SERVER, CLIENT), (7000, port))
        };
        let mut inner = Vec::new();
        let builder = PacketBuilder::ipv4(ends.0, ends.1, 64).tcp(ports.0, ports.1, 1, 1000);
        builder.write(&mut inner, payload).unwrap();
        let header = HeaderBuilder::new(ProtocolType::IPV4);
        let mut packet = vec![0; 64];
        let len = header.write(&mut packet).unwrap();
        packet.truncate(len);
        packet.extend(inner);
        packet
    }

    #[test]
    fn datagrams_that_are_not_cut_apart_yet_are_all_seen() {
        let mut seen = Seen::default();
        let at = clock::now();
        let both = [tunnelled(1000, true, b"hello"), tunnelled(1001, true, b"world")].concat();
        seen.note(&both, 3, at);
        assert_eq!(seen.arrivals.len(), 2);
        assert_ne!(seen.arrivals[0].flow, seen.arrivals[1].flow);
        assert_eq!((seen.arrivals[0].appliance, seen.arrivals[0].at), (3, at));
    }

    #[test]
    fn directions_and_homes_are_told_apart() {
        let witness = Witness { seen: Arc::default(), stop: Arc::default() };
        let start = clock::now();
        let at = |millis| start + Duration::from_millis(millis);
        let note = |from_client, appliance, millis| {
            witness.seen.lock().note(&tunnelled(1000, from_client, b""), appliance, at(millis));
        };
        note(true, 0, 1);
        let flow = witness.arrivals_since(start)[0].flow;
        assert!(!witness.both_ways_since(flow, 0, start));
        note(false, 0, 2);
        assert!(witness.both_ways_since(flow, 0, start));
        assert!(!witness.both_ways_since(flow, 0, at(2)));
        assert_eq!(witness.home(flow), Some(0));
        note(true, 1, 3);
        assert_eq!(witness.home(flow), Some(1));
        assert_eq!((witness.last_at(0), witness.last_at(2)), (Some(at(2)), None));
        assert_eq!(witness.visited_since(flow, at(3)), [(1, at(3))]);
        assert_eq!(witness.arrivals_since(at(2)).len(), 1);
        assert!(witness.knew(flow, at(3)) && !witness.knew(flow, at(1)));
    }
}
