//! The client's side of the load: all connections in one thread inside the client's namespace.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use netio::netns::Netns;
use netio::tcp::TcpInfo;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior, interval, interval_at, timeout};

use super::{Book, Connection, End, Mode, PACE, PORT, RECORD, SHORT, SHORT_PACE, State, record};
use crate::lab::error::LabError;
use crate::lab::plan::{Family, Plan};
use crate::runtime::clock;

/// How long a connection may take to be opened: two repetitions of a SYN, and more.
const PATIENCE: Duration = Duration::from_secs(5);

/// The ports of the connections: fewer than there are below those that the kernel gives out.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// What the load is to do.
#[derive(Debug)]
pub(super) enum Command {
    Open { zone: usize, count: usize },
    Short { zone: Option<usize> },
}

/// Starts the client's thread, which ends when nobody can give it orders any more.
pub(super) fn start(
    netns: &Netns,
    plan: Plan,
    orders: mpsc::UnboundedReceiver<Command>,
    book: &Arc<Mutex<Book>>,
) -> Result<(), LabError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(LabError::io("start the load"))?;
    let client = Client { plan, book: Arc::clone(book) };
    netns.spawn(move || runtime.block_on(client.drive(orders)))?;
    Ok(())
}

struct Client {
    plan: Plan,
    book: Arc<Mutex<Book>>,
}

impl Client {
    async fn drive(self, mut orders: mpsc::UnboundedReceiver<Command>) {
        let mut short_zone = None;
        let mut beat = beat(SHORT_PACE, Duration::ZERO);
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Command::Open { zone, count }) => {
                        for _ in 0..count {
                            self.open(zone, false);
                        }
                    }
                    Some(Command::Short { zone }) => short_zone = zone,
                    None => return,
                },
                _ = beat.tick(), if short_zone.is_some() => {
                    if let Some(zone) = short_zone {
                        self.open(zone, true);
                    }
                }
            }
        }
    }

    fn open(&self, zone: usize, short: bool) {
        let mut book = self.book.lock();
        let id = book.connections.len();
        let family = Family::BOTH[id % 2];
        let (sender, mode) = watch::channel(Mode::Run);
        book.modes.push(sender);
        let (flow, near, far) = (None, End::NEW, None);
        book.connections.push(Connection { id, zone, short, flow, near, far });
        drop(book);
        let to = SocketAddr::new(self.plan.zones[zone].server.public_address(family), PORT);
        let (plan, book) = (self.plan.clone(), Arc::clone(&self.book));
        tokio::spawn(async move {
            let talk = Talk { id: id as u64, short, book: &book, unanswered: VecDeque::new() };
            let opened = timeout(PATIENCE, connect(id, to)).await;
            let opened = opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            match opened {
                Ok(stream) => {
                    let client = stream.local_addr().ok();
                    talk.note(|connection| {
                        let flow = client.and_then(|it| super::flow(&plan, zone, family, it));
                        connection.flow = flow;
                        connection.near.state = State::Open;
                    });
                    talk.hold(stream, mode).await;
                }
                Err(error) => talk.end(&Err(error)),
            }
        });
    }
}

/// Connects from a port that no other connection of the play has had. The kernel would soon give out
/// that of a connection that was reset, and the gateway has whoever goes on after a reset keep its
/// target: it may be a forged one.
async fn connect(id: usize, to: SocketAddr) -> io::Result<TcpStream> {
    let (any, socket): (IpAddr, _) = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), TcpSocket::new_v4()?),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED.into(), TcpSocket::new_v6()?),
    };
    let port = PORTS.start + (id % PORTS.len()) as u16;
    socket.bind(SocketAddr::new(any, port))?;
    socket.connect(to).await
}

/// A beat that does not hurry when it was late: a load that catches up is no steady one.
fn beat(pace: Duration, phase: Duration) -> Interval {
    let mut beat = match phase {
        Duration::ZERO => interval(pace),
        phase => interval_at(tokio::time::Instant::now() + phase, pace),
    };
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat
}

/// A connection's work.
struct Talk<'b> {
    id: u64,
    short: bool,
    book: &'b Mutex<Book>,
    /// When the records were sent that no answer has come to.
    unanswered: VecDeque<Instant>,
}

impl Talk<'_> {
    async fn hold(mut self, mut stream: TcpStream, mode: watch::Receiver<Mode>) {
        let outcome = self.converse(&mut stream, mode).await;
        self.note_tcp(&stream);
        self.end(&outcome);
    }

    async fn converse(
        &mut self,
        stream: &mut TcpStream,
        mut mode: watch::Receiver<Mode>,
    ) -> io::Result<()> {
        stream.set_nodelay(true)?;
        // Spread over the beat, so that the load is steady.
        let phase = PACE.mul_f64((self.id % 97) as f64 / 97.0);
        let mut beat = beat(PACE, phase);
        let (mut sent, mut received) = (0, 0);
        let mut room = [0; 16 * RECORD];
        let mut filled = 0;
        let mut closing = false;
        loop {
            let wish = *mode.borrow();
            let over = wish == Mode::Close || (self.short && sent == SHORT);
            if over && !closing && received == sent {
                stream.shutdown().await?;
                closing = true;
            }
            tokio::select! {
                changed = mode.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
                _ = beat.tick(), if wish == Mode::Run && !over => {
                    let now = clock::now();
                    self.unanswered.push_back(now);
                    sent += 1;
                    self.note(|it| (it.near.sent, it.near.last_sent) = (sent, Some(now)));
                    stream.write_all(&record(self.id, sent)).await?;
                }
                read = stream.read(&mut room[filled..]) => {
                    let read = read?;
                    if read == 0 {
                        let early = io::ErrorKind::UnexpectedEof;
                        return if closing { Ok(()) } else { Err(early.into()) };
                    }
                    filled += read;
                    let whole = filled / RECORD * RECORD;
                    for answer in room[..whole].chunks_exact(RECORD) {
                        received += 1;
                        self.take(answer, received);
                    }
                    room.copy_within(whole..filled, 0);
                    filled -= whole;
                    self.note_tcp(stream);
                }
            }
        }
    }

    fn take(&mut self, answer: &[u8], number: u64) {
        let now = clock::now();
        let sent = self.unanswered.pop_front();
        let took = sent.map(|sent| now.saturating_duration_since(sent)).unwrap_or_default();
        let right = answer == record(self.id, number);
        self.note(|connection| {
            let near = &mut connection.near;
            near.received = number;
            near.last_received = Some(now);
            near.wrong += u64::from(!right);
            near.slowest = near.slowest.max(took);
        });
    }

    fn note_tcp(&self, stream: &TcpStream) {
        if let Ok(tcp) = TcpInfo::of(stream) {
            self.note(|connection| connection.near.tcp = tcp);
        }
    }

    fn end(&self, outcome: &io::Result<()>) {
        let now = clock::now();
        self.note(|connection| match outcome {
            Ok(()) => connection.near.state = State::Closed,
            Err(error) => connection.near.fail(now, error),
        });
    }

    fn note(&self, change: impl FnOnce(&mut Connection)) {
        if let Some(connection) = self.book.lock().connections.get_mut(self.id as usize) {
            change(connection);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// What the book says of a connection whose server does `serve`.
    fn held(serve: impl AsyncFnOnce(TcpStream)) -> Connection {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let near = End { state: State::Open, ..End::NEW };
        let connection = Connection { id: 0, zone: 0, short: true, flow: None, near, far: None };
        let book = Mutex::new(Book { connections: vec![connection], ..Book::default() });
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (accepted, _) = listener.accept().await.unwrap();
            let talk = Talk { id: 0, short: true, book: &book, unanswered: VecDeque::new() };
            let (_mode, watched) = watch::channel(Mode::Run);
            tokio::join!(talk.hold(stream, watched), serve(accepted));
        });
        book.into_inner().connections[0]
    }

    #[test]
    fn a_short_connection_ends_in_order_when_all_is_answered() {
        let connection = held(async |mut server| {
            let (mut from, mut to) = server.split();
            tokio::io::copy(&mut from, &mut to).await.unwrap();
        });
        assert_eq!(connection.near.state, State::Closed);
        let End { sent, received, wrong, .. } = connection.near;
        assert_eq!((sent, received, wrong), (SHORT, SHORT, 0));
    }

    #[test]
    fn a_changed_record_and_a_reset_are_noticed() {
        let connection = held(async |mut server| {
            let mut record = [0; RECORD];
            server.read_exact(&mut record).await.unwrap();
            record[RECORD - 1] ^= 1;
            server.write_all(&record).await.unwrap();
            server.read_exact(&mut record).await.unwrap();
            socket2::SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
        });
        assert!(connection.near.reset_at().is_some(), "{:?}", connection.near.state);
        let End { sent, received, wrong, .. } = connection.near;
        assert_eq!((sent, received, wrong), (2, 1, 1));
    }

    #[test]
    fn an_early_end_is_a_failure() {
        let connection = held(async |server| drop(server));
        assert!(matches!(connection.near.state, State::Failed(_, io::ErrorKind::UnexpectedEof)));
    }
}
