//! What runs a harness where no fuzzer does: the inputs that were kept, and new ones made of them.
//!
//! bolero's own engine for tests makes its inputs from the operating system's random numbers, which
//! says something else in every run and is nearly all noise to a parser. This one is the same every
//! time, and changes what was kept, as a fuzzer does. It knows nothing of coverage.

#[cfg(not(fuzzing))]
use std::fs;
use std::panic::{AssertUnwindSafe, RefUnwindSafe};
#[cfg(not(fuzzing))]
use std::path::{Path, PathBuf};

#[cfg(not(fuzzing))]
pub use Replay as Engine;
#[cfg(fuzzing)]
pub use bolero::DefaultEngine as Engine;

/// Runs a harness: `fuzz!(COUNT, |bytes| …)` asserts something of any bytes. COUNT inputs are made
/// in a test, beyond those that are kept; as many as run within a second without optimisation.
macro_rules! fuzz {
    ($count:expr, $harness:expr) => {{
        let location = bolero::TargetLocation {
            package_name: env!("CARGO_PKG_NAME"),
            manifest_dir: env!("CARGO_MANIFEST_DIR"),
            module_path: module_path!(),
            file: file!(),
            line: line!(),
            item_path: bolero::__item_path__!(),
            test_name: None,
        };
        if !location.should_run() {
            return;
        }
        let engine = $crate::engine::engine(location, $count);
        bolero::TestTarget::new(engine).for_each($crate::engine::guarded($harness));
    }};
}
pub(crate) use fuzz;

/// What a harness has around it may be left as it is: one that panics is not run again.
pub fn guarded(harness: impl FnMut(&[u8])) -> impl FnMut(&[u8]) + RefUnwindSafe {
    let mut harness = AssertUnwindSafe(harness);
    move |bytes| (*harness)(bytes)
}

/// The fuzzer that was built for.
#[cfg(fuzzing)]
pub fn engine(location: bolero::TargetLocation, _count: usize) -> Engine {
    Engine::new(location)
}

/// The engine of tests.
#[cfg(not(fuzzing))]
pub fn engine(location: bolero::TargetLocation, count: usize) -> Engine {
    Replay { location, count }
}

/// How many inputs are made, in place of what each harness says.
#[cfg(not(fuzzing))]
const ITERATIONS: &str = "BOLERO_RANDOM_ITERATIONS";

/// The longest input that is made.
#[cfg(not(fuzzing))]
const LONGEST: usize = 4096;

/// Replays what was kept, and then goes on with what can be made of it.
#[cfg(not(fuzzing))]
pub struct Replay {
    location: bolero::TargetLocation,
    count: usize,
}

#[cfg(not(fuzzing))]
impl<T: bolero::Test> bolero::Engine<T> for Replay {
    type Output = ();

    fn run(self, mut test: T, options: bolero::bolero_engine::driver::Options) {
        use bolero::bolero_engine::{input::Bytes, panic};

        let folder = self.location.work_dir().expect("a folder beside the harness");
        let mut run = |bytes: &[u8], name: &dyn Fn() -> String| {
            panic::forward_panic(false);
            let result = test.test(&mut Bytes::new(bytes, &options));
            panic::forward_panic(true);
            if let Err(error) = result {
                panic!("{}: {error}", name());
            }
        };
        panic::set_hook();
        let (crashes, corpus) = (files(&folder.join("crashes")), files(&folder.join("corpus")));
        for (path, bytes) in crashes.iter().chain(&corpus) {
            run(bytes, &|| path.display().to_string());
        }
        let count = std::env::var(ITERATIONS).ok().and_then(|count| count.parse().ok());
        let mut random = Random::new(&self.location.item_path());
        let kept: Vec<_> = crashes.into_iter().chain(corpus).map(|(_, bytes)| bytes).collect();
        for _ in 0..count.unwrap_or(self.count) {
            let bytes = random.input(&kept);
            run(&bytes, &|| {
                let path = keep(&folder.join("crashes"), &bytes);
                format!("kept as {}", path.display())
            });
        }
    }
}

/// The files of a folder and what is in them, by name.
#[cfg(not(fuzzing))]
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut paths: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|entry| entry.expect("an entry of the folder").path())
        .collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).expect("a kept input"))).collect()
}

/// Keeps an input that fails, so that from now on every run begins with it.
#[cfg(not(fuzzing))]
fn keep(folder: &Path, bytes: &[u8]) -> PathBuf {
    let path = folder.join(&blake3::hash(bytes).to_hex()[..16]);
    fs::create_dir_all(folder).and_then(|()| fs::write(&path, bytes)).expect("a folder to keep in");
    path
}

/// Makes inputs, the same for the same name: xorshift64* (Vigna, 2016).
#[cfg(not(fuzzing))]
struct Random(u64);

#[cfg(not(fuzzing))]
impl Random {
    fn new(name: &str) -> Self {
        let hash = blake3::hash(name.as_bytes());
        let seed = hash.as_bytes().first_chunk().expect("more than eight bytes");
        Self(u64::from_le_bytes(*seed) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        ((self.next() >> 32) as usize * limit) >> 32
    }

    /// Something that was kept, with a few changes; every eighth time noise.
    fn input(&mut self, kept: &[Vec<u8>]) -> Vec<u8> {
        if kept.is_empty() || self.below(8) == 0 {
            let len = self.below(256);
            return (0..len).map(|_| self.next() as u8).collect();
        }
        let mut bytes = kept[self.below(kept.len())].clone();
        for _ in 0..=self.below(4) {
            let other = self.below(kept.len());
            self.change(&mut bytes, &kept[other]);
        }
        bytes.truncate(LONGEST);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        const TELLING: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, 0x40, 0x20, 0x10];
        let at = self.below(bytes.len() + 1);
        let len = self.below(bytes.len() - at + 1).min(1 + self.below(64));
        match self.below(7) {
            0 if at < bytes.len() => bytes[at] = self.next() as u8,
            1 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            2 if at < bytes.len() => bytes[at] = TELLING[self.below(TELLING.len())],
            3 => drop(bytes.drain(at..at + len)),
            4 => {
                let again = bytes[at..at + len].to_vec();
                let to = self.below(bytes.len() + 1);
                bytes.splice(to..to, again);
            }
            5 => {
                let from = self.below(other.len() + 1);
                let until = other.len().min(from + 1 + self.below(64));
                bytes.splice(at..at, other[from..until].iter().copied());
            }
            _ => bytes.insert(at, self.next() as u8),
        }
    }
}

#[cfg(all(test, not(fuzzing)))]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_makes_the_same_inputs() {
        let kept = [b"some bytes".to_vec(), b"others".to_vec()];
        let inputs = |name| {
            let mut random = Random::new(name);
            (0..100).map(|_| random.input(&kept)).collect::<Vec<_>>()
        };
        assert_eq!(inputs("one"), inputs("one"));
        assert_ne!(inputs("one"), inputs("two"));
        assert!(
            inputs("one").iter().any(|bytes| bytes.starts_with(b"some")),
            "made of what is kept"
        );
    }
}
