//! One direction of a TCP connection, put in order as far as it takes to search it.
//!
//! Segments that come early are kept, within limits, until those before them come; there is no
//! copy of anything else. What cannot be put in order is searched by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::patterns::{PatternSet, Progress};

/// One direction of a connection.
#[derive(Debug, Default)]
pub struct Stream {
    /// The sequence number of the next byte to search.
    next: Option<u32>,
    progress: Option<Progress>,
    early: Vec<Early>,
    /// Bytes searched in order.
    pub searched: u64,
    /// How often it was given up to wait for missing bytes.
    pub gaps: u64,
}

/// A segment that came before its time.
#[derive(Debug)]
struct Early {
    sequence: u32,
    bytes: Box<[u8]>,
    _room: Held,
}

/// How many early segments a direction keeps: what a window of 64 KiB can hold.
const MAX_EARLY: usize = 64;

/// A segment that is further ahead than this is of no plausible window (RFC 7323 allows 1 GiB, but
/// no common system goes beyond 16 MiB without being told to) and leaves the stream as it is.
const MAX_AHEAD: u32 = 16 << 20;

impl Stream {
    /// Begins anew: the next byte has this sequence number.
    pub fn begin(&mut self, next: u32) {
        *self = Self { next: Some(next), gaps: self.gaps, ..Self::default() };
    }

    /// Whether nothing is known of it yet.
    pub fn is_untouched(&self) -> bool {
        self.next.is_none()
    }

    /// Whether the next byte has this sequence number.
    pub fn expects(&self, next: u32) -> bool {
        self.next == Some(next)
    }

    /// Searches a segment's payload, and what waited for it. A stream that was not begun begins
    /// here.
    pub fn segment(
        &mut self,
        sequence: u32,
        payload: &[u8],
        patterns: &PatternSet,
        room: &Room,
        found: &mut dyn FnMut(usize),
    ) {
        if payload.is_empty() {
            return;
        }
        let next = *self.next.get_or_insert(sequence);
        let ahead = sequence.wrapping_sub(next);
        if ahead == 0 {
            self.advance(payload, patterns, found);
            self.catch_up(patterns, found);
        } else if ahead <= MAX_AHEAD {
            // It is searched by itself at once, because it is forwarded at once.
            patterns.scan_alone(payload, found);
            self.keep(sequence, payload, patterns, room, found);
        } else {
            // Bytes that were there before may be others this time, and the receiver may never have
            // seen the first ones.
            patterns.scan_alone(payload, found);
            let known = next.wrapping_sub(sequence) as usize;
            if let Some(new) = payload.get(known..).filter(|new| !new.is_empty()) {
                self.advance(new, patterns, found);
                self.catch_up(patterns, found);
            }
        }
    }

    /// Searches the next bytes.
    fn advance(&mut self, bytes: &[u8], patterns: &PatternSet, found: &mut dyn FnMut(usize)) {
        let progress = self.progress.get_or_insert_with(|| patterns.start());
        patterns.scan(progress, bytes, found);
        self.next = self.next.map(|next| next.wrapping_add(bytes.len() as u32));
        self.searched += bytes.len() as u64;
    }

    /// Keeps an early segment, or, where there is no room for it, gives up waiting.
    fn keep(
        &mut self,
        sequence: u32,
        payload: &[u8],
        patterns: &PatternSet,
        room: &Room,
        found: &mut dyn FnMut(usize),
    ) {
        let held = if self.early.len() < MAX_EARLY { room.take(payload.len()) } else { None };
        if let Some(held) = held {
            self.early.push(Early { sequence, bytes: payload.into(), _room: held });
            return;
        }
        self.gaps += 1;
        while let Some(first) = self.take_first() {
            self.resume(first.sequence, &first.bytes, patterns, found);
        }
        self.resume(sequence, payload, patterns, found);
    }

    /// Goes on at a segment, whether bytes before it are missing or not.
    fn resume(
        &mut self,
        sequence: u32,
        payload: &[u8],
        patterns: &PatternSet,
        found: &mut dyn FnMut(usize),
    ) {
        let Some(next) = self.next else { return };
        let behind = next.wrapping_sub(sequence);
        if behind > MAX_AHEAD {
            self.progress = None;
            self.next = Some(sequence);
            self.advance(payload, patterns, found);
        } else if let Some(new) = payload.get(behind as usize..).filter(|new| !new.is_empty()) {
            self.advance(new, patterns, found);
        }
    }

    /// Searches early segments whose time has come.
    fn catch_up(&mut self, patterns: &PatternSet, found: &mut dyn FnMut(usize)) {
        while let Some(next) = self.next {
            let due = |early: &Early| next.wrapping_sub(early.sequence) <= MAX_AHEAD;
            let Some(place) = self.early.iter().position(due) else { return };
            let early = self.early.swap_remove(place);
            self.resume(early.sequence, &early.bytes, patterns, found);
        }
    }

    fn take_first(&mut self) -> Option<Early> {
        let next = self.next?;
        let distance = |early: &Early| early.sequence.wrapping_sub(next);
        let (place, _) = self.early.iter().enumerate().min_by_key(|(_, early)| distance(early))?;
        Some(self.early.swap_remove(place))
    }
}

/// Room for early segments, shared by all flows of a worker.
#[derive(Clone, Debug)]
pub struct Room {
    left: Arc<AtomicUsize>,
}

/// Room that is taken until this is dropped.
#[derive(Debug)]
struct Held {
    from: Room,
    bytes: usize,
}

impl Room {
    /// Room for so many bytes.
    pub fn new(bytes: usize) -> Self {
        Self { left: Arc::new(AtomicUsize::new(bytes)) }
    }

    fn take(&self, bytes: usize) -> Option<Held> {
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes))
            .ok()
            .map(|_| Held { from: self.clone(), bytes })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.from.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::patterns::Pattern;
    use super::*;

    const ROOM: usize = 1000;

    struct Search {
        stream: Stream,
        patterns: PatternSet,
        room: Room,
        found: bool,
    }

    impl Search {
        fn new(start: u32) -> Self {
            let needle = Pattern {
                name: "needle".to_owned(),
                bytes: b"needle".to_vec(),
                ignore_case: false,
                block: false,
            };
            let mut stream = Stream::default();
            stream.begin(start);
            let patterns = PatternSet::new(vec![needle]).unwrap();
            Self { stream, patterns, room: Room::new(ROOM), found: false }
        }

        fn segment(&mut self, sequence: u32, payload: &[u8]) -> bool {
            let found = &mut self.found;
            self.stream.segment(sequence, payload, &self.patterns, &self.room, &mut |_| {
                *found = true;
            });
            self.found
        }
    }

    #[test]
    fn order_does_not_matter() {
        for start in [0, 100, u32::MAX - 3] {
            let at = |offset| start.wrapping_add(offset);
            let mut search = Search::new(start);
            assert!(!search.segment(at(4), b"le!"));
            assert!(!search.segment(at(2), b"ed"));
            assert!(search.segment(at(0), b"ne"));
            assert_eq!(search.stream.searched, 7);
            assert_eq!(search.room.left.load(Ordering::Relaxed), ROOM);
        }
    }

    #[test]
    fn repeated_bytes_are_searched_once_in_order_and_once_alone() {
        let mut search = Search::new(0);
        assert!(!search.segment(0, b"nee"));
        assert!(!search.segment(0, b"nee"));
        assert!(search.segment(1, b"eedle"));
        // A repetition with other bytes hides nothing.
        let mut changed = Search::new(0);
        assert!(!changed.segment(0, b"harmless"));
        assert!(changed.segment(0, b"a needle"));
    }

    #[test]
    fn what_lies_outside_any_window_does_not_move_the_stream() {
        let mut search = Search::new(1000);
        assert!(!search.segment(1000, b"nee"));
        assert!(!search.segment(0x8000_0000, b"bogus"));
        assert!(search.segment(1003, b"dle"));
    }

    #[test]
    fn without_room_the_stream_goes_on_behind_the_gap() {
        let mut search = Search::new(0);
        let mut sequence = 10;
        for _ in 0..5 {
            search.segment(sequence, &[b'x'; 300]);
            sequence += 300;
        }
        assert_eq!(search.stream.gaps, 1);
        assert!(!search.segment(sequence, b"nee"));
        assert!(search.segment(sequence + 3, b"dle"));
        assert!(search.room.left.load(Ordering::Relaxed) <= ROOM);
    }

    #[test]
    fn room_comes_back_when_a_stream_is_forgotten() {
        let mut search = Search::new(0);
        search.segment(10, &[0; 400]);
        assert_eq!(search.room.left.load(Ordering::Relaxed), ROOM - 400);
        search.stream = Stream::default();
        assert_eq!(search.room.left.load(Ordering::Relaxed), ROOM);
    }

    proptest! {
        /// A needle that is cut, repeated and shuffled within the limits is found; and nothing is
        /// found where there is none.
        #[test]
        fn a_needle_is_found_in_any_order(
            start in any::<u32>(),
            before in "[a-m]{0,40}",
            after in "[a-m]{0,40}",
            there in any::<bool>(),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
            repeats in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
            picks in proptest::collection::vec(any::<prop::sample::Index>(), 12),
        ) {
            let text = [before.as_str(), if there { "needle" } else { "noodle" }, &after].concat();
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len())).collect();
            places.extend([0, text.len()]);
            places.sort_unstable();
            let mut pieces: Vec<(u32, &str)> = places
                .windows(2)
                .map(|pair| (start.wrapping_add(pair[0] as u32), &text[pair[0]..pair[1]]))
                .collect();
            for repeat in repeats {
                pieces.push(pieces[repeat.index(pieces.len())]);
            }
            let mut search = Search::new(start);
            for pick in picks.iter().cycle() {
                if pieces.is_empty() {
                    break;
                }
                let (sequence, bytes) = pieces.swap_remove(pick.index(pieces.len()));
                search.segment(sequence, bytes.as_bytes());
            }
            prop_assert_eq!(search.found, there);
            prop_assert_eq!(search.stream.searched, text.len() as u64);
            prop_assert_eq!(search.room.left.load(Ordering::Relaxed), ROOM);
        }

        /// Any segments at all: no panic, and no more kept than there is room for.
        #[test]
        fn noise_is_survived(
            segments in proptest::collection::vec(
                (any::<u32>(), proptest::collection::vec(any::<u8>(), 0..300)), 0..100),
            near in any::<bool>(),
        ) {
            let mut search = Search::new(0);
            for (sequence, payload) in segments {
                search.segment(if near { sequence % 5000 } else { sequence }, &payload);
                prop_assert!(search.stream.early.len() <= MAX_EARLY);
                prop_assert!(search.room.left.load(Ordering::Relaxed) <= ROOM);
            }
        }
    }
}
