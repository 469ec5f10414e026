//! A configuration from what AWS says of a network that is there.
//!
//! [`import`] reads the JSON of `aws ec2 describe-vpcs` and its like, as the AWS CLI prints it, and
//! gives the tables of [`config`] as TOML text, to be checked, traced and verified
//! like any other. What the form cannot say, or the documents do not tell, is kept as `[[opaque]]`
//! or as a comment, and told in a [`Note`]: nothing is dropped silently. It talks to no cloud.

mod endpoints;
mod gateways;
mod gather;
mod input;
mod names;
mod network;
mod note;
mod routes;
mod shapes;
mod targets;
mod toml_text;
mod transit;
mod write;

use std::collections::BTreeSet;

pub use note::Note;

use crate::rules::RuleSet;
use crate::source::{Problem, Problems, Source};
use crate::{Circles, Topology, config};
use input::Input;
use network::Network;
use note::Notes;

/// What a network becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The configuration. It has the form of one; whether it keeps the clouds' rules is told in a
    /// note if it does not.
    pub toml: String,
    /// What is left out, taken for granted, or opaque.
    pub notes: Vec<Note>,
}

/// Makes a configuration of these documents, in any order.
///
/// ```
/// use router::source::Source;
///
/// let vpcs = Source::new("vpcs.json", r#"{"Vpcs": [{
///     "VpcId": "vpc-0a", "CidrBlock": "10.0.0.0/16", "Tags": [{"Key": "Name", "Value": "app"}]
/// }]}"#);
/// let imported = router::import::import(&[vpcs]).map_err(|_| "not importable")?;
/// assert!(imported.toml.contains("[[vpc]] # vpc-0a\nname = \"app\"\ncidrs = [\"10.0.0.0/16\"]\n"));
/// # Ok::<(), &str>(())
/// ```
///
/// # Errors
/// For each document that has any, the problems with it: what is not JSON, what lacks a member that
/// the API always gives, and what contradicts something else. Then nothing is made of the others.
pub fn import(documents: &[Source]) -> Result<Imported, Vec<Problems>> {
    let mut notes = Notes::default();
    let mut input = Input::read(documents, &mut notes);
    let mut network = Network::read(&mut input, &mut notes);
    network.read_transit(&mut input, &mut notes);
    network.read_tables(&mut input, &mut notes);
    input.check()?;
    if network.vpcs.is_empty() {
        let source = documents.first().cloned().unwrap_or_else(|| Source::new("the input", ""));
        let problem = Problem::new("there is no VPC in the input")
            .help("give the output of `aws ec2 describe-vpcs`, too");
        return Err(vec![Problems::from((source, problem))]);
    }
    for (list, command) in [
        ("Subnets", "describe-subnets"),
        ("RouteTables", "describe-route-tables"),
        ("VpcEndpoints", "describe-vpc-endpoints"),
        ("InternetGateways", "describe-internet-gateways"),
    ] {
        if !input.has(list) {
            notes.add("commands whose output is not given, and usually matters", command);
        }
    }
    let from: BTreeSet<String> = documents.iter().map(|it| it.name().to_owned()).collect();
    Ok(written(&network, &from.into_iter().collect::<Vec<_>>(), notes))
}

/// The configuration, with the rules that it keeps. A network that is there keeps AWS's, but what
/// is gone from it, or not told, leaves traces that nobody could make anew.
fn written(network: &Network, from: &[String], mut notes: Notes) -> Imported {
    let mut rules = RuleSet::Aws;
    let (mut toml, mut list) = network.write(rules, from, notes.clone());
    let broken = refusals(&toml, Circles::Kept);
    let mut told = false;
    if !broken.is_empty() {
        let (lenient, _) = network.write(RuleSet::Linux, from, notes.clone());
        if refusals(&lenient, Circles::Kept).is_empty() {
            (rules, toml, told) = (RuleSet::Linux, lenient, true);
            for refusal in broken {
                let what = "the tables are held to no cloud's rules (rules = \"linux\"), for they \
                            break AWS's";
                notes.add(what, refusal);
            }
        }
    }
    for refusal in refusals(&toml, Circles::Refused) {
        told = true;
        notes.add("`router check` refuses the configuration as it is, and says where", refusal);
    }
    if told {
        (toml, list) = network.write(rules, from, notes);
    }
    Imported { toml, notes: list }
}

/// Why there is no topology of it.
fn refusals(toml: &str, circles: Circles) -> Vec<String> {
    let source = Source::new("imported.toml", toml);
    let built = config::parse(&source)
        .and_then(|file| Topology::build_with(&file, &source, circles).map(drop));
    let told = |problem: &Problem| problem.message().to_owned();
    built.err().map_or(Vec::new(), |problems| problems.iter().map(told).collect())
}
