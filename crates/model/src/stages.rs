//! Where the time of an operation went.

use std::time::Duration;

/// Named, ordered parts of an operation's time, for `Server-Timing` and the bench.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stages(Vec<(&'static str, Duration)>);

impl Stages {
    /// Adds a part. A name may occur more than once; readers add them up.
    pub fn add(&mut self, name: &'static str, took: Duration) {
        self.0.push((name, took));
    }

    /// The parts in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Duration)> + '_ {
        self.0.iter().copied()
    }
}
