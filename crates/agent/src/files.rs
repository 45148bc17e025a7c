//! `/files`: contents of files, down and up.
//!
//! Both directions stream in blocks of bounded size, and a stalled client holds no thread. Uploads are written in
//! place: watchers of the directory expect to see exactly a creation, a change of owner and a write.

mod accept;
mod blocks;
mod compose;
mod condition;
mod content_type;
mod disposition;
mod download;
mod gzip;
mod multipart;
mod query;
mod upload;
mod volume;

pub(crate) use compose::compose;
pub(crate) use download::download;
pub(crate) use upload::upload;
