//! What runs out: room for the log, file descriptors, memory.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use gwlb_tests::world::canary;
use gwlb_tests::world::status::Status;
use gwlb_tests::world::{Fault, Ordeal, wait_until};
use nix::sys::signal::Signal;

use super::{tell, three, world};

/// A log of which no line can be written: what is done while it fails is done all the same.
fn goes_on_without_a_log(name: &str, starter: &[&str]) {
    let Some(world) = world(name, three()) else { return };
    let mut ordeal = Ordeal::begin_by(world, starter);
    ordeal.open_streams(1);
    let other = ordeal.world.other_configuration();
    for _ in 0..3 {
        // Each is told of in the log, and so are targets that come and go.
        ordeal.gateway.reload(&other).unwrap();
        ordeal.gateway.reload(&ordeal.world.configuration()).unwrap();
        ordeal.kill_appliance(2);
        ordeal.wait_for_state(2, "unhealthy");
        ordeal.start_appliance(2);
        ordeal.wait_for_state(2, "healthy");
        ordeal.breathe();
    }
    // A device that is gone is told of by the workers themselves.
    ordeal.world.client.links().delete("igw").unwrap();
    ordeal.gateway.wait_until("the device is missed", |status| {
        status.drops().contains_key("delivery_failed")
    });
    ordeal.restart_gateway();
    let outcome = ordeal.end();
    outcome.assert_drops([]);
    tell(name, &outcome);
}

#[test]
fn a_full_disk_for_stderr_stops_nothing() {
    goes_on_without_a_log("stderr_is_full", &["sh", "-c", "exec \"$0\" \"$@\" 2>/dev/full"]);
}

#[test]
fn a_full_disk_for_all_output_stops_nothing() {
    let all = "exec \"$0\" \"$@\" >/dev/full 2>/dev/full";
    goes_on_without_a_log("all_output_is_full", &["sh", "-c", all]);
}

#[test]
fn an_appliance_whose_log_cannot_be_written_takes_new_rules_all_the_same() {
    let Some(world) = world("an_appliance_without_a_log", three()) else { return };
    let mut ordeal = Ordeal::begin(world);
    ordeal.open_streams(1);
    ordeal.restart_appliance_by(0, &["sh", "-c", "exec \"$0\" \"$@\" 2>/dev/full"]);
    for rules in ["default = \"maybe\"".to_owned(), canary::rules()] {
        ordeal.world.write("canary.toml", rules);
        let appliance = ordeal.appliances[0].as_ref().unwrap();
        let before = appliance.report().rules.len();
        appliance.process.signal(Signal::SIGHUP);
        ordeal.breathe();
        assert_eq!(ordeal.appliances[0].as_ref().unwrap().report().rules.len(), before);
    }
    ordeal.wait_for_state(0, "healthy");
    let outcome = ordeal.end();
    outcome.assert_drops([]);
    tell("an appliance without a log", &outcome);
}

#[test]
fn a_disk_that_fills_up_costs_lines_of_the_log_and_nothing_else() {
    let Some(world) = world("a_disk_that_fills_up", three()) else { return };
    let disk = world.folder().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let disk = disk.to_str().unwrap();
    // Sixteen kibibytes, in a mount namespace of the gateway's own; the log says much.
    let script = format!(
        "mount -t tmpfs -o size=16k none {disk} && export GWLB_LOG=debug && \
         exec \"$0\" \"$@\" 2>>{disk}/log"
    );
    let starter = ["unshare", "--mount", "sh", "-c", &script];
    let mut ordeal = Ordeal::begin_by(world, &starter);
    ordeal.open_streams(1);
    let log = format!("/proc/{}/root{disk}/log", ordeal.gateway.process.id());
    let size = || std::fs::metadata(&log).unwrap().len();
    let other = ordeal.world.other_configuration();
    wait_until("the disk is full", || {
        ordeal.gateway.reload(&other).unwrap();
        ordeal.gateway.reload(&ordeal.world.configuration()).unwrap();
        size() == 16 << 10
    });
    ordeal.breathe();
    ordeal.kill_appliance(2);
    ordeal.wait_for_state(2, "unhealthy");
    ordeal.start_appliance(2);
    ordeal.wait_for_state(2, "healthy");
    assert_eq!(size(), 16 << 10);

    // As soon as there is room, it is used again.
    std::fs::File::options().write(true).open(&log).unwrap().set_len(0).unwrap();
    wait_until("something is written again", || {
        ordeal.gateway.reload(&other).unwrap();
        std::fs::read_to_string(&log).unwrap().contains("registered")
    });
    ordeal.gateway.reload(&ordeal.world.configuration()).unwrap();
    let outcome = ordeal.end();
    outcome.assert_drops([]);
    tell("a disk of 16 KiB for the log", &outcome);
}

#[test]
fn file_descriptors_that_run_out_cost_probes_and_clients_and_come_back() {
    let Some(world) = world("file_descriptors_run_out", three()) else { return };
    let mut ordeal = Ordeal::begin(world);
    for number in 0..3 {
        ordeal.wait_for_state(number, "healthy");
    }
    ordeal.open_streams(2);
    let has = ordeal.gateway.process.open_files();
    for _ in 0..2 {
        // Nothing more can be opened: no connection to a target, none from a client.
        ordeal.strike(&Fault::StarveFiles(Duration::from_secs(1)));
        ordeal.breathe();
        // What could not be probed for a reason of the gateway's own is not called unhealthy.
        let status = ordeal.gateway.status();
        for target in &status.targets {
            let reason = target.reason.as_deref();
            let known = target.state == "healthy"
                || (target.state == "unavailable" && reason == Some("Elb.InternalError"));
            assert!(known, "{target:#?}");
        }
        for number in 0..3 {
            ordeal.wait_for_state(number, "healthy");
        }
    }
    ordeal.gateway.process.wait_for_line("unavailable (Elb.InternalError)");
    // A configuration that cannot even be read changes nothing.
    ordeal.world.write("gateway.toml", ordeal.world.other_configuration());
    ordeal.gateway.process.limit("--nofile=4:");
    ordeal.gateway.process.signal(Signal::SIGHUP);
    ordeal.gateway.process.wait_for_line("not reloaded");
    ordeal.gateway.process.limit("--nofile=1024:");
    assert_eq!(ordeal.gateway.status().targets.len(), 3);
    for number in 0..3 {
        ordeal.wait_for_state(number, "healthy");
    }
    // Probes do find out again who is dead.
    ordeal.kill_appliance(1);
    ordeal.wait_for_state(1, "unhealthy");
    ordeal.start_appliance(1);
    ordeal.wait_for_state(1, "healthy");
    wait_until("nothing that was opened stays open", || {
        ordeal.gateway.process.open_files() <= has + 4
    });
    let outcome = ordeal.end();
    outcome.assert_drops([]);
    assert_eq!(outcome.status.flows.rebalanced, 0, "{:#?}", outcome.status);
    tell("no file descriptor left for 1 s, twice", &outcome);
}

#[test]
fn clients_that_take_every_place_are_refused_and_cost_no_target_its_health() {
    let Some(world) = world("clients_that_take_every_place", three()) else { return };
    let starter = ["prlimit", "--nofile=128:128"];
    let mut ordeal = Ordeal::begin_by(world, &starter);
    for number in 0..3 {
        ordeal.wait_for_state(number, "healthy");
    }
    ordeal.open_streams(1);
    let socket = ordeal.world.admin_socket();
    let before = ordeal.gateway.status();
    for _ in 0..3 {
        // Many more than there are file descriptors; they say nothing, and do not go away.
        let clients: Vec<_> = (0..400).map_while(|_| UnixStream::connect(&socket).ok()).collect();
        assert!(clients.len() > 128, "{}", clients.len());
        ordeal.breathe();
        drop(clients);
        wait_until("a client gets in again", || Status::read(&socket).is_ok());
    }
    for number in 0..3 {
        ordeal.wait_for_state(number, "healthy");
    }
    let after = ordeal.gateway.status();
    assert_eq!(after.flows.rebalanced, before.flows.rebalanced, "{after:#?}");
    ordeal.kill_appliance(1);
    ordeal.wait_for_state(1, "unhealthy");
    ordeal.start_appliance(1);
    ordeal.wait_for_state(1, "healthy");
    let outcome = ordeal.end();
    outcome.assert_drops([]);
    tell("400 clients for 128 file descriptors, three times", &outcome);
}
