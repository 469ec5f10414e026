//! How a target leaves: it drains, it is unused, it is forgotten.

use std::time::Duration;

use gwlb::control::Event;
use gwlb::control::event::DrainEnd;

use super::super::books::Books;
use super::choice::TargetNumber;
use super::{Control, Target};

/// How far a target has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Registered,
    /// Deregistered, and it has flows and time left. `left` is the view of which it is no candidate
    /// any more, once that was published.
    Draining {
        begun: Duration,
        deadline: Duration,
        left: Option<u64>,
    },
    /// Its delay is over, or its last flow has ended; since when it has none.
    Unused {
        left: Option<u64>,
        empty: Option<Duration>,
    },
}

/// How long packets may be under way to an appliance and back after its last flow has ended.
const UNDER_WAY: Duration = Duration::from_secs(30);
/// How often flows of a draining target are counted, and of one whose delay is over.
const COUNTED_EVERY: Duration = Duration::from_millis(100);
const COUNTED_LATER: Duration = Duration::from_secs(1);

impl Target {
    pub(super) fn is_registered(&self) -> bool {
        self.life == Life::Registered
    }

    /// Flows that it has, by way of all nodes.
    pub(super) fn flows(&self, books: &Books) -> u64 {
        self.slot.map_or(0, |slot| books.active(slot))
    }
}

impl Control {
    /// Those that are on their way out.
    pub(super) fn leaving(&self) -> Vec<TargetNumber> {
        let leaving = self.targets.iter().filter(|(_, target)| !target.is_registered());
        leaving.map(|(number, _)| *number).collect()
    }

    /// A target gets no new flows from now on.
    pub(super) fn begin_to_leave(&mut self, number: TargetNumber, delay: Duration, books: &Books) {
        let now = self.now;
        let Some(target) = self.targets.get_mut(&number) else { return };
        target.life = Life::Draining { begun: now, deadline: now + delay, left: None };
        self.events.push(Event::DrainBegun {
            target_group: target.group.clone(),
            target: target.address,
            flows: target.flows(books),
            seconds: delay.as_secs_f64(),
        });
        self.look_at_leaving(number, books);
    }

    /// Looks how far a target has come. "Draining ends when the delay is over or the last flow has
    /// ended."
    pub(super) fn look_at_leaving(&mut self, number: TargetNumber, books: &Books) {
        let now = self.now;
        let acknowledged = self.acknowledged;
        let Some(target) = self.targets.get_mut(&number) else { return };
        let flows = target.flows(books);
        // A worker with an older view may still place a flow there.
        let is_left = |left: Option<u64>| left.is_some_and(|left| acknowledged >= left);
        if let Life::Draining { deadline, left, .. } = target.life {
            let drained = is_left(left) && flows == 0;
            if !drained && now < deadline {
                target.look_at = Some(deadline.min(now + COUNTED_EVERY));
                return;
            }
            target.life = Life::Unused { left, empty: None };
            let cause = if flows == 0 { DrainEnd::LastFlow } else { DrainEnd::Deadline };
            let (target_group, target) = (target.group.clone(), target.address);
            self.events.push(Event::DrainEnded { target_group, target, cause, flows });
        }
        let Some(target) = self.targets.get_mut(&number) else { return };
        let Life::Unused { left, empty } = target.life else { return };
        if flows > 0 {
            target.life = Life::Unused { left, empty: None };
            target.look_at = Some(now + COUNTED_LATER);
            return;
        }
        let empty = empty.unwrap_or(now);
        target.life = Life::Unused { left, empty: Some(empty) };
        let due = empty + UNDER_WAY;
        target.look_at = (now < due || is_left(left)).then_some(due);
        if is_left(left) && now >= due {
            if let Some(target) = self.targets.remove(&number) {
                self.forgotten.retain(|(at, _)| *at == now);
                self.forgotten.push((now, target.address.ip()));
            }
            let come = self.sync_members(false);
            self.begin_slowly(&come);
        }
    }

    /// A view was published: those that have left are no candidates in it.
    pub(super) fn note_left(&mut self, generation: u64) {
        for target in self.targets.values_mut() {
            if let Life::Draining { left, .. } | Life::Unused { left, .. } = &mut target.life {
                left.get_or_insert(generation);
            }
        }
    }
}
