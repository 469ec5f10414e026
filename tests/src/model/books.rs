//! The model's own count of what became of every packet and flow.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::SocketAddr;

use gwlb::dataplane::snapshot::{ResetCause, TargetSlot};
use gwlb::dataplane::stats::{
    FlowTableTotals, FlowTotals, LedgerTotals, ResetTotals, TargetTotals, Totals,
};
use gwlb::dataplane::verdict::{DropReason, ReplyCause, Side};

use super::flow::Who;
use super::{Clause, Wrong, hold};

/// One side's packets.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub flow: FlowTotals,
    drops: BTreeMap<&'static str, u64>,
}

impl Ledger {
    pub(super) fn drop(&mut self, reason: DropReason, segments: u64) {
        *self.drops.entry(reason.name()).or_default() += segments;
    }
}

/// A gateway's books. Targets are counted by slot.
#[derive(Debug, Default)]
pub(super) struct Books {
    pub tun: Ledger,
    pub udp: Ledger,
    pub flows: FlowTableTotals,
    pub resets: ResetTotals,
    targets: BTreeMap<TargetSlot, TargetTotals>,
    /// By slot, the first view in which it is its present target's.
    since: BTreeMap<TargetSlot, u64>,
    /// What was counted for targets that are gone, by workers that did not know it yet.
    gone: TargetTotals,
    /// Flows that began with one of several targets, and ended before it was seen with which: for
    /// each of these the count may be higher by so many.
    unseen: BTreeMap<TargetSlot, u64>,
}

impl Books {
    pub(super) fn ledger(&mut self, side: Side) -> &mut Ledger {
        match side {
            Side::Tun => &mut self.tun,
            Side::Udp => &mut self.udp,
        }
    }

    /// What is counted for the target that a slot is in the view of this generation.
    pub(super) fn target(&mut self, slot: TargetSlot, view: u64) -> &mut TargetTotals {
        if self.is_gone(slot, view) {
            return &mut self.gone;
        }
        self.targets.entry(slot).or_default()
    }

    /// Whether a slot is another's by now than in the view of this generation.
    fn is_gone(&self, slot: TargetSlot, view: u64) -> bool {
        self.since.get(&slot).is_some_and(|since| view < *since)
    }

    /// A slot is somebody else's from this view on.
    pub(super) fn vacate(&mut self, slot: TargetSlot, view: u64) {
        self.targets.remove(&slot);
        self.unseen.remove(&slot);
        self.since.insert(slot, view);
    }

    /// Flows that a target may have and that were not seen to be with another, for all that was
    /// seen: at least and at most so many.
    pub(super) fn active(&self, slot: TargetSlot) -> u64 {
        self.targets.get(&slot).map_or(0, TargetTotals::active_flows)
    }

    /// A reset was sent.
    pub(super) fn reset(&mut self, cause: ReplyCause) {
        match cause {
            ReplyCause::PacketTooBig => {}
            ReplyCause::UnknownTcpFlow => self.resets.on_unknown_flow += 1,
            ReplyCause::IdleTimeout => self.resets.on_idle_timeout += 1,
            ReplyCause::TargetGone(ResetCause::Unhealthy) => self.resets.on_unhealthy += 1,
            ReplyCause::TargetGone(ResetCause::Deregistration) => {
                self.resets.on_deregistration += 1;
            }
        }
    }

    /// A flow is with somebody from now on, as a worker with this view counts.
    pub(super) fn gains(&mut self, who: &Who, view: u64) {
        if let Who::One(slot) = who {
            self.target(*slot, view).new_flows += 1;
        }
    }

    /// A flow is not with somebody any more, as a worker with this view counts.
    pub(super) fn loses(&mut self, who: &Who, view: u64) {
        match who {
            Who::Nobody => {}
            Who::One(slot) => self.target(*slot, view).ended_flows += 1,
            Who::OneOf(slots) => {
                let there: Vec<_> = slots.iter().filter(|it| !self.is_gone(**it, view)).collect();
                for slot in there {
                    *self.unseen.entry(*slot).or_default() += 1;
                }
            }
        }
    }

    /// Holds that the gateway has counted the same. `open` are flows that are with one of several
    /// targets now, for each of these.
    pub(super) fn check(
        &self,
        totals: &Totals,
        targets: &BTreeMap<SocketAddr, TargetTotals>,
        slots: &[SocketAddr],
        open: &BTreeMap<TargetSlot, u64>,
    ) -> Result<(), Wrong> {
        for (name, own, theirs) in
            [("TUN", &self.tun, &totals.tun), ("UDP", &self.udp, &totals.udp)]
        {
            let theirs: &LedgerTotals = theirs;
            same(&format!("{name} side"), own.flow.fields(), theirs.flow.fields())?;
            hold(own.drops == theirs.drops, Clause::Conservation, || {
                format!("{name} side: {:?} were dropped, {:?} are counted", own.drops, theirs.drops)
            })?;
            let (came, went) = theirs.balance();
            hold(came == went, Clause::Conservation, || {
                format!("{name} side: {came} came and were made, {went} ended or wait")
            })?;
        }
        same("flow tables", self.flows.fields(), totals.flows.fields())?;
        same("resets", self.resets.fields(), totals.resets.fields())?;
        for (target, theirs) in targets {
            let mut own = FlowCounts::default();
            let mut more = 0..0;
            for (slot, _) in slots.iter().enumerate().filter(|(_, address)| *address == target) {
                let slot = TargetSlot(slot as u32);
                own.add(self.targets.get(&slot).copied().unwrap_or_default());
                let count = |of: &BTreeMap<_, u64>| of.get(&slot).copied().unwrap_or_default();
                let (open, unseen) = (count(open), count(&self.unseen));
                more = more.start + unseen..more.end + open + unseen;
            }
            let own = own.0;
            for ((name, _, own), (_, _, theirs)) in own.fields().zip(theirs.fields()) {
                let more = match name {
                    "new_flows" => more.end,
                    "ended_flows" => more.start,
                    _ => 0,
                };
                hold((own..=own + more).contains(&theirs), Clause::Conservation, || {
                    format!("{target}: {name} is {own}, up to {more} more, {theirs} are counted")
                })?;
            }
        }
        Ok(())
    }
}

fn same<'a>(
    what: &str,
    own: impl Iterator<Item = (&'a str, &'a str, u64)>,
    theirs: impl Iterator<Item = (&'a str, &'a str, u64)>,
) -> Result<(), Wrong> {
    for ((name, _, own), (_, _, theirs)) in own.zip(theirs) {
        hold(own == theirs, Clause::Conservation, || {
            format!("{what}: {name} is {own}, {theirs} are counted")
        })?;
    }
    Ok(())
}

/// Sums of what several slots of one address count.
#[derive(Default)]
struct FlowCounts(TargetTotals);

impl FlowCounts {
    fn add(&mut self, slot: TargetTotals) {
        let sum = &mut self.0;
        sum.sent_packets += slot.sent_packets;
        sum.sent_bytes += slot.sent_bytes;
        sum.returned_packets += slot.returned_packets;
        sum.returned_bytes += slot.returned_bytes;
        sum.new_flows += slot.new_flows;
        sum.ended_flows += slot.ended_flows;
    }
}

/// For what is written into a violation: the beginning of something long.
pub(super) fn briefly(what: &impl Debug) -> String {
    let mut text = format!("{what:?}");
    if let Some((end, _)) = text.char_indices().nth(1200) {
        text.truncate(end);
        text.push('…');
    }
    text
}
