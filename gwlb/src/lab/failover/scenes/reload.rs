//! The file is changed while packets flow.

use std::time::Duration;

use hyper::StatusCode;
use serde_json::Value;

use super::super::act::Act;
use super::super::design::{HEAVY, ORDINARY};
use crate::lab::configuration;
use crate::lab::error::LabError;
use crate::runtime::clock;

/// How long new connections come.
const WHILE: Duration = Duration::from_millis(1500);

pub(in crate::lab::failover) async fn play(act: &mut Act<'_>) -> Result<(), LabError> {
    let mut scene = act.raise("reload", "the configuration is changed under load");
    act.load.forget_slowest();
    let homes = act.homes();
    act.load.open_short(Some(0));
    let mark = act.mark().await?;
    let (added, heavy) = act.appliance(HEAVY);
    for (appliance, weight) in &mut act.design.targets {
        if appliance.zone == heavy.zone {
            *weight += ORDINARY;
        }
    }
    act.design.add(heavy, ORDINARY);
    act.design.tcp_idle_seconds += 100;
    act.design.deregistration_delay /= 2;
    let began = clock::now();
    let report = act.reload().await?;
    let took = clock::now().saturating_duration_since(began);
    let changes = report["changes"].as_array().map_or(0, Vec::len);
    act.say(format!(
        "reload: weights, timers and delays, and {} is back: {changes} changes",
        heavy.name
    ));
    scene.time("until it was in force", took, None);
    scene.check(
        "applied",
        report["applied"] == true && changes > 0,
        format!("{changes} changes were applied"),
    );
    act.watch_for(WHILE).await?;
    let new = act.new_flows_at(added, began).len();
    scene.check("new-flows", new > 0, format!("{}, added, got {new} new flows", heavy.name));

    wrong(act, &mut scene).await?;
    act.load.open_short(None);
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

/// A wrong file is refused with what is wrong, and changes nothing.
async fn wrong(act: &mut Act<'_>, scene: &mut super::super::report::Scene) -> Result<(), LabError> {
    let right =
        configuration::gateway(act.plan, &act.design.text(act.plan), &act.stage.directory());
    let wrong = right.replacen("weight = ", "weight = 1", 1).replacen(
        "zone = \"az2\"",
        "zone = \"az9\"",
        1,
    );
    let answer = act.admin.reload(Some(wrong)).await?;
    let problems = answer.body["problems"].as_array().map_or(0, Vec::len);
    act.say(format!("a wrong file: status {}, problems: {problems}", answer.status.as_u16()));
    // What would change if the right file were read again: nothing, if nothing has changed.
    let difference = act.admin.preview(right).await?;
    let unchanged = difference.body["changes"].as_array().is_some_and(Vec::is_empty);
    let detail = match &difference.body["changes"] {
        Value::Array(changes) if changes.is_empty() => "nothing changed".to_owned(),
        changes => format!("it changed something: {changes}"),
    };
    scene.check(
        "wrong-file",
        answer.status == StatusCode::UNPROCESSABLE_ENTITY && problems > 0 && unchanged,
        format!("a wrong file was refused ({}, problems: {problems}), and {detail}", answer.status),
    );
    Ok(())
}
