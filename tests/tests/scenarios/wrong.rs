//! Proves that a scenario can fail: each kind of expectation, made wrong, is found and told.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gwlb_tests::capture::{self, Captured};
use gwlb_tests::scenario;
use tempfile::TempDir;

use super::folder;

/// A copy of a scenario that is good, to be spoilt.
struct Copy {
    parent: TempDir,
}

impl Copy {
    fn of(name: &str) -> Copy {
        let parent = tempfile::tempdir().unwrap();
        fs::copy(folder().join("gateway.toml"), parent.path().join("gateway.toml")).unwrap();
        let copy = Copy { parent };
        copy_folder(&folder().join(name), &copy.path());
        assert_eq!(copy.problems(), "", "it is good before it is spoilt");
        copy
    }

    fn path(&self) -> PathBuf {
        self.parent.path().join("copy")
    }

    fn problems(&self) -> String {
        scenario::check(&self.path()).unwrap().join("\n")
    }

    fn error(&self) -> String {
        scenario::check(&self.path()).unwrap_err().to_string()
    }

    /// Changes a text file.
    fn replace(&self, file: &str, from: &str, to: &str) {
        let path = self.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file} has {from}");
        fs::write(path, text.replacen(from, to, 1)).unwrap();
    }

    /// Changes a capture.
    fn recapture(&self, file: &str, change: impl FnOnce(&mut Vec<Captured>)) {
        let path = self.path().join(file);
        let mut packets = capture::read(&path).unwrap();
        change(&mut packets);
        fs::write(path, capture::bytes(&packets)).unwrap();
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_changed_byte_is_found() {
    let copy = Copy::of("udp-ipv4");
    copy.recapture("expected/at-igw.pcap", |packets| packets[2].packet[30] ^= 1);
    let problems = copy.problems();
    assert!(problems.starts_with("expected/at-igw.pcap: packet 3 differs from byte 30 on"));
    assert!(problems.contains("expected 3 ms  10.0.1.11:5000 > 203.0.113.7:40000 UDP, 37 bytes"));
    assert!(problems.contains("GWLB_BLESS=1"), "{problems}");
}

#[test]
fn a_missing_packet_and_one_too_many_are_found() {
    let copy = Copy::of("udp-ipv6");
    copy.recapture("expected/to-fw1.pcap", |packets| drop(packets.pop()));
    copy.recapture("expected/at-app-a.pcap", |packets| packets.push(packets[0].clone()));
    let problems = copy.problems();
    assert!(problems.contains("to-fw1.pcap: 3 packets expected, 4 found"), "{problems}");
    assert!(problems.contains("at-app-a.pcap: 4 packets expected, 3 found"), "{problems}");
}

#[test]
fn another_time_is_found() {
    let copy = Copy::of("udp-ipv6");
    let nanosecond = Duration::from_nanos(1);
    copy.recapture("expected/to-fw2.pcap", |packets| packets[0].time += nanosecond);
    let problems = copy.problems();
    assert!(problems.starts_with("expected/to-fw2.pcap: packet 1 differs in its time"));
}

#[test]
fn a_wrong_count_is_found() {
    let copy = Copy::of("return-bad-cookie");
    copy.replace("expected/counters.json", "\"bad_cookie\": 68", "\"bad_cookie\": 67");
    let expected = "expected/counters.json: udp.drops.bad_cookie: expected 67, found 68";
    assert!(copy.problems().starts_with(expected), "{}", copy.problems());
}

#[test]
fn a_wrong_line_is_found() {
    let copy = Copy::of("return-bad-cookie");
    copy.replace("expected/steps.txt", "dropped    64 udp", "dropped    63 udp");
    let problems = copy.problems();
    assert!(problems.starts_with("expected/steps.txt: line 5 differs"), "{problems}");
}

#[test]
fn files_too_many_and_too_few_are_found() {
    let copy = Copy::of("udp-ipv6");
    let expected = copy.path().join("expected");
    fs::rename(expected.join("to-fw2.pcap"), expected.join("to-fw3.pcap")).unwrap();
    fs::write(expected.join("notes.txt"), "").unwrap();
    let problems = copy.problems();
    for expected in [
        "to-fw2.pcap: 2 packets are unexpected",
        "to-fw3.pcap: 2 packets expected, 0 found",
        "notes.txt: is no expectation of anything",
    ] {
        assert!(problems.contains(expected), "{problems}");
    }
}

/// What goes in decides as well as what is expected.
#[test]
fn another_input_ends_differently() {
    let copy = Copy::of("udp-ipv4");
    copy.recapture("01-from-igw.pcap", |packets| packets[0].packet[19] ^= 1);
    assert!(copy.problems().contains("to-fw"), "{}", copy.problems());

    let copy = Copy::of("idle-tcp");
    copy.replace("scenario.toml", "advance_ms = 349998", "advance_ms = 349997");
    assert!(copy.problems().contains("unknown_tcp_flow"), "{}", copy.problems());
}

/// A gateway that treats workers differently would be found: here the second outcome is spoilt by
/// hand, since no gateway does.
#[test]
fn a_difference_between_workers_is_found() {
    use gwlb_tests::gateway::Setup;

    let path = folder().join("udp-ipv4");
    let scenario = scenario::Scenario::load(&path).unwrap();
    let settings = scenario::configuration(&path, &scenario).unwrap();
    let play =
        |workers| scenario::play(&path, &scenario, settings.clone(), Setup::of(workers)).unwrap();
    let (one, mut three) = (play(1), play(3));
    assert_ne!(one.streams, three.streams, "source ports differ");
    assert_eq!(scenario::differences_between_workers(&one, &three, false), [""; 0]);
    // The cookie of the last packet of somebody's stream.
    let stream = three.streams.get_mut("to-fw1").unwrap();
    stream.last_mut().unwrap().packet[67] ^= 1;
    let found = scenario::differences_between_workers(&one, &three, false).concat();
    assert!(found.contains("differs from byte 67 on"), "{found}");

    let mut two = play(2);
    two.counters.udp.flow.delivered += 1;
    let found = scenario::differences_between_workers(&one, &two, false).concat();
    assert!(found.starts_with("counters: udp.delivered: expected"), "{found}");
}

#[test]
fn a_wrong_scenario_is_told_as_such() {
    let cases = [
        ("01-from-igw.pcap\"", "07-from-igw.pcap\"", "07-from-igw.pcap: No such file"),
        ("01-from-igw.pcap\"", "01-from-nowhere.pcap\"", "01-from-nowhere.pcap: No such file"),
        ("fw1 = \"192.0.2.11\"", "fw1 = \"192.0.2.111\"", "192.0.2.111, which no target has"),
        ("echo = {}", "echo = { by = [\"fw9\"] }", "no appliance is called fw9"),
        ("echo = {}", "echo = { change = [{ only = [9] }] }", "step 2: there is no datagram 9"),
        ("echo = {}", "eccho = {}", "unknown variant `eccho`"),
        ("echo = {}", "register = { appliance = \"fw9\" }", "no appliance is called fw9"),
        (
            "echo = {}",
            "reload = { configure = [{ table = \"gateway\", set = { workers = 2 } }] }",
            "step 2: this configuration takes a restart",
        ),
        (
            "echo = {}",
            "reload = { configure = [{ table = \"subnet\", name = \"moon\", how = \"remove\" }] }",
            "the configuration has no [[subnet]] called moon",
        ),
    ];
    for (from, to, expected) in cases {
        let copy = Copy::of("udp-ipv4");
        copy.replace("scenario.toml", from, to);
        assert!(copy.error().contains(expected), "{}", copy.error());
    }

    let copy = Copy::of("udp-ipv4");
    fs::rename(copy.path().join("01-from-igw.pcap"), copy.path().join("01-from-moon.pcap"))
        .unwrap();
    copy.replace("scenario.toml", "01-from-igw.pcap", "01-from-moon.pcap");
    assert!(copy.error().contains("with the name of an attachment or appliance"));

    let copy = Copy::of("unknown-tcp-reset");
    copy.replace("scenario.toml", "\"reset\"", "\"maybe\"");
    assert!(copy.error().contains("tcp_unknown_flow"), "{}", copy.error());
}
