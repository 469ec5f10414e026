//! Where flows have gone: they stay with their target, unless the configuration has them move.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use geneve::checksum::{self, Integrity};
use geneve::flow::CanonicalKey;
use geneve::{Fragment, Header, Inner, TcpFlags, Transport};
use gwlb::dataplane::snapshot::{Fate, Snapshot, TargetSlot};

use crate::describe;
use crate::gateway::Sent;

/// Where flows have gone.
#[derive(Debug, Default)]
pub(super) struct Flows {
    known: BTreeMap<(u64, CanonicalKey), Flow>,
    /// The packets of which fragments were sent, with the target.
    fragments: BTreeMap<(u64, IpAddr, IpAddr, u8, u32), SocketAddr>,
    /// When flows of a target last had to leave it.
    left: BTreeMap<SocketAddr, Duration>,
}

#[derive(Debug)]
struct Flow {
    target: SocketAddr,
    last_seen: Duration,
    /// Who has finished: the end that the canonical key names first, the other one.
    finished: [bool; 2],
}

impl Flows {
    /// The workers hold this view now.
    pub fn note_view(&mut self, snapshot: &Snapshot, now: Duration) {
        for (slot, target) in snapshot.targets.iter().enumerate() {
            let slot = TargetSlot(slot as u32);
            if snapshot.pools.iter().any(|pool| pool.fate(slot) != Fate::Stay) {
                self.left.insert(target.address, now);
            }
        }
    }

    /// Flows of this target have lost it.
    pub fn note_failover(&mut self, target: SocketAddr, time: Duration) {
        let left = self.left.entry(target).or_default();
        *left = time.max(*left);
    }

    /// A packet was sent to an appliance. With `untracked` flows that are in no table, nothing
    /// keeps those where they are.
    pub fn note_sent(
        &mut self,
        sent: &Sent,
        snapshot: &Snapshot,
        untracked: bool,
    ) -> Result<(), String> {
        let (header, payload) = Header::parse(&sent.bytes)
            .map_err(|_| format!("{} was sent something else than Geneve", sent.to))?;
        let dialect = snapshot.target(sent.target).dialect;
        let (Ok(tags), Ok(inner)) = (dialect.read(&header), Inner::parse(payload)) else {
            return Err(format!("sent {}", describe::datagram(&sent.bytes)));
        };
        if !is_sound(payload) {
            return Err(format!("a wrong checksum in {}", describe::datagram(&sent.bytes)));
        }
        let key = match (inner.fragment, inner.transport) {
            (Fragment::First { id } | Fragment::Later { id, .. }, _) => {
                let protocol = inner.flow_key().protocol();
                let packet = (tags.endpoint, inner.src, inner.dst, protocol, id);
                if let Fragment::Later { .. } = inner.fragment {
                    // The first one may have been answered: it was too long, and others are not.
                    let first = *self.fragments.entry(packet).or_insert(sent.to);
                    return if first == sent.to {
                        Ok(())
                    } else {
                        Err(format!("a later fragment went to {}, others to {first}", sent.to))
                    };
                }
                self.fragments.insert(packet, sent.to);
                inner.ported_key().unwrap_or_else(|| inner.flow_key())
            }
            (Fragment::Whole, Transport::IcmpError { about, .. }) => about,
            (Fragment::Whole, _) => inner.flow_key(),
        };
        let id = (tags.endpoint, key.canonical());
        let known = self.known.get(&id);
        if let Some(flow) = known
            && flow.target != sent.to
            && !untracked
            && !self.may_leave(flow, &inner, sent.time, snapshot)
        {
            return Err(format!("{key} went to {}, now to {}", flow.target, sent.to));
        }
        if let Transport::IcmpError { .. } = inner.transport {
            return Ok(());
        }
        let mut finished = match (known, inner.transport) {
            (Some(flow), transport) if !opens(transport) => flow.finished,
            _ => [false; 2],
        };
        if let Transport::Tcp { flags, .. } = inner.transport {
            if flags.contains(TcpFlags::RST) {
                finished = [true; 2];
            } else if flags.contains(TcpFlags::FIN) {
                finished[usize::from(key.canonical().directed() != key)] = true;
            }
        }
        self.known.insert(id, Flow { target: sent.to, last_seen: sent.time, finished });
        Ok(())
    }

    /// Whether the flow of a packet may have another target than before.
    fn may_leave(&self, flow: &Flow, inner: &Inner, now: Duration, snapshot: &Snapshot) -> bool {
        let timers = snapshot.pools.iter().flat_map(|pool| {
            let timers = &pool.timers;
            [timers.tcp_half_open, timers.tcp_half_closed, timers.tcp_closed, timers.other_idle]
        });
        let shortest = timers.min().unwrap_or_default();
        let reopened = flow.finished == [true; 2] && opens(inner.transport);
        let left = self.left.get(&flow.target).is_some_and(|&left| left >= flow.last_seen);
        left || reopened || now.saturating_sub(flow.last_seen) >= shortest
    }
}

/// Whether the checksums of a packet are right, as far as it has any.
pub(super) fn is_sound(packet: &[u8]) -> bool {
    let inner = Inner::parse(packet);
    inner.is_ok_and(|inner| checksum::verify(&inner, packet) != Integrity::Invalid)
}

fn opens(transport: Transport) -> bool {
    let Transport::Tcp { flags, .. } = transport else { return false };
    flags.contains(TcpFlags::SYN) && !flags.contains(TcpFlags::ACK)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use router::source::Source;

    use super::*;
    use crate::gateway::{Gateway, Packet, Setup};
    use crate::packets::{Ip, Problem, Tcp, fragments};

    struct Watched {
        gateway: Gateway,
        flows: Flows,
    }

    impl Watched {
        fn new() -> Watched {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/gateway.toml");
            let settings = gwlb::config::parse(&Source::read(&path).unwrap()).unwrap();
            Watched { gateway: Gateway::new(settings, Setup::of(1)), flows: Flows::default() }
        }

        /// What the gateway makes of a packet, changed by `change` before it is looked at.
        fn note(&mut self, packet: Vec<u8>, change: impl FnOnce(&mut Sent)) -> Result<(), String> {
            let igw = self.gateway.attachment("igw").unwrap();
            self.gateway.enter(igw, &[Packet::plain(packet)], None);
            let [mut sent] = <[_; 1]>::try_from(self.gateway.take_sent()).unwrap();
            change(&mut sent);
            self.flows.note_sent(&sent, self.gateway.snapshot(), false)
        }
    }

    fn elsewhere(sent: &mut Sent) {
        sent.to.set_ip([192, 0, 2, 99].into());
    }

    fn there() -> Ip {
        Ip::new("203.0.113.7", "10.0.1.11")
    }

    #[test]
    fn a_flow_that_moves_without_a_cause_is_found() {
        let syn = || there().tcp((1000, 80), Tcp::SYN, &[]);
        let mut watched = Watched::new();
        watched.note(syn(), |_| {}).unwrap();
        assert!(watched.note(syn(), elsewhere).unwrap_err().contains("now to 192.0.2.99"));
        let refused = there().icmp_error(Problem::TimeExceeded, &syn(), 40);
        assert!(watched.note(refused, elsewhere).unwrap_err().contains("now to 192.0.2.99"));
        let late = |sent: &mut Sent| {
            sent.time += Duration::from_secs(30);
            elsewhere(sent);
        };
        watched.note(syn(), late).expect("it may have been forgotten");
    }

    #[test]
    fn causes_are_what_the_configuration_says() {
        let data = || there().tcp((1000, 80), Tcp::DATA, b"data");
        let mut watched = Watched::new();
        let mut target = None;
        watched.note(data(), |sent| target = Some(sent.to)).unwrap();
        watched.flows.note_failover(target.unwrap(), Duration::ZERO);
        watched.note(data(), elsewhere).expect("its target has lost its flows");

        let mut watched = Watched::new();
        watched.note(data(), |_| {}).unwrap();
        watched.note(there().tcp((1000, 80), Tcp::DATA.flags(TcpFlags::RST), &[]), |_| {}).unwrap();
        watched.note(data(), elsewhere).expect_err("reset or not, this packet is of that flow");
        watched.note(there().tcp((1000, 80), Tcp::SYN, &[]), elsewhere).expect("a new flow");
    }

    #[test]
    fn fragments_that_part_and_wrong_checksums_are_found() {
        let [first, later] = fragments(&there().udp((1, 2), &[7; 100]), 5, 64).try_into().unwrap();
        let mut watched = Watched::new();
        watched.note(first, |_| {}).unwrap();
        watched.note(later.clone(), |_| {}).unwrap();
        assert!(watched.note(later, elsewhere).unwrap_err().contains("a later fragment"));
        let spoil = |sent: &mut Sent| *sent.bytes.last_mut().unwrap() ^= 1;
        let error = watched.note(there().udp((3, 4), b"data"), spoil).unwrap_err();
        assert!(error.contains("a wrong checksum"), "{error}");
    }
}
