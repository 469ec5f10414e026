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
    /// The endpoint that it was returned to.
    pub endpoint: EndpointId,
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
        let mut header = GeneveHeader::default();
        self.write_header(view, &mut header);
        header
    }

    /// Writes it over another one: where a header is wanted for each packet, this is less to copy.
    #[inline]
    pub fn write_header(&self, view: &Snapshot, header: &mut GeneveHeader) {
        let template = view.target(self.target).templates.for_version(self.version);
        let tags = Tags { endpoint: self.endpoint, attachment: 0, cookie: self.cookie };
        header.stamp(template, &tags);
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

impl Default for GeneveHeader {
    /// None yet.
    #[inline]
    fn default() -> Self {
        Self { bytes: [0; Self::MAX], len: 0 }
    }
}

impl GeneveHeader {
    /// The longest header of any dialect fits.
    pub const MAX: usize = Template::MAX;

    /// The header that carries `tags`.
    #[cfg(test)]
    pub(super) fn stamped(template: &Template, tags: &Tags) -> Self {
        let mut header = Self::default();
        header.stamp(template, tags);
        header
    }

    /// Makes it the header that carries `tags`.
    #[inline]
    fn stamp(&mut self, template: &Template, tags: &Tags) {
        template.stamp(tags, &mut self.bytes);
        self.len = template.len() as u8;
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

impl ReplyCause {
    /// Why a packet with this cause is dropped where it cannot be answered.
    pub const fn refusal(self) -> DropReason {
        match self {
            Self::PacketTooBig => DropReason::ExceedsMtu,
            Self::UnknownTcpFlow | Self::IdleTimeout => DropReason::UnknownTcpFlow,
            Self::TargetGone(_) => DropReason::TargetGone,
        }
    }
}

/// Makes the enumeration of drop reasons together with the tables about it: of each, its name and what
/// to do about it.
macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $advice:literal;)+) => {
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

            /// What to look at, and what to change, so that such packets go on.
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$variant => $advice,)+ }
            }
        }
    };
}

drop_reasons! {
    /// The bytes are no valid IP packet: a wrong version, or lengths that contradict each other.
    MalformedPacket = "malformed_packet",
        "Look at what sends it: `gwlb capture` shows the packets. If they are right where they \
         are sent, look at the device or the appliance that they came through. Offload that is \
         done by halves makes such packets: `offload = false` of the `[[attachment]]` leaves it \
         out, which takes a restart.";
    /// No route matches the destination.
    NoRoute = "no_route",
        "Add a route for the destination to the table that was asked (`[[route_table]]`, \
         `routes`), then `gwlb reload`. `gwlb trace --from PLACE --to ADDRESS` names that table. \
         For a transit gateway there is no way in a gateway: route to an endpoint or to another \
         place.";
    /// The route that matches is a blackhole.
    Blackhole = "blackhole",
        "If it is to go on, replace `blackhole = true` of this route in `[[route_table]]` with a \
         place, then `gwlb reload`. If it is not, nothing is to be done.";
    /// The destination is inside of the VPC, and no subnet there holds the address.
    NoSubnet = "no_subnet",
        "Send to an address that a subnet has, or add a `[[subnet]]` whose `cidrs` hold it, \
         then `gwlb reload`. To reach that subnet it needs an `[[attachment]]`, which takes a \
         restart.";
    /// The table of the endpoint's subnet leads back to the same endpoint.
    RoutingLoop = "routing_loop",
        "Have the table of the endpoint's subnet lead the packet on: to the internet gateway, a \
         `local` route, or an endpoint of another group. What enters must not come from behind an \
         endpoint of the group that it is routed to.";
    /// The packet would leave through an attachment that the configuration does not have.
    NotAttached = "not_attached",
        "Lead the route to a place that is attached (`routes` of the `[[route_table]]`), then \
         `gwlb reload`. Or add an `[[attachment]]` with a device for the place that it leads to, \
         which takes a restart.";
    /// The endpoint's load balancer has no target that may take a new flow: none is registered in
    /// the zone, or none is healthy and `when_none_healthy` is not `fail_open`.
    NoTarget = "no_target",
        "`gwlb target health` says which targets there are and what is wrong with them. \
         Register one in the endpoint's zone (`gwlb target register GROUP ADDRESS --zone ZONE`) \
         with a weight above 0. Or set `cross_zone = true` of the `[[load_balancer]]`, or choose \
         with `when_none_healthy` of the `[[target_group]]` what becomes of flows meanwhile, \
         then `gwlb reload`.";
    /// A TCP packet without SYN for a flow that is not in the table (`tcp_unknown_flow = "drop"`).
    UnknownTcpFlow = "unknown_tcp_flow",
        "The flow idled out, or began elsewhere. Raise `tcp_idle_timeout_seconds` of the \
         `[[load_balancer]]`, have the hosts send keep-alives more often than that, or set \
         `tcp_unknown_flow = \"adopt\"` (take such flows on) or `tcp_unknown_flow = \"reset\"` \
         (have the sender begin anew), then `gwlb reload`.";
    /// A packet of a TCP flow that is reset because its target is gone, and that cannot be answered:
    /// a reset, or a fragment.
    TargetGone = "target_gone",
        "The sender has to open the connection anew. To have flows move to another target in \
         place of being reset, set `target_failover = { on_unhealthy = \"rebalance\", \
         on_deregistration = \"rebalance\" }` of the `[[target_group]]` and leave \
         `send_tcp_reset` out, then `gwlb reload`.";
    /// A fragment whose first fragment did not come: nothing says to which flow it belongs.
    FragmentWithoutFirst = "fragment_without_first",
        "Find where the first fragment is lost, with a capture before the gateway: often a \
         filter that wants ports, or a path that drops the longest packets. Have the sender send \
         shorter packets: by path MTU discovery, or for TCP with `tcp_mss_clamp = true` of the \
         `[[load_balancer]]`, then `gwlb reload`.";
    /// A fragment that came before its first one, and too many wait already.
    FragmentQueueFull = "fragment_queue_full",
        "Many fragments come without their first one: a loss on the way, or a flood. Find the \
         sender (`gwlb explain --drops` shows examples) and filter it before the gateway, or have \
         it send packets that need no fragments.";
    /// The configuration has changed while the packet was between two workers, and where it came
    /// from is no longer there.
    Reconfigured = "reconfigured",
        "Nothing, if it happened at a reload: senders repeat what was lost. If it goes on, the \
         configuration is changed all the time: look at who calls `gwlb reload`.";
    /// The packet does not fit on the way to the appliance.
    ExceedsMtu = "exceeds_mtu",
        "Raise the MTU of the underlay to the appliances by the Geneve overhead (68 bytes over \
         IPv4 with the AWS dialect). Or, for TCP, set `tcp_mss_clamp = true` of the \
         `[[load_balancer]]`, then `gwlb reload`. A lower `mtu` of the `[[attachment]]` has all \
         packets fit, and takes a restart. See that ICMP \"packet too big\" reaches the sender.";
    /// The queue to the worker that owns the flow is full.
    HandoverFull = "handover_full",
        "The worker that owns the flows gets more than it can do. Give the gateway more \
         `workers`, or CPUs of their own with `pin_workers`, either of which takes a restart. \
         See whether one flow alone is that fast: a flow has one worker.";
    /// The gateway stopped before the owner of the flow could take the packet.
    GatewayStopping = "gateway_stopping",
        "Nothing: the gateway was told to end, and senders repeat what was lost. Before planned \
         stops, have routes lead to another gateway first.";
    /// The kernel refused to send to the appliance.
    SendFailed = "send_failed",
        "`ip route get ADDRESS` and `ip link`, in the network namespace of the load balancer, \
         show a route that is missing or an interface that is down. If these are right, a \
         firewall rule refuses it, or there is no room: raise `udp_send_buffer_bytes`, which \
         takes a restart. `gwlb explain --drops` shows what was to be sent. If packets are too \
         long for the path, the gateway measures it anew by itself.";
    /// The kernel refused to take the packet on the TUN device.
    DeliveryFailed = "delivery_failed",
        "Set the device up (`ip link set DEVICE up`), in the namespace that the `[[attachment]]` \
         names. If it is up, its queue is full: whoever reads there is too slow.";
    /// The datagram came from an address that is no target.
    UnknownSource = "unknown_source",
        "If it is an appliance, register it with the address that it sends from (`gwlb target \
         register GROUP ADDRESS`), or have it answer from the address that it was sent to. If it \
         is not, keep strangers from UDP port 6081 with a firewall.";
    /// The Geneve header is cut short, or its option lengths contradict each other.
    MalformedGeneve = "malformed_geneve",
        "The appliance cuts or breaks headers: it has to return the Geneve header just as it came \
         (RFC 8926 section 3). Look at a capture of what it sends, and at its version.";
    /// The Geneve version is not 0 (RFC 8926 section 3.4).
    GeneveVersion = "geneve_version",
        "Have the appliance send Geneve version 0. Mostly this is something else that talks to \
         UDP port 6081.";
    /// A control packet (O bit): it must not be forwarded (RFC 8926 section 3.4).
    GeneveControl = "geneve_control",
        "Have the appliance clear the O bit: it has to return the Geneve header just as it came.";
    /// Geneve carries neither IPv4 nor IPv6, or not what its protocol type says.
    ProtocolType = "protocol_type",
        "Have the appliance set the Geneve protocol type to that of the packet inside: 0x0800 for \
         IPv4, 0x86dd for IPv6. It must not send Ethernet frames.";
    /// An option that is critical and unknown (RFC 8926 section 3.5).
    CriticalOption = "critical_option",
        "Have the appliance add no critical options of its own, and return those that it got. \
         If it speaks another dialect, set `dialect` of the `[[target_group]]`, which takes a \
         restart.";
    /// An option that the dialect needs is missing, appears twice, or has a wrong length.
    DialectOptions = "dialect_options",
        "The appliance has to return all options just as it got them. If it speaks another \
         dialect, set `dialect` of the `[[target_group]]` to that (\"aws\", \"tencent\", \
         \"google\"), which takes a restart.";
    /// No endpoint has the id that the datagram carries.
    UnknownEndpoint = "unknown_endpoint",
        "Was the endpoint removed or its `wire_id` changed? Then what is still under way is lost, \
         and this ends by itself. If not, two gateways use one appliance: have it return packets \
         to whom they came from.";
    /// The datagram came to a gateway address that does not serve the endpoint it names.
    WrongGatewayAddress = "wrong_gateway_address",
        "Have the appliance return packets to the address that they came from, which is the node \
         of the endpoint's zone (`nodes` of the `[[load_balancer]]`), and not to another node.";
    /// The flow cookie was not made for this inner flow, endpoint and target.
    BadCookie = "bad_cookie",
        "The appliance has to return each packet behind the header of its own flow, and must \
         not change addresses or ports inside. If gateways share it, have them run at the same \
         time of day (NTP) and with one `secret_file`, a change of which takes a restart.";
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
mod tests;
