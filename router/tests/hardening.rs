//! No input panics, and every problem has a report: damaged files and noise.
#![expect(clippy::unwrap_used, reason = "in the helpers of tests, as in tests")]

use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use router::source::{Look, Source};
use router::{Entry, Topology, config};

/// The correct file and every wrong one.
static FILES: LazyLock<Vec<String>> = LazyLock::new(|| {
    ["tests/files", "tests/errors"]
        .iter()
        .flat_map(|folder| {
            std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap()
        })
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect()
});

fn build_and_use(text: &str) {
    let source = Source::new("damaged.toml", text);
    match config::parse(&source).and_then(|file| Topology::build(&file, &source)) {
        Ok(topology) => {
            let subnets = topology.subnets().map(|(id, _)| Entry::Subnet(id));
            let gateways = topology.gateways().map(|(id, _)| Entry::InternetGateway(id));
            let endpoints = topology.endpoints().map(|(id, _)| Entry::Endpoint(id));
            for from in subnets.chain(gateways).chain(endpoints) {
                for to in ["0.0.0.0", "10.0.1.11", "255.255.255.255", "::", "fd00:10:0:1::11"] {
                    drop(topology.trace(from, to.parse().unwrap()).to_string());
                }
            }
            drop(topology.describe());
        }
        Err(problems) => {
            let report = problems.render(Look::Plain);
            for problem in &problems {
                // Control characters are drawn otherwise.
                let end = |c: char| c.is_whitespace() || c.is_control();
                let first = problem.message().split(end).next().unwrap_or_default();
                assert!(report.contains(first), "{problem} is not in:\n{report}");
            }
            assert!(!report.contains(|c: char| c.is_control() && c != '\n'), "{report:?}");
            assert!(!report.contains("Failed to read contents"), "{report}");
        }
    }
}

/// A piece of a file, to be put where it does not belong.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "[\\[\\]{}\"'=,.#/:0-9a-z\n ]{1,8}",
        ".{1,4}",
        prop::sample::select(vec![
            "\r\n",
            "\u{feff}",
            "ü",
            "= true",
            "0.0.0.0/0",
            "::/0",
            "10.0.1.0/24",
            "vpce-a",
            "app-a",
            "[[subnet]]\n",
            "255.255.255.255/32",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128",
        ])
        .prop_map(str::to_owned),
    ]
}

proptest! {
    #[test]
    fn damaged_files_are_told_and_never_panic(
        file in any::<prop::sample::Index>(),
        damages in prop::collection::vec(
            (any::<prop::sample::Index>(), 0usize..20, piece()),
            1..4,
        ),
    ) {
        let mut text = file.get(&FILES).clone();
        for (at, length, piece) in damages {
            let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            if places.is_empty() {
                break;
            }
            let from = at.index(places.len());
            let to = places.get(from + length).copied().unwrap_or(text.len());
            text.replace_range(places[from]..to, &piece);
        }
        build_and_use(&text);
    }

    #[test]
    fn noise_is_told_and_never_panics(text in any::<String>()) {
        build_and_use(&text);
    }
}

#[test]
fn a_file_cut_off_anywhere_is_told() {
    for text in FILES.iter() {
        for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
            build_and_use(&text[..end]);
        }
    }
}
