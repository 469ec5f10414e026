use proptest::prelude::*;
use rstest::rstest;

use super::twin::{Happens, Twin};
use super::*;
use Health::{Abnormal, Normal};

#[expect(clippy::disallowed_methods, reason = "an Instant can be had in no other way")]
fn start() -> Instant {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *START.get_or_init(Instant::now)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn member(weight: u8) -> Member {
    Member { weight, enabled: true }
}

fn pair(return_after: Option<Duration>) -> Config {
    let members = vec![member(100), member(0)];
    Config { mode: GroupMode::ActiveStandby, members, return_after }
}

fn weighted(weights: &[u8]) -> Config {
    let members = weights.iter().map(|weight| member(*weight)).collect();
    Config { mode: GroupMode::Weighted, members, return_after: None }
}

/// What happens, in a few letters.
///
/// `n0` and `a1`: member 0 is Normal, member 1 Abnormal; `-1` and `+1`: it is disabled and enabled;
/// `s1`: somebody switches to it; `b`: somebody switches back; `ok`: packets go as decided; `5s`:
/// five seconds pass; `d`: it is removed. What is joined by a comma happens at one time.
fn follow(group: &mut Failover, script: &str) -> Vec<String> {
    let mut now = start();
    let mut told = Vec::new();
    for step in script.split_whitespace() {
        let member = |text: &str| text[1..].parse::<usize>().unwrap();
        let healths: Vec<_> = step
            .split(',')
            .filter_map(|one| match one.as_bytes()[0] {
                b'n' => Some((member(one), Normal)),
                b'a' => Some((member(one), Abnormal)),
                _ => None,
            })
            .collect();
        if !healths.is_empty() {
            group.report(healths, now);
        } else if let Some(passed) = step.strip_suffix('s') {
            now += seconds(passed.parse().unwrap());
            group.handle_timeout(now);
        } else {
            match step {
                "ok" => group.confirm(),
                "b" => group.switch(None, now).unwrap(),
                "d" => group.delete(),
                _ if step.starts_with('s') => {
                    if let Err(refused) = group.switch(Some(member(step)), now) {
                        told.push(format!("{refused:?}!"));
                    }
                }
                _ => group.set_enabled(member(step), step.starts_with('+'), now),
            }
        }
        while let Some(Change { from, to, active, .. }) = group.poll_change() {
            let active = active.map(|it| it.to_string()).unwrap_or_default();
            told.push(if from == to { format!("({to}){active}") } else { format!("{to}{active}") });
        }
    }
    told
}

/// Every way from each state to each that it leads to.
#[rstest]
#[case::pending_until_both_are_known("n0 n1", "Available0")]
#[case::pending_to_abnormal("n0,a1", "Abnormal0")]
#[case::pending_to_unavailable("a0,a1", "Unavailable0")]
#[case::pending_to_switching("a0 n1", "Switching1")]
#[case::pending_does_not_wait_for_who_is_disabled("n0 -1", "Abnormal0")]
#[case::pending_to_deleting("d", "Deleting0")]
#[case::pending_is_not_switched("n1 s1 n0", "Pending! Available0")]
#[case::available_to_abnormal("n0,n1 a1", "Available0 Abnormal0")]
#[case::available_to_abnormal_without_standby("n0,n1 -1", "Available0 Abnormal0")]
#[case::available_to_unavailable("n0,n1 a0,a1", "Available0 Unavailable0")]
#[case::available_to_switching("n0,n1 a0", "Available0 Switching1")]
#[case::available_to_switching_by_disabling("n0,n1 -0", "Available0 Switching1")]
#[case::available_to_switching_by_hand("n0,n1 s1", "Available0 Switching1")]
#[case::available_to_deleting("n0,n1 d n0,a1 9s", "Available0 Deleting0")]
#[case::abnormal_to_available("n0,a1 n1", "Abnormal0 Available0")]
#[case::abnormal_to_unavailable("n0,a1 a0", "Abnormal0 Unavailable0")]
#[case::abnormal_changes_sides("n0,a1 a0,n1", "Abnormal0 Switching1")]
#[case::unavailable_to_abnormal("a0,a1 n0", "Unavailable0 Abnormal0")]
#[case::unavailable_to_available("a0,a1 n0,n1", "Unavailable0 Available0")]
#[case::unavailable_to_switching("a0,a1 n1", "Unavailable0 Switching1")]
#[case::unavailable_leaves_who_is_disabled("a0,a1 -0 +0", "Unavailable0 (Unavailable)1")]
#[case::switching_to_switched("n0,n1 a0 ok", "Available0 Switching1 Switched1")]
#[case::switching_to_recovering("n0,n1 a0 n0 ok", "Available0 Switching1 Recovering1")]
#[case::switching_to_unavailable("n0,n1 a0 a1 ok", "Available0 Switching1 Unavailable1")]
#[case::switching_and_back("n0,n1 a0 a1,n0 ok", "Available0 Switching1 Recovering0 Abnormal0")]
#[case::switched_to_recovering("a0,n1 ok n0", "Switching1 Switched1 Recovering1")]
#[case::switched_to_unavailable("a0,n1 ok a1 n1", "Switching1 Switched1 Unavailable1 Switched1")]
#[case::switched_loses_the_standby("a0,n1 ok n0,a1", "Switching1 Switched1 Recovering0")]
#[case::recovering_to_available(
    "a0,n1 ok n0 59s 1s ok",
    "Switching1 Switched1 Recovering1 (Recovering)0 Available0"
)]
#[case::recovering_to_switched(
    "a0,n1 ok n0 59s a0 9s",
    "Switching1 Switched1 Recovering1 Switched1"
)]
#[case::recovering_begins_anew(
    "a0,n1 ok n0 59s a0 n0 59s",
    "Switching1 Switched1 Recovering1 Switched1 Recovering1"
)]
#[case::recovering_to_available_at_once_by_hand(
    "a0,n1 ok n0 b ok",
    "Switching1 Switched1 Recovering1 (Recovering)0 Available0"
)]
#[case::recovering_is_called_off_by_hand(
    "a0,n1 ok n0 s1 99s",
    "Switching1 Switched1 Recovering1 Switched1"
)]
#[case::deleting_is_the_end("n0,n1 d s1 -0 +0 a0 9s ok", "Available0 Deleting0 Deleting!")]
#[case::a_switch_by_hand_stays("n0,n1 s1 ok 999s a0 n0 999s", "Available0 Switching1 Switched1")]
#[case::until_it_is_taken_back(
    "n0,n1 s1 ok b ok",
    "Available0 Switching1 Switched1 Recovering0 Available0"
)]
#[case::to_the_first_is_back(
    "n0,n1 s1 ok s0 ok",
    "Available0 Switching1 Switched1 Recovering0 Available0"
)]
#[case::back_waits_for_health(
    "n0,n1 s1 ok a0 b 99s n0 60s ok",
    "Available0 Switching1 Switched1 Recovering1 (Recovering)0 Available0"
)]
#[case::a_switch_by_hand_outlives_a_failure(
    "n0,n1 s1 ok a1 ok n1 60s ok",
    "Available0 Switching1 Switched1 Recovering0 Abnormal0 Available0 Switching1 Switched1"
)]
#[case::not_to_who_is_abnormal("n0,a1 s1", "Abnormal0 Abnormal!")]
#[case::not_to_who_is_disabled("n0,n1 -1 s1", "Available0 Abnormal0 Disabled!")]
#[case::not_to_nobody("n0,n1 s2", "Available0 NoMember!")]
#[case::where_it_is_already("n0,n1 s0 b", "Available0")]
fn a_pair_goes_from_state_to_state(#[case] script: &str, #[case] states: &str) {
    let mut group = Failover::new(pair(Some(seconds(60))));
    assert_eq!(follow(&mut group, script).join(" "), states);
}

#[rstest]
#[case::at_once(Some(0), "a0,n1 ok n0 ok", "Switching1 Switched1 Recovering0 Available0")]
#[case::never(None, "a0,n1 ok n0 999s", "Switching1 Switched1")]
#[case::never_but_when_the_other_fails(
    None,
    "a0,n1 ok n0 a1 ok",
    "Switching1 Switched1 Recovering0 Abnormal0"
)]
#[case::never_but_by_hand(None, "a0,n1 ok n0 b ok", "Switching1 Switched1 Recovering0 Available0")]
fn the_return_is_as_configured(
    #[case] after: Option<u64>,
    #[case] script: &str,
    #[case] states: &str,
) {
    let mut group = Failover::new(pair(after.map(seconds)));
    assert_eq!(follow(&mut group, script).join(" "), states);
}

#[rstest]
#[case::all("n0,n1,n2", "Available", &[(0, 50), (1, 20)])]
#[case::until_all_are_known_all_count("a0,n1", "", &[(0, 50), (1, 20)])]
#[case::one_is_left("a0,n1,n2", "Abnormal", &[(1, 20)])]
#[case::one_is_left_by_hand("n0,n1,n2 -1", "Available Abnormal", &[(0, 50)])]
#[case::the_last_resort("a0,a1,n2", "Abnormal", &[(2, 1)])]
#[case::none("a0,a1,a2", "Unavailable", &[(0, 50), (1, 20)])]
#[case::none_that_may("a0,a1,a2 -0 -1", "Unavailable", &[(2, 1)])]
#[case::nobody_may("n0,n1,n2 -0 -1 -2", "Available Abnormal Unavailable", &[(0, 50), (1, 20)])]
#[case::recovered("a0,n1,n2 n0", "Abnormal Available", &[(0, 50), (1, 20)])]
#[case::not_by_hand("n0,n1,n2 s1", "Available Weighted!", &[(0, 50), (1, 20)])]
fn a_weighted_group_spreads_over_who_can(
    #[case] script: &str,
    #[case] states: &str,
    #[case] chosen: &[(usize, u8)],
) {
    let mut group = Failover::new(weighted(&[50, 20, 0]));
    assert_eq!(follow(&mut group, script).join(" "), states);
    assert_eq!(group.chosen(), chosen);
    assert_eq!((group.active(), group.poll_timeout()), (None, None));
}

#[test]
fn what_is_established_stays_with_who_is_normal() {
    let mut group = Failover::new(pair(None));
    assert!(!group.is_living(0), "nothing is known yet");
    follow(&mut group, "n0,n1 -1");
    assert!(group.is_living(0) && group.is_living(1), "though it is disabled");
    follow(&mut group, "a1");
    assert!(group.is_living(0) && !group.is_living(1));
}

#[test]
fn another_configuration_keeps_what_is_known() {
    let mut group = Failover::new(pair(Some(seconds(60))));
    follow(&mut group, "n0,n1 s1 ok");
    group.configure(pair(None), start());
    assert_eq!((group.state(), group.manual()), (State::Switched, Some(1)));
    // Weights the other way round: what was a switch by hand is the rule.
    let members = vec![member(0), member(100)];
    group.configure(Config { members, ..pair(None) }, start());
    assert_eq!((group.state(), group.active()), (State::Available, Some(1)));
    group.configure(weighted(&[1, 1]), start());
    assert_eq!((group.state(), group.manual()), (State::Available, None));
    assert_eq!(group.chosen(), [(0, 1), (1, 1)]);
    let told: Vec<_> = std::iter::from_fn(|| group.poll_change()).map(|it| it.to).collect();
    assert_eq!(told, [State::Available, State::Available], "the latter has no active member");
}

#[test]
fn states_are_spelled_as_the_cloud_does() {
    let states = [
        State::Pending,
        State::Available,
        State::Switching,
        State::Switched,
        State::Recovering,
        State::Abnormal,
        State::Unavailable,
        State::Deleting,
    ];
    for state in states {
        assert_eq!(serde_json::to_value(state).unwrap(), state.name());
    }
}

fn happens() -> impl Strategy<Value = Happens> {
    let health = prop_oneof![3 => Just(Normal), 1 => Just(Abnormal)];
    prop_oneof![
        4 => (0..2_usize, health).prop_map(|(member, health)| Happens::Health(member, health)),
        1 => (0..2_usize, any::<bool>()).prop_map(|(member, on)| Happens::Enabled(member, on)),
        1 => (0..2_usize).prop_map(Happens::Switch),
        1 => Just(Happens::Back),
        12 => Just(Happens::Nothing),
    ]
}

proptest! {
    /// A group does what its whole history says, is never with a member that cannot take packets
    /// while another can, and tells each change once.
    #[test]
    fn a_pair_is_as_its_history_says(
        watch in proptest::option::of(0..6_usize),
        history in proptest::collection::vec((happens(), any::<bool>()), 1..120),
    ) {
        let after = watch.map(|watch| seconds(watch as u64));
        let (mut group, mut twin) = (Failover::new(pair(after)), Twin::new(watch));
        let mut told = (State::Pending, Some(0));
        for (second, (happens, confirmed)) in history.into_iter().enumerate() {
            let now = start() + seconds(second as u64);
            match happens {
                Happens::Health(member, health) => group.report([(member, health)], now),
                Happens::Enabled(member, enabled) => group.set_enabled(member, enabled, now),
                // It may be refused, and then nothing has changed.
                Happens::Switch(to) => drop(group.switch(Some(to), now)),
                Happens::Back => group.switch(None, now).unwrap(),
                Happens::Nothing => {}
            }
            group.handle_timeout(now);
            twin.pass(happens);
            prop_assert_eq!(group.active(), Some(twin.active()), "second {}", second);
            if confirmed {
                group.confirm();
            }
            prop_assert_eq!(group.chosen(), [(twin.active(), 100)]);
            while let Some(change) = group.poll_change() {
                prop_assert_eq!(change.from, told.0);
                prop_assert_ne!((change.to, change.active), told);
                told = (change.to, change.active);
            }
            prop_assert_eq!(told, (group.state(), group.active()));
            prop_assert!(group.poll_timeout().is_none_or(|at| at > now), "it would be polled for ever");
        }
    }

    /// Of a weighted group, members are chosen that can take packets, whenever there is any.
    #[test]
    fn a_weighted_group_chooses_who_can(
        members in proptest::collection::vec((0..=100_u8, any::<bool>(), any::<bool>()), 1..6),
    ) {
        let weights: Vec<u8> = members.iter().map(|it| it.0).collect();
        let mut group = Failover::new(weighted(&weights));
        let health = |normal: bool| if normal { Normal } else { Abnormal };
        group.report(members.iter().enumerate().map(|(at, it)| (at, health(it.1))), start());
        for (at, (_, _, enabled)) in members.iter().enumerate() {
            group.set_enabled(at, *enabled, start());
        }
        let usable: Vec<usize> = (0..members.len()).filter(|at| members[*at].1 && members[*at].2).collect();
        let chosen = group.chosen();
        prop_assert!(!chosen.is_empty());
        prop_assert!(chosen.iter().all(|(_, share)| *share > 0));
        if !usable.is_empty() {
            let weighty = usable.iter().copied().filter(|at| weights[*at] > 0).collect::<Vec<_>>();
            let expected = if weighty.is_empty() { usable.clone() } else { weighty };
            prop_assert_eq!(chosen.iter().map(|it| it.0).collect::<Vec<_>>(), expected);
        }
        prop_assert_eq!(group.state() == State::Unavailable, usable.is_empty());
        prop_assert_eq!(group.state() == State::Available, usable.len() == members.len());
    }
}
