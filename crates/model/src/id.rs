//! Names of things. Parsed once, at the edge; code behind the edge never re-checks them.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// Why a text is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {what}")]
pub struct IdError {
    /// Which kind of id was expected.
    pub what: &'static str,
}

const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// Maps random bytes to `[a-z0-9]`. The bias (256 is no multiple of 36) costs less than 0.1 bit a character.
fn letters(random: &[u8]) -> String {
    random.iter().map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])).collect()
}

fn is_label(text: &str, max: usize) -> bool {
    !text.is_empty()
        && text.len() <= max
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

macro_rules! label_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                if is_label(text, $max) { Ok(Self(text.to_owned())) } else { Err(IdError { what: $what }) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

label_id! {
    /// Names a sandbox for its whole life, across pause and resume.
    ///
    /// `[a-z0-9]{1,63}`: clients put it in a host name (`{port}-{id}.{domain}`), so it must be usable
    /// inside one DNS label and must not contain `-`.
    SandboxId, "sandbox id", 63
}

label_id! {
    /// Names a template: 20 characters of `[a-z0-9]` when we mint it; 1 to 63 are accepted.
    TemplateId, "template id", 63
}

label_id! {
    /// Names one server installation (one data directory) among several on the same host.
    ///
    /// Four characters of `[a-z0-9]`: it is part of link names, which the kernel limits to 15 bytes.
    InstanceId, "instance id", 4
}

label_id! {
    /// Names a host of the cluster.
    NodeId, "node id", 63
}

impl SandboxId {
    /// `i` and 20 characters, about 103 bits of the given randomness.
    pub fn from_random(random: [u8; 20]) -> Self {
        Self(format!("i{}", letters(&random)))
    }
}

impl TemplateId {
    /// 20 characters from the given randomness.
    pub fn from_random(random: [u8; 20]) -> Self {
        Self(letters(&random))
    }
}

impl InstanceId {
    /// Four characters from the given randomness.
    pub fn from_random(random: [u8; 4]) -> Self {
        Self(letters(&random))
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub Uuid);

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Uuid::parse_str(text).map(Self).map_err(|_| IdError { what: $what })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

uuid_id! {
    /// Names a team: everything belongs to one.
    TeamId, "team id"
}
uuid_id! {
    /// Names one build of a template.
    BuildId, "build id"
}
uuid_id! {
    /// Names one run of a sandbox: new on every start and resume.
    RunId, "run id"
}
uuid_id! {
    /// Names an API key; says nothing about its secret.
    ApiKeyId, "api key id"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minted_sandbox_id_parses_and_starts_with_i() {
        let id = SandboxId::from_random([7; 20]);
        assert_eq!(id.as_str().len(), 21);
        assert!(id.as_str().starts_with('i'));
        assert_eq!(id.as_str().parse(), Ok(id));
    }

    #[test]
    fn an_id_is_one_dns_label_without_a_dash() {
        for bad in ["", "a-b", "A", "ä", "a.b", &"a".repeat(64)] {
            assert!(bad.parse::<SandboxId>().is_err(), "{bad:?}");
        }
        assert!("a".repeat(63).parse::<SandboxId>().is_ok());
    }
}
