//! A timing wheel of one-second ticks. A timer that was refreshed meanwhile is put back when it
//! comes up; one that would come up too late is put in a second time, and the first one lapses.

use std::time::Duration;

/// Timers by the second at which they come up. Times are nanoseconds since the wheel was made.
#[derive(Debug)]
pub(super) struct Wheel {
    /// Each in pieces, so that none is copied as a whole when it grows.
    slots: Vec<Vec<Vec<u32>>>,
    /// The tick whose slot is being emptied.
    tick: u32,
}

impl Wheel {
    pub const TICK: Duration = Duration::from_secs(1);
    /// Timers looked at in one call.
    pub const BUDGET: usize = 1024;
    /// Longer waits are cut to the wheel's length and looked at again.
    const SLOTS: u32 = 512;
    /// Timers in a piece of a slot.
    const PIECE: usize = 1024;

    pub fn new() -> Self {
        Self { slots: vec![Vec::new(); Self::SLOTS as usize], tick: 0 }
    }

    /// Puts a timer in, and says at which tick it comes up.
    pub fn schedule(&mut self, number: u32, deadline: u64) -> u32 {
        let tick = self.tick_of(deadline);
        let slot = &mut self.slots[(tick % Self::SLOTS) as usize];
        match slot.last_mut() {
            Some(piece) if piece.len() < Self::PIECE => piece.push(number),
            _ => {
                let mut piece = Vec::with_capacity(Self::PIECE);
                piece.push(number);
                slot.push(piece);
            }
        }
        tick
    }

    /// The tick at which a deadline is looked at.
    pub fn tick_of(&self, deadline: u64) -> u32 {
        // Rounded up, so that a timer is over when it comes up. Ticks last for 136 years.
        let ticks = (deadline / Self::TICK.as_nanos() as u64 + 1).min(u64::from(u32::MAX));
        (ticks as u32).clamp(self.tick + 1, self.tick + Self::SLOTS - 1)
    }

    /// Takes out a timer that has come up, and says at which tick: no timer is put in further ahead
    /// than the wheel is long, so all in a slot are of the same.
    pub fn due(&mut self, now: u64) -> Option<(u32, u32)> {
        loop {
            if self.next_tick() > now {
                return None;
            }
            let next = self.tick + 1;
            let slot = &mut self.slots[(next % Self::SLOTS) as usize];
            match slot.last_mut().map(Vec::pop) {
                Some(Some(number)) => return Some((number, next)),
                Some(None) => drop(slot.pop()),
                None => self.tick = next,
            }
        }
    }

    /// When the next slot comes up.
    pub fn next_tick(&self) -> u64 {
        u64::from(self.tick + 1) * Self::TICK.as_nanos() as u64
    }

    /// How many timers there are, lapsed ones included.
    #[cfg(test)]
    pub fn timers(&self) -> usize {
        self.slots.iter().flatten().map(Vec::len).sum()
    }
}
