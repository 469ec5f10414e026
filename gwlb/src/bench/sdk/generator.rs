//! Sends what was written beforehand and counts what comes back, in a closed loop: at any time only
//! so many packets are on their way as fit into everybody's buffers.
//!
//! It looks at the first datagram of whatever it receives: that it is one that was sent, unchanged.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use netio::netns::Netns;
use netio::poll::Poller;
use netio::udp::{Datagram, UdpConfig, UdpSocket};
use netio::{Device, Slot};

use super::load::{Load, Send};
use crate::bench::error::BenchError;
use crate::runtime::clock;

/// Source ports: as many as a worker of the gateway has by default.
pub(super) const DOORS: usize = 8;

/// The first source port: that of the gateway's pool.
const FIRST_PORT: u16 = 61_000;

/// How many packets may be on their way at a time, and at least two sends' worth. Small packets take
/// half a megabyte of the sockets' memory then, long ones a little more.
const ON_THEIR_WAY: usize = 512;

/// What did not come back for so long is lost.
const LOST_AFTER: Duration = Duration::from_millis(100);

/// More than this share of all packets must not get lost: the figures would be of something else.
const MAX_LOST: f64 = 0.01;

/// What every socket asks the kernel to buffer, in bytes.
const SOCKET_BUFFER: usize = 4 << 20;

/// Room for what is received at a time.
const SLOTS: usize = 16;

/// In the place of a gateway.
#[derive(Debug)]
pub(super) struct Generator {
    doors: Vec<UdpSocket>,
    sink: UdpSocket,
    poller: Poller,
    ready: Vec<u64>,
    slots: Vec<Slot<Datagram>>,
}

/// What came back of what was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    pub returned: u64,
    pub lost: u64,
    pub took: Duration,
}

impl Generator {
    /// Opens its sockets at an address in a namespace.
    pub(super) fn open(netns: &Netns, address: Ipv4Addr) -> Result<Self, BenchError> {
        let open = || -> io::Result<(Vec<UdpSocket>, UdpSocket)> {
            let bind = |port, gro| {
                UdpSocket::bind(&UdpConfig {
                    bind: (address, port).into(),
                    reuse_port: false,
                    gro,
                    dont_fragment: true,
                    recv_buffer: SOCKET_BUFFER,
                    send_buffer: SOCKET_BUFFER,
                })
            };
            let doors = (FIRST_PORT..).take(DOORS).map(|port| bind(port, false));
            Ok((doors.collect::<io::Result<_>>()?, bind(geneve::PORT, true)?))
        };
        let open = netns.run(open).map_err(io::Error::other).flatten();
        let (doors, sink) = open.map_err(BenchError::io("open the generator's sockets"))?;
        let poller = Poller::new().map_err(BenchError::io("watch the generator's socket"))?;
        poller.add(&sink, 0).map_err(BenchError::io("watch the generator's socket"))?;
        let slots = (0..SLOTS).map(|_| Slot::with_capacity(65_535)).collect();
        Ok(Self { doors, sink, poller, ready: Vec::new(), slots })
    }

    /// Begins the flows of `load` at an appliance, and waits until that has come back.
    pub(super) fn open_flows(
        &mut self,
        appliance: SocketAddr,
        load: &Load,
    ) -> Result<(), BenchError> {
        let mut waiting = 0;
        for send in load.opening() {
            waiting += send.datagrams();
            self.send(appliance, send)?;
        }
        while waiting > 0 {
            let received = self.receive(None)?;
            if received == 0 {
                return Err(BenchError::Wrong(format!(
                    "{waiting} flows were refused by the appliance at {appliance}"
                )));
            }
            waiting = waiting.saturating_sub(received);
        }
        Ok(())
    }

    /// Sends `load` to an appliance for so long, over and over, and counts what comes back.
    ///
    /// # Errors
    /// If too much is lost, or something comes back that was not sent.
    pub(super) fn run(
        &mut self,
        appliance: SocketAddr,
        load: &mut Load,
        time: Duration,
    ) -> Result<Counted, BenchError> {
        let start = clock::now();
        let end = start + time;
        let (mut sent, mut returned, mut lost) = (0, 0, 0);
        let mut on_their_way = 0;
        loop {
            let over = clock::now() >= end;
            if over && on_their_way == 0 {
                break;
            }
            let next = load.next_datagrams();
            while !over && on_their_way + next <= ON_THEIR_WAY.max(2 * next) {
                self.send(appliance, load.next())?;
                on_their_way += next;
                sent += next;
            }
            match self.receive(Some(load))? {
                0 => lost += std::mem::take(&mut on_their_way),
                received => {
                    returned += received;
                    // What was given up may come after all.
                    lost -= received.saturating_sub(on_their_way).min(lost);
                    on_their_way = on_their_way.saturating_sub(received);
                }
            }
        }
        if lost as f64 > sent as f64 * MAX_LOST {
            return Err(BenchError::Wrong(format!(
                "{lost} of {sent} packets did not come back from the appliance at {appliance}"
            )));
        }
        Ok(Counted { returned: returned as u64, lost: lost as u64, took: clock::now() - start })
    }

    fn send(&mut self, appliance: SocketAddr, send: &Send) -> Result<(), BenchError> {
        let segment_size = if send.datagrams() > 1 { send.size as u16 } else { 0 };
        let meta = Datagram { peer: appliance, segment_size, ..Datagram::default() };
        self.doors[send.door]
            .send(&meta, &[IoSlice::new(&send.bytes)])
            .map_err(BenchError::io(format!("send to the appliance at {appliance}")))
    }

    /// Waits for something to come back, and says how many datagrams it was: none if nothing did for
    /// [`LOST_AFTER`].
    fn receive(&mut self, load: Option<&Load>) -> Result<usize, BenchError> {
        let failed = || BenchError::io("receive what the appliance returned");
        let mut filled = self.sink.recv(&mut self.slots).map_err(failed())?;
        if filled == 0 {
            self.poller.wait(&mut self.ready, Some(LOST_AFTER)).map_err(failed())?;
            filled = self.sink.recv(&mut self.slots).map_err(failed())?;
        }
        let mut datagrams = 0;
        for slot in &self.slots[..filled] {
            let (bytes, size) = (slot.packet.bytes(), usize::from(slot.meta.segment_size));
            let size = if size == 0 { bytes.len() } else { size }.max(1);
            datagrams += bytes.len().div_ceil(size);
            let first = &bytes[..size.min(bytes.len())];
            if load.is_some_and(|load| !load.knows(first)) {
                return Err(BenchError::Wrong(
                    "the appliance returned something that it was not sent".to_owned(),
                ));
            }
        }
        Ok(datagrams)
    }
}
