//! Prefix lists: ranges that routes can be for together.

use super::super::PrefixList;
use super::Draft;
use super::cidr::{overlaps, parse_cidr};

impl Draft<'_> {
    /// All lists. What overlaps within one leads to the same place, so only what stands twice is a
    /// mistake.
    pub(super) fn add_prefix_lists(&mut self) {
        let file = self.file;
        for list in &file.prefix_lists {
            let mut ranges = Vec::new();
            for text in &list.entries {
                ranges.extend(self.accept(parse_cidr(text)).map(|range| (range, text)));
            }
            let twice = overlaps(ranges.clone()).into_iter().filter(|(a, b)| a.0 == b.0);
            let problems: Vec<_> = twice
                .map(|((range, first), (_, second))| {
                    second
                        .problem(format!("{range} is twice in a prefix list"))
                        .label("again here")
                        .and(first.span(), "first here")
                        .help("remove one of them")
                })
                .collect();
            self.problems.extend(problems);
            let entries = ranges.into_iter().map(|(range, _)| range).collect();
            self.prefix_lists.push(PrefixList { name: list.name.get().clone(), entries });
        }
    }
}
