//! Appliances that nobody can stand in for: their connections are reset, so that applications
//! connect anew in place of waiting.

use std::time::Duration;

use super::super::act::{Act, Victims};
use super::super::design::{Failover, INTERVAL, detection_limit};
use super::super::load::{Connection, Mode};
use super::super::report::Scene;
use crate::lab::error::LabError;
use crate::runtime::clock;

/// By when a reset has come.
const LIMIT: Duration = Duration::from_millis(100);
/// How long it is waited for resets, to tell by how much they were late.
const PATIENCE: Duration = Duration::from_secs(3);

pub(in crate::lab::failover) async fn play(act: &mut Act<'_>) -> Result<(), LabError> {
    let mut scene = act.raise("reset", "connections of a dead appliance are reset");
    on_next_packet(act, &mut scene).await?;
    both_ends(act, &mut scene).await?;
    act.finish(scene);
    Ok(())
}

/// AWS's form: the next packet is answered by a reset.
async fn on_next_packet(act: &mut Act<'_>, scene: &mut Scene) -> Result<(), LabError> {
    act.design.strict = Failover::Reset;
    act.reload().await?;
    act.say("the strict group resets the connections of unhealthy targets (reload)");
    let victims = kill_in_silence(act, "nva-6").await?;
    let counted = act.look().await?;
    let resumed = clock::now();
    act.load.set_mode(victims.ids.iter().copied(), Mode::Run);
    act.say("its connections send their next records");
    wait_for_resets(act, &victims, |it| it.near.reset_at().is_some()).await?;
    let by_gateway = act.look().await?.since(&counted).flows.reset;

    let now = act.load.connections();
    let (mut in_time, mut slowest) = (0, Duration::ZERO);
    for connection in victims.ids.iter().map(|id| &now[*id]) {
        let sent = connection.near.last_sent.filter(|sent| *sent >= resumed);
        let took = connection.near.reset_at().zip(sent).map(|(at, sent)| at - sent);
        in_time += usize::from(took.is_some_and(|took| took <= LIMIT));
        slowest = slowest.max(took.unwrap_or(PATIENCE));
    }
    let all = victims.ids.len();
    scene.count("connections reset on their next packet", in_time, "");
    scene.time("from a packet to its reset, at most", slowest, LIMIT);
    scene.check(
        "next-packet",
        all > 0 && in_time == all && by_gateway >= all as u64,
        format!(
            "{in_time} of {all} clients saw the reset within {} ms of their next packet; \
             {by_gateway} flows were reset by the gateway",
            LIMIT.as_millis()
        ),
    );
    revive(act, scene, &victims, "reopened").await
}

/// Beyond it: both ends are told at once, without having said a word.
async fn both_ends(act: &mut Act<'_>, scene: &mut Scene) -> Result<(), LabError> {
    act.design.strict = Failover::ResetBothEnds;
    act.reload().await?;
    act.say("from now on, both ends at once (reload)");
    let sent: Vec<_> = act.load.connections().iter().map(|it| it.near.sent).collect();
    // What an end must be told it says itself, in what it acknowledges: from now on that is noted.
    act.wait("both ends have said something", PATIENCE, |act, _| {
        act.lasting(1).iter().all(|it| it.near.received > sent[it.id] + 1)
    })
    .await?;
    let victims = kill_in_silence(act, "nva-5").await?;
    let both = |it: &Connection| {
        it.near.reset_at().is_some() && it.far.is_some_and(|far| far.reset_at().is_some())
    };
    wait_for_resets(act, &victims, both).await?;
    let now = act.load.connections();
    let found = act.unhealthy_since(victims.appliance);
    let (mut told, mut unasked, mut slowest) = (0, 0, Duration::ZERO);
    for connection in victims.ids.iter().map(|id| &now[*id]) {
        let ends = [Some(connection.near), connection.far];
        let resets = ends.map(|end| end.and_then(|end| end.reset_at()));
        let took =
            resets.map(|at| at.zip(found).map(|(at, found)| at.saturating_duration_since(found)));
        let in_time = took.iter().all(|took| took.is_some_and(|took| took <= LIMIT));
        told += usize::from(in_time);
        // Whoever paused sends nothing, and what was sent before was answered.
        let silent = connection.near.sent == connection.near.received;
        unasked += usize::from(silent && connection.near.sent >= sent[connection.id]);
        slowest = took.iter().map(|took| took.unwrap_or(PATIENCE)).fold(slowest, Duration::max);
    }
    let all = victims.ids.len();
    scene.count("connections reset at both ends", told, "");
    scene.time("from unhealthy to both ends knowing, at most", slowest, LIMIT);
    scene.check(
        "both-ends",
        all > 0 && told == all && unasked == all,
        format!(
            "{told} of {all} connections were reset at both ends within {} ms, {unasked} of them \
             without having sent anything",
            LIMIT.as_millis()
        ),
    );
    revive(act, scene, &victims, "reopened-again").await
}

/// Has the connections of an appliance fall silent, kills it, and waits until that is found out:
/// then the next packet of each is known for sure.
async fn kill_in_silence(act: &mut Act<'_>, name: &str) -> Result<Victims, LabError> {
    let (index, appliance) = act.appliance(name);
    let victims = act.connections_of(index);
    act.load.set_mode(victims.ids.iter().copied(), Mode::Pause);
    act.wait("the connections are silent", PATIENCE, |act, _| {
        let now = act.load.connections();
        victims.ids.iter().all(|id| now[*id].near.received == now[*id].near.sent)
    })
    .await?;
    let began = clock::now();
    act.stage.appliance(index).kill()?;
    let count = victims.ids.len();
    let what = format!("{} is killed, with {count} connections that are silent", appliance.name);
    act.progress.happened(began, what);
    act.wait_for_state(index, "unhealthy", detection_limit() * 5).await?;
    Ok(victims)
}

async fn wait_for_resets(
    act: &mut Act<'_>,
    victims: &Victims,
    reset: impl Fn(&Connection) -> bool,
) -> Result<(), LabError> {
    act.wait("the connections are reset", PATIENCE, |act, _| {
        let now = act.load.connections();
        victims.ids.iter().all(|id| reset(&now[*id]))
    })
    .await
    .map(drop)
}

/// Starts the appliance again, and opens new connections in place of the old.
async fn revive(
    act: &mut Act<'_>,
    scene: &mut Scene,
    victims: &Victims,
    check: &str,
) -> Result<(), LabError> {
    // Those that were not reset are of no more use.
    act.load.set_mode(victims.ids.iter().copied(), Mode::Close);
    act.stage.restart_appliance(act.plan, victims.appliance).await?;
    act.wait_for_state(victims.appliance, "healthy", INTERVAL * 8).await?;
    let count = victims.ids.len();
    let reopened = act.open(1, count).await?;
    scene.check(check, reopened, format!("{count} connections were opened anew"));
    Ok(())
}
