//! What repeated measurements say together, and whether they say anything.

use std::cmp::Ordering;

/// A comparison whose baseline spreads further than this says nothing: the machine was busy with
/// something else, or it is not steady enough for that.
pub(super) const VOID_SPREAD: f64 = 1.35;

/// The fewest pairs that a ratio is taken from.
pub(super) const PAIRS: usize = 7;

/// Measurements of one thing, in the order of their size.
#[derive(Debug, Clone)]
pub(super) struct Samples {
    sorted: Vec<f64>,
}

impl Samples {
    /// Takes measurements; what is no number is left out.
    pub(super) fn new(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<_> = values.into_iter().filter(|value| value.is_finite()).collect();
        sorted.sort_by(|a, b| a.partial_cmp(b).unwrap_or(Ordering::Equal));
        Self { sorted }
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.sorted.len()
    }

    /// The one in the middle, or the mean of the two there; NaN if there is none.
    pub(super) fn median(&self) -> f64 {
        let middle = self.sorted.len() / 2;
        match self.sorted.len() % 2 {
            _ if self.sorted.is_empty() => f64::NAN,
            0 => f64::midpoint(self.sorted[middle - 1], self.sorted[middle]),
            _ => self.sorted[middle],
        }
    }

    /// The smallest; NaN if there is none.
    pub(super) fn min(&self) -> f64 {
        self.sorted.first().copied().unwrap_or(f64::NAN)
    }

    /// The largest; NaN if there is none.
    pub(super) fn max(&self) -> f64 {
        self.sorted.last().copied().unwrap_or(f64::NAN)
    }

    /// Largest / smallest: 1 for values that are all the same.
    pub(super) fn spread(&self) -> f64 {
        self.max() / self.min()
    }

    /// The smallest value that at least this share (0 to 1) of the values do not exceed (nearest
    /// rank); NaN if there is none.
    pub(super) fn quantile(&self, share: f64) -> f64 {
        #[expect(clippy::cast_sign_loss, reason = "the share is cut to 0 and more")]
        let rank = (share.clamp(0.0, 1.0) * self.sorted.len() as f64).ceil() as usize;
        self.sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }
}

/// What pairs of measurements say: each a value, and its baseline's from right beside it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ratio {
    /// Of the ratios value / baseline.
    pub median: f64,
    /// Largest / smallest ratio.
    pub spread: f64,
    /// Largest / smallest baseline.
    pub baseline_spread: f64,
    /// How many pairs there were.
    pub pairs: usize,
}

impl Ratio {
    /// Whether the baseline was too restless for the ratio to mean anything.
    pub(super) fn is_void(&self) -> bool {
        // What is no number, for want of pairs, is void as well.
        !(self.baseline_spread <= VOID_SPREAD && self.median.is_finite())
    }
}

/// Compares values with their baselines, pair by pair: `(value, baseline)`.
pub(super) fn ratio_of_pairs(pairs: &[(f64, f64)]) -> Ratio {
    let ratios = Samples::new(pairs.iter().map(|(value, baseline)| value / baseline));
    let baselines = Samples::new(pairs.iter().map(|(_, baseline)| *baseline));
    Ratio {
        median: ratios.median(),
        spread: ratios.spread(),
        baseline_spread: baselines.spread(),
        pairs: ratios.len(),
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the values are exact")]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_of_what_was_measured_in_any_order() {
        assert_eq!(Samples::new([3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(Samples::new([4.0, 1.0, 3.0, 2.0]).median(), 2.5);
        assert_eq!(Samples::new([7.0]).median(), 7.0);
        assert!(Samples::new([]).median().is_nan());
    }

    #[test]
    fn the_spread_is_largest_to_smallest() {
        let samples = Samples::new([3.0, 2.0, 5.0, f64::NAN]);
        assert_eq!((samples.min(), samples.max(), samples.spread()), (2.0, 5.0, 2.5));
        assert_eq!(samples.len(), 3, "what is no number was not measured");
    }

    #[test]
    fn quantiles_are_values_that_occurred() {
        let samples = Samples::new((1..=1000).map(f64::from));
        assert_eq!(samples.quantile(0.5), 500.0);
        assert_eq!(samples.quantile(0.999), 999.0);
        assert_eq!(samples.quantile(1.0), 1000.0);
        assert_eq!(samples.quantile(0.0), 1.0);
        assert!(Samples::new([]).quantile(0.5).is_nan());
    }

    #[test]
    fn pairs_are_compared_each_with_its_own_baseline() {
        // The machine halves its speed in the middle; the ratio does not notice, the baseline does.
        let pairs = [(2.0, 4.0), (2.2, 4.0), (1.0, 2.0)];
        let ratio = ratio_of_pairs(&pairs);
        assert_eq!((ratio.median, ratio.pairs), (0.5, 3));
        assert!((ratio.spread - 1.1).abs() < 1e-9);
        assert_eq!(ratio.baseline_spread, 2.0);
        assert!(ratio.is_void());
    }

    #[test]
    fn a_steady_baseline_makes_a_ratio_count() {
        assert!(!ratio_of_pairs(&[(1.0, 1.0), (9.0, 1.35)]).is_void());
        assert!(ratio_of_pairs(&[(1.0, 1.0), (1.0, 1.36)]).is_void());
        assert!(ratio_of_pairs(&[]).is_void());
        assert!(ratio_of_pairs(&[(1.0, 0.0)]).is_void());
    }
}
