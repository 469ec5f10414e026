//! The second act of the demonstration: what happens to connections when appliances and the gateway
//! come, go and die.
//!
//! Under a steady load of TCP connections, scene after scene, appliances are drained, added, hung
//! and killed, and the gateway is reloaded, killed and started again. Each scene judges what the
//! clients, the servers and an independent witness saw of it.
//!
//! Where to read on: `design` is what the gateway is told, `load` what the clients and servers do,
//! `witness` who sees which appliance gets which flow, `act` what all scenes share, and `scenes` the
//! play itself.

mod act;
mod admin;
mod design;
pub(super) mod load;
pub(super) mod report;
mod scenes;
mod witness;

use super::error::LabError;
use super::plan::Plan;
use super::progress::Progress;
use super::stage::Stage;
use act::Act;
use design::Design;
use report::Scene;

/// Plays all scenes on a network of their own, which stands when this returns. A check that fails
/// does not end the act; a lab that breaks does.
pub(super) async fn run(
    plan: &Plan,
    progress: &mut Progress,
) -> Result<(Stage, Vec<Scene>), LabError> {
    progress.done("the second act: failover");
    let design = Design::new(plan);
    let mut stage = Stage::set(plan, &design.text(plan), progress).await?;
    let mut act = Act::begin(plan, &mut stage, progress, design)?;
    scenes::steady::play(&mut act).await?;
    scenes::drain::play(&mut act).await?;
    scenes::registration::play(&mut act).await?;
    let outages = scenes::death::play(&mut act).await?;
    scenes::rebalance::play(&mut act, &outages).await?;
    scenes::reset::play(&mut act).await?;
    scenes::reload::play(&mut act).await?;
    scenes::restart::play(&mut act).await?;
    let scenes = act.end();
    Ok((stage, scenes))
}
