//! The JSON schema of the whole file, and the names of its tables.

use router::config::RouterFile;
use schemars::{JsonSchema, Schema, schema_for};

use super::form::GatewayFile;

/// The JSON schema (draft 2020-12) of a configuration file, for editors and other tools.
///
/// It knows keys, types and the widest ranges; references and rules across tables are what
/// [`parse`](super::parse) checks.
pub fn schema() -> Schema {
    schema_for!(WholeFile)
}

/// The keys at the top level.
pub(super) fn tables() -> Vec<&'static str> {
    GatewayFile::TABLES.iter().chain(&RouterFile::TABLES).copied().collect()
}

/// A gateway's configuration: VPCs and their routes, and the gateway load balancers in them.
#[derive(JsonSchema)]
#[schemars(title = "gwlb configuration", deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct WholeFile {
    #[schemars(flatten)]
    gateway: GatewayFile,
    #[schemars(flatten)]
    router: RouterFile,
}
