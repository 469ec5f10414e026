//! The steady load: many TCP connections of the kernel's, each of which sends numbered records at a
//! steady pace and gets each of them back.
//!
//! What happens to a connection is written down at both ends with the time: a record that is
//! missing or out of order, a reset, a segment that TCP had to repeat. The ends know nothing of the
//! gateway.

mod client;
mod server;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use geneve::flow::{CanonicalKey, FlowKey};
use geneve::inner::protocol;
use netio::tcp::TcpInfo;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

use crate::lab::error::LabError;
use crate::lab::plan::{Family, Plan};
use crate::lab::stage::Stage;

/// Where the servers listen.
pub(in crate::lab) const PORT: u16 = 7000;
/// From one record of a connection to the next.
pub(super) const PACE: Duration = Duration::from_millis(200);
/// Bytes of a record: the connection's number, the record's number, and what follows from them.
const RECORD: usize = 64;
/// How many records a short connection sends.
const SHORT: u64 = 2;
/// From one short connection to the next.
const SHORT_PACE: Duration = Duration::from_millis(10);

/// The load. Dropping it ends all of its connections.
#[derive(Debug)]
pub(super) struct Load {
    commands: mpsc::UnboundedSender<client::Command>,
    book: Arc<Mutex<Book>>,
    /// Dropping these ends the servers.
    _servers: Vec<oneshot::Sender<()>>,
}

/// What is known of all connections.
#[derive(Debug, Default)]
struct Book {
    connections: Vec<Connection>,
    /// By server and the client's end.
    far: HashMap<(usize, SocketAddr), End>,
    modes: Vec<watch::Sender<Mode>>,
}

/// What a connection is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Send a record at every beat.
    Run,
    /// Stay open, and say nothing.
    Pause,
    /// Wait for the last answers, and end in order.
    Close,
}

/// A connection, as both ends see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection {
    pub id: usize,
    /// The number of the server's zone.
    pub zone: usize,
    /// Whether it ends by itself after a few records.
    pub short: bool,
    /// What appliances know it by, once it has a port.
    pub flow: Option<CanonicalKey>,
    pub near: End,
    /// The server's end, if it ever heard of it.
    pub far: Option<End>,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub state: State,
    /// Records sent, and records received; the server sends what it receives.
    pub sent: u64,
    pub received: u64,
    /// Records that were not the next one, or not what was sent.
    pub wrong: u64,
    /// When a record was sent last, and received last.
    pub last_sent: Option<Instant>,
    pub last_received: Option<Instant>,
    /// The longest time from a record to its answer.
    pub slowest: Duration,
    pub tcp: TcpInfo,
}

/// How an end fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Opening,
    Open,
    /// Ended in order.
    Closed,
    /// A reset came.
    Reset(Instant),
    /// It failed otherwise.
    Failed(Instant, io::ErrorKind),
}

impl End {
    const NEW: Self = Self {
        state: State::Opening,
        sent: 0,
        received: 0,
        wrong: 0,
        last_sent: None,
        last_received: None,
        slowest: Duration::ZERO,
        tcp: TcpInfo { retransmissions: 0, duplicates: 0 },
    };

    /// An error has ended it.
    fn fail(&mut self, at: Instant, error: &io::Error) {
        self.state = match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => State::Reset(at),
            kind => State::Failed(at, kind),
        };
    }

    /// When a reset came.
    pub(super) fn reset_at(&self) -> Option<Instant> {
        match self.state {
            State::Reset(at) => Some(at),
            _ => None,
        }
    }
}

impl Connection {
    /// Whether the client has it open.
    pub(super) fn is_open(&self) -> bool {
        self.near.state == State::Open
    }

    /// Segments that either end had to repeat, and how many of them had arrived the first time.
    pub(super) fn repeated(&self) -> (u32, u32) {
        let ends = [Some(self.near), self.far];
        let of =
            |count: fn(&TcpInfo) -> u32| ends.iter().flatten().map(|end| count(&end.tcp)).sum();
        (of(|tcp| tcp.retransmissions), of(|tcp| tcp.duplicates))
    }
}

impl Load {
    /// Starts the servers, and a client without connections.
    pub(super) fn start(plan: &Plan, stage: &Stage) -> Result<Self, LabError> {
        let book: Arc<Mutex<Book>> = Arc::default();
        let mut servers = Vec::new();
        for (number, host) in plan.servers().enumerate() {
            servers.push(server::start(stage.netns(host.name)?, number, &book)?);
        }
        let (commands, orders) = mpsc::unbounded_channel();
        client::start(stage.netns(plan.client.name)?, plan.clone(), orders, &book)?;
        Ok(Self { commands, book, _servers: servers })
    }

    /// Opens so many connections to the server of a zone, half of them over IPv6.
    pub(super) fn open(&self, zone: usize, count: usize) {
        // The client's thread lives as long as the load.
        let _ = self.commands.send(client::Command::Open { zone, count });
    }

    /// Opens short connections to the server of a zone, one after the other, until it is told
    /// otherwise; `None` for no more.
    pub(super) fn open_short(&self, zone: Option<usize>) {
        let _ = self.commands.send(client::Command::Short { zone });
    }

    /// Tells connections what to do from now on.
    pub(super) fn set_mode(&self, ids: impl IntoIterator<Item = usize>, mode: Mode) {
        let book = self.book.lock();
        for id in ids {
            if let Some(sender) = book.modes.get(id) {
                sender.send_replace(mode);
            }
        }
    }

    /// Forgets the slowest answers so far, so that those from now on can be seen.
    pub(super) fn forget_slowest(&self) {
        for connection in &mut self.book.lock().connections {
            connection.near.slowest = Duration::ZERO;
        }
    }

    /// Every connection that ever was, at this moment.
    pub(super) fn connections(&self) -> Vec<Connection> {
        let book = self.book.lock();
        let with_far_end = |connection: &Connection| {
            let client = connection.client();
            let far = client.and_then(|client| book.far.get(&(connection.zone, client)));
            Connection { far: far.copied(), ..*connection }
        };
        book.connections.iter().map(with_far_end).collect()
    }

    /// Those that last, and are open.
    pub(super) fn lasting(&self) -> Vec<Connection> {
        let lasting = |it: &Connection| it.is_open() && !it.short;
        self.connections().into_iter().filter(lasting).collect()
    }
}

impl Connection {
    /// The client's end, as the server knows it.
    fn client(&self) -> Option<SocketAddr> {
        let flow = self.flow?.directed();
        let ends = [(flow.src(), flow.src_port()), (flow.dst(), flow.dst_port())];
        ends.into_iter().find(|(_, port)| *port != PORT).map(SocketAddr::from)
    }
}

/// What appliances know a connection by: they see the server's private address.
fn flow(plan: &Plan, zone: usize, family: Family, client: SocketAddr) -> Option<CanonicalKey> {
    let server = SocketAddr::new(plan.zones[zone].server.address(family), PORT);
    FlowKey::new(client, server, protocol::TCP).ok().map(|key| key.canonical())
}

/// A record of a connection.
fn record(connection: u64, number: u64) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    for (index, eight) in record.chunks_exact_mut(8).enumerate() {
        let word = match index {
            0 => connection,
            1 => number,
            // Such that any exchange of bytes between records is seen.
            _ => (connection ^ (number << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15 + index as u64),
        };
        eight.copy_from_slice(&word.to_be_bytes());
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_differ_in_all_that_they_are_made_of() {
        assert_ne!(record(1, 2), record(2, 1));
        assert_ne!(record(1, 2)[16..], record(1, 3)[16..]);
        assert_eq!(record(7, 9)[..16], [0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 9]);
    }

    #[test]
    fn both_ends_of_a_connection_find_each_other() {
        let plan = Plan::of_failover("p".to_owned(), None);
        let client: SocketAddr = "203.0.113.10:40000".parse().unwrap();
        let connection = Connection {
            id: 0,
            zone: 0,
            short: false,
            flow: flow(&plan, 0, Family::V4, client),
            near: End::NEW,
            far: None,
        };
        assert_eq!(connection.client(), Some(client));
    }
}
