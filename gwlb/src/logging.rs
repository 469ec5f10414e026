//! What is logged, how it looks, and how much of it: the log of the whole process.
//!
//! There is one log, as there is one stderr: lines for people at a terminal, a JSON object a line
//! otherwise, in which an event has its fields ([`lines`]). What is logged is a filter that can be
//! changed while the program runs. What strangers can cause is [throttled](throttled!).

mod lines;
mod throttle;

use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use parking_lot::Mutex;
use thiserror::Error;
use tracing::Subscriber;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use lines::{ForPeople, ForPrograms};
pub(crate) use throttle::{Throttle, throttled};

/// Where the filter is looked for, the first one first. The second is what other programs read, too.
const VARIABLES: [&str; 2] = ["GWLB_LOG", "RUST_LOG"];

/// What is logged if nobody says anything else.
const USUAL: &str = "info";

/// The longest filter, in bytes.
const LONGEST: usize = 1024;

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people at a terminal, JSON otherwise.
    #[default]
    Auto,
    /// A line of text: time, level, message.
    Human,
    /// A JSON object in each line.
    Json,
}

/// Why a filter is not taken.
#[derive(Debug, Error)]
pub(crate) enum FilterError {
    /// It is none.
    #[error(
        "{filter:?} is no log filter ({error}); one is such as \"warn\" or \
         \"info,gwlb::control=debug\", of the levels off, error, warn, info, debug and trace"
    )]
    Wrong {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        error: String,
    },
    /// It is too long.
    #[error("a log filter has at most {LONGEST} bytes")]
    TooLong,
    /// Somebody else logs.
    #[error("the program that the gateway runs in keeps its own log")]
    NotOurs,
}

/// The log of this process, once it is started.
static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    /// The filter as it was given.
    filter: Mutex<String>,
    handle: reload::Handle<EnvFilter, Registry>,
}

/// Starts to log to stderr, as the environment says. A second call finds it started, and leaves it as
/// it is.
pub(crate) fn start(format: LogFormat) -> Result<(), FilterError> {
    let filter = from_environment();
    start_with(format, &filter)
}

fn start_with(format: LogFormat, filter: &str) -> Result<(), FilterError> {
    let parsed = parse(filter)?;
    let (layer, handle) = reload::Layer::new(parsed);
    let people = match format {
        LogFormat::Auto => io::stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = lines(people, colours, io::stderr);
    if tracing_subscriber::registry().with(layer).with(lines).try_init().is_ok() {
        let _ = LOG.set(Log { filter: Mutex::new(tidy(filter)), handle });
    }
    Ok(())
}

/// What writes the lines.
fn lines<S>(
    people: bool,
    colours: bool,
    writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static,
) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let lines = fmt::layer()
        .with_writer(writer)
        // Of a line that cannot be written it would tell on stderr, which is where it could not be
        // written: on a full disk, that is a panic in whichever thread had something to say.
        .log_internal_errors(false);
    if people {
        lines.with_ansi(colours).with_target(false).fmt_fields(ForPeople).boxed()
    } else {
        lines.with_ansi(false).event_format(ForPrograms).boxed()
    }
}

/// What is logged.
pub(crate) fn filter() -> Result<String, FilterError> {
    LOG.get().map(|log| log.filter.lock().clone()).ok_or(FilterError::NotOurs)
}

/// Has something else logged from now on; says what was logged before, and what is now.
pub(crate) fn set_filter(filter: &str) -> Result<(String, String), FilterError> {
    let log = LOG.get().ok_or(FilterError::NotOurs)?;
    let parsed = parse(filter)?;
    let mut known = log.filter.lock();
    log.handle.reload(parsed).map_err(|_| FilterError::NotOurs)?;
    let filter = tidy(filter);
    Ok((std::mem::replace(&mut *known, filter.clone()), filter))
}

/// The filter that the environment asks for; an empty variable counts as none.
fn from_environment() -> String {
    let variables = VARIABLES.into_iter().filter_map(std::env::var_os);
    let mut given = variables.map(|it| it.to_string_lossy().trim().to_owned());
    given.find(|filter| !filter.is_empty()).unwrap_or_else(|| USUAL.to_owned())
}

/// The same without spaces, which the parser does not take.
fn tidy(filter: &str) -> String {
    filter.split_whitespace().collect()
}

fn parse(filter: &str) -> Result<EnvFilter, FilterError> {
    let wrong =
        |error: &str| FilterError::Wrong { filter: filter.to_owned(), error: error.to_owned() };
    if filter.len() > LONGEST {
        return Err(FilterError::TooLong);
    }
    let tidy = tidy(filter);
    if tidy.is_empty() {
        return Err(wrong("it is empty"));
    }
    // A bare word is the name of a part of the program, of which everything is logged: who writes
    // "inof" would get nothing at all, and no word about it.
    for bare in tidy.split(',').filter(|part| !part.contains(['=', '[', ']', ':'])) {
        if bare.parse::<LevelFilter>().is_err() && bare != "gwlb" {
            return Err(wrong(&format!("{bare:?} is no level")));
        }
    }
    EnvFilter::builder()
        .with_default_directive(LevelFilter::OFF.into())
        // A pattern could take as long as its author likes.
        .with_regex(false)
        .parse(&tidy)
        .map_err(|error| wrong(&error.to_string()))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use rstest::rstest;

    use super::*;

    /// What is written to the log meanwhile by this thread, for people or for programs.
    pub(crate) fn written(people: bool, tell: impl FnOnce()) -> String {
        let told = Arc::new(Mutex::new(Vec::new()));
        let writer = Arc::clone(&told);
        let lines = lines(people, false, move || Told(Arc::clone(&writer)));
        // As long as there is one dispatcher alone, a place in the code that another thread comes to
        // first is taken for one that nobody listens to.
        let _second = tracing::Dispatch::new(tracing_subscriber::registry());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), tell);
        let told = std::mem::take(&mut *told.lock());
        String::from_utf8(told).unwrap()
    }

    /// Keeps what is written.
    struct Told(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Told {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A log in which there is nothing, for tests of what changes it.
    pub(crate) fn start_silently() {
        start_with(LogFormat::Human, "off").unwrap();
    }

    #[rstest]
    #[case("info", None)]
    #[case("off", None)]
    #[case("INFO", None)]
    #[case(" warn , gwlb::control=debug ", None)]
    #[case("gwlb", None)]
    #[case("gwlb=trace", None)]
    #[case("info,gwlb[{worker=1}]=debug", None)]
    #[case("", Some("it is empty"))]
    #[case("inof", Some("\"inof\" is no level"))]
    #[case("info,gwlb=debug,", None)]
    #[case("gwlb=loud", Some("level filter"))]
    #[case("gwlb[=debug", Some("invalid"))]
    fn a_wrong_filter_is_told(#[case] filter: &str, #[case] wrong: Option<&str>) {
        let parsed = parse(filter).map(drop).map_err(|error| error.to_string());
        match (&parsed, wrong) {
            (Ok(()), None) => {}
            (Err(said), Some(wrong)) => assert!(said.contains(wrong), "{said}"),
            _ => panic!("{filter:?}: {parsed:?}"),
        }
    }

    #[test]
    fn a_filter_is_not_endless() {
        let long = "gwlb=info,".repeat(200);
        assert!(matches!(parse(&long), Err(FilterError::TooLong)));
    }
}
