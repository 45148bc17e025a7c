//! Who owns things, and the keys they show.

use jiff::Timestamp;
use sandbar_model::{ApiKeyId, TeamId};

/// A team. Everything belongs to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Team {
    /// Its id.
    pub id: TeamId,
    /// `[a-z0-9_-]+`, unique: the namespace of its template names.
    pub slug: String,
    /// For people.
    pub name: String,
    /// Whether it is the one that the first key belongs to. One team at most is.
    pub is_default: bool,
    /// When it was made, to the microsecond.
    pub created_at: Timestamp,
}

/// An API key without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Its id, which says nothing about its secret.
    pub id: ApiKeyId,
    /// The team it speaks for.
    pub team: TeamId,
    /// For people.
    pub name: String,
    /// SHA-256 of the decoded key.
    pub hash: [u8; 32],
    /// What may be shown of it.
    pub mask: KeyMask,
    /// When it was made, to the microsecond.
    pub created_at: Timestamp,
}

/// What may be shown of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyMask {
    /// What stands before the secret part.
    pub prefix: String,
    /// Length of the secret part, in characters.
    pub value_length: u32,
    /// First characters of the secret part.
    pub first: String,
    /// Last characters of the secret part.
    pub last: String,
}
