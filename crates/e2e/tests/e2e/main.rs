//! The product through the real SDKs and over the real wire.
//!
//! One program with an end of its own: most tests share a server, which is stopped after the last of them, and what
//! it leaves on the host fails the run. Tests that need a server for themselves (`recovery`) start one.
//!
//! Needs root, `runsc`, Node.js 20, Python 3.11 and names under `.localhost` that resolve (`cargo xtask test` sees to
//! all of it). Filters and options are those of Rust's own test programs.

mod agent;
mod cli;
mod control;
mod edge;
mod isolation;
mod lifetime;
mod native;
mod recovery;
mod sdk;
mod suite;

use std::process::ExitCode;

use libtest_mimic::Arguments;

/// As many as keep a small machine busy without disturbing tests that measure time.
const THREADS: usize = 2;

fn main() -> ExitCode {
    rustls::crypto::ring::default_provider().install_default().expect("nothing else has installed one");
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let trials = [
        control::trials(),
        lifetime::trials(),
        edge::trials(),
        agent::trials(),
        isolation::trials(),
        recovery::trials(),
        cli::trials(),
        native::trials(),
        sdk::trials(),
    ];
    let conclusion = libtest_mimic::run(&arguments, trials.into_iter().flatten().collect());
    let clean = suite::stop_shared_server();
    match (conclusion.has_failed(), clean) {
        (false, true) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
