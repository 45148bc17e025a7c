//! Builds guest programs, runs suites, checks import directions.

fn main() {}
