//! From a URL to a store.

use std::sync::Arc;

use crate::Database;
use crate::sqlite::Sqlite;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No store of this kind.
    #[error("unknown kind of database in {url:?}: want sqlite:<path> or sqlite::memory:")]
    UnknownKind {
        /// The URL, without a password.
        url: String,
    },
    /// The file cannot be made or read.
    #[error("open database file {path:?}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The store does not answer.
    #[error("connect to the database")]
    Connect(#[source] sqlx::Error),
    /// The tables could not be brought to this version.
    #[error("migrate the database")]
    Migrate(#[source] sqlx::migrate::MigrateError),
}

/// Opens a store, makes it when it is not there yet, and brings its tables to this version.
///
/// `sqlite::memory:` lives as long as what is returned; `sqlite:<path>` is a file, mode 0600, in a directory that
/// exists.
pub async fn open(url: &str) -> Result<Arc<dyn Database>, OpenError> {
    match url.strip_prefix("sqlite:") {
        Some(":memory:") => Ok(Arc::new(Sqlite::in_memory().await?)),
        Some(path) => Ok(Arc::new(Sqlite::on_file(path.strip_prefix("//").unwrap_or(path)).await?)),
        None => {
            let kind = url.split(':').next().unwrap_or_default();
            Err(OpenError::UnknownKind { url: format!("{kind}:…") })
        }
    }
}
