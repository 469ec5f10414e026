//! Commands beside `run`: what they print, on a terminal and elsewhere, and to readers that leave.

use std::fs::{File, Permissions};
use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use gwlb_tests::world::status::{ask, get};
use gwlb_tests::world::{Plan, Process, World, traffic};
use nix::pty::openpty;
use serde_json::Value;

use super::{FAMILIES, world};

/// Runs a command on a terminal, and gives its exit status and what is seen there.
fn on_a_terminal(world: &World, arguments: &[&str]) -> (Option<i32>, String) {
    let terminal = openpty(None, None).unwrap();
    let mut process = Process::start_with("command", world.command(arguments), terminal.slave);
    let mut screen = Vec::new();
    // A terminal whose other end was closed says EIO when everything was read.
    let ended = File::from(terminal.master).read_to_end(&mut screen).unwrap_err();
    assert_eq!(ended.raw_os_error(), Some(nix::errno::Errno::EIO as i32));
    (process.finish().code, String::from_utf8(screen).unwrap())
}

#[test]
fn status_is_a_table_on_a_terminal_and_json_elsewhere() {
    let Some(world) = world("status", Plan::default()) else { return };
    let _nva = world.start_appliances();
    let mut gateway = world.start_gateway();
    traffic::transfer(&world.client, &world.servers[0], FAMILIES[0], 1 << 20);
    let status = gateway.settled();

    let socket = world.admin_socket();
    let arguments = ["gwlb", "status", "--socket", socket.to_str().unwrap()];
    let (code, screen) = on_a_terminal(&world, &arguments);
    assert_eq!(code, Some(0), "{screen}");
    println!("{screen}");
    assert!(screen.contains("running") && screen.contains("2 workers"), "{screen}");
    for (row, numbers) in [
        ("received", [status.tun.received, status.udp.received]),
        ("delivered", [status.tun.delivered, status.udp.delivered]),
        ("192.0.2.16:6081", [status.targets[0].sent_packets, 9000]),
    ] {
        let line = screen.lines().find(|line| line.contains(row)).unwrap();
        for number in numbers {
            assert!(line.contains(&number.to_string()), "{number} in {line}");
        }
    }

    for json in [&arguments[..], &[&arguments[..], &["--json"]].concat()] {
        let finished = world.run(json);
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
        let value: Value = serde_json::from_str(&finished.stdout).unwrap();
        assert_eq!(value["tun"]["received"], status.tun.received);
        assert_eq!(value["targets"][0]["address"], "192.0.2.16:6081");
    }
    let (code, screen) = on_a_terminal(&world, &[&arguments[..], &["--json"]].concat());
    assert_eq!(code, Some(0));
    let value: Value = serde_json::from_str(&screen).unwrap();
    assert_eq!(value["state"], "running");

    gateway.stop();
    let finished = world.run(&arguments);
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), ""), "{}", finished.log);
    assert!(finished.stderr.contains(socket.to_str().unwrap()), "{}", finished.log);
}

#[test]
fn a_reader_that_leaves_is_a_clean_end() {
    let Some(world) = world("a_reader_that_leaves", Plan::default()) else { return };
    let mut gateway = world.start_gateway();
    let (socket, file) = (world.admin_socket(), world.folder().join("gateway.toml"));
    let (socket, file) = (socket.to_str().unwrap(), file.to_str().unwrap());
    for arguments in [
        &["gwlb", "status", "--socket", socket][..],
        &["gwlb", "status", "--json", "--socket", socket],
        &["gwlb", "check", file],
        &["gwlb", "check", "--json", file],
        &["gwlb", "schema"],
        &["gwlb", "--help"],
        &["gwlb", "--version"],
        &["nva-sample", "--help"],
        &["router", "check", file],
        &["router", "show", file],
        &["router", "trace", file, "--help"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let command = world.command(arguments);
        let finished = Process::start_with("command", command, Stdio::from(writer)).finish();
        assert_eq!(finished.code, Some(0), "{arguments:?}: {}", finished.log);
        assert_eq!(finished.stderr, "", "{arguments:?}");
    }
    gateway.stop();

    // Nobody has to listen for "ready" either.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let command = world.command(&["gwlb", "run", file]);
    let mut process = Process::start_with("gwlb", command, Stdio::from(writer));
    let logged = process.wait_for_line("packets flow");
    assert!(!logged.contains('\x1b'), "colours are for terminals: {logged:?}");
    process.terminate();
    assert_eq!(process.finish().code, Some(0));
}

#[test]
fn the_admin_api_answers_as_it_is_documented() {
    let Some(world) = world("the_admin_api", Plan::default()) else { return };
    let mut gateway = world.start_gateway();
    let socket = world.admin_socket();
    let text = |path| String::from_utf8(get(&socket, path).unwrap()).unwrap();
    let json = |path| serde_json::from_str::<Value>(&text(path)).unwrap();
    assert_eq!(text("/live"), "live\n");
    assert_eq!(text("/ready"), "ready\n");
    let targets = json("/v1/target-groups/fw/targets");
    assert_eq!(targets["items"][0]["address"], "192.0.2.16:6081");
    assert_eq!(targets["next"], Value::Null);
    let status = json("/v1/status");
    assert_eq!((&status["state"], &status["workers"]), (&"running".into(), &2.into()));
    let metrics = text("/metrics");
    for line in [
        "# HELP gwlb_flows_active Flows in the tables now.",
        "# TYPE gwlb_flows_active gauge",
        "gwlb_flows_active 0",
        "gwlb_packets_received_total{side=\"tun\"} 0",
        "gwlb_packets_dropped_total{reason=\"no_route\",side=\"tun\"} 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}:\n{metrics}");
    }
    for (path, field) in [("/v1/target-groups/none/targets", "\"field\":\"group\""), ("/v2", "/v2")]
    {
        let refused = get(&socket, path).unwrap_err().to_string();
        assert!(refused.starts_with("HTTP/1.1 404 "), "{refused}");
        assert!(
            refused.contains("application/problem+json") && refused.contains(field),
            "{refused}"
        );
    }
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "{mode:o}");
    gateway.stop();
}

#[test]
fn an_admin_api_on_tcp_answers_only_who_shows_the_token() {
    let Some(world) = world("an_admin_api_on_tcp", Plan::default()) else { return };
    // Free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let token = world.write("token", "open-sesame-0123456789\n");
    std::fs::set_permissions(&token, Permissions::from_mode(0o600)).unwrap();
    let unix = format!("admin = \"{}\"", world.admin_socket().display());
    let tcp = format!("admin = \"{address}\"\nadmin_token_file = \"{}\"", token.display());
    let mut process = world.launch_gateway(&world.configuration_with(&[(&unix, &tcp)]));
    process.wait_for_line("ready");
    let ask = |headers| ask(TcpStream::connect(address).unwrap(), "/v1/status", headers);
    for headers in
        ["", "Authorization: Bearer open\r\n", "Authorization: open-sesame-0123456789\r\n"]
    {
        let refused = ask(headers).unwrap_err().to_string();
        assert!(refused.starts_with("HTTP/1.1 401 "), "{refused}");
        assert!(refused.contains("application/problem+json"), "{refused}");
    }
    let status = ask("Authorization: Bearer open-sesame-0123456789\r\n").unwrap();
    let status: Value = serde_json::from_slice(&status).unwrap();
    assert_eq!(status["state"], "running");
    process.terminate();
    assert_eq!(process.finish().code, Some(0));
}
