//! The short way for ordinary packets that begin flows: a SYN, or the first datagram.
//!
//! A flood of them should cost as little as can be, since those who send it choose how many there
//! are. Like [`settled`](super::settled), it decides what the long way would, and leaves all that is
//! out of the ordinary to that: flows that are known, or another worker's, what does not fit, and
//! whatever has nobody to inspect it.

use super::Ingress;
use super::settled::{Glance, Moment, of_version};
use crate::dataplane::flow_table::record::Placed;
use crate::dataplane::flow_table::{FlowId, Inspector, Placement};
use crate::dataplane::select::choose_for;
use crate::dataplane::tcp_state::{TcpState, opens};
use crate::dataplane::verdict::Course;
use crate::fault::{self, Fault};

impl Ingress {
    /// The way of a packet that begins a flow, which is in the table from now on if that takes it.
    /// `None`, and nothing has happened: the packet is for the long way.
    #[inline]
    pub fn begun(&mut self, glance: &Glance, moment: &Moment) -> Option<Course> {
        let Self { snapshot: view, state, shortcuts } = self;
        let (at, plain) = (shortcuts.at(glance.endpoint)?, &glance.plain);
        if !at.open || fault::on_besides(&Fault::OF_SHORT_WAYS) {
            return None;
        }
        let (tcp, idle) = match plain.is_tcp() {
            true if !opens(plain.flags()) || at.clamps => return None,
            true => (Some(TcpState::HALF_OPEN), at.half_open_idle),
            false => (None, at.other_idle),
        };
        let (tuple, version) = (plain.canonical(), plain.version());
        let vacancy = state.flows.vacancy(tuple, at.wire_id, glance.hash)?;
        let flow = glance.placing(&view.keys.placement);
        let (owner, port) = view.share_of(flow);
        if owner != state.worker && !fault::on(Fault::BegunByAnyWorker) {
            return None;
        }
        let pool = view.pool(at.pool);
        let target = choose_for(flow, &pool.candidates)?;
        let to = shortcuts.to(target)?;
        if glance.shape.largest > u32::from(of_version(to.fits, version)) {
            return None;
        }
        let placement = Placement { inspector: Inspector::Target(target), port };
        let cookie = at.stamper.stamp(to.id, tuple);
        let admitted = state.admission.take(moment.now());
        let begun = if admitted {
            state.flows.begin(vacancy, placement, tcp, cookie, idle, moment.turn()).ok()
        } else {
            None
        };
        if let Some(number) = begun {
            at.counters.new_flows.add(1);
            state.stats.flows.created.add(1);
            to.counters[usize::from(state.worker.0)].new_flows.add(1);
            if state.flows.keeps_records() {
                let seen = glance.seen();
                state.flows.begin_record(number, Placed::New, Some(seen.end), moment.now());
                state.flows.note(number, &seen, moment.now());
            }
        } else {
            let packet = (glance.shape.segments.into(), plain.is_tcp());
            let id = FlowId { endpoint: at.wire_id, tuple: *tuple };
            state.pass_untracked(&id, packet, admitted, pool, moment.now());
            state.log_untracked(view, glance, at.wire_id, placement.inspector, moment.now());
        }
        at.count(glance);
        Some(Course { pool: at.pool, port, target, endpoint: at.wire_id, cookie, version })
    }
}
