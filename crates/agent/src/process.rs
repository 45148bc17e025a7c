//! Processes that clients start, watch, feed and end.
//!
//! [`table`] knows which there are; each is a [`live::Process`] with a task that reads its output until the end and
//! hands every piece to whoever listens ([`fanout`]). A process belongs to nobody's connection: clients come and go.
//!
//! ```text
//!  Start ──▶ live ──exited, output at its end──▶ retained 30 s ──▶ forgotten
//!             └──exited after a signal or deadline──▲
//! ```

mod end;
mod environment;
mod fanout;
mod live;
mod service;
mod start;
mod stdio;
mod table;
mod window;

pub(crate) use service::Service;
