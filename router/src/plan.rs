//! What has to be done to make one network of another, in an order that endangers nobody.
//!
//! A [`Network`] is a configuration file as data, an [`Operation`] one change of it, as a call to a
//! cloud would make it, with the rules by which the cloud refuses it. A [`Plan`] puts the operations
//! between two networks in an order: each is possible when its turn comes, and after each, packets
//! are as well off as before or afterwards. No packet is delivered without an inspection that it
//! has in both, none is lost that both deliver, and none goes where neither would have it go. This
//! is decided for all addresses, by classes at the borders of all tables, and not by sampling. An
//! address that a subnet has only before or only afterwards is nobody's on the way.
//!
//! It plans only: nothing here calls a cloud.

mod addresses;
mod apply;
mod changes;
mod diff;
mod kind;
mod network;
mod operation;
mod order;
mod paths;
mod prepare;
mod rank;
mod safety;
mod text;

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Serialize;

use crate::rules::Rule;
use crate::source::Problem;

pub use changes::{Path, PathChange};
pub use kind::{Kind, Place, Resource};
pub use network::Network;
pub use operation::Operation;
pub use safety::{Danger, Exposure};

use diff::difference;
use kind::Named;
use order::{Order, least_evil, safe};
use prepare::prepare;
use safety::Checker;

/// The way from one network to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Plan {
    /// Whether no step exposes anybody, and all is possible.
    pub safe: bool,
    /// What to do, in this order.
    pub steps: Vec<Step>,
    /// What would have to be done besides, and for which no order was found: it is not possible after
    /// the steps, and these end before the second network is reached.
    pub impossible: Vec<Impossible>,
    /// The addresses that go another way afterwards.
    pub paths: Vec<PathChange>,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Step {
    /// From 1.
    pub number: usize,
    /// What to do.
    pub operation: Operation,
    /// The same in one line.
    pub text: String,
    /// Whether there is nothing to call: the change is one of the file alone.
    pub in_file_alone: bool,
    /// Why not earlier, if that does not go without saying.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
    /// Who is in danger from this step until the next.
    pub exposed: Vec<Exposure>,
}

/// Why a step stands behind another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Why {
    /// The number of the other one.
    pub after: usize,
    /// What would be wrong before it.
    pub reason: String,
    /// The code of the rule that the cloud would cite.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// What is not possible after the steps that were found. There may be other steps after which it is:
/// not every order is tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Impossible {
    /// What.
    pub operation: Operation,
    /// The same in one line.
    pub text: String,
    /// Why not, after all steps.
    pub reason: String,
    /// The code of the rule that the cloud would cite.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// Longer plans go without reasons: each costs as much as finding the step.
const MOST_REASONED: usize = 200;

impl Plan {
    /// Plans the way from one network to another, which has to be held to the same rules.
    pub fn new(old: &Network, new: &Network) -> Plan {
        let way = Way::find(old, new);
        let mut checker = way.checker;
        let mut states = vec![old.clone()];
        let mut steps = Vec::new();
        for (index, taken) in way.order.steps.iter().enumerate() {
            let reasoned = index < MOST_REASONED;
            // For what is not even safe in its turn, there is no better time.
            let has_reason = reasoned
                && index > 0
                && taken.exposed.is_empty()
                && !taken.operation.is_in_file_alone();
            let why = has_reason.then(|| why(&states, &taken.operation, &mut checker)).flatten();
            steps.push(Step {
                number: index + 1,
                operation: taken.operation.clone(),
                text: taken.operation.to_string(),
                in_file_alone: taken.operation.is_in_file_alone(),
                why,
                exposed: checker.written(&taken.exposed),
            });
            if reasoned
                && let Some(Ok(after)) = states.last().map(|it| taken.operation.applied_to(it))
            {
                states.push(after);
            }
        }
        let impossible = way.order.impossible.iter().map(|(operation, problem)| Impossible {
            operation: operation.clone(),
            text: operation.to_string(),
            reason: problem.message().to_owned(),
            rule: cited(problem),
        });
        Plan {
            safe: way.order.is_safe(),
            impossible: impossible.collect(),
            steps,
            paths: changes::changes(old.topology(), new.topology()),
        }
    }

    /// The network after all steps.
    ///
    /// # Errors
    /// If this is not a network that the plan was made for.
    pub fn apply(&self, old: &Network) -> Result<Network, Problem> {
        self.steps.iter().try_fold(old.clone(), |network, step| step.operation.applied_to(&network))
    }
}

/// An order that was found, and what decided about it.
struct Way {
    order: Order,
    checker: Checker,
}

impl Way {
    /// First with tables changed where they are, then with prepared ones that take their place in
    /// one step.
    fn find(old: &Network, new: &Network) -> Way {
        let edited = edited(old, new);
        let singly = edited.iter().map(|table| BTreeSet::from([table.clone()]));
        let several = (edited.len() > 1).then(|| edited.clone());
        let attempts: Vec<BTreeSet<String>> =
            std::iter::once(BTreeSet::new()).chain(singly).chain(several).collect();
        // One table is tried after the other only as long as that is bearable.
        let attempts = match attempts.len() {
            0..=10 => attempts,
            _ => vec![BTreeSet::new(), edited],
        };
        for anew in &attempts {
            if let Some(way) = Way::with(old, new, anew, safe) {
                return way;
            }
        }
        let least = |anew: &BTreeSet<String>| {
            let any = |old: &Network, operations: &[Operation], checker: &mut Checker| {
                Some(least_evil(old, operations, checker))
            };
            Way::with(old, new, anew, any)
        };
        let first = least(&BTreeSet::new());
        let prepared = attempts.last().filter(|anew| !anew.is_empty()).and_then(least);
        let mut ways: Vec<Way> = first.into_iter().chain(prepared).collect();
        // Stable: of equal ones, the one that changes tables where they are.
        ways.sort_by_key(|way| way.order.weight());
        ways.swap_remove(0)
    }

    fn with(
        old: &Network,
        new: &Network,
        anew: &BTreeSet<String>,
        search: impl Fn(&Network, &[Operation], &mut Checker) -> Option<Order>,
    ) -> Option<Way> {
        let prepared = prepare(old, new, anew);
        let mut operations = difference(old.file(), &prepared.file);
        operations.extend(prepared.late);
        let mut checker = Checker::new(old.topology(), new.topology(), &prepared.aliases);
        let mut order = search(old, &operations, &mut checker)?;
        if order.impossible.is_empty() {
            let renames = prepared.renames.into_iter();
            order.steps.extend(renames.map(order::Taken::harmless));
        }
        Some(Way { order, checker })
    }
}

/// The tables that have other routes afterwards, where a prepared one could take their place.
fn edited(old: &Network, new: &Network) -> BTreeSet<String> {
    // Alibaba Cloud documents no such step for gateway tables: their entries are edited.
    let edited_only = Rule::EdgeSystemEntry.is_in(new.rules());
    let is_edge = |table: &str| {
        let users = [old, new].into_iter().flat_map(|it| apply::users(it.file(), table));
        users.into_iter().any(|user| user.kind != Kind::Subnet)
    };
    let there = |table: &str| old.file().route_tables.iter().find(|it| it.name() == table);
    let tables = new.file().route_tables.iter().filter(|table| {
        there(table.name()).is_some_and(|before| {
            (&before.routes, &before.propagating) != (&table.routes, &table.propagating)
        })
    });
    let names = tables.map(|table| table.name().to_owned());
    names.filter(|table| !(edited_only && is_edge(table))).collect()
}

/// Why an operation is not done earlier: what would be wrong in a state in which it is not possible,
/// or not safe, where it is in the next one.
fn why(states: &[Network], operation: &Operation, checker: &mut Checker) -> Option<Why> {
    let (mut wrong, mut right) = (0, states.len() - 1);
    let mut reason = wrong_with(states.first()?, operation, checker)?;
    while right - wrong > 1 {
        let between = usize::midpoint(wrong, right);
        match wrong_with(&states[between], operation, checker) {
            Some(other) => (wrong, reason) = (between, other),
            None => right = between,
        }
    }
    let after = right;
    match reason {
        Wrong::Impossible(problem) => {
            // That a thing is not there before it is made goes without saying.
            let rule = Some(cited(&problem)?);
            Some(Why { after, reason: problem.message().to_owned(), rule })
        }
        Wrong::Unsafe(exposure) => Some(Why { after, reason: exposure.if_it_were(), rule: None }),
    }
}

/// The rule that an operation would break, and whose rule that is.
fn cited(problem: &Problem) -> Option<String> {
    problem.broken_rule().map(|(rule, of)| format!("{} ({of})", rule.code()))
}

/// What is wrong with an operation in a state.
enum Wrong {
    Impossible(Problem),
    Unsafe(Exposure),
}

fn wrong_with(state: &Network, operation: &Operation, checker: &mut Checker) -> Option<Wrong> {
    let network = match operation.applied_to(state) {
        Ok(network) => network,
        Err(problem) => return Some(Wrong::Impossible(problem)),
    };
    if operation.goes_unnoticed(state) {
        return None;
    }
    let exposed = checker.exposed(network.topology());
    checker.written(&exposed).into_iter().next().map(Wrong::Unsafe)
}
