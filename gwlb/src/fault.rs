//! Seeded faults: deliberate bugs that the tests must find, so that it is known how strong they are.
//!
//! Only the feature `seeded-faults` has them; no build of the product does, where [`on`] is a
//! constant that the compiler folds away, and with it what stands behind it. With the feature all
//! of them are in one build and none is on, until a thread chooses one for itself by `with`. They
//! are nothing to configure and no way to break a gateway that runs.
//!
//! A fault point is one short condition on the line that it corrupts. Whoever moves such a line
//! takes the condition along; whoever removes it removes the fault.

#[cfg(feature = "seeded-faults")]
mod chosen;

use geneve::dialect::{Dialect, Tags};
use geneve::header::Header;

use crate::dataplane::snapshot::{Snapshot, TargetSlot};

#[cfg(feature = "seeded-faults")]
pub use chosen::{Guard, on, on_besides, with};

/// Whether this fault is on: never, in this build.
#[cfg(not(feature = "seeded-faults"))]
#[expect(clippy::inline_always, reason = "nothing of it may be left, whatever is optimised")]
#[inline(always)]
pub const fn on(_: Fault) -> bool {
    false
}

/// Whether any fault is on but for these: never, in this build.
#[cfg(not(feature = "seeded-faults"))]
#[expect(clippy::inline_always, reason = "nothing of it may be left, whatever is optimised")]
#[inline(always)]
pub const fn on_besides(_: &[Fault]) -> bool {
    false
}

impl Fault {
    /// Those of the short ways, which are closed while any other is on: what is wrong in the long way
    /// is to be seen there.
    pub const OF_SHORT_WAYS: [Self; 5] = [
        Self::SettledDespiteFlags,
        Self::SettledDespiteLength,
        Self::SettledDespiteFate,
        Self::SettledStale,
        Self::BegunByAnyWorker,
    ];
}

/// Makes the enumeration of faults together with the tables about it.
macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal breaks $breaks:literal,)+) => {
        /// A deliberate bug.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Fault {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Fault {
            /// All faults, by what they are about.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name, as the table of faults has it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What is wrong, in a sentence or two.
            pub const fn about(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }

            /// Which of the things that must always hold it breaks, or which rule.
            pub const fn breaks(self) -> &'static str {
                match self { $(Self::$variant => $breaks,)+ }
            }
        }
    };
}

faults! {
    // The flow and its owner.

    /// The worker that owns a flow, and the flow's source port, depend on the packet's direction.
    OwnerByDirection = "owner_by_direction" breaks "symmetry",
    /// Whatever the stickiness says, a flow is a 5-tuple.
    StickinessIgnored = "stickiness_ignored" breaks "symmetry: `stickiness`",
    /// Flows of two endpoints that have the same addresses are one flow.
    FlowWithoutEndpoint = "flow_without_endpoint" breaks "symmetry: consumers may use the same addresses",
    /// An ICMP error goes where its own addresses lead, and not where the flow is that it is about.
    IcmpErrorByOwnTuple = "icmp_error_by_own_tuple" breaks "symmetry",
    /// An ICMP error about a flow keeps the flow alive.
    IcmpErrorProlongs = "icmp_error_prolongs" breaks "stability: idle timeouts",

    // Groups of endpoints.

    /// Of a weighted group, the two directions of a flow go to different members.
    GroupByDirection = "group_by_direction" breaks "symmetry",
    /// A flow goes to whatever member of a group is chosen now, and leaves the one that has it.
    GroupForgetsFlows = "group_forgets_flows" breaks "stability: a flow stays with its endpoint",

    // The short ways of flows that are settled, and of such as begin.

    /// A SYN, FIN or RST of a settled flow goes on like any other packet.
    SettledDespiteFlags = "settled_despite_flags" breaks "stability: idle timeouts",
    /// A packet of a settled flow goes on however long it is.
    SettledDespiteLength = "settled_despite_length" breaks "the MTU on the way to appliances",
    /// A settled flow stays with its target whatever becomes of that.
    SettledDespiteFate = "settled_despite_fate" breaks "failover",
    /// A settled flow that has idled out goes on.
    SettledStale = "settled_stale" breaks "stability: idle timeouts",
    /// A flow begins at whatever worker reads its first packet.
    BegunByAnyWorker = "begun_by_any_worker" breaks "symmetry: one owner",

    // Placement.

    /// Placement has no key, so that anybody can aim flows at a target.
    PlacementUnkeyed = "placement_unkeyed" breaks "determinism: placement is keyed by the secret",
    /// A flow goes to the n-th candidate, so that a change of the set moves nearly all new flows.
    PlacementByPosition = "placement_by_position" breaks "determinism: rendezvous hashing",
    /// The key of placement turns with the cookies'.
    PlacementRotates = "placement_rotates" breaks "determinism: the placement key is never rotated",
    /// Weights have no effect.
    WeightIgnored = "weight_ignored" breaks "determinism: `weight`",
    /// A weight of 0 counts as 1.
    ZeroWeightChosen = "zero_weight_chosen" breaks "stability: weight 0 is never chosen",
    /// Targets of other zones are chosen without `cross_zone`.
    ZoneIgnored = "zone_ignored" breaks "determinism: `cross_zone`",

    // Cookies.

    /// Whatever an appliance returns is genuine.
    CookieUnchecked = "cookie_unchecked" breaks "no uninspected path",
    /// The endpoint is no part of the cookie, so that a packet may come back to another one.
    CookieWithoutEndpoint = "cookie_without_endpoint" breaks "no uninspected path",
    /// The target is no part of the cookie, so that a target may return another one's packets.
    CookieWithoutTarget = "cookie_without_target" breaks "no uninspected path",
    /// Every cookie is made without ports, so that it is good for all flows between two hosts.
    CookieWithoutPorts = "cookie_without_ports" breaks "no uninspected path",
    /// Cookies of the previous epoch are refused, which appliances still have.
    PreviousEpochRefused = "previous_epoch_refused" breaks "the previous epoch stays valid",
    /// Cookies of the next epoch are refused, which a gateway stamps whose clock is ahead.
    NextEpochRefused = "next_epoch_refused" breaks "any gateway with the secret takes a return",
    /// The keys of cookies never turn.
    EpochNeverTurns = "epoch_never_turns" breaks "cookie keys rotate by epoch",
    /// Of neighbours with the same header, only the first one's cookie is checked.
    NeighboursUnchecked = "neighbours_unchecked" breaks "no uninspected path: every run is verified",

    // The flow table.

    /// A flow is found at the very moment at which it has idled out.
    ExpiryOffByOne = "expiry_off_by_one" breaks "stability: idleness is exact",
    /// A flow that has idled out is found for as long as it is not swept.
    StaleFlowUsed = "stale_flow_used" breaks "stability: idleness is exact",
    /// The timer of a flow that had packets meanwhile is not set again, so that it stays for ever.
    TimerNotRearmed = "timer_not_rearmed" breaks "bounded",
    /// A full table forgets the flow that came first.
    FullTableEvicts = "full_table_evicts" breaks "stability",
    /// A connection that begins anew is reset with the numbers of the one before.
    OldWordsKept = "old_words_kept" breaks "RFC 9293 §3.10.7.4: a reset has the number expected",
    /// Flows are taken on in their middle for ever, not only after a start.
    AdoptionNeverEnds = "adoption_never_ends" breaks "`tcp_unknown_flow`",

    // TCP.

    /// A connection is over when one end has finished.
    OneFinCloses = "one_fin_closes" breaks "stability: half-closed connections live on",
    /// A connection goes on after a reset.
    ResetForgotten = "reset_forgotten" breaks "bounded: the timer of closed connections",
    /// A SYN/ACK opens a connection.
    SynAckOpens = "syn_ack_opens" breaks "`tcp_unknown_flow`",
    /// Data after a reset does not show that the reset was forged.
    ForgedResetBelieved = "forged_reset_believed" breaks "stability: a forged reset ends nothing",

    // Fragments.

    /// A later fragment is a flow without ports.
    LaterFragmentByOwnKey = "later_fragment_by_own_key" breaks "symmetry",
    /// Fragments of two endpoints with the same addresses and identification are one packet's.
    FragmentWithoutEndpoint = "fragment_without_endpoint" breaks "symmetry: consumers may use the same addresses",
    /// Fragments that waited for their first one are lost when it comes.
    HeldFragmentsLost = "held_fragments_lost" breaks "conservation",
    /// A later fragment is sent by whichever worker has it.
    FragmentStaysAtReader = "fragment_stays_at_reader" breaks "symmetry: one source port for a flow's life",
    /// A fragment that reaches past the end of any packet goes on.
    TooLongFragmentPasses = "too_long_fragment_passes" breaks "RFC 8200 §4.5",

    // The return path.

    /// A datagram may come from any address.
    SourceUnchecked = "source_unchecked" breaks "no uninspected path",
    /// A datagram may come to the address of another node.
    GatewayAddressUnchecked = "gateway_address_unchecked" breaks "what arrives is checked against the node's address",
    /// Geneve control packets are forwarded.
    ControlPacketForwarded = "control_packet_forwarded" breaks "RFC 8926 §3.4",
    /// A critical option that nobody knows is ignored.
    CriticalOptionIgnored = "critical_option_ignored" breaks "RFC 8926 §3.5",
    /// The protocol type may contradict the packet inside.
    ProtocolTypeUnchecked = "protocol_type_unchecked" breaks "RFC 8926 §3.4",
    /// What lies behind the inner packet is delivered with it.
    SurplusDelivered = "surplus_delivered" breaks "transparency",

    // MTU, and what changes packets.

    /// The room for the outer headers is not subtracted from the path's MTU.
    MtuWithoutOverhead = "mtu_without_overhead" breaks "RFC 1191: the MTU told is one that fits",
    /// The clamped segment size leaves no room for the TCP header.
    MssWithoutTcpHeader = "mss_without_tcp_header" breaks "RFC 6691 §2",
    /// The segment size is clamped though nobody asked for that.
    MssClampUnasked = "mss_clamp_unasked" breaks "transparency",
    /// Packets with DF are cut.
    DontFragmentIgnored = "dont_fragment_ignored" breaks "transparency: RFC 791 §3.2",
    /// The checksum over the ports is not updated with a translated address.
    TranslatedChecksumStale = "translated_checksum_stale" breaks "transparency",
    /// The packet in an ICMP error keeps its addresses when the error is translated.
    QuoteUntranslated = "quote_untranslated" breaks "RFC 5508 §4.2",
    /// A checksum that is still to be completed is updated as one that is complete.
    PartialChecksumTakenAsWhole = "partial_checksum_taken_as_whole" breaks "transparency",
    /// The checksum is not updated with a clamped segment size.
    ClampedChecksumStale = "clamped_checksum_stale" breaks "transparency",

    // Resets.

    /// What is meant for one end goes to the other.
    ResetOfWrongEnd = "reset_of_wrong_end" breaks "RFC 9293 §3.10.7.4: a reset has the number expected",
    /// The number of a reset is one too many, and nobody believes it.
    ResetWithWrongNumber = "reset_with_wrong_number" breaks "RFC 9293 §3.10.7.4: a reset has the number expected",

    // Registration and draining.

    /// A target that is registered again while it drains goes on draining.
    DrainForgetsReregistration = "drain_forgets_reregistration" breaks "registration",
    /// A drain waits for its last flow, whatever the delay.
    DrainNeverEnds = "drain_never_ends" breaks "`deregistration_delay_seconds`",
    /// A drain is over when it begins.
    DrainEndsAtOnce = "drain_ends_at_once" breaks "stability: `deregistration_delay_seconds`",
    /// A target that drains still gets new flows.
    DrainingStillChosen = "draining_still_chosen" breaks "stability: a target that drains gets no new flows",
    /// A slot is free when its last flow has ended, while packets are still under way.
    SlotFreedAtOnce = "slot_freed_at_once" breaks "a removed target stays a valid source",
    /// The slot of a target that drains is given to the next one.
    SlotReusedWhileDraining = "slot_reused_while_draining" breaks "stability",
    /// Who gets a slot gets the counters of who had it.
    CountersReused = "counters_reused" breaks "conservation: each target's own counters",
    /// A view counts as held by the workers when it is published.
    AcknowledgementPresumed = "acknowledgement_presumed" breaks "a drain ends only when no worker can place flows any more",

    // Health.

    /// One good probe too few makes a target healthy.
    HealthyThresholdOffByOne = "healthy_threshold_off_by_one" breaks "`healthy_threshold`",
    /// One bad probe too few makes a target unhealthy.
    UnhealthyThresholdOffByOne = "unhealthy_threshold_off_by_one" breaks "`unhealthy_threshold`",
    /// Good probes need not come in a row.
    SuccessesNotInARow = "successes_not_in_a_row" breaks "`healthy_threshold`",
    /// A node acts on what another node thinks of a target.
    HealthOfOtherNode = "health_of_other_node" breaks "health is each node's own finding",
    /// The late answer to a check that is gone is taken for one to its successor.
    LateAnswerCounted = "late_answer_counted" breaks "a check is unique",
    /// A suspicion makes a target unhealthy.
    SuspicionCondemns = "suspicion_condemns" breaks "stability: a suspicion is only a reason to look",
    /// What the check through the tunnel finds has no effect.
    TunnelCheckIgnored = "tunnel_check_ignored" breaks "`tunnel_check`",

    // What becomes of flows.

    /// When a target loses its flows, all flows are placed anew.
    RebalanceMovesAll = "rebalance_moves_all" breaks "stability: another target's death moves none",
    /// The policies for unhealthy and for deregistered targets are taken for each other.
    CausesMixedUp = "causes_mixed_up" breaks "stability: `target_failover`",
    /// A slow start stays at its first step.
    SlowStartStepLost = "slow_start_step_lost" breaks "`slow_start_seconds`",
    /// Unhealthy targets keep a zone from using those of others.
    SpillOverCountsUnhealthy = "spill_over_counts_unhealthy" breaks "`spill_over_below_healthy_targets`",
    /// Without a healthy target packets go past the appliances, though the group is to fail closed.
    FailClosedBypasses = "fail_closed_bypasses" breaks "no uninspected path",
    /// Packets go past the appliances before anybody knows whether one is healthy.
    BypassBeforeProbes = "bypass_before_probes" breaks "no uninspected path",
    /// What went past the appliances still does when there are some again.
    BypassKept = "bypass_kept" breaks "no uninspected path: `after_bypass`",

    // Reloads, and packets between workers.

    /// A place that was numbered in an older topology is looked up as if nothing had changed.
    TopologyEpochIgnored = "topology_epoch_ignored" breaks "no uninspected path: places are numbered anew in each topology",
    /// Nodes are numbered anew when a file is loaded, and what is known of targets stays.
    NodesRenumbered = "nodes_renumbered" breaks "stability: a reload moves none",
    /// Every check begins anew with a reload.
    ReloadForgetsHealth = "reload_forgets_health" breaks "stability: what has not changed keeps its health",

    // The books.

    /// A packet that was handed over and dropped counts twice.
    DropCountedTwice = "drop_counted_twice" breaks "conservation",
    /// A dropped super-packet counts as one packet.
    SuperPacketDropCountsOne = "super_packet_drop_counts_one" breaks "conservation: segments are counted",
    /// A fragment that waited until its place was gone is counted nowhere.
    ReconfiguredUncounted = "reconfigured_uncounted" breaks "conservation",
}

/// For [`Fault::SourceUnchecked`]: every target, as if all had the same address.
pub(crate) fn every_source(snapshot: &Snapshot) -> Vec<TargetSlot> {
    (0..snapshot.targets.len() as u32).map(TargetSlot).collect()
}

/// For [`Fault::CriticalOptionIgnored`]: what is known of a header, in the dialect of AWS.
pub(crate) fn tags_all_the_same(header: &Header<'_>) -> Tags {
    let mut tags = Tags::default();
    for option in header.options().filter(|option| option.class == Dialect::AWS.class()) {
        match (option.kind.get(), option.data) {
            (1, data) => tags.endpoint = data.first_chunk().map_or(0, |it| u64::from_be_bytes(*it)),
            (3, data) => tags.cookie = data.first_chunk().map_or(0, |it| u32::from_be_bytes(*it)),
            _ => {}
        }
    }
    tags
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // What is true at compile time, the compiler has folded away.
    #[cfg(not(feature = "seeded-faults"))]
    const _: () = {
        let mut fault = 0;
        while fault < Fault::ALL.len() {
            assert!(!on(Fault::ALL[fault]));
            fault += 1;
        }
    };

    #[test]
    fn none_is_on_unless_it_was_chosen() {
        assert!(!Fault::ALL.iter().any(|fault| on(*fault)));
    }

    /// What has found each is for `tests/tests/seeded_faults` to say, which takes minutes.
    #[test]
    fn the_table_names_every_fault_and_no_other() {
        let document = include_str!("../../docs/seeded-faults.md");
        let rows: Vec<_> = document.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(rows.len(), Fault::ALL.len());
        for (row, fault) in rows.iter().zip(Fault::ALL) {
            let expected = format!("| `{fault}` | {} | {} | ", fault.about(), fault.breaks());
            assert!(row.starts_with(&expected), "not {expected}: {row}");
        }
    }
}
