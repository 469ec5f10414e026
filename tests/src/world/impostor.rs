//! An appliance that cannot be trusted: it returns what it gets, as it should, and each time
//! something else besides. The canary it keeps to itself, as all of them do.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use geneve::PORT;

use super::World;
use super::canary::is_marked;
use super::raw::RawSender;
use super::rogue::{Genuine, envelope};

/// How often an idle impostor looks whether it should end.
const GLANCE: Duration = Duration::from_millis(50);

/// Makes, of a datagram that the impostor got, those that it sends besides.
pub type Misdeed = dyn Fn(&Genuine) -> Vec<Vec<u8>> + Send;

/// What stands at a target's address.
#[derive(Debug)]
pub struct Impostor {
    ending: Arc<AtomicBool>,
    done: Arc<Done>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Done {
    honest: AtomicU64,
    besides: AtomicU64,
}

impl Impostor {
    /// Takes the place of the appliance with that number.
    ///
    /// # Panics
    /// If the appliance runs, or raw sockets are not allowed.
    pub fn start(world: &World, number: usize, misdeed: Box<Misdeed>) -> Self {
        let site = &world.appliances[number];
        let target = world.plan.target(number);
        let socket = site.run(|| UdpSocket::bind((target, PORT))).expect("a place that is free");
        socket.set_read_timeout(Some(GLANCE)).expect("a socket");
        let sender = RawSender::new(site);
        let (ending, done) = (Arc::new(AtomicBool::new(false)), Arc::new(Done::default()));
        let (end, counted) = (Arc::clone(&ending), Arc::clone(&done));
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !end.load(Ordering::Acquire) {
                let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
                if is_marked(&buffer[..len]) {
                    continue;
                }
                // An answer goes back with the same two ports, in the same places.
                let answer = |datagram: &[u8]| {
                    let source = SocketAddr::new(target, from.port());
                    envelope(source, SocketAddr::new(from.ip(), PORT), datagram)
                };
                let mut packets = vec![answer(&buffer[..len])];
                if let Some(genuine) = Genuine::read(from.port(), &buffer[..len]) {
                    packets.extend(misdeed(&genuine).iter().map(|datagram| answer(datagram)));
                }
                // While a fault lasts there may be no way back.
                if sender.send(&packets).is_ok() {
                    counted.honest.fetch_add(1, Ordering::Relaxed);
                    counted.besides.fetch_add(packets.len() as u64 - 1, Ordering::Relaxed);
                }
            }
        });
        Self { ending, done, thread: Some(thread) }
    }

    /// How many datagrams it returned as it got them.
    pub fn honest(&self) -> u64 {
        self.done.honest.load(Ordering::Relaxed)
    }

    /// How many it sent besides.
    pub fn besides(&self) -> u64 {
        self.done.besides.load(Ordering::Relaxed)
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
