//! What every engine keeps, checked on the fake and on gVisor; and what gVisor alone must keep.
//!
//! The tests of gVisor need root, `runsc` (found as `$SANDBAR_RUNSC`, on `PATH` or where `cargo xtask up`
//! puts it) and the `ip` command. They fail without; with `SANDBAR_SKIP_ENGINE_TESTS` set they say that
//! they were skipped.

#![expect(clippy::print_stdout, reason = "skips are printed, and the programs of the tests talk so")]

mod fake;
mod gvisor;
mod inside;
mod measure;
mod network;
mod suite;
