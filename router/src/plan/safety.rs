//! Whether packets are as well off between two networks as in them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Serialize;

use super::kind::Place;
use super::paths::{Book, Classes, Fate, Fates, Outcome};
use crate::topology::Topology;

/// What happens to packets for a moment that happens to them neither before nor afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Danger {
    /// They are delivered without an inspection that they pass before and afterwards, or, where
    /// they are delivered only before or only afterwards, pass then.
    Uninspected,
    /// They are delivered where they are delivered neither before nor afterwards.
    Astray,
    /// They are lost, and are delivered before and afterwards.
    Lost,
}

/// Packets that are in danger for a moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Exposure {
    /// Where they come from.
    pub from: String,
    /// What they are for.
    #[schemars(with = "Vec<String>")]
    pub to: Vec<IpNet>,
    /// What happens to them.
    pub danger: Danger,
}

/// Compares networks on the way from one to another with both.
pub(super) struct Checker {
    classes: Classes,
    book: Book,
    old: Fates,
    new: Fates,
    verdicts: HashMap<[Fate; 3], Option<Danger>>,
}

/// The classes in danger, by where they come from and what happens to them.
#[derive(Clone, Debug, Default)]
pub(super) struct Exposed {
    classes: BTreeMap<(String, Danger), Vec<usize>>,
}

impl Exposed {
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// What is least of several evils: fewer uninspected, then fewer astray, then fewer lost.
    pub fn weight(&self) -> [usize; 3] {
        [Danger::Uninspected, Danger::Astray, Danger::Lost].map(|danger| {
            let of_it = self.classes.iter().filter(|((_, it), _)| *it == danger);
            of_it.map(|(_, classes)| classes.len()).sum()
        })
    }
}

impl Checker {
    pub fn new(old: &Topology, new: &Topology, aliases: &BTreeMap<Place, Place>) -> Checker {
        let classes = Classes::new(&[old, new]);
        let mut book = Book::new(old, new, aliases);
        let (before, after) = (book.fates(old, &classes), book.fates(new, &classes));
        Checker { classes, book, old: before, new: after, verdicts: HashMap::new() }
    }

    /// Who is in danger in a network between the two. Asked are the places that are in both.
    pub fn exposed(&mut self, between: &Topology) -> Exposed {
        let now = self.book.fates(between, &self.classes);
        let mut exposed = Exposed::default();
        // Many places share their fates, and those are compared once.
        let mut same: HashMap<[*const Fate; 3], Vec<(Danger, usize)>> = HashMap::new();
        for (from, old) in &self.old {
            let (Some(new), Some(now)) = (self.new.get(from), now.get(from)) else { continue };
            let key = [old, new, now].map(|fates| fates.as_ptr());
            let dangers = same.entry(key).or_insert_with(|| {
                let fates = old.iter().zip(new.iter()).zip(now.iter()).enumerate();
                let danger = |(class, ((old, new), now)): (usize, ((&Fate, &Fate), &Fate))| {
                    let verdict = self.verdicts.entry([*old, *new, *now]);
                    let danger = verdict.or_insert_with(|| {
                        let outcomes = [*old, *new, *now].map(|it| self.book.outcomes(it));
                        danger(outcomes[0], outcomes[1], outcomes[2])
                    });
                    danger.map(|danger| (danger, class))
                };
                fates.filter_map(danger).collect()
            });
            for (danger, class) in dangers {
                exposed.classes.entry((from.clone(), *danger)).or_default().push(*class);
            }
        }
        exposed
    }

    /// The same, written out.
    pub fn written(&self, exposed: &Exposed) -> Vec<Exposure> {
        let written = |((from, danger), classes): (&(String, Danger), &Vec<usize>)| Exposure {
            from: from.clone(),
            to: self.classes.prefixes(classes),
            danger: *danger,
        };
        exposed.classes.iter().map(written).collect()
    }
}

/// What happens to packets between, given what does before and afterwards.
fn danger(old: &[Outcome], new: &[Outcome], now: &[Outcome]) -> Option<Danger> {
    let both = || old.iter().chain(new);
    let may_be_lost = both().any(|it| it.end.is_none());
    let delivered: Vec<&Outcome> = both().filter(|it| it.end.is_some()).collect();
    let ends: BTreeSet<Option<u32>> = delivered.iter().map(|it| it.end).collect();
    let inspected = !delivered.is_empty() && delivered.iter().all(|it| !it.services.is_empty());
    let one = |now: &Outcome| {
        if now.end.is_none() {
            return (!may_be_lost).then_some(Danger::Lost);
        }
        let passed = |service: &u32| now.services.contains(service);
        // Every service that all of them pass.
        let missed = delivered.first().is_some_and(|first| {
            let all = |service: &&u32| delivered.iter().all(|it| it.services.contains(service));
            first.services.iter().filter(all).any(|service| !passed(service))
        });
        if missed || inspected && now.services.is_empty() {
            return Some(Danger::Uninspected);
        }
        (!ends.contains(&now.end)).then_some(Danger::Astray)
    };
    now.iter().filter_map(one).min()
}
