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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::super::availability::NOT_YET;
    use super::*;

    fn properties<'s>(schema: &'s Value, root: &'s Value) -> Option<&'s Value> {
        let schema = match schema.get("items").unwrap_or(schema).get("$ref").and_then(Value::as_str)
        {
            Some(reference) => root.pointer(reference.strip_prefix('#')?)?,
            None => schema,
        };
        schema.get("properties")
    }

    #[test]
    fn the_tables_are_the_properties_of_the_schema() {
        let schema = schema();
        let properties = schema.get("properties").unwrap().as_object().unwrap();
        let in_schema: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
        assert_eq!(tables().into_iter().collect::<BTreeSet<_>>(), in_schema);
    }

    #[test]
    fn what_is_not_available_is_something_that_the_file_has() {
        let schema = schema();
        let root = schema.as_value();
        for path in NOT_YET.iter().map(|row| row.key) {
            let mut at = root;
            for key in path.split('.') {
                at = properties(at, root)
                    .and_then(|properties| properties.get(key))
                    .unwrap_or_else(|| panic!("{path}: no key {key}"));
            }
        }
    }

    #[test]
    fn the_reference_describes_every_key() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        let reference = std::fs::read_to_string(path).unwrap();
        let schema = schema();
        let root = schema.as_value();
        let mut nested_tables = 0;
        for (table, value) in root["properties"].as_object().unwrap() {
            let headings = [format!("## `[[{table}]]`"), format!("## `[{table}]`")];
            let rows = headings.iter().find_map(|heading| section(&reference, heading));
            let rows = rows.unwrap_or_else(|| panic!("no section for [[{table}]]"));
            for (key, value) in properties(value, root).unwrap().as_object().unwrap() {
                assert!(has_row(rows, key), "[[{table}]]: no row for `{key}`");
                let heading = format!("### `[{table}.{key}]`");
                let Some(rows) = section(&reference, &heading) else { continue };
                for key in properties(value, root).unwrap().as_object().unwrap().keys() {
                    assert!(has_row(rows, key), "{heading}: no row for `{key}`");
                }
                nested_tables += 1;
            }
        }
        assert_eq!(nested_tables, 2, "health_check and tunnel_check");
    }

    /// What stands under a heading, up to the next one.
    fn section<'t>(text: &'t str, heading: &str) -> Option<&'t str> {
        let (_, rest) = text.split_once(&format!("\n{heading}\n"))?;
        rest.split("\n#").next()
    }

    fn has_row(rows: &str, key: &str) -> bool {
        rows.contains(&format!("\n| `{key}` |"))
    }
}
