//! Resources of a kind, gathered from all documents.

use std::collections::BTreeMap;

use super::input::{Input, Placed};
use super::note::Notes;
use super::shapes::{Shape, Tag};

/// The `Name` tag.
pub(super) fn name_of(tags: &[Tag]) -> Option<String> {
    tags.iter().find(|tag| tag.key == "Name").and_then(|tag| tag.value.clone())
}

/// All of a kind by their ids.
pub(super) fn unique<T: Shape>(
    input: &mut Input<'_>,
    notes: &mut Notes,
) -> BTreeMap<String, Placed<T>> {
    let placed = input.resources(notes);
    unique_of(placed, input)
}

/// Outputs overlap, where several accounts share something or somebody asked twice. What they say
/// has to be the same; one of them may have no tags.
pub(super) fn unique_of<T: Shape>(
    placed: Vec<Placed<T>>,
    input: &mut Input<'_>,
) -> BTreeMap<String, Placed<T>> {
    let mut unique: BTreeMap<String, Placed<T>> = BTreeMap::new();
    for mut placed in placed {
        let id = placed.value.id().to_owned();
        let Some(first) = unique.get_mut(&id) else {
            unique.insert(id, placed);
            continue;
        };
        if first.value.essence() == placed.value.essence() {
            if first.value.tags().is_empty() {
                first.value.tags().append(placed.value.tags());
            }
        } else {
            let told = input.tell(&first.place);
            input.problem_at(
                &placed.place,
                format!("{} {id} is here twice, and not the same", T::NOUN),
                |problem| {
                    problem.label(format!("the other one is at {told}")).help(
                        "outputs of different times do not fit together: get all of them again",
                    )
                },
            );
        }
    }
    unique
}

/// Lists that do not say what they are of: their documents do, or the documents' names.
pub(super) fn owned<T: for<'de> serde::Deserialize<'de>>(
    input: &mut Input<'_>,
    key: &str,
    prefix: &str,
    known: &[String],
    command: &str,
    member: &str,
) -> BTreeMap<String, Vec<T>> {
    let mut all: BTreeMap<String, Vec<T>> = BTreeMap::new();
    for list in input.lists(key).to_vec() {
        let told = list.owner.or_else(|| id_in(input.name(&list.place), prefix));
        let only = || Some(known.first()?.clone()).filter(|_| known.len() == 1);
        let Some(owner) = told.or_else(only) else {
            let message = format!("it is not known what {} is of", list.place.path());
            input.problem_at(&list.place, message, |problem| {
                problem
                    .label(format!("`{command}` does not say the id that it was asked for"))
                    .help(format!(
                        "put the id into the file's name, as in {prefix}0123456789abcdef0.json, or \
                         beside the list: jq '. + {{{member}: \"{prefix}...\"}}'"
                    ))
            });
            continue;
        };
        let values = all.entry(owner).or_default();
        values.extend(list.items.iter().filter_map(|item| input.parse(item)));
    }
    all
}

/// An id in the name of a file: the oldest ones have eight digits.
fn id_in(name: &str, prefix: &str) -> Option<String> {
    const LEAST: usize = 8;
    let file = name.rsplit(['/', '\\']).next()?;
    file.match_indices(prefix).find_map(|(at, _)| {
        let digits = &file[at + prefix.len()..];
        let length = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
        (length >= LEAST).then(|| format!("{prefix}{}", &digits[..length]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_in_names_of_files() {
        let id = |name| id_in(name, "pl-");
        assert_eq!(id("pl-6ea54007.json").as_deref(), Some("pl-6ea54007"));
        assert_eq!(
            id("a/entries-of-pl-0c3000000000000e1.json").as_deref(),
            Some("pl-0c3000000000000e1")
        );
        assert_eq!(id("sampl-file-pl-6ea54007").as_deref(), Some("pl-6ea54007"));
        assert_eq!(id("pl-6ea54007/entries.json"), None);
        assert_eq!(id("simpl-e.json"), None);
    }
}
