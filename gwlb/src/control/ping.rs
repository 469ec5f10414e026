//! Pings: packets as the checks through the tunnel send them, at somebody's request. They say nothing
//! about the health of targets and need no check to be configured.

use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

use super::Control;
use super::command::meant;
use super::health::CheckId;
use super::tunnel::{self, Way};
use crate::dataplane::snapshot::{PoolId, TargetSlot};

/// A packet that is to be sent at once from the sockets of a pool. What comes back of it is
/// [recognised](super::recognise) by its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ping {
    /// Its number, which nothing else has that probes.
    pub check: CheckId,
    /// The node that sends it.
    pub pool: PoolId,
    /// Who is to return it.
    pub target: TargetSlot,
    /// Where that takes Geneve.
    pub address: SocketAddr,
    /// The length of the inner packet in bytes.
    pub size: u16,
    /// The whole UDP payload: Geneve header and inner packet.
    pub packet: Vec<u8>,
}

/// Why nothing is sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PingError {
    /// There is no endpoint of this name.
    #[error("there is no endpoint {endpoint:?}{}", meant(known, nearest.as_deref()))]
    UnknownEndpoint {
        /// The name given.
        endpoint: String,
        /// The names that there are.
        known: Vec<String>,
        /// The one of them that may have been meant.
        nearest: Option<String>,
    },
    /// No target there has this address.
    #[error("{load_balancer} has no target {address} in zone {zone}")]
    UnknownTarget {
        /// The address given.
        address: IpAddr,
        /// The load balancer behind the endpoint.
        load_balancer: String,
        /// The endpoint's zone.
        zone: String,
    },
    /// There is nobody who could return anything.
    #[error("{load_balancer} has no target in zone {zone}; register one: gwlb target register")]
    NoTarget {
        /// The load balancer behind the endpoint.
        load_balancer: String,
        /// The endpoint's zone.
        zone: String,
    },
    /// There is no room for as many.
    #[error("{wanted} pings are wanted, and there is room for {room}")]
    TooMany {
        /// How many targets there are.
        wanted: usize,
        /// How many there is room for.
        room: usize,
    },
    /// The packets need two addresses of the endpoint's subnet that no host has.
    #[error("the subnet of endpoint {endpoint:?} has no address beside the endpoint's")]
    NoAddress {
        /// The endpoint.
        endpoint: String,
    },
}

impl Control {
    /// A ping through this endpoint to each of its node's targets, or to those at one address; with
    /// inner packets of so many bytes, or as few as can be. `room` is for how many there is room:
    /// beyond that no packet is made.
    ///
    /// # Errors
    /// [`PingError`]
    pub fn ping(
        &mut self,
        endpoint: &str,
        target: Option<IpAddr>,
        size: u16,
        room: usize,
    ) -> Result<Vec<Ping>, PingError> {
        let topology = &self.settings.topology;
        let Some(id) = topology.endpoint_by_name(endpoint) else {
            let known: Vec<_> = topology.endpoints().map(|(_, it)| it.name.clone()).collect();
            let nearest = router::source::nearest(endpoint, known.iter().map(String::as_str));
            return Err(PingError::UnknownEndpoint {
                nearest: nearest.map(str::to_owned),
                endpoint: endpoint.to_owned(),
                known,
            });
        };
        let at = self.snapshot.endpoint(id);
        let (pool, wire_id) = (at.pool, at.wire_id);
        let Some((flow, _)) = self.flow_of(pool) else {
            return Err(PingError::NoAddress { endpoint: endpoint.to_owned() });
        };
        let of = self.snapshot.pool(pool);
        let (load_balancer, zone) = (of.load_balancer.clone(), of.zone.clone());
        let members: Vec<_> = self.members.keys().filter(|key| key.1 == pool).copied().collect();
        let wanted = |slot: &TargetSlot| {
            let registered = self.registry.get(*slot);
            registered.is_some_and(|it| target.is_none_or(|wanted| wanted == it.address.ip()))
        };
        let members: Vec<_> = members.into_iter().map(|key| key.0).filter(wanted).collect();
        if members.len() > room {
            return Err(PingError::TooMany { wanted: members.len(), room });
        }
        let mut pings = Vec::new();
        for slot in members {
            let Some(registered) = self.registry.get(slot) else { continue };
            let address = registered.address;
            let way =
                Way { flow, endpoint: wire_id, target: registered.id, dialect: registered.dialect };
            let size = size.max(tunnel::smallest(&flow));
            self.last_check += 1;
            let check = CheckId::new(self.last_check);
            let packet = tunnel::write(&self.keys, &way, check, 0, size);
            pings.push(Ping { check, pool, target: slot, address, size, packet });
        }
        match target {
            _ if !pings.is_empty() => Ok(pings),
            Some(address) => Err(PingError::UnknownTarget { address, load_balancer, zone }),
            None => Err(PingError::NoTarget { load_balancer, zone }),
        }
    }
}
