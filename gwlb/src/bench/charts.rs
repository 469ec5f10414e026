//! Charts of what was measured, as SVG: bars for throughput, rates and latencies, lines for what a
//! packet costs by the number of flows. One file for each case of a metric.
//!
//! Which rows become which chart is decided by their metric and dimensions alone
//! ([`super::report::metric`]), so every benchmark gets its charts by telling its rows.

mod drawing;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::error::BenchError;
use super::report::{FLOWS, PERCENTILE, Report, Row, metric};

/// What is to be drawn.
#[derive(Debug, PartialEq)]
enum Chart<'a> {
    /// For each set-up a group of bars, one for each series; a single series has no name.
    Bars { series: Vec<&'a str>, groups: Vec<(&'a str, Vec<Option<f64>>)> },
    /// For each set-up a line over the number of flows.
    Lines { lines: Vec<(&'a str, Vec<(f64, f64)>)> },
}

/// A chart with what stands around it.
#[derive(Debug, PartialEq)]
struct Sheet<'a> {
    metric: &'static str,
    case: &'a str,
    unit: &'static str,
    /// The machine, and what else is to be known.
    note: String,
    chart: Chart<'a>,
}

/// Draws all charts that a report has rows for into a folder, which is made if it is not there.
pub(super) fn draw(report: &Report, folder: &Path) -> Result<(), BenchError> {
    let shown = folder.display();
    fs::create_dir_all(folder).map_err(BenchError::io(format!("make the folder {shown}")))?;
    for sheet in sheets(report) {
        let path = folder.join(sheet.file_name());
        let failed = BenchError::io(format!("write {}", path.display()));
        fs::write(&path, drawing::svg(&sheet)?).map_err(failed)?;
    }
    Ok(())
}

/// One sheet for each case of a metric, in the order in which they came first.
fn sheets(report: &Report) -> Vec<Sheet<'_>> {
    let mut seen = BTreeSet::new();
    let mut sheets = Vec::new();
    for row in &report.rows {
        if !seen.insert((row.metric, &row.case)) {
            continue;
        }
        let same = |other: &&Row| other.metric == row.metric && other.case == row.case;
        let rows: Vec<_> = report.rows.iter().filter(same).collect();
        let chart = match row.metric {
            metric::LATENCY => bars(&rows, Some(PERCENTILE)),
            metric::COST if rows.iter().any(|row| row.dimensions.contains_key(FLOWS)) => {
                lines(&rows)
            }
            metric::THROUGHPUT | metric::RATE | metric::COST => bars(&rows, None),
            _ => continue,
        };
        let quick = if report.quick { ", measured quickly" } else { "" };
        let note = format!("{}, Linux {}{quick}", report.machine.cpu, report.machine.kernel);
        let (metric, case, unit) = (row.metric, row.case.as_str(), row.unit);
        sheets.push(Sheet { metric, case, unit, note, chart });
    }
    sheets
}

/// Bars of the medians, by set-up and by the values of a dimension.
fn bars<'a>(rows: &[&'a Row], dimension: Option<&str>) -> Chart<'a> {
    let series_of = |row: &&'a Row| {
        dimension.and_then(|name| row.dimensions.get(name)).and_then(Value::as_str).unwrap_or("")
    };
    let series = distinct(rows.iter().map(series_of));
    let groups = distinct(rows.iter().map(|row| row.setup.as_str())).into_iter().map(|setup| {
        let value = |series: &&str| {
            let mut rows = rows.iter();
            let row = rows.find(|row| row.setup == setup && series_of(row) == *series);
            row.map(|row| row.median).filter(|median| median.is_finite())
        };
        (setup, series.iter().map(value).collect())
    });
    Chart::Bars { groups: groups.collect(), series }
}

/// Lines of the medians, by set-up over the number of flows.
fn lines<'a>(rows: &[&'a Row]) -> Chart<'a> {
    let lines = distinct(rows.iter().map(|row| row.setup.as_str())).into_iter().map(|setup| {
        let points = rows.iter().filter(|row| row.setup == setup && row.median.is_finite());
        let points =
            points.filter_map(|row| Some((row.dimensions.get(FLOWS)?.as_f64()?, row.median)));
        (setup, points.collect())
    });
    Chart::Lines { lines: lines.collect() }
}

/// Each once, in the order in which they came first.
fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found = Vec::new();
    for name in names {
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

impl Sheet<'_> {
    /// `throughput-tcp-1-stream.svg`
    fn file_name(&self) -> String {
        let name = format!("{} {}", self.metric, self.case).to_lowercase();
        let words =
            name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        format!("{}.svg", words.collect::<Vec<_>>().join("-"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn rows_become_the_charts_of_their_metrics() {
        let report = report();
        let sheets = sheets(&report);
        let names: Vec<_> = sheets.iter().map(Sheet::file_name).collect();
        assert_eq!(
            names,
            ["throughput-tcp-1-stream.svg", "latency-round-trip.svg", "cost-hit.svg"]
        );
        assert_eq!(
            sheets[0].chart,
            Chart::Bars {
                series: vec![""],
                groups: vec![
                    ("hairpin", vec![Some(11.0)]),
                    ("gateway <fast & plain>", vec![Some(8.5)])
                ],
            }
        );
        assert_eq!(
            sheets[1].chart,
            Chart::Bars {
                series: vec!["p50", "p99"],
                groups: vec![
                    ("hairpin", vec![Some(20.0), Some(90.0)]),
                    ("gateway", vec![Some(25.0), Some(99.0)])
                ],
            }
        );
        let points = vec![(1000.0, 30.5), (1_000_000.0, 40.5)];
        assert_eq!(sheets[2].chart, Chart::Lines { lines: vec![("IPv4, 64 B", points)] });
    }

    #[test]
    fn charts_are_files_with_title_unit_and_values() {
        let folder = tempfile::tempdir().unwrap();
        let charts = folder.path().join("charts");
        draw(&report(), &charts).unwrap();
        let read = |name: &str| fs::read_to_string(charts.join(name)).unwrap();
        let throughput = read("throughput-tcp-1-stream.svg");
        for part in ["throughput: TCP, 1 stream", "Gbit/s", "11.00", "8.50", "Example 9000"] {
            assert!(throughput.contains(part), "{part}: {throughput}");
        }
        assert!(throughput.contains("gateway &lt;fast &amp; plain&gt;"), "{throughput}");
        let latency = read("latency-round-trip.svg");
        for part in ["p50", "p99", "20.00", "99.00", "µs"] {
            assert!(latency.contains(part), "{part}: {latency}");
        }
        let cost = read("cost-hit.svg");
        for part in ["1 k", "1 M", "40.50", "IPv4, 64 B", "flows"] {
            assert!(cost.contains(part), "{part}: {cost}");
        }
    }
}
