//! The thread of the control plane: events in, snapshots out, and the servers beside it.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use netio::netns::Netns;
use netio::udp::{UdpConfig, UdpSocket};
use tokio::sync::watch;

use super::admin::Listeners;
use super::clock;
use super::error::StartError;
use super::shared::Shared;
use crate::control::{Control, Input, Output};
use crate::dataplane::snapshot::TargetSlot;

/// How often the loop looks after what nobody calls it for.
const TICK: Duration = Duration::from_secs(1);
/// How often every path is measured, to notice routes and devices that change. A path on which a
/// packet turned out to be too long is measured at the next tick.
const PATH_TICKS: u32 = 10;

/// What the control thread works with.
#[derive(Debug)]
pub(super) struct ControlParts {
    pub control: Control,
    pub probes: Vec<PathProbe>,
    pub listeners: Listeners,
}

/// A socket that asks the kernel for the MTU on the way to targets.
#[derive(Debug)]
pub(super) struct PathProbe {
    socket: UdpSocket,
    targets: Vec<TargetSlot>,
    /// Filled when the addresses are known, by position like `targets`.
    addresses: Vec<SocketAddr>,
}

impl PathProbe {
    /// A probe from `address` in `netns` to these targets.
    pub fn open(
        netns: &Netns,
        address: IpAddr,
        targets: Vec<(TargetSlot, SocketAddr)>,
    ) -> Result<Self, StartError> {
        let bind = SocketAddr::new(address, 0);
        let config = UdpConfig {
            bind,
            reuse_port: false,
            gro: false,
            dont_fragment: false,
            recv_buffer: 0,
            send_buffer: 0,
        };
        let socket = netns.run(|| UdpSocket::bind(&config))?.map_err(|error| StartError::Udp {
            address: bind,
            netns: netns.name().to_owned(),
            error,
        })?;
        let (targets, addresses) = targets.into_iter().unzip();
        Ok(Self { socket, targets, addresses })
    }

    /// The path MTU to each target for which `wanted` says so, as far as there is a route.
    pub fn measure(
        &self,
        wanted: impl Fn(TargetSlot) -> bool,
    ) -> impl Iterator<Item = (TargetSlot, u16)> {
        self.targets.iter().zip(&self.addresses).filter_map(move |(&target, &address)| {
            if !wanted(target) {
                return None;
            }
            match self.socket.path_mtu(address) {
                Ok(mtu) => Some((target, mtu)),
                Err(error) => {
                    tracing::debug!(%address, %error, "no route to the target");
                    None
                }
            }
        })
    }
}

/// Of what was measured from several zones, the path MTU that serves all of them.
pub(super) fn smallest_by_target(
    measured: impl IntoIterator<Item = (TargetSlot, u16)>,
) -> impl Iterator<Item = (TargetSlot, u16)> {
    let mut smallest = BTreeMap::new();
    for (target, mtu) in measured {
        let known = smallest.entry(target).or_insert(mtu);
        *known = mtu.min(*known);
    }
    smallest.into_iter()
}

/// The control thread, running.
#[derive(Debug)]
pub(super) struct ControlLoop {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl ControlLoop {
    /// Starts the thread with its servers.
    pub fn start(parts: ControlParts, shared: Arc<Shared>) -> Result<Self, StartError> {
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartError::Thread)?;
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || {
                if let Err(error) = runtime.block_on(run(parts, shared, stopped)) {
                    tracing::error!(%error, "the control plane ended");
                }
            })
            .map_err(StartError::Thread)?;
        Ok(Self { stop, thread })
    }

    /// Ends the servers and the thread.
    pub fn stop(self) {
        // The thread may have ended already; then nobody listens.
        let _ = self.stop.send(true);
        let _ = self.thread.join();
    }
}

async fn run(
    parts: ControlParts,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    let ControlParts { mut control, probes, listeners } = parts;
    let servers = tokio::spawn(listeners.serve(Arc::clone(&shared), stopped.clone()));
    let mut tick = tokio::time::interval(TICK);
    for ticks in (0..PATH_TICKS).cycle() {
        tokio::select! {
            _ = tick.tick() => {}
            _ = stopped.wait_for(|&stop| stop) => break,
        }
        control.handle(Input::WallClock(clock::wall_clock()), clock::now());
        let mut too_long = Vec::new();
        while let Some(target) = shared.too_long.pop() {
            too_long.push(target);
        }
        let measure = |target| ticks == PATH_TICKS - 1 || too_long.contains(&target);
        for (target, mtu) in smallest_by_target(probes.iter().flat_map(|p| p.measure(measure))) {
            control.handle(Input::PathMtu { target, mtu }, clock::now());
        }
        while let Some(output) = control.poll_output() {
            if let Output::Publish(snapshot) = output {
                shared.publish(snapshot);
            }
        }
    }
    servers.await.map_err(io::Error::other)?
}
