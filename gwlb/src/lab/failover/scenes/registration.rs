//! An appliance is added: new flows reach it, and no other moves.

use std::time::Duration;

use super::super::act::Act;
use super::super::design::{ELASTIC, ORDINARY, SPARE};
use crate::lab::error::LabError;

/// How long new connections come.
const WHILE: Duration = Duration::from_secs(2);
/// By when it is to be found healthy: it is probed at once.
const LIMIT: Duration = Duration::from_secs(2);

pub(in crate::lab::failover) async fn play(act: &mut Act<'_>) -> Result<(), LabError> {
    let mut scene = act.raise("registration", "an appliance is added");
    let (index, appliance) = act.appliance(SPARE);
    act.load.forget_slowest();
    let homes = act.homes();
    act.load.open_short(Some(0));
    let mark = act.mark().await?;
    act.admin.register(ELASTIC, &appliance).await?;
    act.design.add(appliance, ORDINARY);
    act.say(format!("{} is registered", appliance.name));
    let healthy = act.wait_for_state(index, "healthy", LIMIT).await?;
    let took = healthy.map(|at| at.saturating_duration_since(mark.at));
    scene.time("until it was healthy", took.unwrap_or(LIMIT), LIMIT);
    act.watch_for(WHILE).await?;
    act.load.open_short(None);
    let new = act.new_flows_at(index, mark.at).len();
    let all = act.witness.arrivals_since(mark.at).len();
    scene.count("new flows that it got", new, "");
    scene.check(
        "new-flows",
        healthy.is_some() && new > 0,
        format!("{} got {new} of {all} new flows", appliance.name),
    );
    let strayed = act.strayed(&homes, mark.at);
    let rebalanced = act.look().await?.since(&mark.gateway).flows.rebalanced;
    scene.check(
        "none-moved",
        strayed == 0 && rebalanced == 0,
        format!("{strayed} of {} established flows moved", homes.len()),
    );
    act.check_unharmed(&mut scene, &mark).await?;
    act.finish(scene);
    Ok(())
}
