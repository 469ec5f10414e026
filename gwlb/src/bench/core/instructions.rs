//! Instructions per packet, as the committed reference has them: counted by callgrind, which this
//! program cannot do to itself (`.ci/instructions`).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::bench::Measured;
use crate::bench::error::BenchError;
use crate::bench::report::{Bar, Row};
use crate::bench::statistics::Samples;

const REFERENCE: &str = include_str!("../../../benches/instructions.json");

/// The file's form.
#[derive(Debug, Deserialize)]
struct Reference {
    /// Per packet, by case.
    instructions: BTreeMap<String, f64>,
}

/// The cases that are judged.
const BARS: [(&str, &str); 2] =
    [("instructions_hit", "hit_ipv4_1428"), ("instructions_new", "new_ipv4_1428")];

/// Reads what is committed.
pub(super) fn run() -> Result<Measured, BenchError> {
    let reference: Reference = serde_json::from_str(REFERENCE)
        .map_err(|error| BenchError::Wrong(format!("benches/instructions.json: {error}")))?;
    let counts = reference.instructions;
    let bars = BARS.into_iter().filter_map(|(bar, case)| {
        counts.get(case).map(|count| Bar::alone(bar, &Samples::new([*count])))
    });
    let rows = counts.iter().map(|(case, count)| {
        let unit = ("instructions", "per packet");
        Row::new("callgrind's committed counts", case.as_str(), unit, &Samples::new([*count]))
    });
    Ok((bars.collect(), rows.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_judged_was_counted() {
        let (bars, rows) = run().unwrap();
        assert_eq!(bars.len(), BARS.len());
        assert!(rows.len() >= bars.len());
        assert!(bars.iter().all(|bar| bar.value > 10.0 && !bar.void));
    }
}
