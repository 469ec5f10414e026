//! Counters of one worker: two ledgers that balance, and what each target was sent and returned.
//!
//! Every counter has one writer, the worker, so an addition is a load and a store without a lock
//! prefix; readers sum over workers whenever they like. Packets are counted in segments: a
//! super-packet of 42 segments counts 42.

mod endpoint;
mod histogram;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;

use super::verdict::{DropReason, Side};
use crate::sync::AtomicU64;

pub use endpoint::EndpointCounts;
pub use histogram::{
    BATCH_BOUNDS, FLOW_LIFE_BOUNDS, Histogram, HistogramTotals, PROBE_BOUNDS, ROUND_TRIP_BOUNDS,
};

/// A counter with a single writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the one writer may.
    pub fn add(&self, n: u64) {
        self.set(self.get().wrapping_add(n));
    }

    /// Takes over a value that is counted elsewhere; only the one writer may.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Which snapshot a worker holds. Who reads it sees all that the worker counted before, so that a
/// target which no newer snapshot gives flows to, and which has none, will have none.
#[derive(Debug, Default)]
pub struct Generation(AtomicU64);

impl Generation {
    /// The worker holds this one from now on.
    pub fn announce(&self, generation: u64) {
        self.0.store(generation, Ordering::Release);
    }

    /// The one that the worker holds, or an earlier one.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// Makes a set of counters and, with the same names and help texts, the set of their sums.
macro_rules! counters {
    (
        $(#[doc = $doc:literal])+
        $name:ident summed as $totals:ident {
            $($(#[doc = $field_doc:literal])+ $field:ident,)+
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Default)]
        pub struct $name {
            $($(#[doc = $field_doc])+ pub $field: Counter,)+
        }

        #[doc = concat!("Sums of [`", stringify!($name), "`] at one moment.")]
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
        pub struct $totals {
            $($(#[doc = $field_doc])+ pub $field: u64,)+
        }

        impl $totals {
            /// Adds what `counters` hold now.
            pub fn add(&mut self, counters: &$name) {
                $(self.$field += counters.$field.get();)+
            }

            /// Name, help text and value of each, for listings.
            pub fn fields(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($field), concat!($($field_doc),+).trim_ascii(), self.$field)),+]
                    .into_iter()
            }
        }
    };
}

counters! {
    /// Where packets went that entered on one side, in segments. It balances:
    /// `received + generated = encapsulated + delivered + bypassed + replied + probes + drops +
    /// queued`, and queued is `handed_over − taken_over + held − released`.
    Flow summed as FlowTotals {
        /// Packets that entered.
        received,
        /// Packets that the gateway made: ICMP errors and TCP resets.
        generated,
        /// Packets sent to appliances.
        encapsulated,
        /// Packets written to a TUN device.
        delivered,
        /// Packets written to a TUN device uninspected, as the configuration has it.
        bypassed,
        /// Packets ended by an answer of the gateway's own.
        replied,
        /// Probes of the path through an appliance that came back.
        probes,
        /// Packets given to the queue of the worker that owns their flow.
        handed_over,
        /// Packets taken from the queue where other workers put them.
        taken_over,
        /// Fragments that wait, or waited, for their first one.
        held,
        /// Fragments that wait no more.
        released,
    }
}

counters! {
    /// What happened with one target.
    TargetCounters summed as TargetTotals {
        /// Packets sent to the target.
        sent_packets,
        /// Bytes of inner packets sent to the target.
        sent_bytes,
        /// Packets that the target returned and that were accepted.
        returned_packets,
        /// Bytes of inner packets that the target returned.
        returned_bytes,
        /// Flows placed on the target, new ones and such that moved there.
        new_flows,
        /// Flows of the target that ended, idled out or moved away.
        ended_flows,
    }
}

impl TargetTotals {
    /// Flows that are with the target now.
    pub const fn active_flows(&self) -> u64 {
        self.new_flows.saturating_sub(self.ended_flows)
    }
}

counters! {
    /// What happened at one endpoint, as the owners of its flows saw it. What routes led there is
    /// `inspected + bypassed + answered + dropped`; a packet is counted once, at the worker that owns
    /// its flow, and a fragment that waits for its first one not before that has come.
    EndpointCounters summed as EndpointTotals {
        /// Packets from consumers that were given a target to go to.
        inspected_packets,
        /// Bytes of these, each segment with its headers.
        inspected_bytes,
        /// Packets that appliances returned to the endpoint and that were accepted.
        returned_packets,
        /// Bytes of these.
        returned_bytes,
        /// Flows that began, or were taken on.
        new_flows,
        /// Flows that ended, idled out or went to another endpoint.
        ended_flows,
        /// Packets from consumers that passed the endpoint uninspected, as the configuration has it.
        bypassed_packets,
        /// Packets from consumers that were ended by an answer of the gateway's own.
        answered_packets,
        /// Packets from consumers that were dropped at the endpoint.
        dropped_packets,
        /// Packets that were genuine when an appliance returned them, and then had nowhere to go.
        dropped_returns,
        /// Packets that would have begun a flow, and were dropped or reset instead.
        refused_flows,
        /// Of these, TCP segments.
        refused_tcp_flows,
        /// TCP resets that the gateway sent to either end of a flow.
        tcp_resets,
    }
}

impl EndpointTotals {
    /// Flows that the endpoint has now.
    pub const fn active_flows(&self) -> u64 {
        self.new_flows.saturating_sub(self.ended_flows)
    }

    /// Packets that routes led to the endpoint.
    pub const fn received_packets(&self) -> u64 {
        self.inspected_packets
            + self.bypassed_packets
            + self.answered_packets
            + self.dropped_packets
    }
}

counters! {
    /// What the flow table did.
    FlowTableCounters summed as FlowTableTotals {
        /// Flows made.
        created,
        /// Of these, flows that were taken on in their middle.
        adopted,
        /// Flows that had no packet for as long as their state allows.
        expired,
        /// Flows that were over, or whose endpoint could take no more, and whose addresses and ports
        /// began a new one.
        reopened,
        /// Flows that moved: their target was gone, or they had none and are inspected again.
        rebalanced,
        /// Flows that were reset because their target was gone.
        reset,
        /// Packets placed without a flow, since the table was full or took no more in that second.
        untracked,
        /// Of these, packets for which the table had no room.
        table_full,
        /// The others of these: more flows began in that second than are admitted.
        too_fast,
    }
}

impl FlowTableTotals {
    /// Flows in the tables now.
    pub const fn active(&self) -> u64 {
        self.created.saturating_sub(self.expired + self.reopened)
    }
}

counters! {
    /// TCP resets that were sent, by cause.
    ResetCounters summed as ResetTotals {
        /// Because the flow's target was unhealthy.
        on_unhealthy,
        /// Because the flow's target was deregistered.
        on_deregistration,
        /// Because the flow had idled out, or was not known (`send_tcp_reset_on_idle_timeout`).
        on_idle_timeout,
        /// Because the flow was not known (`tcp_unknown_flow`).
        on_unknown_flow,
    }
}

counters! {
    /// What the worker told of its flows for flow logs.
    FlowLogCounters summed as FlowLogTotals {
        /// Records of what went one way of a flow in a window.
        records,
        /// Records that were lost, since those before them were not written in time.
        lost,
        /// Packets without a flow that came into no record: a worker keeps 4096 kinds of such apart in
        /// a window.
        strays_lost,
    }
}

counters! {
    /// What the worker asked of the kernel.
    IoCounters summed as IoTotals {
        /// System calls for packets and for waiting.
        syscalls,
        /// Batches that the kernel refused as a whole, so that their packets went out one by one.
        split_sends,
        /// Datagrams lost in the kernel's receive queues.
        kernel_drops,
        /// Errors that the underlay reported (ICMP) on the sockets' error queues.
        underlay_errors,
        /// Packets and datagrams that were longer than any buffer, and so never came in.
        oversize_discards,
    }
}

/// One counter for each drop reason.
#[derive(Debug)]
pub struct Drops([Counter; DropReason::ALL.len()]);

impl Default for Drops {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl Drops {
    /// Counts `segments` dropped for `reason`.
    pub fn add(&self, reason: DropReason, segments: u64) {
        self.0[reason as usize].add(segments);
    }

    /// How many segments were dropped for `reason` so far.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize].get()
    }
}

/// One side's flow of packets, with the drops by name.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Everything but the drops.
    pub flow: Flow,
    /// Dropped, by reason.
    pub drops: Drops,
}

/// How many packets a worker handles together.
#[derive(Debug)]
pub struct Batches {
    /// Packets and super-packets of each batch that was read from a TUN device.
    pub read: Histogram,
    /// Datagrams of each buffer that was received from appliances.
    pub received: Histogram,
    /// Datagrams of each send to an appliance.
    pub sent: Histogram,
}

impl Default for Batches {
    fn default() -> Self {
        let [read, received, sent] = std::array::from_fn(|_| Histogram::new(BATCH_BOUNDS));
        Self { read, received, sent }
    }
}

/// The sums of [`Batches`] at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BatchTotals {
    /// As in [`Batches`].
    pub read: HistogramTotals,
    /// As in [`Batches`].
    pub received: HistogramTotals,
    /// As in [`Batches`].
    pub sent: HistogramTotals,
}

impl BatchTotals {
    /// Sums over workers.
    pub fn of<'a>(workers: impl IntoIterator<Item = &'a WorkerStats>) -> Self {
        let mut totals = Self::default();
        for WorkerStats { batches, .. } in workers {
            totals.read.add(&batches.read);
            totals.received.add(&batches.received);
            totals.sent.add(&batches.sent);
        }
        totals
    }
}

/// How long flows were there, from the first packet to the last, in milliseconds; known only where
/// [records](crate::dataplane::flow_table::record) are kept.
#[derive(Debug)]
pub struct FlowLife(Histogram);

impl Default for FlowLife {
    fn default() -> Self {
        Self(Histogram::new(FLOW_LIFE_BOUNDS))
    }
}

impl FlowLife {
    /// Counts a flow that has ended; only the one writer may.
    pub fn record(&self, life: Duration) {
        self.0.record(u64::try_from(life.as_millis()).unwrap_or(u64::MAX));
    }

    /// Sums over workers.
    pub fn of<'a>(workers: impl IntoIterator<Item = &'a WorkerStats>) -> HistogramTotals {
        HistogramTotals::of(workers.into_iter().map(|worker| &worker.flow_life.0))
    }
}

/// How long packets are with a target, as a worker has sampled it.
#[derive(Debug)]
pub struct RoundTrips {
    /// In microseconds.
    pub times: Histogram,
    /// The last one, in microseconds.
    pub last: Counter,
    /// When that was, in nanoseconds since the gateway started; 0: never.
    pub at: Counter,
}

impl Default for RoundTrips {
    fn default() -> Self {
        let times = Histogram::new(ROUND_TRIP_BOUNDS);
        Self { times, last: Counter::default(), at: Counter::default() }
    }
}

impl RoundTrips {
    /// The last one of several workers', in microseconds.
    pub fn last_of(workers: &[Self]) -> Option<u64> {
        let seen = workers.iter().filter(|it| it.at.get() > 0);
        seen.max_by_key(|it| it.at.get()).map(|it| it.last.get())
    }
}

/// Everything that one worker counts.
#[derive(Debug, Default)]
pub struct WorkerStats {
    /// Packets that came by TUN devices.
    pub tun: Ledger,
    /// Packets that came back from appliances; `encapsulated` are those that went on to a further
    /// endpoint.
    pub udp: Ledger,
    /// The flow table.
    pub flows: FlowTableCounters,
    /// TCP resets.
    pub resets: ResetCounters,
    /// Flow logs.
    pub flow_log: FlowLogCounters,
    /// System calls, and what the kernel lost.
    pub io: IoCounters,
    /// How many packets are handled together.
    pub batches: Batches,
    /// How long flows were there, from the first packet to the last.
    pub flow_life: FlowLife,
    /// The generation of the snapshot that the worker holds.
    pub generation: Generation,
}

impl WorkerStats {
    /// The ledger of a side.
    pub fn ledger(&self, side: Side) -> &Ledger {
        match side {
            Side::Tun => &self.tun,
            Side::Udp => &self.udp,
        }
    }
}

/// A ledger's sums over workers at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct LedgerTotals {
    /// Everything but the drops.
    #[serde(flatten)]
    pub flow: FlowTotals,
    /// Dropped, by reason; reasons that never occurred are left out.
    pub drops: BTreeMap<&'static str, u64>,
}

impl LedgerTotals {
    fn add(&mut self, ledger: &Ledger) {
        self.flow.add(&ledger.flow);
        for (reason, counter) in DropReason::ALL.iter().zip(&ledger.drops.0) {
            if counter.get() > 0 {
                *self.drops.entry(reason.name()).or_default() += counter.get();
            }
        }
    }

    /// Packets that are in a queue between workers, or wait for their first fragment.
    pub const fn queued(&self) -> u64 {
        let flow = &self.flow;
        (flow.handed_over + flow.held).saturating_sub(flow.taken_over + flow.released)
    }

    /// What entered and what left, queued included: equal when nothing is under way, or else
    /// conservation is broken.
    pub fn balance(&self) -> (u64, u64) {
        let flow = &self.flow;
        let sent = flow.encapsulated + flow.delivered + flow.bypassed;
        let ended = flow.replied + flow.probes + self.drops.values().sum::<u64>();
        (flow.received + flow.generated, sent + ended + self.queued())
    }
}

/// The sums over all workers at one moment, as the admin API shows them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Totals {
    /// Packets that came by TUN devices.
    pub tun: LedgerTotals,
    /// Packets that came back from appliances.
    pub udp: LedgerTotals,
    /// The flow tables.
    pub flows: FlowTableTotals,
    /// TCP resets.
    pub resets: ResetTotals,
    /// Flow logs.
    pub flow_log: FlowLogTotals,
    /// System calls, and what the kernel lost.
    pub io: IoTotals,
}

impl Totals {
    /// Sums over workers.
    pub fn of<'a>(workers: impl IntoIterator<Item = &'a WorkerStats>) -> Self {
        let mut totals = Self::default();
        for worker in workers {
            totals.tun.add(&worker.tun);
            totals.udp.add(&worker.udp);
            totals.flows.add(&worker.flows);
            totals.resets.add(&worker.resets);
            totals.flow_log.add(&worker.flow_log);
            totals.io.add(&worker.io);
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_sum_and_balance() {
        let workers = [WorkerStats::default(), WorkerStats::default()];
        workers[0].tun.flow.received.add(42);
        workers[0].tun.flow.encapsulated.add(40);
        workers[0].tun.drops.add(DropReason::NoRoute, 1);
        workers[0].tun.flow.handed_over.add(1);
        let totals = Totals::of(&workers);
        assert_eq!(totals.tun.balance(), (42, 42));
        assert_eq!(totals.tun.queued(), 1);

        workers[1].tun.flow.taken_over.add(1);
        let totals = Totals::of(&workers);
        assert_eq!(totals.tun.balance(), (42, 41), "a packet that was taken and then lost shows");
        workers[1].tun.drops.add(DropReason::NoRoute, 1);
        let totals = Totals::of(&workers);
        assert_eq!(totals.tun.balance(), (42, 42));
        assert_eq!(totals.tun.drops, BTreeMap::from([("no_route", 2)]));
    }

    #[test]
    fn json_is_flat_and_leaves_out_what_never_happened() {
        let json = serde_json::to_value(Totals::default()).unwrap();
        assert_eq!(json["tun"]["received"], 0);
        assert_eq!(json["tun"]["drops"], serde_json::json!({}));
    }
}
