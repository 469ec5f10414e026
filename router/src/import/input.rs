//! The JSON of the documents, taken apart into its lists, each item with its place.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::note::Notes;
use super::shapes::Shape;
use crate::source::{Problem, Problems, Source};

/// What the documents list, by the member that lists it.
pub(super) struct Input<'a> {
    documents: &'a [Source],
    lists: BTreeMap<&'static str, Vec<List<'a>>>,
    problems: Vec<Vec<Problem>>,
}

/// A list as it stands in a document.
#[derive(Clone)]
pub(super) struct List<'a> {
    pub(super) place: Place,
    /// For those that do not say what they are of: what the document says beside the list.
    pub(super) owner: Option<String>,
    pub(super) items: Vec<Item<'a>>,
}

/// A resource as it stands in a document.
#[derive(Clone)]
pub(super) struct Item<'a> {
    text: &'a str,
    place: Place,
}

/// Where something stands.
#[derive(Clone, Debug)]
pub(super) struct Place {
    document: usize,
    offset: usize,
    /// As in `RouteTables[2]`.
    path: String,
}

/// A resource with its place.
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// The lists that are read.
const LISTS: [&str; 17] = [
    "Vpcs",
    "Subnets",
    "RouteTables",
    "VpcEndpoints",
    "InternetGateways",
    "NatGateways",
    "PrefixLists",
    "Entries",
    "NetworkInterfaces",
    "Addresses",
    "VpnGateways",
    "EgressOnlyInternetGateways",
    "TransitGateways",
    "TransitGatewayAttachments",
    "TransitGatewayVpcAttachments",
    "TransitGatewayRouteTables",
    "Routes",
];

/// `get-managed-prefix-list-entries` and `search-transit-gateway-routes` do not say what they are
/// of. Where a document does, it is in one of these.
const OWNERS: [&str; 2] = ["PrefixListId", "TransitGatewayRouteTableId"];

impl<'a> Input<'a> {
    /// Reads all documents, as far as they can be read.
    pub(super) fn read(documents: &'a [Source], notes: &mut Notes) -> Input<'a> {
        let mut input = Input {
            documents,
            lists: BTreeMap::new(),
            problems: vec![Vec::new(); documents.len()],
        };
        for document in 0..documents.len() {
            if let Err(problem) = input.read_document(document, notes) {
                input.problems[document].push(problem);
            }
        }
        input
    }

    /// All lists of this name.
    pub(super) fn lists(&self, key: &str) -> &[List<'a>] {
        self.lists.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether any document has this list, even an empty one.
    pub(super) fn has(&self, key: &str) -> bool {
        self.lists.contains_key(key)
    }

    /// All resources of a kind that can be read; problems for the others.
    pub(super) fn resources<T: Shape>(&mut self, notes: &mut Notes) -> Vec<Placed<T>> {
        let items: Vec<Item<'a>> =
            self.lists(T::KEY).iter().flat_map(|list| &list.items).cloned().collect();
        let mut resources = Vec::new();
        for item in items {
            let Some(value) = self.parse::<T>(&item) else { continue };
            let unknown =
                value.others().iter().filter(|key| !T::IRRELEVANT.contains(&key.as_str()));
            for key in unknown {
                let what = format!(
                    "members of a {} that this version does not know, and leaves out",
                    T::NOUN
                );
                notes.add(what, format!("{key} of {}", value.id()));
            }
            resources.push(Placed { value, place: item.place });
        }
        resources
    }

    /// Reads one item.
    pub(super) fn parse<T: Deserialize<'a>>(&mut self, item: &Item<'a>) -> Option<T> {
        let mut json = serde_json::Deserializer::from_str(item.text);
        match serde_path_to_error::deserialize(&mut json) {
            Ok(value) => Some(value),
            Err(error) => {
                let path = match error.path().to_string().as_str() {
                    "." => item.place.path.clone(),
                    path => format!("{}.{path}", item.place.path),
                };
                let problem = of_json(error.inner(), item.text, item.place.offset, &path);
                self.problems[item.place.document].push(problem);
                None
            }
        }
    }

    /// Says what is wrong with something that was read.
    pub(super) fn problem_at(
        &mut self,
        place: &Place,
        message: String,
        more: impl FnOnce(Problem) -> Problem,
    ) {
        let problem = Problem::at(place.offset..place.offset + 1, message);
        self.problems[place.document].push(more(problem));
    }

    /// Where something stands, for a reader.
    pub(super) fn tell(&self, place: &Place) -> String {
        let document = &self.documents[place.document];
        format!("{}:{}", document.name(), document.position(place.offset))
    }

    /// The document that something is from.
    pub(super) fn name(&self, place: &Place) -> &str {
        self.documents[place.document].name()
    }

    /// All is well, or the problems of each document that has any.
    pub(super) fn check(&mut self) -> Result<(), Vec<Problems>> {
        let problems = std::mem::take(&mut self.problems);
        self.problems = vec![Vec::new(); self.documents.len()];
        let told: Vec<Problems> = self
            .documents
            .iter()
            .zip(problems)
            .filter_map(|(document, problems)| Problems::check(document, problems).err())
            .collect();
        if told.is_empty() { Ok(()) } else { Err(told) }
    }

    /// A document is any number of outputs, one after the other or in an array.
    fn read_document(&mut self, document: usize, notes: &mut Notes) -> Result<(), Problem> {
        let source = &self.documents[document];
        let text = source.text();
        let json = text.strip_prefix('\u{feff}').unwrap_or(text);
        let skipped = text.len() - json.len();
        let outputs = serde_json::Deserializer::from_str(json).into_iter::<&'a RawValue>();
        let mut empty = true;
        for output in outputs {
            let output = output.map_err(|error| of_json(&error, json, skipped, ""))?;
            empty = false;
            let place =
                Place { document, offset: self.offset(document, output), path: String::new() };
            if output.get().starts_with('[') {
                let inner: Vec<&'a RawValue> = serde_json::from_str(output.get())
                    .map_err(|error| of_json(&error, output.get(), place.offset, ""))?;
                for (index, output) in inner.into_iter().enumerate() {
                    let offset = self.offset(document, output);
                    let place = Place { document, offset, path: format!("[{index}]") };
                    self.read_output(output, &place, notes)?;
                }
            } else {
                self.read_output(output, &place, notes)?;
            }
        }
        if empty {
            return Err(Problem::new(format!("{} is empty", source.name()))
                .help("give it the output of `aws ec2 describe-vpcs` and its like"));
        }
        Ok(())
    }

    /// One output: an object with a list, or with several, as `jq -s add` joins them.
    fn read_output(
        &mut self,
        output: &'a RawValue,
        place: &Place,
        notes: &mut Notes,
    ) -> Result<(), Problem> {
        let here = place.offset..place.offset + 1;
        if !output.get().starts_with('{') {
            return Err(Problem::at(here, "this is no output of `aws ec2 describe-...`")
                .label("an object with a list in it is expected")
                .help(WHOLE_OUTPUT));
        }
        let members: BTreeMap<String, &'a RawValue> = serde_json::from_str(output.get())
            .map_err(|error| of_json(&error, output.get(), place.offset, &place.path))?;
        let owner = OWNERS.iter().find_map(|owner| {
            let id = members.get(*owner)?.get();
            serde_json::from_str::<String>(id).ok()
        });
        let mut known = false;
        let mut unknown = Vec::new();
        for (key, value) in &members {
            let name = self.documents[place.document].name().to_owned();
            if let Some(list) = LISTS.iter().find(|list| *list == key) {
                known = true;
                self.read_list(list, value, place, owner.as_deref())?;
            } else if key == "NextToken" || key == "AdditionalRoutesAvailable" {
                if !matches!(value.get(), "null" | "\"\"" | "false") {
                    notes.add(NOT_WHOLE, name);
                }
            } else if key != "ResponseMetadata" && !OWNERS.contains(&key.as_str()) {
                unknown.push(key);
            }
        }
        // What has another list in it is the output of a command that is of no use here.
        let is_list = |key: &&&String| members.get(**key).is_some_and(|v| v.get().starts_with('['));
        if !known && !unknown.is_empty() && !unknown.iter().any(|key| is_list(&key)) {
            return Err(Problem::at(here, "this is no output of `aws ec2 describe-...`")
                .label("none of the lists that are read is in it")
                .help(WHOLE_OUTPUT));
        }
        for key in unknown {
            let name = self.documents[place.document].name();
            notes.add("lists that are not read", format!("{key} in {name}"));
        }
        Ok(())
    }

    fn read_list(
        &mut self,
        key: &'static str,
        value: &'a RawValue,
        place: &Place,
        owner: Option<&str>,
    ) -> Result<(), Problem> {
        let path =
            if place.path.is_empty() { key.to_owned() } else { format!("{}.{key}", place.path) };
        let offset = self.offset(place.document, value);
        let items: Vec<&'a RawValue> = serde_json::from_str(value.get())
            .map_err(|error| of_json(&error, value.get(), offset, &path))?;
        let items: Vec<Item<'a>> = items
            .into_iter()
            .enumerate()
            .map(|(index, item)| Item {
                text: item.get(),
                place: Place {
                    document: place.document,
                    offset: self.offset(place.document, item),
                    path: format!("{path}[{index}]"),
                },
            })
            .collect();
        let place = Place { document: place.document, offset, path };
        let owner = owner.map(str::to_owned);
        self.lists.entry(key).or_default().push(List { place, owner, items });
        Ok(())
    }

    /// Where a value stands that was borrowed from a document's text.
    fn offset(&self, document: usize, value: &RawValue) -> usize {
        let text = self.documents[document].text();
        (value.get().as_ptr() as usize).saturating_sub(text.as_ptr() as usize)
    }
}

impl Place {
    /// As in `RouteTables[2]`.
    pub(super) fn path(&self) -> &str {
        &self.path
    }
}

const WHOLE_OUTPUT: &str = "give the whole output of commands such as `aws ec2 describe-vpcs`, as \
                            JSON and without --query; --help tells which";

const NOT_WHOLE: &str = "the list is not whole, for the output says that there is more; get all \
                         pages (the AWS CLI does without --no-paginate and --max-items)";

/// What is wrong with JSON, at its place in the document. `offset` is that of `text` there.
fn of_json(error: &serde_json::Error, text: &str, offset: usize, path: &str) -> Problem {
    let message = error.to_string();
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(what, _)| what);
    let missing = message.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
    let within = |what: String| if path.is_empty() { what } else { format!("{what} in {path}") };
    let at = offset + place_of(error, text);
    if let Some(member) = missing {
        return Problem::at(at..at + 1, within(format!("there is no `{member}`")))
            .label(format!("the object that ends here needs `{member}`"))
            .help(WHOLE_OUTPUT);
    }
    if error.is_data() {
        let what = message.replace("a sequence", "a list").replace("sequence", "list");
        let what = what.replace("a map", "an object").replace("map,", "object,");
        let value = value_before(text, at - offset);
        return Problem::at(
            offset + value.start..offset + value.end,
            if path.is_empty() { what } else { format!("{path}: {what}") },
        )
        .label("this is not what the API says")
        .help(WHOLE_OUTPUT);
    }
    Problem::at(at..at + 1, format!("this is not JSON: {message}"))
        .label("here")
        .help("the AWS CLI writes JSON with --output json; check that the file is whole")
}

/// The byte that the error is about: serde counts lines and bytes from one.
fn place_of(error: &serde_json::Error, text: &str) -> usize {
    let lines = text.split_inclusive('\n').take(error.line().saturating_sub(1));
    let line: usize = lines.map(str::len).sum();
    let mut at = (line + error.column().saturating_sub(1)).min(text.len().saturating_sub(1));
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The value that ends at or before a byte: serde has read to its end, or one byte further.
fn value_before(text: &str, at: usize) -> Range<usize> {
    let read = text.get(..=at).unwrap_or(text);
    let read = read.trim_end_matches([',', '}', ']', ' ', '\t', '\r', '\n']);
    let start = match read.strip_suffix('"') {
        Some(string) => string.rfind('"'),
        None => {
            read.rfind(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c)).map(|at| at + 1)
        }
    };
    // What has begun and not ended, such as a list, is shown by its first character.
    let start = start.unwrap_or_default().min(read.len().saturating_sub(1));
    start..read.len().max(start + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_before_a_place_is_found() {
        let value = |text: &str, at| text[value_before(text, at)].to_owned();
        assert_eq!(value(r#"{"a": "yes"}"#, 11), r#""yes""#);
        assert_eq!(value(r#"{"a": "yes"}"#, 10), r#""yes""#);
        assert_eq!(value(r#"{"a": 12, "b": 1}"#, 8), "12");
        assert_eq!(value(r#"{"a": -1.5e3 }"#, 12), "-1.5e3");
        assert_eq!(value("true", 3), "true");
        assert_eq!(value(r#"{"a": [1]}"#, 6), "[");
        assert_eq!(value_before("", 0), 0..1);
    }
}
