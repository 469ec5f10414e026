//! What a metric is, said once: its name with the unit, its kind, its labels, its help text, and
//! where its values are.

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use crate::dataplane::stats::HistogramTotals;
use crate::runtime::status::Status;

/// How the values of a metric behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// They only grow, from zero when the gateway starts.
    Counter,
    /// They go up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

impl Kind {
    /// As Prometheus calls it.
    #[cfg(test)]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric.
pub(super) struct Instrument {
    /// Ends in its unit, if it has one, and a counter in `_total`.
    pub name: String,
    pub kind: Kind,
    /// What tells its series apart. A series may lack some: an empty value is none.
    pub labels: &'static [&'static str],
    pub help: String,
    read: Read,
}

type Read = Box<dyn Fn(&Status, &mut Series)>;

impl Instrument {
    pub fn new(
        kind: Kind,
        name: impl Into<String>,
        help: impl Into<String>,
        labels: &'static [&'static str],
        read: impl Fn(&Status, &mut Series) + 'static,
    ) -> Self {
        Self { name: name.into(), kind, labels, help: help.into(), read: Box::new(read) }
    }

    /// All its series, as they are now; `None` if there is none.
    pub fn read(&self, status: &Status) -> Option<MetricFamily> {
        let mut series = Series { kind: self.kind, labels: self.labels, metrics: Vec::new() };
        (self.read)(status, &mut series);
        let mut family = MetricFamily::default();
        family.set_name(self.name.clone());
        family.set_help(self.help.clone());
        family.set_field_type(match self.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        if series.metrics.is_empty() {
            return None;
        }
        family.set_metric(series.metrics);
        Some(family)
    }
}

/// The series of one metric.
pub(super) struct Series {
    kind: Kind,
    labels: &'static [&'static str],
    metrics: Vec<Metric>,
}

impl Series {
    /// A count.
    pub fn count(&mut self, labels: &[&str], value: u64) {
        self.value(labels, value as f64);
    }

    /// A value of a counter or a gauge; `labels` in the order of the instrument's.
    pub fn value(&mut self, labels: &[&str], value: f64) {
        let mut metric = self.metric(labels);
        if self.kind == Kind::Counter {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
    }

    /// A histogram, of which so many as `unit` make one. Nothing, as long as there was no value: buckets are
    /// many.
    pub fn histogram(&mut self, labels: &[&str], totals: &HistogramTotals, unit: f64) {
        let count = totals.count();
        if count == 0 {
            return;
        }
        let mut below = 0;
        let buckets = totals.bounds.iter().zip(&totals.counts).map(|(bound, count)| {
            below += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound as f64 / unit);
            bucket.set_cumulative_count(below);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(count);
        histogram.set_sample_sum(totals.sum as f64 / unit);
        let mut metric = self.metric(labels);
        metric.set_histogram(histogram);
        self.metrics.push(metric);
    }

    fn metric(&self, values: &[&str]) -> Metric {
        debug_assert_eq!(self.labels.len(), values.len());
        let named = self.labels.iter().zip(values).filter(|(_, value)| !value.is_empty());
        let pairs = named.map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        let mut pairs: Vec<_> = pairs.collect();
        pairs.sort_by(|one, other| one.name().cmp(other.name()));
        Metric::from_label(pairs)
    }
}
