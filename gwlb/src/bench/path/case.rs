//! The cases that are measured, and the figures that come of them.

use super::super::report::metric;
use super::traffic::{Hands, Pattern};

/// What is done with a set-up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Case {
    Tcp(Streams),
    Udp(Pattern),
    Latency { loaded: bool },
    Connections,
    Flood,
}

/// TCP connections that carry as much as they can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Streams {
    One,
    /// Eight, which one thread serves at either end, as event-driven programs do, and as `iperf3` did
    /// before 3.16. The bars come of figures of `iperf3`.
    Eight,
    /// Eight, with a thread for each at either end.
    EightThreads,
}

impl Streams {
    /// How many there are, and who serves them.
    pub(super) fn served(self) -> (usize, Hands) {
        match self {
            Self::One => (1, Hands::Each),
            Self::Eight => (8, Hands::One),
            Self::EightThreads => (8, Hands::Each),
        }
    }
}

/// Of what a series is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Of {
    pub case: Case,
    /// The set-up's name.
    pub setup: &'static str,
    pub figure: Figure,
}

/// What a figure says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Figure {
    pub metric: &'static str,
    pub unit: &'static str,
    /// `p50`, `p99`, `p99.9`: for latencies.
    pub percentile: Option<&'static str>,
}

/// Values of one thing, in the order in which they were measured.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub of: Of,
    pub values: Vec<f64>,
}

impl Figure {
    const fn new(metric: &'static str, unit: &'static str) -> Self {
        Self { metric, unit, percentile: None }
    }

    const fn latency(percentile: &'static str) -> Self {
        Self { metric: metric::LATENCY, unit: "µs", percentile: Some(percentile) }
    }

    pub(super) const THROUGHPUT: Self = Self::new(metric::THROUGHPUT, "Gbit/s");
    pub(super) const EFFICIENCY: Self = Self::new("efficiency", "Gbit/CPU-s");
    pub(super) const SYSCALLS: Self = Self::new("gateway's system calls", "1/packet");
    pub(super) const HANDED_OVER: Self = Self::new("handed over by workers", "%");
    pub(super) const REPEATED: Self = Self::new("sent again", "segments/s");
    pub(super) const PACKETS: Self = Self::new(metric::RATE, "packets/s");
    pub(super) const OFFERED: Self = Self::new("offered", "packets/s");
    pub(super) const LOSS: Self = Self::new("loss", "%");
    pub(super) const CPU: Self = Self::new("CPU of the machine", "µs/packet");
    pub(super) const CONNECTIONS: Self = Self::new(metric::RATE, "connections/s");
    pub(super) const CPU_CONNECTION: Self = Self::new("CPU of the machine", "µs/connection");
    pub(super) const MEDIAN: Self = Self::latency("p50");
    pub(super) const PERCENTILES: [(f64, Self); 3] =
        [(0.5, Self::MEDIAN), (0.99, Self::latency("p99")), (0.999, Self::latency("p99.9"))];
    pub(super) const UNANSWERED: Self = Self::new("unanswered", "requests/s");
    pub(super) const LOAD: Self = Self::new("load beside it", "Gbit/s");
    pub(super) const FLOOD: Self = Self::new("flood", "packets/s");
    pub(super) const NEW_FLOWS: Self = Self::new("new flows", "flows/s");
    pub(super) const UNTRACKED: Self = Self::new("not remembered", "packets/s");
    pub(super) const LOST_ENTRIES: Self = Self::new("established flows lost", "flows");
}

impl Case {
    /// As tables and charts call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tcp(Streams::One) => "TCP, 1 stream",
            Self::Tcp(Streams::Eight) => "TCP, 8 streams",
            Self::Tcp(Streams::EightThreads) => "TCP, 8 streams, a thread for each",
            Self::Udp(Pattern::Runs) => "64-byte UDP, 16 flows in runs of 32",
            Self::Udp(Pattern::Interleaved) => "64-byte UDP, 1000 flows interleaved",
            Self::Latency { loaded: false } => "round trip, idle",
            Self::Latency { loaded: true } => "round trip, at half load",
            Self::Connections => "new TCP connections",
            Self::Flood => "TCP, 1 stream, beside a flood of new flows",
        }
    }
}
