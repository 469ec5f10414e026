//! What rates were over time.

use std::collections::VecDeque;

use super::SERIES;

/// How much is kept: at one answer a second, what fills the widest terminal several times over.
const SPANS: usize = 3600;

/// Rates over the gateway's time, which is cut into spans by its answers.
///
/// It is drawn in columns that all stand for the same time, whatever the spans are: an answer that
/// came late fills several columns, and answers that come fast share one.
#[derive(Debug, Default)]
pub(in crate::cli::top) struct History {
    /// The oldest first, without gaps between them.
    spans: VecDeque<Span>,
    /// Where the last one ends, in milliseconds.
    end: u64,
}

#[derive(Debug)]
struct Span {
    milliseconds: u64,
    /// `None`: not known.
    rates: Option<[f64; SERIES]>,
}

impl History {
    /// For so many milliseconds, the rates were these.
    pub fn push(&mut self, milliseconds: u64, rates: [f64; SERIES]) {
        self.add(Span { milliseconds, rates: Some(rates) });
    }

    /// What was until now has nothing to do with what comes.
    pub fn interrupt(&mut self) {
        if self.spans.back().is_some_and(|last| last.rates.is_some()) {
            self.add(Span { milliseconds: 1000, rates: None });
        }
    }

    /// The last `count` columns of so many milliseconds each, the newest last: the mean of what is
    /// known of the time that each stands for. The columns' borders stay where they are as time goes
    /// on, so that only the newest changes.
    pub fn columns(&self, series: usize, each: u64, count: usize) -> Vec<Option<f64>> {
        let newest = self.end.div_ceil(each);
        let mut columns = vec![(0.0, 0); count];
        let mut end = self.end;
        for span in self.spans.iter().rev() {
            let begin = end - span.milliseconds;
            // Columns are counted back from the newest.
            let first = usize::try_from(newest - end.div_ceil(each)).unwrap_or(usize::MAX);
            if first >= count {
                break;
            }
            for (column, (sum, known)) in columns.iter_mut().enumerate().skip(first) {
                // Before the beginning there is nothing.
                let Some(number) = newest.checked_sub(column as u64 + 1) else { break };
                let (left, right) = (number * each, (number + 1) * each);
                let Some(rates) = span.rates.filter(|_| right > begin) else { break };
                let overlap = end.min(right).saturating_sub(begin.max(left));
                *sum += rates[series] * overlap as f64;
                *known += overlap;
            }
            end = begin;
        }
        let mean = |(sum, known)| (known > 0).then(|| sum / known as f64);
        columns.into_iter().rev().map(mean).collect()
    }

    /// How much of the past is known, in milliseconds.
    pub fn milliseconds(&self) -> u64 {
        self.spans.iter().map(|span| span.milliseconds).sum()
    }

    fn add(&mut self, span: Span) {
        self.end += span.milliseconds;
        self.spans.push_back(span);
        if self.spans.len() > SPANS {
            self.spans.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(spans: &[(u64, f64)]) -> History {
        let mut history = History::default();
        for &(milliseconds, rate) in spans {
            history.push(milliseconds, [rate; SERIES]);
        }
        history
    }

    #[test]
    fn columns_stand_for_the_same_time() {
        let history = history(&[(1_000, 1.0), (1_000, 2.0), (3_000, 5.0), (1_000, 3.0)]);
        let rates = [1.0, 2.0, 5.0, 5.0, 5.0, 3.0].map(Some);
        assert_eq!(history.columns(0, 1_000, 6), rates);
        assert_eq!(history.columns(0, 1_000, 2), rates[4..]);
        assert_eq!(history.columns(0, 1_000, 8)[..3], [None, None, Some(1.0)]);
        assert_eq!(history.columns(3, 2_000, 3), [1.5, 5.0, 4.0].map(Some));
        assert_eq!(history.columns(3, 1_000, 0), []);
    }

    #[test]
    fn columns_stay_as_they_are() {
        let mut history = history(&[(1_250, 4.0), (750, 8.0), (500, 2.0)]);
        let before = history.columns(0, 1_000, 3);
        assert_eq!(before, [4.0, 7.0, 2.0].map(Some), "the newest is of what there is");
        history.push(500, [6.0; SERIES]);
        let after = history.columns(0, 1_000, 3);
        assert_eq!(after, [4.0, 7.0, 4.0].map(Some));
        history.push(250, [1.0; SERIES]);
        assert_eq!(history.columns(0, 1_000, 4), [4.0, 7.0, 4.0, 1.0].map(Some));
    }

    #[test]
    fn what_is_not_known_is_a_gap() {
        let mut history = history(&[(1_000, 1.0)]);
        history.interrupt();
        history.interrupt();
        history.push(1_000, [2.0; SERIES]);
        assert_eq!(history.columns(0, 1_000, 3), [Some(1.0), None, Some(2.0)]);
        assert_eq!(History::default().columns(0, 1_000, 2), [None, None]);
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let mut history = history(&vec![(1_000, 1.0); 5_000]);
        history.push(1_000, [9.0; SERIES]);
        assert_eq!(history.spans.len(), SPANS);
        assert_eq!(history.milliseconds(), SPANS as u64 * 1_000);
        assert_eq!(history.columns(0, 1_000, 2), [Some(1.0), Some(9.0)]);
    }
}
