//! The edge over real sockets: real clients in front, real servers in place of guests.

#![allow(missing_docs)]

mod certificates;
mod routing;
mod support;
