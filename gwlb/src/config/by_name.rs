//! Words of the file that stand for values of the `geneve` crate, which knows their names but not
//! serde.

use std::borrow::Cow;

use geneve::{Dialect, Stickiness};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error};

/// A value that is written as its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ByName<T>(pub(super) T);

/// A closed set of values, each with a name.
pub(super) trait Named: Sized + 'static {
    /// What the set is called in the JSON schema.
    const SET: &'static str;

    /// All names.
    fn names() -> Vec<&'static str>;

    /// The value of this name.
    fn named(name: &str) -> Option<Self>;
}

impl Named for &'static Dialect {
    const SET: &'static str = "Dialect";

    fn names() -> Vec<&'static str> {
        Dialect::ALL.iter().map(Dialect::name).collect()
    }

    fn named(name: &str) -> Option<&'static Dialect> {
        Dialect::by_name(name)
    }
}

impl Named for Stickiness {
    const SET: &'static str = "Stickiness";

    fn names() -> Vec<&'static str> {
        Stickiness::ALL.into_iter().map(Stickiness::name).collect()
    }

    fn named(name: &str) -> Option<Stickiness> {
        Stickiness::by_name(name)
    }
}

impl<'de, T: Named> Deserialize<'de> for ByName<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ByName<T>, D::Error> {
        let name = String::deserialize(deserializer)?;
        // The list of what is allowed is in the schema, from which `Field` takes it.
        T::named(&name).map(ByName).ok_or_else(|| D::Error::custom(format!("unknown {}", T::SET)))
    }
}

impl<T: Named> JsonSchema for ByName<T> {
    fn schema_name() -> Cow<'static, str> {
        T::SET.into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "enum": T::names() })
    }
}
