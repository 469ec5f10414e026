//! Requests and answers, one at a time, and how long each took.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;

use hdrhistogram::Histogram;
use parking_lot::Mutex;

use super::super::network::{CLIENT, Ends};
use super::{Count, Crew, GLANCE, Shift, open, server};
use crate::lab::error::LabError;
use crate::runtime::clock;

/// Where the server answers.
const PORT: u16 = 7;
/// The client's, so that every measurement is the same flow.
const CLIENT_PORT: u16 = 19_999;
/// Bytes of a request: its number, and as many more as make a small record.
const REQUEST: usize = 64;
/// Until a request counts as lost. Full queues on the way hold packets for some milliseconds.
const LOST: std::time::Duration = std::time::Duration::from_millis(100);
/// The longest time that is told apart from longer ones, in nanoseconds.
const LONGEST: u64 = 10_000_000_000;
/// Decimal digits of a recorded time that are right.
const DIGITS: u8 = 3;

/// A running client that asks, with a server that answers.
#[derive(Debug)]
pub(in super::super) struct Echo {
    times: Arc<Mutex<Histogram<u64>>>,
    lost: Count,
    _crew: Crew,
}

impl Echo {
    /// Starts to ask.
    pub(in super::super) fn start(ends: &Ends) -> Result<Self, LabError> {
        let times = Histogram::new_with_bounds(1, LONGEST, DIGITS).map_err(io::Error::other);
        let times = Arc::new(Mutex::new(times.map_err(LabError::io("make a histogram"))?));
        let mut crew = Crew::default();
        let socket = |address, patience| {
            let socket = UdpSocket::bind(address)?;
            socket.set_read_timeout(Some(patience))?;
            Ok(socket)
        };
        let service = open(&ends.server, "serve an echo", || socket(server(PORT), GLANCE))?;
        crew.start(&ends.server, move |shift| answer(&service, shift))?;
        let client = SocketAddr::new(IpAddr::V4(CLIENT.0), CLIENT_PORT);
        let client = open(&ends.client, "ask for an echo", || {
            let socket = socket(client, LOST)?;
            socket.connect(server(PORT))?;
            Ok(socket)
        })?;
        let lost = Count::default();
        let (book, losses) = (Arc::clone(&times), lost.clone());
        crew.start(&ends.client, move |shift| ask(&client, &book, &losses, shift))?;
        Ok(Self { times, lost, _crew: crew })
    }

    /// Forgets what was measured so far.
    pub(in super::super) fn forget(&self) {
        self.times.lock().reset();
    }

    /// The times measured since, in nanoseconds.
    pub(in super::super) fn times(&self) -> Histogram<u64> {
        self.times.lock().clone()
    }

    /// Requests so far that nobody answered in time.
    pub(in super::super) fn lost(&self) -> u64 {
        self.lost.get()
    }
}

fn answer(socket: &UdpSocket, shift: &Shift) {
    let mut request = [0; REQUEST];
    while !shift.is_over() {
        if let Ok((len, from)) = socket.recv_from(&mut request) {
            let _ = socket.send_to(&request[..len], from);
        }
    }
}

fn ask(socket: &UdpSocket, times: &Mutex<Histogram<u64>>, lost: &Count, shift: &Shift) {
    let (mut request, mut answer) = ([0; REQUEST], [0; REQUEST]);
    let mut number = 0_u64;
    while !shift.is_over() {
        number += 1;
        request[..8].copy_from_slice(&number.to_be_bytes());
        let start = clock::now();
        let mut answered = socket.send(&request).is_ok();
        // An answer that comes too late is not that of the next request.
        while answered && answer != request {
            answered = socket.recv(&mut answer).is_ok();
        }
        if answered {
            let time = clock::now().saturating_duration_since(start).as_nanos();
            times.lock().saturating_record(u64::try_from(time).unwrap_or(u64::MAX));
        } else {
            lost.add(1);
        }
    }
}
