//! Repeated measurements and what is said of them.

use std::time::Duration;

use serde::Serialize;

/// Measurements of one thing, in any order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    pub(crate) fn add(&mut self, took: Duration) {
        self.0.push(took);
    }

    /// `None` without a measurement.
    pub(crate) fn summary(&self) -> Option<Summary> {
        let mut sorted = self.0.clone();
        sorted.sort();
        // Nearest rank: the smallest sample that at least that share of all samples does not exceed.
        let rank = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1];
        let ms = |took: Duration| took.as_secs_f64() * 1000.0;
        if sorted.is_empty() {
            return None;
        }
        Some(Summary {
            count: sorted.len(),
            median_ms: ms(rank(50)),
            p95_ms: ms(rank(95)),
            p99_ms: ms(rank(99)),
        })
    }
}

/// What is said of a series of measurements, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) count: usize,
    pub(crate) median_ms: f64,
    pub(crate) p95_ms: f64,
    pub(crate) p99_ms: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_samples_that_were_measured() {
        let mut samples = Samples::default();
        assert_eq!(samples.summary(), None);
        for ms in (1..=20).rev() {
            samples.add(Duration::from_millis(ms));
        }
        let want = Summary { count: 20, median_ms: 10.0, p95_ms: 19.0, p99_ms: 20.0 };
        assert_eq!(samples.summary(), Some(want));
    }
}
