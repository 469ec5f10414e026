//! Small datagrams as fast as they get through, and a server that counts what arrives.
//!
//! A TUN device has no way to make a sender wait: what finds its queue full is thrown away, and a
//! sender that goes on regardless takes the processor from those who would empty the queue. So the
//! sender looks at the count of the sink, and has no more datagrams under way than the shortest
//! queue holds: a path is measured by what it carries. The sink takes datagrams in whatever batches
//! the kernel has, so that it is not what is measured either.

use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use netio::poll::Poller;
use netio::udp::{Datagram, UdpConfig, UdpSocket};
use netio::{Device, Slot};
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, sendmmsg};
use socket2::Socket;

use super::super::network::{CLIENT, Ends};
use super::raw::{self, Packet};
use super::{Count, Crew, GLANCE, Shift, open, server};
use crate::lab::error::LabError;
use crate::runtime::clock;

/// Where the server takes them.
const PORT: u16 = 5002;
/// The port of the first flow; the others follow. The same ports every time are the same flows.
const FIRST_PORT: u16 = 20_000;
/// Bytes of each datagram.
const PAYLOAD: usize = 64;
/// What the server's socket keeps for a reader that is late.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Datagrams that one system call sends, and the length of a run.
const BATCH: usize = 32;
/// How many datagrams are under way at most: fewer than the 500 of a TUN device's queue.
const WINDOW: u64 = 448;
/// How long the sender sleeps when so many are.
const NAP: Duration = Duration::from_micros(20);
/// When nothing has arrived for this long, what was under way is lost.
const LOST: Duration = Duration::from_millis(5);
/// Batches that one system call receives.
const RECEIVED: usize = 16;
/// The largest batch.
const LARGEST: usize = 65_535;

/// In which order flows have their turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in super::super) enum Pattern {
    /// 16 flows, 32 datagrams of one after the other.
    Runs,
    /// 1000 flows, each datagram of another one than the one before.
    Interleaved,
}

impl Pattern {
    /// The number of the flow of each datagram; after the last one it begins again.
    fn flows(self) -> Vec<u16> {
        match self {
            Self::Runs => (0..16).flat_map(|flow| [flow; BATCH]).collect(),
            Self::Interleaved => (0..1000).collect(),
        }
    }
}

/// Running traffic.
#[derive(Debug)]
pub(in super::super) struct Datagrams {
    sent: Count,
    received: Count,
    _crew: Crew,
}

impl Datagrams {
    /// Starts to send.
    pub(in super::super) fn start(ends: &Ends, pattern: Pattern) -> Result<Self, LabError> {
        let (sent, received) = (Count::default(), Count::default());
        let mut crew = Crew::default();
        let config = UdpConfig {
            bind: server(PORT),
            reuse_port: false,
            gro: true,
            dont_fragment: false,
            recv_buffer: RECEIVE_BUFFER,
            send_buffer: 0,
        };
        let sink = open(&ends.server, "take datagrams", || UdpSocket::bind(&config))?;
        let count = received.clone();
        crew.start(&ends.server, move |shift| {
            if let Err(error) = receive(sink, &count, shift) {
                tracing::error!(%error, "the sink has ended");
            }
        })?;
        let socket = open(&ends.client, "open a raw socket", raw::socket)?;
        let packets = pattern.flows().into_iter().map(|flow| {
            let mut packet = Packet::new(PORT, PAYLOAD);
            packet.set_source(CLIENT.0, FIRST_PORT + flow);
            packet.set_checksum();
            packet
        });
        let (packets, counts) = (packets.collect::<Vec<_>>(), (sent.clone(), received.clone()));
        crew.start(&ends.client, move |shift| send(&socket, &packets, counts, shift))?;
        Ok(Self { sent, received, _crew: crew })
    }

    /// Datagrams that were sent so far.
    pub(in super::super) fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// Datagrams that arrived so far.
    pub(in super::super) fn received(&self) -> u64 {
        self.received.get()
    }
}

fn send(socket: &Socket, packets: &[Packet], (sent, received): (Count, Count), shift: &Shift) {
    let pieces: Vec<_> = packets.iter().map(|packet| [IoSlice::new(packet.bytes())]).collect();
    let mut headers = MultiHeaders::preallocate(BATCH, None);
    let (peers, nothing): (_, [ControlMessage<'_>; 0]) = ([None::<()>; BATCH], []);
    let mut lost = 0;
    while !shift.is_over() {
        for batch in pieces.chunks(BATCH) {
            let flags = MsgFlags::empty();
            let done = sendmmsg(socket.as_raw_fd(), &mut headers, batch, peers, nothing, flags);
            // What finds no room is lost, as it is anywhere on the way.
            sent.add(done.map_or(0, Iterator::count) as u64);
            wait_for_room(&sent, &received, &mut lost);
        }
    }
}

/// Waits until another batch may be under way.
fn wait_for_room(sent: &Count, received: &Count, lost: &mut u64) {
    let mut arrived = received.get();
    let mut since = None;
    while sent.get() + BATCH as u64 > arrived + *lost + WINDOW {
        thread::sleep(NAP);
        let now = clock::now();
        let latest = received.get();
        if latest != arrived {
            (arrived, since) = (latest, Some(now));
        } else if now.saturating_duration_since(*since.get_or_insert(now)) > LOST {
            *lost = sent.get().saturating_sub(arrived);
        }
    }
}

fn receive(mut sink: UdpSocket, received: &Count, shift: &Shift) -> io::Result<()> {
    let (mut poller, mut ready) = (Poller::new()?, Vec::new());
    poller.add(&sink, 0)?;
    let mut slots: Vec<_> =
        (0..RECEIVED).map(|_| Slot::<Datagram>::with_capacity(LARGEST)).collect();
    while !shift.is_over() {
        let count = sink.recv(&mut slots)?;
        if count == 0 {
            poller.wait(&mut ready, Some(GLANCE))?;
        }
        let datagrams = slots[..count].iter().map(|slot| slot.packet.len() / PAYLOAD);
        received.add(datagrams.sum::<usize>() as u64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_more_is_under_way_than_there_is_room_for_until_it_is_lost() {
        let (sent, received) = (Count::default(), Count::default());
        let mut lost = 0;
        sent.add(WINDOW - BATCH as u64);
        wait_for_room(&sent, &received, &mut lost);
        assert_eq!(lost, 0, "there is room for one batch more");
        sent.add(BATCH as u64);
        received.add(10);
        wait_for_room(&sent, &received, &mut lost);
        assert_eq!(lost, WINDOW - 10, "nobody takes any of them");
        sent.add(WINDOW);
        let sink = received.clone();
        let taken = thread::spawn(move || sink.add(BATCH as u64));
        wait_for_room(&sent, &received, &mut lost);
        taken.join().unwrap();
        assert_eq!(lost, WINDOW - 10, "the sink goes on");
    }

    #[test]
    fn runs_are_of_one_flow_and_interleaved_ones_never() {
        let runs = Pattern::Runs.flows();
        assert!(runs.chunks(BATCH).all(|run| run.iter().collect::<HashSet<_>>().len() == 1));
        assert_eq!(runs.iter().collect::<HashSet<_>>().len(), 16);
        let interleaved = Pattern::Interleaved.flows();
        assert_eq!(interleaved.iter().collect::<HashSet<_>>().len(), 1000);
        assert_eq!(interleaved.len(), 1000);
    }
}
