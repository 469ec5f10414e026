//! A hand-off: packets go out through a TUN device, to the kernel or any program that reads one,
//! and what comes back goes back to the gateway.
//!
//! What comes back is recognised by its addresses, protocol and ports, in either direction, and
//! gets the latest Geneve header of its flow. So whoever has the packets may hold, shape, count or
//! drop them, and may answer for the other end; but it may not translate addresses, for the gateway
//! would refuse that too. Endpoints whose networks overlap cannot share a device: of two flows with
//! the same addresses and ports, the one that was active last gets what comes back.

mod device;
mod directory;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use appliance_sdk::{Action, Appliance, Emitter, Packet};

pub use self::device::{Device, Setup, SetupError};
use self::directory::{Directory, Listed, Owner};

/// One worker's hand-off.
pub struct Handoff {
    shared: Arc<Shared>,
    emitter: Arc<Emitter>,
}

/// What the workers and the thread that reads the device have in common.
pub struct Shared {
    device: Device,
    directory: Arc<Directory>,
    /// What was counted.
    pub counts: Counts,
}

/// What became of packets.
#[derive(Debug, Default)]
pub struct Counts {
    /// Packets written to the device.
    pub handed_over: AtomicU64,
    /// Packets that the device did not take.
    pub refused: AtomicU64,
    /// Packets read from the device and given to the gateway.
    pub came_back: AtomicU64,
    /// Packets read from the device that belong to no flow: what the kernel says of its own accord.
    pub of_no_flow: AtomicU64,
    /// Packets read from the device that a worker had no room for.
    pub lost: AtomicU64,
}

/// What is remembered of a flow: that it is in the directory, until it is forgotten.
#[derive(Default)]
pub struct HandoffFlow {
    listed: Option<Listed>,
}

impl Shared {
    /// Hands packets over to a device, and remembers up to `max_flows` flows for what comes back.
    pub fn new(device: Device, max_flows: usize) -> Self {
        let directory = Arc::new(Directory::new(max_flows));
        Self { device, directory, counts: Counts::default() }
    }

    /// Reads the device for ever, and gives the gateway what belongs to a flow.
    pub fn read_device(&self) -> std::io::Error {
        // More than any MTU.
        let mut buffer = vec![0; 65_536];
        loop {
            let packet = match self.device.receive(&mut buffer) {
                Ok(length) => buffer.get(..length).unwrap_or_default(),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return error,
            };
            let counter = match self.directory.owner(packet) {
                None => &self.counts.of_no_flow,
                Some(Owner { endpoint, emitter }) => {
                    match emitter.emit(endpoint, packet.to_vec()) {
                        Ok(()) => &self.counts.came_back,
                        Err(_) => &self.counts.lost,
                    }
                }
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Handoff {
    /// A hand-off whose returned packets are sent by `emitter`, that of its own worker.
    pub fn new(shared: Arc<Shared>, emitter: Emitter) -> Self {
        Self { shared, emitter: Arc::new(emitter) }
    }
}

impl Appliance for Handoff {
    type Flow = HandoffFlow;

    fn packet(&mut self, packet: &mut Packet<'_>, flow: &mut HandoffFlow) -> Action {
        let key = packet.flow_key().canonical();
        // An ICMP error counts as a packet of the flow that it is about, and is found by that one's
        // key when it comes back.
        if key == packet.initiator().canonical() {
            let place = || {
                let (endpoint, emitter) = (packet.tags().endpoint, Arc::clone(&self.emitter));
                self.shared.directory.place(key, Owner { endpoint, emitter })
            };
            flow.listed.get_or_insert_with(place).note();
        }
        let counts = &self.shared.counts;
        let counter = match self.shared.device.send(packet.bytes()) {
            Ok(_) => &counts.handed_over,
            Err(_) => &counts.refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        Action::Drop
    }
}
