//! The sample appliances: their files of rules and patterns, and packets through them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use appliance_sdk::testing::FakeGateway;
use geneve::FlowKey;
use nva_sample::clock::WallClock;
use nva_sample::firewall::{Firewall, Rules, file as rules_file};
use nva_sample::ids::alert::AlertSink;
use nva_sample::ids::patterns::{Pattern, PatternSet};
use nva_sample::ids::stream::{Room, Stream};
use nva_sample::ids::{Counts, Ids, Shared, file as patterns_file};
use nva_sample::problem::{Problems, Source};

use crate::engine::fuzz;
use crate::input::Input;
use crate::session::some_packet;

/// Every problem says something, and is drawn with its line.
fn assert_told(problems: &Problems) {
    assert!(!problems.problems.is_empty());
    assert!(problems.problems.iter().all(|problem| !problem.message.is_empty()));
    // As `main` tells it; a place outside the text would be an error here.
    let report = format!("{:?}", miette::Report::new(problems.clone()));
    assert!(report.contains("fuzz.toml"), "{report}");
}

#[test]
fn firewall_rules() {
    let ends: Vec<SocketAddr> =
        ["10.0.1.9:80", "198.51.100.1:4000", "[2001:db8::1]:22", "[fe80::1]:0"]
            .map(|text| text.parse().unwrap())
            .into();
    fuzz!(1_000, move |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let rules = match rules_file::parse(&Source::new("fuzz.toml", &*text)) {
            Ok(rules) => rules,
            Err(problems) => return assert_told(&problems),
        };
        let mut judged = 0;
        for (from, to) in ends.iter().flat_map(|from| ends.iter().map(move |to| (from, to))) {
            for protocol in [1, 6, 17, 58] {
                let Ok(key) = FlowKey::new(*from, *to, protocol) else { continue };
                let verdict = rules.judge(&key);
                assert_eq!(rules.judge(&key), verdict, "the same is judged the same");
                judged += 2;
            }
        }
        let hits: u64 = rules.hits().iter().map(|hits| hits.hits).sum();
        assert_eq!(hits, judged, "every judgement is a rule's, or the default's");
    });
}

#[test]
fn ids_patterns() {
    fuzz!(300, |bytes: &[u8]| {
        let mut input = Input::new(bytes);
        let block = input.flag();
        let text = String::from_utf8_lossy(input.rest());
        let set = match patterns_file::parse(&Source::new("fuzz.toml", &*text), block) {
            Ok(set) => set,
            Err(problems) => return assert_told(&problems),
        };
        // Each is found in itself, whatever is in front.
        for (number, pattern) in set.patterns().iter().enumerate().take(16) {
            let mut found = Vec::new();
            set.scan_alone(&[b"..", &pattern.bytes[..]].concat(), &mut |number| found.push(number));
            assert!(found.contains(&number), "{pattern:?}");
        }
    });
}

#[test]
fn ids_stream() {
    let pattern = |text: &[u8], ignore_case| Pattern {
        name: String::new(),
        bytes: text.to_vec(),
        ignore_case,
        block: false,
    };
    let set = PatternSet::new(vec![pattern(b"abc", false), pattern(b"AAb", true)]).unwrap();
    fuzz!(5_000, move |bytes: &[u8]| {
        let mut input = Input::new(bytes);
        let first = input.u32();
        // Few letters, so that patterns come about.
        let text = input.chunk().iter().map(|byte| b"abcABx"[usize::from(*byte % 6)]);
        let text: Vec<u8> = text.collect();
        let room = Room::new(64);
        let mut stream = Stream::default();
        stream.begin(first);
        let mut there = vec![false; text.len()];
        let mut told = [false; 2];
        while !input.is_empty() && !text.is_empty() {
            let at = input.below(text.len());
            let until = text.len().min(at + 1 + input.below(16));
            let sequence = first.wrapping_add(at as u32);
            stream.segment(sequence, &text[at..until], &set, &room, &mut |number| {
                told[number] = true;
            });
            there[at..until].fill(true);
            assert!(stream.searched <= text.len() as u64);
        }
        // Unless it has given up to wait, it has searched what a receiver reads, and found what is
        // in there.
        if stream.gaps > 0 {
            return;
        }
        let read = &text[..there.iter().take_while(|there| **there).count()];
        assert_eq!(stream.searched, read.len() as u64);
        let has = |text: &[u8], needle: &[u8]| text.windows(3).any(|three| three == needle);
        assert!(told[0] || !has(read, b"abc"), "{read:?}");
        assert!(told[1] || !has(&read.to_ascii_lowercase(), b"aab"), "{read:?}");
    });
}

#[test]
fn inspected_packets() {
    let rules = "default = \"deny\"\npick_up = true\n[[rule]]\naction = \"allow\"\nto = [\"10.0.0.0/8\"]\n\
                 protocol = \"udp\"\n[[rule]]\naction = \"deny\"\ndeny_by = \"reject\"\nprotocol = \"tcp\"\n";
    let clock = WallClock::start();
    fuzz!(500, move |bytes: &[u8]| {
        let rules = rules_file::parse(&Source::new("rules.toml", rules)).unwrap();
        let mut firewall = FakeGateway::new(Firewall::new(Rules::new(rules)));
        let (alerts, told) = AlertSink::new();
        let pattern = Pattern {
            name: "seven".to_owned(),
            bytes: vec![7; 3],
            ignore_case: false,
            block: true,
        };
        let shared = Shared {
            patterns: PatternSet::new(vec![pattern]).unwrap(),
            depth: Some(512),
            counts: Counts::default(),
            clock,
        };
        let mut ids = FakeGateway::new(Ids::new(Arc::new(shared), alerts));
        let mut input = Input::new(bytes);
        let mut sent = 0_u64;
        while !input.is_empty() {
            let seconds = input.byte();
            if seconds > 0xf0 {
                firewall.advance(Duration::from_secs(u64::from(seconds)));
                ids.advance(Duration::from_secs(u64::from(seconds)));
            }
            let packet = some_packet(&mut input);
            if !matches!(packet.first().map(|byte| byte >> 4), Some(4 | 6)) {
                continue;
            }
            // The fake gateway insists on its headers, on valid packets, and on the books.
            firewall.send(&packet);
            let back = ids.send(&packet);
            assert!(back.is_empty() || back == [packet], "an IDS changes nothing");
            sent += 1;
        }
        for stats in [firewall.stats(), ids.stats()] {
            assert_eq!(stats.received.packets, sent, "{stats:?}");
        }
        assert!(told.try_iter().count() as u64 <= sent);
    });
}
