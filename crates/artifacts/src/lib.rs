//! The bytes of Sandbar on one host.
//!
//! ```text
//!  recipe ──stock::ensure──▶ layers/<digest>/   a directory tree each, never written again
//!  agent binary ──import_tools──▶    │
//!                                    ▼
//!                              roots/<digest>   read-only overlay of a list of layers, shared by sandboxes
//!                                    +
//!                 scratch/<id>/        ext4 of the allowed size: all that a sandbox writes
//! ```
//!
//! A [`LayerStore`] holds layers and may be shared by several servers; [`Roots`] and [`ScratchDisks`] belong to
//! one server and lie below its data directory. Whatever a crash leaves of those two is found by its name and
//! removed by the same code that removes it in the happy case.
//!
//! Not here: who uses which root (`node`), how a guest is run on it (`engine`), what a template is to its users
//! (`control`).

mod build;
mod guest_tools;
mod mounts;
mod overlay;
mod program;
mod progress;
mod recipe;
mod roots;
mod runsc;
mod scratch;
pub mod stock;
mod store;

pub use build::BuildError;
pub use guest_tools::{ImportError, import_tools};
pub use program::ProgramError;
pub use progress::{Progress, Reporter};
pub use recipe::RecipeError;
pub use roots::{RootError, Roots};
pub use runsc::{RunscError, RunscVersion, ensure_runsc};
pub use scratch::{ScratchDisks, ScratchError, ScratchSettings};
pub use stock::{BuildOptions, Image, Mirrors};
pub use store::{LayerStore, StoreError};
