//! A planned drain: an appliance is taken out of service, and nobody notices.

use std::time::Duration;

use super::super::act::{Act, target};
use super::super::design::{CLOSED, ELASTIC, HEAVY};
use super::super::load::Mode;
use crate::lab::error::LabError;
use crate::runtime::clock;

/// How long new connections come before and after.
const WHILE: Duration = Duration::from_millis(1500);
/// Workers take a new view up between two batches of packets, a moment after the command was
/// answered; processors that everybody shares here make it a longer one.
const TAKE_UP: Duration = Duration::from_millis(50);

pub(in crate::lab::failover) async fn play(act: &mut Act<'_>) -> Result<(), LabError> {
    let mut scene =
        act.raise("drain", "a planned drain, with new connections coming all the while");
    let (index, appliance) = act.appliance(HEAVY);
    act.load.forget_slowest();
    act.load.open_short(Some(0));
    let mark = act.mark().await?;
    act.watch_for(WHILE / 2).await?;
    let before = act.new_flows_at(index, mark.at).len();

    let homes = act.homes();
    act.admin.deregister(ELASTIC, &appliance).await?;
    let told = clock::now();
    act.design.remove(appliance.name);
    act.say(format!("{} is deregistered", appliance.name));
    act.watch_for(WHILE).await?;
    let status = act.look().await?;
    let draining = target(act.plan, &status, &appliance).and_then(|target| target.draining);
    let progress = draining.map(|draining| {
        format!(
            "{} flows left, {:.0} s left of {} s",
            draining.flows_left,
            draining.seconds_left,
            act.design.deregistration_delay.as_secs()
        )
    });
    let shown = progress.clone().unwrap_or_else(|| "no progress is shown".to_owned());
    act.say(format!("{} drains: {shown}", appliance.name));
    let mine = act.connections_of(index).ids;
    let complete = draining.is_some_and(|draining| draining.flows_left >= mine.len() as u64);
    scene.check("progress", complete && !mine.is_empty(), format!("{}: {shown}", appliance.name));

    let after = act.new_flows_at(index, told);
    let last = after.iter().map(|arrival| arrival.at.saturating_duration_since(told)).max();
    scene.time("from the answer to its last new flow", last.unwrap_or_default(), TAKE_UP);
    let late = after.iter().filter(|arrival| arrival.at > told + TAKE_UP).count();
    let elsewhere = act.witness.arrivals_since(told).len() - after.len();
    scene.check(
        "no-new-flow",
        late == 0 && before > 0 && elsewhere > 0,
        format!(
            "{} got {before} new flows before, and {late} after it was deregistered; the others \
             got {elsewhere}",
            appliance.name
        ),
    );
    let strayed = act.strayed(&homes, told);
    scene.check(
        "none-moved",
        strayed == 0,
        format!("{strayed} of {} established flows moved", homes.len()),
    );

    act.load.set_mode(mine.iter().copied(), Mode::Close);
    act.load.open(0, mine.len());
    act.say(format!("its {} connections are closed, and as many are opened elsewhere", mine.len()));
    scene.count("connections closed", mine.len(), "");
    let drained = act.wait_for_state(index, "unused", CLOSED * 6).await?;
    let ended = drained.unwrap_or_else(clock::now);
    let last_packet = act.witness.last_at(index).unwrap_or(told);
    let took = ended.saturating_duration_since(last_packet);
    // The gateway forgets a connection a second after its end, at the turn of its next second, and
    // looks ten times a second; the rest is for the processors that everybody shares.
    let limit = CLOSED * 5 / 2;
    scene.time("from its last packet to the end of the drain", took, limit);
    scene.check(
        "ends-early",
        drained.is_some() && took <= limit,
        match drained {
            Some(_) => format!(
                "the drain ended {:.2} s after the last packet of its last flow, long before its delay",
                took.as_secs_f64()
            ),
            None => "the drain did not end with its last flow".to_owned(),
        },
    );
    act.load.open_short(None);
    act.check_unharmed(&mut scene, &mark).await?;
    act.finish(scene);
    Ok(())
}
