//! Packets that no appliance lets pass. Should one of them arrive, or any other that bears the same
//! mark, then something was delivered that nobody inspected.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Protocol};

use super::raw::Listener;
use super::{Family, Host, World, unspecified};

/// What every packet bears that must not arrive: those of a canary, and those that rogues make up.
pub const MARK: &[u8; 16] = b"may never arrive";

/// The port that the appliances' rules deny: "discard" (RFC 863).
pub const PORT: u16 = 9;

/// The name of that rule.
const RULE: &str = "canary";

/// The port that floods go to, which the appliances deny as well: "chargen" (RFC 864).
pub const FLOOD_PORT: u16 = 19;

/// The name of that rule.
const FLOOD_RULE: &str = "flood";

/// Rules for the sample firewall: everything may pass but the canary and floods.
pub fn rules() -> String {
    let deny = |name: &str, port: u16| {
        format!(
            "[[rule]]\nname = \"{name}\"\naction = \"deny\"\nprotocol = \"udp\"\nports = [{port}]\n"
        )
    };
    let (canary, flood) = (deny(RULE, PORT), deny(FLOOD_RULE, FLOOD_PORT));
    format!("default = \"allow\"\npick_up = true\n{canary}{flood}")
}

/// Between two rounds: a packet in each direction and family.
const ROUND: Duration = Duration::from_millis(5);

/// How many rounds are of one flow, before the next ones are of a new one.
const ROUNDS_OF_A_FLOW: u64 = 64;

/// Sends what must not arrive, all the time, from the client to the servers and back.
#[derive(Debug)]
pub struct Canary {
    sent: Arc<AtomicU64>,
    /// How many have arrived.
    marked: Arc<AtomicU64>,
    hushed: Arc<AtomicBool>,
    stop: mpsc::Sender<()>,
    thread: JoinHandle<()>,
    /// On each host, for IPv4 and IPv6.
    watchers: Vec<Listener<Arrived>>,
}

/// What arrived at a host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Arrived {
    /// UDP datagrams of any kind.
    pub datagrams: u64,
    /// Those with the mark.
    pub marked: u64,
}

impl Canary {
    /// Begins to watch all hosts, and to send.
    pub fn start(world: &World) -> Self {
        let marked = Arc::new(AtomicU64::new(0));
        let watchers = hosts(world).flat_map(|host| watch(host, &marked)).collect();
        let sent = Arc::new(AtomicU64::new(0));
        let hushed = Arc::new(AtomicBool::new(false));
        let silent = Arc::clone(&hushed);
        let (stop, stopped) = mpsc::channel();
        let counter = Arc::clone(&sent);
        let netns = hosts(world).map(|host| host.netns().clone()).collect::<Vec<_>>();
        let families = [Family::V4, Family::V6];
        let address = |host: &Host, family| SocketAddr::new(host.address(family), PORT);
        let mut ways = Vec::new();
        for (number, server) in world.servers.iter().enumerate() {
            for family in families {
                ways.push((0, address(server, family)));
                ways.push((number + 1, address(&world.client, family)));
            }
        }
        let thread = std::thread::spawn(move || {
            let open = |(from, to): &(usize, SocketAddr)| {
                let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
                let bind = || UdpSocket::bind((unspecified(family), 0)).expect("a free port");
                (netns[*from].run(bind).expect("our own namespace"), *to)
            };
            let mut sockets = Vec::new();
            for round in 0.. {
                if round % ROUNDS_OF_A_FLOW == 0 {
                    sockets = ways.iter().map(open).collect();
                }
                for (socket, to) in &sockets {
                    if silent.load(Ordering::Acquire) {
                        break;
                    }
                    // There may be no way at all while a fault lasts.
                    if socket.send_to(MARK, to).is_ok() {
                        counter.fetch_add(1, Ordering::Relaxed);
                    }
                }
                if stopped.recv_timeout(ROUND) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        Self { sent, marked, hushed, stop, thread, watchers }
    }

    /// Sends nothing for as long as this is `true`.
    pub fn hush(&self, silent: bool) {
        self.hushed.store(silent, Ordering::Release);
    }

    /// How many packets with the mark have arrived so far.
    pub fn arrived(&self) -> u64 {
        self.marked.load(Ordering::Relaxed)
    }

    /// How many packets were sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Sends no more, and watches on.
    #[must_use]
    pub fn fall_silent(self) -> Silent {
        let _ = self.stop.send(());
        self.thread.join().expect("a thread that only sends");
        Silent { sent: self.sent.load(Ordering::Relaxed), watchers: self.watchers }
    }
}

/// A canary that sends no more.
#[derive(Debug)]
pub struct Silent {
    /// How many packets it has sent.
    pub sent: u64,
    watchers: Vec<Listener<Arrived>>,
}

impl Silent {
    /// What arrived until now, at all hosts together.
    pub fn arrived(self) -> Arrived {
        let arrived = self.watchers.into_iter().map(Listener::take);
        arrived.fold(Arrived::default(), |sum, more| Arrived {
            datagrams: sum.datagrams + more.datagrams,
            marked: sum.marked + more.marked,
        })
    }
}

/// How often the appliances have denied it, by what they say themselves.
pub fn denied(report: &super::status::Report) -> u64 {
    report.hits(RULE)
}

/// How many packets of floods an appliance has denied, by what it says itself.
pub fn flood_denied(report: &super::status::Report) -> u64 {
    report.hits(FLOOD_RULE)
}

/// Whether there is the mark in it.
pub fn is_marked(packet: &[u8]) -> bool {
    packet.windows(MARK.len()).any(|bytes| bytes == MARK)
}

fn hosts(world: &World) -> impl Iterator<Item = &Host> {
    std::iter::once(&world.client).chain(&world.servers)
}

fn watch(host: &Host, counter: &Arc<AtomicU64>) -> [Listener<Arrived>; 2] {
    [Domain::IPV4, Domain::IPV6].map(|domain| {
        let counter = Arc::clone(counter);
        Listener::start(host, domain, Protocol::UDP, Arrived::default(), move |arrived, packet| {
            let marked = u64::from(is_marked(packet));
            arrived.datagrams += 1;
            arrived.marked += marked;
            counter.fetch_add(marked, Ordering::Relaxed);
        })
    })
}
