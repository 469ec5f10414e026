//! One check of one target by one node: when it probes, and what it makes of the outcomes.
//!
//! A pure state machine, the same for health checks and for probes through the tunnel. What the
//! finding means for flows is not decided here.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::probe::ProbeOutcome;
use crate::config::HealthCheck;
use crate::fault::{self, Fault};

/// One check: a kind of probe, from one node to one target. Unique for the life of the process;
/// what is reported for a check that is gone is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckId(u64);

impl CheckId {
    /// The check with this number.
    pub(super) const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// A probe that is to be made at once. Exactly one
/// [`Input::Probe`](super::Input::Probe) answers it, within its timeout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeRequest {
    /// Whose it is.
    pub check: CheckId,
    /// Index in [`Settings::load_balancers`](crate::config::Settings::load_balancers): in whose
    /// network namespace it is made.
    pub load_balancer: usize,
    /// The node's address, from which it comes.
    pub source: IpAddr,
    /// The target's address and the health check's port.
    pub address: SocketAddr,
    /// What is asked, and which answers are good.
    pub health: Arc<HealthCheck>,
    /// How long it may take.
    pub timeout: Duration,
}

/// How often a check probes, and how many outcomes in a row decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    /// From the start of one probe to the start of the next.
    pub interval: Duration,
    /// Good probes in a row that make an unhealthy target healthy.
    pub healthy_threshold: u32,
    /// Bad probes in a row that make a target unhealthy.
    pub unhealthy_threshold: u32,
}

impl Pace {
    /// From probe to probe while a suspicion is looked into: a twentieth of the interval, so that
    /// the thresholds of every cloud are reached within one interval; not below 10 ms, which no
    /// appliance should be asked to bear, and not above a second, which no user should.
    fn fast(&self) -> Duration {
        (self.interval / 20).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }
}

/// What a check has found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// Neither good nor bad enough yet.
    Initial {
        /// Whether a probe has ended.
        probed: bool,
        /// Whether one has failed.
        failed: bool,
    },
    /// It answers.
    Healthy,
    /// It does not; this is what it did last.
    Unhealthy(ProbeOutcome),
}

impl Finding {
    /// What is known before the first probe: nothing.
    pub const NOTHING: Self = Self::Initial { probed: false, failed: false };
}

/// A check.
#[derive(Debug, Clone)]
pub(super) struct Check {
    pace: Pace,
    finding: Finding,
    /// In a row.
    good: u32,
    bad: u32,
    /// Probes in a row that our own fault kept from being made.
    local: u32,
    /// Probes that have not ended.
    under_way: u32,
    /// The one probe that does not wait for its phase.
    first: Option<Instant>,
    /// The next one of the regular probes, at phase + k × interval.
    regular: Instant,
    /// The next one out of turn, while a suspicion is looked into.
    fast: Option<Instant>,
    /// When the last suspicion began that came from outside.
    suspected: Option<Instant>,
}

impl Check {
    /// A check that probes once at `now`, and then regularly from `jitter` later on.
    pub fn new(pace: Pace, finding: Finding, now: Instant, jitter: Duration) -> Self {
        Self {
            pace,
            finding,
            good: 0,
            bad: 0,
            local: 0,
            under_way: 0,
            first: Some(now),
            regular: now + jitter,
            fast: None,
            suspected: None,
        }
    }

    /// What it has found out.
    pub fn finding(&self) -> Finding {
        self.finding
    }

    /// Whether a probe has ended, be it for a fault of our own.
    pub fn has_ended(&self) -> bool {
        self.local > 0 || self.finding != Finding::NOTHING
    }

    /// Whether it cannot probe, for our own fault, so often that this is worth telling.
    pub fn is_faulted(&self) -> bool {
        self.local >= self.pace.unhealthy_threshold
    }

    /// When the next probe starts.
    pub fn due(&self) -> Instant {
        let fast = self.fast.filter(|_| self.under_way == 0);
        [self.first, fast].into_iter().flatten().fold(self.regular, Instant::min)
    }

    /// Whether a probe is to start now. It is under way then.
    pub fn start_due(&mut self, now: Instant) -> bool {
        if self.due() > now {
            return false;
        }
        if self.regular <= now {
            // Whoever calls late makes up for nothing: the period stays exact.
            let late = now.duration_since(self.regular).as_nanos();
            let periods = late / self.pace.interval.as_nanos().max(1) + 1;
            self.regular += self.pace.interval * u32::try_from(periods).unwrap_or(u32::MAX);
        }
        self.first = None;
        if self.fast.is_some() {
            self.fast = Some(now + self.pace.fast());
        }
        self.under_way += 1;
        true
    }

    /// Something outside says that the target may be dead, such as an ICMP error. That condemns
    /// nobody: it is only a reason to look, and no more than once in an interval.
    pub fn suspect(&mut self, now: Instant) {
        if fault::on(Fault::SuspicionCondemns) {
            self.finding = Finding::Unhealthy(ProbeOutcome::Failed);
        }
        let recent = self.suspected.is_some_and(|last| now < last + self.pace.interval);
        if !recent && self.quicken(now) {
            self.suspected = Some(now);
        }
    }

    /// A probe has ended.
    pub fn record(&mut self, outcome: ProbeOutcome, now: Instant) {
        self.under_way = self.under_way.saturating_sub(1);
        match outcome {
            ProbeOutcome::Local => {
                self.local = self.local.saturating_add(1);
                if self.is_faulted() {
                    // Nothing is found out by asking oftener.
                    self.fast = None;
                }
                return;
            }
            ProbeOutcome::Passed => {
                self.good = self.good.saturating_add(1);
                self.bad = 0;
            }
            _ => {
                self.bad = self.bad.saturating_add(1);
                if !fault::on(Fault::SuccessesNotInARow) {
                    self.good = 0;
                }
            }
        }
        self.local = 0;
        let Pace { healthy_threshold, unhealthy_threshold, .. } = self.pace;
        let bad = self.bad + u32::from(fault::on(Fault::UnhealthyThresholdOffByOne));
        let good = self.good + u32::from(fault::on(Fault::HealthyThresholdOffByOne));
        let condemned = bad >= unhealthy_threshold;
        let proven = good >= healthy_threshold
            || (self.good > 0 && matches!(self.finding, Finding::Initial { .. }));
        self.finding = match self.finding {
            _ if proven => Finding::Healthy,
            _ if condemned => Finding::Unhealthy(outcome),
            Finding::Initial { .. } => Finding::Initial { probed: true, failed: true },
            Finding::Unhealthy(_) if self.bad > 0 => Finding::Unhealthy(outcome),
            unchanged => unchanged,
        };
        if condemned || proven {
            self.fast = None;
        }
        if outcome == ProbeOutcome::Refused {
            self.quicken(now);
        }
    }

    /// Begins to probe fast; not if it does already, or if there is nothing left to find out.
    fn quicken(&mut self, now: Instant) -> bool {
        if self.fast.is_some() || matches!(self.finding, Finding::Unhealthy(_)) {
            return false;
        }
        // Only what is found out from now on ends it.
        self.good = 0;
        self.fast = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use ProbeOutcome::{Failed, Local, Mismatch, Passed, Refused, TimedOut};
    use rstest::rstest;

    use super::super::testing::start;
    use super::*;

    const PACE: Pace =
        Pace { interval: Duration::from_secs(10), healthy_threshold: 5, unhealthy_threshold: 2 };

    fn at(ms: u64) -> Instant {
        start() + Duration::from_millis(ms)
    }

    fn check() -> Check {
        Check::new(PACE, Finding::NOTHING, at(0), Duration::from_millis(700))
    }

    /// When probes start up to `end`, if each ends after `takes` ms with the next of `outcomes`,
    /// the last one again and again.
    fn probes(check: &mut Check, takes: u64, outcomes: &[ProbeOutcome], end: u64) -> Vec<u64> {
        let mut outcomes = outcomes.iter().copied();
        let mut last = Passed;
        let mut ends = std::collections::VecDeque::<u64>::new();
        let mut started = Vec::new();
        loop {
            let due = check.due().saturating_duration_since(start()).as_millis() as u64;
            let next = ends.front().map_or(due, |&end| end.min(due));
            if next > end {
                return started;
            }
            if ends.front() == Some(&next) {
                ends.pop_front();
                last = outcomes.next().unwrap_or(last);
                check.record(last, at(next));
            } else if check.start_due(at(next)) {
                started.push(next);
                ends.push_back(next + takes);
            }
        }
    }

    #[test]
    fn the_period_is_exact() {
        assert_eq!(probes(&mut check(), 1, &[], 30_700), [0, 700, 10_700, 20_700, 30_700]);
        // Also if each probe takes all of the interval.
        assert_eq!(probes(&mut check(), 10_000, &[], 30_700), [0, 700, 10_700, 20_700, 30_700]);
    }

    #[test]
    fn who_calls_late_makes_up_for_nothing() {
        let mut check = check();
        assert!(check.start_due(at(25_000)));
        assert!(!check.start_due(at(25_000)), "one probe for three that were missed");
        assert_eq!(check.due(), at(30_700));
    }

    #[rstest]
    #[case::one_good_is_enough_at_first(&[Passed], Finding::Healthy)]
    #[case::one_bad_is_not(&[TimedOut], Finding::Initial { probed: true, failed: true })]
    #[case::two_bad_are(&[TimedOut, Mismatch(500)], Finding::Unhealthy(Mismatch(500)))]
    #[case::one_good_after_a_bad(&[TimedOut, Passed], Finding::Healthy)]
    #[case::in_a_row(&[Passed, Failed, Passed, Failed, Passed, Failed], Finding::Healthy)]
    #[case::then_out(&[Passed, Failed, Failed], Finding::Unhealthy(Failed))]
    #[case::the_last_failure_counts(&[Failed, Failed, TimedOut], Finding::Unhealthy(TimedOut))]
    #[case::four_good(&[Failed, Failed, Passed, Passed, Passed, Passed], Finding::Unhealthy(Failed))]
    #[case::five_good(&[Failed, Failed, Passed, Passed, Passed, Passed, Passed], Finding::Healthy)]
    #[case::not_in_a_row(
        &[Failed, Failed, Passed, Passed, Passed, Passed, Refused, Passed],
        Finding::Unhealthy(Refused)
    )]
    #[case::our_own_fault(&[Local, Local, Local], Finding::NOTHING)]
    #[case::our_own_fault_between(&[Failed, Local, Local, Failed], Finding::Unhealthy(Failed))]
    #[case::our_own_fault_proves_nothing(
        &[Failed, Failed, Passed, Passed, Local, Passed, Passed, Passed],
        Finding::Healthy
    )]
    fn thresholds(#[case] outcomes: &[ProbeOutcome], #[case] finding: Finding) {
        let mut check = check();
        for (n, &outcome) in outcomes.iter().enumerate() {
            check.record(outcome, at(n as u64));
        }
        assert_eq!(check.finding(), finding);
    }

    #[test]
    fn faults_of_our_own_are_told_and_forgotten() {
        let mut check = check();
        assert!(!check.has_ended());
        check.record(Local, at(1));
        assert!(!check.is_faulted() && check.has_ended());
        check.record(Local, at(2));
        assert!(check.is_faulted());
        check.record(TimedOut, at(3));
        assert!(!check.is_faulted());
    }

    #[test]
    fn a_refusal_is_looked_into_at_once() {
        let mut healthy = check();
        let times = probes(&mut healthy, 1, &[Passed, Passed, Refused, Refused], 20_700);
        assert_eq!(times, [0, 700, 10_700, 10_701, 20_700], "and condemned by the second");
        assert_eq!(healthy.finding(), Finding::Unhealthy(Refused));
    }

    #[test]
    fn fast_probes_end_with_a_threshold() {
        // Refused once, then good: five good ones in a row end it.
        let mut check = check();
        let times = probes(&mut check, 1, &[Passed, Passed, Refused, Passed], 20_700);
        let fast = [10_701, 11_201, 11_701, 12_201, 12_701];
        assert_eq!(times, [&[0, 700, 10_700], &fast[..], &[20_700]].concat());
        assert_eq!(check.finding(), Finding::Healthy);
    }

    #[test]
    fn fast_probes_end_if_they_cannot_be_made() {
        let mut check = check();
        let times = probes(&mut check, 1, &[Passed, Passed, Refused, Local], 20_700);
        assert_eq!(times, [0, 700, 10_700, 10_701, 11_201, 20_700]);
    }

    #[test]
    fn fast_probes_do_not_overlap() {
        let mut check = check();
        check.record(Passed, at(0));
        assert!(check.start_due(at(700)));
        check.record(Passed, at(700));
        check.suspect(at(1_000));
        assert!(check.start_due(at(1_000)));
        assert!(!check.start_due(at(3_000)), "the first one is still under way");
        check.record(TimedOut, at(6_000));
        assert_eq!(check.due(), at(1_500), "and the next one overdue");
        assert!(check.start_due(at(6_000)));
        check.record(TimedOut, at(11_000));
        assert_eq!(check.finding(), Finding::Unhealthy(TimedOut));
        assert_eq!(check.due(), at(10_700), "back to the regular pace");
    }

    #[rstest]
    #[case(50, 10)]
    #[case(1_000, 50)]
    #[case(10_000, 500)]
    #[case(300_000, 1_000)]
    fn fast_is_a_twentieth_within_limits(#[case] interval: u64, #[case] fast: u64) {
        let pace = Pace { interval: Duration::from_millis(interval), ..PACE };
        assert_eq!(pace.fast(), Duration::from_millis(fast));
    }

    #[test]
    fn suspicion_alone_condemns_nobody() {
        let mut check = check();
        let mut times = Vec::new();
        for ms in 0..20_000 {
            check.suspect(at(ms));
            if check.start_due(at(ms)) {
                times.push(ms);
                check.record(Passed, at(ms));
            }
        }
        assert_eq!(check.finding(), Finding::Healthy);
        // The first good one answers the first suspicion, five in a row the second.
        assert_eq!(times, [0, 700, 10_000, 10_500, 10_700, 11_200, 11_700]);
    }

    #[test]
    fn the_condemned_are_not_suspected() {
        let mut check = check();
        for ms in [1, 2] {
            check.record(TimedOut, at(ms));
        }
        assert!(check.start_due(at(3)));
        check.record(TimedOut, at(4));
        check.suspect(at(5));
        check.record(Refused, at(6));
        assert_eq!(check.due(), at(700));
    }
}
