//! The last whole minute, as CloudWatch tells of one: sums, averages and extremes by the calendar,
//! and the highest second.
//!
//! The control thread looks at the counters once a second ([`Minutes::look`]); a scrape reads what
//! came of the minute before. Nothing here counts packets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::control::Control;
use crate::dataplane::snapshot::Snapshot;
use crate::dataplane::stats::{EndpointTotals, TargetTotals};

/// Looks that follow each other sooner than this are one: no rate is to be had of a moment.
const SHORTEST: Duration = Duration::from_millis(500);
/// A clock on the wall that has gone by so much more or less than the time that passed was set.
const SET: Duration = Duration::from_secs(1);

/// Of whom a minute is told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    Balancer {
        load_balancer: String,
    },
    Node {
        load_balancer: String,
        zone: String,
    },
    /// The targets that a node may use, which are another group's from a reload on.
    Hosts {
        load_balancer: String,
        zone: String,
        target_group: String,
    },
    Endpoint {
        endpoint: String,
        vpc: String,
        subnet: String,
        service: String,
    },
    Service {
        service: String,
    },
    Target {
        target_group: String,
        target: String,
    },
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub new_flows: u64,
    /// To targets and from them.
    pub packets: u64,
    pub bytes: u64,
    pub dropped: u64,
    pub refused: u64,
    pub refused_tcp: u64,
    pub resets: u64,
}

/// Something that goes up and down, as it was seen each second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Level {
    pub average: f64,
    pub maximum: u64,
    pub minimum: u64,
}

/// One minute.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Minute {
    pub sums: Counts,
    pub active_flows: Level,
    pub healthy: Level,
    pub unhealthy: Level,
    pub endpoints: Level,
    /// Of the second with the most.
    pub peak_packets: f64,
    pub peak_bytes: f64,
}

/// The minute before this one, of everybody.
pub(super) type Told = Arc<Vec<(Subject, Minute)>>;

/// Minutes, one after the other.
#[derive(Debug)]
pub(super) struct Minutes {
    /// Since 1970.
    minute: u64,
    /// Whether it was seen from its beginning on, by a clock that nobody has set since.
    whole: bool,
    looked: Instant,
    /// The same since 1970.
    looked_wall: Duration,
    /// What the counters were then, of which each writes its own; those of endpoints and targets, too,
    /// that are gone and may come back to what they had counted.
    before: BTreeMap<Source, Counts>,
    series: BTreeMap<Subject, Series>,
    told: Told,
}

/// Whose counters they are: an endpoint's by its id on the wire, a target's by its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Endpoint(u64),
    Target(u64),
}

/// What there is now.
#[derive(Debug, Clone, Copy, Default)]
struct Levels {
    active_flows: u64,
    healthy: u64,
    unhealthy: u64,
    endpoints: u64,
}

/// A minute in the making.
#[derive(Debug, Default)]
struct Series {
    sums: Counts,
    looks: u64,
    active_flows: Extremes,
    healthy: Extremes,
    unhealthy: Extremes,
    endpoints: Extremes,
    peak_packets: f64,
    peak_bytes: f64,
}

#[derive(Debug, Default)]
struct Extremes {
    sum: u64,
    maximum: u64,
    minimum: Option<u64>,
}

impl Minutes {
    /// Nothing has been counted yet. `wall_clock` is the time since 1970.
    pub fn new(now: Instant, wall_clock: Duration) -> Self {
        let minute = wall_clock.as_secs() / 60;
        Self {
            minute,
            // Nobody saw how it began.
            whole: false,
            looked: now,
            looked_wall: wall_clock,
            before: BTreeMap::new(),
            series: BTreeMap::new(),
            told: Told::default(),
        }
    }

    /// The minute before this one; nothing unless all of it was seen, as the one in which the gateway
    /// starts is not, nor one in which the clock is set.
    pub fn told(&self) -> Told {
        Arc::clone(&self.told)
    }

    /// Looks at the counters; to be called each second.
    pub fn look(&mut self, control: &Control, now: Instant, wall_clock: Duration) {
        let elapsed = now.saturating_duration_since(self.looked);
        if elapsed < SHORTEST {
            return;
        }
        let steady = wall_clock.abs_diff(self.looked_wall + elapsed) <= SET;
        (self.looked, self.looked_wall) = (now, wall_clock);
        self.whole &= steady;
        for (subject, (counts, levels)) in self.seen(control) {
            self.series.entry(subject).or_default().add(counts, levels, elapsed);
        }
        // What was counted since the last look belongs to the minute that ends, within a second.
        let minute = wall_clock.as_secs() / 60;
        if minute != self.minute {
            let next = minute == self.minute + 1;
            let whole = std::mem::replace(&mut self.whole, steady && next) && next;
            self.minute = minute;
            let series = std::mem::take(&mut self.series).into_iter().filter(|_| whole);
            let told = series.map(|(subject, series)| (subject, series.minute()));
            self.told = Arc::new(told.collect());
        }
    }

    /// What happened since the last look, and what there is now.
    fn seen(&mut self, control: &Control) -> BTreeMap<Subject, (Counts, Levels)> {
        let (view, settings) = (control.snapshot(), control.settings());
        let before = std::mem::take(&mut self.before);
        let mut since = |source, now: Counts| {
            self.before.insert(source, now);
            now.since(before.get(&source).copied().unwrap_or_default())
        };
        let mut seen = BTreeMap::new();
        let mut see = |subject, counts: Counts, levels: Levels| {
            let (sums, there): &mut (Counts, Levels) = seen.entry(subject).or_default();
            sums.add(counts);
            there.add(levels);
        };
        let topology = &view.topology;
        for ((_, endpoint), known) in topology.endpoints().zip(&view.endpoints) {
            let totals = known.counters.totals();
            let counts = since(Source::Endpoint(endpoint.wire_id), Counts::of_endpoint(&totals));
            let active_flows = totals.active_flows();
            let levels = Levels { active_flows, endpoints: 1, ..Levels::default() };
            let (pool, subnet) = (view.pool(known.pool), topology.subnet(endpoint.subnet));
            see(
                Subject::Endpoint {
                    endpoint: endpoint.name.clone(),
                    vpc: topology.vpc(subnet.vpc).name.clone(),
                    subnet: subnet.name.clone(),
                    service: endpoint.service.clone(),
                },
                counts,
                levels,
            );
            see(Subject::Service { service: endpoint.service.clone() }, counts, levels);
            let load_balancer = pool.load_balancer.clone();
            see(Subject::Balancer { load_balancer: load_balancer.clone() }, counts, levels);
            see(Subject::Node { load_balancer, zone: pool.zone.clone() }, counts, levels);
        }
        // Nobody is told of what has gone, but it may come back, and its counters with it.
        for (&wire_id, counters) in &view.departed {
            since(Source::Endpoint(wire_id), Counts::of_endpoint(&counters.totals()));
        }
        for balancer in control.load_balancers() {
            for node in balancer.nodes {
                let (load_balancer, zone) = (balancer.name.clone(), node.zone);
                let target_group = balancer.target_group.clone();
                let (healthy, unhealthy) =
                    (node.healthy_targets as u64, node.unhealthy_targets as u64);
                let levels = Levels { healthy, unhealthy, ..Levels::default() };
                let of = (load_balancer.clone(), zone.clone());
                let node = Subject::Node { load_balancer: of.0, zone: of.1 };
                see(node, Counts::default(), Levels::default());
                let hosts = Subject::Hosts { load_balancer, zone, target_group };
                see(hosts, Counts::default(), levels);
            }
            let subject = Subject::Balancer { load_balancer: balancer.name };
            see(subject, Counts::default(), Levels::default());
        }
        for (target, totals) in targets(&view) {
            let counts = since(Source::Target(target.id.get()), Counts::of_target(&totals));
            let Some(group) = settings.target_groups.get(target.group) else { continue };
            let active_flows = totals.active_flows();
            let subject = Subject::Target {
                target_group: group.name.to_string(),
                target: target.address.to_string(),
            };
            see(subject, counts, Levels { active_flows, ..Levels::default() });
        }
        seen
    }
}

/// Every target whose slot is not vacant, with what was counted for it.
fn targets(
    view: &Snapshot,
) -> impl Iterator<Item = (&crate::dataplane::snapshot::TargetView, TargetTotals)> {
    view.sources.values().flatten().map(|slot| {
        let target = view.target(*slot);
        let mut totals = TargetTotals::default();
        target.counters.iter().for_each(|counters| totals.add(counters));
        (target, totals)
    })
}

impl Counts {
    fn of_endpoint(totals: &EndpointTotals) -> Self {
        Self {
            new_flows: totals.new_flows,
            packets: totals.inspected_packets + totals.returned_packets,
            bytes: totals.inspected_bytes + totals.returned_bytes,
            dropped: totals.dropped_packets + totals.dropped_returns,
            refused: totals.refused_flows,
            refused_tcp: totals.refused_tcp_flows,
            resets: totals.tcp_resets,
        }
    }

    fn of_target(totals: &TargetTotals) -> Self {
        Self {
            new_flows: totals.new_flows,
            packets: totals.sent_packets + totals.returned_packets,
            bytes: totals.sent_bytes + totals.returned_bytes,
            ..Self::default()
        }
    }

    /// Each of both.
    fn zip(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            new_flows: with(self.new_flows, other.new_flows),
            packets: with(self.packets, other.packets),
            bytes: with(self.bytes, other.bytes),
            dropped: with(self.dropped, other.dropped),
            refused: with(self.refused, other.refused),
            refused_tcp: with(self.refused_tcp, other.refused_tcp),
            resets: with(self.resets, other.resets),
        }
    }

    /// What came since `before`; all of it, where counting has begun anew.
    fn since(self, before: Self) -> Self {
        self.zip(before, |now, before| now.checked_sub(before).unwrap_or(now))
    }

    fn add(&mut self, other: Self) {
        *self = self.zip(other, |one, other| one + other);
    }
}

impl Levels {
    fn add(&mut self, other: Self) {
        self.active_flows += other.active_flows;
        self.healthy += other.healthy;
        self.unhealthy += other.unhealthy;
        self.endpoints += other.endpoints;
    }
}

impl Series {
    fn add(&mut self, counts: Counts, levels: Levels, elapsed: Duration) {
        self.sums.add(counts);
        self.looks += 1;
        self.active_flows.see(levels.active_flows);
        self.healthy.see(levels.healthy);
        self.unhealthy.see(levels.unhealthy);
        self.endpoints.see(levels.endpoints);
        let rate = |count: u64| count as f64 / elapsed.as_secs_f64();
        self.peak_packets = self.peak_packets.max(rate(counts.packets));
        self.peak_bytes = self.peak_bytes.max(rate(counts.bytes));
    }

    fn minute(self) -> Minute {
        let level = |extremes: Extremes| Level {
            average: extremes.sum as f64 / self.looks.max(1) as f64,
            maximum: extremes.maximum,
            minimum: extremes.minimum.unwrap_or_default(),
        };
        Minute {
            sums: self.sums,
            active_flows: level(self.active_flows),
            healthy: level(self.healthy),
            unhealthy: level(self.unhealthy),
            endpoints: level(self.endpoints),
            peak_packets: self.peak_packets,
            peak_bytes: self.peak_bytes,
        }
    }
}

impl Extremes {
    fn see(&mut self, value: u64) {
        self.sum += value;
        self.maximum = self.maximum.max(value);
        self.minimum = Some(self.minimum.map_or(value, |minimum| minimum.min(value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;
    use crate::runtime::shared::tests::idle_with_control;

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn of(told: &Told, wanted: &Subject) -> Minute {
        told.iter().find(|(subject, _)| subject == wanted).unwrap().1.clone()
    }

    fn balancer() -> Subject {
        Subject::Balancer { load_balancer: "fw".to_owned() }
    }

    #[test]
    fn a_minute_ends_by_the_calendar_and_tells_sums_extremes_and_peaks() {
        let (_, control) = idle_with_control();
        let (view, start, wall) = (control.snapshot(), clock::now(), at(60.0 * 1000.0 + 57.5));
        let mut minutes = Minutes::new(start, wall);
        let look = |minutes: &mut Minutes, seconds: f64| {
            minutes.look(&control, start + at(seconds), wall + at(seconds));
        };
        let first = view.endpoints[0].counters.of(0);
        let second = view.endpoints[1].counters.of(0);
        first.new_flows.add(5);
        look(&mut minutes, 1.0);
        look(&mut minutes, 3.0);
        assert!(minutes.told().is_empty(), "nobody saw that minute begin");
        first.inspected_packets.add(1000);
        first.returned_bytes.add(7000);
        look(&mut minutes, 4.0);
        first.ended_flows.add(3);
        first.inspected_packets.add(6000);
        second.new_flows.add(2);
        second.dropped_returns.add(4);
        look(&mut minutes, 4.2);
        look(&mut minutes, 6.0);
        assert!(minutes.told().is_empty(), "the minute has not ended");
        look(&mut minutes, 63.0);
        let told = minutes.told();
        let minute = of(&told, &balancer());
        assert_eq!(minute.sums.new_flows, 2);
        assert_eq!((minute.sums.packets, minute.sums.bytes, minute.sums.dropped), (7000, 7000, 4));
        // The look at 4.2 s was too soon to be one.
        assert!((minute.peak_packets - 3000.0).abs() < 0.001, "{}", minute.peak_packets);
        assert!((minute.peak_bytes - 7000.0).abs() < 0.001, "{}", minute.peak_bytes);
        assert_eq!(minute.active_flows, Level { average: 13.0 / 3.0, maximum: 5, minimum: 4 });
        let place = |zone: &str| ("fw".to_owned(), zone.to_owned());
        let (load_balancer, zone) = place("az2");
        assert_eq!(of(&told, &Subject::Node { load_balancer, zone }).sums.new_flows, 2);
        let (load_balancer, zone) = place("az1");
        let hosts = Subject::Hosts { load_balancer, zone, target_group: "fw".to_owned() };
        // Not checked yet, so neither.
        assert_eq!(of(&told, &hosts).healthy.maximum, 0);
        let service = Subject::Service { service: "inspection".to_owned() };
        assert_eq!(of(&told, &service).endpoints.minimum, 2);

        look(&mut minutes, 122.6);
        let minute = of(&minutes.told(), &balancer());
        assert_eq!(minute.sums, Counts::default(), "of a minute without any");
        assert_eq!(minute.active_flows, Level { average: 4.0, maximum: 4, minimum: 4 });
    }

    #[test]
    fn nothing_is_told_of_a_minute_in_which_the_clock_was_set() {
        let (_, control) = idle_with_control();
        let (start, wall) = (clock::now(), at(60.0 * 1000.0));
        // When it is set, to how much later or earlier, and when minutes are told of afterwards.
        for (set, by, gone, back) in [
            // Within a minute, over the end of one, and over many; back within one, and over many.
            (130.5, 20.0, 160, 220),
            (170.5, 30.0, 171, 270),
            (130.5, 6000.0, 131, 240),
            (170.5, -30.0, 210, 270),
            (130.5, -6000.0, 131, 240),
        ] {
            let mut minutes = Minutes::new(start, wall);
            let mut told = Vec::new();
            for second in 1..=300 {
                let seconds = f64::from(second);
                let now = 60.0 * 1000.0 + seconds + if seconds > set { by } else { 0.0 };
                minutes.look(&control, start + at(seconds), at(now));
                told.push((second, !minutes.told().is_empty()));
            }
            let changes: Vec<_> = told.windows(2).filter(|it| it[0].1 != it[1].1).collect();
            let changes: Vec<_> = changes.iter().map(|it| it[1].0).collect();
            assert_eq!(changes, [120, gone, back], "at {set} by {by}");
        }
    }

    #[test]
    fn what_comes_back_tells_only_what_came_since() {
        let (_, mut control) = idle_with_control();
        let file = crate::runtime::shared::tests::file();
        let other = file
            .replace("vpce-b", "vpce-c")
            .replace("group = \"fw\"", "group = \"fw2\"")
            .replace("[[target_group]]\nname = \"fw\"", "[[target_group]]\nname = \"fw2\"");
        let [file, other] = [file, other].map(|text| {
            let source = router::source::Source::new("gateway.toml", text);
            Arc::new(crate::config::parse(&source).unwrap())
        });
        let (view, start, wall) = (control.snapshot(), clock::now(), at(60.0 * 1000.0));
        let endpoint = view.endpoints[1].counters.of(0);
        endpoint.new_flows.add(1);
        endpoint.inspected_packets.add(5_000_000);
        let target = &view.targets[view.sources.values().flatten().next().unwrap().0 as usize];
        target.counters[0].new_flows.add(1);
        target.counters[0].sent_packets.add(4_000_000);
        let subject =
            Subject::Target { target_group: "fw".to_owned(), target: target.address.to_string() };
        let mut minutes = Minutes::new(start, wall);
        for second in 1..=180 {
            let now = start + at(f64::from(second));
            match second {
                30 => control.reload(Arc::clone(&other), now),
                // While they are gone, for more than a minute.
                100 => {
                    endpoint.inspected_packets.add(70);
                    target.counters[0].sent_packets.add(50);
                }
                130 => control.reload(Arc::clone(&file), now),
                140 => {
                    endpoint.inspected_packets.add(7);
                    target.counters[0].sent_packets.add(5);
                }
                _ => {}
            }
            minutes.look(&control, now, wall + at(f64::from(second)));
        }
        let told = minutes.told();
        assert_eq!(of(&told, &balancer()).sums.packets, 7);
        let target = of(&told, &subject);
        assert_eq!((target.sums.packets, target.active_flows.minimum), (5, 1));
    }

    #[test]
    fn what_begins_anew_has_counted_all_of_it_since() {
        let earlier = Counts { packets: 10, bytes: 5, ..Counts::default() };
        let now = Counts { packets: 3, bytes: 7, ..Counts::default() };
        assert_eq!(now.since(earlier), Counts { packets: 3, bytes: 2, ..Counts::default() });
    }
}
