//! The edge over real sockets: real clients in front, real servers in place of guests.

#![allow(missing_docs)]

mod certificates;
mod ending;
mod limits;
mod reuse;
mod routing;
mod streaming;
mod support;
mod upgrades;
