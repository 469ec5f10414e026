//! The yardstick: copying the bytes of a large packet from a place that is in no cache. It is what
//! a packet costs whoever copies it once, and does nothing else with it.

use std::hint::black_box;

use super::ring::{RING, Random};
use super::timed;

/// Bytes of a copy: the largest packet that a link of 1500 bytes leaves room for in Geneve.
pub(super) const LEN: usize = 1428;

/// Copies that are made between two looks at the clock.
const COPIES: usize = 1 << 15;

/// Memory to copy from, and to one place.
#[derive(Debug)]
pub(super) struct Yardstick {
    from: Vec<u8>,
    to: [u8; LEN],
    places: Vec<u32>,
    random: Random,
}

impl Yardstick {
    pub(super) fn new() -> Self {
        // Written, so that there is memory behind all of it.
        let from = vec![0x5a; RING];
        Self { from, to: [0; LEN], places: Vec::with_capacity(COPIES), random: Random::new(2) }
    }

    /// Nanoseconds of processor time per copy, from at least so many seconds' work.
    pub(super) fn measure(&mut self, seconds: f64) -> f64 {
        let (mut spent, mut copies) = (0.0, 0);
        while spent < seconds {
            self.places.clear();
            let Self { places, random, .. } = self;
            places.extend((0..COPIES).map(|_| random.below(RING - LEN) as u32));
            let ((), time) = timed(|| {
                for &place in &self.places {
                    self.to.copy_from_slice(&self.from[place as usize..][..LEN]);
                    black_box(&mut self.to);
                }
            });
            spent += time;
            copies += COPIES;
        }
        spent / copies as f64 * 1e9
    }
}
