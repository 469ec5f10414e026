//! Configuration files: any text is settings that a gateway can work with, or a list of problems
//! each of which says where; never a panic, and never for long.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gwlb::config::{ProblemReport, Settings};
use gwlb::control::Control;
use gwlb_tests::gateway::SECRET;
use router::source::{Look, Problems, Source};
use router::{Entry, Topology};

use crate::engine::fuzz;

/// Every problem has a place within the text, and can be told.
fn assert_told(problems: &Problems, text: &str) {
    assert!(problems.len() > 0);
    for problem in problems {
        assert!(!problem.message().is_empty());
        if let Some(span) = problem.span() {
            assert!(span.start <= span.end && span.end <= text.len(), "{span:?} of {}", text.len());
            assert!(text.is_char_boundary(span.start) && text.is_char_boundary(span.end));
        }
    }
    for report in ProblemReport::list(problems) {
        let lines = text.lines().count() + 1;
        for place in &report.places {
            assert!(place.line >= 1 && place.column >= 1 && place.end_line <= lines, "{report:?}");
            assert!((place.line, place.column) <= (place.end_line, place.end_column), "{report:?}");
        }
    }
    assert!(problems.render(Look::Plain).ends_with(" in fuzz.toml\n"));
}

#[test]
fn gateway_file() {
    let now = now();
    fuzz!(150, |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        match gwlb::config::parse(&Source::new("fuzz.toml", &*text)) {
            Ok(settings) => assert_works(settings, now),
            Err(problems) => assert_told(&problems, &text),
        }
    });
}

/// The control plane takes the settings, and nothing in them differs from themselves.
fn assert_works(settings: Settings, mut now: Instant) {
    let settings = Arc::new(settings);
    assert_eq!(gwlb::config::diff(&settings, &settings).len(), 0);
    let mut control = Control::new(Arc::clone(&settings), SECRET, 2, Duration::ZERO, now);
    for _ in 0..4 {
        while control.poll_output().is_some() {}
        let Some(due) = control.poll_timeout() else { break };
        now = now.max(due);
        control.handle_timeout(now);
    }
    let targets = settings.target_groups.iter().map(|group| group.targets.len());
    assert_eq!(control.targets().len(), targets.sum::<usize>());
    control.reload(settings, now);
    while control.poll_output().is_some() {}
}

#[test]
fn router_file() {
    let addresses = ["10.0.1.11", "198.51.100.1", "0.0.0.0", "fd00:10:0:1::11", "::"];
    let addresses: Vec<IpAddr> = addresses.map(|text| text.parse().unwrap()).into();
    fuzz!(200, move |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let source = Source::new("fuzz.toml", &*text);
        let built = router::config::parse(&source).and_then(|file| Topology::build(&file, &source));
        match built {
            Ok(topology) => assert_routes(&topology, &addresses),
            Err(problems) => assert_told(&problems, &text),
        }
    });
}

/// Every path through the network has an end, and every place a name that leads to it.
fn assert_routes(topology: &Topology, addresses: &[IpAddr]) {
    let gateways = topology.gateways().map(|(id, _)| Entry::InternetGateway(id));
    let subnets = topology.subnets().map(|(id, _)| Entry::Subnet(id));
    let endpoints = topology.endpoints().map(|(id, _)| Entry::Endpoint(id));
    for from in gateways.chain(subnets).chain(endpoints).take(16) {
        let name = topology.entry_name(from);
        assert_eq!(topology.entry(&name).ok(), Some(from), "{name}");
        for &to in addresses {
            let explained = topology.explain(from, to);
            assert!(!explained.next.is_empty() && !explained.reason.is_empty(), "{explained:?}");
            let trace = topology.trace(from, to);
            assert!(trace.hops.len() <= 2 * topology.endpoints().len() + 2, "{trace:?}");
        }
    }
    assert_eq!(topology.describe().vpcs.len(), topology.vpcs().len());
}

#[expect(clippy::disallowed_methods, reason = "an arbitrary point from which virtual time runs")]
fn now() -> Instant {
    Instant::now()
}
