//! Why the store could not answer.

use sandbar_model::ErrorKind;

/// Why a query did not work.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The store did not do it.
    #[error("{doing}")]
    Query {
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: sqlx::Error,
    },
    /// A name or key is taken already.
    #[error("{doing}: already exists")]
    Exists {
        /// What was being done.
        doing: &'static str,
    },
    /// A row holds something that we never write.
    #[error("{table}.{column} holds {value:?}")]
    Damaged {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// What it holds, as text.
        value: String,
    },
}

impl DbError {
    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Query { .. } => ErrorKind::Unavailable,
            Self::Exists { .. } => ErrorKind::Conflict,
            Self::Damaged { .. } => ErrorKind::Internal,
        }
    }

    /// For `map_err`: names what was being done.
    pub(crate) fn query(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| {
            let taken = source.as_database_error().is_some_and(|error| error.is_unique_violation());
            if taken { Self::Exists { doing } } else { Self::Query { doing, source } }
        }
    }
}
