//! The gateway is killed and started again, and every connection goes on where it was.

use std::collections::HashMap;
use std::time::Duration;

use super::super::act::{Act, Harm, since};
use super::super::load::Mode;
use super::steady::CONNECTIONS;
use crate::lab::error::LabError;
use crate::lab::plan::Sabotage;
use crate::runtime::clock;

/// How long connections may take to go on, to tell by how much they were late.
const PATIENCE: Duration = Duration::from_secs(15);
/// What comes on top of twice the outage: a beat of the load, TCP's least patience (200 ms) and
/// processors that everybody shares.
const ON_TOP: Duration = Duration::from_secs(1);

pub(in crate::lab::failover) async fn play(act: &mut Act<'_>) -> Result<(), LabError> {
    let mut scene = act.raise("restart", "the gateway is killed and started again");
    renew(act).await?;
    act.load.forget_slowest();
    let homes = act.homes();
    act.say(format!("spread: {}", act.spread(&homes)));
    let before = act.load.connections();
    let lost = act.plan.sabotage == Some(Sabotage::LostSecret);

    let began = clock::now();
    act.stage.gateway().kill()?;
    act.progress.happened(began, "the gateway is killed (SIGKILL)");
    act.stage.restart_gateway(lost).await?;
    let ready = clock::now();
    let outage = ready.saturating_duration_since(began);
    act.say(format!("the gateway is ready again after {:.3} s", outage.as_secs_f64()));
    scene.time("outage", outage, None);
    act.wait("every connection goes on", PATIENCE, |act, _| {
        let now = act.load.connections();
        homes.keys().all(|id| {
            let near = now[*id].near;
            !now[*id].is_open() || near.last_received.is_some_and(|last| last > ready)
        })
    })
    .await?;
    act.catch_up().await?;

    let now = act.load.connections();
    let harm = Harm::between(&before, &now);
    let on = homes.keys().filter(|id| {
        let near = now[**id].near;
        now[**id].is_open() && near.last_received.is_some_and(|last| last > ready)
    });
    let on = on.count();
    scene.count("connections that go on", on, "");
    scene.check(
        "none-broken",
        on == homes.len() && harm.resets + harm.failures == 0 && harm.wrong == 0,
        format!(
            "{on} of {} connections go on, {} were reset, {} failed; {} records, {} wrong",
            homes.len(),
            harm.resets,
            harm.failures,
            harm.records,
            harm.wrong
        ),
    );
    // TCP doubles its patience, so a network that is back after a time is tried within that time.
    let limit = outage * 2 + ON_TOP;
    scene.time("slowest answer", harm.slowest, limit);
    scene.check(
        "in-time",
        harm.slowest <= limit,
        format!(
            "the slowest answer took {:.3} s: the outage of {:.3} s, and TCP's patience, which it \
             has doubled meanwhile",
            harm.slowest.as_secs_f64(),
            outage.as_secs_f64()
        ),
    );
    let strays = act.strays(&homes, ready);
    let status = act.look().await?;
    let adopted = status.flows.adopted;
    if !strays.is_empty() {
        for stray in &strays {
            act.say(stray);
        }
        for target in &status.targets {
            let settled = since(target).saturating_duration_since(began).as_secs_f64();
            let what = format!(
                "{} is {} since {settled:.3} s after the kill",
                target.address, target.state
            );
            act.say(what);
        }
    }
    scene.check(
        "same-appliance",
        strays.is_empty() && adopted >= homes.len() as u64,
        format!(
            "{} of {} flows are with another appliance than before; {adopted} were taken on \
             in their middle",
            strays.len(),
            homes.len()
        ),
    );
    act.finish(scene);
    Ok(())
}

/// Flows that stayed where they were when weights and targets changed would be placed elsewhere now.
/// "With unchanged targets" every flow returns to its appliance: so all are opened anew.
async fn renew(act: &mut Act<'_>) -> Result<(), LabError> {
    let homes: HashMap<usize, usize> = act.homes();
    act.load.set_mode(homes.keys().copied(), Mode::Close);
    act.wait("all connections are closed", PATIENCE, |act, _| act.load.lasting().is_empty())
        .await?;
    for (zone, count) in CONNECTIONS.into_iter().enumerate() {
        act.open(zone, count).await?;
    }
    act.say("all connections are opened anew, with the targets as they are now");
    Ok(())
}
