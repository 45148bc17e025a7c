//! `/files`: what an upload answers, and signatures that stand in for the access token.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// One stored file, in the array that an upload answers. Clients compare it as a whole: no field may be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenFile {
    /// Absolute path.
    pub path: String,
    /// Last component of the path.
    pub name: String,
    /// Always `file`.
    pub r#type: FileKind,
    /// Metadata on disk, left out when there is none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// The type of an uploaded file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// A regular file.
    File,
}

/// Body of `POST /files/compose`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ComposeRequest {
    /// Files to join, in this order. They are removed afterwards.
    pub source_paths: Vec<String>,
    /// Where the result goes.
    pub destination: String,
    /// The user it belongs to; the default user when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
}

/// What a signature allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `GET /files`.
    Read,
    /// `POST /files`.
    Write,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// What is signed: the query parameters as received, decoded, and empty where absent.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// `path`, not resolved.
    pub path: &'a str,
    /// The direction of the transfer.
    pub operation: Operation,
    /// `username`.
    pub username: &'a str,
    /// `signature_expiration`, Unix seconds. Part of the signature only when present.
    pub expiration: Option<i64>,
}

/// The `signature` parameter that `token` gives to these parameters.
pub fn signature(signed: &Signed<'_>, token: &str) -> String {
    let mut raw = format!("{}:{}:{}:{token}", signed.path, signed.operation.as_str(), signed.username);
    if let Some(expiration) = signed.expiration {
        raw.push_str(&format!(":{expiration}"));
    }
    format!("v1_{}", STANDARD_NO_PAD.encode(Sha256::digest(raw.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, operation: Operation, username: &str, expiration: Option<i64>, want: &str) {
        assert_eq!(signature(&Signed { path, operation, username, expiration }, "tok123"), want);
    }

    #[test]
    fn signatures_match_the_ones_clients_compute() {
        check("hello.txt", Operation::Read, "", None, "v1_NusEeHeBFpLh24504GCcGLjsbZK6cTxcYG40tcX8qIw");
        let expiring = Some(1_900_000_000);
        check(
            "/tmp/a b.txt",
            Operation::Write,
            "root",
            expiring,
            "v1_D6NFKjgo3leaEkH27ydsP7HCzZgzxIjZewoaOK7cV60",
        );
        check("", Operation::Write, "", None, "v1_IRUdH3q1eblRa51Oe8cPYb6nPrDFzSdh3EscgPkD+YA");
    }

    #[test]
    fn an_answer_has_no_metadata_field_unless_there_is_metadata() {
        let file = WrittenFile {
            path: "/home/user/x".into(),
            name: "x".into(),
            r#type: FileKind::File,
            metadata: BTreeMap::new(),
        };
        assert_eq!(
            serde_json::to_string(&file).unwrap(),
            r#"{"path":"/home/user/x","name":"x","type":"file"}"#
        );
    }
}
