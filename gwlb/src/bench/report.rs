//! What was measured, for people and for programs: tables, or JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use serde::Serialize;
use serde_json::Value;

use super::bars::{self, Goal, Verdict};
use super::machine::Machine;
use super::statistics::{Ratio, Samples};

/// Everything there is to say about a run: `bench --json`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Where it was measured.
    pub machine: Machine,
    /// Whether it took a tenth of the time, and so may be far off.
    pub quick: bool,
    /// The figures that are judged, and ratios that stand beside them.
    pub bars: Vec<Bar>,
    /// All figures.
    pub rows: Vec<Row>,
}

/// One bar: a figure that has a least and a goal ([`bars::BARS`]), or is told beside those.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Bar {
    pub name: &'static str,
    /// The median of the single values.
    pub value: f64,
    /// Largest / smallest of the single values.
    pub spread: f64,
    /// How many single values there are, each a measurement with its baseline beside it.
    pub pairs: usize,
    /// Whether the baseline was too restless for the value to mean anything.
    pub void: bool,
}

impl Bar {
    /// A comparison, pair by pair.
    pub(super) fn of(name: &'static str, ratio: &Ratio) -> Self {
        let Ratio { median, spread, pairs, .. } = *ratio;
        Self { name, value: median, spread, pairs, void: ratio.is_void() }
    }

    /// A figure that stands for itself, such as a count: it has no baseline to be restless.
    pub(super) fn alone(name: &'static str, samples: &Samples) -> Self {
        let (value, spread) = (samples.median(), samples.spread());
        Self { name, value, spread, pairs: samples.len(), void: !value.is_finite() }
    }
}

/// What a row's figure is. Charts are drawn of the rows of these metrics: one chart for each case.
pub(super) mod metric {
    /// Bits in time, `Gbit/s`: a bar for each set-up.
    pub(in super::super) const THROUGHPUT: &str = "throughput";
    /// Packets or connections in time: a bar for each set-up.
    pub(in super::super) const RATE: &str = "rate";
    /// Time, with the dimension [`super::PERCENTILE`]: a group of bars for each set-up.
    pub(in super::super) const LATENCY: &str = "latency";
    /// Time per packet. With the dimension [`super::FLOWS`], a line for each set-up.
    pub(in super::super) const COST: &str = "cost";
}

/// The dimension of latencies, a text: `p50`, `p99`, `p99.9`.
pub(super) const PERCENTILE: &str = "percentile";
/// The dimension of costs, a number: how many flows there are.
pub(super) const FLOWS: &str = "flows";

/// One measured case.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    /// What was done: cases are compared across set-ups.
    pub case: String,
    /// What did it: a baseline, or the gateway in some form.
    pub setup: String,
    /// What is told of it, such as those of [`metric`].
    pub metric: &'static str,
    pub unit: &'static str,
    pub median: f64,
    pub min: f64,
    pub max: f64,
    /// How many times it was measured.
    pub runs: usize,
    /// What else varies, by name.
    #[serde(flatten)]
    pub dimensions: BTreeMap<&'static str, Value>,
}

impl Row {
    /// A row without further dimensions.
    pub(super) fn new(
        case: impl Into<String>,
        setup: impl Into<String>,
        (metric, unit): (&'static str, &'static str),
        samples: &Samples,
    ) -> Self {
        Self {
            case: case.into(),
            setup: setup.into(),
            metric,
            unit,
            median: samples.median(),
            min: samples.min(),
            max: samples.max(),
            runs: samples.len(),
            dimensions: BTreeMap::new(),
        }
    }

    /// The same row, with one dimension more.
    pub(super) fn with(mut self, dimension: &'static str, value: impl Into<Value>) -> Self {
        self.dimensions.insert(dimension, value.into());
        self
    }

    /// Its set-up, with the number of flows where there is one.
    fn setup_shown(&self) -> String {
        match self.dimensions.get(FLOWS).and_then(Value::as_u64) {
            Some(flows) => format!("{}, {}", self.setup, flows_shown(flows as usize)),
            None => self.setup.clone(),
        }
    }

    /// Its metric, with the percentile where there is one.
    fn metric_shown(&self) -> String {
        match self.dimensions.get(PERCENTILE).and_then(Value::as_str) {
            Some(percentile) => format!("{} {percentile}", self.metric),
            None => self.metric.to_owned(),
        }
    }
}

impl Report {
    /// Whether a bar that is not void is short of what it must be at least.
    pub(super) fn is_short(&self) -> bool {
        self.bars.iter().any(|bar| bars::judge(bar) == Some(Verdict::Short))
    }

    /// The machine, the tables and what to mind.
    pub(super) fn to_text(&self) -> String {
        let mut text = format!("\n{}", self.machine.to_text());
        if self.quick {
            text.push_str("Measured in a tenth of the time (--quick): a look, and no more.\n");
        }
        for (case, table) in self.row_tables() {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n{case}\n{table}\n");
        }
        if !self.bars.is_empty() {
            let _ = write!(text, "\nBars\n{}\n", self.bar_table());
            for bar in &self.bars {
                if let Some(what) = bars::explained(bar.name) {
                    let _ = writeln!(text, "{}: {what}", bar.name);
                }
            }
        }
        text
    }

    /// A table for each case, in the order in which they came first.
    fn row_tables(&self) -> Vec<(&str, Table)> {
        let mut tables: Vec<(&str, Table)> = Vec::new();
        for row in &self.rows {
            let place = tables.iter().position(|(case, _)| *case == row.case);
            let place = place.unwrap_or_else(|| {
                let header = ["", "", "median", "min", "max", "runs", "unit"];
                tables.push((&row.case, table(&header, 2..6)));
                tables.len() - 1
            });
            tables[place].1.add_row([
                row.setup_shown(),
                row.metric_shown(),
                figure(row.median),
                figure(row.min),
                figure(row.max),
                row.runs.to_string(),
                row.unit.to_owned(),
            ]);
        }
        tables
    }

    fn bar_table(&self) -> Table {
        let header = ["bar", "value", "spread", "pairs", "least", "goal", ""];
        let mut table = table(&header, 1..6);
        for bar in &self.bars {
            let goal = Goal::named(bar.name);
            let shown = |bound: fn(&Goal) -> f64| {
                goal.map(|goal| goal.shown(bound(goal))).unwrap_or_default()
            };
            table.add_row([
                bar.name.to_owned(),
                figure(bar.value),
                figure(bar.spread),
                bar.pairs.to_string(),
                shown(|goal| goal.least),
                shown(|goal| goal.wanted),
                bars::judge(bar).map_or("", Verdict::name).to_owned(),
            ]);
        }
        table
    }
}

/// `8 M flows`
pub(super) fn flows_shown(flows: usize) -> String {
    match flows {
        1_000_000.. if flows.is_multiple_of(1_000_000) => format!("{} M flows", flows / 1_000_000),
        1_000.. if flows.is_multiple_of(1_000) => format!("{} k flows", flows / 1_000),
        _ => format!("{flows} flows"),
    }
}

/// A number with as many digits as mean something.
pub(super) fn figure(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "–".to_owned(),
        0.0 => "0".to_owned(),
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// A table of which the columns in `numbers` are numbers.
fn table(header: &[&str], numbers: std::ops::Range<usize>) -> Table {
    const LINE: LineStyle = LineStyle::none().fill('─').junction('─');
    let style = TableStyle::new().top_border(LINE).header_separator(LINE).bottom_border(LINE);
    let mut table = Table::new();
    // No lines between rows: there are many.
    table.load_style(style).set_header(header.iter().copied());
    for column in table.column_iter_mut().skip(numbers.start).take(numbers.len()) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::statistics::ratio_of_pairs;
    use super::*;

    /// A report with something of everything.
    pub(in super::super) fn report() -> Report {
        let samples = |values: &[f64]| Samples::new(values.iter().copied());
        let throughput = (metric::THROUGHPUT, "Gbit/s");
        let latency = (metric::LATENCY, "µs");
        let rows = vec![
            Row::new("TCP, 1 stream", "hairpin", throughput, &samples(&[10.0, 11.0, 12.0])),
            Row::new("TCP, 1 stream", "gateway <fast & plain>", throughput, &samples(&[8.0, 9.0])),
            Row::new("round trip", "hairpin", latency, &samples(&[20.0])).with(PERCENTILE, "p50"),
            Row::new("round trip", "hairpin", latency, &samples(&[90.0])).with(PERCENTILE, "p99"),
            Row::new("round trip", "gateway", latency, &samples(&[25.0])).with(PERCENTILE, "p50"),
            Row::new("round trip", "gateway", latency, &samples(&[99.0])).with(PERCENTILE, "p99"),
            Row::new("hit", "IPv4, 64 B", (metric::COST, "ns"), &samples(&[30.5]))
                .with(FLOWS, 1000),
            Row::new("hit", "IPv4, 64 B", (metric::COST, "ns"), &samples(&[40.5]))
                .with(FLOWS, 1_000_000),
        ];
        let pairs = [(9.0, 11.0), (8.0, 12.0), (9.0, 10.0)];
        let restless = [(1.0, 1.0), (1.0, 2.0)];
        let bars = vec![
            Bar::of("tcp1_vs_hairpin", &ratio_of_pairs(&pairs)),
            Bar::of("rtt_vs_hairpin", &ratio_of_pairs(&restless)),
            Bar::alone("bytes_per_flow", &samples(&[97.0])),
        ];
        Report { machine: Machine::sample(), quick: true, bars, rows }
    }

    #[test]
    fn the_text_shows_the_machine_the_rows_and_the_bars() {
        insta::assert_snapshot!(report().to_text());
    }

    #[test]
    fn the_text_fits_a_terminal() {
        for line in report().to_text().lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }

    #[test]
    fn the_json_has_the_agreed_form() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["quick"], true);
        assert!(json["machine"]["cpu"].is_string());
        let bar = json["bars"][0].as_object().unwrap();
        let keys: Vec<_> = bar.keys().map(String::as_str).collect();
        assert_eq!(keys, ["name", "pairs", "spread", "value", "void"]);
        assert_eq!((&bar["name"], &bar["pairs"]), (&"tcp1_vs_hairpin".into(), &3.into()));
        assert_eq!(json["bars"][1]["void"], true);
        assert_eq!(json["rows"][7]["flows"], 1_000_000);
        assert_eq!(json["rows"][2]["percentile"], "p50");
        assert_eq!(json["rows"][0]["median"], 11.0);
    }

    #[test]
    fn only_a_bar_that_counts_can_be_short() {
        let mut report = report();
        assert!(report.is_short(), "97 bytes are more than 96");
        report.bars.pop();
        assert!(!report.is_short());
    }

    #[test]
    fn figures_have_the_digits_that_mean_something() {
        let shown = [12345.6, 123.45, 12.345, 0.5, 0.0301, 0.0, f64::NAN].map(figure);
        assert_eq!(shown, ["12346", "123.5", "12.35", "0.50", "0.0301", "0", "–"]);
    }
}
