//! The screen at several sizes, as text: what is read here is what an operator reads.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent};
use ratatui::style::{Color, Modifier};
use serde_json::{Value, json};

use super::panels::lines as lines_of;
use super::*;
use crate::cli::top::answers::{Event, TargetGroup};
use crate::cli::top::keys;
use crate::cli::top::model::tests::{answer, event, status};

/// A gateway with something in every panel, after half a minute of traffic that rises and falls.
fn busy() -> Model {
    let mut model = Model::default();
    let mut packets = 1_000_000;
    for second in 0..=26 {
        packets += if second < 15 { second * 1_000 } else { (30 - second) * 1_000 };
        let warning = Event { severity: "warning".to_owned(), ..happened(second + 1) };
        let events = if second % 7 == 3 { vec![warning] } else { vec![happened(second + 1)] };
        let groups = vec![TargetGroup { name: "fw".to_owned(), deregistration_delay_seconds: 300 }];
        let answer = answer(&gateway(3_600_000 + second * 1_000, packets), &events);
        model.take(super::super::answers::Answer { groups, ..answer });
    }
    model
}

fn happened(id: u64) -> Event {
    let healthy = "target 192.0.2.11:6081 of fw is healthy";
    let unhealthy = "target 192.0.2.13:6081 of fw is unhealthy (Target.Timeout)";
    event(id, if id.is_multiple_of(2) { healthy } else { unhealthy })
}

fn gateway(milliseconds: u64, packets: u64) -> Value {
    let mut status = status(milliseconds, packets);
    status["tun"]["drops"] = json!({ "no_route": 7, "flow_table_full": packets / 100 });
    status["udp"]["drops"] = json!({ "return_cookie_unknown": 12, "no_route": 2 });
    status["endpoints"] = json!([
        { "name": "vpce-a", "zone": "az1", "active_flows": 1234, "received_packets": packets,
          "inspected_bytes": packets * 1_000, "dropped_packets": 0 },
        { "name": "vpce-b", "zone": "az2", "active_flows": 0, "received_packets": 0,
          "inspected_bytes": 0, "dropped_packets": 0 },
    ]);
    status["endpoint_groups"] = json!([{ "name": "inspection", "state": "Available", "members": [
        { "endpoint": "vpce-a", "zone": "az1", "health": "Normal", "gets_new_flows": true },
        { "endpoint": "vpce-b", "zone": "az2", "health": "Abnormal", "gets_new_flows": false },
    ] }]);
    let targets = status["targets"].as_array_mut().unwrap();
    targets[0]["probe_latency_ms"] = 1.234.into();
    targets[0]["appliance_latency_us"] = 85.into();
    let mut draining = targets[1].clone();
    draining["address"] = "192.0.2.13:6081".into();
    draining["active_flows"] = 17.into();
    draining["effective_weight"] = 0.into();
    draining["state"] = "draining".into();
    draining["reason"] = "Target.DeregistrationInProgress".into();
    draining["description"] = "it gets no new flows; those that it has stay with it".into();
    draining["draining"] = json!({ "flows_left": 17, "seconds_left": 123.4 });
    let mut unhealthy = targets[1].clone();
    unhealthy["address"] = "[2001:db8::14]:6081".into();
    unhealthy["target_group"] = "fw-six".into();
    unhealthy["state"] = "unhealthy".into();
    unhealthy["reason"] = "Target.Timeout".into();
    unhealthy["description"] = "Request timed out".into();
    targets.extend([draining, unhealthy]);
    status
}

fn view() -> View {
    View::new("/run/gwlb/main.sock".to_owned(), Duration::from_secs(1))
}

fn drawn(size: (u16, u16), model: &Model, view: &View, colour: bool) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
    terminal.draw(|frame| draw(frame, model, view, Palette { colour })).unwrap();
    terminal.backend().buffer().clone()
}

/// What is read, line by line.
fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width);
    let line = |cells: &[ratatui::buffer::Cell]| {
        let line: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
        line.trim_end().to_owned()
    };
    buffer.content.chunks(width).map(line).collect::<Vec<_>>().join("\n")
}

fn shown(size: (u16, u16), model: &Model, view: &View) -> String {
    text(&drawn(size, model, view, true))
}

fn typed(model: &Model, view: &mut View, keys: &str) {
    for key in keys.chars() {
        let code = if key == '\t' { KeyCode::Tab } else { KeyCode::Char(key) };
        assert_eq!(keys::press(KeyEvent::from(code), view, model), None);
    }
}

#[test]
fn everything_has_a_place_at_every_size() {
    let model = busy();
    for size in [(80, 24), (120, 40), (200, 60), (60, 18)] {
        let name = format!("busy_{}x{}", size.0, size.1);
        insta::assert_snapshot!(name, shown(size, &model, &view()));
    }
}

#[test]
fn a_gateway_without_anything_is_no_empty_screen() {
    let mut model = Model::default();
    let mut empty = status(1_500, 0);
    empty["targets"] = json!([]);
    empty["tun"]["drops"] = json!({});
    model.take(answer(&empty, &[]));
    insta::assert_snapshot!("empty", shown((80, 24), &model, &view()));
}

#[test]
fn who_is_not_there_is_said_and_what_to_do() {
    let mut model = Model::default();
    insta::assert_snapshot!("asking", shown((80, 24), &model, &view()));
    let trouble = "cannot reach the gateway at /run/gwlb/main.sock: No such file or directory (os \
                   error 2)\nIs the gateway running, and does [gateway] in its configuration have \
                   `admin`? --socket says where it is";
    model.lose(trouble.to_owned());
    insta::assert_snapshot!("nobody", shown((80, 24), &model, &view()));
    let mut lost = busy();
    lost.lose(trouble.to_owned());
    insta::assert_snapshot!("lost", shown((80, 24), &lost, &view()));
}

#[test]
fn an_answer_that_does_not_come_is_not_waited_for_in_silence() {
    let (model, mut view) = (busy(), view());
    let head = |view: &View| shown((80, 24), &model, view).lines().next().unwrap().to_owned();
    view.waiting = Some(Duration::from_millis(1_900));
    assert!(head(&view).ends_with(" every 1 s"));
    view.waiting = Some(Duration::from_secs(7));
    assert!(head(&view).ends_with(" NO ANSWER for 7 s"));
    view.waiting = None;
    view.paused = true;
    assert!(head(&view).ends_with(" PAUSED"));
    let text = shown((80, 24), &model, &view);
    assert!(text.ends_with("  p go on") && !text.contains("p pause"), "{text}");
}

#[test]
fn questions_say_what_will_happen() {
    let model = busy();
    let mut view = view();
    typed(&model, &mut view, "d");
    insta::assert_snapshot!("drain", shown((80, 24), &model, &view));
    typed(&model, &mut view, "njjr");
    insta::assert_snapshot!("register", shown((80, 24), &model, &view));
    typed(&model, &mut view, "njd");
    insta::assert_snapshot!("drain_the_last", shown((60, 18), &model, &view));
}

#[test]
fn help_and_filter_and_panels_alone() {
    let model = busy();
    let mut view = view();
    typed(&model, &mut view, "?");
    insta::assert_snapshot!("help", shown((60, 18), &model, &view));
    typed(&model, &mut view, "?\t\t\t/unhealthy");
    insta::assert_snapshot!("filter", shown((80, 24), &model, &view));
    keys::press(KeyEvent::from(KeyCode::Enter), &mut view, &model);
    typed(&model, &mut view, "zjjSp");
    insta::assert_snapshot!("alone", shown((80, 24), &model, &view));
}

#[test]
fn what_is_to_be_seen_is_warned_of() {
    let mut model = busy();
    let mut bypassed = gateway(4_000_000, 2_000_000);
    let node = |zone: &str| json!({ "zone": zone, "packets": "dropped" });
    bypassed["load_balancers"] = json!([
        { "name": "fw", "traffic_mode": "bypass", "nodes": [] },
        { "name": "fw-six", "traffic_mode": "inspect",
          "nodes": [node("az1"), node("az2"), node("az3"), node("az4")] },
    ]);
    model.take(answer(&bypassed, &[]));
    let mut view = view();
    view.say("192.0.2.11:6081 of fw is draining: 3 flows, 300 s left", false);
    insta::assert_snapshot!("warnings", shown((80, 24), &model, &view));
}

#[test]
fn a_panel_of_two_lines_shows_a_row() {
    let (model, mut view) = (busy(), view());
    view.say("asks every 2 s", false);
    let text = shown((60, 18), &model, &view);
    let (_, events) = text.split_once(" Events ").unwrap();
    let lines: Vec<_> = events.lines().collect();
    assert!(lines[0].ends_with(" 1-1 of 27"), "{text}");
    assert!(lines[1].starts_with("03-01 12:00:27 target 192.0.2.13:6081"), "{text}");
}

#[test]
fn what_is_selected_can_be_read_to_its_end() {
    let mut model = busy();
    let long = "another configuration is in force, which says so much that no line of this screen \
                has room for all of it, and this is its end";
    let mut other = gateway(4_000_000, 2_000_000);
    other["targets"][0]["diagnosis"] = json!({ "code": "returns_nothing", "text": long });
    model.take(answer(&other, &[event(90, long)]));
    let mut view = view();
    let target = shown((80, 24), &model, &view);
    assert_eq!(target.matches("this is its end").count(), 1, "{target}");
    typed(&model, &mut view, "\t\t\t");
    let event = shown((80, 24), &model, &view);
    assert_eq!(event.matches("this is its end").count(), 1, "{event}");
    typed(&model, &mut view, "j");
    assert!(!shown((80, 24), &model, &view).contains("this is its end"), "it is another one's");
    // Where there is no room, the sign of it is seen.
    let small = lines_of("a text that is longer than its room", 10, 2);
    assert_eq!(small, ["a text", "that is l…"]);
}

#[test]
fn a_target_that_is_out_can_come_back() {
    let mut model = busy();
    let mut out = gateway(4_000_000, 2_000_000);
    out["targets"][0]["state"] = "unused".into();
    out["targets"][0]["reason"] = "Target.NotRegistered".into();
    model.take(answer(&out, &[]));
    let text = shown((80, 24), &model, &view());
    assert!(text.contains("  r register") && !text.contains("d drain"), "{text}");
}

#[test]
fn the_highest_is_of_what_was_seen() {
    let mut model = Model::default();
    let title = |model: &Model| shown((80, 24), model, &view()).lines().nth(1).unwrap().to_owned();
    model.take(answer(&gateway(1_000, 0), &[]));
    assert!(!title(&model).contains("highest"), "{}", title(&model));
    model.take(answer(&gateway(7_000, 6_000), &[]));
    assert!(title(&model).contains("highest in the last 6 s: 1.00 k/s"), "{}", title(&model));
}

#[test]
fn a_terminal_that_is_too_small_is_told() {
    let text = shown((59, 17), &busy(), &view()).replace('\n', " ");
    assert!(text.starts_with("This terminal has 59x17 characters, and gwlb top needs 60x18."));
    // However small it is, nothing breaks.
    for size in [(1, 1), (10, 3), (59, 200), (200, 17)] {
        shown(size, &busy(), &view());
    }
}

#[test]
fn every_size_can_be_drawn() {
    let (model, mut view) = (busy(), view());
    for keys in ["", "d", "n?", "?z", "\t", "\t", "\t", "/x"] {
        typed(&model, &mut view, keys);
        for size in [(60, 18), (61, 19), (79, 30), (119, 25), (120, 18), (500, 150)] {
            shown(size, &model, &view);
        }
    }
}

#[test]
fn colours_are_the_terminals_own_and_only_in_front() {
    let sixteen = |colour: Color| {
        !matches!(colour, Color::Rgb(..) | Color::Indexed(_) | Color::Black | Color::White)
    };
    let (model, mut view) = (busy(), view());
    for keys in ["", "d", "n?"] {
        typed(&model, &mut view, keys);
        let colours = drawn((120, 40), &model, &view, true);
        assert!(colours.content.iter().all(|cell| cell.bg == Color::Reset && sixteen(cell.fg)));
        let none = drawn((120, 40), &model, &view, false);
        let plain =
            |cell: &ratatui::buffer::Cell| (cell.fg, cell.bg) == (Color::Reset, Color::Reset);
        assert!(none.content.iter().all(plain));
        assert_eq!(text(&none), text(&colours), "no word depends on colours");
    }
    // What is selected and what is wrong is seen without them, too.
    let none = drawn((80, 24), &model, &View::new(String::new(), Duration::from_secs(1)), false);
    let has = |modifier| none.content.iter().any(|cell| cell.modifier.contains(modifier));
    assert!(has(Modifier::REVERSED) && has(Modifier::BOLD));
}

#[test]
fn names_cannot_write_to_the_terminal() {
    let mut model = Model::default();
    model.take(answer(&status(1_000, 0), &[event(1, "a\x1b[2Jb\nc")]));
    let text = shown((80, 24), &model, &view());
    assert!(!text.contains('\x1b'), "{text}");
}
