//! What is stored: one type per row, in words of our own.

mod sandbox;
mod team;
mod template;

pub use sandbox::{Run, Sandbox};
pub use team::{ApiKey, KeyMask, Team};
pub use template::{Build, BuildStatus, Publication, Template, TemplateName};
