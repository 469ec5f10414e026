//! The metrics in Prometheus' text form: one collector, which reads everything at scrape time.
//!
//! Each [instrument](Instrument) is defined once: those of the gateway itself in `own`, where the
//! data plane's have the names and help texts of its counters ([`crate::dataplane::stats`]), and
//! those that repeat what clouds call by other names in `aliases`. `docs/metrics.md` lists them all.

mod aliases;
mod instrument;
mod own;
#[cfg(test)]
mod tests;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, Registry, TextEncoder};

use super::status::Status;
use instrument::Instrument;

/// Prometheus' text format, version 0.0.4.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics, as a scrape gets them.
pub(super) fn render(status: Status) -> prometheus::Result<String> {
    let registry = Registry::new();
    registry.register(Box::new(Gateway(status)))?;
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
}

/// Every instrument that there is.
fn catalogue() -> Vec<Instrument> {
    own::instruments().into_iter().chain(aliases::instruments()).collect()
}

/// The one collector.
struct Gateway(Status);

impl Collector for Gateway {
    fn desc(&self) -> Vec<&Desc> {
        // Unchecked: the catalogue is, by a test.
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        catalogue().iter().filter_map(|instrument| instrument.read(&self.0)).collect()
    }
}
