//! Much data over TCP, in one connection or several, from the client to the server.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use netio::tcp::TcpInfo;
use socket2::SockAddr;

use super::super::network::Ends;
use super::{Count, Crew, PATIENCE, Shift, listen, open, server, tcp_socket};
use crate::lab::error::LabError;
use crate::runtime::clock;

/// Where the server listens.
const PORT: u16 = 5001;
/// What one write gives and one read takes at most: more than a super-packet.
const CHUNK: usize = 128 << 10;
/// How long a paced sender sleeps when it is ahead.
const NAP: Duration = Duration::from_micros(200);
/// What a paced sender gives at once.
const PACED_CHUNK: usize = 64 << 10;

/// Connections that carry data as fast as they can, or at a pace.
#[derive(Debug)]
pub(in super::super) struct Bulk {
    crew: Crew,
    received: Count,
    senders: Vec<TcpStream>,
}

impl Bulk {
    /// Opens so many connections, which carry `pace` bytes in a second each; without one, as much
    /// as they can.
    pub(in super::super) fn start(
        ends: &Ends,
        connections: usize,
        pace: Option<f64>,
    ) -> Result<Self, LabError> {
        let mut bulk =
            Self { crew: Crew::default(), received: Count::default(), senders: Vec::new() };
        let to = SockAddr::from(server(PORT));
        let listener = open(&ends.server, "listen for TCP", || listen(PORT))?;
        let listener = TcpListener::from(listener);
        for _ in 0..connections {
            let connect = || {
                let socket = tcp_socket()?;
                socket.connect_timeout(&to, PATIENCE)?;
                Ok(TcpStream::from(socket))
            };
            let sender = open(&ends.client, "connect to the server by TCP", connect)?;
            let accepted = listener.accept().map_err(LabError::io("accept a connection"))?;
            let (mut far_end, received) = (accepted.0, bulk.received.clone());
            bulk.crew.start(&ends.server, move |_| receive(&mut far_end, &received))?;
            let clone = sender.try_clone().map_err(LabError::io("share a socket"))?;
            bulk.senders.push(clone);
            bulk.crew.start(&ends.client, move |shift| send(sender, pace, shift))?;
        }
        Ok(bulk)
    }

    /// Bytes that arrived so far.
    pub(in super::super) fn received(&self) -> u64 {
        self.received.get()
    }

    /// Segments that had to be sent again so far.
    pub(in super::super) fn repeated(&self) -> u64 {
        let infos = self.senders.iter().filter_map(|sender| TcpInfo::of(sender).ok());
        infos.map(|info| u64::from(info.retransmissions)).sum()
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        self.crew.end();
        for sender in &self.senders {
            // Wakes who waits at either end.
            let _ = sender.shutdown(Shutdown::Both);
        }
    }
}

fn send(mut to: TcpStream, pace: Option<f64>, shift: &Shift) {
    let data = vec![0x5a; CHUNK];
    let (start, mut sent) = (clock::now(), 0_u64);
    while !shift.is_over() {
        let chunk = match pace {
            None => &data[..],
            Some(pace) => {
                let due = pace * clock::now().saturating_duration_since(start).as_secs_f64();
                if sent as f64 > due {
                    thread::sleep(NAP);
                    continue;
                }
                &data[..PACED_CHUNK]
            }
        };
        if to.write_all(chunk).is_err() {
            break;
        }
        sent += chunk.len() as u64;
    }
}

fn receive(from: &mut TcpStream, received: &Count) {
    // If the last segments get lost, nobody says that it is over.
    let _ = from.set_read_timeout(Some(PATIENCE));
    let mut room = vec![0; CHUNK];
    while let Ok(count @ 1..) = from.read(&mut room) {
        received.add(count as u64);
    }
}
