//! The sockets of one worker on one outer address: one that receives, and one for each source port.
//!
//! A flow keeps its source port for life, and segmentation offload works per socket, so each port
//! has a socket of its own. The ports lie above the kernel's default range for outgoing
//! connections (`net.ipv4.ip_local_port_range`, up to 60999), so nothing else takes them.

use std::io;
use std::net::{IpAddr, SocketAddr};

use netio::packet::{BadChecksums, BadChecksumsConfig};
use netio::udp::{UdpConfig, UdpSocket};

use crate::dataplane::encap::HOP_LIMIT;

/// The first source port of the pool.
pub(super) const FIRST_SOURCE_PORT: u16 = 61_000;

/// The sockets of one worker on one outer address.
#[derive(Debug)]
pub(super) struct Underlay {
    pub address: IpAddr,
    /// One for each port that targets use: they answer to the port that was sent to.
    pub receivers: Vec<UdpSocket>,
    /// The same for what the kernel would throw away for its UDP checksum, where that is wanted.
    pub bad_checksums: Vec<BadChecksums>,
    /// By the number of the port in the worker's slice.
    pub senders: Vec<UdpSocket>,
    /// What the kernel granted them of the buffers that were wanted, at the least.
    pub granted: Buffers,
}

/// The sizes of a socket's buffers, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Buffers {
    /// For what it receives.
    pub receive: usize,
    /// For what it sends.
    pub send: usize,
}

impl Buffers {
    /// The smaller of both, one by one.
    pub fn least(self, other: Self) -> Self {
        Self { receive: self.receive.min(other.receive), send: self.send.min(other.send) }
    }

    /// Where less was granted than these: the sysctl that limits it, and both sizes.
    pub fn shortfalls(self, granted: Self) -> impl Iterator<Item = (&'static str, usize, usize)> {
        let both = [
            ("net.core.rmem_max", self.receive, granted.receive),
            ("net.core.wmem_max", self.send, granted.send),
        ];
        both.into_iter().filter(|(_, asked, granted)| granted < asked)
    }
}

/// What sockets are to be opened: for one outer address, in the calling thread's namespace.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub address: IpAddr,
    /// The Geneve ports on which targets answer.
    pub ports: Vec<u16>,
    pub workers: u16,
    /// By worker; none where sockets for this address are there already, and only ports are added.
    pub source_ports: u16,
    pub dont_fragment: bool,
    pub tolerate_bad_checksum: bool,
    /// What the kernel is asked for; it may grant less.
    pub buffers: Buffers,
}

/// A socket that could not be opened.
#[derive(Debug)]
pub(super) struct OpenError {
    pub address: SocketAddr,
    pub error: io::Error,
}

impl Underlay {
    /// Opens the sockets of every worker for one outer address, in the calling thread's namespace.
    ///
    /// The kernel gives what arrives to the worker in whose slice the source port lies, which is
    /// the owner of the flow.
    pub fn open_all(wanted: &Wanted) -> Result<Vec<Self>, OpenError> {
        let Wanted { address, workers, .. } = *wanted;
        let mut all: Vec<_> = (0..workers)
            .map(|_| Self {
                address,
                receivers: Vec::new(),
                bad_checksums: Vec::new(),
                senders: Vec::new(),
                granted: wanted.buffers,
            })
            .collect();
        for &port in &wanted.ports {
            let fail = |error| OpenError { address: SocketAddr::new(address, port), error };
            // The n-th socket of the group is the n-th worker's.
            for underlay in &mut all {
                underlay.receivers.push(open(wanted, port, true)?);
            }
            if let Some(last) = all.last() {
                last.receivers[last.receivers.len() - 1]
                    .steer_by_source_port(u32::from(workers))
                    .map_err(fail)?;
            }
        }
        if wanted.tolerate_bad_checksum && !wanted.ports.is_empty() {
            for (worker, underlay) in all.iter_mut().enumerate() {
                let config = BadChecksumsConfig {
                    address,
                    ports: wanted.ports.clone(),
                    worker: worker as u32,
                    workers: workers.into(),
                    recv_buffer: wanted.buffers.receive,
                };
                let fail = |error| OpenError { address: SocketAddr::new(address, 0), error };
                underlay.bad_checksums.push(BadChecksums::open(&config).map_err(fail)?);
            }
        }
        for (worker, underlay) in all.iter_mut().enumerate() {
            for slot in 0..wanted.source_ports {
                let port = source_port(worker as u16, slot, workers);
                underlay.senders.push(open(wanted, port, false)?);
            }
        }
        for underlay in &mut all {
            let fail = |error| OpenError { address: SocketAddr::new(address, 0), error };
            underlay.granted = underlay.ask_granted(wanted.buffers).map_err(fail)?;
        }
        Ok(all)
    }

    /// What the kernel granted of the buffers that were wanted, to whom it granted least.
    fn ask_granted(&self, wanted: Buffers) -> io::Result<Buffers> {
        let mut granted = wanted;
        for receiver in &self.receivers {
            granted.receive = granted.receive.min(receiver.recv_buffer()?);
        }
        for receiver in &self.bad_checksums {
            granted.receive = granted.receive.min(receiver.recv_buffer()?);
        }
        for sender in &self.senders {
            granted.send = granted.send.min(sender.send_buffer()?);
        }
        Ok(granted)
    }

    /// System calls so far.
    pub fn syscalls(&self) -> u64 {
        let udp = self.receivers.iter().chain(&self.senders).map(UdpSocket::syscalls);
        udp.chain(self.bad_checksums.iter().map(BadChecksums::syscalls)).sum()
    }

    /// Datagrams that were longer than any buffer.
    pub fn truncated(&self) -> u64 {
        let udp = self.receivers.iter().map(UdpSocket::truncated);
        udp.chain(self.bad_checksums.iter().map(BadChecksums::truncated)).sum()
    }

    /// Datagrams lost in the kernel's receive queues.
    pub fn kernel_drops(&mut self) -> u64 {
        // A socket that cannot be asked keeps its last count out of the sum; it does not happen.
        let udp = self.receivers.iter_mut().map(UdpSocket::kernel_drops);
        let bad = self.bad_checksums.iter_mut().map(BadChecksums::kernel_drops);
        udp.chain(bad).filter_map(Result::ok).sum()
    }
}

/// The port in the n-th slot of a worker's slice: the ports of worker w are those that are w modulo
/// the number of workers, which is how the kernel finds the owner of what comes back.
pub(super) fn source_port(worker: u16, slot: u16, workers: u16) -> u16 {
    let first = FIRST_SOURCE_PORT.next_multiple_of(workers);
    first + slot * workers + worker
}

/// How many source ports each of `workers` can have.
pub(super) fn most_source_ports(workers: u16) -> u16 {
    (u16::MAX - FIRST_SOURCE_PORT.next_multiple_of(workers)) / workers
}

fn open(wanted: &Wanted, port: u16, receives: bool) -> Result<UdpSocket, OpenError> {
    let bind = SocketAddr::new(wanted.address, port);
    let config = UdpConfig {
        bind,
        reuse_port: receives,
        gro: receives,
        recv_buffer: if receives { wanted.buffers.receive } else { 0 },
        send_buffer: if receives { 0 } else { wanted.buffers.send },
        dont_fragment: wanted.dont_fragment,
    };
    UdpSocket::bind(&config)
        .and_then(|socket| socket.set_hop_limit(HOP_LIMIT).map(|()| socket))
        .map_err(|error| OpenError { address: bind, error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_granted_is_asked_of_every_socket() {
        let wanted = |buffers| Wanted {
            address: IpAddr::from([127, 0, 0, 1]),
            ports: vec![0],
            workers: 1,
            source_ports: 0,
            dont_fragment: false,
            tolerate_bad_checksum: false,
            buffers,
        };
        let modest = Buffers { receive: 100_000, send: 100_000 };
        let granted = Underlay::open_all(&wanted(modest)).unwrap().remove(0).granted;
        assert_eq!(granted, modest);
        assert_eq!(modest.shortfalls(granted).count(), 0);

        let greedy = Buffers { receive: 1 << 30, send: 1 << 30 };
        let granted = Underlay::open_all(&wanted(greedy)).unwrap().remove(0).granted;
        // One more than the kernel ever takes. Nothing sends, and so nothing was refused there.
        assert!(granted.receive < greedy.receive, "{granted:?}");
        let told: Vec<_> = greedy.shortfalls(granted).collect();
        assert_eq!(told, [("net.core.rmem_max", 1 << 30, granted.receive)]);
        let none = Buffers { receive: 0, send: 0 };
        assert_eq!(granted.least(none), none);
        assert_eq!(granted.least(modest), modest);
    }

    #[test]
    fn ports_name_their_owner() {
        for workers in [1, 2, 3, 7] {
            let mut seen = std::collections::BTreeSet::new();
            for worker in 0..workers {
                for slot in 0..most_source_ports(workers) {
                    let port = source_port(worker, slot, workers);
                    assert_eq!(port % workers, worker);
                    assert!(port >= FIRST_SOURCE_PORT);
                    assert!(seen.insert(port), "{port} has one owner");
                }
            }
        }
    }
}
