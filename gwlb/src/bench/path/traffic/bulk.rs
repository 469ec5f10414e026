//! Much data over TCP, in one connection or several, from the client to the server.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use netio::tcp::TcpInfo;
use socket2::SockAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::network::Ends;
use super::{Count, Crew, GLANCE, PATIENCE, Shift, listen, open, server, tcp_socket};
use crate::lab::error::LabError;
use crate::runtime::clock;

/// Where the server listens.
const PORT: u16 = 5001;
/// What one write gives and one read takes at most: more than a super-packet.
const CHUNK: usize = 128 << 10;
/// What is sent.
const FILLING: u8 = 0x5a;
/// How long a paced sender sleeps when it is ahead.
const NAP: Duration = Duration::from_micros(200);
/// What a paced sender gives at once.
const PACED_CHUNK: usize = 64 << 10;

/// Who serves the connections at either end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Hands {
    /// One thread for all of them, which goes on with whichever is ready.
    One,
    /// A thread for each.
    Each,
}

/// Connections that carry data as fast as they can, or at a pace.
#[derive(Debug)]
pub(in super::super) struct Bulk {
    crew: Crew,
    received: Count,
    broken: Broken,
    senders: Vec<TcpStream>,
}

/// Why the first connection has ended that did so by itself.
#[derive(Clone, Debug, Default)]
struct Broken(Arc<OnceLock<String>>);

impl Broken {
    /// Notes how an end of a connection was done, unless it was over for all.
    fn note(&self, shift: &Shift, done: io::Result<()>) {
        if !shift.is_over() {
            let why = done.map_or_else(|error| error.to_string(), |()| "end of file".to_owned());
            self.0.get_or_init(|| why);
        }
    }
}

/// The client's end of a connection, and the server's.
type Connection = (TcpStream, TcpStream);

impl Bulk {
    /// One connection, which carries `pace` bytes in a second; without that, as much as it can.
    pub(in super::super) fn start(ends: &Ends, pace: Option<f64>) -> Result<Self, LabError> {
        let (mut bulk, connections) = Self::connect(ends, 1)?;
        bulk.serve_each(ends, connections, pace)?;
        Ok(bulk)
    }

    /// So many connections, which carry as much as they can.
    pub(in super::super) fn start_many(
        ends: &Ends,
        connections: usize,
        hands: Hands,
    ) -> Result<Self, LabError> {
        let (mut bulk, connections) = Self::connect(ends, connections)?;
        match hands {
            Hands::One => bulk.serve_all(ends, connections)?,
            Hands::Each => bulk.serve_each(ends, connections, None)?,
        }
        Ok(bulk)
    }

    /// Connections that carry nothing yet.
    fn connect(ends: &Ends, count: usize) -> Result<(Self, Vec<Connection>), LabError> {
        let to = SockAddr::from(server(PORT));
        let listener = open(&ends.server, "listen for TCP", || listen(PORT))?;
        let listener = TcpListener::from(listener);
        let (mut senders, mut connections) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let dial = || {
                let socket = tcp_socket()?;
                socket.connect_timeout(&to, PATIENCE)?;
                Ok(TcpStream::from(socket))
            };
            let sender = open(&ends.client, "connect to the server by TCP", dial)?;
            let accepted = listener.accept().map_err(LabError::io("accept a connection"))?;
            senders.push(sender.try_clone().map_err(LabError::io("share a socket"))?);
            connections.push((sender, accepted.0));
        }
        let (received, broken) = (Count::default(), Broken::default());
        Ok((Self { crew: Crew::default(), received, broken, senders }, connections))
    }

    fn serve_each(
        &mut self,
        ends: &Ends,
        connections: Vec<Connection>,
        pace: Option<f64>,
    ) -> Result<(), LabError> {
        for (sender, mut far_end) in connections {
            let (received, broken) = (self.received.clone(), self.broken.clone());
            self.crew.start(&ends.server, move |shift| {
                broken.note(shift, receive(&mut far_end, &received, shift));
            })?;
            let broken = self.broken.clone();
            self.crew.start(&ends.client, move |shift| {
                broken.note(shift, send(sender, pace, shift));
            })?;
        }
        Ok(())
    }

    fn serve_all(&mut self, ends: &Ends, connections: Vec<Connection>) -> Result<(), LabError> {
        let (senders, far_ends): (Vec<_>, Vec<_>) = connections.into_iter().unzip();
        let received = self.received.clone();
        let receive = move |stream| receive_in_turn(stream, received.clone());
        let broken = self.broken.clone();
        self.crew.start(&ends.server, move |shift| in_turn(far_ends, shift, &broken, receive))?;
        let broken = self.broken.clone();
        self.crew.start(&ends.client, move |shift| in_turn(senders, shift, &broken, send_in_turn))
    }

    /// Bytes that arrived so far.
    pub(in super::super) fn received(&self) -> u64 {
        self.received.get()
    }

    /// Why one of the connections has ended, if one has.
    pub(in super::super) fn broken(&self) -> Option<&str> {
        self.broken.0.get().map(String::as_str)
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

fn send(mut to: TcpStream, pace: Option<f64>, shift: &Shift) -> io::Result<()> {
    let data = vec![FILLING; CHUNK];
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
        to.write_all(chunk)?;
        sent += chunk.len() as u64;
    }
    Ok(())
}

fn receive(from: &mut TcpStream, received: &Count, shift: &Shift) -> io::Result<()> {
    // If the last segments get lost, nobody says that it is over.
    from.set_read_timeout(Some(PATIENCE))?;
    let mut room = vec![0; CHUNK];
    loop {
        match from.read(&mut room) {
            Ok(0) => return Ok(()),
            Ok(count) => received.add(count as u64),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !shift.is_over() => {}
            Err(error) => return Err(error),
        }
    }
}

/// Serves streams by the calling thread until it is over, and notes why one ends before.
fn in_turn<F: Future<Output = io::Result<()>> + Send + 'static>(
    streams: Vec<TcpStream>,
    shift: &Shift,
    broken: &Broken,
    serve: impl Fn(tokio::net::TcpStream) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let until_over = until_over(streams, shift, broken, serve);
    broken.note(shift, runtime.and_then(|runtime| runtime.block_on(until_over)));
}

async fn until_over<F: Future<Output = io::Result<()>> + Send + 'static>(
    streams: Vec<TcpStream>,
    shift: &Shift,
    broken: &Broken,
    serve: impl Fn(tokio::net::TcpStream) -> F,
) -> io::Result<()> {
    for stream in streams {
        stream.set_nonblocking(true)?;
        let served = serve(tokio::net::TcpStream::from_std(stream)?);
        let (shift, broken) = (shift.clone(), broken.clone());
        tokio::spawn(async move {
            let done = served.await;
            broken.note(&shift, done);
        });
    }
    while !shift.is_over() {
        tokio::time::sleep(GLANCE).await;
    }
    Ok(())
}

async fn send_in_turn(mut to: tokio::net::TcpStream) -> io::Result<()> {
    let data = vec![FILLING; CHUNK];
    loop {
        to.write_all(&data).await?;
    }
}

async fn receive_in_turn(mut from: tokio::net::TcpStream, received: Count) -> io::Result<()> {
    let mut room = vec![0; CHUNK];
    loop {
        match from.read(&mut room).await? {
            0 => return Ok(()),
            count => received.add(count as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread::ThreadId;

    use super::*;

    /// More than the kernel keeps for a connection that nobody reads.
    const MUCH: u64 = 64 << 20;

    fn streams(count: usize) -> (Vec<TcpStream>, Vec<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let connect = || (TcpStream::connect(to).unwrap(), listener.accept().unwrap().0);
        (0..count).map(|_| connect()).unzip()
    }

    /// Reads until there was much, and says who read.
    async fn tell(mut from: tokio::net::TcpStream, to: mpsc::Sender<ThreadId>) -> io::Result<()> {
        let (mut room, mut count) = (vec![0; CHUNK], 0);
        while count < MUCH {
            count += match from.read(&mut room).await? {
                0 => return Ok(()),
                read => read as u64,
            };
        }
        let _ = to.send(thread::current().id());
        receive_in_turn(from, Count::default()).await
    }

    #[test]
    fn one_thread_serves_many_streams_until_it_is_over() {
        let (senders, far_ends) = streams(3);
        let (told, heard) = mpsc::channel();
        let broken = Broken::default();
        // Dropped in any case, and so it is over for both, and waited for.
        let mut crew = Crew::default();
        let shift = || (Shift(Arc::clone(&crew.over)), broken.clone());
        let ((sending, receiving), tell) = ((shift(), shift()), move |it| tell(it, told.clone()));
        let sends = thread::spawn(move || in_turn(senders, &sending.0, &sending.1, send_in_turn));
        let reads = thread::spawn(move || in_turn(far_ends, &receiving.0, &receiving.1, tell));
        let reader = reads.thread().id();
        crew.threads.extend([sends, reads]);
        for _ in 0..3 {
            assert_eq!(heard.recv_timeout(10 * PATIENCE).unwrap(), reader);
        }
        assert_eq!(broken.0.get(), None);
        drop(crew);
        assert!(heard.recv().is_err(), "nobody is left who could tell");
    }

    #[test]
    fn a_stream_that_ends_by_itself_is_noted() {
        for hands in [Hands::One, Hands::Each] {
            let (mut senders, mut far_ends) = streams(2);
            let broken = Broken::default();
            let mut crew = Crew::default();
            let (shift, noted) = (Shift(Arc::clone(&crew.over)), broken.clone());
            crew.threads.push(thread::spawn(move || match hands {
                Hands::One => {
                    let read = |stream| receive_in_turn(stream, Count::default());
                    in_turn(far_ends, &shift, &noted, read);
                }
                Hands::Each => {
                    let done = receive(&mut far_ends[1], &Count::default(), &shift);
                    noted.note(&shift, done);
                }
            }));
            drop(senders.pop());
            let end = clock::now() + 10 * PATIENCE;
            while broken.0.get().is_none() {
                assert!(clock::now() < end, "nobody has noticed");
                thread::yield_now();
            }
            assert_eq!(broken.0.get().unwrap(), "end of file");
        }
    }

    #[test]
    fn what_ends_when_it_is_over_is_not_noted() {
        let (broken, over) = (Broken::default(), Shift(Arc::new(true.into())));
        broken.note(&over, Err(io::ErrorKind::BrokenPipe.into()));
        assert_eq!(broken.0.get(), None);
    }
}
