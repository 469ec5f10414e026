//! The plain forwarder: what a program costs that only carries packets from one TUN device to
//! another, as they are. No flows, no encapsulation, no appliance.
//!
//! It is built like the gateway where that matters: a worker for each CPU with a queue of each
//! device, which polls only when both are empty.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr};
use std::thread::{self, JoinHandle};

use netio::link::{Links, Route};
use netio::netns::Netns;
use netio::offload::Offload;
use netio::poll::{Poller, Waker};
use netio::tun::{MAX_PACKET, Tun, TunConfig, TunQueue};
use netio::{Device, Slot};

use super::network::{CLIENT, Ends, MTU, SERVER};
use crate::lab::error::LabError;

/// Packets read from one device before the other has its turn, as in the gateway.
const BATCH: usize = 16;
/// Under which the poller reports that it is over.
const END: u64 = 2;

/// A running forwarder. Dropping it ends it, and its devices are gone.
#[derive(Debug)]
pub(super) struct Forwarder {
    waker: Waker,
    workers: Vec<JoinHandle<()>>,
}

impl Forwarder {
    /// Makes a device in each of the `ends`, and forwards between them with so many workers.
    pub(super) fn start(ends: &Ends, offload: bool, workers: usize) -> Result<Self, LabError> {
        let [near, far] = [(&ends.client, CLIENT), (&ends.server, SERVER)]
            .map(|(netns, address)| device(netns, address, offload, workers));
        let pairs = near?.into_iter().zip(far?);
        let waker = Waker::new().map_err(LabError::io("make a waker"))?;
        let mut forwarder = Self { waker: waker.clone(), workers: Vec::new() };
        for pair in pairs {
            let worker = Worker::new(pair.into(), &waker);
            let worker = worker.map_err(LabError::io("watch TUN devices"))?;
            let thread = thread::Builder::new().name("forwarder".to_owned());
            let thread = thread.spawn(move || worker.run());
            forwarder.workers.push(thread.map_err(LabError::io("start a thread"))?);
        }
        Ok(forwarder)
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        // Nobody takes it back, so every worker sees it.
        let woken = self.waker.wake();
        for worker in self.workers.drain(..) {
            if woken.is_ok() {
                let _ = worker.join();
            }
        }
    }
}

/// Makes a device with an address and a default route, and gives its queues.
fn device(
    netns: &Netns,
    (address, prefix): (Ipv4Addr, u8),
    offload: bool,
    queues: usize,
) -> Result<Vec<TunQueue>, LabError> {
    let name = "tun".to_owned();
    let config = TunConfig { name, queues, mtu: MTU, offload, gso_max_size: None };
    let mut tun =
        netns.run(|| Tun::create(&config))?.map_err(LabError::io("create a TUN device"))?;
    let links = Links::in_netns(netns)?;
    links.set_up(&config.name)?;
    links.add_address(&config.name, address.into(), prefix)?;
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    links.add_route(&Route::new(any, 0).device(&config.name))?;
    Ok(tun.take_queues())
}

struct Worker {
    queues: [TunQueue; 2],
    poller: Poller,
    slots: Vec<Slot<Offload>>,
}

impl Worker {
    fn new(queues: [TunQueue; 2], waker: &Waker) -> io::Result<Self> {
        let poller = Poller::new()?;
        for (queue, token) in queues.iter().zip(0..) {
            poller.add(queue, token)?;
        }
        poller.add(waker, END)?;
        let slots = (0..BATCH).map(|_| Slot::with_capacity(MAX_PACKET)).collect();
        Ok(Self { queues, poller, slots })
    }

    /// Until it is woken, or the devices are gone.
    fn run(mut self) {
        let mut ready = Vec::new();
        while self.poller.wait(&mut ready, None).is_ok() && !ready.contains(&END) {
            while let Ok(carried) = self.carry() {
                if carried == 0 {
                    break;
                }
            }
        }
    }

    /// Carries a batch in each direction; how many packets there were.
    fn carry(&mut self) -> io::Result<usize> {
        let [near, far] = &mut self.queues;
        let mut carried = 0;
        for turn in 0..2 {
            let (from, to) =
                if turn == 0 { (&mut *near, &mut *far) } else { (&mut *far, &mut *near) };
            let count = from.recv(&mut self.slots)?;
            for Slot { packet, meta } in &self.slots[..count] {
                // What cannot be written is lost, as it is in any forwarder.
                let _ = to.send(meta, &[IoSlice::new(packet.bytes())]);
            }
            carried += count;
        }
        Ok(carried)
    }
}
