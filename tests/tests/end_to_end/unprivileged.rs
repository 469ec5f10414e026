//! Without privileges a gateway cannot start; it says what is missing and how to get it.

use std::fs::{File, Permissions};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use gwlb_tests::world::{Plan, Process};
use netio::netns::ScratchNetns;

use super::world;

/// A user without any rights, on every Linux.
const NOBODY: u32 = 65_534;

#[test]
fn a_start_without_privileges_says_what_is_missing_and_how_to_get_it() {
    let Some(named) = ScratchNetns::for_test("without_privileges") else { return };
    let Some(world) = world("without_privileges", Plan::default()) else { return };
    world.open_folder();
    let own = world.folder().join("own");
    std::fs::create_dir(&own).unwrap();
    std::fs::set_permissions(&own, Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(&own, Some(NOBODY), Some(NOBODY)).unwrap();
    let named = format!("\"{}\"", named.name());
    let sites = [&world.gateway, &*world.client, &*world.servers[0]];
    let references = sites.map(|site| format!("\"{}\"", site.reference()));
    let mut changes: Vec<_> = references.iter().map(|site| (&site[..], &named[..])).collect();
    changes.extend([
        ("/secret\"", "/own/secret\""),
        ("/admin.sock\"", "/own/admin.sock\""),
        // One namespace has one default route.
        ("default_route = true", "default_route = false"),
    ]);
    let configuration = world.configuration_with(&changes);
    let file = world.write("gateway.toml", configuration);

    // By its handle, since a path may lead through folders that are not open to everybody.
    let binary = File::open(env!("CARGO_BIN_EXE_gwlb-tests")).unwrap();
    let mut command = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()));
    command.args(["gwlb", "run"]).arg(file).uid(NOBODY).gid(NOBODY).current_dir("/");
    let finished = Process::start("gwlb as nobody", command).finish();
    println!("{}", finished.log);
    assert_eq!(finished.code, Some(1), "{}", finished.log);
    assert_eq!(finished.stdout, "");
    for words in [
        "cannot start",
        "MISSING CAP_NET_ADMIN",
        "MISSING CAP_SYS_ADMIN",
        "/dev/net/tun",
        "run as root",
    ] {
        assert!(finished.stderr.contains(words), "{words}:\n{}", finished.stderr);
    }
    assert!(!own.join("admin.sock").exists(), "a socket stays behind");
    // And of user namespaces it says what is so, though its memory was hidden.
    let mut attempt = Command::new("unshare");
    attempt.args(["--user", "--map-root-user", "--net", "--mount", "true"]);
    if let Ok(status) = attempt.uid(NOBODY).gid(NOBODY).current_dir("/").status() {
        let missing = finished.stderr.contains("MISSING user namespaces");
        assert_eq!(missing, !status.success(), "{}", finished.stderr);
    }
}
