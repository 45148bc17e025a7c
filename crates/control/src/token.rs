//! Access tokens: computed, never stored.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sandbar_model::{SandboxId, Secret};
use sha2::Sha256;

/// The server's secret, from which all tokens are computed.
///
/// A token is HMAC-SHA256 of the sandbox's id under this seed, in hex: the same over the sandbox's whole life,
/// unguessable, and of no use for any other. Each purpose has its own prefix. Source: contract/control-api.md §3.5.
#[derive(Clone)]
pub struct TokenSeed([u8; 32]);

impl TokenSeed {
    /// Wraps 32 random bytes. Whoever has them can compute every token.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The token the agent of a secured sandbox demands.
    pub fn access_token(&self, id: &SandboxId) -> Secret {
        Secret::new(hex::encode(self.mac("access-token/", id.as_str())))
    }

    /// Under what a token is filed, so that a look-up compares nothing that a caller could measure.
    pub(crate) fn index_of(&self, token: &str) -> [u8; 32] {
        self.mac("token-index/", token)
    }

    fn mac(&self, purpose: &str, text: &str) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length will do");
        mac.update(purpose.as_bytes());
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for TokenSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSeed(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_stable_and_of_one_sandbox_and_one_seed() {
        let seed = TokenSeed::new([1; 32]);
        let (a, b) = ("ia".parse().unwrap(), "ib".parse().unwrap());
        assert_eq!(seed.access_token(&a), seed.access_token(&a));
        assert_ne!(seed.access_token(&a), seed.access_token(&b));
        assert_ne!(seed.access_token(&a), TokenSeed::new([2; 32]).access_token(&a));
        assert_eq!(seed.access_token(&a).expose().len(), 64);
        assert_eq!(format!("{seed:?}"), "TokenSeed(…)");
    }
}
