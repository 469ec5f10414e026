//! How long a proof takes of a VPC with 200 subnets in 6 zones and 1000 routes.
//!
//! `cargo bench -p router --bench verify`
#![expect(clippy::unwrap_used, reason = "in the helpers of benchmarks, as in tests")]

use criterion::{Criterion, criterion_group, criterion_main};

#[path = "../tests/large/mod.rs"]
mod large;

fn verify(criterion: &mut Criterion) {
    let topology = large::topology();
    criterion.bench_function("verify/200 subnets, 6 zones, 1000 routes", |bencher| {
        bencher.iter(|| topology.verify());
    });
}

criterion_group!(benches, verify);
criterion_main!(benches);
