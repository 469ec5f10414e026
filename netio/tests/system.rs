//! Namespaces, links and child processes against the real kernel, each test in namespaces of its
//! own. They need root, and say so where they are skipped.

#![expect(clippy::unwrap_used, reason = "in the helpers of tests, as in tests")]

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use netio::link::{Links, Route, Vxlan};
use netio::netns::{Netns, NetnsError, ScratchNetns, skip_test};
use netio::process::{ChildExt, CommandExt, Preflight};

/// Longer than anything takes on a busy machine.
const LONG: Duration = Duration::from_secs(30);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_namespace_has_a_name_until_it_is_deleted() {
    let Some(netns) = ScratchNetns::for_test("a_namespace_has_a_name") else { return };
    let name = netns.name().to_owned();
    let path = Path::new("/run/netns").join(&name);
    assert_eq!(netns.path(), Some(path.as_path()));
    assert!(Netns::open(&name).unwrap().is_same(&netns));
    assert!(Netns::open(path.to_str().unwrap()).unwrap().is_same(&netns));
    assert!(!Netns::current().unwrap().is_same(&netns));

    let again = Netns::create(&name).unwrap_err();
    assert!(matches!(again, NetnsError::Exists { .. }), "{again}");
    assert!(path.exists(), "the failed creation took the other's name away");

    drop(netns);
    assert!(!path.exists());
    assert!(matches!(Netns::open(&name), Err(NetnsError::NotFound { .. })));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&name), "still mounted");
}

#[test]
fn many_namespaces_at_once_share_one_mount() {
    let Some(first) = ScratchNetns::for_test("many_namespaces_at_once") else { return };
    let others: Vec<_> = std::thread::scope(|scope| {
        let makers: Vec<_> = (0..8).map(|_| scope.spawn(|| ScratchNetns::new("test"))).collect();
        makers.into_iter().map(|maker| maker.join().unwrap().unwrap()).collect()
    });
    assert!(others.iter().all(|other| !other.is_same(&first)));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let of_directory = mounts.lines().filter(|line| line.contains(" /run/netns "));
    assert_eq!(of_directory.filter(|line| line.contains(" shared:")).count(), 1, "{mounts}");
}

#[test]
fn work_inside_leaves_the_caller_outside() {
    let Some(netns) = ScratchNetns::for_test("work_inside") else { return };
    let outside = Netns::current().unwrap();
    let inside = netns.run(|| Netns::current().unwrap()).unwrap();
    assert!(inside.is_same(&netns));
    let spawned = netns.spawn(|| Netns::current().unwrap()).unwrap().join().unwrap();
    assert!(spawned.is_same(&netns));
    assert!(Netns::current().unwrap().is_same(&outside));

    let panicked = std::panic::catch_unwind(|| netns.run(|| panic!("on purpose"))).unwrap_err();
    assert_eq!(panicked.downcast_ref::<&str>(), Some(&"on purpose"));
}

#[test]
fn a_socket_made_inside_stays_inside() {
    let Some(netns) = ScratchNetns::for_test("a_socket_made_inside") else { return };
    Links::in_netns(&netns).unwrap().set_up("lo").unwrap();
    let listener = netns.run(|| TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    netns.run(|| TcpStream::connect(address).unwrap()).unwrap();
    listener.accept().unwrap();
}

#[test]
fn settings_of_the_kernel_are_the_namespaces_own() {
    let Some(netns) = ScratchNetns::for_test("settings_of_the_kernel") else { return };
    let key = "net.ipv4.ip_forward";
    let outside = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    for value in ["1", "0", "1"] {
        netns.set_sysctl(key, value).unwrap();
        assert_eq!(netns.sysctl(key).unwrap(), value);
    }
    assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), outside);

    netns.set_sysctl("net.ipv4.tcp_congestion_control", "reno").unwrap();
    assert_eq!(netns.sysctl("net.ipv4.tcp_congestion_control").unwrap(), "reno");
    netns.set_sysctl("net.ipv6.conf.all.disable_ipv6", "1").unwrap();

    let error = netns.set_sysctl("net.ipv4.no_such_key", "1").unwrap_err().to_string();
    assert!(error.starts_with("cannot set net.ipv4.no_such_key in network namespace"), "{error}");
}

/// Two namespaces with a cable between them: `left` 10.9.0.1 and `fd09::1`, `right` 10.9.0.2 and `fd09::2`.
struct Cable {
    left: ScratchNetns,
    right: ScratchNetns,
    left_links: Links,
    right_links: Links,
}

impl Cable {
    fn new(test: &str) -> Option<Self> {
        let left = ScratchNetns::for_test(test)?;
        let right = ScratchNetns::for_test(test)?;
        let left_links = Links::in_netns(&left).unwrap();
        let right_links = Links::in_netns(&right).unwrap();
        left_links.create_veth("to-right", "to-left", &right).unwrap();
        left_links.set_up("to-right").unwrap();
        right_links.set_up("to-left").unwrap();
        for (links, name, end) in [(&left_links, "to-right", 1), (&right_links, "to-left", 2)] {
            links.add_address(name, ip(&format!("10.9.0.{end}")), 24).unwrap();
            links.add_address(name, ip(&format!("fd09::{end}")), 64).unwrap();
        }
        Some(Self { left, right, left_links, right_links })
    }

    /// Sends a line from the left to `address` on the right.
    fn talk(&self, address: &str) {
        let to = SocketAddr::new(ip(address), 0);
        let listener = self.right.run(|| TcpListener::bind(to).unwrap()).unwrap();
        let to = listener.local_addr().unwrap();
        let mut there = self.left.run(|| TcpStream::connect(to).unwrap()).unwrap();
        let (mut here, _) = listener.accept().unwrap();
        there.write_all(b"over the cable").unwrap();
        drop(there);
        let mut heard = String::new();
        here.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "over the cable");
    }
}

#[test]
fn a_cable_carries_both_families_at_once_and_counts() {
    let Some(cable) = Cable::new("a_cable_carries_both_families") else { return };
    cable.talk("10.9.0.2");
    cable.talk("fd09::2");
    let sent = cable.left_links.statistics("to-right").unwrap();
    let received = cable.right_links.statistics("to-left").unwrap();
    assert!(sent.tx_packets >= 8 && sent.tx_bytes > 400, "{sent:?}");
    assert!(received.rx_packets >= 8, "{received:?}");
    assert_eq!((sent.tx_dropped, received.rx_dropped), (0, 0));

    let addresses = cable.left_links.addresses("to-right").unwrap();
    assert!(addresses.contains(&(ip("10.9.0.1"), 24)), "{addresses:?}");
    assert!(addresses.contains(&(ip("fd09::1"), 64)), "{addresses:?}");
}

#[test]
fn links_change_as_they_are_told() {
    let Some(cable) = Cable::new("links_change") else { return };
    let links = &cable.left_links;
    links.set_mtu("to-right", 9000).unwrap();
    links.set_gso_max_size("to-right", 60_868).unwrap();
    let link = links.get("to-right").unwrap();
    assert_eq!((link.mtu, link.gso_max_size, link.up), (9000, 60_868, true));
    assert_eq!(cable.right_links.get("to-left").unwrap().mtu, 1500);

    links.set_down("to-right").unwrap();
    assert!(!links.get("to-right").unwrap().up);

    let names: Vec<_> = links.all().unwrap().into_iter().map(|link| link.name).collect();
    assert!(names.contains(&"lo".to_owned()) && names.contains(&"to-right".to_owned()));
    assert!(links.exists("to-right").unwrap());
    links.delete("to-right").unwrap();
    assert!(!links.exists("to-right").unwrap());
    assert!(!cable.right_links.exists("to-left").unwrap(), "the other end goes along");
}

#[test]
fn routes_lead_by_gateway_and_by_link() {
    let Some(cable) = Cable::new("routes_lead") else { return };
    cable.right_links.set_up("lo").unwrap();
    cable.right_links.add_address("lo", ip("192.0.2.7"), 32).unwrap();
    cable.right_links.add_address("lo", ip("2001:db8::7"), 128).unwrap();
    let refused = cable.left.run(|| TcpStream::connect("192.0.2.7:9").unwrap_err()).unwrap();
    assert_eq!(refused.kind(), io::ErrorKind::NetworkUnreachable);

    let by_gateway = Route::new(ip("0.0.0.0"), 0).via(ip("10.9.0.2"));
    cable.left_links.add_route(&by_gateway).unwrap();
    let by_link = Route::new(ip("2001:db8::"), 32).via(ip("fd09::2")).device("to-right").mtu(1400);
    cable.left_links.add_route(&by_link).unwrap();
    cable.talk("192.0.2.7");
    cable.talk("2001:db8::7");

    cable.left_links.delete_route(&by_gateway).unwrap();
    let refused = cable.left.run(|| TcpStream::connect("192.0.2.7:9").unwrap_err()).unwrap();
    assert_eq!(refused.kind(), io::ErrorKind::NetworkUnreachable);
    let direct = Route::new(ip("192.0.2.0"), 24).device("to-right").source(ip("10.9.0.1"));
    cable.left_links.add_route(&direct).unwrap();
    cable.talk("192.0.2.7");
}

#[test]
fn a_tunnel_leads_where_the_rules_send_what_came_in() {
    let Some(cable) = Cable::new("a_tunnel_leads") else { return };
    let Some(host) = ScratchNetns::for_test("a_tunnel_leads") else { return };
    let (links, far) = (&cable.left_links, &cable.right_links);
    let ends =
        [(links, "to-right", "10.9.0.1", "10.9.0.2"), (far, "to-left", "10.9.0.2", "10.9.0.1")];
    for ((links, link, local, remote), inner) in ends.into_iter().zip(["10.8.0.1", "10.8.0.2"]) {
        let (local, remote) = (ip(local), ip(remote));
        let vxlan = Vxlan { name: "vxlan0", vni: 7, link, local, remote, port: 4789 };
        links.create_vxlan(&vxlan).unwrap();
        links.set_up("vxlan0").unwrap();
        links.add_address("vxlan0", ip(inner), 24).unwrap();
    }
    // What the host asks for lies behind the tunnel by a rule for its link alone.
    links.create_veth("to-host", "eth0", &host).unwrap();
    let host_links = Links::in_netns(&host).unwrap();
    for (links, name, address) in
        [(links, "to-host", "10.7.0.1"), (&host_links, "eth0", "10.7.0.2")]
    {
        links.set_up(name).unwrap();
        links.add_address(name, ip(address), 24).unwrap();
    }
    host_links.add_route(&Route::new(ip("0.0.0.0"), 0).via(ip("10.7.0.1"))).unwrap();
    far.add_address("to-left", ip("192.0.2.7"), 32).unwrap();
    far.add_route(&Route::new(ip("10.7.0.0"), 24).via(ip("10.8.0.1"))).unwrap();
    cable.left.set_sysctl("net.ipv4.ip_forward", "1").unwrap();
    let ask = || host.run(|| TcpStream::connect_timeout(&"192.0.2.7:9".parse().unwrap(), LONG));

    assert_eq!(ask().unwrap().unwrap_err().kind(), io::ErrorKind::NetworkUnreachable);
    let route = Route::new(ip("0.0.0.0"), 0).via(ip("10.8.0.2")).device("vxlan0").table(1000);
    links.add_route(&route).unwrap();
    links.add_rule(ip("0.0.0.0"), "to-host", 1000).unwrap();
    let listener = cable.right.run(|| TcpListener::bind("192.0.2.7:9").unwrap()).unwrap();
    ask().unwrap().unwrap();
    assert_eq!(listener.accept().unwrap().1.ip(), ip("10.7.0.2"));
    assert!(links.statistics("vxlan0").unwrap().tx_packets >= 3);

    let refused = links.add_rule(ip("0.0.0.0"), "sixteen-bytes-it", 1000).unwrap_err().to_string();
    assert!(refused.contains("add rule iif sixteen-bytes-it lookup 1000"), "{refused}");
    links.delete_route(&route).unwrap();
    assert_eq!(ask().unwrap().unwrap_err().kind(), io::ErrorKind::NetworkUnreachable);
}

#[test]
fn a_refusal_says_what_was_asked_of_which_namespace() {
    let Some(cable) = Cable::new("a_refusal_says") else { return };
    let (left, right) = (cable.left.name(), cable.right.name());
    let links = &cable.left_links;
    let unreachable = Route::new(ip("10.8.0.0"), 16).via(ip("10.7.0.1"));
    let cases = [
        (
            links.set_up("eth7"),
            "change link \"eth7\": set it up".to_owned(),
            "No such device (os error 19)",
        ),
        (
            links.add_address("to-right", ip("10.9.0.1"), 24),
            "add address 10.9.0.1/24 to link \"to-right\"".to_owned(),
            "File exists (os error 17)",
        ),
        (
            links.add_route(&unreachable),
            "add route 10.8.0.0/16 via 10.7.0.1".to_owned(),
            "Network is unreachable (os error 101)",
        ),
        (
            links.create_veth("to-right", "x", &cable.right),
            format!("create veth \"to-right\" with \"x\" in {right:?}"),
            "File exists (os error 17)",
        ),
    ];
    for (refused, what, why) in cases {
        let expected = format!("cannot {what} in network namespace {left:?}: {why}");
        assert_eq!(refused.unwrap_err().to_string(), expected);
    }
}

#[tokio::test]
async fn links_work_and_end_on_a_thread_of_another_runtime() {
    let Some(netns) = ScratchNetns::for_test("links_on_another_runtime") else { return };
    let links = Links::in_netns(&netns).unwrap();
    links.set_up("lo").unwrap();
    assert!(links.get("lo").unwrap().up);
}

#[test]
fn a_child_starts_inside() {
    let Some(netns) = ScratchNetns::for_test("a_child_starts_inside") else { return };
    let links = Links::in_netns(&netns).unwrap();
    links.create_veth("mark", "mark-peer", &netns).unwrap();
    let seen = Command::new("cat").arg("/proc/self/net/dev").in_netns(&netns).output().unwrap();
    let seen = String::from_utf8(seen.stdout).unwrap();
    assert!(seen.contains("mark-peer"), "{seen}");
}

/// Set in the processes that tests start from this very program.
const ROLE: &str = "NETIO_TEST_ROLE";

/// This program again, running the one test `name` alone on its main thread.
fn again(name: &str) -> Command {
    // By this path also for a user who may not come to the file by its own.
    let mut command = Command::new("/proc/self/exe");
    command
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(ROLE, name)
        .stdout(Stdio::piped());
    command
}

#[test]
fn a_child_dies_with_its_parent() {
    if std::env::var_os(ROLE).is_some() {
        // The parent: starts a child that holds our stdout open, and waits to be killed.
        let mut child = Command::new("sleep").arg("600").die_with_parent().spawn().unwrap();
        println!("started");
        child.wait().unwrap();
        return;
    }
    let mut parent = again("a_child_dies_with_its_parent").spawn().unwrap();
    let mut output = parent.stdout.take().unwrap();
    let mut text = String::new();
    while !text.contains("started") {
        let mut byte = [0];
        output.read_exact(&mut byte).unwrap();
        text.push(char::from(byte[0]));
    }
    parent.kill().unwrap();
    parent.wait().unwrap();
    // Ends only when the last holder of the pipe, the grandchild, is gone.
    output.read_to_string(&mut text).unwrap();
}

#[test]
fn without_root_everything_works_in_a_user_namespace() {
    const NAME: &str = "without_root_everything_works_in_a_user_namespace";
    if std::env::var_os(ROLE).is_some() {
        inside_a_user_namespace();
        return;
    }
    let closed = closed_directory();
    if let Err(error) = Preflight::check().user_namespaces {
        return skip_test(NAME, format!("user namespaces: {error}"));
    }
    let mut child = again(NAME).in_user_namespace().unwrap().spawn().unwrap();
    let Some(status) = child.wait_timeout(Duration::from_mins(1)).unwrap() else {
        child.kill().unwrap();
        panic!("it hangs");
    };
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(status.success() && text.contains("INSIDE OK"), "{text}");
    assert!(!Path::new("/run/netns/netio-private").exists(), "seen from outside");
    drop(closed);
    let kept = format!("RUN {:?}", open_directories("/run"));
    assert!(text.contains(&kept), "{kept} {text}");
}

/// A directory in `/run` that nobody inside a user namespace may enter: it belongs to a user that
/// is not mapped there. `None` for those who cannot make one.
fn closed_directory() -> Option<Closed> {
    let path = format!("/run/netio-closed-{}", std::process::id());
    fs::DirBuilder::new().mode(0o700).create(&path).ok()?;
    let closed = Closed(path);
    chown(&closed.0, Some(12_345), None).ok()?;
    Some(closed)
}

struct Closed(String);

impl Drop for Closed {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_thread_may_enter_where_it_is_without_privilege() {
    const NAME: &str = "a_thread_may_enter_where_it_is_without_privilege";
    if std::env::var_os(ROLE).is_some() {
        assert_eq!(Netns::current().unwrap().run(|| 7).unwrap(), 7);
        println!("ENTERED");
        return;
    }
    let mut command = again(NAME);
    if nix::unistd::geteuid().is_root() {
        command.uid(65_534).gid(65_534);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("ENTERED"), "{text}");
}

#[test]
fn a_scratch_namespace_evades_what_is_left_of_others() {
    let Some(probe) = ScratchNetns::for_test("a_scratch_namespace_evades") else { return };
    // As a process of the same id would have left them, had it been killed.
    let (front, number) = probe.name().rsplit_once('-').unwrap();
    let (front, number) = (front.replace("test-", "left-"), number.parse::<u32>().unwrap());
    let left: Vec<_> = (1..=16)
        .map(|next| Netns::create(&format!("{front}-{}", number + next)).unwrap())
        .collect();
    let made = ScratchNetns::new("left");
    for netns in left {
        netns.delete().unwrap();
    }
    made.unwrap();
}

fn inside_a_user_namespace() {
    println!("RUN {:?}", open_directories("/run"));
    let one = Netns::create("netio-private").unwrap();
    let two = Netns::create("netio-other").unwrap();
    let links = Links::in_netns(&one).unwrap();
    links.create_veth("a", "b", &two).unwrap();
    links.set_up("a").unwrap();
    one.set_sysctl("net.ipv4.ip_forward", "1").unwrap();
    assert!(links.get("a").unwrap().up);
    one.delete().unwrap();
    println!("INSIDE OK");
}

/// Those that everybody may enter.
fn open_directories(path: &str) -> Vec<OsString> {
    let entries = fs::read_dir(path).unwrap().map(Result::unwrap);
    let directories = entries.filter(|entry| {
        let metadata = entry.metadata().unwrap();
        metadata.is_dir() && metadata.mode() & 1 != 0
    });
    let mut names: Vec<_> =
        directories.map(|entry| entry.file_name()).filter(|name| name != "netns").collect();
    names.sort();
    names
}
