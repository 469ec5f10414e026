//! The network namespaces of the load balancers: opened and entered while the gateway starts, and
//! fixed from then on.
//!
//! In each lives a thread that opens what the underlay needs there: the workers' sockets at the
//! start, and later, without privileges, those of nodes and ports that a reload or a registration
//! adds, and every health check's connection.

use std::collections::BTreeMap;
use std::sync::Arc;

use netio::counters::CounterReader;
use netio::netns::{Netns, Resident};
use netio::process::privileges;

use super::error::StartError;
use crate::config::{NetnsName, Settings};

/// All rooms, and which is whose.
#[derive(Debug)]
pub(super) struct Rooms {
    list: Vec<Room>,
    by_name: BTreeMap<Option<NetnsName>, usize>,
    /// Whether the residents have given up their privileges.
    settled: bool,
}

/// One namespace.
#[derive(Debug, Clone)]
pub(super) struct Room {
    /// Who opens sockets there.
    pub resident: Resident,
    /// What the kernel threw away there.
    pub counters: Arc<CounterReader>,
}

impl Rooms {
    /// Opens and enters the namespaces of all load balancers.
    pub fn open(settings: &Settings) -> Result<Self, StartError> {
        let mut rooms = Self { list: Vec::new(), by_name: BTreeMap::new(), settled: false };
        for balancer in &settings.load_balancers {
            if rooms.by_name.contains_key(&balancer.netns) {
                continue;
            }
            let netns = open_netns(balancer.netns.as_ref())?;
            // The same one may go by several names.
            let known = rooms.list.iter().position(|room| room.resident.netns().is_same(&netns));
            let number = known.unwrap_or(rooms.list.len());
            if known.is_none() {
                let counters = Arc::new(CounterReader::open(&netns)?);
                rooms.list.push(Room { resident: netns.resident()?, counters });
            }
            rooms.by_name.insert(balancer.netns.clone(), number);
        }
        Ok(rooms)
    }

    /// Has every resident give up its privileges.
    pub fn settle(&mut self) -> Result<(), StartError> {
        for room in &self.list {
            room.resident.run(privileges::give_up)?.map_err(StartError::Privileges)?;
        }
        self.settled = true;
        Ok(())
    }

    /// Whether nothing can be opened any more that takes privileges.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// The number of the room that goes by this name, and the room.
    ///
    /// # Errors
    /// [`StartError::OnlyAtStart`] if no load balancer had it when the gateway started.
    pub fn get(&self, name: Option<&NetnsName>) -> Result<(usize, &Room), StartError> {
        let found = self.by_name.get(&name.cloned()).map(|&number| (number, &self.list[number]));
        found.ok_or_else(|| {
            let name = name.map_or("its own", NetnsName::as_str);
            StartError::OnlyAtStart(format!("another network namespace for the underlay ({name})"))
        })
    }

    /// All residents, in the order of their numbers.
    pub fn residents(&self) -> Vec<Resident> {
        self.list.iter().map(|room| room.resident.clone()).collect()
    }
}

/// The namespace that a configuration means by a name; without one it is the process's own.
pub(super) fn open_netns(name: Option<&NetnsName>) -> Result<Netns, StartError> {
    Ok(match name {
        Some(name) => Netns::open(name.as_str())?,
        None => Netns::current()?,
    })
}
