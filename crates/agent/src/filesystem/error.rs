//! Why an operation on an entry failed, and the code clients see.

use std::io;

use sandbar_wire::envd::{Code, RpcError};

use crate::paths::{EnsureDirError, ForeignHome};
use crate::watch::WatchError;

/// A failed filesystem call.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Home(#[from] ForeignHome),
    #[error("path not found: {0}")]
    NotFound(String),
    #[error("source file not found: {0}")]
    SourceNotFound(String),
    #[error("directory already exists: {0}")]
    DirectoryExists(String),
    #[error("path already exists but it is not a directory: {0}")]
    FileExists(String),
    #[error("path is not a directory: {0}")]
    NotADirectory(String),
    #[error("destination is a directory: {0}")]
    DestinationIsDirectory(String),
    #[error("cyclic symlink or chain >255 links at {0}")]
    LinkLoop(String),
    #[error("error creating directory: {}", with_source(.0))]
    EnsureDir(#[from] EnsureDirError),
    #[error(transparent)]
    Watch(#[from] WatchError),
    #[error("{action} {path}: {source}")]
    Io { action: &'static str, path: String, source: io::Error },
}

fn with_source(error: &EnsureDirError) -> String {
    match error.io() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

impl Error {
    fn code(&self) -> Code {
        match self {
            Self::Home(_) | Self::FileExists(_) | Self::NotADirectory(_) => Code::InvalidArgument,
            Self::NotFound(_) | Self::SourceNotFound(_) => Code::NotFound,
            Self::DirectoryExists(_) => Code::AlreadyExists,
            Self::LinkLoop(_) => Code::FailedPrecondition,
            Self::DestinationIsDirectory(_) | Self::EnsureDir(_) | Self::Watch(_) | Self::Io { .. } => {
                Code::Internal
            }
        }
    }
}

impl From<Error> for RpcError {
    fn from(error: Error) -> Self {
        let error = match error {
            Error::Watch(error) => return error.into(),
            error => error,
        };
        RpcError::new(error.code(), error.to_string())
    }
}
