//! `gwlb top` on a real terminal: what it shows is what the gateway counts, what it does is done,
//! and the terminal is afterwards as it was before.

use std::net::{SocketAddr, TcpListener, TcpStream};

use gwlb_tests::tmux::{self, Screen};
use gwlb_tests::world::status::get;
use gwlb_tests::world::{Family, LIMIT, Plan, World, traffic};

use super::{FAMILIES, directions, world};

/// How many bytes are sent.
const BYTES: u64 = 1 << 20;

/// The binary's command line, asking five times a second.
fn top(world: &World) -> String {
    let (binary, socket) = (env!("CARGO_BIN_EXE_gwlb-tests"), world.admin_socket());
    format!("{binary} gwlb top --interval 0.2 --socket {}", socket.display())
}

/// The numbers of a line, with their commas taken out, behind the first text of it that is `name`.
fn numbers(screen: &str, name: &str) -> Vec<u64> {
    let Some(place) = screen.find(name) else { return Vec::new() };
    let line = screen[place + name.len()..].lines().next().unwrap_or_default();
    line.split_whitespace().filter_map(|word| word.replace(',', "").parse().ok()).collect()
}

/// The sum of all series of a metric that have this label, or of all that there are.
fn metric(metrics: &str, name: &str, label: &str) -> u64 {
    let series = metrics.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with([' ', '{'])) && line.contains(label)
    });
    series.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// State and flows of a target, as its row has them.
fn row(screen: &str, target: &str) -> Option<(String, u64)> {
    let mut rows = screen.lines().filter_map(|line| line.strip_prefix(target));
    // Other lines speak of the target, too: a message, or why it is in its state.
    let row = rows.find(|row| row.contains(" B") && !row.starts_with(':'))?;
    let mut words = row.split_whitespace();
    let state = words.next()?.to_owned();
    // Behind "draining" stands for how long yet.
    let flows = words.nth(if state == "draining" { 2 } else { 0 })?;
    Some((state, flows.replace(',', "").parse().ok()?))
}

/// Connections that stay open: so many that no target is left without.
fn connections(world: &World, listener: &TcpListener) -> Vec<(TcpStream, TcpStream)> {
    let server = SocketAddr::new(world.servers[0].address(Family::V4), port(listener));
    let open = |_| {
        let client = traffic::connect(&world.client, server, LIMIT).unwrap();
        (client, listener.accept().unwrap().0)
    };
    (0..24).map(open).collect()
}

fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().unwrap().port()
}

#[test]
fn what_is_shown_is_what_is_counted_and_what_is_asked_for_is_done() {
    let test = "what_is_shown_is_what_is_counted";
    if !tmux::is_there(test) {
        return;
    }
    let plan = Plan {
        appliances: vec![0, 0],
        health: true,
        load_balancer: "tcp_half_closed_timeout_seconds = 1\ntcp_closed_timeout_seconds = 1",
        ..Plan::default()
    };
    let Some(world) = world(test, plan) else { return };
    let _nva = world.start_appliances();
    let gateway = world.start_gateway();
    let screen = Screen::start(world.folder(), 120, 40);
    screen.line(&top(&world));
    let targets = [0, 1].map(|number| format!("{}:{}", world.plan.target(number), geneve::PORT));
    let healthy = |text: &str| {
        let states = targets.iter().map(|target| row(text, target).map(|(state, _)| state));
        states.flatten().filter(|state| state == "healthy").count() == 2
    };
    screen.wait_for("the targets are healthy", healthy);

    for family in FAMILIES {
        for (from, to) in directions(&world) {
            traffic::transfer(from, to, family, BYTES);
        }
    }
    let listener = traffic::listen(&world.servers[0], Family::V4, 0);
    let connections = connections(&world, &listener);
    let status = gateway.settled();
    let metrics = String::from_utf8(get(&world.admin_socket(), "/metrics").unwrap()).unwrap();
    let sum = |name: &str, label: &str| metric(&metrics, name, label);
    let packets_in = sum("gwlb_packets_received_total", "side=\"tun\"");
    let packets_out =
        sum("gwlb_packets_delivered_total", "") + sum("gwlb_packets_bypassed_total", "");
    let [sent, returned] =
        ["sent", "returned"].map(|it| sum(&format!("gwlb_target_{it}_bytes_total"), ""));
    assert!(packets_in > 100 && sent > 4 * BYTES, "{packets_in} packets, {sent} bytes");
    screen.wait_for("all totals are those of the metrics", |text| {
        let last = |name| numbers(text, name).last().copied();
        let half = |name| numbers(text, name).first().copied();
        (half("packets in "), half("packets out ")) == (Some(packets_in), Some(packets_out))
            && (last("to appliances "), last("from appliances ")) == (Some(sent), Some(returned))
    });
    let flows = |text: &str, target: usize| row(text, &targets[target]).map(|(_, flows)| flows);
    let state = |text: &str, target: usize| row(text, &targets[target]).map(|(state, _)| state);
    screen.wait_for("each target has its flows", |text| {
        let label = |target: usize| format!("target=\"{}\"", targets[target]);
        let counted = |target| sum("gwlb_target_active_flows", &label(target));
        (0..2).all(|target| flows(text, target) == Some(counted(target)))
    });
    assert!(status.targets.iter().all(|target| target.active_flows > 0), "{:?}", status.targets);

    // A question, and nothing is done before it is answered; nor if it is answered with no.
    screen.keys(&["d"]);
    let asked = screen.wait_for("the question", |text| text.contains("Drain a target?"));
    let name = format!("target               {}", targets[0]);
    for fact in [&name, "target group         fw", "deregistration delay 300 s"] {
        assert!(asked.contains(fact), "no {fact} in\n{asked}");
    }
    let has = status.targets[0].active_flows;
    assert_eq!(numbers(&asked, "flows now "), [has], "{asked}");
    screen.keys(&["n"]);
    screen.wait_for("nothing is done", |text| text.contains("nothing was done"));
    assert!(gateway.status().targets[0].draining.is_none());

    screen.keys(&["d", "y"]);
    let draining = |text: &str| state(text, 0).is_some_and(|state| state == "draining");
    let drains = screen.wait_for("it is draining", draining);
    assert!(gateway.status().targets[0].draining.is_some());
    assert_eq!(flows(&drains, 0), Some(has), "those that it has go on:\n{drains}");
    let told = format!("{} is deregistered", targets[0]);
    screen.wait_for("the event is told", |text| text.contains(&told));
    // Back, and once more.
    screen.keys(&["r", "y"]);
    screen.wait_for("it is registered", |text| state(text, 0).is_some_and(|it| it == "healthy"));
    assert!(gateway.status().targets[0].draining.is_none());
    screen.keys(&["d", "Enter"]);
    screen.wait_for("it is draining again", draining);
    drop(connections);
    // A target that is drained is gone, or about to be.
    screen.wait_for("its flows have ended", |text| flows(text, 0).is_none_or(|left| left == 0));
    gateway.wait_until("so the gateway says", |status| {
        status.targets.iter().all(|target| target.address != targets[0] || target.active_flows == 0)
    });
}

#[test]
fn it_waits_for_the_gateway_and_leaves_the_terminal_as_it_was() {
    let test = "it_waits_for_the_gateway";
    if !tmux::is_there(test) {
        return;
    }
    let Some(world) = world(test, Plan::default()) else { return };
    let _nva = world.start_appliances();
    let screen = Screen::start(world.folder(), 80, 24);
    let settings = world.folder().join("settings");
    let mut lines = 0;
    let mut saved = |screen: &Screen| {
        let _ = std::fs::remove_file(&settings);
        lines += 1;
        screen.line(&format!("clear; stty -g > {}; echo do''ne-{lines}", settings.display()));
        let done = format!("done-{lines}\n");
        screen.wait_for("the settings are there", |text| text.starts_with(&done));
        std::fs::read_to_string(&settings).unwrap()
    };
    let before = saved(&screen);
    assert_eq!(screen.state(), (false, true));

    let start = |screen: &Screen| {
        let pid = world.folder().join("pid");
        let _ = std::fs::remove_file(&pid);
        screen.line(&format!(
            "sh -c 'echo $$ > {}; exec {}'; echo \"left with $?\"",
            pid.display(),
            top(&world)
        ));
        pid
    };
    start(&screen);
    let nobody =
        screen.wait_for("nobody is there", |text| text.contains("asked again every 0.2 s"));
    assert!(nobody.contains("cannot reach the gateway at"), "{nobody}");
    assert!(nobody.contains("Is the gateway running"), "{nobody}");
    assert_eq!(screen.state(), (true, false));
    let mut gateway = world.start_gateway();
    screen.wait_for("it comes to life", |text| {
        text.contains("  running  ") && text.contains("Traffic")
    });
    gateway.stop();
    screen.wait_for("it is lost", |text| text.contains("NO ANSWER") && text.contains("Traffic"));
    let gateway = world.start_gateway();
    screen.wait_for("it is back", |text| !text.contains("NO ANSWER") && text.contains("Traffic"));

    screen.resize(50, 10);
    screen.wait_for("it is too small", |text| text.contains("This terminal has 50x10 characters"));
    screen.resize(100, 30);
    screen.wait_for("it has room again", |text| {
        text.contains("Traffic") && text.lines().count() == 30
    });
    screen.resize(80, 24);

    for (way, keys) in [("q", "q"), ("Esc", "Escape"), ("Ctrl-C", "C-c"), ("a signal", "")] {
        let ended = if keys.is_empty() {
            let pid = start(&screen);
            screen.wait_for("it runs", |text| text.contains("Traffic"));
            screen.wait_for("its number is known", |_| pid.exists());
            let pid = std::fs::read_to_string(pid).unwrap();
            let pid = nix::unistd::Pid::from_raw(pid.trim().parse().unwrap());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
            screen.wait_for("it ends", |text| text.contains("left with 0"))
        } else {
            screen.keys(&[keys]);
            screen.wait_for("it ends", |text| text.contains("left with 0"))
        };
        assert!(ended.starts_with("done-"), "{way}: what was there before is gone:\n{ended}");
        assert!(!ended.contains("Traffic"), "{way}: something is left:\n{ended}");
        assert_eq!(screen.state(), (false, true), "{way}");
        assert_eq!(saved(&screen), before, "{way}");
        if !keys.is_empty() && way != "Ctrl-C" {
            start(&screen);
            screen.wait_for("it runs again", |text| text.contains("Traffic"));
        }
    }

    let top = top(&world);
    for (number, line, said) in [
        (1, format!("TERM=dumb {top}"), "TERM=dumb"),
        (2, format!("{top} > /dev/null"), "gwlb status --json"),
    ] {
        // What is typed is not yet what is said.
        screen.line(&format!("clear; {line}; echo sta''tus-{number} $?"));
        let ended = format!("status-{number} 2\n");
        let refused = screen.wait_for("it is refused", |text| text.contains(&ended));
        assert!(refused.contains(said), "{refused}");
    }
    drop(gateway);
}
