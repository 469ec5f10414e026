//! What an appliance author implements: one trait, asked once per inner packet.
//!
//! Nothing here knows about sockets, threads or Geneve; the [`Packet`] carries what an appliance
//! may want to know of them.

use crate::packet::Packet;

/// A network appliance: it looks at packets and says what becomes of them.
///
/// The runtime makes one appliance per worker thread and calls it from that thread alone, so an
/// implementation needs no locks for what it keeps itself. The gateway sends both directions of a
/// flow from one source port, and the runtime gives a port to one thread, so one thread sees all
/// of a flow.
///
/// The runtime may be given anything by the network; an appliance only ever sees inner packets
/// whose headers were validated.
pub trait Appliance: Send + 'static {
    /// What the appliance remembers per flow. It is made by `Default` when a flow is seen for the
    /// first time and dropped when the flow has been idle for the configured time, or has to make
    /// room for another one.
    type Flow: Default + Send;

    /// Says what becomes of one inner packet.
    ///
    /// Super-packets of segmentation offloads are never seen here: a run of segments is asked
    /// about segment by segment. A flow with a verdict ([`Action::ForwardFlow`],
    /// [`Action::DropFlow`]) is not asked about again until a TCP SYN starts a new connection on
    /// the same addresses and ports, or until [`epoch`](Self::epoch) changes.
    ///
    /// An ICMP error about a flow that is remembered counts as a packet of that flow. Fragments are
    /// flows of their own, without ports: one for all that two hosts send each other in fragments
    /// of a protocol.
    fn packet(&mut self, packet: &mut Packet<'_>, flow: &mut Self::Flow) -> Action;

    /// The state of the rules behind the verdicts: a verdict that was given under another epoch is
    /// forgotten, and the flow's next packet is asked about. The default never changes.
    ///
    /// It is read once per received batch. Appliances that reload their rules count up here.
    fn epoch(&self) -> u64 {
        0
    }
}

/// What becomes of a packet, and perhaps of the rest of its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Give the packet back to the gateway.
    Forward,
    /// Keep the packet.
    Drop,
    /// Give the packet back, and the rest of the flow, in both directions, without asking.
    ForwardFlow,
    /// Keep the packet, and the rest of the flow, in both directions, without asking.
    DropFlow,
}

impl Action {
    /// Whether the packet goes back to the gateway.
    pub const fn forwards(self) -> bool {
        matches!(self, Self::Forward | Self::ForwardFlow)
    }

    /// Whether the rest of the flow is decided too.
    pub const fn is_for_flow(self) -> bool {
        matches!(self, Self::ForwardFlow | Self::DropFlow)
    }
}

/// Which way a packet goes within its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The way of the flow's first packet. A flow that is first seen by a TCP SYN+ACK counts as
    /// started by the receiver of that packet.
    FromInitiator,
    /// The other way.
    FromResponder,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_say_what_they_mean() {
        let table = [
            (Action::Forward, true, false),
            (Action::Drop, false, false),
            (Action::ForwardFlow, true, true),
            (Action::DropFlow, false, true),
        ];
        for (action, forwards, for_flow) in table {
            assert_eq!(action.forwards(), forwards, "{action:?}");
            assert_eq!(action.is_for_flow(), for_flow, "{action:?}");
        }
    }
}
