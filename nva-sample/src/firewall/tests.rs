use appliance_sdk::session::SessionConfig;
use appliance_sdk::testing::{self, FakeGateway, Segment};
use geneve::inner::{IcmpErrorKind, Inner};
use proptest::prelude::*;

use super::*;

const INSIDE: &str = "10.0.1.11:40000";
const OUTSIDE: &str = "198.51.100.7:443";
const CLIENT: &str = "203.0.113.9:50000";
const WEB: &str = "10.0.1.11:80";

/// Web in, everything out.
const RULES: &str = r#"
    default = "deny"
    inside = ["10.0.0.0/16", "fd00:10::/48"]

    [[rule]]
    name = "web"
    action = "allow"
    protocol = "tcp"
    ports = [80]
    direction = "inbound"

    [[rule]]
    name = "out"
    action = "allow"
    direction = "outbound"
"#;

fn rules(text: &str) -> RuleSet {
    file::parse(&Source::new("rules.toml", text)).unwrap()
}

fn firewall(text: &str) -> (FakeGateway<Firewall>, Rules) {
    let rules = Rules::new(rules(text));
    (FakeGateway::new(Firewall::new(rules.clone())), rules)
}

fn hits(rules: &Rules, name: &str) -> u64 {
    rules.hits().into_iter().find(|hits| hits.rule == name).unwrap().hits
}

fn syn(from: &str, to: &str) -> Vec<u8> {
    testing::tcp(from, to, Segment::syn(1), b"")
}

fn data(from: &str, to: &str) -> Vec<u8> {
    testing::tcp(from, to, Segment::data(2, 2), b"x")
}

#[test]
fn what_is_allowed_passes_in_both_directions_and_is_asked_about_once() {
    let (mut gateway, rules) = firewall(RULES);
    let answer = testing::tcp(WEB, CLIENT, Segment::syn_ack(1, 2), b"");
    for packet in [syn(CLIENT, WEB), answer, data(CLIENT, WEB), data(WEB, CLIENT)] {
        assert_eq!(gateway.send(&packet).len(), 1);
    }
    assert_eq!(hits(&rules, "web"), 1);
    assert_eq!(gateway.stats().decided_by_flow, 3);
}

#[test]
fn what_no_rule_allows_vanishes() {
    let (mut gateway, rules) = firewall(RULES);
    assert!(gateway.send(&syn(CLIENT, "10.0.1.11:22")).is_empty());
    assert!(gateway.send(&testing::udp(CLIENT, "10.0.1.11:53", b"?")).is_empty());
    assert_eq!(hits(&rules, "default"), 2);
}

#[test]
fn a_refused_sender_is_told_every_time() {
    let text = format!("{RULES}\n[[rule]]\naction = \"deny\"\ndeny_by = \"reject\"\n");
    let (mut gateway, _) = firewall(&text);
    for _ in 0..2 {
        let [reset] = gateway.send(&syn(CLIENT, "10.0.1.11:22")).try_into().unwrap();
        let reset = Inner::parse(&reset).unwrap();
        let Transport::Tcp { flags, dst, .. } = reset.transport else { panic!("{reset:?}") };
        assert!(flags.contains(TcpFlags::RST));
        assert_eq!((reset.dst.to_string().as_str(), dst), ("203.0.113.9", 50000));

        let [error] = gateway.send(&testing::udp(CLIENT, "10.0.1.11:53", b"?")).try_into().unwrap();
        let error = Inner::parse(&error).unwrap();
        assert!(matches!(
            error.transport,
            Transport::IcmpError { kind: IcmpErrorKind::Unreachable { code: 13 }, .. }
        ));
    }
}

#[test]
fn ipv6_is_filtered_alike() {
    let (mut gateway, _) = firewall(RULES);
    assert_eq!(gateway.send(&syn("[2001:db8::9]:5000", "[fd00:10::b]:80")).len(), 1);
    assert!(gateway.send(&syn("[2001:db8::9]:5000", "[fd00:10::b]:81")).is_empty());
}

#[test]
fn ping_is_a_flow_of_its_own() {
    let (mut gateway, _) = firewall(RULES);
    let request = testing::icmp_echo("10.0.1.11", "198.51.100.7", 1, 1, b"ping");
    let reply = testing::icmp_echo("198.51.100.7", "10.0.1.11", 1, 1, b"pong");
    assert_eq!(gateway.send(&request).len(), 1);
    assert_eq!(gateway.send(&reply).len(), 1);
    let (mut fresh, _) = firewall(RULES);
    assert!(fresh.send(&reply).is_empty());
}

#[test]
fn a_tcp_flow_begins_with_a_syn_unless_it_may_be_picked_up() {
    let (mut strict, rules) = firewall(RULES);
    assert!(strict.send(&data(OUTSIDE, INSIDE)).is_empty());
    assert!(strict.send(&data(INSIDE, OUTSIDE)).is_empty());
    assert_eq!(hits(&rules, "tcp-without-syn"), 2);
    // That is no obstacle to a proper beginning.
    assert_eq!(strict.send(&syn(INSIDE, OUTSIDE)).len(), 1);
    assert_eq!(strict.send(&data(OUTSIDE, INSIDE)).len(), 1);

    let (mut lenient, _) = firewall(&format!("pick_up = true\n{RULES}"));
    assert!(lenient.send(&data(OUTSIDE, INSIDE)).is_empty());
    assert_eq!(lenient.send(&data(INSIDE, OUTSIDE)).len(), 1);
    assert_eq!(lenient.send(&data(OUTSIDE, INSIDE)).len(), 1);
}

#[test]
fn a_syn_from_the_other_end_neither_enters_nor_ends_the_flow() {
    let (mut gateway, _) = firewall(RULES);
    assert_eq!(gateway.send(&syn(INSIDE, OUTSIDE)).len(), 1);
    assert!(gateway.send(&syn(OUTSIDE, INSIDE)).is_empty());
    assert_eq!(gateway.send(&data(OUTSIDE, INSIDE)).len(), 1);
    assert_eq!(gateway.send(&data(INSIDE, OUTSIDE)).len(), 1);
}

#[test]
fn new_rules_hold_for_old_flows() {
    let (mut gateway, rules) = firewall(RULES);
    assert_eq!(gateway.send(&syn(CLIENT, WEB)).len(), 1);
    rules.replace(super::tests::rules("default = \"deny\""));
    // The answer comes first: it is judged by who opened the flow, and counted by the new rules.
    assert!(gateway.send(&data(WEB, CLIENT)).is_empty());
    assert_eq!(hits(&rules, "default"), 1);
    rules.replace(super::tests::rules(RULES));
    assert_eq!(gateway.send(&data(WEB, CLIENT)).len(), 1);
}

#[test]
fn a_decision_is_kept_until_the_rules_change() {
    let (mut gateway, rules) = firewall(RULES);
    let packet = testing::udp(INSIDE, OUTSIDE, b"x");
    for reloads in 0..3 {
        for _ in 0..50 {
            assert_eq!(gateway.send(&packet).len(), 1);
        }
        // Of the new rules, as often as of the old ones: once.
        assert_eq!(hits(&rules, "out"), 1);
        assert_eq!(gateway.stats().decided_by_flow, 49 * (reloads + 1));
        rules.replace(super::tests::rules(RULES));
    }
    rules.replace(super::tests::rules("default = \"deny\""));
    for _ in 0..2 {
        assert!(gateway.send(&packet).is_empty());
    }
    assert_eq!((hits(&rules, "default"), gateway.stats().kept.packets), (1, 2));
}

#[test]
fn a_decision_that_had_to_make_room_is_made_again() {
    let config = SessionConfig { max_flows: 2, ..SessionConfig::default() };
    let rules = Rules::new(rules(RULES));
    let mut gateway = FakeGateway::with_config(Firewall::new(rules.clone()), &config);
    let udp = |host: u8| testing::udp(&format!("10.0.1.{host}:5000"), OUTSIDE, b"x");
    // The third takes the place of the second, which was used less recently.
    for (host, decided) in [(1, 1), (2, 2), (1, 2), (3, 3), (1, 3), (2, 4)] {
        assert_eq!(gateway.send(&udp(host)).len(), 1);
        assert_eq!(hits(&rules, "out"), decided, "host {host}");
    }
    let flows = gateway.stats().flows;
    assert_eq!((flows.current, flows.evicted), (2, 2));

    // A connection that was forgotten has to begin anew: its decision was not taken on trust.
    assert_eq!(gateway.send(&syn(CLIENT, WEB)).len(), 1);
    assert_eq!(gateway.send(&data(CLIENT, WEB)).len(), 1);
    for host in [1, 2] {
        assert_eq!(gateway.send(&udp(host)).len(), 1);
    }
    assert!(gateway.send(&data(CLIENT, WEB)).is_empty());
    assert_eq!(hits(&rules, "tcp-without-syn"), 1);
}

#[test]
fn a_wrong_file_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules.toml");
    std::fs::write(&path, RULES).unwrap();
    let rules = Rules::load(&path).unwrap();
    let mut gateway = FakeGateway::new(Firewall::new(rules.clone()));
    assert_eq!(gateway.send(&syn(CLIENT, WEB)).len(), 1);

    std::fs::write(&path, "default = \"everything\"").unwrap();
    assert!(matches!(rules.reload(), Err(FileError::Wrong(_))));
    assert_eq!(gateway.send(&syn(CLIENT, WEB)).len(), 1);
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(rules.reload(), Err(FileError::Read { .. })));
    assert_eq!(gateway.send(&data(CLIENT, WEB)).len(), 1);

    std::fs::write(&path, "default = \"deny\"").unwrap();
    rules.reload().unwrap();
    assert!(gateway.send(&data(CLIENT, WEB)).is_empty());
}

/// Splits an IPv4 packet into fragments of at most `size` bytes of payload.
fn fragments(packet: &[u8], id: u16, size: usize) -> Vec<Vec<u8>> {
    let (header, payload) = packet.split_at(20);
    let mut offset = 0;
    payload
        .chunks(size)
        .map(|chunk| {
            let mut fragment = [header, chunk].concat();
            let length = fragment.len() as u16;
            fragment[2..4].copy_from_slice(&length.to_be_bytes());
            fragment[4..6].copy_from_slice(&id.to_be_bytes());
            let more = offset + chunk.len() < payload.len();
            let field = (offset / 8) as u16 | if more { 0x2000 } else { 0 };
            fragment[6..8].copy_from_slice(&field.to_be_bytes());
            offset += chunk.len();
            fragment
        })
        .collect()
}

#[test]
fn fragments_share_the_fate_of_their_first() {
    let dns = "[[rule]]\naction = \"allow\"\nprotocol = \"udp\"\nports = [53]\n";
    let (mut gateway, _) = firewall(&format!("{RULES}\n{dns}"));
    let allowed = fragments(&testing::udp(CLIENT, "10.0.1.11:53", &[1; 100]), 1, 48);
    let denied = fragments(&testing::udp(CLIENT, "10.0.1.11:54", &[1; 100]), 2, 48);
    assert_eq!(allowed.len(), 3);
    // Interleaved, as they are flows of the same fragments.
    for (allowed, denied) in allowed.iter().zip(&denied) {
        assert_eq!(gateway.send(allowed).len(), 1);
        assert!(gateway.send(denied).is_empty());
    }
    // Without its first fragment nothing is known of a packet's ports.
    let orphan = &fragments(&testing::udp(CLIENT, "10.0.1.11:53", &[1; 100]), 3, 48)[1];
    assert!(gateway.send(orphan).is_empty());
}

#[test]
fn an_error_about_an_allowed_flow_passes_whoever_sends_it() {
    let mut quoted = data(CLIENT, WEB);
    quoted.truncate(28);
    let icmp = [&[11, 0, 0, 0, 0, 0, 0, 0][..], &quoted].concat();
    let error = testing::other("192.168.7.7", "203.0.113.9", 1, &icmp);
    let (mut gateway, _) = firewall(RULES);
    assert!(gateway.send(&error).is_empty());
    gateway.send(&syn(CLIENT, WEB));
    assert_eq!(gateway.send(&error).len(), 1);
}

proptest! {
    /// Whatever is inside: no panic, and the firewall answers or forwards, once.
    #[test]
    fn any_packet_gets_one_fate(
        noise in proptest::collection::vec(any::<u8>(), 1..120),
        change in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let text = format!("{RULES}\n[[rule]]\naction = \"deny\"\ndeny_by = \"reject\"\n");
        let (mut gateway, _) = firewall(&text);
        let mut packet = testing::tcp(CLIENT, WEB, Segment::syn(1), &noise);
        packet.extend(fragments(&testing::udp(INSIDE, OUTSIDE, &noise), 7, 16).remove(0));
        let at = change.index(packet.len());
        packet[at] = value;
        let datagram = gateway.encapsulate(&[&[0x45][..], &packet[1..]].concat());
        gateway.send_datagrams(&datagram, 0);
        prop_assert!(gateway.stats().returned.packets <= 1);
    }
}

#[test]
fn an_error_about_fragments_decides_nothing_for_them() {
    let (mut gateway, _) = firewall(
        r#"
        default = "allow"
        [[rule]]
        action = "deny"
        protocol = "udp"
        ports = [25]
        "#,
    );
    for (port, passes) in [(53, 1), (25, 0)] {
        let whole = testing::udp(CLIENT, &format!("198.51.100.7:{port}"), &[7; 100]);
        let (first, later) = (fragments(&whole, 1, 64), fragments(&whole, 2, 64));
        let pass = |gateway: &mut FakeGateway<Firewall>, fragments: &[Vec<u8>]| {
            fragments.iter().map(|fragment| gateway.send(fragment).len()).collect::<Vec<_>>()
        };
        assert_eq!(pass(&mut gateway, &first), vec![passes; first.len()]);
        // Somebody on the way says that it took too long.
        let icmp = [&[11, 0, 0, 0, 0, 0, 0, 0][..], &whole[..60]].concat();
        let error = testing::other("198.51.100.7", "203.0.113.9", 1, &icmp);
        assert_eq!(gateway.send(&error).len(), passes, "as what it is about: port {port}");
        assert_eq!(pass(&mut gateway, &later), vec![passes; later.len()], "port {port}");
    }
}
