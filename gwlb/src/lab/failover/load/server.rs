//! The server's side of the load: gives every record back, and looks whether it is the next one.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use netio::netns::Netns;
use netio::tcp::TcpInfo;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::{Book, End, PORT, RECORD, State, record};
use crate::lab::error::LabError;
use crate::runtime::clock;

/// Starts a server's thread; it ends when what this gives is dropped.
pub(super) fn start(
    netns: &Netns,
    number: usize,
    book: &Arc<Mutex<Book>>,
) -> Result<oneshot::Sender<()>, LabError> {
    let what = || format!("listen on port {PORT}");
    let any = SocketAddr::from(([0_u16; 8], PORT));
    let listener = netns.run(move || std::net::TcpListener::bind(any))?;
    let listener = listener.map_err(LabError::io(what()))?;
    listener.set_nonblocking(true).map_err(LabError::io(what()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(LabError::io("start the servers"))?;
    let (alive, over) = oneshot::channel::<()>();
    let book = Arc::clone(book);
    netns.spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                served = serve(listener, number, book) => {
                    if let Err(error) = served {
                        tracing::warn!(%error, "a server of the load ended");
                    }
                }
                _ = over => {}
            }
        });
    })?;
    Ok(alive)
}

async fn serve(
    listener: std::net::TcpListener,
    number: usize,
    book: Arc<Mutex<Book>>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, client) = listener.accept().await?;
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        let book = Arc::clone(&book);
        tokio::spawn(async move {
            let place = (number, client);
            book.lock().far.insert(place, End { state: State::Open, ..End::NEW });
            let end = Far { place, book: &book };
            let mut stream = stream;
            let outcome = end.answer(&mut stream).await;
            end.note_tcp(&stream);
            let now = clock::now();
            end.note(|end| match outcome {
                Ok(()) => end.state = State::Closed,
                Err(error) => end.fail(now, &error),
            });
        });
    }
}

/// The server's end of a connection.
struct Far<'b> {
    place: (usize, SocketAddr),
    book: &'b Mutex<Book>,
}

impl Far<'_> {
    async fn answer(&self, stream: &mut TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut room = [0; RECORD];
        let mut received = 0;
        loop {
            match stream.read_exact(&mut room).await {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            }
            received += 1;
            let mut connection = [0; 8];
            connection.copy_from_slice(&room[..8]);
            let right = room == record(u64::from_be_bytes(connection), received);
            let now = clock::now();
            self.note(|end| {
                (end.received, end.last_received) = (received, Some(now));
                (end.sent, end.last_sent) = (received, Some(now));
                end.wrong += u64::from(!right);
            });
            stream.write_all(&room).await?;
            self.note_tcp(stream);
        }
    }

    fn note_tcp(&self, stream: &TcpStream) {
        if let Ok(tcp) = TcpInfo::of(stream) {
            self.note(|end| end.tcp = tcp);
        }
    }

    fn note(&self, change: impl FnOnce(&mut End)) {
        if let Some(end) = self.book.lock().far.get_mut(&self.place) {
            change(end);
        }
    }
}
