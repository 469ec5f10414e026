//! What a reader sees of a file with mistakes: each file of `errors/` against its report.
//!
//! `INSTA_UPDATE=always cargo test -p router --test reports` rewrites the reports; read the diff.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in the helpers of tests, as in tests"
)]

use std::path::{Path, PathBuf};

use router::source::{Look, Problems, Source};
use router::{Topology, config};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/errors")
}

/// The files and their names, in order.
fn files() -> Vec<(String, PathBuf)> {
    let mut files: Vec<_> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path))
        .collect();
    files.sort();
    files
}

fn problems(name: &str, path: &Path) -> Problems {
    // Reports show the name, which must not be the path on this machine.
    let source = Source::new(format!("{name}.toml"), std::fs::read_to_string(path).unwrap());
    config::parse(&source)
        .and_then(|file| Topology::build(&file, &source))
        .expect_err("every file of the folder has mistakes")
}

#[test]
fn every_mistake_is_told_where_it_stands_with_what_would_help() {
    let files = files();
    assert!(files.len() >= 30, "only {} files", files.len());
    insta::with_settings!({ snapshot_path => folder(), prepend_module_to_snapshot => false, omit_expression => true }, {
        for (name, path) in files {
            insta::assert_snapshot!(name.as_str(), problems(&name, &path).render(Look::Plain));
        }
    });
}

#[test]
fn every_problem_has_a_place_within_the_text_and_a_label() {
    for (name, path) in files() {
        let problems = problems(&name, &path);
        let length = problems.source().text().len();
        for problem in &problems {
            let place = problem.places().next().unwrap_or_else(|| panic!("{name}: {problem}"));
            assert!(place.span.end <= length, "{name}: {problem}: {:?}", place.span);
            assert!(!place.text.is_empty(), "{name}: {problem}");
        }
    }
}

#[test]
fn reports_are_plain_ascii_where_the_file_is() {
    for (name, path) in files() {
        let report = problems(&name, &path).render(Look::Plain);
        assert!(report.is_ascii(), "{name}:\n{report}");
        assert!(!report.contains('\x1b'), "{name}:\n{report}");
    }
}
