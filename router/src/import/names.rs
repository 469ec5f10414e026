//! Names for what has ids: people's own, where they can be references.

use std::collections::{BTreeMap, BTreeSet};

use super::note::Notes;

/// The longest name, and the characters of one: what [`crate::Topology::build`] accepts.
const LONGEST: usize = 64;

/// A name for each id of one kind: the `Name` tag where it can be a name and nothing else of the
/// kind has it, or else the id.
///
/// Every name is valid and nobody else's, whatever the ids and the tags are.
pub(super) fn choose<'a>(
    kind: &str,
    things: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    notes: &mut Notes,
) -> BTreeMap<String, String> {
    let things: BTreeMap<&str, Option<&str>> = things.into_iter().collect();
    let mut wanted: BTreeMap<&str, usize> = BTreeMap::new();
    for tag in things.values().flatten() {
        *wanted.entry(tag).or_default() += 1;
    }
    let is_free = |tag: &str| {
        let alone = wanted.get(tag) == Some(&1);
        // The id of something else stays its own, for it may be its name.
        alone && is_name(tag) && !things.contains_key(tag)
    };
    let mut names = BTreeMap::new();
    let mut taken = BTreeSet::new();
    let mut odd = Vec::new();
    for (id, tag) in &things {
        let by_tag = tag.filter(|tag| is_free(tag));
        if let (None, Some(tag)) = (by_tag, tag.filter(|tag| !tag.is_empty() && tag != id)) {
            let why =
                if is_name(tag) { "more than one has it" } else { "it cannot be a name here" };
            notes
                .add(format!("the id stands in place of the Name tag of a {kind}, for {why}"), *id);
        }
        match by_tag.or(Some(*id).filter(|id| is_name(id))) {
            Some(name) => {
                taken.insert(name.to_owned());
                names.insert((*id).to_owned(), name.to_owned());
            }
            None => odd.push(*id),
        }
    }
    for id in odd {
        let name = similar(id, &taken);
        taken.insert(name.clone());
        names.insert(id.to_owned(), name);
    }
    names
}

/// Whether it can be a name.
fn is_name(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len()) && text.chars().all(is_of_names)
}

fn is_of_names(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.".contains(c)
}

/// A name that is not taken, as similar as can be: of an ARN, what follows the last slash.
fn similar(id: &str, taken: &BTreeSet<String>) -> String {
    const ROOM_FOR_NUMBER: usize = 10;
    let last = id.rsplit('/').next().filter(|last| !last.is_empty()).unwrap_or("unnamed");
    let name: String = last
        .chars()
        .map(|c| if is_of_names(c) { c } else { '-' })
        .take(LONGEST - ROOM_FOR_NUMBER)
        .collect();
    let numbered = (2_u64..).map(|number| format!("{name}-{number}"));
    std::iter::once(name.clone()).chain(numbered).find(|name| !taken.contains(name)).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chosen(things: &[(&str, Option<&str>)]) -> Vec<String> {
        let names = choose("thing", things.iter().copied(), &mut Notes::default());
        things.iter().map(|(id, _)| names[*id].clone()).collect()
    }

    #[test]
    fn a_tag_is_the_name_where_it_is_unique_and_valid() {
        assert_eq!(chosen(&[("i-1", Some("web")), ("i-2", None)]), ["web", "i-2"]);
        assert_eq!(chosen(&[("i-1", Some("web")), ("i-2", Some("web"))]), ["i-1", "i-2"]);
        assert_eq!(chosen(&[("i-1", Some("my web")), ("i-2", Some(""))]), ["i-1", "i-2"]);
        assert_eq!(chosen(&[("i-1", Some("i-2")), ("i-2", Some("i-1"))]), ["i-1", "i-2"]);
        let long = "a".repeat(65);
        assert_eq!(chosen(&[("i-1", Some(&long)), ("i-2", Some(&long[1..]))]), ["i-1", &long[1..]]);
    }

    #[test]
    fn ids_that_cannot_be_names_become_similar_ones() {
        let arn = "arn:aws:networkmanager::111122223333:core-network/core-network-0a1b";
        assert_eq!(chosen(&[(arn, None)]), ["core-network-0a1b"]);
        assert_eq!(
            chosen(&[("a b", None), ("a-b", None), ("a?b", None)]),
            ["a-b-2", "a-b", "a-b-3"]
        );
        assert_eq!(chosen(&[("", None), ("x/", None)]), ["unnamed", "unnamed-2"]);
    }

    proptest! {
        #[test]
        fn every_name_is_valid_and_nobody_elses(
            things in prop::collection::btree_map(
                "[ab2/ é-]{0,3}|.{0,70}",
                prop::option::of("[ab2/ -]{0,3}"),
                0..12,
            ),
        ) {
            let things: Vec<(&str, Option<&str>)> =
                things.iter().map(|(id, tag)| (id.as_str(), tag.as_deref())).collect();
            let names = chosen(&things);
            let distinct: BTreeSet<&String> = names.iter().collect();
            prop_assert_eq!(distinct.len(), things.len());
            for name in &names {
                prop_assert!(is_name(name), "{:?}", name);
            }
        }
    }
}
