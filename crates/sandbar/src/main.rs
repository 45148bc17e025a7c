//! The Sandbar server and command line.

fn main() {}
