//! Progress for people (a bar with rate and time left) or for programs (`--progress json`), on stderr only.

use std::io::{IsTerminal, Write, stderr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::flags::{Common, ProgressMode};

/// How often `--progress json` speaks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Counts units done. Cheap to advance from several threads; a closed stderr never disturbs the work.
pub struct Progress {
    what: String,
    unit: String,
    total: Option<u64>,
    done: AtomicU64,
    /// Of `done`, what another run did: the rate is that of this one.
    before: AtomicU64,
    start: Instant,
    view: View,
}

enum View {
    Nothing,
    Bar(ProgressBar),
    Json(Mutex<Option<Instant>>),
}

#[derive(Serialize)]
struct Line<'a> {
    r#type: &'static str,
    what: &'a str,
    unit: &'a str,
    done: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    elapsed_seconds: f64,
    rate_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    remaining_seconds: Option<f64>,
}

impl Progress {
    pub fn start(common: &Common, what: &str, total: Option<u64>, unit: &str) -> Progress {
        let view = match common.progress {
            ProgressMode::Json => View::Json(Mutex::new(None)),
            ProgressMode::Auto if !common.quiet && stderr().is_terminal() => View::Bar(bar(what, total, unit)),
            _ => View::Nothing,
        };
        Progress {
            what: what.to_string(),
            unit: unit.to_string(),
            total,
            done: AtomicU64::new(0),
            before: AtomicU64::new(0),
            start: Instant::now(),
            view,
        }
    }

    /// Counts what another run had done, before this one does anything.
    pub fn resume(&self, count: u64) {
        self.done.fetch_add(count, Ordering::Relaxed);
        self.before.fetch_add(count, Ordering::Relaxed);
        if let View::Bar(bar) = &self.view {
            bar.inc(count);
            bar.reset_eta();
        }
    }

    pub fn advance(&self, count: u64) {
        let done = self.done.fetch_add(count, Ordering::Relaxed) + count;
        match &self.view {
            View::Nothing => {}
            View::Bar(bar) => bar.inc(count),
            View::Json(last) => {
                // Whoever finds the line busy need not wait: another thread is speaking.
                if let Ok(mut last) = last.try_lock()
                    && last.is_none_or(|at| at.elapsed() >= INTERVAL)
                {
                    *last = Some(Instant::now());
                    self.speak(done);
                }
            }
        }
    }

    /// Ends the display; a JSON listener always sees the final count.
    pub fn finish(self) {
        match &self.view {
            View::Nothing => {}
            View::Bar(bar) => bar.finish_and_clear(),
            View::Json(_) => self.speak(self.done.load(Ordering::Relaxed)),
        }
    }

    fn speak(&self, done: u64) {
        let line = self.line(done, self.start.elapsed().as_secs_f64());
        if let Ok(text) = serde_json::to_string(&line) {
            let _ = writeln!(stderr(), "{text}");
        }
    }

    fn line(&self, done: u64, elapsed: f64) -> Line<'_> {
        let own = done - self.before.load(Ordering::Relaxed);
        let rate = if elapsed > 0.0 { own as f64 / elapsed } else { 0.0 };
        Line {
            r#type: "progress",
            what: &self.what,
            unit: &self.unit,
            done,
            total: self.total,
            elapsed_seconds: elapsed,
            rate_per_second: rate,
            remaining_seconds: self
                .total
                .filter(|_| rate > 0.0)
                .map(|total| total.saturating_sub(done) as f64 / rate),
        }
    }
}

fn bar(what: &str, total: Option<u64>, unit: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(5));
    let template = match total {
        Some(_) => format!("{what} {{wide_bar}} {{human_pos}}/{{human_len}} {unit} ({{per_sec}}, {{eta}} left)"),
        None => format!("{what} {{spinner}} {{human_pos}} {unit} ({{per_sec}})"),
    };
    match ProgressStyle::with_template(&template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_run_did_is_done_but_not_of_this_runs_rate() {
        let progress = Progress::start(&Common::default(), "x", Some(100), "units");
        progress.resume(90);
        progress.advance(5);
        assert_eq!(progress.done.load(Ordering::Relaxed), 95);
        let line = progress.line(95, 10.0);
        assert_eq!((line.rate_per_second, line.remaining_seconds), (0.5, Some(10.0)));
    }
}
