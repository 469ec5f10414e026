//! What an appliance counted, and the names of the reasons for which packets end.
//!
//! Every inner packet that arrives or that the appliance makes is either returned, kept by the
//! appliance, or dropped for one named reason: [`Stats::unaccounted`] is zero at all times.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// Packets and their bytes. The bytes are those of inner IP packets, headers included, without
/// the encapsulation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Number of inner packets.
    pub packets: u64,
    /// Bytes in them.
    pub bytes: u64,
}

impl Count {
    pub(crate) fn add(&mut self, bytes: usize) {
        *self += Self { packets: 1, bytes: bytes as u64 };
    }

    pub(crate) fn take_back(&mut self, other: Self) {
        self.packets = self.packets.saturating_sub(other.packets);
        self.bytes = self.bytes.saturating_sub(other.bytes);
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Why a packet ended in the appliance without the appliance having asked for it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum DropReason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl DropReason {
            /// All reasons, in the order of [`Drops`].
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The reason's name in statistics.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What the reason means, in a sentence.
            pub const fn help(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),+),)+
                }
            }
        }
    };
}

drop_reasons! {
    /// The datagram ends within its Geneve header or options.
    GeneveTruncated = "geneve_truncated",
    /// The Geneve version is not 0.
    GeneveVersion = "geneve_version",
    /// The Geneve options do not add up.
    GeneveOptions = "geneve_options",
    /// The datagram is a Geneve control message (O bit), which must not be forwarded.
    GeneveControl = "geneve_control",
    /// What is inside is neither IPv4 nor IPv6, or not what the protocol type says.
    ProtocolType = "protocol_type",
    /// No option belongs to a dialect that the appliance accepts.
    DialectUnknown = "dialect_unknown",
    /// An option that the dialect requires is missing.
    OptionMissing = "option_missing",
    /// An option that may come once comes twice.
    OptionDuplicate = "option_duplicate",
    /// An option of the dialect has a wrong length.
    OptionLength = "option_length",
    /// An unknown option is marked as critical.
    OptionCritical = "option_critical",
    /// The inner packet's headers contradict the bytes that arrived, or each other.
    InnerInvalid = "inner_invalid",
    /// The appliance replaced a packet by something that is no packet of the same flow.
    RewriteForeign = "rewrite_foreign",
    /// The appliance injected something that is neither a packet of the same flow nor an ICMP
    /// error about it.
    InjectForeign = "inject_foreign",
    /// No flow is remembered for a packet that the appliance emitted.
    EmitUnknownFlow = "emit_unknown_flow",
    /// The reply does not fit into a datagram.
    ReplyTooLong = "reply_too_long",
    /// The kernel refused to send the reply.
    SendFailed = "send_failed",
    /// The send queue stayed full for longer than the appliance may wait.
    SendQueueFull = "send_queue_full",
    /// The reply's port is taken by another program, and raw sockets are not permitted.
    SendPortTaken = "send_port_taken",
}

/// How many packets were dropped, by reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drops([u64; DropReason::ALL.len()]);

impl Default for Drops {
    fn default() -> Self {
        Self([0; DropReason::ALL.len()])
    }
}

impl Drops {
    /// Packets dropped for one reason.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// Packets dropped for any reason.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Every reason with its number, zeros included.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> {
        DropReason::ALL.iter().map(|&reason| (reason, self.get(reason)))
    }

    pub(crate) fn add(&mut self, reason: DropReason, packets: u64) {
        self.0[reason as usize] += packets;
    }
}

impl AddAssign<&Drops> for Drops {
    fn add_assign(&mut self, other: &Drops) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }
}

/// As an object of name and number, without the zeros.
impl Serialize for Drops {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let named: BTreeMap<_, _> =
            self.iter().filter(|(_, n)| *n > 0).map(|(reason, n)| (reason.name(), n)).collect();
        named.serialize(serializer)
    }
}

/// Names that this version does not know are left out.
impl<'de> Deserialize<'de> for Drops {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let named = BTreeMap::<String, u64>::deserialize(deserializer)?;
        let mut drops = Self::default();
        for &reason in DropReason::ALL {
            drops.add(reason, named.get(reason.name()).copied().unwrap_or(0));
        }
        Ok(drops)
    }
}

/// What became of flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowStats {
    /// Flows that are remembered now.
    pub current: u64,
    /// Flows ever seen for the first time.
    pub opened: u64,
    /// Those of them of which packets went both ways.
    pub both_directions: u64,
    /// Flows forgotten because they were idle.
    pub expired: u64,
    /// Flows forgotten to make room for newer ones: the limit on flows is too low.
    pub evicted: u64,
}

/// What did not go the usual way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Oddities {
    /// Runs of datagrams that had to be sent one by one, for example because they exceed the
    /// route's MTU.
    pub runs_sent_singly: u64,
    /// Replies sent through a raw socket, because their port is taken or the sockets are used up.
    pub sent_raw: u64,
    /// Sockets closed to make room for a socket of another gateway port.
    pub send_sockets_evicted: u64,
    /// Datagrams that the kernel dropped because the receive buffer was full.
    pub kernel_receive_drops: u64,
}

/// How often the kernel was called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Syscalls {
    /// Calls that receive datagrams.
    pub receive: u64,
    /// Calls that send datagrams.
    pub send: u64,
    /// Calls that wait for something to do.
    pub wait: u64,
    /// Calls that open, set up and close sockets on the way.
    pub other: u64,
}

impl Syscalls {
    /// All calls together.
    pub fn total(&self) -> u64 {
        self.receive + self.send + self.wait + self.other
    }
}

/// What an appliance counted since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Datagrams that arrived, each with one inner packet. Where the Geneve header is wrong, it is
    /// not known which bytes are the packet's, and none are counted.
    pub received: Count,
    /// Packets that the appliance made itself.
    pub generated: Count,
    /// Packets given to the gateway: as they came, rewritten, or generated.
    pub returned: Count,
    /// Packets that the appliance rewrote; the bytes are those of the new packets.
    pub rewritten: Count,
    /// Packets that the appliance kept.
    pub kept: Count,
    /// Packets that were decided by a verdict for their flow, without asking the appliance.
    pub decided_by_flow: u64,
    /// Packets that ended otherwise, by reason.
    pub drops: Drops,
    /// What became of flows.
    pub flows: FlowStats,
    /// What did not go the usual way.
    pub oddities: Oddities,
    /// How often the kernel was called.
    pub syscalls: Syscalls,
}

impl Stats {
    /// Packets whose fate was not counted, or was counted twice: always zero.
    pub fn unaccounted(&self) -> i128 {
        i128::from(self.received.packets) + i128::from(self.generated.packets)
            - i128::from(self.returned.packets)
            - i128::from(self.kept.packets)
            - i128::from(self.drops.total())
    }
}

impl AddAssign<&Stats> for Stats {
    fn add_assign(&mut self, other: &Stats) {
        self.received += other.received;
        self.generated += other.generated;
        self.returned += other.returned;
        self.rewritten += other.rewritten;
        self.kept += other.kept;
        self.decided_by_flow += other.decided_by_flow;
        self.drops += &other.drops;
        self.flows += other.flows;
        self.oddities += other.oddities;
        self.syscalls += other.syscalls;
    }
}

macro_rules! add_fields {
    ($type:ty: $($field:ident),+) => {
        impl AddAssign for $type {
            fn add_assign(&mut self, other: Self) {
                $(self.$field += other.$field;)+
            }
        }
    };
}

add_fields!(FlowStats: current, opened, both_directions, expired, evicted);
add_fields!(
    Oddities: runs_sent_singly, sent_raw, send_sockets_evicted, kernel_receive_drops
);
add_fields!(Syscalls: receive, send, wait, other);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_survive_the_way_through_json() {
        let mut stats = Stats::default();
        stats.received.add(100);
        stats.drops.add(DropReason::OptionCritical, 3);
        stats.flows.opened = 2;
        let json = serde_json::to_string(&stats).unwrap();
        assert!(json.contains(r#""drops":{"option_critical":3}"#), "{json}");
        assert_eq!(serde_json::from_str::<Stats>(&json).unwrap(), stats);
    }

    #[test]
    fn sums_add_every_field() {
        let ones = r#"{"packets":1,"bytes":1}"#;
        let one: Stats = serde_json::from_str(&format!(
            r#"{{"received":{ones},"generated":{ones},"returned":{ones},"rewritten":{ones},
            "kept":{ones},"decided_by_flow":1,"drops":{{"send_failed":1}},
            "flows":{{"current":1,"opened":1,"both_directions":1,"expired":1,"evicted":1}},
            "oddities":{{"runs_sent_singly":1,"sent_raw":1,"send_sockets_evicted":1,
            "kernel_receive_drops":1}},
            "syscalls":{{"receive":1,"send":1,"wait":1,"other":1}}}}"#
        ))
        .unwrap();
        let mut sum = one.clone();
        sum += &one;
        let expected = serde_json::to_string(&one).unwrap().replace(":1", ":2");
        assert_eq!(serde_json::to_string(&sum).unwrap(), expected);
        assert_eq!(sum.syscalls.total(), 8);
    }

    #[test]
    fn every_reason_has_a_name_of_its_own() {
        let names: std::collections::HashSet<_> =
            DropReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), DropReason::ALL.len());
        assert!(DropReason::ALL.iter().all(|reason| reason.help().ends_with('.')));
    }
}
