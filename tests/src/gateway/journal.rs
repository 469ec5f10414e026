//! What a [`Gateway`](super::Gateway) in memory was told and did, in order, so that a judge can
//! follow it without touching it.
//!
//! Nothing is judged here. A step is written down when it happens: what a packet leads to stands
//! behind the verdict on it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use gwlb::config::{Port, Settings, TrafficMode};
use gwlb::control::{Event, Input, ProbeRequest, TargetSpec, TunnelRequest};
use gwlb::dataplane::snapshot::Snapshot;
use gwlb::dataplane::verdict::{
    DropReason, Hop, Origin, Reply, ReplyCause, ReturnVerdict, Side, Verdict, WorkerId,
};
use netio::offload::Offload;
use router::Attachment;

use super::{Delivered, Sent};

/// One thing that happened in or to a gateway.
#[derive(Debug, Clone)]
pub struct Step {
    /// When, counted from the gateway's start on its own clock.
    pub time: Duration,
    /// What.
    pub what: Happened,
}

/// What can happen.
#[derive(Debug, Clone)]
pub enum Happened {
    /// The control plane was told something.
    Told(Input),
    /// Something was asked of the control plane.
    Command {
        /// What.
        command: Command,
        /// Whether it was done.
        ok: bool,
    },
    /// Another configuration took the place of the one before.
    Reloaded(Arc<Settings>),
    /// The control plane was called because something was due.
    Timeout,
    /// Time has passed in which nobody did anything: what was due in it is done later.
    Slept,
    /// What is due is done at its time again, beginning with what is late.
    Awake,
    /// The control plane published a view. Workers take it up when they do.
    Published(Arc<Snapshot>),
    /// The control plane told of an event.
    Event(Event),
    /// The control plane asked for a health probe.
    Probe(ProbeRequest),
    /// The control plane asked for a probe through the tunnel.
    TunnelProbe(TunnelRequest),
    /// A worker works with the view of this generation from now on.
    TookUp {
        /// Which.
        worker: WorkerId,
        /// Of the view.
        generation: u64,
    },
    /// A packet entered through an attachment that translates addresses. The same packet, translated,
    /// is judged or lost next by this worker.
    Entered {
        /// Who took it in.
        worker: WorkerId,
        /// Where it came in.
        at: Attachment,
        /// The packet as it came.
        packet: Vec<u8>,
    },
    /// A packet was judged by a worker's ingress.
    Judged {
        /// Whose.
        worker: WorkerId,
        /// Whose route table came next, and which ledger the packet is counted in.
        origin: Origin,
        /// Whether another worker had handed it over. It was then counted where it came in.
        handed_over: bool,
        /// Whether it is a fragment that had waited for its first one.
        released: bool,
        /// The packet as it was judged: what enters by an internet gateway is translated already
        /// (see [`Happened::Entered`]).
        packet: Vec<u8>,
        /// What is left to be done to it.
        offload: Offload,
        /// The verdict.
        verdict: Judgement,
    },
    /// A packet was dropped by the worker itself, and counted there.
    Lost {
        /// Which.
        worker: WorkerId,
        /// The ledger that it is counted in.
        side: Side,
        /// How far it had come.
        stage: Stage,
        /// Why.
        reason: DropReason,
        /// Packets on the wire that it stands for.
        segments: u64,
        /// The packet.
        packet: Vec<u8>,
    },
    /// A datagram from an appliance was judged by a worker's return path.
    Returned {
        /// Whose.
        worker: WorkerId,
        /// Where it came from, with the source port that it has.
        from: SocketAddr,
        /// The gateway's address that it came to.
        to: IpAddr,
        /// The UDP payload.
        bytes: Vec<u8>,
        /// The verdict.
        verdict: ReturnVerdict,
    },
    /// A worker did what was due. Packets that it made by itself follow as [`Happened::Reply`].
    WorkerTimeout {
        /// Which.
        worker: WorkerId,
    },
    /// A packet that the gateway made and that answers no packet.
    Reply {
        /// Who made it.
        worker: WorkerId,
        /// Where it left.
        to: Attachment,
        /// The packet.
        packet: Vec<u8>,
        /// Why.
        cause: ReplyCause,
    },
    /// A datagram was sent to an appliance.
    Sent {
        /// By whom.
        worker: WorkerId,
        /// The ledger that it is counted in.
        side: Side,
        /// The datagram.
        sent: Sent,
    },
    /// A packet left through an attachment, whatever made it leave.
    Delivered {
        /// By whom.
        worker: WorkerId,
        /// The packet, translated where addresses are.
        delivered: Delivered,
    },
}

/// Something asked of the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Register a target, or change it.
    Register {
        /// The target group's name.
        group: String,
        /// The target.
        spec: TargetSpec,
    },
    /// Deregister a target.
    Deregister {
        /// The target group's name.
        group: String,
        /// The target's address.
        address: IpAddr,
        /// Its port, if not the group's.
        port: Option<Port>,
    },
    /// Switch a load balancer between inspection and bypass.
    TrafficMode {
        /// The load balancer's name.
        load_balancer: String,
        /// The mode.
        mode: TrafficMode,
    },
    /// Switch a group of endpoints to one of them, or back.
    SwitchEndpointGroup {
        /// The group's name.
        group: String,
        /// The endpoint's name; absent: back.
        to: Option<String>,
    },
}

/// How far a packet had come that the worker itself dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It was read from a device, and is no packet: nobody judged it.
    Entering,
    /// It was taken from the queue where another worker had put it, and where it came from is no
    /// longer there: nobody judged it here.
    Inbox,
    /// It was judged, and could not be done with as the verdict says.
    Leaving,
}

/// A verdict of the data plane, as data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It goes to an appliance.
    ToAppliance(Hop),
    /// It leaves through an attachment; no endpoint was in the way.
    Deliver(Attachment),
    /// It leaves through an attachment, past the appliances.
    Bypass(Attachment),
    /// It goes to the worker that owns its flow, as coming from there.
    HandOver(WorkerId, Origin),
    /// It waits for the first fragment.
    Held,
    /// It ends here, and its sender is told why.
    Reply {
        /// Where the answer leaves.
        to: Attachment,
        /// The answer.
        packet: Vec<u8>,
        /// Why.
        cause: ReplyCause,
    },
    /// It ends here.
    Drop(DropReason),
}

impl From<&Verdict> for Judgement {
    fn from(verdict: &Verdict) -> Judgement {
        match verdict {
            Verdict::ToAppliance(hop) => Judgement::ToAppliance(*hop),
            Verdict::Deliver(to) => Judgement::Deliver(*to),
            Verdict::Bypass(to) => Judgement::Bypass(*to),
            Verdict::HandOver(to, from) => Judgement::HandOver(*to, *from),
            Verdict::Held => Judgement::Held,
            Verdict::Reply(Reply { to, packet, cause }) => {
                Judgement::Reply { to: *to, packet: packet.bytes().to_vec(), cause: *cause }
            }
            Verdict::Drop(reason) => Judgement::Drop(*reason),
        }
    }
}

/// Where steps are written down, if they are.
#[derive(Debug, Default)]
pub(super) struct Journal {
    on: bool,
    pub time: Duration,
    steps: Vec<Step>,
}

impl Journal {
    pub fn new(on: bool) -> Journal {
        Journal { on, ..Journal::default() }
    }

    /// Writes down what happened; nothing is made of it when nobody wants to know.
    pub fn note(&mut self, what: impl FnOnce() -> Happened) {
        if self.on {
            self.steps.push(Step { time: self.time, what: what() });
        }
    }

    pub fn take(&mut self) -> Vec<Step> {
        std::mem::take(&mut self.steps)
    }
}
