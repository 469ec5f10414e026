//! A group in the plainest way there is: everything that ever happened to it is kept, and what it
//! does at a second is read off that.

use super::Health;

/// What happens to a group within a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happens {
    Health(usize, Health),
    Enabled(usize, bool),
    Switch(usize),
    Back,
    Nothing,
}

/// A group at a second.
#[derive(Clone, Debug)]
struct Moment {
    health: [Option<Health>; 2],
    enabled: [bool; 2],
    preferred: usize,
    active: usize,
}

/// An active-standby group whose first member is the active one.
pub(super) struct Twin {
    /// Seconds that the preferred member is watched before it gets packets again.
    watch: Option<usize>,
    /// By second.
    moments: Vec<Moment>,
}

impl Moment {
    fn usable(&self, member: usize) -> bool {
        self.enabled[member] && self.health[member] == Some(Health::Normal)
    }

    fn pending(&self) -> bool {
        (0..2).any(|member| self.enabled[member] && self.health[member].is_none())
    }
}

impl Twin {
    pub fn new(watch: Option<usize>) -> Twin {
        let first = Moment { health: [None; 2], enabled: [true; 2], preferred: 0, active: 0 };
        Twin { watch, moments: vec![first] }
    }

    /// A second passes in which this happens, at its beginning.
    pub fn pass(&mut self, happens: Happens) {
        let mut now = self.moments.last().unwrap().clone();
        let mut asked = None;
        match happens {
            Happens::Health(member, health) => now.health[member] = Some(health),
            Happens::Enabled(member, enabled) => now.enabled[member] = enabled,
            Happens::Switch(to) if now.usable(to) && !now.pending() => asked = Some(to),
            Happens::Back => asked = Some(0),
            Happens::Switch(_) | Happens::Nothing => {}
        }
        now.preferred = asked.unwrap_or(now.preferred);
        if !now.pending() {
            let (active, other) = (now.active, 1 - now.active);
            let others_turn = match (now.usable(active), now.usable(other)) {
                (true, true) => {
                    asked.is_some_and(|asked| asked == other)
                        || now.preferred == other && self.was_watched(&now)
                }
                (true, false) => false,
                (false, true) => true,
                // A zone that is not well is better than one that nobody is to use.
                (false, false) => now.enabled[other] && !now.enabled[active],
            };
            if others_turn {
                now.active = other;
            }
        }
        self.moments.push(now);
    }

    pub fn active(&self) -> usize {
        self.moments.last().unwrap().active
    }

    /// Whether the member that is preferred now has been so all the time that it has to be watched,
    /// idle and well.
    fn was_watched(&self, now: &Moment) -> bool {
        let Some(watch) = self.watch else { return false };
        let before = self.moments.iter().rev().take(watch);
        before.len() == watch
            && before.into_iter().all(|moment| {
                !moment.pending()
                    && moment.preferred == now.preferred
                    && moment.active == now.active
                    && moment.usable(now.preferred)
                    && moment.usable(now.active)
            })
    }
}
