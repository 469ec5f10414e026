//! What becomes of a packet: the verdicts of the data plane, and the name of every drop.
//!
//! A packet is never an error. Each that enters ends in exactly one verdict, and each verdict that
//! ends a packet has a counter ([`super::stats`]).

use std::net::SocketAddr;
use std::ops::Range;

use geneve::buffer::PacketBuf;
use geneve::dialect::{DialectError, Tags, Template};
use geneve::header::HeaderError;
use geneve::inner::{IpVersion, Plain};
use router::{Attachment, EndpointId, Entry};

use super::snapshot::{PoolId, ResetCause, Snapshot, TargetSlot};

/// A worker, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u16);

/// How far a packet is on its way, and which side it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Whose route table comes next.
    pub at: Entry,
    /// Where it came in: the ledger that it is counted in to its end.
    pub side: Side,
}

/// A side of the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The networks, by TUN devices.
    Tun,
    /// The appliances, by UDP.
    Udp,
}

impl From<Entry> for Origin {
    fn from(at: Entry) -> Self {
        let side = match at {
            Entry::Endpoint(_) => Side::Udp,
            Entry::InternetGateway(_) | Entry::Subnet(_) | Entry::Interface(_) | Entry::Edge(_) => {
                Side::Tun
            }
        };
        Self { at, side }
    }
}

/// What [`super::Ingress`] decides for a packet that came out of a TUN device.
#[derive(Debug)]
pub enum Verdict {
    /// Encapsulate it and send it to an appliance.
    ToAppliance(Hop),
    /// A route leads straight to another attachment; no endpoint is in the way.
    Deliver(Attachment),
    /// The packet goes on uninspected, as the configuration has it, and leaves here.
    Bypass(Attachment),
    /// The flow belongs to another worker. The packet may have passed an endpoint on the way here,
    /// so this says how far it is.
    HandOver(WorkerId, Origin),
    /// A later fragment, whose first one was not seen yet; a copy of it waits.
    Held,
    /// The packet ends here, and its sender is told why.
    Reply(Reply),
    /// The packet ends here.
    Drop(DropReason),
}

/// What [`super::Return`] decides for a datagram that came from an appliance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReturnVerdict {
    /// It is genuine, and its inner packet goes on.
    Accept(Returned),
    /// The datagram ends here.
    Drop(DropReason),
}

/// A datagram that an appliance returned and that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Returned {
    /// Where the inner packet goes.
    pub way: Way,
    /// The target that returned it.
    pub target: TargetSlot,
    /// Where in the datagram the inner packet lies.
    pub range: Range<usize>,
    /// The inner packet at a glance, if it is an ordinary one.
    pub plain: Option<Plain>,
}

/// Where a returned packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It leaves through this attachment.
    Deliver(Attachment),
    /// The table of the endpoint's subnet leads to a further endpoint: the packet enters
    /// [`super::Ingress`] as returned from this one.
    Onward(EndpointId),
    /// Nowhere: it is a probe of the control plane's that has found its way back.
    Probe,
}

/// The way to an appliance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// Which pool of sockets sends: it stands for the outer source address.
    pub pool: PoolId,
    /// Which source port of the worker's slice, for the whole life of the flow.
    pub port: u16,
    /// Who gets it, for the counters.
    pub target: TargetSlot,
    /// Where that is.
    pub address: SocketAddr,
    /// The Geneve header that goes in front of the inner packet, or of each of its segments or
    /// fragments.
    pub header: GeneveHeader,
    /// What is to be done to the packet before.
    pub change: Option<Change>,
}

/// The way to an appliance of a packet that goes as it is, said in as few words as can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Course {
    /// As in [`Hop`].
    pub pool: PoolId,
    /// As in [`Hop`].
    pub port: u8,
    /// As in [`Hop`].
    pub target: TargetSlot,
    /// The endpoint's id on the wire.
    pub endpoint: u64,
    /// The cookie of the packet's flow.
    pub cookie: u32,
    /// The IP version of the packet.
    pub version: IpVersion,
}

impl Course {
    /// The Geneve header, in the view that the course was found in.
    #[inline]
    pub fn header(&self, view: &Snapshot) -> GeneveHeader {
        let template = view.target(self.target).templates.for_version(self.version);
        let tags = Tags { endpoint: self.endpoint, attachment: 0, cookie: self.cookie };
        GeneveHeader::stamp(template, &tags)
    }

    /// The same way in full.
    #[inline]
    pub fn hop(&self, view: &Snapshot) -> Hop {
        Hop {
            pool: self.pool,
            port: self.port.into(),
            target: self.target,
            address: view.target(self.target).address,
            header: self.header(view),
            change: None,
        }
    }
}

/// What is done to a packet before it is encapsulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is cut into fragments of at most so many bytes (RFC 791 section 3.2).
    Fragment(u16),
    /// Its TCP MSS option is lowered to what an MTU of so many bytes has room for.
    ClampMss(u16),
}

/// The bytes of a Geneve header with its options.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct GeneveHeader {
    bytes: [u8; Self::MAX],
    len: u8,
}

impl GeneveHeader {
    /// The longest header of any dialect fits.
    pub const MAX: usize = Template::MAX;

    /// The header that carries `tags`.
    #[inline]
    pub(super) fn stamp(template: &Template, tags: &Tags) -> Self {
        Self { bytes: template.stamp(tags), len: template.len() as u8 }
    }

    /// A copy of a header from the wire, if it is not longer than any that we write.
    pub fn copy_of(header: &[u8]) -> Option<Self> {
        let mut bytes = [0; Self::MAX];
        bytes.get_mut(..header.len())?.copy_from_slice(header);
        Some(Self { bytes, len: header.len() as u8 })
    }

    /// The bytes as they go on the wire, and others behind them that mean nothing.
    #[inline]
    pub(super) fn padded(&self) -> &[u8; Self::MAX] {
        &self.bytes
    }

    /// The bytes as they go on the wire.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl std::fmt::Debug for GeneveHeader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GeneveHeader({:02x?})", self.as_bytes())
    }
}

/// A packet that the gateway itself makes in answer to another.
#[derive(Debug)]
pub struct Reply {
    /// Where it leaves: back where the packet that it answers came from.
    pub to: Attachment,
    /// The complete packet.
    pub packet: PacketBuf,
    /// Why.
    pub cause: ReplyCause,
}

/// Why the gateway answers a packet itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyCause {
    /// The packet does not fit on the way to the appliance and must not be fragmented.
    PacketTooBig,
    /// `tcp_unknown_flow = "reset"`.
    UnknownTcpFlow,
    /// The flow has idled out, or was never there (`send_tcp_reset_on_idle_timeout`).
    IdleTimeout,
    /// The flow's target is gone (`send_tcp_reset`).
    TargetGone(ResetCause),
}

/// Makes the enumeration of drop reasons together with the tables about it.
macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Why a packet was dropped; every drop has exactly one reason, and every reason a counter.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl DropReason {
            /// All reasons, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name that counters, JSON and logs use.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What it means, in a sentence or two.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

drop_reasons! {
    /// The bytes are no valid IP packet: a wrong version, or lengths that contradict each other.
    MalformedPacket = "malformed_packet",
    /// No route matches the destination.
    NoRoute = "no_route",
    /// The route that matches is a blackhole.
    Blackhole = "blackhole",
    /// The destination is inside of the VPC, and no subnet there holds the address.
    NoSubnet = "no_subnet",
    /// The table of the endpoint's subnet leads back to the same endpoint.
    RoutingLoop = "routing_loop",
    /// The packet would leave through an attachment that the configuration does not have.
    NotAttached = "not_attached",
    /// The endpoint's load balancer has no target that may take a new flow: none is registered in
    /// the zone, or none is healthy and `when_none_healthy` is not `fail_open`.
    NoTarget = "no_target",
    /// A TCP packet without SYN for a flow that is not in the table (`tcp_unknown_flow = "drop"`).
    UnknownTcpFlow = "unknown_tcp_flow",
    /// A packet of a TCP flow that is reset because its target is gone, and that cannot be answered:
    /// a reset, or a fragment.
    TargetGone = "target_gone",
    /// A fragment whose first fragment did not come: nothing says to which flow it belongs.
    FragmentWithoutFirst = "fragment_without_first",
    /// A fragment that came before its first one, and too many wait already.
    FragmentQueueFull = "fragment_queue_full",
    /// The configuration has changed while the packet was between two workers, and where it came
    /// from is no longer there.
    Reconfigured = "reconfigured",
    /// The packet does not fit on the way to the appliance.
    ExceedsMtu = "exceeds_mtu",
    /// The queue to the worker that owns the flow is full.
    HandoverFull = "handover_full",
    /// The gateway stopped before the owner of the flow could take the packet.
    GatewayStopping = "gateway_stopping",
    /// The kernel refused to send to the appliance.
    SendFailed = "send_failed",
    /// The kernel refused to take the packet on the TUN device.
    DeliveryFailed = "delivery_failed",
    /// The datagram came from an address that is no target.
    UnknownSource = "unknown_source",
    /// The Geneve header is cut short, or its option lengths contradict each other.
    MalformedGeneve = "malformed_geneve",
    /// The Geneve version is not 0 (RFC 8926 section 3.4).
    GeneveVersion = "geneve_version",
    /// A control packet (O bit): it must not be forwarded (RFC 8926 section 3.4).
    GeneveControl = "geneve_control",
    /// Geneve carries neither IPv4 nor IPv6, or not what its protocol type says.
    ProtocolType = "protocol_type",
    /// An option that is critical and unknown (RFC 8926 section 3.5).
    CriticalOption = "critical_option",
    /// An option that the dialect needs is missing, appears twice, or has a wrong length.
    DialectOptions = "dialect_options",
    /// No endpoint has the id that the datagram carries.
    UnknownEndpoint = "unknown_endpoint",
    /// The datagram came to a gateway address that does not serve the endpoint it names.
    WrongGatewayAddress = "wrong_gateway_address",
    /// The flow cookie was not made for this inner flow, endpoint and target.
    BadCookie = "bad_cookie",
}

impl DropReason {
    /// The reason for a Geneve header that does not parse.
    pub(crate) fn of_header(error: &HeaderError) -> Self {
        match error {
            HeaderError::Version(_) => Self::GeneveVersion,
            _ => Self::MalformedGeneve,
        }
    }

    /// The reason for options that are not what the dialect demands.
    pub(crate) fn of_options(error: &DialectError) -> Self {
        match error {
            DialectError::UnknownCritical { .. } => Self::CriticalOption,
            _ => Self::DialectOptions,
        }
    }
}

impl std::fmt::Display for DropReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_numbered_in_order_and_named_once() {
        let mut names: Vec<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        for (number, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropReason::ALL.len());
    }

    #[test]
    fn help_is_the_documentation() {
        assert_eq!(DropReason::NoRoute.help(), "No route matches the destination.");
    }
}
