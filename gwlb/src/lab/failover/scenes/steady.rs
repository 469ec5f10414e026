//! The beginning: the load stands, spread as the weights say.

use std::time::Duration;

use super::super::act::Act;
use super::super::load::PACE;
use crate::lab::error::LabError;

/// Connections to the server of each zone: those of the first are what most scenes are about.
pub(in crate::lab::failover) const CONNECTIONS: [usize; 2] = [200, 60];
/// How long it is watched.
const WHILE: Duration = Duration::from_secs(2);
/// A share may be so many standard deviations off what its weight says. Flows are placed by a keyed
/// hash, so their number is binomial: one run in a million is further off.
const DEVIATIONS: f64 = 5.0;

pub(in crate::lab::failover) async fn play(act: &mut Act<'_>) -> Result<(), LabError> {
    let mut scene = act.raise("steady", "a steady load, spread over the appliances by weight");
    let mut opened = true;
    for (zone, count) in CONNECTIONS.into_iter().enumerate() {
        opened &= act.open(zone, count).await?;
    }
    let open: Vec<_> = [0, 1].map(|zone| act.lasting(zone).len()).to_vec();
    let all: usize = open.iter().sum();
    scene.check(
        "opened",
        opened && open == CONNECTIONS,
        format!("{all} of {} connections are open", CONNECTIONS.iter().sum::<usize>()),
    );
    act.say(format!(
        "{all} connections are open, each with {:.0} records a second",
        1.0 / PACE.as_secs_f64()
    ));

    let mark = act.mark().await?;
    act.watch_for(WHILE).await?;
    let homes = act.homes();
    act.say(format!("spread: {}", act.spread(&homes)));
    let strayed = act.strayed(&homes, mark.at);
    let lasting = act.load.lasting();
    let one_way = lasting.iter().filter(|connection| {
        let home = homes.get(&connection.id).zip(connection.flow);
        !home.is_some_and(|(home, flow)| act.witness.both_ways_since(flow, *home, mark.at))
    });
    let one_way = one_way.count();
    scene.check(
        "symmetric",
        strayed == 0 && one_way == 0,
        format!(
            "{} connections have both directions at one appliance each, {} have not",
            all - one_way.max(strayed),
            one_way.max(strayed)
        ),
    );
    for (zone, count) in CONNECTIONS.into_iter().enumerate() {
        let name = act.plan.zones[zone].name;
        let targets: Vec<_> = act.design.targets.iter().filter(|(it, _)| it.zone == name).collect();
        let sum: f64 = targets.iter().map(|(_, weight)| f64::from(*weight)).sum();
        let mut far_off = Vec::new();
        let mut shares = Vec::new();
        for (appliance, weight) in targets {
            let (index, _) = act.appliance(appliance.name);
            let has = homes.values().filter(|home| **home == index).count();
            scene.count(format!("connections of {}", appliance.name), has, "");
            let share = f64::from(*weight) / sum;
            let expected = share * count as f64;
            let deviation = (expected * (1.0 - share)).sqrt();
            shares.push(format!("{} has {has}, expected {expected:.0}", appliance.name));
            if (has as f64 - expected).abs() > DEVIATIONS * deviation {
                far_off.push(appliance.name);
            }
        }
        scene.check(
            &format!("spread-{name}"),
            far_off.is_empty(),
            format!("shares by weight in {name}: {}", shares.join("; ")),
        );
    }
    act.check_unharmed(&mut scene, &mark).await?;
    act.finish(scene);
    Ok(())
}
