//! For tests of this crate and of those above it: a node that runs nothing, and time that tests set.

mod fake_node;
mod still;

pub use fake_node::FakeNode;
pub use still::{RuntimeClock, Still};
