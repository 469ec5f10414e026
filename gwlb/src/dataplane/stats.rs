//! Counters of one worker: two ledgers that balance, and what each target was sent and returned.
//!
//! Every counter has one writer, the worker, so an addition is a load and a store without a lock
//! prefix; readers sum over workers whenever they like. Packets are counted in segments: a
//! super-packet of 42 segments counts 42.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use serde::Serialize;

use super::verdict::{DropReason, Side};
use crate::sync::AtomicU64;

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
}

/// One side's flow of packets, with the drops by name.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Everything but the drops.
    pub flow: Flow,
    /// Dropped, by reason.
    pub drops: Drops,
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
    /// System calls, and what the kernel lost.
    pub io: IoCounters,
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
