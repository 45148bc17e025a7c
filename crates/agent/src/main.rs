//! The in-sandbox agent (envd protocol).

fn main() {}
