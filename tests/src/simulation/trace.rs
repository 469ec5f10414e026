//! A number that stands for everything that happened: the same seed has the same, always.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use gwlb::control::Input;
use gwlb::dataplane::snapshot::{self, PoolId, Snapshot, TargetView};
use gwlb::dataplane::verdict::ReturnVerdict;
use siphasher::sip::SipHasher13;

use crate::gateway::journal::{Happened, Judgement, Step};

/// The number so far.
#[derive(Debug, Clone)]
pub(super) struct Trace(SipHasher13);

impl Trace {
    pub fn new() -> Trace {
        Trace(SipHasher13::new_with_keys(0x7472, 0x6163))
    }

    pub fn value(&self) -> u64 {
        self.0.finish()
    }

    /// Something that a host or appliance got.
    pub fn note(&mut self, what: u8, at: Duration, bytes: &[u8]) {
        self.0.write_u8(what);
        self.0.write_u64(at.as_nanos() as u64);
        self.0.write(bytes);
    }

    /// Something that happened in a gateway, with all that its step says.
    pub fn step(&mut self, gateway: usize, step: &Step) {
        let hasher = &mut self.0;
        hasher.write_u64(gateway as u64);
        hasher.write_u64(step.time.as_nanos() as u64);
        std::mem::discriminant(&step.what).hash(hasher);
        match &step.what {
            // By far most of what is told, and cheaper than its text.
            Happened::Told(Input::WallClock(time)) => time.hash(hasher),
            Happened::Told(input) => say(hasher, input),
            Happened::Command { command, ok } => say(hasher, &(command, ok)),
            Happened::Reloaded(settings) => {
                say(hasher, &(&settings.gateway, &settings.attachments));
                say(hasher, &(&settings.target_groups, &settings.load_balancers));
            }
            Happened::Timeout | Happened::Slept | Happened::Awake => {}
            Happened::Published(snapshot) => view(hasher, snapshot),
            Happened::Event(event) => say(hasher, event),
            Happened::Probe(request) => say(hasher, request),
            Happened::TunnelProbe(request) => say(hasher, request),
            Happened::TookUp { worker, generation } => (worker, generation).hash(hasher),
            Happened::Entered { worker, at, packet } => {
                (worker, packet).hash(hasher);
                say(hasher, at);
            }
            Happened::Judged {
                worker,
                origin,
                handed_over,
                released,
                packet,
                offload,
                verdict,
            } => {
                (worker, handed_over, released, packet).hash(hasher);
                say(hasher, &(origin, offload));
                judgement(hasher, verdict);
            }
            Happened::Lost { worker, side, stage, reason, segments, packet } => {
                (worker, reason, segments, packet).hash(hasher);
                say(hasher, &(side, stage));
            }
            Happened::Returned { worker, from, to, bytes, verdict } => {
                (worker, from, to, bytes).hash(hasher);
                match verdict {
                    ReturnVerdict::Accept(returned) => {
                        (returned.target, &returned.range).hash(hasher);
                        say(hasher, &returned.way);
                    }
                    ReturnVerdict::Drop(reason) => reason.hash(hasher),
                }
            }
            Happened::WorkerTimeout { worker } => worker.hash(hasher),
            Happened::Reply { worker, to, packet, cause } => {
                (worker, packet).hash(hasher);
                say(hasher, &(to, cause));
            }
            Happened::Sent { worker, side, sent } => {
                (worker, sent.from, sent.to, sent.target, &sent.bytes).hash(hasher);
                say(hasher, side);
            }
            Happened::Delivered { worker, delivered } => {
                (worker, &delivered.device, &delivered.packet).hash(hasher);
                say(hasher, &delivered.at);
            }
        }
    }
}

/// Feeds what something looks like, for what has no other hash.
fn say(hasher: &mut SipHasher13, what: &impl fmt::Debug) {
    struct Feed<'a>(&'a mut SipHasher13);
    impl fmt::Write for Feed<'_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.write(text.as_bytes());
            Ok(())
        }
    }
    let _ = write!(Feed(hasher), "{what:?}");
    hasher.write_u8(0xff);
}

fn judgement(hasher: &mut SipHasher13, verdict: &Judgement) {
    std::mem::discriminant(verdict).hash(hasher);
    match verdict {
        Judgement::ToAppliance(hop) => {
            (hop.pool, hop.port, hop.target, hop.address).hash(hasher);
            hasher.write(hop.header.as_bytes());
            say(hasher, &hop.change);
        }
        Judgement::HandOver(worker, origin) => say(hasher, &(worker, origin)),
        Judgement::Reply { to, packet, cause } => {
            packet.hash(hasher);
            say(hasher, &(to, cause));
        }
        Judgement::Drop(reason) => reason.hash(hasher),
        Judgement::Deliver(at) | Judgement::Bypass(at) => say(hasher, at),
        Judgement::Held => {}
    }
}

/// An endpoint in a view, but for its counters.
#[derive(Debug)]
#[expect(dead_code, reason = "it is said, and not read")]
struct EndpointView<'a> {
    wire_id: u64,
    pool: PoolId,
    addresses: &'a [IpAddr],
}

impl<'a> From<&'a snapshot::EndpointView> for EndpointView<'a> {
    fn from(view: &'a snapshot::EndpointView) -> Self {
        Self { wire_id: view.wire_id, pool: view.pool, addresses: &view.addresses }
    }
}

/// A view, but for the counters in it, which count what other steps say. The order of what has none
/// is that of its keys.
fn view(hasher: &mut SipHasher13, snapshot: &Snapshot) {
    let Snapshot {
        generation,
        topology,
        topology_epoch,
        earlier_topology,
        keys,
        endpoints,
        departed: _,
        groups,
        pools,
        targets,
        sources,
        wire_ids,
        attachments,
        translations,
        workers,
        source_ports,
        max_new_flows_per_second,
    } = snapshot;
    (generation, topology_epoch, workers, source_ports, max_new_flows_per_second).hash(hasher);
    for topology in [Some(topology), earlier_topology.as_ref()] {
        let names = topology.map(|it| it.endpoints().map(|(_, it)| &it.name).collect::<Vec<_>>());
        say(hasher, &names);
    }
    // What is translated into what shows in the packets.
    let translated: Vec<_> = translations.iter().map(Option::is_some).collect();
    let endpoints: Vec<_> = endpoints.iter().map(EndpointView::from).collect();
    say(hasher, &(keys.cookie.epoch(), endpoints, pools, translated));
    // Where there are none, a run is the same as before there were any.
    if !groups.is_empty() {
        say(hasher, groups);
    }
    for target in targets {
        let TargetView {
            id,
            group,
            address,
            path_mtu,
            usable_mtu,
            dialect,
            templates: _,
            counters: _,
            round_trips: _,
        } = target;
        say(hasher, &(id, group, address, path_mtu, usable_mtu, dialect));
    }
    say(hasher, &sources.iter().collect::<BTreeMap<_, _>>());
    say(hasher, &wire_ids.iter().collect::<BTreeMap<_, _>>());
    let mut attachments: Vec<_> = attachments.iter().map(|it| format!("{it:?}")).collect();
    attachments.sort_unstable();
    say(hasher, &attachments);
}
