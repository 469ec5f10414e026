//! Proves that the model can object: what a gateway did is put down wrongly in its journal, in one
//! way after the other, and the clause that this is against is named.
#![expect(clippy::unwrap_used, reason = "helpers of tests, and nothing else")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gwlb::config::Settings;
use gwlb::control::{Event, Input, ProbeOutcome};
use gwlb::dataplane::select::Candidate;
use gwlb::dataplane::snapshot::{Fate, NoCandidate, Snapshot, TargetSlot};
use gwlb::dataplane::stats::TargetTotals;
use gwlb::dataplane::verdict::{DropReason, Hop, ReturnVerdict, Side, WorkerId};
use gwlb_tests::appliance::echo;
use gwlb_tests::gateway::journal::{Happened, Judgement, Stage, Step};
use gwlb_tests::gateway::{Gateway, Packet, Setup};
use gwlb_tests::model::{Clause, Fleet, Model, Violation};
use gwlb_tests::packets::{Ip, Problem, Tcp, fragments};
use router::source::Source;

/// A gateway's life, and what it counted in the end.
struct Life {
    settings: Settings,
    setup: Setup,
    gateway: Gateway,
    steps: Vec<Step>,
}

fn settings(more: &str) -> Settings {
    changed("[[target_group]]\nname = \"fw\"\n", more)
}

/// The scenarios' configuration with more lines behind some that are there once.
fn changed(behind: &str, more: &str) -> Settings {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/gateway.toml");
    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(text.matches(behind).count(), 1);
    let text = text.replace(behind, &format!("{behind}{more}"));
    gwlb::config::parse(&Source::new("model.toml", text)).unwrap()
}

fn there() -> Ip {
    Ip::new("203.0.113.7", "10.0.1.11")
}

impl Life {
    /// A connection and what belongs to it: its answer, fragments, an error, what is too long, what
    /// nobody knows, and all of that back from the appliances.
    fn of_a_connection(workers: u16) -> Life {
        let setup = Setup { journal: true, ..Setup::of(workers) };
        let settings = settings("");
        let mut gateway = Gateway::new(settings.clone(), setup);
        let back = there().reversed();
        let datagram = there().udp((7, 53), &[7; 300]);
        let answer = back.udp((53, 7), &[7; 300]);
        let far = [there().tcp((1000, 80), Tcp::SYN, b"")];
        let mut from_far = far.to_vec();
        from_far.extend(fragments(&datagram, 7, 104).into_iter().rev());
        from_far.push(there().icmp_error(Problem::PortUnreachable, &answer, 100));
        from_far.push(there().udp((8, 53), &[7; 1472]));
        from_far.push(Ip::new("203.0.113.7", "192.0.2.77").udp((8, 53), b"to nowhere"));
        let near = [back.tcp((80, 1000), Tcp::SYN_ACK, b""), answer];
        for (device, packets) in [("igw", &from_far[..]), ("app-a", &near[..])] {
            let at = gateway.attachment(device).unwrap();
            for packet in packets {
                // All by one queue, so that some have to be handed over, the fragments among them.
                gateway.enter(at, &[Packet::plain(&packet[..])], Some(workers - 1));
            }
        }
        let echoes: Vec<_> = gateway.take_sent().iter().map(echo).collect();
        gateway.advance(Duration::from_millis(5));
        gateway.receive(&echoes, None);
        let mut forged = echoes[0].clone();
        forged.bytes[39] ^= 1;
        gateway.receive(&[forged], None);
        gateway.advance(Duration::from_secs(400));
        let at = gateway.attachment("igw").unwrap();
        let late = there().tcp((1000, 80), Tcp::DATA, b"late");
        gateway.enter(at, &[Packet::plain(late)], None);
        gateway.deregister("fw", [192, 0, 2, 11].into(), None).unwrap();
        gateway.advance(Duration::from_millis(1));
        let steps = gateway.take_journal();
        Life { settings, setup, gateway, steps }
    }

    fn follow(&self, steps: &[Step]) -> Result<(), Violation> {
        let mut model = Model::new(&self.settings, &self.setup, &Fleet::new());
        steps.iter().try_for_each(|step| model.follow(step))?;
        model.check_books(&self.gateway.totals(), &self.gateway.target_totals())?;
        model.check_hostile(&self.gateway.hostile())
    }

    /// What the model says if a step is put down otherwise: the first of which `change` knows
    /// something else.
    fn otherwise(&self, mut change: impl FnMut(&mut Happened) -> bool) -> Violation {
        let mut steps = self.steps.clone();
        let changed = steps.iter_mut().any(|step| change(&mut step.what));
        assert!(changed, "there is no such step");
        self.follow(&steps).unwrap_err()
    }

    /// What the model says if the last step of a kind is missing.
    fn without(&self, is: impl Fn(&Happened) -> bool) -> Violation {
        let mut steps = self.steps.clone();
        let at = steps.iter().rposition(|step| is(&step.what)).unwrap();
        steps.remove(at);
        self.follow(&steps).unwrap_err()
    }
}

/// Changes the verdict of a packet that goes to an appliance; the number of it, from 0.
fn hop(number: usize, change: impl Fn(&mut Hop)) -> impl FnMut(&mut Happened) -> bool {
    let mut seen = 0;
    move |what| {
        let Happened::Judged { verdict: Judgement::ToAppliance(hop), .. } = what else {
            return false;
        };
        seen += 1;
        if seen == number + 1 {
            change(hop);
        }
        seen == number + 1
    }
}

fn verdict(
    is: impl Fn(&Judgement) -> bool,
    becomes: impl Fn(Judgement) -> Judgement,
) -> impl FnMut(&mut Happened) -> bool {
    move |what| match what {
        Happened::Judged { verdict, .. } if is(verdict) => {
            *verdict = becomes(verdict.clone());
            true
        }
        _ => false,
    }
}

/// Changes the candidates of the first pool in each view.
fn candidates(
    change: impl Fn(&mut Vec<Candidate<TargetSlot>>),
) -> impl FnMut(&mut Happened) -> bool {
    view(move |snapshot| {
        let mut all = snapshot.pools[0].candidates.to_vec();
        change(&mut all);
        snapshot.pools[0].candidates = all.into();
    })
}

fn view(change: impl Fn(&mut Snapshot)) -> impl FnMut(&mut Happened) -> bool {
    move |what| match what {
        Happened::Published(snapshot) => {
            let mut other = Snapshot::clone(snapshot);
            change(&mut other);
            *snapshot = Arc::new(other);
            true
        }
        _ => false,
    }
}

fn other(slot: TargetSlot) -> TargetSlot {
    TargetSlot(1 - slot.0)
}

fn assert_against(clause: Clause, violation: &Violation) {
    assert_eq!(violation.clause, clause, "{violation}");
}

#[test]
fn a_sound_life_is_sound() {
    for workers in 1..=3 {
        let life = Life::of_a_connection(workers);
        life.follow(&life.steps).unwrap_or_else(|violation| panic!("{violation}"));
    }
}

#[test]
fn what_is_not_conserved_is_found() {
    let life = Life::of_a_connection(2);
    let no_route = |verdict: &Judgement| *verdict == Judgement::Drop(DropReason::NoRoute);
    let is_held = |verdict: &Judgement| *verdict == Judgement::Held;
    for violation in [
        life.otherwise(verdict(no_route, |_| Judgement::Drop(DropReason::Blackhole))),
        life.otherwise(verdict(is_held, |_| Judgement::Drop(DropReason::FragmentWithoutFirst))),
        life.without(|what| matches!(what, Happened::Sent { .. })),
        life.without(|what| matches!(what, Happened::Delivered { .. })),
        life.without(|what| matches!(what, Happened::Judged { released: true, .. })),
        life.without(|what| matches!(what, Happened::Returned { .. })),
        life.otherwise(|what| match what {
            Happened::Returned { verdict, .. } => {
                *verdict = ReturnVerdict::Drop(DropReason::BadCookie);
                true
            }
            _ => false,
        }),
    ] {
        assert_against(Clause::Conservation, &violation);
    }
    let mut model = Model::new(&life.settings, &life.setup, &Fleet::new());
    life.steps.iter().try_for_each(|step| model.follow(step)).unwrap();
    let (totals, targets) = (life.gateway.totals(), life.gateway.target_totals());
    let mut counted = totals.clone();
    counted.udp.flow.delivered -= 1;
    assert_against(Clause::Conservation, &model.check_books(&counted, &targets).unwrap_err());
    let mut counted = targets.clone();
    let sent = |it: &&mut TargetTotals| it.sent_packets > 0;
    counted.values_mut().find(sent).unwrap().sent_packets += 1;
    assert_against(Clause::Conservation, &model.check_books(&totals, &counted).unwrap_err());
    let mut hostile = life.gateway.hostile();
    hostile.reused += 1;
    assert_against(Clause::Conservation, &model.check_hostile(&hostile).unwrap_err());
}

#[test]
fn what_is_not_transparent_is_found() {
    let life = Life::of_a_connection(1);
    for violation in [
        life.otherwise(|what| match what {
            Happened::Sent { sent, .. } => {
                *sent.bytes.last_mut().unwrap() ^= 1;
                true
            }
            _ => false,
        }),
        life.otherwise(|what| match what {
            Happened::Delivered { delivered, .. } => {
                delivered.packet[8] -= 1;
                true
            }
            _ => false,
        }),
        life.otherwise(|what| match what {
            Happened::Judged { verdict: Judgement::Reply { packet, .. }, .. } => {
                packet[26] ^= 1;
                true
            }
            _ => false,
        }),
    ] {
        assert_against(Clause::Transparency, &violation);
    }
}

#[test]
fn a_flow_that_does_not_stay_together_is_found() {
    let life = Life::of_a_connection(2);
    let from_home = |what: &mut Happened| {
        let Happened::Judged { verdict: Judgement::ToAppliance(hop), packet, .. } = what else {
            return false;
        };
        let answers = packet[12..16] == [10, 0, 1, 11];
        if answers {
            hop.target = other(hop.target);
        }
        answers
    };
    assert_against(Clause::Symmetry, &life.otherwise(from_home));
    let elsewhere = verdict(
        |verdict| matches!(verdict, Judgement::HandOver(..)),
        |verdict| match verdict {
            Judgement::HandOver(to, from) => Judgement::HandOver(WorkerId(to.0 + 2), from),
            other => other,
        },
    );
    assert_against(Clause::Symmetry, &life.otherwise(elsewhere));
}

#[test]
fn a_flow_that_moves_for_nothing_is_found() {
    let life = Life::of_a_connection(1);
    let moved = life.otherwise(hop(2, |hop| hop.target = other(hop.target)));
    assert!([Clause::Stability, Clause::Symmetry].contains(&moved.clause), "{moved}");
    let port = life.otherwise(hop(2, |hop| hop.port = (hop.port + 1) % 8));
    assert_against(Clause::Stability, &port);
    let fate = view(|snapshot| snapshot.pools[0].fates = vec![Fate::Rebalance]);
    assert_against(Clause::Stability, &life.otherwise(fate));
}

#[test]
fn what_passes_uninspected_is_found() {
    let life = Life::of_a_connection(1);
    let app = life.gateway.attachment("app-a").unwrap();
    let goes = |verdict: &Judgement| matches!(verdict, Judgement::ToAppliance(_));
    for violation in [
        life.otherwise(verdict(goes, |_| Judgement::Bypass(app))),
        life.otherwise(verdict(goes, |_| Judgement::Deliver(app))),
        life.otherwise(view(|snapshot| snapshot.pools[0].none = NoCandidate::Bypass)),
        life.otherwise(view(|snapshot| {
            let stranger = vec![TargetSlot(9)];
            snapshot.sources.insert([192, 0, 2, 99].into(), stranger);
        })),
    ] {
        assert_against(Clause::NoUninspectedPath, &violation);
    }
    // A cookie that nobody has given out, and that is taken.
    let mut accepted = None;
    let forged = life.otherwise(|what| match what {
        Happened::Returned { verdict: verdict @ ReturnVerdict::Accept(_), .. } => {
            accepted.get_or_insert_with(|| verdict.clone());
            false
        }
        Happened::Returned { verdict, .. } => {
            *verdict = accepted.clone().unwrap();
            true
        }
        _ => false,
    });
    assert_against(Clause::NoUninspectedPath, &forged);
}

#[test]
fn what_differs_between_gateways_of_a_fleet_is_found() {
    let lives = [Life::of_a_connection(1), Life::of_a_connection(3)];
    let fleet = Fleet::new();
    let follow = |life: &Life, steps: &[Step]| {
        let mut model = Model::new(&life.settings, &life.setup, &fleet);
        steps.iter().try_for_each(|step| model.follow(step))
    };
    for life in &lives {
        follow(life, &life.steps).unwrap_or_else(|violation| panic!("{violation}"));
    }
    let mut steps = lives[1].steps.clone();
    let elsewhere = |what: &mut Happened| hop(0, |hop| hop.target = other(hop.target))(what);
    assert!(steps.iter_mut().any(|step| elsewhere(&mut step.what)));
    let violation = follow(&lives[1], &steps).unwrap_err();
    assert_against(Clause::Determinism, &violation);
}

#[test]
fn a_placement_that_is_not_by_the_hash_is_found() {
    let life = Life::of_a_connection(1);
    let violation = life.otherwise(hop(0, |hop| hop.target = other(hop.target)));
    assert_against(Clause::Determinism, &violation);
    assert!(violation.to_string().contains("by its hash"), "{violation}");
}

#[test]
fn what_is_wrongly_translated_on_the_way_in_is_found() {
    let gateway = "[[internet_gateway]]\nname = \"igw\"\n";
    let mapping = "addresses = [{ public = \"198.51.100.11\", private = \"10.0.1.11\" }]\n";
    let settings = changed(gateway, mapping);
    let setup = Setup { journal: true, ..Setup::of(1) };
    let mut gateway = Gateway::new(settings.clone(), setup);
    let igw = gateway.attachment("igw").unwrap();
    let packet = Ip::new("203.0.113.7", "198.51.100.11").udp((7, 53), b"from outside");
    gateway.enter(igw, &[Packet::plain(packet)], None);
    let steps = gateway.take_journal();
    let life = Life { settings, setup, gateway, steps };
    life.follow(&life.steps).unwrap_or_else(|violation| panic!("{violation}"));
    let tampered = |at: usize| {
        life.otherwise(|what| match what {
            Happened::Entered { packet, .. } => {
                packet[at] ^= 1;
                true
            }
            _ => false,
        })
    };
    // The type of service, the time to live, the destination, the payload.
    for at in [1, 8, 19, 30] {
        assert_against(Clause::Transparency, &tampered(at));
    }
    let untold = life.without(|what| matches!(what, Happened::Entered { .. }));
    assert_against(Clause::Conservation, &untold);
}

#[test]
fn a_sound_packet_that_is_called_malformed_is_found() {
    let life = Life::of_a_connection(1);
    let mut judged = (Vec::new(), Side::Tun);
    let violation = life.otherwise(|what| match what {
        Happened::Judged { packet, origin, .. } => {
            judged = (packet.clone(), origin.side);
            false
        }
        Happened::Sent { worker, .. } => {
            let (packet, side) = judged.clone();
            let (stage, reason) = (Stage::Leaving, DropReason::MalformedPacket);
            *what = Happened::Lost { worker: *worker, side, stage, reason, segments: 1, packet };
            true
        }
        _ => false,
    });
    assert_against(Clause::Conservation, &violation);
    assert!(violation.to_string().contains("like any other"), "{violation}");
}

#[test]
fn what_has_no_limit_is_found() {
    let life = Life::of_a_connection(1);
    assert_against(Clause::Bounded, &life.otherwise(hop(0, |hop| hop.port = 8)));
    let mut steps = life.steps.clone();
    steps.retain(|step| !matches!(step.what, Happened::WorkerTimeout { .. }));
    assert_against(Clause::Bounded, &life.follow(&steps).unwrap_err());
}

#[test]
fn a_control_plane_that_does_otherwise_is_found() {
    let life = Life::of_a_connection(1);
    for violation in [
        life.without(|what| matches!(what, Happened::Probe(_))),
        life.otherwise(|what| match what {
            Happened::Told(Input::Probe { outcome, .. }) => {
                *outcome = ProbeOutcome::TimedOut;
                true
            }
            _ => false,
        }),
        life.without(|what| matches!(what, Happened::Event(Event::DrainBegun { .. }))),
        life.otherwise(|what| match what {
            Happened::Event(Event::DrainBegun { seconds, .. }) => {
                *seconds += 1.0;
                true
            }
            _ => false,
        }),
        life.otherwise(|what| match what {
            Happened::Command { ok, .. } => {
                *ok = false;
                true
            }
            _ => false,
        }),
        life.otherwise(candidates(|all| all[0].weight += 1)),
        life.otherwise(candidates(|all| all.truncate(1))),
        life.otherwise(view(|snapshot| snapshot.targets[0].path_mtu += 1)),
        life.otherwise(view(|snapshot| snapshot.topology_epoch += 1)),
        life.otherwise(view(|snapshot| snapshot.pools[0].reset_both_ends = true)),
    ] {
        assert_against(Clause::Documented, &violation);
    }
}
