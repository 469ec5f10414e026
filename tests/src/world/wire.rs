//! A wire in place of an appliance's cable, whose packets the test reads as they are: complete,
//! with the kernel's outer headers and checksums, each datagram by itself.
//!
//! A capture on a virtual cable would show unfinished checksums and whole batches, since cables
//! pass both along; a TUN device without offloads has the kernel finish them.

use std::io::IoSlice;
use std::thread::JoinHandle;
use std::time::Duration;

use netio::link::Route;
use netio::offload::Offload;
use netio::poll::{Poller, Waker};
use netio::tun::{Tun, TunConfig, TunQueue};
use netio::{Device as _, Slot};

use super::{World, now, site};
use crate::capture::Captured;

/// The wire's device in the gateway's namespace.
const DEVICE: &str = "wire";
/// Packets read at a time.
const BATCH: usize = 16;

/// A wire at whose end all packets are sent back as they came, with the outer addresses swapped and
/// nothing else changed: the least that an appliance can do.
#[derive(Debug)]
pub struct Wire {
    stop: Waker,
    thread: JoinHandle<Vec<Captured>>,
}

impl Wire {
    /// Lays the wire in place of an appliance's cable.
    ///
    /// # Panics
    /// If it cannot be laid.
    pub fn lay(world: &World, appliance: usize) -> Self {
        let links = world.gateway.links();
        links.delete(&site::cable(appliance)).expect("the cable");
        let config = TunConfig {
            name: DEVICE.to_owned(),
            queues: 1,
            mtu: world.plan.underlay_mtu,
            offload: false,
            gso_max_size: None,
        };
        let mut tun = world.gateway.run(|| Tun::create(&config)).expect("a device");
        let queue = tun.take_queues().pop().expect("its queue");
        links.set_up(DEVICE).expect("our device");
        let (target, prefix) = (world.plan.target(appliance), world.plan.outer_prefix());
        let node = world.plan.node(world.plan.appliances[appliance]);
        let route = Route::new(target, prefix).device(DEVICE).source(node);
        links.add_route(&route).expect("a route to the wire");
        let stop = Waker::new().expect("a waker");
        let stopped = stop.clone();
        Self { stop, thread: std::thread::spawn(move || echo(queue, &stopped)) }
    }

    /// Takes the wire away, and gives what the gateway sent over it.
    pub fn take(self) -> Vec<Captured> {
        self.stop.wake().expect("a waker");
        self.thread.join().expect("the wire's thread")
    }
}

fn echo(mut queue: TunQueue, stop: &Waker) -> Vec<Captured> {
    let mut poller = Poller::new().expect("a poller");
    poller.add(&queue, 0).expect("the device");
    poller.add(stop, 1).expect("the waker");
    let mut slots: Vec<_> = (0..BATCH).map(|_| Slot::with_capacity(65_536)).collect();
    let (mut ready, mut seen) = (Vec::new(), Vec::new());
    let start = now();
    loop {
        poller.wait(&mut ready, None).expect("the poller");
        if ready.contains(&1) {
            return seen;
        }
        let count = queue.recv(&mut slots).expect("the device");
        for Slot { packet, .. } in &mut slots[..count] {
            let time: Duration = now().saturating_duration_since(start);
            seen.push(Captured { time, packet: packet.bytes().to_vec() });
            swap_addresses(packet.bytes_mut());
            queue.send(&Offload::NONE, &[IoSlice::new(packet.bytes())]).expect("the device");
        }
    }
}

/// Swaps source and destination; no checksum changes by that.
fn swap_addresses(packet: &mut [u8]) {
    let (start, len) = match packet[0] >> 4 {
        4 => (12, 4),
        6 => (8, 16),
        version => panic!("a packet of IP version {version} on the wire"),
    };
    let (source, destination) = packet[start..start + 2 * len].split_at_mut(len);
    source.swap_with_slice(destination);
}
