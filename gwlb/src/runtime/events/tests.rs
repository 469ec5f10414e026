//! What readers get, fast ones and slow ones.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::logging::tests::written;

fn publish(events: &Events, count: u64) {
    for _ in 0..count {
        events.publish(GatewayEvent::GatewayDraining {});
    }
}

/// Events with numbers that are easy to read.
fn from_one() -> Events {
    Events::after_number(0)
}

fn numbers(events: &[Arc<Event>]) -> Vec<u64> {
    events.iter().map(|event| event.id).collect()
}

fn missed(event: &Event) -> Option<u64> {
    match event.what {
        Happening::Gateway(GatewayEvent::Missed { missed }) => Some(missed),
        _ => None,
    }
}

/// What a reader gets that is there already.
fn rest(reader: &mut Reader) -> Vec<Arc<Event>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut got = Vec::new();
        while let Some(event) = reader.next(std::future::ready(())).await {
            got.push(event);
        }
        got
    })
}

#[test]
fn numbers_have_no_gaps_and_the_oldest_go() {
    let events = from_one();
    assert!(events.after(None).is_empty());
    publish(&events, 5);
    assert_eq!(numbers(&events.after(None)), [1, 2, 3, 4, 5]);
    assert_eq!(numbers(&events.after(Some(3))), [4, 5]);
    assert!(events.after(Some(5)).is_empty());
    publish(&events, KEPT as u64);
    let all = events.after(None);
    assert_eq!((all.len(), all[0].id), (KEPT, 6));
    let late = events.after(Some(2));
    assert_eq!((late.len(), late[0].id, missed(&late[0]), late[1].id), (KEPT + 1, 5, Some(3), 6));
    assert_eq!(missed(&events.after(Some(5))[0]), None);
}

#[test]
fn a_reader_that_is_too_slow_is_told_what_it_has_missed() {
    let events = Arc::new(from_one());
    publish(&events, 2);
    let mut reader = events.reader(None);
    assert_eq!(numbers(&rest(&mut reader)), [1, 2]);
    assert!(rest(&mut reader).is_empty());
    publish(&events, KEPT as u64 + 10);
    let got = rest(&mut reader);
    assert_eq!(missed(&got[0]), Some(10));
    assert_eq!(got[0].id, 12, "who comes back after it goes on behind it");
    assert_eq!(got.len(), KEPT + 1);
    assert!(got.windows(2).all(|pair| pair[1].id == pair[0].id + 1));
    assert!(rest(&mut reader).is_empty());
    // Who comes back goes on where the last event was.
    assert_eq!(numbers(&rest(&mut events.reader(Some(1033)))), [1034, 1035, 1036]);
}

#[test]
fn who_comes_back_after_a_restart_gets_all_of_the_new_run() {
    let before = Arc::new(Events::default());
    publish(&before, 2);
    let last = before.after(None)[1].id;
    let events = Arc::new(Events::default());
    publish(&events, 3);
    let first = events.after(None)[0].id;
    assert!(first > last, "{first} {last}");
    // A clock that was set back makes numbers smaller.
    for of_another_run in [0, 2, last, first - 2, first + 3, u64::MAX] {
        let all = [first, first + 1, first + 2];
        assert_eq!(numbers(&events.after(Some(of_another_run))), all, "{of_another_run}");
        let mut reader = events.reader(Some(of_another_run));
        assert_eq!(numbers(&rest(&mut reader)), all, "{of_another_run}");
    }
    assert_eq!(numbers(&events.after(Some(first))), [first + 1, first + 2]);
    assert_eq!(numbers(&rest(&mut events.reader(Some(first)))), [first + 1, first + 2]);
    // What of this run is kept no more is said, for none of it was seen.
    publish(&events, KEPT as u64);
    let late = events.after(Some(last));
    assert_eq!((late.len(), missed(&late[0])), (KEPT + 1, Some(3)));
    let late = rest(&mut events.reader(Some(last)));
    assert_eq!((late.len(), missed(&late[0])), (KEPT + 1, Some(3)));
    assert_eq!(missed(&rest(&mut events.reader(None))[0]), None, "who has seen none asks for none");
}

#[test]
fn numbers_are_exact_in_json_as_browsers_read_it() {
    let events = Events::default();
    publish(&events, 1);
    let id = events.after(None)[0].id;
    assert!(id > 1_700_000_000_000_000 && id < 1 << 53, "{id}");
}

#[test]
fn a_reader_is_woken_by_an_event_and_by_the_end() {
    let events = Arc::new(from_one());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut reader = events.reader(None);
        let patience = Duration::from_secs(20);
        let never = std::future::pending;
        let (got, ()) = tokio::join!(tokio::time::timeout(patience, reader.next(never())), async {
            tokio::task::yield_now().await;
            publish(&events, 1);
        });
        assert_eq!(got.unwrap().unwrap().id, 1);
        let end = async { tokio::task::yield_now().await };
        assert!(tokio::time::timeout(patience, reader.next(end)).await.unwrap().is_none());
    });
}

#[test]
fn those_who_publish_at_a_time_lose_nothing_and_wake_everybody() {
    const EACH: u64 = 200;
    let events = Arc::new(from_one());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| publish(&events, EACH));
        }
        scope.spawn(|| {
            let mut reader = events.reader(None);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            for id in 1..=4 * EACH {
                let event = runtime.block_on(reader.next(std::future::pending())).unwrap();
                assert_eq!(event.id, id);
            }
        });
    });
}

#[test]
fn an_event_is_one_flat_object_and_one_line() {
    let events = from_one();
    let reason = "gateway.toml:1:1: \u{1b}[31mwrong\nhere".to_owned();
    events.publish(GatewayEvent::ReloadRefused { reason: reason.clone(), left_out: 2 });
    events.publish(crate::control::Event::Reload { registered: 1, deregistered: 0, changed: 0 });
    let shown: Vec<Value> =
        events.after(None).iter().map(|event| serde_json::to_value(&**event).unwrap()).collect();
    let time = shown[0]["time"].as_str().unwrap();
    assert_eq!((time.len(), &time[10..11], &time[23..]), (24, "T", "Z"), "{time}");
    let text = "not reloaded, and nothing has changed: gateway.toml:1:1:  [31mwrong here \
                (and 2 times before, which was not told)";
    let refused = json!({
        "id": 1, "time": time, "severity": "warning", "text": text,
        "event": "reload_refused", "reason": reason, "left_out": 2,
    });
    assert_eq!(shown[0], refused);
    assert_eq!((&shown[1]["event"], &shown[1]["registered"]), (&json!("reload"), &json!(1)));
    assert_eq!((&shown[1]["severity"], &shown[1]["id"]), (&json!("info"), &json!(2)));
}

#[test]
fn a_line_of_the_log_has_all_of_an_event() {
    let tell = || {
        let events = from_one();
        let reason = "gateway.toml:1:1: \u{1b}[31mwrong\nhere".to_owned();
        events.publish(GatewayEvent::ReloadRefused { reason, left_out: 2 });
        let standing = crate::control::Standing::HEALTHY;
        events.publish(crate::control::Event::TargetState {
            target_group: "fw".to_owned(),
            target: "192.0.2.11:6081".parse().unwrap(),
            load_balancer: "fw".to_owned(),
            zone: "az1".to_owned(),
            from: standing,
            to: standing,
        });
        events.after(None)
    };
    let mut told = Vec::new();
    let lines = written(false, || told = tell());
    let lines: Vec<_> = lines.lines().collect();
    assert_eq!(lines.len(), told.len());
    for (line, event) in lines.into_iter().zip(told) {
        let line: Value = serde_json::from_str(line).unwrap();
        let event = serde_json::to_value(&*event).unwrap();
        let level = if event["severity"] == "info" { "INFO" } else { "WARN" };
        let own = ["id", "time", "severity", "text"];
        let mut whole = json!({
            "timestamp": line["timestamp"], "level": level,
            "module": "gwlb::runtime::events::event", "message": event["text"], "id": event["id"],
        });
        let fields = event.as_object().unwrap().iter();
        let fields = fields.filter(|(field, _)| !own.contains(&field.as_str()));
        whole
            .as_object_mut()
            .unwrap()
            .extend(fields.map(|(field, it)| (field.clone(), it.clone())));
        assert_eq!(line, whole);
    }
    // To people, the message says it all.
    let lines = written(true, || drop(tell()));
    let lines: Vec<_> = lines.lines().map(|line| line.split_once(' ').unwrap().1.trim()).collect();
    let expected = [
        "WARN not reloaded, and nothing has changed: gateway.toml:1:1:  [31mwrong here \
         (and 2 times before, which was not told)",
        "INFO fw: 192.0.2.11:6081 is healthy for fw in az1, it was healthy",
    ];
    assert_eq!(lines, expected);
}
