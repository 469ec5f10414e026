//! What came of a scenario, and how it is written down.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use gwlb::dataplane::fragments::HostileTotals;
use gwlb::dataplane::stats::{FlowTableTotals, LedgerTotals, ResetTotals, TargetTotals};
use serde::Serialize;
use serde_json::Value;

use super::ScenarioError;
use crate::capture::{self, Captured};

/// What came of a scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What went where: `to-` an appliance, or `at-` an attachment.
    pub streams: BTreeMap<String, Vec<Captured>>,
    /// What was counted.
    pub counters: Counters,
    /// What happened in the control plane, and when.
    pub events: Vec<(Duration, String)>,
    /// What each step brought about, in lines for people.
    pub steps: String,
    /// What must always hold and did not.
    pub violations: Vec<String>,
}

/// What was counted over a scenario.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Packets that came by attachments.
    pub tun: LedgerTotals,
    /// Packets that came back from appliances.
    pub udp: LedgerTotals,
    /// The flow tables.
    pub flows: FlowTableTotals,
    /// TCP resets that were sent.
    pub resets: ResetTotals,
    /// What fragments did that honest senders hardly do.
    pub hostile_fragments: HostileTotals,
    /// What each appliance was sent and returned.
    pub appliances: BTreeMap<String, TargetTotals>,
    /// How often sockets were asked to send, batches counted as one.
    pub sends: u64,
    /// How often devices were written to, super-packets counted as one.
    pub writes: u64,
}

impl Counters {
    /// The counters as they stand in `counters.json`: those that have counted something, so that
    /// a new counter changes nothing where it does not count.
    pub fn to_json(&self) -> Value {
        let mut counters = serde_json::to_value(self).expect("counters are JSON");
        leave_out_zeros(&mut counters);
        counters
    }
}

fn leave_out_zeros(value: &mut Value) {
    let Value::Object(members) = value else { return };
    members.values_mut().for_each(leave_out_zeros);
    members.retain(|_, value| match value {
        Value::Object(members) => !members.is_empty(),
        value => *value != 0,
    });
}

impl Outcome {
    /// The files that say what is expected, by name.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let captures = self.streams.iter();
        let captures =
            captures.map(|(name, packets)| (format!("{name}.pcap"), capture::bytes(packets)));
        let mut counters = String::new();
        let _ = writeln!(counters, "{:#}", self.counters.to_json());
        captures
            .chain([
                ("counters.json".to_owned(), counters.into_bytes()),
                ("steps.txt".to_owned(), self.steps.clone().into_bytes()),
            ])
            .collect()
    }

    /// Makes this what is expected of the scenario in `folder`.
    ///
    /// # Errors
    /// [`ScenarioError::Io`].
    pub fn write(&self, folder: &Path) -> Result<(), ScenarioError> {
        let expected = folder.join("expected");
        let failed = |error| ScenarioError::Io(expected.clone(), error);
        if expected.is_dir() {
            fs::remove_dir_all(&expected).map_err(failed)?;
        }
        fs::create_dir(&expected).map_err(failed)?;
        for (name, bytes) in self.files() {
            fs::write(expected.join(name), bytes).map_err(failed)?;
        }
        Ok(())
    }
}
