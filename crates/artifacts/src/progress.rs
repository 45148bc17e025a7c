//! News from work that takes minutes.

use std::fmt;
use std::sync::Arc;

/// One line of news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done, as `base: packages`.
    pub step: String,
    /// What happened, often a line of a tool's output; at most 4 KiB.
    pub line: String,
}

/// Where news goes. Called from other threads; must not block for long, because the work waits for it.
#[derive(Clone)]
pub struct Reporter(Arc<dyn Fn(&Progress) + Send + Sync>);

impl Reporter {
    /// Hands every line to `sink`.
    pub fn new(sink: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        Self(Arc::new(sink))
    }

    /// Drops all news.
    pub fn silent() -> Self {
        Self::new(|_| ())
    }

    pub(crate) fn line(&self, step: &str, line: impl Into<String>) {
        (self.0)(&Progress { step: step.to_owned(), line: line.into() });
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reporter")
    }
}
