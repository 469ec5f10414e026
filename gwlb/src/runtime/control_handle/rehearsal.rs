//! How a control plane answers that has no workers, devices and sockets to provide for: for tests
//! and fuzz harnesses.

use std::sync::Arc;

use router::source::Source;
use tokio::sync::oneshot;

use super::{ConfigFile, ControlError, Plan, ReloadError, ReloadReport, Request, View};
use crate::control::{Control, Ping};
use crate::runtime::clock;
use crate::runtime::pings::{Outcome, PingRefused, Pinged, Wanted};

/// Does what is asked, now.
pub(in crate::runtime) fn answer(control: &mut Control, file: &ConfigFile, request: Request) {
    let now = clock::now();
    match request {
        Request::View(reply) => drop(reply.send(View::of(control, Arc::default()))),
        Request::Register { group, target, reply } => {
            let done = control.register(&group, &target, now);
            drop(reply.send(done.map_err(ControlError::from)));
        }
        Request::Deregister { group, address, port, reply } => {
            let done = control.deregister(&group, address, port, now);
            drop(reply.send(done.map_err(ControlError::from)));
        }
        Request::TrafficMode { load_balancer, mode, reply } => {
            let done = control.set_traffic_mode(&load_balancer, mode, now);
            drop(reply.send(done.map_err(ControlError::from)));
        }
        Request::SwitchEndpointGroup { group, to, reply } => {
            let done = control.switch_endpoint_group(&group, to.as_deref(), now);
            drop(reply.send(done.map_err(ControlError::from)));
        }
        Request::Ping { wanted, reply } => drop(reply.send(ping(control, &wanted))),
        Request::Reload { source, dry_run, reply } => {
            drop(reply.send(reload(control, file, source, dry_run)));
        }
    }
}

/// Of what nobody sends, nothing comes back.
fn ping(control: &mut Control, wanted: &Wanted) -> Result<Vec<Pinged>, PingRefused> {
    let pings =
        control.ping(&wanted.endpoint, wanted.target, wanted.size, super::super::pings::MOST)?;
    let lost = |ping: Ping| {
        let (tell, outcome) = oneshot::channel();
        let _ = tell.send(Outcome::Lost);
        Pinged { target: ping.address, size: ping.size, outcome }
    };
    Ok(pings.into_iter().map(lost).collect())
}

fn reload(
    control: &mut Control,
    file: &ConfigFile,
    source: Option<Source>,
    dry_run: bool,
) -> Result<ReloadReport, ReloadError> {
    let plan = Plan::of(&control.effective_settings(), file, source, |_| {})?;
    if !dry_run {
        control.reload(Arc::new(plan.settings), clock::now());
    }
    Ok(ReloadReport { applied: !dry_run, ..plan.report })
}

/// Forgets what a handle has seen last.
#[cfg(feature = "fuzz")]
pub(in crate::runtime) async fn forget(handle: &super::ControlHandle) {
    *handle.known.lock().await = None;
}
