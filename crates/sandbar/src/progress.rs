//! Progress of long work: a moving line on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use sandbar_artifacts::Reporter;

use crate::output;

/// Shows what a build is doing. Dropping the guard removes the moving line.
pub(crate) struct Shown {
    line: Option<ProgressBar>,
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(line) = &self.line {
            line.finish_and_clear();
        }
    }
}

/// A reporter for builds, and the guard of what it shows.
pub(crate) fn reporter() -> (Reporter, Shown) {
    if !std::io::stderr().is_terminal() {
        let last_step = std::sync::Mutex::new(String::new());
        let reporter = Reporter::new(move |progress| {
            // In a log file, one line a step tells enough; the tool's own lines come with an error.
            let mut last = last_step.lock().expect("no holder panics");
            if *last != progress.step {
                progress.step.clone_into(&mut last);
                output::note(&format!("  {}", progress.step));
            }
        });
        return (reporter, Shown { line: None });
    }
    let style =
        ProgressStyle::with_template("  {spinner} {elapsed:>4} {wide_msg}").expect("a valid template");
    let line = ProgressBar::new_spinner().with_style(style);
    line.enable_steady_tick(Duration::from_millis(120));
    let moved = line.clone();
    let reporter =
        Reporter::new(move |progress| moved.set_message(format!("{}: {}", progress.step, progress.line)));
    (reporter, Shown { line: Some(line) })
}
