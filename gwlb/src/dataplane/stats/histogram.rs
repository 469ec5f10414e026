//! Histograms with fixed buckets: a sum and a count for each bucket, each with one writer.

use super::Counter;

/// Packets of a batch, by powers of two up to the most that a worker reads or the kernel takes.
pub const BATCH_BOUNDS: &[u64] = &[1, 2, 4, 8, 16, 32, 64];

/// Microseconds there and back again: from an appliance on the same host to one that makes its
/// packets wait.
pub const ROUND_TRIP_BOUNDS: &[u64] = &[
    50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000,
];

/// Microseconds of a health probe; its timeout is 120 s at most, and such as take so long are ill.
pub const PROBE_BOUNDS: &[u64] = &[
    200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
    2_000_000, 5_000_000,
];

/// Milliseconds of a flow's life: from a question with its answer to connections that stay for days.
pub const FLOW_LIFE_BOUNDS: &[u64] = &[
    10, 100, 1000, 5000, 10_000, 30_000, 60_000, 300_000, 600_000, 3_600_000, 21_600_000,
    86_400_000,
];

/// How often values came that lie between fixed bounds, and their sum.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One for each bound, whose own value belongs to it, and one for what is above all.
    counts: Box<[Counter]>,
    sum: Counter,
}

impl Histogram {
    /// A histogram of nothing yet, with buckets up to each of `bounds`, which ascend.
    pub fn new(bounds: &'static [u64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| Counter::default()).collect();
        Self { bounds, counts, sum: Counter::default() }
    }

    /// Counts a value; only the one writer may.
    #[inline]
    pub fn record(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(bucket) {
            count.add(1);
        }
        self.sum.add(value);
    }
}

/// The sums of histograms with the same bounds at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistogramTotals {
    /// The upper bounds.
    pub bounds: &'static [u64],
    /// One for each bound, and one for what is above all; empty as long as nothing was added.
    pub counts: Vec<u64>,
    /// Of all values.
    pub sum: u64,
}

impl HistogramTotals {
    /// Sums over histograms with the same bounds.
    pub fn of<'a>(histograms: impl IntoIterator<Item = &'a Histogram>) -> Self {
        let mut totals = Self::default();
        for histogram in histograms {
            totals.add(histogram);
        }
        totals
    }

    /// Adds what a histogram with the same bounds holds now.
    pub fn add(&mut self, histogram: &Histogram) {
        self.bounds = histogram.bounds;
        self.counts.resize(histogram.counts.len(), 0);
        for (sum, count) in self.counts.iter_mut().zip(&histogram.counts) {
            *sum += count.get();
        }
        self.sum += histogram.sum.get();
    }

    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_bucket_whose_bound_it_does_not_exceed() {
        let histograms = [Histogram::new(BATCH_BOUNDS), Histogram::new(BATCH_BOUNDS)];
        for value in [0, 1, 2, 3, 64, 65] {
            histograms[0].record(value);
        }
        histograms[1].record(1000);
        let totals = HistogramTotals::of(&histograms);
        assert_eq!(totals.counts, [2, 1, 1, 0, 0, 0, 1, 2]);
        assert_eq!((totals.count(), totals.sum), (7, 1135));
    }

    #[test]
    fn bounds_ascend() {
        for bounds in [BATCH_BOUNDS, ROUND_TRIP_BOUNDS, PROBE_BOUNDS, FLOW_LIFE_BOUNDS] {
            assert!(bounds.is_sorted_by(|one, next| one < next), "{bounds:?}");
        }
    }
}
