//! What is due when: a priority queue whose entries can be moved.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// At most one time for each item. Every operation takes logarithmic time.
///
/// Items that are due at the same time come in their own order, so that a run can be repeated.
#[derive(Debug)]
pub(super) struct Agenda<T> {
    by_time: BTreeSet<(Instant, T)>,
    times: BTreeMap<T, Instant>,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self { by_time: BTreeSet::new(), times: BTreeMap::new() }
    }
}

impl<T: Copy + Ord> Agenda<T> {
    /// Sets, moves or (with `None`) takes off the time of an item.
    pub fn set(&mut self, item: T, due: Option<Instant>) {
        let before = match due {
            Some(due) => self.times.insert(item, due),
            None => self.times.remove(&item),
        };
        if before == due {
            return;
        }
        if let Some(before) = before {
            self.by_time.remove(&(before, item));
        }
        if let Some(due) = due {
            self.by_time.insert((due, item));
        }
    }

    /// When the first item is due.
    pub fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|&(due, _)| due)
    }

    /// Takes the first item off that is due by now.
    pub fn take_due(&mut self, now: Instant) -> Option<T> {
        let &(due, item) = self.by_time.first()?;
        if due > now {
            return None;
        }
        self.set(item, None);
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::start;
    use super::*;

    #[test]
    fn items_come_in_the_order_of_their_times() {
        let t = |ms| start() + Duration::from_millis(ms);
        let mut agenda = Agenda::default();
        agenda.set('c', Some(t(3)));
        agenda.set('b', Some(t(2)));
        agenda.set('a', Some(t(2)));
        agenda.set('d', Some(t(1)));
        agenda.set('d', Some(t(9)));
        agenda.set('c', Some(t(3)));
        assert_eq!(agenda.next(), Some(t(2)), "d was moved");
        assert_eq!(agenda.take_due(t(1)), None);
        let due: String = std::iter::from_fn(|| agenda.take_due(t(3))).collect();
        assert_eq!(due, "abc");
        agenda.set('d', None);
        assert_eq!(agenda.next(), None);
    }
}
