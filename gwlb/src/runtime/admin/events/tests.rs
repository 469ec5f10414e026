//! Streams of events as their readers meet them.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::testing::{Api, exchange, status};
use super::*;
use crate::runtime::clock;
use crate::runtime::events::GatewayEvent;

fn publish(api: &Api, count: usize) {
    for _ in 0..count {
        api.shared.events.publish(GatewayEvent::GatewayDraining {});
    }
}

/// The number of the first event.
fn first(api: &Api) -> u64 {
    api.shared.events.after(None)[0].id
}

/// A stream of events, and the head of the answer.
fn follow(api: &Api, path: &str, headers: &str) -> (String, BufReader<UnixStream>) {
    let mut stream = api.connect();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n").unwrap();
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).unwrap() > 0, "{head}");
    }
    (head, stream)
}

/// The next lines that `prefix` begins, without it and without what is between them.
fn take(stream: &mut BufReader<UnixStream>, prefix: &str, count: usize) -> Vec<String> {
    let lines = stream.lines().map(Result::unwrap);
    let taken = lines.filter_map(|line| Some(line.strip_prefix(prefix)?.to_owned()));
    taken.take(count).collect()
}

#[test]
fn what_was_and_what_comes_is_told() {
    let api = Api::start();
    publish(&api, 2);
    let one = first(&api);
    let (two, three) = (one + 1, one + 2);
    let words = |numbers: &[u64]| numbers.iter().map(u64::to_string).collect::<Vec<_>>();
    let (head, mut stream) = follow(&api, "/v1/events", "");
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    assert_eq!(take(&mut stream, "id: ", 2), words(&[one, two]));
    publish(&api, 1);
    let event: Value = serde_json::from_str(&take(&mut stream, "data: ", 2)[1]).unwrap();
    assert_eq!((&event["id"], &event["event"]), (&json!(three), &json!("gateway_draining")));

    let second = format!("Last-Event-ID: {two}\r\n");
    let (_, mut again) = follow(&api, "/v1/events", &second);
    assert_eq!(take(&mut again, "id: ", 1), words(&[three]));
    let (_, mut again) = follow(&api, &format!("/v1/events?since={one}"), &second);
    assert_eq!(take(&mut again, "id: ", 2), words(&[two, three]), "what is asked for counts");
    let (head, _) = follow(&api, "/v1/events", "Last-Event-ID: x\r\n");
    assert_eq!(status(&head), 400);
    // Of an earlier run, however many events that has had.
    for other in ["Last-Event-ID: 2\r\n".to_owned(), format!("Last-Event-ID: {}\r\n", one - 2)] {
        let (_, mut again) = follow(&api, "/v1/events", &other);
        assert_eq!(take(&mut again, "id: ", 3), words(&[one, two, three]), "{other}");
    }

    let (_, list) = api.ask("GET", &format!("/v1/events?follow=false&since={one}"));
    let numbers: Vec<_> = list["items"].as_array().unwrap().iter().map(|it| &it["id"]).collect();
    assert_eq!(json!([numbers, list["next"]]), json!([[two, three], null]));
}

#[test]
fn lines_of_json_come_with_a_sign_of_life() {
    let api = Api::with(Limits { alive: Duration::from_millis(10), ..Limits::default() });
    publish(&api, 1);
    let accept = "Accept: text/plain, application/x-ndjson;q=0.9\r\n";
    let (head, mut stream) = follow(&api, "/v1/events", accept);
    assert!(head.contains("content-type: application/x-ndjson"), "{head}");
    let line = take(&mut stream, "{", 1).remove(0);
    let event: Value = serde_json::from_str(&format!("{{{line}")).unwrap();
    assert_eq!(event["id"], first(&api));
    // The lengths of the chunks, and the empty lines in them.
    assert_eq!(take(&mut stream, "1", 3), ["", "", ""]);
    let (_, mut stream) = follow(&api, &format!("/v1/events?since={}", first(&api)), "");
    assert_eq!(take(&mut stream, ":", 2).len(), 2, "comments of server-sent events");
}

#[test]
fn so_many_may_follow_and_no_more() {
    let api = Api::with(Limits { streams: 2, ..Limits::default() });
    let first = follow(&api, "/v1/events", "");
    let _second = follow(&api, "/v1/events", "Accept: application/x-ndjson\r\n");
    let (code, problem) = api.ask("GET", "/v1/events");
    assert_eq!(code, 503, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("2 clients follow"), "{problem}");
    assert_eq!(api.ask("GET", "/v1/events?follow=false").0, 200);
    assert_eq!(api.ask("GET", "/live").0, 200);
    // Who leaves makes place.
    drop(first);
    while status(&follow(&api, "/v1/events", "").0) == 503 {}
}

#[test]
fn who_does_not_listen_loses_the_place() {
    let limits = Limits { streams: 1, answer: Duration::from_millis(100), ..Limits::default() };
    let api = Api::with(limits);
    let _deaf = follow(&api, "/v1/events", "");
    let begun = clock::now();
    let mut published = 0;
    // The ring goes round several times, and nobody waits for the one who does not read.
    loop {
        publish(&api, 100);
        published += 100;
        let (head, _) = follow(&api, "/v1/events", "");
        if status(&head) == 200 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "after {published} events");
    }
}

#[test]
fn who_is_too_slow_is_told_what_is_missing() {
    let api = Api::start();
    publish(&api, 1);
    let mut expected = first(&api);
    let last = expected + 20_000;
    let (_, mut slow) = follow(&api, "/v1/events", "");
    // More than fits on the way to somebody who does not read, and in the ring.
    publish(&api, 20_000);
    while expected <= last {
        let event: Value = serde_json::from_str(&take(&mut slow, "data: ", 1)[0]).unwrap();
        if event["event"] == "missed" {
            expected += event["missed"].as_u64().unwrap();
            assert_eq!(event["id"], expected - 1);
        } else {
            assert_eq!(event["id"], expected);
            expected += 1;
        }
    }
}

#[test]
fn a_stream_ends_with_the_gateway_and_does_not_hold_it_up() {
    let mut api = Api::start();
    let (_, mut stream) = follow(&api, "/v1/events", "");
    publish(&api, 1);
    let begun = clock::now();
    api.stop();
    let took = begun.elapsed();
    assert!(took < super::super::GRACE, "{took:?}");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("gateway_draining") && rest.ends_with("0\r\n\r\n"), "{rest}");
}

#[test]
fn the_log_is_asked_and_changed() {
    crate::logging::tests::start_silently();
    let api = Api::start();
    let (code, wrong) = api.json("PUT", "/v1/log", r#"{"filter": "loud"}"#);
    assert_eq!((code, &wrong["field"]), (400, &json!("filter")), "{wrong}");
    let (code, wrong) = api.json("PUT", "/v1/log", "{}");
    assert_eq!((code, &wrong["field"]), (400, &json!("filter")), "{wrong}");
    // Other tests of this process may change it, too: each says what it has done itself.
    let (code, log) = api.json("PUT", "/v1/log", r#"{"filter": " off,gwlb::lab=off "}"#);
    assert_eq!((code, &log["filter"]), (200, &json!("off,gwlb::lab=off")));
    let (_, list) = api.ask("GET", "/v1/events?follow=false");
    let change = &list["items"][0];
    assert_eq!((&change["event"], &change["to"]), (&json!("log_filter"), &log["filter"]));
    let (head, _) = exchange(&api.socket, "GET", "/v1/log", &[], b"");
    assert_eq!(status(&head), 200);
}
