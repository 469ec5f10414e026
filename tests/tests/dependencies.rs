//! The page about dependencies says what is linked: every crate, its version, and how often its
//! sources say `unsafe`. What nobody has looked at fails here.
#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests, and nothing else")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What users run, and what the rest of the workspace is for.
const PRODUCTS: [&str; 4] = ["gwlb", "nva-sample", "router", "appliance-sdk"];
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// A crate, and its version.
type Package = (String, String);

fn cargo(arguments: &[&str]) -> String {
    // Nothing is to be fetched or changed: what is looked at is what these tests were built from.
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).args(["--locked", "--offline"]);
    let output = command.current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// What is linked, and how often it says `unsafe`.
fn linked() -> BTreeMap<Package, usize> {
    // Those of other systems need not be on this machine.
    let metadata = cargo(&["metadata", "--format-version", "1", "--filter-platform", TARGET]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let mut arguments = vec!["tree", "--prefix", "none", "--format", "{p}", "--target", TARGET];
    arguments.extend(["--edges", "normal,no-proc-macro"]);
    arguments.extend(PRODUCTS.iter().flat_map(|product| ["--package", product]));
    let tree = cargo(&arguments);
    let named = tree.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let version = |version: &str| version.strip_prefix('v').map(str::to_owned);
        Some((words.next()?.to_owned(), version(words.next()?)?))
    });
    let mut found = BTreeMap::new();
    for (name, version) in named {
        let mut packages = metadata["packages"].as_array().unwrap().iter();
        let is = |package: &&Value| package["name"] == *name && package["version"] == *version;
        let package = packages.find(is).unwrap_or_else(|| panic!("{name} {version} is unknown"));
        // Those of the workspace have none.
        if !package["source"].is_null() {
            let count = unsafes(library(package).parent().unwrap());
            found.insert((name, version), count);
        }
    }
    found
}

/// The root of a package's library.
fn library(package: &Value) -> PathBuf {
    let mut targets = package["targets"].as_array().unwrap().iter();
    let is_library = |target: &&Value| {
        let kinds = target["kind"].as_array().unwrap();
        kinds.iter().any(|kind| kind == "lib" || kind == "rlib")
    };
    let library = targets.find(is_library).unwrap_or_else(|| panic!("no library: {package}"));
    library["src_path"].as_str().unwrap().into()
}

/// How often the word stands in the sources below a folder, outside of comments.
fn unsafes(folder: &Path) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            count += unsafes(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
            let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let words = code.flat_map(|code| code.split(move |c| !word(c)));
            count += words.filter(|word| *word == "unsafe").count();
        }
    }
    count
}

/// What a line of the page says of a crate: its version and its count, which a list without any
/// leaves out.
fn said(line: &str) -> Option<(Package, usize)> {
    if let Some(row) = line.strip_prefix("| `") {
        let mut cells = row.split('|').map(str::trim);
        let name = cells.next()?.strip_suffix('`')?.to_owned();
        let version = cells.next()?.to_owned();
        return Some(((name, version), cells.next()?.parse().ok()?));
    }
    let (name, version) = line.strip_prefix("* `")?.split_once("` ")?;
    version.starts_with(|first: char| first.is_ascii_digit()).then_some(())?;
    Some(((name.to_owned(), version.to_owned()), 0))
}

/// The page with what is so in place of what it says, for crates that are on it.
fn blessed(page: &str, linked: &BTreeMap<Package, usize>) -> String {
    let line = |line: &str| {
        let Some(((name, version), count)) = said(line) else { return line.to_owned() };
        if linked.contains_key(&(name.clone(), version.clone())) {
            let now = linked[&(name, version)];
            return line.replacen(&format!(" | {count} | "), &format!(" | {now} | "), 1);
        }
        // Of several versions it could not be told which this one has become.
        let mut same = linked.iter().filter(|((known, _), _)| *known == name);
        match (same.next(), same.next()) {
            (Some(((_, latest), now)), None) => line.replacen(&version, latest, 1).replacen(
                &format!(" | {count} | "),
                &format!(" | {now} | "),
                1,
            ),
            _ => line.to_owned(),
        }
    };
    page.lines().map(|text| line(text) + "\n").collect()
}

#[test]
fn every_dependency_was_looked_at() {
    let path = root().join("docs/dependencies.md");
    let linked = linked();
    assert!(linked.len() > 100, "the list is not what it should be: {linked:?}");
    let mut page = std::fs::read_to_string(&path).unwrap();
    if std::env::var_os("GWLB_BLESS").is_some_and(|value| value == "1") {
        page = blessed(&page, &linked);
        std::fs::write(&path, &page).unwrap();
    }
    let said: BTreeMap<_, _> = page.lines().filter_map(said).collect();
    let mut wrong = Vec::new();
    for ((name, version), count) in &linked {
        match said.get(&(name.clone(), version.clone())) {
            None => wrong.push(format!("{name} {version} is linked and not on the page")),
            Some(said) if said != count => {
                wrong.push(format!("{name} {version} says `unsafe` {count} times, not {said}"));
            }
            Some(_) => {}
        }
    }
    let gone = said.keys().filter(|package| !linked.contains_key(*package));
    wrong.extend(gone.map(|(name, version)| format!("{name} {version} is not linked any more")));
    assert!(wrong.is_empty(), "{}\n{}", path.display(), wrong.join("\n"));
}

#[test]
fn a_change_is_noticed_and_blessed_only_where_it_is_clear() {
    let linked = BTreeMap::from([
        (("a".to_owned(), "1.1.0".to_owned()), 3),
        (("b".to_owned(), "1.0.0".to_owned()), 0),
        (("c".to_owned(), "1.0.0".to_owned()), 1),
        (("c".to_owned(), "2.0.0".to_owned()), 1),
    ]);
    let page = "| `a` | 1.0.0 | 2 | what | who | no |\n* `b` 0.9.0\n* `c` 0.1.0\nand 1.0.0\n";
    assert_eq!(said(page.lines().next().unwrap()).unwrap(), (("a".into(), "1.0.0".into()), 2));
    assert_eq!(said("* `cargo tree` lists them"), None);
    assert_eq!(said("| crate | version | `unsafe` | what |"), None);
    let expected = "| `a` | 1.1.0 | 3 | what | who | no |\n* `b` 1.0.0\n* `c` 0.1.0\nand 1.0.0\n";
    assert_eq!(blessed(page, &linked), expected);
}
