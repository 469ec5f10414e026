//! The bars: figures that have a least and a goal, and the judgement of what was measured.

use super::report::Bar;

/// What a figure has to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Goal {
    /// As in the JSON.
    pub name: &'static str,
    /// What is divided by what, or what is counted.
    pub what: &'static str,
    /// Short of this it has failed.
    pub least: f64,
    /// What is striven for.
    pub wanted: f64,
    pub direction: Direction,
}

/// Which values are better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Up,
    Down,
}

/// What a measured figure is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The goal is reached.
    Goal,
    /// At least what it has to be.
    Reached,
    /// Less than it has to be.
    Short,
    /// The baseline was too restless to say.
    Void,
}

impl Verdict {
    /// As the table says it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Goal => "goal",
            Self::Reached => "reached",
            Self::Short => "SHORT",
            Self::Void => "void",
        }
    }
}

use Direction::{Down, Up};

/// All bars of all benchmarks. "Hairpin" is the kernel's VXLAN hairpin through an appliance
/// namespace, measured in the same run.
#[rustfmt::skip]
pub(super) const BARS: &[Goal] = &[
    goal("tcp1_vs_hairpin", "TCP, 1 stream: through gateway and appliance / hairpin", 0.65, 0.9, Up),
    goal("tcp8_vs_hairpin", "TCP, 8 streams, one thread at either end: likewise", 0.55, 0.8, Up),
    goal("efficiency_vs_hairpin", "Gbit per CPU-second of the machine, 1 stream / hairpin's", 0.6, 0.85, Up),
    goal("udp64_runs_vs_hairpin", "64-byte UDP in runs of 32 per flow / hairpin", 4.0, 8.0, Up),
    goal("udp64_interleaved_vs_hairpin", "64-byte UDP interleaved over 1000 flows / hairpin", 2.0, 4.0, Up),
    goal("syscalls_per_packet", "the gateway's system calls per packet, bulk TCP", 0.1, 0.03, Down),
    goal("core_hit_vs_memcpy", "decide and encapsulate, 1 M flows, 1428 B / cold memcpy of 1428 B", 1.0, 0.6, Down),
    goal("instructions_hit", "instructions per packet of a known flow", 400.0, 250.0, Down),
    goal("instructions_new", "instructions per packet that makes a flow", 1000.0, 600.0, Down),
    goal("cost_1m_vs_1k", "cost per packet at 1 M flows / at 1 k", 2.0, 1.5, Down),
    goal("cost_8m_vs_1k", "cost per packet at 8 M flows / at 1 k", 3.0, 2.0, Down),
    goal("new_vs_hit", "rate of packets that make flows / of packets of known flows", 0.5, 0.8, Up),
    goal("flood_goodput", "established goodput under a flood of new flows / without", 0.9, 0.95, Up),
    goal("observed_tcp1", "TCP, 1 stream: a gateway that is looked at all the time / one that is not", 0.97, 0.99, Up),
    goal("observed_udp64_runs", "64-byte UDP in runs of 32 per flow, likewise", 0.97, 0.99, Up),
    goal("observed_udp64_interleaved", "64-byte UDP interleaved over 1000 flows, likewise", 0.97, 0.99, Up),
    goal("rtt_vs_hairpin", "idle round-trip / hairpin's", 1.5, 1.2, Down),
    goal("workers2_vs_1", "two single-threaded workers in memory / one", 1.8, 1.94, Up),
    goal("bytes_per_flow", "hot entries and index per flow, 8 M IPv4 flows", 96.0, 64.0, Down),
    goal("sdk_cpu_per_packet_us", "CPU of an SDK pass-through appliance, 64-byte packets in runs, in µs", 2.0, 0.8, Down),
];

/// Ratios that are told beside the bars, and not judged.
#[rustfmt::skip]
const TOLD: &[(&str, &str)] = &[
    ("tcp8_threads_vs_hairpin", "TCP, 8 streams, a thread for each: likewise; not judged"),
];

const fn goal(
    name: &'static str,
    what: &'static str,
    least: f64,
    wanted: f64,
    direction: Direction,
) -> Goal {
    Goal { name, what, least, wanted, direction }
}

impl Goal {
    /// The bar of this name.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        BARS.iter().find(|goal| goal.name == name)
    }

    /// What a measured value is worth.
    pub(super) fn judge(&self, value: f64) -> Verdict {
        let reaches = |bound: f64| match self.direction {
            Up => value >= bound,
            Down => value <= bound,
        };
        if reaches(self.wanted) {
            Verdict::Goal
        } else if reaches(self.least) {
            Verdict::Reached
        } else {
            Verdict::Short
        }
    }

    /// A bound as the table says it: `≥ 0.65`.
    pub(super) fn shown(&self, bound: f64) -> String {
        match self.direction {
            Up => format!("≥ {bound}"),
            Down => format!("≤ {bound}"),
        }
    }
}

/// What a bar is worth; `None` for one that is not judged.
pub(super) fn judge(bar: &Bar) -> Option<Verdict> {
    if bar.void {
        return Some(Verdict::Void);
    }
    Goal::named(bar.name).map(|goal| goal.judge(bar.value))
}

/// What is divided by what, or what is counted.
pub(super) fn explained(name: &str) -> Option<&'static str> {
    let told = || TOLD.iter().find(|(told, _)| *told == name).map(|(_, what)| *what);
    Goal::named(name).map(|goal| goal.what).or_else(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_no_goal_is_easier_than_its_least() {
        for (number, goal) in BARS.iter().enumerate() {
            assert!(BARS[number + 1..].iter().all(|other| other.name != goal.name));
            assert_eq!(goal.judge(goal.wanted), Verdict::Goal, "{}", goal.name);
            assert_eq!(goal.judge(goal.least), Verdict::Reached, "{}", goal.name);
        }
        assert!(TOLD.iter().all(|(name, _)| Goal::named(name).is_none()));
    }

    #[test]
    fn explanations_fit_a_terminal() {
        let names = BARS.iter().map(|goal| goal.name).chain(TOLD.iter().map(|(name, _)| *name));
        for name in names {
            let line = format!("{name}: {}", explained(name).unwrap());
            assert!(line.chars().count() <= 100, "{line}");
        }
    }

    #[test]
    fn what_is_short_depends_on_the_direction() {
        let up = Goal::named("tcp1_vs_hairpin").unwrap();
        assert_eq!(
            [0.64, 0.7, 0.95].map(|value| up.judge(value)),
            [Verdict::Short, Verdict::Reached, Verdict::Goal]
        );
        let down = Goal::named("rtt_vs_hairpin").unwrap();
        assert_eq!(
            [1.6, 1.5, 1.1].map(|value| down.judge(value)),
            [Verdict::Short, Verdict::Reached, Verdict::Goal]
        );
        assert_eq!((up.shown(0.65).as_str(), down.shown(1.5).as_str()), ("≥ 0.65", "≤ 1.5"));
        assert_eq!(up.judge(f64::NAN), Verdict::Short, "what is no number reaches nothing");
    }

    #[test]
    fn a_void_bar_is_neither_reached_nor_short() {
        let bar = |name, void| Bar { name, value: 0.1, spread: 2.0, pairs: 7, void };
        assert_eq!(judge(&bar("tcp1_vs_hairpin", true)), Some(Verdict::Void));
        assert_eq!(judge(&bar("tcp1_vs_hairpin", false)), Some(Verdict::Short));
        assert_eq!(judge(&bar("no bar", false)), None);
    }
}
