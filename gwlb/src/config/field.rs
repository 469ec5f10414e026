//! A key's value that may be absent or wrong: deserialising a form of such fields never fails, so
//! that one mistake does not hide the next one.
//!
//! This is about types only ("a whole number, not a string"). Ranges, names and references are
//! checked later, by those who take the value out; unknown keys are [`Document`]'s.
//!
//! [`Document`]: router::source::Document

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use router::source::Located;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::value::{Error as ValueError, MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserialize, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// What was found under a key.
///
/// A form's field without `#[serde(default)]` is required in the JSON schema. Here a missing key
/// is [`Field::Absent`] either way, for only the form's reader knows where to point.
#[derive(Debug, Default)]
pub(super) enum Field<T> {
    /// The key is not there.
    #[default]
    Absent,
    /// It holds something of another type.
    Wrong(Mismatch),
    /// It holds a value, here.
    Given(Located<T>),
}

/// A value of another type than its key has.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mismatch {
    /// Where the value stands.
    pub(super) span: Range<usize>,
    /// What should be there.
    pub(super) expected: Expected,
    /// What is there.
    pub(super) found: Found,
}

/// What a key takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expected {
    /// One of these words.
    Choice(Vec<String>),
    /// A value of this type, in the JSON schema's words.
    Type(String),
}

/// What a key was given.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Found {
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer,
    /// A whole number too large for any key.
    Oversized,
    /// A number with a fraction.
    Float,
    /// A string.
    String(String),
    /// A list in brackets.
    Array,
    /// A table, inline or with a header; a date looks like one, too.
    Table,
}

impl<T> Field<T> {
    /// The value, if there is one of the right type.
    pub(super) fn given(&self) -> Option<&Located<T>> {
        match self {
            Field::Given(value) => Some(value),
            Field::Absent | Field::Wrong(_) => None,
        }
    }
}

impl<'de, T: Deserialize<'de> + JsonSchema> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Field<T>, D::Error> {
        // `Lenient` takes anything, so this is an unknown key further in, for the caller to tell,
        // or serde's own deserializer for a missing key.
        let located = match Located::<Lenient<T>>::deserialize(deserializer) {
            Ok(located) => located,
            Err(error) if is_unknown_key(&error) => return Err(error),
            Err(_) => return Ok(Field::Absent),
        };
        let span = located.span();
        Ok(match located.into_inner().0 {
            Ok(value) => Field::Given(Located::new(value, span)),
            Err(found) => Field::Wrong(Mismatch { span, expected: Expected::of::<T>(), found }),
        })
    }
}

/// A field looks in the schema like what it holds.
impl<T: JsonSchema> JsonSchema for Field<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl Expected {
    fn of<T: JsonSchema>() -> Expected {
        let schema = SchemaGenerator::default().into_root_schema_for::<T>();
        let word = |value: &Value| value.as_str().map(str::to_owned);
        // An enum without data: one list of words, or one entry per documented word.
        let listed = schema.get("enum").and_then(Value::as_array);
        let documented = schema.get("oneOf").and_then(Value::as_array);
        let mut choices: Vec<String> = listed.into_iter().flatten().filter_map(word).collect();
        for variant in documented.into_iter().flatten() {
            choices.extend(variant.get("const").and_then(word));
            choices.extend(
                variant
                    .get("enum")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .filter_map(word),
            );
        }
        if choices.is_empty() {
            let kind = schema.get("type").and_then(Value::as_str).unwrap_or("value");
            Expected::Type(kind.to_owned())
        } else {
            Expected::Choice(choices)
        }
    }
}

/// Whether serde complains about a key that a form does not have: `unknown_field` of
/// [`serde::de::Error`] documents the words.
fn is_unknown_key(error: &impl fmt::Display) -> bool {
    error.to_string().contains("unknown field `")
}

/// Never fails to deserialise but for unknown keys: what does not fit is described.
struct Lenient<T>(Result<T, Found>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Lenient<T>, D::Error> {
        match deserializer.deserialize_any(LenientVisitor(PhantomData)) {
            Err(error) if is_unknown_key(&error) => Err(error),
            // The deserializer itself fails for a number that no integer of 64 bits holds.
            value => Ok(value.unwrap_or(Lenient(Err(Found::Oversized)))),
        }
    }
}

struct LenientVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for LenientVisitor<T> {
    type Value = Lenient<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Lenient<T>, E> {
        Ok(scalar(value, Found::Boolean))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Lenient<T>, E> {
        Ok(scalar(value, Found::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Lenient<T>, E> {
        Ok(scalar(value, Found::Float))
    }

    fn visit_str<E>(self, value: &str) -> Result<Lenient<T>, E> {
        Ok(scalar(value, Found::String(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Lenient<T>, A::Error> {
        compound(T::deserialize(SeqAccessDeserializer::new(seq)), Found::Array)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Lenient<T>, A::Error> {
        compound(T::deserialize(MapAccessDeserializer::new(map)), Found::Table)
    }
}

fn compound<T, E: fmt::Display>(value: Result<T, E>, found: Found) -> Result<Lenient<T>, E> {
    match value {
        Err(error) if is_unknown_key(&error) => Err(error),
        value => Ok(Lenient(value.map_err(|_| found))),
    }
}

fn scalar<'de, T, V>(value: V, found: Found) -> Lenient<T>
where
    T: Deserialize<'de>,
    V: IntoDeserializer<'de, ValueError>,
{
    Lenient(T::deserialize(value.into_deserializer()).map_err(|_| found))
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expected::Choice(words) => {
                for (index, word) in words.iter().enumerate() {
                    let before = match index {
                        0 => "",
                        _ if index + 1 == words.len() => " or ",
                        _ => ", ",
                    };
                    write!(f, "{before}{word:?}")?;
                }
                Ok(())
            }
            Expected::Type(kind) => f.write_str(match kind.as_str() {
                "array" => "a list",
                "boolean" => "true or false",
                "integer" => "a whole number",
                "number" => "a number",
                "object" => "a table",
                "string" => "a string",
                other => other,
            }),
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::Boolean => f.write_str("true or false"),
            Found::Integer => f.write_str("a whole number"),
            Found::Oversized => f.write_str("a number of more than 64 bits"),
            Found::Float => f.write_str("a number with a fraction"),
            Found::String(text) => write!(f, "the string {text:?}"),
            Found::Array => f.write_str("a list"),
            Found::Table => f.write_str("a table"),
        }
    }
}
