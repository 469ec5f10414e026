//! An appliance hangs, and another one dies: how long either still gets new flows.
//!
//! A process that hangs gives no sign: its sockets are there, and only health checks find it out. A
//! process that is gone makes its kernel say so to every packet, and the gateway looks at once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::super::act::{Act, Victims};
use super::super::design::{INTERVAL, detection_limit};
use super::super::report::Scene;
use crate::lab::error::LabError;
use crate::runtime::clock;

/// How long new flows are watched for after the last that may come.
const WHILE: Duration = Duration::from_millis(500);
/// How often TCP may have to try again until a connection goes on: it doubles its patience each
/// time, and a network that was gone for a time is tried again within that time.
const GOES_ON: Duration = Duration::from_secs(10);

/// An appliance that went, and what became of its connections until it was back.
pub(in crate::lab::failover) struct Outage {
    pub appliance: usize,
    /// How many connections it had, and how many the others.
    pub victims: usize,
    pub others: usize,
    /// Of its connections, those that go on at another appliance, with every record in its place.
    pub on: usize,
    /// Those that moved more than once, or back.
    pub twice: usize,
    /// Connections of other appliances that moved.
    pub others_moved: usize,
    /// How long it took until the last of its connections went on; `None`: some never did.
    pub took: Option<Duration>,
    /// Whether the appliance came back.
    pub healthy_again: bool,
}

pub(in crate::lab::failover) async fn play(act: &mut Act<'_>) -> Result<Vec<Outage>, LabError> {
    let mut scene = act.raise("death", "an appliance hangs, and another one is killed");
    let limit = detection_limit();
    act.load.open_short(Some(0));
    act.watch_for(WHILE).await?;

    let hung = go(act, &mut scene, Going { name: "nva-2", hangs: true, limit }).await?;
    let killed =
        go(act, &mut scene, Going { name: "nva-1", hangs: false, limit: limit / 5 }).await?;
    act.load.open_short(None);
    act.finish(scene);
    Ok(vec![hung, killed])
}

/// An appliance that is to go.
#[derive(Clone, Copy)]
struct Going {
    name: &'static str,
    /// Whether it hangs, or is killed.
    hangs: bool,
    /// By when it gets no new flows.
    limit: Duration,
}

async fn go(act: &mut Act<'_>, scene: &mut Scene, going: Going) -> Result<Outage, LabError> {
    let Going { name, hangs, limit } = going;
    let (index, _) = act.appliance(name);
    let homes = act.homes();
    let victims = act.connections_of(index);
    let began = clock::now();
    if hangs {
        act.stage.appliance(index).hang()?;
    } else {
        act.stage.appliance(index).kill()?;
    }
    let (what, why, check) = if hangs {
        ("hangs (SIGSTOP)", "by health checks alone", "active")
    } else {
        ("is killed (SIGKILL)", "with passive signals", "passive")
    };
    act.progress.happened(began, format!("{name} {what}, with {} connections", victims.ids.len()));
    // Longer than it may be, to tell by how much it was too long.
    let found = act.wait_for_state(index, "unhealthy", limit * 5 + WHILE).await?;
    act.watch_for(WHILE).await?;
    let to_it = act.new_flows_at(index, began);
    let last = to_it.iter().map(|arrival| arrival.at.saturating_duration_since(began)).max();
    let last = last.unwrap_or_default();
    let noticed = found.map(|found| found.saturating_duration_since(began));
    scene.time(
        format!("{name} {what}: until it was found unhealthy, {why}"),
        noticed.unwrap_or(limit * 5),
        limit,
    );
    scene.time(format!("{name}: until its last new flow"), last, limit);
    let new = to_it.len();
    let elsewhere = act.witness.arrivals_since(began).len() - new;
    act.say(format!("{name} got its last new flow {:.3} s after it went", last.as_secs_f64()));
    scene.check(
        check,
        noticed.is_some_and(|noticed| noticed <= limit) && last <= limit && elsewhere > 0,
        match noticed {
            Some(noticed) => format!(
                "{name} {what}: unhealthy after {:.3} s, its last of {new} new flows after {:.3} s; \
                 {why} it may take {:.3} s",
                noticed.as_secs_f64(),
                last.as_secs_f64(),
                limit.as_secs_f64()
            ),
            None => format!("{name} {what} and was not found unhealthy"),
        },
    );
    let over = goes_on(act, &victims, found.unwrap_or(began), hangs).await?;
    if hangs {
        act.stage.appliance(index).kill()?;
    }
    act.stage.restart_appliance(act.plan, index).await?;
    let first = if hangs { "killed and " } else { "" };
    act.say(format!("{name} is {first}started again"));
    let back = act.wait_for_state(index, "healthy", INTERVAL * 8).await?;
    act.watch_for(WHILE).await?;
    let took = over.map(|over| over.saturating_duration_since(began));
    let mut outage = moves(act, &victims, &homes, began, over.or(found).unwrap_or(began));
    (outage.took, outage.healthy_again) = (took, back.is_some());
    Ok(outage)
}

/// Where connections went from when the appliance went; its own had settled elsewhere by `settled`.
fn moves(
    act: &Act<'_>,
    victims: &Victims,
    homes: &HashMap<usize, usize>,
    began: Instant,
    settled: Instant,
) -> Outage {
    let connections = act.load.connections();
    let (mut on, mut twice) = (0, 0);
    for connection in victims.ids.iter().map(|id| &connections[*id]) {
        let visited = connection.flow.map(|flow| act.witness.visited_since(flow, settled));
        let visited = visited.unwrap_or_default();
        let goes_on = connection.near.last_received.is_some_and(|last| last > settled);
        let back = visited.iter().any(|(appliance, _)| *appliance == victims.appliance);
        let elsewhere = !visited.is_empty() && !back;
        let right = connection.near.wrong == 0 && connection.far.is_some_and(|far| far.wrong == 0);
        on += usize::from(connection.is_open() && goes_on && elsewhere && right);
        twice += usize::from(visited.len() > 1);
    }
    let others: HashMap<_, _> = homes
        .iter()
        .filter(|(_, home)| **home != victims.appliance)
        .map(|(a, b)| (*a, *b))
        .collect();
    Outage {
        appliance: victims.appliance,
        victims: victims.ids.len(),
        others: others.len(),
        on,
        twice,
        others_moved: act.strayed(&others, began),
        took: None,
        healthy_again: false,
    }
}

/// Waits until each of the connections got a record back after it was found out, and none is
/// missing; when the last of them did.
async fn goes_on(
    act: &mut Act<'_>,
    victims: &Victims,
    found: Instant,
    hangs: bool,
) -> Result<Option<Instant>, LabError> {
    let limit = if hangs { GOES_ON } else { GOES_ON / 2 };
    let name = act.name(victims.appliance);
    let mut over = None;
    act.wait(&format!("the connections of {name} go on"), limit, |act, _| {
        let connections = act.load.connections();
        let own = victims.ids.iter().map(|id| connections[*id].near);
        let goes_on = |last: &Instant| *last > found;
        let last: Option<Vec<_>> = own.map(|near| near.last_received.filter(goes_on)).collect();
        over = last.and_then(|last| last.into_iter().max());
        over.is_some()
    })
    .await?;
    Ok(over)
}
