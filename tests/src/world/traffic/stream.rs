//! Much data in one TCP connection, with a hash at both ends.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use blake3::Hasher;

use super::{connect, listen};
use crate::world::patience::Patience;
use crate::world::{Family, Host, LIMIT, now};

/// What one write or read takes: much more than a super-packet.
const CHUNK: usize = 256 << 10;

/// How a stream is sent that leaves the machine time for others: a megabyte a second.
const GENTLE: Pace = Pace { chunk: 16 << 10, pause: Duration::from_millis(16) };

/// How fast a stream is sent.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// What one write takes, in bytes.
    chunk: usize,
    /// How long to wait after each.
    pause: Duration,
}

impl Pace {
    /// As fast as it can be.
    const NONE: Self = Self { chunk: CHUNK, pause: Duration::ZERO };
}

/// A connection over which data flows from one host to the other until it is told to end.
#[derive(Debug)]
pub struct Stream {
    progress: Arc<Progress>,
    sender: JoinHandle<(Hasher, u32)>,
    receiver: JoinHandle<(Hasher, Duration)>,
    started: std::time::Instant,
}

/// What went over a connection that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Transfer {
    /// Bytes of payload that arrived.
    pub bytes: u64,
    /// Whether they are those that were sent.
    pub identical: bool,
    /// From the connection's beginning to the last byte's arrival.
    pub duration: Duration,
    /// What a segment carries at most, in bytes, as the sender knew it in the end.
    pub mss: u32,
    /// The longest time between the arrival of two pieces of it.
    pub longest_pause: Duration,
}

#[derive(Debug, Default)]
struct Progress {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct State {
    received: u64,
    /// The sender goes no further than this.
    limit: Option<u64>,
    ended: bool,
}

impl Stream {
    /// Opens a connection and begins to send. Of what is sent there is no end.
    ///
    /// # Panics
    /// If the connection cannot be opened.
    pub fn start(from: &Host, to: &Host, family: Family) -> Self {
        Self::open(from, to, to.address(family), None, Pace::NONE)
    }

    /// Opens a connection and begins to send without end, but slowly: 1 MB/s at most. For tests in
    /// which many streams are to live, and none is to use up the machine.
    ///
    /// # Panics
    /// If the connection cannot be opened.
    pub fn gentle(from: &Host, to: &Host, family: Family) -> Self {
        Self::open(from, to, to.address(family), None, GENTLE)
    }

    /// Opens a connection and begins to send so many bytes.
    ///
    /// # Panics
    /// If the connection cannot be opened.
    pub fn of(from: &Host, to: &Host, family: Family, bytes: u64) -> Self {
        Self::open(from, to, to.address(family), Some(bytes), Pace::NONE)
    }

    /// Opens a connection to a host by an address that is not its own, and begins to send so many
    /// bytes.
    ///
    /// # Panics
    /// If the connection cannot be opened.
    pub fn by_address(from: &Host, to: &Host, address: IpAddr, bytes: u64) -> Self {
        Self::open(from, to, address, Some(bytes), Pace::NONE)
    }

    fn open(from: &Host, to: &Host, address: IpAddr, limit: Option<u64>, pace: Pace) -> Self {
        let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
        let listener = listen(to, family, 0);
        let address = SocketAddr::new(address, listener.local_addr().expect("bound").port());
        let progress = Arc::new(Progress::default());
        progress.change(|state| state.limit = limit);
        let seen = Arc::clone(&progress);
        let receiver = std::thread::spawn(move || receive(&listener, &seen));
        let started = now();
        let stream = connect(from, address, LIMIT)
            .unwrap_or_else(|error| panic!("connect to {address}: {error}"));
        let told = Arc::clone(&progress);
        let sender = std::thread::spawn(move || send(stream, &told, pace));
        Self { progress, sender, receiver, started }
    }

    /// Waits until so many more bytes have arrived.
    ///
    /// # Panics
    /// If the stream stands still.
    pub fn wait_for_more(&self, bytes: u64) {
        let goal = self.received() + bytes;
        self.progress.wait("more data", |state| state.received >= goal);
    }

    /// How many bytes have arrived.
    pub fn received(&self) -> u64 {
        self.progress.state().received
    }

    /// Ends the stream.
    ///
    /// # Panics
    /// If the stream stands still, breaks, or carried something else than was sent.
    pub fn finish(self) -> Transfer {
        let transfer = self.end();
        assert!(transfer.identical, "something else arrived than was sent");
        transfer
    }

    /// Ends the stream, and leaves the judgement to the caller.
    ///
    /// # Panics
    /// If the stream stands still or breaks.
    pub fn end(self) -> Transfer {
        self.progress.change(|state| {
            state.limit.get_or_insert(0);
        });
        self.progress.wait("the end", |state| state.ended);
        let duration = now().saturating_duration_since(self.started);
        let (sent, mss) = self.sender.join().expect("the sender");
        let (received, longest_pause) = self.receiver.join().expect("the receiver");
        let same = sent.count() == received.count() && sent.finalize() == received.finalize();
        Transfer { bytes: received.count(), identical: same, duration, mss, longest_pause }
    }
}

/// Sends so many bytes over a connection of its own, and compares what was sent with what arrived.
///
/// # Panics
/// As [`Stream::finish`].
pub fn transfer(from: &Host, to: &Host, family: Family, bytes: u64) -> Transfer {
    Stream::of(from, to, family, bytes).finish()
}

impl Transfer {
    /// Payload per second.
    pub fn gigabits_per_second(&self) -> f64 {
        self.bytes as f64 * 8e-9 / self.duration.as_secs_f64()
    }
}

fn send(mut stream: TcpStream, progress: &Progress, pace: Pace) -> (Hasher, u32) {
    let mut hasher = Hasher::new();
    let mut noise = vec![0; CHUNK];
    Hasher::new().update(b"noise").finalize_xof().fill(&mut noise);
    for number in 0_u64.. {
        // No two chunks are alike, so that none can stand for another.
        noise[..8].copy_from_slice(&number.to_le_bytes());
        let left =
            progress.state().limit.map_or(u64::MAX, |end| end.saturating_sub(hasher.count()));
        if left == 0 {
            break;
        }
        let chunk = &noise[..left.min(pace.chunk as u64) as usize];
        stream.write_all(chunk).expect("a connection that takes data");
        hasher.update(chunk);
        if !pace.pause.is_zero() {
            std::thread::sleep(pace.pause);
        }
    }
    let mss = socket2::SockRef::from(&stream).tcp_mss().expect("a TCP connection");
    stream.shutdown(Shutdown::Write).expect("an open connection");
    // The other end closes when it has everything; only then is the connection over.
    assert_eq!(stream.read(&mut [0]).expect("an orderly end"), 0);
    (hasher, mss)
}

fn receive(listener: &TcpListener, progress: &Progress) -> (Hasher, Duration) {
    let (mut stream, _) = listener.accept().expect("the connection");
    stream.set_read_timeout(Some(LIMIT)).expect("a socket");
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; CHUNK];
    let (mut last, mut longest) = (now(), Duration::ZERO);
    loop {
        let len = stream.read(&mut buffer).expect("data, or an orderly end");
        if len == 0 {
            break;
        }
        let arrived = now();
        longest = longest.max(arrived.saturating_duration_since(last));
        last = arrived;
        hasher.update(&buffer[..len]);
        progress.change(|state| state.received += len as u64);
    }
    progress.change(|state| state.ended = true);
    (hasher, longest)
}

impl Progress {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.more.notify_all();
    }

    /// Waits as long as data arrives.
    fn wait(&self, what: &str, reached: impl Fn(&State) -> bool) {
        let mut state = self.state();
        let (mut before, mut patience) = (state.received, Patience::new());
        while !reached(&state) {
            if std::mem::replace(&mut before, state.received) != state.received {
                patience = Patience::new();
            }
            let wait = patience.wait();
            let wait = wait.unwrap_or_else(|| {
                panic!("the stream stands still at {before} bytes, without {what}")
            });
            (state, _) =
                self.more.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
