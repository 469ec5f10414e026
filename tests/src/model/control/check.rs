//! One check of one target by one node: when it probes, and what it has found out.

use std::time::Duration;

use gwlb::control::ProbeOutcome;

/// What a check has found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// None of the thresholds is reached.
    Initial {
        probed: bool,
        failed: bool,
    },
    Healthy,
    /// And how the last probe has ended.
    Unhealthy(ProbeOutcome),
}

impl Finding {
    pub(super) const NOTHING: Finding = Finding::Initial { probed: false, failed: false };

    pub(super) fn is_initial(self) -> bool {
        matches!(self, Finding::Initial { .. })
    }

    pub(super) fn is_unhealthy(self) -> bool {
        matches!(self, Finding::Unhealthy(_))
    }
}

/// How often a check probes, and how many probes in a row decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    pub interval: Duration,
    pub healthy: u32,
    pub unhealthy: u32,
}

/// A check.
#[derive(Debug, Clone)]
pub(super) struct Check {
    pace: Pace,
    pub finding: Finding,
    /// Good and bad probes in a row, and such as could not be made.
    good: u32,
    bad: u32,
    local: u32,
    created: Duration,
    /// Whether the first one, at once, has not been made yet.
    first: bool,
    /// When the next one of the regular is due, once it was seen at what moment they are.
    regular: Option<Duration>,
    /// When the next one is due out of turn, while something is to be found out.
    fast: Option<Duration>,
    /// Since when somebody suspects the target.
    suspected: Option<Duration>,
    under_way: u32,
}

impl Check {
    pub(super) fn new(pace: Pace, finding: Finding, now: Duration) -> Check {
        Check {
            pace,
            finding,
            good: 0,
            bad: 0,
            local: 0,
            created: now,
            first: true,
            regular: None,
            fast: None,
            suspected: None,
            under_way: 0,
        }
    }

    /// "one every twentieth of the interval (10 ms to 1 s) until a threshold is reached"
    fn fast_pace(&self) -> Duration {
        (self.pace.interval / 20).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }

    /// When a probe is due at the latest.
    pub(super) fn due(&self) -> Duration {
        if self.first {
            return self.created;
        }
        // "then every interval, exactly, from a start that is shifted by a fixed fraction of the
        // interval": until it was seen by how much, within two.
        let regular = self.regular.unwrap_or(self.created + self.pace.interval * 2);
        match self.fast {
            Some(fast) if self.under_way == 0 => fast.min(regular),
            _ => regular,
        }
    }

    /// A probe starts that is due.
    pub(super) fn start(&mut self, now: Duration) {
        if let Some(regular) = self.regular.filter(|regular| *regular <= now) {
            // Those that were missed are not made up for.
            let missed =
                now.saturating_sub(regular).as_nanos() / self.pace.interval.as_nanos().max(1);
            let further = u32::try_from(missed + 1).unwrap_or(u32::MAX);
            self.regular = Some(regular + self.pace.interval * further);
        } else if self.regular.is_none() && self.created + self.pace.interval * 2 < now {
            // It is as late as the first of the regular was to be at the latest.
            self.created = now;
        }
        self.first = false;
        if self.fast.is_some() {
            self.fast = Some(now + self.fast_pace());
        }
        self.under_way += 1;
    }

    /// A probe starts that is due by nothing that is known: it may be the first of the regular. If
    /// it is late it does not tell when the others are.
    pub(super) fn start_unforeseen(&mut self, now: Duration, late: bool) -> bool {
        let may_be = self.regular.is_none() && !self.first;
        if may_be {
            self.regular = Some(now).filter(|_| !late);
            self.created = now;
            self.start(now);
        }
        may_be
    }

    /// A probe that was due starts late: it may stand for the first of the regular as well.
    pub(super) fn start_late(&mut self, now: Duration) {
        if self.regular.is_none() {
            self.created = now;
        }
    }

    /// A probe has ended.
    pub(super) fn end(&mut self, outcome: ProbeOutcome, now: Duration) {
        self.under_way = self.under_way.saturating_sub(1);
        if outcome == ProbeOutcome::Local {
            // "probes could not be made for a reason of the gateway's own": as before.
            self.local += 1;
            if self.is_faulted() {
                self.fast = None;
            }
            return;
        }
        self.local = 0;
        let passed = outcome == ProbeOutcome::Passed;
        (self.good, self.bad) = if passed { (self.good + 1, 0) } else { (0, self.bad + 1) };
        // "one good probe of a new target, `healthy_threshold` in a row of one that was unhealthy"
        let proven = self.good >= self.pace.healthy || (passed && self.finding.is_initial());
        let condemned = self.bad >= self.pace.unhealthy;
        if proven {
            self.finding = Finding::Healthy;
        } else if condemned || (!passed && self.finding.is_unhealthy()) {
            self.finding = Finding::Unhealthy(outcome);
        } else if self.finding.is_initial() {
            self.finding = Finding::Initial { probed: true, failed: true };
        }
        if proven || condemned {
            self.fast = None;
        }
        if outcome == ProbeOutcome::Refused {
            self.quicken(now);
        }
    }

    /// Something outside says that the target may be dead: a reason to look, once in an interval.
    pub(super) fn suspect(&mut self, now: Duration) {
        let recent = self.suspected.is_some_and(|since| now < since + self.pace.interval);
        if !recent && self.quicken(now) {
            self.suspected = Some(now);
        }
    }

    fn quicken(&mut self, now: Duration) -> bool {
        let begins = self.fast.is_none() && !self.finding.is_unhealthy();
        if begins {
            // Only what is found out from now on ends it.
            self.good = 0;
            self.fast = Some(now);
        }
        begins
    }

    /// Whether it could not probe so often that it is told.
    pub(super) fn is_faulted(&self) -> bool {
        self.local >= self.pace.unhealthy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn check(finding: Finding) -> Check {
        let pace = Pace { interval: ms(10_000), healthy: 3, unhealthy: 2 };
        let mut check = Check::new(pace, finding, ms(0));
        check.start(ms(0));
        check
    }

    #[test]
    fn one_good_probe_is_enough_for_who_is_new_only() {
        let mut new = check(Finding::NOTHING);
        new.end(ProbeOutcome::Passed, ms(1));
        assert_eq!(new.finding, Finding::Healthy);
        let mut bad = check(Finding::Unhealthy(ProbeOutcome::TimedOut));
        for expected in [false, false, true] {
            bad.end(ProbeOutcome::Passed, ms(1));
            assert_eq!(bad.finding == Finding::Healthy, expected);
        }
    }

    #[test]
    fn what_could_not_be_probed_is_as_before() {
        let mut check = check(Finding::Healthy);
        check.end(ProbeOutcome::TimedOut, ms(1));
        for _ in 0..2 {
            assert!(!check.is_faulted());
            check.end(ProbeOutcome::Local, ms(1));
        }
        assert!(check.is_faulted());
        assert_eq!(check.finding, Finding::Healthy);
        check.end(ProbeOutcome::TimedOut, ms(1));
        assert_eq!(check.finding, Finding::Unhealthy(ProbeOutcome::TimedOut), "the second bad one");
    }

    #[test]
    fn who_is_late_does_not_make_up_for_what_was_missed() {
        let mut late = check(Finding::Healthy);
        assert!(late.start_unforeseen(ms(4000), false));
        assert_eq!(late.due(), ms(14_000));
        late.start(ms(37_000));
        assert_eq!(late.due(), ms(44_000), "at the same moment of the interval as before");

        let mut unknown = check(Finding::Healthy);
        assert!(unknown.start_unforeseen(ms(31_000), true));
        assert_eq!(unknown.due(), ms(51_000), "it does not tell when the others are");
        assert!(unknown.start_unforeseen(ms(34_000), false));
        assert_eq!(unknown.due(), ms(44_000));
    }

    #[test]
    fn a_refusal_is_looked_into_at_once_and_a_suspicion_once_in_an_interval() {
        let mut refused = check(Finding::Healthy);
        assert!(refused.start_unforeseen(ms(4000), false));
        assert!(
            !refused.start_unforeseen(ms(4001), false),
            "now it is known when the regular ones are"
        );
        refused.end(ProbeOutcome::Passed, ms(4002));
        refused.end(ProbeOutcome::Refused, ms(4002));
        assert_eq!(refused.due(), ms(4002));
        refused.start(ms(4002));
        assert_eq!(refused.due(), ms(14_000), "one at a time");
        refused.end(ProbeOutcome::TimedOut, ms(4500));
        assert_eq!(refused.due(), ms(14_000), "it is condemned");

        let mut suspected = check(Finding::Healthy);
        suspected.end(ProbeOutcome::Passed, ms(0));
        suspected.suspect(ms(100));
        assert_eq!(suspected.due(), ms(100));
        for _ in 0..3 {
            suspected.start(ms(200));
            suspected.end(ProbeOutcome::Passed, ms(200));
        }
        suspected.suspect(ms(300));
        assert_eq!(suspected.due(), ms(20_000), "it was suspected a moment ago");
    }
}
