//! Process manners, written once for every tool: exit codes, one-line errors, checked stdout, commit by rename,
//! signals, progress, plans, shards, manifests, man pages.
//!
//! A tool's `main.rs` is `process::main::<cli::Args>(run::run)`. This crate knows nothing of containers, records,
//! models or mathematics.

mod directory;
mod exit;
mod flags;
mod input;
mod journal;
mod layers;
mod manifest;
pub mod memory;
mod output;
pub mod plan;
mod progress;
mod render;
mod shard;
mod sibling;
pub mod signals;
mod stdout;
mod table;
mod text;
mod usage;
mod written;

use std::io::Write;
use std::panic::{self, AssertUnwindSafe};
use std::process::exit;
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser};

pub use directory::OutputDirectory;
pub use exit::{Error, Exit, Outcome, Result, ResultExt};
pub use flags::{
    AdapterFlags, Common, Format, FormatFlags, OutputFlags, PrecisionFlag, ProgressMode, ShardFlags, Target,
    parse_bytes, parse_probability, word,
};
pub use input::{input_name, open_input};
pub use journal::Journal;
pub use layers::Layers;
pub use manifest::Manifest;
pub use output::{Existing, Output, beside, check_target};
pub use plan::MixedCompute;
pub use progress::Progress;
pub use shard::Shard;
pub use sibling::Sibling;
pub use stdout::{Stdout, stdout};
pub use table::{Cell, Table, one_below_the_other, significant};
pub use text::{hex, safe_text, sha256};
pub use usage::Usage;
pub use written::written;

pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The revision this was built from, where the build said so.
pub const REVISION: Option<&str> = option_env!("FLOWLENS_REVISION");

/// A run longer than this ends with a line of what it used and wrote.
const LONG_RUN: Duration = Duration::from_secs(5);

static TOOL_NAME: OnceLock<String> = OnceLock::new();

/// The name under which messages and records are issued.
pub fn tool_name() -> &'static str {
    TOOL_NAME.get().map_or("flowlens", String::as_str)
}

/// What `main` needs to know of a tool's arguments.
pub trait Tool: Parser + CommandFactory {
    fn common(&self) -> &Common;
}

/// Runs a tool from arguments to exit code.
pub fn main<A: Tool>(run: fn(A) -> Result<Outcome>) -> ! {
    let start = Instant::now();
    let _ = TOOL_NAME.set(A::command().get_name().to_string());
    signals::install();
    panic::set_hook(Box::new(|info| {
        let place = info
            .location()
            .map_or(String::new(), |at| format!(" ({}:{})", at.file(), at.line()));
        let what = panic_text(info.payload());
        say(&format!(
            "{}: bug: {}{place}; please report it",
            tool_name(),
            safe_text(&what)
        ));
    }));
    let mut quiet = true;
    let ended = panic::catch_unwind(AssertUnwindSafe(|| {
        if let Some(done) = rendered::<A>()? {
            return Ok(done);
        }
        let args = match A::try_parse() {
            Ok(args) => args,
            Err(error) => return not_parsed(&error),
        };
        quiet = args.common().quiet;
        start_threads(args.common())?;
        run(args)
    }));
    if start.elapsed() >= LONG_RUN && !quiet {
        let usage = Usage::now();
        say(&format!(
            "{} {VERSION}: wall {:.1} s, CPU {:.1} s, peak RSS {:.0} MiB{}",
            tool_name(),
            start.elapsed().as_secs_f64(),
            usage.cpu_seconds,
            usage.peak_rss_bytes as f64 / f64::from(1 << 20),
            written::clause(),
        ));
    }
    match ended {
        Ok(Ok(outcome)) => exit(outcome.exit().code()),
        Ok(Err(error)) => fail(&error),
        Err(_) => exit(Exit::Bug.code()),
    }
}

/// The way of a front command: this process becomes another tool, before it has read a flag. `own` is its name in a message.
pub fn become_tool(own: &str, tool: Sibling) -> ! {
    let _ = TOOL_NAME.set(own.to_string());
    fail(&tool.exec())
}

fn fail(error: &Error) -> ! {
    // A signal may have arrived while its consequence (an unwritable file, say) was being reported: the signal is the cause.
    if let Some(signal) = signals::received().or(error.signal()) {
        signals::die_of(signal);
    }
    say(&format!("{}: error: {error}", tool_name()));
    if let Some(hint) = error.hint_text() {
        say(&format!("{}: hint: {}", tool_name(), safe_text(hint)));
    }
    exit(error.exit().unwrap_or(Exit::Bug).code())
}

/// A warning for the person at the terminal; never the only trace of something that matters.
pub fn warn(common: &Common, text: &str) {
    if !common.quiet {
        say(&format!("{}: warning: {}", tool_name(), safe_text(text)));
    }
}

/// One line on stderr; a closed stderr is no reason to stop.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// `--man` and `--completions SHELL`: for packaging, so they stay out of `--help`.
fn rendered<A: Tool>() -> Result<Option<Outcome>> {
    let mut words = std::env::args_os().skip(1);
    let text = match words.next().as_deref().and_then(|word| word.to_str()) {
        Some("--man") => render::man(A::command())?,
        Some("--completions") => {
            let shell = words.next().unwrap_or_default();
            render::completions(A::command(), &shell.to_string_lossy())?
        }
        _ => return Ok(None),
    };
    let mut out = stdout();
    out.write_all(&text).at("stdout")?;
    out.finish()?;
    Ok(Some(Outcome::Complete))
}

/// `--help` and `--version` go to a checked stdout; everything else becomes one line.
fn not_parsed(error: &clap::Error) -> Result<Outcome> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let mut out = stdout();
            let styled = error.render();
            let text = if out.is_terminal() {
                styled.ansi().to_string()
            } else {
                styled.to_string()
            };
            out.write_all(text.as_bytes()).at("stdout")?;
            out.finish()?;
            Ok(Outcome::Complete)
        }
        _ => Err(one_line(error)),
    }
}

fn one_line(error: &clap::Error) -> Error {
    let text = error.render().to_string();
    let message = text
        .lines()
        .take_while(|line| !line.is_empty())
        .map(str::trim)
        .collect::<Vec<_>>()
        .join(" ");
    let mut message = message.strip_prefix("error: ").unwrap_or(&message).to_string();
    if matches!(error.kind(), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand) {
        message = "a subcommand is needed".to_string();
    }
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        _ => None,
    };
    let subject = context(ContextKind::InvalidArg).unwrap_or_else(|| "arguments".to_string());
    let hint = context(ContextKind::SuggestedArg)
        .or_else(|| context(ContextKind::SuggestedValue))
        .map(|similar| format!("did you mean {similar}?"))
        .unwrap_or_else(|| format!("see {} --help", tool_name()));
    Error::usage(subject, message).hint(hint)
}

/// Starts the workers: as many as were asked for, or one where a process limit or memory allows no more; the bytes are the same.
fn start_threads(common: &Common) -> Result<()> {
    let count = [common.thread_count(), 1].into_iter().find(|count| can_start(*count));
    let count = count.ok_or_else(|| Error::environment("threads", "not one can be started"))?;
    // SAFETY: no other thread of ours reads the environment yet (the signal thread never does).
    // The matrix products of candle size their pool by this variable.
    unsafe { std::env::set_var("RAYON_NUM_THREADS", count.to_string()) };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build_global();
    pool.map_err(|cause| Error::environment("threads", cause))
}

/// Does work on one of the workers. Of many short steps in parallel each then begins at once, where the main thread would have to wake a
/// worker and to be woken by it. The work must not wait for another task of the workers, who may be one.
pub fn on_a_worker<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| work())
}

/// Whether so many threads can live at once. Asked before a pool is built, because a pool that fails cannot be built again.
fn can_start(count: usize) -> bool {
    let gate = Mutex::new(());
    thread::scope(|scope| {
        let closed = gate.lock();
        let start = |_| thread::Builder::new().spawn_scoped(scope, || drop(gate.lock())).is_ok();
        let can_start = (0..count).all(start);
        drop(closed);
        can_start
    })
}

fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| text.to_string())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic".to_string())
}
