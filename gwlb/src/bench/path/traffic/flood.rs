//! A flood of new flows: datagrams from senders that are not there, each from another address and
//! port than those before it, at a rate that is set.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::thread;
use std::time::Duration;

use socket2::{SockRef, Socket};

use super::super::network::{CLIENT, Ends};
use super::raw::{self, Packet};
use super::{Count, Crew, Shift, open, server};
use crate::lab::error::LabError;
use crate::runtime::clock;

/// Where the flood goes: to a server that takes nothing of it out of a full buffer.
const PORT: u16 = 5004;
/// Bytes of each datagram.
const PAYLOAD: usize = 32;
/// How long the sender sleeps when it is ahead.
const NAP: Duration = Duration::from_micros(500);
/// The first port that is spoofed; all above it follow.
const FIRST_PORT: u16 = 1024;
/// The hosts of the client's network that are spoofed.
const FIRST_HOST: u8 = 20;
const HOSTS: u8 = 200;

/// A running flood.
#[derive(Debug)]
pub(in super::super) struct Flood {
    sent: Count,
    _crew: Crew,
}

impl Flood {
    /// Starts to send so many packets in a second, each of a new flow. `first` is the number of the
    /// first flow: floods that are to be new again go on where the last one ended.
    pub(in super::super) fn start(ends: &Ends, rate: f64, first: u64) -> Result<Self, LabError> {
        let mut crew = Crew::default();
        // As long as there is a socket, nobody answers that there is none.
        let sink = open(&ends.server, "open a socket for a flood", || {
            let socket = UdpSocket::bind(server(PORT))?;
            SockRef::from(&socket).set_recv_buffer_size(1)?;
            Ok(socket)
        })?;
        let socket = open(&ends.client, "open a raw socket", raw::socket)?;
        let sent = Count::default();
        let count = sent.clone();
        crew.start(&ends.client, move |shift| {
            let _sink = sink;
            if let Err(error) = send(&socket, rate, first, &count, shift) {
                tracing::error!(%error, "the flood has ended");
            }
        })?;
        Ok(Self { sent, _crew: crew })
    }

    /// Packets that were sent so far.
    pub(in super::super) fn sent(&self) -> u64 {
        self.sent.get()
    }
}

fn send(socket: &Socket, rate: f64, first: u64, sent: &Count, shift: &Shift) -> io::Result<()> {
    // UDP over IPv4 needs no checksum.
    let mut packet = Packet::new(PORT, PAYLOAD);
    let start = clock::now();
    while !shift.is_over() {
        let due = rate * clock::now().saturating_duration_since(start).as_secs_f64();
        if sent.get() as f64 > due {
            thread::sleep(NAP);
            continue;
        }
        let (address, port) = source(first + sent.get());
        packet.set_source(address, port);
        match socket.send(packet.bytes()) {
            Ok(_) => {}
            // No room: lost, as it is anywhere on the way.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ENOBUFS as i32) => {}
            Err(error) => return Err(error),
        }
        sent.add(1);
    }
    Ok(())
}

/// Where the flow of this number comes from.
fn source(number: u64) -> (Ipv4Addr, u16) {
    let ports = u64::from(u16::MAX - FIRST_PORT);
    let port = FIRST_PORT + (number % ports) as u16;
    let host = FIRST_HOST + ((number / ports) % u64::from(HOSTS)) as u8;
    let [a, b, c, _] = CLIENT.0.octets();
    (Ipv4Addr::new(a, b, c, host), port)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_flow_is_another_one_and_none_is_the_clients_own() {
        let flows: HashSet<_> = (0..1_000_000).map(source).collect();
        assert_eq!(flows.len(), 1_000_000);
        assert!(flows.iter().all(|(address, _)| *address != CLIENT.0));
    }
}
