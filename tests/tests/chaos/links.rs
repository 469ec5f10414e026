//! Cables that are cut, devices that are down, and packets that no longer fit.

use std::time::Duration;

use gwlb_tests::world::traffic::{self, EchoServer};
use gwlb_tests::world::{Family, Fault, Ordeal, Plan};

use super::{tell, three, world};

const MOMENT: Duration = Duration::from_millis(300);

#[test]
fn cables_that_are_cut_and_mended_harm_nobody_for_longer() {
    let Some(world) = world("cables_that_are_cut", three()) else { return };
    let mut ordeal = Ordeal::begin(world);
    for number in 0..3 {
        ordeal.wait_for_state(number, "healthy");
    }
    ordeal.open_streams(2);
    for number in [0, 1, 2, 1] {
        ordeal.strike(&Fault::CutCable(number, MOMENT));
        ordeal.breathe();
    }
    let outcome = ordeal.end();
    let lost = outcome.assert_only(&["send_failed"]);
    assert!(lost > 0, "packets were on their way to a cable that was cut: {:#?}", outcome.status);
    tell("four cables cut for 0.3 s", &outcome);
}

#[test]
fn devices_of_hosts_that_go_down_and_up_are_used_again() {
    let Some(world) = world("devices_that_go_down", three()) else { return };
    let mut ordeal = Ordeal::begin(world);
    ordeal.open_streams(2);
    for host in [0, 1, 0, 1] {
        ordeal.strike(&Fault::DownTun(host, MOMENT));
        ordeal.breathe();
    }
    let outcome = ordeal.end();
    outcome.assert_only(&["delivery_failed"]);
    tell("four devices down for 0.3 s", &outcome);
}

#[test]
fn an_underlay_whose_mtu_changes_under_transfers_carries_them_on() {
    // Jumbo frames, then frames that a packet of 1500 bytes does not fit with its headers, and back.
    let plan = Plan { appliances: vec![0, 0], underlay_mtu: 9000, ..Plan::default() };
    let Some(world) = world("an_mtu_that_changes", plan) else { return };
    let mut ordeal = Ordeal::begin(world);
    ordeal.open_streams(2);
    for (number, mtu) in [(0, 1500), (1, 1400), (0, 1300)] {
        let fault = Fault::ShrinkMtu(number, mtu, MOMENT);
        ordeal.inflict(&fault);
        ordeal.breathe();
        ordeal.gateway.wait_until("the gateway knows", |status| {
            u32::from(status.targets[number].path_mtu) == mtu
        });
        ordeal.breathe();
        ordeal.relieve(&fault);
        ordeal.breathe();
    }
    let outcome = ordeal.end();
    outcome.assert_only(&["send_failed"]);
    assert!(outcome.status.tun.generated > 0, "senders were told: {:#?}", outcome.status);
    tell("MTU of the underlay changed three times", &outcome);
}

#[test]
fn a_gateway_that_starts_while_a_cable_is_cut_uses_it_when_it_is_mended() {
    let Some(world) = world("starts_while_a_cable_is_cut", three()) else { return };
    let mut ordeal = Ordeal::begin(world);
    ordeal.strike_both(&Fault::CutCable(1, MOMENT), &Fault::KillGateway);
    for number in 0..3 {
        ordeal.wait_for_state(number, "healthy");
    }
    let server = EchoServer::start(&ordeal.world.servers[0], Family::V4);
    for _ in 0..32 {
        let socket = traffic::datagrams(&ordeal.world.client, server.address());
        // As long as there was no way to measure, what fits is what fits Ethernet.
        for length in &traffic::LENGTHS[..7] {
            traffic::exchange(&socket, &vec![0x5a; *length]).unwrap();
        }
    }
    let status = ordeal.gateway.status();
    assert!(status.targets[1].returned_packets > 0, "{status:#?}");
    drop(server);
    let outcome = ordeal.end();
    outcome.assert_only(&["send_failed"]);
    tell("started while a cable was cut", &outcome);
}
