//! From what was measured to rows and bars.

use super::super::Measured;
use super::super::report::{Bar, PERCENTILE, Row};
use super::super::statistics::{Ratio, Samples, ratio_of_pairs};
use super::case::{Case, Figure, Series, Streams};
use super::measure::OBSERVED;
use super::setup::Setup;
use super::traffic::Pattern;
use super::watched::Watched;

/// What is compared, the gateway's with the hairpin's.
const COMPARED: [(&str, Case, Figure); 7] = [
    ("tcp1_vs_hairpin", Case::Tcp(Streams::One), Figure::THROUGHPUT),
    ("tcp8_vs_hairpin", Case::Tcp(Streams::Eight), Figure::THROUGHPUT),
    ("tcp8_threads_vs_hairpin", Case::Tcp(Streams::EightThreads), Figure::THROUGHPUT),
    ("efficiency_vs_hairpin", Case::Tcp(Streams::One), Figure::EFFICIENCY),
    ("udp64_runs_vs_hairpin", Case::Udp(Pattern::Runs), Figure::PACKETS),
    ("udp64_interleaved_vs_hairpin", Case::Udp(Pattern::Interleaved), Figure::PACKETS),
    ("rtt_vs_hairpin", Case::Latency { loaded: false }, Figure::MEDIAN),
];

/// What a gateway that is looked at carries, compared with one that is not.
const OBSERVATION: [(&str, Case, Figure); OBSERVED.len()] = [
    ("observed_tcp1", OBSERVED[0], Figure::THROUGHPUT),
    ("observed_udp64_runs", OBSERVED[1], Figure::PACKETS),
    ("observed_udp64_interleaved", OBSERVED[2], Figure::PACKETS),
];

/// All rows, and the bars that can be made of them.
pub(super) fn told(all: &[Series]) -> Measured {
    let (gateway, hairpin) = (Setup::Gateway.name(), Setup::Hairpin.name());
    let mut bars: Vec<_> = COMPARED
        .iter()
        .filter_map(|&(name, case, figure)| {
            let ratio = ratio(all, case, figure, (gateway, hairpin))?;
            Some(Bar::of(name, &ratio))
        })
        .collect();
    if let Some(values) = values(all, Case::Tcp(Streams::One), gateway, Figure::SYSCALLS) {
        let samples = Samples::new(values.iter().copied());
        bars.push(Bar::alone("syscalls_per_packet", &samples));
    }
    bars.extend(flood_goodput(all));
    let [off, on] = Watched::NAMES;
    bars.extend(OBSERVATION.iter().filter_map(|&(name, case, figure)| {
        ratio(all, case, figure, (on, off)).map(|ratio| Bar::of(name, &ratio))
    }));
    (bars, all.iter().map(row).collect())
}

fn row(Series { of, values }: &Series) -> Row {
    let figure = of.figure;
    let samples = Samples::new(values.iter().copied());
    let row = Row::new(of.case.name(), of.setup, (figure.metric, figure.unit), &samples);
    match figure.percentile {
        Some(percentile) => row.with(PERCENTILE, percentile),
        None => row,
    }
}

/// Goodput beside a flood is worth nothing if the connection's entry was lost meanwhile.
fn flood_goodput(all: &[Series]) -> Option<Bar> {
    let ratio = ratio(all, Case::Flood, Figure::THROUGHPUT, ("flooded", "quiet"))?;
    let bar = Bar::of("flood_goodput", &ratio);
    let lost = values(all, Case::Flood, "flooded", Figure::LOST_ENTRIES)?;
    let lost = lost.iter().any(|&lost| lost > 0.0);
    Some(if lost { Bar { value: 0.0, void: false, ..bar } } else { bar })
}

fn ratio(all: &[Series], case: Case, figure: Figure, (of, to): (&str, &str)) -> Option<Ratio> {
    let [of, to] = [values(all, case, of, figure)?, values(all, case, to, figure)?];
    let pairs: Vec<_> = of.iter().copied().zip(to.iter().copied()).collect();
    Some(ratio_of_pairs(&pairs))
}

fn values<'a>(all: &'a [Series], case: Case, setup: &str, figure: Figure) -> Option<&'a [f64]> {
    let is = |series: &&Series| {
        let of = series.of;
        (of.case, of.setup, of.figure) == (case, setup, figure)
    };
    all.iter().find(is).map(|series| &series.values[..])
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the values are exact")]
mod tests {
    use super::super::super::bars::{Goal, Verdict, explained, judge};
    use super::super::case::Of;
    use super::super::traffic::Hands;
    use super::*;

    fn series(case: Case, setup: &'static str, figure: Figure, values: &[f64]) -> Series {
        Series { of: Of { case, setup, figure }, values: values.to_vec() }
    }

    #[test]
    fn bars_are_ratios_of_values_that_were_measured_beside_each_other() {
        let tcp = Case::Tcp(Streams::One);
        let all = [
            series(tcp, "gateway", Figure::THROUGHPUT, &[8.0, 9.0, 20.0]),
            series(tcp, "gateway", Figure::SYSCALLS, &[0.04, 0.05, 0.06]),
            series(tcp, "hairpin", Figure::THROUGHPUT, &[10.0, 10.0, 12.5]),
            series(Case::Latency { loaded: true }, "hairpin", Figure::MEDIAN, &[10.0]),
        ];
        let (bars, rows) = told(&all);
        let of: Vec<_> = bars.iter().map(|bar| (bar.name, bar.value, bar.void)).collect();
        assert_eq!(of, [("tcp1_vs_hairpin", 0.9, false), ("syscalls_per_packet", 0.05, false)]);
        assert!(bars.iter().all(|bar| Goal::named(bar.name).is_some()));
        assert_eq!((rows[0].median, rows[0].min, rows[0].max, rows[0].runs), (9.0, 8.0, 20.0, 3));
        assert_eq!(rows[3].dimensions[PERCENTILE], "p50");
        assert!(rows[0].dimensions.is_empty());
    }

    #[test]
    fn a_lost_entry_spoils_the_goodput() {
        let all = |lost: f64| {
            [
                series(Case::Flood, "quiet", Figure::THROUGHPUT, &[10.0, 10.0]),
                series(Case::Flood, "flooded", Figure::THROUGHPUT, &[9.5, 9.5]),
                series(Case::Flood, "flooded", Figure::LOST_ENTRIES, &[0.0, lost]),
            ]
        };
        assert_eq!(flood_goodput(&all(0.0)).unwrap().value, 0.95);
        let spoilt = flood_goodput(&all(1.0)).unwrap();
        assert_eq!((spoilt.value, spoilt.void), (0.0, false));
    }

    #[test]
    fn all_that_is_compared_is_explained() {
        let all = COMPARED.iter().chain(&OBSERVATION);
        assert!(all.clone().count() > 0);
        for (name, ..) in all {
            assert!(explained(name).is_some(), "{name}");
        }
    }

    #[test]
    fn the_bar_of_eight_streams_is_of_those_that_one_thread_serves() {
        let eight = |streams, throughput| {
            [("gateway", throughput), ("hairpin", 10.0)].map(|(setup, value)| {
                series(Case::Tcp(streams), setup, Figure::THROUGHPUT, &[value])
            })
        };
        let all = [eight(Streams::Eight, 6.0), eight(Streams::EightThreads, 3.0)].concat();
        let (bars, _) = told(&all);
        let of: Vec<_> = bars.iter().map(|bar| (bar.name, bar.value, judge(bar))).collect();
        let expected = [
            ("tcp8_vs_hairpin", 0.6, Some(Verdict::Reached)),
            ("tcp8_threads_vs_hairpin", 0.3, None),
        ];
        assert_eq!(of, expected);
        assert_eq!(Streams::Eight.served(), (8, Hands::One));
        assert_eq!(Streams::EightThreads.served(), (8, Hands::Each));
    }
}
