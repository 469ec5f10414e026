//! Packets of very many flows from addresses that nobody has, into the client's device: what a
//! flood from the internet is to the gateway.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;
use std::time::Duration;

use super::canary::FLOOD_PORT;
use super::raw::RawSender;
use super::{Host, World, now};

/// Packets that are sent before it is looked whether the gateway has taken them: fewer than a TUN
/// device queues (500), so that a flood that waits loses nothing.
const STEP: u64 = 320;

/// How long to wait for the gateway to take a step, before the flood goes on regardless.
const PATIENCE: Duration = Duration::from_millis(500);

/// The addresses that it comes from, for tests of devices (RFC 2544): 2^17 of them.
const FROM: u32 = 0xc612_0000;
const ADDRESSES: u64 = 1 << 17;

/// A UDP packet without a checksum and without payload: 28 bytes, the least there is.
const LENGTH: usize = 28;

/// How much a flood may hurt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// As fast as the gateway takes it: every packet gets there.
    Waits,
    /// As fast as the kernel takes it: most of it may be lost in the device's queue.
    None,
}

/// What a flood was.
#[derive(Debug, Clone, Copy)]
pub struct Flooded {
    /// How many packets, each of a flow of its own.
    pub packets: u64,
    /// How long it took.
    pub took: Duration,
}

/// Sends one packet for each number in `flows`, each of the flow with that number, from the
/// internet to a port of the first server that the appliances deny. Of numbers below 2^32 no two
/// are the same flow.
///
/// # Panics
/// If the client's device is not there.
pub fn flood(world: &World, flows: Range<u64>, patience: Patience) -> Flooded {
    let to = SocketAddrV4::new(world.plan.server(0).v4.0, FLOOD_PORT);
    send(world, flows, patience, |number| packet(number, to))
}

/// Sends, for each number in `packets`, the last fragment of a packet of which no other fragment
/// comes.
///
/// # Panics
/// As [`flood`].
pub fn flood_of_fragments(world: &World, packets: Range<u64>, patience: Patience) -> Flooded {
    let to = SocketAddrV4::new(world.plan.server(0).v4.0, FLOOD_PORT);
    send(world, packets, patience, |number| {
        let mut fragment = packet(number, to);
        fragment[4..6].copy_from_slice(&(number as u16 | 1).to_be_bytes());
        // No more fragments, and an offset of 1480 bytes.
        fragment[6..8].copy_from_slice(&185_u16.to_be_bytes());
        fragment
    })
}

fn send(
    world: &World,
    flows: Range<u64>,
    patience: Patience,
    packet: impl Fn(u64) -> [u8; LENGTH],
) -> Flooded {
    let sender = RawSender::new(&world.client);
    let started = now();
    let mut next = flows.start;
    while next < flows.end {
        let end = flows.end.min(next + STEP);
        let packets: Vec<_> = (next..end).map(&packet).collect();
        let before = taken(&world.client);
        sender.send(&packets).expect("a device that takes packets");
        if patience == Patience::Waits {
            let until = now() + PATIENCE;
            while taken(&world.client) < before + (end - next) && now() < until {
                std::thread::yield_now();
            }
        }
        next = end;
    }
    Flooded {
        packets: flows.end.saturating_sub(flows.start),
        took: now().saturating_duration_since(started),
    }
}

/// The packets that went through the client's device into the gateway, or were lost there.
fn taken(client: &Host) -> u64 {
    let counted = client.links().statistics("igw").expect("the client's device");
    counted.tx_packets + counted.tx_dropped
}

/// The packet of a flow; the kernel fills in the checksum of the IP header.
fn packet(number: u64, to: SocketAddrV4) -> [u8; LENGTH] {
    let from = Ipv4Addr::from(FROM + (number % ADDRESSES) as u32);
    let port = 1024 + (number / ADDRESSES) as u16;
    let mut packet = [0; LENGTH];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(LENGTH as u16).to_be_bytes());
    packet[6] = 0x40;
    packet[8] = 64;
    packet[9] = geneve::protocol::UDP;
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&to.ip().octets());
    packet[20..22].copy_from_slice(&port.to_be_bytes());
    packet[22..24].copy_from_slice(&to.port().to_be_bytes());
    packet[24..26].copy_from_slice(&8_u16.to_be_bytes());
    packet
}
