//! On what was measured: figures of different machines are not to be compared.

use std::fs;
use std::thread::available_parallelism;

use procfs::prelude::*;
use procfs::{CpuInfo, LoadAverage};
use serde::Serialize;

/// The machine, and how busy it was before.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Machine {
    /// The processor's own name.
    pub cpu: String,
    /// How many threads may run at once.
    pub cores: usize,
    /// The kernel's version.
    pub kernel: String,
    /// The version of this program.
    pub gwlb: &'static str,
    /// Whether it was built with optimisation.
    pub optimised: bool,
    /// What TCP does by default in this namespace; benchmarks that use TCP choose their own.
    pub congestion_control: String,
    /// Threads that wanted to run, on average over the last minute before the start.
    pub load: f32,
}

/// The load per core above which a machine is not quiet.
const BUSY: f32 = 0.5;

impl Machine {
    /// Looks around. What cannot be seen is `unknown`.
    pub(super) fn look() -> Self {
        let unknown = || "unknown".to_owned();
        let read = |path| fs::read_to_string(path).map(|text| text.trim().to_owned());
        let cpu = CpuInfo::current().ok();
        Self {
            cpu: cpu.and_then(|cpu| cpu.model_name(0).map(str::to_owned)).unwrap_or_else(unknown),
            cores: available_parallelism().map_or(1, std::num::NonZero::get),
            kernel: read("/proc/sys/kernel/osrelease").unwrap_or_else(|_| unknown()),
            gwlb: env!("CARGO_PKG_VERSION"),
            optimised: !cfg!(debug_assertions),
            congestion_control: read("/proc/sys/net/ipv4/tcp_congestion_control")
                .unwrap_or_else(|_| unknown()),
            load: LoadAverage::current().map_or(0.0, |load| load.one),
        }
    }

    /// What makes the figures doubtful.
    pub(super) fn warning(&self) -> Option<String> {
        let mut doubts = Vec::new();
        if !self.optimised {
            doubts.push("this build is not optimised (--release)".to_owned());
        }
        if self.load > BUSY * self.cores as f32 {
            let (load, cores) = (self.load, self.cores);
            doubts.push(format!("the machine is busy: load {load:.1} on {cores} cores"));
        }
        (!doubts.is_empty()).then(|| doubts.join("; "))
    }

    /// Two lines, or three.
    pub(super) fn to_text(&self) -> String {
        let Self { cpu, cores, kernel, gwlb, congestion_control, load, .. } = self;
        let warning = self.warning().map(|warning| format!("Warning: {warning}.\n"));
        format!(
            "{cpu}, {cores} cores, Linux {kernel}\n\
             gwlb {gwlb}, TCP {congestion_control} by default, load {load:.2} at the start\n{}",
            warning.unwrap_or_default()
        )
    }

    /// One that tests show.
    #[cfg(test)]
    pub(super) fn sample() -> Self {
        Self {
            cpu: "Example 9000".to_owned(),
            cores: 2,
            kernel: "6.18.0".to_owned(),
            gwlb: "0.1.0",
            optimised: true,
            congestion_control: "cubic".to_owned(),
            load: 0.05,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_machine_and_a_slow_build_are_told() {
        let quiet = Machine::sample();
        assert_eq!(quiet.warning(), None);
        let busy = Machine { load: 1.1, ..quiet.clone() };
        assert_eq!(busy.warning().as_deref(), Some("the machine is busy: load 1.1 on 2 cores"));
        assert!(busy.to_text().contains("Warning: the machine is busy"));
        let slow = Machine { optimised: false, ..quiet };
        assert_eq!(slow.warning().as_deref(), Some("this build is not optimised (--release)"));
    }

    #[test]
    fn this_machine_is_seen() {
        let machine = Machine::look();
        assert!(machine.cores > 0);
        assert!(machine.kernel.starts_with(|first: char| first.is_ascii_digit()), "{machine:?}");
    }
}
