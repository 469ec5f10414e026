//! The `router` command as people and scripts meet it: streams, exit statuses, help, JSON.
#![expect(clippy::unwrap_used, reason = "in the helpers of tests, as in tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rstest::rstest;

/// Runs in the folder of the test files, so that no output holds a path of this machine, and
/// without what would make it wider or coloured.
fn router(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_router"));
    command.args(args).current_dir(folder()).stdin(Stdio::null());
    for variable in ["COLUMNS", "CLICOLOR_FORCE", "FORCE_COLOR"] {
        command.env_remove(variable);
    }
    command
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn run(args: &[&str]) -> Output {
    router(args).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

const FILE: &str = "files/two-zones.toml";

#[rstest]
#[case("check", &["check", FILE])]
#[case("show", &["show", FILE])]
#[case("show-json", &["show", FILE, "--json"])]
#[case("trace-in", &["trace", FILE, "--from", "internet_gateway:igw", "--to", "198.51.100.11"])]
#[case("trace-out", &["trace", FILE, "--from", "subnet:app-b", "--to", "2001:db8::7"])]
#[case("trace-json", &["trace", FILE, "--from", "subnet:app-b", "--to", "10.0.1.11", "--json"])]
#[case("verify-clean", &["verify", "verify/correct/two-zones.toml"])]
#[case("verify-good-to-know", &["verify", "verify/unused-endpoint.toml"])]
#[case("plan", &["plan", "plan/uninspected.toml", "plan/inspected.toml"])]
#[case("plan-json", &["plan", "plan/inspected.toml", "plan/uninspected.toml", "--json"])]
#[case("plan-nothing", &["plan", FILE, FILE])]
#[case("help", &["--help"])]
#[case("help-check", &["check", "--help"])]
#[case("help-trace", &["trace", "--help"])]
#[case("help-verify", &["verify", "--help"])]
#[case("help-show", &["show", "--help"])]
#[case("help-plan", &["plan", "--help"])]
#[case("help-import", &["import", "--help"])]
fn data_goes_to_standard_output(#[case] name: &str, #[case] args: &[&str]) {
    let output = run(args);
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
    assert_is(name, &output);
}

#[rstest]
#[case("plan-no-safe-order", &["plan", "plan/chain.toml", "plan/chain-reversed.toml"])]
#[case("plan-through-local", &["plan", "plan/firewalls.toml", "plan/firewalls-changed.toml"])]
fn a_plan_that_exposes_somebody_is_the_answer_no(#[case] name: &str, #[case] args: &[&str]) {
    let output = run(args);
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(1));
    assert_is(name, &output);
}

fn assert_is(name: &str, output: &Output) {
    insta::with_settings!({ snapshot_path => folder().join("output"), prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, text(&output.stdout));
    });
}

#[rstest]
#[case("192.0.2.1", "dropped: blackhole\n")]
#[case("10.0.9.1", "dropped: no_subnet\n")]
fn a_packet_that_is_dropped_is_the_answer_no(#[case] to: &str, #[case] last: &str) {
    let output = run(&["trace", FILE, "--from", "subnet:app-a", "--to", to]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "");
    assert!(text(&output.stdout).ends_with(last), "{}", text(&output.stdout));
}

#[rstest]
#[case("verify-findings", &["verify", FILE])]
#[case("verify-json", &["verify", "verify/edge-entry-missing.toml", "--json"])]
#[case("verify-circle", &["verify", "verify/endpoint-subnet-to-itself.toml"])]
fn findings_are_the_answer_no(#[case] name: &str, #[case] args: &[&str]) {
    let output = run(args);
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(1));
    insta::with_settings!({ snapshot_path => folder().join("output"), prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, text(&output.stdout));
    });
}

#[rstest]
#[case::no_command(&[], "Usage: router")]
#[case::unknown_command(&["chekc", FILE], "unrecognized subcommand 'chekc'")]
#[case::no_file(&["check"], "<FILE>")]
#[case::no_place(&["trace", FILE, "--to", "10.0.1.1"], "--from <PLACE>")]
#[case::no_address(&["trace", FILE, "--from", "subnet:app-a", "--to", "home"], "invalid IP address")]
#[case::unknown_place(&["trace", FILE, "--from", "subnet:app-c", "--to", "10.0.1.1"], "did you mean \"app-a\"?")]
#[case::absent_file(&["check", "files/absent.toml"], "there is no file files/absent.toml")]
#[case::a_folder(&["check", "files"], "files is a directory")]
#[case::plan_of_one_file(&["plan", FILE], "<NEW>")]
#[case::plan_of_bad_file(&["plan", FILE, "errors/syntax.toml"], "[errors/syntax.toml:2:12]")]
#[case::plan_of_bad_old_file(&["plan", "errors/gateway-table.toml", FILE], "rule edge-target (aws)")]
#[case::problems(&["check", "errors/dangling-references.toml"], "6 problems in errors/dangling-references.toml")]
#[case::problems_before_findings(&["verify", "errors/gateway-table.toml"], "[errors/gateway-table.toml:")]
#[case::nothing_to_import(&["import"], "<FILE>...")]
#[case::absent_import(&["import", "import/one-zone.json", "files/absent.json"], "there is no file files/absent.json")]
#[case::no_json(&["import", FILE], "this is not JSON")]
#[case::problems_of_others_too(&["show", "errors/syntax.toml"], "[errors/syntax.toml:2:12]")]
fn wrong_usage_and_configuration_end_with_2(#[case] args: &[&str], #[case] says: &str) {
    let output = run(args);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stdout), "");
    let said = text(&output.stderr);
    assert!(said.contains(says), "{said}");
    assert!(!said.contains('\x1b'), "colour on a pipe: {said}");
}

#[rstest]
#[case(&["show", FILE])]
#[case(&["trace", FILE, "--from", "subnet:app-b", "--to", "10.0.1.11"])]
#[case(&["check", FILE])]
#[case(&["verify", FILE])]
#[case(&["--help"])]
fn a_closed_pipe_is_a_clean_end(#[case] args: &[&str]) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = router(args).stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

/// The configuration is all that stands on standard output, so that it can be a file.
#[test]
fn an_import_is_a_configuration_that_check_accepts() {
    let imported = run(&["import", "import/one-zone.json"]);
    assert_eq!(imported.status.code(), Some(0));
    let notes = text(&imported.stderr);
    assert!(notes.starts_with("note: elastic addresses whose VPC is known only by"), "{notes}");
    assert!(notes.lines().all(|line| line.starts_with("note: ")), "{notes}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("network.toml");
    std::fs::write(&file, &imported.stdout).unwrap();
    let checked = run(&["check", file.to_str().unwrap()]);
    assert_eq!(text(&checked.stderr), "");
    assert_eq!(checked.status.code(), Some(0));
}

#[test]
fn an_import_reads_standard_input() {
    let json = std::fs::File::open(folder().join("import/two-zones.json")).unwrap();
    let piped = router(&["import", "-"]).stdin(json).output().unwrap();
    let read = run(&["import", "import/two-zones.json"]);
    assert_eq!(text(&piped.stderr), text(&read.stderr));
    let expected = text(&read.stdout).replacen("import/two-zones.json", "standard input", 1);
    assert_eq!(text(&piped.stdout), expected);
    let broken = router(&["import", "-"]).output().unwrap();
    assert_eq!(broken.status.code(), Some(2));
    assert!(text(&broken.stderr).contains("standard input is empty"));
}
