//! From the hash of a flow to its number: buckets of one cache line, of a size that never changes.
//!
//! A bucket has 15 places of 32 bits, each a number and as many bits of the hash as are left beside
//! it, so that hardly any flow is looked at that is not the one. What a bucket has no room for goes
//! to the next; the last word counts such, so that nobody looks further than needed. It knows no
//! flows: whether a number is the right one is for the caller to say.

use std::io;

use netio::mem::{Commit, Table, alike, prefetch};

/// Places in a bucket; its last word counts what went on to the next bucket, or past it.
const PLACES: usize = 15;
/// Flows for each bucket when the table is full. With ten of fifteen places taken on average, one
/// bucket in twenty overflows.
const AVERAGE: usize = 10;

/// A bit for each place: the last word is none.
const ALL: u32 = (1 << PLACES) - 1;

/// Places, and how many flows went past.
type Bucket = [u32; PLACES + 1];

/// Where a number may be put in.
#[derive(Debug)]
pub(super) struct Spot {
    bucket: u32,
    /// A bit for each place in the bucket that is empty; none if it has to go on to the next.
    free: u32,
}

/// The index of a flow table.
#[derive(Debug)]
pub(super) struct Index {
    buckets: Table<Bucket>,
    /// The bits of a place that hold a number plus one; those above hold bits of the hash.
    number_mask: u32,
}

impl Index {
    /// An index for numbers below `limit`. It takes its memory now, about seven bytes for each: the
    /// first flows would touch all of its pages, wherever in it they are, and a look-up is quicker
    /// where pages are huge.
    pub fn new(limit: usize) -> io::Result<Self> {
        let number_mask = u32::MAX.unbounded_shr((limit as u32).leading_zeros());
        Ok(Self { buckets: Table::new(limit / AVERAGE + 1, Commit::AtOnce)?, number_mask })
    }

    /// Bytes that it takes when all of it is in use.
    pub fn bytes(&self) -> usize {
        self.buckets.bytes()
    }

    /// Has the bucket of a hash fetched.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        prefetch(&self.buckets[self.home(hash)]);
    }

    /// A number that may well be the one, without looking further than one bucket; all ones, which no
    /// number is, if there is none.
    #[inline]
    pub fn guess(&self, hash: u64) -> u32 {
        let bucket = &self.buckets[self.home(hash)];
        let first = bucket.get(self.hits(bucket, hash).trailing_zeros() as usize);
        // One less than what is there: an empty place, whose bits are all zero, comes to all ones.
        first.map_or(u32::MAX, |place| (place & self.number_mask).wrapping_sub(1))
    }

    /// The number that was put in with this hash and is the `same`.
    #[inline]
    pub fn find(&self, hash: u64, mut same: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut at = self.home(hash);
        // Once round at the most: flows come and go, and each bucket may have one that went past.
        for _ in 0..self.buckets.len() {
            let bucket = &self.buckets[at];
            let mut hits = self.hits(bucket, hash);
            while hits != 0 {
                let place = bucket[hits.trailing_zeros() as usize & 15] & self.number_mask;
                // An empty place looks like one whose bits of the hash are all zero.
                if let Some(number) = place.checked_sub(1)
                    && same(number)
                {
                    return Some(number);
                }
                hits &= hits - 1;
            }
            if bucket[PLACES] == 0 {
                return None;
            }
            at = self.next(at);
        }
        None
    }

    /// Where a number may be put in with this hash, if none was yet. Where there may be one that looks
    /// like it, `known` says whether it is there.
    #[inline]
    pub fn vacancy(&self, hash: u64, known: impl FnOnce() -> bool) -> Option<Spot> {
        let home = self.home(hash);
        let bucket = &self.buckets[home];
        let spot = Spot { bucket: home as u32, free: free(bucket) };
        // Mostly nothing in the bucket looks like it, and nothing went past.
        let alone = self.hits(bucket, hash) == 0 && bucket[PLACES] == 0;
        (alone || !known()).then_some(spot)
    }

    /// Puts in a number that is not there, at its [vacancy](Self::vacancy); nothing may have been put
    /// in since that was found.
    #[expect(
        clippy::inline_always,
        reason = "a few instructions, where a call takes twice as many"
    )]
    #[inline(always)]
    pub fn insert_at(&mut self, Spot { bucket, free }: Spot, hash: u64, number: u32) {
        let value = self.value(hash, number);
        match self.buckets.get_mut(bucket as usize) {
            Some(bucket) if free != 0 => {
                let place = &mut bucket[free.trailing_zeros() as usize & 15];
                debug_assert_eq!(*place, 0, "something was put in since");
                *place = value;
            }
            _ => self.insert(hash, number),
        }
    }

    /// Puts in a number that is not there.
    #[inline(never)]
    pub fn insert(&mut self, hash: u64, number: u32) {
        let value = self.value(hash, number);
        let mut at = self.home(hash);
        loop {
            let bucket = &mut self.buckets[at];
            let free = free(bucket);
            if free != 0 {
                bucket[free.trailing_zeros() as usize & 15] = value;
                return;
            }
            // There is room for half as many again as there are numbers, so this ends.
            bucket[PLACES] += 1;
            at = self.next(at);
        }
    }

    /// Takes out a number that was put in with this hash.
    pub fn remove(&mut self, hash: u64, number: u32) {
        let value = self.value(hash, number);
        let home = self.home(hash);
        let mut at = home;
        while self.buckets[at][PLACES] > 0 && !self.buckets[at][..PLACES].contains(&value) {
            at = self.next(at);
        }
        let Some(place) = self.buckets[at][..PLACES].iter_mut().find(|place| **place == value)
        else {
            return;
        };
        *place = 0;
        let mut passed = home;
        while passed != at {
            self.buckets[passed][PLACES] -= 1;
            passed = self.next(passed);
        }
    }

    /// What is put in a place.
    #[inline]
    fn value(&self, hash: u64, number: u32) -> u32 {
        hash as u32 & !self.number_mask | (number + 1)
    }

    /// A bit for each place whose bits of the hash are those of this one.
    #[inline]
    fn hits(&self, bucket: &Bucket, hash: u64) -> u32 {
        let tag = hash as u32 & !self.number_mask;
        u32::from(alike(bucket, !self.number_mask, tag)) & ALL
    }

    /// The bucket for a hash, by its upper half: the lower has the other bits.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        (((hash >> 32) * self.buckets.len() as u64) >> 32) as usize
    }

    #[inline]
    fn next(&self, at: usize) -> usize {
        if at + 1 == self.buckets.len() { 0 } else { at + 1 }
    }
}

/// A bit for each place that is empty.
#[inline]
fn free(bucket: &Bucket) -> u32 {
    u32::from(alike(bucket, u32::MAX, 0)) & ALL
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a map, with hashes so few and so alike that buckets overflow, wrap around and
        /// share their bits.
        #[test]
        fn behaves_like_a_map(
            limit in 1usize..200,
            steps in prop::collection::vec((0u64..4, 0u64..3, any::<bool>()), 1..600),
        ) {
            let mut index = Index::new(limit).unwrap();
            let mut twin: BTreeMap<u32, u64> = BTreeMap::new();
            for (high, low, add) in steps {
                let hash = high << 62 | low << 31 | 5;
                if add {
                    let free = (0..limit as u32).find(|number| !twin.contains_key(number));
                    if let Some(number) = free {
                        // Every other one at its vacancy, which is found if nobody knows the number.
                        let same = |found| found == number;
                        let spot = index.vacancy(hash, || index.find(hash, same).is_some());
                        prop_assert!(spot.is_some());
                        let known = index.vacancy(hash, || true);
                        prop_assert!(known.is_none() || twin.values().all(|it| *it != hash));
                        match spot.filter(|_| number % 2 == 0) {
                            Some(spot) => index.insert_at(spot, hash, number),
                            None => index.insert(hash, number),
                        }
                        twin.insert(number, hash);
                    }
                } else if let Some((&number, _)) = twin.iter().find(|(_, known)| **known == hash) {
                    index.remove(hash, number);
                    twin.remove(&number);
                }
                for (&number, &hash) in &twin {
                    prop_assert_eq!(index.find(hash, |found| found == number), Some(number));
                    let guess = index.guess(hash);
                    prop_assert!(guess == u32::MAX || (guess as usize) < limit);
                }
                let mut seen = Vec::new();
                prop_assert_eq!(index.find(hash, |number| { seen.push(number); false }), None);
                seen.sort_unstable();
                seen.dedup();
                let alike = twin.iter().filter(|(_, known)| **known == hash).count();
                prop_assert!(seen.len() >= alike && seen.iter().all(|it| twin.contains_key(it)));
            }
            for (number, hash) in twin {
                index.remove(hash, number);
            }
            prop_assert!(index.buckets.iter().all(|bucket| *bucket == [0; 16]), "nothing is left");
        }
    }

    /// Two buckets, filled one after the other, so that each has a flow that went on to the other:
    /// nothing in them says where to stop.
    #[test]
    fn a_search_ends_where_every_bucket_has_overflowed() {
        let mut index = Index::new(19).unwrap();
        let (first, second) = (0, 1 << 63);
        assert_eq!((index.buckets.len(), index.home(first), index.home(second)), (2, 0, 1));
        (0..16).for_each(|number| index.insert(first, number));
        (0..15).for_each(|number| index.remove(first, number));
        (0..15).for_each(|number| index.insert(second, number));
        assert!(index.buckets.iter().all(|bucket| bucket[PLACES] > 0));
        for hash in [first, second] {
            let mut looked_at = 0;
            let absent = index.find(hash, |_| {
                looked_at += 1;
                false
            });
            assert_eq!((absent, looked_at), (None, 16));
        }
        index.remove(first, 15);
        (0..15).for_each(|number| index.remove(second, number));
        assert!(index.buckets.iter().all(|bucket| *bucket == [0; 16]), "nothing is left");
    }

    #[test]
    fn it_is_small_and_hardly_ever_wrong() {
        let limit = 100_000;
        let mut index = Index::new(limit).unwrap();
        let hash = |number: u32| u64::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (0..limit as u32).for_each(|number| index.insert(hash(number), number));
        let (mut looked_at, mut guessed) = (0, 0);
        for number in 0..limit as u32 {
            guessed += usize::from(index.guess(hash(number)) == number);
            let found = index.find(hash(number), |found| {
                looked_at += 1;
                found == number
            });
            assert_eq!(found, Some(number));
        }
        assert!(looked_at < limit * 102 / 100, "{looked_at} flows looked at");
        assert!(guessed > limit * 95 / 100, "{guessed} guessed right");
        assert!(index.bytes() <= limit * 7, "{} bytes", index.bytes());
    }
}
