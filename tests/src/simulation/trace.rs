//! A number that stands for everything that happened: the same seed has the same, always.

use std::fmt::{self, Write as _};
use std::hash::{Hash, Hasher};
use std::time::Duration;

use gwlb::control::Input;
use gwlb::dataplane::snapshot::Snapshot;
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

    /// Something that happened in a gateway.
    pub fn step(&mut self, gateway: usize, step: &Step) {
        let hasher = &mut self.0;
        hasher.write_u64(gateway as u64);
        hasher.write_u64(step.time.as_nanos() as u64);
        std::mem::discriminant(&step.what).hash(hasher);
        match &step.what {
            // By far most of what is told, and cheaper than its text.
            Happened::Told(Input::WallClock(time)) => hasher.write_u64(time.as_nanos() as u64),
            Happened::Told(input) => text(hasher, format_args!("{input:?}")),
            Happened::Command { command, ok } => text(hasher, format_args!("{command:?} {ok}")),
            Happened::Reloaded(_) | Happened::Timeout => {}
            Happened::Published(snapshot) => view(hasher, snapshot),
            Happened::Event(event) => text(hasher, format_args!("{event:?}")),
            Happened::Probe(request) => {
                hasher.write_u64(request.check.get());
                request.address.hash(hasher);
            }
            Happened::TunnelProbe(request) => hasher.write(&request.packet),
            Happened::TookUp { worker, generation } => (worker, generation).hash(hasher),
            Happened::Entered { worker, at, packet } => {
                (worker, at).hash(hasher);
                hasher.write(packet);
            }
            Happened::Judged { worker, handed_over, released, packet, verdict, .. } => {
                (worker, handed_over, released).hash(hasher);
                hasher.write(packet);
                judgement(hasher, verdict);
            }
            Happened::Lost { worker, reason, segments, packet, .. } => {
                (worker, reason, segments).hash(hasher);
                hasher.write(packet);
            }
            Happened::Returned { worker, from, to, bytes, verdict } => {
                (worker, from, to).hash(hasher);
                hasher.write(bytes);
                match verdict {
                    ReturnVerdict::Accept(returned) => {
                        (returned.target, &returned.range).hash(hasher);
                    }
                    ReturnVerdict::Drop(reason) => reason.hash(hasher),
                }
            }
            Happened::WorkerTimeout { worker } => worker.hash(hasher),
            Happened::Reply { worker, packet, .. } => {
                worker.hash(hasher);
                hasher.write(packet);
            }
            Happened::Sent { worker, sent, .. } => {
                (worker, sent.from, sent.to).hash(hasher);
                hasher.write(&sent.bytes);
            }
            Happened::Delivered { worker, delivered } => {
                worker.hash(hasher);
                hasher.write(&delivered.packet);
            }
        }
    }
}

/// What something is called.
fn text(hasher: &mut SipHasher13, text: fmt::Arguments<'_>) {
    struct Into<'a>(&'a mut SipHasher13);
    impl fmt::Write for Into<'_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.write(text.as_bytes());
            Ok(())
        }
    }
    // Nothing here fails.
    let _ = Into(hasher).write_fmt(text);
}

fn judgement(hasher: &mut SipHasher13, verdict: &Judgement) {
    std::mem::discriminant(verdict).hash(hasher);
    match verdict {
        Judgement::ToAppliance(hop) => {
            (hop.pool, hop.port, hop.target, hop.address).hash(hasher);
            hasher.write(hop.header.as_bytes());
        }
        Judgement::HandOver(worker, _) => worker.hash(hasher),
        Judgement::Reply { packet, .. } => hasher.write(packet),
        Judgement::Drop(reason) => reason.hash(hasher),
        Judgement::Deliver(_) | Judgement::Bypass(_) | Judgement::Held => {}
    }
}

/// What of a view decides about packets.
fn view(hasher: &mut SipHasher13, snapshot: &Snapshot) {
    (snapshot.generation, snapshot.topology_epoch).hash(hasher);
    for pool in &snapshot.pools {
        for candidate in &pool.candidates {
            (candidate.target, candidate.weight).hash(hasher);
        }
        for fate in &pool.fates {
            std::mem::discriminant(fate).hash(hasher);
        }
    }
    for target in &snapshot.targets {
        (target.address, target.path_mtu, target.usable_mtu).hash(hasher);
    }
}
