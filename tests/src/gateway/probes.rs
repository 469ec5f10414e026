//! How targets answer probes: at once, or not at all, so that whoever waits for an answer waits as
//! long as the probe may take.

use std::net::IpAddr;
use std::time::Instant;

use geneve::IpVersion;
use geneve::outer;
use gwlb::control::{Input, ProbeOutcome, ProbeRequest, TunnelOutcome, TunnelRequest};
use gwlb::dataplane::snapshot::Snapshot;

/// A way to ask a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeKind {
    /// The health check.
    Health,
    /// A packet through the tunnel.
    Tunnel,
}

/// How one target answers from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Who.
    pub target: IpAddr,
    /// To whom: the node with this address, or all.
    pub node: Option<IpAddr>,
    /// To what, or to everything.
    pub kind: Option<ProbeKind>,
    /// How. Through the tunnel nothing else than [`ProbeOutcome::Passed`] comes back.
    pub outcome: ProbeOutcome,
    /// The largest inner packet that it brings back through the tunnel, in bytes, if not any.
    pub largest: Option<usize>,
}

/// How all targets answer: they pass, unless something else was said.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// The latest that was said counts.
    said: Vec<Answer>,
}

/// What becomes of a probe through the tunnel.
pub(super) enum Tunnelled {
    /// The appliance sends it back.
    Back,
    /// It ends like this, then.
    Ends(TunnelOutcome, Instant),
}

impl Answers {
    pub fn say(&mut self, answer: Answer) {
        self.said.push(answer);
    }

    /// What comes of a health probe, and when.
    pub fn health(&self, request: &ProbeRequest, now: Instant) -> (Input, Instant) {
        let target = request.address.ip();
        let (outcome, _) = self.outcome(target, request.source, ProbeKind::Health);
        let ends = match outcome {
            ProbeOutcome::TimedOut => now + request.timeout,
            _ => now,
        };
        (Input::Probe { check: request.check, outcome }, ends)
    }

    /// What comes of a probe through the tunnel.
    pub fn tunnel(&self, request: &TunnelRequest, snapshot: &Snapshot, now: Instant) -> Tunnelled {
        let target = request.address.ip();
        let view = snapshot.target(request.target);
        let len = IpVersion::of(target).header_len() + outer::UDP_LEN + request.packet.len();
        if len > usize::from(view.path_mtu) {
            return Tunnelled::Ends(TunnelOutcome::TooLong, now);
        }
        let inner = request.packet.len() - view.dialect.header_len();
        let (outcome, largest) = self.outcome(target, request.source, ProbeKind::Tunnel);
        match outcome {
            ProbeOutcome::Passed if largest.is_none_or(|largest| inner <= largest) => {
                Tunnelled::Back
            }
            ProbeOutcome::Local => Tunnelled::Ends(TunnelOutcome::Local, now),
            _ => Tunnelled::Ends(TunnelOutcome::Lost, now + request.timeout),
        }
    }

    fn outcome(
        &self,
        target: IpAddr,
        node: IpAddr,
        kind: ProbeKind,
    ) -> (ProbeOutcome, Option<usize>) {
        let meant = |answer: &&Answer| {
            answer.target == target
                && answer.node.is_none_or(|it| it == node)
                && answer.kind.is_none_or(|it| it == kind)
        };
        let latest = self.said.iter().rev().find(meant);
        latest.map_or((ProbeOutcome::Passed, None), |answer| (answer.outcome, answer.largest))
    }
}
