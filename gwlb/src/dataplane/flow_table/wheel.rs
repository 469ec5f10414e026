//! A timing wheel of one-second ticks. A timer that was refreshed meanwhile is put back when it
//! comes up; one that would come up too late is put in a second time, and the first one lapses.

use std::time::Duration;

/// Timers by the second at which they come up. Times are nanoseconds since the wheel was made.
#[derive(Debug)]
pub(super) struct Wheel {
    /// Of each, the piece that was begun last, by its place among all; [`NONE`] if it has none.
    slots: [u32; Self::SLOTS as usize],
    /// All that there have ever been: they are used again, so that timers which come and go take no
    /// memory. None is copied when more are needed.
    pieces: Vec<Box<Piece>>,
    /// One that has no timers, and is in no slot.
    vacant: u32,
    /// The tick whose slot is being emptied.
    tick: u32,
}

/// Some of a slot's timers: a page.
#[derive(Debug)]
struct Piece {
    numbers: [u32; Self::TIMERS],
    len: u32,
    /// The piece that was begun before it in the same slot, or another one that is vacant.
    before: u32,
}

/// No piece.
const NONE: u32 = u32::MAX;

impl Piece {
    const TIMERS: usize = 1022;
}

impl Wheel {
    pub const TICK: Duration = Duration::from_secs(1);
    /// Timers looked at in one call.
    pub const BUDGET: usize = 1024;
    /// Longer waits are cut to the wheel's length and looked at again.
    const SLOTS: u32 = 512;

    pub fn new() -> Self {
        Self { slots: [NONE; Self::SLOTS as usize], pieces: Vec::new(), vacant: NONE, tick: 0 }
    }

    /// Puts a timer in, and says at which tick it comes up.
    #[expect(clippy::inline_always, reason = "a flow that begins has no time for calls")]
    #[inline(always)]
    pub fn schedule(&mut self, number: u32, deadline: u64) -> u32 {
        let tick = self.tick_of(deadline);
        let slot = (tick % Self::SLOTS) as usize;
        if let Some(piece) = self.pieces.get_mut(self.slots[slot] as usize)
            && let Some(place) = piece.numbers.get_mut(piece.len as usize)
        {
            *place = number;
            piece.len += 1;
        } else {
            self.begin_piece(slot, number);
        }
        tick
    }

    /// Puts a timer in a slot that has no room.
    #[cold]
    fn begin_piece(&mut self, slot: usize, number: u32) {
        if self.vacant == NONE {
            self.vacant = self.pieces.len() as u32;
            let numbers = [0; Piece::TIMERS];
            self.pieces.push(Box::new(Piece { numbers, len: 0, before: NONE }));
        }
        let begun = &mut self.pieces[self.vacant as usize];
        (begun.numbers[0], begun.len) = (number, 1);
        let next = std::mem::replace(&mut begun.before, self.slots[slot]);
        self.slots[slot] = std::mem::replace(&mut self.vacant, next);
    }

    /// The tick at which a deadline is looked at.
    #[inline]
    pub fn tick_of(&self, deadline: u64) -> u32 {
        // Rounded up, so that a timer is over when it comes up.
        let ticks = deadline / Self::TICK.as_nanos() as u64 + 1;
        // Ticks last for 136 years.
        let now = u64::from(self.tick);
        ticks.max(now + 1).min(now + u64::from(Self::SLOTS) - 1) as u32
    }

    /// Takes out a timer that has come up, and says at which tick: no timer is put in further ahead
    /// than the wheel is long, so all in a slot are of the same.
    pub fn due(&mut self, now: u64) -> Option<(u32, u32)> {
        while self.next_tick() <= now {
            let next = self.tick + 1;
            let slot = &mut self.slots[(next % Self::SLOTS) as usize];
            let Some(piece) = self.pieces.get_mut(*slot as usize) else {
                self.tick = next;
                continue;
            };
            if let Some(rest) = piece.len.checked_sub(1) {
                piece.len = rest;
                return Some((piece.numbers[rest as usize], next));
            }
            let before = std::mem::replace(&mut piece.before, self.vacant);
            self.vacant = std::mem::replace(slot, before);
        }
        None
    }

    /// When the next slot comes up.
    pub fn next_tick(&self) -> u64 {
        u64::from(self.tick + 1) * Self::TICK.as_nanos() as u64
    }

    /// How many timers there are, lapsed ones included.
    #[cfg(test)]
    pub fn timers(&self) -> usize {
        // Vacant pieces have none.
        self.pieces.iter().map(|piece| piece.len as usize).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = Wheel::TICK.as_nanos() as u64;

    proptest! {
        /// Against a map: each timer comes up once, at the tick that it was put in for, and pieces are
        /// as many as were ever needed at the same time.
        #[test]
        fn each_timer_comes_up_once(
            steps in prop::collection::vec((1..3000_u32, 0..600_u64, 0..40_u64), 1..30),
        ) {
            let (mut wheel, mut now, mut number) = (Wheel::new(), 0, 0);
            let (mut twin, mut most) = (BTreeMap::new(), 0);
            let slots = |twin: &BTreeMap<u32, u32>| {
                let mut slots = BTreeMap::<u32, usize>::new();
                for tick in twin.values() {
                    *slots.entry(*tick).or_default() += 1;
                }
                slots.values().map(|timers| timers.div_ceil(Piece::TIMERS)).sum::<usize>()
            };
            for (count, ahead, passes) in steps {
                for _ in 0..count {
                    twin.insert(number, wheel.schedule(number, now + ahead * SECOND));
                    number += 1;
                }
                prop_assert_eq!(wheel.timers(), twin.len());
                most = most.max(slots(&twin));
                // One that is emptied waits in its slot until the tick is over.
                prop_assert!(wheel.pieces.len() <= most + 1);
                now += passes * SECOND;
                while let Some((number, tick)) = wheel.due(now) {
                    prop_assert_eq!(twin.remove(&number), Some(tick));
                    prop_assert!(u64::from(tick) * SECOND <= now);
                }
                prop_assert!(twin.values().all(|tick| u64::from(*tick) * SECOND > now));
            }
            now += 600 * SECOND;
            while let Some((number, _)) = wheel.due(now) {
                prop_assert!(twin.remove(&number).is_some());
            }
            prop_assert!(twin.is_empty() && wheel.timers() == 0);
        }
    }
}
