//! Answers to health checks: only a status that the matcher takes makes a target healthy, whatever
//! else it says.

use std::path::Path;

use gwlb::config::HealthCheck;
use gwlb::runtime::fuzz::health_answer;
use router::source::Source;

use crate::engine::fuzz;

#[test]
fn http_answers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/gateway.toml");
    let settings = gwlb::config::parse(&Source::read(&path).unwrap()).unwrap();
    let health: HealthCheck = settings.target_groups[0].health_check.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    fuzz!(2_000, move |bytes: &[u8]| {
        match runtime.block_on(health_answer(bytes, &health)) {
            Ok(()) => assert!(says_well(bytes), "{}", bytes.escape_ascii()),
            Err(error) => assert!(!error.is_empty()),
        }
    });
}

/// Whether some line of status has a status of 200 to 399. An interim answer may come before.
fn says_well(answer: &[u8]) -> bool {
    answer.windows(12).any(|line| {
        line.starts_with(b"HTTP/1.")
            && line[8] == b' '
            && matches!(line[9], b'2' | b'3')
            && line[10..].iter().all(u8::is_ascii_digit)
    })
}
