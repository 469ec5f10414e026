//! Plays seeds of the simulation until one fails or nobody wants any more.
#![forbid(unsafe_code)]
#![expect(
    clippy::expect_used,
    reason = "a lock that is poisoned, or a thread that panicked, ends it"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use gwlb_tests::simulation::{
    Coverage, Kind, Options, Outcome, Regression, Violation, describe, minimise, plan_hash, run,
};
use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::resource::{UsageWho, getrusage};

/// How this was built: the checks of the one find nothing in the other.
const PROFILE: &str = if cfg!(debug_assertions) { "--profile fuzz" } else { "--release" };

/// Looks for counter-examples: plays whole gateways with appliances, hosts and a network, each
/// execution decided by one seed.
///
/// Exit status: 0 if every seed was clean, 1 if one was not, 2 for wrong usage. Ctrl-C ends it with
/// the summary.
#[derive(Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "switches of the command line")]
#[command(name = "simulate", max_term_width = 100)]
struct Arguments {
    /// How many seeds to play.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    seeds: u64,
    /// Stop after so many minutes, even if there are seeds left.
    #[arg(long, value_name = "M")]
    minutes: Option<f64>,
    /// The first seed; with it alone, only that one is played, and told about.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// How many events are drawn for a seed.
    #[arg(long, value_name = "E", default_value_t = Options::default().events)]
    events: u32,
    /// Play only these events of the seed: numbers and ranges, as a failure prints them ("3,7-9").
    #[arg(long, value_name = "LIST", value_parser = numbers, requires = "seed")]
    only: Option<Numbers>,
    /// How many threads play; 0 is one for each CPU.
    #[arg(long, value_name = "T", default_value_t = 1)]
    threads: usize,
    /// How many times a failing seed is played to find the fewest events; 0 leaves it as it is.
    #[arg(long, value_name = "N", default_value_t = 400)]
    minimise: u32,
    /// Keep failing seeds in this folder, each as a regression file.
    #[arg(long, value_name = "FOLDER", default_value = "target/simulations")]
    keep: PathBuf,
    /// Play every seed twice, and hold that nothing but the seed decides.
    #[arg(long)]
    twice: bool,
    /// Go on after a failure, and report all of them in the end.
    #[arg(long)]
    go_on: bool,
    /// Show what a seed has planned, and do not play it.
    #[arg(long, requires = "seed")]
    plan: bool,
    /// Tell every step of the gateways on standard error, a line each.
    #[arg(long, requires = "seed")]
    tell: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone)]
struct Numbers(BTreeSet<u32>);

fn numbers(text: &str) -> Result<Numbers, String> {
    let mut all = BTreeSet::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let number = |text: &str| {
            text.trim().parse::<u32>().map_err(|_| format!("{text:?} is no event's number"))
        };
        match part.split_once('-') {
            Some((first, last)) => all.extend(number(first)?..=number(last)?),
            None => {
                all.insert(number(part)?);
            }
        }
    }
    Ok(Numbers(all))
}

/// Whether somebody has asked for the end.
static STOP: AtomicBool = AtomicBool::new(false);

/// What was found so far.
#[derive(Default)]
struct Found {
    seeds: u64,
    simulated: Duration,
    /// Stands for the traces of all seeds, in whatever order they were played.
    traces: u64,
    coverage: Coverage,
    /// By seed.
    failures: BTreeMap<u64, Violation>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Numbers(only)) = &arguments.only
        && let Some(beyond) = only.iter().find(|number| **number >= arguments.events)
    {
        eprintln!("simulate: there is no event {beyond}: {} are drawn", arguments.events);
        return ExitCode::from(2);
    }
    match play(&arguments) {
        Ok(clean) if clean => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        // Whoever reads has had enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("simulate: {error}");
            ExitCode::from(2)
        }
    }
}

fn options(arguments: &Arguments) -> Options {
    let events = arguments.events;
    let without = match &arguments.only {
        Some(Numbers(only)) => (0..events).filter(|number| !only.contains(number)).collect(),
        None => BTreeSet::new(),
    };
    Options { events, without, tell: arguments.tell, ..Options::default() }
}

fn play(arguments: &Arguments) -> io::Result<bool> {
    let options = options(arguments);
    let first = arguments.seed.unwrap_or(0);
    if arguments.plan {
        write!(io::stdout(), "{}", describe(first, &options))?;
        writeln!(io::stdout(), "plan {:016x}", plan_hash(first, &options))?;
        return Ok(true);
    }
    let given = std::env::args().any(|argument| argument.starts_with("--seeds"));
    let count = if arguments.seed.is_some() && !given { 1 } else { arguments.seeds };
    watch_for_the_end();
    let progress = Progress::new(count, arguments.json);
    let found = play_all(arguments, &options, first, count, &progress);
    progress.bar.finish_and_clear();
    let mut out = io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", json(&found))?;
    } else {
        summary(&mut out, &found, arguments.twice)?;
    }
    out.flush()?;
    let mut told: Vec<&Violation> = Vec::new();
    for (seed, violation) in &found.failures {
        // What has failed in the same way before is not made any smaller.
        let is_new = !told.iter().any(|it| it.is_like(violation));
        report(arguments, &options, (*seed, violation), is_new)?;
        told.push(violation);
    }
    Ok(found.failures.is_empty())
}

/// The first Ctrl-C lets the seeds in hand end; the second ends the process.
fn watch_for_the_end() {
    let watch = || -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            tokio::signal::ctrl_c().await?;
            STOP.store(true, Ordering::Relaxed);
            tokio::signal::ctrl_c().await?;
            std::process::exit(130);
        })
    };
    std::thread::spawn(move || {
        if let Err(error) = watch() {
            eprintln!("simulate: cannot watch for signals: {error}");
        }
    });
}

/// Tells how far it is: by a bar on a terminal, by a line a minute elsewhere.
struct Progress {
    bar: ProgressBar,
    count: u64,
    began: Instant,
    /// When a line was written last, if lines are wanted.
    told: Option<Mutex<Instant>>,
}

impl Progress {
    fn new(count: u64, json: bool) -> Progress {
        let terminal = io::stderr().is_terminal() && !json;
        let form = "{elapsed_precise} [{bar:30}] {pos} of {len} seeds, {per_sec}, {eta} left{msg}";
        let style = ProgressStyle::with_template(form);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = if terminal { ProgressBar::new(count) } else { ProgressBar::hidden() };
        let bar = bar.with_style(style.progress_chars("=> "));
        let began = now();
        Progress { bar, count, began, told: (!terminal).then(|| Mutex::new(began)) }
    }

    /// Another seed was played.
    fn note(&self, found: &Found, failed: Option<(u64, &Violation)>) {
        if let Some((seed, violation)) = failed {
            let text = violation.to_string();
            let line = format!("seed {seed}: {}", text.lines().next().unwrap_or_default());
            self.bar.set_message(format!(", {} failed", found.failures.len()));
            match &self.told {
                None => self.bar.println(line),
                Some(_) => eprintln!("{line}"),
            }
        }
        self.bar.inc(1);
        let Some(told) = &self.told else { return };
        let (mut told, now) = (told.lock().expect("nobody panics with it"), now());
        if now.duration_since(*told) >= Duration::from_mins(1) {
            *told = now;
            let (minutes, failed) =
                (now.duration_since(self.began).as_secs() / 60, &found.failures);
            let (seeds, count) = (found.seeds, self.count);
            eprintln!("{minutes} min: {seeds} of {count} seeds, {} failed", failed.len());
        }
    }
}

fn play_all(
    arguments: &Arguments,
    options: &Options,
    first: u64,
    count: u64,
    progress: &Progress,
) -> Found {
    let limit = arguments.minutes.map(|minutes| Duration::from_secs_f64(minutes.max(0.0) * 60.0));
    let began = now();
    let next = AtomicU64::new(0);
    let found = Mutex::new(Found::default());
    let worker = || {
        while !STOP.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count || limit.is_some_and(|limit| began.elapsed() >= limit) {
                return;
            }
            let seed = first.wrapping_add(number);
            let mut outcome = run(seed, options);
            if arguments.twice && outcome.violation.is_none() {
                outcome.violation = differs(&outcome, &run(seed, options));
            }
            let mut found = found.lock().expect("nobody panics with it");
            found.seeds += 1;
            found.simulated += outcome.simulated;
            found.traces = found.traces.wrapping_add(outcome.trace_hash);
            found.coverage.merge(&outcome.coverage);
            if let Some(violation) = &outcome.violation {
                found.failures.insert(seed, violation.clone());
                if !arguments.go_on {
                    STOP.store(true, Ordering::Relaxed);
                }
            }
            progress.note(&found, outcome.violation.as_ref().map(|violation| (seed, violation)));
        }
    };
    let threads = match arguments.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(worker);
        }
    });
    found.into_inner().expect("nobody panics with it")
}

/// What is wrong if a clean seed is played again, and something else than the seed has decided.
fn differs(first: &Outcome, second: &Outcome) -> Option<Violation> {
    let same = first.trace_hash == second.trace_hash
        && first.coverage == second.coverage
        && first.simulated == second.simulated;
    let differs = || Violation {
        clause: "Determinism".to_owned(),
        text: format!("the traces are {:016x} and {:016x}", first.trace_hash, second.trace_hash),
        at: second.simulated,
        gateway: None,
        trace: Vec::new(),
    };
    second.violation.clone().or_else(|| (!same).then(differs))
}

/// Says what is wrong, finds the fewest events with which it is if that is wanted, says how to play
/// that again, and keeps it.
fn report(
    arguments: &Arguments,
    options: &Options,
    (seed, violation): (u64, &Violation),
    minimised: bool,
) -> io::Result<()> {
    eprintln!("seed {seed}: {violation}");
    let mut shown = Options { tell: false, ..options.clone() };
    let mut about = violation.clone();
    if minimised && arguments.minimise > 0 {
        eprintln!("looking for the fewest events...");
        if let Some(least) = minimise(seed, &shown, arguments.minimise) {
            let (left, runs) = (least.left, least.runs);
            eprintln!("{left} events are enough (played {runs} times): {}", least.violation);
            (shown, about) = (least.options, least.violation);
            eprint!("{}", describe(seed, &shown));
        }
    }
    eprintln!(
        "play it again: cargo run -p gwlb-tests {PROFILE} --bin simulate -- --seed {seed}{}",
        replay(&shown)
    );
    let about = about.to_string();
    let about = about.lines().next().unwrap_or_default();
    let text = toml::to_string(&Regression::of(about, seed, &shown));
    let text = text.map_err(io::Error::other)?;
    std::fs::create_dir_all(&arguments.keep)?;
    let file = arguments.keep.join(format!("{seed}.toml"));
    std::fs::write(&file, text)?;
    eprintln!("kept as {}", file.display());
    Ok(())
}

fn replay(options: &Options) -> String {
    let mut text = String::new();
    if options.events != Options::default().events {
        let _ = write!(text, " --events {}", options.events);
    }
    if !options.without.is_empty() {
        let left: Vec<_> = (0..options.events)
            .filter(|number| !options.without.contains(number))
            .map(|number| number.to_string())
            .collect();
        let _ = write!(text, " --only \"{}\"", left.join(","));
    }
    text
}

fn summary(out: &mut impl io::Write, found: &Found, twice: bool) -> io::Result<()> {
    let Found { seeds, simulated, traces, coverage, failures } = found;
    let (hours, cpu) = (simulated.as_secs_f64() / 3600.0, cpu_time());
    let rate = hours / (cpu.as_secs_f64() / 3600.0).max(1e-9);
    let each = cpu.as_secs_f64() * 1000.0 / (*seeds).max(1) as f64;
    match failures.len() {
        0 => writeln!(out, "{seeds} seeds, all clean")?,
        failed => writeln!(out, "{seeds} seeds, {failed} failed")?,
    }
    let times = if twice { ", the same both times" } else { "" };
    let times = if failures.is_empty() { times } else { "" };
    writeln!(out, "traces {traces:016x}{times}")?;
    writeln!(out, "{hours:.1} hours simulated in {:.1} s of CPU", cpu.as_secs_f64())?;
    writeln!(out, "{rate:.0} simulated hours per CPU-hour, {each:.1} ms of CPU a seed")?;
    for kind in Kind::ALL {
        let missed = coverage.missed(kind);
        let known = kind.names().len();
        writeln!(out)?;
        if known > 0 {
            writeln!(out, "{}: {} of {known} reached", kind.name(), known - missed.len())?;
        } else {
            writeln!(out, "{}:", kind.name())?;
        }
        for (name, count) in coverage.of(kind) {
            writeln!(out, "  {count:>10}  {name}")?;
        }
        for name in missed {
            writeln!(out, "       never  {name}")?;
        }
    }
    Ok(())
}

fn json(found: &Found) -> serde_json::Value {
    let Found { seeds, simulated, traces, coverage, failures } = found;
    let kinds: serde_json::Map<_, _> = Kind::ALL
        .iter()
        .map(|&kind| {
            let reached: serde_json::Map<_, _> =
                coverage.of(kind).map(|(name, count)| (name.to_owned(), count.into())).collect();
            let value = serde_json::json!({ "reached": reached, "missed": coverage.missed(kind) });
            (kind.name().to_owned(), value)
        })
        .collect();
    let failures: Vec<_> = failures
        .iter()
        .map(|(seed, violation)| {
            serde_json::json!({
                "seed": seed, "clause": violation.clause, "text": violation.text,
            })
        })
        .collect();
    serde_json::json!({
        "ok": failures.is_empty(),
        "seeds": seeds,
        "traces": format!("{traces:016x}"),
        "simulated_hours": simulated.as_secs_f64() / 3600.0,
        "cpu_seconds": cpu_time().as_secs_f64(),
        "coverage": kinds,
        "failures": failures,
    })
}

/// What this process has used of its processors.
fn cpu_time() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return Duration::ZERO };
    let micros = |micros: i64| Duration::from_micros(micros.cast_unsigned());
    [usage.user_time(), usage.system_time()]
        .into_iter()
        .map(|time| micros(time.tv_sec() * 1_000_000 + time.tv_usec()))
        .sum()
}

#[expect(clippy::disallowed_methods, reason = "how long it may go on is a matter of real time")]
fn now() -> Instant {
    Instant::now()
}
