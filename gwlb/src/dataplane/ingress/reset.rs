//! Flows that end without a packet: they idle out, or are reset at both ends because their target
//! is gone.

use std::time::Instant;

use router::{Entry, NextHop};

use super::State;
use crate::config::TrafficMode;
use crate::dataplane::flow_table::{Ends, FlowId, Inspector, LastWord};
use crate::dataplane::reply;
use crate::dataplane::snapshot::{Fate, Pool, ResetCause, Snapshot, TargetSlot};
use crate::dataplane::tcp_state::TcpState;
use crate::dataplane::verdict::{Reply, ReplyCause};
use crate::fault::{self, Fault};

/// Flows looked at in one call, so that packets do not wait long for it.
const PIECE: usize = 128;

/// Goes through the table once, piece by piece.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// Where it goes on, and since when it should have.
    next: Option<(usize, Instant)>,
}

impl Sweep {
    /// Begins anew if `new` resets flows at both ends that `old` did not.
    pub fn begin_if(&mut self, old: &Snapshot, new: &Snapshot, now: Instant) {
        let resets = |pool: &Pool, slot: usize| {
            pool.reset_both_ends && matches!(pool.fate(TargetSlot(slot as u32)), Fate::Reset(_))
        };
        let more = new.pools.iter().enumerate().any(|(number, pool)| {
            let before = old.pools.get(number);
            (0..pool.fates.len())
                .any(|slot| resets(pool, slot) && !before.is_some_and(|old| resets(old, slot)))
        });
        if more {
            self.next = Some((0, now));
        }
    }

    /// When it goes on.
    pub fn due(&self) -> Option<Instant> {
        self.next.map(|(_, due)| due)
    }
}

impl State {
    /// Forgets what has idled out.
    pub(super) fn expire(&mut self, view: &Snapshot, now: Instant) {
        let mut gone = std::mem::take(&mut self.gone);
        self.flows.handle_timeout(now, |flow, ends| gone.push((flow, ends)));
        for (over, ends) in gone.drain(..) {
            self.stats.flows.expired.add(1);
            self.end(view, &over);
            let flow = over.flow;
            let over = flow.tcp.is_some_and(TcpState::is_closed);
            if !over && pool_of(view, &flow.id).is_some_and(|p| p.reset_idle && p.reset_both_ends) {
                self.reset_ends(view, &flow.id, ends, ReplyCause::IdleTimeout);
            }
        }
        self.gone = gone;
    }

    /// Resets the next flows whose target is gone.
    pub(super) fn sweep(&mut self, view: &Snapshot, now: Instant) {
        let Some((at, _)) = self.sweep.next else { return };
        let end = at + PIECE;
        let lost: Vec<_> = self
            .flows
            .in_range(at..end)
            .filter_map(|number| {
                let flow = self.flows.get(number);
                let Inspector::Target(target) = flow.placement.inspector else { return None };
                let pool = pool_of(view, &flow.id)?;
                // What has ended by itself, or idled out, needs no reset.
                let over = flow.tcp.is_none_or(TcpState::is_closed) || flow.deadline <= now;
                match pool.fate(target) {
                    // What bypasses the appliances has not lost anything.
                    _ if pool.traffic_mode == TrafficMode::Bypass => None,
                    Fate::Reset(cause) if pool.reset_both_ends && !over => {
                        Some((number, cause, pool.timers.tcp_closed))
                    }
                    _ => None,
                }
            })
            .collect();
        for (number, cause, closed) in lost {
            let flow = self.flows.get(number);
            let ends = self.flows.ends(number);
            self.reset_ends(view, &flow.id, ends, ReplyCause::TargetGone(cause));
            // An end that has sent nothing since this was turned on is reset at its next packet, for
            // which the flow has to be there. Half open, the other end has never sent anything.
            if ends.0.contains(&None) && flow.tcp != Some(TcpState::HALF_OPEN) {
                self.flows.forget_ends(number);
                continue;
            }
            // It is not forgotten yet: an end that has got data since its last acknowledgement does
            // not believe this reset and asks back (RFC 5961 section 3.2), and is answered then.
            self.stats.flows.reset.add(1);
            self.flows.touch(number, Some(TcpState::CLOSED), closed, now);
        }
        self.sweep.next = (end < self.flows.numbers()).then_some((end, now));
    }

    /// Resets those ends of a TCP connection that anything was seen from.
    fn reset_ends(&mut self, view: &Snapshot, flow: &FlowId, Ends(words): Ends, cause: ReplyCause) {
        let Some(&endpoint) = view.wire_ids.get(&flow.endpoint) else { return };
        let ends = [flow.tuple.low(), flow.tuple.high()];
        for (end, word) in words.into_iter().enumerate() {
            let wrong = usize::from(fault::on(Fault::ResetOfWrongEnd));
            let (to, from) = (ends[end ^ wrong], ends[1 - (end ^ wrong)]);
            let packet = match word {
                Some(LastWord::Ack(ack)) => reply::reset_end(to, from, ack),
                Some(LastWord::Syn(seq)) => reply::reset_opening_end(to, from, seq),
                None => None,
            };
            let Some(packet) = packet else { continue };
            // It leaves as what the appliances return to this end does.
            let NextHop::Deliver(attachment) =
                view.topology.lookup(Entry::Endpoint(endpoint), to.ip())
            else {
                continue;
            };
            if view.attachments.contains_key(&attachment) {
                self.count_reset(view, flow.endpoint, cause);
                self.replies.push_back(Reply { to: attachment, packet, cause });
            }
        }
    }

    /// Counts an answer that is a reset, at the endpoint with this id on the wire.
    pub(super) fn count_reset(&self, view: &Snapshot, endpoint: u64, cause: ReplyCause) {
        let resets = &self.stats.resets;
        let counter = match cause {
            ReplyCause::PacketTooBig => return,
            ReplyCause::UnknownTcpFlow => &resets.on_unknown_flow,
            ReplyCause::IdleTimeout => &resets.on_idle_timeout,
            ReplyCause::TargetGone(ResetCause::Unhealthy) => &resets.on_unhealthy,
            ReplyCause::TargetGone(ResetCause::Deregistration) => &resets.on_deregistration,
        };
        counter.add(1);
        if let Some(counters) = view.endpoint_counters(endpoint, self.worker) {
            counters.tcp_resets.add(1);
        }
    }
}

/// The node that serves a flow, if its endpoint is still there.
fn pool_of<'a>(snapshot: &'a Snapshot, flow: &FlowId) -> Option<&'a Pool> {
    let endpoint = *snapshot.wire_ids.get(&flow.endpoint)?;
    Some(snapshot.pool(snapshot.endpoint(endpoint).pool))
}
