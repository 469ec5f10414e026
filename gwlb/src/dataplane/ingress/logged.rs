//! What is noted of packets for those who look at flows, and told for flow logs.

#[cfg(test)]
mod tests;

use std::time::Instant;

use geneve::inner::{TcpFlags, Transport};
use netio::offload::Offload;
use router::NextHop;

use super::flows::end_of;
use super::settled::Glance;
use super::{Ending, Sought, State};
use crate::dataplane::flow_log::{Inspected, Stray};
use crate::dataplane::flow_table::record::{Gone, Seen};
use crate::dataplane::flow_table::{FlowNumber, Inspector};
use crate::dataplane::fragments::Waiting;
use crate::dataplane::frame::Frame;
use crate::dataplane::snapshot::Snapshot;
use crate::dataplane::verdict::DropReason;

impl State {
    /// Notes a packet that goes on: with its flow, or else by itself.
    pub(super) fn note_passing(
        &mut self,
        view: &Snapshot,
        flow: &Sought,
        number: Option<FlowNumber>,
        inspector: Inspector,
        frame: &Frame<'_>,
        now: Instant,
    ) {
        let bypassed = inspector == Inspector::Bypass;
        if let Some(number) = number
            && self.log.is_some()
            && self.flows.mixes_window(number, bypassed)
        {
            self.log_window(view, number);
        }
        // An ICMP error goes with a flow and is none of its packets.
        let error = matches!(frame.inner.transport, Transport::IcmpError { .. });
        match number.filter(|_| !error) {
            Some(number) if self.flows.keeps_records() => {
                let seen = Seen {
                    end: end_of(&flow.id, &flow.tuple),
                    segments: frame.shape.segments,
                    bytes: frame.bytes(),
                    flags: flags(frame),
                };
                self.flows.note(number, &seen, now);
                if bypassed && self.log.is_some() {
                    self.flows.note_bypassed(number);
                }
            }
            Some(_) => {}
            None => {
                let Some(log) = &mut self.log else { return };
                let inspected = Inspected::by(inspector, view);
                let stray = stray(frame, Some(flow.id.endpoint), Some(inspected), None);
                log.stray(&stray, &self.stats.flow_log, now);
            }
        }
    }

    /// Tells of a packet that was glanced at and that the table did not take in.
    pub(super) fn log_untracked(
        &mut self,
        view: &Snapshot,
        glance: &Glance,
        endpoint: u64,
        inspector: Inspector,
        now: Instant,
    ) {
        let Some(log) = &mut self.log else { return };
        let (key, seen) = (glance.plain.flow_key(), glance.seen());
        let stray = Stray {
            endpoint: Some(endpoint),
            key,
            inspector: Some(Inspected::by(inspector, view)),
            rejected: None,
            segments: seen.segments.into(),
            bytes: seen.bytes,
            flags: seen.flags,
        };
        log.stray(&stray, &self.stats.flow_log, now);
    }

    /// Tells of a packet that goes nowhere.
    #[inline]
    pub(super) fn log_ending(
        &mut self,
        view: &Snapshot,
        frame: &Frame<'_>,
        ending: &Result<Ending, DropReason>,
        now: Instant,
    ) {
        let Some(log) = &mut self.log else { return };
        let reason = match ending {
            Err(reason) => *reason,
            Ok(Ending::Reply(reply)) => reply.cause.refusal(),
            Ok(_) => return,
        };
        let endpoint = self.at.map(|endpoint| view.endpoint(endpoint).wire_id);
        log.stray(&stray(frame, endpoint, None, Some(reason)), &self.stats.flow_log, now);
    }

    /// Tells of a fragment that has waited for its first one in vain.
    pub(super) fn log_given_up(&mut self, view: &Snapshot, waiting: &Waiting, now: Instant) {
        let Some(log) = &mut self.log else { return };
        // It was valid when it came.
        let Ok(frame) = Frame::parse(waiting.packet.bytes(), &Offload::NONE) else { return };
        let at = view.entry(waiting.from.at, waiting.epoch);
        let endpoint = match at.map(|at| view.topology.lookup(at, frame.inner.dst)) {
            Some(NextHop::Endpoint(endpoint)) => Some(view.endpoint(endpoint).wire_id),
            // A group had not chosen any yet, or the routes have changed.
            _ => None,
        };
        let reason = DropReason::FragmentWithoutFirst;
        log.stray(&stray(&frame, endpoint, None, Some(reason)), &self.stats.flow_log, now);
    }

    /// Tells what has come of a flow since its last window was closed, before it is placed elsewhere.
    pub(super) fn log_window(&mut self, view: &Snapshot, number: FlowNumber) {
        let Self { flows, log: Some(log), stats, .. } = self else { return };
        let Some(window) = flows.close_window(number) else { return };
        let (flow, cookie) = (flows.get(number), flows.cookie(number));
        let about = (flow.id.endpoint, flow.id.tuple.directed());
        let inspected = Inspected::by(flow.placement.inspector, view);
        log.put(about, inspected, cookie, &window, flows, &stats.flow_log);
    }

    /// The same of a flow that is no more.
    pub(super) fn log_gone(&mut self, view: &Snapshot, gone: &Gone) {
        let Self { flows, log: Some(log), stats, .. } = self else { return };
        let Some(window) = &gone.window else { return };
        let about = (gone.flow.id.endpoint, gone.flow.id.tuple.directed());
        let inspected = Inspected::by(gone.flow.placement.inspector, view);
        log.put(about, inspected, gone.cookie, window, flows, &stats.flow_log);
    }

    /// Closes the last window of flow logs, a piece at a time; says whether all is told.
    pub(super) fn finish_windows(&mut self, view: &Snapshot, now: Instant) -> bool {
        let Self { flows, log: Some(log), stats, .. } = self else { return true };
        log.finish(view, flows, &stats.flow_log, now)
    }

    /// Closes the next windows of flow logs.
    pub(super) fn close_windows(&mut self, view: &Snapshot, now: Instant) {
        if let Some(log) = &mut self.log {
            log.close(view, &mut self.flows, &self.stats.flow_log, now);
        }
    }
}

fn stray(
    frame: &Frame<'_>,
    endpoint: Option<u64>,
    inspector: Option<Inspected>,
    rejected: Option<DropReason>,
) -> Stray {
    Stray {
        endpoint,
        key: frame.inner.ported_key().unwrap_or_else(|| frame.inner.flow_key()),
        inspector,
        rejected,
        segments: frame.segments(),
        bytes: frame.bytes(),
        flags: flags(frame),
    }
}

fn flags(frame: &Frame<'_>) -> TcpFlags {
    match frame.inner.transport {
        Transport::Tcp { flags, .. } => flags,
        _ => TcpFlags::default(),
    }
}
