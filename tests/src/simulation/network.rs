//! The network between everything: it delays, loses, doubles, corrupts, and is cut.

use std::collections::BTreeMap;
use std::time::Duration;

use super::plan::{Way, Weather};
use super::random::{About, Dice};

/// A stretch of the way of a packet, or a place where chance decides about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Leg {
    FromHost,
    ToHost,
    ToAppliance,
    FromAppliance,
    /// In an appliance that does what it should not.
    Appliance,
    /// To which gateway the underlay brings it back.
    Underlay,
}

/// The network.
#[derive(Debug)]
pub(super) struct Network {
    seed: u64,
    usual: Weather,
    rough: bool,
    /// What it is like now, by the event that made it so.
    storms: BTreeMap<u32, Weather>,
    /// Between gateway and appliance, by the event that cut it.
    cuts: BTreeMap<u32, (usize, usize, Way)>,
    /// How many packets of a name have gone a leg.
    counts: BTreeMap<(Leg, u64), u64>,
}

/// A packet that arrives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub after: Duration,
    /// Which bit is wrong, out of as many as one likes.
    pub corrupted: Option<u64>,
}

/// What becomes of a packet on a leg.
#[derive(Debug, Default)]
pub(super) struct Carried {
    pub arrivals: [Option<Arrival>; 2],
    /// Whether anything happened that its sender would not like.
    pub harmed: bool,
}

/// Packets that are under way at the same time arrive in batches.
const TICK: u64 = 2000;

impl Network {
    pub fn new(seed: u64, usual: Weather) -> Network {
        Network {
            seed,
            usual,
            rough: usual != Weather::CALM,
            storms: BTreeMap::new(),
            cuts: BTreeMap::new(),
            counts: BTreeMap::new(),
        }
    }

    /// Whether packets may ever have overtaken others.
    pub fn is_rough(&self) -> bool {
        self.rough
    }

    pub fn storm(&mut self, event: u32, weather: Option<Weather>) {
        self.rough = true;
        match weather {
            Some(weather) => self.storms.insert(event, weather),
            None => self.storms.remove(&event),
        };
    }

    pub fn cut(&mut self, event: u32, between: Option<(usize, usize, Way)>) {
        match between {
            Some(between) => self.cuts.insert(event, between),
            None => self.cuts.remove(&event),
        };
    }

    /// Whether an appliance is cut off from a gateway, there or back.
    pub fn is_cut(&self, gateway: usize, appliance: usize, way: Way) -> bool {
        self.cuts.values().any(|&(from, to, cut)| {
            (from, to) == (gateway, appliance)
                && (cut == Way::Both || way == Way::Both || cut == way)
        })
    }

    /// What decides about a packet. What has the same name has its own sequence of fortunes.
    pub fn dice(&mut self, leg: Leg, name: u64) -> Dice {
        let count = self.counts.entry((leg, name)).or_default();
        *count += 1;
        Dice::of(self.seed, About::Leg, &[leg as u64, name, *count])
    }

    /// What becomes of a packet.
    pub fn carry(&mut self, leg: Leg, name: u64) -> Carried {
        let mut dice = self.dice(leg, name);
        let weather = self.storms.values().next_back().copied().unwrap_or(self.usual);
        let mut carried = Carried::default();
        let calm = weather == Weather::CALM;
        if calm {
            // In order, and all alike.
            let after = Duration::from_micros(TICK * (1 + leg as u64));
            carried.arrivals[0] = Some(Arrival { after, corrupted: None });
            return carried;
        }
        if dice.per_mille(weather.lost) {
            carried.harmed = true;
            return carried;
        }
        carried.arrivals[0] = Some(arrival(&mut dice, weather));
        if dice.per_mille(weather.doubled) {
            carried.arrivals[1] = Some(arrival(&mut dice, weather));
        }
        // A second copy that comes late does no harm if the first one did not.
        let mut arrived = carried.arrivals.iter().flatten();
        let in_time = |it: &Arrival| it.after <= Duration::from_micros(10 * TICK);
        carried.harmed = !arrived.clone().any(in_time) || arrived.any(|it| it.corrupted.is_some());
        carried
    }
}

fn arrival(dice: &mut Dice, weather: Weather) -> Arrival {
    let mut micros = dice.between(1, 10) * TICK;
    if dice.per_mille(weather.strayed) {
        micros = dice.between(50, 10_000) * TICK;
    }
    let corrupted = dice.per_mille(weather.corrupted).then(|| dice.next());
    Arrival { after: Duration::from_micros(micros), corrupted }
}

/// A copy in which one bit is 0 that was 1. Bits are never wrong the other way: so no two of them
/// make up for one another in the internet's checksum, which would be nobody's fault.
pub(super) fn corrupted(bytes: &[u8], chance: u64) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let bits = bytes.len() * 8;
    let first = (chance % (bits as u64).max(1)) as usize;
    let mut from_there = (0..bits).map(|further| (first + further) % bits);
    if let Some(bit) = from_there.find(|bit| bytes[bit / 8] >> (bit % 8) & 1 == 1) {
        bytes[bit / 8] &= !(1 << (bit % 8));
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_wrong_bits_make_up_for_one_another() {
        let packet = crate::packets::Ip::new("192.0.2.1", "192.0.2.2").udp((1, 2), &[0x5a; 64]);
        let inner = geneve::Inner::parse(&packet).unwrap();
        let sound = |bytes: &[u8]| {
            geneve::checksum::verify(&inner, bytes) == geneve::checksum::Integrity::Valid
        };
        assert!(sound(&packet));
        for chance in 0..800 {
            let once = corrupted(&packet, chance);
            assert!(!sound(&once), "{chance}");
            for other in 0..800 {
                assert!(!sound(&corrupted(&once, other)), "{chance} {other}");
            }
        }
        assert!(corrupted(&[], 7).is_empty());
    }
}
