//! The search for the largest inner packet that an appliance brings back.
//!
//! A packet that comes back is proof; one that does not may have been lost for any reason, so a
//! size is ruled out only when it was lost twice, and the answer is one that came back twice.

/// How often a size must come back to be the answer, and be lost to be ruled out.
const CONFIRMATIONS: u32 = 2;

/// A search that is going on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Search {
    smallest: u16,
    /// Comes back, or is the smallest.
    low: u16,
    /// Not ruled out.
    high: u16,
    size: u16,
    /// Probes of this size.
    returned: u32,
    lost: u32,
}

/// What is known after a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Not enough yet.
    Searching,
    /// The largest size that comes back; `None` if not even the smallest does.
    Found(Option<u16>),
}

/// What became of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// It came back.
    Returned,
    /// It did not.
    Lost,
    /// It was too long to be sent at all.
    TooLong,
}

impl Search {
    /// A search among `smallest..=largest`. The largest comes first: mostly everything fits.
    pub fn new(smallest: u16, largest: u16) -> Self {
        let smallest = smallest.min(largest);
        let (low, high) = (smallest, largest);
        Self { smallest, low, high, size: high, returned: 0, lost: 0 }
    }

    /// The size to be tried next.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// A probe of the present size has ended.
    pub fn record(&mut self, fit: Fit) -> Progress {
        match fit {
            Fit::Returned => {
                self.low = self.size;
                self.returned += 1;
                self.lost = 0;
                if self.size == self.high && self.returned >= CONFIRMATIONS {
                    return Progress::Found(Some(self.size));
                }
            }
            Fit::Lost if self.lost + 1 < CONFIRMATIONS => {
                self.lost += 1;
                return Progress::Searching;
            }
            Fit::Lost | Fit::TooLong => {
                if self.size == self.smallest {
                    return Progress::Found(None);
                }
                self.high = self.size - 1;
                // What came back before does not any more.
                if self.low > self.high {
                    self.low = self.smallest;
                }
            }
        }
        let next = self.low + (self.high - self.low).div_ceil(2);
        if next != self.size || fit != Fit::Returned {
            (self.size, self.returned, self.lost) = (next, 0, 0);
        }
        Progress::Searching
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    /// The answer, and the sizes that were tried.
    fn search(
        (smallest, largest): (u16, u16),
        mut fit: impl FnMut(u16) -> Fit,
    ) -> (Option<u16>, Vec<u16>) {
        let mut search = Search::new(smallest, largest);
        let mut tried = Vec::new();
        loop {
            tried.push(search.size());
            assert!(tried.len() < 200, "{tried:?}");
            if let Progress::Found(found) = search.record(fit(search.size())) {
                return (found, tried);
            }
        }
    }

    fn up_to(limit: u16) -> impl FnMut(u16) -> Fit {
        move |size| if size <= limit { Fit::Returned } else { Fit::Lost }
    }

    #[rstest]
    #[case::all(9000, Some(1432), &[1432, 1432])]
    #[case::none(0, None, &[580, 580, 578, 578, 577, 577, 576, 576])]
    fn it_ends(#[case] limit: u16, #[case] found: Option<u16>, #[case] tried: &[u16]) {
        let range = if found.is_some() { (576, 1432) } else { (576, 580) };
        assert_eq!(search(range, up_to(limit)), (found, tried.to_vec()));
    }

    #[test]
    fn one_loss_rules_nothing_out() {
        let mut losses = [true, false, true, false].into_iter();
        let lossy = |_| if losses.next() == Some(true) { Fit::Lost } else { Fit::Returned };
        assert_eq!(search((576, 1432), lossy).0, Some(1432));
    }

    #[test]
    fn what_cannot_be_sent_is_not_sent_again() {
        let mut refused = 0;
        let (found, _) = search((576, 1432), |size| {
            if size <= 1400 {
                return Fit::Returned;
            }
            refused += 1;
            Fit::TooLong
        });
        assert_eq!(found, Some(1400));
        assert!(refused <= 11, "{refused}");
    }

    #[test]
    fn a_path_that_shrinks_meanwhile_is_found_out() {
        let mut probes = 0;
        let shrinking = |size| {
            probes += 1;
            if size <= if probes < 12 { 1300 } else { 700 } { Fit::Returned } else { Fit::Lost }
        };
        assert_eq!(search((576, 1432), shrinking).0, Some(700));
    }

    proptest! {
        #[test]
        fn the_answer_is_the_limit(smallest in 50u16..1300, more in 0u16..8000, limit: u16) {
            let largest = smallest + more;
            let (found, tried) = search((smallest, largest), up_to(limit));
            prop_assert_eq!(found, (limit >= smallest).then_some(limit.min(largest)));
            prop_assert!(tried.len() <= 2 * 14 + 2, "{:?}", tried);
        }
    }
}
