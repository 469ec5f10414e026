//! What became of the connections of dead appliances: with appliances that take open connections
//! over, all go on; with strict ones, those that the state of the firewall allows.

use std::time::Duration;

use super::super::act::{Act, Harm};
use super::super::design::INTERVAL;
use super::super::load::State;
use super::super::report::Scene;
use super::death::Outage;
use crate::lab::error::LabError;
use crate::lab::statistics;
use crate::runtime::clock;

/// How long the others are watched after an appliance was killed.
const WHILE: Duration = Duration::from_secs(1);
/// How long it may take until every connection has heard the firewall's refusal: two beats of the
/// load, and the time in which the kill is found out.
const REFUSAL: Duration = Duration::from_secs(5);

pub(in crate::lab::failover) async fn play(
    act: &mut Act<'_>,
    outages: &[Outage],
) -> Result<(), LabError> {
    let mut scene = act.raise("rebalance", "what became of the connections of the dead");
    for outage in outages {
        judge(act, &mut scene, outage);
    }
    act.catch_up().await?;
    strict(act, &mut scene).await?;
    act.finish(scene);
    Ok(())
}

/// Firewalls with pick-up: every connection goes on, at one other appliance each.
fn judge(act: &Act<'_>, scene: &mut Scene, outage: &Outage) {
    let name = act.name(outage.appliance);
    let Outage { victims, on, twice, others, others_moved, .. } = outage;
    scene.count(format!("connections of {name} that go on elsewhere"), *on, "");
    if let Some(took) = outage.took {
        scene.time(format!("{name}: until the last of them went on"), took, None);
    }
    scene.check(
        &format!("all-go-on-{name}"),
        *victims > 0 && on == victims && outage.took.is_some(),
        format!(
            "{on} of {victims} connections of {name} go on at another appliance, with every record \
             in its place"
        ),
    );
    scene.check(
        &format!("moved-once-{name}"),
        *twice == 0 && *others_moved == 0 && outage.healthy_again,
        format!(
            "{twice} of them moved once more or back when {name} was healthy again; {others_moved} \
             of the {others} connections of others moved",
        ),
    );
}

/// Strict firewalls: a connection that the survivor has not seen opened is refused, and the
/// survivor's own go on as if nothing had happened.
async fn strict(act: &mut Act<'_>, scene: &mut Scene) -> Result<(), LabError> {
    let (index, dead) = act.appliance("nva-5");
    let (survivor, _) = act.appliance("nva-6");
    let (victims, own) = (act.connections_of(index), act.connections_of(survivor));
    act.load.forget_slowest();
    let before = act.load.connections();
    act.stage.appliance(index).kill()?;
    let began = clock::now();
    let count = victims.ids.len();
    act.progress.happened(began, format!("{} is killed, with {count} connections", dead.name));
    let limit = REFUSAL;
    let what = format!("every connection of {} is refused", dead.name);
    act.wait(&what, limit, |act, _| {
        let now = act.load.connections();
        victims.ids.iter().all(|id| now[*id].near.reset_at().is_some())
    })
    .await?;
    act.watch_for(WHILE).await?;
    let now = act.load.connections();
    let refused = victims.ids.iter().filter(|id| now[**id].near.reset_at().is_some()).count();
    let reached = victims.ids.iter().filter_map(|id| now[*id].flow);
    let reached = reached.filter(|flow| act.witness.home(*flow) == Some(survivor)).count();
    let socket = act.stage.stats_socket(&act.plan.appliances[survivor]);
    let report = statistics::appliance(socket).await.map_err(LabError::io("ask nva-6"))?;
    let rule = report.sample.rules.iter().find(|rule| rule.rule == "tcp-without-syn");
    let by_rule = rule.map_or(0, |rule| rule.hits);
    scene.count("connections that a strict firewall refused", refused, "");
    scene.check(
        "strict-refuses",
        count > 0 && refused == count && reached == count && by_rule >= count as u64,
        format!(
            "{refused} of {count} connections of {} were refused by {}, which {reached} of them \
             reached and which has no state of them",
            dead.name,
            act.name(survivor)
        ),
    );
    act.catch_up().await?;
    let [before, now]: [Vec<_>; 2] =
        [&before, &act.load.connections()].map(|all| own.ids.iter().map(|id| all[*id]).collect());
    let harm = Harm::between(&before, &now);
    let open = now.iter().filter(|it| it.near.state == State::Open).count();
    scene.check(
        "state-allows",
        !own.ids.is_empty() && open == own.ids.len() && harm.lost() == 0 && harm.records > 0,
        format!(
            "{open} of {} connections that {} knows go on, with {} segments lost",
            own.ids.len(),
            act.name(survivor),
            harm.lost()
        ),
    );
    act.stage.restart_appliance(act.plan, index).await?;
    act.wait_for_state(index, "healthy", INTERVAL * 8).await?;
    let reopened = act.open(1, count).await?;
    scene.check(
        "strict-reopened",
        reopened,
        format!("{count} new connections in place of those that were refused"),
    );
    Ok(())
}
