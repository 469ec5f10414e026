//! Short connections: made, ended by the server, and the next one.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use socket2::SockAddr;

use super::super::network::Ends;
use super::{Count, Crew, GLANCE, Shift, listen, open, server, tcp_socket};
use crate::lab::error::LabError;

/// Where the server listens.
const PORT: u16 = 5003;
/// Connections that are made at the same time.
const CLIENTS: usize = 8;
/// Threads that accept them.
const ACCEPTORS: usize = 2;
/// How long any of them may stand still: the kernel repeats a lost SYN after a second.
const STILL: Duration = Duration::from_secs(2);

/// Running clients and their server.
#[derive(Debug)]
pub(in super::super) struct Churn {
    done: Count,
    _crew: Crew,
}

impl Churn {
    /// Starts to make connections.
    pub(in super::super) fn start(ends: &Ends) -> Result<Self, LabError> {
        let mut crew = Crew::default();
        let listener = open(&ends.server, "listen for short connections", || {
            let listener = listen(PORT)?;
            // Accepting waits no longer than reading may.
            listener.set_read_timeout(Some(GLANCE))?;
            Ok(TcpListener::from(listener))
        })?;
        for _ in 0..ACCEPTORS {
            let listener = listener.try_clone().map_err(LabError::io("share a socket"))?;
            crew.start(&ends.server, move |shift| {
                while !shift.is_over() {
                    // It closes first, so that the client's port is free again at once.
                    drop(listener.accept());
                }
            })?;
        }
        let done = Count::default();
        for _ in 0..CLIENTS {
            let done = done.clone();
            crew.start(&ends.client, move |shift| make(&done, shift))?;
        }
        Ok(Self { done, _crew: crew })
    }

    /// Connections that were made and ended in order so far.
    pub(in super::super) fn done(&self) -> u64 {
        self.done.get()
    }
}

fn make(done: &Count, shift: &Shift) {
    let to = SockAddr::from(server(PORT));
    while !shift.is_over() {
        let connected = tcp_socket().and_then(|socket| {
            socket.set_write_timeout(Some(STILL))?;
            socket.set_read_timeout(Some(STILL))?;
            socket.connect(&to)?;
            Ok(TcpStream::from(socket))
        });
        let ended = connected.and_then(|mut stream| stream.read(&mut [0]));
        done.add(u64::from(ended.is_ok_and(|count| count == 0)));
    }
}
