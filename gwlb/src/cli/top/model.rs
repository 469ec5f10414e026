//! From what the gateway answers to what is shown: rates, histories and rows.
//!
//! Rates are differences of counters between two answers, over the time that the gateway's own clock
//! says was between them: an answer that comes late makes no peak. Nothing here reads a clock.

mod history;
mod rows;

use std::collections::{BTreeMap, VecDeque};

pub(super) use history::History;
pub(super) use rows::{DropRow, EndpointRow, Row, TargetRow};

use super::answers::{Answer, Event, Status};

/// How many events are kept.
const EVENTS: usize = 500;

/// What is counted in [`Model::traffic`] and in [`History`], in this order: packets that came from the
/// networks and packets that went to them, then bytes of packets sent to appliances and returned by
/// them.
pub(super) const SERIES: usize = 4;
/// Of these, the bytes sent.
pub(super) const BYTES_TO: usize = 2;
/// And the bytes returned.
const BYTES_BACK: usize = 3;

/// A counter: how fast, and how much since the gateway began.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Count {
    /// Per second; `None` before there are two answers.
    pub rate: Option<f64>,
    pub total: u64,
}

/// What is known of the gateway.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// The last answer.
    pub status: Option<Status>,
    pub traffic: [Count; SERIES],
    pub history: History,
    pub targets: Vec<TargetRow>,
    pub endpoints: Vec<EndpointRow>,
    pub drops: Vec<DropRow>,
    /// The oldest first.
    pub events: VecDeque<Event>,
    /// Whether the gateway tells of events; `None`: not known yet.
    pub tells_events: Option<bool>,
    /// Why the last question was not answered, and what to do.
    pub trouble: Option<String>,
    /// The deregistration delay of each target group, in seconds.
    delays: BTreeMap<String, u64>,
}

impl Model {
    /// Takes an answer up.
    pub fn take(&mut self, answer: Answer) {
        self.trouble = None;
        self.delays = answer
            .groups
            .into_iter()
            .map(|group| (group.name, group.deregistration_delay_seconds))
            .collect();
        self.tells_events = Some(answer.events.is_some());
        let status = answer.status;
        let restarted = self.status.as_ref().is_some_and(|before| is_another(before, &status));
        if restarted {
            self.events.clear();
        }
        self.keep_events(answer.events.unwrap_or_default());
        let before = self.status.take().filter(|_| !restarted);
        let passed = |before: &Status| status.uptime_ms() - before.uptime_ms();
        match before.as_ref().map(passed) {
            // No time has passed that could be divided by: the next answer tells.
            Some(0) => self.status = before,
            passed => self.count(before.as_ref(), status, passed),
        }
    }

    /// The gateway did not answer.
    pub fn lose(&mut self, why: String) {
        self.trouble = Some(why);
        for count in &mut self.traffic {
            count.rate = None;
        }
        self.targets.iter_mut().for_each(TargetRow::forget_rates);
        self.endpoints.iter_mut().for_each(EndpointRow::forget_rates);
        for drop in &mut self.drops {
            drop.count.rate = None;
        }
    }

    /// The deregistration delay of a target group in seconds, if it is known.
    pub fn delay(&self, group: &str) -> Option<u64> {
        self.delays.get(group).copied()
    }

    /// The target of a group at an address.
    pub fn target(&self, group: &str, address: &str) -> Option<&TargetRow> {
        self.targets.iter().find(|target| target.group == group && target.address == address)
    }

    /// The number of the last event that is known.
    pub fn last_event(&self) -> Option<u64> {
        self.events.back().map(|event| event.id)
    }

    fn keep_events(&mut self, events: Vec<Event>) {
        for event in events {
            if self.last_event().is_none_or(|last| event.id > last) {
                self.events.push_back(event);
            }
        }
        let excess = self.events.len().saturating_sub(EVENTS);
        self.events.drain(..excess);
    }

    /// Counts what has come in so many milliseconds; `None`: since when is not known.
    fn count(&mut self, before: Option<&Status>, status: Status, passed: Option<u64>) {
        let seconds = passed.map(|passed| passed as f64 / 1000.0);
        let rate = |now: u64, then: u64| seconds.map(|seconds| grown(now, then) as f64 / seconds);
        let was = before.map(totals).unwrap_or_default();
        let mut rates = [None; SERIES];
        for (index, (now, then)) in totals(&status).into_iter().zip(was).enumerate() {
            rates[index] = rate(now, then);
            self.traffic[index].total = now;
        }
        self.targets = rows::targets(before, &status, seconds);
        // A target that is gone has taken its bytes with it: what the others have got tells.
        let sum = |of: fn(&TargetRow) -> Option<f64>| {
            seconds.map(|_| self.targets.iter().filter_map(of).sum())
        };
        rates[BYTES_TO] = sum(|target| target.bytes_to);
        rates[BYTES_BACK] = sum(|target| target.bytes_back);
        for (count, rate) in self.traffic.iter_mut().zip(rates) {
            count.rate = rate;
        }
        match passed {
            Some(passed) => self.history.push(passed, rates.map(Option::unwrap_or_default)),
            None => self.history.interrupt(),
        }
        self.endpoints = rows::endpoints(before, &status, seconds);
        self.drops = rows::drops(before, &status, seconds);
        self.status = Some(status);
    }
}

/// The totals of each series.
fn totals(status: &Status) -> [u64; SERIES] {
    let out = [&status.tun, &status.udp].map(|side| side.delivered + side.bypassed);
    let sum = |of: fn(&super::answers::Target) -> u64| status.targets.iter().map(of).sum();
    [
        status.tun.received,
        out.iter().sum(),
        sum(|target| target.sent_bytes),
        sum(|target| target.returned_bytes),
    ]
}

/// How far a counter has come. One that is smaller than before began anew.
fn grown(now: u64, then: u64) -> u64 {
    now.checked_sub(then).unwrap_or(now)
}

/// Whether a status is that of another run of the gateway than the one before.
fn is_another(before: &Status, status: &Status) -> bool {
    status.uptime_ms() < before.uptime_ms()
        || status.tun.received < before.tun.received
        || status.udp.received < before.udp.received
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A status after so many seconds, of a gateway with two targets that has got so many packets
    /// of 1000 bytes.
    pub(in crate::cli::top) fn status(milliseconds: u64, packets: u64) -> Value {
        let target = |address: &str, packets: u64| {
            json!({
                "target_group": "fw", "address": address, "zone": "az1", "weight": 100,
                "effective_weight": 100, "state": "healthy", "reason": null, "description": null,
                "since_unix_seconds": 0.0, "active_flows": packets / 10, "sent_packets": packets,
                "sent_bytes": packets * 1000, "returned_packets": packets,
                "returned_bytes": packets * 1000, "draining": null, "zones": [],
                "diagnosis": null, "tunnel": null,
            })
        };
        json!({
            "version": "0.1.0", "uptime_seconds": milliseconds / 1000, "uptime_ms": milliseconds,
            "workers": 2, "state": "running", "active_flows": packets / 10,
            "tun": { "received": packets + 7, "delivered": 0, "bypassed": 0,
                "drops": { "no_route": 7 } },
            "udp": { "received": packets, "delivered": packets, "bypassed": 0, "drops": {} },
            "io": { "kernel_drops": 0 }, "load_balancers": [], "endpoint_groups": [],
            "attachments": [], "endpoints": [],
            "targets": [target("192.0.2.11:6081", packets / 4 * 3), target("192.0.2.12:6081", packets / 4)],
        })
    }

    pub(in crate::cli::top) fn answer(status: &Value, events: &[Event]) -> Answer {
        let status = Status::of(status).unwrap();
        Answer { status, events: Some(events.to_vec()), groups: Vec::new() }
    }

    pub(in crate::cli::top) fn event(id: u64, text: &str) -> Event {
        let time = format!("2026-03-01T12:00:{:02}.500Z", id % 60);
        Event { id, time, severity: "info".to_owned(), text: text.to_owned() }
    }

    fn rates(model: &Model) -> [Option<f64>; SERIES] {
        model.traffic.map(|count| count.rate)
    }

    #[test]
    fn rates_go_by_the_gateways_own_time() {
        let mut model = Model::default();
        model.take(answer(&status(10_000, 400), &[]));
        assert_eq!(rates(&model), [None; SERIES]);
        assert_eq!(model.traffic.map(|count| count.total), [407, 400, 400_000, 400_000]);
        // An answer that was asked for after a second, and was given after four.
        model.take(answer(&status(14_000, 4_400), &[]));
        assert_eq!(rates(&model), [1e3, 1e3, 1e6, 1e6].map(Some));
        let shares: Vec<_> = model.targets.iter().map(|target| target.share).collect();
        assert_eq!(shares, [Some(0.75), Some(0.25)]);
        assert_eq!(model.targets[0].packets_to, Some(750.0));
        // The same moment once more says nothing new, and hides nothing.
        model.take(answer(&status(14_000, 4_400), &[]));
        assert_eq!(rates(&model), [1e3, 1e3, 1e6, 1e6].map(Some));
        model.take(answer(&status(16_000, 4_400), &[]));
        assert_eq!(rates(&model), [Some(0.0); SERIES]);
        assert_eq!(model.targets[0].share, None);
    }

    #[test]
    fn a_gateway_that_began_anew_makes_no_peak() {
        let mut model = Model::default();
        model.take(answer(&status(10_000, 400), &[event(7, "old")]));
        model.take(answer(&status(11_000, 800), &[]));
        model.take(answer(&status(500, 40), &[event(1, "new")]));
        assert_eq!(rates(&model), [None; SERIES]);
        assert_eq!(model.traffic[0].total, 47);
        assert_eq!(model.events, [event(1, "new")]);
        // Longer up than the one before was, and still another one.
        model.take(answer(&status(20_000, 4), &[]));
        assert_eq!(rates(&model), [None; SERIES]);
        model.take(answer(&status(21_000, 104), &[]));
        assert_eq!(rates(&model)[0], Some(100.0));
    }

    #[test]
    fn targets_that_come_and_go_make_no_peak_either() {
        let mut model = Model::default();
        model.take(answer(&status(10_000, 4_000), &[]));
        let mut one = status(11_000, 4_400);
        let gone = one["targets"].as_array_mut().unwrap().remove(0);
        model.take(answer(&one, &[]));
        assert_eq!(rates(&model)[2], Some(100_000.0), "what the other one got");
        assert_eq!(model.traffic[2].total, 1_100_000);
        let mut both = status(12_000, 4_400);
        both["targets"][0] = gone;
        both["targets"][0]["sent_bytes"] = 5_000.into();
        model.take(answer(&both, &[]));
        assert_eq!(rates(&model)[2], Some(5_000.0), "what it got since it came");
    }

    #[test]
    fn drops_have_a_rate_from_their_first_one_on() {
        let mut model = Model::default();
        model.take(answer(&status(1_000, 0), &[]));
        assert_eq!(model.drops[0].count, Count { rate: None, total: 7 });
        let mut more = status(3_000, 0);
        more["udp"]["drops"] = json!({ "no_route": 5, "bad_cookie": 20 });
        more["io"]["kernel_drops"] = 2.into();
        model.take(answer(&more, &[]));
        let count = |reason: &str| {
            model.drops.iter().find(|drop| drop.reason == reason).map(|drop| drop.count)
        };
        assert_eq!(count("no_route"), Some(Count { rate: Some(2.5), total: 12 }));
        assert_eq!(count("bad_cookie"), Some(Count { rate: Some(10.0), total: 20 }));
        let lost = "kernel: receive queues full";
        assert_eq!(count(lost), Some(Count { rate: Some(1.0), total: 2 }));
    }

    #[test]
    fn events_are_kept_once_and_not_for_ever() {
        let mut model = Model::default();
        model.take(answer(&status(1_000, 0), &[event(1, "a"), event(2, "b")]));
        model.take(answer(&status(2_000, 0), &[event(2, "b"), event(3, "c")]));
        assert_eq!(model.events.iter().map(|event| event.id).collect::<Vec<_>>(), [1, 2, 3]);
        let many: Vec<_> = (4..2_000).map(|id| event(id, "x")).collect();
        model.take(answer(&status(3_000, 0), &many));
        assert_eq!((model.events.len(), model.last_event()), (EVENTS, Some(1_999)));
        let silent = Answer { events: None, ..answer(&status(4_000, 0), &[]) };
        model.take(silent);
        assert_eq!((model.events.len(), model.tells_events), (EVENTS, Some(false)));
    }

    #[test]
    fn what_is_lost_shows_no_rate_and_comes_back() {
        let mut model = Model::default();
        model.take(answer(&status(1_000, 0), &[]));
        model.take(answer(&status(2_000, 400), &[]));
        model.lose("nobody is there".to_owned());
        assert_eq!(rates(&model), [None; SERIES]);
        assert_eq!(model.targets[0].packets_to, None);
        assert_eq!(model.traffic[1].total, 400, "what was known stays");
        model.take(answer(&status(4_000, 800), &[]));
        assert_eq!(model.trouble, None);
        assert_eq!(rates(&model)[1], Some(200.0));
    }
}
