//! The order of operations: each is possible when its turn comes, and no packet is in danger after
//! it, as far as such an order can be found.

use std::collections::HashSet;

use super::diff::split;
use super::network::Network;
use super::operation::Operation;
use super::safety::{Checker, Exposed};
use crate::source::Problem;

/// The operations that have had their turn.
#[derive(Default)]
pub(super) struct Order {
    pub steps: Vec<Taken>,
    /// Those for which no turn was found: none of them is possible after the others, and why.
    pub impossible: Vec<(Operation, Problem)>,
}

/// One operation, and who is in danger after it.
pub(super) struct Taken {
    pub operation: Operation,
    pub exposed: Exposed,
}

impl Order {
    /// Whether all can be done without danger.
    pub fn is_safe(&self) -> bool {
        self.impossible.is_empty() && self.steps.iter().all(|step| step.exposed.is_empty())
    }

    /// How far it is from that: what is impossible, and then how much is in danger, for how long.
    pub fn weight(&self) -> (usize, [usize; 3]) {
        let mut sum = [0; 3];
        for step in &self.steps {
            for (sum, weight) in sum.iter_mut().zip(step.exposed.weight()) {
                *sum += weight;
            }
        }
        (self.impossible.len(), sum)
    }
}

impl Taken {
    /// What no packet notices.
    pub fn harmless(operation: Operation) -> Taken {
        Taken { operation, exposed: Exposed::default() }
    }
}

/// How often a search takes a step back before it gives up. Most changes need none; where no order
/// is safe, trying them all would take for ever.
const STEPS_BACK: usize = 8;

/// A safe order, if one is found.
pub(super) fn safe(
    start: &Network,
    operations: &[Operation],
    checker: &mut Checker,
) -> Option<Order> {
    let mut search = Search { operations, checker, seen: HashSet::new() };
    let mut levels = vec![Level { done: vec![false; operations.len()], next: 0, taken: None }];
    let mut network = start.clone();
    let mut back = STEPS_BACK;
    loop {
        let level = levels.last_mut()?;
        if level.done.iter().all(|done| *done) {
            break;
        }
        if let Some((level, after)) = search.next(&network, level) {
            levels.push(level);
            network = after;
            continue;
        }
        back = back.checked_sub(1)?;
        levels.pop();
        // What nobody notices is no choice: to do it later helps nobody.
        while levels.last()?.next_is_idle(operations) {
            levels.pop();
        }
        let taken = levels.iter().filter_map(|level| level.taken);
        network = taken.fold(start.clone(), |network, index| {
            // It was possible before.
            operations[index].applied_to(&network).unwrap_or(network)
        });
    }
    let taken = levels.into_iter().filter_map(|level| level.taken);
    let step = |index: usize| Taken::harmless(operations[index].clone());
    Some(Order { steps: taken.map(step).collect(), impossible: Vec::new() })
}

/// A state on the way.
struct Level {
    /// The operations that have had their turn, or need none any more.
    done: Vec<bool>,
    /// The one that is to be tried next.
    next: usize,
    /// The one that led here.
    taken: Option<usize>,
}

impl Level {
    /// Whether the operation that was tried last from here does nothing but make something.
    fn next_is_idle(&self, operations: &[Operation]) -> bool {
        let last = self.next.checked_sub(1).and_then(|last| operations.get(last));
        matches!(last, Some(Operation::Create(_)))
    }
}

struct Search<'s> {
    operations: &'s [Operation],
    checker: &'s mut Checker,
    seen: HashSet<Vec<bool>>,
}

impl Search<'_> {
    /// The state after the next operation that is possible and safe.
    fn next(&mut self, network: &Network, level: &mut Level) -> Option<(Level, Network)> {
        while let Some(operation) = self.operations.get(level.next) {
            let index = level.next;
            level.next += 1;
            if level.done[index] {
                continue;
            }
            let mut done = level.done.clone();
            done[index] = true;
            for (done, other) in done.iter_mut().zip(self.operations) {
                *done |= other.ends_with(operation);
            }
            if self.seen.contains(&done) {
                continue;
            }
            let mut later = self.operations.iter().zip(&done).filter(|(_, done)| !**done);
            if later.any(|(other, _)| operation.holds_up(other, network)) {
                continue;
            }
            let Ok(after) = operation.applied_to(network) else { continue };
            // Until now nobody is.
            if operation.goes_unnoticed(network)
                || self.checker.exposed(after.topology()).is_empty()
            {
                self.seen.insert(done.clone());
                return Some((Level { done, next: 0, taken: Some(index) }, after));
            }
        }
        None
    }
}

/// An order in any case: at each turn what is safe, or else what endangers least.
pub(super) fn least_evil(
    start: &Network,
    operations: &[Operation],
    checker: &mut Checker,
) -> Order {
    let mut rest = operations.to_vec();
    let mut order = Order::default();
    let mut network = start.clone();
    let mut now = Exposed::default();
    let mut patient = true;
    while !rest.is_empty() {
        let mut best: Option<(usize, Network, Exposed)> = None;
        for (index, operation) in rest.iter().enumerate() {
            if patient && rest.iter().any(|other| operation.holds_up(other, &network)) {
                continue;
            }
            let Ok(after) = operation.applied_to(&network) else { continue };
            let unnoticed = operation.goes_unnoticed(&network);
            let exposed = if unnoticed { now.clone() } else { checker.exposed(after.topology()) };
            if best.as_ref().is_none_or(|(.., it)| exposed.weight() < it.weight()) {
                let safe = exposed.is_empty();
                best = Some((index, after, exposed));
                if safe {
                    break;
                }
            }
        }
        match best {
            Some((index, after, exposed)) => {
                now.clone_from(&exposed);
                let operation = rest.remove(index);
                rest.retain(|other| !other.ends_with(&operation));
                order.steps.push(Taken { operation, exposed });
                network = after;
            }
            // Where each needs that the other has had its turn, halves may be possible.
            None if rest.iter().any(|it| split(it).is_some()) => {
                let halves = |it: &Operation| split(it).map_or(vec![it.clone()], Vec::from);
                rest = rest.iter().flat_map(halves).collect();
            }
            None if patient => patient = false,
            None => {
                let why = |it: Operation| {
                    let problem = it.applied_to(&network).err()?;
                    Some((it, problem))
                };
                order.impossible = rest.into_iter().filter_map(why).collect();
                break;
            }
        }
    }
    order
}
